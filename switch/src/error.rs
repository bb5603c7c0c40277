//! The crate's error.

pub use model::ErrorKind;

/// An error of the data plane: what is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of that kind. `message` is what users read.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// An error of kind `Invalid`. `message` names the field, what is wrong and what would be right.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<xdp_prog::Error> for Error {
    fn from(error: xdp_prog::Error) -> Self {
        let kind = match error.kind() {
            xdp_prog::ErrorKind::Busy => ErrorKind::Busy,
            xdp_prog::ErrorKind::Unsupported => ErrorKind::Unsupported,
            xdp_prog::ErrorKind::Full => ErrorKind::Full,
            xdp_prog::ErrorKind::System => ErrorKind::System,
        };
        Self::new(kind, error.to_string())
    }
}
