//! Runs of bytes in a guest's memory.
//!
//! The guest writes its memory at any time. So no reference to its bytes is ever made. Bytes are copied, and the copy
//! is looked at. Words of rings are reached as atomics, for which a concurrent write is no undefined behaviour.
#![allow(unsafe_code, reason = "bytes that another process writes are reached by raw pointers only")]

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, compiler_fence};

use super::mapping::Mapping;
use super::region::Region;

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// Something that lies in memory shared with a guest and is read and written atomically.
///
/// # Safety
/// The type consists of atomic integers without padding. Any bytes are a valid value.
pub unsafe trait Atomic {}
// SAFETY: an atomic integer.
unsafe impl Atomic for AtomicU8 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU16 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU32 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU64 {}

/// Bytes of one region, which stays mapped for `'m`.
///
/// Reads and writes may race with those of the guest. Then they see or leave any mixture of bytes, and nothing worse.
#[derive(Clone, Copy, Debug)]
pub struct GuestSlice<'m> {
    start: *mut u8,
    guest: u64,
    len: u32,
    _memory: PhantomData<&'m Region>,
}

// SAFETY: a slice is a borrow of a region, and regions are shared between threads. All accesses are by copies or
// atomics, and tolerate writes of others.
unsafe impl Send for GuestSlice<'_> {}
// SAFETY: as above.
unsafe impl Sync for GuestSlice<'_> {}

impl<'m> GuestSlice<'m> {
    /// `len` bytes at `start`, which have the address `guest` in the guest.
    ///
    /// # Safety
    /// For `'m` these bytes stay mapped for reading and writing. All accesses to them are by copies or atomics.
    #[inline(always)]
    pub(super) unsafe fn new(start: *mut u8, guest: u64, len: u32) -> Self {
        Self { start, guest, len, _memory: PhantomData }
    }

    /// The bytes of a mapping, at most 4 GiB of them. They have no address in the guest.
    pub(crate) fn of_mapping(mapping: &'m Mapping) -> Self {
        let len = u32::try_from(mapping.len()).unwrap_or(u32::MAX);
        // SAFETY: so many bytes are mapped while the mapping is borrowed. It gives them to this module only.
        unsafe { Self::new(mapping.start().as_ptr(), 0, len) }
    }

    /// Number of bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no bytes.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte in the guest.
    #[inline(always)]
    pub fn guest(&self) -> u64 {
        self.guest
    }

    /// First byte in this process, for system calls that take an `iovec`. Reading and writing through it needs the care
    /// of this module.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// What is left after the first `count` bytes. Nothing is left if there are no more than that.
    #[inline(always)]
    #[must_use]
    pub fn after(&self, count: usize) -> Self {
        let count = count.min(self.len());
        #[expect(clippy::cast_possible_truncation, reason = "at most `len`, a `u32`")]
        let len = self.len - count as u32;
        // SAFETY: `count` is at most the number of bytes, so the result lies in them or at their end.
        let start = unsafe { self.start.add(count) };
        Self { start, guest: self.guest.wrapping_add(count as u64), len, _memory: PhantomData }
    }

    /// The first `count` bytes, or all if there are fewer.
    #[inline(always)]
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self { len: self.len.min(u32::try_from(count).unwrap_or(u32::MAX)), ..*self }
    }

    /// Copies as many bytes into `to` as there are on both sides. Returns how many.
    #[inline(always)]
    pub fn read(&self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.len());
        // SAFETY: both sides have `count` bytes. They don't overlap, because nobody has a reference into the guest's
        // memory.
        unsafe { copy(self.start, to.as_mut_ptr(), count) };
        // The compiler must not take bytes from the guest again where the copy is used.
        compiler_fence(Ordering::SeqCst);
        count
    }

    /// The first `N` bytes, if there are so many.
    #[inline(always)]
    pub fn read_array<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len() < N {
            return None;
        }
        // SAFETY: there are `N` bytes, and bytes have no alignment.
        let bytes = unsafe { self.start.cast::<[u8; N]>().read() };
        // As in `read`.
        compiler_fence(Ordering::SeqCst);
        Some(bytes)
    }

    /// Copies as many bytes of `from` as there are on both sides. Returns how many.
    #[inline(always)]
    pub fn write(&self, from: &[u8]) -> usize {
        let count = from.len().min(self.len());
        // SAFETY: as in `read`.
        unsafe { copy(from.as_ptr(), self.start, count) };
        count
    }

    /// Copies as many bytes of another slice as there are on both sides, as if by a buffer in between. Returns how
    /// many.
    #[inline(always)]
    pub fn write_slice(&self, from: GuestSlice<'_>) -> usize {
        let count = from.len().min(self.len());
        // SAFETY: both sides have `count` bytes. They may overlap, because guests may share memory.
        unsafe { ptr::copy(from.start, self.start, count) };
        count
    }

    /// Writes `bytes` if there is room for all of them.
    #[inline(always)]
    pub fn write_array<const N: usize>(&self, bytes: [u8; N]) -> bool {
        if self.len() < N {
            return false;
        }
        // SAFETY: there are `N` bytes, and bytes have no alignment.
        unsafe { self.start.cast::<[u8; N]>().write(bytes) };
        true
    }

    /// The bytes as `T`s, as many as there are whole ones. None if they are not aligned as `T` is.
    pub fn atomics<T: Atomic>(&self) -> Option<&'m [T]> {
        let start = self.start.cast::<T>();
        // SAFETY: the bytes are mapped for `'m`, aligned, and consist of so many `T`. Any bytes are valid, and others
        // may write to atomics at any time.
        start.is_aligned().then(|| unsafe { std::slice::from_raw_parts(start, self.len() / size_of::<T>()) })
    }

    /// Asks for the first bytes: those of a short packet, and enough for the processor to see that more follow.
    #[inline(always)]
    pub(crate) fn prefetch_start(&self, to_write: bool) {
        for line in [self.start, self.start.wrapping_add(CACHE_LINE)] {
            if to_write { prefetch_to_write(line) } else { prefetch(line) }
        }
    }
}

impl Default for GuestSlice<'_> {
    /// No bytes.
    fn default() -> Self {
        // SAFETY: no bytes need no memory.
        unsafe { Self::new(ptr::NonNull::dangling().as_ptr(), 0, 0) }
    }
}

/// Asks for the cache line at `at`, which may be any address.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint. It neither faults nor changes anything.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// The same for a line that will be written. So no other core has it any more when it is.
#[inline(always)]
fn prefetch_to_write(at: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as above. Processors of this architecture that lack the instruction take it as one that does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Copies `count` bytes. Short ones take a few moves of fixed size, where a call of `memcpy` costs more than the copy.
///
/// # Safety
/// `from` is readable and `to` writable for `count` bytes. They don't overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: every move is within the first `count` bytes of both. The last one ends with them, and may cover bytes of
    // the one before it. All is read before anything is written.
    unsafe {
        match count {
            33..=64 => {
                let move_at = |at: usize| from.add(at).cast::<[u64; 2]>().read_unaligned();
                let (a, b, c, d) = (move_at(0), move_at(16), move_at(count - 32), move_at(count - 16));
                to.cast::<[u64; 2]>().write_unaligned(a);
                to.add(16).cast::<[u64; 2]>().write_unaligned(b);
                to.add(count - 32).cast::<[u64; 2]>().write_unaligned(c);
                to.add(count - 16).cast::<[u64; 2]>().write_unaligned(d);
            }
            _ => ptr::copy_nonoverlapping(from, to, count),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A slice of ordinary memory.
    fn slice(memory: &mut [u8]) -> GuestSlice<'_> {
        let len = u32::try_from(memory.len()).unwrap();
        // SAFETY: the memory is borrowed exclusively for as long as the slice exists.
        unsafe { GuestSlice::new(memory.as_mut_ptr(), 0x1000, len) }
    }

    proptest! {
        #[test]
        fn copies_are_whole_and_touch_nothing_else(len in 0usize..200, room in 0usize..200, seed: u8) {
            let bytes: Vec<u8> = (0..len).map(|n| seed.wrapping_add((n as u8).wrapping_mul(7))).collect();
            let (mut memory, both) = (vec![0xee; room + 2], len.min(room));
            prop_assert_eq!(slice(&mut memory[1..=room]).write(&bytes), both);
            prop_assert_eq!(&memory[1..=both], &bytes[..both]);
            prop_assert!(memory[0] == 0xee && memory[both + 1..].iter().all(|byte| *byte == 0xee));
            let mut back = vec![0xdd; len + 1];
            prop_assert_eq!(slice(&mut memory[1..=room]).read(&mut back[..len]), both);
            prop_assert_eq!(&back[..both], &bytes[..both]);
            prop_assert!(back[both..].iter().all(|byte| *byte == 0xdd));
        }
    }

    #[test]
    fn parts_of_a_slice_stay_within_it() {
        let mut memory: Vec<u8> = (0..100).collect();
        let whole = slice(&mut memory);
        assert_eq!((whole.after(30).len(), whole.after(30).guest()), (70, 0x101e));
        assert_eq!(whole.after(30).read_array(), Some([30, 31, 32]));
        assert!(whole.after(100).is_empty() && whole.after(usize::MAX).is_empty());
        assert_eq!((whole.first(7).len(), whole.first(usize::MAX).len()), (7, 100));
        assert_eq!(whole.first(2).read_array::<3>(), None);
        assert!(!whole.first(2).write_array([0; 3]) && whole.after(98).write_array([1, 2]));
        assert_eq!(memory[97..], [97, 1, 2]);
    }

    #[test]
    fn words_are_as_many_as_are_whole_and_only_where_they_are_aligned() {
        let mut memory = [0_u64; 4];
        // SAFETY: the 32 bytes are borrowed exclusively for as long as the slice exists.
        let whole = unsafe { GuestSlice::new(memory.as_mut_ptr().cast(), 0, 32) };
        whole.atomics::<AtomicU64>().unwrap()[3].store(0x0807, Ordering::Relaxed);
        assert_eq!(whole.after(24).read_array(), Some([7, 8]));
        assert_eq!(whole.after(2).atomics::<AtomicU16>().unwrap().len(), 15);
        assert_eq!(whole.after(4).atomics::<AtomicU64>().map(<[_]>::len), None);
        assert_eq!(whole.first(15).atomics::<AtomicU64>().unwrap().len(), 1);
    }
}
