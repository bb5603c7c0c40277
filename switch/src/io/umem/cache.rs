//! A thread's stock of free frames.

use std::sync::Arc;

use super::{FREE, Frame, MOST_CHUNKS, Owner, Rests, SLAB, Umem};
use crate::io::ring::{Consumer, Producer};

/// A cache gives a slab back when it holds more than this.
const CACHE_LIMIT: usize = 4 * SLAB;
/// Room beyond that limit, in frames, until it does so.
const SPARE: usize = 2 * SLAB;

/// A thread's own stock of free frames.
#[derive(Debug)]
pub struct FrameCache {
    umem: Arc<Umem>,
    /// Indices of free chunks. The first `len` are valid.
    free: Box<[u32; CACHE_LIMIT + SPARE]>,
    len: usize,
    /// What of the thread's frames is still in a guest's memory.
    rests: Rests,
}

impl FrameCache {
    /// An empty cache.
    pub fn new(umem: Arc<Umem>) -> Self {
        Self { umem, free: Box::new([0; CACHE_LIMIT + SPARE]), len: 0, rests: Rests::default() }
    }

    /// The UMEM that its frames belong to.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// What of the thread's frames is still in a guest's memory.
    #[inline]
    pub fn rests(&mut self) -> &mut Rests {
        &mut self.rests
    }

    /// Copies what of a frame is still in its sender's memory.
    #[inline]
    pub fn complete(&mut self, frame: &mut Frame) {
        if let Some(number) = frame.rest() {
            self.fetch(frame, number);
        }
    }

    #[inline(never)]
    fn fetch(&mut self, frame: &mut Frame, number: u8) {
        let (rest, end) = (self.rests.get(number), frame.start() + frame.len());
        let first = end.saturating_sub(rest.len());
        rest.read(&mut frame.chunk_mut()[first..end]);
        frame.set_complete();
        self.rests.note_completed();
    }

    /// Takes a free frame without data, if there is one. Its data starts behind the headroom.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.restock();
        self.len = self.len.checked_sub(1)?;
        let index = self.free[self.len];
        // SAFETY: each index is once in one cache or in the pool. The new length takes it out of this one.
        Some(unsafe { self.umem.hold(index) })
    }

    /// Gives `owner` up to `count` free frames for the kernel to fill, while `fill` has room for their addresses.
    /// Returns how many.
    #[inline]
    pub fn give(&mut self, count: u32, owner: &mut Owner, fill: &mut Producer<u64>) -> u32 {
        let mut given = 0;
        while given < count {
            self.restock();
            let some = self.len.min((count - given) as usize);
            let (mut page, mut indices) = (self.umem.page(owner), self.free[self.len - some..self.len].iter().rev());
            #[expect(clippy::cast_possible_truncation, reason = "at most `count`")]
            let more = fill.push_all(some as u32, || indices.next().map(|index| page.put(*index)));
            if more == 0 {
                break;
            }
            self.len -= more as usize;
            given += more;
        }
        given
    }

    /// Takes back the frames whose addresses are in `completion`, and keeps them. Their data is lost. Returns the
    /// number of addresses, and the number of frames that `owner` really had.
    #[inline]
    pub fn claim(&mut self, completion: &mut Consumer<u64>, owner: &mut Owner) -> (u32, u32) {
        let (mut taken, mut claimed) = (0, 0);
        loop {
            let (mut page, free, mut len) = (self.umem.page(owner), &mut *self.free, self.len);
            #[expect(clippy::cast_possible_truncation, reason = "a constant")]
            let more = completion.take(SPARE as u32, |addr| {
                if let Some(place) = free.get_mut(len)
                    && let Some(index) = page.take(addr, FREE)
                {
                    *place = index;
                    len += 1;
                }
            });
            #[expect(clippy::cast_possible_truncation, reason = "at most `more`")]
            let new = (len - self.len) as u32;
            (taken, claimed) = (taken + more, claimed + new);
            self.len = len;
            self.spill_excess();
            if (more as usize) < SPARE {
                return (taken, claimed);
            }
        }
    }

    /// Gets a slab from the pool if the cache is empty.
    #[inline]
    fn restock(&mut self) {
        if self.len == 0
            && let Some(slab) = self.umem.pool.pop()
        {
            self.free[..SLAB].copy_from_slice(&slab);
            self.len = SLAB;
        }
    }

    /// Number of frames that can be taken before the pool is asked again. 0 if none is free.
    #[inline]
    pub fn stock(&mut self) -> usize {
        self.restock();
        self.len
    }

    /// Gives a frame back, with all chunks of its packet.
    #[inline]
    pub fn put(&mut self, mut frame: Frame) {
        if !frame.is_plain() {
            self.strip(&mut frame);
        }
        self.free[self.len] = self.umem.free(frame);
        self.len += 1;
        self.spill_excess();
    }

    /// Gives back what a frame has beside its chunk.
    #[inline(never)]
    fn strip(&mut self, frame: &mut Frame) {
        self.umem.drop_tail(frame);
        while let Some(next) = self.umem.unchain(frame) {
            self.put(std::mem::replace(frame, next));
        }
    }

    /// Gets slabs from the pool until `wanted` frames are here. False if there are fewer, or `wanted` is more than the
    /// chunks of a packet.
    pub fn stock_up(&mut self, wanted: usize) -> bool {
        while self.len < wanted.min(MOST_CHUNKS)
            && let Some(slab) = self.umem.pool.pop()
        {
            self.free[self.len..][..SLAB].copy_from_slice(&slab);
            self.len += SLAB;
        }
        self.len >= wanted
    }

    /// Number of frames in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives whole slabs back to the pool until at most `SLAB - 1` frames are left.
    pub fn spill_all(&mut self) {
        while self.len >= SLAB {
            self.spill();
        }
    }

    #[inline]
    fn spill_excess(&mut self) {
        while self.len > CACHE_LIMIT {
            self.spill();
        }
    }

    #[inline(never)]
    fn spill(&mut self) {
        let keep = self.len - SLAB;
        let mut slab = [0; SLAB];
        slab.copy_from_slice(&self.free[keep..][..SLAB]);
        self.len = keep;
        let pushed = self.umem.pool.push(slab);
        debug_assert!(pushed.is_ok(), "the pool has room for every frame there is");
    }
}
