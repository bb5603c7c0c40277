//! What a worker polls: one queue, whatever its frames come from and go to.
//!
//! A backend is chosen when a port is attached. A call is a branch on the variant, once a burst, and no call through a pointer.
//! A new kind of port is a new variant here. A backend belongs to one thread at a time.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::frame_rings::{Flush, FrameRings};
use super::memory::MemoryQueue;
use super::socket::XskSocket;
use super::umem::{Frame, FrameCache};
use crate::model::Count;

/// A queue of a port.
#[derive(Debug)]
pub enum Backend {
    /// An AF_XDP socket.
    Xsk(XskSocket),
    /// Rings in memory without a kernel.
    Memory(MemoryQueue),
}

impl Backend {
    #[inline]
    fn rings(&self) -> &FrameRings {
        match self {
            Backend::Xsk(socket) => socket.rings(),
            Backend::Memory(queue) => queue.rings(),
        }
    }

    #[inline]
    fn rings_mut(&mut self) -> &mut FrameRings {
        match self {
            Backend::Xsk(socket) => socket.rings_mut(),
            Backend::Memory(queue) => queue.rings_mut(),
        }
    }

    /// The descriptor that epoll says is readable when frames have come in; for an AF_XDP socket also what goes into the XSKMAP.
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        match self {
            Backend::Xsk(socket) => socket.fd(),
            Backend::Memory(queue) => queue.fd(),
        }
    }

    /// Whether a driver moves frames without a copy.
    pub fn zero_copy(&self) -> bool {
        match self {
            Backend::Xsk(socket) => socket.zero_copy(),
            Backend::Memory(_) => false,
        }
    }

    /// Takes up to `max` received frames into `burst`; returns how many descriptors there were.
    #[inline]
    pub fn receive(&mut self, burst: &mut Vec<Frame>, max: usize) -> usize {
        self.rings_mut().receive(burst, max)
    }

    /// Whether frames wait to be received.
    #[inline]
    pub fn has_received(&self) -> bool {
        self.rings().has_received()
    }

    /// Supplies the receive side with empty frames up to its target.
    #[inline]
    pub fn refill(&mut self, cache: &mut FrameCache) {
        match self {
            Backend::Xsk(socket) => socket.refill(cache),
            Backend::Memory(queue) => queue.refill(cache),
        }
    }

    /// Whether there are fewer frames to be filled than there should be, because none was free.
    #[inline]
    pub fn is_short(&self) -> bool {
        self.rings().is_short()
    }

    /// Stages up to `count` of `frames` for sending, as long as there is room; returns how many. None has room once the other
    /// end is gone.
    #[inline]
    pub fn send(&mut self, count: usize, frames: &mut impl Iterator<Item = Frame>) -> usize {
        self.rings_mut().send(count, frames)
    }

    /// Has the other end send what is staged.
    #[inline]
    pub fn flush(&mut self) -> Flush {
        match self {
            Backend::Xsk(socket) => socket.flush(),
            Backend::Memory(queue) => queue.flush(),
        }
    }

    /// Takes back frames that were sent; returns how many descriptors there were.
    #[inline]
    pub fn reap(&mut self, cache: &mut FrameCache) -> usize {
        self.rings_mut().reap(cache)
    }

    /// Whether the other end is gone. A flush finds out.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.rings().is_gone()
    }

    /// Takes back frames that were to be sent to an end that is gone.
    #[inline]
    pub fn abandon(&mut self, cache: &mut FrameCache) {
        self.rings_mut().abandon(cache);
    }

    /// Frames with the other end, by the queue's own count: to be filled, to be sent.
    #[inline]
    pub fn outstanding(&self) -> (u32, u32) {
        self.rings().outstanding()
    }

    /// What the ledger calls these two places, in the same order.
    pub fn owners(&self) -> (u32, u32) {
        self.rings().owners()
    }

    /// From now on the next frame that comes in makes [`Backend::fd`] readable. The caller looks for frames once more before it
    /// sleeps.
    pub fn ask_for_wakeup(&self) {
        match self {
            // The kernel wakes whoever waits for the socket.
            Backend::Xsk(_) => {}
            Backend::Memory(queue) => queue.ask_for_wakeup(),
        }
    }

    /// Sends what is staged, waits up to `grace` for it to be sent, and gives all frames to `cache`. Returns what had been
    /// received and nobody has taken.
    pub fn close(self, grace: Duration, cache: &mut FrameCache) -> Count {
        match self {
            Backend::Xsk(socket) => socket.close(grace, cache),
            Backend::Memory(queue) => queue.close(grace, cache),
        }
    }
}
