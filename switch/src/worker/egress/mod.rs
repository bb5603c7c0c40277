//! The way out. Frames are staged when their egress is decided. They go in order, run by run.
//!
//! A run is staged frames in a row with the same egress. Most bursts are one run or a few. What its frames have in
//! common is asked for once: the meter of what the port is sent lets all of a run pass if it has tokens for it.
//!
//! The egress has the worker's queues, because any frame that is staged may make it send. Who receives borrows a queue
//! by its slot. It also has the worker's free frames. Bridge and components are its clients.

mod bond;
mod long;
mod next_hops;
mod own_queues;
mod peers;
mod queue;
mod sender;

use std::sync::Arc;
use std::vec::Drain;

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use xdp_prog::FlowMark;

pub(super) use self::own_queues::OwnQueues;
pub(super) use self::peers::Transit;
pub use self::peers::TransitRings;
pub use self::queue::Queue;
pub(super) use self::queue::{Polled, Serves};
use self::sender::Sender;
use super::debt::{COPIED, SENT};
use super::frames::{BURST, total_packets};
use super::shared::Shared;
use super::turn::{SendContext, Turn};
use super::view::View;
use crate::counters::PortShard;
use crate::engine::bridge::{self, Run};
use crate::engine::meter::Color;
use crate::io::umem::{Frame, FrameCache, Segments, Umem};
use crate::model::DropReason;
use crate::offload::Offload;

/// Frames staged at most. Copies of a flood may be more than the burst had.
const STAGED: usize = 4 * BURST;

/// A worker's way out.
#[derive(Debug)]
pub(super) struct Egress {
    /// What a burst's frames became, until all of it goes.
    staged: Vec<Frame>,
    /// Where these go.
    runs: Vec<Run>,
    sender: Sender,
    /// What was staged, and copied for it, so far. It wraps.
    spent: u32,
    is_forgiving: bool,
}

impl Egress {
    /// A way out without queues. Returns also where frames of other workers come in.
    pub(super) fn new(
        umem: Arc<Umem>,
        event: &EventFd,
        rings: TransitRings,
    ) -> Result<(Self, Vec<rtrb::Consumer<Transit>>), Errno> {
        let (inboxes, peers) = rings.into_parts();
        let egress = Self {
            staged: Vec::with_capacity(STAGED),
            runs: Vec::with_capacity(STAGED),
            sender: Sender::new(FrameCache::new(umem), event, peers)?,
            spent: 0,
            is_forgiving: true,
        };
        Ok((egress, inboxes))
    }

    /// Stages a frame. `color` is what meters have called it so far.
    #[inline]
    pub(super) fn stage(&mut self, frame: Frame, egress: bridge::Egress, color: Color, cx: &SendContext<'_>) {
        if self.staged.len() == STAGED {
            self.send_staged(cx);
        }
        let (bytes, work) = if frame.is_plain() { (frame.len(), 1) } else { self.size_of_unfinished(&frame) };
        Run { egress, color, frames: 1, bytes }.add_to(&mut self.runs);
        self.spend(work, SENT);
        self.staged.push(frame);
    }

    /// What frames have cost that were staged, and copied for it, up to now. The difference of two calls tells, also
    /// where it wraps.
    #[inline]
    pub(super) fn spent(&self) -> u32 {
        self.spent
    }

    #[inline]
    fn spend(&mut self, frames: usize, each: u32) {
        #[expect(clippy::cast_possible_truncation, reason = "at most the frames of a burst")]
        let frames = frames as u32;
        self.spent = self.spent.wrapping_add(frames * each);
    }

    /// Stages the first of `frames`, as many as `decide` says, and returns what else it says. `decide` adds the runs of
    /// these frames to those that are staged.
    #[inline]
    pub(super) fn stage_all<R>(
        &mut self,
        frames: &mut Drain<'_, Frame>,
        cx: &SendContext<'_>,
        decide: impl FnOnce(&[Frame], &mut Vec<Run>) -> (usize, R),
    ) -> R {
        let coming = frames.as_slice();
        if self.staged.len() + coming.len() > STAGED {
            self.send_staged(cx);
        }
        let (decided, other) = decide(coming, &mut self.runs);
        self.staged.extend(frames.take(decided));
        self.spend(decided, SENT);
        other
    }

    /// Sends all that is staged.
    pub(super) fn send_staged(&mut self, cx: &SendContext<'_>) {
        let mut frames = self.staged.drain(..);
        for run in self.runs.drain(..) {
            self.sender.send_run(run, &mut frames, cx);
        }
    }

    /// Sends frames that are a run. They need not be staged one by one.
    pub(super) fn send_run(&mut self, run: Run, frames: &mut Drain<'_, Frame>, cx: &SendContext<'_>) {
        self.spend(run.frames, SENT);
        self.sender.send_run(run, frames, cx);
    }

    /// Frames with these numbers of the flow table were sent on their way.
    pub(super) fn staged(&mut self, marks: impl Iterator<Item = FlowMark>, offload: &Offload, me: usize) {
        self.sender.staged(marks, offload, me);
    }

    /// Does what another worker handed over is for.
    pub(super) fn take_over(&mut self, transit: Transit, turn: &Turn<'_>) {
        self.sender.take_over(transit, turn);
    }

    /// Has a worker woken at the end of the turn.
    pub(super) fn wake(&mut self, worker: usize) {
        self.sender.peers.wake(worker);
    }

    /// The end of a turn: what went to queues is shown to the kernel, and workers that were sent something are woken.
    #[inline]
    pub(super) fn flush(&mut self, shared: &Shared) {
        self.sender.flush(shared);
    }

    /// The worker's free frames.
    #[inline]
    pub(super) fn cache(&mut self) -> &mut FrameCache {
        &mut self.sender.cache
    }

    /// Drops a frame. It counts at `shard`.
    pub(super) fn discard(&mut self, frame: Frame, shard: &PortShard, reason: DropReason) {
        self.sender.discard(frame, shard, reason);
    }

    /// Drops what is left of a packet that was to become segments. There were too few free frames for all.
    pub(super) fn discard_segments(&mut self, segments: Segments, shard: &PortShard) {
        let left = segments.left();
        if left.packets > 0 {
            shard.dropped_all(DropReason::NoFrame, left);
        }
        segments.finish(&mut self.sender.cache);
    }

    /// The frames that all queues share.
    #[inline]
    pub(super) fn umem(&self) -> &Umem {
        self.sender.cache.umem()
    }

    /// A copy of a frame, if one is free.
    #[inline]
    pub(super) fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let copy = self.copy_uncharged(frame)?;
        self.charge_copies(if frame.is_plain() { 1 } else { self.size_of_unfinished(frame).1 });
        Some(copy)
    }

    /// Counts copies as work.
    #[inline]
    pub(super) fn charge_copies(&mut self, copies: usize) {
        self.spend(copies, COPIED);
    }

    /// As [`Self::copy`], for loops that [charge](Self::charge_copies) for all of their copies at once.
    #[inline]
    pub(super) fn copy_uncharged(&mut self, frame: &Frame) -> Option<Frame> {
        self.sender.copy(frame)
    }

    /// Bytes of a frame with something left to be done, or of several chunks, and the frames that it counts for as
    /// work.
    #[inline(never)]
    fn size_of_unfinished(&self, frame: &Frame) -> (usize, usize) {
        let work = if frame.is_to_be_cut() { total_packets(frame.wire()) } else { self.umem().chunks(frame) };
        (frame.packet_len(), work)
    }

    /// The worker's queues, by slot.
    #[inline]
    pub(super) fn queues(&self) -> &[Queue] {
        self.sender.queues.as_slice()
    }

    /// The same, and what wakes the worker.
    pub(super) fn queues_mut(&mut self) -> &mut OwnQueues {
        &mut self.sender.queues
    }

    /// Takes a burst of what a queue received, and sees to its rings. Returns how many descriptors there were.
    #[inline]
    pub(super) fn poll(&mut self, slot: usize, burst: &mut Vec<Frame>, view: &View) -> Polled {
        let Sender { queues, cache, .. } = &mut self.sender;
        queues.at(slot).poll(burst, cache, self.is_forgiving, |port| !view.taps(port.no).is_empty())
    }

    /// Whether debts are void in this turn, because the turn before was uncontended.
    #[inline]
    pub(super) fn is_forgiving(&self) -> bool {
        self.is_forgiving
    }

    /// Says whether debts are void in the next turn.
    #[inline]
    pub(super) fn forgive(&mut self, is_forgiving: bool) {
        self.is_forgiving = is_forgiving;
    }

    /// The end of a burst of a queue: its sender gets back what it was left. All its frames are sent, or completed.
    #[inline]
    pub(super) fn release(&mut self, slot: usize) {
        self.sender.queues.at(slot).backend.release(&mut self.sender.cache);
    }

    /// A queue of the worker, by its slot.
    #[inline]
    pub(super) fn queue(&mut self, slot: usize) -> &mut Queue {
        self.sender.queues.at(slot)
    }

    /// Takes a burst of what a queue received, as it would be on a wire. Returns how many descriptors there were.
    #[inline(always)]
    pub(super) fn receive(&mut self, slot: usize, burst: &mut Vec<Frame>) -> usize {
        self.sender.queues.at(slot).receive_cut(burst, &mut self.sender.cache)
    }

    /// Supplies a queue with empty frames. Returns its number.
    #[inline]
    pub(super) fn refill(&mut self, slot: usize) -> u32 {
        let queue = self.sender.queues.at(slot);
        queue.backend.refill(&mut self.sender.cache);
        queue.number
    }

    /// Sees to the rings of a queue that the bridge does not poll.
    #[inline]
    pub(super) fn keep_up(&mut self, slot: usize) {
        self.sender.queues.at(slot).keep_up(&mut self.sender.cache);
    }

    /// Takes back what queues have sent, as far as the kernel has.
    pub(super) fn reap(&mut self) {
        for queue in self.sender.queues.as_mut_slice() {
            queue.reap(&mut self.sender.cache);
        }
    }

    /// Another queue. Its port must be in `view`, or nothing is sent to it.
    pub(super) fn add(&mut self, queue: Queue, turn: &Turn<'_>) {
        self.sender.queues.add(queue);
        self.rebuild_next_hops(turn);
    }

    /// Gives back the queues that are `wanted`.
    pub(super) fn remove(&mut self, wanted: impl Fn(&Queue) -> bool, turn: &Turn<'_>) -> Vec<Queue> {
        self.flush(turn.shared);
        let mut removed = self.sender.queues.remove(wanted);
        removed.iter_mut().for_each(|queue| queue.discard_waiting(&mut self.sender.cache, turn.worker));
        self.rebuild_next_hops(turn);
        removed
    }

    fn rebuild_next_hops(&mut self, turn: &Turn<'_>) {
        self.sender.next_hops.rebuild(turn.view, self.sender.queues.as_slice(), turn.worker);
        self.sender.release_held(turn);
    }

    /// Picks up ports that are new in the view.
    pub(super) fn refresh(&mut self, turn: &Turn<'_>) {
        self.sender.next_hops.keep_up(turn.view, self.sender.queues.as_slice(), turn.worker);
        self.sender.release_held(turn);
    }

    /// Goes by the tables of bonds as they are now, and sends what waited for them.
    pub(super) fn refresh_bonds(&mut self, turn: &Turn<'_>) {
        self.rebuild_next_hops(turn);
    }

    /// Frames that are kept until the table of a bond changes.
    pub(super) fn held(&self) -> usize {
        self.sender.held.len()
    }

    /// From now on frames that come in wake the worker. It looks for work once more, and then may [`wait`](Self::wait).
    pub(super) fn prepare_sleep(&mut self) {
        self.sender.queues.prepare_sleep();
    }

    /// Sleeps until something wakes the worker.
    pub(super) fn wait(&self) {
        self.sender.queues.wait();
    }
}
