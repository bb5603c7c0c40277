//! A directory that files are written to. It is opened once, so later changes of its path lead nobody elsewhere.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat, renameat2};
use nix::sys::stat::{Mode, fstatat};

use super::MODE;
use super::pcap_writer::check_room;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    file: OwnedFd,
}

impl Directory {
    /// Opens the directory `path`. With `within`, it must be that directory or lie below it, also after links and `..`,
    /// and even if somebody changes these meanwhile.
    ///
    /// # Errors
    /// The system's error. `CrossesDevices` if the directory is not below `within`.
    pub fn open(path: &Path, within: Option<&Path>) -> io::Result<Self> {
        let file = match within {
            None => open(path)?.into(),
            Some(root) => {
                let below = path.strip_prefix(root).map_err(|_| io::Error::from(io::ErrorKind::CrossesDevices))?;
                let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
                openat2(open(root)?, below, OpenHow::new().flags(flags).resolve(resolve))?
            }
        };
        Ok(Self { path: path.to_owned(), file })
    }

    /// Path of the file of that name. The directory's part is as it was when it was opened.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the name is taken, also by a dangling link.
    pub fn has(&self, name: &str) -> bool {
        fstatat(&self.file, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Checks that its file system has enough room for captures.
    ///
    /// # Errors
    /// `QuotaExceeded` if there is too little room, or the system's error.
    pub fn check_room(&self) -> io::Result<()> {
        check_room(&self.file)
    }

    /// Makes a file with a name that is free.
    ///
    /// # Errors
    /// `AlreadyExists`, or the system's error.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        Ok(openat(&self.file, name, flags, Mode::from_bits_truncate(MODE))?.into())
    }

    /// Renames a file unless the new name is taken.
    ///
    /// # Errors
    /// The system's error.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let at = self.file.as_fd();
        match renameat2(at, from, at, to, RenameFlags::RENAME_NOREPLACE) {
            // This file system can't do it in one step (NFS, for one). The gap between check and rename is small.
            Err(Errno::EINVAL) if !self.has(to) => Ok(renameat(at, from, at, to)?),
            Err(Errno::EINVAL) => Err(Errno::EEXIST.into()),
            result => Ok(result?),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(outer.path().join("secret")).unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink(outer.path().join("secret"), root.join("absolute")).unwrap();
        symlink("/proc/self/cwd", root.join("magic")).unwrap();
        symlink("a/b", root.join("inside")).unwrap();
        let open = |path: PathBuf| Directory::open(&path, Some(&root));
        for path in ["", "a/b", "a/../a", "inside", "a/b/.."] {
            open(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}")).create("file").ok();
        }
        for path in ["..", "up", "absolute", "magic", "a/../../secret", "inside/../../../secret", "up/../root"] {
            let error = open(root.join(path)).err().unwrap_or_else(|| panic!("{path} leads out"));
            assert!(matches!(error.kind(), io::ErrorKind::CrossesDevices), "{path}: {error:?}");
        }
        assert!(open(outer.path().join("secret")).is_err() && open("/".into()).is_err());
        assert_eq!(open(root.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(outer.path().join("secret")).unwrap().count(), 0);
    }

    #[test]
    fn a_path_that_is_swapped_later_leads_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let [here, moved, other] = ["here", "moved", "other"].map(|name| root.path().join(name));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&other).unwrap();
        let directory = Directory::open(&here, Some(root.path())).unwrap();
        fs::rename(&here, &moved).unwrap();
        symlink(&other, &here).unwrap();
        drop(directory.create("x.tmp").unwrap());
        symlink("nowhere", moved.join("y")).unwrap();
        assert!(directory.has("y") && !directory.has("x"));
        assert_eq!(directory.rename("x.tmp", "y").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        directory.rename("x.tmp", "x").unwrap();
        assert_eq!(directory.create("x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(moved.join("x").exists() && fs::read_dir(&other).unwrap().next().is_none());
    }
}
