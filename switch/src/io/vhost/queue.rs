//! The worker's end of a queue pair.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost_user::memory::GuestSlice;
use vhost_user::net::{NetHeader, OffloadRules};
use vhost_user::ring::{RingError, Scratch};

use super::copy::{self, MAX_MERGED, Untaken};
use super::long::MAX_LONG_MERGED;
use super::pair::{PairCounters, RingGuard, RunningRing, VhostPair, Way};
use crate::io::umem::{Frame, FrameCache, HEADROOM, MOST_CHUNKS, Owner, Rests, Umem};
use crate::model::{Count, MacAddr};
use crate::rarp;

/// Frames that are kept ready for what the guest sends: two bursts.
pub const STOCK: u32 = 128;
/// Packets of a burst that are longer than a frame. Each costs as much as some dozens of short ones.
const LONG: u32 = 8;
/// Bursts that are copied whole after one of which most packets did not go to another guest.
const WHOLE_BURSTS: u32 = 63;

/// A queue pair in the hands of its worker.
#[derive(Debug)]
pub struct VhostQueue {
    pub(super) pair: Arc<VhostPair>,
    /// Other pairs of the port. Their guest may have disabled this one.
    others: Vec<Arc<VhostPair>>,
    pub(super) umem: Arc<Umem>,
    pub(super) scratch: Scratch,
    /// Of what the guest sends. It has the chains that are held.
    received: Scratch,
    /// The ring that the guest sends by, while chains are held of it.
    held: Option<Held>,
    /// Bursts to be copied whole.
    whole: u32,
    /// Addresses of empty frames for packets of the guest.
    stock: Vec<u64>,
    stock_owner: Owner,
    stock_target: usize,
    /// Addresses of frames whose packets were copied to the guest.
    done: Vec<u64>,
    done_owner: Owner,
    /// Whether the guest was asked to kick.
    kicks: std::cell::Cell<bool>,
    /// Whether the guest has got packets since the last flush.
    pub(super) used: bool,
}

/// A ring of which chains are held, and how many. Nobody else has it meanwhile.
struct Held {
    ring: RingGuard,
    count: usize,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("count", &self.count).finish_non_exhaustive()
    }
}

impl VhostQueue {
    /// A queue over the rings of one of a port's `pairs`. `fill` frames are kept ready, 128 at most.
    ///
    /// # Panics
    /// If there is no pair of that number.
    pub fn new(pairs: &[Arc<VhostPair>], number: usize, umem: &Arc<Umem>, fill: u32) -> Self {
        let pair = Arc::clone(&pairs[number]);
        let others = pairs.iter().filter(|other| !Arc::ptr_eq(other, &pair)).cloned().collect();
        let [stock_owner, done_owner] = umem.new_owners();
        // Without them a guest can't send what is longer than a frame. The port has seen to it that there are some.
        let _ = umem.add_tails();
        let target = fill.min(STOCK) as usize;
        Self {
            pair,
            others,
            umem: Arc::clone(umem),
            scratch: Scratch::default(),
            received: Scratch::default(),
            held: None,
            whole: 0,
            stock: Vec::with_capacity(target),
            stock_owner,
            stock_target: target,
            done: Vec::with_capacity(target),
            done_owner,
            kicks: true.into(),
            used: false,
        }
    }

    /// The descriptor that becomes readable when the guest has kicked.
    pub(in crate::io) fn fd(&self) -> &Arc<OwnedFd> {
        self.pair.wakeup()
    }

    /// Copies up to `max` packets of the guest into frames. Returns the number of buffers that it gets back.
    #[inline]
    pub fn receive(&mut self, frames: &mut Vec<Frame>, max: usize) -> usize {
        self.receive_with(frames, max, None)
    }

    /// The same, but the rests of longer packets may be left in the guest's memory, as `rests`. The guest gets the
    /// buffers of such a burst back by [`VhostQueue::release`], and nobody else has its ring until then.
    #[inline]
    pub fn receive_heads(&mut self, frames: &mut Vec<Frame>, max: usize, rests: &mut Rests) -> usize {
        self.receive_with(frames, max, Some(rests))
    }

    #[inline(never)]
    fn receive_with(&mut self, frames: &mut Vec<Frame>, max: usize, mut rests: Option<&mut Rests>) -> usize {
        let announced = self.pair.take_announced().map_or(0, |mac| self.announce(mac, frames));
        let before = frames.len();
        let Some(mut ring) = self.pair.try_take(Way::FromGuest) else { return announced };
        let Some(running) = ring.as_mut() else { return announced };
        if self.kicks.replace(false) {
            running.queue.disable_kicks();
        }
        match self.receive_from(running, frames, max, rests.as_deref_mut()) {
            Ok((taken, 0)) => announced + taken,
            Ok((taken, count)) => {
                self.held = Some(Held { ring, count });
                announced + taken
            }
            Err(error) => {
                // What came before the mistake is not believed either.
                let mut page = self.umem.page(&mut self.stock_owner);
                self.stock.extend(frames.drain(before..).map(|frame| page.give(frame)));
                if let Some(rests) = rests {
                    rests.end();
                }
                self.pair.fail(&mut ring, Way::FromGuest, error);
                announced
            }
        }
    }

    /// Gives the guest back the buffers of a burst whose rests were left there. No frame may have one any more.
    #[inline]
    pub fn release(&mut self, rests: &mut Rests) {
        if let Some(held) = self.held.take() {
            self.release_held(held, rests);
        }
    }

    #[inline(never)]
    fn release_held(&mut self, Held { mut ring, count }: Held, rests: &mut Rests) {
        if !rests.end() {
            self.whole = WHOLE_BURSTS;
        }
        let released = ring.as_mut().map(|running| {
            running.queue.release(&self.received, count)?;
            running.call_if_wanted()
        });
        if let Some(Err(error)) = released {
            self.pair.fail(&mut ring, Way::FromGuest, error);
        }
    }

    /// Makes the packet by which a guest says where it is.
    #[cold]
    fn announce(&mut self, mac: [u8; 6], frames: &mut Vec<Frame>) -> usize {
        let mut page = self.umem.page(&mut self.stock_owner);
        let Some(mut frame) = self.stock.pop().and_then(|addr| page.claim(addr, 0)) else { return 0 };
        let (start, packet) = (HEADROOM as usize, rarp::request(MacAddr::new(mac)));
        frame.chunk_mut()[start..start + packet.len()].copy_from_slice(&packet);
        frame.set(start, packet.len());
        frames.push(frame);
        1
    }

    fn receive_from(
        &mut self,
        ring: &mut RunningRing,
        frames: &mut Vec<Frame>,
        max: usize,
        rests: Option<&mut Rests>,
    ) -> Result<(usize, usize), RingError> {
        let Self { pair, umem, received, stock, stock_owner, whole, .. } = self;
        let mut rests = rests.filter(|_| *whole == 0);
        if let Some(rests) = &mut rests {
            rests.begin();
        }
        let mut burst = ring.queue.burst(received, max.min(stock.len()))?;
        let mut page = umem.page(stock_owner);
        let (mut malformed, mut disabled, mut long) = (0, 0, LONG);
        while let Some(chain) = burst.chain(0) {
            if !ring.enabled {
                disabled += 1;
            } else if let Some(mut frame) = stock.last().and_then(|&addr| page.claim(addr, 0)) {
                let rests = rests.as_deref_mut();
                match copy::read((ring.header, ring.offloads), &chain, &mut frame, umem, &mut long, rests) {
                    Ok(()) => {
                        stock.pop();
                        frames.push(frame);
                    }
                    Err(Untaken::Malformed) => {
                        page.give(frame);
                        malformed += 1;
                    }
                    Err(Untaken::NoTail) => {
                        page.give(frame);
                        break;
                    }
                }
            } else {
                break;
            }
            burst.advance(0);
        }
        let (taken, held) = match rests {
            Some(rests) if !rests.is_empty() => {
                let held = burst.hold()?;
                rests.hold(ring.queue.memory());
                (held, held)
            }
            _ => {
                let taken = burst.finish()?;
                if taken > 0 {
                    *whole = whole.saturating_sub(1);
                    ring.call_if_wanted()?;
                }
                (taken, 0)
            }
        };
        if long < LONG {
            PairCounters::add(&pair.counters.long_received, u64::from(LONG - long));
        }
        if malformed + disabled > 0 {
            PairCounters::add(&pair.counters.malformed, malformed);
            PairCounters::add(&pair.counters.disabled, disabled);
        }
        Ok((taken, held))
    }

    /// Whether packets of the guest wait.
    pub fn has_received(&self) -> bool {
        let Some(mut ring) = self.pair.try_lock(Way::FromGuest) else { return false };
        // A ring that is wrong is found to be so when packets are taken.
        ring.as_mut().is_some_and(|running| running.queue.has_available().unwrap_or(true))
    }

    /// Fills the stock.
    #[inline(never)]
    pub fn refill(&mut self, cache: &mut FrameCache) {
        let mut page = self.umem.page(&mut self.stock_owner);
        while self.stock.len() < self.stock_target
            && let Some(frame) = cache.take()
        {
            self.stock.push(page.give(frame));
        }
    }

    /// Whether the stock is not full.
    #[inline]
    pub fn is_short(&self) -> bool {
        self.stock.len() < self.stock_target
    }

    /// Copies up to `count` of `frames` to the guest while it has room. Returns how many were taken. None of them is to
    /// be cut: that is [`VhostQueue::send_long`]. `cache` has their rests.
    #[inline(never)]
    pub fn send(&mut self, count: usize, frames: &mut impl Iterator<Item = Frame>, cache: &mut FrameCache) -> usize {
        self.with_ring(|queue, ring| queue.send_to(ring, count, frames, cache))
    }

    /// Copies a packet of several chunks to the guest. The original goes to `cache`.
    ///
    /// # Errors
    /// There is no ring, or no room in it. The packet comes back.
    pub fn send_chained(&mut self, packet: Frame, cache: &mut FrameCache) -> Result<(), Frame> {
        let sent = self.with_ring(|queue, ring| queue.write_chained(ring, &packet));
        if !sent {
            return Err(packet);
        }
        cache.put(packet);
        Ok(())
    }

    fn write_chained(&mut self, ring: &mut RunningRing, packet: &Frame) -> Result<bool, RingError> {
        let Self { pair, umem, scratch, used, .. } = self;
        let mut burst = ring.queue.burst(scratch, MAX_LONG_MERGED)?;
        if burst.is_empty() {
            return Ok(false);
        }
        let mut parts = [&[][..]; MOST_CHUNKS];
        parts.iter_mut().zip(umem.pieces(packet)).for_each(|(part, piece)| *part = piece);
        if !copy::write(ring.header, &mut burst, NetHeader::PLAIN, &parts, GuestSlice::default()) {
            PairCounters::add(&pair.counters.no_room, 1);
        }
        *used |= burst.finish()? > 0;
        Ok(true)
    }

    /// Does something with the ring to the guest, or with that of another pair if the guest has not enabled this one.
    /// Nothing is done if there is none at this moment.
    #[inline(always)]
    pub(super) fn with_ring<R: Default>(
        &mut self,
        mut work: impl FnMut(&mut Self, &mut RunningRing) -> Result<R, RingError>,
    ) -> R {
        let pair = Arc::clone(&self.pair);
        let Some(mut ring) = pair.try_lock(Way::ToGuest) else { return R::default() };
        let Some(running) = ring.as_mut().filter(|running| running.enabled) else {
            drop(ring);
            return self.with_another_ring(work);
        };
        match work(self, running) {
            Ok(done) => done,
            Err(error) => {
                pair.fail(&mut ring, Way::ToGuest, error);
                R::default()
            }
        }
    }

    /// Goes by a pair that the guest has enabled. Another worker may have it, for a burst.
    #[cold]
    fn with_another_ring<R: Default>(
        &mut self,
        mut work: impl FnMut(&mut Self, &mut RunningRing) -> Result<R, RingError>,
    ) -> R {
        for at in 0..self.others.len() {
            let pair = Arc::clone(&self.others[at]);
            let mut ring = pair.lock(Way::ToGuest);
            let Some(running) = ring.as_mut().filter(|running| running.enabled) else { continue };
            let used = self.used;
            match work(self, running) {
                Ok(done) => {
                    self.used = used;
                    if let Err(error) = running.call_if_wanted() {
                        pair.fail(&mut ring, Way::ToGuest, error);
                    }
                    return done;
                }
                Err(error) => pair.fail(&mut ring, Way::ToGuest, error),
            }
        }
        R::default()
    }

    fn send_to(
        &mut self,
        ring: &mut RunningRing,
        count: usize,
        frames: &mut impl Iterator<Item = Frame>,
        cache: &mut FrameCache,
    ) -> Result<usize, RingError> {
        let Self { pair, umem, scratch, done, done_owner, used, .. } = self;
        let mut burst = ring.queue.burst(scratch, count + MAX_MERGED - 1)?;
        let mut page = umem.page(done_owner);
        let (mut sent, mut no_room, mut filled) = (0, 0, 0);
        while sent < count
            && !burst.is_empty()
            && let Some(mut frame) = frames.next()
        {
            let is_written = if frame.is_plain() {
                copy::write(ring.header, &mut burst, NetHeader::PLAIN, &[frame.data()], GuestSlice::default())
            } else {
                let header = leave(ring.offloads, cache, &mut frame, &mut filled);
                let rest = frame.rest().map_or_else(GuestSlice::default, |number| cache.rests().get(number));
                let head = frame.data().get(..frame.len().saturating_sub(rest.len())).unwrap_or_default();
                copy::write(ring.header, &mut burst, header, &[head], rest)
            };
            if !is_written {
                no_room += 1;
            }
            done.push(page.give(frame));
            sent += 1;
        }
        if no_room > 0 {
            PairCounters::add(&pair.counters.no_room, no_room);
        }
        if filled > 0 {
            PairCounters::add(&pair.counters.checksums_filled, filled);
        }
        *used |= burst.finish()? > 0;
        Ok(sent)
    }

    /// Tells the guest of its packets.
    #[inline]
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.used)
            && let Some(mut ring) = self.pair.try_lock(Way::ToGuest)
            && let Some(Err(error)) = ring.as_mut().map(RunningRing::call_if_wanted)
        {
            self.pair.fail(&mut ring, Way::ToGuest, error);
        }
    }

    /// Takes back frames that were copied. Returns their number.
    #[inline(never)]
    pub fn reap(&mut self, cache: &mut FrameCache) -> usize {
        let mut page = self.umem.page(&mut self.done_owner);
        let count = self.done.len();
        for addr in self.done.drain(..) {
            if let Some(frame) = page.claim(addr, 0) {
                cache.put(frame);
            }
        }
        count
    }

    /// Frames in the stock, and frames that were copied and not taken back.
    #[inline]
    pub fn outstanding(&self) -> (u32, u32) {
        (count(&self.stock), count(&self.done))
    }

    /// Ledger numbers of these two, in the same order.
    pub fn owners(&self) -> (u32, u32) {
        (self.stock_owner.id(), self.done_owner.id())
    }

    /// Asks the guest to kick. The caller must look for packets once more before it sleeps.
    pub fn ask_for_wakeup(&self) {
        self.pair.clear_wakeups();
        // While control has the ring, it is going to nudge.
        let Some(mut ring) = self.pair.try_lock(Way::FromGuest) else { return };
        if let Some(running) = ring.as_mut() {
            let _ = running.queue.enable_kicks();
        }
        self.kicks.set(true);
    }

    /// Gives all frames to `cache`. What the guest has sent and nobody has taken stays in its rings.
    pub fn close(self, cache: &mut FrameCache) -> Count {
        let Self { umem, stock_owner, done_owner, .. } = self;
        for owner in [stock_owner, done_owner] {
            umem.reclaim(owner).into_iter().for_each(|frame| cache.put(frame));
        }
        Count::default()
    }
}

/// The header that leaves a checksum to the guest. If the guest takes none, it is filled, and counted.
#[inline(never)]
fn leave(rules: OffloadRules, cache: &mut FrameCache, frame: &mut Frame, filled: &mut u64) -> NetHeader {
    debug_assert!(!frame.is_to_be_cut(), "a packet that is to be cut goes another way");
    cache.umem().drop_tail(frame);
    if !frame.lacks_checksum() {
        return NetHeader::PLAIN;
    }
    let offload = frame.offload();
    if rules.lets_pass(&offload) {
        return offload.header();
    }
    *filled += u64::from(offload.checksum.is_some());
    cache.complete(frame);
    frame.fill_checksum();
    NetHeader::PLAIN
}

fn count(addrs: &[u64]) -> u32 {
    u32::try_from(addrs.len()).unwrap_or(u32::MAX)
}
