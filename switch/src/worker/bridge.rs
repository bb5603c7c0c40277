//! The bridge on a worker: the engine decides on a burst, and the frames are staged as it says.
//!
//! Meters, mirrors and counters are seen to here. The engine names them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use xdp_prog::FlowMark;

use super::debt::{Debt, Found, cost_of_frames, cost_of_lookups};
use super::egress::{Egress, Polled};
use super::frames::{BURST, Left, count_single, count_wire, total_len, total_packets};
use super::shared::Injected;
use super::turn::{SendContext, Turn};
use super::view::PortShared;
use crate::engine::PortNo;
use crate::engine::bridge::{
    self, BurstContext, Decision, FloodVerdict, FlowCache, Verdict, flood_verdict, is_receiver, mirror_check,
};
use crate::engine::meter::{Color, Meter};
use crate::engine::parse::Tag;
use crate::engine::snapshot::Snapshot;
use crate::engine::vlan::TagEdit;
use crate::io::umem::{Frame, Segments};
use crate::model::{DropReason, MAX_PORTS, MacAddr, Vid};
use crate::offload::{Offload, Sampler};

/// What the bridge keeps from burst to burst.
#[derive(Debug)]
pub(super) struct Bridge {
    flow_cache: FlowCache,
    /// Receivers of a flood. Empty between floods.
    receivers: Vec<(PortNo, TagEdit)>,
    /// What is left of a burst that was ended because it cost too much. Empty between bursts.
    rest: Vec<Frame>,
    /// What frames from packet sockets have cost too much.
    injected_debt: Debt,
    sampler: Sampler,
    /// Numbers of the flow table that frames of the burst have, with the frames' places. Empty between bursts.
    marks: Vec<(usize, FlowMark)>,
    /// How often the FDB had changed when the flow table last heard of it.
    fdb_changes: u32,
}

/// A burst's way to the bridge.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    port: &'a PortShared,
    queue: u32,
    /// What it may cost. It ends with the flood that reaches that. Bursts without floods are done whole, because their
    /// rules are prefetched together.
    budget: u32,
    /// Whether it is the rest of a burst that was counted in.
    is_counted: bool,
    /// Whether the meter of what the port sends has let it pass.
    is_metered: bool,
    /// Whether something may be left to be done with its frames, or some may have several chunks.
    is_mixed: bool,
}

impl Bridge {
    pub(super) fn new() -> Self {
        Self {
            flow_cache: FlowCache::default(),
            receivers: Vec::with_capacity(MAX_PORTS),
            rest: Vec::with_capacity(BURST),
            injected_debt: Debt::default(),
            sampler: Sampler::default(),
            marks: Vec::with_capacity(BURST),
            fdb_changes: 0,
        }
    }

    /// A burst of a queue, unless it is in debt. `burst` is empty before and after.
    pub(super) fn poll(
        &mut self,
        slot: usize,
        burst: &mut Vec<Frame>,
        turn: &Turn<'_>,
        egress: &mut Egress,
        found: &mut Found,
    ) {
        let (taken, budget, waited) = match egress.poll(slot, burst, turn.view) {
            Polled::New { taken: 0, .. } => return,
            Polled::New { taken, budget } => (taken, budget, None),
            Polled::Waited { budget, is_metered } => (burst.len(), budget, Some(is_metered)),
            Polled::PassedOver => return found.passed_over(),
        };
        found.took(taken);
        let queue = &egress.queues()[slot];
        let has_offloads = queue.backend.takes_offloads();
        // Of frames that have waited it is not known any more.
        let is_mixed = has_offloads || waited.is_some() || queue.backend.brought_chains();
        let (port, queue) = (Arc::clone(&queue.port), queue.number);
        let (is_counted, is_metered) = (waited.is_some(), waited == Some(true));
        let arrival = Arrival { port: &port, queue, budget, is_counted, is_metered, is_mixed };
        let (cost, is_metered) = self.switch_burst(burst, arrival, turn, egress);
        let queue = egress.queue(slot);
        queue.debt.charge(cost);
        if !self.rest.is_empty() {
            self.rest.iter_mut().for_each(|frame| egress.cache().complete(frame));
            egress.queue(slot).keep(&mut self.rest, is_metered);
        }
        if has_offloads {
            egress.release(slot);
        }
    }

    /// Frames that packet sockets took for ports of this worker, up to a burst or what they may cost.
    pub(super) fn take_injected(
        &mut self,
        burst: &mut Vec<Frame>,
        turn: &Turn<'_>,
        egress: &mut Egress,
        found: &mut Found,
    ) {
        let (budget, mut cost, mut taken) = (self.injected_debt.turn(egress.is_forgiving()), 0, 0);
        while taken < BURST && cost < budget {
            let Some(Injected { frame, port }) = turn.me().injected.pop() else { break };
            burst.push(frame);
            let (is_counted, is_metered, is_mixed) = (false, false, true);
            let arrival = Arrival { port: &port, queue: 0, budget, is_counted, is_metered, is_mixed };
            cost += self.switch_burst(burst, arrival, turn, egress).0;
            taken += 1;
        }
        self.injected_debt.charge(cost);
        found.took(taken);
        if budget == 0 && !turn.me().injected.is_empty() {
            found.passed_over();
        }
    }

    /// What frames from packet sockets have cost too much.
    pub(super) fn injected_debt(&mut self) -> &mut Debt {
        &mut self.injected_debt
    }

    /// Counts a burst in, and sends each frame on its way. Returns what that cost, and whether the meter of what the
    /// port sends has let it pass. If it costs too much, the last frames are left as `rest`.
    fn switch_burst(
        &mut self,
        burst: &mut Vec<Frame>,
        arrival: Arrival<'_>,
        turn: &Turn<'_>,
        egress: &mut Egress,
    ) -> (u32, bool) {
        let Arrival { port, queue, budget, is_counted, is_metered, is_mixed } = arrival;
        let left = if is_mixed { Left::of(burst) } else { Left::Nothing };
        let came = if left == Left::Long { count_wire(burst) } else { count_single(burst) };
        let counters = &turn.me().counters;
        if !is_counted {
            turn.count_in(burst, came, port, queue, egress.umem());
            counters.took_burst(burst.len());
        }
        let all = burst.len();
        if let Some(offload) = turn.shared.offload.get() {
            if offload.is_moving() {
                self.read_marks(burst, offload);
            }
            if let Some(chosen) = self.sampler.due(all) {
                self.sample(&burst[chosen], arrival, turn, offload);
            }
        }
        let cx = turn.burst_with(&port.shards[turn.worker], left);
        let view = turn.view;
        let now = turn.shared.now.load(Ordering::Relaxed);
        let context = BurstContext { snap: &view.snapshot, fdb: &view.fdb, now, ingress: port.no, worker: turn.worker };
        let mut bill = Bill::new(burst.len(), egress, &self.flow_cache);
        self.flow_cache.begin_burst();
        // What all of the burst has tokens for is not asked for frame by frame.
        let meter = view.meters.from(port.no).filter(|_| !is_metered);
        let meter = meter.filter(|meter| !cx.takes_all(meter, total_packets(came), total_len(came)));
        let mut job = Job { receivers: &mut self.receivers, context: &context, cx: &cx, port, egress };
        let mut frames = burst.drain(..);
        match meter {
            _ if left == Left::Long => {
                let meter = meter.map(AsRef::as_ref);
                job.switch_each(&mut self.flow_cache, &mut frames, meter, |egress| bill.sent(egress) >= budget);
            }
            None => {
                while let Some((decision, frame)) = job.recall(&mut self.flow_cache, &mut frames).zip(frames.next()) {
                    let is_flood = job.carry_out(decision, frame, Color::Green);
                    if is_flood && bill.sent(job.egress) >= budget {
                        break;
                    }
                }
            }
            Some(meter) => {
                for frame in &mut frames {
                    let is_flood = job.switch_one(&mut self.flow_cache, frame, Some(meter));
                    if is_flood && bill.sent(job.egress) >= budget {
                        break;
                    }
                }
            }
        }
        self.rest.extend(frames);
        bill.taken -= self.rest.len();
        egress.send_staged(&cx);
        if !self.marks.is_empty() {
            self.pass_marks_on(all - self.rest.len(), turn, egress);
        }
        let changes = view.fdb.changes();
        if changes != self.fdb_changes {
            self.fdb_changes = changes;
            turn.shared.offload.get().iter().for_each(|offload| offload.stations_changed());
        }
        counters.set_lookups(self.flow_cache.lookups());
        (bill.total(egress, &self.flow_cache, &view.snapshot), meter.is_none())
    }
}

/// The flow table in XDP.
impl Bridge {
    /// Reads the numbers of frames whose flows move into the kernel.
    #[cold]
    fn read_marks(&mut self, burst: &[Frame], offload: &Offload) {
        let table = offload.table();
        self.marks.extend((0..).zip(burst).filter_map(|(place, frame)| Some((place, table.mark(frame.front())?))));
    }

    /// The first `sent` frames of the burst were sent on their way.
    #[cold]
    fn pass_marks_on(&mut self, sent: usize, turn: &Turn<'_>, egress: &mut Egress) {
        let marks = self.marks.drain(..).filter(|(place, _)| *place < sent).map(|(_, mark)| mark);
        if let Some(offload) = turn.shared.offload.get() {
            egress.staged(marks, offload, turn.worker);
        }
    }

    /// Looks at a frame's flow. If it was met before not long ago, it is offered to the flow table.
    #[inline(never)]
    fn sample(&mut self, frame: &Frame, arrival: Arrival<'_>, turn: &Turn<'_>, offload: &Offload) {
        let (Arrival { port, queue, .. }, view) = (arrival, turn.view);
        let now = turn.shared.now.load(Ordering::Relaxed);
        let Some(hash) = offload.hash(view, port.no, queue, frame.data()) else { return };
        if self.sampler.meet(hash, now) {
            offload.offer(view, port.no, queue, frame.data(), frame.packet_len(), now);
        }
    }
}

/// What a burst costs.
struct Bill {
    taken: usize,
    /// As [`Egress::spent`] and the number of searches were before it.
    spent: u32,
    searched: u64,
}

impl Bill {
    #[inline]
    fn new(taken: usize, egress: &Egress, flow_cache: &FlowCache) -> Self {
        Self { taken, spent: egress.spent(), searched: flow_cache.lookups().classifier }
    }

    /// What was sent of it so far.
    #[inline]
    fn sent(&self, egress: &Egress) -> u32 {
        egress.spent().wrapping_sub(self.spent)
    }

    /// All of it.
    #[inline]
    fn total(&self, egress: &Egress, flow_cache: &FlowCache, snapshot: &Snapshot) -> u32 {
        let searched = flow_cache.lookups().classifier - self.searched;
        let lookups = cost_of_lookups(flow_cache.misses(), searched, || snapshot.rules.masks());
        self.sent(egress) + cost_of_frames(self.taken) + lookups
    }
}

/// The source address of a frame.
#[inline]
fn source_of(frame: &[u8]) -> Option<MacAddr> {
    Some(MacAddr::new(*frame.get(6..)?.first_chunk()?))
}

/// The frames of a burst, while they are staged.
struct Job<'a, 's> {
    receivers: &'a mut Vec<(PortNo, TagEdit)>,
    context: &'a BurstContext<'s>,
    cx: &'a SendContext<'s>,
    port: &'a PortShared,
    egress: &'a mut Egress,
}

impl<'s> Job<'_, 's> {
    /// Stages frames whose flows are cached, or whose rules were prefetched, up to the first that is decided by itself
    /// or needs more than to be sent. Returns the decision on that one.
    #[inline]
    fn recall(&mut self, flow_cache: &mut FlowCache, frames: &mut std::vec::Drain<'_, Frame>) -> Option<Decision<'s>> {
        let context = self.context;
        self.egress.stage_all(frames, self.cx, |frames, runs| {
            flow_cache.lookup_burst(context, frames.iter().map(Frame::data), runs)
        })
    }

    /// A frame by itself. `meter` is that of what the port sends, if it is to be asked. Returns whether it was flooded.
    #[inline]
    fn switch_one(&mut self, flow_cache: &mut FlowCache, mut frame: Frame, meter: Option<&Meter>) -> bool {
        let color = meter.map_or(Color::Green, |meter| self.color(meter, &mut frame, Color::Green));
        if color == Color::Red {
            self.egress.discard(frame, self.cx.source, DropReason::MeterFrom);
            return false;
        }
        let decision = if frame.is_chained() {
            flow_cache.decide_long(self.context, frame.data(), frame.packet_len())
        } else {
            flow_cache.decide(self.context, frame.data())
        };
        self.carry_out(decision, frame, color)
    }

    /// The frames of a burst of which some are to be cut, or have several chunks, one by one, up to one after which
    /// `is_spent`. A meter that has too few tokens for all of a packet is asked for each segment.
    #[inline(never)]
    fn switch_each(
        &mut self,
        flow_cache: &mut FlowCache,
        frames: &mut std::vec::Drain<'_, Frame>,
        meter: Option<&Meter>,
        is_spent: impl Fn(&Egress) -> bool,
    ) {
        for frame in frames {
            let is_long = frame.is_to_be_cut();
            let is_flood = match meter.filter(|meter| !is_long || !self.cx.takes_segments(meter, &frame, 0)) {
                Some(meter) if is_long => {
                    let mut segments = Segments::new(frame);
                    while let Some(segment) = segments.next(self.egress.cache()) {
                        self.switch_one(flow_cache, segment, Some(meter));
                    }
                    self.egress.discard_segments(segments, self.cx.source);
                    true
                }
                meter => self.switch_one(flow_cache, frame, meter),
            };
            if (is_long || is_flood) && is_spent(self.egress) {
                break;
            }
        }
    }

    /// As [`Job::carry_out`], for each segment of a packet.
    fn carry_out_segments(&mut self, decision: Decision<'_>, frame: Frame, color: Color) -> bool {
        let (mut segments, mut is_flood) = (Segments::new(frame), false);
        while let Some(segment) = segments.next(self.egress.cache()) {
            is_flood |= self.carry_out(decision, segment, color);
        }
        self.egress.discard_segments(segments, self.cx.source);
        is_flood
    }

    /// Whether segments are to go their own ways: the rule's meter has too few tokens for all, or their copies are
    /// bounded. If not, the rule's meter has let all pass.
    #[inline(never)]
    fn is_to_be_cut_here(&self, decision: &Decision<'_>, frame: &Frame) -> bool {
        let is_bounded = matches!(decision.verdict, Verdict::Flood { .. }) && self.port.storm.is_on();
        let meter = decision.rule.and_then(|rule| rule.meter.as_ref());
        let meter = meter.filter(|_| !matches!(decision.verdict, Verdict::Drop(_)));
        is_bounded || meter.is_some_and(|meter| !self.cx.takes_segments(meter, frame, 0))
    }

    /// Does with a frame what was decided. `color` is what the meters before have called it. Returns whether it was
    /// flooded.
    fn carry_out(&mut self, decision: Decision<'_>, mut frame: Frame, mut color: Color) -> bool {
        let is_long = frame.is_to_be_cut();
        if is_long && self.is_to_be_cut_here(&decision, &frame) {
            return self.carry_out_segments(decision, frame, color);
        }
        let (source, turn) = (self.cx.source, &self.cx.turn);
        let mut mirror = None;
        if let Some(rule) = decision.rule {
            rule.applied_to_all(turn.worker, frame.wire());
            mirror = rule.action.mirror;
            // A receiver's own copy is enough, unless the rule's meter or storm control takes it away.
            if let Some(to) = mirror.take_if(|to| !self.is_receiver(&decision, *to, frame.packet_len())) {
                self.mirror(&frame, to, color);
            }
            if let Some(meter) = &rule.meter
                && !is_long
                && !matches!(decision.verdict, Verdict::Drop(_))
            {
                let before = color;
                color = self.color(meter, &mut frame, color);
                if color == Color::Red {
                    if let Some(to) = mirror {
                        self.mirror(&frame, to, before);
                    }
                    self.egress.discard(frame, source, DropReason::MeterRule);
                    return false;
                }
            }
        }
        match decision.verdict {
            Verdict::Drop(reason) => {
                let at =
                    if decision.drop_port == self.context.ingress { source } else { turn.shard_of(decision.drop_port) };
                self.egress.discard(frame, at, reason);
            }
            Verdict::Unicast { port, edit, queue, redirected_from } => {
                if let Some(asked) = redirected_from {
                    turn.shard_of(asked).redirected(frame.wire());
                }
                self.egress.stage(frame, bridge::Egress::new(port, edit, queue), color, self.cx);
            }
            Verdict::Flood { vid, tag } => {
                self.flood(frame, vid, tag, color, mirror);
                return true;
            }
        }
        false
    }

    #[inline]
    fn color(&self, meter: &Meter, frame: &mut Frame, before: Color) -> Color {
        let len = frame.packet_len();
        self.cx.color(meter, frame, len, before)
    }

    /// Whether the port where a rule's mirror ends gets a frame of that length anyway.
    fn is_receiver(&self, decision: &Decision<'_>, mirror: PortNo, len: usize) -> bool {
        let snapshot = self.context.snap;
        is_receiver(snapshot, self.context.ingress, decision, snapshot.exit(mirror), len)
    }

    /// Sends a copy of a frame as it is to a rule's mirror.
    fn mirror(&mut self, frame: &Frame, mirror: PortNo, color: Color) {
        let (turn, wire) = (&self.cx.turn, frame.wire());
        let snapshot = &turn.view.snapshot;
        let exit = snapshot.exit(mirror);
        let refused = match mirror_check(snapshot, self.context.ingress, exit, frame.data(), frame.packet_len()) {
            Err(DropReason::SamePort) => return,
            Err(reason) => Some(reason),
            Ok(()) => None,
        };
        self.cx.source.mirrored(wire);
        if exit != mirror {
            turn.shard_of(mirror).redirected(wire);
        }
        match refused.map_or_else(|| self.egress.copy(frame).ok_or(DropReason::NoFrame), Err) {
            Ok(copy) => self.egress.stage(copy, bridge::Egress::new(exit, TagEdit::None, None), color, self.cx),
            Err(reason) => turn.shard_of(exit).dropped_all(reason, wire),
        }
    }

    /// Sends a frame to every receiver of its VLAN: a copy to each but the last, which gets the frame itself.
    /// `mirror` is a receiver that is also a mirror: it gets its copy if the flood is dropped.
    fn flood(&mut self, frame: Frame, vid: Vid, tag: Option<Tag>, color: Color, mirror: Option<PortNo>) {
        let (source, turn, len, wire) = (self.cx.source, &self.cx.turn, frame.packet_len(), frame.wire());
        let snapshot = &turn.view.snapshot;
        let members = snapshot.flood_ports(vid);
        // Beside the sender and one receiver. So a flood that makes no copies pays nothing.
        let storm = (members.len() > 2).then(|| (&self.port.storm, turn.shared.now_ns()));
        if storm.is_some_and(|(storm, now)| !storm.lets_flood(now)) {
            if let Some(to) = mirror {
                self.mirror(&frame, to, color);
            }
            return self.egress.discard(frame, source, DropReason::Storm);
        }
        let loop_ports = source_of(frame.data()).and_then(|mac| self.context.fdb.loop_ports(mac, vid));
        let mut refused = 0;
        for &port in members {
            match flood_verdict(snapshot, self.context.ingress, port, vid, tag, len) {
                FloodVerdict::Send { port: exit, .. } if loop_ports.is_some_and(|ports| ports.contains(exit)) => {}
                FloodVerdict::Send { port: exit, edit } => {
                    if exit != port {
                        turn.shard_of(port).redirected(wire);
                    }
                    self.receivers.push((exit, edit));
                }
                FloodVerdict::Skip => {}
                FloodVerdict::Drop(reason) => {
                    turn.shard_of(snapshot.exit(port)).dropped_all(reason, wire);
                    refused += 1;
                }
            }
        }
        source.flooded((self.receivers.len() + refused).saturating_sub(1), wire);
        if let Some((storm, now)) = storm {
            storm.flooded(self.receivers.len().saturating_sub(1), now);
        }
        let Some((last, last_edit)) = self.receivers.pop() else {
            if refused == 0 {
                source.dropped_all(DropReason::NoDestination, wire);
            }
            return self.egress.cache().put(frame);
        };
        for (port, edit) in self.receivers.drain(..) {
            match self.egress.copy(&frame) {
                Some(copy) => self.egress.stage(copy, bridge::Egress::new(port, edit, None), color, self.cx),
                None => turn.shard_of(port).dropped_all(DropReason::NoFrame, wire),
            }
        }
        self.egress.stage(frame, bridge::Egress::new(last, last_edit, None), color, self.cx);
    }
}
