//! Which XDP programs sit on a netdev.

use std::ffi::CStr;
use std::fmt;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use nix::errno::Errno;

use crate::attach::Mode;
use crate::error::Error;

/// A program on one of a netdev's hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// BPF program id.
    pub id: u32,
    /// Name, cut off by the kernel after 15 bytes; empty if it has none.
    pub name: String,
    /// The hook; a program in the NIC's hardware counts as native.
    pub mode: Mode,
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (id {}, {} mode)", self.name, self.id, self.mode)
    }
}

/// What a netdev's driver says that it can do (`enum netdev_xdp_act` in `linux/netdev.h`; kernel 6.3 and later tell it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverFeatures {
    /// Native XDP with redirection, which AF_XDP in native mode needs.
    pub native: bool,
    /// AF_XDP without a copy.
    pub zero_copy: bool,
}

const XDP_ACT_BASIC: u64 = 1;
const XDP_ACT_REDIRECT: u64 = 2;
const XDP_ACT_XSK_ZEROCOPY: u64 = 8;

/// The features of the driver of the netdev with that index. A kernel that does not tell looks as if there were none.
pub fn driver_features(ifindex: u32) -> Result<DriverFeatures, Error> {
    let flags = query(ifindex)?.feature_flags;
    let has = |wanted: u64| flags & wanted == wanted;
    Ok(DriverFeatures { native: has(XDP_ACT_BASIC | XDP_ACT_REDIRECT), zero_copy: has(XDP_ACT_XSK_ZEROCOPY) })
}

fn query(ifindex: u32) -> Result<libbpf_sys::bpf_xdp_query_opts, Error> {
    let mut query =
        libbpf_sys::bpf_xdp_query_opts { sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as _, ..Default::default() };
    // SAFETY: `query` is a live options block of the size that its first field tells.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex.cast_signed(), 0, &raw mut query) };
    match result {
        0.. => Ok(query),
        errno => Err(Error::system(format!("asking for the XDP state of netdev #{ifindex}"), &Errno::from_raw(-errno))),
    }
}

/// Every XDP program on the netdev with that index, on its native (or hardware) and its generic hook.
pub fn attached_programs(ifindex: u32) -> Result<Vec<ForeignProgram>, Error> {
    let query = query(ifindex)?;
    let hooks =
        [(query.drv_prog_id, Mode::Native), (query.hw_prog_id, Mode::Native), (query.skb_prog_id, Mode::Generic)];
    let programs = hooks.into_iter().filter(|&(id, _)| id != 0);
    Ok(programs.map(|(id, mode)| ForeignProgram { id, name: program_name(id).unwrap_or_default(), mode }).collect())
}

fn program_name(id: u32) -> Option<String> {
    info(&by_id(id)?).ok().map(|info| info.name)
}

/// The program with that id; `None` if there is none, or it may not be looked at.
pub(crate) fn by_id(id: u32) -> Option<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) };
    if fd < 0 {
        return None;
    }
    // SAFETY: see above.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel tells of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    /// Id, unique in the whole system.
    pub id: u32,
    /// Name, cut off after 15 bytes.
    pub name: String,
    /// Hash of its instructions: the same for the same program with other maps.
    pub tag: [u8; 8],
}

/// What the kernel tells of a program.
pub(crate) fn info(program: &OwnedFd) -> Result<ProgramInfo, Errno> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is all zero (it asks for nothing by pointer) and `len` bytes long.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), std::ptr::from_mut(&mut info).cast(), &raw mut len)
    };
    if result < 0 {
        return Err(Errno::from_raw(-result));
    }
    // SAFETY: the kernel's names end in a zero within their 16 bytes, and `info` lives on.
    let name = unsafe { CStr::from_ptr(info.name.as_ptr()) };
    Ok(ProgramInfo { id: info.id, name: name.to_string_lossy().into_owned(), tag: info.tag })
}
