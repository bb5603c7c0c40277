//! All that there is, for those who show it.

use ctl_spp_types::{NamedPort, SppState};

use super::Spp;

impl Spp {
    /// What there is now.
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
