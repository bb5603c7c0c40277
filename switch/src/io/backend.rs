//! What a worker polls: one queue, whatever is at its other end.
//!
//! A backend is chosen when a port is attached. Each call branches on the variant once a burst, so no call goes through
//! a pointer. A new kind of port is a new variant here. A backend belongs to one thread at a time.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::frame_rings::Flush;
use super::memory::MemoryQueue;
use super::queue_rings::{OwnFrames, QueueRings};
use super::socket::XskSocket;
use super::umem::{Frame, FrameCache};
use super::vhost::VhostQueue;
use crate::model::Count;

/// A queue of a port.
// The tag has a byte of its own. Within a field of a variant, where it needs no room, it costs some instructions more
// to read, and a turn reads it several times for each queue.
#[derive(Debug)]
#[repr(u8)]
pub enum Backend {
    /// An AF_XDP socket.
    Xsk(XskSocket),
    /// Rings in memory without a kernel.
    Memory(MemoryQueue),
    /// A queue pair in a guest's memory.
    Vhost(VhostQueue),
}

/// The variants with frame rings, and the one that copies.
enum Kind<Rings, Copying> {
    Rings(Rings),
    Copying(Copying),
}

impl Backend {
    #[inline]
    fn kind(&self) -> Kind<&QueueRings, &VhostQueue> {
        match self {
            Backend::Xsk(socket) => Kind::Rings(socket.rings()),
            Backend::Memory(queue) => Kind::Rings(queue.rings()),
            Backend::Vhost(queue) => Kind::Copying(queue),
        }
    }

    #[inline]
    fn kind_mut(&mut self) -> Kind<&mut QueueRings, &mut VhostQueue> {
        match self {
            Backend::Xsk(socket) => Kind::Rings(socket.rings_mut()),
            Backend::Memory(queue) => Kind::Rings(queue.rings_mut()),
            Backend::Vhost(queue) => Kind::Copying(queue),
        }
    }

    /// The descriptor that becomes readable when frames have come in. For an AF_XDP socket it also goes into the
    /// XSKMAP.
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        match self {
            Backend::Xsk(socket) => socket.fd(),
            Backend::Memory(queue) => queue.fd(),
            Backend::Vhost(queue) => queue.fd(),
        }
    }

    /// Whether a driver moves frames without a copy.
    pub fn zero_copy(&self) -> bool {
        match self {
            Backend::Xsk(socket) => socket.zero_copy(),
            Backend::Memory(_) | Backend::Vhost(_) => false,
        }
    }

    /// Takes up to `max` received frames into `burst`. Returns the number of descriptors taken. If they are copied, the
    /// copies are frames of `cache`.
    #[inline]
    pub fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize {
        match self.kind_mut() {
            Kind::Rings(rings) => rings.receive(burst, max, cache),
            Kind::Copying(queue) => queue.receive(burst, max),
        }
    }

    /// The same, but the rests of a guest's packets may be left in its memory for the burst. The frames are to be
    /// completed, unless they go to a backend that [`takes_offloads`](Self::takes_offloads). Call
    /// [`release`](Self::release) at the end of the burst.
    #[inline]
    pub fn receive_heads(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize {
        match self.kind_mut() {
            Kind::Rings(rings) => rings.receive(burst, max, cache),
            Kind::Copying(queue) => queue.receive_heads(burst, max, cache.rests()),
        }
    }

    /// Gives back what a burst has left with its sender. No frame may have a rest any more.
    #[inline]
    pub fn release(&mut self, cache: &mut FrameCache) {
        match self.kind_mut() {
            Kind::Rings(_) => {}
            Kind::Copying(queue) => queue.release(cache.rests()),
        }
    }

    /// Whether frames wait to be received.
    #[inline]
    pub fn has_received(&self) -> bool {
        match self.kind() {
            Kind::Rings(rings) => rings.has_received(),
            Kind::Copying(queue) => queue.has_received(),
        }
    }

    /// Supplies the receive side with empty frames up to its target.
    #[inline]
    pub fn refill(&mut self, cache: &mut FrameCache) {
        match self {
            Backend::Xsk(socket) => socket.refill(cache),
            Backend::Memory(queue) => queue.refill(cache),
            Backend::Vhost(queue) => queue.refill(cache),
        }
    }

    /// Whether the receive side has too few empty frames because none was free.
    #[inline]
    pub fn is_short(&self) -> bool {
        match self.kind() {
            Kind::Rings(rings) => rings.is_short(),
            Kind::Copying(queue) => queue.is_short(),
        }
    }

    /// Stages up to `count` of `frames` for sending while there is room. Returns how many. There is no room once the
    /// other end is gone. If they are copied, the originals go to `cache`.
    #[inline]
    pub fn send(&mut self, count: usize, frames: &mut impl Iterator<Item = Frame>, cache: &mut FrameCache) -> usize {
        match self.kind_mut() {
            Kind::Rings(rings) => rings.send(count, frames, cache),
            Kind::Copying(queue) => queue.send(count, frames, cache),
        }
    }

    /// Whether the last burst had packets of several chunks.
    #[inline]
    pub fn brought_chains(&self) -> bool {
        match self.kind() {
            Kind::Rings(rings) => rings.brought_chains(),
            Kind::Copying(_) => false,
        }
    }

    /// Whether packets may have several chunks, either way.
    pub fn takes_chains(&self) -> bool {
        match self.kind() {
            Kind::Rings(rings) => rings.takes_chains(),
            Kind::Copying(_) => true,
        }
    }

    /// Stages a packet of several chunks for sending. If it is copied, the original goes to `cache`.
    ///
    /// # Errors
    /// There is no room for all of it, or the backend takes no such packets. The packet comes back.
    pub fn send_chained(&mut self, packet: Frame, cache: &mut FrameCache) -> Result<(), Frame> {
        match self.kind_mut() {
            Kind::Rings(rings) => rings.send_chained(packet, cache),
            Kind::Copying(queue) => queue.send_chained(packet, cache),
        }
    }

    /// Whether packets may have something left to be done, in either direction. Others take what is on a wire.
    #[inline]
    pub fn takes_offloads(&self) -> bool {
        matches!(self, Backend::Vhost(_))
    }

    /// Sends a packet that is to be cut, at a backend that [`takes_offloads`](Self::takes_offloads). Returns what was
    /// sent, as on a wire. The frame stays the caller's.
    pub fn send_long(&mut self, frame: &mut Frame) -> Count {
        match self.kind_mut() {
            Kind::Rings(_) => Count::default(),
            Kind::Copying(queue) => queue.send_long(frame),
        }
    }

    /// Asks the other end to send what is staged.
    #[inline]
    pub fn flush(&mut self) -> Flush {
        match self {
            Backend::Xsk(socket) => socket.flush(),
            Backend::Memory(queue) => queue.flush(),
            Backend::Vhost(queue) => {
                queue.flush();
                Flush::Done
            }
        }
    }

    /// Takes back frames that were sent. Returns the number of descriptors taken.
    #[inline]
    pub fn reap(&mut self, cache: &mut FrameCache) -> usize {
        match self.kind_mut() {
            Kind::Rings(rings) => rings.reap(cache),
            Kind::Copying(queue) => queue.reap(cache),
        }
    }

    /// Whether the other end is gone. A flush notices it.
    #[inline]
    pub fn is_gone(&self) -> bool {
        match self.kind() {
            Kind::Rings(rings) => rings.is_gone(),
            Kind::Copying(_) => false,
        }
    }

    /// Takes back unsent frames after the other end has gone.
    #[inline]
    pub fn abandon(&mut self, cache: &mut FrameCache) {
        match self.kind_mut() {
            Kind::Rings(rings) => rings.abandon(cache),
            // A guest has none of its frames.
            Kind::Copying(_) => {}
        }
    }

    /// Frames with the other end, by the queue's own count: those to be filled, and those to be sent.
    #[inline]
    pub fn outstanding(&self) -> (u32, u32) {
        match self.kind() {
            Kind::Rings(rings) => rings.outstanding(),
            Kind::Copying(queue) => queue.outstanding(),
        }
    }

    /// Where the frames of the queue's own UMEM are, if it has one.
    pub fn own_frames(&self) -> Option<OwnFrames> {
        match self.kind() {
            Kind::Rings(rings) => rings.own_frames(),
            Kind::Copying(_) => None,
        }
    }

    /// Ledger numbers of these two owners, in the same order. They are of the queue's own UMEM, if it has one.
    pub fn owners(&self) -> (u32, u32) {
        match self.kind() {
            Kind::Rings(rings) => rings.owners(),
            Kind::Copying(queue) => queue.owners(),
        }
    }

    /// Makes the next frame that comes in turn `Backend::fd` readable. The caller must look for frames once more
    /// before it sleeps.
    pub fn ask_for_wakeup(&self) {
        match self {
            // The kernel wakes all threads that wait for the socket.
            Backend::Xsk(_) => {}
            Backend::Memory(queue) => queue.ask_for_wakeup(),
            Backend::Vhost(queue) => queue.ask_for_wakeup(),
        }
    }

    /// Sends what is staged, waits up to `grace` for it, and gives all frames to `cache`. Returns the received frames
    /// that nobody had taken.
    pub fn close(self, grace: Duration, cache: &mut FrameCache) -> Count {
        match self {
            Backend::Xsk(socket) => socket.close(grace, cache),
            Backend::Memory(queue) => queue.close(grace, cache),
            Backend::Vhost(queue) => queue.close(cache),
        }
    }
}
