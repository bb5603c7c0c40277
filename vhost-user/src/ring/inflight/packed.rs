//! The part of a packed queue: `QueueRegionPacked`.
//!
//! Used descriptors overwrite available ones. So the descriptors of chains in work are kept here, in entries that are
//! linked. A chain's entries follow each other by `next`. The free entries do so, too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::VERSION;
use crate::memory::Mapping;
use crate::ring::area::Area;
use crate::ring::layout::{Le64, PackedDesc};

/// Bytes before the entries.
pub(super) const HEADER: u64 = 32;
/// Bytes of an entry.
pub(super) const ENTRY: u64 = 32;

/// Words of the header behind `features`. What belongs together is in one word, and so is changed in one step.
const LIST: usize = 0;
const POSITION: usize = 1;

/// First of these words: the free entries. Between two values of `free`, a chain is taken or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct List {
    version: u16,
    size: u16,
    /// First free entry.
    free: u16,
    /// The same before the chains that are about to be published.
    old_free: u16,
}

/// Second of these words: where the ring's used descriptors end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    used: Used,
    /// The same before the chains that are about to be published.
    old: Used,
}

/// The four numbers of a word.
fn quarters(word: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
}

/// The word of four numbers.
fn word([a, b, c, d]: [u16; 4]) -> u64 {
    u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
}

impl List {
    fn of_word(of: u64) -> Self {
        let [version, size, free, old_free] = quarters(of);
        Self { version, size, free, old_free }
    }

    fn word(self) -> u64 {
        word([self.version, self.size, self.free, self.old_free])
    }
}

impl Progress {
    fn of_word(of: u64) -> Self {
        let [used, old, wraps, _] = quarters(of);
        Self { used: (used, wraps & 0xff != 0), old: (old, wraps >> 8 != 0) }
    }

    fn word(self) -> u64 {
        let wraps = u16::from(self.used.1) | u16::from(self.old.1) << 8;
        word([self.used.0, self.old.0, wraps, 0])
    }
}

/// Words of an entry: state, counter, id with flags and length, address.
const WORDS: usize = 4;

/// First word of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    in_work: bool,
    /// Next entry of the chain, or next free one.
    next: u16,
    /// Last entry of the chain.
    last: u16,
    /// Descriptors of the chain.
    count: u16,
}

impl State {
    fn of_word(of: u64) -> Self {
        let [flag, next, last, count] = quarters(of);
        Self { in_work: flag & 0xff != 0, next, last, count }
    }

    fn word(self) -> u64 {
        word([u16::from(self.in_work), self.next, self.last, self.count])
    }
}

/// A used position: index of a descriptor, and wrap counter.
pub(super) type Used = (u16, bool);

/// A chain that was in work when the last device ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its first entry.
    pub entry: u16,
    pub descriptors: Vec<PackedDesc>,
}

/// The chains of a packed queue that are in work.
#[derive(Debug)]
pub(super) struct PackedPart {
    header: Area<Le64>,
    /// [`WORDS`] words for each descriptor.
    entries: Area<Le64>,
    /// Counter of the next chain. It tells the order in which they were taken.
    counter: u64,
    /// First entries of chains that are used, and not published.
    batch: Vec<u16>,
}

impl PackedPart {
    /// The part at `start`, for a queue of `size` entries. None if the mapping is too short.
    pub(super) fn open(mapping: &Arc<Mapping>, start: usize, size: u16) -> Option<Self> {
        let header = Area::of_mapping(mapping, start.checked_add(8)?, 2)?;
        let entries = Area::of_mapping(mapping, start.checked_add(32)?, usize::from(size) * WORDS)?;
        Some(Self { header, entries, counter: 0, batch: Vec::new() })
    }

    fn size(&self) -> u16 {
        u16::try_from(self.entries.entries().len() / WORDS).unwrap_or(u16::MAX)
    }

    fn list(&self) -> List {
        List::of_word(self.header.entries()[LIST].load(Ordering::Relaxed))
    }

    fn set_list(&self, list: List) {
        // A device that comes later must find what was written before.
        self.header.entries()[LIST].store(list.word(), Ordering::Release);
    }

    fn progress(&self) -> Progress {
        Progress::of_word(self.header.entries()[POSITION].load(Ordering::Relaxed))
    }

    fn set_progress(&self, progress: Progress) {
        self.header.entries()[POSITION].store(progress.word(), Ordering::Release);
    }

    fn entry(&self, index: u16) -> Option<&[Le64; WORDS]> {
        self.entries.entries().get(usize::from(index) * WORDS..)?.first_chunk()
    }

    fn state(&self, index: u16) -> Option<State> {
        Some(State::of_word(self.entry(index)?[0].load(Ordering::Relaxed)))
    }

    /// Changes an entry's state. Nothing happens if there is no such entry.
    fn change(&self, index: u16, change: impl FnOnce(&mut State)) {
        if let (Some(entry), Some(mut state)) = (self.entry(index), self.state(index)) {
            change(&mut state);
            entry[0].store(state.word(), Ordering::Release);
        }
    }

    /// Whether no device has used it yet, or one with another number of entries.
    pub(super) fn is_new(&self) -> bool {
        let List { version, size, .. } = self.list();
        version != VERSION || size != self.size()
    }

    /// Begins without requests, at this position.
    pub(super) fn begin(&self, used: Used) {
        let size = self.size();
        for at in 0..size {
            self.change(at, |state| *state = State { next: at + 1, ..State::default() });
        }
        self.set_progress(Progress { used, old: used });
        self.set_list(List { version: VERSION, size, free: 0, old_free: 0 });
    }

    /// Completes or undoes what the last device has left half done. Returns the used position, and the chains in work,
    /// oldest first. `is_available` looks whether the descriptor at a position is still the one that was available.
    pub(super) fn recover(&mut self, is_available: impl FnOnce(Used) -> bool) -> (Used, Vec<Kept>) {
        let (Progress { used, old }, list) = (self.progress(), self.list());
        let is_published = used == old || !is_available(old);
        let (used, free) = if is_published && used != old { (used, list.free) } else { (old, list.old_free) };
        self.set_list(List { free, old_free: free, ..list });
        self.set_progress(Progress { used, old: used });
        // Free entries may have flags of a batch, or of a chain that was not taken whole.
        let mut at = free;
        for _ in 0..self.size() {
            let Some(state) = self.state(at) else { break };
            self.change(at, |state| state.in_work = false);
            at = state.next;
        }
        let counter = |entry: &u16| self.entry(*entry).map(|entry| entry[1].load(Ordering::Relaxed));
        let in_work = |at: &u16| self.state(*at).is_some_and(|state| state.in_work);
        let mut heads: Vec<_> = (0..self.size()).filter(in_work).collect();
        heads.sort_by_key(counter);
        let next = heads.last().and_then(counter).map_or(0, |last| last.wrapping_add(1));
        let kept = heads.into_iter().map(|entry| Kept { entry, descriptors: self.descriptors(entry) }).collect();
        self.counter = next;
        (used, kept)
    }

    /// Copies of a chain's descriptors.
    fn descriptors(&self, first: u16) -> Vec<PackedDesc> {
        let count = self.state(first).map_or(0, |state| state.count.min(self.size()));
        let entries = std::iter::successors(Some(first), |at| Some(self.state(*at)?.next)).take(count.into());
        let desc = |at: u16| {
            let [_, _, third, addr] = self.entry(at)?;
            let [id, flags, low, high] = quarters(third.load(Ordering::Relaxed));
            let len = u32::from(low) | u32::from(high) << 16;
            Some(PackedDesc { addr: addr.load(Ordering::Relaxed), len, id, flags })
        };
        entries.map_while(desc).collect()
    }

    /// Notes that a chain is in work. Returns its first entry, if there is room: there is, unless somebody else changed
    /// the memory.
    pub(super) fn take(&mut self, descriptors: &[PackedDesc]) -> Option<u16> {
        let list = self.list();
        let first = list.old_free;
        let (mut at, mut last) = (first, first);
        for desc in descriptors {
            let [_, _, third, addr] = self.entry(at)?;
            addr.store(desc.addr, Ordering::Relaxed);
            let word = u64::from(desc.id) | u64::from(desc.flags) << 16 | u64::from(desc.len) << 32;
            third.store(word, Ordering::Relaxed);
            last = at;
            at = self.state(at)?.next;
        }
        self.entry(first)?[1].store(self.counter, Ordering::Relaxed);
        self.counter = self.counter.wrapping_add(1);
        let count = u16::try_from(descriptors.len()).ok()?;
        self.change(first, |state| *state = State { in_work: true, last, count, ..*state });
        // Until here the chain's entries are free ones, whatever they say.
        self.set_list(List { free: at, old_free: at, ..list });
        Some(first)
    }

    /// Notes that a chain will be published as used.
    pub(super) fn complete(&mut self, entry: u16) {
        self.batch.push(entry);
    }

    /// Notes the position that the ring will have. The ring is to be written next, and then
    /// [`PackedPart::published`] called.
    pub(super) fn publish(&self, used: Used) {
        let list = self.list();
        let mut free = list.old_free;
        for entry in &self.batch {
            let last = self.state(*entry).map_or(*entry, |state| state.last);
            self.change(last, |state| state.next = free);
            free = *entry;
        }
        self.set_list(List { free, ..list });
        self.set_progress(Progress { used, ..self.progress() });
    }

    /// Notes that all of these are published.
    pub(super) fn published(&mut self) {
        for entry in std::mem::take(&mut self.batch) {
            self.change(entry, |state| state.in_work = false);
        }
        let (list, Progress { used, .. }) = (self.list(), self.progress());
        self.set_list(List { old_free: list.free, ..list });
        self.set_progress(Progress { used, old: used });
    }
}
