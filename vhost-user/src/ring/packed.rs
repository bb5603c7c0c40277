//! Packed rings (virtio 1.2, 2.8): one ring of descriptors, which both sides write.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::area::Area;
use super::chain::{Buffer, ChainInfo};
use super::error::RingError;
use super::layout::{
    AVAIL, Descriptor, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, INDIRECT, Le32, NEXT, PackedDesc, USED, WRITE,
};
use super::log::RingLog;
use super::position::{Position, RingSetup};
use super::table::Table;
use crate::memory::{GuestMemory, GuestSlice, Lookup, prefetch};

/// Bit of the wrap counter in a [`Position`] and in an event.
const WRAP: u16 = 1 << 15;
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Descriptors that are asked for ahead: two cache lines.
const AHEAD: usize = 8;

/// A place in the ring, and the wrap counter there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    fn of_raw(raw: u16) -> Self {
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
        let desc = PackedDesc::load(self.ring.entries().get(usize::from(place.index))?);
        let wanted = if place.wrap { AVAIL } else { USED };
        (desc.flags & (AVAIL | USED) == wanted).then_some(desc)
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
        chains: &mut Vec<ChainInfo>,
        slices: &mut Vec<GuestSlice<'a>>,
        most: u16,
        enough: usize,
    ) -> Result<(), RingError> {
        let (mut place, mut outstanding) = (self.next_available, u32::from(self.outstanding));
        for _ in 0..most {
            if slices.len() >= enough {
                break;
            }
            if usize::from(place.index).is_multiple_of(AHEAD / 2)
                && let Some(ahead) = self.ring.entries().get(usize::from(place.index) + AHEAD)
            {
                prefetch(ahead);
            }
            let Some(desc) = self.available_at(place) else { break };
            let chain = self.chain(lookup, slices, place, desc)?;
            // Else descriptors that were taken would be taken again.
            outstanding += u32::from(chain.descriptors);
            if outstanding > self.size.into() {
                return Err(RingError::TooManyAvailable { available: outstanding, size: self.size });
            }
            place = place.after(chain.descriptors, self.size);
            chains.push(chain);
        }
        Ok(())
    }

    /// The chain that begins with an available descriptor.
    #[inline(always)]
    fn chain<'a>(
        &self,
        lookup: &mut Lookup<'a>,
        slices: &mut Vec<GuestSlice<'a>>,
        place: Place,
        desc: PackedDesc,
    ) -> Result<ChainInfo, RingError> {
        if desc.flags & (NEXT | INDIRECT) == 0
            && let Some(slice) = lookup.find(desc.addr, desc.len)
        {
            slice.prefetch_start();
            slices.push(slice);
            return Ok(ChainInfo::single(slices.len() - 1, desc.id, desc.len, desc.flags & WRITE != 0));
        }
        self.long_chain(lookup, slices, place, desc)
    }

    /// The same for a chain that is not a single buffer in a single region.
    #[cold]
    fn long_chain<'a>(
        &self,
        lookup: &mut Lookup<'a>,
        slices: &mut Vec<GuestSlice<'a>>,
        place: Place,
        mut desc: PackedDesc,
    ) -> Result<ChainInfo, RingError> {
        let (mut info, ring) = (ChainInfo::new(slices.len(), desc.id), self.ring.entries());
        let limit = self.chain_limit;
        if desc.flags & INDIRECT != 0 {
            // A table is the only descriptor of its chain.
            if !self.indirect || desc.flags & NEXT != 0 {
                return Err(RingError::Indirect);
            }
            self.indirect(lookup, slices, &mut info, desc)?;
        } else {
            info.descriptors = 0;
            let mut at = place;
            loop {
                let buffer = Buffer { addr: desc.addr, len: desc.len, writable: desc.flags & WRITE != 0 };
                info.add(lookup, slices, buffer, limit)?;
                info.descriptors += 1;
                if desc.flags & NEXT == 0 {
                    break;
                }
                if info.descriptors >= self.size {
                    return Err(RingError::TooLong { limit: self.size });
                }
                at = at.after(1, self.size);
                let error = RingError::Index { index: at.index, count: ring.len() };
                desc = PackedDesc::load(ring.get(usize::from(at.index)).ok_or(error)?);
                // The first descriptor became available after all others. So they need no look at these flags.
                if desc.flags & INDIRECT != 0 {
                    return Err(RingError::Indirect);
                }
            }
            // The id is in the last descriptor.
            info.id = desc.id;
        }
        for slice in &slices[info.first as usize..] {
            slice.prefetch_start();
        }
        Ok(info)
    }

    fn indirect<'a>(
        &self,
        lookup: &mut Lookup<'a>,
        slices: &mut Vec<GuestSlice<'a>>,
        info: &mut ChainInfo,
        desc: PackedDesc,
    ) -> Result<(), RingError> {
        let table = Table::new(lookup, desc.addr, desc.len)?;
        // All entries are part of the chain, in order.
        for index in 0.. {
            let Some(bytes) = table.get(index) else { break };
            let entry = PackedDesc::of_bytes(bytes);
            // Other flags mean nothing here.
            if entry.flags & INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            let buffer = Buffer { addr: entry.addr, len: entry.len, writable: entry.flags & WRITE != 0 };
            info.add(lookup, slices, buffer, self.chain_limit)?;
        }
        Ok(())
    }

    /// Takes the chains that were looked at first.
    #[inline]
    pub(super) fn take(&mut self, chains: &[ChainInfo]) {
        for chain in chains {
            self.next_available = self.next_available.after(chain.descriptors, self.size);
            self.outstanding += chain.descriptors;
        }
    }

    /// Uses chains in this order. The driver sees it after [`PackedRing::publish`].
    #[inline]
    pub(super) fn put_used(&mut self, chains: &[ChainInfo]) {
        if self.in_order
            && let Some(last) = chains.last()
            && chains.iter().all(|chain| chain.written == 0)
        {
            // One descriptor stands for all, in the place of the first, with the id of the last.
            let descriptors = chains.iter().map(|chain| chain.descriptors).sum();
            self.write_used(last.id, 0, descriptors);
            return;
        }
        for chain in chains {
            self.write_used(chain.id, chain.written, chain.descriptors);
        }
    }

    #[inline(always)]
    fn write_used(&mut self, id: u16, written: u32, descriptors: u16) {
        let place = self.next_used;
        let flags = place.used_flags() | if written > 0 { WRITE } else { 0 };
        let rest = PackedDesc { addr: 0, len: written, id, flags }.rest();
        match self.first {
            None => self.first = Some((place.index, rest)),
            Some(_) => {
                if let Some(desc) = self.ring.entries().get(usize::from(place.index)) {
                    desc.rest.store(rest, Ordering::Relaxed);
                }
            }
        }
        self.next_used = place.after(descriptors, self.size);
        self.outstanding = self.outstanding.saturating_sub(descriptors);
        self.since_call = self.since_call.map(|count| count.saturating_add(descriptors.into()));
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
            if self.event_idx { (self.next_available.raw(), EVENT_DESCRIPTOR) } else { (0, EVENT_ENABLE) };
        self.write_event(event, flags, log);
        // The wish is in memory before the ring is read again. The driver does it the other way round.
        fence(Ordering::SeqCst);
        self.has_available()
    }

    /// Asks the driver not to kick. It is a hint.
    pub(super) fn disable_kicks(&mut self, log: Option<&RingLog>) {
        self.write_event(0, EVENT_DISABLE, log);
    }

    fn write_event(&self, event: u16, flags: u16, log: Option<&RingLog>) {
        self.device_event.wrapped(0).store(u32::from(event) | u32::from(flags) << 16, Ordering::Relaxed);
        if let Some(log) = log {
            log.mark_used(0, 4);
        }
    }
}

/// Lower and upper half of a word.
fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}
