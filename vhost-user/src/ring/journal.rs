//! Where packed rings stand, in a file that outlives the device.
//!
//! A split ring has its used index in the guest's memory. A packed ring has nothing like it, and front ends do not know
//! better than when they started it. So a device that is killed could not go on.
//!
//! Before a burst is used, its [`Record`] gets the place before, the place after, and what is going to be written. The
//! next device looks at the descriptor of the place before. If it is still available, the driver has seen nothing of
//! the burst, and all of it is written again. Else the driver may have seen all of it. Either way the ring goes on
//! behind the burst.
//!
//! QEMU adds a difficulty. While there is no device, it throws away what the guest sends, at the position that it
//! knows. It tells the next device by a position further on. These descriptors are **passed over** when the ring gets
//! there.
//!
//! The process is killed between two instructions, and its memory stays. So the order of the instructions is enough:
//! there are compiler fences only.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};

use super::area::Area;
use super::error::RingError;
use super::layout::{Descriptor, Le32};
use super::packed::{Place, WRAP, available_at};
use super::position::{Position, RingSetup};
use crate::memory::{GuestMemory, Mapping, MemoryError};

/// Bytes of a record.
const RECORD: usize = 4096;
/// Words of a record.
const WORDS: usize = RECORD / 8;
/// Words before the entries.
const HEAD: usize = 8;
/// Entries of a record: an index and a word each.
pub(super) const ENTRIES: usize = (WORDS - HEAD) / 2;
/// First word of a record that holds: its version, in letters.
const HOLDS: u64 = u64::from_le_bytes(*b"xs-ring1");

// Words of the head.
const STATE: usize = 0;
const DEVICE: usize = 1;
const INODE: usize = 2;
const OFFSET: usize = 3;
const SIZE: usize = 4;
/// Places before and behind the last burst, and its number of entries.
const STEP: usize = 5;
/// Where the ring stands by the front end.
const BASE: usize = 6;
/// Descriptors ahead that the front end has used: the first place, that behind them, and a bit that there are some.
const PASSED_OVER: usize = 7;

/// Which ring a record is of: where in which file its descriptors lie. No two rings have the same at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingIdentity {
    /// Device number of the memory's file.
    pub device: u64,
    /// Inode of that file.
    pub inode: u64,
    /// Byte of the file where the descriptor ring begins.
    pub offset: u64,
}

/// A file with a record for each ring of a device.
#[derive(Debug)]
pub struct Journal {
    mapping: Arc<Mapping>,
    rings: u16,
}

impl Journal {
    /// Bytes of a file for so many rings.
    pub fn bytes(rings: u16) -> u64 {
        u64::from(rings) * RECORD as u64
    }

    /// Maps a file of the device's own, which has at least [`Journal::bytes`]. Nobody else may shrink it.
    ///
    /// # Errors
    /// The file is too short, or the kernel refuses.
    pub fn of_file(fd: BorrowedFd<'_>, rings: u16) -> Result<Self, MemoryError> {
        let mapping = Mapping::of_own_file(fd, Self::bytes(rings), &Arc::new(AtomicBool::new(false)))?;
        Ok(Self { mapping: Arc::new(mapping), rings })
    }

    /// A journal without a file, for tests.
    #[cfg(any(test, feature = "driver"))]
    pub fn of_heap(rings: u16) -> Self {
        Self { mapping: Arc::new(Mapping::of_heap(usize::from(rings.max(1)) * RECORD)), rings }
    }

    /// The record of a ring. None if there is no such ring.
    pub fn record(&self, ring: u8) -> Option<Record> {
        let at = usize::from(ring).checked_mul(RECORD).filter(|_| u16::from(ring) < self.rings)?;
        Area::of_mapping(&self.mapping, at, WORDS).map(|words| Record { words })
    }

    /// Whether some record holds.
    pub fn holds(&self) -> bool {
        (0..=u8::MAX).filter_map(|ring| self.record(ring)).any(|record| record.holds())
    }
}

/// The record of one ring.
#[derive(Debug)]
pub struct Record {
    words: Area<AtomicU64>,
}

impl Record {
    #[inline(always)]
    fn set(&self, at: usize, word: u64) {
        if let Some(place) = self.words.entries().get(at) {
            place.store(word, Ordering::Relaxed);
        }
    }

    fn get(&self, at: usize) -> u64 {
        self.words.entries().get(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Whether it tells where a ring stands.
    pub fn holds(&self) -> bool {
        self.get(STATE) == HOLDS
    }

    /// Makes it that of a ring that starts at `position` with nothing in work, as the front end says.
    pub fn begin(&self, identity: RingIdentity, size: u16, position: Position) {
        self.end();
        self.set(PASSED_OVER, 0);
        self.set(BASE, position.available.into());
        for (at, word) in [(DEVICE, identity.device), (INODE, identity.inode), (OFFSET, identity.offset)] {
            self.set(at, word);
        }
        self.set(SIZE, size.into());
        self.set(STEP, step(position.used, position.used, 0));
        compiler_fence(Ordering::SeqCst);
        self.set(STATE, HOLDS);
    }

    /// Makes it tell what another one tells, of which no ring makes use meanwhile.
    pub fn copy(&self, other: &Self) {
        self.end();
        for (word, from) in self.words.entries().iter().zip(other.words.entries()).skip(STATE + 1) {
            word.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        compiler_fence(Ordering::SeqCst);
        self.set(STATE, other.get(STATE));
    }

    /// Makes it void: the front end knows where the ring stands, or the ring is no more.
    pub fn end(&self) {
        self.set(STATE, 0);
        compiler_fence(Ordering::SeqCst);
    }

    /// Notes a burst before it is written: the places before and behind it, and the words of its used descriptors, the
    /// first one's first. There are at most [`ENTRIES`].
    #[inline]
    pub(super) fn note(&self, before: u16, behind: u16, entries: impl Iterator<Item = (u16, u64)>) {
        // While the entries are written, the record tells of a burst without entries. That one is over.
        self.set(STEP, step(before, before, 0));
        compiler_fence(Ordering::SeqCst);
        let mut count = 0;
        let (pairs, _) = self.words.entries().get(HEAD..).unwrap_or_default().as_chunks::<2>();
        for ([at, word], (index, rest)) in pairs.iter().zip(entries) {
            at.store(index.into(), Ordering::Relaxed);
            word.store(rest, Ordering::Relaxed);
            count += 1;
        }
        compiler_fence(Ordering::SeqCst);
        self.set(STEP, step(before, behind, count));
        compiler_fence(Ordering::SeqCst);
    }

    /// Descriptors ahead that are to be passed over: the first place, and that behind them.
    pub(super) fn passed_over(&self) -> Option<(u16, u16)> {
        let (first, behind, is_there) = parts(self.get(PASSED_OVER));
        (is_there != 0).then_some((first, behind))
    }

    /// Notes that the ring has passed them over.
    #[cold]
    pub(super) fn pass(&self, behind: u16) {
        self.set(STEP, step(behind, behind, 0));
        compiler_fence(Ordering::SeqCst);
        self.set(PASSED_OVER, 0);
    }

    /// Where that ring goes on, if this is its record, and the driver has not set it up anew since. What the driver has
    /// not seen of the last burst is written again. `base` is what the front end says
    /// (`VHOST_USER_SET_VRING_BASE`). The record goes on with the ring.
    ///
    /// # Errors
    /// The ring is not in the guest's memory.
    pub fn resume(
        &self,
        memory: &Arc<GuestMemory>,
        setup: &RingSetup,
        identity: RingIdentity,
        base: u32,
    ) -> Result<Option<Position>, RingError> {
        let size = setup.checked_size()?;
        let noted = RingIdentity { device: self.get(DEVICE), inode: self.get(INODE), offset: self.get(OFFSET) };
        let is_same = self.holds() && noted == identity && self.get(SIZE) == u64::from(size);
        let (before, behind, count) = parts(self.get(STEP));
        let is_place = |place: u16| place & !WRAP < size;
        if !is_same || !setup.features.packed || !is_place(before) || !is_place(behind) {
            return Ok(None);
        }
        // A device's wishes are never all zeroes ([`super::packed`]). A driver zeroes them with a new ring.
        let wishes = Area::<Le32>::new(memory, "device's event suppression", setup.used, 1, 4)?;
        if wishes.wrapped(0).load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let ring = Area::<Descriptor>::new(memory, "descriptor ring", setup.descriptors, size.into(), 16)?;
        if count > 0 && available_at(&ring, Place::of_raw(before)).is_some() {
            self.write_again(&ring, count);
        }
        self.set(STEP, step(behind, behind, 0));
        let [low, high, ..] = base.to_le_bytes();
        let base = u16::from_le_bytes([low, high]);
        if is_place(base) {
            let noted = self.passed_over().map_or_else(|| parts(self.get(BASE)).0, |(first, _)| first);
            let passed_over = ahead(behind, (noted, base), size);
            self.set(PASSED_OVER, passed_over.map_or(0, |(first, end)| step(first, end, 1)));
            compiler_fence(Ordering::SeqCst);
            self.set(BASE, base.into());
        }
        Ok(Some(Position { available: behind, used: behind }))
    }

    /// Writes the used descriptors of the last burst, the first one last.
    fn write_again(&self, ring: &Area<Descriptor>, count: usize) {
        for entry in (0..count.min(ENTRIES)).rev() {
            let at = HEAD + 2 * entry;
            let index = usize::try_from(self.get(at)).unwrap_or(usize::MAX);
            if let Some(desc) = ring.entries().get(index) {
                desc.rest.store(self.get(at + 1), Ordering::Release);
            }
        }
    }
}

/// Places from `first` on, and before `end`, as far as they are to come for a ring that stands at `at`. None if there
/// are none.
fn ahead(at: u16, (first, end): (u16, u16), size: u16) -> Option<(u16, u16)> {
    // Two rounds differ by the wrap counter. What is less than a round on is to come.
    let (round, size) = (2 * u32::from(size), u32::from(size));
    let number = |place: u16| u32::from(place & !WRAP) + if place & WRAP != 0 { 0 } else { size };
    let distance = |from: u16, to: u16| (number(to) + round - number(from)) % round;
    let (to_first, count) = (distance(at, first), distance(first, end));
    if count == 0 || count > size {
        return None;
    }
    if to_first < size {
        return Some((first, end));
    }
    // They begin behind the ring's place.
    let left = count.checked_sub(round - to_first).filter(|left| *left > 0)?;
    (left <= size).then_some((at, end))
}

#[inline(always)]
fn step(before: u16, behind: u16, count: usize) -> u64 {
    u64::from(before) | u64::from(behind) << 16 | (count as u64) << 32
}

fn parts(step: u64) -> (u16, u16, usize) {
    let [a, b, c, d, e, f, g, h] = step.to_le_bytes();
    let count = u32::from_le_bytes([e, f, g, h]);
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), usize::try_from(count).unwrap_or(usize::MAX))
}
