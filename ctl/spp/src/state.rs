//! Collects the whole state, for the API and the command line.

use ctl_spp_types::{NamedPort, SppState};

use super::Spp;

impl Spp {
    /// The state at this moment. Parts are read one after the other, so a change in between may show in some only.
    pub fn state(&self) -> SppState {
        let (components, outside) = self.working();
        SppState {
            listen: self.config().listen.clone(),
            ports: self.ports().into_iter().map(|(port, name)| NamedPort { port, name }).collect(),
            instances: self.instances(),
            components,
            ends: self.ends(),
            flow: self.all_flow_rules(),
            outside,
        }
    }
}
