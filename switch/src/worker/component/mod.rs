//! Components on their workers.
//!
//! Control compiles the components into a [`Set`] and puts it in the place of the one before; each worker makes its [`Plan`] of it, a
//! list of intakes, and says that it has. A turn takes one burst of each intake, does with it what its component does, and sends
//! what goes to ports by the same way as the bridge. What is no intake is not looked at: frames wait there.

mod flow;
mod give;
mod run;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

pub use self::flow::{Flows, PortFlows};
pub(super) use self::give::count;
pub(super) use self::run::Plan;
pub(crate) use self::trace::{Scene, trace};
use super::ends::{NullEnd, OutsideEnd, Ring};
use super::view::PortShared;
use crate::counters::{FrameCounter, PortShard};
use crate::engine::PortNo;
use crate::engine::component::{Table, is_ready};
use crate::model::{ComponentKind, ComponentSpec};

/// What a component counts; written by the worker that runs it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames taken from receiving ends.
    pub rx: FrameCounter,
    /// Frames given to sending ends.
    pub tx: FrameCounter,
    /// Of `rx`, those that came into the switch there: from null and outside ends.
    pub came: FrameCounter,
    /// Of `tx`, those that left the switch there.
    pub left: FrameCounter,
    /// Drops, copies and changes of tags.
    pub shard: PortShard,
}

/// An end, found.
#[derive(Clone, Debug)]
pub enum Link {
    /// A port, or one queue of it.
    Port(Arc<PortShared>, Option<u32>),
    /// A ring.
    Ring(Arc<Ring>),
    /// A null end.
    Null(Arc<NullEnd>),
    /// An outside end.
    Outside(Arc<OutsideEnd>),
}

impl Link {
    /// Whether it is that queue of that port, or all of the port.
    fn is_queue(&self, port: &Arc<PortShared>, queue: u32) -> bool {
        matches!(self, Link::Port(of, one) if Arc::ptr_eq(of, port) && one.is_none_or(|one| one == queue))
    }

    /// Whether it is that ring.
    fn is_ring(&self, ring: &Arc<Ring>) -> bool {
        matches!(self, Link::Ring(of) if Arc::ptr_eq(of, ring))
    }
}

/// How a component tells where frames go.
#[derive(Debug)]
enum Logic {
    /// To the first sending end.
    First,
    /// To all of them.
    All,
    /// By its table.
    Lookup(Table),
}

/// A component that can run.
#[derive(Debug)]
pub struct Component {
    /// What it was told.
    pub spec: ComponentSpec,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Receiving ends, in the order of the specification.
    pub rx: Box<[Link]>,
    /// Sending ends, in that order.
    pub tx: Box<[Link]>,
    logic: Logic,
}

impl Component {
    /// A component whose ends were found.
    pub fn new(spec: ComponentSpec, rx: Box<[Link]>, tx: Box<[Link]>, counters: Arc<Counters>) -> Self {
        let logic = match spec.kind {
            ComponentKind::Forward | ComponentKind::Merge => Logic::First,
            ComponentKind::Mirror => Logic::All,
            ComponentKind::Classifier => Logic::Lookup(Table::new(&spec.table)),
        };
        Self { spec, counters, rx, tx, logic }
    }

    /// Whether it moves frames.
    pub fn is_ready(&self) -> bool {
        is_ready(&self.spec)
    }
}

/// What a component may take frames from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// All its receiving ends.
    Open,
    /// These rings only.
    Rings(Vec<u32>),
    /// Nothing.
    Shut,
}

impl Gate {
    fn lets(&self, link: &Link) -> bool {
        match (self, link) {
            (Gate::Open, _) => true,
            (Gate::Rings(rings), Link::Ring(ring)) => rings.contains(&ring.no()),
            _ => false,
        }
    }
}

/// All components, and the rules by which frames come to them.
#[derive(Debug, Default)]
pub struct Set {
    /// Each with its gate.
    pub components: Vec<(Arc<Component>, Gate)>,
    /// Flow rules of their ports.
    pub flows: Flows,
}

impl Set {
    /// The flow rules of that port, if it has any.
    #[inline]
    fn flows_of(&self, port: PortNo) -> Option<&Arc<PortFlows>> {
        self.flows.get(usize::from(port))?.as_ref()
    }

    /// Whether a component takes frames from that queue, when its gate lets it.
    fn takes_from(&self, port: &Arc<PortShared>, queue: u32) -> bool {
        self.taker(|link| link.is_queue(port, queue)).is_some()
    }

    /// Place of the component that takes frames from such an end, when its gate lets it, and of that among its receiving ends.
    fn taker(&self, is_it: impl Fn(&Link) -> bool) -> Option<(usize, usize)> {
        let ready = self.components.iter().enumerate().filter(|(_, (component, _))| component.is_ready());
        ready.filter_map(|(at, (component, _))| Some((at, component.rx.iter().position(&is_it)?))).next()
    }
}

/// The set in force, and its number.
#[derive(Debug, Default)]
pub struct Components {
    set: ArcSwap<Set>,
    epoch: AtomicU64,
}

impl Components {
    /// The set in force.
    pub(crate) fn in_force(&self) -> Arc<Set> {
        self.set.load_full()
    }

    /// Puts a set in place of the old one, which is returned: a worker must not be the last to have it.
    pub fn publish(&self, set: Arc<Set>) -> Arc<Set> {
        let old = self.set.swap(set);
        self.epoch.fetch_add(1, Ordering::Release);
        old
    }

    /// The number of the set in force.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}
