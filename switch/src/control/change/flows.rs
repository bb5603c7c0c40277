//! Flow rules of ports: put in force, and forgotten with their ports.

use std::sync::Arc;
use std::time::Instant;

use super::components::{DRAIN, LOOK, put_readers};
use crate::Error;
use crate::control::state::Control;
use crate::engine::flow::check;
use crate::model::{FlowRule, PortNo};
use crate::worker::component::PortFlows;

/// Puts the flow rules of a port in force.
pub(in crate::control) fn set_flow_rules(control: &mut Control, port: &str, rules: Vec<FlowRule>) -> Result<(), Error> {
    let (shared, queues) = {
        let port = control.ports.find(port)?;
        (Arc::clone(&port.shared), port.queues())
    };
    let no = shared.no;
    if shared.bridged {
        return Err(Error::invalid(format!(
            "`{port}` is a port of the bridge: flow rules are for those of components"
        )));
    }
    check(&rules, queues)?;
    let live = &mut control.components;
    let before = live.flows.get(usize::from(no)).and_then(Option::as_ref);
    if before.is_none() && rules.is_empty() {
        return Ok(());
    }
    let workers = control.core.workers.count();
    let new = Arc::new(PortFlows::new(&shared, &rules, before.map(AsRef::as_ref), workers));
    live.put_flows(no, Some(Arc::clone(&new)));
    publish(control);
    let (lasting, old) = new.without_old_rings(&rules);
    if !old.is_empty() || rules.is_empty() {
        // No worker puts frames into these any more.
        let deadline = Instant::now() + DRAIN;
        while old.iter().any(|ring| ring.reader().is_some() && !ring.is_empty()) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        control.components.put_flows(no, Some(Arc::new(lasting)).filter(|_| !rules.is_empty()));
        publish(control);
        old.iter().for_each(|ring| control.components.empty(&control.core, ring, true));
    }
    let live = &mut control.components;
    live.flow_rules.insert(no, rules);
    live.flow_rules.retain(|_, rules| !rules.is_empty());
    Ok(())
}

/// Forgets the rules of ports that go; no component has them.
pub(super) fn forget(control: &mut Control, ports: &[PortNo]) {
    let live = &mut control.components;
    let gone: Vec<_> = ports.iter().filter(|no| live.flow_rules.remove(no).is_some()).collect();
    if gone.is_empty() {
        return;
    }
    for no in gone {
        live.put_flows(*no, None);
    }
    publish(control);
}

/// Lets all workers go by the rules, with the components that run.
fn publish(control: &Control) {
    put_readers(control, &control.components.running);
    control.core.shared.publish_components(control.components.open_set());
}
