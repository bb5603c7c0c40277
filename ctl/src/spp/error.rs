//! What SPP's requests can fail with.

use switch::ErrorKind;

/// Why a request was not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SppError {
    /// No such instance (404).
    #[error("{0}")]
    NotFound(String),
    /// A request that can't be done (400).
    #[error("{0}")]
    Refused(String),
    /// The switch could not do it (500).
    #[error("{0}")]
    System(String),
}

impl SppError {
    /// A request that can't be done.
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

impl From<crate::error::Error> for SppError {
    fn from(error: crate::error::Error) -> Self {
        match error {
            crate::error::Error::Switch(error) => error.into(),
            error => Self::System(error.to_string()),
        }
    }
}
