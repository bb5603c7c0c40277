//! Carries out flow rules on bursts: frames go to the end of the queue that a rule names.

use crate::counters::PortShard;
use crate::engine::flow::{CountedRule, FlowRuleCache, FlowTable, Observer};
use crate::engine::vlan::TagEdit;
use crate::io::umem::Frame;
use crate::model::DropReason;
use crate::worker::egress::Egress;
use crate::worker::frames::{count, is_any_chained};
use crate::worker::set::{PortFlows, read_ring};
use crate::worker::turn::{SendContext, Turn};

/// An observer that counts what a worker's frames meet. `CHAINED`: some of them have several chunks.
struct Counting<'a, const CHAINED: bool> {
    worker: usize,
    /// Where changes of tags count.
    shard: &'a PortShard,
    /// Bytes of the frame in further chunks. Only with `CHAINED`.
    further: usize,
}

impl<const CHAINED: bool> Observer for Counting<'_, CHAINED> {
    #[inline]
    fn matched(&mut self, rule: &CountedRule, len: usize) {
        let further = if CHAINED { self.further } else { 0 };
        rule.matched.count(self.worker, len + further);
    }

    #[inline]
    fn edited(&mut self, edit: TagEdit) {
        self.shard.retagged(edit.grows_by());
    }
}

impl<const CHAINED: bool> Counting<'_, CHAINED> {
    /// Carries out the rules of `table` that a frame meets. Says for which queue it is, if a rule does.
    #[inline]
    fn run(&mut self, table: &FlowTable, cache: &mut FlowRuleCache, frame: &mut Frame) -> Option<u32> {
        let (start, len) = (frame.start(), frame.len());
        if CHAINED {
            self.further = frame.further_len();
        }
        let fate = table.run(cache, frame.chunk_mut(), start, len, self);
        frame.set(fate.start, fate.len);
        fate.queue
    }
}

/// What a worker needs to carry out flow rules.
#[derive(Debug, Default)]
pub(super) struct Steering {
    /// What was found of flow rules.
    cache: FlowRuleCache,
    /// What goes to each queue's end of the port whose burst is sorted. Empty between bursts.
    sorted: Vec<Vec<Frame>>,
}

impl Steering {
    /// Carries out the ingress rules of a port on a burst that came in by its queue `own`. What is for another queue's
    /// end goes into the ring there. What is for this one's stays in `burst` if a component takes it, and is dropped if
    /// none does.
    pub(super) fn steer(
        &mut self,
        flows: &PortFlows,
        own: u32,
        is_taken: bool,
        burst: &mut Vec<Frame>,
        turn: &Turn<'_>,
        egress: &mut Egress,
    ) {
        let shard = turn.shard(&flows.port);
        if self.sorted.len() < flows.rings.len() {
            self.sorted.resize_with(flows.rings.len(), Vec::new);
        }
        if is_any_chained(burst) {
            self.sort::<true>(flows, own, burst, turn.worker, shard);
        } else {
            self.sort::<false>(flows, own, burst, turn.worker, shard);
        }
        let sorted = &mut self.sorted;
        if is_taken {
            std::mem::swap(burst, &mut sorted[own as usize]);
        }
        for (frames, rings) in sorted.iter_mut().zip(&flows.rings).filter(|(frames, _)| !frames.is_empty()) {
            let reason = match read_ring(rings, turn.worker) {
                None => DropReason::FlowNobody,
                Some((ring, reader)) => {
                    ring.put(frames);
                    if reader != turn.worker {
                        egress.wake(reader);
                    }
                    DropReason::FlowRingFull
                }
            };
            if !frames.is_empty() {
                shard.dropped_all(reason, count(frames));
                frames.drain(..).for_each(|frame| egress.cache().put(frame));
            }
        }
    }

    /// Carries out the ingress rules of a port on a burst, and sorts it by the queues that they say.
    #[inline]
    fn sort<const CHAINED: bool>(
        &mut self,
        flows: &PortFlows,
        own: u32,
        burst: &mut Vec<Frame>,
        worker: usize,
        shard: &PortShard,
    ) {
        let mut counting = Counting::<CHAINED> { worker, shard, further: 0 };
        for mut frame in burst.drain(..) {
            let queue = counting.run(flows.ingress(), &mut self.cache, &mut frame);
            self.sorted[queue.unwrap_or(own) as usize].push(frame);
        }
    }

    /// Carries out the egress rules of a port on frames that a component sends to it.
    pub(super) fn edit(&mut self, flows: &PortFlows, frames: &mut [Frame], cx: &SendContext<'_>) {
        if is_any_chained(frames) {
            self.edit_each::<true>(flows, frames, cx);
        } else {
            self.edit_each::<false>(flows, frames, cx);
        }
    }

    #[inline]
    fn edit_each<const CHAINED: bool>(&mut self, flows: &PortFlows, frames: &mut [Frame], cx: &SendContext<'_>) {
        let mut counting = Counting::<CHAINED> { worker: cx.turn.worker, shard: cx.source, further: 0 };
        for frame in frames {
            counting.run(flows.egress(), &mut self.cache, frame);
        }
    }
}
