//! The four rings of a queue, and the frames that its other end has.
//!
//! The other end of an AF_XDP socket is the kernel. The other end of a queue in memory is a
//! [`MemoryKernel`](super::memory::MemoryKernel).
//!
//! - The fill ring gives it empty frames. The rx ring brings them back with data.
//! - The tx ring gives it frames to send. The completion ring brings them back.
//!
//! Rings belong to one thread at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ring::{CONTINUED, Consumer, Desc, Producer};
use super::umem::{Chain, Frame, FrameCache, Owner, Umem};
use crate::model::Count;

/// Frames taken at once while a queue is emptied.
const BURST: usize = 64;

/// The user's ends of the rings.
#[derive(Debug)]
pub struct Rings {
    /// Received frames.
    pub rx: Consumer<Desc>,
    /// Frames to send.
    pub tx: Producer<Desc>,
    /// Empty frames.
    pub fill: Producer<u64>,
    /// Sent frames.
    pub completion: Consumer<u64>,
}

/// Result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The other end has taken every descriptor.
    Done,
    /// Some are left in the ring. Flush again soon.
    Pending,
}

/// Rings with their frames.
#[derive(Debug)]
pub struct FrameRings {
    umem: Arc<Umem>,
    rings: Rings,
    rx_owner: Owner,
    tx_owner: Owner,
    /// Frames in the fill and the rx ring, or held by the other end between them.
    rx_out: u32,
    /// The same for the tx and the completion ring.
    tx_out: u32,
    fill_target: u32,
    gone: bool,
    /// Received frames while those of one packet are put together. Empty between calls.
    parts: Vec<Frame>,
    /// Whether the last burst had packets of several chunks.
    brought_chains: bool,
}

impl FrameRings {
    /// Rings without frames. `fill_target` is the number of frames to keep the receive side supplied with.
    pub fn new(umem: Arc<Umem>, rings: Rings, fill_target: u32) -> Self {
        let [rx_owner, tx_owner] = umem.new_owners();
        Self {
            umem,
            rings,
            rx_owner,
            tx_owner,
            rx_out: 0,
            tx_out: 0,
            fill_target,
            gone: false,
            parts: Vec::new(),
            brought_chains: false,
        }
    }

    /// Takes up to `max` received descriptors. Their packets go into `burst`, as a frame each. Returns the number of
    /// descriptors taken. A packet of which the last descriptor is not among the first `max` stays in the ring.
    // Not inlined, like the others that are called once a burst. So each loop has all registers to itself.
    #[inline(never)]
    pub fn receive(&mut self, burst: &mut Vec<Frame>, max: usize) -> usize {
        let mut page = self.umem.page(&mut self.rx_owner);
        burst.reserve(max);
        let before = burst.len();
        let mut places = burst.spare_capacity_mut().iter_mut();
        let (room, mut options) = (places.len(), 0);
        let taken = self.rings.rx.look_at(ring_count(max), |desc| {
            options |= desc.options;
            if let Some(frame) = page.claim(desc.addr, desc.len)
                && let Some(place) = places.next()
            {
                place.write(frame);
            }
        });
        let claimed = room - places.len();
        // SAFETY: the loop has written this many places behind the last frame, in order.
        unsafe { burst.set_len(before + claimed) };
        self.rx_out -= ring_count(claimed);
        self.brought_chains = options & CONTINUED != 0;
        if self.brought_chains {
            return self.join(burst, before, taken);
        }
        if taken > 0 {
            self.rings.rx.skip(taken);
        }
        taken as usize
    }

    /// Puts the frames of `looked_at` descriptors, which are in `burst` from place `from` on, together to packets.
    /// Returns how many descriptors that took.
    #[inline(never)]
    fn join(&mut self, burst: &mut Vec<Frame>, from: usize, looked_at: u32) -> usize {
        let Self { umem, rings, rx_owner, rx_out, parts, .. } = self;
        parts.extend(burst.drain(from..));
        let (mut frames, mut chain, mut at, mut taken) = (parts.drain(..).peekable(), None, 0, 0);
        let base = umem.region().0.addr();
        rings.rx.look_at(looked_at, |desc| {
            at += 1;
            // A frame that the ledger had not with this socket is missing. A correct kernel never causes that.
            let is_its = |frame: &Frame| (frame.data().as_ptr().addr() - base) as u64 == desc.addr;
            if let Some(frame) = frames.next_if(is_its) {
                Chain::add(&mut chain, umem, frame);
            }
            if desc.options & CONTINUED == 0 {
                burst.extend(chain.take().map(Chain::finish));
                taken = at;
            }
        });
        // The rest of the last packet is not here yet.
        let mut page = umem.page(rx_owner);
        let mut rest = chain.map(Chain::finish);
        while let Some(mut frame) = rest {
            rest = umem.unchain(&mut frame);
            page.give(frame);
            *rx_out += 1;
        }
        rings.rx.skip(taken);
        taken as usize
    }

    /// Whether the last burst had packets of several chunks.
    #[inline]
    pub fn brought_chains(&self) -> bool {
        self.brought_chains
    }

    /// Whether frames wait to be received.
    pub fn has_received(&self) -> bool {
        !self.rings.rx.is_empty()
    }

    /// Supplies the receive side with empty frames up to its target.
    #[inline(never)]
    pub fn refill(&mut self, cache: &mut FrameCache) {
        let wanted = self.fill_target.saturating_sub(self.rx_out);
        let given = cache.give(wanted, &mut self.rx_owner, &mut self.rings.fill);
        if given > 0 {
            self.rx_out += given;
            self.rings.fill.submit();
        }
    }

    /// Whether the other end has too few empty frames because none was free.
    #[inline]
    pub fn is_short(&self) -> bool {
        self.rx_out < self.fill_target && !self.gone
    }

    /// Whether the other end asks to be called for its fill ring.
    pub fn fill_needs_wakeup(&self) -> bool {
        self.rings.fill.needs_wakeup()
    }

    /// Stages up to `count` of `frames` for sending while there is room. Returns how many.
    #[inline(never)]
    pub fn send(&mut self, count: usize, frames: &mut impl Iterator<Item = Frame>) -> usize {
        if self.gone {
            return 0;
        }
        let mut page = self.umem.page(&mut self.tx_owner);
        let sent = self.rings.tx.push_all(ring_count(count), || {
            let frame = frames.next()?;
            let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            Some(Desc { addr: page.give(frame), len, options: 0 })
        });
        self.tx_out += sent;
        sent as usize
    }

    /// Stages a packet of several chunks.
    ///
    /// # Errors
    /// There is too little room. The packet comes back.
    #[inline(never)]
    pub fn send_chained(&mut self, packet: Frame) -> Result<(), Frame> {
        let chunks = ring_count(self.umem.chunks(&packet));
        if self.gone || self.rings.tx.room(chunks) < chunks {
            return Err(packet);
        }
        let mut page = self.umem.page(&mut self.tx_owner);
        let mut next = Some(packet);
        while let Some(mut frame) = next {
            next = self.umem.unchain(&mut frame);
            let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            let options = if next.is_some() { CONTINUED } else { 0 };
            self.rings.tx.push(Desc { addr: page.give(frame), len, options });
        }
        self.tx_out += chunks;
        Ok(())
    }

    /// Shows the other end all staged frames.
    #[inline]
    pub fn submit(&mut self) {
        self.rings.tx.submit();
    }

    /// Whether the other end asks to be called for its tx ring.
    #[inline]
    pub fn tx_needs_wakeup(&self) -> bool {
        self.rings.tx.needs_wakeup()
    }

    /// Frames in the tx ring that the other end has not taken.
    pub fn tx_pending(&mut self) -> u32 {
        self.rings.tx.pending()
    }

    /// Takes back frames that were sent. Returns the number of descriptors taken.
    #[inline(never)]
    pub fn reap(&mut self, cache: &mut FrameCache) -> usize {
        let (reaped, back) = cache.claim(&mut self.rings.completion, &mut self.tx_owner);
        self.tx_out -= back;
        reaped as usize
    }

    /// Notes that the other end looks at no ring any more.
    pub fn mark_gone(&mut self) {
        self.gone = true;
    }

    /// Whether the other end looks at no ring any more.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Takes back unsent frames if the other end is gone. Otherwise a guest that deletes its netdev could keep a
    /// ringful of packet memory for each port.
    #[inline]
    pub fn abandon(&mut self, cache: &mut FrameCache) {
        if self.gone && self.tx_out > 0 {
            self.take_unsent(cache);
        }
    }

    #[cold]
    fn take_unsent(&mut self, cache: &mut FrameCache) {
        self.umem.take_all(&mut self.tx_owner).into_iter().for_each(|frame| cache.put(frame));
        self.tx_out = 0;
    }

    /// Frames with the other end, by the rings' own count: those to be filled, and those to be sent.
    #[inline]
    pub fn outstanding(&self) -> (u32, u32) {
        (self.rx_out, self.tx_out)
    }

    /// Ledger numbers of these two owners, in the same order.
    pub fn owners(&self) -> (u32, u32) {
        (self.rx_owner.id(), self.tx_owner.id())
    }

    /// Puts all received frames into `cache`. Returns their count.
    pub fn discard_received(&mut self, cache: &mut FrameCache) -> Count {
        let (mut discarded, mut burst) = (Count::default(), Vec::new());
        while self.receive(&mut burst, BURST) > 0 {
            for frame in burst.drain(..) {
                discarded.add(frame.wire());
                cache.put(frame);
            }
        }
        discarded
    }

    /// Puts all frames into `cache`, also those with the other end. The other end must not touch them any more.
    pub fn reclaim(self, cache: &mut FrameCache) {
        let Self { umem, rx_owner, tx_owner, .. } = self;
        for frame in umem.reclaim(rx_owner).into_iter().chain(umem.reclaim(tx_owner)) {
            cache.put(frame);
        }
    }
}

/// Polls `is_sent` until it is true or `grace` has passed.
pub(super) fn wait_until_sent(grace: Duration, mut is_sent: impl FnMut() -> bool) {
    let deadline = Instant::now() + grace;
    while !is_sent() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A number of frames as a ring's `u32`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a burst has less than 2^32 frames")]
fn ring_count(frames: usize) -> u32 {
    frames as u32
}
