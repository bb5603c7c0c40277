//! Components, their ends, and flow rules.

use super::Switch;
use crate::Error;
use crate::control::change;
use crate::control::state::Control;
use crate::model::*;

impl Switch {
    /// Puts a set of components in the place of the one before, as a whole. No frame is treated by both. Components
    /// that stay the same go on. Those that change pause until what is between them is through, for 200 ms at most.
    /// On an error nothing is changed.
    ///
    /// # Errors
    /// - `Invalid`: a worker, end or table does not fit.
    /// - `NotFound`: a port, ring or outside end is not there.
    /// - `Busy`: two components have an end the same way, or an end is a port of the bridge.
    pub fn set_components(&self, components: Vec<ComponentSpec>) -> Result<(), Error> {
        change::set_components(&mut self.lock(), components)
    }

    /// The components that run, with their counters since they were made under that name. Drops on a port's way out
    /// (`tx_ring_full`, `egress_mtu`, …) are counted at the port.
    pub fn components(&self) -> Vec<ComponentInfo> {
        self.lock().components.infos()
    }

    /// What runs, as it was set. A port that is lost takes its components out of it.
    pub fn component_specs(&self) -> Vec<ComponentSpec> {
        self.lock().components.running.iter().map(|component| component.spec.clone()).collect()
    }

    /// Adds a ring of that many frames, a power of two from 2 to 32,768; `Exists` if there is one of that number.
    pub fn add_ring(&self, no: u32, depth: u32) -> Result<(), Error> {
        self.lock().components.add_ring(no, depth)
    }

    /// Removes a ring; what is in it is dropped. `Busy` while a component has it.
    pub fn del_ring(&self, no: u32) -> Result<(), Error> {
        let Control { core, components, .. } = &mut *self.lock();
        components.del_ring(core, no)
    }

    /// Adds an outside end, and starts the thread that joins it to what is outside.
    ///
    /// # Errors
    /// - `Exists`: there is one of that number.
    /// - `Full`: there are 128.
    /// - Those of what is outside: a file, a device.
    pub fn add_outside(&self, no: u32, spec: OutsideSpec) -> Result<(), Error> {
        let Control { core, components, .. } = &mut *self.lock();
        components.add_outside(core, no, spec)
    }

    /// Removes an outside end: what components sent is written first. `Busy` while a component has it.
    pub fn del_outside(&self, no: u32) -> Result<(), Error> {
        let Control { core, components, .. } = &mut *self.lock();
        components.del_outside(core, no)
    }

    /// Replaces the flow rules of a port as a whole. Each worker goes by all of them or by none. They go with the
    /// port. What earlier rules have sent to a queue's end is still taken there, within 200 ms at most.
    ///
    /// # Errors
    /// - `NotFound`: there is no such port.
    /// - `Invalid`: the port is the bridge's, or a rule names a queue that the port has not.
    /// - `Invalid`: a rule says what is not possible.
    /// - `Invalid`: more than [`MAX_FLOW_RULES`] rules, or more than [`MAX_FLOW_PUSHES`] tags for a frame.
    pub fn set_flow_rules(&self, port: &str, rules: Vec<FlowRule>) -> Result<(), Error> {
        change::set_flow_rules(&mut self.lock(), port, rules)
    }

    /// The flow rules of a port.
    ///
    /// # Errors
    /// `NotFound`: there is no such port.
    pub fn flow_rules(&self, port: &str) -> Result<Vec<FlowRule>, Error> {
        let control = self.lock();
        let no = control.ports.find(port)?.shared.no;
        Ok(control.components.flow_rules.get(&no).cloned().unwrap_or_default())
    }

    /// What the flow rules of all ports counted, by port and in the order in which they were given.
    pub fn flow_counts(&self) -> Vec<FlowCount> {
        let control = self.lock();
        control.components.flow_counts(|port| control.ports.name_of(port))
    }

    /// The outside ends.
    pub fn outside(&self) -> Vec<OutsideInfo> {
        self.lock().components.outside_infos()
    }

    /// Counters of rings, null ends and outside ends.
    pub fn ends(&self) -> Vec<EndInfo> {
        self.lock().components.ends()
    }
}
