//! A queue whose requests outlive the device.

use std::collections::VecDeque;
use std::sync::Arc;

use super::InflightRegion;
use super::packed::{Kept, PackedPart};
use super::split::SplitPart;
use crate::memory::GuestMemory;
use crate::ring::error::RingError;
use crate::ring::layout::PackedDesc;
use crate::ring::log::RingLog;
use crate::ring::position::{Position, RingSetup};
use crate::ring::queue::Queue;
use crate::ring::request::Request;

/// Bit of the wrap counter in a [`Position`].
const WRAP: u16 = 1 << 15;

/// A queue for devices that use chains in any order, and may die while they work on some.
///
/// [`TrackedQueue::pop`] first gives the chains that the last device had taken and not used.
#[derive(Debug)]
pub struct TrackedQueue {
    pub(super) queue: Queue,
    pub(super) part: Part,
    /// Chains of the last device, oldest first.
    kept: VecDeque<Kept>,
    /// Descriptors of the chain that is being taken.
    taken: Vec<PackedDesc>,
}

#[derive(Debug)]
pub(super) enum Part {
    Split(SplitPart),
    Packed(PackedPart),
}

impl TrackedQueue {
    /// The queue number `index` of a region. It goes on where the region's last device was. If there was none, it goes
    /// on where the front end says (`base`).
    ///
    /// # Errors
    /// As for [`Queue::new`]. The region has no such queue, or one of another size or kind.
    pub fn new(
        memory: &Arc<GuestMemory>,
        setup: &RingSetup,
        region: &InflightRegion,
        index: u16,
        base: u32,
    ) -> Result<Self, RingError> {
        let size = setup.checked_size()?;
        let fits = size <= region.layout.ring_size && setup.features.packed == region.packed;
        let start = region.start(index).filter(|_| fits).ok_or(RingError::Inflight { index })?;
        let error = RingError::Inflight { index };
        let from_base = setup.position_of_base(memory, base)?;
        if region.packed {
            let mut part = PackedPart::open(&region.mapping, start, size).ok_or(error)?;
            if part.is_new() {
                part.begin((from_base.used & !WRAP, from_base.used & WRAP != 0));
                let queue = Queue::new(memory, setup, from_base)?;
                return Ok(Self { queue, part: Part::Packed(part), kept: VecDeque::new(), taken: Vec::new() });
            }
            let ring = Queue::new(memory, setup, Position::start(setup.features))?;
            let ((used, wrap), kept) = part.recover(|(at, wrap)| ring.is_available_at(raw(at, wrap)));
            let position = position_after(size, raw(used, wrap), &kept).ok_or(error)?;
            let queue = Queue::new(memory, setup, position)?;
            queue.forget_used();
            return Ok(Self { queue, part: Part::Packed(part), kept: kept.into(), taken: Vec::new() });
        }
        let mut part = SplitPart::open(&region.mapping, start, size).ok_or(error)?;
        let used = from_base.used;
        if part.is_new() {
            part.begin(size, used);
            let queue = Queue::new(memory, setup, from_base)?;
            return Ok(Self { queue, part: Part::Split(part), kept: VecDeque::new(), taken: Vec::new() });
        }
        let heads = part.recover(used);
        let count = u16::try_from(heads.len()).unwrap_or(u16::MAX);
        let queue = Queue::new(memory, setup, Position { available: used.wrapping_add(count), used })?;
        let kept = heads.into_iter().map(|entry| Kept { entry, descriptors: Vec::new() }).collect();
        Ok(Self { queue, part: Part::Split(part), kept, taken: Vec::new() })
    }

    /// Takes the next chain into `request`, as [`Queue::pop`] does.
    ///
    /// # Errors
    /// As there. The driver has offered a chain that it had offered already.
    pub fn pop(&mut self, request: &mut Request) -> Result<bool, RingError> {
        if request.chain().is_some() {
            return Ok(false);
        }
        if let Some(Kept { entry, descriptors }) = self.kept.pop_front() {
            match self.part {
                Part::Split(_) => self.queue.open_head(request, entry)?,
                Part::Packed(_) => self.queue.open_descriptors(request, &descriptors)?,
            }
            request.entry = entry;
            return Ok(true);
        }
        if !self.queue.peek_one(request)? {
            return Ok(false);
        }
        let noted = match &mut self.part {
            Part::Split(part) => request.id().map(|id| part.take(id).map(|()| id)).transpose()?,
            Part::Packed(part) => {
                self.queue.descriptors_of(request, &mut self.taken);
                part.take(&self.taken)
            }
        };
        let id = request.id().unwrap_or_default();
        request.entry = noted.ok_or(RingError::InWork { id })?;
        self.queue.take_one(request);
        Ok(true)
    }

    /// Chains of the last device that are still to be popped.
    pub fn left_over(&self) -> usize {
        self.kept.len()
    }

    /// As [`Queue::complete`].
    pub fn complete(&mut self, request: &mut Request, written: u32) {
        if request.chain().is_none() {
            return;
        }
        match &mut self.part {
            Part::Split(part) => part.complete(request.entry),
            Part::Packed(part) => part.complete(request.entry),
        }
        self.queue.complete(request, written);
    }

    /// As [`Queue::publish`].
    pub fn publish(&mut self) {
        let used = self.queue.position().used;
        match &mut self.part {
            Part::Split(part) => {
                self.queue.publish();
                part.published(used);
            }
            Part::Packed(part) => {
                part.publish((used & !WRAP, used & WRAP != 0));
                self.queue.publish();
                part.published();
            }
        }
    }

    /// As [`Queue::needs_call`].
    pub fn needs_call(&mut self) -> bool {
        self.queue.needs_call()
    }

    /// As [`Queue::enable_kicks`]. There is something to do also while chains of the last device are left.
    ///
    /// # Errors
    /// As there.
    pub fn enable_kicks(&mut self) -> Result<bool, RingError> {
        Ok(self.queue.enable_kicks()? || !self.kept.is_empty())
    }

    /// As [`Queue::disable_kicks`].
    pub fn disable_kicks(&mut self) {
        self.queue.disable_kicks();
    }

    /// As [`Queue::set_log`].
    pub fn set_log(&mut self, log: Option<RingLog>) {
        self.queue.set_log(log);
    }

    /// The queue, to ask what it is and where it stands.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}

/// A place as in a [`Position`].
fn raw(index: u16, wrap: bool) -> u16 {
    index & !WRAP | if wrap { WRAP } else { 0 }
}

/// The position of a packed ring of which these chains are in work.
fn position_after(size: u16, used: u16, kept: &[Kept]) -> Option<Position> {
    let count: usize = kept.iter().map(|kept| kept.descriptors.len()).sum();
    let count = u16::try_from(count).ok().filter(|count| *count <= size)?;
    let index = (used & !WRAP) + count;
    let available = if index >= size { raw(index - size, used & WRAP == 0) } else { raw(index, used & WRAP != 0) };
    Some(Position { available, used })
}
