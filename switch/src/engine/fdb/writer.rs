//! The writer's side of the FDB: what is done under its lock.

use std::cmp::Reverse;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::lists::{Lists, NONE};
use super::table::{Places, Table, Word};
use crate::engine::PortNo;
use crate::model::MAX_PORTS;

/// Refreshed entries that an eviction passes over before it takes one all the same.
const CHANCES: usize = 8;

/// The entries. Anybody may read them. Only a [`Writer`] adds, moves or removes one.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) table: Table,
    /// By slot: second in which the station was last seen. Stored without the lock. A late store, for an entry that
    /// was just replaced, makes the new entry at worst a moment younger.
    pub(super) seen: Box<[AtomicU32]>,
    /// Entries that there can be.
    pub(super) limit: u32,
    /// Number of entries, static ones too.
    pub(super) len: AtomicU32,
    /// By port: number of learned entries.
    pub(super) learned: Box<[AtomicU32]>,
    /// How often an entry was replaced or removed. It wraps.
    pub(super) changes: AtomicU32,
}

impl Entries {
    pub(super) fn new(limit: u32, seed: u64) -> Self {
        let table = Table::new(limit as usize, seed);
        let zeros = |n: usize| std::iter::repeat_with(AtomicU32::default).take(n).collect();
        Self {
            seen: zeros(table.slots()),
            table,
            limit,
            len: AtomicU32::new(0),
            learned: zeros(MAX_PORTS),
            changes: AtomicU32::new(0),
        }
    }

    /// Seconds since the station of a slot was seen. Workers read their clocks apart from control, so a station can
    /// have been seen in the future: then 0.
    pub(super) fn seconds_since(&self, slot: usize, now: u32) -> u32 {
        now.saturating_sub(self.seen[slot].load(Relaxed))
    }
}

/// Has the lock, and may change entries.
pub(super) struct Writer<'a> {
    entries: &'a Entries,
    pub(super) lists: MutexGuard<'a, Lists>,
}

impl<'a> Writer<'a> {
    /// The writer that has the lock of those entries' lists.
    pub(super) fn new(entries: &'a Entries, lists: MutexGuard<'a, Lists>) -> Self {
        Self { entries, lists }
    }

    /// Adds the entry of a key that has none, and makes room if need be. False if nothing may give way for it.
    pub(super) fn insert(&mut self, key: u64, port: PortNo, is_static: bool, now: u32) -> bool {
        let places = self.entries.table.places(key);
        let free = self.entries.table.free_slot(places).or_else(|| self.make_room(places, port, is_static));
        let Some((slot, word)) = free else { return false };
        if self.entries.len.load(Relaxed) >= self.entries.limit {
            let Some(fullest) = self.lists.fullest(port) else { return false };
            self.evict_oldest(fullest);
        }
        // The time first: no sweep shall meet the new entry with the old time.
        self.entries.seen[slot].store(now, Relaxed);
        self.entries.table.store(slot, word.with(port, is_static));
        self.enter(slot, port, is_static, now);
        true
    }

    /// Gives an entry another port or kind, in its slot.
    pub(super) fn replace(&mut self, slot: usize, old: Word, new: Word, now: u32) {
        self.leave(slot, old);
        self.entries.seen[slot].store(now, Relaxed);
        self.entries.table.store(slot, new);
        self.entries.changes.fetch_add(1, Relaxed);
        self.enter(slot, new.port(), new.is_static(), now);
    }

    /// Holds a station at a port: its entry says so.
    pub(super) fn hold(&mut self, slot: usize, old: Word, port: PortNo, now: u32) {
        self.replace(slot, old, old.with(port, false).held(), now);
    }

    /// Holds a station no more, if it is held.
    pub(super) fn release(&mut self, key: u64) {
        if let Some((slot, word)) = self.entries.table.find(key)
            && word.is_held()
        {
            self.entries.table.store(slot, word.with(word.port(), word.is_static()));
            self.entries.changes.fetch_add(1, Relaxed);
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, slot: usize, word: Word) {
        self.entries.table.store(slot, Word::EMPTY);
        self.entries.changes.fetch_add(1, Relaxed);
        self.leave(slot, word);
    }

    /// Removes the first entry of a port's list. False if the list is empty.
    pub(super) fn remove_first(&mut self, port: PortNo, is_static: bool) -> bool {
        let slot = match self.lists.first(port, is_static) {
            NONE => return false,
            slot => slot as usize,
        };
        let word = self.entries.table.load(slot);
        self.remove(slot, word);
        true
    }

    /// Removes the oldest learned entry of a port, if it has one. Entries that were seen since they were listed go to
    /// the end of the list instead, up to [`CHANCES`] of them.
    pub(super) fn evict_oldest(&mut self, port: PortNo) {
        for chance in 0..=CHANCES {
            let slot = match self.lists.first(port, false) {
                NONE => return,
                slot => slot as usize,
            };
            let seen = self.entries.seen[slot].load(Relaxed);
            if chance == CHANCES || seen <= self.lists.listed(slot) {
                let word = self.entries.table.load(slot);
                return self.remove(slot, word);
            }
            self.lists.unlink(port, false, slot);
            self.lists.push(port, false, slot, seen);
        }
    }

    /// Makes room where both buckets of a key are full. The oldest learned entry of the fullest port among them goes,
    /// but not that of a port with fewer entries than the one that learns. Static entries may evict any learned one.
    fn make_room(&mut self, places: Places, port: PortNo, is_static: bool) -> Option<(usize, Word)> {
        let (entries, lists) = (self.entries, &self.lists);
        let least = if is_static { 0 } else { lists.len(port, false) };
        let all = places.slots().map(|(slot, word)| (slot, word, entries.table.load(slot)));
        let learned = all.filter(|(_, _, old)| !old.is_static() && lists.len(old.port(), false) >= least);
        let (slot, word, old) = learned
            .max_by_key(|(slot, _, old)| (lists.len(old.port(), false), Reverse(entries.seen[*slot].load(Relaxed))))?;
        self.remove(slot, old);
        Some((slot, word))
    }

    /// Lists and counts a slot.
    fn enter(&mut self, slot: usize, port: PortNo, is_static: bool, now: u32) {
        self.lists.push(port, is_static, slot, now);
        self.count_changed(port, 1);
    }

    /// The reverse of [`Writer::enter`].
    fn leave(&mut self, slot: usize, word: Word) {
        self.lists.unlink(word.port(), word.is_static(), slot);
        self.count_changed(word.port(), -1);
    }

    fn count_changed(&self, port: PortNo, change: i32) {
        // Plain load and store: the lock is held.
        let Entries { len, learned, .. } = self.entries;
        len.store(len.load(Relaxed).wrapping_add_signed(change), Relaxed);
        learned[usize::from(port)].store(self.lists.len(port, false), Relaxed);
    }
}
