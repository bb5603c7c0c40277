//! Flow rules of a port. Ingress rules say which queue a frame is for. Rules of both directions edit tags.
//!
//! A frame is compared with the rules of its direction, first with those of group 0. The rule with the lowest
//! priority value comes first, and of equal ones the one that was given first. The first rule that matches is carried
//! out. If it jumps, the rules of that group follow, with the frame as it is then.
//!
//! A frame that matches no rule of a group goes on as if there were no rules. The edits up to then stay. A frame that
//! ends within its addresses, EtherType or outer tag matches no rule.

use serde::{Deserialize, Serialize};

use super::{Count, Masked, MaskedMac};

/// Most flow rules of a port.
pub const MAX_FLOW_RULES: usize = 1024;
/// Most tags that the rules of one direction of a port can push on a frame. There is no room for more in front of it.
pub const MAX_FLOW_PUSHES: usize = 16;

/// Which frames a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowDirection {
    /// Frames that come in by the port.
    Ingress,
    /// Frames that components send to it.
    Egress,
}

/// The key of a rule. An absent field matches anything. No value has bits outside its mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// Destination address.
    pub dmac: Option<MaskedMac>,
    /// Source address.
    pub smac: Option<MaskedMac>,
    /// EtherType right behind the addresses. In a tagged frame that is the TPID of its outer tag.
    pub ethertype: Option<Masked<16>>,
    /// Tag control information of the outer tag. An untagged frame does not match, not even with a mask of 0.
    pub tci: Option<Masked<16>>,
    /// EtherType behind the outer tag. An untagged frame does not match.
    pub inner_type: Option<Masked<16>>,
}

/// What a rule does to the tags of a frame, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowEdit {
    /// Takes the outer tag off, if there is one.
    Pop,
    /// Puts a tag of this EtherType (0x8100 or 0x88a8) outside of all others, with VID and PCP 0.
    Push(u16),
    /// Sets the VID of the outer tag, if there is one: 0–4094.
    Vid(u16),
    /// Sets the PCP of the outer tag, if there is one: 0–7.
    Pcp(u8),
}

/// Where a rule sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowTarget {
    /// Where it would go without rules.
    Normal,
    /// To the end that is this queue of the port. Ingress only.
    Queue(u32),
    /// To the rules of a group, whose number is larger than that of the rule's own.
    Group(u32),
}

/// A flow rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowRule {
    /// Number, unique among the rules of its port. A later rule with the same number and content goes on with its
    /// counters.
    pub id: u32,
    /// Which frames it is for.
    pub direction: FlowDirection,
    /// Its group.
    pub group: u32,
    /// Its priority within the group: the lowest value comes first.
    pub priority: u32,
    /// Which of these it matches.
    pub key: FlowKey,
    /// What it does to tags.
    pub edits: Vec<FlowEdit>,
    /// Where it sends the frame then.
    pub target: FlowTarget,
}

/// Counters of a flow rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowCount {
    /// Name of its port.
    pub port: String,
    /// Its number.
    pub rule: u32,
    /// Frames that matched it, with the length that they had then.
    pub matched: Count,
}
