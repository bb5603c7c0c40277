//! The way out: frames of a burst that were told where to go are staged, and go in order, run by run.
//!
//! A run is what goes to one port without a frame for another in between; most bursts are one or a few. What its frames have
//! in common is asked for once: the meter of what the port is sent lets all of a run pass if it has tokens for it.

use super::routes::Hop;
use super::{BURST, Transit, Way, Worker};
use crate::engine::PortNo;
use crate::engine::drop::DropReason;
use crate::engine::meter::{Color, Meter};
use crate::engine::parse::flow_hash;
use crate::engine::vlan::{self, TagEdit};
use crate::io::umem::Frame;

/// Frames staged at most: copies of a flood may be more than the burst had.
pub(super) const STAGED: usize = 4 * BURST;

/// A frame that was told where to go.
#[derive(Debug)]
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
        while let Some(&Staged { egress, .. }) = waiting.as_slice().first() {
            let run = waiting.as_slice().iter().take_while(|staged| staged.egress == egress);
            let (frames, bytes) = run.fold((0, 0), |(frames, bytes), staged| (frames + 1, bytes + staged.len_out()));
            let meter = way.view.meters.to(egress);
            let meter = meter.filter(|meter| !meter.take_all(self.id, frames, bytes, way.now_ns));
            for staged in waiting.by_ref().take(frames) {
                self.send_off(staged, meter.map(AsRef::as_ref), way);
            }
        }
        drop(waiting);
        self.staged = staged;
    }

    /// Asks `meter`, if one is left to ask, edits the frame's tag and puts it at the port's queue, here or at the worker that
    /// has it.
    #[inline]
    fn send_off(&mut self, staged: Staged, meter: Option<&Meter>, way: &Way<'_>) {
        let (view, len) = (way.view, staged.len_out());
        let Staged { mut frame, egress, edit, queue, color } = staged;
        if let Some(meter) = meter
            && self.color(meter, &mut frame, len, color, way) == Color::Red
        {
            self.shard_of(view, egress).dropped(DropReason::MeterTo, frame.len());
            return self.cache.put(frame);
        }
        if edit != TagEdit::None {
            let (start, len) = (frame.start(), frame.len());
            let (start, len) = vlan::apply(edit, self.umem.chunk_mut(&mut frame), start, len);
            frame.set(start, len);
            way.shard.retagged(edit.grows_by());
        }
        match self.routes.pick(egress, queue, || flow_hash(self.umem.data(&frame))) {
            Hop::Here(slot) => self.transmit(slot, frame),
            Hop::There { worker, queue, generation } => {
                self.hand_over(worker, Transit { frame, port: egress, generation, queue }, view);
            }
            Hop::Nowhere => {
                self.shard_of(view, egress).dropped(DropReason::PortGone, frame.len());
                self.cache.put(frame);
            }
        }
    }
}
