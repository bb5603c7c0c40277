//! Bonds: ports that are several NICs, as their users see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::MacAddr;

/// Most members of a bond.
pub const MAX_BOND_MEMBERS: usize = 16;
/// Queues of all members of a bond that names no number.
pub const DEFAULT_BOND_QUEUES: u32 = 64;

/// What makes a port a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BondSpec {
    /// Netdevs of the host that are its members, at most 16. None of them is another port's.
    #[serde(default)]
    pub members: Vec<String>,
    /// Options by the names of the Linux bonding driver, with its values (by name or number). Default: those of the
    /// driver, so `mode` is `balance-rr`.
    #[serde(default, deserialize_with = "bond_option_values", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Changes to a live bond, in the order of the fields. Absent ones change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BondUpdate {
    /// Options to set. Those that the Linux bonding driver does not change while a bond is up are refused.
    #[serde(default, deserialize_with = "bond_option_values", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Netdevs that become members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Members that leave. Nothing is lost: their traffic moves first, and the partner is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Mode `active-backup`: the member to make active; empty: the best one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
}

/// Reads values of options: text, numbers, or true and false (1 and 0).
///
/// # Errors
/// A value is something else.
pub fn bond_option_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Number(u64),
        Flag(bool),
    }
    let values: BTreeMap<String, Value> = BTreeMap::deserialize(deserializer)?;
    let text = |value| match value {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => u8::from(flag).to_string(),
    };
    Ok(values.into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// A live bond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BondInfo {
    /// Mode in force, by its name.
    pub mode: String,
    /// Every option with its value in force, as the driver's files in sysfs show it.
    pub options: BTreeMap<String, String>,
    /// Its own address.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub mac: MacAddr,
    /// Whether frames can be sent by it.
    pub carrier: bool,
    /// Mode `active-backup`: the active member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Mode `802.3ad`: what it has negotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp: Option<BondLacpInfo>,
    /// Members, by their numbers. Those whose netdevs are not there are missing.
    pub members: Vec<BondMemberInfo>,
}

/// The active aggregator of mode `802.3ad`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BondLacpInfo {
    /// Priority of this system.
    pub system_priority: u16,
    /// Address of this system.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub system: MacAddr,
    /// Number of the active aggregator; absent: no link is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregator: Option<u16>,
    /// Links in it.
    pub ports: usize,
    /// This side's key.
    pub actor_key: u16,
    /// The partner's key.
    pub partner_key: u16,
    /// The partner's system address; all zero: there is none.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:02"))]
    pub partner: MacAddr,
}

/// A member of a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BondMemberInfo {
    /// Its number, from 1 on: its port number to LACP partners.
    pub number: u16,
    /// Netdev.
    pub ifname: String,
    /// The netdev's address.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub mac: MacAddr,
    /// Whether the kernel reports a link.
    pub link_up: bool,
    /// `up`, `going down` (downdelay), `down` or `going back` (updelay), as the driver calls them.
    pub mii_status: String,
    /// Mbit/s; absent: the driver does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// `full` or `half`; absent: the driver does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplex: Option<String>,
    /// How often its link went down.
    pub link_failures: u64,
    /// It is being removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Whether frames that come in by it are taken.
    pub collecting: bool,
    /// Whether frames go out by it.
    pub distributing: bool,
    /// Of 256 buckets of flows, those that go out by it; modes `balance-xor` and `802.3ad`.
    pub buckets: usize,
    /// Queues of the port that are its own: the first one, and how many.
    pub first_queue: u32,
    /// How many.
    pub queues: u32,
    /// Frames that came in by it while it was inactive, and were dropped.
    pub inactive_drops: u64,
    /// Mode `802.3ad`: its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp: Option<BondPortInfo>,
}

/// An LACP port, as IEEE 802.1AX describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BondPortInfo {
    /// Number of its aggregator; absent: none is selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregator: Option<u16>,
    /// Of the receive machine.
    pub receive_state: String,
    /// Of the mux machine.
    pub mux_state: String,
    /// This side.
    pub actor: BondPartyInfo,
    /// The other side, as it said.
    pub partner: BondPartyInfo,
    /// Churn detection of this side: `none`, `monitoring` or `churned` (it has not come into sync for 60 s).
    pub actor_churn: String,
    /// Churn detection of the other side.
    pub partner_churn: String,
    /// How often this side has churned.
    pub actor_churned: u64,
    /// How often the other side has.
    pub partner_churned: u64,
    /// LACPDUs that came in.
    pub pdus_received: u64,
    /// LACPDUs that were sent.
    pub pdus_sent: u64,
    /// Frames of the Slow Protocols that were badly formed.
    pub pdus_bad: u64,
}

/// One side of an LACP link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BondPartyInfo {
    /// Priority of the system.
    pub system_priority: u16,
    /// Address of the system.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "02:00:00:00:00:01"))]
    pub system: MacAddr,
    /// Key.
    pub key: u16,
    /// Priority of the port.
    pub port_priority: u16,
    /// Number of the port.
    pub port: u16,
    /// State octet: 1 activity, 2 timeout, 4 aggregation, 8 synchronization, 16 collecting, 32 distributing,
    /// 64 defaulted, 128 expired.
    pub state: u8,
    /// The same in words.
    pub state_words: Vec<String>,
}
