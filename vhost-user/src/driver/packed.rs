//! A driver of a packed ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{Buffer, Offered, TABLE, Used};
use crate::memory::GuestMemory;
use crate::ring::{
    AVAIL, Area, Descriptor, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, INDIRECT, Le32, NEXT, PackedDesc, Position,
    RingSetup, USED, WRITE,
};

/// A place in the ring: index, and wrap counter.
type Place = (u16, bool);

#[derive(Debug)]
pub(super) struct PackedDriver {
    memory: Arc<GuestMemory>,
    ring: Area<Descriptor>,
    driver_event: Area<Le32>,
    device_event: Area<Le32>,
    tables: u64,
    size: u16,
    events: bool,
    in_order: bool,
    /// Free descriptors.
    room: u16,
    free_ids: VecDeque<u16>,
    /// The chains that the device has, by id.
    offered: Vec<Option<Offered>>,
    /// Their ids, oldest first.
    order: VecDeque<u16>,
    next: Place,
    /// Where the device stops: the first descriptor that was added, and its second word.
    first: Option<(u16, u64)>,
    /// Places of descriptors that were added.
    added: Vec<Place>,
    next_used: Place,
    /// In order: the descriptor that stands for all chains up to this one.
    batch: Option<(u16, u32)>,
}

fn place_of(raw: u16) -> Place {
    (raw & 0x7fff, raw & 0x8000 != 0)
}

fn raw((index, wrap): Place) -> u16 {
    index | u16::from(wrap) << 15
}

impl PackedDriver {
    pub(super) fn new(memory: &Arc<GuestMemory>, setup: &RingSetup, tables: u64, start: Position) -> Self {
        let (size, count) = (setup.size as u16, setup.size as usize);
        let event = |user| Area::new(memory, "event", user, 1, 4).expect("an event");
        let driver = Self {
            memory: Arc::clone(memory),
            ring: Area::new(memory, "ring", setup.descriptors, count, 16).expect("a ring"),
            driver_event: event(setup.available),
            device_event: event(setup.used),
            tables,
            size,
            events: setup.features.event_idx,
            in_order: setup.features.in_order,
            room: size,
            free_ids: (0..size).collect(),
            offered: vec![None; count],
            order: VecDeque::new(),
            next: place_of(start.available),
            first: None,
            added: Vec::new(),
            next_used: place_of(start.used),
            batch: None,
        };
        // All descriptors look as they do when the ring has come to this place: used in this round, or in the last one.
        let (index, wrap) = driver.next;
        for (at, desc) in driver.ring.entries().iter().enumerate() {
            let used = if (at < index.into()) == wrap { AVAIL | USED } else { 0 };
            desc.rest.store(PackedDesc { addr: 0, len: 0, id: 0, flags: used }.rest(), Ordering::Relaxed);
        }
        driver
    }

    fn after(&self, (index, wrap): Place, count: u16) -> Place {
        let index = index + count;
        if index >= self.size { (index - self.size, !wrap) } else { (index, wrap) }
    }

    pub(super) fn add(&mut self, buffers: &[Buffer], token: u64, indirect: bool) -> bool {
        let count = if indirect { 1 } else { buffers.len() as u16 };
        if self.room < count || buffers.len() > usize::from(self.size) {
            return false;
        }
        let Some(id) = self.free_ids.pop_front() else { return false };
        let write = |buffer: &Buffer| if buffer.writable { WRITE } else { 0 };
        if indirect {
            let table = self.tables + u64::from(id) * 16 * TABLE as u64;
            for (at, buffer) in buffers.iter().enumerate() {
                // Ids mean nothing there.
                let desc = PackedDesc { addr: buffer.guest, len: buffer.len, id: 0xdead, flags: write(buffer) | AVAIL };
                let bytes = [desc.addr.to_le_bytes(), desc.rest().to_le_bytes()].concat();
                self.memory.write(table + at as u64 * 16, &bytes).expect("room for a table");
            }
            self.write(PackedDesc { addr: table, len: buffers.len() as u32 * 16, id, flags: INDIRECT });
        } else {
            for (at, buffer) in buffers.iter().enumerate() {
                let last = at + 1 == buffers.len();
                let flags = write(buffer) | if last { 0 } else { NEXT };
                // Only the last descriptor has the id.
                let id = if last { id } else { 0xbeef };
                self.write(PackedDesc { addr: buffer.guest, len: buffer.len, id, flags });
            }
        }
        self.room -= count;
        self.offered[usize::from(id)] = Some(Offered::new(token, count, buffers));
        self.order.push_back(id);
        true
    }

    fn write(&mut self, desc: PackedDesc) {
        let (index, wrap) = self.next;
        let rest = PackedDesc { flags: desc.flags | if wrap { AVAIL } else { USED }, ..desc }.rest();
        let place = &self.ring.entries()[usize::from(index)];
        place.addr.store(desc.addr, Ordering::Relaxed);
        match self.first {
            None => self.first = Some((index, rest)),
            Some(_) => place.rest.store(rest, Ordering::Relaxed),
        }
        self.added.push(self.next);
        self.next = self.after(self.next, 1);
    }

    pub(super) fn publish(&mut self) -> bool {
        let Some((index, rest)) = self.first.take() else { return false };
        self.ring.entries()[usize::from(index)].rest.store(rest, Ordering::Release);
        fence(Ordering::SeqCst);
        let event = self.device_event.entries()[0].load(Ordering::Relaxed);
        let added = std::mem::take(&mut self.added);
        match (event >> 16) as u16 & 3 {
            EVENT_ENABLE => true,
            EVENT_DISABLE => false,
            _ => added.contains(&place_of(event as u16)),
        }
    }

    /// The used descriptor at the next place, as id and length.
    fn used(&self) -> Option<(u16, u32)> {
        let (index, wrap) = self.next_used;
        let desc = PackedDesc::load(&self.ring.entries()[usize::from(index)]);
        let wanted = if wrap { AVAIL | USED } else { 0 };
        let is_used = desc.flags & (AVAIL | USED) == wanted && !self.order.is_empty();
        // Without the flag, the length means nothing.
        is_used.then_some((desc.id, if desc.flags & WRITE != 0 { desc.len } else { 0 }))
    }

    pub(super) fn collect(&mut self) -> Option<Used> {
        let (id, len) = match self.batch.take() {
            Some(batch) => batch,
            None => self.used()?,
        };
        let at = match self.in_order {
            true => 0,
            false => self.order.iter().position(|other| *other == id).expect("a chain that the device has"),
        };
        let oldest = self.order.remove(at).expect("a chain that the device has");
        let offered = self.offered[usize::from(oldest)].take().expect("a chain that the device has");
        self.next_used = self.after(self.next_used, offered.descriptors);
        self.room += offered.descriptors;
        self.free_ids.push_back(oldest);
        if oldest == id {
            return Some(offered.used(Some(len)));
        }
        assert!(self.order.contains(&id), "a batch ends at {id}, which the device does not have");
        self.batch = Some((id, len));
        Some(offered.used(None))
    }

    pub(super) fn enable_calls(&mut self) -> bool {
        let event = match self.events {
            true => u32::from(raw(self.next_used)) | u32::from(EVENT_DESCRIPTOR) << 16,
            false => u32::from(EVENT_ENABLE) << 16,
        };
        self.driver_event.entries()[0].store(event, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.batch.is_some() || self.used().is_some()
    }

    pub(super) fn disable_calls(&mut self) {
        self.driver_event.entries()[0].store(u32::from(EVENT_DISABLE) << 16, Ordering::Relaxed);
    }
}
