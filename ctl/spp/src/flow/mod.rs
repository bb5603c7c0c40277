//! Flow rules of the primary, in the words of DPDK's testpmd.
//!
//! [`parse`] reads words into a [`Rule`], and [`Rule::compile`] turns it into a rule of the data plane. [`show`] writes
//! it as the primary's status does, [`mod@write`] as words again. All of these are pure. [`mod@line`] carries out
//! commands.

mod compile;
pub mod line;
pub mod parse;
pub mod show;
#[cfg(test)]
mod tests;
pub mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switch::model::FlowDirection;

/// Kinds of items in a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// The Ethernet header.
    Eth,
    /// A VLAN tag.
    Vlan,
}

impl ItemKind {
    /// The keyword in rules.
    pub const fn word(self) -> &'static str {
        match self {
            ItemKind::Eth => "eth",
            ItemKind::Vlan => "vlan",
        }
    }

    /// The fields of the item, in the order in which they are shown.
    pub const fn fields(self) -> &'static [Field] {
        match self {
            ItemKind::Eth => &[Field::Dst, Field::Src, Field::Type],
            ItemKind::Vlan => &[Field::Tci, Field::InnerType],
        }
    }
}

/// Fields of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Destination address.
    Dst,
    /// Source address.
    Src,
    /// EtherType after the addresses.
    Type,
    /// Tag control information, 16 bits: PCP, DEI and VID.
    Tci,
    /// EtherType after the tag.
    InnerType,
}

impl Field {
    /// The keyword in rules.
    pub const fn word(self) -> &'static str {
        match self {
            Field::Dst => "dst",
            Field::Src => "src",
            Field::Type => "type",
            Field::Tci => "tci",
            Field::InnerType => "inner_type",
        }
    }
}

/// Bits of a field, of which some are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits {
    /// The values of the bits. 0 where none is given.
    pub value: u64,
    /// Mask of the given bits.
    pub given: u64,
}

/// The given bits of an item's fields.
pub type Part = BTreeMap<Field, Bits>;

/// An item of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The header that it matches.
    pub kind: ItemKind,
    /// Values to match.
    #[serde(default)]
    pub spec: Part,
    /// Ends of ranges that begin at `spec`.
    #[serde(default)]
    pub last: Part,
    /// Bits that count. A bit without a value never counts. A bit with a value counts unless the mask gives a 0 for it.
    #[serde(default)]
    pub mask: Part,
}

/// An action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Go on with the rules of another group.
    Jump {
        /// Number of the group.
        group: u32,
    },
    /// Send the frame to a queue.
    Queue {
        /// Number of the queue.
        index: u16,
    },
    /// Pop the outer tag.
    OfPopVlan,
    /// Push a tag.
    OfPushVlan {
        /// EtherType of the tag: 0x8100 or 0x88a8.
        ethertype: u16,
    },
    /// Set the VID of the outer tag.
    OfSetVlanVid {
        /// VID.
        vlan_vid: u16,
    },
    /// Set the PCP of the outer tag.
    OfSetVlanPcp {
        /// PCP.
        vlan_pcp: u8,
    },
}

impl Action {
    /// The keyword in rules.
    pub const fn word(self) -> &'static str {
        match self {
            Action::Jump { .. } => "jump",
            Action::Queue { .. } => "queue",
            Action::OfPopVlan => "of_pop_vlan",
            Action::OfPushVlan { .. } => "of_push_vlan",
            Action::OfSetVlanVid { .. } => "of_set_vlan_vid",
            Action::OfSetVlanPcp { .. } => "of_set_vlan_pcp",
        }
    }
}

/// A rule as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Frames that come in, or frames that go out.
    pub direction: FlowDirection,
    /// Group. A lookup begins with group 0, and `jump` leads to higher ones.
    pub group: u32,
    /// Priority in the group. The lowest value is tried first.
    pub priority: u32,
    /// An attribute of DPDK. It is kept and shown, and has no effect.
    pub transfer: bool,
    /// What a frame must match.
    pub pattern: Vec<Item>,
    /// What happens to a matching frame, in order.
    pub actions: Vec<Action>,
}

/// A rule of a port, with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberedRule {
    /// Number, unique among the rules of the port.
    pub rule_id: u32,
    /// The rule.
    pub rule: Rule,
}

/// The rules of a port, as the state file keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRules {
    /// Number of the `phy` port.
    pub port: u32,
    /// Its rules, in the order in which they were made.
    pub rules: Vec<NumberedRule>,
}
