//! Sends runs: the meter of the egress port, the tag edit, the next hop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec::Drain;

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use xdp_prog::FlowMark;

use super::next_hops::{Hop, NextHops};
use super::own_queues::OwnQueues;
use super::peers::{Peers, Transit};
use crate::counters::PortShard;
use crate::engine::PortNo;
use crate::engine::bridge::Run;
use crate::engine::meter::{Color, Meter};
use crate::engine::parse::flow_hash;
use crate::engine::vlan::TagEdit;
use crate::io::umem::{Frame, FrameCache};
use crate::model::{Direction, DropReason};
use crate::offload::Offload;
use crate::worker::frames::{BURST, Left, edit_tag};
use crate::worker::shared::Shared;
use crate::worker::turn::{SendContext, Turn};
use crate::worker::view::View;

/// Numbers of the flow table that are kept until their frames have left.
const MARKS: usize = 1024;

/// The frame with its tag as it is to be.
#[inline(always)]
fn edited(frame: Frame, edit: TagEdit, source: &PortShard) -> Frame {
    if edit == TagEdit::None { frame } else { with_edit(frame, edit, source) }
}

#[inline(never)]
fn with_edit(mut frame: Frame, edit: TagEdit, source: &PortShard) -> Frame {
    edit_tag(&mut frame, edit, source);
    frame
}

/// All that sending needs: the worker's queues, its free frames, and the way to other workers.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) cache: FrameCache,
    pub(super) queues: OwnQueues,
    pub(super) next_hops: NextHops,
    pub(super) peers: Peers,
    /// Segments of one packet, on their way to a queue. Empty between packets.
    pub(super) segments: Vec<Frame>,
    /// Frames that are kept until the table of their bond changes, oldest first.
    pub(super) held: VecDeque<(PortNo, Frame)>,
    /// Numbers of the flow table whose frames were staged, and may not have left yet.
    leaving: Vec<FlowMark>,
}

impl Sender {
    /// Without queues.
    pub(super) fn new(cache: FrameCache, event: &EventFd, peers: Peers) -> Result<Self, Errno> {
        let segments = Vec::with_capacity(BURST);
        Ok(Self {
            cache,
            queues: OwnQueues::new(event)?,
            next_hops: NextHops::default(),
            peers,
            segments,
            held: VecDeque::new(),
            leaving: Vec::with_capacity(MARKS),
        })
    }

    /// A copy of a frame, if enough are free.
    #[inline]
    pub(super) fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.cache.take()?;
        if !frame.is_plain() {
            return self.copy_unfinished(frame, copy);
        }
        // It fits where the original is, also if a component has put a tag on that.
        copy.copy_from(frame);
        Some(copy)
    }

    /// Makes a copy of a frame with something left to be done, or of several chunks. All of its bytes are there.
    #[inline(never)]
    fn copy_unfinished(&mut self, frame: &Frame, mut copy: Frame) -> Option<Frame> {
        let cache = &mut self.cache;
        let umem = Arc::clone(cache.umem());
        if frame.is_chained() {
            cache.put(copy);
            return cache.copy_packet(&umem, frame);
        }
        umem.copy(frame, &mut copy);
        cache.complete(&mut copy);
        Some(copy)
    }

    /// Drops a frame. It counts at `shard`.
    pub(super) fn discard(&mut self, frame: Frame, shard: &PortShard, reason: DropReason) {
        shard.dropped_all(reason, frame.wire());
        self.cache.put(frame);
    }

    /// Sends the first of `frames`, as many as the run has.
    pub(super) fn send_run(&mut self, run: Run, frames: &mut Drain<'_, Frame>, cx: &SendContext<'_>) {
        if cx.left == Left::Long {
            return self.send_each(run, frames, cx);
        }
        let (port, edit) = (run.egress.port(), run.egress.edit());
        let bytes = run.bytes.saturating_add_signed(growth(edit).saturating_mul(run.frames.cast_signed()));
        let view = cx.turn.view;
        let meter = view.meters.to(port).filter(|meter| !cx.takes_all(meter, run.frames, bytes));
        let hop = self.next_hops.fixed(port, run.egress.queue());
        if let (None, Some(Hop::Here(slot))) = (meter, hop)
            && (cx.left == Left::Nothing || !self.needs_rests(slot, &frames.as_slice()[..run.frames], view))
        {
            let is_captured = !view.taps(port).is_empty();
            let is_left = cx.left != Left::Nothing && (is_captured || !self.queues.at(slot).backend.takes_offloads());
            let sent = if edit == TagEdit::None && !is_captured && !is_left {
                self.queues.at(slot).send(run.frames, bytes, &mut self.cache, frames)
            } else {
                let edited = frames.by_ref().map(|frame| filled(edited(frame, edit, cx.source), is_left));
                self.transmit(slot, run.frames, bytes, edited, view)
            };
            for frame in frames.take(run.frames - sent) {
                self.refuse(slot, edited(frame, edit, cx.source), cx.turn.worker);
            }
        } else {
            for frame in frames.take(run.frames) {
                self.send_off(frame, run, meter.map(AsRef::as_ref), hop, cx);
            }
        }
    }

    /// Whether frames are to be completed for a queue of this worker. That is done one by one.
    #[inline(never)]
    fn needs_rests(&mut self, slot: usize, frames: &[Frame], view: &View) -> bool {
        let queue = self.queues.at(slot);
        let takes_rests = queue.backend.takes_offloads() && view.taps(queue.port.no).is_empty();
        !takes_rests && frames.iter().any(|frame| frame.rest().is_some())
    }

    /// Sends one frame of a run, if `meter`, where one is left to ask, has tokens for it. It goes by its flow if `hop`
    /// is none.
    pub(super) fn send_off(
        &mut self,
        mut frame: Frame,
        run: Run,
        meter: Option<&Meter>,
        hop: Option<Hop>,
        cx: &SendContext<'_>,
    ) {
        let (port, edit, turn) = (run.egress.port(), run.egress.edit(), &cx.turn);
        let len = frame.packet_len().saturating_add_signed(growth(edit));
        if let Some(meter) = meter
            && cx.color(meter, &mut frame, len, run.color) == Color::Red
        {
            return self.discard(frame, turn.shard_of(port), DropReason::MeterTo);
        }
        self.send_by(edited(frame, edit, cx.source), port, hop, turn);
    }

    /// Sends a frame by `hop`, or by its flow if that is none.
    #[inline]
    pub(super) fn send_by(&mut self, mut frame: Frame, port: PortNo, hop: Option<Hop>, turn: &Turn<'_>) {
        match hop.unwrap_or_else(|| self.next_hops.by_flow(port, flow_hash(frame.data()))) {
            Hop::Here(slot) => self.send_one(slot, frame, turn),
            Hop::There { worker, queue, generation } => {
                // The other worker sends it later.
                self.cache.complete(&mut frame);
                let transit = Transit::Frame { frame, port, generation, queue };
                if let Err(Transit::Frame { frame, .. }) = self.peers.hand_over(worker, transit) {
                    self.discard(frame, turn.shard_of(port), DropReason::WorkerRingFull);
                }
            }
            Hop::Bond(bond) => self.send_by_bond(bond, frame, port, turn),
            Hop::Nowhere => self.discard(frame, turn.shard_of(port), DropReason::PortGone),
        }
    }

    /// Does what another worker handed over is for.
    pub(super) fn take_over(&mut self, transit: Transit, turn: &Turn<'_>) {
        match transit {
            Transit::Frame { frame, port, generation, queue } => match self.queues.slot_of(port, generation, queue) {
                Some(slot) => self.send_one(slot, frame, turn),
                None => self.discard(frame, &turn.me().orphans, DropReason::PortGone),
            },
            Transit::Mark(mark) => self.leave(mark),
        }
    }

    /// Keeps a number until its frame has left. Beyond [`MARKS`] it is lost, and the flow waits for a later one.
    fn leave(&mut self, mark: FlowMark) {
        if self.leaving.len() < MARKS {
            self.leaving.push(mark);
        }
    }

    /// Frames with these numbers were staged, or handed over to the workers that send them.
    #[cold]
    pub(super) fn staged(&mut self, marks: impl Iterator<Item = FlowMark>, offload: &Offload, me: usize) {
        for mark in marks {
            match offload.way(mark.slot).0 {
                worker if worker == me => self.leave(mark),
                // Without room the number is lost, and the flow waits for a later one.
                worker => drop(self.peers.hand_over(worker, Transit::Mark(mark))),
            }
        }
    }

    /// The end of a turn: says which numbers have left. Those wait whose queue has frames that the kernel has not
    /// taken.
    #[cold]
    fn say_what_left(&mut self, shared: &Shared) {
        let Some(offload) = shared.offload.get() else { return self.leaving.clear() };
        let queues = self.queues.as_slice();
        self.leaving.retain(|mark| {
            let (_, port) = offload.way(mark.slot);
            let waits = queues.iter().any(|queue| queue.port.no == port && queue.is_dirty());
            if !waits {
                offload.left(*mark);
            }
            waits
        });
    }

    /// The end of a turn: what went to queues is shown to the kernel, and workers that were sent something are woken.
    #[inline]
    pub(super) fn flush(&mut self, shared: &Shared) {
        self.queues.flush(&mut self.cache);
        if !self.leaving.is_empty() {
            self.say_what_left(shared);
        }
        self.peers.flush(shared);
    }

    /// Stages a frame at a queue of this worker.
    fn send_one(&mut self, slot: usize, frame: Frame, turn: &Turn<'_>) {
        let frame = if frame.is_plain() { Some(frame) } else { self.prepare(slot, frame, turn) };
        let Some(frame) = frame else { return };
        let (bytes, mut frame) = (frame.len(), Some(frame));
        self.transmit(slot, 1, bytes, std::iter::from_fn(|| frame.take()), turn.view);
        if let Some(frame) = frame {
            self.refuse(slot, frame, turn.worker);
        }
    }

    /// Stages the first `count` of `frames`, of `bytes` in all, at a queue of this worker. Who captures there gets
    /// copies. Returns how many: fewer if the ring is full. Then the caller drops the rest by [`Sender::refuse`].
    pub(super) fn transmit(
        &mut self,
        slot: usize,
        count: usize,
        bytes: usize,
        frames: impl Iterator<Item = Frame>,
        view: &View,
    ) -> usize {
        let queue = self.queues.at(slot);
        let (no, number): (PortNo, u32) = (queue.port.no, queue.number);
        let taps = view.taps(no);
        let mut frames = frames.inspect(|frame| {
            for tap in taps {
                tap.offer(no, number, Direction::Tx, frame.len(), std::iter::once(frame.data()));
            }
        });
        queue.send(count, bytes, &mut self.cache, &mut frames)
    }

    /// Drops a frame that a queue of this worker had no room for.
    #[cold]
    pub(super) fn refuse(&mut self, slot: usize, frame: Frame, worker: usize) {
        let queue = self.queues.at(slot);
        queue.unsent(frame.len());
        queue.port.shards[worker].dropped(queue.refusal(), frame.len());
        self.cache.put(frame);
    }
}

/// The frame with its checksum, if that is to be made.
#[inline(always)]
fn filled(mut frame: Frame, is_left: bool) -> Frame {
    if is_left {
        frame.fill_checksum();
    }
    frame
}

/// Bytes that a frame grows by.
#[inline]
pub(super) fn growth(edit: TagEdit) -> isize {
    edit.grows_by() as isize
}
