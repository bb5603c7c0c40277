//! Flow rules, and the rings by which they send frames.

use std::sync::Arc;

use super::live::Live;
use crate::control::core::Core;
use crate::counters::as_count;
use crate::model::PortNo;
use crate::worker::component::{Gate, PortFlows, Set};
use crate::worker::ends::Ring;

impl Live {
    /// The components that run, all of them at work.
    pub fn open_set(&self) -> Arc<Set> {
        let components = self.running.iter().map(|component| (Arc::clone(component), Gate::Open)).collect();
        Arc::new(Set { components, flows: Arc::clone(&self.flows) })
    }

    /// Rings by which frames come to a port's end, or to that of one queue.
    pub fn rings_to(&self, port: PortNo, queue: Option<u32>) -> Vec<&Arc<Ring>> {
        let Some(flows) = self.flows.get(usize::from(port)).and_then(Option::as_ref) else { return Vec::new() };
        let queue = |no: &u32| queue.is_none_or(|queue| queue == *no);
        (0..as_count(flows.port.queues.len())).filter(queue).flat_map(|queue| flows.rings_to(queue)).collect()
    }

    /// Drops what flow rules have sent to ends that no component has any more.
    pub fn empty_unread_rings(&mut self, core: &Core) {
        let unread = |ring: &&Arc<Ring>| ring.reader().is_none() && !ring.is_empty();
        let rings: Vec<_> = self.flow_rings().filter(unread).cloned().collect();
        rings.iter().for_each(|ring| self.empty(core, ring, true));
    }

    /// Puts the flow rules of a port in the place of those that it had.
    pub fn put_flows(&mut self, port: PortNo, of_port: Option<Arc<PortFlows>>) {
        let mut flows = Vec::clone(&self.flows);
        let place = usize::from(port);
        if flows.len() <= place {
            flows.resize(place + 1, None);
        }
        flows[place] = of_port;
        if flows.iter().all(Option::is_none) {
            flows.clear();
        }
        self.flows = Arc::new(flows);
    }
}
