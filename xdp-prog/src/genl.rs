//! Generic netlink: requests to families of the kernel, in the network namespace of the calling thread.
//!
//! Layouts are those of `include/uapi/linux/netlink.h` and `include/uapi/linux/genetlink.h`.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::netlink::attributes;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
/// Bytes of a netlink message's header, and of the generic netlink header behind it.
const NLMSG: usize = 16;
const GENL: usize = 4;
/// Bytes of a message in front of its attributes.
pub const HEADERS: usize = NLMSG + GENL;

/// A family, as the kernel has numbered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// Number of the family.
    pub id: u16,
    /// Its multicast groups, by name.
    pub groups: Vec<(String, u32)>,
}

/// An attribute's bytes, padded.
#[expect(clippy::cast_possible_truncation, reason = "values are of some bytes")]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = (4 + value.len()) as u16;
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A request to a family.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "flags are 16 bits, messages some bytes")]
pub fn message(family: u16, flags: i32, command: u8, attribute: &[u8]) -> Vec<u8> {
    let len = (NLMSG + GENL + attribute.len()) as u32;
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(attribute);
    bytes
}

/// A number of two or four bytes.
pub fn number(value: &[u8]) -> Option<u32> {
    match *value {
        [a, b] => Some(u32::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
        _ => None,
    }
}

/// Sends a request, and hands the attributes of each answer to `take`.
pub fn ask(netlink: &OwnedFd, request: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Errno> {
    send(netlink.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let len = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..len).unwrap_or_default();
        if rest.is_empty() {
            return Err(Errno::EPROTO);
        }
        while let Some(header) = rest.first_chunk::<NLMSG>() {
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
            let Some(body) = rest.get(NLMSG..len) else { return Err(Errno::EPROTO) };
            match kind {
                libc::NLMSG_DONE => return Ok(()),
                // A single answer is acknowledged by an error of number 0.
                libc::NLMSG_ERROR => {
                    let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                }
                _ => take(body.get(GENL..).unwrap_or_default()),
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Opens a generic netlink socket.
pub fn open() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)
}

/// Looks up a family.
///
/// # Errors
/// ENOENT if the kernel has none of that name.
pub fn family(netlink: &OwnedFd, name: &str) -> Result<Family, Errno> {
    let mut found = None;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), b"\0"].concat());
    ask(netlink, &message(GENL_ID_CTRL, libc::NLM_F_ACK, CTRL_CMD_GETFAMILY, &name), |attrs| {
        let mut family = Family::default();
        for (kind, value) in attributes(attrs) {
            match kind {
                CTRL_ATTR_FAMILY_ID => {
                    family.id = number(value).and_then(|id| u16::try_from(id).ok()).unwrap_or_default();
                }
                CTRL_ATTR_MCAST_GROUPS => family.groups.extend(attributes(value).filter_map(|(_, group)| {
                    let find = |wanted| attributes(group).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
                    let name = find(CTRL_ATTR_MCAST_GRP_NAME)?.strip_suffix(b"\0")?;
                    Some((String::from_utf8_lossy(name).into_owned(), number(find(CTRL_ATTR_MCAST_GRP_ID)?)?))
                })),
                _ => {}
            }
        }
        found = Some(family);
    })?;
    found.filter(|family| family.id != 0).ok_or(Errno::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_up_to_where_they_are_cut_off() {
        let bytes = [attribute(1, &7_u32.to_ne_bytes()), attribute(7 | 0x8000, &[]), attribute(2, b"abcde")].concat();
        let read: Vec<_> = attributes(&bytes).map(|(kind, value)| (kind, value.len())).collect();
        assert_eq!(read, [(1, 4), (7, 0), (2, 5)]);
        for len in 0..bytes.len() {
            let _ = attributes(&bytes[..len]).count();
        }
    }

    #[test]
    fn a_family_is_found_with_its_groups() {
        let control = family(&open().unwrap(), "nlctrl").unwrap();
        assert_eq!(control.id, GENL_ID_CTRL);
        assert!(control.groups.iter().any(|(name, _)| name == "notify"), "{control:?}");
        assert_eq!(family(&open().unwrap(), "no-such-family"), Err(Errno::ENOENT));
    }
}
