//! The way in: what a worker takes frames from, and a burst of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::give::count;
use super::{Component, Link, PortFlows, Set};
use crate::counters::PortShard;
use crate::engine::PortNo;
use crate::engine::component::tag_edit;
use crate::engine::flow::FlowRuleCache;
use crate::engine::meter::Color;
use crate::engine::vlan::{self, TagEdit};
use crate::io::umem::{Frame, Umem};
use crate::model::{Direction, DropReason, VlanEdit};
use crate::worker::ends::{NullEnd, OutsideEnd, Ring};
use crate::worker::queue::{Queue, Serves};
use crate::worker::view::{PortShared, View};
use crate::worker::{BURST, Way, Worker};

/// Bytes of the frames that a null end gives.
const NULL_LEN: usize = 64;
/// The ingress port of frames that came from no port: there is none of this number.
const NO_PORT: PortNo = PortNo::MAX;

/// A receiving end that is open.
#[derive(Debug)]
struct Intake {
    component: Arc<Component>,
    from: Inlet,
    vlan: VlanEdit,
}

/// What a worker takes frames from.
#[derive(Debug)]
enum Inlet {
    /// Its queue in that slot, of that port, and the rules that tell for which end its frames are.
    Queue(usize, Arc<PortShared>, Option<Arc<PortFlows>>),
    Ring(Arc<Ring>),
    Null(Arc<NullEnd>),
    Outside(Arc<OutsideEnd>),
}

/// What a worker does for components.
#[derive(Debug, Default)]
pub(in crate::worker) struct Plan {
    /// Number of the set that it is for.
    pub(in crate::worker) epoch: u64,
    /// In an `Arc` of this worker's own, as its view is.
    #[expect(clippy::redundant_allocation, reason = "no two workers count references in one place")]
    pub(super) set: Arc<Arc<Set>>,
    intakes: Vec<Intake>,
    /// Queues, by slot, that no component has, at ports where rules send frames to ends that one has.
    untaken: Vec<(usize, Arc<PortFlows>)>,
    /// What goes to each sending end of the component whose burst it is.
    outs: Vec<Vec<Frame>>,
    /// What goes to each queue's end of the port whose burst is told apart by rules.
    pub(super) steered: Vec<Vec<Frame>>,
    /// What was found of flow rules.
    pub(super) flow_rule_cache: FlowRuleCache,
}

impl Plan {
    /// Whether an intake has something.
    pub(in crate::worker) fn has_work(&self, queues: &[Queue]) -> bool {
        let untaken = self.untaken.iter().any(|(slot, _)| queues[*slot].backend.has_received());
        let has_some = |intake: &Intake| match &intake.from {
            Inlet::Queue(slot, ..) => queues[*slot].backend.has_received(),
            Inlet::Ring(ring) => !ring.is_empty(),
            Inlet::Outside(outside) => !outside.input.is_empty(),
            Inlet::Null(_) => true,
        };
        untaken || self.intakes.iter().any(has_some)
    }
}

impl Worker {
    /// Picks up a newer set of components, and says that the old one is no longer used here.
    pub(in crate::worker) fn refresh_components(&mut self) {
        let epoch = self.shared.components.epoch();
        if epoch != self.plan.epoch {
            self.plan.epoch = epoch;
            self.plan.set = Arc::new(self.shared.components.set.load_full());
            self.rebuild_plan();
            self.me().components_seen.store(epoch, Ordering::Release);
        }
    }

    /// Works out the intakes anew, for the components and queues that there are.
    pub(in crate::worker) fn rebuild_plan(&mut self) {
        let Plan { set, intakes, untaken, outs, .. } = &mut self.plan;
        intakes.clear();
        untaken.clear();
        for queue in self.queues.iter_mut().filter(|queue| queue.serves != Serves::Bridge) {
            queue.serves = Serves::Nobody;
        }
        let mut most = 0;
        let mine = set.components.iter().filter(|(component, _)| component.spec.worker == self.id);
        for (component, gate) in mine.filter(|(component, _)| component.is_ready()) {
            most = most.max(component.tx.len());
            let ends = component.rx.iter().zip(&component.spec.rx);
            for (link, end) in ends.filter(|(link, _)| gate.lets(link)) {
                let mut take = |from| {
                    intakes.push(Intake { component: Arc::clone(component), from, vlan: end.vlan });
                };
                match link {
                    Link::Port(port, wanted) => {
                        let flows = set.flows_of(port.no);
                        for (slot, queue) in self.queues.iter_mut().enumerate() {
                            let is_its = Arc::ptr_eq(&queue.port, port);
                            if is_its && wanted.is_none_or(|wanted| wanted == queue.number) {
                                queue.serves = Serves::Component;
                                let rules = flows.filter(|flows| flows.has_ingress());
                                take(Inlet::Queue(slot, Arc::clone(port), rules.map(Arc::clone)));
                            }
                        }
                        let all = 0..port.queues.len() as u32;
                        for queue in all.filter(|queue| wanted.is_none_or(|wanted| wanted == *queue)) {
                            let rings = flows.map_or(&[][..], |flows| flows.rings_to(queue));
                            rings.iter().for_each(|ring| take(Inlet::Ring(Arc::clone(ring))));
                        }
                    }
                    Link::Ring(ring) => take(Inlet::Ring(Arc::clone(ring))),
                    Link::Null(null) => take(Inlet::Null(Arc::clone(null))),
                    Link::Outside(outside) => take(Inlet::Outside(Arc::clone(outside))),
                }
            }
        }
        if outs.len() < most {
            outs.resize_with(most, || Vec::with_capacity(BURST));
        }
        for (slot, queue) in self.queues.iter_mut().enumerate().filter(|(_, queue)| queue.serves == Serves::Nobody) {
            let flows = set.flows_of(queue.port.no).filter(|flows| flows.has_ingress() && flows.has_reader());
            match flows.filter(|_| !set.takes_from(&queue.port, queue.number)) {
                Some(flows) => {
                    queue.serves = Serves::Rules;
                    untaken.push((slot, Arc::clone(flows)));
                }
                None => self.watch.leave(queue),
            }
        }
    }

    /// One burst of each intake; returns how many frames came.
    pub(in crate::worker) fn run_components(&mut self) -> usize {
        let mut frames = 0;
        if !self.plan.intakes.is_empty() {
            let (intakes, mut outs) = (std::mem::take(&mut self.plan.intakes), std::mem::take(&mut self.plan.outs));
            frames += intakes.iter().map(|intake| self.run_intake(intake, &mut outs)).sum::<usize>();
            (self.plan.intakes, self.plan.outs) = (intakes, outs);
        }
        if !self.plan.untaken.is_empty() {
            let untaken = std::mem::take(&mut self.plan.untaken);
            frames += untaken.iter().map(|(slot, flows)| self.run_untaken(*slot, flows)).sum::<usize>();
            self.plan.untaken = untaken;
        }
        frames
    }

    /// A burst of a queue that no component has: rules may send it to one that one has.
    fn run_untaken(&mut self, slot: usize, flows: &PortFlows) -> usize {
        let mut burst = std::mem::take(&mut self.burst);
        let taken = self.queues[slot].backend.receive(&mut burst, BURST);
        if taken > 0 {
            let (view, own) = (Arc::clone(&self.view), self.queues[slot].number);
            let mut way = self.way(&view, &flows.port.shards[self.id]);
            let bytes = count(&burst).bytes as usize;
            self.me().counters.took_burst(taken);
            self.admit(slot, &flows.port, &mut burst, bytes, &mut way);
            self.steer(flows, own, false, &mut burst);
        }
        self.burst = burst;
        taken
    }

    /// The way of a burst whose frames came from no port of the bridge.
    fn way<'a>(&self, view: &'a View, shard: &'a PortShard) -> Way<'a> {
        let now_ns = if view.metered { self.shared.now_ns() } else { 0 };
        Way { view, shard, ingress: NO_PORT, now_ns, color: Color::Green }
    }

    /// Sees to a queue that the bridge does not have: what was sent comes back, what is to be filled is.
    pub(in crate::worker) fn keep_up(&mut self, slot: usize) {
        let queue = &mut self.queues[slot];
        queue.reap(&mut self.cache);
        if queue.backend.is_short() {
            queue.backend.refill(&mut self.cache);
        }
    }

    fn run_intake(&mut self, intake: &Intake, outs: &mut [Vec<Frame>]) -> usize {
        let Intake { component, from, vlan } = intake;
        let mut burst = std::mem::take(&mut self.burst);
        match from {
            Inlet::Queue(slot, ..) => {
                self.queues[*slot].backend.receive(&mut burst, BURST);
            }
            Inlet::Ring(ring) => {
                ring.take(&mut burst, BURST);
            }
            Inlet::Outside(outside) => {
                outside.input.take(&mut burst, BURST);
            }
            Inlet::Null(_) => self.make_empty_frames(&mut burst),
        }
        let taken = burst.len();
        if taken > 0 {
            let view = Arc::clone(&self.view);
            let mut way = self.way(&view, &component.counters.shard);
            let mut came = count(&burst);
            let bytes = came.bytes as usize;
            self.me().counters.took_burst(taken);
            match from {
                Inlet::Queue(slot, port, flows) => {
                    self.admit(*slot, port, &mut burst, bytes, &mut way);
                    if let Some(flows) = flows {
                        self.steer(flows, self.queues[*slot].number, true, &mut burst);
                        came = count(&burst);
                    }
                }
                Inlet::Ring(_) => {}
                Inlet::Null(null) => {
                    null.rx.add(taken as u64, bytes as u64);
                    component.counters.came.add(taken as u64, bytes as u64);
                }
                Inlet::Outside(_) => component.counters.came.add(taken as u64, bytes as u64),
            }
            component.counters.rx.add(came.packets, came.bytes);
            self.edit_tags(*vlan, &mut burst, &way);
            self.treat(component, &mut burst, outs, &way);
        }
        self.burst = burst;
        taken
    }

    /// Counts a burst in from a queue, shows it to the port's taps, and asks the meter of what the port sends.
    fn admit(&mut self, slot: usize, port: &PortShared, burst: &mut Vec<Frame>, bytes: usize, way: &mut Way<'_>) {
        let queue = &mut self.queues[slot];
        queue.backend.refill(&mut self.cache);
        let number = queue.number;
        port.queues[number as usize].counters.rx.add(burst.len() as u64, bytes as u64);
        for tap in way.view.taps(port.no) {
            burst.iter().for_each(|frame| tap.offer(port.no, number, Direction::Rx, self.umem.data(frame)));
        }
        let view = way.view;
        let Some(meter) = view.meters.from(port.no) else { return };
        if meter.take_all(self.id, burst.len(), bytes, way.now_ns) {
            return;
        }
        // The port's own counters: what it sends too much is not the component's doing.
        let shard = &port.shards[self.id];
        self.sift(burst, |worker, frame| {
            way.color = Color::Green;
            worker.passes(meter, frame, way).then_some(()).ok_or((shard, DropReason::MeterFrom))
        });
        way.color = Color::Green;
    }

    /// Keeps the frames of a burst that `judge` is content with, in order; the others are dropped where it says.
    pub(super) fn sift<'a>(
        &mut self,
        burst: &mut Vec<Frame>,
        mut judge: impl FnMut(&mut Self, &mut Frame) -> Result<(), (&'a PortShard, DropReason)>,
    ) {
        let mut kept = 0;
        for at in 0..burst.len() {
            match judge(self, &mut burst[at]) {
                Ok(()) => {
                    burst.swap(kept, at);
                    kept += 1;
                }
                Err((shard, reason)) => shard.dropped(reason, burst[at].len()),
            }
        }
        burst.drain(kept..).for_each(|frame| self.cache.put(frame));
    }

    /// Edits the tags of a burst in place; what has no usable layer 2 is dropped.
    pub(super) fn edit_tags(&mut self, edit: VlanEdit, burst: &mut Vec<Frame>, way: &Way<'_>) {
        if edit == VlanEdit::None {
            return;
        }
        let mut done = 0;
        while let Some((bad, reason)) = edit_all(edit, &self.umem, &mut burst[done..], way.shard) {
            done += bad;
            let frame = burst.remove(done);
            self.discard(frame, way.shard, reason);
        }
    }

    /// Frames as a null end gives them, as many as a burst has and there are.
    fn make_empty_frames(&mut self, burst: &mut Vec<Frame>) {
        while burst.len() < BURST {
            let Some(mut frame) = self.cache.take() else { break };
            let start = frame.start();
            self.umem.chunk_mut(&mut frame)[start..start + NULL_LEN].fill(0);
            frame.set(start, NULL_LEN);
            burst.push(frame);
        }
    }
}

/// Edits the tags of frames in place, up to one that can't be edited: its place, and what is wrong with it.
#[inline(never)]
fn edit_all(edit: VlanEdit, umem: &Umem, frames: &mut [Frame], from: &PortShard) -> Option<(usize, DropReason)> {
    for (at, frame) in frames.iter_mut().enumerate() {
        match tag_edit(edit, umem.data(frame)) {
            Ok(TagEdit::None) => {}
            Ok(edit) => {
                let (start, len) = (frame.start(), frame.len());
                let (start, len) = vlan::apply(edit, umem.chunk_mut(frame), start, len);
                frame.set(start, len);
                from.retagged(edit.grows_by());
            }
            Err(reason) => return Some((at, reason)),
        }
    }
    None
}
