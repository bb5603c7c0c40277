//! Loads of the generator: the addresses of the stations, and the set of values of each field of a packet.

use crate::number::whole;

/// First two bytes of the near guest's stations' addresses.
const NEAR: [u8; 2] = [0x02, 0x0a];
/// First two bytes of the far guest's.
const FAR: [u8; 2] = [0x02, 0x0b];
/// The near guest's IPv4 address: 10.1.2.3.
pub(crate) const NEAR_IP: u32 = 0x0a01_0203;
/// The first of the far guest's IPv4 addresses: 10.64.0.0.
pub(crate) const FAR_IP: u32 = 0x0a40_0000;
/// Source and destination port of the first flow. Source ports are below 1,024, because the upper six bits belong to
/// the rules' masks.
const PORTS: u32 = 500 << 16 | 5000;
/// Flows of a load that has locality.
pub(crate) const FEW: u32 = 64;
/// All pairs of ports below that. They are more than a measurement sends.
const ENDLESS: u32 = 1 << 26;

/// A field that takes the values of a set in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Walk {
    base: u32,
    at: u32,
    stride: u32,
    size: u32,
}

impl Walk {
    /// A field that always has the same value.
    pub(crate) fn fixed(base: u32) -> Self {
        Self { base, at: 0, stride: 0, size: 1 }
    }

    /// Takes each of the `size` (at most 2²⁶) values from `base` on in turn, scattered.
    pub(crate) fn over(base: u32, size: u32) -> Self {
        assert!((1..=ENDLESS).contains(&size), "a set of {size}");
        // The golden section scatters best. The next stride without a common divisor reaches every member.
        let golden = u32::try_from(whole(f64::from(size) * 0.618_034)).expect("less than `size`");
        let stride = (golden..size).chain(1..=golden).find(|stride| gcd(*stride, size) == 1).unwrap_or(0);
        Self { base, at: 0, stride: stride % size, size }
    }

    /// `count` values spread over `size` from `base` on, or all of them if there are fewer.
    fn spread(base: u32, size: u32, count: u32) -> Self {
        if size <= count {
            return Self::over(base, size);
        }
        let stride = size / count;
        Self { base, at: 0, stride, size: stride * count }
    }
}

/// Address of a guest's station of that number.
pub(crate) fn station(of: Side, number: u32) -> String {
    let prefix = match of {
        Side::Near => NEAR,
        Side::Far => FAR,
    };
    let octets = prefix.into_iter().chain(number.to_be_bytes());
    octets.map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The guest that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the far guest.
    Near,
    /// To the near guest.
    Far,
}

/// A load: UDP packets in IPv4 from stations of one guest to stations of the other.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Length on the wire in bytes, FCS included: 64 to 1,518.
    pub frame: u32,
    /// Packets a second. `None` is as fast as possible.
    pub pps: Option<f64>,
    /// Whether each packet carries its send time, and the far end sends it back.
    pub returns: bool,
    pub(crate) from: Side,
    pub(crate) dst_mac: Walk,
    pub(crate) src_mac: Walk,
    pub(crate) src_ip: Walk,
    pub(crate) dst_ip: Walk,
    pub(crate) ports: Walk,
}

impl Load {
    /// One flow of 64-byte frames between one station of each guest, as fast as possible.
    pub fn new(from: Side) -> Self {
        let (src_ip, dst_ip) = match from {
            Side::Near => (NEAR_IP, FAR_IP),
            Side::Far => (FAR_IP, NEAR_IP),
        };
        Self {
            frame: 64,
            pps: None,
            returns: false,
            from,
            dst_mac: Walk::fixed(1),
            src_mac: Walk::fixed(1),
            src_ip: Walk::fixed(src_ip),
            dst_ip: Walk::fixed(dst_ip),
            ports: Walk::fixed(PORTS),
        }
    }

    /// With frames of that length on the wire, FCS included: 64 to 1,518.
    pub fn sized(self, frame: u32) -> Self {
        Self { frame, ..self }
    }

    /// At that many packets a second.
    pub fn paced(self, pps: f64) -> Self {
        Self { pps: Some(pps), ..self }
    }

    /// With packets that carry their send time and come back.
    pub fn returning(self) -> Self {
        Self { returns: true, ..self }
    }

    /// 64 flows that hit rules spread over the `rules` first ones.
    pub fn few_flows(self, rules: u32) -> Self {
        let dst_ip = Walk::spread(FAR_IP, rules.max(1), FEW);
        Self { dst_ip, ports: Walk::over(PORTS, FEW), ..self }
    }

    /// `flows` flows in turn that hit the `rules` first rules in turn.
    pub fn flows(self, flows: u32, rules: u32) -> Self {
        Self { dst_ip: Walk::over(FAR_IP, rules.max(1)), ports: Walk::over(PORTS, flows), ..self }
    }

    /// A new flow with every packet, and the `rules` first rules in turn.
    pub fn new_flows(self, rules: u32) -> Self {
        Self { dst_ip: Walk::over(FAR_IP, rules.max(1)), ports: Walk::over(0, ENDLESS), ..self }
    }

    /// To `macs` stations in turn.
    pub fn to_macs(self, macs: u32) -> Self {
        Self { dst_mac: Walk::over(1, macs), ..self }
    }

    /// From `macs` stations in turn.
    pub fn from_macs(self, macs: u32) -> Self {
        Self { src_mac: Walk::over(1, macs), ..self }
    }

    /// First two bytes of source and destination.
    pub(crate) fn prefixes(&self) -> ([u8; 2], [u8; 2]) {
        match self.from {
            Side::Near => (NEAR, FAR),
            Side::Far => (FAR, NEAR),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn members(walk: Walk, steps: u32) -> BTreeSet<u32> {
        let mut at = walk.at;
        (0..steps)
            .map(|_| {
                let value = walk.base + at;
                at = (at + walk.stride) % walk.size;
                value
            })
            .collect()
    }

    #[test]
    fn a_walk_takes_every_member_before_it_takes_one_again() {
        for size in [1, 2, 3, 64, 1000, 65_536, 100_000] {
            let walk = Walk::over(7, size);
            assert!(walk.stride < size, "{walk:?}");
            assert_eq!(members(walk, size), (7..7 + size).collect(), "{walk:?}");
        }
    }

    #[test]
    fn a_spread_walk_takes_as_many_as_it_shall_and_no_more() {
        for (size, expected) in [(1, 1), (10, 10), (64, 64), (10_000, 64), (65_536, 64)] {
            let walk = Walk::spread(0, size, 64);
            let seen = members(walk, 10_000);
            assert_eq!(seen.len(), expected, "{walk:?}");
            assert!(seen.last() < Some(&size) && seen.last() >= Some(&(size / 2)), "over all of it: {walk:?}");
        }
    }
}
