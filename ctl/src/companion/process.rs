//! A process that has sockets: told apart from a later one of the same number, waited for, looked into.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A process.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    /// Ready once it has ended.
    pidfd: OwnedFd,
    started: u64,
}

impl Process {
    /// The process of that number.
    ///
    /// # Errors
    /// The kernel's; NotFound if there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        // `from_raw` panics at a negative number.
        let number = Some(pid).filter(|&pid| pid > 0).and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => io::ErrorKind::NotFound.into(),
            errno => io::Error::from(errno),
        })?;
        let started = start_time(pid).ok_or(io::ErrorKind::NotFound)?;
        let process = Self { pid, pidfd, started };
        // The start time is of the process behind `pidfd` only if that lived on until it was read.
        if process.has_ended() { Err(io::ErrorKind::NotFound.into()) } else { Ok(process) }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When it started, in clock ticks since the machine did (proc(5), `starttime`): with the number an identity.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1))
    }

    /// Its name, as the kernel keeps it (15 bytes at most).
    pub fn command(&self) -> String {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        name.trim_end().to_owned()
    }

    /// Its real user.
    pub fn user(&self) -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
    }

    /// Which of its descriptors are the sockets with these inodes; `None` if it may not be looked into.
    pub fn sockets(&self, inodes: &[u64]) -> Option<Vec<(i32, u64)>> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let target = match std::fs::read_link(entry.path()) {
                Ok(target) => target,
                // Closed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Listing them takes less (CAP_DAC_OVERRIDE) than reading what they are (CAP_SYS_PTRACE).
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

    /// A copy of one of its descriptors. Needs the right to trace it.
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
    // The name, in parentheses, may hold anything; the 20th field behind it is the start time.
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
        // Not waited for yet: a dead process keeps its number until then.
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
