//! Components, their ends, and flow rules.

use super::Switch;
use crate::Error;
use crate::control::change;
use crate::control::state::Control;
use crate::model::*;

impl Switch {
    /// Puts a set of components in the place of the one before, as a whole: no frame is treated by some of the old and some of the new
    /// ones. Only components that change pause, and those for a moment: until what is between them is through, which may take
    /// 200 ms at most. On an error nothing is changed.
    ///
    /// # Errors
    /// `Invalid`: a worker, end or table that does not fit; `NotFound`: a port, ring or outside end that is not there; `Busy`: an
    /// end that two components have the same way, or a port of the bridge.
    pub fn set_components(&self, components: Vec<ComponentSpec>) -> Result<(), Error> {
        change::set_components(&mut self.lock(), components)
    }

    /// The components that run, with their counters since they were made under that name. Drops at a port's way out (`tx_ring_full`,
    /// `egress_mtu`, …) are counted at the port.
    pub fn components(&self) -> Vec<ComponentInfo> {
        self.lock().components.infos()
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

    /// Adds an outside end, and starts the thread that joins it to what is outside; `Exists` if there is one of that number.
    /// `Full`: there are 128. Other errors are those of what is outside: a file, a device.
    pub fn add_outside(&self, no: u32, spec: OutsideSpec) -> Result<(), Error> {
        let Control { core, components, .. } = &mut *self.lock();
        components.add_outside(core, no, spec)
    }

    /// Removes an outside end: what components sent is written first. `Busy` while a component has it.
    pub fn del_outside(&self, no: u32) -> Result<(), Error> {
        let Control { core, components, .. } = &mut *self.lock();
        components.del_outside(core, no)
    }

    /// Gives a port its flow rules, in place of those that it had, as a whole: each worker goes by all of them or by none. They go
    /// with the port. What rules that are gone have sent to a queue's end is still taken there, within 200 ms at most.
    ///
    /// # Errors
    /// `NotFound`: there is no such port; `Invalid`: it is the bridge's, a rule names a queue that it has not, says what is not
    /// possible, or there are more than [`MAX_FLOW_RULES`], or rules that can give a frame more than [`MAX_FLOW_PUSHES`] tags.
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
