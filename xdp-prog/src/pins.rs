//! Where links and maps of guests' programs are pinned: a directory a port, on a BPF file system.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::attach::XdpLink;
use crate::error::Error;

/// Names of what is pinned in a port's directory.
pub(crate) const LINK: &str = "link";
pub(crate) const SOCKETS: &str = "sockets";
pub(crate) const COUNTERS: &str = "counters";
/// Longest time that another daemon takes to mount a BPF file system.
const MOUNTING: Duration = Duration::from_secs(2);
/// Attempts to make a directory while others remove those above it.
const ATTEMPTS: u32 = 10;

fn pins_error(doing: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    Error::system(format!("{doing} {}, where links and maps of guests are pinned", path.display()), &why)
}

/// Makes a port's directory of pins and its parents, even if others remove empty ones meanwhile.
pub(crate) fn make_pins(dir: &Path) -> Result<(), Error> {
    let mut attempts = 0..ATTEMPTS;
    loop {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts.next().is_some() => {}
            result => return result.map_err(|error| pins_error("making", dir, error)),
        }
    }
}

/// Removes a port's directory of pins, if it exists, and then up to two parents that are empty. What was pinned lives
/// on only where somebody has it open.
pub fn forget_pins(pins: &Path) -> Result<(), Error> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pins_error("removing", pins, error)),
        _ => Ok(()),
    };
    // The kernel lets go of an unpinned link later, so that its program could be met on the netdev still.
    if let Some(link) = XdpLink::pinned(&pins.join(LINK))? {
        link.detach()?;
    }
    for name in [LINK, SOCKETS, COUNTERS] {
        gone(fs::remove_file(pins.join(name)))?;
    }
    gone(fs::remove_dir(pins))?;
    // The parents were made for the pins: the switch's own directory, and that of all switches.
    let above = pins.ancestors().skip(1).take(2);
    above.take_while(|dir| fs::remove_dir(dir).is_ok()).for_each(drop);
    Ok(())
}

/// Ensures that `path` is on a BPF file system. Mounts one if `path` is an empty directory on another file system.
/// `/sys/fs/bpf` is one where no service manager has mounted it.
///
/// # Errors
/// [`Error::System`] if the directory is not empty, or mounting fails.
pub fn bpffs_at(path: &Path) -> Result<(), Error> {
    let is_bpffs = || {
        let stat = statfs(path).map_err(|errno| mounting_error("looking at", path, errno))?;
        Ok(stat.filesystem_type() == BPF_FS_MAGIC)
    };
    if is_bpffs()? {
        return Ok(());
    }
    // Two daemons that start together must not mount over each other.
    let mut dir = File::open(path).map_err(|error| pins_error("opening", path, error))?;
    let deadline = Instant::now() + MOUNTING;
    let _turn = loop {
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => break turn,
            // Anybody can lock a directory that they can open, and keep it.
            Err((_, errno)) if errno != Errno::EWOULDBLOCK || Instant::now() >= deadline => {
                return Err(mounting_error("locking", path, errno));
            }
            Err((unlocked, _)) => dir = unlocked,
        }
        thread::sleep(Duration::from_millis(10));
        if is_bpffs()? {
            return Ok(());
        }
    };
    if is_bpffs()? {
        return Ok(());
    }
    let mounting = |errno| mounting_error("mounting a BPF file system at", path, errno);
    if fs::read_dir(path).map_err(|error| pins_error("opening", path, error))?.next().is_some() {
        return Err(mounting(Errno::ENOTEMPTY));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700")).map_err(mounting)
}

fn mounting_error(doing: &str, path: &Path, errno: Errno) -> Error {
    let advice = match errno {
        Errno::ENOENT => ": the kernel has no BPF file system, or sysfs is not mounted",
        Errno::EPERM | Errno::EACCES => ": CAP_SYS_ADMIN is needed, or somebody who mounts it before",
        _ => "",
    };
    pins_error(doing, path, format_args!("{errno}{advice}"))
}
