//! The frames that all AF_XDP sockets share, and the book that says where each one is.
//!
//! UMEM is one mapping cut into equal frames. A [`Frame`] is the right to touch one of them: it is not `Clone`, so there is one
//! owner at a time, and safe code can't read a frame that the kernel writes. What belongs to no `Frame` belongs to the place
//! that the ledger names: the free pool, or the receive or the transmit side of a socket ([`Owner`]). Every move writes the
//! ledger, so that the frames of a socket that is closed are found again wherever the kernel had them (it keeps some in
//! lists that no ring shows), and so that an audit can compare it with the counts that each place keeps.
//!
//! Free frames lie in a lock-free pool, in slabs of [`SLAB`]; each thread has a [`FrameCache`] in front of it.

mod cache;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::queue::ArrayQueue;
use nix::errno::Errno;

pub use self::cache::FrameCache;
use super::mmap::Mmap;
use crate::model::HugePages;

/// Frames that move between a cache and the pool at once.
pub const SLAB: usize = 32;
/// Bytes that the kernel keeps free in front of a received packet (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: u32 = 256;
const HUGE_PAGE: usize = 2 << 20;

const FREE: u32 = 0;
const HELD: u32 = 1;
const FIRST_OWNER: u32 = 2;

/// A frame that its holder may read and write: chunk number, and where its data is in the chunk.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not given on is lost"]
pub struct Frame {
    index: u32,
    start: u16,
    len: u16,
}

impl Frame {
    /// Bytes of data.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no data.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where in the chunk the data starts.
    #[inline]
    pub fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Sets where the data is: within the chunk, which is at most 4,096 bytes.
    #[inline]
    pub fn set(&mut self, start: usize, len: usize) {
        debug_assert!(start + len <= 4096);
        self.start = start as u16;
        self.len = len as u16;
    }
}

/// A place that holds frames for the kernel: one direction of one socket. Not `Clone`: whoever has it may take its frames.
#[derive(Debug)]
pub struct Owner(u32);

impl Owner {
    /// What the census calls it.
    pub fn id(&self) -> u32 {
        self.0
    }
}

/// The shared frames.
#[derive(Debug)]
pub struct Umem {
    memory: Mmap,
    frame_size: u32,
    frame_shift: u32,
    owners: Box<[AtomicU32]>,
    pool: ArrayQueue<[u32; SLAB]>,
    next_owner: AtomicU32,
    huge: bool,
}

impl Umem {
    /// Maps `frames` frames (a multiple of [`SLAB`]) of `frame_size` bytes (a power of two, at most 4,096), all free.
    ///
    /// # Errors
    /// ENOMEM if memory is short, or huge pages are with [`HugePages::On`].
    pub fn new(frames: u32, frame_size: u32, huge_pages: HugePages) -> Result<Arc<Self>, Errno> {
        debug_assert!(frame_size.is_power_of_two() && frame_size <= 4096 && (frames as usize).is_multiple_of(SLAB));
        let len = frames as usize * frame_size as usize;
        let huge_len = len.next_multiple_of(HUGE_PAGE);
        let (memory, huge) = match huge_pages {
            HugePages::Off => (Mmap::anonymous(len, false)?, false),
            HugePages::On => (Mmap::anonymous(huge_len, true)?, true),
            HugePages::Auto => match Mmap::anonymous(huge_len, true) {
                Ok(memory) => (memory, true),
                Err(_) => {
                    let memory = Mmap::anonymous(len, false)?;
                    memory.prefer_huge();
                    (memory, false)
                }
            },
        };
        let pool = ArrayQueue::new(frames as usize / SLAB);
        for first in (0..frames).step_by(SLAB) {
            let pushed = pool.push(std::array::from_fn(|i| first + i as u32));
            debug_assert!(pushed.is_ok());
        }
        Ok(Arc::new(Self {
            memory,
            frame_size,
            frame_shift: frame_size.trailing_zeros(),
            owners: (0..frames).map(|_| AtomicU32::new(FREE)).collect(),
            pool,
            next_owner: AtomicU32::new(FIRST_OWNER),
            huge,
        }))
    }

    /// Frames in all.
    pub fn frames(&self) -> u32 {
        self.owners.len() as u32
    }

    /// Bytes of a frame.
    pub fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Whether it lies on huge pages.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// The mapping, for registration with the kernel: first byte and length.
    pub fn region(&self) -> (*mut u8, usize) {
        (self.memory.start(), self.frames() as usize * self.frame_size as usize)
    }

    /// Free frames in the pool, those in caches not counted.
    pub fn pool_len(&self) -> u32 {
        (self.pool.len() * SLAB) as u32
    }

    /// Two new places for the frames of one socket: those to be filled, and those to be sent.
    pub fn new_owners(&self) -> [Owner; 2] {
        // The first is even and the second odd, which is how `whereabouts` tells them apart.
        let first = self.next_owner.fetch_add(2, Ordering::Relaxed);
        [Owner(first), Owner(first + 1)]
    }

    /// The frame's data.
    #[inline]
    pub fn data(&self, frame: &Frame) -> &[u8] {
        // SAFETY: start and length are within the chunk (`Frame::set`, `claim`), the chunk is within the mapping, and a shared
        // borrow of the one `Frame` of this chunk keeps everybody from writing to it.
        unsafe { std::slice::from_raw_parts(self.chunk(frame.index).add(frame.start()), frame.len()) }
    }

    /// All bytes of the frame's chunk, in which the data lies from `start` for `len` bytes.
    #[inline]
    pub fn chunk_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: the chunk is within the mapping, and the exclusive borrow of the one `Frame` of this chunk is the right to it.
        unsafe { std::slice::from_raw_parts_mut(self.chunk(frame.index), self.frame_size as usize) }
    }

    fn chunk(&self, index: u32) -> *mut u8 {
        debug_assert!(index < self.frames());
        self.memory.start().wrapping_add((index as usize) << self.frame_shift)
    }

    /// The ledger's page of a place, to move the frames of a burst by.
    #[inline]
    pub fn page<'a>(&'a self, owner: &'a mut Owner) -> Page<'a> {
        Page { owners: &self.owners, shift: self.frame_shift, size: self.frame_size, owner: owner.0 }
    }

    /// As [`Page::give`].
    pub fn give(&self, frame: Frame, owner: &mut Owner) -> u64 {
        self.page(owner).give(frame)
    }

    /// As [`Page::claim`].
    pub fn claim(&self, addr: u64, len: u32, owner: &mut Owner) -> Option<Frame> {
        self.page(owner).claim(addr, len)
    }

    /// Takes all frames out of a place that the kernel no longer knows, and ends the place.
    pub fn reclaim(&self, owner: Owner) -> Vec<Frame> {
        self.take_all(&owner)
    }

    /// Takes all frames out of a place that the kernel no longer looks at.
    pub fn take_all(&self, owner: &Owner) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (index, place) in self.owners.iter().enumerate() {
            if place.load(Ordering::Relaxed) == owner.0 {
                place.store(HELD, Ordering::Relaxed);
                frames.push(Frame { index: index as u32, start: 0, len: 0 });
            }
        }
        frames
    }

    /// Counts the frames by the ledger, at a moment when nobody moves any: free, held, and those in places.
    pub fn census(&self) -> Census {
        let mut counts = vec![0; self.next_owner.load(Ordering::Relaxed) as usize];
        for place in &self.owners {
            if let Some(count) = counts.get_mut(place.load(Ordering::Relaxed) as usize) {
                *count += 1;
            }
        }
        Census { counts }
    }

    /// Counts the frames by the ledger at any moment: each where it is when it is looked at, so that the sum is always right.
    pub fn whereabouts(&self) -> Whereabouts {
        let mut counts = [0; 4];
        for place in &self.owners {
            let owner = place.load(Ordering::Relaxed);
            counts[if owner < FIRST_OWNER { owner } else { FIRST_OWNER + owner % 2 } as usize] += 1;
        }
        let [free, held, rx, tx] = counts;
        Whereabouts { free, held, rx, tx }
    }
}

/// What the ledger has on one place, copied out for a burst: the compiler need not read it again for each frame.
#[derive(Debug)]
pub struct Page<'a> {
    owners: &'a [AtomicU32],
    shift: u32,
    size: u32,
    owner: u32,
}

impl Page<'_> {
    /// Puts a frame into the place; returns the address of its data, as the kernel's rings want it.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) -> u64 {
        self.put(frame.index) + u64::from(frame.start)
    }

    /// Takes the frame at `addr` out of the place, with `len` bytes of data there. `None` if that frame is not in that place or
    /// the data would not lie in one chunk: the kernel never says so, and if it did, nothing of others is touched.
    #[inline(always)]
    pub fn claim(&mut self, addr: u64, len: u32) -> Option<Frame> {
        let start = (addr & u64::from(self.size - 1)) as u32;
        if len > self.size - start {
            return None;
        }
        let index = self.take(addr, HELD)?;
        Some(Frame { index, start: start as u16, len: len as u16 })
    }

    /// Takes the frame at `addr` out of the place, if it is there; its number.
    #[inline(always)]
    fn take(&mut self, addr: u64, to: u32) -> Option<u32> {
        let index = addr >> self.shift;
        let place = self.owners.get(usize::try_from(index).ok()?)?;
        if place.load(Ordering::Relaxed) != self.owner {
            return None;
        }
        place.store(to, Ordering::Relaxed);
        Some(index as u32)
    }

    /// Puts the frame of that number into the place; returns the address of its chunk.
    #[inline(always)]
    fn put(&mut self, index: u32) -> u64 {
        self.owners[index as usize].store(self.owner, Ordering::Relaxed);
        u64::from(index) << self.shift
    }
}

/// What the ledger says of all frames, by place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// By what the ledger calls the place.
    counts: Vec<u32>,
}

impl Census {
    /// In the pool or a cache.
    pub fn free(&self) -> u32 {
        self.at(FREE)
    }

    /// In somebody's hands: a [`Frame`] exists.
    pub fn held(&self) -> u32 {
        self.at(HELD)
    }

    /// In one place, by [`Owner::id`].
    pub fn at(&self, owner: u32) -> u32 {
        self.counts.get(owner as usize).copied().unwrap_or(0)
    }

    /// With the kernel in all.
    pub fn placed(&self) -> u32 {
        self.counts.iter().skip(FIRST_OWNER as usize).sum()
    }
}

/// What the ledger says of all frames, by kind of place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// In the pool or a cache.
    pub free: u32,
    /// In somebody's hands: a [`Frame`] exists.
    pub held: u32,
    /// With the kernel, to be filled, or filled and not taken yet.
    pub rx: u32,
    /// With the kernel, to be sent, or sent and not taken back yet.
    pub tx: u32,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    fn umem(frames: u32) -> Arc<Umem> {
        Umem::new(frames, 2048, HugePages::Off).unwrap()
    }

    /// What the kernel says of the mapping that a UMEM's frames lie in (`VmFlags` of proc_pid_smaps(5)).
    fn flags(umem: &Umem) -> Vec<String> {
        let first = umem.region().0 as usize;
        let holds = |line: &str| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            let [from, to] = [from, to].map(|end| usize::from_str_radix(end, 16));
            Some((from.ok()?..to.ok()?).contains(&first))
        };
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| holds(line) != Some(true));
        lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn huge_pages_are_asked_for_unless_they_are_off() {
        // `ht`: reserved ones; `hg`: transparent ones are wanted.
        let asked = |huge| flags(&Umem::new(8192, 2048, huge).unwrap()).iter().any(|flag| flag == "ht" || flag == "hg");
        assert!(asked(HugePages::Auto));
        assert!(!asked(HugePages::Off));
    }

    #[test]
    fn a_frame_is_claimed_once_and_only_from_where_it_is() {
        let umem = umem(64);
        let mut cache = FrameCache::new(Arc::clone(&umem));
        let [mut here, mut there] = umem.new_owners();
        let frame = cache.take().unwrap();
        let addr = umem.give(frame, &mut here);
        assert_eq!(umem.claim(addr, 60, &mut there), None);
        assert_eq!(umem.claim(addr, 2048 - 255, &mut here), None, "data beyond its chunk");
        assert_eq!(umem.claim(1 << 40, 60, &mut here), None, "address beyond UMEM");
        let frame = umem.claim(addr, 60, &mut here).unwrap();
        assert_eq!((frame.start(), frame.len()), (256, 60));
        assert_eq!(umem.claim(addr, 60, &mut here), None);
        cache.put(frame);
    }

    #[test]
    fn every_frame_is_counted_once_while_another_thread_moves_them() {
        let umem = umem(1024);
        let mut owners = umem.new_owners();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut cache = FrameCache::new(Arc::clone(&umem));
                while !stop.load(Ordering::Relaxed) {
                    let addrs: Vec<_> =
                        (0..500).map(|n| umem.give(cache.take().unwrap(), &mut owners[n % 2])).collect();
                    for (n, addr) in addrs.into_iter().enumerate() {
                        cache.put(umem.claim(addr, 0, &mut owners[n % 2]).unwrap());
                    }
                }
            });
            for _ in 0..1000 {
                let Whereabouts { free, held, rx, tx } = umem.whereabouts();
                assert_eq!(free + held + rx + tx, 1024);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    proptest! {
        /// Frames go at random between the pool, two places and hands; the ledger agrees with the counts of a model throughout.
        #[test]
        fn every_frame_is_in_exactly_one_place(ops in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..400)) {
            let umem = umem(128);
            let mut cache = FrameCache::new(Arc::clone(&umem));
            let mut places = umem.new_owners();
            let mut addrs = [Vec::new(), Vec::new()];
            let mut hands = Vec::new();
            for (op, pick) in ops {
                match op {
                    0 => hands.extend(cache.take()),
                    1 | 2 => if !hands.is_empty() {
                        let place = usize::from(op) - 1;
                        let frame = hands.swap_remove(pick.index(hands.len()));
                        addrs[place].push(umem.give(frame, &mut places[place]));
                    },
                    3 => for place in 0..2 {
                        if let Some(addr) = addrs[place].pop() {
                            hands.push(umem.claim(addr, 64, &mut places[place]).unwrap());
                        }
                    },
                    _ => if !hands.is_empty() {
                        cache.put(hands.swap_remove(pick.index(hands.len())));
                    },
                }
                let placed = addrs[0].len() + addrs[1].len();
                let free = 128 - placed - hands.len();
                let census = umem.census();
                let seen = (census.free() as usize, census.held() as usize, census.placed() as usize);
                prop_assert_eq!(seen, (free, hands.len(), placed));
                prop_assert_eq!(umem.pool_len() as usize + cache.len(), free);
                prop_assert_eq!(census.at(places[0].id()) as usize, addrs[0].len());
                let Whereabouts { free, held, rx, tx } = umem.whereabouts();
                prop_assert_eq!((free, held), (census.free(), census.held()));
                prop_assert_eq!((rx as usize, tx as usize), (addrs[0].len(), addrs[1].len()));
            }
            let [first, second] = places;
            prop_assert_eq!(umem.reclaim(first).len(), addrs[0].len());
            prop_assert_eq!(umem.reclaim(second).len(), addrs[1].len());
        }
    }
}
