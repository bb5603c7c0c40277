//! Errors of requests to instances.

use switch::ErrorKind;

/// Why a request failed. Nothing has changed then. REST answers with the code in brackets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SppError {
    /// There is no such instance (404).
    #[error("{0}")]
    NotFound(String),
    /// The request names a port, component or entry that is not there (400).
    #[error("{0}")]
    Absent(String),
    /// The request can't be carried out (400).
    #[error("{0}")]
    Refused(String),
    /// The switch failed to carry it out (500).
    #[error("{0}")]
    System(String),
}

impl SppError {
    /// A `Refused` with this reason.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

impl From<switch::Error> for SppError {
    fn from(error: switch::Error) -> Self {
        match error.kind() {
            ErrorKind::System => Self::System(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<ctl_service::Error> for SppError {
    fn from(error: ctl_service::Error) -> Self {
        match error {
            ctl_service::Error::Switch(error) => error.into(),
            error => Self::System(error.to_string()),
        }
    }
}

impl From<SppError> for ctl_service::Error {
    fn from(error: SppError) -> Self {
        match error {
            SppError::NotFound(why) => Self::not_found(why),
            SppError::Absent(why) | SppError::Refused(why) => Self::invalid(why),
            SppError::System(why) => Self::Switch(switch::Error::new(switch::ErrorKind::System, why)),
        }
    }
}
