//! Everything that there is, as `GET /api/v1/spp` tells it and `topo` and `save` take it.

use serde::{Deserialize, Serialize};
use switch::model::{ComponentInfo, EndInfo, OutsideInfo};

use crate::spp::{Instance, PortFlow, PortId, Spp};

/// The Soft Patch Panel at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NamedPort {
    /// That name.
    pub port: PortId,
    /// The port's own name.
    pub name: String,
}

impl SppState {
    /// What there is now.
    pub fn of(spp: &Spp) -> Self {
        let (components, outside) = spp.working();
        Self {
            listen: spp.config().listen.clone(),
            ports: spp.ports().into_iter().map(|(port, name)| NamedPort { port, name }).collect(),
            instances: spp.instances(),
            components,
            ends: spp.ends(),
            flow: spp.all_flow_rules(),
            outside,
        }
    }
}
