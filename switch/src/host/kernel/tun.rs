//! Tap devices by `/dev/net/tun`.
#![allow(unsafe_code, reason = "system calls")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;

use crate::host::MAX_IFNAME;
use crate::{Error, ErrorKind};

const DEVICE: &str = "/dev/net/tun";

/// Makes a tap device of that name. It is down at first, and goes when the file is closed. Needs CAP_NET_ADMIN.
///
/// A read or write of the file is one bare frame, and never waits. The kernel's offloads are off, so frames have
/// checksums and are not longer than the MTU.
///
/// # Errors
/// - `Invalid`: not a valid netdev name.
/// - `Busy`: the name is taken.
/// - `Denied`: no permission.
/// - `Unsupported`: the kernel has no tap devices.
pub fn create_tap(ifname: &str) -> Result<File, Error> {
    // The kernel would replace `%d` by a number.
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || ['/', ':', '%'].contains(&c);
    if !(1..=MAX_IFNAME).contains(&ifname.len()) || ifname.contains(is_bad) || [".", ".."].contains(&ifname) {
        let text =
            format!("ifname: `{ifname}` is no name of a netdev: 1–{MAX_IFNAME} bytes without space, `/`, `:`, `%`");
        return Err(Error::invalid(text));
    }
    open(ifname, libc::IFF_TAP | libc::IFF_TUN_EXCL).map_err(|errno| failed(ifname, errno))
}

/// Makes a tap device that stays after its file is closed, and closes the file. It is down. Needs CAP_NET_ADMIN.
///
/// # Errors
/// As [`create_tap`]. Nothing is left.
pub fn create_persistent_tap(
    ifname: &str,
    multi_queue: bool,
    owner: Option<u32>,
    group: Option<u32>,
) -> Result<(), Error> {
    let flags = if multi_queue { libc::IFF_TAP | libc::IFF_MULTI_QUEUE } else { libc::IFF_TAP };
    let made = || {
        // Without `IFF_TUN_EXCL` the call would take over somebody else's persistent tap.
        let file = open(ifname, flags | libc::IFF_TUN_EXCL)?;
        // The kernel takes -1, as a number without a sign, for nobody in particular.
        if let Some(uid) = owner {
            set(&file, libc::TUNSETOWNER, uid)?;
        }
        if let Some(gid) = group {
            set(&file, libc::TUNSETGROUP, gid)?;
        }
        set(&file, libc::TUNSETPERSIST, 1)
    };
    made().map_err(|errno| failed(ifname, errno))
}

/// Has a persistent tap that is not open belong to another user and group, as far as `to` names them. It belongs to
/// those in `before`. Needs CAP_NET_ADMIN.
///
/// The kernel takes this only from who has the tap open, for which it must be free.
///
/// # Errors
/// `Busy`: somebody has it open. Otherwise as [`create_tap`]. Then it belongs to whom it belonged.
pub fn give_tap(
    ifname: &str,
    multi_queue: bool,
    before: (Option<u32>, Option<u32>),
    to: (Option<u32>, Option<u32>),
) -> Result<(), Error> {
    let flags = if multi_queue { libc::IFF_TAP | libc::IFF_MULTI_QUEUE } else { libc::IFF_TAP };
    let given = || {
        let file = open(ifname, flags)?;
        let give = |property, id: Option<u32>| id.map_or(Ok(()), |id| set(&file, property, id));
        give(libc::TUNSETOWNER, to.0)?;
        // An owner that nobody was before can't be taken away again. Control asks for none.
        give(libc::TUNSETGROUP, to.1).inspect_err(|_| {
            let _ = give(libc::TUNSETOWNER, before.0);
        })
    };
    given().map_err(|errno| if errno == Errno::EBUSY { in_use(ifname) } else { failed(ifname, errno) })
}

/// The error that somebody has a tap open.
pub fn in_use(ifname: &str) -> Error {
    let text =
        format!("tap: a VMM has {ifname} open, and the kernel gives it to another user only without one: end it first");
    Error::new(ErrorKind::Busy, text)
}

fn open(ifname: &str, flags: libc::c_int) -> Result<File, Errno> {
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE).map_err(errno)?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(ifname.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the flags are 16 bits")]
    let flags = (flags | libc::IFF_NO_PI) as libc::c_short;
    let mut request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: `request` is a live `ifreq` with name and flags. The kernel reads and writes only that.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, std::ptr::from_mut(&mut request)) };
    Errno::result(result).map(|_| file)
}

/// Sets a property that is a number.
fn set(file: &File, property: libc::Ioctl, value: u32) -> Result<(), Errno> {
    // SAFETY: the kernel takes these properties' values as they are, and follows no pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), property as _, libc::c_ulong::from(value)) };
    Errno::result(result).map(drop)
}

fn failed(ifname: &str, errno: Errno) -> Error {
    let (kind, advice) = match errno {
        Errno::EBUSY => (ErrorKind::Busy, format!("a netdev of that name is there: `ip link show {ifname}`")),
        Errno::EPERM | Errno::EACCES => (ErrorKind::Denied, format!("CAP_NET_ADMIN and access to {DEVICE} are needed")),
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => (
            ErrorKind::Unsupported,
            format!("{DEVICE} is not there: load the module `tun`, or let the container have it"),
        ),
        _ => (ErrorKind::System, format!("{DEVICE} refused")),
    };
    Error::new(kind, format!("tap {ifname}: {errno}: {advice}"))
}
