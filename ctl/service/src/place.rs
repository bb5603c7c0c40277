//! Files of the daemon that others may remove or replace.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A path, and the file that the daemon has there. Its identity is never used for another file while the daemon has it
/// open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// The place of an open file.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(file: &File, path: &Path) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino() })
    }

    /// The place of whatever is at `path` now, such as a socket that was just bound.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn at(path: &Path) -> std::io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino() })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still there.
    pub fn is_taken(&self) -> bool {
        Self::at(&self.path).is_ok_and(|now| now == *self)
    }
}
