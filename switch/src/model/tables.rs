//! Meters, traffic rules and redirects as users write them. Field names are those of the DPU interface.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::masked::{Masked, MaskedIp, MaskedMac};
use super::{Count, MAX_PORTS};

/// Meters and rules that a switch can have when nothing else is configured.
pub const DEFAULT_TABLE_SIZE: u32 = 65_536;
/// Most of each that can be configured.
pub const MAX_TABLE_SIZE: u32 = 1 << 20;
/// Distinct masks of rules when nothing else is configured.
pub const DEFAULT_MASKS: u32 = 1024;
/// Ports that a switch can have when nothing else is configured.
pub const DEFAULT_PORTS: u32 = 256;

/// How many of each there can be; fixed from start to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Ports, 1–1024; default 256. Port numbers are `0..ports`.
    pub ports: u32,
    /// Meters, 1–1,048,576; default 65,536.
    pub meters: u32,
    /// Traffic rules, 1–1,048,576; default 65,536. `key_index` is `0..rules`.
    pub rules: u32,
    /// Distinct masks of the rules, 1–65,536; default 1,024: a frame of a flow that was not seen lately may cost a probe for
    /// each of them, so this bounds what a guest can cost.
    pub rule_masks: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { ports: DEFAULT_PORTS, meters: DEFAULT_TABLE_SIZE, rules: DEFAULT_TABLE_SIZE, rule_masks: DEFAULT_MASKS }
    }
}

impl Capacity {
    /// Ports as a table size.
    pub fn port_slots(self) -> usize {
        (self.ports as usize).min(MAX_PORTS)
    }
}

/// Capacity and what of it is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Usage {
    /// What there can be.
    pub total: u32,
    /// What can still be added.
    pub free: u32,
}

/// What a meter counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MeterType {
    /// Bits of Ethernet frames without FCS; rates in kbit/s (1,000 bits), bursts in kbit.
    #[default]
    Kbps,
    /// Frames; rates in frames per second, bursts in frames.
    Pps,
}

/// How a meter marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MeterMode {
    /// One token bucket: what it has no tokens for is red.
    #[default]
    Single,
    /// Two-rate three-colour marker of RFC 2698: peak rate above which red, committed rate above which yellow.
    Rfc2698,
    /// Two-rate three-colour marker of RFC 4115: a committed bucket, and an excess bucket for what it can't take.
    Rfc4115,
}

/// A meter as its user writes it. Red frames are dropped, green and yellow ones pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MeterSpec {
    /// Number, any of 32 bits.
    pub id: u32,
    /// (Committed) rate in kbit/s or frames/s, at least 1.
    pub rate: u32,
    /// What it counts; fixed.
    #[serde(default, rename = "type")]
    pub kind: MeterType,
    /// (Committed) burst in kbit or frames; default: 100 ms of the rate, at least 10 frames of 1,514 bytes (10 frames). At
    /// least the largest frame (33 kbit, or 1 frame).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How it marks; fixed.
    #[serde(default)]
    pub mode: MeterMode,
    /// Two-rate modes only: peak (RFC 2698; not below `rate`) or excess (RFC 4115) rate, in the unit of `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rate: Option<u32>,
    /// Two-rate modes only: peak or excess burst; default as for `burst`, of `peak_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_burst: Option<u32>,
    /// Two-rate modes only: start from the colour that an earlier meter on the frame's way gave it; default false.
    #[serde(default)]
    pub color_aware: bool,
    /// Two-rate modes only: DSCP (0–63) written into yellow IP packets; default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yellow_dscp: Option<u8>,
}

impl MeterSpec {
    /// A single-bucket meter in kbit/s with the default burst.
    pub fn new(id: u32, rate: u32) -> Self {
        Self {
            id,
            rate,
            kind: MeterType::Kbps,
            burst: None,
            mode: MeterMode::Single,
            peak_rate: None,
            peak_burst: None,
            color_aware: false,
            yellow_dscp: None,
        }
    }
}

/// Changes to a meter; absent fields stay. A burst that was left to its default follows the rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MeterUpdate {
    /// As in [`MeterSpec::rate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// As in [`MeterSpec::burst`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// As in [`MeterSpec::peak_rate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rate: Option<u32>,
    /// As in [`MeterSpec::peak_burst`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_burst: Option<u32>,
    /// As in [`MeterSpec::color_aware`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_aware: Option<bool>,
    /// As in [`MeterSpec::yellow_dscp`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yellow_dscp: Option<u8>,
}

/// Which frames of a port a meter applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MeterDirection {
    /// What the port sends into the switch, before anything else is done with it.
    From,
    /// What the switch sends out to the port, last of all.
    To,
}

/// A meter bound to a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MeterBinding {
    /// Number of the port.
    pub vport: u16,
    /// Which of its frames.
    pub direction: MeterDirection,
    /// Number of the meter.
    pub meter: u32,
}

/// A meter as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MeterInfo {
    /// As configured; an absent burst is the default.
    pub spec: MeterSpec,
    /// Burst in force, in kbit or frames.
    pub burst: u32,
    /// Peak or excess burst in force; 0 without one.
    pub peak_burst: u32,
    /// Whether it was never bound nor named by a rule, so that it applies to what the vport of its number sends.
    pub implicit: bool,
    /// Port directions that it is bound to (the implicit one included, if that port exists).
    pub bindings: Vec<MeterBinding>,
    /// Rules that name it.
    pub rules: u32,
    /// Frames that passed (green).
    pub green: Count,
    /// Frames that passed marked (yellow).
    pub yellow: Count,
    /// Frames that were dropped (red).
    pub red: Count,
}

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

/// What a rule looks at; an absent field matches anything. A value with bits outside its mask is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RuleKey {
    /// Number of the port that the frame came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "3"))]
    pub vid: Option<Masked<16>>,
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:01"))]
    pub dmac: Option<MaskedMac>,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "02:00:00:00:00:00/ff:ff:ff:00:00:00"))]
    pub smac: Option<MaskedMac>,
    /// VID of the outer tag as the frame came in; 0 for untagged (and priority-tagged) frames.
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
    /// Destination port of TCP or UDP; a packet without ports (a later fragment, say) does not match.
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
    /// Nowhere.
    Drop,
    /// On by the MAC table, as if there were no rule.
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

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RuleTarget, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Take).map_err(D::Error::custom)
    }
}

/// What a rule does with a frame that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleAction {
    /// Where it goes: a port number, `drop`, or `normal` (on by the MAC table).
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "3"))]
    pub vid: RuleTarget,
    /// Queue of that port; absent: by flow hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qid: Option<u32>,
    /// Meter that it passes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<u32>,
    /// Port that gets a copy of the frame as it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<u16>,
}

impl RuleAction {
    /// Only a destination.
    pub fn to(vid: RuleTarget) -> Self {
        Self { vid, qid: None, meter: None, mirror: None }
    }
}

/// A traffic rule. Of all that match a frame the one with the lowest `key_index` is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Its place, `0..rules` of [`Capacity`].
    pub key_index: u32,
    /// What it looks at; empty: matches everything.
    #[serde(default)]
    pub key: RuleKey,
    /// What it does.
    pub action: RuleAction,
}

/// A traffic rule and what it counted.
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
    /// Write a rule in its place; one that is there is replaced.
    Write(RuleSpec),
    /// Delete the rule of that place, which must be there.
    Delete(u32),
    /// Delete all rules.
    Clear,
}

/// All that would go to `src` goes to `dest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// Number of the port that it would go to.
    pub src: u16,
    /// Number of the port that gets it.
    pub dest: u16,
}

/// A redirect as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RedirectInfo {
    /// The redirect.
    #[serde(flatten)]
    pub spec: RedirectSpec,
    /// Port where it ends when `dest` is redirected too.
    pub ends_at: u16,
    /// Frames that went elsewhere because of a redirect of `src`, since that port was added.
    pub redirected: Count,
}
