//! A driver of a split ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{Buffer, Offered, TABLE, Used};
use crate::memory::GuestMemory;
use crate::ring::{
    Area, Descriptor, INDIRECT, Le16, NEXT, Position, RingSetup, SUPPRESS, SplitDesc, UsedElement, WRITE,
};

#[derive(Debug)]
pub(super) struct SplitDriver {
    memory: Arc<GuestMemory>,
    descriptors: Area<Descriptor>,
    /// Flags, index, entries, and the event if there are events.
    available: Area<Le16>,
    /// The same of the used ring, without entries.
    used_head: Area<Le16>,
    used: Area<UsedElement>,
    used_end: Area<Le16>,
    tables: u64,
    size: u16,
    events: bool,
    in_order: bool,
    /// Free descriptors. In order, the front is used first, and what comes back goes to the back.
    free: VecDeque<u16>,
    /// By the index of their first descriptor: the chains that the device has.
    offered: Vec<Option<(Offered, Vec<u16>)>>,
    /// First descriptors of these, oldest first.
    order: VecDeque<u16>,
    /// Index with what was added, and index that the device sees.
    added: u16,
    published: u16,
    next_used: u16,
    /// In order: the entry that stands for all chains up to this one.
    batch: Option<(u16, u32)>,
}

impl SplitDriver {
    pub(super) fn new(memory: &Arc<GuestMemory>, setup: &RingSetup, tables: u64, start: Position) -> Self {
        let (size, count) = (setup.size as u16, setup.size as usize);
        let words = |user, count| Area::<Le16>::new(memory, "words", user, count, 2).expect("words of the ring");
        let driver = Self {
            memory: Arc::clone(memory),
            descriptors: Area::new(memory, "table", setup.descriptors, count, 16).expect("a table"),
            available: words(setup.available, count + 3),
            used_head: words(setup.used, 2),
            used: Area::new(memory, "used", setup.used + 4, count, 4).expect("a used ring"),
            used_end: words(setup.used + 4 + 8 * u64::from(size), 1),
            tables,
            size,
            events: setup.features.event_idx,
            in_order: setup.features.in_order,
            free: (0..size).collect(),
            offered: vec![None; count],
            order: VecDeque::new(),
            added: start.available,
            published: start.available,
            next_used: start.used,
            batch: None,
        };
        driver.available.entries()[1].store(start.available, Ordering::Relaxed);
        driver.used_head.entries()[1].store(start.used, Ordering::Relaxed);
        driver
    }

    pub(super) fn add(&mut self, buffers: &[Buffer], token: u64, indirect: bool) -> bool {
        let count = if indirect { 1 } else { buffers.len() };
        if self.free.len() < count {
            return false;
        }
        let indices: Vec<u16> = self.free.drain(..count).collect();
        let desc = |buffer: &Buffer, next: Option<&u16>| SplitDesc {
            addr: buffer.guest,
            len: buffer.len,
            flags: if buffer.writable { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 },
            next: next.copied().unwrap_or_default(),
        };
        if indirect {
            let table = self.tables + u64::from(indices[0]) * 16 * TABLE as u64;
            let places: Vec<u16> = (1..buffers.len() as u16).collect();
            for (at, buffer) in buffers.iter().enumerate() {
                let desc = desc(buffer, places.get(at));
                let bytes = [desc.addr.to_le_bytes(), desc.rest().to_le_bytes()].concat();
                self.memory.write(table + at as u64 * 16, &bytes).expect("room for a table");
            }
            let len = buffers.len() as u32 * 16;
            self.write(indices[0], SplitDesc { addr: table, len, flags: INDIRECT, next: 0 });
        } else {
            for (at, buffer) in buffers.iter().enumerate() {
                self.write(indices[at], desc(buffer, indices.get(at + 1)));
            }
        }
        let head = indices[0];
        let entry = 2 + usize::from(self.added % self.size);
        self.available.entries()[entry].store(head, Ordering::Relaxed);
        self.added = self.added.wrapping_add(1);
        self.order.push_back(head);
        self.offered[usize::from(head)] = Some((Offered::new(token, count as u16, buffers), indices));
        true
    }

    fn write(&self, index: u16, desc: SplitDesc) {
        let place = &self.descriptors.entries()[usize::from(index)];
        place.addr.store(desc.addr, Ordering::Relaxed);
        place.rest.store(desc.rest(), Ordering::Relaxed);
    }

    pub(super) fn publish(&mut self) -> bool {
        let before = std::mem::replace(&mut self.published, self.added);
        self.available.entries()[1].store(self.added, Ordering::Release);
        fence(Ordering::SeqCst);
        if before == self.added {
            return false;
        }
        if !self.events {
            return self.used_head.entries()[0].load(Ordering::Relaxed) & SUPPRESS == 0;
        }
        let event = self.used_end.entries()[0].load(Ordering::Relaxed);
        (0..self.added.wrapping_sub(before)).any(|n| before.wrapping_add(n) == event)
    }

    pub(super) fn collect(&mut self) -> Option<Used> {
        let (id, len) = match self.batch.take() {
            Some(batch) => batch,
            None => {
                let index = self.used_head.entries()[1].load(Ordering::Acquire);
                let news = index.wrapping_sub(self.next_used);
                assert!(usize::from(news) <= self.order.len(), "{news} chains of {} are used", self.order.len());
                if news == 0 {
                    return None;
                }
                let element = &self.used.entries()[usize::from(self.next_used % self.size)];
                let id = element.id.load(Ordering::Relaxed);
                (u16::try_from(id).expect("an id of the ring"), element.len.load(Ordering::Relaxed))
            }
        };
        self.next_used = self.next_used.wrapping_add(1);
        let at = match self.in_order {
            true => 0,
            false => self.order.iter().position(|head| *head == id).expect("a chain that the device has"),
        };
        let head = self.order.remove(at).expect("a chain that the device has");
        let (offered, indices) = self.offered[usize::from(head)].take().expect("a chain that the device has");
        self.free.extend(indices);
        if head == id {
            return Some(offered.used(Some(len)));
        }
        assert!(self.order.contains(&id), "a batch ends at {id}, which the device does not have");
        self.batch = Some((id, len));
        Some(offered.used(None))
    }

    pub(super) fn enable_calls(&mut self) -> bool {
        match self.events {
            true => self.available.entries()[2 + usize::from(self.size)].store(self.next_used, Ordering::Relaxed),
            false => self.available.entries()[0].store(0, Ordering::Relaxed),
        }
        fence(Ordering::SeqCst);
        self.batch.is_some() || self.used_head.entries()[1].load(Ordering::Acquire) != self.next_used
    }

    pub(super) fn disable_calls(&mut self) {
        match self.events {
            // An entry that was used long ago.
            true => self.available.entries()[2 + usize::from(self.size)]
                .store(self.next_used.wrapping_sub(self.size).wrapping_sub(1), Ordering::Relaxed),
            false => self.available.entries()[0].store(SUPPRESS, Ordering::Relaxed),
        }
    }
}
