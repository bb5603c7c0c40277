//! UMEM: the frames that all AF_XDP sockets share, and the ledger that says who owns each one.
//!
//! UMEM is one mapping, cut into chunks of equal size. A [`Frame`] is the right to one chunk, so safe code can't reach
//! a chunk that the kernel writes. A chunk without a `Frame` is free, or belongs to an [`Owner`]: the receive or
//! transmit side of a socket.
//!
//! The ledger has an entry for each chunk, and every move writes it. So the frames of a closed socket are found
//! wherever the kernel had them, also in lists that no ring shows. An audit compares the ledger with the counts that
//! each part keeps by itself.
//!
//! Free frames lie in a lock-free pool, in slabs of [`SLAB`]. Each thread has a [`FrameCache`] in front of it.

mod cache;
mod chains;
mod frame;
mod ledger;
mod offload;
mod rests;
mod tails;
#[cfg(test)]
mod tests;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;
use nix::errno::Errno;

pub use self::cache::FrameCache;
use self::chains::Chains;
pub use self::chains::{Chain, MOST_CHUNKS};
pub use self::frame::Frame;
use self::ledger::{CHAINED, FIRST_OWNER, FREE, HELD};
pub use self::ledger::{Census, Owner, Page, Whereabouts};
pub use self::offload::{Cut, Segments};
pub use self::rests::Rests;
use self::tails::Tails;
pub use self::tails::{TAIL, Tail};
use super::mmap::Mmap;
use crate::model::HugePages;

/// Frames that move between a cache and the pool at once.
pub const SLAB: usize = 32;
/// Bytes that the kernel keeps free in front of a received packet (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: u32 = 256;
/// Smallest chunk. It has room for data behind the headroom. The kernel itself takes no less than 2,048.
const MIN_FRAME_SIZE: u32 = 2 * HEADROOM;
/// Largest chunk: a page, as in the kernel. A mapping begins at a page, so every chunk is aligned to its size.
const MAX_FRAME_SIZE: u32 = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// Number of the next UMEM.
static NEXT_UMEM: AtomicU64 = AtomicU64::new(0);

/// The shared frames.
#[derive(Debug)]
pub struct Umem {
    /// Unique in the process, also among UMEMs that are gone.
    id: u64,
    memory: Mmap,
    frame_size: u32,
    frame_shift: u32,
    /// The ledger: who owns each chunk.
    owners: Box<[AtomicU32]>,
    pool: ArrayQueue<[u32; SLAB]>,
    /// For packets that are longer than a frame, if any come.
    tails: OnceLock<Tails>,
    /// For packets of several chunks, if any come.
    chains: OnceLock<Chains>,
    /// Number of the next owner. 64 bits don't wrap, so no number is given out twice.
    next_owner: AtomicU64,
    huge: bool,
    /// Whether huge pages of any kind were wanted.
    prefers_huge: bool,
}

impl Umem {
    /// Maps `frames` frames (a multiple of [`SLAB`]) of `frame_size` bytes (a power of two, 512–4,096), all free.
    ///
    /// # Errors
    /// EINVAL if a number is not as above. ENOMEM if memory is short, or if huge pages are short with
    /// [`HugePages::On`].
    pub fn new(frames: u32, frame_size: u32, huge_pages: HugePages) -> Result<Arc<Self>, Errno> {
        let len = check_layout(frames, frame_size)?;
        let huge_len = len.next_multiple_of(HUGE_PAGE);
        let (memory, huge) = match huge_pages {
            HugePages::Off => (Mmap::anonymous(len, false)?, false),
            HugePages::On => (Mmap::anonymous(huge_len, true)?, true),
            HugePages::Auto => match Mmap::anonymous(huge_len, true) {
                Ok(memory) => (memory, true),
                Err(_) => (transparent(len)?, false),
            },
        };
        let prefers_huge = huge_pages != HugePages::Off;
        Ok(Self::over(memory, frames, frame_size, huge, prefers_huge))
    }

    /// Maps a further UMEM with `frames` frames (a multiple of [`SLAB`]) of the same size. It leaves reserved huge
    /// pages to others, and asks for transparent ones if this one was to be on huge pages.
    ///
    /// # Errors
    /// As for [`Umem::new`].
    pub fn sibling(&self, frames: u32) -> Result<Arc<Self>, Errno> {
        let len = check_layout(frames, self.frame_size)?;
        let memory = if self.prefers_huge { transparent(len)? } else { Mmap::anonymous(len, false)? };
        Ok(Self::over(memory, frames, self.frame_size, false, self.prefers_huge))
    }

    /// A UMEM in `memory`, which is long enough. All frames are free.
    fn over(memory: Mmap, frames: u32, frame_size: u32, huge: bool, prefers_huge: bool) -> Arc<Self> {
        let slabs = frames as usize / SLAB;
        let pool = ArrayQueue::new(slabs);
        let mut indices = 0..frames;
        for _ in 0..slabs {
            let slab = std::array::from_fn(|_| indices.next().unwrap_or_default());
            // There is room, because the queue was made for all slabs.
            let _ = pool.push(slab);
        }
        Arc::new(Self {
            id: NEXT_UMEM.fetch_add(1, Ordering::Relaxed),
            memory,
            frame_size,
            frame_shift: frame_size.trailing_zeros(),
            owners: (0..frames).map(|_| AtomicU32::new(FREE)).collect(),
            pool,
            tails: OnceLock::new(),
            chains: OnceLock::new(),
            next_owner: AtomicU64::new(u64::from(FIRST_OWNER)),
            huge,
            prefers_huge,
        })
    }

    /// Its number, unique in the process, also among UMEMs that are gone.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Number of all frames.
    #[expect(clippy::cast_possible_truncation, reason = "it was made from a `u32`")]
    pub fn frames(&self) -> u32 {
        self.owners.len() as u32
    }

    /// Bytes of a chunk.
    pub fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Whether the memory lies on huge pages.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// First byte and length of the mapping, for registration with the kernel.
    pub fn region(&self) -> (*mut u8, usize) {
        (self.memory.start().as_ptr(), self.frames() as usize * self.frame_size as usize)
    }

    /// Free frames in the pool, without those in caches.
    #[expect(clippy::cast_possible_truncation, reason = "at most `frames`, a `u32`")]
    pub fn pool_len(&self) -> u32 {
        (self.pool.len() * SLAB) as u32
    }

    /// Makes the two owners of one socket: for frames to be filled, and for frames to be sent.
    ///
    /// # Panics
    /// After 2³¹ sockets.
    pub fn new_owners(&self) -> [Owner; 2] {
        // The first is even and the second odd. `Whereabouts` tells them apart by that.
        let first = self.next_owner.fetch_add(2, Ordering::Relaxed);
        [first, first + 1].map(|id| match u32::try_from(id) {
            Ok(id) => Owner { id, umem: self.id },
            Err(_) => panic!("no number is left for an owner of frames"),
        })
    }

    /// As [`Frame::data`].
    #[inline]
    pub fn data<'a>(&self, frame: &'a Frame) -> &'a [u8] {
        frame.data()
    }

    /// As [`Frame::chunk_mut`].
    #[inline]
    pub fn chunk_mut<'a>(&self, frame: &'a mut Frame) -> &'a mut [u8] {
        frame.chunk_mut()
    }

    /// The ledger, opened for the frames of one owner during a burst.
    ///
    /// # Panics
    /// If the owner is of another UMEM.
    #[inline]
    pub fn page<'a>(&'a self, owner: &'a mut Owner) -> Page<'a> {
        assert!(owner.umem == self.id, "an owner of frames in another UMEM");
        // SAFETY: the mapping has a chunk for each word of `owners`, begins at a page, and stays while a frame is held
        // (`drop`). The owner's number is unique in this UMEM, and the owner is borrowed exclusively.
        unsafe { Page::new(&self.owners, self.memory.start(), self.frame_shift, owner.id) }
    }

    /// As [`Page::give`].
    pub fn give(&self, frame: Frame, owner: &mut Owner) -> u64 {
        self.page(owner).give(frame)
    }

    /// As [`Page::claim`].
    pub fn claim(&self, addr: u64, len: u32, owner: &mut Owner) -> Option<Frame> {
        self.page(owner).claim(addr, len)
    }

    /// Takes all frames of an owner that the kernel no longer knows, and ends the owner.
    pub fn reclaim(&self, mut owner: Owner) -> Vec<Frame> {
        self.take_all(&mut owner)
    }

    /// Takes all frames of an owner whose frames the kernel no longer looks at.
    pub fn take_all(&self, owner: &mut Owner) -> Vec<Frame> {
        self.page(owner).claim_all()
    }

    /// Has packets of several chunks from now on. Further calls do nothing.
    pub fn add_chains(&self) {
        self.chains();
    }

    /// The links of chunks. A queue that brings packets of several chunks has made them.
    fn chains(&self) -> &Chains {
        self.chains.get_or_init(|| Chains::new(self.owners.len()))
    }

    /// Checks the links of chunks, at a moment when nobody moves frames.
    ///
    /// # Errors
    /// Further chunks are lost.
    pub fn check_chains(&self) -> Result<(), String> {
        self.chains.get().map_or(Ok(()), |chains| chains.check(&self.owners))
    }

    fn set_owner(&self, chunk: usize, owner: u32) {
        self.owners[chunk].store(owner, Ordering::Relaxed);
    }

    /// A place in a chunk.
    ///
    /// # Safety
    /// The chunk is one of the mapping's, and is longer than `start`.
    #[inline(always)]
    unsafe fn place(&self, index: u32, start: u32) -> NonNull<u8> {
        // SAFETY: as the caller says.
        unsafe { self.memory.start().add(((index as usize) << self.frame_shift) + start as usize) }
    }

    /// The frame of a chunk, with its data.
    ///
    /// # Safety
    /// Only the caller has the chunk, and its word says `HELD`. The data lies within it.
    unsafe fn frame_at(&self, index: u32, start: u16, len: u16) -> Frame {
        // SAFETY: the chunk is one of the mapping's, and `start` lies within it.
        let data = unsafe { self.place(index, start.into()) };
        // SAFETY: as the caller says. The mapping stays, because the word says `HELD`.
        unsafe { Frame::new(data, u32::from(len), self.frame_size - 1) }
    }

    /// Bytes of a chunk.
    ///
    /// # Safety
    /// They lie within it, and nobody writes them while they are borrowed.
    unsafe fn bytes_at(&self, index: u32, start: u16, len: u16) -> &[u8] {
        // SAFETY: the chunk is one of the mapping's, and `start` lies within it.
        let data = unsafe { self.place(index, start.into()) };
        // SAFETY: the bytes lie within the chunk, and the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(data.as_ptr(), usize::from(len)) }
    }

    /// Has packets that are longer than a frame from now on. Further calls do nothing.
    ///
    /// # Errors
    /// ENOMEM: there is no address space for them.
    pub fn add_tails(&self) -> Result<(), Errno> {
        if self.tails.get().is_none() {
            // Of two at a time one is dropped.
            let _ = self.tails.set(Tails::new(self.id, self.owners.len())?);
        }
        Ok(())
    }

    /// Takes a free tail, if there is one.
    pub fn take_tail(&self) -> Option<Tail> {
        self.tails.get()?.take()
    }

    /// Frees a tail that no frame has.
    pub fn put_tail(&self, tail: Tail) {
        if let Some(tails) = self.tails.get() {
            tails.put(tail);
        }
    }

    /// The bytes of a tail, to be filled.
    pub fn tail_mut<'a>(&'a self, tail: &'a mut Tail) -> &'a mut [u8] {
        self.tails.get().map_or(&mut [], |tails| tails.bytes_mut(tail))
    }

    /// Tails in use: of frames, or being filled.
    pub fn tails_in_use(&self) -> u32 {
        self.tails.get().map_or(0, Tails::in_use)
    }

    /// Checks the tails, at a moment when nobody moves frames.
    ///
    /// # Errors
    /// Tails are lost, or frames with tails are.
    pub fn check_tails(&self) -> Result<(), String> {
        self.tails.get().map_or(Ok(()), |tails| tails.check(self.census().held()))
    }

    /// The bytes behind those of a frame's packet. None if it is not to be cut.
    pub fn tail<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        match self.tails.get() {
            // SAFETY: the frame has a tail, and is borrowed as long as the bytes are.
            Some(tails) if frame.is_to_be_cut() => unsafe { tails.bytes(self.chunk_of(frame)) },
            _ => &[],
        }
    }

    /// Gives a frame without a tail this one.
    fn tie(&self, frame: &Frame, tail: Tail, len: u32) {
        if let Some(tails) = self.tails.get() {
            tails.tie(self.chunk_of(frame), tail, len);
        }
    }

    /// Gives a frame without a tail that of another one.
    fn share_tail(&self, from: &Frame, to: &Frame) {
        if let Some(tails) = self.tails.get().filter(|_| from.is_to_be_cut()) {
            // SAFETY: `from` has a tail, as was asked.
            unsafe { tails.share(self.chunk_of(from), self.chunk_of(to)) };
        }
    }

    /// Frees the tail of a frame, if it has one. Nothing is left to be done with its packet.
    #[inline]
    pub fn drop_tail(&self, frame: &mut Frame) {
        if frame.is_to_be_cut() {
            self.untie(frame);
        }
    }

    #[inline(never)]
    fn untie(&self, frame: &mut Frame) {
        frame.mark(0);
        if let Some(tails) = self.tails.get() {
            // SAFETY: it was to be cut, so it had a tail. The mark is gone.
            unsafe { tails.untie(self.chunk_of(frame)) };
        }
    }

    /// Index of a frame's chunk.
    fn chunk_of(&self, frame: &Frame) -> usize {
        frame.addr().wrapping_sub(self.memory.start().addr().get()) >> self.frame_shift
    }

    /// Counts the frames of each owner, at a moment when nobody moves any.
    pub fn census(&self) -> Census {
        Census::of(&self.owners, self.next_owner.load(Ordering::Relaxed))
    }

    /// Counts the frames of each kind of owner, at any moment.
    pub fn whereabouts(&self) -> Whereabouts {
        Whereabouts::of(&self.owners)
    }

    /// Makes the frame of a free chunk, without data. Its data starts behind the headroom.
    ///
    /// # Safety
    /// Only the caller has the index, and it gives the index up.
    #[inline]
    unsafe fn hold(&self, index: u32) -> Frame {
        self.owners[index as usize].store(HELD, Ordering::Relaxed);
        // SAFETY: the index is below the number of chunks, or the line above would have panicked. A chunk is longer
        // than the headroom.
        let data = unsafe { self.place(index, HEADROOM) };
        // SAFETY: `data` lies in a chunk, and the chunk is aligned as the mapping is. Only the caller had the chunk,
        // and the ledger says that it is held. So nobody else makes a frame of it, and the mapping stays.
        unsafe { Frame::new(data, 0, self.frame_size - 1) }
    }

    /// Frees the chunk of a frame that has nothing beside it. Returns its index.
    ///
    /// # Panics
    /// If the frame is of another UMEM.
    #[inline]
    fn free(&self, frame: Frame) -> u32 {
        let at = frame.addr().wrapping_sub(self.memory.start().addr().get());
        // A frame of another UMEM lies outside this mapping. Its index is too great, and the access panics.
        let index = at >> self.frame_shift;
        self.owners[index].store(FREE, Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "there are at most `u32::MAX` chunks")]
        let index = index as u32;
        index
    }
}

/// The bytes that `frames` frames of that size take.
fn check_layout(frames: u32, frame_size: u32) -> Result<usize, Errno> {
    let is_size = frame_size.is_power_of_two() && (MIN_FRAME_SIZE..=MAX_FRAME_SIZE).contains(&frame_size);
    let frames = frames as usize;
    if !is_size || frames == 0 || !frames.is_multiple_of(SLAB) {
        return Err(Errno::EINVAL);
    }
    Ok(frames * frame_size as usize)
}

/// Memory on transparent huge pages, as far as the kernel has some at hand.
fn transparent(len: usize) -> Result<Mmap, Errno> {
    let memory = Mmap::anonymous(len, false)?;
    memory.prefer_huge();
    Ok(memory)
}

impl Drop for Umem {
    /// Keeps the mapping if a frame is still held. So a frame never outlives its memory, and its address is not reused.
    fn drop(&mut self) {
        if self.owners.iter_mut().any(|owner| matches!(*owner.get_mut(), HELD | CHAINED)) {
            self.memory.keep();
        }
    }
}
