//! Live ports: added, changed, removed.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use xdp_prog::PortProgram;

use super::group_tap::GroupTap;
use super::guest_end::{self, GuestEnd};
use super::netdevs::{Netdevs, PeerPlace, bound_queues, mtu_limit};
use super::several::each;
use super::start::Threads;
use super::steer::{self, Station};
use super::{Control, State, bring_up, resolve};
use crate::io::netdev::{self, Link};
use crate::io::packet::Promiscuous;
use crate::io::socket;
use crate::io::umem::FrameCache;
use crate::model::*;
use crate::model::{DropReason, PortNo};
use crate::worker::view::{PortShared, QueueShared};
use crate::worker::{Command, Queue};
use crate::{Error, ErrorKind};

/// How long frames that are staged at a port that goes may take to be sent.
const SEND_GRACE: Duration = Duration::from_millis(100);

/// A port as control has it.
#[derive(Debug)]
pub(super) struct LivePort {
    /// With every default filled in.
    pub spec: PortSpec,
    /// What the workers share.
    pub shared: Arc<PortShared>,
    pub(super) netdevs: Netdevs,
    pub(super) program: PortProgram,
    pub(super) mode: Mode,
    pub(super) mode_reason: Option<String>,
    /// Sockets, for their statistics.
    pub(super) sockets: Vec<(Arc<OwnedFd>, bool)>,
    /// What sockets in their places had counted that were closed since, by queue.
    pub(super) closed: Vec<XskCounts>,
    pub(super) group_tap: Option<GroupTap>,
    /// The program on the guest's end, once a guest asked for sockets there.
    pub(super) guest_end: Option<GuestEnd>,
    pub(super) _promiscuous: Option<Promiscuous>,
}

/// The kernel's counters of a socket (`XDP_STATISTICS`), by their field names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct XskCounts([(&'static str, u64); 6]);

fn xsk_counts(fd: &OwnedFd) -> XskCounts {
    socket::counters(fd.as_fd()).map_or_else(|_| XskCounts::default(), XskCounts)
}

/// Counts what a closed queue had received and nobody has taken.
fn count_untaken(port: &PortShared, queue: u32, untaken: Count) {
    // The queue's worker has let go of it, so this is the counters' only writer.
    let shared = &port.queues[queue as usize];
    shared.counters.rx.add(untaken.packets, untaken.bytes);
    port.shards[shared.worker()].dropped_all(DropReason::PortGone, untaken);
}

impl LivePort {
    /// What would break its packets now, in words.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.netdevs.problems(self.spec.mtu.unwrap_or(DEFAULT_MTU));
        match xdp_prog::attached_programs(self.netdevs.ifindex) {
            Ok(programs) => {
                problems.extend(programs.iter().filter(|program| program.id != self.program.id()).map(|program| {
                    format!(
                        "{} has another XDP program too ({program}): only one of them sees all packets",
                        self.netdevs.ifname
                    )
                }))
            }
            Err(error) => problems.push(error.to_string()),
        }
        problems
    }

    /// Counters of its queues, in the switch, the XDP program and the kernel's sockets.
    pub(super) fn queue_stats(&self) -> Vec<QueueStats> {
        let xdp = self.program.counters().unwrap_or_default();
        let queue = |(number, queue): (usize, &QueueShared)| QueueStats {
            queue: number as u32,
            rx: queue.counters.rx.read(),
            tx: queue.counters.tx.read(),
            xdp: xdp
                .get(number)
                .map(|counters| counters.iter().map(|(label, value)| (label.to_owned(), value)).collect())
                .unwrap_or_default(),
            xsk: self
                .sockets
                .get(number)
                .map(|(fd, _)| {
                    let before = self.closed.get(number).copied().unwrap_or_default();
                    let sum =
                        |((label, value), (_, before)): ((&str, u64), (&str, u64))| (label.to_owned(), value + before);
                    xsk_counts(fd).0.into_iter().zip(before.0).map(sum).collect()
                })
                .unwrap_or_default(),
        };
        self.shared.queues.iter().enumerate().map(queue).collect()
    }
}

/// A port as its users see it.
pub(super) fn info(state: &State, control: &Control, port: &LivePort) -> PortInfo {
    let link = netdev::find_index(port.netdevs.ifindex).ok().flatten();
    describe(state, control, port, link.as_ref())
}

/// All ports as their users see them: one look at all netdevs, not one a port.
pub(super) fn infos(state: &State, control: &Control) -> Vec<PortInfo> {
    let links = links();
    control.ports.values().map(|port| describe(state, control, port, links.get(&port.netdevs.ifindex))).collect()
}

/// Ports that were just added as their users see them.
pub(super) fn infos_of(
    state: &State,
    control: &Control,
    added: Vec<Result<PortNo, Error>>,
) -> Vec<Result<PortInfo, Error>> {
    if let [Ok(no)] = added[..] {
        return vec![Ok(info(state, control, &control.ports[&no]))];
    }
    let links = links();
    let info = |no| {
        let port: &LivePort = &control.ports[&no];
        describe(state, control, port, links.get(&port.netdevs.ifindex))
    };
    added.into_iter().map(|added| added.map(info)).collect()
}

fn links() -> HashMap<u32, Link> {
    netdev::list().unwrap_or_default().into_iter().map(|link| (link.index, link)).collect()
}

/// Asks who has bound the queues of guests' ends: a visit to each one's namespace, so not under the lock.
#[derive(Debug, Default)]
pub(super) struct AskBound(Vec<(PortNo, Arc<PeerPlace>, String)>);

impl AskBound {
    /// Notes where the other ends of those ports are.
    pub(super) fn of<'a>(ports: impl IntoIterator<Item = &'a LivePort>) -> Self {
        let guests = ports.into_iter().filter(|port| port.spec.kind == PortKind::Guest);
        let place = |port: &LivePort| {
            let (place, peer) = port.netdevs.peer.as_ref()?;
            Some((port.shared.no, Arc::clone(place), peer.clone()))
        };
        Self(guests.filter_map(place).collect())
    }

    /// Fills in what is found.
    pub(super) fn fill(self, infos: &mut [PortInfo]) {
        for (no, place, peer) in self.0 {
            if let Some(info) = infos.iter_mut().find(|info| info.vport == no) {
                info.active_queues = bound_queues(&place, &peer);
            }
        }
    }
}

fn describe(state: &State, control: &Control, port: &LivePort, link: Option<&Link>) -> PortInfo {
    let queue = |((number, queue), (_, zero_copy)): ((u32, &QueueShared), &(Arc<OwnedFd>, bool))| QueueInfo {
        queue: number,
        worker: queue.worker(),
        zero_copy: *zero_copy,
    };
    PortInfo {
        spec: port.spec.clone(),
        vport: port.shared.no,
        ifindex: port.netdevs.ifindex,
        mode: port.mode,
        mode_reason: port.mode_reason.clone(),
        mac: link.map(|link| link.mac),
        link_up: link.is_some_and(|link| link.carrier),
        max_mtu: live_mtu_limit(state, port).0,
        queues: (0..).zip(port.shared.queues.iter()).zip(&port.sockets).map(queue).collect(),
        // Of a guest's end it is asked for once the lock is free (`AskBound`).
        active_queues: match port.spec.kind {
            PortKind::Phy if link.is_some_and(|link| link.carrier) => port.shared.queues.len() as u32,
            PortKind::Phy | PortKind::Guest => 0,
        },
        fdb_entries: control.fdb.count(port.shared.no),
        guest_end: port.guest_end.as_ref().map(GuestEnd::info),
    }
}

/// The largest MTU that a live port can be set to: what its mode in force allows.
fn live_mtu_limit(state: &State, port: &LivePort) -> (u32, &'static str) {
    // The program on either end limits the MTU of both.
    let native = port.mode == Mode::Native || port.guest_end.as_ref().is_some_and(|end| end.mode() == Mode::Native);
    let mode = if native { ModeRequest::Native } else { ModeRequest::Generic };
    mtu_limit(mode, port.netdevs.is_veth, state.settings.frame_size)
}

/// Removes ports and returns, of those that there are, the netdevs and what is on the guest's end.
pub(super) fn remove(
    state: &State,
    threads: &Threads,
    control: &mut Control,
    numbers: &[PortNo],
) -> Vec<(Netdevs, Option<GuestEnd>)> {
    let ports: Vec<_> = numbers.iter().filter_map(|no| control.ports.remove(no)).collect();
    let ports = each(ports, |mut port| {
        if let Err(error) = port.program.detach() {
            tracing::warn!(port = port.shared.name, %error, "detaching the XDP program");
        }
        port.group_tap = None;
        port
    });
    super::components::forget_flows(state, control, numbers);
    // No worker sends to the ports any more, and none learns for them.
    state.publish(control);
    state.shared.quiesce();
    for port in &ports {
        control.fdb.flush_port(port.shared.no);
    }
    // The rings' ends are ours again. What other workers had handed over for them finds nobody, and is dropped there.
    let taken_back = |port: LivePort| {
        let queues = threads.take_back(&state.shared, &port.shared);
        (port, queues)
    };
    let ports = ports.into_iter().map(taken_back).collect();
    let removed = each(ports, |(port, queues)| {
        let LivePort { shared, netdevs, sockets, guest_end, .. } = port;
        let mut cache = FrameCache::new(Arc::clone(&state.shared.umem));
        drop(sockets);
        for queue in queues {
            count_untaken(&shared, queue.number, queue.backend.close(SEND_GRACE, &mut cache));
        }
        state.recycle(cache);
        let mut stats = PortStats::default();
        super::audit::add_port(&mut stats, &shared);
        (stats, netdevs, guest_end)
    });
    let retire = |(stats, netdevs, guest_end)| {
        super::audit::retire(&mut control.retired, stats);
        (netdevs, guest_end)
    };
    removed.into_iter().map(retire).collect()
}

/// Changes a live port, or nothing.
pub(super) fn update(
    state: &State,
    threads: &Threads,
    control: &mut Control,
    no: PortNo,
    update: PortUpdate,
) -> Result<(), Error> {
    let Some(port) = control.ports.get_mut(&no) else { return Err(super::no_port(&format!("vport {no}"))) };
    let PortUpdate { mtu, mac, vlan, isolated, mac_check, fdb_limit, queue_depth, queues, guest_sockets } = update;
    if let Some(queues) = queues.filter(|&queues| Some(queues) != port.spec.queues) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "queues: a live port keeps its {} queues and can't have {queues}: delete it and add it anew",
                port.shared.queues.len()
            ),
        ));
    }
    queue_depth.map_or(Ok(()), resolve::check_depth)?;
    let depth = queue_depth.filter(|&depth| Some(depth) != port.spec.queue_depth);
    let mtu = mtu.filter(|&mtu| Some(mtu) != port.spec.mtu);
    let mac = mac.filter(|&mac| Some(mac) != port.spec.mac);
    if let Some(mtu) = mtu {
        let (max, why) = live_mtu_limit(state, port);
        resolve::check_mtu(mtu, max, why)?;
    }
    mac.map_or(Ok(()), resolve::check_mac)?;
    vlan.as_ref().map_or(Ok(()), resolve::check_vlan)?;
    if fdb_limit == Some(0) {
        return Err(Error::invalid("fdb_limit: 0 is out of range, at least 1 is needed"));
    }
    let has_mac = mac.or(port.spec.mac).is_some();
    if mac_check == Some(true) && !has_mac {
        return Err(Error::invalid("mac_check: the port has no address to check against: name one as `mac`"));
    }
    let opened = guest_sockets == Some(true) && port.guest_end.is_none();
    if opened {
        guest_end::open(state, port)?;
    }
    let depth_before = port.spec.queue_depth.unwrap_or(DEFAULT_QUEUE_DEPTH);
    if let Some(depth) = depth {
        reopen(state, threads, port, depth).inspect_err(|_| {
            if opened {
                guest_end::close(port);
            }
        })?;
    }
    let restore = |port: &mut LivePort, error: Error| {
        if opened {
            guest_end::close(port);
        }
        if depth.is_some()
            && let Err(error) = reopen(state, threads, port, depth_before)
        {
            tracing::error!(port = port.spec.name, %error, "the depth of its rings can't be restored");
        }
        error
    };
    if let Some(mtu) = mtu {
        port.netdevs.set_mtu(mtu).map_err(|error| restore(port, error))?;
    }
    if let Some(mac) = mac
        && port.spec.kind == PortKind::Guest
        && let Err(error) = port.netdevs.set_peer_mac(mac)
    {
        if mtu.is_some()
            && let Some(before) = port.spec.mtu
            && let Err(error) = port.netdevs.set_mtu(before)
        {
            tracing::error!(port = port.spec.name, %error, "its MTU can't be restored");
        }
        return Err(restore(port, error));
    }
    if guest_sockets == Some(false) {
        guest_end::close(port);
    }
    let spec = &mut port.spec;
    spec.mtu = mtu.or(spec.mtu);
    port.shared.mtu.store(spec.mtu.unwrap_or(DEFAULT_MTU), Ordering::Relaxed);
    spec.mac = mac.or(spec.mac);
    spec.vlan = vlan.or(spec.vlan.take());
    spec.isolated = isolated.unwrap_or(spec.isolated);
    spec.mac_check = mac_check.or(spec.mac_check);
    spec.fdb_limit = fdb_limit.or(spec.fdb_limit);
    state.publish(control);
    Ok(())
}

/// Opens the sockets of a live port anew with rings of another depth. What comes in meanwhile is dropped and counted by the
/// XDP program. If it can't be done, the port has its old depth again.
fn reopen(state: &State, threads: &Threads, port: &mut LivePort, depth: u32) -> Result<(), Error> {
    let before = port.spec.queue_depth.unwrap_or(DEFAULT_QUEUE_DEPTH);
    let mut cache = FrameCache::new(Arc::clone(&state.shared.umem));
    // First of all the program sends nothing to the old sockets any more, and counts that.
    for number in 0..port.shared.queues.len() as u32 {
        port.program.clear_socket(number)?;
    }
    let queues = threads.take_back(&state.shared, &port.shared);
    port.closed.resize_with(queues.len(), XskCounts::default);
    for ((fd, _), closed) in port.sockets.drain(..).zip(&mut port.closed) {
        let before = closed.0;
        *closed = xsk_counts(&fd);
        closed.0.iter_mut().zip(before).for_each(|((_, count), (_, before))| *count += before);
    }
    for queue in queues {
        count_untaken(&port.shared, queue.number, queue.backend.close(SEND_GRACE, &mut cache));
    }
    // What the port had is there for it again.
    cache.spill_all();
    let result = open_queues(state, threads, port, depth, &mut cache).map_err(|error| {
        match open_queues(state, threads, port, before, &mut cache) {
            Ok(()) => error,
            Err(again) => Error::new(
                again.kind(),
                format!("{error}; and with the old depth neither ({again}): delete the port and add it anew"),
            ),
        }
    });
    state.recycle(cache);
    result
}

/// Opens all queues of a port that has none, and gives them to their workers.
fn open_queues(
    state: &State,
    threads: &Threads,
    port: &mut LivePort,
    depth: u32,
    cache: &mut FrameCache,
) -> Result<(), Error> {
    let spec = PortSpec { queue_depth: Some(depth), ..port.spec.clone() };
    let mut opened = Vec::new();
    for number in 0..port.shared.queues.len() as u32 {
        // It is no new port: it takes what it had, and asks for no further frames.
        let umem = &state.shared.umem;
        let fill = bring_up::fill_of(umem, umem.pool_len(), depth, 0);
        let open = |fill| bring_up::open_socket(state, &spec, &port.netdevs, number, fill, cache);
        let socket =
            fill.and_then(open).and_then(|socket| match port.program.set_socket(number, socket.fd().as_fd()) {
                Ok(()) => Ok(socket),
                Err(error) => {
                    socket.close(Duration::ZERO, cache);
                    Err(error.into())
                }
            });
        match socket {
            Ok(socket) => opened.push(Queue::new(Arc::clone(&port.shared), number, socket)),
            Err(error) => {
                for queue in opened {
                    count_untaken(&port.shared, queue.number, queue.backend.close(Duration::ZERO, cache));
                }
                return Err(error);
            }
        }
    }
    port.spec.queue_depth = Some(depth);
    port.sockets = opened.iter().map(|queue| (Arc::clone(queue.backend.fd()), queue.backend.zero_copy())).collect();
    for queue in opened {
        let worker = port.shared.queues[queue.number as usize].worker();
        threads.command(&state.shared, worker, Command::Add(Box::new(queue)));
    }
    Ok(())
}

/// All stations that are known behind ports: configured addresses, and what the MAC table has.
pub(super) fn stations(control: &Control, state: &State) -> Vec<Station> {
    let bridged = control.ports.values().filter(|port| port.shared.bridged);
    let configured = bridged.filter_map(|port| {
        let vlan = match &port.spec.vlan {
            Some(VlanMode::Access { vid }) => Some(*vid),
            _ => None,
        };
        Some(Station { mac: port.spec.mac?, port: port.shared.no, vlan })
    });
    let seen = control.fdb.entries(state.now()).into_iter().map(|row| Station {
        mac: row.mac,
        port: row.port,
        vlan: Some(row.vid),
    });
    configured.chain(seen).collect()
}

/// Brings the steering set of every shared NIC up to date.
pub(super) fn steer(state: &State, control: &Control) {
    let mut shared = control.ports.values().filter(|port| port.spec.steering == Steering::Shared).peekable();
    if shared.peek().is_none() {
        return;
    }
    let stations = stations(control, state);
    for port in shared {
        let Some(mode) = &port.spec.vlan else { continue };
        if let Err(error) = port.program.set_steering(&steer::keys(port.shared.no, mode, &stations)) {
            tracing::warn!(port = port.spec.name, %error, "the steering set is not up to date");
        }
    }
}
