//! The bridge: its MAC table (FDB) and its settings.

use serde::{Deserialize, Serialize};

use super::MacAddr;

/// How a MAC address came into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FdbKind {
    /// Seen as a source address; ages.
    Learned,
    /// Configured; stays and never moves.
    Static,
}

/// An FDB entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FdbEntry {
    /// MAC address.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub mac: MacAddr,
    /// VLAN, 0 for the untagged segment.
    pub vlan: u16,
    /// Name of the port.
    pub port: String,
    /// Learned or static.
    pub kind: FdbKind,
    /// Seconds since a frame from it was last seen; 0 for a static one.
    pub age_seconds: u32,
    /// Whether it is held at the port because it flapped: what comes in from it at other ports is dropped with reason
    /// `mac_flap`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

/// An address that was seen behind two ports in turn, faster than a guest moves, and is held at the first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HeldAddress {
    /// MAC address.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub mac: MacAddr,
    /// VLAN, 0 for the untagged segment.
    pub vlan: u16,
    /// Name of the port that it is held at.
    pub port: String,
    /// Name of the port that it moved to last.
    pub other: String,
}

/// A static FDB entry as a user asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FdbSpec {
    /// Unicast MAC address.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub mac: MacAddr,
    /// VLAN 0–4094, 0 (the default) for the untagged segment.
    #[serde(default)]
    pub vlan: u16,
    /// Name of the port.
    pub port: String,
}

/// Settings of the bridge component that may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BridgeSettings {
    /// Most MAC addresses in all, 16–1,000,000; default 131,072.
    pub fdb_limit: u32,
    /// Seconds after which an address that was not seen again expires, 1–1,000,000; default 300 (IEEE 802.1Q).
    pub fdb_ageing_seconds: u32,
    /// Forward 01:80:c2:00:00:00–0f (STP, LACP, pause, LLDP), which a bridge keeps to itself (IEEE 802.1D table
    /// 7-10); default false: dropped with reason `reserved_multicast`.
    pub forward_reserved: bool,
    /// Moves of an address between ports within a second that are honest, 0–1,000,000; default 10. One that moves more
    /// often is held at its first port for ten seconds, and what comes from it at others is dropped with reason
    /// `mac_flap`. 0: no address is held.
    pub flap_limit: u32,
    /// Copies a second that floods of one port may cost: broadcast, multicast and unknown unicast, counted as
    /// `flood_copies`. 0–1,000,000,000, default 250,000; 0: as many as it likes. A port can save up one second's worth.
    /// What is more is dropped with reason `storm`.
    pub storm_control: u32,
}

/// Copies a second that floods of one port may cost when nothing else is configured: 1,250 broadcasts to 200 ports.
pub const DEFAULT_STORM_CONTROL: u32 = 250_000;

impl Default for BridgeSettings {
    fn default() -> Self {
        Self {
            fdb_limit: 131_072,
            fdb_ageing_seconds: 300,
            forward_reserved: false,
            flap_limit: 10,
            storm_control: DEFAULT_STORM_CONTROL,
        }
    }
}
