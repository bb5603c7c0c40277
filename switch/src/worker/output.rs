//! The way out: frames of a burst that were told where to go are staged, and go in order, run by run.
//!
//! A run is what goes to one port (and queue) without a frame for another in between; most bursts are one or a few. What its frames have
//! in common is asked for once: the meter of what the port is sent lets all of a run pass if it has tokens for it.

use super::routes::Hop;
use super::{BURST, Transit, Way, Worker};
use crate::counters::PortShard;
use crate::engine::PortNo;
use crate::engine::drop::DropReason;
use crate::engine::meter::{Color, Meter};
use crate::engine::parse::flow_hash;
use crate::engine::vlan::{self, TagEdit};
use crate::io::umem::{Frame, Umem};
use crate::model::Direction;

/// Frames staged at most: copies of a flood may be more than the burst had.
pub(super) const STAGED: usize = 4 * BURST;

/// A frame that was told where to go.
#[derive(Debug)]
#[repr(align(32))]
pub(super) struct Staged {
    frame: Frame,
    egress: PortNo,
    edit: TagEdit,
    queue: Option<u32>,
    color: Color,
}

impl Staged {
    /// Bytes that it goes out with.
    #[inline]
    fn len_out(&self) -> usize {
        self.frame.len().saturating_add_signed(self.edit.grows_by() as isize)
    }

    /// The frame with its tag as it is to be; counts a change of that at the port that it came from.
    #[inline]
    fn edited(self, umem: &Umem, from: &PortShard) -> Frame {
        let Self { mut frame, edit, .. } = self;
        if edit != TagEdit::None {
            let (start, len) = (frame.start(), frame.len());
            let (start, len) = vlan::apply(edit, umem.chunk_mut(&mut frame), start, len);
            frame.set(start, len);
            from.retagged(edit.grows_by());
        }
        frame
    }
}

impl Worker {
    /// Stages a frame for a port, to leave by `queue` if one is named.
    #[inline]
    pub(super) fn output(&mut self, frame: Frame, egress: PortNo, edit: TagEdit, queue: Option<u32>, way: &Way<'_>) {
        if self.staged.len() == STAGED {
            self.depart(way);
        }
        self.staged.push(Staged { frame, egress, edit, queue, color: way.color });
    }

    /// Sends all that is staged on its way.
    pub(super) fn depart(&mut self, way: &Way<'_>) {
        let mut staged = std::mem::take(&mut self.staged);
        let mut waiting = staged.drain(..);
        while let Some(&Staged { egress, queue, .. }) = waiting.as_slice().first() {
            let run = waiting.as_slice().iter().take_while(|next| next.egress == egress && next.queue == queue);
            let (frames, bytes) = run.fold((0, 0), |(frames, bytes), staged| (frames + 1, bytes + staged.len_out()));
            let meter = way.view.meters.to(egress);
            let meter = meter.filter(|meter| !meter.take_all(self.id, frames, bytes, way.now_ns));
            let hop = self.routes.fixed(egress, queue);
            if let (None, Some(Hop::Here(slot))) = (meter, hop) {
                let next = |umem: &Umem| waiting.next().map(|staged| staged.edited(umem, way.shard));
                let sent = self.transmit(slot, frames, next);
                for staged in waiting.by_ref().take(frames - sent) {
                    let frame = staged.edited(&self.umem, way.shard);
                    self.refuse(slot, frame);
                }
            } else {
                for staged in waiting.by_ref().take(frames) {
                    self.send_off(staged, meter.map(AsRef::as_ref), hop, way);
                }
            }
        }
        drop(waiting);
        self.staged = staged;
    }

    /// Asks `meter`, if one is left to ask, and puts the frame at the port's queue, here or at the worker that has it; by its
    /// flow if `hop` is none.
    fn send_off(&mut self, staged: Staged, meter: Option<&Meter>, hop: Option<Hop>, way: &Way<'_>) {
        let (view, egress) = (way.view, staged.egress);
        let mut staged = staged;
        let len = staged.len_out();
        if let Some(meter) = meter
            && self.color(meter, &mut staged.frame, len, staged.color, way) == Color::Red
        {
            self.shard_of(view, egress).dropped(DropReason::MeterTo, staged.frame.len());
            return self.cache.put(staged.frame);
        }
        let frame = staged.edited(&self.umem, way.shard);
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
        let mut frame = Some(frame);
        self.transmit(slot, 1, |_| frame.take());
        if let Some(frame) = frame {
            self.refuse(slot, frame);
        }
    }

    /// Stages `count` frames, which `next` is asked for, at a queue of this worker; returns how many: fewer if its ring is full.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        slot: usize,
        count: usize,
        mut next: impl FnMut(&Umem) -> Option<Frame>,
    ) -> usize {
        let Self { queues, umem, cache, view, .. } = self;
        let queue = &mut queues[slot];
        let (no, number) = (queue.port.no, queue.number);
        let taps = view.taps(no);
        queue.send(count, cache, || {
            let frame = next(umem)?;
            taps.iter().for_each(|tap| tap.offer(no, number, Direction::Tx, umem.data(&frame)));
            Some(frame)
        })
    }

    /// Drops a frame that a queue of this worker has no room for.
    #[cold]
    pub(super) fn refuse(&mut self, slot: usize, frame: Frame) {
        let queue = &self.queues[slot];
        let reason = if queue.socket.is_gone() { DropReason::PortGone } else { DropReason::TxRingFull };
        queue.port.shards[self.id].dropped(reason, frame.len());
        self.cache.put(frame);
    }
}
