//! Queries for the XDP programs on a netdev, and for driver features.
#![allow(unsafe_code, reason = "calls of libbpf's C interface")]

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::LazyLock;

use libbpf_rs::libbpf_sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::attach::{Mode, size_u32};
use crate::error::Error;
use crate::genl;
use crate::netlink::attributes;

/// A program on one of a netdev's hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// BPF program id.
    pub id: u32,
    /// Name, cut off by the kernel after 15 bytes. Empty if it has none.
    pub name: String,
    /// The hook. A program in the NIC's hardware counts as native.
    pub mode: Mode,
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (id {}, {} mode)", self.name, self.id, self.mode)
    }
}

/// Features that a netdev's driver reports (`enum netdev_xdp_act` in `linux/netdev.h`, kernel 6.3 and later).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverFeatures {
    /// Native XDP with redirection. AF_XDP in native mode needs it.
    pub native: bool,
    /// AF_XDP without a copy.
    pub zero_copy: bool,
    /// Packets of several buffers, for native programs that take them.
    pub multi_buffer: bool,
    /// Packets that a program on another netdev redirects to it.
    pub takes_redirects: bool,
    /// The same with packets of several buffers.
    pub takes_long_redirects: bool,
}

const XDP_ACT_BASIC: u64 = 1;
const XDP_ACT_REDIRECT: u64 = 2;
const XDP_ACT_NDO_XMIT: u64 = 4;
const XDP_ACT_XSK_ZEROCOPY: u64 = 8;
const XDP_ACT_RX_SG: u64 = 32;
const XDP_ACT_NDO_XMIT_SG: u64 = 64;

/// Command, and attributes, of the netdev family (`include/uapi/linux/netdev.h`).
const DEV_GET: u8 = 1;
/// Attribute with the index of the netdev.
pub const NETDEV_IFINDEX: u16 = 1;
const NETDEV_XDP_FEATURES: u16 = 3;

/// Number of the family that tells of XDP features (kernel 6.3 and later). `None` if the kernel has none.
pub fn netdev_family() -> Option<u16> {
    static FAMILY: LazyLock<Option<u16>> = LazyLock::new(|| {
        genl::open().and_then(|netlink| genl::family(&netlink, "netdev")).ok().map(|family| family.id)
    });
    *FAMILY
}

/// Features of the netdev's driver. All are off on a kernel that does not report them.
pub fn driver_features(ifindex: u32) -> Result<DriverFeatures, Error> {
    let Some(family) = netdev_family() else { return Ok(DriverFeatures::default()) };
    let request =
        genl::message(family, libc::NLM_F_ACK, DEV_GET, &genl::attribute(NETDEV_IFINDEX, &ifindex.to_ne_bytes()));
    // libbpf asks for the features of one netdev too, but gets a list of all netdevs first.
    let mut features = 0;
    let note = |answer: &[u8]| {
        let found = attributes(answer).find(|(kind, _)| *kind == NETDEV_XDP_FEATURES);
        features = found.and_then(|(_, value)| value.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    };
    genl::open()
        .and_then(|netlink| genl::ask(&netlink, &request, note))
        .map_err(|errno| Error::system(format!("asking for the XDP features of netdev #{ifindex}"), &errno))?;
    let has = |wanted: u64| features & wanted == wanted;
    Ok(DriverFeatures {
        native: has(XDP_ACT_BASIC | XDP_ACT_REDIRECT),
        zero_copy: has(XDP_ACT_XSK_ZEROCOPY),
        multi_buffer: has(XDP_ACT_RX_SG),
        takes_redirects: has(XDP_ACT_NDO_XMIT),
        takes_long_redirects: has(XDP_ACT_NDO_XMIT | XDP_ACT_NDO_XMIT_SG),
    })
}

/// All XDP programs on the netdev with that index, on its native (or hardware) and its generic hook.
pub fn attached_programs(ifindex: u32) -> Result<Vec<ForeignProgram>, Error> {
    let what = || format!("asking for the XDP programs of netdev #{ifindex}");
    let answer = ask_for_link(ifindex).map_err(|errno| Error::system(what(), &errno))?;
    let hooks = attributes(answer.get(LINK_AT..).unwrap_or_default())
        .filter(|(kind, _)| *kind == libc::IFLA_XDP)
        .flat_map(|(_, xdp)| attributes(xdp))
        .filter_map(|(kind, value)| {
            let mode = match kind {
                IFLA_XDP_DRV_PROG_ID | IFLA_XDP_HW_PROG_ID => Mode::Native,
                IFLA_XDP_SKB_PROG_ID => Mode::Generic,
                _ => return None,
            };
            Some((u32::from_ne_bytes(*value.first_chunk()?), mode))
        });
    let programs = hooks.filter(|&(id, _)| id != 0);
    Ok(programs.map(|(id, mode)| ForeignProgram { id, name: program_name(id).unwrap_or_default(), mode }).collect())
}

/// In the width of `nlmsg_flags`; libc has it as an `int`.
const NLM_F_REQUEST: u16 = 1;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
/// Flag that leaves counters out of the answer about a netdev.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// Offset of a link's attributes, behind `struct nlmsghdr` and `struct ifinfomsg`.
const LINK_AT: usize = 32;

/// Asks the kernel for one netdev. Returns a netlink message. `bpf_xdp_query` gets all netdevs and skips the others,
/// which makes starting with many ports quadratic.
fn ask_for_link(ifindex: u32) -> Result<Vec<u8>, Errno> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut request = 40_u32.to_ne_bytes().to_vec();
    request.extend(libc::RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port number of the message; family and type of the netdev.
    request.extend([0; 12]);
    request.extend(ifindex.to_ne_bytes());
    // Flags and their mask.
    request.extend([0; 8]);
    request.extend(8_u16.to_ne_bytes());
    request.extend(libc::IFLA_EXT_MASK.to_ne_bytes());
    request.extend(RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; 32 * 1024];
    let len = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(len);
    let kind = answer.get(4..6).and_then(|kind| kind.first_chunk()).copied().map_or(0, u16::from_ne_bytes);
    if i32::from(kind) == libc::NLMSG_ERROR {
        let code = answer.get(16..).and_then(|code| code.first_chunk()).copied().map_or(0, i32::from_ne_bytes);
        return Err(Errno::from_raw(-code));
    }
    Ok(answer)
}

fn program_name(id: u32) -> Option<String> {
    info(&by_id(id)?).ok().map(|info| info.name)
}

/// Opens the program with that id. `None` if there is none, or access is denied.
pub(crate) fn by_id(id: u32) -> Option<OwnedFd> {
    // SAFETY: the call takes no pointers. A non-negative result is a descriptor that nobody else owns.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) };
    if fd < 0 {
        return None;
    }
    // SAFETY: see above.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel reports about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    /// Id, unique in the whole system.
    pub id: u32,
    /// Name, cut off after 15 bytes.
    pub name: String,
    /// Hash of its instructions. The same program with other maps has the same tag.
    pub tag: [u8; 8],
}

/// What the kernel reports about a program.
pub(crate) fn info(program: &OwnedFd) -> Result<ProgramInfo, Errno> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_u32::<libbpf_sys::bpf_prog_info>();
    // SAFETY: `info` has `len` bytes and is all zero, so no pointer in it asks for more.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), std::ptr::from_mut(&mut info).cast(), &raw mut len)
    };
    if result < 0 {
        return Err(Errno::from_raw(-result));
    }
    // SAFETY: the kernel's names end in a zero within their 16 bytes, and `info` outlives the borrow.
    let name = unsafe { CStr::from_ptr(info.name.as_ptr()) };
    Ok(ProgramInfo { id: info.id, name: name.to_string_lossy().into_owned(), tag: info.tag })
}
