//! A process that holds sockets: its identity beyond the reusable process number, its end, and its descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A process, identified by number and start time.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    /// Readable once the process has ended.
    pidfd: OwnedFd,
    started: u64,
}

impl Process {
    /// Opens a process by its number.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, otherwise the kernel's error.
    pub fn open(pid: i32) -> io::Result<Self> {
        // `from_raw` panics on a negative number.
        let number = Some(pid).filter(|&pid| pid > 0).and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => io::ErrorKind::NotFound.into(),
            errno => io::Error::from(errno),
        })?;
        let started = start_time(pid).ok_or(io::ErrorKind::NotFound)?;
        let process = Self { pid, pidfd, started };
        // The number may have been reused between the two calls. The start time is right only if the process behind
        // `pidfd` still lives.
        if process.has_ended() { Err(io::ErrorKind::NotFound.into()) } else { Ok(process) }
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its start time, in clock ticks since boot (proc(5), `starttime`). Together with the number it identifies the
    /// process.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1))
    }

    /// Its name as the kernel keeps it, of at most 15 bytes.
    pub fn command(&self) -> String {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        name.trim_end().to_owned()
    }

    /// Its real user id.
    pub fn user(&self) -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
    }

    /// Its descriptors of the sockets with these inodes. `None` if the process may not be inspected.
    pub fn sockets(&self, inodes: &[u64]) -> Option<Vec<(i32, u64)>> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let target = match std::fs::read_link(entry.path()) {
                Ok(target) => target,
                // The descriptor was closed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Listing descriptors takes CAP_DAC_OVERRIDE, but reading their targets takes CAP_SYS_PTRACE.
                Err(_) => return None,
            };
            let inode = || target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
            let fd = || entry.file_name().to_str()?.parse().ok();
            if let (Some(fd), Some(inode)) = (fd(), inode())
                && inodes.contains(&inode)
            {
                found.push((fd, inode));
            }
        }
        Some(found)
    }

    /// Copies one of its descriptors. This needs the right to trace the process.
    pub fn copy_fd(&self, fd: i32) -> io::Result<OwnedFd> {
        Ok(pidfd_getfd(&self.pidfd, fd, PidfdGetfdFlags::empty())?)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may contain anything. The start time is the 20th field after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::open(child.id().cast_signed()).unwrap();
        assert!(!process.has_ended() && process.started() > 0);
        assert_eq!(process.user(), Some(nix::unistd::getuid().as_raw()));
        drop(child.stdin.take());
        // A dead process keeps its number until it is waited for.
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        assert!(process.has_ended());
        child.wait().unwrap();
        assert_eq!(Process::open(child.id().cast_signed()).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Process::open(-1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn its_sockets_are_found_by_inode_and_copied() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let inode = std::fs::File::from(OwnedFd::from(one.try_clone().unwrap())).metadata().unwrap().ino();
        let this = Process::open(std::process::id().cast_signed()).unwrap();
        let found = this.sockets(&[inode]).unwrap();
        assert!(!found.is_empty() && found.iter().all(|&(_, found)| found == inode));
        let copy = this.copy_fd(found[0].0).unwrap();
        assert_eq!(std::fs::File::from(copy).metadata().unwrap().ino(), inode);
        assert_eq!(this.sockets(&[]), Some(Vec::new()));
    }
}
