//! MAC addresses.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 48-bit MAC address. Text form: six pairs of hex digits joined by `:` (or `-` on input).
///
/// It is kept as a number with the first byte most significant. Tables and keys need that, so a frame's bytes are
/// swapped only once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(u64);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr::new([0xff; 6]);
    /// `00:00:00:00:00:00`.
    pub const ZERO: MacAddr = MacAddr(0);
    /// The I/G bit: the lowest of the first byte.
    const GROUP: u64 = 1 << 40;
    /// The U/L bit beside it.
    const LOCAL: u64 = 1 << 41;

    /// The address of those bytes in wire order.
    #[inline]
    pub const fn new(b: [u8; 6]) -> Self {
        MacAddr(u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]]))
    }

    /// Its bytes in wire order.
    #[inline]
    pub const fn octets(self) -> [u8; 6] {
        let [_, _, octets @ ..] = self.0.to_be_bytes();
        octets
    }

    /// Whether it is a group address (multicast or broadcast): the I/G bit is set.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0 & Self::GROUP != 0
    }

    /// Whether it can be the address of one station: not a group address and not all zero.
    #[inline]
    pub const fn is_unicast(self) -> bool {
        !self.is_group() && self.0 != 0
    }

    /// The 48 bits as a number, first byte most significant.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The address whose 48 bits are the low bits of `bits`.
    #[inline]
    pub const fn from_u64(bits: u64) -> Self {
        MacAddr(bits & 0xffff_ffff_ffff)
    }

    /// A stable, locally administered unicast address for `name`: FNV-1a of the name, I/G cleared, U/L set.
    pub fn derived_from(name: &str) -> Self {
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self::from_u64((hash ^ (hash >> 48)) & !Self::GROUP | Self::LOCAL)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.octets();
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{text}` is not a MAC address: six pairs of hex digits such as 02:00:00:00:00:01 are expected");
        let mut mac = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part =
                parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(MacAddr::new(mac)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_rejects_everything_else() {
        let mac: MacAddr = "02:00:5E-aa:BB:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:aa:bb:01");
        assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
        for bad in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "+2:00:00:00:00:01", "02:00:00:00:00:0g"]
        {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_address_is_stable_local_and_unicast() {
        let mac = MacAddr::derived_from("vm1");
        assert_eq!(mac, MacAddr::derived_from("vm1"));
        assert_ne!(mac, MacAddr::derived_from("vm2"));
        assert_eq!(mac.octets()[0] & 3, 2);
    }
}
