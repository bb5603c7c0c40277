//! The flow table in XDP, as users see it.

use serde::{Deserialize, Serialize};

use super::Count;

/// Slots of the flow table if none are asked for.
pub const FLOW_SLOTS: u32 = 16_384;
/// Most slots of the flow table.
pub const MAX_FLOW_SLOTS: u32 = 1 << 20;

/// Whether flows that were decided go on in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FlowOffload {
    /// None do.
    #[default]
    Off,
    /// Those do that have many packets, between ports that can. Without a kernel that can, none do.
    Auto,
}

/// Where a flow of the table is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OffloadState {
    /// Its packets still come to the switch, until all earlier ones have left.
    Moving,
    /// Its packets go on in the kernel.
    Kernel,
}

/// A flow in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OffloadedFlow {
    /// Name of the port that its packets come in from.
    pub port: String,
    /// The queue of that port.
    pub queue: u32,
    /// Addresses, tag, protocol and ports, in words.
    pub flow: String,
    /// What is done with its packets, in words.
    pub verdict: String,
    /// Name of the port that they go out of. Absent if they are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Index of the traffic rule that applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Where it is on its way.
    pub state: OffloadState,
    /// What the kernel has done since the flow came in. Bytes are those before a tag's edit.
    pub count: Count,
    /// Packets a second of late.
    pub rate: u64,
    /// Milliseconds since it came in.
    pub age_ms: u64,
    /// Milliseconds since the kernel was last seen to do something.
    pub idle_ms: u64,
}

/// The flow table and what happened to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowOffloadInfo {
    /// Whether there is a table.
    pub on: bool,
    /// Why there is none, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Slots of the table.
    pub slots: u32,
    /// Flows in it.
    pub flows: u32,
    /// Flows whose packets still come to the switch.
    pub moving: u32,
    /// Flows that came in, since the start.
    pub installed: u64,
    /// Flows that found no place, or whose port had its share.
    pub refused: u64,
    /// Flows that went, because the policy has changed.
    pub ended_by_policy: u64,
    /// Because a station is elsewhere, or aged out.
    pub ended_by_fdb: u64,
    /// Because no packets came.
    pub ended_by_idleness: u64,
    /// Because a netdev can't be sent to any more.
    pub ended_by_port: u64,
    /// Because the last of their packets did not leave the switch in time. Their ports are left alone for a while.
    pub stuck: u64,
    /// Packets and bytes that went on in the kernel, or were dropped there as a rule says.
    pub count: Count,
}

/// The flow table with its flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowTableReport {
    /// The table.
    pub table: FlowOffloadInfo,
    /// Its flows, those with the highest rates first. Fewer than the table has if fewer were asked for.
    pub flows: Vec<OffloadedFlow>,
}
