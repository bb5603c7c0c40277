//! Live ports: added, changed, removed.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use xdp_prog::{BindFacts, LoadOptions, PortProgram};

use super::group_tap::GroupTap;
use super::guest_end::{self, GuestEnd};
use super::netdevs::{Netdevs, PeerPlace, bound_queues, mtu_limit};
use super::start::Threads;
use super::steer::{self, Station};
use super::{Control, State, resolve};
use crate::engine::{DropReason, PortNo};
use crate::io::netdev::{self, Link};
use crate::io::packet::{GroupSocket, Promiscuous};
use crate::io::socket::{self, SocketOptions, XskSocket};
use crate::io::umem::FrameCache;
use crate::model::*;
use crate::worker::view::{PortShared, QueueShared};
use crate::worker::{Command, Queue};
use crate::{Error, ErrorKind};

/// How long frames that are staged at a port that goes may take to be sent.
const SEND_GRACE: Duration = Duration::from_millis(100);
/// Least frames that a queue is supplied with.
const MIN_FILL: u32 = 64;

/// A port as control has it.
#[derive(Debug)]
pub(super) struct LivePort {
    /// With every default filled in.
    pub spec: PortSpec,
    /// What the workers share.
    pub shared: Arc<PortShared>,
    pub(super) netdevs: Netdevs,
    program: PortProgram,
    mode: Mode,
    mode_reason: Option<String>,
    /// Sockets, for their statistics.
    sockets: Vec<(Arc<OwnedFd>, bool)>,
    /// What sockets in their places had counted that were closed since, by queue.
    closed: Vec<XskCounts>,
    group_tap: Option<GroupTap>,
    /// The program on the guest's end, once a guest asked for sockets there.
    pub(super) guest_end: Option<GuestEnd>,
    _promiscuous: Option<Promiscuous>,
}

/// The kernel's counters of a socket (`XDP_STATISTICS`), by their field names.
#[derive(Clone, Copy, Debug, Default)]
struct XskCounts([(&'static str, u64); 6]);

fn xsk_counts(fd: &OwnedFd) -> XskCounts {
    socket::counters(fd.as_fd()).map_or_else(|_| XskCounts::default(), XskCounts)
}

/// Counts what a closed queue had received and nobody has taken.
fn count_untaken(port: &PortShared, queue: u32, untaken: Count) {
    // The queue's worker has let go of it, so this is the counters' only writer.
    let shared = &port.queues[queue as usize];
    shared.tally.rx.add(untaken.packets, untaken.bytes);
    port.shards[shared.worker].dropped_all(DropReason::PortGone, untaken);
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
            rx: queue.tally.rx.read(),
            tx: queue.tally.tx.read(),
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
    let links: HashMap<_, _> = netdev::list().unwrap_or_default().into_iter().map(|link| (link.index, link)).collect();
    control.ports.values().map(|port| describe(state, control, port, links.get(&port.netdevs.ifindex))).collect()
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
        worker: queue.worker,
        zero_copy: *zero_copy,
    };
    PortInfo {
        spec: port.spec.clone(),
        vport: port.shared.no,
        ifindex: port.netdevs.ifindex,
        mode: port.mode,
        mode_reason: port.mode_reason.clone(),
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

/// Adds a port; on an error everything done so far is undone by the drops of what was made.
pub(super) fn add(state: &State, threads: &Threads, control: &mut Control, spec: PortSpec) -> Result<PortNo, Error> {
    // A number that is kept for a port of another name is taken; one that is kept for this one is its own.
    let kept = |no: &PortNo| control.reserved.get(no).is_some_and(|(name, _)| *name != spec.name);
    let taken = |no| control.ports.contains_key(&no) || kept(&no);
    let mut spec = resolve::resolve(spec.clone(), state.settings.capacity.port_slots(), taken)?;
    if control.ports.values().any(|port| port.spec.name == spec.name) {
        return Err(Error::new(ErrorKind::Exists, format!("name: there is a port `{}` already", spec.name)));
    }
    if let Some(port) = control.ports.values().find(|port| port.spec.uuid() == spec.uuid()) {
        return Err(Error::new(
            ErrorKind::Exists,
            format!("uuid: `{}` belongs to port `{}`", spec.uuid().escape_default(), port.spec.name),
        ));
    }
    if let Some(port) = control.ports.values().find(|port| port.spec.ifname == spec.ifname) {
        return Err(Error::new(
            ErrorKind::Exists,
            format!("ifname: {} belongs to port `{}`", port.netdevs.ifname, port.spec.name),
        ));
    }
    let frame_size = state.settings.frame_size;
    let netdevs = match spec.kind {
        PortKind::Guest => Netdevs::for_guest(&mut spec, frame_size)?,
        PortKind::Phy => Netdevs::for_phy(&mut spec, frame_size)?,
    };
    match open(state, threads, control, spec, &netdevs) {
        Ok(opened) => Ok(bring_in(state, threads, control, opened, netdevs)),
        Err(error) => {
            // One that was there may be in use, by another daemon say.
            if netdevs.fresh {
                netdevs.remove();
            }
            Err(error)
        }
    }
}

/// A port with everything but its place in the switch.
struct Opened {
    spec: PortSpec,
    program: PortProgram,
    queues: Vec<Queue>,
    shared: Arc<PortShared>,
    mode: Mode,
    mode_reason: Option<String>,
    group_tap: Option<GroupTap>,
    guest_end: Option<GuestEnd>,
    promiscuous: Option<Promiscuous>,
}

/// Loads the program, opens the sockets and attaches.
///
/// The program is attached here, a moment before the workers get the queues: what comes in meanwhile waits in the rings.
fn open(
    state: &State,
    threads: &Threads,
    control: &mut Control,
    spec: PortSpec,
    netdevs: &Netdevs,
) -> Result<Opened, Error> {
    let no = spec.vport.unwrap_or_default();
    let queues = spec.queues.unwrap_or(1);
    let steering = match spec.steering {
        Steering::All => xdp_prog::Steering::All,
        Steering::Shared => xdp_prog::Steering::Shared,
    };
    let options = LoadOptions { ifname: netdevs.ifname.clone(), ifindex: netdevs.ifindex, queues, steering };
    let mut program = PortProgram::load(&options)?;
    control.generation += 1;
    let shared = Arc::new(PortShared {
        no,
        generation: control.generation,
        name: spec.name.clone(),
        shards: (0..threads.count()).map(|_| Default::default()).collect(),
        queues: threads.spread(queues).map(|worker| QueueShared { worker, tally: Default::default() }).collect(),
    });
    let mut cache = FrameCache::new(Arc::clone(&state.shared.umem));
    let mut opened = Vec::new();
    let attached = (|| {
        for number in 0..queues {
            let socket = open_socket(state, &spec, netdevs, number, queues - number, &mut cache)?;
            if let Some(fd) = socket.fd() {
                program.set_socket(number, fd.as_fd())?;
            }
            opened.push(Queue::new(Arc::clone(&shared), number, socket));
        }
        let promiscuous = match spec.kind {
            PortKind::Phy => {
                Some(Promiscuous::new(netdevs.ifindex).map_err(|errno| packet_error(&netdevs.ifname, errno))?)
            }
            PortKind::Guest => None,
        };
        let group_tap = match spec.steering {
            Steering::Shared => Some(
                GroupSocket::open(netdevs.ifindex)
                    .and_then(|socket| {
                        let (shared, gate) = (Arc::clone(&state.shared), Arc::clone(&state.gate));
                        GroupTap::start(socket, Arc::clone(&opened[0].port), shared, gate)
                    })
                    .map_err(|errno| packet_error(&netdevs.ifname, errno))?,
            ),
            Steering::All => None,
        };
        if let (Steering::Shared, Some(mode)) = (spec.steering, &spec.vlan) {
            program.set_steering(&steer::keys(no, mode, &stations(control, state)))?;
        }
        // A guest that went on without us has a program that is not to be taken off, whatever else fails.
        let guest_end = guest_end::bring_up(state, &spec, netdevs)?;
        let attached = match program.attach(guest_end::mode_request(spec.mode)) {
            Ok(attached) => attached,
            Err(error) => {
                if let Some(end) = guest_end.filter(GuestEnd::is_fresh) {
                    end.remove(&spec.name);
                    guest_end::give_back(netdevs);
                }
                return Err(error.into());
            }
        };
        Ok((attached, promiscuous, group_tap, guest_end))
    })();
    match attached {
        Ok((attached, promiscuous, group_tap, guest_end)) => {
            state.recycle(cache);
            let mode = guest_end::mode(attached.mode);
            let mode_reason = attached.fallback_reason;
            Ok(Opened { spec, program, queues: opened, shared, mode, mode_reason, group_tap, guest_end, promiscuous })
        }
        Err(error) => {
            drop(program);
            for queue in opened {
                queue.socket.close(Duration::ZERO, &mut cache);
            }
            state.recycle(cache);
            Err(error)
        }
    }
}

fn open_socket(
    state: &State,
    spec: &PortSpec,
    netdevs: &Netdevs,
    number: u32,
    queues_to_come: u32,
    cache: &mut FrameCache,
) -> Result<XskSocket, Error> {
    let umem = &state.shared.umem;
    let depth = spec.queue_depth.unwrap_or(DEFAULT_QUEUE_DEPTH);
    // A quarter of UMEM is for frames that are on their way; of the rest each further queue gets a share that leaves
    // something for many more.
    let spare = umem.pool_len().saturating_sub(umem.frames() / 4);
    if umem.pool_len() < 2 * MIN_FILL * queues_to_come {
        cache.spill_all();
        return Err(Error::new(
            ErrorKind::Full,
            format!(
                "UMEM is used up: {} of {} frames are free; raise `frames` in [dataplane] and restart, or use fewer queues",
                umem.pool_len(),
                umem.frames()
            ),
        ));
    }
    // Only a driver's queue can be zero-copy, and a veth has none: sharing one registration costs no memory a port.
    let zero_copy = match spec.zero_copy {
        ZeroCopy::Auto if netdevs.is_veth || spec.mode == ModeRequest::Generic => ZeroCopy::Off,
        wish => wish,
    };
    let fill = (spare / 32).clamp(MIN_FILL, depth);
    let options = SocketOptions { ifindex: netdevs.ifindex, queue: number, depth, zero_copy, fill };
    XskSocket::open(&options, &state.donors, cache).map_err(|errno| {
        let facts = BindFacts {
            ifname: netdevs.ifname.clone(),
            queue: number,
            channels: Some(netdevs.channels),
            zero_copy_forced: zero_copy == ZeroCopy::On,
            memlock: memlock(),
            umem_bytes: u64::from(umem.frames()) * u64::from(umem.frame_size()),
        };
        let kind = match errno {
            Errno::EBUSY => ErrorKind::Busy,
            Errno::EOPNOTSUPP => ErrorKind::Unsupported,
            _ => ErrorKind::System,
        };
        Error::new(kind, xdp_prog::explain_bind_error(errno, &facts))
    })
}

fn memlock() -> Option<u64> {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).ok()?;
    Some(soft).filter(|&limit| limit != nix::sys::resource::RLIM_INFINITY)
}

fn packet_error(ifname: &str, errno: Errno) -> Error {
    let advice = if errno == Errno::EPERM { ": CAP_NET_RAW is needed" } else { "" };
    Error::new(ErrorKind::System, format!("opening a packet socket on {ifname}: {errno}{advice}"))
}

/// Gives an open port its place: in the view, then in the hands of the workers.
fn bring_in(state: &State, threads: &Threads, control: &mut Control, opened: Opened, netdevs: Netdevs) -> PortNo {
    let Opened { spec, program, queues, shared, mode, mode_reason, group_tap, guest_end, promiscuous } = opened;
    let no = shared.no;
    let sockets = queues.iter().filter_map(|queue| Some((queue.socket.fd()?, queue.socket.zero_copy()))).collect();
    let port = LivePort {
        guest_end,
        spec,
        shared: Arc::clone(&shared),
        netdevs,
        program,
        mode,
        mode_reason,
        sockets,
        closed: Vec::new(),
        group_tap,
        _promiscuous: promiscuous,
    };
    control.ports.insert(no, port);
    state.publish(control);
    for queue in queues {
        let worker = shared.queues[queue.number as usize].worker;
        threads.command(&state.shared, worker, Command::Add(Box::new(queue)));
    }
    no
}

/// Removes a port and returns its netdevs and what is on the guest's end, or `None` if there is no such port.
pub(super) fn remove(
    state: &State,
    threads: &Threads,
    control: &mut Control,
    no: PortNo,
) -> Option<(Netdevs, Option<GuestEnd>)> {
    let LivePort { shared, netdevs, mut program, sockets, group_tap, guest_end, .. } = control.ports.remove(&no)?;
    if let Err(error) = program.detach() {
        tracing::warn!(port = shared.name, %error, "detaching the XDP program");
    }
    drop(group_tap);
    // No worker sends to the port any more, and none learns for it.
    state.publish(control);
    state.shared.quiesce();
    control.fdb.flush_port(no);
    // The rings' ends are ours again. What other workers had handed over for it finds nobody, and is dropped there.
    let mut cache = FrameCache::new(Arc::clone(&state.shared.umem));
    drop(sockets);
    for queue in threads.take_back(&state.shared, &shared) {
        count_untaken(&shared, queue.number, queue.socket.close(SEND_GRACE, &mut cache));
    }
    state.recycle(cache);
    drop(program);
    let mut stats = PortStats::default();
    super::audit::add_port(&mut stats, &shared);
    super::audit::retire(&mut control.retired, stats);
    Some((netdevs, guest_end))
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
        count_untaken(&port.shared, queue.number, queue.socket.close(SEND_GRACE, &mut cache));
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
        let socket = open_socket(state, &spec, &port.netdevs, number, 0, cache).and_then(|socket| {
            let Some(fd) = socket.fd() else { return Ok(socket) };
            match port.program.set_socket(number, fd.as_fd()) {
                Ok(()) => Ok(socket),
                Err(error) => {
                    drop(fd);
                    socket.close(Duration::ZERO, cache);
                    Err(error.into())
                }
            }
        });
        match socket {
            Ok(socket) => opened.push(Queue::new(Arc::clone(&port.shared), number, socket)),
            Err(error) => {
                for queue in opened {
                    count_untaken(&port.shared, queue.number, queue.socket.close(Duration::ZERO, cache));
                }
                return Err(error);
            }
        }
    }
    port.spec.queue_depth = Some(depth);
    port.sockets = opened.iter().filter_map(|queue| Some((queue.socket.fd()?, queue.socket.zero_copy()))).collect();
    for queue in opened {
        let worker = port.shared.queues[queue.number as usize].worker;
        threads.command(&state.shared, worker, Command::Add(Box::new(queue)));
    }
    Ok(())
}

/// All stations that are known behind ports: configured addresses, and what the MAC table has.
fn stations(control: &Control, state: &State) -> Vec<Station> {
    let configured = control.ports.values().filter_map(|port| {
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
