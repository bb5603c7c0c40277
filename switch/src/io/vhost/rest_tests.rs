//! Packets of which the rest goes from guest to guest.

use std::sync::Arc;

use proptest::prelude::*;
use vhost_user::net::net_header::{F_MRG_RXBUF, F_VERSION_1};
use vhost_user::net::{F_CSUM, F_GUEST_CSUM, NetHeader};
use vhost_user::ring::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, F_PACKED, RingError};

use super::test_guest::{Guest, RINGS_BYTES, Tcp};
use super::*;
use crate::engine::parse::parse;
use crate::io::umem::{Frame, FrameCache, Umem};
use crate::model::HugePages;

const PLAIN: u64 = F_VERSION_1 | F_MRG_RXBUF;
const CHECKSUMS: u64 = PLAIN | F_CSUM | F_GUEST_CSUM;
/// Bytes of a packet that are copied with its head.
const HEAD: usize = 128;
const ROOM: u32 = 1526;

/// Two guests at a queue each.
struct Bed {
    umem: Arc<Umem>,
    cache: FrameCache,
    queues: [VhostQueue; 2],
    guests: [Guest; 2],
}

impl Bed {
    fn new(guests: [Guest; 2]) -> Self {
        let umem = Umem::new(256, 2048, HugePages::Off).unwrap();
        let mut cache = FrameCache::new(Arc::clone(&umem));
        let mut queues = [0, 1].map(|at: usize| guests[at].queue(&umem, 32));
        queues.iter_mut().for_each(|queue| queue.refill(&mut cache));
        Self { umem, cache, queues, guests }
    }

    fn of(features: [u64; 2]) -> Self {
        Self::new(features.map(Guest::new))
    }

    fn receive(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let taken = self.queues[0].receive_heads(&mut frames, 64, self.cache.rests());
        assert_eq!(taken, frames.len());
        frames
    }

    /// Sends frames to the second guest, and gives the first one its buffers back.
    fn pass_on(&mut self, frames: Vec<Frame>) -> Vec<(NetHeader, Vec<u8>)> {
        let count = frames.len();
        assert_eq!(self.queues[1].send(count, &mut frames.into_iter(), &mut self.cache), count);
        self.finish();
        self.guests[1].receive()
    }

    fn finish(&mut self) {
        self.queues[0].release(self.cache.rests());
        for queue in &mut self.queues {
            queue.reap(&mut self.cache);
            queue.refill(&mut self.cache);
        }
    }

    fn assert_balanced(&self) {
        let census = self.umem.census();
        for queue in &self.queues {
            let (stock, done) = queue.owners();
            assert_eq!((census.at(stock), census.at(done)), queue.outstanding());
        }
        assert_eq!(census.held(), 0);
    }
}

fn packet(len: usize) -> Vec<u8> {
    let mut packet = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0]].concat();
    packet.extend([0x88, 0xb5]);
    packet.extend((14..len).map(|at| (at * 7 + at / 251) as u8));
    packet
}

#[test]
fn the_rest_of_a_longer_packet_goes_from_guest_to_guest() {
    for ring in [0, F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, F_PACKED, F_PACKED | F_IN_ORDER] {
        let mut bed = Bed::of([PLAIN | ring; 2]);
        for (len, first, is_left) in
            [(511, 12, false), (512, 12, true), (1514, 78, true), (1514, 139, true), (1514, 700, false)]
        {
            // A short packet before and a longer one behind go along, in order.
            let packets = [packet(60), packet(len), packet(1514)];
            bed.guests[1].give_room(3, ROOM);
            bed.guests[0].send(NetHeader::PLAIN, &packets[0]);
            bed.guests[0].send_in_two(NetHeader::PLAIN, &packets[1], first);
            bed.guests[0].send(NetHeader::PLAIN, &packets[2]);
            let frames = bed.receive();
            assert_eq!(frames.iter().map(Frame::len).collect::<Vec<_>>(), [60, len, 1514]);
            let rests: Vec<_> = frames.iter().map(|frame| frame.rest().is_some()).collect();
            assert_eq!(rests, [false, is_left, true], "{len} bytes, {first} in the first buffer");
            assert_eq!(bed.guests[0].gets_back(), 0, "they are still read from");
            let got = bed.pass_on(frames);
            assert_eq!(bed.guests[0].gets_back(), 3);
            assert!(got.into_iter().map(|(_, packet)| packet).eq(packets));
            bed.assert_balanced();
        }
    }
}

#[test]
fn a_rest_is_spread_over_chains_and_a_packet_without_room_is_lost_alone() {
    let mut bed = Bed::of([PLAIN; 2]);
    let packets = [packet(1514), packet(900)];
    // The header and the first packet take eight of these, the other one five.
    bed.guests[1].give_room(13, 200);
    for packet in &packets {
        bed.guests[0].send(NetHeader::PLAIN, packet);
    }
    let frames = bed.receive();
    assert!(frames.iter().all(|frame| frame.rest().is_some()));
    let got = bed.pass_on(frames);
    assert_eq!(got.iter().map(|(header, _)| header.num_buffers).collect::<Vec<_>>(), [8, 5]);
    assert!(got.into_iter().map(|(_, packet)| packet).eq(packets.clone()));
    bed.guests[1].give_room(7, 200);
    bed.guests[0].send(NetHeader::PLAIN, &packets[0]);
    let frames = bed.receive();
    assert!(bed.pass_on(frames).is_empty());
    assert_eq!(bed.guests[0].gets_back(), 3);
    bed.assert_balanced();
}

#[test]
fn a_checksum_passes_or_is_filled_as_the_receiver_wants() {
    for (receiver, passes) in [(CHECKSUMS, true), (PLAIN, false)] {
        for is_v6 in [false, true] {
            let mut bed = Bed::of([CHECKSUMS, receiver]);
            let tcp = Tcp { is_v6, payload: 1400, ..Tcp::default() };
            let (header, packet) = tcp.packet();
            bed.guests[1].give_room(1, ROOM);
            bed.guests[0].send(header, &packet);
            let frames = bed.receive();
            assert!(frames[0].rest().is_some() && frames[0].lacks_checksum());
            let (got, bytes) = bed.pass_on(frames).remove(0);
            if passes {
                assert_eq!(got, header);
                assert!(bytes == packet);
            } else {
                assert_eq!(got, NetHeader { num_buffers: 1, ..NetHeader::PLAIN });
                tcp.assert_on_wire(&[bytes]);
            }
            bed.assert_balanced();
        }
    }
}

#[test]
fn a_copy_of_a_frame_and_a_completed_frame_have_all_of_the_packet() {
    let mut bed = Bed::of([CHECKSUMS, PLAIN]);
    let (header, packet) = Tcp { payload: 1400, ..Tcp::default() }.packet();
    bed.guests[0].send(header, &packet);
    let mut frame = bed.receive().remove(0);
    let mut copy = bed.cache.take().unwrap();
    bed.umem.copy(&frame, &mut copy);
    for frame in [&mut copy, &mut frame] {
        bed.cache.complete(frame);
        assert!(frame.rest().is_none() && frame.lacks_checksum() && frame.data() == packet);
    }
    bed.cache.put(copy);
    bed.cache.put(frame);
    bed.finish();
    assert_eq!(bed.guests[0].gets_back(), 1);
    bed.assert_balanced();
}

#[test]
fn a_guest_whose_packets_go_elsewhere_has_them_copied_whole_for_a_while() {
    let mut bed = Bed::of([PLAIN; 2]);
    let mut were_left = Vec::new();
    for _ in 0..130 {
        bed.guests[0].send(NetHeader::PLAIN, &packet(1514));
        let mut frame = bed.receive().remove(0);
        were_left.push(frame.rest().is_some());
        bed.cache.complete(&mut frame);
        assert!(frame.data() == packet(1514));
        bed.cache.put(frame);
        bed.finish();
        assert_eq!(bed.guests[0].gets_back(), 1);
    }
    let lefts: Vec<_> = (0..).zip(were_left).filter(|(_, was_left)| *was_left).map(|(at, _)| at).collect();
    assert_eq!(lefts, [0, 64, 128]);
}

#[test]
fn what_a_guest_changes_behind_a_head_that_was_read_harms_itself_only() {
    for ring in [0, F_PACKED] {
        let mut bed = Bed::of([PLAIN | ring; 2]);
        bed.guests[1].give_room(1, ROOM);
        let packet = packet(1514);
        bed.guests[0].send(NetHeader::PLAIN, &packet);
        let frames = bed.receive();
        bed.guests[0].spoil_sent();
        let (header, got) = bed.pass_on(frames).remove(0);
        assert_eq!(header, NetHeader { num_buffers: 1, ..NetHeader::PLAIN });
        assert_eq!(got.len(), packet.len());
        assert!(got[..HEAD] == packet[..HEAD] && got[HEAD..].iter().all(|byte| *byte == 0xee));
        assert!(bed.guests.iter().all(|guest| guest.pair.take_failure().is_none()));
        bed.assert_balanced();
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn a_guest_whose_memory_shrinks_behind_a_head_loses_its_ring_and_nobody_else_anything() {
    let (guest, file) = Guest::in_file(PLAIN);
    let mut bed = Bed::new([guest, Guest::new(PLAIN)]);
    bed.guests[1].give_room(2, ROOM);
    let packet = packet(1514);
    bed.guests[0].send(NetHeader::PLAIN, &packet);
    let frames = bed.receive();
    file.set_len(RINGS_BYTES).unwrap();
    let (_, got) = bed.pass_on(frames).remove(0);
    assert_eq!(got.len(), packet.len());
    assert!(got[..HEAD] == packet[..HEAD] && got[HEAD..].iter().all(|byte| *byte == 0));
    assert_eq!(bed.guests[0].pair.take_failure(), Some((Way::FromGuest, RingError::MemoryBroken)));
    assert!(bed.receive().is_empty());
    assert_eq!(bed.guests[1].pair.take_failure(), None);
    bed.assert_balanced();
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn packets_of_a_burst_in_which_the_memory_is_lost_are_not_taken() {
    for heads in [false, true] {
        for len in [60, 1514] {
            let (guest, file) = Guest::in_file(PLAIN);
            let mut bed = Bed::new([guest, Guest::new(PLAIN)]);
            bed.guests[0].send(NetHeader::PLAIN, &packet(len));
            file.set_len(RINGS_BYTES).unwrap();
            let mut frames = Vec::new();
            let queue = &mut bed.queues[0];
            let taken = match heads {
                true => queue.receive_heads(&mut frames, 64, bed.cache.rests()),
                false => queue.receive(&mut frames, 64),
            };
            assert_eq!((taken, frames.len()), (0, 0));
            assert_eq!(bed.guests[0].pair.take_failure(), Some((Way::FromGuest, RingError::MemoryBroken)));
            bed.finish();
            bed.assert_balanced();
        }
    }
}

#[test]
fn nobody_takes_a_ring_away_while_its_packets_are_read_from() {
    let mut bed = Bed::of([PLAIN; 2]);
    bed.guests[0].send(NetHeader::PLAIN, &packet(1514));
    let frames = bed.receive();
    assert!(bed.guests[0].pair.try_lock(Way::FromGuest).is_none());
    assert!(bed.guests[0].pair.try_lock(Way::ToGuest).is_some());
    frames.into_iter().for_each(|frame| bed.cache.put(frame));
    bed.finish();
    let position = bed.guests[0].pair.lock(Way::FromGuest).as_ref().unwrap().queue.position();
    assert_eq!((position.available, position.used), (1, 1));
    // A burst of short packets is over when it was received.
    bed.guests[0].send(NetHeader::PLAIN, &packet(60));
    bed.receive().into_iter().for_each(|frame| bed.cache.put(frame));
    assert!(bed.guests[0].pair.try_lock(Way::FromGuest).is_some());
    assert_eq!(bed.guests[0].gets_back(), 2);
}

/// A packet with tags, extension headers and whatever is in them.
fn headers() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop::collection::vec(prop_oneof![Just([0x81, 0]), Just([0x88, 0xa8])], 0..4);
    let network = prop_oneof![
        Just(([8, 0], 0x4f)),
        Just(([8, 0], 0x45)),
        Just(([8, 6], 0)),
        Just(([0x86, 0xdd], 0x60)),
        Just(([0x88, 0xb5], 0))
    ];
    let next = prop_oneof![
        Just(0),
        Just(6),
        Just(17),
        Just(43),
        Just(44),
        Just(50),
        Just(51),
        Just(58),
        Just(60),
        any::<u8>()
    ];
    (tags, network, next, prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 1514)).prop_map(
        |(tags, (ethertype, version), next, mut bytes)| {
            let mut at = 12;
            for tag in tags {
                bytes[at..at + 2].copy_from_slice(&tag);
                at += 4;
            }
            bytes[at..at + 2].copy_from_slice(&ethertype);
            let ip = &mut bytes[at + 2..];
            if version == 0x60 {
                (ip[0], ip[6]) = (0x60, next);
                ip[4..6].copy_from_slice(&1200_u16.to_be_bytes());
            } else if version != 0 {
                (ip[0], ip[9]) = (version, next);
                ip[2..4].copy_from_slice(&1200_u16.to_be_bytes());
            }
            bytes
        },
    )
}

proptest! {
    /// What is decided about a packet depends on its head and its length, if the rest is left behind.
    #[test]
    fn nothing_behind_the_head_is_read_to_decide(packet in headers(), other: u8) {
        let mut bed = Bed::of([PLAIN; 2]);
        bed.guests[0].send(NetHeader::PLAIN, &packet);
        let frame = bed.receive().remove(0);
        if frame.rest().is_some() {
            let mut changed = packet.clone();
            changed[HEAD..].fill(other);
            prop_assert_eq!(parse(&changed), parse(&packet));
        }
        bed.cache.put(frame);
        bed.finish();
    }
}
