//! Packets that guests leave to be finished: each receiver gets what it can take, and all counts are of the wire.
#![cfg(not(miri))]

use std::time::Duration;

use proptest::prelude::*;
use vhost_user::net::net_header::{F_MRG_RXBUF, F_VERSION_1};
use vhost_user::net::{F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6, NetHeader};

use super::components::forward;
use super::*;
use crate::capture::Tap;
use crate::engine::storm::StormControl;
use crate::io::backend::Backend;
use crate::io::queue_rings::RingMemory;
use crate::io::vhost::test_guest::{Guest, Tcp};
use crate::worker::view::View;

pub(super) const ALL: u64 =
    F_VERSION_1 | F_MRG_RXBUF | F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6;
pub(super) const NONE: u64 = F_VERSION_1 | F_MRG_RXBUF;
const LONG: Tcp = Tcp { from: 0, to: Some(1), is_v6: false, tag: None, payload: 30_000, size: 1448, mark: 3 };

pub(super) fn access(vid: Vid) -> VlanMode {
    VlanMode::Access { vid }
}

/// Puts a guest at a port in place of the queue in memory.
pub(super) fn guest_at(bed: &mut Bed, port: PortNo, features: u64) -> Guest {
    let at = usize::from(port) % bed.workers.len();
    let worker = &mut bed.workers[at];
    let [queue] = worker.remove(|queue| queue.port.no == port).try_into().expect("a queue");
    let shared = Arc::clone(&queue.port);
    queue.backend.close(Duration::ZERO, worker.egress.cache());
    let mut guest = Guest::new(features);
    let mut backend = guest.queue(&bed.shared.umem, 32);
    backend.refill(worker.egress.cache());
    worker.add(Queue::new(shared, 0, Backend::Vhost(backend)));
    guest.give_room(200, 1526);
    guest
}

/// Puts guests at the first ports, with these features. `None`: the queue in memory stays.
pub(super) fn guests_at(bed: &mut Bed, features: Vec<Option<u64>>) -> Vec<Option<Guest>> {
    (0..).zip(features).map(|(port, features)| features.map(|features| guest_at(bed, port, features))).collect()
}

/// Has station `n` of a guest known.
fn learn(bed: &mut Bed, guest: &mut Guest, n: u8) {
    guest.send(NetHeader::PLAIN, &frame(n, None, 0, 60));
    bed.settle();
}

fn send(bed: &mut Bed, guest: &mut Guest, tcp: &Tcp) -> Vec<Vec<Vec<u8>>> {
    let (header, packet) = tcp.packet();
    guest.send(header, &packet);
    let sent = bed.settle();
    assert_eq!(guest.gets_back(), 1);
    sent
}

/// What was sent out of a port's queue 0, and came in there.
fn counts(bed: &Bed, port: usize) -> (Count, Count) {
    let view = bed.shared.view.load();
    let counters = &view.ports[port].as_ref().unwrap().queues[0].counters;
    (counters.rx.read(), counters.tx.read())
}

fn wire(tcp: &Tcp) -> Count {
    let (packets, bytes) = tcp.on_wire();
    Count { packets, bytes }
}

fn minus(now: Count, before: Count) -> Count {
    Count { packets: now.packets - before.packets, bytes: now.bytes - before.bytes }
}

fn finish(mut bed: Bed) {
    bed.assert_balanced();
    assert_eq!(bed.shared.umem.tails_in_use(), 0);
}

#[test]
fn between_guests_a_packet_passes_as_it_is_and_counts_as_on_a_wire() {
    for workers in [1, 2] {
        let mut bed = Bed::new(workers, &[access(0), access(0)]);
        let (mut a, mut b) = (guest_at(&mut bed, 0, ALL), guest_at(&mut bed, 1, ALL));
        learn(&mut bed, &mut a, 0);
        learn(&mut bed, &mut b, 1);
        drop((a.receive(), b.receive()));
        a.gets_back();
        // Often enough for the flow cache to have it.
        for mark in 0..8 {
            for is_v6 in [false, true] {
                let tcp = Tcp { mark, is_v6, size: if is_v6 { 1428 } else { 1448 }, ..LONG };
                let before = (counts(&bed, 0).0, counts(&bed, 1).1);
                send(&mut bed, &mut a, &tcp);
                let (header, packet) = tcp.packet();
                let got = b.receive();
                assert_eq!(got.len(), 1);
                assert_eq!(got[0].0, NetHeader { num_buffers: got[0].0.num_buffers, ..header });
                assert!(got[0].1 == packet);
                b.give_room(got[0].0.num_buffers.into(), 1526);
                assert_eq!(minus(counts(&bed, 0).0, before.0), wire(&tcp));
                assert_eq!(minus(counts(&bed, 1).1, before.1), wire(&tcp));
            }
        }
        assert!(a.receive().is_empty());
        finish(bed);
    }
}

#[test]
fn a_port_without_offloads_gets_segments_with_checksums() {
    for workers in [1, 2] {
        for memory in [SHARED, RingMemory::Own] {
            let mut bed = Bed::with_memory(workers, &[access(0), access(0)], (0, 1), vec![memory]);
            let mut a = guest_at(&mut bed, 0, ALL);
            learn(&mut bed, &mut a, 0);
            a.gets_back();
            assert!(bed.kernels[1].receive(&frame(1, None, 0, 60)));
            bed.settle();
            for tcp in [LONG, Tcp { is_v6: true, size: 1428, ..LONG }, Tcp { payload: 700, size: 0, ..LONG }] {
                let before = counts(&bed, 1).1;
                let sent = send(&mut bed, &mut a, &tcp);
                tcp.assert_on_wire(&sent[1]);
                assert_eq!(minus(counts(&bed, 1).1, before), wire(&tcp));
            }
            finish(bed);
        }
    }
}

#[test]
fn each_receiver_of_a_flood_gets_what_it_can_take() {
    for workers in [1, 2] {
        let mut bed = Bed::new(workers, &[access(0), access(0), access(0), access(0)]);
        let mut a = guest_at(&mut bed, 0, ALL);
        let (mut b, mut c) = (guest_at(&mut bed, 1, ALL), guest_at(&mut bed, 2, NONE));
        let tcp = Tcp { to: None, ..LONG };
        let sent = send(&mut bed, &mut a, &tcp);
        tcp.assert_on_wire(&sent[3]);
        let (header, packet) = tcp.packet();
        let got = b.receive().remove(0);
        assert_eq!((got.0.gso_type, got.0.flags), (header.gso_type, header.flags));
        assert!(got.1 == packet);
        tcp.assert_on_wire(&c.receive().into_iter().map(|(_, packet)| packet).collect::<Vec<_>>());
        let mut stats = PortStats::default();
        bed.shared.view.load().ports[0].as_ref().unwrap().shards.iter().for_each(|shard| shard.add_to(&mut stats));
        let Count { packets, bytes } = wire(&tcp);
        assert_eq!(stats.flood_copies, Count { packets: 2 * packets, bytes: 2 * bytes });
        finish(bed);
    }
}

#[test]
fn tags_are_put_on_and_taken_off_of_every_segment() {
    let trunk = VlanMode::Trunk { native: None, tagged: VlanSet::all() };
    let mut bed = Bed::new(1, &[access(5), trunk.clone(), trunk]);
    let mut a = guest_at(&mut bed, 0, ALL);
    let mut c = guest_at(&mut bed, 2, ALL);
    let sent = send(&mut bed, &mut a, &Tcp { to: None, ..LONG });
    Tcp { to: None, tag: Some(5), ..LONG }.assert_on_wire(&sent[1]);
    let (header, packet) = Tcp { to: None, tag: Some(5), ..LONG }.packet();
    let got = c.receive().remove(0);
    assert_eq!(got.0, NetHeader { num_buffers: got.0.num_buffers, ..header });
    assert!(got.1 == packet);
    // The other way the tag goes.
    a.receive();
    let back = Tcp { from: 2, to: None, tag: Some(5), ..LONG };
    let sent = send(&mut bed, &mut c, &back);
    back.assert_on_wire(&sent[1]);
    let (header, packet) = Tcp { tag: None, ..back }.packet();
    let got = a.receive().remove(0);
    assert_eq!(got.0, NetHeader { num_buffers: got.0.num_buffers, ..header });
    assert!(got.1 == packet);
    finish(bed);
}

fn meter(burst: u32) -> MeterSpec {
    MeterSpec { kind: MeterType::Pps, burst: Some(burst), ..MeterSpec::new(1, 1) }
}

/// A guest, and a port in memory, with that meter.
fn metered(burst: u32, bind: impl FnOnce(&mut Tables)) -> (Bed, Guest) {
    let mut bed = Bed::new(1, &[access(0), access(0)]);
    let mut a = guest_at(&mut bed, 0, ALL);
    learn(&mut bed, &mut a, 0);
    a.gets_back();
    assert!(bed.kernels[1].receive(&frame(1, None, 0, 60)));
    bed.settle();
    let mut tables = Tables::new(Capacity::default(), 1);
    tables.meters.add(meter(burst), false, bed.shared.now_ns()).unwrap();
    bind(&mut tables);
    bed.install(&tables);
    (bed, a)
}

#[test]
fn meters_take_tokens_for_each_segment_and_let_as_many_pass_as_there_are() {
    let ports = |_| Some(1);
    let bound = |direction: MeterDirection, vport| {
        move |tables: &mut Tables| {
            tables.meters.bind(&MeterBinding { vport, direction, meter: 1 }, &ports).unwrap();
        }
    };
    let rule = |tables: &mut Tables| {
        let action = RuleAction { meter: Some(1), ..RuleAction::to(RuleTarget::Normal) };
        let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action };
        tables.change_rules(vec![RuleChange::Write(rule)], &ports).unwrap();
    };
    let all = wire(&LONG).packets;
    for (burst, passes) in [(all as u32 + 2, all), (10, 10)] {
        let beds = [
            (metered(burst, bound(MeterDirection::From, 0)), DropReason::MeterFrom),
            (metered(burst, bound(MeterDirection::To, 1)), DropReason::MeterTo),
            (metered(burst, rule), DropReason::MeterRule),
        ];
        for ((mut bed, mut a), reason) in beds {
            let sent = send(&mut bed, &mut a, &LONG);
            assert_eq!(sent[1].len() as u64, passes, "{reason:?}");
            assert_eq!(bed.dropped(reason), all - passes, "{reason:?}");
            if passes == all {
                LONG.assert_on_wire(&sent[1]);
            }
            finish(bed);
        }
    }
}

#[test]
fn the_mtu_holds_for_segments() {
    let mut bed = Bed::new(1, &[access(0), access(0)]);
    let mut a = guest_at(&mut bed, 0, ALL);
    let mut b = guest_at(&mut bed, 1, ALL);
    learn(&mut bed, &mut b, 1);
    // 1,500 bytes behind the Ethernet header, and one more.
    let fits = Tcp { size: 1448, ..LONG };
    send(&mut bed, &mut a, &fits);
    assert_eq!(b.receive().len(), 1);
    let long = Tcp { size: 1449, ..LONG };
    send(&mut bed, &mut a, &long);
    assert!(b.receive().is_empty());
    assert_eq!(bed.dropped(DropReason::EgressMtu), wire(&long).packets);
    finish(bed);
}

#[test]
fn a_device_that_is_full_drops_the_rest_of_the_segments() {
    let mut bed = Bed::new(1, &[access(0), access(0)]);
    let mut a = guest_at(&mut bed, 0, ALL);
    assert!(bed.kernels[1].receive(&frame(1, None, 0, 60)));
    bed.settle();
    let tcp = Tcp { size: 100, payload: 20_000, ..LONG };
    let sent = send(&mut bed, &mut a, &tcp);
    assert_eq!(sent[1].len() as u64, u64::from(DEPTH));
    assert_eq!(bed.dropped(DropReason::TxRingFull), wire(&tcp).packets - u64::from(DEPTH));
    finish(bed);
}

#[test]
fn segments_without_a_free_frame_are_dropped_and_counted() {
    let mut bed = Bed::new(1, &[access(0), access(0)]);
    let mut a = guest_at(&mut bed, 0, ALL);
    assert!(bed.kernels[1].receive(&frame(1, None, 0, 60)));
    bed.settle();
    let cache = bed.workers[0].egress.cache();
    let mut held: Vec<_> = std::iter::from_fn(|| cache.take()).collect();
    held.drain(..5).for_each(|frame| cache.put(frame));
    let sent = send(&mut bed, &mut a, &LONG);
    assert!((1..=5).contains(&sent[1].len()), "{}", sent[1].len());
    assert_eq!(bed.dropped(DropReason::NoFrame), wire(&LONG).packets - sent[1].len() as u64);
    let cache = bed.workers[0].egress.cache();
    held.into_iter().for_each(|frame| cache.put(frame));
    finish(bed);
}

#[test]
fn a_guest_without_room_costs_all_of_the_packet() {
    let mut bed = Bed::new(1, &[access(0), access(0)]);
    let (mut a, mut b) = (guest_at(&mut bed, 0, ALL), guest_at(&mut bed, 1, ALL));
    learn(&mut bed, &mut b, 1);
    for _ in 0..20 {
        send(&mut bed, &mut a, &LONG);
    }
    // 200 chains, of which a packet takes 20.
    assert_eq!(b.receive().len(), 10);
    assert_eq!(bed.dropped(DropReason::TxRingFull), 10 * wire(&LONG).packets);
    finish(bed);
}

#[test]
fn components_get_segments_and_so_does_who_captures() {
    let mut bed = Bed::with_free(1, &[access(0), access(0)], 2);
    let (mut a, mut b) = (guest_at(&mut bed, 2, ALL), guest_at(&mut bed, 0, ALL));
    bed.run_with(vec![forward(0, bed.port(2), bed.port(3))], Default::default());
    // More segments than a burst has.
    let tcp = Tcp { size: 400, payload: 40_000, ..LONG };
    let (header, packet) = tcp.packet();
    a.send(header, &packet);
    let mut sent = Vec::new();
    while bed.workers[0].turn() {
        sent.extend(bed.kernels[3].transmit());
    }
    sent.extend(bed.kernels[3].transmit());
    tcp.assert_on_wire(&sent);
    // Who captures where the packet comes in, and where it goes out.
    let taps = [0, 1].map(|port: u8| Tap::new(vec![format!("p{port}")], None, 2048));
    let old = bed.shared.view.load_full();
    let lists = taps.iter().map(|tap| vec![Arc::clone(tap)]).collect();
    let mut view = View { taps: Arc::new(lists), ..View::clone(&old) };
    view.snapshot.epoch += 1;
    bed.shared.publish(view);
    bed.workers.iter_mut().for_each(Worker::refresh_view);
    assert!(bed.kernels[1].receive(&frame(1, None, 0, 60)));
    bed.settle();
    taps.iter().for_each(|tap| drop(tap.receive(Duration::ZERO)));
    let sent = send(&mut bed, &mut b, &LONG);
    LONG.assert_on_wire(&sent[1]);
    for tap in &taps {
        LONG.assert_on_wire(&tap.receive(Duration::ZERO).into_iter().map(|frame| frame.data).collect::<Vec<_>>());
    }
    finish(bed);
}

#[test]
fn a_mirror_gets_a_long_packet_too() {
    let mut bed = Bed::new(1, &[access(0), access(0), access(0)]);
    let (mut a, mut b) = (guest_at(&mut bed, 0, ALL), guest_at(&mut bed, 1, ALL));
    learn(&mut bed, &mut b, 1);
    let mut tables = Tables::new(Capacity::default(), 1);
    let action = RuleAction { mirror: Some(2), ..RuleAction::to(RuleTarget::Normal) };
    let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action };
    tables.change_rules(vec![RuleChange::Write(rule)], &|_| Some(1)).unwrap();
    bed.install(&tables);
    let sent = send(&mut bed, &mut a, &LONG);
    LONG.assert_on_wire(&sent[2]);
    assert_eq!(b.receive().len(), 1);
    let counts = tables.rules.current().get(1).map(|rule| rule.matched());
    assert_eq!(counts, Some(wire(&LONG)));
    finish(bed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever guests send to whomever, frames are in one place, and packets and bytes add up.
    #[test]
    fn packets_and_bytes_add_up(
        workers in 1usize..3,
        features in prop::collection::vec(prop_oneof![Just(Some(ALL)), Just(Some(NONE)), Just(None)], 3),
        storm in prop_oneof![Just(0_u32), Just(30_u32)],
        bindings in prop::collection::vec((0u16..4, any::<bool>()), 0..3),
        packets in prop::collection::vec(
            (prop::option::of(0u8..4), any::<bool>(), prop::option::of(0u16..6), 0usize..20_000, 0u16..1500), 1..40),
    ) {
        let trunk = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let mut bed = Bed::new(workers, &[access(0), trunk.clone(), access(5), trunk]);
        let mut a = guest_at(&mut bed, 3, ALL);
        let mut others = guests_at(&mut bed, features);
        let mut tables = Tables::new(Capacity::default(), workers);
        tables.meters.add(meter(60), false, bed.shared.now_ns()).unwrap();
        for (vport, from) in bindings {
            let direction = if from { MeterDirection::From } else { MeterDirection::To };
            tables.meters.bind(&MeterBinding { vport, direction, meter: 1 }, &|_| Some(1)).unwrap();
        }
        bed.install(&tables);
        bed.shared.view.load().ports[3].as_ref().unwrap().storm.configure(storm, bed.shared.now_ns());
        for (to, is_v6, tag, payload, size) in packets {
            let size = if size < 48 { 0 } else { size };
            let payload = if size == 0 { payload % 1400 } else { payload.min(usize::from(size) * 60) };
            let tcp = Tcp { from: 3, to, is_v6, tag, payload, size, mark: 1 };
            let (header, packet) = tcp.packet();
            a.send(header, &packet);
            bed.settle();
            a.gets_back();
            for other in others.iter_mut().flatten() {
                let got = other.receive();
                let chains: u16 = got.iter().map(|(header, _)| header.num_buffers).sum();
                other.give_room(chains.into(), 1526);
            }
        }
        prop_assert_eq!(bed.shared.umem.tails_in_use(), 0);
        bed.assert_balanced();
    }
}

/// The storm control of ports is off at first.
#[test]
fn storm_control_counts_each_segment() {
    let mut bed = Bed::new(1, &[access(0), access(0), access(0)]);
    let mut a = guest_at(&mut bed, 0, ALL);
    assert!(!StormControl::default().is_on());
    let view = bed.shared.view.load_full();
    let storm = &view.ports[0].as_ref().unwrap().storm;
    // Its bucket is full after some time at a high rate.
    storm.configure(u32::MAX, bed.shared.now_ns());
    std::thread::sleep(Duration::from_millis(5));
    storm.configure(5, bed.shared.now_ns());
    let tcp = Tcp { to: None, ..LONG };
    let sent = send(&mut bed, &mut a, &tcp);
    let passed = sent[1].len() as u64;
    assert!((5..=7).contains(&passed), "{passed}");
    assert_eq!(bed.dropped(DropReason::Storm), wire(&tcp).packets - passed);
    finish(bed);
}
