//! Meters as users write them. Field names are those of the DPU interface.

use serde::{Deserialize, Serialize};

use super::Count;

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
    /// (Committed) burst in kbit or frames; default: 100 ms of the rate, at least 10 frames of 1,514 bytes (10
    /// frames). At least the largest frame (33 kbit, or 1 frame).
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
