//! The rules of the bridge, one by one.

use super::*;
use crate::engine::parse::{ETHERTYPE_ARP, ETHERTYPE_RARP};
use crate::engine::vlan::TagEdit;

#[test]
fn a_frame_is_flooded_until_its_destination_has_spoken() {
    let switch = Switch::new(vec![access(0), access(0), access(0), access(7)]);
    let there = frame(mac(2), mac(1), &[], 0x1234, &[0; 46]);
    let back = frame(mac(1), mac(2), &[], 0x1234, &[0; 46]);
    assert_eq!(switch.switch(0, &there).unwrap().into_keys().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(switch.switch(1, &back).unwrap().into_keys().collect::<Vec<_>>(), [0]);
    assert_eq!(
        switch.decide(0, &there),
        Verdict::Unicast { port: 1, edit: TagEdit::None, queue: None, redirected_from: None }
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
fn the_hosts_own_addresses_are_nobody_elses_and_are_not_learned() {
    let mut switch =
        Switch::new(vec![access(0), access(5), PortPolicy { mac: Some(mac(7)), mac_check: true, ..access(0) }]);
    switch.snap = switch.snap.clone().with_host_addresses([mac(9), mac(7), mac(3)]);
    let from = |ingress, src| switch.decide(ingress, &frame(MacAddr::BROADCAST, src, &[], 0x1234, &[]));
    for (ingress, host) in [(0, 3), (0, 7), (0, 9), (1, 9), (2, 7)] {
        assert_eq!(from(ingress, mac(host)), Verdict::Drop(DropReason::HostAddress), "{host} at {ingress}");
    }
    assert!(switch.fdb.is_empty());
    assert!(matches!(from(0, mac(1)), Verdict::Flood { .. }));
    let report = switch.trace(0, &frame(mac(1), mac(9), &[], 0x1234, &[]), &|port| format!("vm{port}"));
    assert_eq!(report.drop_reason.as_deref(), Some("host_address"));
    assert!(report.steps.iter().any(|step| step.detail.contains("is the host's own")), "{report:?}");
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
    let late = switch.decision(0, 1, &full(101));
    assert_eq!((late.verdict, late.drop_port), (Verdict::Drop(DropReason::EgressMtu), 0));
}

#[test]
fn an_entry_of_a_port_that_left_the_vlan_or_the_switch_is_no_way_through() {
    let mut switch = Switch::new(vec![access(5), access(5), access(5)]);
    switch.fdb.add_static(mac(2), 5, 1).unwrap();
    switch.snap = Snapshot::build(2, &BridgePolicy::default(), vec![(0, access(5)), (1, access(6)), (2, access(5))]);
    let there = frame(mac(2), mac(1), &[], 0x1234, &[]);
    let decision = switch.decision(0, 0, &there);
    assert_eq!((decision.verdict, decision.drop_port), (Verdict::Drop(DropReason::EgressVlan), 1));
    switch.snap = Snapshot::build(3, &BridgePolicy::default(), vec![(0, access(5)), (2, access(5))]);
    assert_eq!(switch.switch(0, &there).unwrap().into_keys().collect::<Vec<_>>(), [2]);
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
