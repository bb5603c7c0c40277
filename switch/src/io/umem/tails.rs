//! Buffers for the rest of packets that are longer than a frame.
//!
//! A guest may leave a packet of up to 64 KiB to the switch, to be cut into segments. Its frame has the first segment:
//! all headers, and the first part of the payload. The rest is in a [`Tail`], which the frame is tied to. Copies of a
//! frame share the tail, which nobody writes any more then.
//!
//! Tails are not in UMEM, because no device sees them. So a packet takes one frame, however long it is. The memory is
//! mapped with the first port that needs it, and touched as far as tails are in use. Free tails are a lock-free stack:
//! the one that was used last is taken first.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;

use crate::io::mmap::Mmap;

/// Bytes of a tail.
pub const TAIL: usize = 65_536;
/// Number of tails: 64 MiB. A port with a debt keeps no more than [`crate::io::vhost::TAILS`] of them.
const TAILS: u32 = 1024;
/// The same as [`TAIL`].
const MOST: u32 = 65_536;
/// The stack's end.
const NONE: u32 = u32::MAX;

/// All tails of a UMEM.
#[derive(Debug)]
pub(super) struct Tails {
    /// Number of the UMEM.
    umem: u64,
    memory: Mmap,
    /// Frames that each tail is tied to. 0 if it is free, or being filled.
    users: Box<[AtomicU32]>,
    /// The free tail below each free one.
    below: Box<[AtomicU32]>,
    /// The top of the free ones, and a number that changes with each change in the upper half.
    top: AtomicU64,
    free: AtomicU32,
    /// For each chunk of the UMEM whose frame has a tail: the tail, and its length in the upper half. Only the holder
    /// of the frame uses it.
    tied: Box<[AtomicU64]>,
}

/// A buffer of [`TAIL`] bytes that only its holder has. It must be tied to a frame, or given back.
#[derive(Debug)]
#[must_use = "a tail that is not given on is lost"]
pub struct Tail {
    /// Below [`TAILS`].
    index: u32,
    /// Number of the UMEM that it is of.
    umem: u64,
}

impl Tails {
    /// Tails for the UMEM of that number, with so many chunks.
    pub(super) fn new(umem: u64, chunks: usize) -> Result<Self, Errno> {
        Ok(Self {
            umem,
            memory: Mmap::anonymous(TAILS as usize * TAIL, false)?,
            users: (0..TAILS).map(|_| AtomicU32::new(0)).collect(),
            below: (0..TAILS).map(|tail| AtomicU32::new(if tail + 1 < TAILS { tail + 1 } else { NONE })).collect(),
            top: AtomicU64::new(0),
            free: AtomicU32::new(TAILS),
            tied: (0..chunks).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Tails that are tied to a frame, or being filled.
    pub(super) fn in_use(&self) -> u32 {
        TAILS - self.free.load(Ordering::Relaxed)
    }

    /// Compares what is in use with what frames have, at a moment when nobody moves any and `held` frames are held.
    ///
    /// # Errors
    /// What does not agree.
    pub(super) fn check(&self, held: u32) -> Result<(), String> {
        let (mut tied, mut users) = (0, 0);
        for tail in &self.users {
            let count = tail.load(Ordering::Relaxed);
            tied += u32::from(count > 0);
            users += count;
        }
        let in_use = self.in_use();
        if in_use == tied && users <= held {
            return Ok(());
        }
        Err(format!("{in_use} tails of long packets are in use, {tied} have frames: {users} of {held} that are held"))
    }

    /// Takes a free tail.
    pub(super) fn take(&self) -> Option<Tail> {
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let (index, turn) = split(top);
            let below = self.below.get(index as usize)?.load(Ordering::Relaxed);
            let next = join(below, turn.wrapping_add(1));
            // The number keeps a tail that came back meanwhile from being taken for the one that was looked at.
            match self.top.compare_exchange_weak(top, next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => {
                    self.free.fetch_sub(1, Ordering::Relaxed);
                    return Some(Tail { index, umem: self.umem });
                }
                Err(now) => top = now,
            }
        }
    }

    /// The number of a tail that is one of these.
    fn own(&self, tail: &Tail) -> u32 {
        assert!(tail.umem == self.umem, "a tail of another UMEM");
        tail.index
    }

    /// Frees a tail.
    ///
    /// # Panics
    /// If it is of another UMEM, as all that take one.
    pub(super) fn put(&self, tail: Tail) {
        let index = self.own(&tail);
        // Before it can be taken, so that the number never falls below zero.
        self.free.fetch_add(1, Ordering::Relaxed);
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            let (below, turn) = split(top);
            self.below[index as usize].store(below, Ordering::Relaxed);
            let next = join(index, turn.wrapping_add(1));
            match self.top.compare_exchange_weak(top, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// The bytes of a tail, to be filled.
    pub(super) fn bytes_mut<'a>(&'a self, tail: &'a mut Tail) -> &'a mut [u8] {
        let index = self.own(tail) as usize;
        // SAFETY: the index is below `TAILS`, so the bytes are in the mapping, which lives as long as `self`.
        let start = unsafe { self.memory.start().add(index * TAIL) };
        // SAFETY: the tail was taken from the stack, which has it once, and is not tied to a frame. So only its holder
        // reaches these bytes, and the holder is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), TAIL) }
    }

    /// Notes that the frame of a chunk has the tail, with `len` bytes in it, at most [`TAIL`].
    pub(super) fn tie(&self, chunk: usize, tail: Tail, len: u32) {
        let index = self.own(&tail);
        self.users[index as usize].store(1, Ordering::Relaxed);
        self.tied[chunk].store(join(index, len.min(MOST)), Ordering::Relaxed);
    }

    /// Has the frame of chunk `to` share the tail of that of `from`.
    ///
    /// # Safety
    /// `from` has one, and the caller has both frames.
    pub(super) unsafe fn share(&self, from: usize, to: usize) {
        let tied = self.tied[from].load(Ordering::Relaxed);
        self.users[split(tied).0 as usize].fetch_add(1, Ordering::Relaxed);
        self.tied[to].store(tied, Ordering::Relaxed);
    }

    /// The bytes of the tail of a chunk's frame.
    ///
    /// # Safety
    /// It has one, and keeps it while the bytes are borrowed.
    pub(super) unsafe fn bytes(&self, chunk: usize) -> &[u8] {
        let (index, len) = split(self.tied[chunk].load(Ordering::Relaxed));
        // SAFETY: a tied tail has an index below `TAILS`, so the bytes are in the mapping, which lives as long as
        // `self`.
        let start = unsafe { self.memory.start().add(index as usize * TAIL) };
        // SAFETY: the length is at most `TAIL`. A tail that is tied to a frame is only read, until it is free again.
        // The caller's frame keeps it from that. Its bytes were written before the frame came here from another
        // thread, if it did.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) }
    }

    /// Unties the tail from a chunk's frame. The last frame frees it.
    ///
    /// # Safety
    /// It has one, and is not taken to have it from now on.
    pub(super) unsafe fn untie(&self, chunk: usize) {
        let (index, _) = split(self.tied[chunk].load(Ordering::Relaxed));
        // All reads of the others are over before the tail is free.
        if self.users[index as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.put(Tail { index, umem: self.umem });
        }
    }
}

/// The lower and the upper half.
#[expect(clippy::cast_possible_truncation, reason = "halves")]
fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

fn join(lower: u32, upper: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}
