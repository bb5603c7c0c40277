//! Components: the units of the Soft Patch Panel, beside the bridge.
//!
//! A component moves frames from its receiving ends to its sending ends on one worker. An end is a port of the switch
//! or one queue of it, a ring between components, or something outside. All components are given as one set. A new
//! set takes the place of the old one as a whole.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Count, MacAddr};

/// Largest number of a ring, null or outside end.
pub const MAX_END_NO: u32 = 1023;
/// Frames that a ring holds unless told otherwise; a power of two.
pub const DEFAULT_RING_DEPTH: u32 = 1024;

/// What a component does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    /// Sends it on, from one receiving end to one sending end.
    Forward,
    /// Sends it on, from any number of receiving ends to one sending end.
    Merge,
    /// Looks its destination address up, within its VLAN. One receiving end, any number of sending ends.
    Classifier,
    /// Sends it to every sending end. One receiving end, up to two sending ends.
    Mirror,
}

/// Where a component's frames come from or go to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum EndPort {
    /// A port of the switch, by name: all its queues (sending: by flow), or one. The port must not be the bridge's:
    /// it has a name in `spp`.
    Port {
        /// Name of the port.
        name: String,
        /// Its queue; `None`: all.
        queue: Option<u32>,
    },
    /// A ring between components, which must have been added.
    Ring(u32),
    /// Gives frames of 64 zero bytes as fast as they are taken (as DPDK's null device does); takes all and forgets
    /// them.
    Null(u32),
    /// An outside end, which must have been added: frames that a thread reads from, or writes to, a file or a tap.
    Outside(u32),
}

impl EndPort {
    /// Whether it is that port, or a queue of it.
    pub fn is_of_port(&self, port: &str) -> bool {
        matches!(self, EndPort::Port { name, .. } if name == port)
    }
}

impl fmt::Display for EndPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndPort::Port { name, queue: None } => write!(f, "port `{name}`"),
            EndPort::Port { name, queue: Some(queue) } => write!(f, "port `{name}` queue {queue}"),
            EndPort::Ring(no) => write!(f, "ring {no}"),
            EndPort::Null(no) => write!(f, "null end {no}"),
            EndPort::Outside(no) => write!(f, "outside end {no}"),
        }
    }
}

/// What happens to the VLAN tag of a frame that passes an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum VlanEdit {
    /// Nothing.
    #[default]
    None,
    /// It gets this tag; one that is there takes this VID and PCP (as SPP does).
    Add {
        /// VLAN, 0–4095.
        vid: u16,
        /// Priority, 0–7.
        pcp: u8,
    },
    /// Its tag, if it has one, is taken off.
    Del,
}

/// An end of a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct End {
    /// What it is.
    pub port: EndPort,
    /// What it does with tags.
    pub vlan: VlanEdit,
}

/// An entry of a classifier's table.
///
/// A frame is looked up by its VLAN (none if it is untagged) and destination address. Without an entry it goes by the
/// default of its VLAN, else by the default of untagged frames. Else it is dropped. A frame to a group address goes
/// to all ends that have an entry of its VLAN, and to the default of untagged frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TableEntry {
    /// VLAN, 0–4095; `None`: untagged.
    pub vlan: Option<u16>,
    /// Destination address; `None`: the default, for addresses without an entry.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub mac: Option<MacAddr>,
    /// Place in the component's `tx`.
    pub tx: usize,
}

/// A component as it is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ComponentSpec {
    /// Unique name, for messages and metrics.
    pub name: String,
    /// Worker that runs it.
    pub worker: usize,
    /// What it does.
    pub kind: ComponentKind,
    /// Its receiving ends. Frames are moved only if it has the ends that its kind needs.
    pub rx: Vec<End>,
    /// Its sending ends.
    pub tx: Vec<End>,
    /// A classifier's table: at most one entry for a VLAN and address.
    pub table: Vec<TableEntry>,
}

/// Counters of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ComponentInfo {
    /// Name.
    pub name: String,
    /// Worker.
    pub worker: usize,
    /// What it does.
    pub kind: ComponentKind,
    /// Whether it has the ends that its kind needs; else it moves nothing.
    pub ready: bool,
    /// Its receiving ends.
    pub from: Vec<EndPort>,
    /// Its sending ends.
    pub to: Vec<EndPort>,
    /// Frames taken from its receiving ends.
    pub rx: Count,
    /// Frames given to its sending ends, copies too.
    pub tx: Count,
    /// Frames that it dropped, for whatever reason.
    pub dropped: Count,
    /// The same by reason.
    pub drops: BTreeMap<String, Count>,
}

/// Counters of a ring, null or outside end, over its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EndInfo {
    /// Which one.
    pub end: EndPort,
    /// Frames that components took from it.
    pub rx: Count,
    /// Frames that components put into it.
    pub tx: Count,
    /// Frames that did not fit into it (`tx` of components), and were dropped.
    pub tx_dropped: Count,
    /// Outside ends: frames from outside that did not fit, or for which UMEM had no frame.
    pub rx_dropped: Count,
    /// Frames in it now, towards components and from them.
    pub queued: u32,
}
