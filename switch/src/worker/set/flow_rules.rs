//! The flow rules of a port: frames that a rule sends to another queue's end of their port, and edits of tags.
//!
//! A frame comes in by one queue, and a rule may send it to the end of another. The component there may be at another
//! worker. So there is a ring from each worker to each queue that a rule names. What takes frames from the queue takes
//! them from these rings, too.
//!
//! A rule holds for what comes in by any queue. So all queues of a port with such rules are polled, if a component has
//! one that is named. That includes queues that no component has.

use std::collections::HashMap;
use std::sync::Arc;

use crate::counters::Shards;
use crate::engine::flow::{CountedRule, FlowTable};
use crate::model::{Count, DEFAULT_RING_DEPTH, FlowDirection, FlowRule, FlowTarget};
use crate::worker::ends::Ring;
use crate::worker::view::PortShared;

/// The flow rules of a port in force.
#[derive(Debug)]
pub struct PortFlows {
    /// The port.
    pub port: Arc<PortShared>,
    /// In the order in which they were given.
    counted: Vec<CountedRule>,
    ingress: FlowTable,
    egress: FlowTable,
    /// By queue, then by the worker that puts frames in. A queue that no rule names has none.
    pub(in crate::worker) rings: Vec<Vec<Arc<Ring>>>,
}

/// Flow rules of all ports, by number. It is empty if no port has any.
pub type Flows = Arc<Vec<Option<Arc<PortFlows>>>>;

impl PortFlows {
    /// Compiles rules of a port, which `engine::flow::check` has found right. Rings that `before` has
    /// are taken over, also of queues that no rule names any more: they may have frames. So are the counters of rules
    /// that are in both.
    pub fn new(port: &Arc<PortShared>, rules: &[FlowRule], before: Option<&Self>, workers: usize) -> Self {
        Self::with_depth(port, rules, before, workers, DEFAULT_RING_DEPTH)
    }

    /// The same with new rings of so many frames.
    pub(in crate::worker) fn with_depth(
        port: &Arc<PortShared>,
        rules: &[FlowRule],
        before: Option<&Self>,
        workers: usize,
        depth: u32,
    ) -> Self {
        let mut rings = before.map(|before| before.rings.clone()).unwrap_or_default();
        rings.resize_with(port.queues.len(), Vec::new);
        for rule in rules {
            let FlowTarget::Queue(queue) = rule.target else { continue };
            if let Some(rings) = rings.get_mut(queue as usize).filter(|rings| rings.is_empty()) {
                rings.extend((0..workers).map(|_| Arc::new(Ring::new(queue, depth))));
            }
        }
        let old: HashMap<_, _> =
            before.iter().flat_map(|before| &before.counted).map(|old| (&old.rule, &old.matched)).collect();
        let counted = |rule: &FlowRule| {
            let matched = old.get(rule).map_or_else(|| Arc::new(Shards::new(workers)), |matched| Arc::clone(matched));
            CountedRule { rule: rule.clone(), matched }
        };
        let counted: Vec<_> = rules.iter().map(counted).collect();
        Self {
            port: Arc::clone(port),
            ingress: FlowTable::new(&counted, FlowDirection::Ingress),
            egress: FlowTable::new(&counted, FlowDirection::Egress),
            counted,
            rings,
        }
    }

    /// The same rules without the rings of queues that no rule names. These rings are returned.
    pub fn without_old_rings(&self, rules: &[FlowRule]) -> (Self, Vec<Arc<Ring>>) {
        let mut new = Self::new(&self.port, rules, Some(self), 0);
        let mut old = Vec::new();
        for (queue, rings) in (0..).zip(&mut new.rings) {
            if !rules.iter().any(|rule| rule.target == FlowTarget::Queue(queue)) {
                old.append(rings);
            }
        }
        (new, old)
    }

    /// The rings to that queue's end.
    pub fn rings_to(&self, queue: u32) -> &[Arc<Ring>] {
        self.rings.get(queue as usize).map_or(&[], Vec::as_slice)
    }

    /// Number of each rule, in the order in which they were given, and what it counted.
    pub fn counts(&self) -> impl Iterator<Item = (u32, Count)> {
        self.counted.iter().map(|counted| (counted.rule.id, counted.matched.read()))
    }

    /// All rings.
    pub fn rings(&self) -> impl Iterator<Item = &Arc<Ring>> {
        self.rings.iter().flatten()
    }

    /// The ring from a worker to that queue's end, and the worker that takes frames from it. `None` if no component has
    /// that end.
    pub(in crate::worker) fn ring_to(&self, queue: u32, worker: usize) -> Option<(&Arc<Ring>, usize)> {
        read_ring(self.rings_to(queue), worker)
    }

    /// The rules for frames that come in.
    pub(in crate::worker) fn ingress(&self) -> &FlowTable {
        &self.ingress
    }

    /// The rules for frames that are sent to the port.
    pub(in crate::worker) fn egress(&self) -> &FlowTable {
        &self.egress
    }

    /// Whether a frame that is sent to the port can meet a rule.
    pub(in crate::worker) fn has_egress(&self) -> bool {
        !self.egress.is_empty()
    }

    /// Whether a frame that comes in can meet a rule.
    pub(in crate::worker) fn has_ingress(&self) -> bool {
        !self.ingress.is_empty()
    }

    /// Whether some component takes frames from a queue that a rule names.
    pub(in crate::worker) fn has_reader(&self) -> bool {
        self.rings().any(|ring| ring.reader().is_some())
    }
}

/// Of the rings to an end that worker's, and the worker that takes frames from it, if one does.
pub(in crate::worker) fn read_ring(rings: &[Arc<Ring>], worker: usize) -> Option<(&Arc<Ring>, usize)> {
    rings.get(worker).and_then(|ring| Some((ring, ring.reader()?)))
}
