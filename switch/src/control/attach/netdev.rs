//! A port on a netdev: its program, its sockets, and what is on the guest's end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::ends::Ends;
use super::find::FoundNetdev;
use super::group_tap::GroupTap;
use super::guest_side::GuestSide;
use super::mtu::{MtuFacts, OneChunk, frame_mtu, mtu_limit, one_chunk};
use super::tap::Tap;
use super::{AttachmentInfo, Followed, OtherQueues, OutsideCounters, Plan, RingOptions, Sight};
use crate::Error;
use crate::control::core::Core;
use crate::host::{
    Attached, LinkChange, Netdev, PacketSocket, PortProgram, PortSocket, QueueOptions, SocketCounters, SteerKey,
};
use crate::io::backend::Backend;
use crate::io::umem::FrameCache;
use crate::model::*;
use crate::offload::Exit;
use crate::worker::view::PortShared;

/// A netdev with all that a live port has on it.
#[derive(Debug)]
pub struct NetdevPort {
    core: Arc<Core>,
    ends: Ends,
    shared: Arc<PortShared>,
    queues: u32,
    program: Box<dyn PortProgram>,
    mode: Mode,
    mode_reason: Option<String>,
    /// Of each queue.
    sockets: Vec<PortSocket>,
    /// What sockets in their places had counted that were closed since.
    closed: Vec<SocketCounters>,
    /// The thread that copies group-addressed frames of a shared netdev.
    group_tap: Option<GroupTap>,
    guest: GuestSide,
    /// What its netdev takes from programs on others, as the flow table was told.
    exit: Exit,
    /// Whether its guest's end was set to take such packets since it is up.
    exit_tried: bool,
    _promiscuous: Option<Box<dyn PacketSocket>>,
}

impl NetdevPort {
    /// Makes or takes the netdev, loads the program, opens the sockets and attaches. On an error all is as it was.
    ///
    /// The program is attached here, a moment before the workers get the queues. What comes in meanwhile waits in
    /// the rings.
    pub fn open(core: &Arc<Core>, found: FoundNetdev, plan: &Plan) -> Result<(Self, Vec<Backend>), Error> {
        let (ends, undo) = found.open(&*core.host, &plan.spec)?;
        let mut cache = core.frame_cache();
        let mut queues = Vec::new();
        let opened = attach(core, &ends, plan, &mut queues, &mut cache);
        if opened.is_err() {
            close(queues.drain(..), &mut cache);
        }
        core.recycle(cache);
        let parts = match opened {
            Ok(parts) => parts,
            Err(error) => {
                undo.run(&*core.host, ends);
                return Err(error);
            }
        };
        let mut port = Self {
            core: Arc::clone(core),
            ends,
            shared: Arc::clone(&plan.shared),
            queues: queues_of(&plan.spec),
            program: parts.program,
            mode: parts.attached.mode,
            mode_reason: parts.attached.fallback_reason,
            sockets: queues.iter().map(PortSocket::of).collect(),
            closed: Vec::new(),
            group_tap: parts.group_tap,
            guest: parts.guest,
            exit: Exit::None,
            exit_tried: false,
            _promiscuous: parts.promiscuous,
        };
        port.tell_offload();
        Ok((port, queues))
    }

    /// Its netdevs, as far as they can be reached.
    pub fn netdevs(&self) -> impl Iterator<Item = &Netdev> {
        self.ends.netdevs()
    }

    /// The switch's netdev.
    pub fn netdev(&self) -> &Netdev {
        &self.ends.near
    }

    /// What users see of it.
    pub fn info(&self) -> AttachmentInfo {
        AttachmentInfo {
            mode: Some(self.mode),
            mode_reason: self.mode_reason.clone(),
            max_mtu: self.max_mtu().0,
            zero_copy: (0..).zip(self.sockets.iter().map(PortSocket::zero_copy)).collect(),
            guest_end: self.guest.info(),
            vhost: None,
            tap: self.ends.tap.as_ref().map(Tap::info),
            bond: None,
        }
    }

    /// Its tap.
    pub fn tap(&self) -> Option<&Tap> {
        self.ends.tap.as_ref()
    }

    /// The largest MTU that it can be set to, and what sets it: the mode in force does.
    pub fn max_mtu(&self) -> (u32, &'static str) {
        // The program on either end limits the MTU of both.
        let native = self.mode == Mode::Native || self.guest.mode() == Some(Mode::Native);
        let mode = if native { ModeRequest::Native } else { ModeRequest::Generic };
        let (host, is_veth, has_tap) = (&*self.core.host, self.ends.is_veth, self.ends.tap.is_some());
        let one_chunk = match one_chunk(host, self.guest.is_open()) {
            None if native && !is_veth && !host.has_multi_buffer(&self.ends.near) => Some(OneChunk::Driver),
            None if !self.sockets.iter().all(PortSocket::takes_chains) => Some(OneChunk::ZeroCopy),
            found => found,
        };
        mtu_limit(MtuFacts { mode, is_veth, has_tap, frame_size: self.core.settings.frame_size, one_chunk })
    }

    /// What would break its packets now, in words.
    pub fn problems(&self, mtu: u32) -> Vec<String> {
        let mut problems = self.ends.problems(&*self.core.host, mtu);
        if !self.program.is_attached() {
            problems.push(format!("the XDP program was taken off {}", self.ends.near.name));
        }
        problems.extend(self.other_programs());
        problems
    }

    /// What to know of programs of others on its netdev.
    fn other_programs(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let name = &self.ends.near.name;
        match self.core.host.programs_on(&self.ends.near) {
            Ok(programs) => {
                let others = programs.iter().filter(|program| program.id != self.program.id());
                problems.extend(others.map(|program| {
                    format!("{name} has another XDP program too ({}): only one of them sees all packets", program.text)
                }));
            }
            Err(error) => problems.push(error.to_string()),
        }
        problems
    }

    /// Goes by what was seen of its netdevs, and repairs what it can.
    pub fn follow(&mut self, spec: &mut PortSpec, sight: &Sight<'_>) -> Result<Followed, OtherQueues> {
        let max_mtu = self.max_mtu().0;
        let mut followed = self.ends.follow(&*self.core.host, spec, sight, max_mtu)?;
        if followed.changed {
            self.guest.set_netdev(self.ends.far.as_ref());
        }
        if followed.netdev_problems.is_some() && sight.link.is_some_and(|link| link.up) {
            self.check_bound()?;
        }
        if let Some(problems) = &mut followed.netdev_problems {
            problems.extend(self.other_programs());
        }
        if !self.program.is_attached() {
            followed.program_problem = self.put_program_back(spec);
            self.tell_offload();
        } else if followed.netdev_problems.is_some() {
            self.tell_offload();
        }
        Ok(followed)
    }

    /// Tells the flow table whether its program follows it, and what its netdev takes from programs on others.
    fn tell_offload(&mut self) {
        let Some(offload) = self.core.offload().cloned() else { return };
        let (no, host) = (self.shared.no, &*self.core.host);
        let follows = self.shared.bridged && self.mode == Mode::Native && self.program.is_attached();
        offload.set_follows(no, follows);
        // A driver that leaves copies out sends later than it is told to, so a flow would not stay in order.
        let is_plain = self.ends.tap.is_none() && !self.sockets.iter().any(PortSocket::zero_copy);
        let can = follows && is_plain && self.shared.bond.is_none();
        let mut exit = if can { host.exit_of(&self.ends.near) } else { Exit::None };
        let far = self.ends.far.as_ref().filter(|_| can && self.ends.is_veth && !self.guest.is_open());
        if let Some(far) = far.filter(|_| exit == Exit::None) {
            let is_up = host.look_at(far).ok().flatten().is_some_and(|link| link.up);
            if is_up && !self.exit_tried {
                match host.open_exit(far) {
                    Ok(()) => exit = host.exit_of(&self.ends.near),
                    Err(error) => tracing::debug!(port = self.shared.name, %error, "flows to it stay with the switch"),
                }
            }
            self.exit_tried = is_up;
        }
        if exit == self.exit {
            return;
        }
        if exit == Exit::None {
            offload.set_exit(no, exit);
        }
        let netdev = (exit != Exit::None).then_some(&self.ends.near);
        match host.set_exit(offload.table(), no, netdev) {
            Ok(()) => {
                self.exit = exit;
                offload.set_exit(no, exit);
            }
            Err(error) => tracing::warn!(port = self.shared.name, %error, "flows to it stay with the switch"),
        }
    }

    /// No flow comes from it or goes to it in the kernel any more.
    fn leave_offload(&mut self) {
        let Some(offload) = self.core.offload() else { return };
        offload.set_follows(self.shared.no, false);
        offload.set_exit(self.shared.no, Exit::None);
        self.exit = Exit::None;
    }

    /// Says that the kernel has let go of the sockets: the netdev was moved away, and is back. It is the same one then,
    /// but nothing comes by the old sockets any more.
    fn check_bound(&self) -> Result<(), OtherQueues> {
        let (host, near) = (&*self.core.host, &self.ends.near);
        if host.bound_queues(near) != Some(0) {
            return Ok(());
        }
        let why = format!("{} was away, and has let go of its sockets", near.name);
        Err(OtherQueues { queues: self.queue_count(), why })
    }

    /// Attaches the program again that somebody else has taken off. Says why that can't be done.
    fn put_program_back(&mut self, spec: &PortSpec) -> Option<String> {
        let ifname = &self.ends.near.name;
        match self.program.attach(spec.mode) {
            Ok(Attached { mode, fallback_reason }) => {
                tracing::warn!(port = self.shared.name, ifname, "somebody took the XDP program off; it is on again");
                (self.mode, self.mode_reason) = (mode, fallback_reason);
                None
            }
            Err(error) => Some(format!("the XDP program was taken off {ifname}, and can't be put back: {error}")),
        }
    }

    /// What the program and the kernel's sockets counted, those that were closed since included.
    pub fn counters(&self) -> OutsideCounters {
        OutsideCounters { program: self.program.counters().unwrap_or_default(), sockets: self.socket_counters() }
    }

    fn socket_counters(&self) -> Vec<SocketCounters> {
        let before = self.closed.iter().copied().chain(std::iter::repeat(SocketCounters::default()));
        let sum = |(socket, before)| self.core.host.counters(socket).plus(before);
        self.sockets.iter().zip(before).map(sum).collect()
    }

    /// Makes `keys` the stations whose packets come to the switch.
    pub fn set_steering(&self, keys: &BTreeSet<SteerKey>) -> Result<(), Error> {
        self.program.set_steering(keys)
    }

    /// Sets the MTU of both ends, or of none.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        self.ends.set_mtu(&*self.core.host, mtu)
    }

    /// Gives the guest that address. Ports without guests have none to give it to.
    pub fn set_guest_mac(&self, mac: MacAddr) -> Result<(), Error> {
        let change = LinkChange { mac: Some(mac), ..LinkChange::default() };
        self.guest.netdev().map_or(Ok(()), |netdev| self.core.host.change(netdev, &change))
    }

    /// Has others open its tap. Ports without one have none to give.
    pub fn give_tap(&mut self, wish: &TapSpec) -> Result<(), Error> {
        self.ends.tap.as_mut().map_or(Ok(()), |tap| tap.give(&*self.core.host, wish))
    }

    /// Stops packets from coming: the program is off its netdev.
    pub fn detach(&mut self) {
        self.leave_offload();
        if let Err(error) = self.program.detach() {
            tracing::warn!(port = self.shared.name, %error, "detaching the XDP program");
        }
        self.group_tap = None;
    }

    /// Sends packets to no socket any more. The program drops and counts them.
    pub fn unplug(&self) -> Result<(), Error> {
        (0..self.queue_count()).try_for_each(|queue| self.program.clear_socket(queue))
    }

    /// Lets go of sockets that are about to be closed, and keeps what they counted.
    pub fn forget_queues(&mut self) {
        self.closed = self.socket_counters();
        self.sockets.clear();
    }

    /// Opens all queues of a port that has none, with such rings. On an error none is open.
    pub fn reopen(
        &mut self,
        spec: &PortSpec,
        rings: RingOptions,
        cache: &mut FrameCache,
    ) -> Result<Vec<Backend>, Error> {
        let mut queues = Vec::new();
        for number in 0..self.queue_count() {
            let opening = Opening { core: &self.core, ends: &self.ends, spec, program: &*self.program };
            match opening.queue(number, rings, cache) {
                Ok(queue) => queues.push(queue),
                Err(error) => {
                    close(queues.into_iter(), cache);
                    return Err(error);
                }
            }
        }
        self.sockets = queues.iter().map(PortSocket::of).collect();
        Ok(queues)
    }

    /// What is on the guest's end.
    pub fn guest_side(&self) -> &GuestSide {
        &self.guest
    }

    /// The same, to change it.
    pub fn guest_side_mut(&mut self) -> &mut GuestSide {
        &mut self.guest
    }

    /// What is left outside once the port is gone from the switch. Its sockets are let go of.
    pub fn into_remains(self) -> NetdevRemains {
        let Self { core, ends, guest, shared, .. } = self;
        if let Some(offload) = core.offload()
            && let Err(error) = core.host.set_exit(offload.table(), shared.no, None)
        {
            tracing::warn!(port = shared.name, %error, "the flow table");
        }
        NetdevRemains { core, ends, guest }
    }

    fn queue_count(&self) -> u32 {
        self.queues
    }
}

/// What a port that is gone has left outside.
#[derive(Debug)]
pub struct NetdevRemains {
    core: Arc<Core>,
    ends: Ends,
    guest: GuestSide,
}

impl NetdevRemains {
    /// Takes down what the switch has made.
    pub fn remove(self) {
        self.guest.remove(!self.ends.made);
        self.ends.delete(&*self.core.host);
    }

    /// Lets go of netdevs that are gone, or somebody else's now.
    pub fn let_go(self) {
        self.guest.remove(false);
    }
}

/// What is made of a port beside its queues.
struct Parts {
    program: Box<dyn PortProgram>,
    attached: Attached,
    group_tap: Option<GroupTap>,
    guest: GuestSide,
    promiscuous: Option<Box<dyn PacketSocket>>,
}

/// Makes all that is on the netdevs, and attaches the program last.
fn attach(
    core: &Arc<Core>,
    ends: &Ends,
    plan: &Plan,
    queues: &mut Vec<Backend>,
    cache: &mut FrameCache,
) -> Result<Parts, Error> {
    let Plan { spec, shared, rings, steering, member } = plan;
    let host = &*core.host;
    // A bond's members are no ports of their own.
    let offload = core.offload().filter(|_| member.is_none() && shared.bridged);
    let flows = offload.map(|offload| (offload.table(), shared.no));
    let mut program = host.load_program(&ends.near, queues_of(spec), spec.steering, flows)?;
    for number in 0..queues_of(spec) {
        queues.push(Opening { core, ends, spec, program: &*program }.queue(number, *rings, cache)?);
    }
    let promiscuous = spec.kind.is_promiscuous().then(|| host.make_promiscuous(&ends.near)).transpose()?;
    let group_tap = match spec.steering {
        Steering::Shared => {
            program.set_steering(steering)?;
            Some(GroupTap::start(core, host.copy_group_frames(&ends.near)?, shared, member.clone())?)
        }
        Steering::All => None,
    };
    // A guest that went on without us has a program that is not to be taken off, whatever else fails.
    let guest = GuestSide::bring_up(core, ends.far.as_ref(), spec, shared)?;
    match program.attach(spec.mode) {
        Ok(attached) => Ok(Parts { program, attached, group_tap, guest, promiscuous }),
        Err(error) => {
            guest.give_up();
            Err(error)
        }
    }
}

/// Queues of a port on one netdev.
fn queues_of(spec: &PortSpec) -> u32 {
    spec.queues.unwrap_or(1)
}

/// Closes queues that no packet has come by yet.
pub(super) fn close(queues: impl Iterator<Item = Backend>, cache: &mut FrameCache) {
    for queue in queues {
        queue.close(Duration::ZERO, cache);
    }
}

/// What a queue is opened for.
struct Opening<'a> {
    core: &'a Core,
    ends: &'a Ends,
    spec: &'a PortSpec,
    program: &'a dyn PortProgram,
}

impl Opening<'_> {
    /// Opens a queue with such rings, and has the program send its packets there.
    fn queue(&self, number: u32, rings: RingOptions, cache: &mut FrameCache) -> Result<Backend, Error> {
        let Self { core, ends, spec, program } = self;
        // Only a driver's queue can be zero-copy, and a veth has none: sharing one registration costs no memory a port.
        let zero_copy = match spec.zero_copy {
            ZeroCopy::Auto if ends.is_veth || spec.mode == ModeRequest::Generic => ZeroCopy::Off,
            wish => wish,
        };
        // Many drivers leave copies out only where each packet has one chunk.
        let is_jumbo = spec.mtu.is_some_and(|mtu| mtu > frame_mtu(core.settings.frame_size));
        let takes_chains = core.host.knows_multi_buffer() && (zero_copy == ZeroCopy::Off || is_jumbo);
        let (netdev, channels, RingOptions { depth, memory }) = (&ends.near, ends.channels, rings);
        let options = QueueOptions { netdev, queue: number, channels, depth, zero_copy, memory, takes_chains };
        let backend = core.host.open_queue(&options, cache)?;
        match program.set_socket(number, &PortSocket::of(&backend)) {
            Ok(()) => Ok(backend),
            Err(error) => {
                backend.close(Duration::ZERO, cache);
                Err(error)
            }
        }
    }
}
