//! Queues of a netdev with an AF_XDP socket bound, by any process.
//!
//! The source is the kernel's `netdev` generic netlink family, in the network namespace of the calling thread
//! (`queue-get`, attribute `xsk`; `Documentation/netlink/specs/netdev.yaml`). Kernels before 6.15 can't tell.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use xdp_prog::netlink::attributes;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_QUEUE_GET: u8 = 10;
const NETDEV_A_QUEUE_ID: u16 = 1;
const NETDEV_A_QUEUE_IFINDEX: u16 = 2;
const NETDEV_A_QUEUE_TYPE: u16 = 3;
const NETDEV_A_QUEUE_XSK: u16 = 7;
const QUEUE_TYPE_RX: u32 = 0;
/// Bytes of a netlink message's header, and of the generic netlink header behind it.
const NLMSG: usize = 16;
const GENL: usize = 4;

#[expect(clippy::cast_possible_truncation, reason = "values are of some bytes")]
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = (4 + value.len()) as u16;
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "flags are 16 bits, messages some bytes")]
fn message(family: u16, flags: i32, command: u8, attribute: &[u8]) -> Vec<u8> {
    let len = (NLMSG + GENL + attribute.len()) as u32;
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(attribute);
    bytes
}

fn number(value: &[u8]) -> Option<u32> {
    match *value {
        [a, b] => Some(u32::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
        _ => None,
    }
}

/// Sends a request, and hands the attributes of each answer to `take`.
fn ask(netlink: &OwnedFd, request: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Errno> {
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

/// Receive queues with an AF_XDP socket bound. The netdev must be up.
///
/// # Errors
/// The kernel's error: ENOENT or EOPNOTSUPP if it does not know the question.
pub fn bound(ifindex: u32) -> Result<Vec<u32>, Errno> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)?;
    let mut family = None;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    ask(&netlink, &message(GENL_ID_CTRL, libc::NLM_F_ACK, CTRL_CMD_GETFAMILY, &name), |attrs| {
        let id = attributes(attrs).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        family = id.and_then(|(_, value)| number(value)).or(family);
    })?;
    let family = family.ok_or(Errno::ENOENT)?.try_into().map_err(|_| Errno::EPROTO)?;
    let mut queues = Vec::new();
    let which = attribute(NETDEV_A_QUEUE_IFINDEX, &ifindex.to_ne_bytes());
    ask(&netlink, &message(family, libc::NLM_F_DUMP, NETDEV_CMD_QUEUE_GET, &which), |attrs| {
        let find = |wanted| attributes(attrs).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let is_rx = find(NETDEV_A_QUEUE_TYPE).and_then(number) == Some(QUEUE_TYPE_RX);
        if is_rx && find(NETDEV_A_QUEUE_XSK).is_some() {
            queues.extend(find(NETDEV_A_QUEUE_ID).and_then(number));
        }
    })?;
    Ok(queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netdev_without_sockets_has_no_bound_queues() {
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(bound(lo), Ok(Vec::new()));
    }

    #[test]
    fn attributes_are_read_up_to_where_they_are_cut_off() {
        let bytes = [attribute(1, &7_u32.to_ne_bytes()), attribute(7 | 0x8000, &[]), attribute(2, b"abcde")].concat();
        let read: Vec<_> = attributes(&bytes).map(|(kind, value)| (kind, value.len())).collect();
        assert_eq!(read, [(1, 4), (7, 0), (2, 5)]);
        for len in 0..bytes.len() {
            let _ = attributes(&bytes[..len]).count();
        }
    }
}
