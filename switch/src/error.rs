//! The crate's error.

/// What kind of error it is, for transports that map errors to codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing of that name or number (ENOENT, HTTP 404).
    NotFound,
    /// Name, number or netdev taken (EEXIST, HTTP 409).
    Exists,
    /// A value out of range or combination that makes no sense (EINVAL, HTTP 400).
    Invalid,
    /// A table, the port numbers or the UMEM are used up (ENOSPC, HTTP 507).
    Full,
    /// In use by somebody else, such as a foreign XDP program or a bound queue (EBUSY, HTTP 409).
    Busy,
    /// It would lead back to where it starts (ELOOP, HTTP 409).
    Loop,
    /// Not possible on this port kind, driver or kernel (EOPNOTSUPP, HTTP 422).
    Unsupported,
    /// The one who asks may not have it (EACCES, HTTP 403).
    Denied,
    /// The system refused; the text says what to do (HTTP 500).
    System,
}

/// An error of the data plane: what is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of that kind with that text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A value that can't be: `message` names the field, what is wrong and what would be right.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Its kind.
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
