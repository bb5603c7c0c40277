//! The flow cache against decisions without it.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::engine::bridge::FlowCache;
use crate::engine::parse::tests::{udp_in_ipv4, udp_in_ipv6};
use crate::engine::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::engine::tables::Tables;
use crate::engine::vlan::TagEdit;
use crate::model::{
    Capacity, LookupCounts, MaskedIp, MaskedMac, RedirectSpec, RuleAction, RuleChange, RuleKey, RuleSpec, RuleTarget,
};

/// What control does between two bursts.
#[derive(Clone, Debug)]
enum Change {
    Nothing,
    Rule((u32, u8, u16)),
    Redirect(PortNo, PortNo),
    Port(PortNo, PortPolicy),
    Static(u8, Vid, PortNo),
    Forget(PortNo),
    Resize(u32),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => Just(Change::Nothing),
        1 => (0_u32..4, 0_u8..7, 0_u16..10).prop_map(Change::Rule),
        1 => (0_u16..7, 0_u16..7).prop_map(|(src, dest)| Change::Redirect(src, dest)),
        1 => (0_u16..7, any_ports()).prop_map(|(no, mut ports)| Change::Port(no, ports.remove(0))),
        1 => (0_u8..7, 0_u16..6, 0_u16..7).prop_map(|(station, vid, port)| Change::Static(station, vid, port)),
        1 => (0_u16..7).prop_map(Change::Forget),
        1 => prop_oneof![Just(16_u32), Just(9_000)].prop_map(Change::Resize),
    ]
}

const V4_ALL: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);
const V6_ALL: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

/// A flow goes as it was decided until its destination moves, its policy changes, or a frame is too long.
fn follows_its_destination_and_its_policy(rules: Vec<RuleSpec>) -> LookupCounts {
    let mut tables = Tables::new(Capacity::default(), 1);
    let index = rules.first().map(|rule| rule.key_index);
    let changes = rules.into_iter().map(RuleChange::Write).collect();
    tables.change_rules(changes, &|_: PortNo| Some(1)).unwrap();
    let mut switch = Switch::new(vec![access(0), access(0), access(0)]);
    switch.snap = switch.snap.with_rules(2, tables.rules.current().clone());
    let mut cache = FlowCache::default();
    let packet = |len: usize| frame(mac(2), mac(1), &[], 0x0800, &udp_in_ipv4(len - 28));
    let mut verdict = |switch: &Switch, len| {
        cache.begin_burst();
        let decision = cache.decide(&switch.context(0, 0), &packet(len));
        assert_eq!(decision.rule.map(|rule| rule.index), index);
        decision.verdict
    };
    let to = |port| Verdict::Unicast { port, edit: TagEdit::None, queue: None, redirected_from: None };
    switch.fdb.learn(mac(2), 0, 1, 99, 0);
    for _ in 0..4 {
        assert_eq!(verdict(&switch, 60), to(1));
    }
    assert_eq!(verdict(&switch, 101), Verdict::Drop(DropReason::EgressMtu));
    switch.fdb.learn(mac(2), 0, 2, 99, 0);
    assert_eq!(verdict(&switch, 60), to(2));
    switch.fdb.flush_learned(None);
    assert_eq!(verdict(&switch, 60), Verdict::Flood { vid: 0, tag: None });
    switch.fdb.learn(mac(2), 0, 1, 99, 0);
    assert_eq!(verdict(&switch, 60), to(1));
    switch.snap = Snapshot::build(3, &BridgePolicy::default(), vec![(0, access(0)), (1, access(4))])
        .with_rules(3, tables.rules.current().clone());
    assert_eq!(verdict(&switch, 60), Verdict::Drop(DropReason::EgressVlan));
    cache.lookups()
}

#[test]
fn a_cached_flow_follows_its_destination_and_its_policy() {
    let rule = RuleSpec { key_index: 3, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Normal) };
    // A flow enters the cache when it misses again. So the third and the fourth packet are hits.
    let lookups = follows_its_destination_and_its_policy(vec![rule]);
    assert_eq!(lookups, LookupCounts { flow_cache: 2, exact_match: 6, classifier: 1 });
    assert_eq!(follows_its_destination_and_its_policy(vec![]), LookupCounts::default(), "no rule, no look-up");
}

/// With more flows in use than there is room for, those that are in the cache stay.
#[test]
fn of_more_flows_in_turn_than_there_is_room_for_as_many_hit_as_there_is_room_for() {
    let mut tables = Tables::new(Capacity::default(), 1);
    let rule = RuleSpec { key_index: 0, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Normal) };
    tables.change_rules(vec![RuleChange::Write(rule)], &|_: PortNo| Some(1)).unwrap();
    let mut switch = Switch::new(vec![access(0), access(0)]);
    switch.snap = switch.snap.with_rules(2, tables.rules.current().clone());
    switch.fdb.learn(mac(2), 0, 1, 99, 0);
    let mut cache = FlowCache::default();
    let mut hits_of = |flows: u16, cycles: u32| {
        let before = cache.lookups().flow_cache;
        for source in (0..cycles).flat_map(|_| 0..flows) {
            let mut payload = udp_in_ipv4(20);
            payload[20..22].copy_from_slice(&source.to_be_bytes());
            cache.begin_burst();
            cache.decide(&switch.context(0, 0), &frame(mac(2), mac(1), &[], ETHERTYPE_IPV4, &payload));
        }
        cache.lookups().flow_cache - before
    };
    hits_of(10_000, 60);
    let of_many = hits_of(10_000, 1);
    assert!(of_many >= 3_600, "{of_many} of 10,000");
    // Entries that are no longer in use give way.
    hits_of(1_000, 60);
    let of_few = hits_of(1_000, 1);
    assert!(of_few >= 950, "{of_few} of 1,000");
}

#[test]
fn without_rules_what_addresses_do_not_say_is_looked_at_each_time() {
    let own = PortPolicy { mac: Some(mac(1)), mac_check: true, ..access(0) };
    let switch = Switch::new(vec![own, access(0)]);
    switch.fdb.learn(mac(2), 0, 1, 99, 0);
    let mut cache = FlowCache::default();
    let arp = |sender: u8| {
        let mut payload =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, sender, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2].to_vec();
        payload.resize(46, 0);
        frame(mac(2), mac(1), &[], 0x0806, &payload)
    };
    for ethertype in [ETHERTYPE_IPV4, ETHERTYPE_IPV6, 0x0806, 0x1234] {
        let good = if ethertype == 0x0806 { arp(1) } else { frame(mac(2), mac(1), &[], ethertype, &[0; 46]) };
        for _ in 0..4 {
            cache.begin_burst();
            assert!(matches!(cache.decide(&switch.context(0, 0), &good).verdict, Verdict::Unicast { port: 1, .. }));
        }
        for (bad, reason) in [
            (arp(3), DropReason::ArpSpoofed),
            (frame(mac(2), mac(3), &[], ethertype, &[0; 46]), DropReason::MacSpoofed),
            (frame(mac(2), mac(1), &[(TPID_CTAG, 5)], ethertype, &[0; 46]), DropReason::VlanNotAllowed),
        ] {
            assert_eq!(cache.decide(&switch.context(0, 0), &bad).verdict, Verdict::Drop(reason), "{ethertype:#x}");
        }
        let from_elsewhere = cache.decide(&switch.context(0, 1), &good).verdict;
        assert_eq!(from_elsewhere, Verdict::Drop(DropReason::SamePort));
    }
}

#[test]
fn bursts_of_new_flows_are_prefetched_and_decided_as_any() {
    for rules in [0, 20] {
        let mut tables = Tables::new(Capacity::default(), 1);
        let rule = |n: u8| RuleSpec {
            key_index: n.into(),
            key: RuleKey { dmac: Some(MaskedMac { value: mac(n), mask: MaskedMac::FULL }), ..RuleKey::default() },
            action: RuleAction::to(if n.is_multiple_of(4) {
                RuleTarget::Drop
            } else {
                RuleTarget::Port(u16::from(n) % 3)
            }),
        };
        let changes = (0..rules).map(|n| RuleChange::Write(rule(n))).collect();
        tables.change_rules(changes, &|_: PortNo| Some(1)).unwrap();
        let [with, without] = [(); 2].map(|()| {
            let mut switch = Switch::new(vec![access(0), access(0), access(0)]);
            switch.snap = switch.snap.with_rules(2, tables.rules.current().clone());
            for n in 0..40 {
                switch.fdb.learn(mac(n), 0, u16::from(n) % 3, 99, 0);
            }
            switch
        });
        let mut cache = FlowCache::default();
        for burst in 0..8_u8 {
            // Each burst has a frame to each station, from another sender each time. Some are cut off, tagged, or no
            // IP.
            let frames: Vec<_> = (0..64_u8)
                .map(|n| {
                    let tags = if n % 16 == 5 { &[(TPID_CTAG, 7)][..] } else { &[] };
                    let ethertype = if n % 16 == 6 { 0x1234 } else { ETHERTYPE_IPV4 };
                    let mut bytes = frame(mac(n), mac(60 + 3 * burst), tags, ethertype, &udp_in_ipv4(20));
                    bytes.truncate(if n % 16 == 7 { usize::from(n) } else { bytes.len() });
                    bytes
                })
                .collect();
            let forwarded = decide_alike(&mut cache, [&with, &without], 0, 0, &frames, true).unwrap();
            assert!(forwarded > 12, "{forwarded} of burst {burst} with {rules} rules");
        }
        // Prefetching asks the classifier for the whole burst. Without it the exact-match cache would answer.
        let LookupCounts { exact_match, classifier, .. } = cache.lookups();
        assert!(
            rules == 0 || classifier > 4 * 64 && exact_match < 64,
            "{exact_match} exact-match, {classifier} classifier"
        );
    }
}

/// A few of something, or so many that the cache prefetches.
fn burst_of<S: Strategy>(one: S) -> impl Strategy<Value = Vec<S::Value>> {
    (prop::collection::vec(one, 30..80), prop::option::of(1_usize..12)).prop_map(|(mut all, few)| {
        all.truncate(few.unwrap_or(all.len()));
        all
    })
}

/// Decides on a burst with a cache, frame by frame or together as a worker does, and without one on a second switch.
/// Checks that both decide, count and learn the same. Returns how many frames go to one port.
fn decide_alike(
    cache: &mut FlowCache,
    [with, without]: [&Switch; 2],
    now: u32,
    ingress: PortNo,
    frames: &[Vec<u8>],
    together: bool,
) -> Result<usize, TestCaseError> {
    let context = with.context(now, ingress);
    let counted = || -> HashMap<u32, u64> {
        with.snap.rules.iter_from(0).map(|rule| (rule.index, rule.matched().packets)).collect()
    };
    let (mut said, mut runs, before) = (Vec::new(), Vec::new(), counted());
    cache.begin_burst();
    let mut rest = frames.iter().map(Vec::as_slice);
    loop {
        let (simple, after) = match (together, rest.clone().next()) {
            (true, _) => cache.lookup_burst(&context, rest.clone(), &mut runs),
            (false, next) => (0, next.map(|frame| cache.decide(&context, frame))),
        };
        let bytes: usize = rest.by_ref().take(simple).map(<[u8]>::len).sum();
        prop_assert_eq!(
            runs.iter().map(|run| (run.frames, run.bytes)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
            (simple, bytes)
        );
        for run in runs.drain(..) {
            let (port, edit, queue) = (run.egress.port(), run.egress.edit(), run.egress.queue());
            said.extend(vec![
                (Verdict::Unicast { port, edit, queue, redirected_from: None }, ingress, None);
                run.frames
            ]);
        }
        let (Some(decision), Some(frame)) = (after, rest.next()) else { break };
        if let Some(rule) = decision.rule {
            rule.applied(0, frame.len());
        }
        said.push((decision.verdict, decision.drop_port, Some(decision.rule.map(|rule| rule.index))));
    }
    prop_assert_eq!(said.len(), frames.len());
    let forwarded = said.iter().filter(|said| matches!(said.0, Verdict::Unicast { redirected_from: None, .. })).count();
    let mut counts = before;
    // Of a frame in a run only the count of its rule is known.
    for (frame, (verdict, at, rule)) in frames.iter().zip(said) {
        let decision = without.decision(now, ingress, frame);
        if let Some(applied) = decision.rule {
            *counts.entry(applied.index).or_default() += 1;
            prop_assert!(rule.is_some() || applied.action.mirror.is_none(), "nobody makes the rule's copy");
        }
        let expected = decision.rule.map(|rule| rule.index);
        prop_assert_eq!((verdict, at, rule.unwrap_or(expected)), (decision.verdict, decision.drop_port, expected));
    }
    prop_assert_eq!(counted(), counts);
    let rows = [with, without].map(|switch| {
        let rows = switch.fdb.entries(now).into_iter();
        rows.map(|row| (row.mac, row.vid, (row.port, row.is_static, row.age))).collect::<HashSet<_>>()
    });
    prop_assert_eq!(&rows[0], &rows[1]);
    Ok(forwarded)
}

/// Cached decisions name slots of an FDB that may be gone.
#[test]
fn a_smaller_fdb_is_not_asked_for_slots_of_the_one_before() {
    for rules in [0, 1] {
        let mut tables = Tables::new(Capacity::default(), 1);
        let rule = RuleSpec { key_index: 0, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Normal) };
        tables.change_rules(vec![RuleChange::Write(rule); rules], &|_: PortNo| Some(1)).unwrap();
        let [mut with, mut without] = [(); 2].map(|()| {
            let mut switch = Switch::new(vec![access(0), access(0)]);
            switch.snap = switch.snap.with_rules(2, tables.rules.current().clone());
            switch.fdb = Fdb::new(60_000, 300, 5);
            (0..64).for_each(|n| _ = switch.fdb.learn(mac(n), 0, 1, 99, 0));
            switch
        });
        let to = |n: u8| frame(mac(n), mac(200), &[], ETHERTYPE_IPV4, &udp_in_ipv4(20));
        let (known, unknown): (Vec<_>, Vec<_>) = ((0..64).map(to).collect(), (100..164).map(to).collect());
        let mut cache = FlowCache::default();
        for burst in [&known, &known, &known, &unknown, &known] {
            decide_alike(&mut cache, [&with, &without], 0, 0, burst, true).unwrap();
        }
        for switch in [&mut with, &mut without] {
            switch.fdb = switch.fdb.resized(16);
            switch.snap = switch.snap.with_rules(3, tables.rules.current().clone());
        }
        for burst in [&known, &unknown, &known] {
            decide_alike(&mut cache, [&with, &without], 0, 0, burst, true).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Two switches, one with a cache, decide and learn the same, whatever happens to both between bursts.
    #[test]
    fn what_is_cached_is_what_would_be_decided(
        ports in any_ports(),
        rules in prop::collection::vec((0_u32..4, 0_u8..7, 0_u16..10), 0..3),
        bursts in prop::collection::vec((any_change(), burst_of((any_sent(), 0_u8..15)), any::<bool>()), 1..12),
    ) {
        let mut tables = Tables::new(Capacity::default(), 1);
        let write = |tables: &mut Tables, (key_index, station, target): (u32, u8, u16)| {
            let dmac = Some(MaskedMac { value: mac(station), mask: MaskedMac::FULL });
            let from = |addr| Some(MaskedIp { addr, mask: if key_index == 2 { V4_ALL } else { V6_ALL } });
            let key = match key_index {
                2 => RuleKey { sip: from([10, 0, 0, station].into()), ..RuleKey::default() },
                3 => RuleKey { sip: from([0xfe80, 0, 0, 0, 0, 0, 0, station.into()].into()), ..RuleKey::default() },
                _ => RuleKey { dmac, ..RuleKey::default() },
            };
            let word = [RuleTarget::Drop, RuleTarget::Normal].get(usize::from(target.wrapping_sub(8))).copied();
            let mirror = (key_index == 1).then_some(target % 4);
            let action = RuleAction { mirror, ..RuleAction::to(word.unwrap_or(RuleTarget::Port(target))) };
            let rule = RuleSpec { key_index, key, action };
            tables.change_rules(vec![RuleChange::Write(rule)], &|_: PortNo| Some(1)).unwrap();
        };
        rules.into_iter().for_each(|rule| write(&mut tables, rule));
        let [mut with, mut without] = [Switch::new(ports.clone()), Switch::new(ports)];
        let mut cache = FlowCache::default();
        for (now, (change, burst, together)) in (0..).zip(bursts) {
            let epoch = u64::from(now) + 2;
            match change {
                Change::Nothing => {}
                Change::Rule(rule) => write(&mut tables, rule),
                Change::Redirect(src, dest) => {
                    drop(tables.redirects.set(RedirectSpec { src, dest }, &|_: PortNo| Some(1)));
                }
                Change::Port(no, ref port) => {
                    let old = with.snap.ports().map(|(no, port)| (no, port.clone()));
                    let ports = old.chain([(no, port.clone())]).collect();
                    with.snap = Snapshot::build(epoch, &BridgePolicy::default(), ports);
                }
                Change::Static(station, vid, port) => {
                    let added = [&with, &without].map(|switch| switch.fdb.add_static(mac(station), vid, port));
                    prop_assert_eq!(added[0], added[1]);
                }
                Change::Forget(port) => drop([&with, &without].map(|switch| switch.fdb.flush_learned(Some(port)))),
                Change::Resize(limit) => {
                    [&mut with, &mut without].into_iter().for_each(|switch| switch.fdb = switch.fdb.resized(limit));
                }
            }
            // Each change is a new policy.
            if !matches!(change, Change::Nothing) {
                let ends = tables.redirects.iter().map(|(spec, end)| (spec.src, end));
                with.snap = with.snap.with_redirects(ends).with_rules(epoch, tables.rules.current().clone());
            }
            without.snap = with.snap.clone();
            // A burst comes from one port.
            let ingress = burst[0].0.port;
            let frames = burst.into_iter().map(|(sent, kind)| {
                // Mostly packets that can be cached, from seven addresses.
                let mut payload = if kind < 8 { udp_in_ipv4(sent.len - 28) } else { udp_in_ipv6(sent.len - 48) };
                payload[if kind < 8 { 15 } else { 23 }] = kind % 8;
                let ethertype = match kind {
                    7 => 0x1234,
                    0..7 => ETHERTYPE_IPV4,
                    _ => ETHERTYPE_IPV6,
                };
                frame(address(sent.dst), address(sent.src), &sent.tags, ethertype, &payload)
            });
            decide_alike(&mut cache, [&with, &without], now, ingress, &frames.collect::<Vec<_>>(), together)?;
        }
    }

    /// The same without rules. There are so few stations, tags and lengths that most frames have a cached flow.
    #[test]
    fn without_rules_what_is_cached_is_what_would_be_decided(
        bursts in prop::collection::vec(
            (0_u16..3, burst_of((0_u8..3, 0_u8..3, 0_usize..4, 0_u8..8)), any::<bool>()), 1..24,
        ),
    ) {
        let trunk = |native| VlanMode::Trunk { native, tagged: "all".parse().unwrap() };
        let ports = [trunk(Some(5)), VlanMode::Access { vid: 5 }, trunk(None)].map(policy);
        let [with, without] = [(); 2].map(|()| Switch::new(ports.to_vec()));
        let mut cache = FlowCache::default();
        for (now, (ingress, burst, together)) in (0..).zip(bursts) {
            let frames = burst.into_iter().map(|(dst, src, tag, kind)| {
                let tags = [&[][..], &[(TPID_CTAG, 5)], &[(TPID_CTAG, 6)], &[(TPID_STAG, 0xa005)]][tag];
                let ethertype = if kind == 0 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
                frame(mac(dst), mac(src), tags, ethertype, &udp_in_ipv4(if kind == 1 { 90 } else { 20 }))
            });
            decide_alike(&mut cache, [&with, &without], now, ingress, &frames.collect::<Vec<_>>(), together)?;
        }
    }
}
