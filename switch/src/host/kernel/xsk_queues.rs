//! Queues of a netdev with an AF_XDP socket bound, by any process.
//!
//! The source is the kernel's `netdev` generic netlink family, in the network namespace of the calling thread
//! (`queue-get`, attribute `xsk`; `Documentation/netlink/specs/netdev.yaml`). Kernels before 6.15 can't tell.

use nix::errno::Errno;
use xdp_prog::genl::{self, ask, attribute, message, number};
use xdp_prog::netlink::attributes;

const NETDEV_CMD_QUEUE_GET: u8 = 10;
const NETDEV_A_QUEUE_ID: u16 = 1;
const NETDEV_A_QUEUE_IFINDEX: u16 = 2;
const NETDEV_A_QUEUE_TYPE: u16 = 3;
const NETDEV_A_QUEUE_XSK: u16 = 7;
const QUEUE_TYPE_RX: u32 = 0;

/// Receive queues with an AF_XDP socket bound. `None` if the netdev is down: the kernel has no queues of it then.
///
/// # Errors
/// The kernel's error: ENOENT or EOPNOTSUPP if it does not know the question.
pub fn bound(ifindex: u32) -> Result<Option<Vec<u32>>, Errno> {
    let netlink = genl::open()?;
    let family = genl::family(&netlink, "netdev")?.id;
    let mut queues = Vec::new();
    let mut any = false;
    let which = attribute(NETDEV_A_QUEUE_IFINDEX, &ifindex.to_ne_bytes());
    ask(&netlink, &message(family, libc::NLM_F_DUMP, NETDEV_CMD_QUEUE_GET, &which), |attrs| {
        let find = |wanted| attributes(attrs).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        any = true;
        let is_rx = find(NETDEV_A_QUEUE_TYPE).and_then(number) == Some(QUEUE_TYPE_RX);
        if is_rx && find(NETDEV_A_QUEUE_XSK).is_some() {
            queues.extend(find(NETDEV_A_QUEUE_ID).and_then(number));
        }
    })?;
    Ok(any.then_some(queues))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netdev_without_sockets_has_no_bound_queues() {
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(bound(lo), Ok(Some(Vec::new())));
    }

    #[test]
    fn nothing_can_be_told_of_a_netdev_that_is_down() {
        let told = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            bound(1)
        });
        assert_eq!(told.join().unwrap(), Ok(None));
    }
}
