//! The way of a traced packet, step by step.

use serde::{Deserialize, Serialize};

use super::EndPort;

/// One step on the way of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TraceStep {
    /// Stage: `ingress`, `meter`, `parse`, `vlan`, `anti-spoof`, `learn`, `rule`, `mirror`, `fdb`, `redirect`, `flood`,
    /// `egress`, `verdict`, `flow table`; at components also `flow`, `component`, `classifier`, `ring`, `waiting`,
    /// `circle`, `drop`.
    pub stage: String,
    /// What was looked at and found.
    pub detail: String,
}

/// The way of a traced packet and where it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TraceReport {
    /// The steps in order.
    pub steps: Vec<TraceStep>,
    /// `forward`, `flood` or `drop`. At components also `copy` if it is sent to several ends, and `wait`, `circle` or
    /// `cut` if it is neither sent nor dropped.
    pub verdict: String,
    /// Ports that the packet goes out of, by name; at components other ends, too.
    pub outputs: Vec<String>,
    /// Label of the drop reason, if the verdict is `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
    /// Index of the traffic rule that applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Port that gets a copy by that rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// What came in by a port of components: where each of its copies ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<TraceEnd>,
}

/// Where a copy of a packet ends that came in by a port of components.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TraceEnd {
    /// How.
    pub fate: TraceFate,
    /// What it is sent to, waits in or is dropped at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<EndPort>,
    /// Components that it passes, in order.
    pub components: Vec<String>,
    /// Label of the drop reason, if it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The frame as it is then, in hex digits.
    pub hex: String,
}

/// How the way of a packet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TraceFate {
    /// It leaves, by a port or another end.
    Sent,
    /// It is dropped.
    Dropped,
    /// It waits for a component that takes frames from where it is.
    Waiting,
    /// It comes to where it was, as it was then.
    Circling,
    /// It has passed too many components to be followed any further.
    Cut,
}
