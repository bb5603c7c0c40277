//! Checks of what disks need: io_uring, locked memory, directories with direct I/O, devices, locks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use ctl_types::{Check, DiskEntry, DiskState, Status};
use disk::uring::Ring;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};

use crate::Disks;
use crate::config::DiskSettings;

/// How long storage may take to answer a check.
const WAIT: Duration = Duration::from_secs(5);
/// Locked memory that an io_uring of a disk's thread needs on kernels that count it (before 5.12), in bytes.
const RING_MEMORY: u64 = 1 << 20;

/// Checks that need no disk: whether this process may use io_uring, and lock memory.
pub fn check_machine() -> Vec<Check> {
    let name = "io_uring";
    let uring = match Ring::new(64, 1) {
        Ok(_) => Check::ok(name, "this process may use it"),
        Err(error) => {
            let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            let advice = match (error.raw_os_error().map(Errno::from_raw), setting.trim()) {
                (Some(Errno::EPERM), "1" | "2") => {
                    "allow it: `sysctl kernel.io_uring_disabled=0`, or 1 with `io_uring_group`; without it there are no disks"
                }
                (Some(Errno::ENOMEM), _) => "raise the limit of locked memory (`LimitMEMLOCK=infinity`)",
                _ => "disks need kernel 5.10 or later, and a sandbox that allows io_uring",
            };
            Check::bad(Status::Warn, name, format!("it can't be used: {error}"), advice)
        }
    };
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap_or_default();
    let memlock = if soft >= RING_MEMORY {
        Check::ok("locked memory of disks", "enough for a thread's io_uring")
    } else {
        let text = format!("the limit is {soft} bytes: kernels before 5.12 may refuse the io_uring of a disk");
        Check::bad(Status::Warn, "locked memory of disks", text, "set `LimitMEMLOCK=infinity` in the unit")
    };
    vec![uring, memlock]
}

impl Disks {
    /// Checks directories, devices and disks. Waits for storage a few seconds at most.
    pub fn checks(&self) -> Vec<Check> {
        let settings = self.settings();
        let mut checks = check_places(settings);
        let entries = self.entries();
        // Directories of the daemon's own are made with the first disk.
        checks.retain(|check| check.status != Status::Warn || !entries.is_empty() || settings.made.is_empty());
        checks.extend(entries.iter().map(check_disk));
        checks
    }
}

fn check_places(settings: &DiskSettings) -> Vec<Check> {
    let (tell, told) = channel();
    let (directories, devices) = (settings.directories.clone(), settings.devices.clone());
    let made = settings.made.clone();
    let sockets = settings.socket_directory.clone();
    // A network that is gone must not hold the caller.
    std::thread::spawn(move || {
        directories.iter().for_each(|path| drop(tell.send(check_directory(path, made.contains(path)))));
        devices.iter().for_each(|path| drop(tell.send(check_device(path))));
        if !sockets.as_os_str().is_empty() && !made.contains(&sockets) && !sockets.is_dir() {
            let name = format!("sockets of disks in {}", sockets.display());
            let advice = "make it, or name another `socket_directory` in [disks]";
            let _ = tell.send(Check::bad(Status::Fail, name, "there is no such directory", advice));
        }
    });
    let expected = settings.directories.len() + settings.devices.len();
    let mut checks = Vec::new();
    loop {
        match told.recv_timeout(WAIT) {
            Ok(check) => checks.push(check),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return checks,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                let text =
                    format!("{} of {expected} places for images do not answer", expected - checks.len().min(expected));
                let advice = "look at the storage, or the network to it";
                checks.push(Check::bad(Status::Fail, "images of disks", text, advice));
                return checks;
            }
        }
    }
}

/// A directory has to be there, to be writable, and should have direct I/O.
fn check_directory(path: &Path, is_made: bool) -> Check {
    let name = format!("images in {}", path.display());
    let direct = OFlag::O_DIRECT | OFlag::O_CLOEXEC;
    let open = |flags: OFlag| {
        let kind = OFlag::O_TMPFILE.bits() & !OFlag::O_DIRECTORY.bits() | OFlag::O_DIRECTORY.bits();
        OpenOptions::new().write(true).mode(0o600).custom_flags(kind | flags.bits()).open(path)
    };
    match open(direct) {
        Ok(file) => locked(&name, &file),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_made => {
            Check::bad(Status::Warn, name, "it is not there yet", "it is made with the first disk")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let advice = "make it, mount it, or leave it out of `directories` in [disks]";
            Check::bad(Status::Fail, name, "there is no such directory", advice)
        }
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) && open(OFlag::O_CLOEXEC).is_ok() => {
            let advice = "its images go by the host's page cache: use another file system if that matters";
            Check::bad(Status::Warn, name, "the file system has no O_DIRECT", advice)
        }
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
            Check::ok(name, "it is there; the file system can't be tried without making a file")
        }
        Err(error) => {
            let advice = "the daemon has to be able to make files there";
            Check::bad(Status::Fail, name, error.to_string(), advice)
        }
    }
}

/// Images need locks of open files.
fn locked(name: &str, file: &File) -> Check {
    use nix::fcntl::{FcntlArg, fcntl};
    let whence = nix::libc::c_short::try_from(nix::libc::SEEK_SET).unwrap_or_default();
    let kind = nix::libc::c_short::try_from(nix::libc::F_WRLCK).unwrap_or_default();
    let lock = nix::libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Check::ok(name, "there, with O_DIRECT and locks"),
        Err(errno) => {
            let advice = "the file system needs locks of open files (OFD), so that an image has one writer";
            Check::bad(Status::Fail, name, format!("files there can't be locked: {errno}"), advice)
        }
    }
}

fn check_device(path: &Path) -> Check {
    let name = format!("block device {}", path.display());
    match std::fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => Check::ok(name, "there"),
        Ok(_) => {
            let advice = "name block devices in `devices` of [disks], and files by their directories";
            Check::bad(Status::Fail, name, "it is no block device", advice)
        }
        Err(error) => Check::bad(Status::Warn, name, error.to_string(), "disks on it come up once it is there"),
    }
}

fn check_disk(entry: &DiskEntry) -> Check {
    let name = format!("disk {}", entry.name);
    let why = entry.error.clone().unwrap_or_default();
    let info = entry.info.as_ref();
    match entry.state {
        DiskState::Failed => Check::bad(Status::Fail, name, why, "it is tried again every few seconds"),
        DiskState::Degraded => Check::bad(Status::Warn, name, why, "it is shown until that is mended"),
        DiskState::Starting => Check::bad(Status::Warn, name, "it is being brought up", "wait"),
        DiskState::Up if info.is_some_and(|info| !info.direct) && !entry.spec.buffered => {
            let advice =
                "its image goes by the host's page cache: direct I/O there is none, or not by blocks of that size";
            Check::bad(Status::Warn, name, "up, without direct I/O", advice)
        }
        DiskState::Up => Check::ok(name, if entry.spec.is_paused() { "up, paused" } else { "up" }),
    }
}
