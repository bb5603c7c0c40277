//! A virtqueue, of whatever kind.

use std::sync::Arc;

use super::burst::Burst;
use super::chain::ChainInfo;
use super::error::RingError;
use super::journal::{self, Record};
use super::layout::PackedDesc;
use super::log::RingLog;
use super::packed::PackedRing;
use super::position::{Position, RingFeatures, RingSetup};
use super::request::Request;
use super::split::SplitRing;
use super::store::{Scratch, Store};
use crate::memory::{GuestMemory, Lookup};

/// A burst takes no further chain when it has so many slices. So a guest with long chains costs a turn no more than
/// this and one chain.
const ENOUGH_SLICES: usize = 512;

/// The device's side of a virtqueue. One thread has it at a time.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<GuestMemory>,
    core: Core,
    setup: RingSetup,
}

/// All of a queue but the memory. So a burst can borrow slices from that, and change this.
#[derive(Debug)]
pub(super) struct Core {
    ring: Ring,
    pub(super) log: Option<RingLog>,
    /// Where the position is noted, if it is a packed ring that goes on after its device was killed.
    record: Option<Record>,
    /// Region of the last buffer.
    hint: usize,
}

#[derive(Debug)]
enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

/// Runs an expression with the ring of either kind. Each has code of its own, chosen once a burst.
macro_rules! with {
    ($ring:expr, $name:ident => $do:expr) => {
        match $ring {
            Ring::Split($name) => $do,
            Ring::Packed($name) => $do,
        }
    };
}

impl Core {
    /// Takes and uses chains that were looked at, oldest first.
    #[inline]
    pub(super) fn use_all(&mut self, chains: &[ChainInfo<'_>]) {
        let log = self.log.as_ref();
        if let (Ring::Packed(ring), Some(record)) = (&mut self.ring, &self.record) {
            for part in chains.chunks(journal::ENTRIES) {
                ring.note(record, part);
                ring.take(part);
                ring.put_used(part);
                ring.publish(log);
            }
            return;
        }
        with!(&mut self.ring, ring => {
            ring.take(chains);
            ring.put_used(chains);
            ring.publish(log);
        });
    }

    #[inline]
    fn pass_over(&mut self) {
        if let Ring::Packed(ring) = &mut self.ring {
            ring.pass_over(self.record.as_ref());
        }
    }

    #[inline]
    fn peek<'a>(&mut self, memory: &'a GuestMemory, store: &mut Store<'a>, most: u16) -> Result<(), RingError> {
        if memory.is_broken() {
            return Err(RingError::MemoryBroken);
        }
        self.pass_over();
        let mut lookup: Lookup<'a> = memory.lookup(self.hint);
        let peeked = with!(&mut self.ring, ring => ring.peek(&mut lookup, store, most, ENOUGH_SLICES));
        self.hint = lookup.hint();
        peeked
    }
}

impl Queue {
    /// A queue in this memory, which goes on at `position`. No driver is told anything yet.
    ///
    /// # Errors
    /// The ring is no ring, does not lie in the memory, or can't be at that position.
    pub fn new(memory: &Arc<GuestMemory>, setup: &RingSetup, position: Position) -> Result<Self, RingError> {
        let ring = match setup.features.packed {
            true => Ring::Packed(PackedRing::new(memory, setup, position)?),
            false => Ring::Split(SplitRing::new(memory, setup, position)?),
        };
        Ok(Self { memory: Arc::clone(memory), core: Core { ring, log: None, record: None, hint: 0 }, setup: *setup })
    }

    /// What it was made of.
    pub fn setup(&self) -> &RingSetup {
        &self.setup
    }

    /// What was negotiated about it.
    pub fn features(&self) -> RingFeatures {
        self.setup.features
    }

    /// The memory that it is in.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        with!(&self.core.ring, ring => ring.size())
    }

    /// Where it stands. Call it when nothing is taken, or what is taken is lost.
    pub fn position(&self) -> Position {
        with!(&self.core.ring, ring => ring.position())
    }

    /// Starts, changes or ends the logging of writes.
    pub fn set_log(&mut self, log: Option<RingLog>) {
        self.core.log = log;
    }

    /// Has the position of a packed ring noted from now on. Only for queues whose chains are used by
    /// [`Queue::burst`], because nothing may be in work in between.
    pub fn set_record(&mut self, record: Option<Record>) {
        if let (Ring::Packed(ring), Some(record)) = (&mut self.core.ring, &record) {
            ring.follow(record);
        }
        self.core.record = record;
    }

    /// The record, which gets nothing any more.
    pub fn take_record(&mut self) -> Option<Record> {
        self.core.record.take()
    }

    /// Looks at up to `most` chains. A burst may end early, so an empty one tells more than a short one.
    ///
    /// # Errors
    /// The guest has done something wrong, or its memory has lost pages. The queue is of no use any more.
    #[inline]
    pub fn burst<'a>(&'a mut self, scratch: &'a mut Scratch, most: usize) -> Result<Burst<'a>, RingError> {
        let Self { memory, core, .. } = self;
        let mut store = scratch.open();
        core.peek(memory, &mut store, u16::try_from(most).unwrap_or(u16::MAX))?;
        Ok(Burst { memory, core, store, done: 0 })
    }

    /// Shows the driver the first `count` chains of the last burst, which was held ([`Burst::hold`]). None of them was
    /// written to. `scratch` is that of the burst.
    ///
    /// # Errors
    /// As for [`Burst::finish`].
    #[inline]
    pub fn release(&mut self, scratch: &Scratch, count: usize) -> Result<usize, RingError> {
        let held = scratch.held(count);
        if !held.is_empty() {
            self.core.use_all(held);
        }
        if self.memory.is_broken() { Err(RingError::MemoryBroken) } else { Ok(held.len()) }
    }

    /// Whether a chain is available.
    ///
    /// # Errors
    /// The driver's index is wrong.
    #[inline]
    pub fn has_available(&mut self) -> Result<bool, RingError> {
        self.core.pass_over();
        match &mut self.core.ring {
            Ring::Split(ring) => ring.has_available(),
            Ring::Packed(ring) => Ok(ring.has_available()),
        }
    }

    /// Takes the next chain into `request`. False if none is available, or if `request` still has one.
    ///
    /// # Errors
    /// As for [`Queue::burst`].
    pub fn pop(&mut self, request: &mut Request) -> Result<bool, RingError> {
        let is_there = self.peek_one(request)?;
        if is_there {
            self.take_one(request);
        }
        Ok(is_there)
    }

    /// Looks at the next chain, without taking it. False as for [`Queue::pop`].
    pub(super) fn peek_one(&mut self, request: &mut Request) -> Result<bool, RingError> {
        if request.held.info().is_some() {
            return Ok(false);
        }
        let (memory, mut store) = request.held.open(&self.memory);
        self.core.peek(memory, &mut store, 1)?;
        Ok(!store.chains.is_empty())
    }

    /// Takes the chain that was looked at last.
    pub(super) fn take_one(&mut self, request: &Request) {
        with!(&mut self.core.ring, ring => ring.take(request.held.infos()));
    }

    /// Uses the chain of `request`, into which `written` bytes were written. The driver sees it after
    /// [`Queue::publish`]. Nothing happens if there is no chain.
    ///
    /// The request must be of this queue.
    pub fn complete(&mut self, request: &mut Request, written: u32) {
        let Some(info) = request.held.info() else { return };
        let mut used = [*info];
        used[0].written = written.min(info.writable_len);
        if let Some(log) = &self.core.log {
            log.mark_chains(&used, request.held.slices());
        }
        with!(&mut self.core.ring, ring => ring.put_used(&used));
        request.held.clear();
    }

    /// Shows the driver what was used. Ask [`Queue::needs_call`] next.
    pub fn publish(&mut self) {
        let log = self.core.log.as_ref();
        with!(&mut self.core.ring, ring => ring.publish(log));
    }

    /// Whether the driver wants a call for what was published since this was last asked. Ask once a burst.
    #[inline]
    pub fn needs_call(&mut self) -> bool {
        with!(&mut self.core.ring, ring => ring.needs_call())
    }

    /// Asks the driver to kick for the next chain. Returns whether there is one already: then don't sleep.
    ///
    /// # Errors
    /// The driver's index is wrong.
    pub fn enable_kicks(&mut self) -> Result<bool, RingError> {
        self.core.pass_over();
        let log = self.core.log.as_ref();
        match &mut self.core.ring {
            Ring::Split(ring) => ring.enable_kicks(log),
            Ring::Packed(ring) => Ok(ring.enable_kicks(log)),
        }
    }

    /// Asks the driver not to kick, because the ring is polled. It may kick all the same.
    pub fn disable_kicks(&mut self) {
        let log = self.core.log.as_ref();
        with!(&mut self.core.ring, ring => ring.disable_kicks(log));
    }

    // What follows is for queues whose requests outlive the device.

    /// Opens a chain of a split ring that an earlier device had taken, by the index of its first descriptor.
    pub(super) fn open_head(&mut self, request: &mut Request, head: u16) -> Result<(), RingError> {
        let (memory, mut store) = request.held.open(&self.memory);
        match &self.core.ring {
            Ring::Split(ring) => ring.open(&mut memory.lookup(self.core.hint), &mut store, head),
            Ring::Packed(_) => Err(RingError::InWork { id: head }),
        }
    }

    /// Opens a chain of a packed ring that an earlier device had taken, by copies of its descriptors.
    pub(super) fn open_descriptors(
        &mut self,
        request: &mut Request,
        descriptors: &[PackedDesc],
    ) -> Result<(), RingError> {
        let (memory, mut store) = request.held.open(&self.memory);
        match &self.core.ring {
            Ring::Packed(ring) => ring.open(&mut memory.lookup(self.core.hint), &mut store, descriptors),
            Ring::Split(_) => Err(RingError::InWork { id: 0 }),
        }
    }

    /// Copies the descriptors of the next chain, which was looked at last.
    pub(super) fn descriptors_of(&self, request: &Request, to: &mut Vec<PackedDesc>) {
        to.clear();
        if let (Ring::Packed(ring), Some(info)) = (&self.core.ring, request.held.info()) {
            to.extend(ring.next_descriptors(info.descriptors));
        }
    }

    /// Whether a packed ring has an available descriptor at a place, as in a [`Position`].
    pub(super) fn is_available_at(&self, place: u16) -> bool {
        matches!(&self.core.ring, Ring::Packed(ring) if ring.is_available_at(place))
    }

    /// Takes back the marks of used descriptors that an earlier device has not published.
    pub(super) fn forget_used(&self) {
        if let Ring::Packed(ring) = &self.core.ring {
            ring.forget_used();
        }
    }
}
