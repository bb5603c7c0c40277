//! A driver that offers the same buffers again and again: the fastest one that there can be, for the bench.
//!
//! Each entry of the ring has a buffer of its own. What the device has used is offered again as it is. So the cost of a
//! packet is that of the ring alone, and the other side is what limits the rate.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{Buffer, lay_out};
use crate::memory::GuestMemory;
use crate::ring::{
    AVAIL, Area, Descriptor, EVENT_DISABLE, Le16, Le32, PackedDesc, RingSetup, SUPPRESS, SplitDesc, USED, UsedElement,
    WRITE,
};

/// What the device has used since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Buffers.
    pub buffers: u64,
    /// Bytes that were written into them, as the device says.
    pub bytes: u64,
    /// The device wants to be kicked.
    pub kick: bool,
}

/// The driver. It wants no calls. Chains have one buffer.
#[derive(Debug)]
pub struct Repeater {
    setup: RingSetup,
    end: u64,
    /// By id.
    buffers: Vec<Buffer>,
    mask: u16,
    ring: Ring,
}

#[derive(Debug)]
enum Ring {
    Split { table: Area<Descriptor>, available: Area<Le16>, used: Area<UsedElement>, head: Area<Le16>, next: u16 },
    Packed { ring: Area<Descriptor>, device_event: Area<Le32>, next: u16, wrap: bool },
}

impl Repeater {
    /// A driver of a new ring at guest address `at`, a multiple of 64. All buffers are offered at once.
    ///
    /// # Panics
    /// There are not as many buffers as entries, the size is no power of two, or the memory has no room.
    pub fn new(memory: &Arc<GuestMemory>, at: u64, shape: RingSetup, buffers: &[Buffer]) -> Self {
        let count = buffers.len();
        assert!(count == shape.size as usize && count.is_power_of_two(), "{count} buffers for {}", shape.size);
        let (setup, _, end) = lay_out(memory, at, shape);
        let words = |user, count| Area::<Le16>::new(memory, "words", user, count, 2).expect("words of the ring");
        let event = |user| Area::<Le32>::new(memory, "event", user, 1, 4).expect("an event");
        let table = Area::<Descriptor>::new(memory, "table", setup.descriptors, count, 16).expect("a table");
        let ring = if shape.features.packed {
            event(setup.available).entries()[0].store(u32::from(EVENT_DISABLE) << 16, Ordering::Relaxed);
            Ring::Packed { ring: table, device_event: event(setup.used), next: 0, wrap: true }
        } else {
            let available = words(setup.available, count + 2);
            available.entries()[0].store(SUPPRESS, Ordering::Relaxed);
            let used = Area::new(memory, "used", setup.used + 4, count, 4).expect("a used ring");
            Ring::Split { table, available, used, head: words(setup.used, 2), next: 0 }
        };
        let mut this = Self { setup, end, buffers: buffers.to_vec(), mask: (count - 1) as u16, ring };
        this.offer_all();
        this
    }

    fn offer_all(&mut self) {
        let flags = |buffer: &Buffer| if buffer.writable { WRITE } else { 0 };
        match &self.ring {
            Ring::Split { table, available, .. } => {
                for (id, (buffer, place)) in self.buffers.iter().zip(table.entries()).enumerate() {
                    let desc = SplitDesc { addr: buffer.guest, len: buffer.len, flags: flags(buffer), next: 0 };
                    place.addr.store(desc.addr, Ordering::Relaxed);
                    place.rest.store(desc.rest(), Ordering::Relaxed);
                    available.entries()[2 + id].store(id as u16, Ordering::Relaxed);
                }
                available.entries()[1].store(self.buffers.len() as u16, Ordering::Release);
            }
            Ring::Packed { ring, .. } => {
                for (id, (buffer, place)) in self.buffers.iter().zip(ring.entries()).enumerate() {
                    offer_packed(place, buffer, id as u16, true);
                }
            }
        }
    }

    /// What a front end tells the device.
    pub fn setup(&self) -> &RingSetup {
        &self.setup
    }

    /// First guest address behind the ring.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// From now on buffers that are offered have this length.
    pub fn set_len(&mut self, len: u32) {
        for (id, buffer) in self.buffers.iter_mut().enumerate() {
            buffer.len = len;
            if let Ring::Split { table, .. } = &self.ring {
                let flags = if buffer.writable { WRITE } else { 0 };
                let desc = SplitDesc { addr: buffer.guest, len, flags, next: 0 };
                table.entries()[id].rest.store(desc.rest(), Ordering::Relaxed);
            }
        }
    }

    /// Offers again what the device has used.
    ///
    /// # Panics
    /// The device has used more than it had, or what it did not have.
    pub fn turn(&mut self) -> Turn {
        let (mask, mut turn) = (self.mask, Turn::default());
        match &mut self.ring {
            Ring::Split { available, used, head, next, .. } => {
                let (size, used_index) = (mask.wrapping_add(1), head.entries()[1].load(Ordering::Acquire));
                let news = used_index.wrapping_sub(*next);
                assert!(news <= size, "{news} of {size} buffers are used");
                if news == 0 {
                    return turn;
                }
                for at in 0..news {
                    let index = next.wrapping_add(at);
                    let element = used.wrapped(index);
                    turn.bytes += u64::from(element.len.load(Ordering::Relaxed));
                    let id = element.id.load(Ordering::Relaxed) as u16 & mask;
                    available.entries()[2 + usize::from(index & mask)].store(id, Ordering::Relaxed);
                }
                *next = used_index;
                available.entries()[1].store(used_index.wrapping_add(size), Ordering::Release);
                turn.buffers = news.into();
                fence(Ordering::SeqCst);
                turn.kick = head.entries()[0].load(Ordering::Relaxed) & SUPPRESS == 0;
            }
            Ring::Packed { ring, device_event, next, wrap } => {
                while turn.buffers <= u64::from(mask) {
                    let place = ring.wrapped(*next);
                    let desc = PackedDesc::load(place);
                    let wanted = if *wrap { AVAIL | USED } else { 0 };
                    if desc.flags & (AVAIL | USED) != wanted {
                        break;
                    }
                    turn.buffers += 1;
                    turn.bytes += u64::from(if desc.flags & WRITE != 0 { desc.len } else { 0 });
                    let id = desc.id & mask;
                    // The ring is full, so the place of what was used is the next one to offer in, a round later.
                    offer_packed(place, &self.buffers[usize::from(id)], id, !*wrap);
                    *next = (*next + 1) & mask;
                    *wrap ^= *next == 0;
                }
                if turn.buffers > 0 {
                    fence(Ordering::SeqCst);
                    turn.kick = (device_event.entries()[0].load(Ordering::Relaxed) >> 16) as u16 & 3 != EVENT_DISABLE;
                }
            }
        }
        turn
    }
}

fn offer_packed(place: &Descriptor, buffer: &Buffer, id: u16, wrap: bool) {
    let flags = if buffer.writable { WRITE } else { 0 } | if wrap { AVAIL } else { USED };
    place.addr.store(buffer.guest, Ordering::Relaxed);
    let desc = PackedDesc { addr: buffer.guest, len: buffer.len, id, flags };
    place.rest.store(desc.rest(), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{GUEST, memory};
    use crate::ring::{Position, Queue, Request, RingFeatures};

    const SIZE: u32 = 8;

    /// Each turn the device uses another number of buffers, over several rounds of the ring.
    fn all_are_offered_again(packed: bool, writable: bool) {
        let memory = memory(1 << 16).unwrap();
        let features = RingFeatures { packed, ..RingFeatures::default() };
        let shape = RingSetup { size: SIZE, descriptors: 0, available: 0, used: 0, features, chain_limit: 1 };
        let buffer = |at: u32| Buffer { guest: GUEST + 0x8000 + u64::from(at) * 64, len: 64, writable };
        let buffers: Vec<_> = (0..SIZE).map(buffer).collect();
        let mut driver = Repeater::new(&memory, GUEST, shape, &buffers);
        let mut device = Queue::new(&memory, driver.setup(), Position::start(features)).unwrap();
        let mut request = Request::new(&memory);
        driver.set_len(32);
        let mut lengths = Vec::new();
        for round in 0..50 {
            let most = round % (SIZE + 1);
            for _ in 0..most {
                assert!(device.pop(&mut request).unwrap(), "all are available, round {round}");
                let chain = request.chain().unwrap();
                lengths.push(chain.readable_len() + chain.writable_len());
                device.complete(&mut request, if writable { 7 } else { 0 });
            }
            device.publish();
            device.disable_kicks();
            let turn = driver.turn();
            assert_eq!((turn.buffers, turn.bytes), (most.into(), if writable { u64::from(most) * 7 } else { 0 }));
            assert!(!turn.kick, "the device wants no kicks");
        }
        let (old, new) = lengths.split_at(SIZE as usize);
        // A packed ring's descriptors are written when they are offered.
        assert!(old.iter().all(|len| *len == if packed { 64 } else { 32 }) && new.iter().all(|len| *len == 32));
        assert!(device.pop(&mut request).unwrap() && driver.turn() == Turn::default());
    }

    #[test]
    fn what_was_used_is_offered_again() {
        for packed in [false, true] {
            [false, true].into_iter().for_each(|writable| all_are_offered_again(packed, writable));
        }
    }

    #[test]
    fn a_device_that_wants_kicks_is_kicked() {
        for packed in [false, true] {
            let memory = memory(1 << 16).unwrap();
            let features = RingFeatures { packed, ..RingFeatures::default() };
            let shape = RingSetup { size: 1, descriptors: 0, available: 0, used: 0, features, chain_limit: 1 };
            let buffers = [Buffer { guest: GUEST + 0x8000, len: 64, writable: true }];
            let mut driver = Repeater::new(&memory, GUEST, shape, &buffers);
            let mut device = Queue::new(&memory, driver.setup(), Position::start(features)).unwrap();
            let mut request = Request::new(&memory);
            assert!(device.pop(&mut request).unwrap());
            device.complete(&mut request, 0);
            device.publish();
            device.enable_kicks().unwrap();
            assert!(driver.turn().kick, "packed {packed}");
        }
    }
}
