//! Split rings (virtio 1.2, 2.7): a table of descriptors, a ring of available chains, and a ring of used ones.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::area::Area;
use super::chain::{Buffer, Builder, ChainInfo};
use super::error::RingError;
use super::layout::{Descriptor, INDIRECT, Le16, NEXT, SUPPRESS, SplitDesc, UsedElement, WRITE};
use super::log::RingLog;
use super::position::{Position, RingSetup, USED_RING};
use super::store::Store;
use super::table::Table;
use crate::memory::{Bounds, GuestMemory, Lookup, prefetch};

/// Entries whose descriptors are asked for before the first of them is looked at.
const AHEAD: usize = 32;
/// Entry of the rings' first words: flags, index.
const FLAGS: u16 = 0;
const INDEX: u16 = 1;
/// Bytes of these two words.
const HEAD: u64 = 4;

/// The device's side of a split ring.
#[derive(Debug)]
pub(super) struct SplitRing {
    descriptors: Area<Descriptor>,
    /// Flags and index of the available ring.
    available_head: Area<Le16>,
    available: Area<Le16>,
    /// What the driver writes behind the available ring: the used entry that it wants to be called for.
    used_event: Option<Area<Le16>>,
    /// Flags and index of the used ring.
    used_head: Area<Le16>,
    used: Area<UsedElement>,
    /// What the device writes behind the used ring: the available entry that it wants to be kicked for.
    available_event: Option<Area<Le16>>,
    size: u16,
    /// Next entry to take.
    next_available: u16,
    /// The driver's index as last read.
    seen_available: u16,
    /// Next entry to use. It is ahead of the index in memory by the entries not published yet.
    next_used: u16,
    /// The used index when it was last decided whether to call the driver. None if never.
    called_at: Option<u16>,
    indirect: bool,
    in_order: bool,
    chain_limit: u16,
}

impl SplitRing {
    pub(super) fn new(memory: &Arc<GuestMemory>, setup: &RingSetup, position: Position) -> Result<Self, RingError> {
        let size = setup.checked_size()?;
        let (count, features) = (usize::from(size), setup.features);
        let available = |user: u64, count, align| Area::new(memory, "available ring", user, count, align);
        let used = |user: u64, count, align| Area::new(memory, USED_RING, user, count, align);
        let behind = |start: u64, bytes: u64| start.saturating_add(bytes);
        let events = features.event_idx;
        let used_event = behind(setup.available, HEAD + 2 * u64::from(size));
        let available_event = behind(setup.used, HEAD + 8 * u64::from(size));
        let outstanding = position.available.wrapping_sub(position.used);
        if outstanding > size {
            return Err(RingError::Position { position, size });
        }
        Ok(Self {
            descriptors: Area::new(memory, "descriptor table", setup.descriptors, count, 16)?,
            available_head: available(setup.available, 2, 2)?,
            available: available(behind(setup.available, HEAD), count, 2)?,
            used_event: events.then(|| available(used_event, 1, 2)).transpose()?,
            used_head: used(setup.used, 2, 4)?,
            used: Area::new(memory, USED_RING, behind(setup.used, HEAD), count, 4)?,
            available_event: events.then(|| used(available_event, 1, 2)).transpose()?,
            size,
            next_available: position.available,
            seen_available: position.available,
            next_used: position.used,
            called_at: None,
            indirect: features.indirect,
            in_order: features.in_order,
            chain_limit: setup.chain_limit,
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn position(&self) -> Position {
        Position { available: self.next_available, used: self.next_used }
    }

    /// Entries that can be taken, of which at most `most` matter.
    #[inline]
    fn count(&mut self, most: u16) -> Result<u16, RingError> {
        let known = self.seen_available.wrapping_sub(self.next_available);
        if known >= most {
            return Ok(most);
        }
        // All that the driver wrote before its index is seen.
        let index = self.available_head.wrapped(INDEX).load(Ordering::Acquire);
        let outstanding = index.wrapping_sub(self.next_used);
        if outstanding > self.size || outstanding < self.next_available.wrapping_sub(self.next_used) {
            return Err(RingError::TooManyAvailable { available: outstanding.into(), size: self.size });
        }
        self.seen_available = index;
        Ok(index.wrapping_sub(self.next_available).min(most))
    }

    /// Whether there is something to take.
    #[inline]
    pub(super) fn has_available(&mut self) -> Result<bool, RingError> {
        Ok(self.count(1)? > 0)
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
        let (mut left, mut next) = (self.count(most)?, self.next_available);
        let mut heads = [0; AHEAD];
        while left > 0 {
            let count = usize::from(left).min(AHEAD);
            for head in &mut heads[..count] {
                *head = self.available.wrapped(next).load(Ordering::Relaxed);
                next = next.wrapping_add(1);
                left -= 1;
                // The mask keeps a wrong index in the table. It is found below.
                prefetch(self.descriptors.wrapped(*head));
            }
            let mut some = heads[..count].iter();
            loop {
                // Most chains are of this kind. So they have a loop of their own.
                let bounds = lookup.bounds();
                store.extend(some.len(), || {
                    let head = *some.as_slice().first()?;
                    let chain = self.simple_chain(bounds, head)?;
                    some.next();
                    Some(chain)
                });
                let Some(head) = some.next() else { break };
                if store.slices.len() >= enough {
                    return Ok(());
                }
                self.open(lookup, store, *head)?;
            }
        }
        Ok(())
    }

    /// A chain that is a single buffer in this region. None if it is not.
    #[inline(always)]
    fn simple_chain<'a>(&self, bounds: Bounds<'a>, head: u16) -> Option<ChainInfo<'a>> {
        let desc = SplitDesc::load(self.descriptors.entries().get(usize::from(head))?);
        if desc.flags & (NEXT | INDIRECT) != 0 {
            return None;
        }
        let (slice, writable) = (bounds.slice(desc.addr, desc.len)?, desc.flags & WRITE != 0);
        slice.prefetch_start(writable);
        Some(ChainInfo::single(slice, desc.len, writable, head))
    }

    /// Opens the chain that begins with a descriptor, whether it is available or not.
    pub(super) fn open<'a>(&self, lookup: &mut Lookup<'a>, store: &mut Store<'a>, head: u16) -> Result<(), RingError> {
        let table = self.descriptors.entries();
        let error = |index| RingError::Index { index, count: table.len() };
        let mut desc = SplitDesc::load(table.get(usize::from(head)).ok_or(error(head))?);
        let mut builder = Builder::new(lookup, store, self.chain_limit);
        // Each turn adds a slice, and their number is limited. So this ends, whatever the table says, and however it
        // changes.
        loop {
            if desc.flags & INDIRECT != 0 {
                // No descriptor may follow. The write flag means nothing here.
                if !self.indirect || desc.flags & NEXT != 0 {
                    return Err(RingError::Indirect);
                }
                add_table(&mut builder, desc)?;
                break;
            }
            builder.add(Buffer { addr: desc.addr, len: desc.len, writable: desc.flags & WRITE != 0 })?;
            if desc.flags & NEXT == 0 {
                break;
            }
            desc = SplitDesc::load(table.get(usize::from(desc.next)).ok_or(error(desc.next))?);
        }
        builder.finish(head, 1);
        Ok(())
    }

    /// Takes the chains that were looked at first.
    #[inline]
    pub(super) fn take(&mut self, chains: &[ChainInfo<'_>]) {
        #[expect(clippy::cast_possible_truncation, reason = "at most as many as were available")]
        let count = chains.len() as u16;
        self.next_available = self.next_available.wrapping_add(count);
    }

    /// Uses chains in this order. The driver sees it after [`SplitRing::publish`].
    #[inline]
    pub(super) fn put_used(&mut self, chains: &[ChainInfo<'_>]) {
        if self.in_order
            && let Some(last) = chains.last()
            && chains.iter().all(|chain| chain.written == 0)
        {
            // One entry stands for all, in the place of the first, with the id of the last.
            self.write_used(last);
            #[expect(clippy::cast_possible_truncation, reason = "at most as many as were available")]
            let others = chains.len() as u16 - 1;
            self.next_used = self.next_used.wrapping_add(others);
            return;
        }
        for chain in chains {
            self.write_used(chain);
        }
    }

    #[inline(always)]
    fn write_used(&mut self, chain: &ChainInfo<'_>) {
        let element = self.used.wrapped(self.next_used);
        element.id.store(chain.id.into(), Ordering::Relaxed);
        element.len.store(chain.written, Ordering::Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows the driver what was used.
    #[inline]
    pub(super) fn publish(&mut self, log: Option<&RingLog>) {
        if let Some(log) = log {
            self.log_used(log);
        }
        // The driver sees all that was written before.
        self.used_head.wrapped(INDEX).store(self.next_used, Ordering::Release);
    }

    /// Logs the entries that are not published yet, and the index.
    #[cold]
    fn log_used(&self, log: &RingLog) {
        let mut index = self.used_head.wrapped(INDEX).load(Ordering::Relaxed);
        // The index in memory is the guest's to change, so the number of turns is limited.
        for _ in 0..self.size.min(self.next_used.wrapping_sub(index)) {
            log.mark_used(HEAD + 8 * u64::from(index & (self.size - 1)), 8);
            index = index.wrapping_add(1);
        }
        log.mark_used(0, HEAD);
    }

    /// Whether the driver wants a call for what was published since this was last asked.
    #[inline]
    pub(super) fn needs_call(&mut self) -> bool {
        // The index is in memory before the driver's wish is read. The driver does it the other way round.
        fence(Ordering::SeqCst);
        let before = self.called_at.replace(self.next_used);
        let Some(event) = &self.used_event else {
            return before != Some(self.next_used)
                && self.available_head.wrapped(FLAGS).load(Ordering::Relaxed) & SUPPRESS == 0;
        };
        let event = event.wrapped(0).load(Ordering::Relaxed);
        before.is_none_or(|before| is_passed(event, before, self.next_used))
    }

    /// Asks the driver to kick for the next chain. Returns whether there is one already.
    pub(super) fn enable_kicks(&mut self, log: Option<&RingLog>) -> Result<bool, RingError> {
        match &self.available_event {
            Some(event) => event.wrapped(0).store(self.next_available, Ordering::Relaxed),
            None => self.used_head.wrapped(FLAGS).store(0, Ordering::Relaxed),
        }
        self.log_event(log);
        // The wish is in memory before the index is read again. The driver does it the other way round.
        fence(Ordering::SeqCst);
        self.seen_available = self.next_available;
        self.has_available()
    }

    /// Asks the driver not to kick. It is a hint.
    pub(super) fn disable_kicks(&mut self, log: Option<&RingLog>) {
        // With the event index, the last wish stays behind and is not met again for a while.
        if self.available_event.is_none() {
            self.used_head.wrapped(FLAGS).store(SUPPRESS, Ordering::Relaxed);
            self.log_event(log);
        }
    }

    fn log_event(&self, log: Option<&RingLog>) {
        if let Some(log) = log {
            let behind = HEAD + 8 * u64::from(self.size);
            if self.available_event.is_some() { log.mark_used(behind, 2) } else { log.mark_used(0, 2) }
        }
    }
}

/// Adds the buffers of an indirect table.
fn add_table(builder: &mut Builder<'_, '_>, desc: SplitDesc) -> Result<(), RingError> {
    let table = Table::new(builder.lookup, desc.addr, desc.len)?;
    let mut index = 0;
    loop {
        let bytes = table.get(index).ok_or(RingError::Index { index, count: table.len() })?;
        let entry = SplitDesc::of_bytes(bytes);
        if entry.flags & INDIRECT != 0 {
            return Err(RingError::Indirect);
        }
        builder.add(Buffer { addr: entry.addr, len: entry.len, writable: entry.flags & WRITE != 0 })?;
        if entry.flags & NEXT == 0 {
            return Ok(());
        }
        index = entry.next;
    }
}

/// Whether an index that went from `before` to `now` has passed `event`, that is used the entry of that number.
fn is_passed(event: u16, before: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}
