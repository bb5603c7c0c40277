//! The workers: a thread each, which polls its port queues, runs the bridge on what came in, and sends what goes out.
//!
//! A socket belongs to one worker, both ways. A frame for a port whose socket another worker has goes there over a
//! single-producer single-consumer ring, one for each pair of workers; it is a descriptor that moves, not the data. Which queue
//! of a port a frame leaves by depends on the port, the worker and the flow only, so frames of a flow stay in order.
//!
//! A worker turns its loop as long as there is work, then for a while more ([`Setup::spin`], `patience`), then sleeps in epoll until a
//! socket, another worker or control has something. It never waits for a lock, allocates or logs for a packet. Control speaks to it by
//! [`Command`]s, taken between two bursts, and by the [`View`](view::View). Beside the bridge it runs components ([`component`]).

pub mod component;
pub mod ends;
pub mod view;

mod output;
mod patience;
mod queue;
mod routes;
#[cfg(test)]
mod tests;
mod watch;

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use nix::sys::epoll::EpollTimeout;

use self::component::Plan;
use self::output::STAGED;
use self::patience::Patience;
pub use self::queue::Queue;
use self::queue::Serves;
use self::routes::Routes;
use self::view::{PortShared, Shared, View, WorkerShared};
use self::watch::Watch;
use crate::counters::PortShard;
use crate::engine::PortNo;
use crate::engine::bridge::{
    BurstContext, Decision, Egress, FloodVerdict, FlowCache, Run, Verdict, flood_verdict, mirror_check,
};
use crate::engine::meter::{Color, Meter, remark};
use crate::engine::parse::Tag;
use crate::engine::vlan::TagEdit;
use crate::io::umem::{Frame, FrameCache, Umem};
use crate::model::{Direction, DropReason, Vid};

/// Frames taken from a queue at once.
pub const BURST: usize = crate::engine::rule::MAX_BATCH;
/// Frames that can wait between two workers.
pub const TRANSIT_DEPTH: usize = 4096;
/// How soon a worker looks again at a device that would not take frames.
const RETRY: Duration = Duration::from_millis(1);

/// A frame on its way to the worker that sends it.
#[derive(Debug)]
pub struct Transit {
    frame: Frame,
    port: PortNo,
    generation: u32,
    queue: u32,
}

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Poll this queue from now on.
    Add(Box<Queue>),
    /// Give back the queues of this port.
    Remove(PortNo, Sender<Vec<Queue>>),
    /// Give back one queue of this port, once what other workers have handed over so far has gone.
    Move(PortNo, u32, Sender<Vec<Queue>>),
    /// Report what you hold, wait until all have reported and the barrier opens again.
    Pause(Sender<Holdings>, Arc<Barrier>),
    /// Give back everything and end.
    Stop(Sender<Vec<Queue>>),
}

/// What a worker holds at a pause.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Free frames in its cache.
    pub cached: u32,
    /// Frames that wait to be taken over from other workers and packet sockets.
    pub in_transit: u32,
    /// Each queue.
    pub queues: Vec<QueueHoldings>,
}

/// Frames that a queue has with the kernel: to be filled, and to be sent.
#[derive(Clone, Debug)]
pub struct QueueHoldings {
    /// Port.
    pub port: Arc<PortShared>,
    /// Queue of the netdev.
    pub queue: u32,
    /// By the socket's own count.
    pub counted: (u32, u32),
    /// What the ledger of UMEM calls these places.
    pub owners: (u32, u32),
}

/// How a worker is set up.
#[derive(Debug)]
pub struct Setup {
    /// Number.
    pub id: usize,
    /// What all share.
    pub shared: Arc<Shared>,
    /// From control.
    pub commands: Receiver<Command>,
    /// From each other worker, in any order.
    pub inboxes: Vec<rtrb::Consumer<Transit>>,
    /// To each worker by number; `None` to itself.
    pub outboxes: Vec<Option<rtrb::Producer<Transit>>>,
    /// How long it looks for work before it sleeps, at least and at most; `None`: it never sleeps.
    pub spin: Option<RangeInclusive<Duration>>,
}

/// A worker's own state.
#[derive(Debug)]
pub struct Worker {
    id: usize,
    shared: Arc<Shared>,
    umem: Arc<Umem>,
    /// In an `Arc` of this worker's own, which a burst holds.
    #[expect(clippy::redundant_allocation, reason = "no two workers count references in one place")]
    view: Arc<Arc<View>>,
    epoch: u64,
    queues: Vec<Queue>,
    routes: Routes,
    /// Epoch of the ports that the routes are for.
    routes_epoch: u64,
    flow_cache: FlowCache,
    cache: FrameCache,
    commands: Receiver<Command>,
    inboxes: Vec<rtrb::Consumer<Transit>>,
    outboxes: Vec<Option<rtrb::Producer<Transit>>>,
    /// Workers that were sent something in this turn.
    to_wake: Vec<usize>,
    burst: Vec<Frame>,
    /// What a burst's frames became, until all of it goes.
    staged: Vec<Frame>,
    /// Where these go.
    runs: Vec<Run>,
    receivers: Vec<(PortNo, TagEdit)>,
    watch: Watch,
    /// `None`: it never sleeps.
    patience: Option<Patience>,
    plan: Plan,
}

/// What the frames of a burst have in common on their way, and the colour of the one that is on it.
struct Way<'a> {
    view: &'a View,
    /// Counters of the port that they came from.
    shard: &'a PortShard,
    ingress: PortNo,
    now_ns: u64,
    color: Color,
}

impl Worker {
    /// A worker without queues.
    pub fn new(setup: Setup) -> Result<Self, nix::Error> {
        let Setup { id, shared, commands, inboxes, outboxes, spin } = setup;
        let watch = Watch::new(&shared.workers[id].event)?;
        let view = Arc::new(shared.view.load_full());
        let umem = Arc::clone(&shared.umem);
        Ok(Self {
            id,
            epoch: 0,
            queues: Vec::new(),
            routes: Routes::default(),
            routes_epoch: 0,
            flow_cache: FlowCache::default(),
            cache: FrameCache::new(Arc::clone(&umem)),
            commands,
            inboxes,
            to_wake: Vec::with_capacity(outboxes.len()),
            outboxes,
            burst: Vec::with_capacity(BURST),
            staged: Vec::with_capacity(STAGED),
            runs: Vec::with_capacity(STAGED),
            receivers: Vec::with_capacity(crate::model::MAX_PORTS),
            watch,
            patience: spin.map(Patience::new),
            plan: Plan::default(),
            shared,
            umem,
            view,
        })
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let mut idle_since: Option<Instant> = None;
        loop {
            if self.me().attention.swap(false, Ordering::Acquire) && !self.obey() {
                return;
            }
            self.refresh_view();
            if self.turn() {
                if let (Some(patience), Some(since)) = (&mut self.patience, idle_since.take()) {
                    patience.found(since.elapsed());
                }
                continue;
            }
            self.me().counters.polled_idle();
            let Some(patience) = &self.patience else {
                std::hint::spin_loop();
                continue;
            };
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() < patience.reach() {
                std::hint::spin_loop();
            } else {
                self.sleep();
            }
        }
    }

    /// One turn over all that can bring frames; false if none came.
    pub fn turn(&mut self) -> bool {
        let mut frames = 0;
        for at in 0..self.queues.len() {
            match self.queues[at].serves {
                Serves::Bridge => frames += self.poll_queue(at),
                Serves::Component | Serves::Rules | Serves::Nobody => self.keep_up(at),
            }
        }
        frames += self.run_components();
        frames += self.take_injected();
        frames += self.take_transit();
        self.flush();
        frames > 0
    }

    fn me(&self) -> &WorkerShared {
        &self.shared.workers[self.id]
    }

    /// Picks up a newer view, and says that the old one is no longer used here.
    pub fn refresh_view(&mut self) {
        // Before the view, so that who waits for a view and then changes components knows that commands from before were obeyed.
        self.refresh_components();
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        if epoch != self.epoch {
            self.view = Arc::new(self.shared.view.load_full());
            self.epoch = self.view.snapshot.epoch;
            if self.view.ports_epoch != self.routes_epoch {
                self.routes_epoch = self.view.ports_epoch;
                self.routes.rebuild(&self.view, &self.queues, self.id);
            }
            self.me().seen.store(self.epoch, Ordering::Release);
        }
    }

    fn poll_queue(&mut self, at: usize) -> usize {
        let mut burst = std::mem::take(&mut self.burst);
        let queue = &mut self.queues[at];
        queue.reap(&mut self.cache);
        let taken = queue.backend.receive(&mut burst, BURST);
        // Also without a frame: one that ran dry while none was free gets nothing until it is filled again.
        if taken > 0 || queue.backend.is_short() {
            queue.backend.refill(&mut self.cache);
        }
        if taken > 0 {
            let (port, number) = (Arc::clone(&queue.port), queue.number);
            self.switch_burst(&mut burst, &port, number);
        }
        self.burst = burst;
        taken
    }

    /// Frames that packet sockets took for ports of this worker.
    fn take_injected(&mut self) -> usize {
        let mut taken = 0;
        while taken < BURST {
            let Some(injected) = self.me().injected.pop() else { break };
            let mut burst = std::mem::take(&mut self.burst);
            burst.push(injected.frame);
            self.switch_burst(&mut burst, &injected.port, 0);
            self.burst = burst;
            taken += 1;
        }
        taken
    }

    /// Counts a burst in and sends each frame on its way.
    fn switch_burst(&mut self, burst: &mut Vec<Frame>, port: &Arc<PortShared>, queue: u32) {
        let bytes: usize = burst.iter().map(Frame::len).sum();
        port.queues[queue as usize].counters.rx.add(burst.len() as u64, bytes as u64);
        self.me().counters.took_burst(burst.len());
        for tap in self.view.taps(port.no) {
            burst.iter().for_each(|frame| tap.offer(port.no, queue, Direction::Rx, self.umem.data(frame)));
        }
        let view = Arc::clone(&self.view);
        let now = self.shared.now.load(Ordering::Relaxed);
        let now_ns = if view.metered { self.shared.now_ns() } else { 0 };
        let mut way = Way { view: &view, shard: &port.shards[self.id], ingress: port.no, now_ns, color: Color::Green };
        let context = BurstContext { snap: &view.snapshot, fdb: &view.fdb, now, ingress: port.no, worker: self.id };
        self.flow_cache.begin_burst();
        let meter = view.meters.from(port.no);
        // What all of the burst has tokens for is not asked for frame by frame.
        let meter = meter.filter(|meter| !meter.take_all(self.id, burst.len(), bytes, now_ns));
        let mut frames = burst.drain(..);
        loop {
            way.color = Color::Green;
            let (frame, decision) = match meter {
                None => {
                    let decision = self.stage_cached(&context, &mut frames, &way);
                    let Some((decision, frame)) = decision.zip(frames.next()) else { break };
                    (frame, decision)
                }
                Some(meter) => {
                    let Some(mut frame) = frames.next() else { break };
                    if !self.passes(meter, &mut frame, &mut way) {
                        self.discard(frame, way.shard, DropReason::MeterFrom);
                        continue;
                    }
                    let decision = self.flow_cache.decide(&context, self.umem.data(&frame));
                    (frame, decision)
                }
            };
            self.carry_out(decision, frame, &mut way);
        }
        drop(frames);
        self.depart(&way);
        self.me().counters.set_lookups(self.flow_cache.lookups());
    }

    /// Does with a frame what was decided.
    fn carry_out(&mut self, decision: Decision<'_>, frame: Frame, way: &mut Way<'_>) {
        let mut frame = frame;
        if let Some(rule) = decision.rule {
            rule.applied(self.id, frame.len());
            if let Some(mirror) = rule.action.mirror {
                self.mirror(&frame, mirror, way);
            }
            if let Some(meter) = &rule.meter
                && !matches!(decision.verdict, Verdict::Drop(_))
                && !self.passes(meter, &mut frame, way)
            {
                return self.discard(frame, way.shard, DropReason::MeterRule);
            }
        }
        match decision.verdict {
            Verdict::Drop(reason) => {
                let at = if decision.drop_port == way.ingress {
                    way.shard
                } else {
                    self.shard_of(way.view, decision.drop_port)
                };
                at.dropped(reason, frame.len());
                self.cache.put(frame);
            }
            Verdict::Unicast { port: egress, edit, queue, redirected_from } => {
                if let Some(asked) = redirected_from {
                    self.shard_of(way.view, asked).redirected(frame.len());
                }
                self.output(frame, Egress::new(egress, edit, queue), way);
            }
            Verdict::Flood { vid, tag } => self.flood(frame, vid, tag, way),
        }
    }

    fn discard(&mut self, frame: Frame, at: &PortShard, reason: DropReason) {
        at.dropped(reason, frame.len());
        self.cache.put(frame);
    }

    /// Asks a meter for a frame on its way; false if it is red.
    #[inline]
    fn passes(&self, meter: &Meter, frame: &mut Frame, way: &mut Way<'_>) -> bool {
        way.color = self.color(meter, frame, frame.len(), way.color, way);
        way.color != Color::Red
    }

    /// The colour that a meter gives a frame which is `len` bytes long when it goes out and had the colour `before`. A yellow
    /// one may be marked.
    #[inline]
    fn color(&self, meter: &Meter, frame: &mut Frame, len: usize, before: Color, way: &Way<'_>) -> Color {
        let color = meter.color(self.id, len, before, way.now_ns);
        if color == Color::Yellow
            && let Some(dscp) = meter.yellow_dscp()
        {
            let (start, len) = (frame.start(), frame.len());
            remark(&mut self.umem.chunk_mut(frame)[start..start + len], dscp);
        }
        color
    }

    /// Sends a copy of a frame as it is to a rule's mirror.
    fn mirror(&mut self, frame: &Frame, mirror: PortNo, way: &Way<'_>) {
        let (view, len) = (way.view, frame.len());
        let exit = view.snapshot.exit(mirror);
        let refused = match mirror_check(&view.snapshot, way.ingress, exit, self.umem.data(frame)) {
            Err(DropReason::SamePort) => return,
            Err(reason) => Some(reason),
            Ok(()) => None,
        };
        way.shard.mirrored(len);
        if exit != mirror {
            self.shard_of(view, mirror).redirected(len);
        }
        match refused.map_or_else(|| self.copy(frame).ok_or(DropReason::NoFrame), Err) {
            Ok(copy) => self.output(copy, Egress::new(exit, TagEdit::None, None), way),
            Err(reason) => self.shard_of(view, exit).dropped(reason, len),
        }
    }

    /// Sends a frame to every receiver of its VLAN: a copy to each but the last, which gets the frame itself.
    fn flood(&mut self, frame: Frame, vid: Vid, tag: Option<Tag>, way: &Way<'_>) {
        let (view, len) = (way.view, frame.len());
        let mut receivers = std::mem::take(&mut self.receivers);
        let mut refused = 0;
        for &egress in view.snapshot.flood_ports(vid) {
            match flood_verdict(&view.snapshot, way.ingress, egress, vid, tag, len) {
                FloodVerdict::Send { port, edit } => {
                    if port != egress {
                        self.shard_of(view, egress).redirected(len);
                    }
                    receivers.push((port, edit));
                }
                FloodVerdict::Skip => {}
                FloodVerdict::Drop(reason) => {
                    self.shard_of(view, view.snapshot.exit(egress)).dropped(reason, len);
                    refused += 1;
                }
            }
        }
        way.shard.flooded((receivers.len() + refused).saturating_sub(1), len);
        match receivers.pop() {
            Some((last, last_edit)) => {
                for (egress, edit) in receivers.drain(..) {
                    match self.copy(&frame) {
                        Some(copy) => self.output(copy, Egress::new(egress, edit, None), way),
                        None => self.shard_of(view, egress).dropped(DropReason::NoFrame, len),
                    }
                }
                self.output(frame, Egress::new(last, last_edit, None), way);
            }
            None => {
                if refused == 0 {
                    way.shard.dropped(DropReason::NoDestination, len);
                }
                self.cache.put(frame);
            }
        }
        self.receivers = receivers;
    }

    fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.cache.take()?;
        // Where the frame is it fits, also if a component has put a tag on it.
        let (start, len) = (frame.start(), frame.len());
        self.umem.chunk_mut(&mut copy)[start..start + len].copy_from_slice(self.umem.data(frame));
        copy.set(start, len);
        Some(copy)
    }

    /// Where drops on the way out to a port are counted.
    fn shard_of<'a>(&'a self, view: &'a View, port: PortNo) -> &'a PortShard {
        view.port(port).map_or(&self.me().orphans, |port| &port.shards[self.id])
    }

    fn hand_over(&mut self, worker: usize, transit: Transit, view: &View) {
        let refused = match &mut self.outboxes[worker] {
            Some(outbox) => outbox.push(transit).err().map(|rtrb::PushError::Full(transit)| transit),
            None => Some(transit),
        };
        match refused {
            None => {
                if !self.to_wake.contains(&worker) {
                    self.to_wake.push(worker);
                }
            }
            Some(Transit { frame, port, .. }) => {
                self.shard_of(view, port).dropped(DropReason::WorkerRingFull, frame.len());
                self.cache.put(frame);
            }
        }
    }

    /// Frames that other workers have for ports of this one.
    fn take_transit(&mut self) -> usize {
        let mut taken = 0;
        for at in 0..self.inboxes.len() {
            for _ in 0..BURST {
                let Ok(transit) = self.inboxes[at].pop() else { break };
                taken += 1;
                let Transit { frame, port, generation, queue } = transit;
                let slot = self.queues.iter().position(|candidate| {
                    candidate.port.no == port && candidate.port.generation == generation && candidate.number == queue
                });
                match slot {
                    Some(slot) => self.transmit_one(slot, frame),
                    None => {
                        self.me().orphans.dropped(DropReason::PortGone, frame.len());
                        self.cache.put(frame);
                    }
                }
            }
        }
        taken
    }

    fn flush(&mut self) {
        for queue in self.queues.iter_mut().filter(|queue| queue.dirty) {
            queue.flush(&mut self.cache);
            self.watch.flushed(queue);
        }
        for worker in self.to_wake.drain(..) {
            self.shared.workers[worker].wake();
        }
    }

    /// Sleeps until somebody has something, unless somebody has it already.
    fn sleep(&mut self) {
        let stuck = self.queues.iter().any(|queue| queue.dirty || queue.backend.is_short());
        self.watch.prepare(&mut self.queues);
        self.me().prepare_sleep();
        if !self.has_work() {
            self.me().counters.slept();
            let timeout =
                if stuck { EpollTimeout::try_from(RETRY).unwrap_or(EpollTimeout::ZERO) } else { EpollTimeout::NONE };
            self.watch.wait(timeout);
        }
        self.me().awake();
    }

    fn has_work(&self) -> bool {
        self.me().attention.load(Ordering::Relaxed)
            || self.shared.epoch.load(Ordering::Relaxed) != self.epoch
            || self.shared.components.epoch() != self.plan.epoch
            || !self.me().injected.is_empty()
            || self.inboxes.iter().any(|inbox| !inbox.is_empty())
            || self.queues.iter().any(|queue| queue.serves == Serves::Bridge && queue.backend.has_received())
            || self.plan.has_work(&self.queues)
    }

    /// Carries out commands; false to end.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add(queue) => self.add(*queue),
                Command::Remove(port, reply) => {
                    let removed = self.remove(|queue| queue.port.no == port);
                    // Nobody waits any more only if control gave up, which it does not.
                    let _ = reply.send(removed);
                }
                Command::Move(port, number, reply) => {
                    // No more than the rings hold: others may go on to fill them with frames for other ports.
                    for _ in 0..=TRANSIT_DEPTH / BURST {
                        if self.take_transit() == 0 {
                            break;
                        }
                    }
                    let _ = reply.send(self.remove(|queue| queue.port.no == port && queue.number == number));
                }
                Command::Pause(report, barrier) => {
                    let _ = report.send(self.holdings());
                    barrier.wait();
                }
                Command::Stop(reply) => {
                    let removed = self.remove(|_| true);
                    while self.take_transit() + self.take_injected() > 0 {}
                    self.cache.spill_all();
                    let _ = reply.send(removed);
                    return false;
                }
            }
        }
        true
    }

    /// Polls this queue from now on; its port must be in the view.
    pub fn add(&mut self, queue: Queue) {
        self.queues.push(queue);
        self.routes.rebuild(&self.view, &self.queues, self.id);
        self.rebuild_plan();
    }

    fn remove(&mut self, wanted: impl Fn(&Queue) -> bool) -> Vec<Queue> {
        self.flush();
        let (mut removed, kept): (Vec<_>, Vec<_>) = self.queues.drain(..).partition(wanted);
        self.queues = kept;
        removed.iter_mut().for_each(|queue| self.watch.leave(queue));
        self.routes.rebuild(&self.view, &self.queues, self.id);
        self.rebuild_plan();
        removed
    }

    fn holdings(&mut self) -> Holdings {
        for queue in &mut self.queues {
            queue.reap(&mut self.cache);
        }
        let waiting = self.inboxes.iter().map(rtrb::Consumer::slots).sum::<usize>() + self.me().injected.len();
        Holdings {
            cached: self.cache.len() as u32,
            in_transit: waiting as u32,
            queues: self
                .queues
                .iter()
                .map(|queue| QueueHoldings {
                    port: Arc::clone(&queue.port),
                    queue: queue.number,
                    counted: queue.backend.outstanding(),
                    owners: queue.backend.owners(),
                })
                .collect(),
        }
    }
}
