//! What the service takes and gives beside the types of [`model`].

use model::*;
use serde::{Deserialize, Serialize};

use crate::packet::PacketSpec;

/// Whether a port works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// It is part of the switch.
    Up,
    /// It is configured and could not be brought up.
    Failed,
}

/// A configured port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PortEntry {
    /// Name.
    pub name: String,
    /// Whether it works.
    pub state: PortState,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As configured, defaults filled in.
    pub spec: PortSpec,
    /// As it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<PortInfo>,
    /// The process that has the sockets of its guest's end, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestHolder>,
}

/// A process that was given the sockets of a port's guest's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestHolder {
    /// Its number.
    pub pid: i32,
    /// Its name, 15 bytes at most.
    pub command: String,
    /// Its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// When it was given the sockets, in seconds since 1970.
    pub since: u64,
    /// When it was first seen to have bound them, in seconds since 1970; absent: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_since: Option<u64>,
    /// The sockets; none if an earlier daemon gave them and they can't be looked at any more.
    pub sockets: Vec<GuestSocket>,
}

/// A guest's socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestSocket {
    /// Queue that it is for, 0-based.
    pub queue: u32,
    /// Whether it is bound.
    pub bound: bool,
    /// The kernel's counters of it (`XDP_STATISTICS`), by their field names.
    pub xsk: std::collections::BTreeMap<String, u64>,
}

/// A packet to be traced: `hex`, or fields to build one from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Port that it comes in from.
    pub port: String,
    /// Queue of that port, which matters for ports of components only; default 0.
    #[serde(default)]
    pub queue: u32,
    /// The frame without FCS, in hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// Fields of a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketSpec>,
    /// Place of a traffic rule that is to be told about, whether or not it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
}

/// Bridge settings to change; absent ones stay.
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
}

/// Rows of the MAC table that are wanted; absent: any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
pub struct FdbFilter {
    /// Port, by name or number.
    pub port: Option<String>,
    /// VLAN.
    pub vlan: Option<u16>,
    /// Address.
    #[cfg_attr(feature = "schema", param(value_type = Option<String>))]
    pub mac: Option<MacAddr>,
}

/// A rule to be written; without a place it takes the lowest free one.
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

/// A piece of a long list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
pub struct Page {
    /// First number of it; default 0.
    pub from: u32,
    /// How many at most; default: all.
    pub limit: Option<u32>,
}

impl Page {
    /// How many at most.
    pub fn count(self) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit as usize)
    }
}

/// How many of each there can be, and still could be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Capability {
    /// Ports.
    pub ports: Usage,
    /// Meters.
    pub meters: Usage,
    /// Traffic rules.
    pub rules: Usage,
    /// Distinct masks of the rules: the probes that a look-up costs at most.
    pub rule_masks: usize,
}
