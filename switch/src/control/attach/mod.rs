//! Attachments: what ports have outside of the switch.
//!
//! A port is attached in two steps. [`Found::find`] looks for what it needs; what can refuse is asked there, and
//! nothing is changed. [`Found::open`] makes it all; on an error everything is as it was. A live port has an
//! [`Attachment`], a port that is gone has left [`Remains`].
//!
//! Each of the three is an enum with a variant a kind of attachment. A new kind is a module here with its three
//! types, a variant of each enum, and the choice by the port's kind in [`Found::find`].

mod account;
mod before;
mod bond;
mod ends;
mod find;
mod group_tap;
mod guest_end;
mod guest_side;
mod mark;
mod mtu;
mod netdev;
mod tap;
mod vhost;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

pub(super) use self::before::put_back;
pub(super) use self::bond::check as check_bond;
use self::bond::{BondPort, BondRemains, FoundBond};
use self::find::FoundNetdev;
pub(super) use self::guest_side::{GuestSide, no_guest_end};
pub(super) use self::mark::Mark;
pub use self::mtu::{frame_mtu, jumbo_mtu};
use self::netdev::{NetdevPort, NetdevRemains};
use self::tap::Tap;
pub(super) use self::tap::info as tap_info;
use self::vhost::{FoundVhost, VhostPort};
use super::core::Core;
use crate::Error;
use crate::host::{Host, HostChange, Link, Netdev, QueueCounters, SocketCounters, SteerKey};
use crate::io::backend::Backend;
use crate::io::queue_rings::RingMemory;
use crate::io::umem::FrameCache;
use crate::model::*;
use crate::worker::Queue;
use crate::worker::bond::MemberShared;
use crate::worker::view::PortShared;

/// What there is for a port.
#[derive(Debug)]
pub(super) enum Found {
    /// A netdev, or the place for one.
    Netdev(FoundNetdev),
    /// The place for a socket of vhost-user.
    Vhost(FoundVhost),
    /// Netdevs of a bond.
    Bond(FoundBond),
}

/// A port with its share of what all ports have together.
#[derive(Debug)]
pub(super) struct Plan {
    /// With every default filled in.
    pub spec: PortSpec,
    /// What workers share of it.
    pub shared: Arc<PortShared>,
    /// Rings of its queues.
    pub rings: RingOptions,
    /// Stations whose packets come to the switch, if it shares its netdev.
    pub steering: BTreeSet<SteerKey>,
    /// The member of a bond that it is for.
    pub member: Option<Arc<MemberShared>>,
}

/// A queue that is open, and not its worker's yet.
#[derive(Debug)]
pub(super) struct OpenQueue {
    /// Its number at the port.
    pub number: u32,
    /// Where its frames come from and go to.
    pub backend: Backend,
    /// The member of a bond that it belongs to.
    pub member: Option<Arc<MemberShared>>,
}

impl OpenQueue {
    /// All queues of a port that is no bond, in order.
    fn all(backends: Vec<Backend>) -> Vec<Self> {
        (0..).zip(backends).map(|(number, backend)| Self { number, backend, member: None }).collect()
    }

    /// The queue as its worker gets it.
    pub fn into_queue(self, port: &Arc<PortShared>) -> Queue {
        let Self { number, backend, member } = self;
        match member {
            Some(member) => Queue::of_member(Arc::clone(port), number, backend, member),
            None => Queue::new(Arc::clone(port), number, backend),
        }
    }
}

/// Rings of each queue of a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingOptions {
    /// Descriptors of each ring, a power of two.
    pub depth: u32,
    /// Where their frames lie.
    pub memory: RingMemory,
}

/// What a live port has outside.
#[derive(Debug)]
pub(super) enum Attachment {
    /// A netdev.
    Netdev(Box<NetdevPort>),
    /// A socket of vhost-user.
    Vhost(VhostPort),
    /// Netdevs that are used as one.
    Bond(Box<BondPort>),
}

/// What a port that is gone has left outside. Dropping it leaves it there.
#[derive(Debug)]
pub(super) enum Remains {
    /// Of a netdev.
    Netdev(Box<NetdevRemains>),
    /// Of the members of a bond.
    Bond(BondRemains),
    /// Nothing.
    Nothing,
}

/// A wish for ports that are added together.
#[derive(Debug)]
pub(super) struct Wish {
    known: bool,
    /// All netdevs of the switch's namespace, once somebody had to look among them.
    links: OnceLock<Vec<Link>>,
}

impl Wish {
    /// For ports that a user asks for, or that were there before and are to be there again.
    pub fn new(known: bool) -> Self {
        Self { known, links: OnceLock::new() }
    }

    /// Whether the ports were there before. Then their netdevs may have changed while nobody looked.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// The netdevs among which those of known ports are looked for.
    pub fn links(&self, host: &dyn Host) -> &[Link] {
        match self.known {
            true => self.links.get_or_init(|| host.list().unwrap_or_default()),
            false => &[],
        }
    }
}

/// What is seen of a port's netdev.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    /// The switch's netdev, if it was looked at.
    pub link: Option<&'a Link>,
    /// Where something was said to have changed.
    pub said: &'a HostChange,
}

/// What came of following.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Whether the port's spec is another one now.
    pub changed: bool,
    /// Whether there is somebody at the other end. `None`: the netdev tells.
    pub carrier: Option<bool>,
    /// What of its netdevs keeps the port from its work, in words. `None`: they were not looked at.
    pub netdev_problems: Option<Vec<String>>,
    /// Why its program is not on its netdev.
    pub program_problem: Option<String>,
}

/// A netdev whose queues are no more those that the port has opened. Its port must be added again.
#[derive(Debug)]
pub(super) struct OtherQueues {
    /// Their number.
    pub queues: u32,
    /// What happened, in words.
    pub why: String,
}

/// What users see of an attachment.
#[derive(Debug)]
pub(super) struct AttachmentInfo {
    /// XDP mode in force, if it has a program.
    pub mode: Option<Mode>,
    pub mode_reason: Option<String>,
    pub max_mtu: u32,
    /// Of each queue, by its number, whether a driver moves frames without a copy.
    pub zero_copy: Vec<(u32, bool)>,
    pub guest_end: Option<GuestEndInfo>,
    pub vhost: Option<VhostInfo>,
    pub tap: Option<TapInfo>,
    pub bond: Option<BondInfo>,
}

/// What was counted outside of the switch, by queue.
#[derive(Debug)]
pub(super) struct OutsideCounters {
    /// By the program.
    pub program: Vec<QueueCounters>,
    /// By the kernel's sockets.
    pub sockets: Vec<SocketCounters>,
}

impl Found {
    /// Looks for what the port needs outside, and completes `spec` by what is found. Changes nothing.
    pub fn find(core: &Core, spec: &mut PortSpec, wish: &Wish) -> Result<Self, Error> {
        let (host, frame_size) = (&*core.host, core.settings.frame_size);
        Ok(match spec.kind {
            PortKind::Guest => Found::Netdev(FoundNetdev::for_guest(host, spec, frame_size, wish)?),
            PortKind::Phy => Found::Netdev(FoundNetdev::for_phy(host, spec, frame_size, wish)?),
            PortKind::Tap => Found::Netdev(FoundNetdev::for_tap(host, spec, frame_size, wish)?),
            PortKind::Vhost => Found::Vhost(FoundVhost::find(spec, frame_size)?),
            PortKind::Bond => Found::Bond(FoundBond::find(host, spec, frame_size, wish)?),
        })
    }

    /// The netdevs that the port would have, as far as they are there.
    pub fn netdevs(&self) -> Vec<Netdev> {
        match self {
            Found::Netdev(found) => found.netdevs(),
            Found::Vhost(_) => Vec::new(),
            Found::Bond(found) => found.netdevs(),
        }
    }

    /// Queues that it opens at first. `None`: all that the port has.
    pub fn queues(&self) -> Option<u32> {
        match self {
            Found::Bond(found) => Some(found.queues()),
            Found::Netdev(_) | Found::Vhost(_) => None,
        }
    }

    /// The netdevs as they are before the port changes them. `None`: there are none.
    pub fn before(&self, host: &dyn Host) -> Option<NetdevsBefore> {
        match self {
            Found::Netdev(found) => found.before(host),
            Found::Vhost(_) | Found::Bond(_) => None,
        }
    }

    /// Makes what the port needs outside, and opens its queues. On an error all is as it was.
    pub fn open(self, core: &Arc<Core>, plan: &Plan) -> Result<(Attachment, Vec<OpenQueue>), Error> {
        match self {
            Found::Netdev(found) => {
                let (port, queues) = NetdevPort::open(core, found, plan)?;
                Ok((Attachment::Netdev(Box::new(port)), OpenQueue::all(queues)))
            }
            Found::Vhost(found) => {
                let (port, queues) = found.open(core, plan)?;
                Ok((Attachment::Vhost(port), OpenQueue::all(queues)))
            }
            Found::Bond(found) => {
                let (port, queues) = found.open(core, plan)?;
                Ok((Attachment::Bond(Box::new(port)), queues))
            }
        }
    }
}

impl Attachment {
    /// The netdevs that it has, as far as they can be reached.
    pub fn netdevs(&self) -> impl Iterator<Item = &Netdev> {
        let (port, bond) = match self {
            Attachment::Netdev(port) => (Some(port), None),
            Attachment::Bond(bond) => (None, Some(bond)),
            Attachment::Vhost(_) => (None, None),
        };
        port.into_iter().flat_map(|port| port.netdevs()).chain(bond.into_iter().flat_map(|bond| bond.netdevs()))
    }

    /// Numbers of its queues that are open, of a port with room for more. `None`: all are.
    pub fn queue_numbers(&self) -> Option<Vec<u32>> {
        match self {
            Attachment::Bond(bond) => Some(bond.queue_numbers()),
            Attachment::Netdev(_) | Attachment::Vhost(_) => None,
        }
    }

    /// Refuses a change of a bond that can't be, before anything is changed.
    pub fn check_bond_update(&self, spec: &PortSpec, update: &BondUpdate) -> Result<(), Error> {
        match self {
            Attachment::Bond(bond) => bond.check_update(spec, update),
            Attachment::Netdev(_) | Attachment::Vhost(_) => {
                Err(Error::invalid(format!("bond: a {} port is none", spec.kind.name())))
            }
        }
    }

    /// Changes a bond, and `spec` by what it has become.
    pub fn update_bond(&mut self, spec: &mut PortSpec, update: &BondUpdate, rings: RingOptions) -> Result<(), Error> {
        match self {
            Attachment::Bond(bond) => bond.update(spec, update, rings),
            Attachment::Netdev(_) | Attachment::Vhost(_) => Ok(()),
        }
    }

    /// The netdev that its packets come from, if they come from a single one.
    pub fn netdev(&self) -> Option<&Netdev> {
        match self {
            Attachment::Netdev(port) => Some(port.netdev()),
            Attachment::Vhost(_) | Attachment::Bond(_) => None,
        }
    }

    /// The tap that a VMM opens.
    pub fn tap(&self) -> Option<&Netdev> {
        match self {
            Attachment::Netdev(port) => port.tap().map(Tap::netdev),
            Attachment::Vhost(_) | Attachment::Bond(_) => None,
        }
    }

    /// Whether the link tells if somebody takes what is sent. A veth or a NIC has a kernel at its other end.
    pub fn has_guest_link(&self) -> bool {
        match self {
            Attachment::Netdev(port) => port.tap().is_some(),
            Attachment::Vhost(_) => true,
            // Its table tells where frames go, and that is told sooner.
            Attachment::Bond(_) => false,
        }
    }

    /// Whether there is somebody at the other end, as far as is known of a port that is new.
    pub fn has_carrier(&self) -> bool {
        match self {
            // A netdev without carrier tells as soon as it has one.
            Attachment::Netdev(port) => port.tap().is_none_or(Tap::carrier),
            Attachment::Vhost(_) => false,
            Attachment::Bond(bond) => bond.carrier(),
        }
    }

    /// What users see of it.
    pub fn info(&self) -> AttachmentInfo {
        match self {
            Attachment::Netdev(port) => port.info(),
            Attachment::Vhost(port) => port.info(),
            Attachment::Bond(port) => port.info(),
        }
    }

    /// The largest MTU that it can be set to, and what sets it.
    pub fn max_mtu(&self) -> (u32, &'static str) {
        match self {
            Attachment::Netdev(port) => port.max_mtu(),
            Attachment::Vhost(port) => port.max_mtu(),
            Attachment::Bond(port) => port.max_mtu(),
        }
    }

    /// What would break its packets now, in words.
    pub fn problems(&self, mtu: u32) -> Vec<String> {
        match self {
            Attachment::Netdev(port) => port.problems(mtu),
            Attachment::Bond(port) => port.problems(mtu),
            Attachment::Vhost(_) => Vec::new(),
        }
    }

    /// What was counted outside of the switch.
    pub fn counters(&self) -> OutsideCounters {
        match self {
            Attachment::Netdev(port) => port.counters(),
            Attachment::Vhost(port) => port.counters(),
            Attachment::Bond(port) => port.counters(),
        }
    }

    /// Goes by what was seen, and repairs what it can. `spec` follows names, namespace and MTU.
    pub fn follow(
        &mut self,
        spec: &mut PortSpec,
        sight: &Sight<'_>,
        rings: RingOptions,
    ) -> Result<Followed, OtherQueues> {
        match self {
            Attachment::Netdev(port) => port.follow(spec, sight),
            Attachment::Vhost(port) => Ok(port.follow()),
            Attachment::Bond(port) => Ok(port.follow(spec, sight, rings)),
        }
    }

    /// Makes files that outlive the process again, if somebody has removed them. Returns whether it did.
    pub fn look_after_files(&self) -> Result<bool, Error> {
        match self {
            // What it keeps is in the kernel.
            Attachment::Netdev(_) | Attachment::Bond(_) => Ok(false),
            Attachment::Vhost(port) => port.look_after_files(),
        }
    }

    /// Makes `keys` the stations whose packets come to the switch.
    pub fn set_steering(&self, keys: &BTreeSet<SteerKey>) -> Result<(), Error> {
        match self {
            Attachment::Netdev(port) => port.set_steering(keys),
            Attachment::Bond(port) => port.set_steering(keys),
            Attachment::Vhost(_) => Ok(()),
        }
    }

    /// Sets the MTU, or leaves it.
    pub fn set_mtu(&mut self, mtu: u32) -> Result<(), Error> {
        match self {
            Attachment::Netdev(port) => port.set_mtu(mtu),
            Attachment::Bond(port) => port.set_mtu(mtu),
            // The guest is told by its front end.
            Attachment::Vhost(_) => Ok(()),
        }
    }

    /// Gives the guest that address.
    pub fn set_guest_mac(&self, mac: MacAddr) -> Result<(), Error> {
        match self {
            Attachment::Netdev(port) => port.set_guest_mac(mac),
            Attachment::Vhost(_) | Attachment::Bond(_) => Ok(()),
        }
    }

    /// Has others open its tap.
    pub fn give_tap(&mut self, wish: &TapSpec) -> Result<(), Error> {
        match self {
            Attachment::Netdev(port) => port.give_tap(wish),
            Attachment::Vhost(_) | Attachment::Bond(_) => Ok(()),
        }
    }

    /// Stops packets from coming. To remove a port, that is done first.
    pub fn detach(&mut self) {
        match self {
            Attachment::Netdev(port) => port.detach(),
            Attachment::Vhost(port) => port.detach(),
            Attachment::Bond(port) => port.detach(),
        }
    }

    /// Has packets dropped and counted, instead of sent to the queues.
    pub fn unplug(&self) -> Result<(), Error> {
        match self {
            Attachment::Netdev(port) => port.unplug(),
            Attachment::Bond(port) => port.unplug(),
            Attachment::Vhost(_) => Ok(()),
        }
    }

    /// Lets go of queues that are about to be closed, and keeps what they counted.
    pub fn forget_queues(&mut self) {
        match self {
            Attachment::Netdev(port) => port.forget_queues(),
            Attachment::Bond(port) => port.forget_queues(),
            Attachment::Vhost(_) => {}
        }
    }

    /// Opens all queues of a port that has none, with such rings. On an error none is open.
    pub fn reopen(
        &mut self,
        spec: &PortSpec,
        rings: RingOptions,
        cache: &mut FrameCache,
    ) -> Result<Vec<OpenQueue>, Error> {
        match self {
            Attachment::Netdev(port) => port.reopen(spec, rings, cache).map(OpenQueue::all),
            Attachment::Vhost(port) => Ok(OpenQueue::all(port.queues(rings.memory.fill()))),
            Attachment::Bond(port) => port.reopen(rings, cache),
        }
    }

    /// What is on the guest's end, if such an attachment can have one.
    pub fn guest_side(&self) -> Option<&GuestSide> {
        match self {
            Attachment::Netdev(port) => Some(port.guest_side()),
            Attachment::Vhost(_) | Attachment::Bond(_) => None,
        }
    }

    /// The same, to change it.
    pub fn guest_side_mut(&mut self) -> Option<&mut GuestSide> {
        match self {
            Attachment::Netdev(port) => Some(port.guest_side_mut()),
            Attachment::Vhost(_) | Attachment::Bond(_) => None,
        }
    }

    /// What is left outside once the port is gone from the switch. Its queues are let go of, so that they can be
    /// closed.
    pub fn into_remains(self) -> Remains {
        match self {
            Attachment::Netdev(port) => Remains::Netdev(Box::new(port.into_remains())),
            Attachment::Bond(port) => Remains::Bond(port.into_remains()),
            Attachment::Vhost(_) => Remains::Nothing,
        }
    }
}

impl Remains {
    /// Takes down what the switch has made.
    pub fn remove(self) {
        match self {
            Remains::Netdev(remains) => remains.remove(),
            Remains::Bond(remains) => remains.remove(),
            Remains::Nothing => {}
        }
    }

    /// Lets go of a port that was lost. What is there goes on as it is.
    pub fn let_go(self) {
        match self {
            Remains::Netdev(remains) => remains.let_go(),
            Remains::Bond(remains) => remains.let_go(),
            Remains::Nothing => {}
        }
    }
}
