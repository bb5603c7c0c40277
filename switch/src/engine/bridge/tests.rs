//! The bridge against a small one written from the rules, in random topologies; rules one by one; trace against decide.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::engine::parse::tests::{udp_in_ipv4, udp_in_ipv6};
use crate::engine::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, TPID_CTAG, TPID_STAG};
use crate::engine::snapshot::BridgePolicy;
use crate::engine::tables::{PortMeters, Tables};
use crate::engine::trace::{TraceInput, trace};
use crate::engine::vlan::apply;
use crate::engine::vlan::tests::any_mode;
use crate::model::{
    Capacity, LookupCounts, Masked, MaskedIp, MaskedMac, RedirectSpec, RuleChange, RuleKey, RuleSpec, TraceReport,
    VlanMode,
};

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn policy(vlan: VlanMode) -> PortPolicy {
    PortPolicy { mac: None, mac_check: false, isolated: false, vlan, mtu: 100, fdb_limit: 4096 }
}

fn access(vid: Vid) -> PortPolicy {
    policy(VlanMode::Access { vid })
}

fn frame(dst: MacAddr, src: MacAddr, tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst.octets(), src.octets()].concat();
    tags.iter().for_each(|(tpid, tci)| frame.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat()));
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A snapshot, a table, and what workers do with them.
struct Switch {
    snap: Snapshot,
    fdb: Fdb,
}

impl Switch {
    fn new(ports: Vec<PortPolicy>) -> Self {
        let ports = (0..).zip(ports).collect();
        Self { snap: Snapshot::build(1, &BridgePolicy::default(), ports), fdb: Fdb::new(1000, 300, 5) }
    }

    fn scene(&self, now: u32, ingress: PortNo) -> Scene<'_> {
        Scene { snap: &self.snap, fdb: &self.fdb, now, ingress, worker: 0 }
    }

    fn decide(&self, ingress: PortNo, frame: &[u8]) -> Verdict {
        decide(&self.snap, &self.fdb, 0, ingress, frame, &mut NoObserver)
    }

    fn trace(&self, ingress: PortNo, frame: &[u8], names: Names<'_>) -> TraceReport {
        let Self { snap, fdb } = self;
        let meters = &PortMeters::default();
        let input = TraceInput { snapshot: snap, fdb, meters, now: 0, now_ns: 0, names, rule: None };
        trace(&input, ingress, frame)
    }

    /// The frames that come out of each port, or why none does.
    fn switch(&self, ingress: PortNo, frame: &[u8]) -> Result<BTreeMap<PortNo, Vec<u8>>, DropReason> {
        let edited = |edit| {
            let mut buf = [&[0; VLAN_TAG][..], frame].concat();
            let (start, len) = apply(edit, &mut buf, VLAN_TAG, frame.len());
            buf[start..start + len].to_vec()
        };
        match self.decide(ingress, frame) {
            Verdict::Drop(reason) => Err(reason),
            Verdict::Unicast { port, edit, .. } => Ok(BTreeMap::from([(port, edited(edit))])),
            Verdict::Flood { vid, tag } => {
                let (mut out, mut why) = (BTreeMap::new(), DropReason::NoDestination);
                for &port in self.snap.flood_ports(vid) {
                    match egress_check(&self.snap, ingress, port, vid, tag, frame.len()) {
                        Egress::Send { port, edit } => assert!(out.insert(port, edited(edit)).is_none(), "twice"),
                        Egress::Drop(reason) => why = reason,
                        Egress::Skip => {}
                    }
                }
                if out.is_empty() { Err(why) } else { Ok(out) }
            }
        }
    }
}

#[test]
fn a_frame_is_flooded_until_its_destination_has_spoken() {
    let switch = Switch::new(vec![access(0), access(0), access(0), access(7)]);
    let there = frame(mac(2), mac(1), &[], 0x1234, &[0; 46]);
    let back = frame(mac(1), mac(2), &[], 0x1234, &[0; 46]);
    assert_eq!(switch.switch(0, &there).unwrap().into_keys().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(switch.switch(1, &back).unwrap().into_keys().collect::<Vec<_>>(), [0]);
    assert_eq!(
        switch.decide(0, &there),
        Verdict::Unicast { port: 1, edit: TagEdit::None, queue: None, instead_of: None }
    );
    assert_eq!(switch.decide(3, &frame(mac(2), mac(3), &[], 1, &[])), Verdict::Flood { vid: 7, tag: None });
    assert_eq!(switch.switch(3, &frame(mac(2), mac(3), &[], 1, &[])), Err(DropReason::NoDestination));
    assert_eq!(switch.decide(1, &frame(mac(2), mac(9), &[], 1, &[])), Verdict::Drop(DropReason::SamePort));
}

#[test]
fn senders_are_checked_before_anything_is_learned() {
    let guarded = PortPolicy {
        mac: Some(mac(1)),
        mac_check: true,
        ..policy(VlanMode::Trunk { native: Some(0), tagged: "all".parse().unwrap() })
    };
    let switch = Switch::new(vec![guarded.clone(), access(0), PortPolicy { mac: None, ..guarded }]);
    let arp = |sender: MacAddr, hardware: u8| {
        let mut arp = vec![0, hardware, 8, 0, 6, 4, 0, 1];
        arp.extend([&sender.octets()[..], &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]].concat());
        arp
    };
    let from = |src, tags: &[(u16, u16)], ethertype, payload: &[u8]| {
        switch.decide(0, &frame(MacAddr::BROADCAST, src, tags, ethertype, payload))
    };
    let spoofed = Verdict::Drop(DropReason::ArpSpoofed);
    assert_eq!(from(mac(9), &[], 0x1234, &[]), Verdict::Drop(DropReason::MacSpoofed));
    assert_eq!(from(mac(0x81), &[], 0x1234, &[]), Verdict::Drop(DropReason::MacSpoofed));
    assert_eq!(from(MacAddr::ZERO, &[], 0x1234, &[]), Verdict::Drop(DropReason::SourceMacInvalid));
    assert_eq!(from(MacAddr::new([3, 0, 0, 0, 0, 1]), &[], 0x1234, &[]), Verdict::Drop(DropReason::SourceMacInvalid));
    for tags in [&[][..], &[(TPID_CTAG, 5)], &[(TPID_STAG, 5), (TPID_CTAG, 6)]] {
        for ethertype in [ETHERTYPE_ARP, ETHERTYPE_RARP] {
            assert_eq!(from(mac(1), tags, ethertype, &arp(mac(9), 1)), spoofed);
            assert_eq!(from(mac(1), tags, ethertype, &arp(mac(9), 6)), spoofed, "IEEE 802 hardware type");
        }
    }
    assert!(switch.fdb.is_empty());
    assert!(matches!(from(mac(1), &[], ETHERTYPE_ARP, &arp(mac(1), 1)), Verdict::Flood { .. }));
    assert!(
        matches!(from(mac(1), &[], ETHERTYPE_ARP, &arp(mac(9), 1)[..27]), Verdict::Flood { .. }),
        "nobody reads that"
    );
    assert_eq!(
        switch.decide(2, &frame(mac(5), mac(1), &[], 1, &[])),
        Verdict::Drop(DropReason::MacSpoofed),
        "no address"
    );
    assert_eq!(switch.decide(9, &frame(mac(5), mac(1), &[], 1, &[])), Verdict::Drop(DropReason::PortGone));
}

#[test]
fn reserved_group_addresses_stay_unless_told_otherwise() {
    let mut switch = Switch::new(vec![access(0), access(0)]);
    let to = |last| frame(MacAddr::new([1, 0x80, 0xc2, 0, 0, last]), mac(1), &[], 0x88cc, &[0; 46]);
    for last in 0..=15 {
        assert_eq!(switch.decide(0, &to(last)), Verdict::Drop(DropReason::ReservedMulticast));
    }
    assert!(matches!(switch.decide(0, &to(16)), Verdict::Flood { .. }));
    switch.snap = Snapshot::build(2, &BridgePolicy { forward_reserved: true }, vec![(0, access(0)), (1, access(0))]);
    assert!(matches!(switch.decide(0, &to(2)), Verdict::Flood { .. }));
}

#[test]
fn the_mtu_counts_neither_header_nor_tags() {
    let trunk = policy(VlanMode::Trunk { native: Some(0), tagged: "all".parse().unwrap() });
    let switch = Switch::new(vec![trunk.clone(), access(5), PortPolicy { mtu: 200, ..trunk }]);
    let tagged = [(TPID_CTAG, 5)];
    let double = [(TPID_STAG, 5), (TPID_CTAG, 6)];
    let send = |tags: &[(u16, u16)], len| {
        switch
            .switch(0, &frame(mac(9), mac(1), tags, 0x1234, &vec![0; len]))
            .map(|out| out.into_keys().collect::<Vec<_>>())
    };
    for tags in [&tagged[..], &double] {
        assert_eq!(send(tags, 100), Ok(vec![1, 2]));
        assert_eq!(send(tags, 101), Ok(vec![2]));
        assert_eq!(send(tags, 201), Err(DropReason::EgressMtu));
    }
    // An untagged frame that gets a tag may be 4 bytes longer, and the drop counts at the receiver.
    let full = |len| frame(mac(1), mac(2), &[], 0x1234, &vec![0; len]);
    assert_eq!(switch.switch(0, &frame(mac(9), mac(1), &tagged, 0x1234, &[])).unwrap().len(), 2);
    assert_eq!(switch.switch(1, &full(100)).unwrap()[&0].len(), 118);
    let late = decide_at(&switch.snap, &switch.fdb, 0, 1, &full(101), &mut NoObserver);
    assert_eq!((late.verdict, late.at), (Verdict::Drop(DropReason::EgressMtu), 0));
}

#[test]
fn an_entry_of_a_port_that_left_the_vlan_or_the_switch_is_no_way_through() {
    let mut switch = Switch::new(vec![access(5), access(5), access(5)]);
    switch.fdb.add_static(mac(2), 5, 1).unwrap();
    switch.snap = Snapshot::build(2, &BridgePolicy::default(), vec![(0, access(5)), (1, access(6)), (2, access(5))]);
    let there = frame(mac(2), mac(1), &[], 0x1234, &[]);
    let decision = decide_at(&switch.snap, &switch.fdb, 0, 0, &there, &mut NoObserver);
    assert_eq!((decision.verdict, decision.at), (Verdict::Drop(DropReason::EgressVlan), 1));
    switch.snap = Snapshot::build(3, &BridgePolicy::default(), vec![(0, access(5)), (2, access(5))]);
    assert_eq!(switch.switch(0, &there).unwrap().into_keys().collect::<Vec<_>>(), [2]);
}

#[derive(Clone, Debug)]
struct Sent {
    port: PortNo,
    dst: u8,
    src: u8,
    tags: Vec<(u16, u16)>,
    len: usize,
}

fn any_ports() -> impl Strategy<Value = Vec<PortPolicy>> {
    let one = (any_mode(), any::<bool>(), prop::bool::weighted(0.3), prop_oneof![Just(100_u32), 68_u32..120]);
    let ports = prop::collection::vec(one, 1..7);
    ports.prop_map(|ports| {
        let with = |(n, (vlan, isolated, mac_check, mtu))| PortPolicy {
            mac: Some(mac(n)),
            mac_check,
            isolated,
            mtu,
            ..policy(vlan)
        };
        (0..).zip(ports).map(with).collect()
    })
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let tag =
        (prop_oneof![Just(TPID_CTAG), Just(TPID_STAG)], (0_u16..16, 0_u16..6).prop_map(|(bits, vid)| bits << 12 | vid));
    // Station 7 is the broadcast address, 8 a reserved one.
    (0_u16..8, 0_u8..9, 0_u8..7, prop::collection::vec(tag, 0..3), 60_usize..120)
        .prop_map(|(port, dst, src, tags, len)| Sent { port, dst, src, tags, len })
}

fn address(n: u8) -> MacAddr {
    match n {
        7 => MacAddr::BROADCAST,
        8 => MacAddr::new([1, 0x80, 0xc2, 0, 0, 0]),
        n => mac(n),
    }
}

/// Who gets a frame, written from the rules with sets and maps. Frames are switched by VLAN and MAC address; tags are the
/// business of the VLAN tests.
fn receivers(ports: &[PortPolicy], table: &mut HashMap<(u8, Vid), usize>, sent: &Sent) -> BTreeSet<PortNo> {
    let nobody = BTreeSet::new();
    let ingress = usize::from(sent.port);
    let Some(from) = ports.get(ingress) else { return nobody };
    let carried = sent.tags.first().map_or(0, |tag| tag.1 & 0xfff);
    let vid = match &from.vlan {
        VlanMode::Access { vid } => (carried == 0 && sent.tags.len() < 2).then_some(*vid),
        VlanMode::Trunk { native, .. } if carried == 0 => *native,
        VlanMode::Trunk { .. } => from.vlan.is_member(carried).then_some(carried),
    };
    let Some(vid) = vid.filter(|vid| *vid < 4095) else { return nobody };
    if from.mac_check && from.mac != Some(address(sent.src)) {
        return nobody;
    }
    table.insert((sent.src, vid), ingress);
    let known = table.get(&(sent.dst, vid));
    (0..ports.len())
        .filter(|to| sent.dst != 8 && *to != ingress && known.is_none_or(|known| known == to))
        .filter(|to| !(from.isolated && ports[*to].isolated) && ports[*to].vlan.is_member(vid))
        .filter(|to| sent.len <= ports[*to].mtu as usize)
        .map(|to| to as PortNo)
        .collect()
}

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

/// A flow goes on as it was decided, until its destination moves, its policy changes, or it sends what does not fit.
fn follows_its_destination_and_its_policy(rules: Vec<RuleSpec>) -> LookupCounts {
    let mut tables = Tables::new(Capacity::default(), 1);
    let index = rules.first().map(|rule| rule.key_index);
    let changes = rules.into_iter().map(RuleChange::Write).collect();
    tables.change_rules(changes, &|_: PortNo| Some(1)).unwrap();
    let mut switch = Switch::new(vec![access(0), access(0), access(0)]);
    switch.snap = switch.snap.with_rules(2, tables.rules().clone());
    let mut memory = Memory::default();
    let packet = |len: usize| frame(mac(2), mac(1), &[], 0x0800, &udp_in_ipv4(len - 28));
    let mut verdict = |switch: &Switch, len| {
        memory.begin_burst();
        let decision = memory.decide(&switch.scene(0, 0), &packet(len));
        assert_eq!(decision.rule.map(|rule| rule.index), index);
        decision.verdict
    };
    let to = |port| Verdict::Unicast { port, edit: TagEdit::None, queue: None, instead_of: None };
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
        .with_rules(3, tables.rules().clone());
    assert_eq!(verdict(&switch, 60), Verdict::Drop(DropReason::EgressVlan));
    memory.lookups()
}

#[test]
fn a_remembered_flow_follows_its_destination_and_its_policy() {
    let rule = RuleSpec { key_index: 3, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Normal) };
    // Remembered when it is asked for again, so the third and the fourth packet are recalled.
    let lookups = follows_its_destination_and_its_policy(vec![rule]);
    assert_eq!(lookups, LookupCounts { remembered: 2, cached: 6, searched: 1 });
    assert_eq!(follows_its_destination_and_its_policy(vec![]), LookupCounts::default(), "no rule, no look-up");
}

/// What a worker remembers is what is in use, also where more is in use than it can remember: those that are in stay.
#[test]
fn of_more_flows_in_turn_than_there_is_room_for_as_many_are_recalled_as_there_is_room_for() {
    let mut tables = Tables::new(Capacity::default(), 1);
    let rule = RuleSpec { key_index: 0, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Normal) };
    tables.change_rules(vec![RuleChange::Write(rule)], &|_: PortNo| Some(1)).unwrap();
    let mut switch = Switch::new(vec![access(0), access(0)]);
    switch.snap = switch.snap.with_rules(2, tables.rules().clone());
    switch.fdb.learn(mac(2), 0, 1, 99, 0);
    let mut memory = Memory::default();
    let mut recalled = |flows: u16, cycles: u32| {
        let before = memory.lookups().remembered;
        for source in (0..cycles).flat_map(|_| 0..flows) {
            let mut payload = udp_in_ipv4(20);
            payload[20..22].copy_from_slice(&source.to_be_bytes());
            memory.begin_burst();
            memory.decide(&switch.scene(0, 0), &frame(mac(2), mac(1), &[], ETHERTYPE_IPV4, &payload));
        }
        memory.lookups().remembered - before
    };
    recalled(10_000, 60);
    let of_many = recalled(10_000, 1);
    assert!(of_many >= 3_600, "{of_many} of 10,000");
    // Those that are no longer in use give way.
    recalled(1_000, 60);
    let of_few = recalled(1_000, 1);
    assert!(of_few >= 950, "{of_few} of 1,000");
}

#[test]
fn without_rules_what_addresses_do_not_say_is_looked_at_each_time() {
    let own = PortPolicy { mac: Some(mac(1)), mac_check: true, ..access(0) };
    let switch = Switch::new(vec![own, access(0)]);
    switch.fdb.learn(mac(2), 0, 1, 99, 0);
    let mut memory = Memory::default();
    let arp = |sender: u8| {
        let mut payload =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, sender, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2].to_vec();
        payload.resize(46, 0);
        frame(mac(2), mac(1), &[], 0x0806, &payload)
    };
    for ethertype in [ETHERTYPE_IPV4, ETHERTYPE_IPV6, 0x0806, 0x1234] {
        let good = if ethertype == 0x0806 { arp(1) } else { frame(mac(2), mac(1), &[], ethertype, &[0; 46]) };
        for _ in 0..4 {
            memory.begin_burst();
            assert!(matches!(memory.decide(&switch.scene(0, 0), &good).verdict, Verdict::Unicast { port: 1, .. }));
        }
        for (bad, reason) in [
            (arp(3), DropReason::ArpSpoofed),
            (frame(mac(2), mac(3), &[], ethertype, &[0; 46]), DropReason::MacSpoofed),
            (frame(mac(2), mac(1), &[(TPID_CTAG, 5)], ethertype, &[0; 46]), DropReason::VlanNotAllowed),
        ] {
            assert_eq!(memory.decide(&switch.scene(0, 0), &bad).verdict, Verdict::Drop(reason), "{ethertype:#x}");
        }
        let from_elsewhere = memory.decide(&switch.scene(0, 1), &good).verdict;
        assert_eq!(from_elsewhere, Verdict::Drop(DropReason::SamePort));
    }
}

#[test]
fn bursts_of_new_flows_are_looked_at_ahead_and_decided_as_any() {
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
            switch.snap = switch.snap.with_rules(2, tables.rules().clone());
            for n in 0..40 {
                switch.fdb.learn(mac(n), 0, u16::from(n) % 3, 99, 0);
            }
            switch
        });
        let mut memory = Memory::default();
        for burst in 0..8_u8 {
            // Each station in each burst, from another one each time; some frames are cut off, tagged, or no IP.
            let frames: Vec<_> = (0..64_u8)
                .map(|n| {
                    let tags = if n % 16 == 5 { &[(TPID_CTAG, 7)][..] } else { &[] };
                    let ethertype = if n % 16 == 6 { 0x1234 } else { ETHERTYPE_IPV4 };
                    let mut bytes = frame(mac(n), mac(60 + 3 * burst), tags, ethertype, &udp_in_ipv4(20));
                    bytes.truncate(if n % 16 == 7 { usize::from(n) } else { bytes.len() });
                    bytes
                })
                .collect();
            let forwarded = decide_alike(&mut memory, [&with, &without], 0, 0, &frames, true).unwrap();
            assert!(forwarded > 12, "{forwarded} of burst {burst} with {rules} rules");
        }
        // Looked at ahead, all the rules of a burst are asked themselves, and without that the exact-match cache.
        let LookupCounts { cached, searched, .. } = memory.lookups();
        assert!(rules == 0 || searched > 4 * 64 && cached < 64, "{cached} cached, {searched} searched");
    }
}

/// Few of something, or so many that a worker looks ahead.
fn burst_of<S: Strategy>(one: S) -> impl Strategy<Value = Vec<S::Value>> {
    (prop::collection::vec(one, 30..80), prop::option::of(1_usize..12)).prop_map(|(mut all, few)| {
        all.truncate(few.unwrap_or(all.len()));
        all
    })
}

/// Decides on a burst with a memory, frame by frame or together as a worker does, and on a switch alike without one: they say, count and
/// learn the same. Returns how many frames go to one port.
fn decide_alike(
    memory: &mut Memory,
    [with, without]: [&Switch; 2],
    now: u32,
    ingress: PortNo,
    frames: &[Vec<u8>],
    together: bool,
) -> Result<usize, TestCaseError> {
    let scene = with.scene(now, ingress);
    let counted = || -> HashMap<u32, u64> {
        with.snap.rules.iter_from(0).map(|rule| (rule.index, rule.matched().packets)).collect()
    };
    let (mut said, mut runs, before) = (Vec::new(), Vec::new(), counted());
    memory.begin_burst();
    let mut rest = frames.iter().map(Vec::as_slice);
    loop {
        let (simple, after) = match (together, rest.clone().next()) {
            (true, _) => memory.recall_all(&scene, rest.clone(), &mut runs),
            (false, next) => (0, next.map(|frame| memory.decide(&scene, frame))),
        };
        let bytes: usize = rest.by_ref().take(simple).map(<[u8]>::len).sum();
        prop_assert_eq!(
            runs.iter().map(|run| (run.frames, run.bytes)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
            (simple, bytes)
        );
        for run in runs.drain(..) {
            let (port, edit, queue) = (run.course.port(), run.course.edit(), run.course.queue());
            said.extend(vec![(Verdict::Unicast { port, edit, queue, instead_of: None }, ingress, None); run.frames]);
        }
        let (Some(decision), Some(frame)) = (after, rest.next()) else { break };
        if let Some(rule) = decision.rule {
            rule.applied(0, frame.len());
        }
        said.push((decision.verdict, decision.at, Some(decision.rule.map(|rule| rule.index))));
    }
    prop_assert_eq!(said.len(), frames.len());
    let forwarded = said.iter().filter(|said| matches!(said.0, Verdict::Unicast { instead_of: None, .. })).count();
    let mut counts = before;
    // The rules of frames in a run have only counted.
    for (frame, (verdict, at, rule)) in frames.iter().zip(said) {
        let decision = decide_at(&without.snap, &without.fdb, now, ingress, frame, &mut NoObserver);
        if let Some(applied) = decision.rule {
            *counts.entry(applied.index).or_default() += 1;
            prop_assert!(rule.is_some() || applied.action.mirror.is_none(), "nobody makes the rule's copy");
        }
        let expected = decision.rule.map(|rule| rule.index);
        prop_assert_eq!((verdict, at, rule.unwrap_or(expected)), (decision.verdict, decision.at, expected));
    }
    prop_assert_eq!(counted(), counts);
    let rows = [with, without].map(|switch| {
        let rows = switch.fdb.entries(now).into_iter();
        rows.map(|row| (row.mac, row.vid, (row.port, row.is_static, row.age))).collect::<HashSet<_>>()
    });
    prop_assert_eq!(&rows[0], &rows[1]);
    Ok(forwarded)
}

/// What is remembered names places of a MAC table that may be gone.
#[test]
fn a_smaller_mac_table_is_not_asked_for_places_of_the_one_before() {
    for rules in [0, 1] {
        let mut tables = Tables::new(Capacity::default(), 1);
        let rule = RuleSpec { key_index: 0, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Normal) };
        tables.change_rules(vec![RuleChange::Write(rule); rules], &|_: PortNo| Some(1)).unwrap();
        let [mut with, mut without] = [(); 2].map(|()| {
            let mut switch = Switch::new(vec![access(0), access(0)]);
            switch.snap = switch.snap.with_rules(2, tables.rules().clone());
            switch.fdb = Fdb::new(60_000, 300, 5);
            (0..64).for_each(|n| _ = switch.fdb.learn(mac(n), 0, 1, 99, 0));
            switch
        });
        let to = |n: u8| frame(mac(n), mac(200), &[], ETHERTYPE_IPV4, &udp_in_ipv4(20));
        let (known, unknown): (Vec<_>, Vec<_>) = ((0..64).map(to).collect(), (100..164).map(to).collect());
        let mut memory = Memory::default();
        for burst in [&known, &known, &known, &unknown, &known] {
            decide_alike(&mut memory, [&with, &without], 0, 0, burst, true).unwrap();
        }
        for switch in [&mut with, &mut without] {
            switch.fdb = switch.fdb.resized(16);
            switch.snap = switch.snap.with_rules(3, tables.rules().clone());
        }
        for burst in [&known, &unknown, &known] {
            decide_alike(&mut memory, [&with, &without], 0, 0, burst, true).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_topologies_are_switched_as_a_small_reference_bridge_does(
        ports in any_ports(), traffic in prop::collection::vec(any_sent(), 1..60)
    ) {
        let switch = Switch::new(ports.clone());
        let mut table = HashMap::new();
        for sent in traffic {
            let bytes = frame(address(sent.dst), address(sent.src), &sent.tags, 0x1234, &vec![0; sent.len]);
            let before = switch.fdb.len();
            let traced = switch.trace(sent.port, &bytes, &|port| format!("p{port}"));
            prop_assert_eq!(before, switch.fdb.len(), "a trace changes nothing");
            let expected = receivers(&ports, &mut table, &sent);
            let got = switch.switch(sent.port, &bytes);
            let ports_out: BTreeSet<_> = got.iter().flat_map(|out| out.keys().copied()).collect();
            prop_assert_eq!(&ports_out, &expected, "{:?}: {:?}", sent, got);
            prop_assert!(!ports_out.contains(&sent.port));
            prop_assert_eq!(&traced.outputs, &ports_out.iter().map(|port| format!("p{port}")).collect::<Vec<_>>());
            prop_assert_eq!(traced.drop_reason.as_deref(), got.as_ref().err().map(|reason| reason.label()));
            let verdict = match (&got, switch.decide(sent.port, &bytes)) {
                (Err(_), _) => "drop",
                (Ok(_), Verdict::Flood { .. }) => "flood",
                (Ok(_), _) => "forward",
            };
            prop_assert_eq!(&traced.verdict, verdict);
        }
    }

    /// With rules and redirects in force: what a trace says is what the switch does, with the cache and without; nothing goes
    /// back to its sender, and nobody gets a frame twice (which `switch` checks).
    #[test]
    fn rules_and_redirects_are_traced_as_they_are_switched(
        ports in any_ports(),
        rules in prop::collection::vec((0_u32..20, 0_u16..8, 0_u8..4, 0_u8..7, 0_u16..10), 0..12),
        redirects in prop::collection::vec((0_u16..7, 0_u16..7), 0..6),
        traffic in prop::collection::vec(any_sent(), 1..40),
    ) {
        let count = ports.len() as PortNo;
        let mut switch = Switch::new(ports);
        let mut tables = Tables::new(Capacity::default(), 1);
        let any = |_: PortNo| Some(1);
        for (key_index, port, field, station, target) in rules {
            let mac = || Some(MaskedMac { value: mac(station), mask: MaskedMac::FULL });
            let key = match field {
                0 => RuleKey { ingress_port: Some(Masked::exactly(u32::from(port))), ..RuleKey::default() },
                1 => RuleKey { dmac: mac(), ..RuleKey::default() },
                2 => RuleKey { smac: mac(), ..RuleKey::default() },
                _ => RuleKey { vlan: Some(Masked::exactly(u32::from(port))), ..RuleKey::default() },
            };
            let target = match target {
                8 => RuleTarget::Drop,
                9 => RuleTarget::Normal,
                port => RuleTarget::Port(port),
            };
            let rule = RuleSpec { key_index, key, action: RuleAction::to(target) };
            tables.change_rules(vec![RuleChange::Write(rule)], &any).unwrap();
        }
        for (src, dest) in redirects {
            // One that would be a loop is refused.
            let _ = tables.redirect(RedirectSpec { src, dest }, &any);
        }
        let ends: Vec<_> = tables.redirects().map(|(spec, end)| (spec.src, end)).collect();
        switch.snap = switch.snap.with_redirects(ends.iter().copied()).with_rules(2, tables.rules().clone());
        let mut memory = Memory::default();
        for sent in traffic {
            let bytes = frame(address(sent.dst), address(sent.src), &sent.tags, 0x1234, &vec![0; sent.len]);
            let traced = switch.trace(sent.port, &bytes, &|port| format!("p{port}"));
            let got = switch.switch(sent.port, &bytes);
            let out: BTreeSet<_> = got.iter().flat_map(|out| out.keys().copied()).collect();
            prop_assert!(!out.contains(&sent.port) && out.iter().all(|port| *port < count));
            prop_assert!(out.iter().all(|port| ends.iter().all(|(src, _)| src != port)), "a redirected port got something");
            let told: BTreeSet<_> = traced.outputs.iter().cloned().collect();
            prop_assert_eq!(told, out.iter().map(|port| format!("p{port}")).collect());
            if let Err(reason) = &got
                && !matches!(switch.decide(sent.port, &bytes), Verdict::Flood { .. })
            {
                prop_assert_eq!(traced.drop_reason.as_deref(), Some(reason.label()));
            }
            let key = parse::parse(&bytes).map(|headers| Key::of(sent.port, &headers)).unwrap();
            let found = tables.rules().find(&key).map(|rule| rule.index);
            for _ in 0..2 {
                memory.begin_burst();
                let cached = memory.decide(&switch.scene(0, sent.port), &bytes);
                prop_assert_eq!(cached.verdict, switch.decide(sent.port, &bytes));
                // Frames that are refused at the door meet no rule.
                prop_assert!(cached.rule.is_none_or(|rule| Some(rule.index) == found));
                prop_assert_eq!(traced.rule, cached.rule.map(|rule| rule.index));
            }
        }
    }

    /// Two switches alike, one with a memory: whatever happens to both between bursts, they say and learn the same.
    #[test]
    fn what_is_remembered_is_what_would_be_decided(
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
        let mut memory = Memory::default();
        for (now, (change, burst, together)) in (0..).zip(bursts) {
            let epoch = u64::from(now) + 2;
            match change {
                Change::Nothing => {}
                Change::Rule(rule) => write(&mut tables, rule),
                Change::Redirect(src, dest) => drop(tables.redirect(RedirectSpec { src, dest }, &|_: PortNo| Some(1))),
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
            // Each of them is a new policy.
            if !matches!(change, Change::Nothing) {
                let ends = tables.redirects().map(|(spec, end)| (spec.src, end));
                with.snap = with.snap.with_redirects(ends).with_rules(epoch, tables.rules().clone());
            }
            without.snap = with.snap.clone();
            // A burst is of one port.
            let ingress = burst[0].0.port;
            let frames = burst.into_iter().map(|(sent, kind)| {
                // Mostly packets that can be remembered, from seven addresses.
                let mut payload = if kind < 8 { udp_in_ipv4(sent.len - 28) } else { udp_in_ipv6(sent.len - 48) };
                payload[if kind < 8 { 15 } else { 23 }] = kind % 8;
                let ethertype = match kind {
                    7 => 0x1234,
                    0..7 => ETHERTYPE_IPV4,
                    _ => ETHERTYPE_IPV6,
                };
                frame(address(sent.dst), address(sent.src), &sent.tags, ethertype, &payload)
            });
            decide_alike(&mut memory, [&with, &without], now, ingress, &frames.collect::<Vec<_>>(), together)?;
        }
    }

    /// The same without rules, and so few stations, tags and lengths that most frames are like one before.
    #[test]
    fn without_rules_what_is_remembered_is_what_would_be_decided(
        bursts in prop::collection::vec(
            (0_u16..3, burst_of((0_u8..3, 0_u8..3, 0_usize..4, 0_u8..8)), any::<bool>()), 1..24,
        ),
    ) {
        let trunk = |native| VlanMode::Trunk { native, tagged: "all".parse().unwrap() };
        let ports = [trunk(Some(5)), VlanMode::Access { vid: 5 }, trunk(None)].map(policy);
        let [with, without] = [(); 2].map(|()| Switch::new(ports.to_vec()));
        let mut memory = Memory::default();
        for (now, (ingress, burst, together)) in (0..).zip(bursts) {
            let frames = burst.into_iter().map(|(dst, src, tag, kind)| {
                let tags = [&[][..], &[(TPID_CTAG, 5)], &[(TPID_CTAG, 6)], &[(TPID_STAG, 0xa005)]][tag];
                let ethertype = if kind == 0 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
                frame(mac(dst), mac(src), tags, ethertype, &udp_in_ipv4(if kind == 1 { 90 } else { 20 }))
            });
            decide_alike(&mut memory, [&with, &without], now, ingress, &frames.collect::<Vec<_>>(), together)?;
        }
    }

    #[test]
    fn no_bytes_make_the_bridge_or_the_trace_panic(
        ports in any_ports(), ingress in 0_u16..9, bytes in prop::collection::vec(any::<u8>(), 0..80), tpid: bool
    ) {
        let (switch, mut bytes) = (Switch::new(ports), bytes);
        if tpid && bytes.len() > 13 {
            bytes[12..14].copy_from_slice(&TPID_CTAG.to_be_bytes());
        }
        let report = switch.trace(ingress, &bytes, &|port| port.to_string());
        prop_assert!(switch.fdb.is_empty());
        let got = switch.switch(ingress, &bytes);
        prop_assert_eq!(report.drop_reason, got.err().map(|reason| reason.label().to_owned()));
    }
}

/// Found by the random topologies: the switch learns the source before it looks for the destination.
#[test]
fn a_frame_to_its_own_sender_is_traced_as_it_is_switched() {
    let switch = Switch::new(vec![access(0), access(0)]);
    let bytes = frame(mac(4), mac(4), &[], 0x1234, &[]);
    let report = switch.trace(0, &bytes, &|port| port.to_string());
    assert_eq!(report.drop_reason.as_deref(), Some("same_port"));
    assert_eq!(switch.decide(0, &bytes), Verdict::Drop(DropReason::SamePort));
}

#[test]
fn a_trace_tells_the_whole_way() {
    let trunk = policy(VlanMode::Trunk { native: Some(0), tagged: "all".parse().unwrap() });
    let ports =
        vec![PortPolicy { isolated: true, ..trunk }, access(5), access(6), PortPolicy { isolated: true, ..access(5) }];
    let switch = Switch::new(ports);
    let udp =
        [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], &[0, 53, 0x12, 0x34, 0, 8, 0, 0]]
            .concat();
    let bytes = frame(mac(9), mac(1), &[(TPID_CTAG, 0xa005)], 0x0800, &udp);
    let report = switch.trace(0, &bytes, &|port| format!("vm{port}"));
    let text: Vec<_> = report.steps.iter().map(|step| format!("{}: {}", step.stage, step.detail)).collect();
    assert_eq!(
        text,
        [
            "ingress: 46 bytes from vm0",
            "parse: 02:00:00:00:00:01 to 02:00:00:00:00:09, EtherType 0x0800",
            "parse: outer tag: C-tag (0x8100) VID 5 PCP 5",
            "parse: IPv4 10.0.0.1 to 10.0.0.2, protocol 17",
            "parse: UDP port 53 to 4660",
            "vlan: VLAN 5 by vm0: trunk of all, native 0",
            "anti-spoof: off",
            "learn: 02:00:00:00:00:01 in VLAN 5 is new and would be learned on vm0",
            "fdb: 02:00:00:00:00:09 is unknown in VLAN 5: flood",
            "flood: not to vm0: it came from there",
            "flood: to vm1: outer tag removed",
            "flood: not to vm3: isolated from where it came from",
            "flood: not to ports that are not in VLAN 5: vm2",
            "verdict: flooded to vm1",
        ]
    );
    assert_eq!((report.verdict.as_str(), report.outputs), ("flood", vec!["vm1".to_owned()]));
}
