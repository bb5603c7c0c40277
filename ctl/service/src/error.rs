//! The crate's error type. Its kind becomes an HTTP status, or the errno of [`ctl_types::ErrorBody`] and of the DPU
//! interface.

use std::path::PathBuf;

use switch::ErrorKind;

/// What went wrong, with advice where there is some.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data plane refused.
    #[error(transparent)]
    Switch(#[from] switch::Error),
    /// A disk can't be, or can't be changed so.
    #[error(transparent)]
    Disk(#[from] ctl_disks::Error),
    /// A state file is unusable. It is left as it is.
    #[error(
        "state file {path}: {why}; it is left as it is: restore it from a copy, or move it away to start with no ports"
    )]
    State {
        /// File.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// The state can't be written, so the change was undone.
    #[error("the change was undone because it can't be kept: writing {path}: {source}")]
    NotKept {
        /// File.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// The state can't be written, and the change could not be undone either.
    #[error(
        "the change is in force but can't be kept ({source}), and undoing it failed too: {undo}; after a restart it is gone"
    )]
    NotUndone {
        /// Why it can't be written.
        source: Box<Error>,
        /// Why it can't be undone.
        undo: switch::Error,
    },
    /// Another daemon uses this directory.
    #[error("{path} is in use by another xswitchd (process {holder}): end that one, or name another directory")]
    InUse {
        /// Lock file.
        path: PathBuf,
        /// Process number of that daemon, as written in the lock file.
        holder: String,
    },
    /// An operation on a file or socket failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation, with the path.
        what: String,
        /// Reason.
        source: std::io::Error,
    },
}

impl Error {
    /// A failed operation on a file or socket.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// An invalid value. The text names the field.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::Invalid, message))
    }

    /// An operation that the client may not perform.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::Denied, message))
    }

    /// An object that does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::NotFound, message))
    }

    /// An object that exists already, or is in use.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::Exists, message))
    }

    /// Its kind, which clients see as an errno.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Switch(error) => error.kind(),
            Error::Disk(error) => error.kind(),
            Error::InUse { .. } => ErrorKind::Busy,
            _ => ErrorKind::System,
        }
    }
}
