//! Packets of several chunks: whoever gets one gets all of it, wherever its frames lie.

use std::time::Duration;

use super::*;
use crate::capture::Tap;
use crate::io::queue_rings::RingMemory;
use crate::worker::ends::Ring;
use crate::worker::view::View;

const MTU: u32 = 9000;
/// A packet of the largest MTU: six chunks of these tests' UMEM.
const LEN: usize = 14 + MTU as usize;

/// A packet whose bytes tell their places.
fn jumbo(from: u8, to: Option<u8>, len: usize) -> Vec<u8> {
    let mut packet = frame(from, to, 1, 15);
    packet.extend((packet.len()..len).map(|at| (at % 251) as u8));
    packet
}

/// As [`jumbo`], with a tag.
fn tagged(packet: &[u8], tci: u16) -> Vec<u8> {
    [&packet[..12], &[0x81, 0], &tci.to_be_bytes(), &packet[12..]].concat()
}

fn access(vid: u16) -> VlanMode {
    VlanMode::Access { vid }
}

/// With queues that share frames, and with queues that have their own.
fn beds(workers: usize, modes: &[VlanMode], free: usize) -> impl Iterator<Item = Bed> {
    [vec![SHARED], vec![RingMemory::Own], vec![SHARED, RingMemory::Own]]
        .into_iter()
        .map(move |memory| Bed::with_mtu(MTU, workers, modes, (free, 1), memory))
}

impl Bed {
    /// What comes out of each port for a packet that comes in there.
    fn pass(&mut self, from: usize, packet: &[u8]) -> Vec<Vec<Vec<u8>>> {
        assert!(self.kernels[from].receive(packet));
        self.settle()
    }

    fn dropped_at(&self, port: usize, reason: DropReason) -> Count {
        let mut stats = PortStats::default();
        let view = self.shared.view.load();
        view.ports[port].iter().flat_map(|port| &port.shards).for_each(|shard| shard.add_to(&mut stats));
        stats.drops.get(reason.label()).copied().unwrap_or_default()
    }
}

#[test]
fn a_flood_and_a_learned_station_get_all_bytes() {
    for workers in [1, 2] {
        for mut bed in beds(workers, &[access(0), access(0), access(0)], 0) {
            let flooded = jumbo(1, None, LEN);
            assert_eq!(bed.pass(1, &flooded), [vec![flooded.clone()], vec![], vec![flooded.clone()]]);
            for len in [1792, 1793, 2 * 1792, 2 * 1792 + 1, LEN] {
                let packet = jumbo(0, Some(1), len);
                assert_eq!(bed.pass(0, &packet), [vec![], vec![packet], vec![]]);
            }
            bed.assert_balanced();
        }
    }
}

#[test]
fn short_and_long_packets_of_a_burst_keep_their_order() {
    for mut bed in beds(1, &[access(0), access(0)], 0) {
        bed.pass(1, &frame(1, None, 0, 60));
        let sent: Vec<_> = [60, 3000, 61, LEN, 62, 4000].map(|len| jumbo(0, Some(1), len)).into();
        assert!(sent.iter().all(|packet| bed.kernels[0].receive(packet)));
        assert_eq!(bed.settle()[1], sent);
        bed.assert_balanced();
    }
}

#[test]
fn a_tag_is_put_on_and_taken_off() {
    let trunk = VlanMode::Trunk { native: None, tagged: VlanSet::all() };
    for mut bed in beds(1, &[access(5), trunk], 0) {
        let packet = jumbo(0, None, LEN);
        assert_eq!(bed.pass(0, &packet)[1], [tagged(&packet, 5)]);
        let back = jumbo(1, Some(0), LEN);
        assert_eq!(bed.pass(1, &tagged(&back, 5))[0], [back]);
        bed.assert_balanced();
    }
}

#[test]
fn a_mirror_and_a_capture_have_all_bytes() {
    for mut bed in beds(2, &[access(0), access(0), access(7)], 0) {
        let mut tables = Tables::new(Capacity::default(), 2);
        let action = RuleAction { mirror: Some(2), ..RuleAction::to(RuleTarget::Normal) };
        let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action };
        tables.change_rules(vec![RuleChange::Write(rule)], &|no| (no < 3).then_some(1)).unwrap();
        bed.install(&tables);
        let taps = [4000, LEN].map(|snaplen| Tap::new(Vec::new(), None, snaplen));
        let old = bed.shared.view.load_full();
        let mut view = View { taps: Arc::new(vec![taps.to_vec(); 3]), ..View::clone(&old) };
        view.snapshot.epoch += 1;
        bed.shared.publish(view);
        bed.workers.iter_mut().for_each(Worker::refresh_view);
        let packet = jumbo(0, None, LEN);
        let sent = bed.pass(0, &packet);
        assert_eq!(sent, [vec![], vec![packet.clone()], vec![packet.clone()]]);
        for (tap, snaplen) in taps.iter().zip([4000, LEN]) {
            let frames = tap.receive(Duration::ZERO);
            assert_eq!(frames.len(), 3, "in, and out of two ports");
            for frame in frames {
                assert_eq!((frame.wire_len as usize, &frame.data[..]), (LEN, &packet[..snaplen]));
            }
        }
        bed.assert_balanced();
    }
}

#[test]
fn a_port_with_a_smaller_mtu_gets_none_and_the_whole_length_counts() {
    let mut bed = Bed::with_mtu(4000, 1, &[access(0), access(0)], (0, 1), vec![SHARED]);
    bed.pass(1, &frame(1, None, 0, 60));
    assert_eq!(bed.pass(0, &jumbo(0, Some(1), 4014))[1].len(), 1);
    assert_eq!(bed.pass(0, &jumbo(0, Some(1), 4015))[1].len(), 0);
    assert_eq!(bed.dropped_at(1, DropReason::EgressMtu), Count { packets: 1, bytes: 4015 });
    bed.assert_balanced();
}

#[test]
fn a_full_ring_drops_whole_packets() {
    for mut bed in beds(1, &[access(0), access(0)], 0) {
        bed.pass(1, &frame(1, None, 0, 60));
        // The wire takes nothing: the tx ring has room for ten packets of six chunks.
        let packet = jumbo(0, Some(1), LEN);
        for _ in 0..20 {
            while bed.kernels[0].receive(&packet) {}
            bed.workers.iter_mut().for_each(|worker| _ = worker.turn());
        }
        assert!(bed.dropped_at(1, DropReason::TxRingFull).packets > 0);
        assert!(bed.settle()[1].iter().all(|sent| *sent == packet));
        bed.assert_balanced();
    }
}

#[test]
fn components_and_their_rings_carry_all_bytes() {
    for mut bed in beds(1, &[], 3) {
        let ring = Arc::new(Ring::new(0, 64));
        let link = || crate::worker::component::Link::Ring(Arc::clone(&ring));
        let (from, to) = (bed.port(0), bed.port(1));
        bed.run_with(
            vec![super::components::forward(0, from, link()), super::components::forward(0, link(), to)],
            crate::worker::component::Flows::default(),
        );
        ring.set_reader(Some(0));
        for packet in [jumbo(0, Some(1), LEN), jumbo(0, Some(1), 60)] {
            assert_eq!(bed.pass(0, &packet)[1], [packet]);
        }
        let bytes = (LEN + 60) as u64;
        assert_eq!(ring.counts()[1], Count { packets: 2, bytes });
        bed.pass(0, &jumbo(0, Some(1), LEN + 1));
        bed.assert_balanced();
    }
}

#[test]
fn flow_rules_count_all_bytes_on_the_way_in_and_out() {
    for mut bed in beds(1, &[], 2) {
        let rule = |direction, edits: &[FlowEdit]| super::flows::rule(direction, 7, edits, FlowTarget::Normal);
        let ingress = bed.flows(0, &[rule(FlowDirection::Ingress, &[])], None);
        let egress = bed.flows(1, &[rule(FlowDirection::Egress, &[FlowEdit::Pop])], None);
        bed.run_flows(vec![super::components::forward(0, bed.port(0), bed.port(1))], &[&ingress, &egress]);
        // Short and long ones in a burst, and a burst of short ones behind it.
        let mut counted = Count::default();
        for lens in [&[60, 3000, 61, LEN][..], &[62]] {
            let sent: Vec<_> = lens.iter().map(|len| jumbo(0, Some(1), *len)).collect();
            assert!(sent.iter().all(|packet| bed.kernels[0].receive(&tagged(packet, 7))));
            assert_eq!(bed.settle()[1], sent);
            // With the length that they had when they met it.
            sent.iter().for_each(|packet| counted.add(Count { packets: 1, bytes: packet.len() as u64 + 4 }));
            assert_eq!(ingress.counts().collect::<Vec<_>>(), [(7, counted)]);
            assert_eq!(egress.counts().collect::<Vec<_>>(), [(7, counted)]);
        }
        bed.assert_balanced();
    }
}
