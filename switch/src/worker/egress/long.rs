//! Packets that are to be cut, and those of several chunks, on their way out.
//!
//! Meters and counters take them for the segments that they are on a wire. Meters pass them whole if they have tokens
//! for all segments. A queue that takes such packets gets them whole. Others get segments, and so does who captures.

use std::vec::Drain;

use super::next_hops::Hop;
use super::sender::{Sender, growth};
use crate::engine::bridge::Run;
use crate::engine::meter::Meter;
use crate::engine::vlan::{self, TagEdit};
use crate::io::umem::{Frame, Segments};
use crate::model::{Count, Direction, DropReason};
use crate::worker::frames::{BURST, count, total_len};
use crate::worker::turn::{SendContext, Turn};

impl Sender {
    /// Sends the first of `frames`, as many as the run has, one by one.
    #[inline(never)]
    pub(super) fn send_each(&mut self, run: Run, frames: &mut Drain<'_, Frame>, cx: &SendContext<'_>) {
        let port = run.egress.port();
        let meter = cx.turn.view.meters.to(port).map(AsRef::as_ref);
        let hop = self.next_hops.fixed(port, run.egress.queue());
        for frame in frames.take(run.frames) {
            if frame.is_to_be_cut() {
                self.send_off_long(frame, run, meter, hop, cx);
            } else {
                self.send_off(frame, run, meter, hop, cx);
            }
        }
    }

    /// As [`Sender::send_off`]. If `meter` has too few tokens for all of the packet, its segments go one by one.
    fn send_off_long(
        &mut self,
        mut frame: Frame,
        run: Run,
        meter: Option<&Meter>,
        hop: Option<Hop>,
        cx: &SendContext<'_>,
    ) {
        let (port, edit, turn) = (run.egress.port(), run.egress.edit(), &cx.turn);
        if let Some(meter) = meter
            && !cx.takes_segments(meter, &frame, growth(edit))
        {
            let mut segments = Segments::new(frame);
            while let Some(segment) = segments.next(&mut self.cache) {
                self.send_off(segment, run, Some(meter), hop, cx);
            }
            self.drop_rest(segments, DropReason::NoFrame, || turn.shard_of(port));
            return;
        }
        if edit != TagEdit::None {
            let packets = frame.wire().packets;
            let (start, len) = (frame.start(), frame.len());
            let (start, len) = vlan::apply(edit, frame.chunk_mut(), start, len);
            frame.set(start, len);
            cx.source.retagged_all(edit.grows_by(), packets);
        }
        self.send_by(frame, port, hop, turn);
    }

    /// Does what is left to be done with a frame for a queue of this worker that does not do it. Returns the frame if
    /// it is still to be sent.
    #[inline(never)]
    pub(super) fn prepare(&mut self, slot: usize, mut frame: Frame, turn: &Turn<'_>) -> Option<Frame> {
        if frame.is_chained() {
            self.send_chained(slot, frame, turn);
            return None;
        }
        let queue = self.queues.at(slot);
        let is_taken = queue.backend.takes_offloads() && turn.view.taps(queue.port.no).is_empty();
        if !frame.is_to_be_cut() {
            if !is_taken {
                self.cache.complete(&mut frame);
                frame.fill_checksum();
            }
            return Some(frame);
        }
        if is_taken {
            let (all, sent) = (frame.wire(), queue.send_long(&mut frame));
            if sent.packets < all.packets {
                let refused = Count { packets: all.packets - sent.packets, bytes: all.bytes - sent.bytes };
                queue.port.shards[turn.worker].dropped_all(queue.refusal(), refused);
            }
            self.cache.put(frame);
        } else {
            self.send_segments(slot, frame, turn);
        }
        None
    }

    /// Stages a packet of several chunks at a queue of this worker. Who captures there gets a copy.
    fn send_chained(&mut self, slot: usize, packet: Frame, turn: &Turn<'_>) {
        let queue = self.queues.at(slot);
        let shard = &queue.port.shards[turn.worker];
        if !queue.backend.takes_chains() {
            shard.dropped_all(DropReason::EgressMtu, packet.wire());
            return self.cache.put(packet);
        }
        for tap in turn.view.taps(queue.port.no) {
            let pieces = self.cache.umem().pieces(&packet);
            tap.offer(queue.port.no, queue.number, Direction::Tx, packet.packet_len(), pieces);
        }
        if let Err(packet) = queue.send_chained(packet, &mut self.cache) {
            queue.port.shards[turn.worker].dropped_all(queue.refusal(), packet.wire());
            self.cache.put(packet);
        }
    }

    /// Stages the segments of a packet at a queue of this worker.
    fn send_segments(&mut self, slot: usize, frame: Frame, turn: &Turn<'_>) {
        let (mut segments, mut reason) = (Segments::new(frame), DropReason::NoFrame);
        let mut burst = std::mem::take(&mut self.segments);
        loop {
            while burst.len() < BURST
                && let Some(segment) = segments.next(&mut self.cache)
            {
                burst.push(segment);
            }
            if burst.is_empty() {
                break;
            }
            let (all, bytes) = (burst.len(), total_len(count(&burst)));
            let mut frames = burst.drain(..);
            let sent = self.transmit(slot, all, bytes, frames.by_ref(), turn.view);
            frames.for_each(|frame| self.refuse(slot, frame, turn.worker));
            if sent < all {
                reason = self.queues.at(slot).refusal();
                break;
            }
        }
        self.segments = burst;
        let shard = self.queues.at(slot).port.clone();
        self.drop_rest(segments, reason, || &shard.shards[turn.worker]);
    }

    /// Drops what is left of a packet.
    fn drop_rest<'a>(
        &mut self,
        segments: Segments,
        reason: DropReason,
        shard: impl FnOnce() -> &'a crate::counters::PortShard,
    ) {
        let left = segments.left();
        if left.packets > 0 {
            shard().dropped_all(reason, left);
        }
        segments.finish(&mut self.cache);
    }
}
