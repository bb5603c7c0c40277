//! The state byte of a port in LACPDUs (IEEE 802.1AX-2008, 5.4.2.2 l).

use std::fmt;
use std::ops::BitOr;

/// State of a port, as its partner is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortState(pub u8);

impl PortState {
    /// It sends LACPDUs before the partner does.
    pub const ACTIVITY: Self = Self(1);
    /// It asks the partner for a LACPDU each second, or else every 30 s.
    pub const TIMEOUT: Self = Self(1 << 1);
    /// It may be aggregated with others, or else is individual.
    pub const AGGREGATION: Self = Self(1 << 2);
    /// It is attached to the right aggregator.
    pub const SYNCHRONIZATION: Self = Self(1 << 3);
    /// It takes frames.
    pub const COLLECTING: Self = Self(1 << 4);
    /// It sends frames.
    pub const DISTRIBUTING: Self = Self(1 << 5);
    /// It has heard nothing of the partner, and takes it to be as configured.
    pub const DEFAULTED: Self = Self(1 << 6);
    /// What it has heard of the partner is too old.
    pub const EXPIRED: Self = Self(1 << 7);

    /// Names of the bits, from the lowest on, as Open vSwitch shows them.
    const NAMES: [&str; 8] =
        ["activity", "timeout", "aggregation", "synchronized", "collecting", "distributing", "defaulted", "expired"];

    /// Whether all those bits are set.
    pub fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// Sets or clears those bits. Returns whether that changed anything.
    pub(super) fn set(&mut self, bits: Self, on: bool) -> bool {
        let before = self.0;
        self.0 = if on { before | bits.0 } else { before & !bits.0 };
        self.0 != before
    }
}

impl BitOr for PortState {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Names of the bits that are set.
impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| *name);
        f.pad(&names.collect::<Vec<_>>().join(" "))
    }
}
