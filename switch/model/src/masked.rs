//! Values with masks, as traffic rules match them. In JSON and on the command line, a value without a mask means all
//! bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MacAddr;

/// A number of `BITS` bits, and the mask of the bits that count. Text form: `80`, `0x50`, `80/0xfff0`.
///
/// A mask may be wider than `BITS`, because clients that mean "all bits" write −1. It is kept as it was written.
/// Rules check that the value fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Masked<const BITS: u32> {
    /// What the masked bits must be.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
}

impl<const BITS: u32> Masked<BITS> {
    /// All bits of the field.
    pub const FULL: u32 = u32::MAX >> (32 - BITS);

    /// Exactly this value.
    pub const fn exactly(value: u32) -> Self {
        Self { value, mask: Self::FULL }
    }
}

impl<const BITS: u32> fmt::Display for Masked<BITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mask == Self::FULL { write!(f, "{}", self.value) } else { write!(f, "{}/{:#x}", self.value, self.mask) }
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

impl<const BITS: u32> FromStr for Masked<BITS> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not VALUE or VALUE/MASK, each a number such as 80 or 0xfff0");
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (value, number(mask).ok_or_else(bad)?),
            None => (text, Self::FULL),
        };
        Ok(Self { value: number(value).ok_or_else(bad)?, mask })
    }
}

impl<const BITS: u32> Serialize for Masked<BITS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.mask == Self::FULL { serializer.serialize_u32(self.value) } else { serializer.collect_str(self) }
    }
}

impl<'de, const BITS: u32> Deserialize<'de> for Masked<BITS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take<const BITS: u32>;
        impl<const BITS: u32> Visitor<'_> for Take<BITS> {
            type Value = Masked<BITS>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a text such as \"80/0xfff0\"")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                u32::try_from(value)
                    .map(Masked::exactly)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                u32::try_from(value)
                    .map(Masked::exactly)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Take)
    }
}

/// A MAC address and the mask of the bits that count, as numbers whose most significant byte is the first on the wire.
/// Text form: `02:00:00:00:00:01`, or with a mask `02:00:00:00:00:00/ff:ff:ff:00:00:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedMac {
    /// What the masked bits must be.
    pub value: MacAddr,
    /// Bits that count, the low 48. Further bits are kept as they were written.
    pub mask: u64,
}

impl MaskedMac {
    /// All bits of an address.
    pub const FULL: u64 = 0xffff_ffff_ffff;
}

impl fmt::Display for MaskedMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            Self::FULL => write!(f, "{}", self.value),
            mask if mask < Self::FULL => write!(f, "{}/{}", self.value, MacAddr::from_u64(mask)),
            mask => write!(f, "{}/{mask:#x}", self.value),
        }
    }
}

impl FromStr for MaskedMac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((value, mask)) = text.split_once('/') else {
            return Ok(Self { value: text.parse()?, mask: Self::FULL });
        };
        let hex = mask.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let mask = hex.map_or_else(|| mask.parse::<MacAddr>().map(MacAddr::to_u64), Ok)?;
        Ok(Self { value: value.parse()?, mask })
    }
}

/// An IP address and the mask of the bits that count, of the same family. Text form: `10.0.0.1`, `10.0.0.0/8`,
/// `10.0.0.1/255.0.0.255`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedIp {
    /// What the masked bits must be.
    pub addr: IpAddr,
    /// Bits that count. The family is always that of `addr`.
    pub mask: IpAddr,
}

impl MaskedIp {
    /// Length of the prefix, if the mask is one.
    fn prefix(&self) -> Option<u32> {
        let (bits, width) = match self.mask {
            IpAddr::V4(mask) => (u128::from(u32::from(mask)) << 96, 32),
            IpAddr::V6(mask) => (u128::from(mask), 128),
        };
        let len = bits.leading_ones();
        (len == bits.count_ones()).then_some(len.min(width))
    }
}

impl fmt::Display for MaskedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = if self.addr.is_ipv4() { 32 } else { 128 };
        match self.prefix() {
            Some(len) if len == full => write!(f, "{}", self.addr),
            Some(len) => write!(f, "{}/{len}", self.addr),
            None => write!(f, "{}/{}", self.addr, self.mask),
        }
    }
}

impl FromStr for MaskedIp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("`{text}` is not an address, a prefix such as 10.0.0.0/8, or an address with a mask of its family")
        };
        let (addr, mask) = text.split_once('/').map_or((text, None), |(addr, mask)| (addr, Some(mask)));
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let prefix = match mask {
            None => Some(128),
            Some(mask) => mask.parse::<u32>().ok(),
        };
        let mask = match (addr, prefix) {
            (IpAddr::V4(_), Some(len)) if len <= 32 || mask.is_none() => {
                IpAddr::V4(Ipv4Addr::from(u32::MAX.checked_shl(32 - len.min(32)).unwrap_or(0)))
            }
            (IpAddr::V6(_), Some(len)) if len <= 128 => {
                IpAddr::V6(Ipv6Addr::from(u128::MAX.checked_shl(128 - len).unwrap_or(0)))
            }
            (_, Some(_)) => return Err(bad()),
            (_, None) => mask.and_then(|mask| mask.parse::<IpAddr>().ok()).ok_or_else(bad)?,
        };
        if mask.is_ipv4() != addr.is_ipv4() {
            return Err(bad());
        }
        Ok(Self { addr, mask })
    }
}

macro_rules! as_text {
    ($($name:ty),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}
as_text!(MaskedMac, MaskedIp);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn again<T: Serialize + for<'de> Deserialize<'de>>(value: &T) -> T {
        serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u32, mask: u32, mac: u64, mac_mask: u64, v4: [u32; 2], v6: [u128; 2]) {
            for mask in [mask, 0, u32::MAX, 0xfff, 0xffff] {
                prop_assert_eq!(again(&Masked::<12> { value, mask }), Masked { value, mask });
            }
            for mask in [mac_mask, mac_mask & MaskedMac::FULL, 0, u64::MAX, MaskedMac::FULL] {
                let mac = MaskedMac { value: MacAddr::from_u64(mac), mask };
                prop_assert_eq!(again(&mac), mac);
            }
            for mask in [v4[1], 0, u32::MAX, u32::MAX << 7] {
                let ip = MaskedIp { addr: IpAddr::V4(v4[0].into()), mask: IpAddr::V4(mask.into()) };
                prop_assert_eq!(again(&ip), ip);
            }
            for mask in [v6[1], 0, u128::MAX, u128::MAX << 77] {
                let ip = MaskedIp { addr: IpAddr::V6(v6[0].into()), mask: IpAddr::V6(mask.into()) };
                prop_assert_eq!(again(&ip), ip);
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "x", "1/", "/1", "-1", "+1", "1/2/3", "0x", "0x+1", "4294967296"] {
            assert!(bad.parse::<Masked<16>>().is_err(), "{bad}");
        }
        for bad in
            ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/ffff::", "::/129", "::/255.0.0.0", "1.2.3.4/"]
        {
            assert!(bad.parse::<MaskedIp>().is_err(), "{bad}");
        }
        for bad in ["", "02:00:00:00:00", "02:00:00:00:00:01/", "02:00:00:00:00:01/0xx", "02:00:00:00:00:01/8"] {
            assert!(bad.parse::<MaskedMac>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Masked<16>>("-1").is_err());
        assert!(serde_json::from_str::<Masked<16>>("1.5").is_err());
    }

    #[test]
    fn text_forms_are_the_usual_ones() {
        for text in ["80", "80/0xf0"] {
            assert_eq!(text.parse::<Masked<16>>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.1", "10.0.0.0/8", "10.0.0.1/255.0.0.255", "0.0.0.0/0", "2001:db8::/32", "::1", "::/0"] {
            assert_eq!(text.parse::<MaskedIp>().unwrap().to_string(), text);
        }
        assert_eq!("0x50/0xF0".parse::<Masked<16>>().unwrap(), Masked { value: 80, mask: 0xf0 });
    }
}
