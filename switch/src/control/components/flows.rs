//! Flow rules of ports: put in force, and forgotten with their ports.

use std::sync::Arc;
use std::time::Instant;

use super::super::{Control, State};
use super::live::Live;
use super::swap::{DRAIN, LOOK, put_readers};
use crate::Error;
use crate::engine::PortNo;
use crate::engine::flow::check;
use crate::model::FlowRule;
use crate::worker::component::{Gate, PortFlows, Set};
use crate::worker::ends::Ring;

/// Puts the flow rules of a port in force.
pub(super) fn set(state: &State, control: &mut Control, port: &str, rules: Vec<FlowRule>) -> Result<(), Error> {
    let no = control.number(port)?;
    let shared = Arc::clone(&control.ports[&no].shared);
    if shared.bridged {
        return Err(Error::invalid(format!(
            "`{port}` is a port of the bridge: flow rules are for those of components"
        )));
    }
    check(&rules, shared.queues.len() as u32)?;
    let live = &mut control.components;
    let before = live.flows.get(usize::from(no)).and_then(Option::as_ref);
    if before.is_none() && rules.is_empty() {
        return Ok(());
    }
    let workers = state.shared.workers.len();
    let new = Arc::new(PortFlows::new(&shared, &rules, before.map(AsRef::as_ref), workers));
    live.put_flows(no, Some(Arc::clone(&new)));
    publish(state, control);
    let (lasting, old) = new.without_old_rings(&rules);
    if !old.is_empty() || rules.is_empty() {
        // No worker puts frames into these any more.
        let deadline = Instant::now() + DRAIN;
        while old.iter().any(|ring| ring.reader().is_some() && !ring.is_empty()) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        control.components.put_flows(no, Some(Arc::new(lasting)).filter(|_| !rules.is_empty()));
        publish(state, control);
        old.iter().for_each(|ring| control.components.empty(state, ring, true));
    }
    let live = &mut control.components;
    live.flow_rules.insert(no, rules);
    live.flow_rules.retain(|_, rules| !rules.is_empty());
    Ok(())
}

/// Forgets the rules of ports that go; no component has them.
pub(in super::super) fn forget(state: &State, control: &mut Control, ports: &[PortNo]) {
    let live = &mut control.components;
    let gone: Vec<_> = ports.iter().filter(|no| live.flow_rules.remove(no).is_some()).collect();
    if gone.is_empty() {
        return;
    }
    for no in gone {
        live.put_flows(*no, None);
    }
    publish(state, control);
}

/// Lets all workers go by the rules, with the components that run.
fn publish(state: &State, control: &mut Control) {
    put_readers(control, &control.components.running, state.shared.umem.frames());
    state.shared.publish_components(control.components.open_set());
}

impl Live {
    /// The components that run, all of them at work.
    pub(super) fn open_set(&self) -> Arc<Set> {
        let components = self.running.iter().map(|component| (Arc::clone(component), Gate::Open)).collect();
        Arc::new(Set { components, flows: Arc::clone(&self.flows) })
    }

    /// Rings by which frames come to a port's end, or to that of one queue.
    pub(super) fn rings_to(&self, port: PortNo, queue: Option<u32>) -> Vec<&Arc<Ring>> {
        let Some(flows) = self.flows.get(usize::from(port)).and_then(Option::as_ref) else { return Vec::new() };
        let queue = |no: &u32| queue.is_none_or(|queue| queue == *no);
        (0..flows.port.queues.len() as u32).filter(queue).flat_map(|queue| flows.rings_to(queue)).collect()
    }

    /// Drops what flow rules have sent to ends that no component has any more.
    pub(super) fn empty_unread_rings(&mut self, state: &State) {
        let unread = |ring: &&Arc<Ring>| ring.reader().is_none() && !ring.is_empty();
        let rings: Vec<_> = self.flow_rings().filter(unread).cloned().collect();
        rings.iter().for_each(|ring| self.empty(state, ring, true));
    }

    fn put_flows(&mut self, port: PortNo, of_port: Option<Arc<PortFlows>>) {
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
