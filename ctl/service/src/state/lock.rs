//! Locks directories for the exclusive use of one daemon.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::Error;

/// Exclusive use of a directory among daemons, for as long as this value lives.
#[derive(Debug)]
pub struct DirLock {
    _file: Flock<File>,
}

impl DirLock {
    /// Takes a directory, and creates it if it does not exist.
    pub fn take(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io(format!("making {}", dir.display()), error))?;
        let path = dir.join("xswitchd.lock");
        // Follows no symbolic link that another user may have put there.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
        let opened = options.open(&path);
        let file = opened.map_err(|error| Error::io(format!("opening {}", path.display()), error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let id = std::process::id().to_string();
                nix::unistd::ftruncate(file.as_fd(), 0)
                    .map_err(std::io::Error::from)
                    .and_then(|()| file.write_all(id.as_bytes()))
                    .map_err(|error| Error::io(format!("writing {}", path.display()), error))?;
                Ok(Self { _file: file })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                Err(Error::InUse { path, holder: if holder.is_empty() { "unknown".to_owned() } else { holder } })
            }
            Err((_, errno)) => Err(Error::io(format!("locking {}", path.display()), errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        let error = DirLock::take(dir.path()).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        DirLock::take(dir.path()).unwrap();
    }
}
