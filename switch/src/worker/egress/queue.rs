//! A queue of a port in the hands of its worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::io::backend::Backend;
use crate::io::frame_rings::Flush;
use crate::io::umem::{Frame, FrameCache, Segments};
use crate::model::{Count, DropReason};
use crate::worker::bond::MemberShared;
use crate::worker::debt::Debt;
use crate::worker::frames::BURST;
use crate::worker::view::PortShared;
use crate::worker::watch::{Watch, Watched};

/// Who takes the frames that a queue received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Serves {
    /// The bridge.
    Bridge,
    /// A component.
    Component,
    /// Flow rules. They send frames to ends of other queues. What they leave here is dropped.
    Rules,
    /// None that is ready. They wait, and the kernel counts what the full ring has no room for.
    Nobody,
}

/// A port's queue: what the worker polls, and what it remembers of it.
#[derive(Debug)]
pub struct Queue {
    /// The port.
    pub port: Arc<PortShared>,
    /// Queue of the netdev.
    pub number: u32,
    /// Where its frames come from and go to.
    pub backend: Backend,
    /// The member of a bond that it belongs to.
    member: Option<Arc<MemberShared>>,
    /// Whether frames are staged that the kernel has not taken.
    dirty: bool,
    /// Whether it wakes its worker.
    watched: Watched,
    /// Who takes what it received.
    pub(in crate::worker) serves: Serves,
    /// What was sent since the last flush. It is not counted yet.
    sent: Count,
    /// What its frames have cost too much. Of a queue that the bridge has.
    pub(in crate::worker) debt: Debt,
    /// Frames of a burst that was ended because it cost too much. They were counted in.
    waiting: Vec<Frame>,
    /// Whether the meter of what the port sends has let those pass.
    waiting_metered: bool,
    /// Received frames that are still to become what is on a wire, oldest first. There are some only if somebody wants
    /// them so.
    uncut: VecDeque<Segments>,
}

/// What a turn finds at a queue of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Polled {
    /// So many descriptors, or none. Their frames may cost so much.
    New { taken: usize, budget: u32 },
    /// The rest of an earlier burst. Whether the meter of what the port sends has let it pass.
    Waited { budget: u32, is_metered: bool },
    /// It is in debt, and passed over.
    PassedOver,
}

impl Queue {
    /// A queue that nothing was sent to.
    pub fn new(port: Arc<PortShared>, number: u32, backend: Backend) -> Self {
        let uncut = VecDeque::with_capacity(if backend.takes_offloads() { BURST } else { 0 });
        let serves = if port.bridged { Serves::Bridge } else { Serves::Nobody };
        Self {
            port,
            number,
            backend,
            member: None,
            dirty: false,
            watched: Watched::default(),
            serves,
            sent: Count::default(),
            debt: Debt::default(),
            waiting: Vec::with_capacity(BURST),
            waiting_metered: false,
            uncut,
        }
    }

    /// A queue of a bond's member.
    pub fn of_member(port: Arc<PortShared>, number: u32, backend: Backend, member: Arc<MemberShared>) -> Self {
        Self { member: Some(member), ..Self::new(port, number, backend) }
    }

    /// Leaves in a burst what passes the gate of the bond's member, if the queue belongs to one.
    #[inline]
    fn admit(&self, burst: &mut Vec<Frame>, cache: &mut FrameCache) {
        if let Some(member) = &self.member {
            let queue = &self.port.queues[self.number as usize];
            member.admit(burst, cache, queue, &self.port.shards[queue.worker()]);
        }
    }

    /// Takes a burst of received frames, unless the queue is in debt, and sees to the rings. `is_forgiven`: debts are
    /// void. `is_captured`: somebody captures at the port, so frames are to be as on a wire.
    #[inline]
    pub(super) fn poll(
        &mut self,
        burst: &mut Vec<Frame>,
        cache: &mut FrameCache,
        is_forgiven: bool,
        is_captured: impl FnOnce(&PortShared) -> bool,
    ) -> Polled {
        self.reap(cache);
        let budget = self.debt.turn(is_forgiven);
        if budget == 0 || !self.waiting.is_empty() {
            return self.resume(budget, burst, cache);
        }
        let is_cut = self.backend.takes_offloads() && (!self.uncut.is_empty() || is_captured(&self.port));
        let taken =
            if is_cut { self.cut_received(burst, cache) } else { self.backend.receive_heads(burst, BURST, cache) };
        self.admit(burst, cache);
        // Also without a frame: a queue that ran dry while none was free gets nothing until it is filled again.
        if taken > 0 || self.backend.is_short() {
            self.backend.refill(cache);
        }
        Polled::New { taken, budget }
    }

    /// Takes a burst of received frames as they would be on a wire. Returns the number of descriptors or frames.
    #[inline(always)]
    pub(super) fn receive_cut(&mut self, burst: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        if self.backend.takes_offloads() {
            self.cut_received(burst, cache)
        } else {
            let taken = self.backend.receive(burst, BURST, cache);
            self.admit(burst, cache);
            taken
        }
    }

    /// What is left of an earlier burst goes first. It waits as long as no frame is free.
    #[inline(never)]
    fn cut_received(&mut self, burst: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        let mut taken = 0;
        if self.uncut.is_empty() {
            taken = self.backend.receive(burst, BURST, cache);
            if burst.iter().all(Frame::is_plain) {
                return taken;
            }
            self.uncut.extend(burst.drain(..).map(Segments::new));
        }
        while burst.len() < BURST
            && let Some(mut first) = self.uncut.pop_front()
        {
            match first.whole() {
                Ok(frame) => burst.push(frame),
                Err(segments) => {
                    first = segments;
                    while burst.len() < BURST
                        && let Some(segment) = first.next(cache)
                    {
                        burst.push(segment);
                    }
                    if first.left().packets > 0 {
                        self.uncut.push_front(first);
                        break;
                    }
                    first.finish(cache);
                }
            }
        }
        taken.max(burst.len())
    }

    /// Takes the rest of an earlier burst, unless the queue is still in debt.
    #[cold]
    fn resume(&mut self, budget: u32, burst: &mut Vec<Frame>, cache: &mut FrameCache) -> Polled {
        if self.backend.is_short() {
            self.backend.refill(cache);
        }
        if budget == 0 {
            return Polled::PassedOver;
        }
        burst.append(&mut self.waiting);
        Polled::Waited { budget, is_metered: self.waiting_metered }
    }

    /// Keeps the rest of a burst for a later turn. `is_metered`: the meter of what the port sends has let it pass.
    #[cold]
    pub(in crate::worker) fn keep(&mut self, frames: &mut Vec<Frame>, is_metered: bool) {
        self.waiting.append(frames);
        self.waiting_metered = is_metered;
    }

    /// Frames that wait for a later turn.
    pub(in crate::worker) fn waiting(&self) -> usize {
        self.waiting.len() + self.uncut.len()
    }

    /// Drops the frames that wait, because the queue goes.
    pub(super) fn discard_waiting(&mut self, cache: &mut FrameCache, worker: usize) {
        for frame in self.waiting.drain(..) {
            self.port.shards[worker].dropped_all(DropReason::PortGone, frame.wire());
            cache.put(frame);
        }
        // These were not counted in.
        self.uncut.drain(..).for_each(|segments| segments.finish(cache));
    }

    /// Whether there is something to poll.
    pub(in crate::worker) fn has_some(&self) -> bool {
        !self.waiting.is_empty() || !self.uncut.is_empty() || self.backend.has_received()
    }

    /// Sees to the rings of a queue that is not polled: what was sent comes back, what is to be filled is.
    #[inline]
    pub(super) fn keep_up(&mut self, cache: &mut FrameCache) {
        self.reap(cache);
        if self.backend.is_short() {
            self.backend.refill(cache);
        }
    }

    /// Stages the first `count` of `frames`, of `bytes` in all. The next flush counts them out. Returns how many: fewer
    /// if the ring is full even after the kernel was called. Then the caller takes the rest back by [`Queue::unsent`].
    #[inline]
    pub(super) fn send(
        &mut self,
        count: usize,
        bytes: usize,
        cache: &mut FrameCache,
        frames: &mut impl Iterator<Item = Frame>,
    ) -> usize {
        self.dirty = true;
        let (mut sent, mut flushed) = (0, false);
        // The kernel would take frames for a tap that no VMM has, and drop them. Rings of a guest tell by themselves.
        while !self.is_unplugged() {
            let more = self.backend.send(count - sent, frames, cache);
            sent += more;
            if sent == count || (flushed && more == 0) {
                break;
            }
            self.backend.flush();
            self.reap(cache);
            flushed = true;
        }
        self.sent.add(Count { packets: sent as u64, bytes: bytes as u64 });
        sent
    }

    /// Sends a packet that is to be cut, at a backend that takes such. Returns what was sent, as on a wire. The frame
    /// stays the caller's.
    pub(super) fn send_long(&mut self, frame: &mut Frame) -> Count {
        self.dirty = true;
        let sent = self.backend.send_long(frame);
        self.sent.add(sent);
        sent
    }

    /// Stages a packet of several chunks. The next flush counts it out.
    ///
    /// # Errors
    /// The ring is full even after the kernel was called. The packet comes back.
    pub(super) fn send_chained(&mut self, mut packet: Frame, cache: &mut FrameCache) -> Result<(), Frame> {
        self.dirty = true;
        let wire = packet.wire();
        for is_last in [false, true] {
            if self.is_unplugged() {
                break;
            }
            match self.backend.send_chained(packet, cache) {
                Ok(()) => {
                    self.sent.add(wire);
                    return Ok(());
                }
                Err(back) => packet = back,
            }
            if !is_last {
                self.backend.flush();
                self.reap(cache);
            }
        }
        Err(packet)
    }

    /// A frame of `len` bytes is not among those that were sent after all.
    pub(super) fn unsent(&mut self, len: usize) {
        self.sent.bytes -= len as u64;
    }

    #[inline(always)]
    fn is_unplugged(&self) -> bool {
        self.port.is_deserted.load(Ordering::Relaxed) && !self.backend.takes_offloads()
    }

    /// Why it did not take a frame.
    pub(super) fn refusal(&self) -> DropReason {
        if self.backend.is_gone() {
            DropReason::PortGone
        } else if self.port.is_deserted.load(Ordering::Relaxed) {
            DropReason::LinkDown
        } else {
            DropReason::TxRingFull
        }
    }

    /// Whether frames are staged that the kernel has not taken.
    #[inline]
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Counts what was sent, shows it to the kernel, and takes back what has gone out.
    #[inline]
    pub(super) fn flush(&mut self, cache: &mut FrameCache, watch: &Watch) {
        let Count { packets, bytes } = std::mem::take(&mut self.sent);
        self.port.queues[self.number as usize].counters.tx.add(packets, bytes);
        self.dirty = self.backend.flush() == Flush::Pending;
        self.reap(cache);
        self.backend.abandon(cache);
        watch.flushed(&mut self.watched, self.backend.fd());
    }

    /// Takes back frames that were sent, if any are out.
    #[inline]
    pub(super) fn reap(&mut self, cache: &mut FrameCache) {
        if self.backend.outstanding().1 > 0 {
            self.backend.reap(cache);
        }
    }

    /// The queue is to wake its worker, if somebody takes frames from it. Without that it would wake it again and
    /// again.
    pub(super) fn join(&mut self, watch: &Watch) {
        if self.serves == Serves::Nobody {
            return;
        }
        self.backend.ask_for_wakeup();
        if let Err(errno) = watch.join(&mut self.watched, self.backend.fd()) {
            // It is served only while the worker is awake for another reason.
            tracing::error!(port = self.port.name, queue = self.number, %errno, "a queue can't wake its worker");
        }
    }

    /// The queue does not wake its worker any more.
    pub(super) fn leave(&mut self, watch: &Watch) {
        watch.leave(&mut self.watched, self.backend.fd());
    }
}
