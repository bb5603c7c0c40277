//! What a queue gets of a worker is bounded by what others ask for, whatever its frames cost.

use super::components::{component, forward};
use super::*;
use crate::io::umem::Frame;
use crate::worker::shared::Injected;

/// Frames that a queue of the bed can have received: its fill ring.
const FULL: u32 = DEPTH / 2;
const PORTS: usize = 6;
/// Copies that a flood in the bed makes.
const COPIES: u64 = PORTS as u64 - 2;

fn bed() -> Bed {
    let mut bed = Bed::new(1, &[const { VlanMode::Access { vid: 0 } }; PORTS]);
    // Each port's station is known.
    for port in 0..PORTS {
        assert!(bed.kernels[port].receive(&frame(port as u8, None, 0, 60)));
        bed.settle();
    }
    bed
}

fn stats_of(bed: &Bed, port: usize) -> PortStats {
    let mut stats = PortStats::default();
    let view = bed.shared.view.load();
    view.ports[port].as_ref().unwrap().shards.iter().for_each(|shard| shard.add_to(&mut stats));
    stats
}

/// Lets as many frames come in by a port as there is room for. Returns how many.
fn fill(bed: &mut Bed, port: usize, data: &[u8]) -> u64 {
    (0..).take_while(|_| bed.kernels[port].receive(data)).count() as u64
}

fn transmit(bed: &mut Bed) -> u64 {
    bed.kernels.iter_mut().map(|kernel| kernel.transmit().len() as u64).sum()
}

#[test]
fn broadcasts_leave_to_unicast_what_it_asks_for() {
    const TURNS: u64 = 200;
    let mut bed = bed();
    let before = stats_of(&bed, 0).flood_copies.packets;
    let (mut came, mut sent) = (0, 0);
    for _ in 0..TURNS {
        fill(&mut bed, 0, &frame(0, None, 1, 60));
        came += fill(&mut bed, 1, &frame(1, Some(2), 2, 60));
        bed.workers[0].turn();
        sent += transmit(&mut bed);
    }
    assert_eq!(came, TURNS * u64::from(FULL), "each turn has taken all of the unicast");
    // As much as a burst of frames that are sent costs, and the flood that reaches it. A copy costs as much as three.
    let copies = stats_of(&bed, 0).flood_copies.packets - before;
    let floods = copies / COPIES;
    let most_a_turn = BURST as u64 * 9 / 8 + 3 * COPIES + 1;
    assert!(floods + 3 * copies <= TURNS * most_a_turn, "{floods} floods with {copies} copies");
    assert!(floods >= TURNS * 4, "floods have their share too: {floods}");
    assert!(sent >= came + floods);
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn two_that_cost_too_much_share_alike() {
    let mut bed = bed();
    let copies = |bed: &Bed| [0, 1].map(|port| stats_of(bed, port).flood_copies.packets);
    let before = copies(&bed);
    for _ in 0..400 {
        fill(&mut bed, 0, &frame(0, None, 1, 60));
        fill(&mut bed, 1, &frame(1, None, 1, 60));
        bed.workers[0].turn();
        transmit(&mut bed);
    }
    let [one, other] = [0, 1].map(|at| copies(&bed)[at] - before[at]);
    assert!(one.abs_diff(other) * 20 < one, "{one} and {other} copies");
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn who_is_alone_waits_for_nobody_and_all_arrive_in_order() {
    let mut bed = bed();
    let data: Vec<_> = (0..FULL as u8).map(|mark| frame(0, None, mark, 60)).collect();
    data.iter().for_each(|data| assert!(bed.kernels[0].receive(data)));
    // No turn is without work until all are sent, so that the worker does not sleep.
    let mut sent = vec![Vec::new(); PORTS];
    while bed.workers[0].turn() {
        sent.iter_mut().zip(&mut bed.kernels).for_each(|(sent, kernel)| sent.extend(kernel.transmit()));
    }
    assert!(sent[1..].iter().all(|sent| *sent == data));
    bed.assert_balanced();
}

#[test]
fn the_rest_of_a_burst_keeps_the_worker_awake_and_goes_with_its_port() {
    let mut bed = bed();
    fill(&mut bed, 0, &frame(0, None, 1, 60));
    fill(&mut bed, 1, &frame(1, Some(2), 2, 60));
    bed.workers[0].turn();
    transmit(&mut bed);
    let waiting = bed.workers[0].holdings().in_transit;
    assert!(waiting > 0 && bed.workers[0].has_work());
    assert_eq!(waiting, bed.shared.umem.census().held());
    let removed = bed.workers[0].remove(|queue| queue.port.no == 0);
    assert_eq!(stats_of(&bed, 0).drops["port_gone"].packets, u64::from(waiting));
    removed.into_iter().for_each(|queue| bed.workers[0].add(queue));
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn a_frame_of_a_rest_is_metered_once() {
    let meter = |kind, rate, burst| MeterSpec { kind, burst: Some(burst), ..MeterSpec::new(1, rate) };
    let no_rest = u64::from(FULL);
    for (spec, green) in [
        // All pass at once, or frame by frame: less than a burst has tokens.
        (meter(MeterType::Pps, 1_000_000_000, 100), no_rest),
        (meter(MeterType::Pps, 1, 20), 20),
    ] {
        let mut bed = bed();
        let mut tables = Tables::new(Capacity::default(), 1);
        tables.meters.add(spec, false, bed.shared.now_ns()).unwrap();
        let binding = MeterBinding { vport: 0, direction: MeterDirection::From, meter: 1 };
        tables.meters.bind(&binding, &|_| Some(1)).unwrap();
        bed.install(&tables);
        let before = stats_of(&bed, 0);
        assert_eq!(fill(&mut bed, 0, &frame(0, None, 1, 60)), no_rest);
        bed.settle();
        let after = stats_of(&bed, 0);
        let passed = (after.flood_copies.packets - before.flood_copies.packets) / COPIES;
        let red = after.drops.get("meter_from").map_or(0, |count| count.packets);
        assert_eq!((passed, red), (green, no_rest - green));
        let colors = bed.shared.view.load().meters.from(0).unwrap().counts();
        assert_eq!(colors.iter().map(|count| count.packets).sum::<u64>(), no_rest);
        bed.assert_balanced();
    }
}

#[test]
fn floods_from_a_packet_socket_are_bounded_too() {
    let mut bed = bed();
    let port = Arc::clone(bed.shared.view.load().ports[0].as_ref().unwrap());
    let data = frame(0, None, 1, 60);
    for _ in 0..BURST {
        let mut frame: Frame = bed.workers[0].egress.cache().take().unwrap();
        let start = frame.start();
        frame.chunk_mut()[start..start + data.len()].copy_from_slice(&data);
        frame.set(start, data.len());
        assert!(bed.shared.workers[0].injected.push(Injected { frame, port: Arc::clone(&port) }).is_ok());
    }
    fill(&mut bed, 1, &frame(1, Some(2), 2, 60));
    bed.workers[0].turn();
    let left = bed.shared.workers[0].injected.len();
    assert!(left > BURST / 2, "{left} wait for later turns");
    bed.settle();
    assert!(bed.shared.workers[0].injected.is_empty());
    bed.assert_balanced();
}

#[test]
fn what_storm_control_does_not_let_pass_is_dropped_with_a_reason_and_unicast_is_not() {
    let mut bed = bed();
    let port = Arc::clone(bed.shared.view.load().ports[0].as_ref().unwrap());
    // One copy a second, and one is there. The first flood takes those of the next seconds in advance.
    let second = 1_000_000_000;
    port.storm.configure(1, bed.shared.now_ns());
    port.storm.configure(1, bed.shared.now_ns() + second);
    let before = stats_of(&bed, 0).flood_copies.packets;
    for to in [None, Some(77), Some(3), None, Some(78), Some(3)] {
        assert!(bed.kernels[0].receive(&frame(0, to, 1, 60)));
    }
    let sent = bed.settle();
    let stats = stats_of(&bed, 0);
    assert_eq!(stats.flood_copies.packets - before, COPIES);
    assert_eq!(stats.drops["storm"].packets, 3);
    assert_eq!(sent[3].len(), 1 + 2, "the flood and what is for its station");
    bed.assert_balanced();
}

#[test]
fn a_component_that_copies_leaves_to_others_what_they_ask_for() {
    const TURNS: u64 = 200;
    let mut bed = Bed::with_free(1, &[], 5);
    let end = |bed: &Bed, port| (bed.port(port), VlanEdit::None);
    let receivers = (1..3).map(|port| end(&bed, port)).collect();
    let mirror = component(0, ComponentKind::Mirror, vec![end(&bed, 0)], receivers, Vec::new());
    bed.run_with(vec![mirror, forward(0, bed.port(3), bed.port(4))], Default::default());
    let mut came = [0, 0];
    for _ in 0..TURNS {
        came[0] += fill(&mut bed, 0, &frame(0, None, 1, 60));
        came[1] += fill(&mut bed, 3, &frame(1, None, 2, 60));
        bed.workers[0].turn();
        transmit(&mut bed);
    }
    assert_eq!(came[1], TURNS * u64::from(FULL), "each turn has taken all of the forward's");
    // A frame with a copy costs almost four times as much as one that is only sent. A burst has half a turn's frames.
    let bursts = came[0] / u64::from(FULL);
    assert!((TURNS / 2..=TURNS * 2 / 3).contains(&bursts), "{bursts} bursts in {TURNS} turns");
    bed.settle();
    bed.assert_balanced();
}
