//! The ledger: who owns each chunk, and how chunks change hands.
//!
//! One word for each chunk says who owns it: the free pool, the holder of its [`Frame`], or an [`Owner`]. An owner is
//! one direction of one socket. Ownership moves as `Documentation/networking/af_xdp.rst` says: to the kernel by the
//! fill and tx rings, back by the rx and completion rings.
//!
//! Loads and stores are relaxed. Only a chunk's owner writes its word. A frame or an owner that moves to another thread
//! takes its writes along.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Frame;

/// Word of a chunk in the pool or in a cache.
pub(super) const FREE: u32 = 0;
/// Word of a chunk with a [`Frame`].
pub(super) const HELD: u32 = 1;
/// Word of a further chunk of a packet whose first chunk has a [`Frame`].
pub(super) const CHAINED: u32 = 2;
/// Lowest number of an [`Owner`]. It is even.
pub(super) const FIRST_OWNER: u32 = 4;

/// One direction of one socket, as an owner of chunks. It is not `Clone`, because its holder may take its chunks.
#[derive(Debug)]
pub struct Owner {
    pub(super) id: u32,
    /// Number of the UMEM that its chunks are in.
    pub(super) umem: u64,
}

impl Owner {
    /// Its number in [`Census`].
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// Moves the frames of a burst between one owner and the holders of [`Frame`]s.
///
/// It holds copies of the UMEM's fields, so that the compiler need not read them again for each frame.
#[derive(Debug)]
pub struct Page<'a> {
    owners: &'a [AtomicU32],
    base: NonNull<u8>,
    shift: u32,
    /// Bytes of a chunk minus one.
    mask: u32,
    owner: u32,
}

impl<'a> Page<'a> {
    /// Opens the ledger for the owner of that number.
    ///
    /// # Safety
    /// - `base` is the first byte of a mapping of `owners.len()` chunks of `1 << shift` bytes, aligned to a chunk.
    /// - The mapping stays while a word of `owners` is [`HELD`] or [`CHAINED`].
    /// - Nobody else moves chunks of that owner while this exists.
    #[inline(always)]
    pub(super) unsafe fn new(owners: &'a [AtomicU32], base: NonNull<u8>, shift: u32, owner: u32) -> Self {
        Self { owners, base, shift, mask: (1 << shift) - 1, owner }
    }

    /// Gives a frame to the owner. Returns the address of its data, as the kernel's rings want it.
    ///
    /// # Panics
    /// If the frame is of another UMEM.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) -> u64 {
        debug_assert!(!frame.is_to_be_cut() && !frame.is_chained(), "a frame with more than its chunk");
        let at = frame.addr().wrapping_sub(self.base.addr().get());
        // A frame of another UMEM lies outside this mapping. Its index is too great, and the access panics.
        self.owners[at >> self.shift].store(self.owner, Ordering::Relaxed);
        at as u64
    }

    /// Takes the frame at `addr` from the owner, with `len` bytes of data there.
    ///
    /// `None` if the owner does not have that frame, or the data would not lie within one chunk. A correct kernel never
    /// causes either. No other frame is touched.
    #[inline(always)]
    pub fn claim(&mut self, addr: u64, len: u32) -> Option<Frame> {
        // Bytes from `addr` to the last one of the chunk.
        let behind = !addr & u64::from(self.mask);
        if u64::from(len) > behind + 1 {
            return None;
        }
        self.take(addr, HELD)?;
        let at = usize::try_from(addr).ok()?;
        // SAFETY: `take` has found `addr` within the mapping.
        let data = unsafe { self.base.add(at) };
        // SAFETY: the data ends within its chunk, as checked above. The word said that our owner has the chunk, and
        // nobody else moves this owner's chunks. It says `HELD` from here on, so the mapping stays and nobody else
        // makes a frame of the chunk.
        Some(unsafe { Frame::new(data, len, self.mask) })
    }

    /// Takes all frames of the owner, without data.
    pub(super) fn claim_all(&mut self) -> Vec<Frame> {
        let (chunks, shift) = (self.owners.len() as u64, self.shift);
        (0..chunks).filter_map(|index| self.claim(index << shift, 0)).collect()
    }

    /// Gives the chunk at `index` to the owner. Returns the chunk's address.
    #[inline(always)]
    pub(super) fn put(&mut self, index: u32) -> u64 {
        self.owners[index as usize].store(self.owner, Ordering::Relaxed);
        u64::from(index) << self.shift
    }

    /// Takes the chunk at `addr` from the owner, if the owner has it. Its word becomes `to`. Returns its index.
    #[inline(always)]
    pub(super) fn take(&mut self, addr: u64, to: u32) -> Option<u32> {
        let index = addr >> self.shift;
        let word = self.owners.get(usize::try_from(index).ok()?)?;
        if word.load(Ordering::Relaxed) != self.owner {
            return None;
        }
        word.store(to, Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "there are at most `u32::MAX` chunks")]
        Some(index as u32)
    }
}

/// Number of frames of each owner, at a moment when no frame moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Indexed by the owner's number.
    counts: Vec<u32>,
}

impl Census {
    /// Counts the words. All owners have numbers below `owners`.
    pub(super) fn of(words: &[AtomicU32], owners: u64) -> Self {
        let mut counts = vec![0; usize::try_from(owners).unwrap_or_default()];
        for word in words {
            if let Some(count) = counts.get_mut(word.load(Ordering::Relaxed) as usize) {
                *count += 1;
            }
        }
        Self { counts }
    }

    /// Frames in the pool or a cache.
    pub fn free(&self) -> u32 {
        self.at(FREE)
    }

    /// Frames that somebody holds as a [`Frame`].
    pub fn held(&self) -> u32 {
        self.at(HELD)
    }

    /// Further chunks of these frames' packets.
    pub fn chained(&self) -> u32 {
        self.at(CHAINED)
    }

    /// Frames of one owner, by [`Owner::id`].
    pub fn at(&self, owner: u32) -> u32 {
        self.counts.get(owner as usize).copied().unwrap_or(0)
    }

    /// Frames with the kernel, of all owners.
    pub fn placed(&self) -> u32 {
        self.counts.iter().skip(FIRST_OWNER as usize).sum()
    }
}

/// Number of frames of each kind of owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Frames in the pool or a cache.
    pub free: u32,
    /// Frames that somebody holds as a [`Frame`], and further chunks of their packets.
    pub held: u32,
    /// Frames with the kernel that are to be filled, or are filled and not taken yet.
    pub rx: u32,
    /// Frames with the kernel that are to be sent, or are sent and not taken back yet.
    pub tx: u32,
}

impl Whereabouts {
    /// Counts each word once, at the moment of its read. So the sum is always the number of frames.
    pub(super) fn of(words: &[AtomicU32]) -> Self {
        let mut usage = Self::default();
        for word in words {
            let count = match word.load(Ordering::Relaxed) {
                FREE => &mut usage.free,
                HELD | CHAINED => &mut usage.held,
                owner if owner % 2 == 0 => &mut usage.rx,
                _ => &mut usage.tx,
            };
            *count += 1;
        }
        usage
    }
}
