//! The MAC table (filtering database, IEEE 802.1Q-2022, clause 8.8), shared by all workers.
//!
//! **Readers** (every worker, every packet) take no lock and retry nothing: an entry is one atomic word, see `table.rs`.
//! **Writers** hold one mutex. A worker that has something to learn only tries it, and if another writer is at work the
//! next frame of the station learns; control waits for it. What control does under it is done in steps of `STEP` entries,
//! so that workers get their turn. Seeing a known station again takes no lock: one relaxed store of the second, at most once
//! a second for an entry.
//!
//! **Limits** are what stands between a MAC flood and the other ports (as in Open vSwitch's `lib/mac-learning.h`): at its own
//! cap a port loses its own oldest entry, and at the cap of the table the port with most learned entries loses its oldest.
//! A port can so never cost another one an entry while it has more itself. "Oldest" is by list order, where an entry that was
//! seen since it was listed gets a second chance, up to `CHANCES` in a row.
//!
//! **Ageing** is a sweep by control, [`Fdb::age`], once a second or so: entries go at most that much late, and lookups need
//! not look at the time. An expired entry that is not yet swept is simply refreshed if its station speaks up.
//!
//! **Static entries** count in the table's cap but neither age, move, nor give way.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::PortNo;
use crate::model::{MAX_PORTS, MacAddr, Vid};
use lists::{Lists, NONE};
use table::{Places, Table, Word, key};

mod lists;
mod table;
#[cfg(test)]
mod tests;

/// Least number of entries that a table can be limited to.
pub const MIN_LIMIT: u32 = 16;
/// Largest number of entries that a table can be limited to.
pub const MAX_LIMIT: u32 = 1_000_000;
/// Entries that control changes before it lets go of the lock for a moment.
const STEP: usize = 128;
/// Refreshed entries that an eviction passes over before it takes one all the same.
const CHANCES: usize = 8;
/// Most entries that one learning evicts because a port's limit was lowered; two a time would do to get there.
const EVICTIONS: usize = 4;

/// What became of an address that was to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// It is known there and was seen this second (or in a later one, by a worker whose clock is ahead).
    Known,
    /// It is known there; the time was noted.
    Refreshed,
    /// It is new.
    Learned,
    /// It was known on another port.
    Moved,
    /// It is static, on this or another port.
    Static,
    /// Not now: another writer is at work, or nothing may give way for it.
    Skipped,
}

/// Why a static entry could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticError {
    /// Group address, all-zero address, VID above 4095 or port number out of range.
    #[error("a static MAC entry needs a unicast address, a VLAN of 0-4094 and an existing port")]
    Invalid,
    /// Nothing is left that may give way.
    #[error("the MAC table is full of static entries; raise fdb_limit or remove some")]
    Full,
}

/// An entry as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Address.
    pub mac: MacAddr,
    /// VLAN.
    pub vid: Vid,
    /// Port.
    pub port: PortNo,
    /// Whether it is static.
    pub is_static: bool,
    /// Seconds since it was last seen; 0 for a static one.
    pub age: u32,
}

/// Where an entry is, and what it says: a word names its key completely, so that whoever finds the same one in the same slot
/// has found the same station at the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef {
    slot: u32,
    word: Word,
}

impl EntryRef {
    /// The port that the station is behind.
    #[inline]
    pub fn port(self) -> PortNo {
        self.word.port()
    }
}

/// The MAC table.
#[derive(Debug)]
pub struct Fdb {
    table: Table,
    /// By slot: second in which the station was last seen. Stored without the lock; a store that comes late, for an entry
    /// that has just been replaced, makes the new one at worst a moment younger.
    seen: Box<[AtomicU32]>,
    /// What only writers need; its mutex is the table's lock.
    lists: Mutex<Lists>,
    limit: u32,
    seed: u64,
    ageing: AtomicU32,
    /// Second before which no entry can expire.
    sweep_at: AtomicU32,
    /// Entries in all, and learned ones by port; written under the lock.
    len: AtomicU32,
    learned: Box<[AtomicU32]>,
}

impl Fdb {
    /// An empty table for `limit` entries ([`MIN_LIMIT`] to [`MAX_LIMIT`], else the nearest of them), whose learned ones go
    /// `ageing_seconds` after they were last seen. `seed` should be random and secret, so that nobody can choose addresses
    /// that collide. Takes 24 to 48 bytes an entry, from the start.
    pub fn new(limit: u32, ageing_seconds: u32, seed: u64) -> Self {
        let limit = limit.clamp(MIN_LIMIT, MAX_LIMIT);
        let table = Table::new(limit as usize, seed);
        let zeros = |n: usize| std::iter::repeat_with(AtomicU32::default).take(n).collect();
        Self {
            seen: zeros(table.slots()),
            lists: Mutex::new(Lists::new(table.slots())),
            table,
            limit,
            seed,
            ageing: AtomicU32::new(ageing_seconds.max(1)),
            sweep_at: AtomicU32::new(0),
            len: AtomicU32::new(0),
            learned: zeros(MAX_PORTS),
        }
    }

    /// A table for another number of entries with what this one holds; if that is too much, the fullest ports' oldest learned
    /// entries are left out, and static ones beyond the limit. What workers learn in this one meanwhile is learned again.
    pub fn resized(&self, new_limit: u32) -> Self {
        let new = Self::new(new_limit, self.ageing.load(Relaxed), self.seed);
        // Held throughout, for a consistent copy; workers only skip learning meanwhile.
        let lists = self.lock();
        let mut to = new.lock();
        for is_static in [true, false] {
            for port in 0..lists.ports() {
                let mut slot = lists.first(port, is_static);
                while slot != NONE {
                    let at = slot as usize;
                    let (mac, vid) = self.table.key_of(at, self.table.load(at));
                    if let Some(key) = key(mac, vid) {
                        new.insert(&mut to, key, port, is_static, self.seen[at].load(Relaxed));
                    }
                    slot = lists.next(at);
                }
            }
        }
        drop(to);
        new
    }

    /// Port of a station.
    #[inline]
    pub fn lookup(&self, mac: MacAddr, vid: Vid) -> Option<PortNo> {
        self.table.find(key(mac, vid)?).map(|(_, word)| word.port())
    }

    /// Loads what [`Fdb::lookup`] will most probably need; what it returns means nothing.
    #[inline]
    pub fn touch(&self, mac: MacAddr, vid: Vid) -> PortNo {
        key(mac, vid).map_or(0, |key| self.table.touch(key).port())
    }

    /// Where the entry of a station is.
    pub fn entry(&self, mac: MacAddr, vid: Vid) -> Option<EntryRef> {
        self.table.find(key(mac, vid)?).map(|(slot, word)| EntryRef { slot: slot as u32, word })
    }

    /// Whether a station is still where it was when this table gave the spot.
    #[inline]
    pub fn is_current(&self, entry: EntryRef) -> bool {
        self.table.load(entry.slot as usize) == entry.word
    }

    /// Notes that a frame of `mac` in `vid` came in from `port` at second `now`; `port_limit` is the port's own cap. The
    /// address must be a unicast one. Never waits.
    #[inline]
    pub fn learn(&self, mac: MacAddr, vid: Vid, port: PortNo, port_limit: u32, now: u32) -> Learn {
        let Some(key) = key(mac, vid) else { return Learn::Skipped };
        match self.table.find(key) {
            Some((_, word)) if word.is_static() => Learn::Static,
            Some((slot, word)) if word.port() == port => {
                if self.seen[slot].load(Relaxed) >= now {
                    return Learn::Known;
                }
                self.seen[slot].store(now, Relaxed);
                Learn::Refreshed
            }
            _ => self.learn_slowly(key, port, port_limit, now),
        }
    }

    /// What [`Fdb::learn`] would say, without learning; a known address counts as `Known`.
    pub fn preview(&self, mac: MacAddr, vid: Vid, port: PortNo) -> Learn {
        match key(mac, vid).map(|key| self.table.find(key)) {
            None => Learn::Skipped,
            Some(None) => Learn::Learned,
            Some(Some((_, word))) if word.is_static() => Learn::Static,
            Some(Some((_, word))) if word.port() == port => Learn::Known,
            Some(Some(_)) => Learn::Moved,
        }
    }

    #[cold]
    fn learn_slowly(&self, key: u64, port: PortNo, port_limit: u32, now: u32) -> Learn {
        if usize::from(port) >= MAX_PORTS || port_limit == 0 {
            return Learn::Skipped;
        }
        let mut lists = match self.lists.try_lock() {
            Ok(lists) => lists,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Learn::Skipped,
        };
        // Again, under the lock: another worker may have been here.
        let found = self.table.find(key);
        match found {
            Some((_, word)) if word.is_static() => return Learn::Static,
            Some((_, word)) if word.port() == port => return Learn::Known,
            _ => {}
        }
        for _ in 0..EVICTIONS {
            if lists.len(port, false) < port_limit {
                break;
            }
            self.evict_oldest(&mut lists, port);
        }
        if let Some((slot, word)) = found {
            self.relist(&mut lists, slot, word, word.with(port, false), now);
            return Learn::Moved;
        }
        if self.insert(&mut lists, key, port, false, now) { Learn::Learned } else { Learn::Skipped }
    }

    /// Removes learned entries that were last seen `ageing_seconds` or more before `now`, and says how many. For one caller,
    /// about once a second. Looks at the slots only when one can have expired, and holds the lock only to remove.
    pub fn age(&self, now: u32) -> usize {
        let ageing = self.ageing.load(Relaxed);
        if now < self.sweep_at.load(Relaxed) {
            return 0;
        }
        let (mut removed, mut oldest, mut expired) = (0, now, Vec::with_capacity(STEP));
        let mut remove = |expired: &mut Vec<usize>| {
            let mut lists = self.lock();
            for slot in expired.drain(..) {
                let word = self.table.load(slot);
                // It may have been refreshed, moved or replaced since.
                if word.is_valid() && !word.is_static() && self.seconds_since(slot, now) >= ageing {
                    self.remove_slot(&mut lists, slot, word);
                    removed += 1;
                }
            }
        };
        for slot in 0..self.table.slots() {
            let word = self.table.load(slot);
            if !word.is_valid() || word.is_static() {
                continue;
            }
            if self.seconds_since(slot, now) >= ageing {
                expired.push(slot);
                if expired.len() == STEP {
                    remove(&mut expired);
                }
            } else {
                oldest = oldest.min(self.seen[slot].load(Relaxed));
            }
        }
        if !expired.is_empty() {
            remove(&mut expired);
        }
        self.sweep_at.store(oldest.saturating_add(ageing), Relaxed);
        // If the ageing time was shortened meanwhile, its own reset of the mark must not be lost.
        if self.ageing.load(Relaxed) != ageing {
            self.sweep_at.store(0, Relaxed);
        }
        removed
    }

    /// Changes the ageing time, in seconds, also for what is in the table.
    pub fn set_ageing(&self, seconds: u32) {
        self.ageing.store(seconds.max(1), Relaxed);
        self.sweep_at.store(0, Relaxed);
    }

    /// Adds a static entry, or makes a learned or static one that (static) entry.
    ///
    /// # Errors
    /// `Invalid` for an address, VLAN or port that cannot be, `Full` if only static entries could give way.
    pub fn add_static(&self, mac: MacAddr, vid: Vid, port: PortNo) -> Result<(), StaticError> {
        let usable = mac.is_unicast() && vid <= crate::model::MAX_VID && usize::from(port) < MAX_PORTS;
        let key = key(mac, vid).filter(|_| usable).ok_or(StaticError::Invalid)?;
        let mut lists = self.lock();
        if let Some((slot, word)) = self.table.find(key) {
            self.relist(&mut lists, slot, word, word.with(port, true), 0);
            return Ok(());
        }
        if self.insert(&mut lists, key, port, true, 0) { Ok(()) } else { Err(StaticError::Full) }
    }

    /// Removes an entry, learned or static; false if there is none.
    pub fn remove(&self, mac: MacAddr, vid: Vid) -> bool {
        let Some(key) = key(mac, vid) else { return false };
        let mut lists = self.lock();
        let found = self.table.find(key);
        if let Some((slot, word)) = found {
            self.remove_slot(&mut lists, slot, word);
        }
        found.is_some()
    }

    /// Removes all entries of a port, static ones too, and says how many. To be called when the workers no longer let the
    /// port learn.
    pub fn flush_port(&self, port: PortNo) -> usize {
        self.flush(port, false) + self.flush(port, true)
    }

    /// Removes the learned entries of a port, or of all, and says how many.
    pub fn flush_learned(&self, port: Option<PortNo>) -> usize {
        match port {
            Some(port) => self.flush(port, false),
            None => (0..MAX_PORTS as PortNo).map(|port| self.flush(port, false)).sum(),
        }
    }

    /// Every entry, in no order. Takes no lock: each row is right, entries that come and go meanwhile may be in it or not.
    pub fn entries(&self, now: u32) -> Vec<Row> {
        let slots = (0..self.table.slots()).map(|slot| (slot, self.table.load(slot)));
        let rows = slots.filter(|(_, word)| word.is_valid()).map(|(slot, word)| {
            let (mac, vid) = self.table.key_of(slot, word);
            let age = if word.is_static() { 0 } else { self.seconds_since(slot, now) };
            Row { mac, vid, port: word.port(), is_static: word.is_static(), age }
        });
        rows.collect()
    }

    /// Learned entries of a port.
    pub fn count(&self, port: PortNo) -> u32 {
        self.learned.get(usize::from(port)).map_or(0, |count| count.load(Relaxed))
    }

    /// Entries in all, static ones too.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed) as usize
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most entries that there can be.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers' clocks are read apart from control's, so that a station can have been seen in the future: then 0.
    fn seconds_since(&self, slot: usize, now: u32) -> u32 {
        now.saturating_sub(self.seen[slot].load(Relaxed))
    }

    fn flush(&self, port: PortNo, is_static: bool) -> usize {
        if usize::from(port) >= MAX_PORTS {
            return 0;
        }
        let mut removed = 0;
        loop {
            let mut lists = self.lock();
            for _ in 0..STEP {
                let slot = match lists.first(port, is_static) {
                    NONE => return removed,
                    slot => slot as usize,
                };
                let word = self.table.load(slot);
                self.remove_slot(&mut lists, slot, word);
                removed += 1;
            }
        }
    }

    /// Puts a key that is not in the table into it, making room if need be; false if there is none to be had.
    fn insert(&self, lists: &mut Lists, key: u64, port: PortNo, is_static: bool, now: u32) -> bool {
        let places = self.table.places(key);
        let free = self.table.free_slot(places).or_else(|| self.make_room(lists, places, port, is_static));
        let Some((slot, word)) = free else { return false };
        if self.len.load(Relaxed) >= self.limit {
            let Some(fullest) = lists.fullest(port) else { return false };
            self.evict_oldest(lists, fullest);
        }
        // The time first: no sweep shall meet the new entry with the old time.
        self.seen[slot].store(now, Relaxed);
        self.table.store(slot, word.with(port, is_static));
        self.enter(lists, slot, port, is_static, now);
        true
    }

    /// Both buckets of a key are full: takes the oldest learned entry of the fullest port among them. Not of a port that has
    /// fewer entries than the one that learns; static entries may displace any.
    fn make_room(&self, lists: &mut Lists, places: Places, port: PortNo, is_static: bool) -> Option<(usize, Word)> {
        let least = if is_static { 0 } else { lists.len(port, false) };
        let learned = places.slots().map(|(slot, word)| (slot, word, self.table.load(slot)));
        let (slot, word, old) =
            learned.filter(|(_, _, old)| !old.is_static() && lists.len(old.port(), false) >= least).max_by_key(
                |(slot, _, old)| (lists.len(old.port(), false), std::cmp::Reverse(self.seen[*slot].load(Relaxed))),
            )?;
        self.remove_slot(lists, slot, old);
        Some((slot, word))
    }

    /// Removes the oldest learned entry of a port, if it has one.
    fn evict_oldest(&self, lists: &mut Lists, port: PortNo) {
        for chance in 0..=CHANCES {
            let slot = match lists.first(port, false) {
                NONE => return,
                slot => slot as usize,
            };
            let seen = self.seen[slot].load(Relaxed);
            if chance == CHANCES || seen <= lists.listed(slot) {
                let word = self.table.load(slot);
                return self.remove_slot(lists, slot, word);
            }
            lists.unlink(port, false, slot);
            lists.push(port, false, slot, seen);
        }
    }

    /// Gives an entry another port or kind, in its slot.
    fn relist(&self, lists: &mut Lists, slot: usize, old: Word, new: Word, now: u32) {
        self.leave(lists, slot, old);
        self.seen[slot].store(now, Relaxed);
        self.table.store(slot, new);
        self.enter(lists, slot, new.port(), new.is_static(), now);
    }

    fn remove_slot(&self, lists: &mut Lists, slot: usize, word: Word) {
        self.table.store(slot, Word::EMPTY);
        self.leave(lists, slot, word);
    }

    /// Lists and counts a slot.
    fn enter(&self, lists: &mut Lists, slot: usize, port: PortNo, is_static: bool, now: u32) {
        lists.push(port, is_static, slot, now);
        self.count_changed(lists, port, 1);
    }

    /// The reverse of [`Fdb::enter`].
    fn leave(&self, lists: &mut Lists, slot: usize, word: Word) {
        lists.unlink(word.port(), word.is_static(), slot);
        self.count_changed(lists, word.port(), -1);
    }

    fn count_changed(&self, lists: &Lists, port: PortNo, change: i32) {
        // Plain load and store: the lock is held.
        self.len.store(self.len.load(Relaxed).wrapping_add_signed(change), Relaxed);
        self.learned[usize::from(port)].store(lists.len(port, false), Relaxed);
    }
}
