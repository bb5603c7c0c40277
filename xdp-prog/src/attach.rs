//! Attaching a program to a netdev by a BPF link, and detaching it.
//!
//! libbpf's `bpf_program__attach_xdp` leaves the mode to the kernel, so a call below it makes the link. A link fails
//! with a bare errno. The older netlink way fails for the same reason, but the kernel explains it in words (`extack`),
//! which libbpf prints. So when a link fails, the netlink way is tried once for its words.
#![allow(unsafe_code, reason = "calls of libbpf's C interface")]

use std::ffi::CString;
use std::fmt;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{PrintLevel, libbpf_sys, set_print};
use nix::errno::Errno;

use crate::error::Error;
use crate::explain::{AttachFacts, explain_attach_error};
use crate::query::attached_programs;

/// The place in the receive path where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network core, on socket buffers.
    Generic,
}

impl Mode {
    fn flag(self) -> u32 {
        match self {
            Mode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            Mode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// A request for a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeRequest {
    /// Native if possible, else generic.
    Auto,
    /// Native, or an error.
    Native,
    /// Generic.
    Generic,
}

/// Result of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Mode in force.
    pub mode: Mode,
    /// Why [`ModeRequest::Auto`] did not end in native mode.
    pub fallback_reason: Option<String>,
}

/// A program on a netdev. Dropping this detaches it.
#[derive(Debug)]
pub(crate) struct XdpLink(OwnedFd);

impl XdpLink {
    /// Opens the link pinned at `path`. `None` if there is none.
    pub(crate) fn pinned(path: &Path) -> Result<Option<Self>, Error> {
        let name = c_path(path)?;
        // SAFETY: the path ends in a zero and outlives the call.
        match unsafe { libbpf_sys::bpf_obj_get(name.as_ptr()) } {
            // SAFETY: a non-negative result is a descriptor that nobody else owns.
            fd @ 0.. => Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))),
            error => match Errno::from_raw(-error) {
                Errno::ENOENT => Ok(None),
                errno => Err(Error::system(format!("opening the pinned link {}", path.display()), &errno)),
            },
        }
    }

    /// Pins the link, so that it outlives this process.
    pub(crate) fn pin(&self, path: &Path) -> Result<(), Error> {
        let name = c_path(path)?;
        // SAFETY: the path ends in a zero and outlives the call.
        match unsafe { libbpf_sys::bpf_obj_pin(self.0.as_raw_fd(), name.as_ptr()) } {
            0.. => Ok(()),
            error => Err(Error::system(format!("pinning a link at {}", path.display()), &Errno::from_raw(-error))),
        }
    }

    /// Replaces the link's program. No packet gets past in between.
    pub(crate) fn replace(&self, program: BorrowedFd<'_>) -> Result<(), Error> {
        // SAFETY: no options.
        let result = unsafe { libbpf_sys::bpf_link_update(self.0.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) };
        if result < 0 {
            return Err(Error::system("replacing an XDP program", &Errno::from_raw(-result)));
        }
        Ok(())
    }

    /// Whether the link is on a netdev still.
    pub(crate) fn is_attached(&self) -> bool {
        // The index is 0 once the link was detached (`bpf_xdp_link_fill_link_info`).
        // SAFETY: for a link of type XDP the kernel has filled in this member of the union.
        self.info().is_ok_and(|info| unsafe { info.__bindgen_anon_1.xdp.ifindex } != 0)
    }

    /// Id of the link's program.
    pub(crate) fn program_id(&self) -> Result<u32, Error> {
        Ok(self.info()?.prog_id)
    }

    fn info(&self) -> Result<libbpf_sys::bpf_link_info, Error> {
        let mut info = libbpf_sys::bpf_link_info::default();
        let mut len = size_u32::<libbpf_sys::bpf_link_info>();
        // SAFETY: `info` has `len` bytes and is all zero, so no pointer in it asks for more.
        let result = unsafe {
            libbpf_sys::bpf_obj_get_info_by_fd(self.0.as_raw_fd(), std::ptr::from_mut(&mut info).cast(), &raw mut len)
        };
        if result < 0 {
            return Err(Error::system("asking for a link's program", &Errno::from_raw(-result)));
        }
        Ok(info)
    }

    /// Detaches the program at once. Dropping would leave it on while another copy of the descriptor lives.
    pub(crate) fn detach(self) -> Result<(), Error> {
        // SAFETY: no pointers.
        let result = unsafe { libbpf_sys::bpf_link_detach(self.0.as_raw_fd()) };
        match Errno::from_raw(-result.min(0)) {
            // ENOLINK: the netdev went first and took the link with it.
            _ if result >= 0 => Ok(()),
            Errno::ENOLINK | Errno::ENODEV => Ok(()),
            errno => Err(Error::system("detaching an XDP program", &errno)),
        }
    }
}

/// Attaches the program to the netdev in the requested mode.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    ifname: &str,
    request: ModeRequest,
) -> Result<(XdpLink, Attached), Error> {
    // The kernel refuses a second program on either hook (dev_xdp_attach: EBUSY on the same one, EEXIST on the other).
    // It does not say whose the first one is.
    if let Some(foreign) = attached_programs(ifindex)?.into_iter().next() {
        return Err(Error::Foreign { ifname: ifname.to_owned(), program: foreign });
    }
    let try_mode = |mode| {
        link(program, ifindex, mode).map_err(|errno| {
            let facts =
                AttachFacts { ifname: ifname.to_owned(), mode, kernel_words: kernel_words(program, ifindex, mode) };
            Error::Attach { errno, why: explain_attach_error(errno, &facts) }
        })
    };
    let (mode, fallback_reason) = match request {
        ModeRequest::Native => (Mode::Native, None),
        ModeRequest::Generic => (Mode::Generic, None),
        ModeRequest::Auto => match try_mode(Mode::Native) {
            Ok(link) => return Ok((link, Attached { mode: Mode::Native, fallback_reason: None })),
            // These fail in generic mode too, or generic mode would only hide them.
            Err(error @ Error::Attach { errno: Errno::EBUSY | Errno::EEXIST | Errno::EPERM | Errno::ENODEV, .. }) => {
                return Err(error);
            }
            Err(error) => (Mode::Generic, Some(error.to_string())),
        },
    };
    Ok((try_mode(mode)?, Attached { mode, fallback_reason }))
}

/// Size of a type of the kernel's interface, as its calls take it.
pub(crate) const fn size_u32<T>() -> u32 {
    const { assert!(size_of::<T>() <= u32::MAX as usize) };
    #[expect(clippy::cast_possible_truncation, reason = "checked above, at compile time")]
    let size = size_of::<T>() as u32;
    size
}

fn c_path(path: &Path) -> Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::system(format!("{} is no path", path.display()), &Errno::EINVAL))
}

fn link(program: BorrowedFd<'_>, ifindex: u32, mode: Mode) -> Result<XdpLink, Errno> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
        flags: mode.flag(),
        ..Default::default()
    };
    // SAFETY: `options` is a live options block of the size in its first field. For BPF_XDP the target is an ifindex.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex.cast_signed(), libbpf_sys::BPF_XDP, &raw const options)
    };
    if fd < 0 {
        return Err(Errno::from_raw(-fd));
    }
    // SAFETY: a non-negative result is a descriptor that nobody else owns.
    Ok(XdpLink(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The last output of libbpf, which has one print function a process.
static PRINTED: Mutex<String> = Mutex::new(String::new());

fn remember(_level: PrintLevel, text: String) {
    PRINTED.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
}

/// The kernel's words for why it refuses the program.
fn kernel_words(program: BorrowedFd<'_>, ifindex: u32, mode: Mode) -> Option<String> {
    /// One caller at a time uses the print function.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    PRINTED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let before = set_print(Some((PrintLevel::Warn, remember)));
    let flags = mode.flag() | libbpf_sys::XDP_FLAGS_UPDATE_IF_NOEXIST;
    // SAFETY: no options.
    let result =
        unsafe { libbpf_sys::bpf_xdp_attach(ifindex.cast_signed(), program.as_raw_fd(), flags, std::ptr::null()) };
    if result == 0 {
        // The netlink way has succeeded, so the obstacle is gone and there is nothing to tell. The program must not
        // stay. The kernel detaches it only if nobody has replaced it meanwhile, because its descriptor is given.
        let options = libbpf_sys::bpf_xdp_attach_opts {
            sz: size_of::<libbpf_sys::bpf_xdp_attach_opts>() as _,
            old_prog_fd: program.as_raw_fd(),
            ..Default::default()
        };
        // SAFETY: `options` is a live options block of the size in its first field.
        unsafe { libbpf_sys::bpf_xdp_detach(ifindex.cast_signed(), mode.flag(), &raw const options) };
    }
    set_print(before);
    let printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    printed.lines().find_map(|line| line.split_once("Kernel error message: ")).map(|(_, words)| words.trim().to_owned())
}
