//! What the parts of a worker are told of the turn and of the burst that they work on.

use std::sync::Arc;

use super::frames::{Left, total_len, total_packets};
use super::shared::{Shared, WorkerShared};
use super::view::{PortShared, View};
use crate::capture::Tap;
use crate::counters::PortShard;
use crate::engine::PortNo;
use crate::engine::meter::{Color, Meter, remark};
use crate::io::umem::{Frame, Umem};
use crate::model::{Count, Direction};

/// Whose turn it is, and what it goes by.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    /// Number of the worker.
    pub(super) worker: usize,
    pub(super) shared: &'a Shared,
    pub(super) view: &'a View,
}

impl<'a> Turn<'a> {
    /// What everybody knows of this worker.
    #[inline]
    pub(super) fn me(&self) -> &'a WorkerShared {
        &self.shared.workers[self.worker]
    }

    /// This worker's counters of a port that is there.
    #[inline]
    pub(super) fn shard(&self, port: &'a PortShared) -> &'a PortShard {
        &port.shards[self.worker]
    }

    /// Where drops on the way out to a port count.
    pub(super) fn shard_of(&self, port: PortNo) -> &'a PortShard {
        self.view.port(port).map_or(&self.me().orphans, |port| &port.shards[self.worker])
    }

    /// A burst from `source`, at the time that it is now.
    #[inline]
    pub(super) fn burst(self, source: &'a PortShard) -> SendContext<'a> {
        self.burst_with(source, Left::Nothing)
    }

    /// The same, if something may be left to be done with its frames.
    #[inline]
    pub(super) fn burst_with(self, source: &'a PortShard, left: Left) -> SendContext<'a> {
        let now_ns = if self.view.metered { self.shared.now_ns() } else { 0 };
        SendContext { turn: self, source, now_ns, left }
    }

    /// Counts a burst in from a queue, and shows it to who captures at the port.
    #[inline(always)]
    pub(super) fn count_in(&self, burst: &[Frame], came: Count, port: &PortShared, queue: u32, umem: &Umem) {
        port.queues[queue as usize].counters.rx.add(came.packets, came.bytes);
        let taps = self.view.taps(port.no);
        if !taps.is_empty() {
            show(taps, burst, port.no, queue, umem);
        }
    }
}

/// Shows a burst that came in by a queue of `port` to who captures there.
#[cold]
fn show(taps: &[Arc<Tap>], burst: &[Frame], port: PortNo, queue: u32, umem: &Umem) {
    for tap in taps {
        for frame in burst {
            tap.offer(port, queue, Direction::Rx, frame.packet_len(), umem.pieces(frame));
        }
    }
}

/// What the frames of a burst have in common on their way.
pub(super) struct SendContext<'a> {
    pub(super) turn: Turn<'a>,
    /// Counters of what they came from: a port, or a component.
    pub(super) source: &'a PortShard,
    /// The time by which meters go. 0 if there are none.
    pub(super) now_ns: u64,
    /// What is left to be done with them.
    pub(super) left: Left,
}

impl SendContext<'_> {
    /// Whether `meter` has tokens for all of a burst. If not, each frame asks for itself.
    #[inline]
    pub(super) fn takes_all(&self, meter: &Meter, frames: usize, bytes: usize) -> bool {
        meter.take_all(self.turn.worker, frames, bytes, self.now_ns)
    }

    /// Whether `meter` has tokens for all segments of a frame that is to be cut, if each grows by so many bytes.
    pub(super) fn takes_segments(&self, meter: &Meter, frame: &Frame, growth: isize) -> bool {
        let wire = frame.wire();
        let (packets, bytes) = (total_packets(wire), total_len(wire));
        self.takes_all(meter, packets, bytes.saturating_add_signed(growth.saturating_mul(packets.cast_signed())))
    }

    /// The colour that a meter gives a frame which had the colour `before`, and is `len` bytes long when it goes out.
    /// It marks a yellow one, if it is to.
    #[inline]
    pub(super) fn color(&self, meter: &Meter, frame: &mut Frame, len: usize, before: Color) -> Color {
        let color = meter.color(self.turn.worker, len, before, self.now_ns);
        if color == Color::Yellow
            && let Some(dscp) = meter.yellow_dscp()
        {
            let (start, len) = (frame.start(), frame.len());
            remark(&mut frame.chunk_mut()[start..start + len], dscp);
        }
        color
    }
}
