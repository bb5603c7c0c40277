//! Ports' files in the run directory.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::fcntl::posix_fallocate;

use super::KernelHost;
use crate::host::Journals;
use crate::{Error, ErrorKind};

impl KernelHost {
    fn journal_of(&self, port: &str) -> Option<PathBuf> {
        // A port's name has no slash, and does not begin with a dot.
        Some(self.places.journals.as_ref()?.join(port))
    }
}

impl Journals for KernelHost {
    fn open_journal(&self, port: &str, bytes: u64) -> Result<Option<File>, Error> {
        let Some(path) = self.journal_of(port) else { return Ok(None) };
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::System, format!("the file {} can't be had: {error}", path.display()))
        };
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(failed)?;
        let len = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
        // Who writes to a page that there is no room for would be ended by SIGBUS.
        posix_fallocate(&file, 0, len).map_err(|errno| failed(errno.into()))?;
        Ok(Some(file))
    }

    fn is_journal_in_place(&self, port: &str, file: &File) -> bool {
        let Some(path) = self.journal_of(port) else { return true };
        let number = |file: std::io::Result<Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        let there = number(path.symlink_metadata());
        there.is_some() && there == number(file.metadata())
    }

    fn remove_journal(&self, port: &str) {
        let Some(path) = self.journal_of(port) else { return };
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file of a port that is gone stays");
        }
    }
}
