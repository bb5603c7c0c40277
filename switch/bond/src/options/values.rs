//! Values of options that are words, and how values are read.
//!
//! The names, numbers and special words are those of the Linux bonding driver (`Documentation/networking/bonding.rst`
//! and the sysfs files of a bond).

use std::fmt;
use std::ops::RangeInclusive;

/// A value that is one of a few words, each with a number.
pub trait Word: Copy + PartialEq + fmt::Debug + 'static {
    /// All values in the order of their numbers: word, number, value.
    const ALL: &'static [(&'static str, u32, Self)];

    /// Its word.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|entry| entry.2 == self).map_or("", |entry| entry.0)
    }

    /// Its number.
    fn number(self) -> u32 {
        Self::ALL.iter().find(|entry| entry.2 == self).map_or(0, |entry| entry.1)
    }

    /// The value with that word or number. Space around it is left out.
    fn read(text: &str) -> Option<Self> {
        let number = read_number(text, &(0..=u32::MAX), &[]);
        Self::ALL.iter().find(|entry| entry.0 == text.trim() || Some(entry.1) == number).map(|entry| entry.2)
    }

    /// What is allowed, for an error's text.
    fn allowed() -> String {
        let words: Vec<_> = Self::ALL.iter().map(|(name, number, _)| format!("{name} ({number})")).collect();
        words.join(", ")
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $number:literal $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl Word for $name {
            const ALL: &'static [(&'static str, u32, Self)] = &[$(($word, $number, $name::$value),)+];
        }

        /// The word.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

words! {
    /// How a bond uses its members.
    Mode {
        /// Frames go to the members in turn. Frames of one flow may be reordered.
        BalanceRr = 0 "balance-rr",
        /// One member carries everything. The others wait.
        ActiveBackup = 1 "active-backup",
        /// Flows are spread over all members by a hash. The partner has a static group.
        BalanceXor = 2 "balance-xor",
        /// Every frame goes to all members.
        Broadcast = 3 "broadcast",
        /// Flows are spread over the members that LACP has agreed on (IEEE 802.1AX, once 802.3ad).
        Lacp = 4 "802.3ad",
        /// Load by transmit rate. Known by name only: a switch can't do it.
        BalanceTlb = 5 "balance-tlb",
        /// As `balance-tlb`, and receive by rewritten ARP replies. Known by name only.
        BalanceAlb = 6 "balance-alb",
    }
}

words! {
    /// Which fields of a frame decide its member.
    HashPolicy {
        /// MAC addresses and EtherType.
        Layer2 = 0 "layer2",
        /// IP addresses and the ports of TCP, UDP and SCTP.
        Layer34 = 1 "layer3+4",
        /// MAC addresses, EtherType and IP addresses.
        Layer23 = 2 "layer2+3",
        /// As `layer2+3`, with the IP addresses inside of a tunnel.
        Encap23 = 3 "encap2+3",
        /// As `layer3+4`, with the IP addresses and ports inside of a tunnel.
        Encap34 = 4 "encap3+4",
        /// Outer VLAN and source MAC address.
        VlanSrcMac = 5 "vlan+srcmac",
    }
}

words! {
    /// How often the partner is asked to send LACPDUs.
    LacpRate {
        /// Every 30 s. The partner's word holds for 90 s.
        Slow = 0 "slow",
        /// Every second. The partner's word holds for 3 s.
        Fast = 1 "fast",
    }
}

words! {
    /// Which aggregator carries traffic, if members have different partners.
    AdSelect {
        /// The one of most bandwidth, and then that one while it has a link.
        Stable = 0 "stable",
        /// Always the one of most bandwidth.
        Bandwidth = 1 "bandwidth",
        /// Always the one of most links, and of those the one of most bandwidth.
        Count = 2 "count",
    }
}

words! {
    /// When a primary member that comes back is made the active one.
    PrimaryReselect {
        /// At once.
        Always = 0 "always",
        /// If it is faster than the active one.
        Better = 1 "better",
        /// Only when the active one fails.
        Failure = 2 "failure",
    }
}

words! {
    /// Which addresses members have in mode `active-backup`.
    FailOverMac {
        /// All have the bond's.
        None = 0 "none",
        /// Each keeps its own. The bond has that of the active one.
        Active = 1 "active",
        /// The active one has the bond's, the others keep theirs.
        Follow = 2 "follow",
    }
}

words! {
    /// A switch.
    OnOff {
        /// No.
        Off = 0 "off",
        /// Yes.
        On = 1 "on",
    }
}

impl From<OnOff> for bool {
    fn from(value: OnOff) -> Self {
        value == OnOff::On
    }
}

/// Special words of an option that is a number, as the driver has them.
pub(super) type NumberWords = &'static [(&'static str, u32)];

/// Reads a decimal number in `range`, or one of `words`. Space around it is left out.
pub(super) fn read_number(text: &str, range: &RangeInclusive<u32>, words: NumberWords) -> Option<u32> {
    let text = text.trim();
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| range.contains(number))
}
