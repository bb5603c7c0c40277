//! The way out: frames of a burst that were told where to go are staged, and go in order, run by run.
//!
//! A run is what goes to one port (and queue) without a frame for another in between; most bursts are one or a few. What its frames have
//! in common is asked for once: the meter of what the port is sent lets all of a run pass if it has tokens for it.

use std::sync::Arc;
use std::vec::Drain;

use super::routes::Hop;
use super::{BURST, Transit, Way, Worker};
use crate::counters::PortShard;
use crate::engine::bridge::{BurstContext, Decision, Egress, Run};
use crate::engine::meter::{Color, Meter};
use crate::engine::parse::flow_hash;
use crate::engine::vlan::{self, TagEdit};
use crate::io::umem::{Frame, Umem};
use crate::model::{Direction, DropReason};

/// Frames staged at most: copies of a flood may be more than the burst had.
pub(super) const STAGED: usize = 4 * BURST;

/// The frame with its tag as it is to be; counts a change of that at the port that it came from.
#[inline(always)]
fn edited(frame: Frame, edit: TagEdit, umem: &Umem, from: &PortShard) -> Frame {
    if edit == TagEdit::None { frame } else { with_edit(frame, edit, umem, from) }
}

#[inline(never)]
fn with_edit(frame: Frame, edit: TagEdit, umem: &Umem, from: &PortShard) -> Frame {
    let mut frame = frame;
    let (start, len) = (frame.start(), frame.len());
    let (start, len) = vlan::apply(edit, umem.chunk_mut(&mut frame), start, len);
    frame.set(start, len);
    from.retagged(edit.grows_by());
    frame
}

impl Worker {
    /// Stages frames whose ways are remembered or found together, up to the first that is decided on by itself or needs more than to be sent;
    /// returns what was decided on that one.
    pub(super) fn stage_cached<'a>(
        &mut self,
        context: &BurstContext<'a>,
        frames: &mut Drain<'_, Frame>,
        way: &Way<'_>,
    ) -> Option<Decision<'a>> {
        let coming = frames.as_slice();
        if self.staged.len() + coming.len() > STAGED {
            self.depart(way);
        }
        let umem = &*self.umem;
        let data = coming.iter().map(|frame| umem.data(frame));
        let (cached, decision) = self.flow_cache.lookup_burst(context, data, &mut self.runs);
        self.staged.extend(frames.take(cached));
        decision
    }

    /// Stages a frame.
    #[inline]
    pub(super) fn output(&mut self, frame: Frame, egress: Egress, way: &Way<'_>) {
        if self.staged.len() == STAGED {
            self.depart(way);
        }
        Run { egress, color: way.color, frames: 1, bytes: frame.len() }.add_to(&mut self.runs);
        self.staged.push(frame);
    }

    /// Sends all that is staged on its way.
    pub(super) fn depart(&mut self, way: &Way<'_>) {
        let (mut staged, mut runs) = (std::mem::take(&mut self.staged), std::mem::take(&mut self.runs));
        let mut frames = staged.drain(..);
        for run in runs.drain(..) {
            self.send_run(run, &mut frames, way);
        }
        drop(frames);
        (self.staged, self.runs) = (staged, runs);
    }

    /// Sends the next frames, which are a run.
    pub(super) fn send_run(&mut self, run: Run, frames: &mut Drain<'_, Frame>, way: &Way<'_>) {
        let (egress, edit) = (run.egress.port(), run.egress.edit());
        let bytes = run.bytes.saturating_add_signed(run.frames as isize * edit.grows_by() as isize);
        let meter = way.view.meters.to(egress);
        let meter = meter.filter(|meter| !meter.take_all(self.id, run.frames, bytes, way.now_ns));
        let hop = self.routes.fixed(egress, run.egress.queue());
        if let (None, Some(Hop::Here(slot))) = (meter, hop) {
            let sent = if edit == TagEdit::None && way.view.taps(egress).is_empty() {
                self.queues[slot].send(run.frames, bytes, &mut self.cache, frames)
            } else {
                let umem = Arc::clone(&self.umem);
                let edited = frames.by_ref().map(|frame| edited(frame, edit, &umem, way.shard));
                self.transmit(slot, run.frames, bytes, edited)
            };
            for frame in frames.take(run.frames - sent) {
                let frame = edited(frame, edit, &self.umem, way.shard);
                self.refuse(slot, frame);
            }
        } else {
            for frame in frames.take(run.frames) {
                self.send_off(frame, run, meter.map(AsRef::as_ref), hop, way);
            }
        }
    }

    /// Asks `meter`, if one is left to ask, for a frame of a run, and puts it at the port's queue, here or at the worker that has
    /// it; by its flow if `hop` is none.
    fn send_off(&mut self, frame: Frame, run: Run, meter: Option<&Meter>, hop: Option<Hop>, way: &Way<'_>) {
        let (view, egress, edit) = (way.view, run.egress.port(), run.egress.edit());
        let mut frame = frame;
        let len = frame.len().saturating_add_signed(edit.grows_by() as isize);
        if let Some(meter) = meter
            && self.color(meter, &mut frame, len, run.color, way) == Color::Red
        {
            self.shard_of(view, egress).dropped(DropReason::MeterTo, frame.len());
            return self.cache.put(frame);
        }
        let frame = edited(frame, edit, &self.umem, way.shard);
        match hop.unwrap_or_else(|| self.routes.by_flow(egress, flow_hash(self.umem.data(&frame)))) {
            Hop::Here(slot) => self.transmit_one(slot, frame),
            Hop::There { worker, queue, generation } => {
                self.hand_over(worker, Transit { frame, port: egress, generation, queue }, view);
            }
            Hop::Nowhere => {
                self.shard_of(view, egress).dropped(DropReason::PortGone, frame.len());
                self.cache.put(frame);
            }
        }
    }

    /// Stages a frame at a queue of this worker.
    pub(super) fn transmit_one(&mut self, slot: usize, frame: Frame) {
        let (bytes, mut frame) = (frame.len(), Some(frame));
        self.transmit(slot, 1, bytes, std::iter::from_fn(|| frame.take()));
        if let Some(frame) = frame {
            self.refuse(slot, frame);
        }
    }

    /// Stages the first `count` of `frames`, of `bytes` in all, at a queue of this worker, with copies for who captures there; returns
    /// how many: fewer if its ring is full, and then the caller drops the rest by [`Worker::refuse`].
    fn transmit(&mut self, slot: usize, count: usize, bytes: usize, frames: impl Iterator<Item = Frame>) -> usize {
        let Self { queues, umem, cache, view, .. } = self;
        let queue = &mut queues[slot];
        let (no, number) = (queue.port.no, queue.number);
        let taps = view.taps(no);
        let mut frames = frames.inspect(|frame| {
            taps.iter().for_each(|tap| tap.offer(no, number, Direction::Tx, umem.data(frame)));
        });
        queue.send(count, bytes, cache, &mut frames)
    }

    /// Drops a frame that a queue of this worker had no room for.
    #[cold]
    fn refuse(&mut self, slot: usize, frame: Frame) {
        let queue = &mut self.queues[slot];
        queue.unsent(frame.len());
        let reason = if queue.backend.is_gone() { DropReason::PortGone } else { DropReason::TxRingFull };
        queue.port.shards[self.id].dropped(reason, frame.len());
        self.cache.put(frame);
    }
}
