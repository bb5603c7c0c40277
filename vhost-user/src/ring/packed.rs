//! Packed rings (virtio 1.2, 2.8): one ring of descriptors, which both sides write.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::area::Area;
use super::chain::{Buffer, Builder, ChainInfo};
use super::error::RingError;
use super::journal::Record;
use super::layout::{
    AVAIL, Descriptor, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, INDIRECT, Le32, NEXT, PackedDesc, USED, WRITE,
};
use super::log::RingLog;
use super::position::{Position, RingSetup};
use super::store::Store;
use super::table::Table;
use crate::memory::{Bounds, GuestMemory, Lookup, prefetch};

/// Bit of the wrap counter in a [`Position`] and in an event.
pub(super) const WRAP: u16 = 1 << 15;
/// An event that means nothing: the driver looks at it with [`EVENT_DESCRIPTOR`] only.
const ANY: u16 = 1;
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Descriptors that are asked for ahead: two cache lines.
const AHEAD: usize = 8;

/// A place in the ring, and the wrap counter there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    pub(super) fn of_raw(raw: u16) -> Self {
        Self { index: raw & !WRAP, wrap: raw & WRAP != 0 }
    }

    fn raw(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    /// The place so many descriptors on, at most a whole ring.
    #[inline(always)]
    fn after(self, count: u16, size: u16) -> Self {
        // Both are at most 2¹⁵, so the sum fits.
        let index = self.index + count;
        if index >= size { Self { index: index - size, wrap: !self.wrap } } else { Self { index, ..self } }
    }

    /// Flags of a used descriptor here.
    #[inline(always)]
    fn used_flags(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }
}

/// The device's side of a packed ring.
#[derive(Debug)]
pub(super) struct PackedRing {
    ring: Area<Descriptor>,
    /// When the driver wants to be called: an offset with a wrap counter, and flags.
    driver_event: Area<Le32>,
    /// When the device wants to be kicked.
    device_event: Area<Le32>,
    size: u16,
    /// Next descriptor to take.
    next_available: Place,
    /// Next descriptor to use.
    next_used: Place,
    /// Descriptors that were taken and not used.
    outstanding: u16,
    /// The first used descriptor that is not published yet: its place, and its second word. The others are in memory
    /// already. The driver sees none of them before this one.
    first: Option<(u16, u64)>,
    /// Descriptors used since it was last decided whether to call the driver. None if it never was.
    since_call: Option<u32>,
    /// Descriptors ahead that somebody else has used: the first place, and that behind them.
    passed_over: Option<(Place, Place)>,
    event_idx: bool,
    indirect: bool,
    in_order: bool,
    chain_limit: u16,
}

impl PackedRing {
    pub(super) fn new(memory: &Arc<GuestMemory>, setup: &RingSetup, position: Position) -> Result<Self, RingError> {
        let (size, features) = (setup.checked_size()?, setup.features);
        let (available, used) = (Place::of_raw(position.available), Place::of_raw(position.used));
        let outstanding = if available.wrap == used.wrap {
            available.index.checked_sub(used.index)
        } else {
            (size + available.index).checked_sub(used.index).filter(|outstanding| *outstanding <= size)
        };
        let outstanding = outstanding.filter(|_| available.index < size && used.index < size);
        let event = |part, user| Area::new(memory, part, user, 1, 4);
        Ok(Self {
            ring: Area::new(memory, "descriptor ring", setup.descriptors, size.into(), 16)?,
            driver_event: event("driver's event suppression", setup.available)?,
            device_event: event("device's event suppression", setup.used)?,
            size,
            next_available: available,
            next_used: used,
            outstanding: outstanding.ok_or(RingError::Position { position, size })?,
            first: None,
            since_call: None,
            passed_over: None,
            event_idx: features.event_idx,
            indirect: features.indirect,
            in_order: features.in_order,
            chain_limit: setup.chain_limit,
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn position(&self) -> Position {
        Position { available: self.next_available.raw(), used: self.next_used.raw() }
    }

    /// The descriptor at an index. None if it is not available to a device whose wrap counter there is this.
    #[inline(always)]
    fn available_at(&self, place: Place) -> Option<PackedDesc> {
        available_at(&self.ring, place)
    }

    /// Has the descriptors passed over that the record says somebody else has used.
    pub(super) fn follow(&mut self, record: &Record) {
        let place = |raw| Place::of_raw(raw);
        self.passed_over = record.passed_over().map(|(first, behind)| (place(first), place(behind)));
    }

    /// Passes descriptors over that somebody else has used, if the ring has come to them.
    #[inline]
    pub(super) fn pass_over(&mut self, record: Option<&Record>) {
        if let Some((first, behind)) = self.passed_over
            && first == self.next_available
            && first == self.next_used
        {
            (self.next_available, self.next_used, self.passed_over) = (behind, behind, None);
            if let Some(record) = record {
                record.pass(behind.raw());
            }
        }
    }

    /// Whether there is something to take.
    #[inline]
    pub(super) fn has_available(&self) -> bool {
        self.available_at(self.next_available).is_some()
    }

    /// Looks at up to `most` chains, oldest first, without taking them. It stops early when the store has
    /// `enough` slices.
    #[inline]
    pub(super) fn peek<'a>(
        &mut self,
        lookup: &mut Lookup<'a>,
        store: &mut Store<'a>,
        most: u16,
        enough: usize,
    ) -> Result<(), RingError> {
        let (mut at, mut outstanding) = (self.next_available, self.outstanding);
        let most = usize::from(most.min(self.size));
        loop {
            // Most chains are of this kind. So they have a loop of their own. It never goes round the ring: the first
            // descriptor that was taken and not used ends it.
            let (bounds, room) = (lookup.bounds(), usize::from(self.size - outstanding));
            let before = store.chains.len();
            store.extend(room.min(most - before), || {
                let chain = self.simple_chain(bounds, at)?;
                at = at.after(1, self.size);
                Some(chain)
            });
            #[expect(clippy::cast_possible_truncation, reason = "at most `room`")]
            let simple = (store.chains.len() - before) as u16;
            outstanding += simple;
            if store.chains.len() >= most || store.slices.len() >= enough {
                return Ok(());
            }
            let Some(desc) = self.available_at(at) else { return Ok(()) };
            let descriptors = self.chain(lookup, store, at, desc)?;
            // Else descriptors that were taken would be taken again.
            let available = u32::from(outstanding) + u32::from(descriptors);
            outstanding = u16::try_from(available)
                .ok()
                .filter(|all| *all <= self.size)
                .ok_or(RingError::TooManyAvailable { available, size: self.size })?;
            at = at.after(descriptors, self.size);
        }
    }

    /// A chain that is available at a place, and a single buffer in this region. None if there is no such one.
    #[inline(always)]
    fn simple_chain<'a>(&self, bounds: Bounds<'a>, at: Place) -> Option<ChainInfo<'a>> {
        if let Some(ahead) = self.ring.entries().get(usize::from(at.index) + AHEAD) {
            prefetch(ahead);
        }
        let desc = self.available_at(at).filter(|desc| desc.flags & (NEXT | INDIRECT) == 0)?;
        let (slice, writable) = (bounds.slice(desc.addr, desc.len)?, desc.flags & WRITE != 0);
        slice.prefetch_start(writable);
        Some(ChainInfo::single(slice, desc.len, writable, desc.id))
    }

    /// Opens the chain whose first descriptor is `desc`, at `at`. Returns the number of its descriptors.
    fn chain<'a>(
        &self,
        lookup: &mut Lookup<'a>,
        store: &mut Store<'a>,
        mut at: Place,
        mut desc: PackedDesc,
    ) -> Result<u16, RingError> {
        let mut builder = Builder::new(lookup, store, self.chain_limit);
        let (mut descriptors, ring) = (1, self.ring.entries());
        if desc.flags & INDIRECT != 0 {
            // A table is the only descriptor of its chain.
            if !self.indirect || desc.flags & NEXT != 0 {
                return Err(RingError::Indirect);
            }
            add_table(&mut builder, desc)?;
        } else {
            builder.add(Buffer { addr: desc.addr, len: desc.len, writable: desc.flags & WRITE != 0 })?;
            while desc.flags & NEXT != 0 {
                if descriptors >= self.size {
                    return Err(RingError::TooLong { limit: self.size });
                }
                at = at.after(1, self.size);
                let error = RingError::Index { index: at.index, count: ring.len() };
                desc = PackedDesc::load(ring.get(usize::from(at.index)).ok_or(error)?);
                // The first descriptor became available after all others. So they need no look at these flags.
                if desc.flags & INDIRECT != 0 {
                    return Err(RingError::Indirect);
                }
                builder.add(Buffer { addr: desc.addr, len: desc.len, writable: desc.flags & WRITE != 0 })?;
                descriptors += 1;
            }
        }
        // The id is in the last descriptor.
        builder.finish(desc.id, descriptors);
        Ok(descriptors)
    }

    /// Copies of the next descriptors.
    pub(super) fn next_descriptors(&self, count: u16) -> impl Iterator<Item = PackedDesc> {
        let places = (0..count).map(|n| self.next_available.after(n, self.size).index);
        places.filter_map(|index| self.ring.entries().get(usize::from(index)).map(PackedDesc::load))
    }

    /// Opens a chain by copies of its descriptors.
    pub(super) fn open<'a>(
        &self,
        lookup: &mut Lookup<'a>,
        store: &mut Store<'a>,
        descriptors: &[PackedDesc],
    ) -> Result<(), RingError> {
        let mut builder = Builder::new(lookup, store, self.chain_limit);
        for desc in descriptors {
            if desc.flags & INDIRECT == 0 {
                builder.add(Buffer { addr: desc.addr, len: desc.len, writable: desc.flags & WRITE != 0 })?;
            } else if self.indirect && descriptors.len() == 1 {
                add_table(&mut builder, *desc)?;
            } else {
                return Err(RingError::Indirect);
            }
        }
        let id = descriptors.last().map_or(0, |last| last.id);
        builder.finish(id, u16::try_from(descriptors.len()).unwrap_or(u16::MAX));
        Ok(())
    }

    /// Whether the descriptor at a place, as in a [`Position`], is available.
    pub(super) fn is_available_at(&self, place: u16) -> bool {
        self.available_at(Place::of_raw(place)).is_some()
    }

    /// Makes descriptors that were taken look available again. A device that died may have marked some as used without
    /// publishing them. The driver would come to them one day.
    pub(super) fn forget_used(&self) {
        let mut at = self.next_used;
        for _ in 0..self.outstanding {
            if let Some(desc) = self.ring.entries().get(usize::from(at.index)) {
                let flags = if at.wrap { AVAIL } else { USED };
                desc.rest.store(PackedDesc { flags, ..PackedDesc::load(desc) }.rest(), Ordering::Relaxed);
            }
            at = at.after(1, self.size);
        }
    }

    /// Takes the chains that were looked at first.
    #[inline]
    pub(super) fn take(&mut self, chains: &[ChainInfo<'_>]) {
        // Both sums are at most the ring's size, which the look has made sure of.
        let descriptors = chains.iter().map(|chain| chain.descriptors).sum();
        self.next_available = self.next_available.after(descriptors, self.size);
        self.outstanding += descriptors;
    }

    /// Whether one descriptor stands for all these chains: the driver learns nothing more by others.
    #[inline(always)]
    fn is_one_for_all(&self, chains: &[ChainInfo<'_>]) -> bool {
        self.in_order && chains.iter().all(|chain| chain.written == 0)
    }

    /// Notes what is going to be used, before the driver can see any of it. Nothing must be unpublished.
    #[inline]
    pub(super) fn note(&self, record: &Record, chains: &[ChainInfo<'_>]) {
        let Some(last) = chains.last() else { return };
        let before = self.next_used;
        let descriptors = chains.iter().map(|chain| chain.descriptors).sum();
        let behind = before.after(descriptors, self.size).raw();
        if self.is_one_for_all(chains) {
            let entry = (before.index, used_word(before, last));
            return record.note(before.raw(), behind, std::iter::once(entry));
        }
        let mut place = before;
        let entries = chains.iter().map(|chain| {
            let entry = (place.index, used_word(place, chain));
            place = place.after(chain.descriptors, self.size);
            entry
        });
        record.note(before.raw(), behind, entries);
    }

    /// Uses chains in this order. The driver sees it after [`PackedRing::publish`].
    #[inline]
    pub(super) fn put_used(&mut self, chains: &[ChainInfo<'_>]) {
        let [first, rest @ ..] = chains else { return };
        let mut place = self.next_used;
        if let Some(last) = rest.last()
            && self.is_one_for_all(chains)
        {
            // One descriptor stands for all, in the place of the first, with the id of the last.
            self.put_first(place, last);
            let descriptors = chains.iter().map(|chain| chain.descriptors).sum();
            place = place.after(descriptors, self.size);
        } else {
            self.put_first(place, first);
            place = place.after(first.descriptors, self.size);
            for chain in rest {
                if let Some(desc) = self.ring.entries().get(usize::from(place.index)) {
                    desc.rest.store(used_word(place, chain), Ordering::Relaxed);
                }
                place = place.after(chain.descriptors, self.size);
            }
        }
        let descriptors = self.distance(self.next_used, place);
        self.next_used = place;
        self.outstanding = self.outstanding.saturating_sub(descriptors);
        self.since_call = self.since_call.map(|count| count.saturating_add(descriptors.into()));
    }

    /// Descriptors from a place to another, which comes at most a ring later.
    fn distance(&self, from: Place, to: Place) -> u16 {
        let round = if from.wrap == to.wrap { 0 } else { self.size };
        (to.index + round).wrapping_sub(from.index)
    }

    /// Uses the first chain of several.
    #[inline(always)]
    fn put_first(&mut self, place: Place, chain: &ChainInfo<'_>) {
        let word = used_word(place, chain);
        match self.first {
            None => self.first = Some((place.index, word)),
            Some(_) => {
                if let Some(desc) = self.ring.entries().get(usize::from(place.index)) {
                    desc.rest.store(word, Ordering::Relaxed);
                }
            }
        }
    }

    /// Shows the driver what was used.
    #[inline]
    pub(super) fn publish(&mut self, log: Option<&RingLog>) {
        let Some((index, rest)) = self.first.take() else { return };
        if let Some(log) = log {
            self.log_used(log, index);
        }
        if let Some(desc) = self.ring.entries().get(usize::from(index)) {
            // The driver sees all that was written before.
            desc.rest.store(rest, Ordering::Release);
        }
    }

    /// Logs the descriptors from this one on to the last used one.
    #[cold]
    fn log_used(&self, log: &RingLog, first: u16) {
        let mut index = first;
        for _ in 0..self.size {
            log.mark_ring(self.ring.guest() + u64::from(index) * DESCRIPTOR, DESCRIPTOR);
            index = if index + 1 == self.size { 0 } else { index + 1 };
            if index == self.next_used.index {
                return;
            }
        }
    }

    /// Whether the driver wants a call for what was published since this was last asked.
    #[inline]
    pub(super) fn needs_call(&mut self) -> bool {
        // The descriptors are in memory before the driver's wish is read. The driver does it the other way round.
        fence(Ordering::SeqCst);
        let count = self.since_call.replace(0);
        let (event, flags) = halves(self.driver_event.wrapped(0).load(Ordering::Relaxed));
        match flags & 3 {
            EVENT_DISABLE => false,
            EVENT_DESCRIPTOR if self.event_idx => {
                let Some(count) = count else { return true };
                let event = Place::of_raw(event);
                let now = i32::from(self.next_used.index);
                // With another wrap counter, the event is of the round before.
                let round = if event.wrap == self.next_used.wrap { 0 } else { i32::from(self.size) };
                let behind = now - (i32::from(event.index) - round);
                u32::try_from(behind).is_ok_and(|behind| behind > 0 && behind <= count)
            }
            _ => count != Some(0),
        }
    }

    /// Asks the driver to kick for the next chain. Returns whether there is one already.
    pub(super) fn enable_kicks(&mut self, log: Option<&RingLog>) -> bool {
        let (event, flags) =
            if self.event_idx { (self.next_available.raw(), EVENT_DESCRIPTOR) } else { (ANY, EVENT_ENABLE) };
        self.write_event(event, flags, log);
        // The wish is in memory before the ring is read again. The driver does it the other way round.
        fence(Ordering::SeqCst);
        self.has_available()
    }

    /// Asks the driver not to kick. It is a hint.
    pub(super) fn disable_kicks(&mut self, log: Option<&RingLog>) {
        self.write_event(0, EVENT_DISABLE, log);
    }

    /// The wish is never all zeroes, as in a ring that the driver has made anew ([`Record::resume`]).
    fn write_event(&self, event: u16, flags: u16, log: Option<&RingLog>) {
        self.device_event.wrapped(0).store(u32::from(event) | u32::from(flags) << 16, Ordering::Relaxed);
        if let Some(log) = log {
            log.mark_used(0, 4);
        }
    }
}

/// The descriptor at a place of a ring. None if it is not available to a device that has come there.
#[inline(always)]
pub(super) fn available_at(ring: &Area<Descriptor>, place: Place) -> Option<PackedDesc> {
    let desc = PackedDesc::load(ring.entries().get(usize::from(place.index))?);
    let wanted = if place.wrap { AVAIL } else { USED };
    (desc.flags & (AVAIL | USED) == wanted).then_some(desc)
}

/// Second word of a used descriptor.
#[inline(always)]
fn used_word(place: Place, chain: &ChainInfo<'_>) -> u64 {
    let flags = place.used_flags() | if chain.written > 0 { WRITE } else { 0 };
    PackedDesc { addr: 0, len: chain.written, id: chain.id, flags }.rest()
}

/// Adds the buffers of an indirect table: all its entries, in order.
fn add_table(builder: &mut Builder<'_, '_>, desc: PackedDesc) -> Result<(), RingError> {
    let table = Table::new(builder.lookup, desc.addr, desc.len)?;
    for index in 0.. {
        let Some(bytes) = table.get(index) else { break };
        let entry = PackedDesc::of_bytes(bytes);
        // Other flags mean nothing here.
        if entry.flags & INDIRECT != 0 {
            return Err(RingError::Indirect);
        }
        builder.add(Buffer { addr: entry.addr, len: entry.len, writable: entry.flags & WRITE != 0 })?;
    }
    Ok(())
}

/// Lower and upper half of a word.
fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}
