//! Flow rules on workers: frames that a rule sends to another queue's end of their port, and edits of tags.
//!
//! A frame comes in by one queue and its end may be another's, whose component may be at another worker. For each queue that a rule
//! names there is a ring from each worker; what takes frames from the queue takes them from these, too. All queues of a port with
//! such rules are looked at, also those that no component has, as long as one has a queue that is named: a rule holds for what
//! comes in by any.

use std::collections::HashMap;
use std::sync::Arc;

use crate::counters::{PortShard, Shards};
use crate::engine::flow::{CountedRule, FlowRuleCache, FlowTable, Observer};
use crate::engine::vlan::TagEdit;
use crate::io::umem::{Frame, Umem};
use crate::worker::ends::Ring;
use crate::worker::view::PortShared;
use crate::worker::{Way, Worker};

use super::give::count;
use crate::model::{Count, DEFAULT_RING_DEPTH, DropReason, FlowDirection, FlowRule, FlowTarget};

/// The flow rules of a port in force.
#[derive(Debug)]
pub struct PortFlows {
    /// The port.
    pub port: Arc<PortShared>,
    /// In the order in which they were given.
    counted: Vec<CountedRule>,
    ingress: FlowTable,
    egress: FlowTable,
    /// By queue, then by the worker that puts frames in; empty for a queue that no rule names.
    rings: Vec<Vec<Arc<Ring>>>,
}

/// Those of all ports by number; empty as a whole if no port has any.
pub type Flows = Arc<Vec<Option<Arc<PortFlows>>>>;

impl PortFlows {
    /// Compiles rules of a port, which [`check`](crate::engine::flow::check) has found right. Rings that `before` has are taken over,
    /// also of queues that no rule names any more: they may have frames. So are the counters of rules that are in both.
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

    /// The same rules without the rings of queues that none names, which are returned.
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

    /// The ring from a worker to that queue's end, and the worker that takes frames from it; none: no component has that end.
    pub(super) fn way_to(&self, queue: u32, worker: usize) -> Option<(&Arc<Ring>, usize)> {
        read_ring(self.rings_to(queue), worker)
    }

    /// The rules for frames that come in.
    pub(super) fn ingress(&self) -> &FlowTable {
        &self.ingress
    }

    /// The rules for frames that are sent to the port.
    pub(super) fn egress(&self) -> &FlowTable {
        &self.egress
    }

    /// Whether a frame that is sent to the port can meet a rule.
    pub(super) fn has_egress(&self) -> bool {
        !self.egress.is_empty()
    }

    /// Whether a frame that comes in can meet a rule.
    pub(super) fn has_ingress(&self) -> bool {
        !self.ingress.is_empty()
    }

    /// Whether some component takes frames from a queue that a rule names.
    pub(super) fn has_reader(&self) -> bool {
        self.rings().any(|ring| ring.reader().is_some())
    }
}

/// That worker's ring of those to an end, and the worker that takes frames from it, if one does.
fn read_ring(rings: &[Arc<Ring>], worker: usize) -> Option<(&Arc<Ring>, usize)> {
    rings.get(worker).and_then(|ring| Some((ring, ring.reader()?)))
}

/// A worker that counts what its frames meet.
struct Counting<'a> {
    worker: usize,
    /// Where changes of tags are counted.
    shard: &'a PortShard,
}

impl Observer for Counting<'_> {
    #[inline]
    fn matched(&mut self, rule: &CountedRule, len: usize) {
        rule.matched.count(self.worker, len);
    }

    #[inline]
    fn edited(&mut self, edit: TagEdit) {
        self.shard.retagged(edit.grows_by());
    }
}

impl Counting<'_> {
    /// Carries out the rules of `table` that a frame meets; says for which queue it is, if a rule does.
    #[inline]
    fn run(&mut self, table: &FlowTable, cache: &mut FlowRuleCache, umem: &Umem, frame: &mut Frame) -> Option<u32> {
        let (start, len) = (frame.start(), frame.len());
        let fate = table.run(cache, umem.chunk_mut(frame), start, len, self);
        frame.set(fate.start, fate.len);
        fate.queue
    }
}

impl Worker {
    /// Carries out the ingress rules of a port on a burst that came in by its queue `own`. What is for another queue's end is put into the
    /// ring there; what is for this one's stays in `burst` if a component takes it, and is dropped if none does.
    pub(super) fn steer(&mut self, flows: &PortFlows, own: u32, is_taken: bool, burst: &mut Vec<Frame>) {
        let PortFlows { port, ingress, rings, .. } = flows;
        let shard = &port.shards[self.id];
        let mut steered = std::mem::take(&mut self.plan.steered);
        if steered.len() < rings.len() {
            steered.resize_with(rings.len(), Vec::new);
        }
        let (umem, cache) = (&*self.umem, &mut self.plan.flow_rule_cache);
        let mut counting = Counting { worker: self.id, shard };
        for mut frame in burst.drain(..) {
            let queue = counting.run(ingress, cache, umem, &mut frame);
            steered[queue.unwrap_or(own) as usize].push(frame);
        }
        if is_taken {
            std::mem::swap(burst, &mut steered[own as usize]);
        }
        for (frames, rings) in steered.iter_mut().zip(rings).filter(|(frames, _)| !frames.is_empty()) {
            let reason = match read_ring(rings, self.id) {
                None => DropReason::FlowNobody,
                Some((ring, reader)) => {
                    ring.put(frames);
                    if reader != self.id && !self.to_wake.contains(&reader) {
                        self.to_wake.push(reader);
                    }
                    DropReason::FlowRingFull
                }
            };
            if !frames.is_empty() {
                shard.dropped_all(reason, count(frames));
                frames.drain(..).for_each(|frame| self.cache.put(frame));
            }
        }
        self.plan.steered = steered;
    }

    /// Carries out the egress rules of a port on frames that a component sends to it.
    pub(super) fn edit_by_rules(&mut self, flows: &PortFlows, frames: &mut [Frame], way: &Way<'_>) {
        let (umem, cache) = (&*self.umem, &mut self.plan.flow_rule_cache);
        let mut counting = Counting { worker: self.id, shard: way.shard };
        for frame in frames {
            counting.run(&flows.egress, cache, umem, frame);
        }
    }
}
