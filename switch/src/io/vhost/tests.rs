//! Queue pairs with a driver in this process.
#![cfg(not(miri))]

use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, OwnedFd};
use vhost_user::driver::{Buffer, Driver, GUEST, memory};
use vhost_user::event::Event;
use vhost_user::memory::GuestMemory;
use vhost_user::net::net_header::{F_MRG_RXBUF, F_VERSION_1};
use vhost_user::net::{HeaderFormat, OffloadRules};
use vhost_user::ring::{F_EVENT_IDX, F_IN_ORDER, F_PACKED, Position, Queue, RingFeatures, RingSetup};

use super::*;
use crate::io::umem::{Frame, FrameCache, Umem};
use crate::model::HugePages;

const FRAMES: u32 = 256;
const SIZE: u32 = 64;
/// Where packets are in the guest's memory, one for each entry of each ring.
const BUFFERS: u64 = GUEST + 0x1_0000;
const BUFFER: u64 = 2048;

/// A guest with one queue pair, and the switch's end of it.
struct Bed {
    umem: Arc<Umem>,
    cache: FrameCache,
    pairs: Vec<Arc<VhostPair>>,
    queue: VhostQueue,
    memory: Arc<GuestMemory>,
    /// What the guest sends by.
    tx: Driver,
    /// What the guest receives by.
    rx: Driver,
    alarm: Arc<EventFd>,
    kick: EventFd,
    call: Event,
}

fn event() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap()
}

fn is_readable(fd: impl AsFd) -> bool {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
}

impl Bed {
    fn new(features: u64) -> Self {
        let umem = Umem::new(FRAMES, 2048, HugePages::Off).unwrap();
        let mut cache = FrameCache::new(Arc::clone(&umem));
        let memory = memory(0x1_0000 + 2 * u64::from(SIZE) * BUFFER).unwrap();
        let ring = RingFeatures::of_bits(features);
        let shape = RingSetup { size: SIZE, descriptors: 0, available: 0, used: 0, features: ring, chain_limit: 16 };
        let start = Position::start(ring);
        let tx = Driver::new(&memory, GUEST, shape, start);
        let rx = Driver::new(&memory, tx.end().next_multiple_of(64), shape, start);
        let alarm = Arc::new(event());
        let pairs: Vec<_> = (0..2).map(|_| VhostPair::new(Arc::clone(&alarm)).unwrap()).collect();
        let kick = event();
        let of_switch = |fd: OwnedFd| Event::try_from(Arc::new(fd)).unwrap();
        let call = of_switch(event().into());
        pairs[0].set_kick(None, Some(&of_switch(kick.as_fd().try_clone_to_owned().unwrap()))).unwrap();
        for (way, driver) in [(Way::FromGuest, &tx), (Way::ToGuest, &rx)] {
            let queue = Queue::new(&memory, driver.setup(), start).unwrap();
            let header = HeaderFormat::of_bits(features);
            let (call, offloads) = (Some(call.clone()), OffloadRules::of_bits(features));
            *pairs[0].lock(way) = Some(RunningRing { queue, call, enabled: true, header, offloads });
        }
        let mut queue = VhostQueue::new(&pairs, 0, &umem, 8);
        queue.refill(&mut cache);
        Self { umem, cache, pairs, queue, memory, tx, rx, alarm, kick, call }
    }

    /// The guest sends a packet with its header, in buffers of these lengths.
    fn guest_sends(&mut self, bytes: &[u8], token: u64) {
        let at = BUFFERS + token % u64::from(SIZE) * BUFFER;
        self.memory.write(at, bytes).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        assert!(self.tx.add(&[Buffer { guest: at, len, writable: false }], token, false));
        self.tx.publish();
    }

    /// The guest gives room for packets: so many chains of that length.
    fn guest_has_room(&mut self, chains: u64, len: u32) {
        for token in 0..chains {
            let guest = BUFFERS + (u64::from(SIZE) + token) * BUFFER;
            assert!(self.rx.add(&[Buffer { guest, len, writable: true }], token, false));
        }
        self.rx.publish();
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while self.queue.receive(&mut frames, 64) > 0 {
            self.queue.refill(&mut self.cache);
        }
        frames.drain(..).map(|frame| self.give_back(frame)).collect()
    }

    fn give_back(&mut self, frame: Frame) -> Vec<u8> {
        let data = frame.data().to_vec();
        self.cache.put(frame);
        data
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        let mut frame = self.cache.take().unwrap();
        let start = frame.start();
        frame.chunk_mut()[start..start + bytes.len()].copy_from_slice(bytes);
        frame.set(start, bytes.len());
        frame
    }

    fn send(&mut self, packets: &[&[u8]]) -> usize {
        let frames: Vec<_> = packets.iter().map(|packet| self.frame(packet)).collect();
        let mut frames = frames.into_iter();
        let sent = self.queue.send(packets.len(), &mut frames, &mut self.cache);
        frames.for_each(|frame| self.cache.put(frame));
        self.queue.flush();
        self.queue.reap(&mut self.cache);
        sent
    }

    /// What the guest finds in its chains, in order, headers included.
    fn guest_receives(&mut self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(used) = self.rx.collect() {
            let mut bytes = vec![0; used.len.unwrap_or_default() as usize];
            self.memory.read(BUFFERS + (u64::from(SIZE) + used.token) * BUFFER, &mut bytes).unwrap();
            found.push(bytes);
        }
        found
    }

    fn guest_gets_back(&mut self) -> usize {
        std::iter::from_fn(|| self.tx.collect()).count()
    }

    /// Checks that every frame is where the queue and the ledger say.
    fn assert_balanced(&self) {
        let (census, (stock, done)) = (self.umem.census(), self.queue.owners());
        assert_eq!((census.at(stock), census.at(done)), self.queue.outstanding());
        assert_eq!(census.held(), 0);
    }
}

/// All that a packet may be preceded by: 10 bytes, 12 bytes, several chains a packet, each on either kind of ring.
fn kinds() -> Vec<u64> {
    let headers = [0, F_VERSION_1, F_VERSION_1 | F_MRG_RXBUF];
    let rings = [0, F_EVENT_IDX, F_IN_ORDER, F_PACKED, F_PACKED | F_EVENT_IDX | F_IN_ORDER];
    headers.iter().flat_map(|header| rings.iter().map(move |ring| header | ring)).collect()
}

fn header_len(features: u64) -> usize {
    if features & (F_VERSION_1 | F_MRG_RXBUF) == 0 { 10 } else { 12 }
}

#[test]
fn packets_go_both_ways_as_they_are() {
    for features in kinds() {
        let mut bed = Bed::new(features);
        let header = header_len(features);
        for round in 0..3 * u64::from(SIZE) {
            let packet = vec![round as u8; 60 + (round as usize * 37) % 1400];
            bed.guest_sends(&[&vec![0; header], &packet[..]].concat(), round);
            assert_eq!(bed.receive(), std::slice::from_ref(&packet), "{features:#x}");
            assert_eq!(bed.guest_gets_back(), 1);
            bed.guest_has_room(1, 2048);
            assert_eq!(bed.send(&[&packet]), 1);
            let mut expected = vec![0; header];
            if header == 12 {
                expected[10] = 1;
            }
            expected.extend(&packet);
            assert_eq!(bed.guest_receives(), [expected], "{features:#x}");
            bed.assert_balanced();
        }
    }
}

#[test]
fn what_is_no_packet_is_counted_and_given_back() {
    let mut bed = Bed::new(F_VERSION_1);
    // Without room for a header, a header alone, and more than a frame takes.
    for (token, len) in [(0, 5), (1, 12), (2, 2000)] {
        bed.guest_sends(&vec![7; len], token);
    }
    bed.guest_sends(&[7; 72], 3);
    assert_eq!(bed.receive(), [vec![7; 60]]);
    assert_eq!(bed.guest_gets_back(), 4);
    assert_eq!(bed.pairs[0].counters.malformed.load(std::sync::atomic::Ordering::Relaxed), 3);
    bed.assert_balanced();
}

#[test]
fn a_packet_is_spread_over_chains_only_if_the_guest_takes_that() {
    for (features, merges) in [(F_VERSION_1, false), (F_VERSION_1 | F_MRG_RXBUF, true)] {
        let mut bed = Bed::new(features);
        bed.guest_has_room(5, 100);
        let packet: Vec<u8> = (0..250).map(|at| at as u8).collect();
        assert_eq!(bed.send(&[&packet, &[1; 60]]), 2);
        let got = bed.guest_receives();
        let lost = bed.pairs[0].counters.no_room.load(std::sync::atomic::Ordering::Relaxed);
        if merges {
            assert_eq!((got.len(), lost), (4, 0));
            assert_eq!(got[0][10..12], [3, 0], "the number of chains");
            assert_eq!([&got[0][12..], &got[1], &got[2]].concat(), packet);
            assert_eq!(got[3][12..], [1; 60]);
            // Two chains are needed, and one is left.
            assert_eq!(bed.send(&[&packet]), 1);
            assert_eq!(bed.guest_receives(), Vec::<Vec<u8>>::new());
        } else {
            assert_eq!((got.len(), lost), (1, 1));
            assert_eq!(got[0][12..], [1; 60]);
        }
        bed.assert_balanced();
    }
}

#[test]
fn a_guest_without_room_takes_nothing() {
    let mut bed = Bed::new(F_VERSION_1);
    assert_eq!(bed.send(&[&[1; 60]]), 0);
    bed.guest_has_room(2, 2048);
    assert_eq!(bed.send(&[&[1; 60], &[2; 60], &[3; 60]]), 2);
    assert_eq!(bed.guest_receives().len(), 2);
    bed.assert_balanced();
}

#[test]
fn a_ring_that_is_not_enabled_has_no_effect() {
    let mut bed = Bed::new(F_VERSION_1);
    for way in [Way::FromGuest, Way::ToGuest] {
        bed.pairs[0].lock(way).as_mut().unwrap().enabled = false;
    }
    bed.guest_sends(&[7; 72], 0);
    assert!(bed.receive().is_empty());
    assert_eq!(bed.guest_gets_back(), 1, "it is thrown away");
    bed.guest_has_room(1, 2048);
    assert_eq!(bed.send(&[&[1; 60]]), 0);
    bed.assert_balanced();
}

#[test]
fn a_pair_that_is_not_enabled_sends_by_another() {
    let mut bed = Bed::new(F_VERSION_1);
    let ring = bed.pairs[0].lock(Way::ToGuest).take();
    *bed.pairs[1].lock(Way::ToGuest) = ring;
    bed.guest_has_room(2, 2048);
    assert_eq!(bed.send(&[&[1; 60]]), 1);
    assert_eq!(bed.guest_receives().len(), 1);
    assert!(is_readable(&bed.call), "the guest is told at once");
}

#[test]
fn a_ring_that_the_guest_breaks_is_given_up_and_told_of() {
    let mut bed = Bed::new(F_VERSION_1);
    let outside = Buffer { guest: GUEST - 4096, len: 72, writable: false };
    assert!(bed.tx.add(&[outside], 0, false));
    bed.tx.publish();
    assert!(bed.receive().is_empty());
    assert!(bed.pairs[0].lock(Way::FromGuest).is_none());
    assert!(is_readable(&*bed.alarm));
    assert!(bed.pairs[0].take_failure().is_some() && bed.pairs[0].take_failure().is_none());
    // The other direction goes on.
    bed.guest_has_room(1, 2048);
    assert_eq!(bed.send(&[&[1; 60]]), 1);
    bed.assert_balanced();
}

#[test]
fn a_sleeping_worker_is_woken_by_the_guest_and_by_control() {
    for features in [F_VERSION_1, F_VERSION_1 | F_EVENT_IDX, F_VERSION_1 | F_PACKED] {
        let mut bed = Bed::new(features);
        bed.receive();
        bed.queue.ask_for_wakeup();
        assert!(!is_readable(&**bed.queue.fd()) && !bed.queue.has_received());
        bed.guest_sends(&[7; 72], 0);
        bed.kick.write(1).unwrap();
        assert!(is_readable(&**bed.queue.fd()) && bed.queue.has_received());
        assert_eq!(bed.receive().len(), 1);
        bed.queue.ask_for_wakeup();
        assert!(!is_readable(&**bed.queue.fd()), "the old wake-up is taken back");
        bed.pairs[0].nudge();
        assert!(is_readable(&**bed.queue.fd()));
    }
}

#[test]
fn a_guest_is_announced_once() {
    let mut bed = Bed::new(F_VERSION_1);
    bed.pairs[0].announce([2, 0, 0, 0, 0, 9]);
    let sent = bed.receive();
    assert_eq!((sent.len(), sent[0].len()), (1, 60));
    assert_eq!(sent[0][..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x80, 0x35]);
    assert!(bed.receive().is_empty());
    bed.assert_balanced();
}

#[test]
fn a_queue_that_is_closed_has_given_all_frames_back() {
    let mut bed = Bed::new(F_VERSION_1);
    bed.guest_sends(&[7; 72], 0);
    let Bed { umem, mut cache, queue, .. } = bed;
    queue.close(&mut cache);
    assert_eq!((umem.census().held(), umem.census().placed()), (0, 0));
    // What the guest has sent waits for the next queue.
    bed_queue_receives(&bed.pairs, &umem, &mut cache);
}

/// A new queue over the same pair takes what waits.
fn bed_queue_receives(pairs: &[Arc<VhostPair>], umem: &Arc<Umem>, cache: &mut FrameCache) {
    let mut queue = VhostQueue::new(pairs, 0, umem, 8);
    queue.refill(cache);
    let mut frames = Vec::new();
    assert_eq!(queue.receive(&mut frames, 64), 1);
    frames.drain(..).for_each(|frame| cache.put(frame));
    queue.close(cache);
}
