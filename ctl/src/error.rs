//! The crate's error, and how it looks to clients.

use std::path::PathBuf;

pub use ctl_types::ErrorBody;
use switch::ErrorKind;

/// What went wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data plane refused.
    #[error(transparent)]
    Switch(#[from] switch::Error),
    /// A configuration file that can't be used.
    #[error("configuration {path}: {why}")]
    Config {
        /// File.
        path: PathBuf,
        /// Reason, with line and key where there are some.
        why: String,
    },
    /// A state file that can't be used; it is left as it is.
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
        /// Why it can't be kept.
        source: Box<Error>,
        /// Why it can't be undone.
        undo: switch::Error,
    },
    /// Another daemon has this directory.
    #[error("{path} is in use by another xswitchd (process {holder}): end that one, or name another directory")]
    InUse {
        /// Lock file.
        path: PathBuf,
        /// Its process id, as it wrote it down.
        holder: String,
    },
    /// A file or socket operation.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
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

    /// A bad value; the text names the field.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::Invalid, message))
    }

    /// Something that the one who asks may not have.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::Denied, message))
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::NotFound, message))
    }

    /// Something that is taken.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::Switch(switch::Error::new(ErrorKind::Exists, message))
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Switch(error) => error.kind(),
            Error::InUse { .. } => ErrorKind::Busy,
            _ => ErrorKind::System,
        }
    }
}
