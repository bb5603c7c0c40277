//! Ports as their users see them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Error;
use crate::control::attach::{AttachmentInfo, tap_info};
use crate::control::core::Core;
use crate::control::ports::LivePort;
use crate::control::state::Control;
use crate::host::{Link, Netdev};
use crate::io::queue_rings::RingMemory;
use crate::model::*;

/// A port as its users see it.
pub(in crate::control) fn info(control: &Control, port: &LivePort) -> PortInfo {
    let link = port.attachment.netdev().and_then(|netdev| control.core.host.look_at(netdev).ok().flatten());
    describe(control, port, link.as_ref())
}

/// All ports as their users see them: one look at all netdevs, not one a port.
pub(in crate::control) fn infos(control: &Control) -> Vec<PortInfo> {
    let links = links(&control.core);
    control.ports.iter().map(|port| describe(control, port, link_of(port, &links))).collect()
}

/// Ports that were just added as their users see them.
pub(in crate::control) fn infos_of(
    control: &Control,
    added: Vec<Result<PortNo, Error>>,
) -> Vec<Result<PortInfo, Error>> {
    let links = match added[..] {
        [_] => HashMap::new(),
        _ => links(&control.core),
    };
    let describe_one = |no: PortNo| {
        let port = control.ports.get(no).ok_or_else(|| crate::control::ports::no_port(&format!("vport {no}")))?;
        match link_of(port, &links) {
            Some(link) => Ok(describe(control, port, Some(link))),
            None => Ok(info(control, port)),
        }
    };
    added.into_iter().map(|added| added.and_then(describe_one)).collect()
}

fn link_of<'a>(port: &LivePort, links: &'a HashMap<u32, Link>) -> Option<&'a Link> {
    links.get(&port.attachment.netdev()?.index)
}

fn links(core: &Core) -> HashMap<u32, Link> {
    core.host.list().unwrap_or_default().into_iter().map(|link| (link.index, link)).collect()
}

/// Guests' netdevs of which it is asked who has bound their queues, and taps. That is a visit to each one's namespace,
/// so it is not done under the lock.
#[derive(Debug)]
pub(in crate::control) struct BoundQueues {
    core: Arc<Core>,
    netdevs: Vec<(PortNo, Netdev)>,
    taps: Vec<(PortNo, Netdev)>,
}

impl BoundQueues {
    /// Notes the guests' netdevs of those ports.
    pub fn of<'a>(core: &Arc<Core>, ports: impl IntoIterator<Item = &'a LivePort>) -> Self {
        let mut bound = Self { core: Arc::clone(core), netdevs: Vec::new(), taps: Vec::new() };
        for port in ports {
            let netdev = || port.attachment.guest_side()?.netdev();
            bound.netdevs.extend(netdev().map(|netdev| (port.shared.no, netdev.clone())));
            bound.taps.extend(port.attachment.tap().map(|tap| (port.shared.no, tap.clone())));
        }
        bound
    }

    /// Asks, and fills in what is found.
    pub fn fill(self, infos: &mut [PortInfo]) {
        let Self { core, netdevs, taps } = self;
        let mut info_of = |no: PortNo, fill: &dyn Fn(&mut PortInfo)| {
            if let Some(info) = infos.iter_mut().find(|info| info.vport == no) {
                fill(info);
            }
        };
        for (no, netdev) in netdevs {
            info_of(no, &|info| info.active_queues = core.host.bound_queues(&netdev).unwrap_or(0));
        }
        for (no, netdev) in taps {
            let Some(link) = core.host.look_at(&netdev).ok().flatten() else { continue };
            let Some(state) = link.tap else { continue };
            info_of(no, &|info| {
                info.tap = Some(tap_info(&state, link.tx_dropped));
                info.active_queues = state.open_queues;
                info.link_up = link.carrier;
            });
        }
    }
}

fn describe(control: &Control, port: &LivePort, link: Option<&Link>) -> PortInfo {
    let AttachmentInfo { mode, mode_reason, max_mtu, zero_copy, guest_end, vhost, tap, bond } = port.attachment.info();
    // What the other end has open, where it says so itself.
    let pairs = vhost.as_ref().map(|vhost| vhost.active_pairs).or(tap.as_ref().map(|tap| tap.open_queues));
    let carrier = link.is_some_and(|link| link.carrier) || bond.as_ref().is_some_and(|bond| bond.carrier);
    let has_carrier = pairs.map_or(carrier, |pairs| pairs > 0);
    let own_umem = port.rings.memory == RingMemory::Own;
    PortInfo {
        spec: port.spec.clone(),
        vport: port.shared.no,
        ifindex: port.attachment.netdev().map(|netdev| netdev.index),
        mode,
        mode_reason,
        mac: link.map(|link| link.mac).or(bond.as_ref().map(|bond| bond.mac)),
        link_up: has_carrier,
        problems: port.condition.problems().cloned().collect(),
        max_mtu,
        queues: zero_copy
            .into_iter()
            .map(|(queue, zero_copy)| {
                let worker = port.shared.queues[queue as usize].worker();
                QueueInfo { queue, worker, zero_copy, own_umem }
            })
            .collect(),
        // Of other kinds it is asked for once the lock is free (`BoundQueues`).
        active_queues: match pairs {
            Some(pairs) => pairs,
            None if port.spec.kind.carrier_binds_queues() && has_carrier => port.queues(),
            None => 0,
        },
        fdb_entries: control.fdb.count(port.shared.no),
        guest_end,
        vhost,
        tap,
        bond,
    }
}
