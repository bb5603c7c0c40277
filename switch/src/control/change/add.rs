//! Bringing ports up, one or many: what waits for the kernel is done for several at a time.
//!
//! Names, numbers, workers and frames are given out in the order that was asked for. So what a port gets does not
//! depend on which of them is ready first. One that fails leaves nothing behind, and the others alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::steer::{self, Station};
use super::supply::Supply;
use super::unique::Known;
use crate::control::attach::{Attachment, Found, Plan, RingOptions, Wish};
use crate::control::core::Core;
use crate::control::host_addresses::HostAddresses;
use crate::control::ports::{Condition, LivePort};
use crate::control::resolve;
use crate::control::several::each;
use crate::control::state::Control;
use crate::engine::storm::StormControl;
use crate::host::SteerKey;
use crate::io::vhost::STOCK;
use crate::model::*;
use crate::worker::Queue;
use crate::worker::bond::BondShared;
use crate::worker::view::{PortShared, QueueShared};
use crate::{Error, ErrorKind};

/// A port with everything but its place in the switch.
struct Opened {
    port: LivePort,
    queues: Vec<Queue>,
}

/// Adds ports; the results are in their order. `known`: they were there before.
pub(in crate::control) fn add_ports(
    control: &mut Control,
    specs: Vec<PortSpec>,
    known: bool,
) -> Vec<Result<PortNo, Error>> {
    let core = Arc::clone(&control.core);
    let resolved = resolve_all(control, specs);
    let wish = Wish::new(known);
    let found = each(resolved, |spec| find(&core, spec?, &wish));
    let found = check_ends(control, found);
    let planned = plan(control, found);
    let opened = each(planned, |planned| open(&core, planned?));
    let added = bring_in(control, opened);
    steer::steer(control);
    added
}

/// Gives each port its number, and checks what does not depend on netdevs.
fn resolve_all(control: &Control, specs: Vec<PortSpec>) -> Vec<Result<PortSpec, Error>> {
    let mut resolved: Vec<Result<PortSpec, Error>> = Vec::with_capacity(specs.len());
    for spec in specs {
        let earlier: Vec<_> = resolved.iter().flatten().collect();
        let one = resolve_one(control, &earlier, &spec);
        resolved.push(one);
    }
    resolved
}

fn resolve_one(control: &Control, earlier: &[&PortSpec], spec: &PortSpec) -> Result<PortSpec, Error> {
    let earlier = || earlier.iter().copied();
    let taken = |no| control.ports.is_taken(no, &spec.name) || earlier().any(|port| port.vport == Some(no));
    let slots = control.core.settings.capacity.port_slots();
    let spec = resolve::resolve(spec.clone(), slots, taken)?;
    let live = control.ports.iter().map(|port| &port.spec);
    resolve::check_unique(&spec, live.chain(earlier()))?;
    Ok(spec)
}

/// Looks for what a port needs outside.
fn find(core: &Core, mut spec: PortSpec, wish: &Wish) -> Result<(PortSpec, Found), Error> {
    let found = Found::find(core, &mut spec, wish)?;
    Ok((spec, found))
}

/// Refuses a port that has a netdev which is one end of another port: frames would go round between the two.
fn check_ends(
    control: &Control,
    found: Vec<Result<(PortSpec, Found), Error>>,
) -> Vec<Result<(PortSpec, Found), Error>> {
    let live = control.ports.iter().flat_map(|port| {
        port.attachment.netdevs().map(|netdev| ((netdev.namespace.clone(), netdev.index), port.spec.name.clone()))
    });
    let mut taken: Vec<_> = live.collect();
    let mut one = |(spec, found): (PortSpec, Found)| {
        for netdev in found.netdevs() {
            let place = (netdev.namespace.clone(), netdev.index);
            if let Some((_, port)) = taken.iter().find(|(other, _)| *other == place) {
                let name = netdev.name;
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!("ifname: {name} is an end of port `{port}`: a port with the other end would be a loop"),
                ));
            }
        }
        taken.extend(found.netdevs().into_iter().map(|netdev| ((netdev.namespace, netdev.index), spec.name.clone())));
        Ok((spec, found))
    };
    found.into_iter().map(|found| found.and_then(&mut one)).collect()
}

/// The netdevs that ports would change, as they are now; by the ports' names. What can't be added has none.
pub(in crate::control) fn before(control: &Control, specs: &[PortSpec]) -> Vec<(String, NetdevsBefore)> {
    let wish = Wish::new(false);
    let before = |spec: &PortSpec| {
        let mut spec = resolve_one(control, &[], spec).ok()?;
        let found = Found::find(&control.core, &mut spec, &wish).ok()?;
        Some((spec.name, found.before(&*control.core.host)?))
    };
    specs.iter().filter_map(before).collect()
}

/// Gives each port its workers, frames and stations.
fn plan(control: &mut Control, found: Vec<Result<(PortSpec, Found), Error>>) -> Vec<Result<(Plan, Found), Error>> {
    let core = Arc::clone(&control.core);
    let needs_stations = |(spec, _): &(PortSpec, Found)| spec.steering == Steering::Shared;
    let stations = match found.iter().flatten().any(needs_stations) {
        true => steer::stations(control),
        false => Vec::new(),
    };
    let mut known = Known::of(control);
    let mut admit = |(spec, found): (PortSpec, Found)| known.admit(&spec).map(|()| (spec, found));
    let admitted: Vec<_> = found.into_iter().map(|found| found.and_then(&mut admit)).collect();
    let host = known.into_host_addresses();
    let mut supply = Supply::of(control);
    let mut one = |(spec, found): (PortSpec, Found)| {
        let depth = spec.queue_depth.unwrap_or(STOCK);
        let queues = found.queues().or(spec.queues).unwrap_or(1);
        let memory = supply.take(spec.kind, queues, depth)?;
        let shared = Arc::new(share(&core, &spec, control));
        let steering = steering(&spec, &stations, &host);
        Ok((Plan { spec, shared, rings: RingOptions { depth, memory }, steering, member: None }, found))
    };
    admitted.into_iter().map(|admitted| admitted.and_then(&mut one)).collect()
}

/// What workers share of a port.
fn share(core: &Core, spec: &PortSpec, control: &mut Control) -> PortShared {
    let queues = spec.queues.unwrap_or(1);
    PortShared {
        no: spec.vport.unwrap_or_default(),
        generation: control.ports.next_generation(),
        name: spec.name.clone(),
        shards: (0..=core.workers.count()).map(|_| Default::default()).collect(),
        bridged: spec.spp.is_none(),
        is_deserted: false.into(),
        mtu: spec.mtu.unwrap_or(DEFAULT_MTU).into(),
        storm: StormControl::new(control.bridge.storm_control, core.shared.now_ns()),
        queues: core.workers.spread(queues as usize).map(QueueShared::new).collect(),
        bond: (spec.kind == PortKind::Bond).then(|| Arc::new(BondShared::new(core.workers.count()))),
    }
}

fn steering(spec: &PortSpec, stations: &[Station], host: &HostAddresses) -> BTreeSet<SteerKey> {
    match (spec.steering, &spec.vlan) {
        (Steering::Shared, Some(mode)) => steer::keys(spec.vport.unwrap_or_default(), mode, stations, host),
        _ => Default::default(),
    }
}

/// Makes what a port needs outside.
fn open(core: &Arc<Core>, (plan, found): (Plan, Found)) -> Result<Opened, Error> {
    let opened = found.open(core, &plan);
    core.changes.tried(opened.is_ok());
    let (attachment, queues): (Attachment, _) = opened?;
    let Plan { spec, shared, rings, .. } = plan;
    let queues = queues.into_iter().map(|queue| queue.into_queue(&shared)).collect();
    let condition = Condition { carrier: attachment.has_carrier(), ..Condition::default() };
    let port = LivePort { spec, shared, rings, attachment, condition };
    port.tell_workers();
    Ok(Opened { port, queues })
}

/// Gives open ports their places: in one new view, then in the hands of the workers.
fn bring_in(control: &mut Control, opened: Vec<Result<Opened, Error>>) -> Vec<Result<PortNo, Error>> {
    let mut all_queues = Vec::new();
    let mut place = |Opened { port, queues }: Opened| {
        let no = port.shared.no;
        control.ports.insert(port);
        all_queues.extend(queues);
        no
    };
    let numbers = opened.into_iter().map(|opened| opened.map(&mut place)).collect();
    if !all_queues.is_empty() {
        steer::look_up_host(control);
        control.publish();
        steer::forget_host(control);
    }
    for queue in all_queues {
        control.core.workers.add(queue);
    }
    numbers
}
