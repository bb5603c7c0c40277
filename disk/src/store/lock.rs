//! One writer a file.
//!
//! The lock is of the open file description (`F_OFD_SETLK`), over the whole file. It has two uses:
//!
//! - A second disk, or a QEMU with the same image, is refused. QEMU locks single bytes in the same way.
//! - A daemon that is killed leaves operations in the kernel. They keep the description, hence the lock, until they
//!   have ended. So the next daemon can't have the lock before nothing of the last one can reach the file any more.
//!   Else an old write could come after a new one.
//!
//! A lock on a network file system holds between machines.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Time between two tries.
const RETRY: Duration = Duration::from_millis(5);

fn whole(kind: libc::c_int) -> libc::flock {
    let kind = libc::c_short::try_from(kind).unwrap_or_default();
    let whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Locks the file, for readers only if `read_only`. Waits at most so long.
///
/// # Errors
/// EWOULDBLOCK if another one has it, or what the file system says.
pub(super) fn lock(file: BorrowedFd<'_>, read_only: bool, most: Duration) -> io::Result<()> {
    let began = Instant::now();
    let request = whole(if read_only { libc::F_RDLCK } else { libc::F_WRLCK });
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&request)) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) if began.elapsed() < most => std::thread::sleep(RETRY),
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(Errno::EWOULDBLOCK.into()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Gives the lock back.
pub(super) fn unlock(file: BorrowedFd<'_>) {
    // It also goes with the description. Nothing can be done about an error.
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&whole(libc::F_UNLCK)));
}
