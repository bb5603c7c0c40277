//! A queue of a port in the hands of its worker.

use std::sync::Arc;

use super::view::PortShared;
use super::watch::Watched;
use crate::io::backend::Backend;
use crate::io::frame_rings::Flush;
use crate::io::umem::{Frame, FrameCache};
use crate::model::Count;

/// Who takes the frames that a queue received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    /// The bridge.
    Bridge,
    /// A component.
    Component,
    /// Flow rules, which send them to ends of other queues; what they leave here is dropped.
    Rules,
    /// None that is ready: they wait, and once the ring is full the kernel counts what it has no room for.
    Nobody,
}

/// A port's queue: what it polls, and what the worker remembers of it.
#[derive(Debug)]
pub struct Queue {
    /// The port.
    pub port: Arc<PortShared>,
    /// Queue of the netdev.
    pub number: u32,
    /// Where its frames come from and go to.
    pub backend: Backend,
    /// Whether frames are staged that the kernel has not taken.
    pub(super) dirty: bool,
    /// Whether it wakes its worker.
    pub(super) watched: Watched,
    /// Who takes what it received.
    pub(super) serves: Serves,
    /// What was sent since the last flush and is not counted yet.
    sent: Count,
}

impl Queue {
    /// A queue that nothing was sent to.
    pub fn new(port: Arc<PortShared>, number: u32, backend: Backend) -> Self {
        let serves = if port.bridged { Serves::Bridge } else { Serves::Nobody };
        Self { port, number, backend, dirty: false, watched: Watched::default(), serves, sent: Count::default() }
    }

    /// Stages the first `count` of `frames`, of `bytes` in all; the next flush counts them out. Returns how many: fewer if the ring is
    /// full even after the kernel was called, and then the caller takes the rest back by [`Queue::unsent`].
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

    /// Counts what was sent, shows it to the kernel, and takes back what has gone out.
    pub(super) fn flush(&mut self, cache: &mut FrameCache) {
        let Count { packets, bytes } = std::mem::take(&mut self.sent);
        self.port.queues[self.number as usize].counters.tx.add(packets, bytes);
        self.dirty = self.backend.flush() == Flush::Pending;
        self.reap(cache);
        self.backend.abandon(cache);
    }

    /// Takes back frames that were sent, if any are out.
    #[inline]
    pub(super) fn reap(&mut self, cache: &mut FrameCache) {
        if self.backend.outstanding().1 > 0 {
            self.backend.reap(cache);
        }
    }
}
