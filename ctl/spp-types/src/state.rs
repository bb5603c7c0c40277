//! The whole state, as `GET /api/v1/spp` answers it. `topo` and `save` work on it.

use model::{ComponentInfo, Count, EndInfo, OutsideInfo};
use serde::{Deserialize, Serialize};

use crate::{Instance, PortId};

/// The Soft Patch Panel at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SppState {
    /// TCP address of the REST API. Empty: it is off.
    pub listen: String,
    /// Ports of the switch that have SPP names, in the order of these names.
    pub ports: Vec<NamedPort>,
    /// Instances, with what they do and what changes with the next flush. The primary is first. The others are in the
    /// order of type and number.
    pub instances: Vec<Instance>,
    /// Running components with counters. Patches and captures are components too. Names are as `vf 1/fwd1`,
    /// `nfv 2/phy:0-ring:0` and `pcap 3/capture`.
    pub components: Vec<ComponentInfo>,
    /// Rings, null ends and outside ends, with counters.
    pub ends: Vec<EndInfo>,
    /// Flow rules of the ports that have any, with counters.
    #[serde(default)]
    pub flow: Vec<PortFlow>,
    /// What outside ends are connected to, and the files that captures have written.
    pub outside: Vec<OutsideInfo>,
}

/// A port of the switch that has an SPP name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NamedPort {
    /// Its SPP name.
    pub port: PortId,
    /// Its name in the switch.
    pub name: String,
}

/// The flow rules of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PortFlow {
    /// The port, as the daemon describes it.
    pub port: PortId,
    /// Its rules, in the order in which they were made.
    pub rules: Vec<FlowState>,
}

/// A flow rule with its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowState {
    /// Number, unique among the rules of the port.
    pub rule_id: u32,
    /// The rule in words, as after `flow create PORT`.
    #[cfg_attr(
        feature = "schema",
        schema(example = "ingress pattern eth dst is 02:00:00:00:00:01 / end actions queue index 1 / end")
    )]
    pub line: String,
    /// Frames that matched, with their length at that point. The count starts with the rule. It starts again with the
    /// rule's port, or with the switch.
    pub matched: Count,
}
