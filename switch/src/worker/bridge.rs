//! The bridge on a worker: the engine decides on a burst, and the frames are staged as it says.
//!
//! Meters, mirrors and counters are seen to here. The engine names them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::egress::Egress;
use super::frames::{BURST, count, total_len};
use super::turn::{SendContext, Turn};
use super::view::PortShared;
use crate::engine::PortNo;
use crate::engine::bridge::{
    self, BurstContext, Decision, FloodVerdict, FlowCache, Verdict, flood_verdict, is_receiver, mirror_check,
};
use crate::engine::meter::{Color, Meter};
use crate::engine::parse::Tag;
use crate::engine::vlan::TagEdit;
use crate::io::umem::Frame;
use crate::model::{DropReason, MAX_PORTS, Vid};

/// What the bridge keeps from burst to burst.
#[derive(Debug)]
pub(super) struct Bridge {
    flow_cache: FlowCache,
    /// Receivers of a flood. Empty between floods.
    receivers: Vec<(PortNo, TagEdit)>,
}

impl Bridge {
    pub(super) fn new() -> Self {
        Self { flow_cache: FlowCache::default(), receivers: Vec::with_capacity(MAX_PORTS) }
    }

    /// A burst of a queue. Returns how many frames came. `burst` is empty before and after.
    pub(super) fn poll(&mut self, slot: usize, burst: &mut Vec<Frame>, turn: &Turn<'_>, egress: &mut Egress) -> usize {
        let taken = egress.poll(slot, burst);
        if taken > 0 {
            let queue = &egress.queues()[slot];
            let (port, number) = (Arc::clone(&queue.port), queue.number);
            self.switch_burst(burst, &port, number, turn, egress);
        }
        taken
    }

    /// Frames that packet sockets took for ports of this worker, up to a burst. Returns how many.
    pub(super) fn take_injected(&mut self, burst: &mut Vec<Frame>, turn: &Turn<'_>, egress: &mut Egress) -> usize {
        let mut taken = 0;
        while taken < BURST {
            let Some(injected) = turn.me().injected.pop() else { break };
            burst.push(injected.frame);
            self.switch_burst(burst, &injected.port, 0, turn, egress);
            taken += 1;
        }
        taken
    }

    /// Counts a burst in, and sends each frame on its way.
    fn switch_burst(
        &mut self,
        burst: &mut Vec<Frame>,
        port: &PortShared,
        queue: u32,
        turn: &Turn<'_>,
        egress: &mut Egress,
    ) {
        let came = count(burst);
        turn.count_in(burst, came, port, queue);
        let counters = &turn.me().counters;
        counters.took_burst(burst.len());
        let cx = turn.burst(&port.shards[turn.worker]);
        let view = turn.view;
        let now = turn.shared.now.load(Ordering::Relaxed);
        let context = BurstContext { snap: &view.snapshot, fdb: &view.fdb, now, ingress: port.no, worker: turn.worker };
        self.flow_cache.begin_burst();
        // What all of the burst has tokens for is not asked for frame by frame.
        let meter = view.meters.from(port.no).filter(|meter| !cx.takes_all(meter, burst.len(), total_len(came)));
        let mut job = Job { receivers: &mut self.receivers, context: &context, cx: &cx, egress };
        let mut frames = burst.drain(..);
        match meter {
            None => {
                while let Some((decision, frame)) = job.recall(&mut self.flow_cache, &mut frames).zip(frames.next()) {
                    job.carry_out(decision, frame, Color::Green);
                }
            }
            Some(meter) => {
                for mut frame in &mut frames {
                    let color = job.color(meter, &mut frame, Color::Green);
                    if color == Color::Red {
                        job.egress.discard(frame, cx.source, DropReason::MeterFrom);
                        continue;
                    }
                    let decision = self.flow_cache.decide(&context, frame.data());
                    job.carry_out(decision, frame, color);
                }
            }
        }
        drop(frames);
        egress.send_staged(&cx);
        counters.set_lookups(self.flow_cache.lookups());
    }
}

/// The frames of a burst, while they are staged.
struct Job<'a, 's> {
    receivers: &'a mut Vec<(PortNo, TagEdit)>,
    context: &'a BurstContext<'s>,
    cx: &'a SendContext<'s>,
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

    /// Does with a frame what was decided. `color` is what the meters before have called it.
    fn carry_out(&mut self, decision: Decision<'_>, mut frame: Frame, mut color: Color) {
        let (source, turn) = (self.cx.source, &self.cx.turn);
        if let Some(rule) = decision.rule {
            rule.applied(turn.worker, frame.len());
            let mut mirror = rule.action.mirror;
            // A receiver's own copy is enough, unless the rule's meter takes it away.
            if let Some(to) = mirror.take_if(|to| !self.is_receiver(&decision, *to, frame.len())) {
                self.mirror(&frame, to, color);
            }
            if let Some(meter) = &rule.meter
                && !matches!(decision.verdict, Verdict::Drop(_))
            {
                let before = color;
                color = self.color(meter, &mut frame, color);
                if color == Color::Red {
                    if let Some(to) = mirror {
                        self.mirror(&frame, to, before);
                    }
                    return self.egress.discard(frame, source, DropReason::MeterRule);
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
                    turn.shard_of(asked).redirected(frame.len());
                }
                self.egress.stage(frame, bridge::Egress::new(port, edit, queue), color, self.cx);
            }
            Verdict::Flood { vid, tag } => self.flood(frame, vid, tag, color),
        }
    }

    #[inline]
    fn color(&self, meter: &Meter, frame: &mut Frame, before: Color) -> Color {
        let len = frame.len();
        self.cx.color(meter, frame, len, before)
    }

    /// Whether the port where a rule's mirror ends gets a frame of that length anyway.
    fn is_receiver(&self, decision: &Decision<'_>, mirror: PortNo, len: usize) -> bool {
        let snapshot = self.context.snap;
        is_receiver(snapshot, self.context.ingress, decision, snapshot.exit(mirror), len)
    }

    /// Sends a copy of a frame as it is to a rule's mirror.
    fn mirror(&mut self, frame: &Frame, mirror: PortNo, color: Color) {
        let (turn, len) = (&self.cx.turn, frame.len());
        let snapshot = &turn.view.snapshot;
        let exit = snapshot.exit(mirror);
        let refused = match mirror_check(snapshot, self.context.ingress, exit, frame.data()) {
            Err(DropReason::SamePort) => return,
            Err(reason) => Some(reason),
            Ok(()) => None,
        };
        self.cx.source.mirrored(len);
        if exit != mirror {
            turn.shard_of(mirror).redirected(len);
        }
        match refused.map_or_else(|| self.egress.copy(frame).ok_or(DropReason::NoFrame), Err) {
            Ok(copy) => self.egress.stage(copy, bridge::Egress::new(exit, TagEdit::None, None), color, self.cx),
            Err(reason) => turn.shard_of(exit).dropped(reason, len),
        }
    }

    /// Sends a frame to every receiver of its VLAN: a copy to each but the last, which gets the frame itself.
    fn flood(&mut self, frame: Frame, vid: Vid, tag: Option<Tag>, color: Color) {
        let (source, turn, len) = (self.cx.source, &self.cx.turn, frame.len());
        let snapshot = &turn.view.snapshot;
        let mut refused = 0;
        for &port in snapshot.flood_ports(vid) {
            match flood_verdict(snapshot, self.context.ingress, port, vid, tag, len) {
                FloodVerdict::Send { port: exit, edit } => {
                    if exit != port {
                        turn.shard_of(port).redirected(len);
                    }
                    self.receivers.push((exit, edit));
                }
                FloodVerdict::Skip => {}
                FloodVerdict::Drop(reason) => {
                    turn.shard_of(snapshot.exit(port)).dropped(reason, len);
                    refused += 1;
                }
            }
        }
        source.flooded((self.receivers.len() + refused).saturating_sub(1), len);
        let Some((last, last_edit)) = self.receivers.pop() else {
            if refused == 0 {
                source.dropped(DropReason::NoDestination, len);
            }
            return self.egress.cache().put(frame);
        };
        for (port, edit) in self.receivers.drain(..) {
            match self.egress.copy(&frame) {
                Some(copy) => self.egress.stage(copy, bridge::Egress::new(port, edit, None), color, self.cx),
                None => turn.shard_of(port).dropped(DropReason::NoFrame, len),
            }
        }
        self.egress.stage(frame, bridge::Egress::new(last, last_edit, None), color, self.cx);
    }
}
