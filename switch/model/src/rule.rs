//! Traffic rules as users write them. Field names in JSON are those of the DPU interface.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Count, Masked, MaskedIp, MaskedMac};

/// IP version that a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum IpType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// The key of a rule. An absent field matches anything. A value with bits outside its mask is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RuleKey {
    /// Number of the port that the frame came from.
    #[serde(rename = "vid", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "3"))]
    pub ingress_port: Option<Masked<16>>,
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub dmac: Option<MaskedMac>,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schema(value_type = Option<String>, example = "02:00:00:00:00:00/ff:ff:ff:00:00:00")
    )]
    pub smac: Option<MaskedMac>,
    /// VID of the outer tag as the frame came in; 0 for untagged and priority-tagged frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "10"))]
    pub vlan: Option<Masked<12>>,
    /// IP version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_type: Option<IpType>,
    /// IP protocol; for IPv6 the one behind the extension headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "17"))]
    pub ipprotocol: Option<Masked<8>>,
    /// Destination IP address; implies its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "10.0.0.0/8"))]
    pub dip: Option<MaskedIp>,
    /// Source IP address; implies its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "2001:db8::/32"))]
    pub sip: Option<MaskedIp>,
    /// Destination port of TCP or UDP. A packet without ports, such as a later fragment, does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "80/0xfff0"))]
    pub dl4port: Option<Masked<16>>,
    /// Source port of TCP or UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "53"))]
    pub sl4port: Option<Masked<16>>,
}

/// Where a rule sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleTarget {
    /// The frame is dropped.
    Drop,
    /// On by the FDB, as if there were no rule.
    Normal,
    /// To this port.
    Port(u16),
}

impl fmt::Display for RuleTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleTarget::Drop => f.write_str("drop"),
            RuleTarget::Normal => f.write_str("normal"),
            RuleTarget::Port(no) => write!(f, "{no}"),
        }
    }
}

impl std::str::FromStr for RuleTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "drop" => Ok(RuleTarget::Drop),
            "normal" => Ok(RuleTarget::Normal),
            number => number
                .parse()
                .map(RuleTarget::Port)
                .map_err(|_| format!("`{text}` is neither a port number nor `drop` nor `normal`")),
        }
    }
}

impl Serialize for RuleTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            RuleTarget::Port(no) => serializer.serialize_u16(*no),
            word => serializer.collect_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for RuleTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = RuleTarget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number, \"drop\" or \"normal\"")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<RuleTarget, E> {
                u16::try_from(value)
                    .map(RuleTarget::Port)
                    .map_err(|_| E::custom(format!("vid: {value} is not a port number")))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<RuleTarget, E> {
                u16::try_from(value)
                    .map(RuleTarget::Port)
                    .map_err(|_| E::custom(format!("vid: {value} is not a port number")))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RuleTarget, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Take).map_err(D::Error::custom)
    }
}

/// The action of a rule: what it does with a frame that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleAction {
    /// Where the frame goes: a port number, `drop`, or `normal` (on by the MAC table).
    #[serde(rename = "vid")]
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "3"))]
    pub target: RuleTarget,
    /// Queue of that port; absent: by flow hash.
    #[serde(default, rename = "qid", skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Meter that the frame passes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<u32>,
    /// Port that gets a copy of the frame as it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<u16>,
}

impl RuleAction {
    /// The action that only sends the frame to `target`.
    pub fn to(target: RuleTarget) -> Self {
        Self { target, queue: None, meter: None, mirror: None }
    }
}

/// A traffic rule. Of all rules that match a frame, the one with the lowest `key_index` is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Its index, `0..rules` of [`Capacity`](super::Capacity).
    pub key_index: u32,
    /// Which frames it matches; empty: all.
    #[serde(default)]
    pub key: RuleKey,
    /// What it does with them.
    pub action: RuleAction,
}

/// A traffic rule with its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RuleInfo {
    /// The rule.
    #[serde(flatten)]
    pub spec: RuleSpec,
    /// Frames that it was applied to, since it was written.
    pub matched: Count,
}

/// One change of a batch.
#[expect(clippy::large_enum_variant, reason = "a batch is mostly writes, which a box each would only make dearer")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RuleChange {
    /// Write a rule at its index. A rule that is there is replaced.
    Write(RuleSpec),
    /// Delete the rule with that index, which must be there.
    Delete(u32),
    /// Delete all rules.
    Clear,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_of_ports_and_queues_are_those_of_the_dpu_interface() {
        let key = RuleKey { ingress_port: Some(Masked::exactly(3)), ..RuleKey::default() };
        let action = RuleAction { queue: Some(1), ..RuleAction::to(RuleTarget::Port(2)) };
        let spec = RuleSpec { key_index: 7, key, action };
        let json = r#"{"key_index":7,"key":{"vid":3},"action":{"vid":2,"qid":1}}"#;
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        assert_eq!(serde_json::from_str::<RuleSpec>(json).unwrap(), spec);
    }
}
