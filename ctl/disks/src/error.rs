//! The crate's error, and what errors of the crate `disk` and of the system are to users.

use std::io;
use std::path::Path;

use disk::disk::DiskError;
use disk::image::ImageError;
use model::ErrorKind;
use nix::errno::Errno;
use vhost_user::socket::BindError;

/// An error: its kind, and a text that names the field, what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    kind: ErrorKind,
    text: String,
}

impl Error {
    /// An error of that kind.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, text)
    }

    pub(crate) fn exists(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Exists, text)
    }

    pub(crate) fn busy(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, text)
    }

    pub(crate) fn system(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, text)
    }

    /// An error of the system, of the field `field`.
    pub(crate) fn io(field: &str, what: &str, path: &Path, error: &io::Error) -> Self {
        let reason = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP | Errno::EXDEV) => {
                "it leads out of the configured directories, or is a symbolic link".to_owned()
            }
            Some(Errno::EBUSY) => "it is in use: mounted, or open exclusively".to_owned(),
            _ => error.to_string(),
        };
        Self::new(kind_of(error), format!("{field}: {what} {}: {reason}", path.display()))
    }

    /// Why an image can't be used. `field` has its path.
    pub(crate) fn image(field: &str, error: &ImageError) -> Self {
        match error {
            ImageError::Outside(path) => Self::invalid(format!(
                "{field}: {} is in none of the directories for images, and no configured block device",
                path.display()
            )),
            ImageError::Directory { path, error } => Self::io(field, "the directory", path, error),
            ImageError::Failed { step, path, error } => Self::io(field, step, path, error),
            ImageError::NoReflink(_) => Self::new(ErrorKind::Unsupported, format!("{field}: {error}")),
        }
    }

    /// Why a disk can't be served or changed. `path` is its image's.
    pub(crate) fn disk(error: DiskError, path: &Path) -> Self {
        match error {
            DiskError::Invalid(text) => Self::invalid(text),
            DiskError::InUse => {
                let text = "is locked: another disk, a QEMU, or a daemon that has just ended has it";
                Self::busy(format!("path: {} {text}", path.display()))
            }
            DiskError::Failed { step, error } => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(bind) => Self::socket(bind),
                None => Self::new(kind_of(&error), format!("{step}: {error}")),
            },
            DiskError::Image(error) => Self::image("path", &error),
            DiskError::Slow(_) => Self::busy("requests of the guest are still in work"),
        }
    }

    fn socket(error: &BindError) -> Self {
        let kind = match error {
            BindError::InUse(_) | BindError::OtherFile(_) => ErrorKind::Busy,
            BindError::Failed { errno: Errno::ENOENT | Errno::ENOTDIR, .. } => ErrorKind::NotFound,
            BindError::Failed { errno: Errno::ENAMETOOLONG, .. } => ErrorKind::Invalid,
            BindError::Failed { .. } => ErrorKind::System,
        };
        Self::new(kind, format!("socket: {error}"))
    }
}

/// The kind of an error of the system.
fn kind_of(error: &io::Error) -> ErrorKind {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO | Errno::ENODEV) => ErrorKind::NotFound,
        Some(Errno::EEXIST) => ErrorKind::Exists,
        Some(Errno::ENOSPC | Errno::EDQUOT) => ErrorKind::Full,
        Some(Errno::EBUSY | Errno::ETXTBSY) => ErrorKind::Busy,
        Some(Errno::ELOOP | Errno::EXDEV | Errno::EISDIR | Errno::ENAMETOOLONG | Errno::EFBIG | Errno::EINVAL) => {
            ErrorKind::Invalid
        }
        _ if error.kind() == io::ErrorKind::InvalidInput => ErrorKind::Invalid,
        _ => ErrorKind::System,
    }
}
