//! Locks directories for the exclusive use of one daemon.
//!
//! Whoever may open a file may lock it (flock(2)). So the lock is a file that only the daemon's user may open. A second
//! file beside it is for everybody's eyes: it has the daemon's process number. Earlier versions locked that one. It is
//! locked here too if it is free, so that both versions exclude each other. Somebody else's lock on it means nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::make_directory;
use crate::error::Error;
use crate::place::Place;

/// The file that is locked, for the daemon's user only.
const PRIVATE: &str = "exclusive.lock";
/// The file with the daemon's process number.
const PUBLIC: &str = "xswitchd.lock";
/// The daemon's name as a process (`comm`).
const DAEMON: &str = "xswitchd";

/// Exclusive use of a directory among daemons, for as long as this value lives.
#[derive(Debug)]
pub struct DirLock {
    dir: PathBuf,
    private: (Flock<File>, Place),
    public: (Shown, Place),
}

/// The file for everybody's eyes, locked if nobody else has a lock on it.
type Shown = Result<Flock<File>, File>;

impl DirLock {
    /// Takes a directory, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::InUse`] if a daemon has it. Otherwise, if a file can't be made there.
    pub fn take(dir: &Path) -> Result<Self, Error> {
        make_directory(dir)?;
        Ok(Self { dir: dir.to_owned(), private: lock(dir)?, public: show(dir)? })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory and its files again if they are not in their place any more. Returns whether it did.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub fn look_after(&mut self) -> Result<bool, Error> {
        let lost = [&self.private.1, &self.public.1].map(|place| !place.is_taken());
        if lost == [false, false] {
            return Ok(false);
        }
        make_directory(&self.dir)?;
        if lost[0] {
            self.private = lock(&self.dir)?;
        }
        if lost[1] {
            self.public = show(&self.dir)?;
        }
        Ok(true)
    }
}

/// Locks the directory.
fn lock(dir: &Path) -> Result<(Flock<File>, Place), Error> {
    let path = dir.join(PRIVATE);
    match Flock::lock(open(&path, 0o600)?, FlockArg::LockExclusiveNonblock) {
        Ok(file) => {
            let place = place(&file, &path)?;
            Ok((file, place))
        }
        Err((_, Errno::EWOULDBLOCK)) => Err(in_use(dir, written(dir))),
        Err((_, errno)) => Err(failed("locking", &path, errno.into())),
    }
}

/// Shows who has the directory.
fn show(dir: &Path) -> Result<(Shown, Place), Error> {
    let path = dir.join(PUBLIC);
    let shown = match Flock::lock(open(&path, 0o644)?, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(file),
        Err((file, _)) => match written(dir).filter(|pid| is_daemon(pid)) {
            Some(pid) => return Err(in_use(dir, Some(pid))),
            None => Err(file),
        },
    };
    let mut file: &File = match &shown {
        Ok(locked) => locked,
        Err(file) => file,
    };
    nix::unistd::ftruncate(file.as_fd(), 0)
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(|error| failed("writing", &path, error))?;
    let place = place(file, &path)?;
    Ok((shown, place))
}

fn place(file: &File, path: &Path) -> Result<Place, Error> {
    Place::of(file, path).map_err(|error| failed("looking at", path, error))
}

/// Opens a file, with exactly that mode. Follows no symbolic link that another user may have put there.
fn open(path: &Path, mode: u32) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(mode).custom_flags(libc::O_NOFOLLOW);
    let opened = options.open(path).and_then(|file| {
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        Ok(file)
    });
    opened.map_err(|error| failed("opening", path, error))
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("{what} {}", path.display()), error)
}

fn in_use(dir: &Path, holder: Option<String>) -> Error {
    Error::InUse { path: dir.join(PUBLIC), holder: holder.unwrap_or_else(|| "unknown".to_owned()) }
}

/// The process number that a daemon has written, if one has.
fn written(dir: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(dir.join(PUBLIC)).and_then(|file| file.take(32).read_to_string(&mut text)).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

/// Whether that process is a living daemon. Only the daemon's user can have written its number.
fn is_daemon(pid: &str) -> bool {
    pid.parse::<u32>().is_ok_and(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        pid != std::process::id() && name.trim_end() == DAEMON
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        let error = DirLock::take(dir.path()).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        DirLock::take(dir.path()).unwrap();
        assert_eq!(mode(&dir.path().join(PRIVATE)), 0o600);
    }

    #[test]
    fn a_lock_that_anybody_can_have_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(PUBLIC), "1").unwrap();
        for kind in [FlockArg::LockSharedNonblock, FlockArg::LockExclusiveNonblock] {
            let held = Flock::lock(File::open(dir.path().join(PUBLIC)).unwrap(), kind).unwrap();
            let lock = DirLock::take(dir.path()).unwrap();
            assert!(DirLock::take(dir.path()).is_err(), "it is locked all the same");
            drop((held, lock));
        }
    }

    #[test]
    fn a_lock_file_that_was_open_to_all_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join(PRIVATE);
        std::fs::write(&private, "").unwrap();
        std::fs::set_permissions(&private, PermissionsExt::from_mode(0o666)).unwrap();
        DirLock::take(dir.path()).unwrap();
        assert_eq!(mode(&private), 0o600);
    }

    #[test]
    fn what_is_removed_is_made_again_and_locked() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("state");
        let mut lock = DirLock::take(&dir).unwrap();
        assert!(!lock.look_after().unwrap());
        for remove in [
            (|dir| std::fs::remove_dir_all(dir).unwrap()) as fn(&Path),
            |dir| std::fs::remove_file(dir.join(PRIVATE)).unwrap(),
            |dir| std::fs::remove_file(dir.join(PUBLIC)).unwrap(),
            |dir| std::fs::rename(dir, dir.with_extension("moved")).unwrap(),
        ] {
            remove(&dir);
            assert!(lock.look_after().unwrap());
            assert!(!lock.look_after().unwrap());
            assert!(matches!(DirLock::take(&dir), Err(Error::InUse { .. })));
        }
        std::fs::remove_dir_all(&dir).unwrap();
        let other = DirLock::take(&dir).unwrap();
        assert!(matches!(lock.look_after(), Err(Error::InUse { .. })), "another daemon was quicker");
        drop(other);
        assert!(lock.look_after().unwrap());
    }
}
