//! Errors as clients see them.

use model::ErrorKind;
use serde::{Deserialize, Serialize};

/// An error in the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What is wrong, and what would be right.
    pub error: String,
    /// Name of the Linux errno for the kind of error, such as `ENOENT`.
    pub code: String,
    /// Number of that errno.
    pub status: i32,
}

impl ErrorBody {
    /// The body for an error of that kind.
    pub fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        let (code, status) = match kind {
            ErrorKind::NotFound => ("ENOENT", libc::ENOENT),
            ErrorKind::Exists => ("EEXIST", libc::EEXIST),
            ErrorKind::Invalid => ("EINVAL", libc::EINVAL),
            ErrorKind::Full => ("ENOSPC", libc::ENOSPC),
            ErrorKind::Busy => ("EBUSY", libc::EBUSY),
            ErrorKind::Loop => ("ELOOP", libc::ELOOP),
            ErrorKind::WrongMode => ("EACCES", libc::EACCES),
            ErrorKind::NotEmpty => ("ENOTEMPTY", libc::ENOTEMPTY),
            ErrorKind::NotReady => ("EPERM", libc::EPERM),
            ErrorKind::Unsupported => ("EOPNOTSUPP", libc::EOPNOTSUPP),
            ErrorKind::Denied => ("EACCES", libc::EACCES),
            ErrorKind::System => ("EIO", libc::EIO),
        };
        Self { error: error.into(), code: code.to_owned(), status }
    }
}
