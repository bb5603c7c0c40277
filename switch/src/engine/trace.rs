//! What happens to one packet, step by step, told by the very code that switches packets.

use serde::{Deserialize, Serialize};

/// One step on the way of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TraceStep {
    /// Stage: `parse`, `ingress`, `vlan`, `anti-spoof`, `learn`, `fdb`, `flood`, `egress`, …
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
    /// `forward`, `flood` or `drop`.
    pub verdict: String,
    /// Ports that the packet goes out of, by name.
    pub outputs: Vec<String>,
    /// Label of the drop reason, if the verdict is `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
}
