//! Flow rules, as the primary is told of them: testpmd's words for patterns and actions, what they mean, and how they are shown.
//!
//! [`parse`] makes a [`Rule`] of the words, [`Rule::compile`] makes of that what the data plane is told, and [`show`] writes it as
//! the primary's status does, [`write`] in the words that it was made of: all of that is pure. [`line`] carries out command lines.

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

/// Kinds of pattern items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// The Ethernet header.
    Eth,
    /// A VLAN tag.
    Vlan,
}

impl ItemKind {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            ItemKind::Eth => "eth",
            ItemKind::Vlan => "vlan",
        }
    }

    /// Its fields, in the order in which they are shown.
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
    /// EtherType behind the addresses.
    Type,
    /// Tag control information: PCP, DEI and VID.
    Tci,
    /// EtherType behind the tag.
    InnerType,
}

impl Field {
    /// Its word.
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

/// Some bits of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits {
    /// Their values; 0 where none was given.
    pub value: u64,
    /// The bits that a value was given for.
    pub given: u64,
}

/// What was given of an item's fields.
pub type Part = BTreeMap<Field, Bits>;

/// An item of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it looks at.
    pub kind: ItemKind,
    /// Values.
    #[serde(default)]
    pub spec: Part,
    /// Ends of ranges that begin with the values.
    #[serde(default)]
    pub last: Part,
    /// Bits that count. Of a field that none are given of, those count that have a value; bits without a value do not.
    #[serde(default)]
    pub mask: Part,
}

/// An action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// On with the rules of a group.
    Jump {
        /// Its number.
        group: u32,
    },
    /// To a queue.
    Queue {
        /// Its number.
        index: u16,
    },
    /// The outer tag is taken off.
    OfPopVlan,
    /// A tag is put on.
    OfPushVlan {
        /// Its EtherType.
        ethertype: u16,
    },
    /// The outer tag gets a VID.
    OfSetVlanVid {
        /// VID.
        vlan_vid: u16,
    },
    /// The outer tag gets a PCP.
    OfSetVlanPcp {
        /// PCP.
        vlan_pcp: u8,
    },
}

impl Action {
    /// Its word.
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

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Frames that it is for.
    pub direction: FlowDirection,
    /// Its group.
    pub group: u32,
    /// Its priority: the lowest value comes first.
    pub priority: u32,
    /// Taken and shown; it means nothing here.
    pub transfer: bool,
    /// What frames must look like.
    pub pattern: Vec<Item>,
    /// What happens to them.
    pub actions: Vec<Action>,
}

/// A rule that a port has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberedRule {
    /// Its number, unique among the rules of its port.
    pub rule_id: u32,
    /// The rule.
    pub rule: Rule,
}

/// The rules of a port as they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRules {
    /// Number of the `phy` port.
    pub port: u32,
    /// Its rules, in the order in which they were made.
    pub rules: Vec<NumberedRule>,
}
