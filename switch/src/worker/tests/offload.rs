//! Flows that move into the kernel, seen from the workers. The test plays XDP.

use std::sync::Arc;

use xdp_prog::{FlowMark, FlowTable};

use super::*;
use crate::offload::{Exit, Offload};

const OPEN: VlanMode = VlanMode::Access { vid: 0 };
const SENDER: usize = 0;
const RECEIVER: usize = 1;

const ANY_PORT: fn(u16) -> Option<u32> = |_| Some(1);

/// Writes a rule for all packets.
fn write(tables: &mut Tables, action: RuleAction) {
    let spec = RuleSpec { key_index: 1, key: RuleKey::default(), action };
    tables.change_rules(vec![RuleChange::Write(spec)], &ANY_PORT).unwrap();
}

/// A bed of three ports with a flow table.
fn bed(workers: usize, modes: [VlanMode; 3]) -> (Bed, Arc<Offload>) {
    let mut bed = Bed::new(workers, &modes);
    let offload = Arc::new(Offload::new(Arc::new(FlowTable::detached(256).unwrap()), workers));
    for port in 0..3 {
        offload.set_follows(port, true);
        offload.set_exit(port, Exit::Long);
    }
    offload.begin_epoch(&bed.shared.view.load());
    assert!(bed.shared.offload.set(Arc::clone(&offload)).is_ok());
    // All are known.
    for port in 0..3 {
        assert!(bed.kernels[port].receive(&frame(port as u8, None, 0, 60)));
    }
    bed.settle();
    (bed, offload)
}

/// A UDP packet between two stations, from that port.
fn udp(from: u8, to: u8, port: u16) -> Vec<u8> {
    let mut frame = [station(to), station(from)].concat();
    frame.extend([0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// Has frames come to the first port until their flow was met often enough.
fn send_many(bed: &mut Bed, frame: &[u8]) {
    for _ in 0..40 {
        for _ in 0..16 {
            assert!(bed.kernels[SENDER].receive(frame));
        }
        let sent = bed.settle();
        assert!(sent.iter().flatten().all(|sent| sent.len() >= frame.len()));
    }
}

fn view(bed: &Bed) -> Arc<View> {
    bed.shared.view.load_full()
}

fn states(offload: &Offload) -> Vec<OffloadState> {
    offload.flows().iter().map(|flow| flow.state).collect()
}

/// The only entry's slot.
fn slot(offload: &Offload) -> usize {
    let slots = offload.slots();
    assert_eq!(slots.len(), 1);
    slots[0]
}

#[test]
fn a_flow_with_many_frames_moves_when_its_last_has_left() {
    for workers in [1, 2] {
        let (mut bed, offload) = bed(workers, [OPEN, OPEN, OPEN]);
        let frame = udp(0, 1, 7);
        send_many(&mut bed, &frame);
        let slot = slot(&offload);
        let (table, view) = (offload.table(), view(&bed));
        assert!(!table.is_followed(slot) && offload.is_moving());
        // Numbers that are lost, or of an older time, change nothing.
        let [lost, one, two] = [(); 3].map(|()| table.number_packet(slot));
        assert_eq!(table.mark(&lost).map(|mark| mark.slot), Some(slot));
        for mark in [one, two] {
            assert!(!table.is_followed(slot));
            assert!(bed.kernels[SENDER].receive_behind(&mark, &frame));
        }
        offload.sweep(&view, 1);
        assert_eq!(states(&offload), [OffloadState::Moving]);
        assert_eq!(bed.settle()[RECEIVER].len(), 2);
        assert!(table.is_followed(slot), "{workers} workers");
        offload.sweep(&view, 1);
        assert_eq!((states(&offload), offload.is_moving()), (vec![OffloadState::Kernel], false));
        // What the kernel does counts as if a worker had done it.
        let rx = || view.ports[SENDER].as_ref().unwrap().queues[0].rx();
        let before = rx();
        table.count_packets(slot, 10, 600);
        bed.assert_balanced();
        offload.settle();
        assert_eq!((rx().packets - before.packets, rx().bytes - before.bytes), (10, 600));
        bed.assert_balanced();
    }
}

#[test]
fn numbers_of_others_count_for_nobody() {
    let (mut bed, offload) = bed(1, [OPEN, OPEN, OPEN]);
    let frame = udp(0, 1, 7);
    send_many(&mut bed, &frame);
    let slot = slot(&offload);
    let table = offload.table();
    let good = table.number_packet(slot);
    // A guest's bytes in front of a packet lack the cookie. A slot may be none.
    let mut forged = good;
    forged[11] ^= 1;
    let mut beyond = good;
    beyond[..4].copy_from_slice(&256_u32.to_ne_bytes());
    for mark in [&forged[..], &beyond, &good[..8], &[]] {
        assert_eq!(table.mark(mark), None);
        assert!(bed.kernels[SENDER].receive_behind(mark, &frame));
    }
    bed.settle();
    assert!(!table.is_followed(slot));
    offload.left(FlowMark { slot, number: table.sent(slot).wrapping_sub(1) });
    assert!(!table.is_followed(slot));
    assert!(bed.kernels[SENDER].receive_behind(&good, &frame));
    bed.settle();
    assert!(table.is_followed(slot));
}

#[test]
fn what_must_be_seen_by_the_switch_stays() {
    let frame = udp(0, 1, 7);
    let stays = |prepare: &dyn Fn(&mut Bed, &Offload)| {
        let (mut bed, offload) = bed(1, [OPEN, OPEN, OPEN]);
        prepare(&mut bed, &offload);
        send_many(&mut bed, &frame);
        assert!(offload.slots().is_empty(), "{:?}", offload.flows());
    };
    stays(&|_, offload| offload.set_follows(0, false));
    stays(&|_, offload| offload.set_exit(1, Exit::None));
    let tables = || Tables::new(Capacity::default(), 2);
    let meter = MeterSpec { kind: MeterType::Pps, ..MeterSpec::new(1, 1_000_000) };
    for (vport, direction) in [(0, MeterDirection::From), (1, MeterDirection::To)] {
        stays(&|bed, offload| {
            let mut tables = tables();
            tables.meters.add(meter.clone(), false, 0).unwrap();
            tables.meters.bind(&MeterBinding { vport, direction, meter: 1 }, &ANY_PORT).unwrap();
            bed.install(&tables);
            offload.begin_epoch(&bed.shared.view.load());
        });
    }
    for action in [
        RuleAction { meter: Some(1), ..RuleAction::to(RuleTarget::Normal) },
        RuleAction { mirror: Some(2), ..RuleAction::to(RuleTarget::Normal) },
    ] {
        stays(&|bed, offload| {
            let mut tables = tables();
            tables.meters.add(meter.clone(), false, 0).unwrap();
            write(&mut tables, action.clone());
            bed.install(&tables);
            offload.begin_epoch(&bed.shared.view.load());
        });
    }
    // A flood, and what is no IP packet.
    let (mut bed, offload) = bed(1, [OPEN, OPEN, OPEN]);
    send_many(&mut bed, &udp(0, 9, 7));
    send_many(&mut bed, &super::frame(0, Some(1), 5, 60));
    assert!(offload.slots().is_empty());
}

#[test]
fn an_entry_follows_policy_stations_and_ports() {
    let (mut bed, offload) = bed(1, [OPEN, OPEN, OPEN]);
    let frame = udp(0, 1, 7);
    send_many(&mut bed, &frame);
    let first = slot(&offload);
    offload.left(FlowMark { slot: first, number: offload.table().sent(first) });
    assert!(offload.table().is_followed(first));
    // Another policy: the entry holds no more at once, and is written anew when it was looked at.
    bed.install(&Tables::new(Capacity::default(), 2));
    offload.begin_epoch(&bed.shared.view.load());
    assert!(!offload.table().is_followed(first));
    offload.sweep(&view(&bed), 1);
    assert_eq!((slot(&offload), states(&offload)), (first, vec![OffloadState::Moving]));
    // A policy that leaves it as it is does not interrupt it.
    offload.left(FlowMark { slot: first, number: offload.table().sent(first) });
    let next = View {
        snapshot: view(&bed).snapshot.with_rules(9, Tables::new(Capacity::default(), 2).rules.current().clone()),
        ..View::clone(&view(&bed))
    };
    offload.carry_over(&next, 1);
    assert!(offload.table().is_followed(first), "by the policy that is");
    bed.shared.publish(next);
    bed.workers.iter_mut().for_each(Worker::refresh_view);
    offload.begin_epoch(&view(&bed));
    assert!(offload.table().is_followed(first), "and by the next");
    // The receiver moves to the third port.
    assert!(bed.kernels[2].receive(&super::frame(1, Some(0), 0, 60)));
    bed.settle();
    offload.sweep(&view(&bed), 1);
    assert_eq!(offload.flows()[0].egress.as_deref(), Some("p2"));
    // The sender moves: what comes from the first port is not its own any more.
    assert!(bed.kernels[2].receive(&super::frame(0, Some(2), 0, 60)));
    bed.settle();
    offload.sweep(&view(&bed), 1);
    assert!(offload.slots().is_empty());
    assert!(bed.kernels[SENDER].receive(&super::frame(0, Some(1), 0, 60)));
    bed.settle();
    send_many(&mut bed, &frame);
    assert_eq!(offload.slots().len(), 1);
    // The netdev takes nothing any more.
    offload.set_exit(2, Exit::None);
    offload.sweep(&view(&bed), 1);
    let info = offload.info();
    assert_eq!((info.flows, info.ended_by_port, info.ended_by_fdb), (0, 1, 1));
    assert_eq!(info.installed, 2);
    bed.assert_balanced();
}

#[test]
fn ports_have_their_shares() {
    let (mut bed, offload) = bed(1, [OPEN, OPEN, OPEN]);
    let mut tables = Tables::new(Capacity::default(), 2);
    write(&mut tables, RuleAction::to(RuleTarget::Normal));
    bed.install(&tables);
    let view = view(&bed);
    offload.begin_epoch(&view);
    for port in 0..200 {
        offload.offer(&view, 0, 0, &udp(0, 1, port), 60, 1);
    }
    let info = offload.info();
    assert_eq!(info.flows + u32::try_from(info.refused).unwrap(), 200);
    assert!((32..=42).contains(&info.flows), "a third of half of 256 slots: {info:?}");
    offload.offer(&view, 1, 0, &udp(1, 0, 9), 60, 1);
    assert_eq!(offload.info().flows, info.flows + 1, "another port has its own");
    // The same flow again is no other.
    offload.offer(&view, 1, 0, &udp(1, 0, 9), 60, 1);
    assert_eq!(offload.info().flows, info.flows + 1);
}
