//! Packets with something left to be done, between a driver in this process and a queue.
#![cfg(not(miri))]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vhost_user::net::net_header::{DATA_VALID, F_MRG_RXBUF, F_VERSION_1, GSO_TCPV4};
use vhost_user::net::{F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6, NetHeader};
use vhost_user::ring::F_PACKED;

use super::VhostQueue;
use super::test_guest::{Guest, Tcp};
use crate::io::umem::{Frame, FrameCache, Segments, Umem};
use crate::model::{Count, HugePages};

const SENDS: u64 = F_VERSION_1 | F_CSUM | F_HOST_TSO4 | F_HOST_TSO6;
const TAKES: u64 = F_VERSION_1 | F_MRG_RXBUF | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6;

struct Bed {
    umem: Arc<Umem>,
    cache: FrameCache,
    guest: Guest,
    queue: VhostQueue,
}

impl Bed {
    fn new(features: u64) -> Self {
        let umem = Umem::new(256, 2048, HugePages::Off).unwrap();
        let (mut cache, guest) = (FrameCache::new(Arc::clone(&umem)), Guest::new(features));
        let mut queue = guest.queue(&umem, 64);
        queue.refill(&mut cache);
        Self { umem, cache, guest, queue }
    }

    fn receive(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.queue.receive(&mut frames, 64);
        self.queue.refill(&mut self.cache);
        frames
    }

    fn cut(&mut self, frame: Frame) -> Vec<Vec<u8>> {
        let mut segments = Segments::new(frame);
        let mut found = Vec::new();
        while let Some(frame) = segments.next(&mut self.cache) {
            found.push(frame.data().to_vec());
            self.cache.put(frame);
        }
        assert_eq!(segments.left(), Count::default());
        segments.finish(&mut self.cache);
        found
    }

    fn malformed(&self) -> u64 {
        self.guest.pair.counters.malformed.load(Ordering::Relaxed)
    }

    fn assert_balanced(&mut self) {
        self.queue.flush();
        self.queue.reap(&mut self.cache);
        assert_eq!((self.umem.census().held(), self.umem.tails_in_use()), (0, 0));
    }
}

fn packets() -> Vec<Tcp> {
    let mut packets = Vec::new();
    for (payload, size) in [(65_000, 1448), (1449, 1448), (2896, 1448), (1000, 48), (49, 48), (65_400, 1700)] {
        for is_v6 in [false, true] {
            packets.extend([None, Some(7)].map(|tag| Tcp { is_v6, tag, payload, size, ..Tcp::default() }));
        }
    }
    packets
}

#[test]
fn a_long_packet_takes_one_frame_and_is_cut_into_what_is_on_a_wire() {
    for features in [SENDS, SENDS | F_PACKED] {
        let mut bed = Bed::new(features);
        for tcp in packets() {
            let (header, packet) = tcp.packet();
            bed.guest.send(header, &packet);
            let mut frames = bed.receive();
            assert_eq!((frames.len(), bed.guest.gets_back()), (1, 1));
            let frame = frames.remove(0);
            assert!(frame.is_to_be_cut());
            assert_eq!(frame.len(), tcp.headers() + usize::from(tcp.size), "the first segment");
            let (packets, bytes) = tcp.on_wire();
            assert_eq!(frame.wire(), Count { packets, bytes });
            let sum: u64 = {
                let sent = bed.cut(frame);
                tcp.assert_on_wire(&sent);
                sent.iter().map(|frame| frame.len() as u64).sum()
            };
            assert_eq!(sum, bytes);
            bed.assert_balanced();
        }
        assert_eq!(bed.malformed(), 0);
    }
}

#[test]
fn what_fits_into_one_segment_is_only_a_checksum_to_be_made() {
    let mut bed = Bed::new(SENDS);
    for (payload, size) in [(1000, 1448), (1448, 1448), (0, 1448), (30, 0)] {
        let tcp = Tcp { payload, size, ..Tcp::default() };
        let (header, packet) = tcp.packet();
        bed.guest.send(header, &packet);
        let mut frames = bed.receive();
        let mut frame = frames.remove(0);
        assert!(!frame.is_to_be_cut() && !frame.is_plain());
        assert_eq!(frame.data(), packet);
        frame.fill_checksum();
        assert!(frame.is_plain());
        tcp.assert_on_wire(&[frame.data().to_vec()]);
        bed.cache.put(frame);
        bed.assert_balanced();
    }
}

#[test]
fn headers_that_are_not_true_of_their_packet_are_refused() {
    let (header, packet) = Tcp { payload: 5000, size: 1000, ..Tcp::default() }.packet();
    let wrong = [
        NetHeader { gso_size: 0, ..header },
        NetHeader { gso_size: 2000, ..header },
        NetHeader { csum_start: 33, ..header },
        NetHeader { csum_offset: 6, ..header },
        NetHeader { flags: 0, ..header },
        NetHeader { gso_type: 4, ..header },
        NetHeader { gso_type: 3, ..header },
        NetHeader { gso_type: GSO_TCPV4 | 0x80, ..header },
        NetHeader { gso_type: 0, ..header },
    ];
    let mut bed = Bed::new(SENDS);
    for (count, header) in (1..).zip(wrong) {
        bed.guest.send(header, &packet);
        assert!(bed.receive().is_empty(), "{header:?}");
        assert_eq!((bed.malformed(), bed.guest.gets_back()), (count, 1));
    }
    let sum = NetHeader { gso_type: 0, gso_size: 0, csum_start: 90, csum_offset: 9, ..header };
    bed.guest.send(sum, &packet[..100]);
    assert!(bed.receive().is_empty());
    bed.guest.send(header, &[packet.as_slice(), &[0; 62_000]].concat());
    assert!(bed.receive().is_empty(), "longer than any packet");
    bed.assert_balanced();
}

#[test]
fn a_header_means_nothing_unless_the_guest_has_negotiated_it() {
    let (header, packet) = Tcp { payload: 100, ..Tcp::default() }.packet();
    let mut bed = Bed::new(F_VERSION_1);
    bed.guest.send(NetHeader { flags: 0xff, gso_type: 0xff, ..header }, &packet);
    let mut frames = bed.receive();
    assert!(frames[0].is_plain());
    bed.cache.put(frames.remove(0));
    let mut bed = Bed::new(F_VERSION_1 | F_CSUM);
    let (header, long) = Tcp { payload: 3000, size: 1000, ..Tcp::default() }.packet();
    bed.guest.send(header, &long);
    assert!(bed.receive().is_empty(), "cutting was not negotiated");
    bed.guest.send(NetHeader { flags: DATA_VALID, ..NetHeader::PLAIN }, &packet);
    let mut frames = bed.receive();
    assert!(frames[0].is_plain());
    bed.cache.put(frames.remove(0));
    bed.assert_balanced();
}

#[test]
fn a_burst_takes_a_few_long_packets_and_the_rest_wait() {
    let mut bed = Bed::new(SENDS);
    let (header, packet) = Tcp { payload: 60_000, size: 1448, ..Tcp::default() }.packet();
    (0..12).for_each(|_| bed.guest.send(header, &packet));
    for expected in [8, 4, 0] {
        let frames = bed.receive();
        assert_eq!(frames.len(), expected);
        assert_eq!(bed.umem.tails_in_use() as usize, expected);
        frames.into_iter().for_each(|frame| bed.cache.put(frame));
    }
    bed.assert_balanced();
}

#[test]
fn a_long_packet_waits_while_no_tail_is_free() {
    let mut bed = Bed::new(SENDS);
    let mut taken: Vec<_> = std::iter::from_fn(|| bed.umem.take_tail()).collect();
    assert_eq!(taken.len() as u32, bed.umem.tails_in_use());
    let (header, packet) = Tcp { payload: 5000, size: 1448, ..Tcp::default() }.packet();
    bed.guest.send(header, &packet);
    assert!(bed.receive().is_empty() && bed.queue.has_received());
    bed.umem.put_tail(taken.pop().unwrap());
    let frames = bed.receive();
    assert_eq!(frames.len(), 1);
    frames.into_iter().for_each(|frame| bed.cache.put(frame));
    taken.into_iter().for_each(|tail| bed.umem.put_tail(tail));
    bed.assert_balanced();
}

/// The frame of a packet that a guest has sent.
fn sent(bed: &mut Bed, tcp: &Tcp) -> Frame {
    let mut sender = Guest::new(SENDS);
    let mut queue = sender.queue(&bed.umem, 4);
    queue.refill(&mut bed.cache);
    let (header, packet) = tcp.packet();
    sender.send(header, &packet);
    let mut frames = Vec::new();
    assert_eq!(queue.receive(&mut frames, 1), 1);
    queue.close(&mut bed.cache);
    frames.remove(0)
}

#[test]
fn a_guest_that_takes_long_packets_gets_them_as_they_were_sent() {
    for (features, merges) in [(TAKES, true), (TAKES | F_PACKED, true), (TAKES & !F_MRG_RXBUF, false)] {
        for tcp in packets() {
            let mut bed = Bed::new(features);
            let mut frame = sent(&mut bed, &tcp);
            if merges {
                bed.guest.give_room(48, 1526);
            } else {
                bed.guest.give_long_room();
            }
            let (packets, bytes) = tcp.on_wire();
            assert_eq!(bed.queue.send_long(&mut frame), Count { packets, bytes });
            bed.cache.put(frame);
            let (header, packet) = tcp.packet();
            let got = bed.guest.receive();
            assert_eq!(got.len(), 1);
            assert_eq!(got[0].0, NetHeader { num_buffers: got[0].0.num_buffers, ..header });
            assert!(got[0].1 == packet, "{tcp:?}");
            bed.assert_balanced();
        }
    }
}

#[test]
fn other_guests_get_segments() {
    // Without checksums, without segments of this kind, and with buffers that are too short for the whole.
    for (features, room) in [
        (F_VERSION_1 | F_MRG_RXBUF, 1526),
        (F_VERSION_1, 2048),
        (TAKES & !F_GUEST_TSO4, 1526),
        (TAKES & !F_GUEST_CSUM, 1526),
        (TAKES & !F_MRG_RXBUF, 2048),
    ] {
        let mut bed = Bed::new(features);
        let tcp = Tcp { payload: 60_000, size: 1000, tag: Some(5), ..Tcp::default() };
        let mut frame = sent(&mut bed, &tcp);
        bed.guest.give_room(128, room);
        let (packets, bytes) = tcp.on_wire();
        assert_eq!(bed.queue.send_long(&mut frame), Count { packets, bytes });
        bed.cache.put(frame);
        let got: Vec<_> = bed.guest.receive();
        assert!(got.iter().all(|(header, _)| header.is_plain()), "{features:#x}");
        tcp.assert_on_wire(&got.into_iter().map(|(_, packet)| packet).collect::<Vec<_>>());
        bed.assert_balanced();
    }
}

#[test]
fn a_guest_with_too_little_room_takes_what_fits() {
    let tcp = Tcp { payload: 60_000, size: 1000, ..Tcp::default() };
    let mut bed = Bed::new(TAKES);
    let mut frame = sent(&mut bed, &tcp);
    assert_eq!(bed.queue.send_long(&mut frame), Count::default());
    bed.guest.give_room(10, 1526);
    assert_eq!(bed.queue.send_long(&mut frame), Count::default(), "a part of it is of no use");
    bed.cache.put(frame);
    assert!(bed.guest.receive().is_empty());
    bed.assert_balanced();
    let mut bed = Bed::new(F_VERSION_1);
    let mut frame = sent(&mut bed, &tcp);
    bed.guest.give_room(10, 1526);
    let segment = tcp.headers() as u64 + 1000;
    assert_eq!(bed.queue.send_long(&mut frame), Count { packets: 10, bytes: 10 * segment });
    bed.cache.put(frame);
    assert_eq!(bed.guest.receive().len(), 10);
    bed.assert_balanced();
}

#[test]
fn a_checksum_is_left_to_the_guest_or_made() {
    for features in [TAKES, F_VERSION_1 | F_MRG_RXBUF] {
        let mut bed = Bed::new(features);
        let tcp = Tcp { payload: 500, is_v6: true, ..Tcp::default() };
        let frame = sent(&mut bed, &tcp);
        bed.guest.give_room(1, 2048);
        assert_eq!(bed.queue.send(1, &mut std::iter::once(frame), &mut bed.cache), 1);
        let (header, packet) = tcp.packet();
        let (got, bytes) = bed.guest.receive().remove(0);
        if features == TAKES {
            assert_eq!((got, bytes), (header, packet));
        } else {
            assert_eq!(got, NetHeader::PLAIN);
            tcp.assert_on_wire(&[bytes]);
        }
        bed.assert_balanced();
    }
}

#[test]
fn copies_share_the_tail_and_the_last_one_frees_it() {
    let mut bed = Bed::new(TAKES);
    let tcp = Tcp { payload: 20_000, size: 1448, mark: 0x55, ..Tcp::default() };
    let frame = sent(&mut bed, &tcp);
    let mut copies: Vec<_> = (0..3).map(|_| bed.cache.take().unwrap()).collect();
    copies.iter_mut().for_each(|copy| bed.umem.copy(&frame, copy));
    bed.cache.put(frame);
    assert_eq!(bed.umem.tails_in_use(), 1);
    for copy in copies {
        let sent = bed.cut(copy);
        tcp.assert_on_wire(&sent);
    }
    bed.assert_balanced();
}
