//! The FDB (filtering database, IEEE 802.1Q-2022, clause 8.8): the MAC table, shared by all workers.
//!
//! **Readers** are all workers, for every packet. They take no lock and retry nothing: an entry is one atomic word (see
//! `table`).
//!
//! **Writers** hold one mutex. A worker that has something to learn only tries it. If another writer is at work, the
//! next frame of the station learns. Control waits for the lock, and holds it for `STEP` entries at a time, so that
//! workers get their turn. Seeing a known station again takes no lock: one relaxed store, at most once a second for
//! an entry.
//!
//! **Limits** are what stands between a MAC flood and the other ports (as in Open vSwitch's `lib/mac-learning.h`). At
//! its own limit a port loses its own oldest entry. At the limit of the table, the port with most learned entries
//! loses its oldest. So a port never costs another one an entry while it has more itself. "Oldest" is by list order.
//! An entry that was seen since it was listed gets a second chance.
//!
//! **Ageing** is a sweep by control, [`Fdb::age`], about once a second. Entries go at most that much late, and
//! lookups need not look at the time. An expired entry that is not swept yet is refreshed if its station speaks up.
//!
//! **Flapping.** A station that moves between ports more often than [`Fdb::set_flap_limit`] says is held at the first
//! one for a while (`flaps`).
//!
//! **Static entries** count in the limit of the table. They neither age, nor move, nor give way.

mod flaps;
mod lists;
mod loop_ports;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, TryLockError};

use self::lists::{Lists, NONE};
pub use self::loop_ports::LoopPorts;
use self::table::{Table, Word, key, station};
use self::writer::{Entries, Writer};
use super::PortNo;
use crate::model::{MAX_PORTS, MAX_VID, MacAddr, Vid};

/// Least number of entries that a table can be limited to.
pub const MIN_LIMIT: u32 = 16;
/// Largest number of entries that a table can be limited to.
pub const MAX_LIMIT: u32 = 1_000_000;
/// Entries that control changes before it lets go of the lock for a moment.
const STEP: usize = 128;
/// Most entries that one learning evicts because a port's limit was lowered. Two at a time would do to get there.
const EVICTIONS: usize = 4;

/// What became of an address that was to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// It is known there and was seen this second. Or in a later one, by a worker whose clock is ahead.
    Known,
    /// It is known there, and the time was noted.
    Refreshed,
    /// It is new.
    Learned,
    /// It was known on another port.
    Moved,
    /// It is static, on this or another port.
    Static,
    /// It is held at another port, because it flapped.
    Held,
    /// Not now: another writer is at work, or nothing may give way for it.
    Skipped,
}

/// Why a static entry could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticError {
    /// Group address, all-zero address, VID above 4094, or port number out of range.
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
    /// Whether it is held at the port, because it flapped.
    pub is_held: bool,
    /// Seconds since it was last seen; 0 for a static one.
    pub age: u32,
}

/// A station that is held, because it flapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Address.
    pub mac: MacAddr,
    /// VLAN.
    pub vid: Vid,
    /// The port that it is held at.
    pub port: PortNo,
    /// The port that it moved to last.
    pub other: PortNo,
}

/// An entry that was found: its slot, and the word that was there.
///
/// The word names the key completely. So whoever finds the same word in the same slot has found the same station at
/// the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef {
    slot: usize,
    word: Word,
}

impl EntryRef {
    /// The port that the station is behind.
    #[inline]
    pub fn port(self) -> PortNo {
        self.word.port()
    }

    /// Whether it was put there, and not learned.
    pub fn is_static(self) -> bool {
        self.word.is_static()
    }
}

/// The FDB.
#[derive(Debug)]
pub struct Fdb {
    entries: Entries,
    /// What only writers need. Its mutex is the table's lock.
    lists: Mutex<Lists>,
    seed: u64,
    /// Seconds after which a learned entry that was not seen again expires.
    ageing: AtomicU32,
    /// Second before which no entry can expire.
    sweep_at: AtomicU32,
    /// Moves of a station within a second that are honest; 0 if any are.
    flap_limit: AtomicU32,
    /// How often a station was held.
    holds: AtomicU64,
    /// Ports that held stations were seen at beside the one that they are held at.
    loop_ports: LoopPorts,
}

impl Fdb {
    /// An empty table for `limit` entries ([`MIN_LIMIT`] to [`MAX_LIMIT`], else the nearest of them). Learned ones
    /// expire `ageing_seconds` after they were last seen. Stations may flap.
    ///
    /// `seed` should be random and secret, so that nobody can choose addresses that collide. The table takes 24 to 48
    /// bytes an entry, from the start.
    pub fn new(limit: u32, ageing_seconds: u32, seed: u64) -> Self {
        let entries = Entries::new(limit.clamp(MIN_LIMIT, MAX_LIMIT), seed);
        Self {
            lists: Mutex::new(Lists::new(entries.table.slots())),
            entries,
            seed,
            ageing: AtomicU32::new(ageing_seconds.max(1)),
            sweep_at: AtomicU32::new(0),
            flap_limit: AtomicU32::new(0),
            holds: AtomicU64::new(0),
            loop_ports: LoopPorts::default(),
        }
    }

    /// A table for another number of entries, with what this one holds. If that is too much, the fullest ports'
    /// oldest learned entries are left out, and static ones beyond the limit. What workers learn in this one
    /// meanwhile is learned again. Nothing is held in the new one.
    pub fn resized(&self, new_limit: u32) -> Self {
        let mut new = Self::new(new_limit, self.ageing.load(Relaxed), self.seed);
        new.flap_limit = self.flap_limit.load(Relaxed).into();
        new.holds = self.holds.load(Relaxed).into();
        // The lock is held throughout, for a consistent copy. Workers only skip learning meanwhile.
        let from = self.writer();
        let mut to = new.writer();
        for is_static in [true, false] {
            for port in 0..from.lists.ports() {
                let mut slot = from.lists.first(port, is_static);
                while slot != NONE {
                    let at = slot as usize;
                    let (mac, vid) = self.table().key_of(at, self.table().load(at));
                    if let Some(key) = key(mac, vid) {
                        to.insert(key, port, is_static, self.entries.seen[at].load(Relaxed));
                    }
                    slot = from.lists.next(at);
                }
            }
        }
        drop(to);
        new
    }

    #[inline]
    fn table(&self) -> &Table {
        &self.entries.table
    }

    /// Waits for the lock. A writer that panicked has left the lists whole, so poison does not matter.
    fn writer(&self) -> Writer<'_> {
        Writer::new(&self.entries, self.lists.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Port of a station.
    #[inline]
    pub fn lookup(&self, mac: MacAddr, vid: Vid) -> Option<PortNo> {
        self.table().find(key(mac, vid)?).map(|(_, word)| word.port())
    }

    /// Loads what [`Fdb::lookup`] will most probably need. What it returns means nothing.
    #[inline]
    pub fn touch(&self, mac: MacAddr, vid: Vid) -> PortNo {
        key(mac, vid).map_or(0, |key| self.table().touch(key).port())
    }

    /// The entry of a station.
    pub fn entry(&self, mac: MacAddr, vid: Vid) -> Option<EntryRef> {
        self.table().find(key(mac, vid)?).map(|(slot, word)| EntryRef { slot, word })
    }

    /// Whether an entry of this table is still as it was when it was found.
    #[inline]
    pub fn is_current(&self, entry: EntryRef) -> bool {
        self.table().load(entry.slot) == entry.word
    }

    /// How often an entry was replaced or removed. It wraps.
    #[inline]
    pub fn changes(&self) -> u32 {
        self.entries.changes.load(Relaxed)
    }

    /// Learns that a frame of `mac` in `vid`, a unicast address, came in from `port` at second `now`. `port_limit` is
    /// the port's own limit. Never waits.
    #[inline]
    pub fn learn(&self, mac: MacAddr, vid: Vid, port: PortNo, port_limit: u32, now: u32) -> Learn {
        let Some(key) = key(mac, vid) else { return Learn::Skipped };
        match self.table().find(key) {
            Some((_, word)) if word.is_static() => Learn::Static,
            Some((slot, word)) if word.port() == port => {
                let seen = &self.entries.seen[slot];
                if seen.load(Relaxed) >= now {
                    return Learn::Known;
                }
                seen.store(now, Relaxed);
                Learn::Refreshed
            }
            Some((_, word)) if word.is_held() => {
                self.loop_ports.add(port);
                Learn::Held
            }
            _ => self.learn_slowly(key, port, port_limit, now),
        }
    }

    /// What [`Fdb::learn`] would say, without learning. A known address counts as `Known`.
    pub fn preview(&self, mac: MacAddr, vid: Vid, port: PortNo) -> Learn {
        match key(mac, vid).map(|key| self.table().find(key)) {
            None => Learn::Skipped,
            Some(None) => Learn::Learned,
            Some(Some((_, word))) if word.is_static() => Learn::Static,
            Some(Some((_, word))) if word.port() == port => Learn::Known,
            Some(Some((_, word))) if word.is_held() => Learn::Held,
            Some(Some(_)) => Learn::Moved,
        }
    }

    #[cold]
    fn learn_slowly(&self, key: u64, port: PortNo, port_limit: u32, now: u32) -> Learn {
        if usize::from(port) >= MAX_PORTS || port_limit == 0 {
            return Learn::Skipped;
        }
        let lists = match self.lists.try_lock() {
            Ok(lists) => lists,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Learn::Skipped,
        };
        let mut writer = Writer::new(&self.entries, lists);
        // Looked up again under the lock: another worker may have been here.
        let found = self.table().find(key);
        match found {
            Some((_, word)) if word.is_static() => return Learn::Static,
            Some((_, word)) if word.port() == port => return Learn::Known,
            Some((_, word)) if word.is_held() => return Learn::Held,
            Some((slot, word)) => {
                let (ports, limit) = ([word.port(), port], self.flap_limit.load(Relaxed));
                let first = (limit > 0).then(|| writer.lists.flaps.moved(slot, key, ports, now, limit)).flatten();
                if let Some(first) = first {
                    writer.hold(slot, word, first, now);
                    self.holds.fetch_add(1, Relaxed);
                    ports.into_iter().filter(|port| *port != first).for_each(|port| self.loop_ports.add(port));
                    return if first == port { Learn::Moved } else { Learn::Held };
                }
            }
            None => {}
        }
        for _ in 0..EVICTIONS {
            if writer.lists.len(port, false) < port_limit {
                break;
            }
            writer.evict_oldest(port);
        }
        if let Some((slot, word)) = found {
            writer.replace(slot, word, word.with(port, false), now);
            return Learn::Moved;
        }
        if writer.insert(key, port, false, now) { Learn::Learned } else { Learn::Skipped }
    }

    /// Removes learned entries that were last seen the ageing time or longer before `now`. Returns how many.
    ///
    /// For one caller, about once a second. It looks at the slots only when an entry can have expired, and holds the
    /// lock only to remove.
    pub fn age(&self, now: u32) -> usize {
        let ageing = self.ageing.load(Relaxed);
        if now < self.sweep_at.load(Relaxed) {
            return 0;
        }
        let (mut removed, mut oldest, mut expired) = (0, now, Vec::with_capacity(STEP));
        for slot in 0..self.table().slots() {
            let word = self.table().load(slot);
            if !word.is_valid() || word.is_static() {
                continue;
            }
            if self.entries.seconds_since(slot, now) >= ageing {
                expired.push(slot);
                if expired.len() == STEP {
                    removed += self.remove_expired(&mut expired, ageing, now);
                }
            } else {
                oldest = oldest.min(self.entries.seen[slot].load(Relaxed));
            }
        }
        if !expired.is_empty() {
            removed += self.remove_expired(&mut expired, ageing, now);
        }
        self.sweep_at.store(oldest.saturating_add(ageing), Relaxed);
        // If the ageing time was changed meanwhile, its own reset of the mark must not be lost.
        if self.ageing.load(Relaxed) != ageing {
            self.sweep_at.store(0, Relaxed);
        }
        removed
    }

    fn remove_expired(&self, expired: &mut Vec<usize>, ageing: u32, now: u32) -> usize {
        let (mut writer, mut removed) = (self.writer(), 0);
        for slot in expired.drain(..) {
            let word = self.table().load(slot);
            // It may have been refreshed, moved or replaced since.
            if word.is_valid() && !word.is_static() && self.entries.seconds_since(slot, now) >= ageing {
                writer.remove(slot, word);
                removed += 1;
            }
        }
        removed
    }

    /// Changes how many moves of a station between ports within a second are honest. With more it is held. 0: none is,
    /// and those that are held are let go within a moment.
    pub fn set_flap_limit(&self, moves: u32) {
        self.flap_limit.store(moves, Relaxed);
    }

    /// Lets stations move again that were held long enough. For one caller, about once a second.
    pub fn release(&self, now: u32) {
        let mut writer = self.writer();
        let now = if self.flap_limit.load(Relaxed) == 0 { u32::MAX } else { now };
        for key in writer.lists.flaps.release(now) {
            writer.release(key);
        }
        if self.loop_ports.any() && writer.lists.flaps.held().next().is_none() {
            self.loop_ports.clear();
        }
    }

    /// Ports that what is flooded from a station must not go out of: it would come back by another one. `None` unless
    /// the station is held.
    #[inline]
    pub fn loop_ports(&self, mac: MacAddr, vid: Vid) -> Option<&LoopPorts> {
        if !self.loop_ports.any() {
            return None;
        }
        let (_, word) = self.table().find(key(mac, vid)?)?;
        word.is_held().then_some(&self.loop_ports)
    }

    /// Stations that are held now.
    pub fn held(&self) -> Vec<Held> {
        let writer = self.writer();
        let held = writer.lists.flaps.held().map(|flap| {
            let (mac, vid) = station(flap.key);
            Held { mac, vid, port: flap.first, other: flap.other }
        });
        held.collect()
    }

    /// How often a station was held.
    pub fn holds(&self) -> u64 {
        self.holds.load(Relaxed)
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
        let usable = mac.is_unicast() && vid <= MAX_VID && usize::from(port) < MAX_PORTS;
        let key = key(mac, vid).filter(|_| usable).ok_or(StaticError::Invalid)?;
        let mut writer = self.writer();
        if let Some((slot, word)) = self.table().find(key) {
            writer.replace(slot, word, word.with(port, true), 0);
            return Ok(());
        }
        if writer.insert(key, port, true, 0) { Ok(()) } else { Err(StaticError::Full) }
    }

    /// Removes an entry, learned or static. False if there is none.
    pub fn remove(&self, mac: MacAddr, vid: Vid) -> bool {
        let Some(key) = key(mac, vid) else { return false };
        let mut writer = self.writer();
        let found = self.table().find(key);
        if let Some((slot, word)) = found {
            writer.remove(slot, word);
        }
        found.is_some()
    }

    /// Removes all entries of a port, static ones too. Returns how many. To be called when workers no longer let the
    /// port learn.
    pub fn flush_port(&self, port: PortNo) -> usize {
        self.writer().lists.flaps.forget(port);
        self.flush(port, false) + self.flush(port, true)
    }

    /// Removes the learned entries of a port, or of all. Returns how many.
    pub fn flush_learned(&self, port: Option<PortNo>) -> usize {
        match port {
            Some(port) => self.flush(port, false),
            None => (0..=PortNo::MAX).take(MAX_PORTS).map(|port| self.flush(port, false)).sum(),
        }
    }

    fn flush(&self, port: PortNo, is_static: bool) -> usize {
        if usize::from(port) >= MAX_PORTS {
            return 0;
        }
        let mut removed = 0;
        loop {
            let mut writer = self.writer();
            for _ in 0..STEP {
                if !writer.remove_first(port, is_static) {
                    return removed;
                }
                removed += 1;
            }
        }
    }

    /// Every entry, in no order. Takes no lock: each row is right. Entries that come and go meanwhile may be in it or
    /// not.
    pub fn entries(&self, now: u32) -> Vec<Row> {
        let slots = (0..self.table().slots()).map(|slot| (slot, self.table().load(slot)));
        let rows = slots.filter(|(_, word)| word.is_valid()).map(|(slot, word)| {
            let (mac, vid) = self.table().key_of(slot, word);
            let age = if word.is_static() { 0 } else { self.entries.seconds_since(slot, now) };
            Row { mac, vid, port: word.port(), is_static: word.is_static(), is_held: word.is_held(), age }
        });
        rows.collect()
    }

    /// Learned entries of a port.
    pub fn count(&self, port: PortNo) -> u32 {
        self.entries.learned.get(usize::from(port)).map_or(0, |count| count.load(Relaxed))
    }

    /// Entries in all, static ones too.
    pub fn len(&self) -> usize {
        self.entries.len.load(Relaxed) as usize
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most entries that there can be.
    pub fn limit(&self) -> u32 {
        self.entries.limit
    }
}
