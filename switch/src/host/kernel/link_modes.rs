//! Speed, duplex and negotiation of a netdev's link, by ethtool's netlink family, in the network namespace of the
//! calling thread (`ETHTOOL_MSG_LINKMODES_GET`, `Documentation/networking/ethtool-netlink.rst`).

use nix::errno::Errno;
use xdp_prog::genl::{self, ask, attribute, message, number};
use xdp_prog::netlink::attributes;

use crate::model::{Duplex, LinkMode};

const ETHTOOL_MSG_LINKMODES_GET: u8 = 4;
const ETHTOOL_A_LINKMODES_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_LINKMODES_AUTONEG: u16 = 2;
const ETHTOOL_A_LINKMODES_SPEED: u16 = 5;
const ETHTOOL_A_LINKMODES_DUPLEX: u16 = 6;
/// The attribute has attributes.
const NLA_F_NESTED: u16 = 0x8000;
/// `SPEED_UNKNOWN`, `DUPLEX_…` and `AUTONEG_…` of `include/uapi/linux/ethtool.h`.
const SPEED_UNKNOWN: u32 = u32::MAX;
const DUPLEX_HALF: u8 = 0;
const DUPLEX_FULL: u8 = 1;
const AUTONEG_DISABLE: u8 = 0;
const AUTONEG_ENABLE: u8 = 1;

/// What the driver says. All is unknown if it, or the kernel, does not answer. `None`: the netdev is gone.
pub fn read(ifindex: u32) -> Option<LinkMode> {
    match ask_for(ifindex) {
        Err(Errno::ENODEV) => None,
        answer => Some(answer.unwrap_or_default()),
    }
}

fn ask_for(ifindex: u32) -> Result<LinkMode, Errno> {
    let netlink = genl::open()?;
    let family = genl::family(&netlink, "ethtool")?.id;
    let which = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
    let header = attribute(ETHTOOL_A_LINKMODES_HEADER | NLA_F_NESTED, &which);
    let mut mode = LinkMode::default();
    ask(&netlink, &message(family, libc::NLM_F_ACK, ETHTOOL_MSG_LINKMODES_GET, &header), |attrs| mode = parse(attrs))?;
    Ok(mode)
}

fn parse(attrs: &[u8]) -> LinkMode {
    let mut mode = LinkMode::default();
    for (kind, value) in attributes(attrs) {
        let byte = || value.first().copied();
        match kind {
            // Some drivers say 0 where they do not know.
            ETHTOOL_A_LINKMODES_SPEED => {
                mode.speed = number(value).filter(|&speed| speed != SPEED_UNKNOWN && speed != 0);
            }
            ETHTOOL_A_LINKMODES_DUPLEX => {
                mode.duplex = match byte() {
                    Some(DUPLEX_HALF) => Some(Duplex::Half),
                    Some(DUPLEX_FULL) => Some(Duplex::Full),
                    _ => None,
                };
            }
            ETHTOOL_A_LINKMODES_AUTONEG => {
                mode.autoneg = match byte() {
                    Some(AUTONEG_DISABLE) => Some(false),
                    Some(AUTONEG_ENABLE) => Some(true),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_what_drivers_do_not_know() {
        let answer = |speed: u32, duplex: u8, autoneg: u8| {
            [
                attribute(ETHTOOL_A_LINKMODES_HEADER | NLA_F_NESTED, &attribute(1, &7_u32.to_ne_bytes())),
                attribute(ETHTOOL_A_LINKMODES_AUTONEG, &[autoneg]),
                attribute(ETHTOOL_A_LINKMODES_SPEED, &speed.to_ne_bytes()),
                attribute(ETHTOOL_A_LINKMODES_DUPLEX, &[duplex]),
            ]
            .concat()
        };
        let known = |speed, duplex, autoneg| LinkMode { speed: Some(speed), duplex: Some(duplex), autoneg };
        assert_eq!(parse(&answer(100_000, 1, 1)), known(100_000, Duplex::Full, Some(true)));
        assert_eq!(parse(&answer(10, 0, 0)), known(10, Duplex::Half, Some(false)));
        // 255 is `DUPLEX_UNKNOWN`; other values are of kernels to come.
        assert_eq!(parse(&answer(u32::MAX, 255, 7)), LinkMode::default());
        assert_eq!(parse(&answer(0, 2, 2)), LinkMode::default());
        for len in 0..answer(1, 1, 1).len() {
            let _ = parse(&answer(1, 1, 1)[..len]);
        }
    }

    #[test]
    fn a_netdev_that_is_gone_is_told_from_one_that_does_not_know() {
        assert_eq!(read(1), Some(LinkMode::default()));
        assert_eq!(read(0x7fff_fff0), None);
    }
}
