//! Components on workers. The test has the other side of their ports and ends.

use proptest::prelude::*;

use super::*;
use crate::worker::component::{Component, Flows, Gate, Link, Set};
use crate::worker::ends::{NullEnd, OutsideEnd, Ring};

pub(super) const TO: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A component at that worker.
pub(super) fn component(
    worker: usize,
    kind: ComponentKind,
    rx: Vec<(Link, VlanEdit)>,
    tx: Vec<(Link, VlanEdit)>,
    table: Vec<TableEntry>,
) -> Component {
    // Which ends they are called in the specification does not matter to a worker.
    let ends = |links: &[(Link, VlanEdit)]| -> Vec<End> {
        links.iter().map(|(_, vlan)| End { port: EndPort::Null(0), vlan: *vlan }).collect()
    };
    let name = "c".to_owned();
    let spec = ComponentSpec { name, worker, kind, rx: ends(&rx), tx: ends(&tx), table };
    let links = |links: Vec<(Link, VlanEdit)>| links.into_iter().map(|(link, _)| link).collect();
    Component::new(spec, links(rx), links(tx), Arc::default())
}

pub(super) fn forward(worker: usize, from: Link, to: Link) -> Component {
    component(worker, ComponentKind::Forward, vec![plain(from)], vec![plain(to)], Vec::new())
}

fn plain(link: Link) -> (Link, VlanEdit) {
    (link, VlanEdit::None)
}

impl Bed {
    /// Free ports on so many workers.
    fn free(workers: usize, ports: usize) -> Self {
        Self::with_free(workers, &[], ports)
    }

    pub(super) fn port(&self, no: usize) -> Link {
        Link::Port(Arc::clone(self.shared.view.load().ports[no].as_ref().unwrap()), None)
    }

    fn run(&mut self, components: Vec<Component>) {
        self.run_with(components, Flows::default());
    }

    pub(super) fn run_with(&mut self, components: Vec<Component>, flows: Flows) {
        self.counters.extend(components.iter().map(|component| Arc::clone(&component.counters)));
        let components = components.into_iter().map(|component| (Arc::new(component), Gate::Open)).collect();
        drop(self.shared.components.publish(Arc::new(Set { components, flows })));
        self.workers.iter_mut().for_each(Worker::refresh_view);
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        let mut stats = PortStats::default();
        self.counters.iter().for_each(|counters| counters.shard.add_to(&mut stats));
        for port in self.shared.view.load().ports.iter().flatten() {
            port.shards.iter().for_each(|shard| shard.add_to(&mut stats));
        }
        stats.drops.get(reason.label()).map_or(0, |count| count.packets)
    }
}

fn ring(depth: u32) -> Arc<Ring> {
    Arc::new(Ring::new(0, depth))
}

/// A frame with a tag or none, marked.
pub(super) fn tagged(to: [u8; 6], tci: Option<u16>, mark: u8, len: usize) -> Vec<u8> {
    let mut frame = [to, [2, 0, 0, 0, 0, 1]].concat();
    if let Some(tci) = tci {
        frame.extend([0x81, 0, (tci >> 8) as u8, tci as u8]);
    }
    frame.extend([0x88, 0xb5, mark]);
    frame.resize(len.max(frame.len()), mark);
    frame
}

#[test]
fn a_forward_moves_frames_in_order_between_ports_of_two_workers() {
    let mut bed = Bed::free(2, 2);
    // Port 1 is at worker 1: its frames go there.
    bed.run(vec![forward(0, bed.port(0), bed.port(1))]);
    let frames: Vec<_> = (0..6).map(|mark| tagged(TO, None, mark, 60)).collect();
    frames.iter().for_each(|frame| assert!(bed.kernels[0].receive(frame)));
    assert!(bed.kernels[1].receive(&frames[0]), "nobody takes what comes from the other port");
    let sent = bed.settle();
    assert_eq!((&sent[0], &sent[1]), (&Vec::new(), &frames));
    assert!(bed.workers[1].egress.queues()[0].backend.has_received());
    // Once somebody does, it goes.
    bed.run(vec![forward(1, bed.port(1), bed.port(0))]);
    assert_eq!(bed.settle()[0], frames[..1]);
    bed.assert_balanced();
}

#[test]
fn a_worker_with_frames_that_nobody_takes_has_no_work() {
    let mut bed = Bed::free(1, 2);
    bed.run(vec![component(0, ComponentKind::Forward, vec![plain(bed.port(0))], Vec::new(), Vec::new())]);
    assert!(bed.kernels[0].receive(&tagged(TO, None, 1, 60)));
    bed.settle();
    assert!(!bed.workers[0].has_work());
    bed.run(vec![forward(0, bed.port(0), bed.port(1))]);
    assert!(bed.workers[0].has_work());
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn ports_of_the_bridge_and_of_components_do_not_see_each_other() {
    let access = VlanMode::Access { vid: 0 };
    let mut bed = Bed::with_free(1, &[access.clone(), access], 2);
    bed.run(vec![forward(0, bed.port(2), bed.port(3))]);
    let (flood, forwarded) = (frame(1, None, 1, 60), frame(2, None, 2, 60));
    assert!(bed.kernels[0].receive(&flood) && bed.kernels[2].receive(&forwarded));
    assert_eq!(bed.settle(), [vec![], vec![flood], vec![], vec![forwarded]]);
    assert_eq!(bed.shared.view.load().fdb.entries(0).len(), 1, "addresses behind components are not learned");
    bed.assert_balanced();
}

#[test]
fn what_the_bridge_is_told_to_send_to_a_port_of_components_is_dropped_with_a_reason() {
    let access = VlanMode::Access { vid: 0 };
    let mut bed = Bed::with_free(1, &[access.clone(), access], 1);
    let mut tables = Tables::new(Capacity::default(), 1);
    let ports = |no: u16| (no < 3).then_some(1);
    let rule = |key_index, src: u8, target, mirror| {
        let key = RuleKey {
            smac: Some(MaskedMac { value: MacAddr::new(station(src)), mask: MacAddr::BROADCAST.to_u64() }),
            ..RuleKey::default()
        };
        RuleChange::Write(RuleSpec { key_index, key, action: RuleAction { target, queue: None, meter: None, mirror } })
    };
    let rules = vec![rule(0, 1, RuleTarget::Port(2), None), rule(1, 2, RuleTarget::Normal, Some(2))];
    tables.change_rules(rules, &ports).unwrap();
    bed.install(&tables);
    for from in [1, 2] {
        assert!(bed.kernels[0].receive(&frame(from, None, from, 60)));
    }
    assert_eq!(bed.settle(), [vec![], vec![frame(2, None, 2, 60)], vec![]]);
    assert_eq!((bed.dropped(DropReason::RuleNoPort), bed.dropped(DropReason::PortGone)), (1, 1));
    tables.redirects.set(RedirectSpec { src: 1, dest: 2 }, &ports).unwrap();
    bed.install(&tables);
    assert!(bed.kernels[0].receive(&frame(3, None, 3, 60)));
    assert!(bed.settle().iter().all(Vec::is_empty));
    assert_eq!(bed.dropped(DropReason::PortGone), 2);
    bed.assert_balanced();
}

#[test]
fn tags_are_edited_on_the_way_in_and_on_the_way_out() {
    let add = VlanEdit::Add { vid: 100, pcp: 3 };
    let tci = Some(3 << 13 | 100);
    // (rx, tx, tag before, tag after)
    for (rx, tx, before, after) in [
        (add, VlanEdit::None, None, tci),
        (VlanEdit::None, add, None, tci),
        (add, VlanEdit::None, Some(0xf005), tci),
        (VlanEdit::None, add, Some(0xf005), tci),
        (VlanEdit::Del, VlanEdit::None, Some(7), None),
        (VlanEdit::None, VlanEdit::Del, Some(7), None),
        (VlanEdit::Del, VlanEdit::None, None, None),
        (VlanEdit::Del, add, Some(7), tci),
        (add, VlanEdit::Del, None, None),
        (VlanEdit::None, VlanEdit::None, Some(7), Some(7)),
    ] {
        for by_ring in [false, true] {
            let mut bed = Bed::free(1, 2);
            let (from, to) = ((bed.port(0), rx), (bed.port(1), tx));
            let kind = ComponentKind::Forward;
            bed.run(match by_ring {
                false => vec![component(0, kind, vec![from], vec![to], Vec::new())],
                true => {
                    let ring = ring(64);
                    let edited = component(0, kind, vec![from], vec![(Link::Ring(Arc::clone(&ring)), tx)], Vec::new());
                    vec![edited, forward(0, Link::Ring(ring), to.0)]
                }
            });
            assert!(bed.kernels[0].receive(&tagged(TO, before, 5, 100)));
            let len = 100 + 4 * usize::from(after.is_some()) - 4 * usize::from(before.is_some());
            assert_eq!(bed.settle()[1], [tagged(TO, after, 5, len)], "{rx:?} {tx:?} {before:?}");
            bed.assert_balanced();
        }
    }
}

#[test]
fn a_frame_that_is_cut_off_or_longer_than_the_mtu_is_dropped_with_its_reason() {
    let mut bed = Bed::free(1, 2);
    let add = VlanEdit::Add { vid: 1, pcp: 0 };
    bed.run(vec![component(0, ComponentKind::Forward, vec![plain(bed.port(0))], vec![(bed.port(1), add)], Vec::new())]);
    let good = [tagged(TO, None, 1, 1514), tagged(TO, Some(9), 2, 1518)];
    let bad = [
        tagged(TO, None, 3, 1515),
        tagged(TO, Some(9), 4, 1519),
        vec![1; 13],
        tagged(TO, Some(1), 0, 0)[..16].to_vec(),
    ];
    let [too_long, too_long_too, too_short, cut_off] = &bad;
    // Those that are dropped come between others, and behind each other.
    for frame in [too_short, &good[0], too_long, cut_off, too_long_too, &good[1]] {
        assert!(bed.kernels[0].receive(frame));
    }
    assert_eq!(bed.settle()[1], [tagged(TO, Some(1), 1, 1518), tagged(TO, Some(1), 2, 1518)]);
    let dropped = [DropReason::EgressMtu, DropReason::FrameTooShort, DropReason::VlanMalformed].map(|r| bed.dropped(r));
    assert_eq!(dropped, [2, 1, 1]);
    bed.assert_balanced();
}

#[test]
fn a_merge_takes_from_all_and_a_ring_that_is_full_drops_the_newest() {
    let mut bed = Bed::free(1, 2);
    let ring = ring(8);
    let ports = vec![plain(bed.port(0)), plain(bed.port(1))];
    let merge = component(0, ComponentKind::Merge, ports, vec![plain(Link::Ring(Arc::clone(&ring)))], Vec::new());
    let counters = Arc::clone(&merge.counters);
    bed.run(vec![merge]);
    for mark in 0..6 {
        assert!(
            bed.kernels[0].receive(&tagged(TO, None, mark, 60)) && bed.kernels[1].receive(&tagged(TO, None, mark, 60))
        );
    }
    bed.settle();
    assert_eq!((ring.queued().packets, bed.dropped(DropReason::RingFull)), (8, 4));
    assert_eq!((counters.rx.read().packets, counters.tx.read().packets, ring.counts()[2].packets), (12, 8, 4));
    // What it holds is still there for another one.
    bed.run(vec![forward(0, Link::Ring(ring), bed.port(1))]);
    let marks: Vec<_> = bed.settle()[1].iter().map(|frame| frame[14]).collect();
    assert_eq!(marks, [0, 1, 2, 3, 4, 5, 0, 1]);
    bed.assert_balanced();
}

#[test]
fn a_classifier_sends_by_address_to_the_vlan_and_to_the_defaults() {
    let mut bed = Bed::free(1, 4);
    let entry = |vlan, mac: Option<[u8; 6]>, tx| TableEntry { vlan, mac: mac.map(MacAddr::new), tx };
    let (a, b, unknown, group) = ([2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xc], [0xff; 6]);
    let table = vec![
        entry(None, Some(a), 0),
        entry(None, None, 2),
        entry(Some(7), Some(a), 1),
        entry(Some(7), Some(b), 0),
        entry(Some(8), None, 1),
    ];
    let ends = (1..4).map(|no| plain(bed.port(no))).collect();
    bed.run(vec![component(0, ComponentKind::Classifier, vec![plain(bed.port(0))], ends, table)]);
    // (to, VLAN, ports that get it)
    let cases: [(_, _, &[usize]); 10] = [
        (a, None, &[1]),
        (b, None, &[3]),
        (a, Some(7), &[2]),
        (b, Some(7), &[1]),
        (unknown, Some(7), &[3]),
        (unknown, Some(8), &[2]),
        (unknown, Some(9), &[3]),
        (group, None, &[1, 3]),
        (group, Some(7), &[1, 2, 3]),
        (group, Some(9), &[3]),
    ];
    for (mark, (to, vlan, ports)) in cases.into_iter().enumerate() {
        let frame = tagged(to, vlan, mark as u8, 60);
        assert!(bed.kernels[0].receive(&frame));
        let sent = bed.settle();
        for (no, sent) in sent.iter().enumerate() {
            let expected = if ports.contains(&no) { vec![frame.clone()] } else { Vec::new() };
            assert_eq!(*sent, expected, "case {mark}, port {no}");
        }
    }
    bed.assert_balanced();
}

#[test]
fn what_a_classifier_has_no_entry_for_is_dropped() {
    let mut bed = Bed::free(1, 2);
    let table = vec![TableEntry { vlan: Some(7), mac: None, tx: 0 }];
    let (rx, tx) = (vec![plain(bed.port(0))], vec![plain(bed.port(1))]);
    bed.run(vec![component(0, ComponentKind::Classifier, rx, tx, table)]);
    for frame in [tagged(TO, None, 0, 60), tagged([0xff; 6], Some(8), 0, 60), vec![0; 3]] {
        assert!(bed.kernels[0].receive(&frame));
    }
    assert!(bed.settle()[1].is_empty());
    assert_eq!((bed.dropped(DropReason::ClassifierMiss), bed.dropped(DropReason::FrameTooShort)), (2, 1));
    bed.assert_balanced();
}

#[test]
fn a_mirror_gives_each_end_its_own_frame() {
    let mut bed = Bed::free(1, 3);
    let ends = vec![(bed.port(1), VlanEdit::Del), (bed.port(2), VlanEdit::Add { vid: 4095, pcp: 7 })];
    bed.run(vec![component(0, ComponentKind::Mirror, vec![plain(bed.port(0))], ends, Vec::new())]);
    for mark in 0..20 {
        assert!(bed.kernels[0].receive(&tagged(TO, Some(5), mark, 200)));
    }
    let sent = bed.settle();
    assert_eq!(sent[1], (0..20).map(|mark| tagged(TO, None, mark, 196)).collect::<Vec<_>>());
    assert_eq!(sent[2], (0..20).map(|mark| tagged(TO, Some(0xefff), mark, 200)).collect::<Vec<_>>());
    bed.assert_balanced();
}

#[test]
fn a_frame_that_fills_its_chunk_can_be_tagged_and_copied() {
    let mut bed = Bed::free(1, 1);
    let (ring, null) = (ring(8), Link::Null(Arc::default()));
    let add = VlanEdit::Add { vid: 1, pcp: 0 };
    let ends = vec![plain(Link::Ring(Arc::clone(&ring))), plain(null.clone())];
    bed.run(vec![
        component(0, ComponentKind::Mirror, vec![(bed.port(0), add)], ends, Vec::new()),
        component(
            0,
            ComponentKind::Mirror,
            vec![(Link::Ring(ring), add)],
            vec![plain(null.clone()), plain(null)],
            Vec::new(),
        ),
    ]);
    assert!(bed.kernels[0].receive(&tagged(TO, None, 1, 2048 - HEADROOM as usize)));
    bed.settle();
    let left: u64 = bed.counters.iter().map(|counters| counters.left.read().bytes).sum();
    assert_eq!(left, 3 * (2048 - u64::from(HEADROOM) + 4));
    bed.assert_balanced();
}

#[test]
fn null_ends_give_a_burst_a_turn_and_take_all() {
    let mut bed = Bed::free(1, 1);
    let (from, to) = (Arc::new(NullEnd::default()), Arc::new(NullEnd::default()));
    bed.run(vec![forward(0, Link::Null(Arc::clone(&from)), Link::Null(Arc::clone(&to)))]);
    (0..3).for_each(|_| assert!(bed.workers[0].turn()));
    let count = Count { packets: 3 * BURST as u64, bytes: 64 * 3 * BURST as u64 };
    assert_eq!((from.rx.read(), to.tx.read()), (count, count));
    assert!(bed.workers[0].has_work());
    bed.run(vec![forward(0, Link::Null(from), bed.port(0))]);
    bed.workers[0].turn();
    assert_eq!(bed.kernels[0].transmit(), vec![vec![0; 64]; BURST]);
    bed.run(Vec::new());
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn an_outside_end_gets_copies_and_what_it_has_no_room_for_is_counted() {
    let mut bed = Bed::free(1, 1);
    let (outside, queue) = OutsideEnd::new(3, 20);
    let outside = Arc::new(outside);
    bed.run(vec![forward(0, bed.port(0), Link::Outside(Arc::clone(&outside)))]);
    assert!(bed.kernels[0].receive(&tagged(TO, None, 7, 60)));
    bed.settle();
    let frame = queue.try_recv().unwrap();
    assert_eq!((frame.data.as_slice(), frame.wire_len), (&tagged(TO, None, 7, 60)[..20], 60));
    let room = queue.capacity().unwrap();
    for _ in 0..=room {
        assert!(bed.kernels[0].receive(&tagged(TO, None, 7, 60)));
        bed.settle();
    }
    assert_eq!((queue.len(), outside.refused.read().packets), (room, 1));
    assert_eq!(bed.dropped(DropReason::OutsideFull), 1);
    bed.assert_balanced();
}

#[test]
fn meters_of_ports_hold_for_components() {
    let mut bed = Bed::free(1, 2);
    let mut tables = Tables::new(Capacity::default(), 1);
    let ports = |no: u16| (no < 2).then_some(1);
    for (meter, direction, burst) in [(0, MeterDirection::From, 10), (1, MeterDirection::To, 4)] {
        let spec = MeterSpec { kind: MeterType::Pps, burst: Some(burst), ..MeterSpec::new(meter, 1) };
        tables.meters.add(spec, true, 0).unwrap();
        tables.meters.bind(&MeterBinding { vport: meter as u16, direction, meter }, &ports).unwrap();
    }
    bed.install(&tables);
    bed.run(vec![forward(0, bed.port(0), bed.port(1))]);
    for mark in 0..20 {
        assert!(bed.kernels[0].receive(&tagged(TO, None, mark, 60)));
    }
    assert_eq!(bed.settle()[1], (0..4).map(|mark| tagged(TO, None, mark, 60)).collect::<Vec<_>>());
    assert_eq!((bed.dropped(DropReason::MeterFrom), bed.dropped(DropReason::MeterTo)), (10, 6));
    bed.assert_balanced();
}

proptest! {
    /// Components of any kind in a row, over rings, whatever comes in: the books balance.
    #[test]
    fn the_books_balance_with_any_components(
        workers in 1usize..3,
        edits in prop::collection::vec(0u8..3, 8),
        kinds in prop::collection::vec(0u8..3, 3),
        bursts in prop::collection::vec(
            prop::collection::vec((0usize..2, prop::collection::vec(any::<u8>(), 0..40)), 0..30),
            1..6,
        ),
    ) {
        let mut bed = Bed::free(workers, 4);
        let edit = |n: usize| match edits[n] {
            0 => VlanEdit::None,
            1 => VlanEdit::Add { vid: 3, pcp: 1 },
            _ => VlanEdit::Del,
        };
        let rings = [ring(8), ring(8)];
        let link = |n: usize| Link::Ring(Arc::clone(&rings[n]));
        let all = [ComponentKind::Merge, ComponentKind::Mirror, ComponentKind::Classifier];
        let kind = |n: usize| all[usize::from(kinds[n])];
        let table = vec![TableEntry { vlan: None, mac: None, tx: 0 }, TableEntry { vlan: Some(3), mac: None, tx: 0 }];
        let make = |n: usize, rx: Vec<Link>, tx: [Link; 2]| {
            let kind = kind(n);
            let ends = if kind == ComponentKind::Merge { 1 } else { 2 };
            let rx = if kind == ComponentKind::Merge { rx } else { rx[..1].to_vec() };
            let table = if kind == ComponentKind::Classifier { table.clone() } else { Vec::new() };
            let rx = rx.into_iter().map(|link| (link, edit(2 * n))).collect();
            let tx = tx.into_iter().take(ends).map(|link| (link, edit(2 * n + 1))).collect();
            component(n % workers, kind, rx, tx, table)
        };
        let null = Link::Null(Arc::default());
        let components = vec![
            make(0, vec![bed.port(0), bed.port(1)], [link(0), bed.port(2)]),
            make(1, vec![link(0)], [link(1), null]),
            make(2, vec![link(1)], [bed.port(3), bed.port(0)]),
        ];
        bed.run(components);
        for burst in bursts {
            for (port, data) in burst {
                bed.kernels[port].receive(&data);
            }
            bed.settle();
        }
        // Ports that no component takes frames from keep them.
        for worker in &mut bed.workers {
            let set = worker.shared.components.epoch();
            prop_assert_eq!(worker.components.epoch(), set);
        }
        bed.assert_balanced();
    }
}
