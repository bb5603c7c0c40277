//! The rings of a queue, over the UMEM that all share or over one of the queue's own.
//!
//! The kernel keeps 128 bytes for each frame of the UMEM that a socket is bound with, for each queue anew
//! (`xp_create_and_assign_umem` in `net/xdp/xsk_buff_pool.c`). With 65,536 frames that is 8 MiB a queue. Many guests
//! would take more of the kernel's memory than packets do. So later guests' queues have a small UMEM of their own.
//! Their frames are copied: received ones to frames of the shared UMEM, frames to send the other way. Such buffers are
//! known as bounce buffers.
//!
//! - Workers only see frames of the shared UMEM. Frames of the own UMEM never leave these rings.
//! - Frames to receive with and frames to send with are kept apart. A guest that takes nothing still sends.
//! - What has been received waits in the rx ring while no shared frame is free.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use nix::errno::Errno;
use xdp_prog::FLOW_MARK;

use super::frame_rings::{FrameRings, Rings};
use super::umem::{Frame, FrameCache, MOST_CHUNKS, SLAB, Umem};
use crate::model::{Count, OWN_UMEM_FRAMES};

/// Frames of an own UMEM at least. Rings have a power of two of descriptors, so more are whole slabs too.
const LEAST: u32 = 32;
const _: () = assert!(LEAST as usize == SLAB, "a UMEM has whole slabs");

/// Where the frames of a queue's rings lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMemory {
    /// In the UMEM that all share. Frames come and go without a copy.
    Shared {
        /// Frames that the receive side is kept supplied with, at most the rings' depth.
        fill: u32,
    },
    /// In a UMEM of the queue's own. Frames are copied from and to the shared one.
    Own,
}

impl RingMemory {
    /// Frames of the shared UMEM that the receive side is kept supplied with.
    pub fn fill(self) -> u32 {
        match self {
            Self::Shared { fill } => fill,
            Self::Own => 0,
        }
    }

    /// The UMEM for rings of `depth` descriptors: `shared`, or a new one.
    ///
    /// # Errors
    /// Memory is short for a new one.
    pub(super) fn umem(self, shared: &Arc<Umem>, depth: u32) -> Result<Arc<Umem>, Errno> {
        match self {
            Self::Shared { .. } => Ok(Arc::clone(shared)),
            Self::Own => shared.sibling((2 * own_side(depth)).max(LEAST)),
        }
    }
}

/// Frames of an own UMEM for each side of a queue with rings of `depth` descriptors: to receive with, and to send with.
fn own_side(depth: u32) -> u32 {
    depth.min(OWN_UMEM_FRAMES / 2)
}

/// Where the frames of a queue's own UMEM are, by the queue's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnFrames {
    /// All of them.
    pub all: u32,
    /// Free ones.
    pub free: u32,
    /// With the other end, to be filled.
    pub rx: u32,
    /// With the other end, to be sent.
    pub tx: u32,
}

impl OwnFrames {
    /// Whether each is in one place.
    pub fn is_balanced(&self) -> bool {
        self.free + self.rx + self.tx == self.all
    }
}

/// What rings over a UMEM of their own have beside them.
#[derive(Debug)]
struct Bounce {
    /// The free frames of the own UMEM.
    own: FrameCache,
    /// Most frames that may be on the transmit side.
    most_tx: u32,
    /// Received frames while they are copied. Empty between calls.
    batch: Vec<Frame>,
    /// Whether packets may have several chunks.
    takes_chains: bool,
    /// Whether the last burst had some that have.
    brought_chains: bool,
}

impl Bounce {
    /// Copies up to `max` received frames into frames of `cache`. Returns the number of descriptors taken.
    #[inline(never)]
    fn receive(&mut self, rings: &mut FrameRings, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize {
        let mut taken = 0;
        while taken < max {
            if self.takes_chains {
                // A packet is taken with all of its chunks or not at all.
                cache.stock_up(MOST_CHUNKS);
            }
            let room = cache.stock().min(max - taken);
            let more = if room == 0 { 0 } else { rings.receive(&mut self.batch, room) };
            for frame in self.batch.drain(..) {
                // `stock` has said that there is one for each chunk.
                if frame.is_chained() {
                    let mut copy = cache.copy_packet(self.own.umem(), &frame);
                    copy.iter_mut().for_each(|copy| copy.copy_front(&frame, FLOW_MARK));
                    burst.extend(copy);
                } else if let Some(mut copy) = cache.take() {
                    copy.copy_from(&frame);
                    copy.copy_front(&frame, FLOW_MARK);
                    burst.push(copy);
                }
                self.own.put(frame);
            }
            self.brought_chains |= rings.brought_chains();
            taken += more;
            if room == 0 || more < room {
                break;
            }
        }
        taken
    }

    /// Stages copies of up to `count` of `frames` while there is room, and puts the originals into `cache`. Returns how
    /// many.
    #[inline(never)]
    fn send(
        &mut self,
        rings: &mut FrameRings,
        count: usize,
        frames: &mut impl Iterator<Item = Frame>,
        cache: &mut FrameCache,
    ) -> usize {
        let room = self.most_tx.saturating_sub(rings.outstanding().1) as usize;
        let own = &mut self.own;
        let mut copies = std::iter::from_fn(|| {
            let mut copy = own.take()?;
            let Some(frame) = frames.next() else {
                own.put(copy);
                return None;
            };
            copy.copy_from(&frame);
            cache.put(frame);
            Some(copy)
        });
        rings.send(count.min(room), &mut copies)
    }
}

impl Bounce {
    /// Stages a copy of a packet of several chunks, and puts the original into `cache`.
    fn send_chained(&mut self, rings: &mut FrameRings, packet: Frame, cache: &mut FrameCache) -> Result<(), Frame> {
        let room = self.most_tx.saturating_sub(rings.outstanding().1) as usize;
        if room < cache.umem().chunks(&packet) {
            return Err(packet);
        }
        let Some(copy) = self.own.copy_packet(cache.umem(), &packet) else { return Err(packet) };
        match rings.send_chained(copy) {
            Ok(()) => {
                cache.put(packet);
                Ok(())
            }
            Err(copy) => {
                self.own.put(copy);
                Err(packet)
            }
        }
    }
}

/// The rings of a queue with their frames.
#[derive(Debug)]
pub struct QueueRings {
    rings: FrameRings,
    /// Of rings over a UMEM of their own.
    bounce: Option<Box<Bounce>>,
    /// Whether packets may have several chunks.
    takes_chains: bool,
}

impl QueueRings {
    /// Rings of `depth` descriptors over `umem`, which is as [`RingMemory::umem`] says. They have no frames yet.
    /// `takes_chains`: packets may have several chunks.
    pub(super) fn new(umem: Arc<Umem>, rings: Rings, memory: RingMemory, depth: u32, takes_chains: bool) -> Self {
        if takes_chains {
            umem.add_chains();
        }
        let (fill, bounce) = match memory {
            RingMemory::Shared { fill } => (fill.min(depth), None),
            RingMemory::Own => {
                let (own, side) = (FrameCache::new(Arc::clone(&umem)), own_side(depth));
                let batch = Vec::new();
                (side, Some(Box::new(Bounce { own, most_tx: side, batch, takes_chains, brought_chains: false })))
            }
        };
        Self { rings: FrameRings::new(umem, rings, fill), bounce, takes_chains }
    }

    /// As [`FrameRings::receive`]. Frames of the shared UMEM come from `cache` if there are copies to be made.
    #[inline]
    pub fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize {
        match &mut self.bounce {
            None => self.rings.receive(burst, max),
            Some(bounce) => {
                bounce.brought_chains = false;
                bounce.receive(&mut self.rings, burst, max, cache)
            }
        }
    }

    /// Whether the last burst had packets of several chunks.
    #[inline]
    pub fn brought_chains(&self) -> bool {
        self.bounce.as_ref().map_or_else(|| self.rings.brought_chains(), |bounce| bounce.brought_chains)
    }

    /// Whether packets may have several chunks, either way.
    #[inline]
    pub fn takes_chains(&self) -> bool {
        self.takes_chains
    }

    /// Stages a packet of several chunks. That of a copy goes to `cache`.
    ///
    /// # Errors
    /// There is too little room. The packet comes back.
    pub fn send_chained(&mut self, packet: Frame, cache: &mut FrameCache) -> Result<(), Frame> {
        if !self.takes_chains {
            return Err(packet);
        }
        match &mut self.bounce {
            None => self.rings.send_chained(packet),
            Some(bounce) => bounce.send_chained(&mut self.rings, packet, cache),
        }
    }

    /// As [`FrameRings::has_received`].
    #[inline]
    pub fn has_received(&self) -> bool {
        self.rings.has_received()
    }

    /// As [`FrameRings::refill`].
    #[inline]
    pub fn refill(&mut self, cache: &mut FrameCache) {
        self.rings.refill(self.bounce.as_mut().map_or(cache, |bounce| &mut bounce.own));
    }

    /// As [`FrameRings::is_short`].
    #[inline]
    pub fn is_short(&self) -> bool {
        self.rings.is_short()
    }

    /// As [`FrameRings::fill_needs_wakeup`].
    #[inline]
    pub fn fill_needs_wakeup(&self) -> bool {
        self.rings.fill_needs_wakeup()
    }

    /// As [`FrameRings::send`]. Originals of copies go to `cache`.
    #[inline]
    pub fn send(&mut self, count: usize, frames: &mut impl Iterator<Item = Frame>, cache: &mut FrameCache) -> usize {
        match &mut self.bounce {
            None => self.rings.send(count, frames),
            Some(bounce) => bounce.send(&mut self.rings, count, frames, cache),
        }
    }

    /// As [`FrameRings::submit`].
    #[inline]
    pub fn submit(&mut self) {
        self.rings.submit();
    }

    /// As [`FrameRings::tx_needs_wakeup`].
    #[inline]
    pub fn tx_needs_wakeup(&self) -> bool {
        self.rings.tx_needs_wakeup()
    }

    /// As [`FrameRings::tx_pending`].
    pub fn tx_pending(&mut self) -> u32 {
        self.rings.tx_pending()
    }

    /// As [`FrameRings::reap`].
    #[inline]
    pub fn reap(&mut self, cache: &mut FrameCache) -> usize {
        self.rings.reap(self.bounce.as_mut().map_or(cache, |bounce| &mut bounce.own))
    }

    /// As [`FrameRings::mark_gone`].
    pub fn mark_gone(&mut self) {
        self.rings.mark_gone();
    }

    /// As [`FrameRings::is_gone`].
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.rings.is_gone()
    }

    /// As [`FrameRings::abandon`].
    #[inline]
    pub fn abandon(&mut self, cache: &mut FrameCache) {
        self.rings.abandon(self.bounce.as_mut().map_or(cache, |bounce| &mut bounce.own));
    }

    /// As [`FrameRings::outstanding`], whichever UMEM the frames are of.
    #[inline]
    pub fn outstanding(&self) -> (u32, u32) {
        self.rings.outstanding()
    }

    /// As [`FrameRings::owners`], in the ledger of the rings' UMEM.
    pub fn owners(&self) -> (u32, u32) {
        self.rings.owners()
    }

    /// Where the frames of the own UMEM are. `None`: the rings are over the shared one.
    pub fn own_frames(&self) -> Option<OwnFrames> {
        let own = &self.bounce.as_ref()?.own;
        let (rx, tx) = self.outstanding();
        let cached = u32::try_from(own.len()).unwrap_or(u32::MAX);
        Some(OwnFrames { all: own.umem().frames(), free: own.umem().pool_len().saturating_add(cached), rx, tx })
    }

    /// Takes all received frames, and counts them. They become free.
    pub fn discard_received(&mut self, cache: &mut FrameCache) -> Count {
        self.rings.discard_received(self.bounce.as_mut().map_or(cache, |bounce| &mut bounce.own))
    }

    /// As [`FrameRings::reclaim`]. The own UMEM ends.
    pub fn reclaim(self, cache: &mut FrameCache) {
        let Self { rings, mut bounce, .. } = self;
        rings.reclaim(bounce.as_mut().map_or(cache, |bounce| &mut bounce.own));
    }
}
