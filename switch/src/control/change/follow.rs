//! Ports follow what happens to their netdevs.
//!
//! A port goes by what somebody has changed, has it repaired, or tells of it as a problem. A port whose netdev is gone
//! leaves the switch as if it had been removed. Its number is kept, with all that names it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::components::set_components;
use super::remove::remove_ports;
use super::steer;
use crate::control::PortChange;
use crate::control::attach::{OtherQueues, Sight};
use crate::control::ports::{Condition, LivePort};
use crate::control::state::Control;
use crate::host::{HostChange, Link};
use crate::model::*;

/// Has all ports follow. `said` is where notifications have said that something has changed.
pub(in crate::control) fn follow(control: &mut Control, said: &HostChange) {
    let core = Arc::clone(&control.core);
    if !said.is_empty() {
        core.changes.ring_for_host();
    }
    // What nobody tells of is looked at for each port; the rest only if somebody told.
    let links = match said.is_empty() {
        true => None,
        false => match core.host.list() {
            Ok(links) => Some(links.into_iter().map(|link| (link.index, link)).collect::<HashMap<u32, Link>>()),
            Err(error) => {
                tracing::warn!(%error, "netdevs can't be listed: ports follow later");
                return;
            }
        },
    };
    let mut lost = Vec::new();
    let mut changed = false;
    let fdb = Arc::clone(&control.fdb);
    for port in control.ports.iter_mut() {
        let link = match &links {
            None => None,
            Some(links) => match port.attachment.netdev().map(|netdev| (netdev, links.get(&netdev.index))) {
                None => None,
                Some((_, Some(link))) => Some(link),
                Some((netdev, None)) => {
                    let ifname = &netdev.name;
                    lost.push((port.shared.no, format!("its netdev {ifname} is gone from the switch's namespace")));
                    continue;
                }
            },
        };
        match port.attachment.follow(&mut port.spec, &Sight { link, said }, port.rings) {
            Err(OtherQueues { queues, why }) => {
                port.spec.queues = Some(queues);
                lost.push((port.shared.no, why));
            }
            Ok(followed) => {
                if followed.changed {
                    changed = true;
                    port.shared.mtu.store(port.spec.mtu.unwrap_or(DEFAULT_MTU), Ordering::Relaxed);
                    core.changes.note(PortChange::Followed(Box::new(port.spec.clone())));
                }
                let told = followed.carrier.or(link.map(|link| link.carrier));
                let carrier = told.unwrap_or(port.condition.carrier);
                if port.condition.carrier && !carrier {
                    // Stations there may be found elsewhere now.
                    fdb.flush_learned(Some(port.shared.no));
                }
                let before = &port.condition.netdev_problems;
                let netdev_problems = followed.netdev_problems.unwrap_or_else(|| before.clone());
                let program_problem = followed.program_problem;
                tell(port, Condition { carrier, netdev_problems, program_problem });
            }
        }
    }
    for (no, why) in &lost {
        lose(control, *no, why);
    }
    if changed && lost.is_empty() {
        control.publish();
    }
    if links.is_some() {
        steer::follow_host(control);
        steer::steer(control);
    }
    if !lost.is_empty() {
        core.changes.ring();
    }
}

/// Notes how a port is, and tells of what has changed.
fn tell(port: &mut LivePort, condition: Condition) {
    let (name, before) = (&port.spec.name, &port.condition);
    if before.carrier != condition.carrier {
        tracing::info!(port = name, "its link is {}", if condition.carrier { "up" } else { "down" });
    }
    for problem in condition.problems().filter(|problem| !before.problems().any(|known| known == *problem)) {
        tracing::warn!(port = name, problem, "a port can't work as it should");
    }
    if condition.problems().next().is_none() && before.problems().next().is_some() {
        tracing::info!(port = name, "the port works again");
    }
    port.condition = condition;
    port.tell_workers();
}

/// Takes a port out of the switch. Components go on without it.
fn lose(control: &mut Control, no: PortNo, why: &str) {
    let Some(port) = control.ports.get(no) else { return };
    let (spec, queues) = (port.spec.clone(), port.queues());
    tracing::warn!(port = spec.name, why, "a port is lost; it is taken up again when it can be");
    let specs: Vec<_> = control.components.running.iter().map(|component| component.spec.clone()).collect();
    let has_port =
        |component: &ComponentSpec| component.rx.iter().chain(&component.tx).any(|end| end.port.is_of_port(&spec.name));
    if specs.iter().any(has_port) {
        let others = specs.into_iter().filter(|component| !has_port(component)).collect();
        if let Err(error) = set_components(control, others) {
            tracing::error!(port = spec.name, %error, "components can't go on without a lost port");
            return;
        }
    }
    for remains in remove_ports(control, &[no]) {
        remains.let_go();
    }
    control.ports.keep(no, spec.name.clone(), queues);
    control.core.changes.note(PortChange::Lost { spec: Box::new(spec), why: why.to_owned() });
}
