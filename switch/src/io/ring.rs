//! The single-producer single-consumer rings that AF_XDP shares with the kernel.
//!
//! A ring has a power of two of entries, a producer index, a consumer index and a flags word. The indices run freely
//! over `u32` and are masked. The owner of an index publishes it with release, and the other side reads it with acquire
//! (`Documentation/networking/af_xdp.rst`). Each end keeps a copy of the other's index. It reads the shared one only
//! when the copy says full or empty. So a burst costs one read and one write of shared memory.
//!
//! Entries are plain integers, so any bytes that the other side wrote are a valid entry. The taker checks what they
//! mean. [`pair`] makes both ends over ordinary memory, so that code on rings is tested without a kernel.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use super::mmap::Mmap;

/// Flag that the kernel sets in a ring when it needs a system call to go on.
const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// An entry of a ring.
///
/// # Safety
/// The type consists of integers. Any bytes are a valid value, and there is no padding.
pub unsafe trait Entry: Copy + Send + 'static {}
// SAFETY: an integer.
unsafe impl Entry for u64 {}

/// Descriptor of the rx and tx rings: `struct xdp_desc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Desc {
    /// First byte of the frame's data, as an offset into UMEM.
    pub addr: u64,
    /// Bytes of data.
    pub len: u32,
    /// [`CONTINUED`] and other flags.
    pub options: u32,
}

/// Option of a descriptor: the packet goes on in the next one (`XDP_PKT_CONTD`, kernel 6.6 and later).
pub const CONTINUED: u32 = 1;
// SAFETY: three integers, each aligned to its size, fill the 16 bytes.
unsafe impl Entry for Desc {}

/// Each end's knowledge of the shared memory.
///
/// Constructors check that the pointers are aligned, and that the words and `mask + 1` entries lie in `_memory`.
#[derive(Debug)]
struct Shared<T> {
    producer: *const AtomicU32,
    consumer: *const AtomicU32,
    flags: *const AtomicU32,
    entries: *mut T,
    /// Number of entries minus one. The number is a power of two.
    mask: u32,
    _memory: Memory,
    _entry: PhantomData<T>,
}

/// Keeps the memory of a ring alive.
#[derive(Debug)]
enum Memory {
    Kernel(#[expect(dead_code, reason = "held for its drop")] Mmap),
    Heap(#[expect(dead_code, reason = "held for its drop")] Arc<dyn std::any::Any + Send + Sync>),
}

#[derive(Debug)]
struct HeapRing<T> {
    indices: [AtomicU32; 3],
    entries: Box<[std::cell::UnsafeCell<T>]>,
}

// SAFETY: entries are reached only through a `Producer` and a `Consumer`. Their index protocol gives an entry to one of
// them at a time.
unsafe impl<T: Entry> Sync for HeapRing<T> {}
// SAFETY: the pointers point into `_memory`, which moves with them. Entries are `Send`.
unsafe impl<T: Entry> Send for Shared<T> {}

impl<T: Entry> Shared<T> {
    /// # Errors
    /// As for [`Producer::from_kernel`].
    ///
    /// # Safety
    /// `map` maps a ring of an AF_XDP socket.
    unsafe fn from_kernel(map: Mmap, layout: &libc::xdp_ring_offset, size: u32) -> Result<Self, Errno> {
        if !size.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        // A mapping begins at a page, so an aligned offset is an aligned address.
        let place = |offset: u64, bytes: usize, align: usize| {
            let at = usize::try_from(offset).ok().filter(|at| at.is_multiple_of(align));
            let at = at.filter(|at| at.checked_add(bytes).is_some_and(|end| end <= map.size()));
            at.map(|at| map.start().as_ptr().wrapping_add(at)).ok_or(Errno::EPROTO)
        };
        let word =
            |offset| place(offset, size_of::<AtomicU32>(), align_of::<AtomicU32>()).map(|at| at.cast_const().cast());
        let bytes = (size as usize).checked_mul(size_of::<T>()).ok_or(Errno::EPROTO)?;
        Ok(Self {
            producer: word(layout.producer)?,
            consumer: word(layout.consumer)?,
            flags: word(layout.flags)?,
            entries: place(layout.desc, bytes, align_of::<T>())?.cast(),
            mask: size - 1,
            _memory: Memory::Kernel(map),
            _entry: PhantomData,
        })
    }

    fn index(&self, which: *const AtomicU32) -> &AtomicU32 {
        // SAFETY: `which` is one of our three pointers to aligned words, and `_memory` keeps them mapped. Both sides
        // access them only atomically.
        unsafe { &*which }
    }

    fn size(&self) -> u32 {
        self.mask + 1
    }

    fn needs_wakeup(&self) -> bool {
        self.index(self.flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The end that writes.
#[derive(Debug)]
pub struct Producer<T> {
    shared: Shared<T>,
    /// Next entry to write. It is ahead of the shared index by the staged entries.
    head: u32,
    /// The consumer's index as last read.
    tail: u32,
}

impl<T: Entry> Producer<T> {
    /// Takes the producing end of a kernel ring.
    ///
    /// # Errors
    /// EPROTO if a ring of `size` entries with this layout does not lie in the mapping. EINVAL if `size` is no power of
    /// two.
    ///
    /// # Safety
    /// - `map` maps such a ring of an AF_XDP socket, and no other producer of it exists.
    /// - The kernel reads and writes what pushed entries point to. So this end may push only chunks that the ledger has
    ///   with the socket, until the kernel has given them back.
    pub unsafe fn from_kernel(map: Mmap, layout: &libc::xdp_ring_offset, size: u32) -> Result<Self, Errno> {
        // SAFETY: passed on.
        let shared = unsafe { Shared::from_kernel(map, layout, size)? };
        let head = shared.index(shared.producer).load(Ordering::Relaxed);
        let tail = shared.index(shared.consumer).load(Ordering::Acquire);
        Ok(Self { shared, head, tail })
    }

    /// Stages an entry. False if the ring is full. The consumer sees it after [`Producer::submit`].
    #[inline]
    pub fn push(&mut self, entry: T) -> bool {
        self.push_all(1, || Some(entry)) == 1
    }

    /// Stages up to `count` entries while there is room and `next` has one. Returns how many.
    #[inline]
    pub fn push_all(&mut self, count: u32, mut next: impl FnMut() -> Option<T>) -> u32 {
        let room = self.room(count).min(count);
        // Copies, because the compiler can't tell that writing an entry leaves the originals alone.
        let (head, entries, mask) = (self.head, self.shared.entries, self.shared.mask);
        let mut staged = 0;
        while staged < room
            && let Some(entry) = next()
        {
            let at = (head.wrapping_add(staged) & mask) as usize;
            // SAFETY: `at` is below the ring's size, which `Shared` has checked. The entry is ours: the consumer's
            // index has passed its last use, because there is room. The consumer does not read it before `submit`.
            unsafe { entries.add(at).write(entry) };
            staged += 1;
        }
        self.head = head.wrapping_add(staged);
        staged
    }

    /// Number of entries that can be staged now: at least `wanted`, or less if there is less room.
    #[inline]
    pub fn room(&mut self, wanted: u32) -> u32 {
        let known = self.shared.size() - self.head.wrapping_sub(self.tail);
        if known >= wanted {
            return known;
        }
        self.tail = self.shared.index(self.shared.consumer).load(Ordering::Acquire);
        self.shared.size() - self.head.wrapping_sub(self.tail)
    }

    /// Shows the consumer all that is staged.
    #[inline]
    pub fn submit(&mut self) {
        self.shared.index(self.shared.producer).store(self.head, Ordering::Release);
    }

    /// Entries that the consumer has not taken yet, including staged ones.
    #[inline]
    pub fn pending(&mut self) -> u32 {
        self.tail = self.shared.index(self.shared.consumer).load(Ordering::Acquire);
        self.head.wrapping_sub(self.tail)
    }

    /// Whether the kernel asks for a system call.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }

    /// Number of entries.
    pub fn size(&self) -> u32 {
        self.shared.size()
    }
}

/// The end that reads.
#[derive(Debug)]
pub struct Consumer<T> {
    shared: Shared<T>,
    /// The producer's index as last read.
    head: u32,
    /// Next entry to read. It is ahead of the shared index by the entries not released yet.
    tail: u32,
}

impl<T: Entry> Consumer<T> {
    /// Takes the consuming end of a kernel ring.
    ///
    /// # Errors
    /// As for [`Producer::from_kernel`].
    ///
    /// # Safety
    /// `map` maps such a ring of an AF_XDP socket, and no other consumer of it exists.
    pub unsafe fn from_kernel(map: Mmap, layout: &libc::xdp_ring_offset, size: u32) -> Result<Self, Errno> {
        // SAFETY: passed on.
        let shared = unsafe { Shared::from_kernel(map, layout, size)? };
        let tail = shared.index(shared.consumer).load(Ordering::Relaxed);
        let head = shared.index(shared.producer).load(Ordering::Acquire);
        Ok(Self { shared, head, tail })
    }

    /// Takes the next entry, if there is one. The producer gets the place back after [`Consumer::release`].
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.tail == self.head {
            self.head = self.shared.index(self.shared.producer).load(Ordering::Acquire);
            if self.tail == self.head {
                return None;
            }
        }
        let at = (self.tail & self.shared.mask) as usize;
        // SAFETY: `at` is below the ring's size, which `Shared` has checked. The producer's index, read with acquire,
        // says that the entry is written. The producer leaves it alone until `release`.
        let entry = unsafe { self.shared.entries.add(at).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
    }

    /// Takes up to `max` entries, oldest first, and gives their places back to the producer. Returns how many.
    #[inline]
    pub fn take(&mut self, max: u32, each: impl FnMut(T)) -> u32 {
        let count = self.look_at(max, each);
        if count > 0 {
            self.skip(count);
        }
        count
    }

    /// Looks at up to `max` entries, oldest first, and leaves them where they are. Returns how many.
    #[inline]
    pub fn look_at(&mut self, max: u32, mut each: impl FnMut(T)) -> u32 {
        if self.head.wrapping_sub(self.tail) < max {
            self.head = self.shared.index(self.shared.producer).load(Ordering::Acquire);
        }
        let count = self.head.wrapping_sub(self.tail).min(max);
        // Copies, as in `push_all`.
        let (tail, entries, mask) = (self.tail, self.shared.entries, self.shared.mask);
        for n in 0..count {
            let at = (tail.wrapping_add(n) & mask) as usize;
            // SAFETY: as in `pop`.
            each(unsafe { entries.add(at).read() });
        }
        count
    }

    /// Takes the first `count` of the entries that were looked at, and gives their places back to the producer.
    #[inline]
    pub fn skip(&mut self, count: u32) {
        debug_assert!(count <= self.head.wrapping_sub(self.tail), "entries that were not looked at");
        self.tail = self.tail.wrapping_add(count);
        self.release();
    }

    /// Gives the places of all entries taken back to the producer.
    #[inline]
    pub fn release(&mut self) {
        self.shared.index(self.shared.consumer).store(self.tail, Ordering::Release);
    }

    /// Whether there is nothing to take now.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tail == self.head && self.tail == self.shared.index(self.shared.producer).load(Ordering::Acquire)
    }
}

/// Both ends of a ring of `size` entries over ordinary memory.
///
/// # Panics
/// If `size` is no power of two.
pub fn pair<T: Entry + Default>(size: u32) -> (Producer<T>, Consumer<T>) {
    assert!(size.is_power_of_two(), "a ring of {size} entries");
    let heap = Arc::new(HeapRing {
        indices: Default::default(),
        entries: (0..size).map(|_| std::cell::UnsafeCell::new(T::default())).collect(),
    });
    let shared = || Shared {
        producer: &raw const heap.indices[0],
        consumer: &raw const heap.indices[1],
        flags: &raw const heap.indices[2],
        entries: std::cell::UnsafeCell::raw_get(heap.entries.as_ptr()),
        mask: size - 1,
        _memory: Memory::Heap(heap.clone()),
        _entry: PhantomData,
    };
    (Producer { shared: shared(), head: 0, tail: 0 }, Consumer { shared: shared(), head: 0, tail: 0 })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push(u64),
        Submit,
        PushAll(u32, u32),
        Pop,
        Take(u32),
        Release,
    }

    /// Most steps of a property. Miri takes a second for some.
    const MOST_STEPS: usize = if cfg!(miri) { 12 } else { 300 };

    fn op() -> impl Strategy<Value = Op> {
        let several = (0u32..9, 0u32..9).prop_map(|(count, have)| Op::PushAll(count, have));
        let one = any::<u64>().prop_map(Op::Push);
        prop_oneof![one, several, Just(Op::Submit), Just(Op::Pop), (0u32..9).prop_map(Op::Take), Just(Op::Release)]
    }

    proptest! {
        /// The oracle is a queue of submitted entries, a list of staged ones, and a count of places not released yet.
        #[test]
        fn ring_behaves_as_a_bounded_queue(size_bits in 0u32..5, ops in prop::collection::vec(op(), 0..MOST_STEPS)) {
            let size = 1 << size_bits;
            let (mut producer, mut consumer) = pair(size);
            let (mut staged, mut visible, mut held) = (Vec::new(), VecDeque::new(), 0);
            for op in ops {
                match op {
                    Op::Push(addr) => {
                        let full = staged.len() + visible.len() + held == size as usize;
                        prop_assert_eq!(producer.push(Desc { addr, len: 1, options: 0 }), !full);
                        if !full {
                            staged.push(addr);
                        }
                    }
                    Op::PushAll(count, have) => {
                        let room = size as usize - (staged.len() + visible.len() + held);
                        let mut next = (0..have).map(|n| Desc { addr: u64::from(n), len: 1, options: 0 });
                        let pushed = producer.push_all(count, || next.next());
                        prop_assert_eq!(pushed as usize, room.min(count.min(have) as usize));
                        staged.extend((0..pushed).map(u64::from));
                    }
                    Op::Submit => {
                        producer.submit();
                        visible.extend(staged.drain(..));
                    }
                    Op::Pop => {
                        let taken = consumer.pop().map(|desc| desc.addr);
                        prop_assert_eq!(taken, visible.pop_front());
                        held += usize::from(taken.is_some());
                    }
                    Op::Take(max) => {
                        let mut taken = Vec::new();
                        let count = consumer.take(max, |desc| taken.push(desc.addr));
                        prop_assert_eq!((count as usize, count), (taken.len(), max.min(visible.len() as u32)));
                        prop_assert!(visible.drain(..taken.len()).eq(taken));
                        held = if count > 0 { 0 } else { held };
                    }
                    Op::Release => {
                        consumer.release();
                        held = 0;
                    }
                }
                prop_assert_eq!(producer.pending() as usize, staged.len() + visible.len() + held);
                prop_assert_eq!(consumer.is_empty(), visible.is_empty());
            }
        }
    }

    #[test]
    fn sizes_that_make_no_ring_are_refused() {
        for size in [0, 3, 6, u32::MAX] {
            assert!(std::panic::catch_unwind(|| pair::<u64>(size)).is_err(), "{size}");
        }
    }

    #[test]
    fn layouts_that_leave_the_mapping_are_refused() {
        const PAGE: usize = 4096;
        let open = |producer, desc, size| {
            let layout = libc::xdp_ring_offset { producer, consumer: 64, desc, flags: 128 };
            // SAFETY: the mapping is new, and no kernel has the other end.
            unsafe { Producer::<Desc>::from_kernel(Mmap::anonymous(PAGE, false).unwrap(), &layout, size) }.map(|_| ())
        };
        assert_eq!(open(0, 256, 128), Ok(()));
        assert_eq!(open(0, 256, 240), Err(Errno::EINVAL));
        // Entries that end beyond the mapping, that are not aligned, that begin beyond it. Then the same for an index.
        for (producer, desc, size) in [(0, 256, 256), (0, 260, 128), (0, 4096, 1), (0, u64::MAX - 15, 128)] {
            assert_eq!(open(producer, desc, size), Err(Errno::EPROTO), "{size} entries at {desc}");
        }
        for producer in [2, 4094, 4096, u64::MAX - 3] {
            assert_eq!(open(producer, 256, 128), Err(Errno::EPROTO), "index at {producer}");
        }
    }

    #[test]
    fn entries_arrive_in_order_across_threads_and_index_wrap() {
        let entries = if cfg!(miri) { 300 } else { 10_000 };
        let (mut producer, mut consumer) = pair(8);
        let near_wrap = u32::MAX - 3;
        for index in [producer.shared.producer, producer.shared.consumer] {
            producer.shared.index(index).store(near_wrap, Ordering::Relaxed);
        }
        (producer.head, producer.tail, consumer.head, consumer.tail) = (near_wrap, near_wrap, near_wrap, near_wrap);
        let sender = std::thread::spawn(move || {
            for addr in 0..entries {
                while !producer.push(Desc { addr, len: 0, options: 0 }) {
                    producer.submit();
                    std::thread::yield_now();
                }
                producer.submit();
            }
        });
        for expected in 0..entries {
            let desc = loop {
                match consumer.pop() {
                    Some(desc) => break desc,
                    None => std::thread::yield_now(),
                }
            };
            consumer.release();
            assert_eq!(desc.addr, expected);
        }
        sender.join().unwrap();
    }
}
