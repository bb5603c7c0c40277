//! Bringing ports up, one or all of them: what waits for the kernel is done for several at a time.
//!
//! Names, numbers, workers and frames are given out in the order that was asked for, so what a port gets does not depend on which
//! of them is ready first. One that fails leaves nothing behind, and the others alone.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use xdp_prog::{BindFacts, LoadOptions, PortProgram};

use super::group_tap::GroupTap;
use super::guest_end::{self, GuestEnd};
use super::netdevs::Netdevs;
use super::ports::{LivePort, stations};
use super::several::each;
use super::start::Threads;
use super::steer::{self, Station};
use super::{Control, State, resolve};
use crate::engine::PortNo;
use crate::io::backend::Backend;
use crate::io::packet::{GroupSocket, Promiscuous};
use crate::io::socket::{SocketOptions, XskSocket};
use crate::io::umem::{FrameCache, Umem};
use crate::model::*;
use crate::worker::view::{PortShared, QueueShared};
use crate::worker::{Command, Queue};
use crate::{Error, ErrorKind};

/// Least frames that a queue is supplied with.
const MIN_FILL: u32 = 64;

/// Adds ports; on an error everything done so far for that port is undone by the drops of what was made.
pub(super) fn add(
    state: &State,
    threads: &Threads,
    control: &mut Control,
    specs: Vec<PortSpec>,
) -> Vec<Result<PortNo, Error>> {
    let resolved = resolve_all(state, control, specs);
    let found = each(resolved, |spec| find(state, spec?));
    let planned = plan(state, threads, control, found);
    let needs_stations = |plan: &Plan| plan.spec.steering == Steering::Shared;
    let stations = match planned.iter().flatten().any(needs_stations) {
        true => stations(control, state),
        false => Vec::new(),
    };
    let opened = each(planned, |plan| open(state, &stations, plan?));
    bring_in(state, threads, control, opened)
}

/// Gives each port its number and checks what does not depend on netdevs.
fn resolve_all(state: &State, control: &Control, specs: Vec<PortSpec>) -> Vec<Result<PortSpec, Error>> {
    let mut resolved: Vec<Result<PortSpec, Error>> = Vec::with_capacity(specs.len());
    for spec in specs {
        let earlier: Vec<_> = resolved.iter().flatten().collect();
        let one = resolve_one(state, control, &earlier, spec);
        resolved.push(one);
    }
    resolved
}

fn resolve_one(state: &State, control: &Control, earlier: &[&PortSpec], spec: PortSpec) -> Result<PortSpec, Error> {
    let live = || control.ports.values().map(|port| &port.spec).chain(earlier.iter().copied());
    // A number that is kept for a port of another name is taken; one that is kept for this one is its own.
    let kept = |no: &PortNo| control.reserved.get(no).is_some_and(|(name, _)| *name != spec.name);
    let taken = |no| live().any(|port| port.vport == Some(no)) || kept(&no);
    let spec = resolve::resolve(spec.clone(), state.settings.capacity.port_slots(), taken)?;
    resolve::check_unique(&spec, live())?;
    Ok(spec)
}

/// Makes or adopts the netdevs of a port.
fn find(state: &State, mut spec: PortSpec) -> Result<(PortSpec, Netdevs), Error> {
    let frame_size = state.settings.frame_size;
    let netdevs = match spec.kind {
        PortKind::Guest => Netdevs::for_guest(&mut spec, frame_size)?,
        PortKind::Phy => Netdevs::for_phy(&mut spec, frame_size)?,
    };
    Ok((spec, netdevs))
}

/// A port with its netdevs and its share of what all have together.
struct Plan {
    spec: PortSpec,
    netdevs: Netdevs,
    shared: Arc<PortShared>,
    /// Frames that each queue is supplied with.
    fills: Vec<u32>,
}

/// Gives each port its workers and frames.
fn plan(
    state: &State,
    threads: &Threads,
    control: &mut Control,
    found: Vec<Result<(PortSpec, Netdevs), Error>>,
) -> Vec<Result<Plan, Error>> {
    let umem = &state.shared.umem;
    let mut free = umem.pool_len();
    let mut one = |(spec, netdevs): (PortSpec, Netdevs)| {
        let queues = spec.queues.unwrap_or(1);
        let depth = spec.queue_depth.unwrap_or(DEFAULT_QUEUE_DEPTH);
        let before = free;
        let fills = (0..queues).map(|number| {
            let fill = fill_of(umem, free, depth, queues - number)?;
            free = free.saturating_sub(fill);
            Ok(fill)
        });
        let fills = fills.collect::<Result<Vec<_>, Error>>().inspect_err(|_| {
            free = before;
            netdevs.give_up();
        })?;
        control.generation += 1;
        let shared = Arc::new(PortShared {
            no: spec.vport.unwrap_or_default(),
            generation: control.generation,
            name: spec.name.clone(),
            shards: (0..threads.count()).map(|_| Default::default()).collect(),
            bridged: spec.spp.is_none(),
            mtu: spec.mtu.unwrap_or(DEFAULT_MTU).into(),
            queues: threads.spread(queues).map(QueueShared::new).collect(),
        });
        Ok(Plan { spec, netdevs, shared, fills })
    };
    found.into_iter().map(|found| found.and_then(&mut one)).collect()
}

/// Frames for a queue with rings of that depth, when `free` ones are in the pool and its port has that many queues to come, this
/// one included.
pub(super) fn fill_of(umem: &Umem, free: u32, depth: u32, queues_to_come: u32) -> Result<u32, Error> {
    if free < 2 * MIN_FILL * queues_to_come {
        return Err(Error::new(
            ErrorKind::Full,
            format!(
                "UMEM is used up: {free} of {} frames are free; raise `frames` in [dataplane] and restart, or use fewer queues",
                umem.frames()
            ),
        ));
    }
    // A quarter of UMEM is for frames that are on their way; of the rest each further queue gets a share that leaves
    // something for many more.
    let spare = free.saturating_sub(umem.frames() / 4);
    Ok((spare / 32).clamp(MIN_FILL, depth))
}

/// A port with everything but its place in the switch.
struct Opened {
    plan: Plan,
    program: PortProgram,
    queues: Vec<Queue>,
    mode: Mode,
    mode_reason: Option<String>,
    group_tap: Option<GroupTap>,
    guest_end: Option<GuestEnd>,
    promiscuous: Option<Promiscuous>,
}

/// What of a port is made last.
struct Finish {
    attached: xdp_prog::Attached,
    promiscuous: Option<Promiscuous>,
    group_tap: Option<GroupTap>,
    guest_end: Option<GuestEnd>,
}

/// Loads the program, opens the sockets and attaches.
///
/// The program is attached here, a moment before the workers get the queues: what comes in meanwhile waits in the rings.
fn open(state: &State, stations: &[Station], plan: Plan) -> Result<Opened, Error> {
    let mut cache = FrameCache::new(Arc::clone(&state.shared.umem));
    let mut queues: Vec<Queue> = Vec::new();
    let mut opened = || -> Result<_, Error> {
        let mut program = PortProgram::load(&load_options(&plan))?;
        let finish = open_rest(state, stations, &plan, &mut program, &mut queues, &mut cache)?;
        Ok((program, finish))
    };
    let opened = opened();
    if opened.is_err() {
        for queue in queues.drain(..) {
            queue.backend.close(Duration::ZERO, &mut cache);
        }
        plan.netdevs.give_up();
    }
    state.recycle(cache);
    let (program, Finish { attached, promiscuous, group_tap, guest_end }) = opened?;
    let (mode, mode_reason) = (guest_end::mode(attached.mode), attached.fallback_reason);
    Ok(Opened { plan, program, queues, mode, mode_reason, group_tap, guest_end, promiscuous })
}

fn load_options(plan: &Plan) -> LoadOptions {
    LoadOptions {
        ifname: plan.netdevs.ifname.clone(),
        ifindex: plan.netdevs.ifindex,
        queues: plan.spec.queues.unwrap_or(1),
        steering: match plan.spec.steering {
            Steering::All => xdp_prog::Steering::All,
            Steering::Shared => xdp_prog::Steering::Shared,
        },
    }
}

fn open_rest(
    state: &State,
    stations: &[Station],
    plan: &Plan,
    program: &mut PortProgram,
    queues: &mut Vec<Queue>,
    cache: &mut FrameCache,
) -> Result<Finish, Error> {
    let Plan { spec, netdevs, shared, fills } = plan;
    for (number, &fill) in (0..).zip(fills) {
        let socket = open_socket(state, spec, netdevs, number, fill, cache)?;
        program.set_socket(number, socket.fd().as_fd())?;
        queues.push(Queue::new(Arc::clone(shared), number, socket));
    }
    let promiscuous = match spec.kind {
        PortKind::Phy => Some(Promiscuous::new(netdevs.ifindex).map_err(|errno| packet_error(&netdevs.ifname, errno))?),
        PortKind::Guest => None,
    };
    let group_tap = match spec.steering {
        Steering::Shared => Some(
            GroupSocket::open(netdevs.ifindex)
                .and_then(|socket| {
                    let (all, gate) = (Arc::clone(&state.shared), Arc::clone(&state.gate));
                    GroupTap::start(socket, Arc::clone(shared), all, gate)
                })
                .map_err(|errno| packet_error(&netdevs.ifname, errno))?,
        ),
        Steering::All => None,
    };
    if let (Steering::Shared, Some(mode)) = (spec.steering, &spec.vlan) {
        program.set_steering(&steer::keys(shared.no, mode, stations))?;
    }
    // A guest that went on without us has a program that is not to be taken off, whatever else fails.
    let guest_end = guest_end::bring_up(state, spec, netdevs)?;
    match program.attach(guest_end::mode_request(spec.mode)) {
        Ok(attached) => Ok(Finish { attached, promiscuous, group_tap, guest_end }),
        Err(error) => {
            if let Some(end) = guest_end.filter(GuestEnd::is_fresh) {
                end.remove(&spec.name);
                guest_end::give_back(netdevs);
            }
            Err(error.into())
        }
    }
}

/// Opens the socket of a queue, with that many frames to be filled.
pub(super) fn open_socket(
    state: &State,
    spec: &PortSpec,
    netdevs: &Netdevs,
    number: u32,
    fill: u32,
    cache: &mut FrameCache,
) -> Result<Backend, Error> {
    let umem = &state.shared.umem;
    let depth = spec.queue_depth.unwrap_or(DEFAULT_QUEUE_DEPTH);
    // Only a driver's queue can be zero-copy, and a veth has none: sharing one registration costs no memory a port.
    let zero_copy = match spec.zero_copy {
        ZeroCopy::Auto if netdevs.is_veth || spec.mode == ModeRequest::Generic => ZeroCopy::Off,
        wish => wish,
    };
    let options = SocketOptions { ifindex: netdevs.ifindex, queue: number, depth, zero_copy, fill };
    XskSocket::open(&options, &state.sharers, cache).map(Backend::Xsk).map_err(|errno| {
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

/// Gives open ports their places: in one new view, then in the hands of the workers.
fn bring_in(
    state: &State,
    threads: &Threads,
    control: &mut Control,
    opened: Vec<Result<Opened, Error>>,
) -> Vec<Result<PortNo, Error>> {
    let mut all_queues = Vec::new();
    let mut place = |opened: Opened| {
        let Opened { plan, program, queues, mode, mode_reason, group_tap, guest_end, promiscuous } = opened;
        let Plan { spec, netdevs, shared, .. } = plan;
        let no = shared.no;
        let sockets = queues.iter().map(|queue| (Arc::clone(queue.backend.fd()), queue.backend.zero_copy())).collect();
        all_queues.extend(queues);
        let port = LivePort {
            guest_end,
            spec,
            shared,
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
        control.reserved.remove(&no);
        no
    };
    let numbers = opened.into_iter().map(|opened| opened.map(&mut place)).collect();
    if !all_queues.is_empty() {
        state.publish(control);
    }
    for queue in all_queues {
        let worker = queue.port.queues[queue.number as usize].worker();
        threads.command(&state.shared, worker, Command::Add(Box::new(queue)));
    }
    numbers
}
