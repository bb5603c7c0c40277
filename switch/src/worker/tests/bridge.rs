//! The bridge on workers: frames go where they are to go, and the books balance.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::engine::bridge::{
    BurstContext, DirectLookup, FloodVerdict, NoTrace, Verdict, decide, flood_verdict, mirror_check,
};
use crate::engine::fdb::Fdb;
use crate::engine::parse::ETHERTYPE_IPV4;
use crate::engine::parse::tests::udp_in_ipv4;
use crate::engine::vlan::{self, TagEdit};
use crate::io::queue_rings::RingMemory;

/// Which port a rule of an even place is about.
fn port_of(key_index: u32) -> u32 {
    key_index / 2 % 4
}

/// Where the frames of four ports lie.
fn memory() -> impl Strategy<Value = Vec<RingMemory>> {
    prop::collection::vec(prop::sample::select(vec![SHARED, RingMemory::Own]), 4)
}

proptest! {
    /// The oracle is a map from station to port. A station may move. Each frame is settled before the next.
    #[test]
    fn frames_go_where_a_simple_bridge_sends_them(
        workers in 1usize..4,
        memory in memory(),
        packets in prop::collection::vec((0usize..4, 0u8..6, prop::option::of(0u8..6), 15usize..1500), 1..80),
    ) {
        let mut bed = Bed::with_memory(workers, &[const { VlanMode::Access { vid: 0 } }; 4], (0, 1), memory);
        let mut known: HashMap<u8, usize> = HashMap::new();
        for (mark, (port, from, to, len)) in packets.into_iter().enumerate() {
            let data = frame(from, to, mark as u8, len);
            prop_assert!(bed.kernels[port].receive(&data));
            let sent = bed.settle();
            known.insert(from, port);
            let receivers = match to.and_then(|to| known.get(&to)) {
                Some(&there) => vec![there; usize::from(there != port)],
                None => (0..4).filter(|&other| other != port).collect(),
            };
            for (other, sent) in sent.iter().enumerate() {
                let expected = if receivers.contains(&other) { vec![data.clone()] } else { Vec::new() };
                prop_assert_eq!(sent, &expected);
            }
        }
        bed.assert_balanced();
    }

    /// Nor with any rules, mirrors, meters and redirects in force.
    #[test]
    fn the_books_balance_with_any_tables(
        workers in 1usize..3,
        memory in memory(),
        rules in prop::collection::vec((0u32..8, 0u16..6, prop::option::of(0u32..3), prop::option::of(0u16..4)), 0..8),
        bindings in prop::collection::vec((0u16..4, any::<bool>(), 0u32..3), 0..4),
        redirects in prop::collection::vec((0u16..4, 0u16..4), 0..4),
        bursts in prop::collection::vec(
            prop::collection::vec((0usize..4, 0u8..5, prop::option::of(0u8..5), 14usize..300), 0..30),
            1..8,
        ),
    ) {
        let all = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let access = VlanMode::Access { vid: 0 };
        let mut bed = Bed::with_memory(workers, &[all.clone(), access.clone(), all, access], (0, 1), memory);
        let mut tables = Tables::new(Capacity::default(), workers);
        let ports = |no: u16| (no < 4).then_some(1);
        for (id, mode) in [(0, MeterMode::Single), (1, MeterMode::Rfc2698), (2, MeterMode::Rfc4115)] {
            let two = mode != MeterMode::Single;
            let (peak_rate, yellow_dscp) = (two.then_some(3), two.then_some(9));
            let spec = MeterSpec {
                kind: MeterType::Pps, burst: Some(5), peak_burst: two.then_some(5), mode, peak_rate, yellow_dscp,
                ..MeterSpec::new(id, 2)
            };
            tables.meters.add(spec, true, 0).unwrap();
        }
        for (vport, from, meter) in bindings {
            let direction = if from { MeterDirection::From } else { MeterDirection::To };
            tables.meters.bind(&MeterBinding { vport, direction, meter }, &ports).unwrap();
        }
        for (key_index, target, meter, mirror) in rules {
            let target = [RuleTarget::Drop, RuleTarget::Normal].get(usize::from(target)).copied()
                .unwrap_or(RuleTarget::Port(target.saturating_sub(2)));
            let ingress_port = Some(Masked { value: port_of(key_index), mask: 3 }).filter(|_| key_index % 2 == 0);
            let key = RuleKey { ingress_port, ..RuleKey::default() };
            let action = RuleAction { target, queue: None, meter, mirror };
            tables.change_rules(vec![RuleChange::Write(RuleSpec { key_index, key, action })], &ports).unwrap();
        }
        for (src, dest) in redirects {
            // One that would be a loop is refused.
            let _ = tables.redirects.set(RedirectSpec { src, dest }, &ports);
        }
        bed.install(&tables);
        for burst in bursts {
            for (mark, (port, from, to, len)) in burst.into_iter().enumerate() {
                bed.kernels[port].receive(&frame(from, to, mark as u8, len));
            }
            let sent = bed.settle();
            prop_assert!(sent.iter().flatten().all(|frame| frame.len() >= 14));
        }
        bed.assert_balanced();
    }

    /// Bursts of packets of many flows, most of them remembered: the oracle decides on each alone, by tables of its
    /// own. Every port gets the same frames in the same order, and every rule counts the same.
    #[test]
    fn a_burst_goes_where_each_of_its_frames_would_alone(
        rules in prop::collection::vec((0u32..6, 0u8..6, 0u16..7, prop::option::of(0u16..4), any::<bool>()), 1..6),
        bursts in prop::collection::vec(
            (0usize..4, prop::collection::vec((0u8..4, 0u8..6, 0u8..3, 60usize..200), 1..24)),
            1..10,
        ),
    ) {
        let all = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let access = |vid| VlanMode::Access { vid };
        let mut bed = Bed::new(1, &[access(0), all.clone(), access(0), all]);
        let mut tables = Tables::new(Capacity::default(), 1);
        let ports = |no: u16| (no < 4).then_some(1);
        tables.meters.add(MeterSpec::new(0, u32::MAX), true, 0).unwrap();
        for (key_index, to, target, mirror, metered) in rules {
            let dmac = Some(MaskedMac { value: MacAddr::new(station(to)), mask: MaskedMac::FULL });
            let target = [RuleTarget::Drop, RuleTarget::Normal, RuleTarget::Normal].get(usize::from(target)).copied()
                .unwrap_or(RuleTarget::Port(target.saturating_sub(3)));
            // Of every other rule there is nothing to do but to count it.
            let (mirror, meter) = if key_index % 2 == 0 { (None, None) } else { (mirror, metered.then_some(0)) };
            let action = RuleAction { target, queue: None, meter, mirror };
            let key = RuleKey { dmac, ..RuleKey::default() };
            tables.change_rules(vec![RuleChange::Write(RuleSpec { key_index, key, action })], &ports).unwrap();
        }
        bed.install(&tables);
        let oracle = View::clone(&bed.shared.view.load());
        let (snap, fdb) = (&oracle.snapshot, Fdb::new(256, 300, 9));
        let mut counted: HashMap<u32, Count> = HashMap::new();
        for (at, (port, burst)) in bursts.into_iter().enumerate() {
            let mut expected = vec![Vec::new(); 4];
            for (n, (from, to, source, len)) in burst.into_iter().enumerate() {
                let mut data = [station(to), station(from)].concat();
                data.extend(ETHERTYPE_IPV4.to_be_bytes());
                data.extend(udp_in_ipv4(len - 42));
                data[29] = source;
                let last = data.len() - 2;
                data[last..].copy_from_slice(&[at as u8, n as u8]);
                prop_assert!(bed.kernels[port].receive(&data));
                let ingress = port as PortNo;
                let context = BurstContext { snap, fdb: &fdb, now: 0, ingress, worker: 0 };
                let decision = decide(&context, &data, data.len(), &mut DirectLookup, &mut NoTrace);
                let mut receivers = Vec::new();
                match decision.verdict {
                    Verdict::Drop(_) => {}
                    Verdict::Unicast { port, edit, .. } => receivers.push((port, edit)),
                    Verdict::Flood { vid, tag } => {
                        for &port in snap.flood_ports(vid) {
                            let verdict = flood_verdict(snap, ingress, port, vid, tag, data.len());
                            if let FloodVerdict::Send { port, edit } = verdict {
                                receivers.push((port, edit));
                            }
                        }
                    }
                }
                if let Some(rule) = decision.rule {
                    counted.entry(rule.index).or_default().add(Count { packets: 1, bytes: data.len() as u64 });
                    if let Some(mirror) = rule.action.mirror
                        && !receivers.iter().any(|(port, _)| *port == mirror)
                        && mirror_check(snap, ingress, mirror, &data, data.len()).is_ok()
                    {
                        receivers.push((mirror, TagEdit::None));
                    }
                }
                for (port, edit) in receivers {
                    let mut buf = [&[0; 4][..], &data].concat();
                    let (start, len) = vlan::apply(edit, &mut buf, 4, data.len());
                    expected[usize::from(port)].push(buf[start..start + len].to_vec());
                }
            }
            prop_assert_eq!(bed.settle(), expected);
        }
        bed.assert_balanced();
        for rule in snap.rules.iter_from(0) {
            let expected = counted.get(&rule.index).copied().unwrap_or_default();
            // The oracle does not count at the rule itself.
            prop_assert_eq!(rule.matched(), expected);
        }
    }

    /// Whatever comes in, in bursts and with any bytes, nothing is lost from the books.
    #[test]
    fn the_books_balance_after_any_traffic(
        workers in 1usize..3,
        bursts in prop::collection::vec(
            prop::collection::vec((0usize..3, prop::collection::vec(any::<u8>(), 0..80)), 0..40),
            1..12,
        ),
    ) {
        let all = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let mut bed = Bed::new(workers, &[all.clone(), VlanMode::Access { vid: 0 }, all]);
        for burst in bursts {
            for (port, data) in burst {
                bed.kernels[port].receive(&data);
            }
            bed.settle();
        }
        bed.assert_balanced();
    }
}
