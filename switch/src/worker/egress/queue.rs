//! A queue of a port in the hands of its worker.

use std::sync::Arc;

use crate::io::backend::Backend;
use crate::io::frame_rings::Flush;
use crate::io::umem::{Frame, FrameCache};
use crate::model::Count;
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
    /// Whether frames are staged that the kernel has not taken.
    dirty: bool,
    /// Whether it wakes its worker.
    watched: Watched,
    /// Who takes what it received.
    pub(in crate::worker) serves: Serves,
    /// What was sent since the last flush. It is not counted yet.
    sent: Count,
}

impl Queue {
    /// A queue that nothing was sent to.
    pub fn new(port: Arc<PortShared>, number: u32, backend: Backend) -> Self {
        let serves = if port.bridged { Serves::Bridge } else { Serves::Nobody };
        Self { port, number, backend, dirty: false, watched: Watched::default(), serves, sent: Count::default() }
    }

    /// Takes a burst of received frames, and sees to the rings. Returns how many descriptors there were.
    #[inline]
    pub(super) fn poll(&mut self, burst: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        self.reap(cache);
        let taken = self.backend.receive(burst, BURST);
        // Also without a frame: a queue that ran dry while none was free gets nothing until it is filled again.
        if taken > 0 || self.backend.is_short() {
            self.backend.refill(cache);
        }
        taken
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
        loop {
            let more = self.backend.send(count - sent, frames);
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

    /// A frame of `len` bytes is not among those that were sent after all.
    pub(super) fn unsent(&mut self, len: usize) {
        self.sent.bytes -= len as u64;
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
