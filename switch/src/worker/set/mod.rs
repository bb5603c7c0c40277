//! The components in force: what control compiles, and workers run.

mod flow_rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

pub(super) use self::flow_rules::read_ring;
pub use self::flow_rules::{Flows, PortFlows};

use super::ends::{NullEnd, OutsideEnd, Ring};
use super::view::PortShared;
use crate::counters::{FrameCounter, PortShard};
use crate::engine::PortNo;
use crate::engine::component::{Table, is_ready};
use crate::model::{ComponentKind, ComponentSpec};

/// Counters of a component. The worker that runs it writes them.
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

/// An end of a component: what its name stands for.
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
    pub(in crate::worker) fn is_queue(&self, port: &Arc<PortShared>, queue: u32) -> bool {
        matches!(self, Link::Port(of, one) if Arc::ptr_eq(of, port) && one.is_none_or(|one| one == queue))
    }

    /// Whether it is that ring.
    pub(in crate::worker) fn is_ring(&self, ring: &Arc<Ring>) -> bool {
        matches!(self, Link::Ring(of) if Arc::ptr_eq(of, ring))
    }
}

/// How a component tells where frames go.
#[derive(Debug)]
pub(in crate::worker) enum Logic {
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
    /// Its specification.
    pub spec: ComponentSpec,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Receiving ends, in the order of the specification.
    pub rx: Box<[Link]>,
    /// Sending ends, in that order.
    pub tx: Box<[Link]>,
    pub(in crate::worker) logic: Logic,
}

impl Component {
    /// A component with its ends.
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
    pub(in crate::worker) fn lets(&self, link: &Link) -> bool {
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
    pub(in crate::worker) fn flows_of(&self, port: PortNo) -> Option<&Arc<PortFlows>> {
        self.flows.get(usize::from(port))?.as_ref()
    }

    /// Whether a component takes frames from that queue, when its gate lets it.
    pub(in crate::worker) fn takes_from(&self, port: &Arc<PortShared>, queue: u32) -> bool {
        self.taker(|link| link.is_queue(port, queue)).is_some()
    }

    /// Place of the component that takes frames from such an end, when its gate lets it, and of the end among its
    /// receiving ends.
    pub(in crate::worker) fn taker(&self, is_it: impl Fn(&Link) -> bool) -> Option<(usize, usize)> {
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

    /// Puts a set in place of the old one. The old one is returned, because no worker must be the last to have it.
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
