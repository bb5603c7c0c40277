//! Putting a program on a netdev by a BPF link, and taking it off.
//!
//! libbpf's own `bpf_program__attach_xdp` leaves the mode to the kernel, so the link is made by the call below it. A link fails
//! with a bare errno; the older netlink way fails for the same reason and says it in words (`extack`), which libbpf prints. So
//! when a link fails, the netlink way is tried once for its words.

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

/// Where in the receive path a program runs.
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

/// The mode that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeRequest {
    /// Native, else generic.
    Auto,
    /// Native or an error.
    Native,
    /// Generic.
    Generic,
}

/// What an attachment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Mode in force.
    pub mode: Mode,
    /// Why [`ModeRequest::Auto`] did not end in native mode.
    pub fallback_reason: Option<String>,
}

/// A program on a netdev; taken off when this is dropped.
#[derive(Debug)]
pub(crate) struct XdpLink(OwnedFd);

impl XdpLink {
    /// The link that is pinned at `path`; `None` if there is none.
    pub(crate) fn pinned(path: &Path) -> Result<Option<Self>, Error> {
        let name = c_path(path)?;
        // SAFETY: the path ends in a zero and lives on.
        match unsafe { libbpf_sys::bpf_obj_get(name.as_ptr()) } {
            // SAFETY: a non-negative result is a descriptor that nobody else owns.
            fd @ 0.. => Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))),
            error => match Errno::from_raw(-error) {
                Errno::ENOENT => Ok(None),
                errno => Err(Error::system(format!("opening the pinned link {}", path.display()), &errno)),
            },
        }
    }

    /// Pins it, so that it outlives this process.
    pub(crate) fn pin(&self, path: &Path) -> Result<(), Error> {
        let name = c_path(path)?;
        // SAFETY: the path ends in a zero and lives on.
        match unsafe { libbpf_sys::bpf_obj_pin(self.0.as_raw_fd(), name.as_ptr()) } {
            0.. => Ok(()),
            error => Err(Error::system(format!("pinning a link at {}", path.display()), &Errno::from_raw(-error))),
        }
    }

    /// Puts another program in the place of the one that it has; no packet goes by in between.
    pub(crate) fn replace(&self, program: BorrowedFd<'_>) -> Result<(), Error> {
        // SAFETY: no options.
        let result = unsafe { libbpf_sys::bpf_link_update(self.0.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) };
        if result < 0 {
            return Err(Error::system("replacing an XDP program", &Errno::from_raw(-result)));
        }
        Ok(())
    }

    /// Id of its program.
    pub(crate) fn program_id(&self) -> Result<u32, Error> {
        let mut info = libbpf_sys::bpf_link_info::default();
        let mut len = size_of::<libbpf_sys::bpf_link_info>() as u32;
        // SAFETY: `info` is all zero (it asks for nothing by pointer) and `len` bytes long.
        let result = unsafe {
            libbpf_sys::bpf_obj_get_info_by_fd(self.0.as_raw_fd(), std::ptr::from_mut(&mut info).cast(), &raw mut len)
        };
        if result < 0 {
            return Err(Error::system("asking for a link's program", &Errno::from_raw(-result)));
        }
        Ok(info.prog_id)
    }

    /// Takes the program off now. Dropping does the same, but would leave it on while another copy of the descriptor lives.
    pub(crate) fn detach(self) -> Result<(), Error> {
        // SAFETY: no pointers.
        let result = unsafe { libbpf_sys::bpf_link_detach(self.0.as_raw_fd()) };
        match Errno::from_raw(-result.min(0)) {
            // ENOLINK: the netdev went first and took the link along.
            _ if result >= 0 => Ok(()),
            Errno::ENOLINK | Errno::ENODEV => Ok(()),
            errno => Err(Error::system("detaching an XDP program", &errno)),
        }
    }
}

/// Puts the program on the netdev as asked.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    ifname: &str,
    request: ModeRequest,
) -> Result<(XdpLink, Attached), Error> {
    // The kernel refuses a second program on either hook (dev_xdp_attach: EBUSY on the same one, EEXIST on the other), but does
    // not say whose the first one is.
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
            // These would fail in generic mode too, or be cured by it to nobody's good.
            Err(error @ Error::Attach { errno: Errno::EBUSY | Errno::EEXIST | Errno::EPERM | Errno::ENODEV, .. }) => {
                return Err(error);
            }
            Err(error) => (Mode::Generic, Some(error.to_string())),
        },
    };
    Ok((try_mode(mode)?, Attached { mode, fallback_reason }))
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
    // SAFETY: `options` is a live options block of the size that its first field tells; for BPF_XDP the target is an ifindex.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex.cast_signed(), libbpf_sys::BPF_XDP, &raw const options)
    };
    if fd < 0 {
        return Err(Errno::from_raw(-fd));
    }
    // SAFETY: a non-negative result is a descriptor that nobody else owns.
    Ok(XdpLink(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// What libbpf printed last: libbpf has one print function a process.
static PRINTED: Mutex<String> = Mutex::new(String::new());

fn remember(_level: PrintLevel, text: String) {
    PRINTED.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
}

/// The words that the kernel has for why the program can't be attached.
fn kernel_words(program: BorrowedFd<'_>, ifindex: u32, mode: Mode) -> Option<String> {
    /// One caller at a time has the print function.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    PRINTED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let before = set_print(Some((PrintLevel::Warn, remember)));
    let flags = mode.flag() | libbpf_sys::XDP_FLAGS_UPDATE_IF_NOEXIST;
    // SAFETY: no options.
    let result =
        unsafe { libbpf_sys::bpf_xdp_attach(ifindex.cast_signed(), program.as_raw_fd(), flags, std::ptr::null()) };
    if result == 0 {
        // What kept the link off is over: nothing to tell, and nothing may stay. Naming our program keeps the kernel from
        // taking off one that replaced it meanwhile.
        let options = libbpf_sys::bpf_xdp_attach_opts {
            sz: size_of::<libbpf_sys::bpf_xdp_attach_opts>() as _,
            old_prog_fd: program.as_raw_fd(),
            ..Default::default()
        };
        // SAFETY: `options` is a live options block of the size that its first field tells.
        unsafe { libbpf_sys::bpf_xdp_detach(ifindex.cast_signed(), mode.flag(), &raw const options) };
    }
    set_print(before);
    let printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    printed.lines().find_map(|line| line.split_once("Kernel error message: ")).map(|(_, words)| words.trim().to_owned())
}
