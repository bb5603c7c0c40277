//! A packet described by its fields, for `trace`.

use std::net::IpAddr;

use model::MacAddr;
use serde::{Deserialize, Serialize};

/// A packet by its fields. Absent fields get values that make it well-formed. Checksums are always correct.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PacketSpec {
    /// Source MAC address. Default: 02:00:00:00:00:01.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub src: Option<MacAddr>,
    /// Destination MAC address. Default: broadcast.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub dst: Option<MacAddr>,
    /// VID of the outer tag, 0–4095. Absent for no tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Priority (PCP) in that tag, 0–7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcp: Option<u8>,
    /// VID of a second, inner tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_vlan: Option<u16>,
    /// `arp`, or an EtherType as a number. Default: that of the IP addresses, else 0x88b5 (local experimental).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<String>,
    /// Source IP address, v4 or v6.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub ip_src: Option<IpAddr>,
    /// Destination IP address, of the same version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub ip_dst: Option<IpAddr>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or an IP protocol number. Default: udp if ports are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// Source port of TCP or UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port of TCP or UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Length of the frame in bytes, without FCS. Default: the headers, padded to 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<u32>,
}
