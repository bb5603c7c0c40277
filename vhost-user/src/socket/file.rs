//! The file of a socket: made with an owner, taken away with care.
//!
//! A directory may be writable for others, `/tmp` for example. So a file is held by a descriptor and is known by its
//! inode. What is changed or removed is that file, whatever is found under its name meanwhile.

use std::fs::Permissions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, fchownat};

use super::client::{ConnectError, connect};
use super::listener::BindError;

/// Who may connect: who may write to the socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The file's owner, by number. `None`: the user of this process.
    pub owner: Option<u32>,
    /// The file's group, by number. `None`: what the directory gives.
    pub group: Option<u32>,
    /// Permission bits, as 0o660.
    pub mode: u32,
}

/// A socket's file. Dropping it removes the file, unless another is in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Holds the inode, so that its number can't be another file's.
    held: OwnedFd,
    id: FileId,
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    /// Of the file with that name. Links are not followed.
    fn at(path: &Path) -> Option<Self> {
        std::fs::symlink_metadata(path).ok().map(|meta| Self(meta.dev(), meta.ino()))
    }
}

impl SocketFile {
    /// The socket's file that was just made there.
    pub(super) fn at(path: &Path) -> Result<Self, Errno> {
        let held = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let found = fstat(&held)?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
            return Err(Errno::ENOTSOCK);
        }
        Ok(Self { path: path.to_owned(), held, id: FileId(found.st_dev, found.st_ino) })
    }

    /// Gives it owner, group and mode.
    pub(super) fn give(&self, access: Access) -> Result<(), Errno> {
        // A descriptor that only holds a file has no fchmod. The owner comes last, because only the owner may set the
        // mode.
        let held = format!("/proc/self/fd/{}", self.held.as_raw_fd());
        std::fs::set_permissions(held, Permissions::from_mode(access.mode)).map_err(|error| errno_of(&error))?;
        if (access.owner, access.group) == (None, None) {
            return Ok(());
        }
        let (owner, group) = (access.owner.map(Uid::from_raw), access.group.map(Gid::from_raw));
        fchownat(&self.held, "", owner, group, AtFlags::AT_EMPTY_PATH)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file with that name is this one.
    pub(super) fn is_in_place(&self) -> bool {
        FileId::at(&self.path) == Some(self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Held from the look at what is there until the new socket listens.
pub(super) static BINDING: Mutex<()> = Mutex::new(());

/// Removes a socket that nobody listens at.
///
/// Another process may put its own socket there at any time. So the file is moved aside first, and is removed only if
/// it is the one that was looked at, and still nobody listens. Otherwise it goes back. The threads of this process do
/// that one after the other ([`BINDING`]).
pub(super) fn remove_stale(path: &Path) -> Result<(), BindError> {
    let in_use = || BindError::InUse(path.to_owned());
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::at("looking at", path)(errno_of(&error))),
    };
    if !meta.file_type().is_socket() {
        return Err(BindError::OtherFile(path.to_owned()));
    }
    match connect(path) {
        Err(ConnectError::Absent(Errno::ECONNREFUSED)) => {}
        Err(ConnectError::Absent(Errno::ENOENT)) => return Ok(()),
        // Somebody listens, even if the backlog is full or the socket is of another type.
        Ok(_) | Err(ConnectError::Absent(_) | ConnectError::Failed(Errno::EPROTOTYPE)) => return Err(in_use()),
        Err(ConnectError::Failed(errno)) => return Err(BindError::at("asking who listens at", path)(errno)),
    }
    let mut aside = path.to_owned().into_os_string();
    aside.push(format!(".stale.{}", std::process::id()));
    let aside = PathBuf::from(aside);
    match move_to(path, &aside) {
        Ok(()) => {}
        // Somebody else has removed it.
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(BindError::at("moving aside", path)(errno)),
    }
    // Its owner may have begun to listen meanwhile.
    let is_stale = matches!(connect(&aside), Err(ConnectError::Absent(Errno::ECONNREFUSED)));
    if is_stale && FileId::at(&aside) == Some(FileId(meta.dev(), meta.ino())) {
        return std::fs::remove_file(&aside).map_err(|error| BindError::at("removing", &aside)(errno_of(&error)));
    }
    move_to(&aside, path).map_err(BindError::at("moving back", &aside))?;
    Err(in_use())
}

/// Renames a file, and replaces none.
fn move_to(from: &Path, to: &Path) -> Result<(), Errno> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
