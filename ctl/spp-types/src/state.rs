//! Everything that there is, as `GET /api/v1/spp` tells it and `topo` and `save` take it.

use model::{ComponentInfo, Count, EndInfo, OutsideInfo};
use serde::{Deserialize, Serialize};

use crate::{Instance, PortId};

/// The Soft Patch Panel at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SppState {
    /// TCP address of the REST API; empty: none.
    pub listen: String,
    /// Ports of the switch that have SPP names, by those.
    pub ports: Vec<NamedPort>,
    /// Instances: the primary first, then by type and number; what they do, and what they will do from the next flush on.
    pub instances: Vec<Instance>,
    /// Components that run, patches and captures among them, with counters. Named `vf 1/fwd1`, `nfv 2/phy:0-ring:0`, `pcap 3/capture`.
    pub components: Vec<ComponentInfo>,
    /// Rings, null and outside ends with counters.
    pub ends: Vec<EndInfo>,
    /// Flow rules of the ports that have any, with counters.
    #[serde(default)]
    pub flow: Vec<PortFlow>,
    /// What outside ends are joined to, and the files that captures have written.
    pub outside: Vec<OutsideInfo>,
}

/// A port of the switch that has an SPP name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NamedPort {
    /// That name.
    pub port: PortId,
    /// The port's own name.
    pub name: String,
}

/// The flow rules of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PortFlow {
    /// The port.
    pub port: PortId,
    /// Its rules, in the order in which they were made.
    pub rules: Vec<FlowState>,
}

/// A flow rule with its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowState {
    /// Its number.
    pub rule_id: u32,
    /// In words, as they stand behind `flow create PORT`.
    #[cfg_attr(
        feature = "schema",
        schema(example = "ingress pattern eth dst is 02:00:00:00:00:01 / end actions queue index 1 / end")
    )]
    pub line: String,
    /// Frames that met it, with the length that they had then, since it was made, or since its port or the switch was started.
    pub matched: Count,
}
