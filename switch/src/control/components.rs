//! Components as their manager sees them.

use super::Switch;
use crate::Error;
use crate::model::*;

impl Switch {
    /// Puts a set of components in the place of the one before, as a whole: no frame is treated by some of the old and some of the new
    /// ones. Only the workers of components that change pause, and those for a moment. On an error nothing is changed.
    ///
    /// # Errors
    /// `Invalid`: a worker, end or table that does not fit; `NotFound`: a port, ring or outside end that is not there; `Busy`: an
    /// end that two components have the same way.
    pub fn set_components(&self, components: Vec<ComponentSpec>) -> Result<(), Error> {
        let _ = components;
        Err(Error::new(crate::ErrorKind::Unsupported, "components are not there yet"))
    }

    /// The components that run, with their counters since they were made under that name.
    pub fn components(&self) -> Vec<ComponentInfo> {
        Vec::new()
    }

    /// Adds a ring of that many frames, a power of two; `Exists` if there is one of that number.
    pub fn add_ring(&self, no: u32, depth: u32) -> Result<(), Error> {
        let _ = (no, depth);
        Err(Error::new(crate::ErrorKind::Unsupported, "rings are not there yet"))
    }

    /// Removes a ring; what is in it is dropped. `Busy` while a component has it.
    pub fn del_ring(&self, no: u32) -> Result<(), Error> {
        let _ = no;
        Err(Error::new(crate::ErrorKind::Unsupported, "rings are not there yet"))
    }

    /// Adds an outside end, and starts the thread that joins it to what is outside; `Exists` if there is one of that number.
    pub fn add_outside(&self, no: u32, spec: OutsideSpec) -> Result<(), Error> {
        let _ = (no, spec);
        Err(Error::new(crate::ErrorKind::Unsupported, "outside ends are not there yet"))
    }

    /// Removes an outside end: what components sent is written first. `Busy` while a component has it.
    pub fn del_outside(&self, no: u32) -> Result<(), Error> {
        let _ = no;
        Err(Error::new(crate::ErrorKind::Unsupported, "outside ends are not there yet"))
    }

    /// Gives a port its flow rules, in place of those that it had, as a whole. They go with the port.
    ///
    /// # Errors
    /// `NotFound`: there is no such port; `Invalid`: it is the bridge's, or a rule names a queue that it has not.
    pub fn set_flow_rules(&self, port: &str, rules: Vec<FlowRule>) -> Result<(), Error> {
        let _ = (port, rules);
        Err(Error::new(crate::ErrorKind::Unsupported, "flow rules are not there yet"))
    }

    /// The flow rules of a port.
    ///
    /// # Errors
    /// `NotFound`: there is no such port.
    pub fn flow_rules(&self, port: &str) -> Result<Vec<FlowRule>, Error> {
        self.state.lock().find(port).map(|_| Vec::new())
    }

    /// The outside ends.
    pub fn outside(&self) -> Vec<OutsideInfo> {
        Vec::new()
    }

    /// Counters of rings, null ends and outside ends.
    pub fn ends(&self) -> Vec<EndInfo> {
        Vec::new()
    }

    /// Sets the counters of components, ends and of ports that are not bridged to zero.
    pub fn clear_component_stats(&self) {}
}
