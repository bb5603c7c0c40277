//! Components on their workers.
//!
//! Control compiles the components into a [`Set`] and puts it in the place of the one before; each worker makes its [`Plan`] of it, a
//! list of intakes, and says that it has. A turn takes one burst of each intake, does with it what its component does, and sends
//! what goes to ports by the same way as the bridge. What is no intake is not looked at: frames wait there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::ends::{NullEnd, OutsideEnd, Ring};
use super::queue::{Queue, Serves};
use super::routes::Hop;
use super::view::PortShared;
use super::{BURST, Way, Worker};
use crate::counters::{PortShard, Tally};
use crate::engine::PortNo;
use crate::engine::bridge::packet_len;
use crate::engine::component::{Table, Target, is_ready, tag_edit};
use crate::engine::drop::DropReason;
use crate::engine::meter::Color;
use crate::engine::parse::{ETH_HEADER, parse_l2};
use crate::engine::vlan::{self, TagEdit};
use crate::io::umem::Frame;
use crate::model::{ComponentKind, ComponentSpec, Count, Direction, VlanEdit};

/// Bytes of the frames that a null end gives.
const NULL_LEN: usize = 64;
/// The ingress port of frames that came from no port: there is none of this number.
const NO_PORT: PortNo = PortNo::MAX;

/// What a component counts; written by the worker that runs it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames taken from receiving ends.
    pub rx: Tally,
    /// Frames given to sending ends.
    pub tx: Tally,
    /// Of `rx`, those that came into the switch there: from null and outside ends.
    pub came: Tally,
    /// Of `tx`, those that left the switch there.
    pub left: Tally,
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

/// All components.
#[derive(Debug, Default)]
pub struct Set {
    /// Each with its gate.
    pub components: Vec<(Arc<Component>, Gate)>,
}

/// The set in force, and its number.
#[derive(Debug, Default)]
pub struct Components {
    set: ArcSwap<Set>,
    epoch: AtomicU64,
}

impl Components {
    /// Puts a set in place of the old one, which is returned: a worker must not be the last to have it.
    pub(super) fn publish(&self, set: Arc<Set>) -> Arc<Set> {
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
    /// Its queue in that slot.
    Queue(usize),
    Ring(Arc<Ring>),
    Null(Arc<NullEnd>),
    Outside(Arc<OutsideEnd>),
}

/// What a worker does for components.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Number of the set that it is for.
    pub(super) epoch: u64,
    set: Arc<Set>,
    intakes: Vec<Intake>,
    /// What goes to each sending end of the component whose burst it is.
    outs: Vec<Vec<Frame>>,
}

impl Plan {
    /// Whether an intake has something.
    pub(super) fn has_work(&self, queues: &[Queue]) -> bool {
        self.intakes.iter().any(|intake| match &intake.from {
            Inlet::Queue(slot) => queues[*slot].socket.has_received(),
            Inlet::Ring(ring) => !ring.is_empty(),
            Inlet::Outside(outside) => !outside.input.is_empty(),
            Inlet::Null(_) => true,
        })
    }
}

impl Worker {
    /// Picks up a newer set of components, and says that the old one is no longer used here.
    pub(super) fn refresh_components(&mut self) {
        let epoch = self.shared.components.epoch();
        if epoch != self.plan.epoch {
            self.plan.epoch = epoch;
            self.plan.set = self.shared.components.set.load_full();
            self.rebuild_plan();
            self.me().components_seen.store(epoch, Ordering::Release);
        }
    }

    /// Works out the intakes anew, for the components and queues that there are.
    pub(super) fn rebuild_plan(&mut self) {
        let Plan { set, intakes, outs, .. } = &mut self.plan;
        intakes.clear();
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
                        for (slot, queue) in self.queues.iter_mut().enumerate() {
                            let is_its = Arc::ptr_eq(&queue.port, port);
                            if is_its && wanted.is_none_or(|wanted| wanted == queue.number) {
                                queue.serves = Serves::Component;
                                take(Inlet::Queue(slot));
                            }
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
        for queue in self.queues.iter_mut().filter(|queue| queue.serves == Serves::Nobody) {
            self.watch.leave(queue);
        }
    }

    /// One burst of each intake; returns how many frames came.
    pub(super) fn run_components(&mut self) -> usize {
        if self.plan.intakes.is_empty() {
            return 0;
        }
        let (intakes, mut outs) = (std::mem::take(&mut self.plan.intakes), std::mem::take(&mut self.plan.outs));
        let frames = intakes.iter().map(|intake| self.run_intake(intake, &mut outs)).sum();
        (self.plan.intakes, self.plan.outs) = (intakes, outs);
        frames
    }

    /// Sees to a queue that the bridge does not have: what was sent comes back, what is to be filled is.
    pub(super) fn keep_up(&mut self, slot: usize) {
        let queue = &mut self.queues[slot];
        queue.reap(&mut self.cache);
        if queue.socket.is_short() {
            queue.socket.refill(&mut self.cache);
        }
    }

    fn run_intake(&mut self, intake: &Intake, outs: &mut [Vec<Frame>]) -> usize {
        let Intake { component, from, vlan } = intake;
        let mut burst = std::mem::take(&mut self.burst);
        match from {
            Inlet::Queue(slot) => {
                self.queues[*slot].socket.receive(&mut burst, BURST);
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
            let now_ns = if view.metered { self.shared.now_ns() } else { 0 };
            let shard = &component.counters.shard;
            let mut way = Way { view: &view, shard, ingress: NO_PORT, now_ns, color: Color::Green };
            let bytes: usize = burst.iter().map(Frame::len).sum();
            component.counters.rx.add(taken as u64, bytes as u64);
            self.me().tally.bursts.add(1, taken as u64);
            match from {
                Inlet::Queue(slot) => self.admit(*slot, &mut burst, bytes, &mut way),
                Inlet::Ring(_) => {}
                Inlet::Null(null) => {
                    null.rx.add(taken as u64, bytes as u64);
                    component.counters.came.add(taken as u64, bytes as u64);
                }
                Inlet::Outside(_) => component.counters.came.add(taken as u64, bytes as u64),
            }
            self.edit_tags(*vlan, &mut burst, &way);
            self.treat(component, &mut burst, outs, &way);
        }
        self.burst = burst;
        taken
    }

    /// Counts a burst in from a queue, shows it to the port's taps, and asks the meter of what the port sends.
    fn admit(&mut self, slot: usize, burst: &mut Vec<Frame>, bytes: usize, way: &mut Way<'_>) {
        self.queues[slot].socket.refill(&mut self.cache);
        let (port, number) = (Arc::clone(&self.queues[slot].port), self.queues[slot].number);
        port.queues[number as usize].tally.rx.add(burst.len() as u64, bytes as u64);
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
    fn sift<'a>(
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

    /// Edits the tags of a burst in place.
    fn edit_tags(&mut self, edit: VlanEdit, burst: &mut Vec<Frame>, way: &Way<'_>) {
        if edit == VlanEdit::None {
            return;
        }
        self.sift(burst, |worker, frame| {
            let edit = tag_edit(edit, worker.umem.data(frame)).map_err(|reason| (way.shard, reason))?;
            if edit != TagEdit::None {
                let (start, len) = (frame.start(), frame.len());
                let (start, len) = vlan::apply(edit, worker.umem.chunk_mut(frame), start, len);
                frame.set(start, len);
                way.shard.retagged(edit.grows_by());
            }
            Ok(())
        });
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

    /// Does with a burst what the component does.
    fn treat(&mut self, component: &Component, burst: &mut Vec<Frame>, outs: &mut [Vec<Frame>], way: &Way<'_>) {
        match &component.logic {
            Logic::First => self.give(component, 0, burst, way),
            Logic::All => {
                for out in outs.iter_mut().take(component.tx.len()).skip(1) {
                    for frame in &*burst {
                        way.shard.mirrored(frame.len());
                        self.copy_to(frame, out, way);
                    }
                }
                self.give(component, 0, burst, way);
            }
            Logic::Lookup(table) => {
                for frame in burst.drain(..) {
                    self.classify(table, frame, outs, way);
                }
            }
        }
        for (to, out) in outs.iter_mut().enumerate().filter(|(_, out)| !out.is_empty()) {
            self.give(component, to, out, way);
        }
    }

    /// Puts a frame where the table says it goes, with copies for all ends but the last if there are several.
    fn classify(&mut self, table: &Table, frame: Frame, outs: &mut [Vec<Frame>], way: &Way<'_>) {
        let target = match parse_l2(self.umem.data(&frame)) {
            Ok(l2) => table.find(l2.tag.map(|tag| tag.vid()), l2.dst),
            Err(reason) => return self.discard(frame, way.shard, reason),
        };
        match target {
            Target::One(to) => outs[usize::from(to)].push(frame),
            Target::None | Target::All([]) => self.discard(frame, way.shard, DropReason::ClassifierMiss),
            Target::All([others @ .., last]) => {
                way.shard.flooded(others.len(), frame.len());
                for to in others {
                    self.copy_to(&frame, &mut outs[usize::from(*to)], way);
                }
                outs[usize::from(*last)].push(frame);
            }
        }
    }

    fn copy_to(&mut self, frame: &Frame, out: &mut Vec<Frame>, way: &Way<'_>) {
        match self.copy(frame) {
            Some(copy) => out.push(copy),
            None => way.shard.dropped(DropReason::NoFrame, frame.len()),
        }
    }

    /// Gives frames to a sending end.
    fn give(&mut self, component: &Component, to: usize, frames: &mut Vec<Frame>, way: &Way<'_>) {
        let (link, edit) = (&component.tx[to], component.spec.tx[to].vlan);
        if let Link::Port(port, queue) = link {
            let sent = self.give_to_port(port, *queue, edit, frames, way);
            return component.counters.tx.add(sent.packets, sent.bytes);
        }
        self.edit_tags(edit, frames, way);
        let all = count(frames);
        let given = match link {
            Link::Ring(ring) => {
                ring.put(frames);
                let refused = count(frames);
                if refused.packets > 0 {
                    ring.refused(refused);
                    way.shard.dropped_all(DropReason::RingFull, refused);
                }
                if let Some(reader) =
                    ring.reader().filter(|reader| *reader != self.id && !self.to_wake.contains(reader))
                {
                    self.to_wake.push(reader);
                }
                Count { packets: all.packets - refused.packets, bytes: all.bytes - refused.bytes }
            }
            Link::Null(null) => {
                null.tx.add(all.packets, all.bytes);
                component.counters.left.add(all.packets, all.bytes);
                all
            }
            Link::Outside(outside) => {
                let taken = self.show(outside, frames, way);
                component.counters.left.add(taken.packets, taken.bytes);
                taken
            }
            Link::Port(..) => Count::default(),
        };
        component.counters.tx.add(given.packets, given.bytes);
        frames.drain(..).for_each(|frame| self.cache.put(frame));
    }

    /// Puts copies of frames into the queue of an outside end; returns how many had room. The rest are counted as dropped.
    fn show(&mut self, outside: &OutsideEnd, frames: &[Frame], way: &Way<'_>) -> Count {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        let (mut taken, mut refused) = (Count::default(), Count::default());
        for frame in frames {
            let fits = outside.offer(self.umem.data(frame), now);
            let one = Count { packets: 1, bytes: frame.len() as u64 };
            if fits { taken.add(one) } else { refused.add(one) }
        }
        outside.tx.add(taken.packets, taken.bytes);
        if refused.packets > 0 {
            outside.refused.add(refused.packets, refused.bytes);
            way.shard.dropped_all(DropReason::OutsideFull, refused);
        }
        taken
    }

    /// Sends frames to a port by the way that the bridge's go: its meter, its queues, its worker.
    fn give_to_port(
        &mut self,
        port: &Arc<PortShared>,
        queue: Option<u32>,
        edit: VlanEdit,
        frames: &mut Vec<Frame>,
        way: &Way<'_>,
    ) -> Count {
        let mtu = port.mtu.load(Ordering::Relaxed) as usize;
        if frames.iter().any(|frame| frame.len() > mtu + ETH_HEADER) {
            self.sift(frames, |worker, frame| match is_too_long(worker.umem.data(frame), mtu) {
                true => Err((&port.shards[worker.id], DropReason::EgressMtu)),
                false => Ok(()),
            });
        }
        let meter = way.view.meters.to(port.no);
        // All by one queue of this worker, as they are: they need not be staged one by one.
        if let (VlanEdit::None, Some(Hop::Here(slot))) = (edit, self.routes.fixed(port.no, queue)) {
            let given = count(frames);
            let (packets, bytes) = (frames.len(), given.bytes as usize);
            if meter.is_none_or(|meter| meter.take_all(self.id, packets, bytes, way.now_ns)) {
                let mut waiting = frames.drain(..);
                self.transmit(slot, packets, |_| waiting.next());
                waiting.for_each(|frame| self.refuse(slot, frame));
                return given;
            }
        }
        let mut given = Count::default();
        for frame in frames.drain(..) {
            match tag_edit(edit, self.umem.data(&frame)) {
                Ok(edit) => {
                    let bytes = frame.len() as u64;
                    given.add(Count { packets: 1, bytes: bytes.saturating_add_signed(i64::from(edit.grows_by())) });
                    self.output(frame, port.no, edit, queue, way);
                }
                Err(reason) => self.discard(frame, way.shard, reason),
            }
        }
        self.depart(way);
        given
    }
}

fn count(frames: &[Frame]) -> Count {
    Count { packets: frames.len() as u64, bytes: frames.iter().map(|frame| frame.len() as u64).sum() }
}

/// Whether a frame, its tags taken off, is more than an Ethernet header and `mtu` bytes.
fn is_too_long(data: &[u8], mtu: usize) -> bool {
    packet_len(parse_l2(data).ok().and_then(|l2| l2.tag), data.len()) > mtu
}
