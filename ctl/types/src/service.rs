//! Arguments and results of the service, beside the types of [`model`].

use model::*;
use serde::{Deserialize, Serialize};

use crate::packet::PacketSpec;

/// Whether a port is in operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// Part of the switch.
    Up,
    /// Part of the switch, and something outside keeps it from its work.
    Degraded,
    /// Configured, but could not be brought up.
    Failed,
}

/// A configured port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PortEntry {
    /// Name.
    pub name: String,
    /// Whether it is in operation.
    pub state: PortState,
    /// Why it is not in operation, or not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its configuration, with defaults filled in.
    pub spec: PortSpec,
    /// Its state, if it is in operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<PortInfo>,
    /// The process that has the sockets of the guest's end, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestHolder>,
}

/// A process that was given the sockets of a port's guest's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestHolder {
    /// Process number.
    pub pid: i32,
    /// Name, of at most 15 bytes.
    pub command: String,
    /// User id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// When it was given the sockets, in seconds since 1970.
    pub since: u64,
    /// When its sockets were first seen bound, in seconds since 1970. Absent if they never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_since: Option<u64>,
    /// The sockets. Empty if an earlier daemon handed them over and they can't be inspected any more.
    pub sockets: Vec<GuestSocket>,
}

/// A guest's socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestSocket {
    /// Its queue, from 0.
    pub queue: u32,
    /// Whether it is bound.
    pub bound: bool,
    /// The kernel's counters of the socket (`XDP_STATISTICS`), by their field names.
    pub xsk: std::collections::BTreeMap<String, u64>,
}

/// A packet to trace, given by `hex` or by fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Ingress port.
    pub port: String,
    /// Queue of that port. It matters only for ports of components. Default: 0.
    #[serde(default)]
    pub queue: u32,
    /// The frame without FCS, in hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// Fields to build the frame from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketSpec>,
    /// Index of a traffic rule to explain, whether or not it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
}

/// Changes of the bridge settings. Absent settings keep their value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BridgeUpdate {
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdb_limit: Option<u32>,
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdb_ageing_seconds: Option<u32>,
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_reserved: Option<bool>,
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flap_limit: Option<u32>,
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm_control: Option<u32>,
}

/// Selects FDB entries. Absent fields match any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
pub struct FdbFilter {
    /// Port, by name or number.
    pub port: Option<String>,
    /// VLAN.
    pub vlan: Option<u16>,
    /// MAC address.
    #[cfg_attr(feature = "schema", param(value_type = Option<String>))]
    pub mac: Option<MacAddr>,
}

/// A rule to write. Without an index it takes the lowest free one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleWrite {
    /// As in `RuleSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_index: Option<u32>,
    /// As in `RuleSpec`.
    #[serde(default)]
    pub key: RuleKey,
    /// As in `RuleSpec`.
    pub action: RuleAction,
}

/// A range of a long list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
pub struct Page {
    /// First number of the range. Default: 0.
    pub from: u32,
    /// Maximum length. Default: all.
    pub limit: Option<u32>,
}

impl Page {
    /// Maximum length.
    pub fn count(self) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit as usize)
    }
}

/// Limits and usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Capability {
    /// Ports.
    pub ports: Usage,
    /// Meters.
    pub meters: Usage,
    /// Traffic rules.
    pub rules: Usage,
    /// Number of distinct masks of the rules. A lookup takes at most one probe per mask.
    pub rule_masks: usize,
    /// Disks.
    pub disks: Usage,
}
