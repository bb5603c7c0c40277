//! Ports come up, carry frames, and go.

use kit_host::{Call, FakeHost, small_settings};
use switch::ErrorKind;
use switch::model::*;

use crate::rig::{Rig, frame, guest, kind, mac, phy, wait};

#[test]
fn a_guest_gets_a_pair_with_its_address_and_without_offloads() {
    let rig = Rig::new();
    let port = rig.add(PortSpec { mac: Some(mac(1)), mtu: Some(1400), netns: Some("vm".into()), ..guest("vm1") });
    assert_eq!((port.spec.ifname.as_deref(), port.spec.guest_ifname.as_deref()), (Some("xs0"), Some("xg0")));
    assert_eq!((port.mode, port.link_up, port.vport), (Some(Mode::Native), true, 0));
    let (near, far) = (rig.host.link("xs0").unwrap(), rig.host.link("xg0").unwrap());
    assert_eq!((near.mtu, near.up, far.mtu, far.mac, far.up), (1400, true, 1400, mac(1), true));
    assert_eq!((rig.host.namespace_of("xs0"), rig.host.namespace_of("xg0").as_deref()), (None, Some("vm")));
    assert!(rig.host.is_plain("xg0") && !rig.host.is_promiscuous("xs0"));
    assert_eq!(rig.host.attached("xs0"), Some(Mode::Native));
}

#[test]
fn the_program_is_attached_last_and_detached_first() {
    let rig = Rig::new();
    rig.add(guest("vm1"));
    rig.switch.del_port("vm1").unwrap();
    let calls: Vec<_> = rig.host.calls().into_iter().map(|(call, _)| call).collect();
    use Call::{Attach, Change, Delete, Detach, LoadProgram, MakePair, OpenQueue, SetSocket};
    assert_eq!(calls, [MakePair, Change, Change, LoadProgram, OpenQueue, SetSocket, Attach, Detach, Delete]);
    assert_eq!(rig.host.netdevs(), <[String; 0]>::default());
    rig.assert_empty();
}

#[test]
fn frames_go_from_port_to_port_and_are_counted_where_they_pass() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    assert!(rig.host.receive("xs0", 0, &frame(MacAddr::BROADCAST, mac(1), 1)));
    assert_eq!(rig.sent("xs1", 1), [frame(MacAddr::BROADCAST, mac(1), 1)]);
    assert!(rig.host.receive("xs1", 0, &frame(mac(1), mac(2), 2)));
    assert_eq!(rig.sent("xs0", 1), [frame(mac(1), mac(2), 2)]);
    rig.assert_balanced();
    let stats = rig.switch.stats();
    let seen: Vec<_> = stats.ports.iter().map(|port| (port.rx.packets, port.tx.packets)).collect();
    assert_eq!(seen, [(1, 1), (1, 1)]);
    assert_eq!((stats.ports[0].queues[0].xdp["redirect"], stats.ports[0].queues[0].xsk["rx_ring_full"]), (1, 0));
    assert_eq!(rig.switch.fdb().len(), 2);
    rig.switch.del_port("a").unwrap();
    assert_eq!(rig.switch.fdb().len(), 1, "what was learned goes with the port");
    assert_eq!(rig.switch.stats().retired.rx.packets, 1);
}

#[test]
fn a_nic_is_taken_as_it_is_and_given_back() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 4);
    let port = rig.add(PortSpec { mtu: Some(2000), ..phy("up", "eth0") });
    assert_eq!((port.queues.len(), port.active_queues, port.spec.queues), (4, 4, Some(4)));
    assert_eq!(rig.host.link("eth0").map(|link| (link.mtu, link.up)), Some((2000, true)));
    assert!(rig.host.is_promiscuous("eth0"));
    assert_eq!(rig.host.attached("eth0"), Some(Mode::Native));
    rig.switch.del_port("up").unwrap();
    assert!(!rig.host.is_promiscuous("eth0"));
    assert_eq!((rig.host.attached("eth0"), rig.host.link("eth0").is_some()), (None, true), "it is not the switch's");
    rig.assert_empty();
}

#[test]
fn a_nic_with_many_queues_has_a_socket_for_each() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 100);
    let port = rig.add(PortSpec { queue_depth: Some(64), ..phy("up", "eth0") });
    assert_eq!((port.queues.len(), port.spec.queues), (100, Some(100)));
    rig.add(PortSpec { mac_check: Some(false), ..guest("a") });
    assert!(rig.host.receive("eth0", 99, &frame(MacAddr::BROADCAST, mac(9), 1)));
    assert_eq!(rig.sent("xs1", 1), [frame(MacAddr::BROADCAST, mac(9), 1)]);
    // A rule's queue is any of them.
    let action = RuleAction { queue: Some(90), ..RuleAction::to(RuleTarget::Port(0)) };
    let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action };
    rig.switch.change_rules(vec![RuleChange::Write(rule)]).unwrap();
    assert!(rig.host.receive("xs1", 0, &frame(mac(9), mac(1), 2)));
    wait("it is sent by that queue", || rig.host.sent("eth0", 90) == [frame(mac(9), mac(1), 2)]);
    rig.assert_balanced();
}

#[test]
fn what_is_said_about_a_number_of_queues_works_as_it_stands() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 100);
    let error = rig.switch.add_port(PortSpec { queues: Some(4), ..phy("up", "eth0") }).unwrap_err();
    assert!(error.to_string().contains("ask for 100, or change the netdev (`ethtool -L eth0 combined 4`"), "{error}");
    rig.add(PortSpec { queues: Some(100), queue_depth: Some(64), ..phy("up", "eth0") });
    for (name, command) in [("eth1", "ethtool -L eth1 combined 1024"), ("tap0", "ethtool -L tap0 rx 1024 tx 1024")] {
        match name {
            "eth1" => rig.host.add_nic(name, MAX_QUEUES + 1),
            _ => rig.host.add_pair(name, "tap1", MAX_QUEUES + 1),
        }
        let error = rig.switch.add_port(phy("more", name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(text.starts_with("queues: ") && text.contains(command) && !text.contains("ask for"), "{text}");
    }
    let error = rig.switch.add_port(PortSpec { ifname: Some("tap0".into()), ..guest("vm") }).unwrap_err();
    assert!(error.to_string().contains("a port can have 1024"), "{error}");
}

#[test]
fn a_nic_that_is_missing_is_refused_by_name_and_taken_once_it_is_there() {
    let rig = Rig::new();
    rig.host.set_missing("eth0", true);
    let error = rig.switch.add_port(phy("up", "eth0")).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::NotFound, "ifname: there is no netdev eth0 here")
    );
    rig.host.set_missing("eth0", false);
    assert_eq!(rig.add(phy("up", "eth0")).vport, 0);
}

#[test]
fn a_pair_of_an_administrator_is_adopted_and_stays() {
    let rig = Rig::new();
    rig.host.add_pair("tap0", "tap1", 2);
    let found = rig.host.link("tap1").unwrap();
    assert_eq!(kind(rig.switch.add_port(PortSpec { ifname: Some("tap0".into()), ..guest("vm1") })), ErrorKind::Invalid);
    let wish = PortSpec { ifname: Some("tap0".into()), queues: Some(2), netns: Some("vm".into()), ..guest("vm1") };
    let port = rig.add(wish);
    assert_eq!((port.spec.guest_ifname.as_deref(), port.spec.mac), (Some("tap1"), Some(found.mac)));
    assert_eq!(rig.host.namespace_of("tap1").as_deref(), Some("vm"), "the far end goes where the guest is");
    rig.switch.del_port("vm1").unwrap();
    assert_eq!(rig.host.netdevs(), ["tap0", "tap1"]);
    rig.assert_empty();
}

#[test]
fn a_pair_that_the_switch_made_is_known_again_after_a_restart() {
    let host = FakeHost::new();
    let switch = host.start();
    let spec = switch.add_port(guest("vm1")).unwrap().spec;
    drop(switch);
    assert_eq!((host.netdevs().len(), host.attached("xs0")), (2, None), "pairs outlive the switch, programs don't");
    let switch = host.start();
    assert_eq!(switch.add_port(spec.clone()).unwrap().spec, spec);
    switch.del_port("vm1").unwrap();
    assert_eq!(host.netdevs().len(), 0);
}

#[test]
fn what_is_no_veth_is_no_guests() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 1);
    assert_eq!(kind(rig.switch.add_port(PortSpec { ifname: Some("eth0".into()), ..guest("vm1") })), ErrorKind::Exists);
    rig.assert_empty();
}

#[test]
fn many_ports_at_once_get_numbers_in_order_and_one_that_fails_stops_none() {
    let rig = Rig::new();
    rig.host.set_missing("eth9", true);
    let mut specs: Vec<_> = (0..20).map(|n| guest(&format!("vm{n}"))).collect();
    specs[7] = PortSpec { vport: Some(99), ..phy("up", "eth9") };
    let added = rig.switch.add_ports(specs);
    let numbers: Vec<_> = added.iter().map(|port| port.as_ref().map(|port| port.vport).ok()).collect();
    let expected: Vec<_> = (0..7).map(Some).chain([None]).chain((7..19).map(Some)).collect();
    assert_eq!(numbers, expected);
    assert_eq!(rig.switch.port_names().len(), 19);
    rig.assert_balanced();
}

#[test]
fn queues_are_spread_over_workers_and_frames_reach_any_of_them() {
    let host = FakeHost::with_everything();
    let switch = host.start_with(&DataplaneSettings { workers: 2, ..small_settings() });
    for name in ["a", "b"] {
        switch.add_port(PortSpec { queues: Some(2), mac_check: Some(false), ..guest(name) }).unwrap();
    }
    let workers: Vec<_> =
        switch.ports().iter().flat_map(|port| port.queues.clone()).map(|queue| queue.worker).collect();
    assert_eq!(workers, [0, 1, 0, 1]);
    for queue in [0, 1] {
        assert!(host.receive("xs0", queue, &frame(MacAddr::BROADCAST, mac(1), 1)));
    }
    let mut sent = 0;
    wait("both are sent", || {
        sent += host.sent("xs1", 0).len() + host.sent("xs1", 1).len();
        sent == 2
    });
}

#[test]
fn a_port_that_a_redirect_points_to_stays() {
    let rig = Rig::new();
    rig.add(guest("a"));
    rig.add(guest("b"));
    rig.switch.redirect(RedirectSpec { src: 0, dest: 1 }).unwrap();
    assert_eq!(kind(rig.switch.del_port("b")), ErrorKind::Busy);
    assert_eq!(rig.host.attached("xs1"), Some(Mode::Native), "a refusal changes nothing");
    rig.switch.del_port("a").unwrap();
    rig.switch.del_port("b").unwrap();
    rig.assert_empty();
}

#[test]
fn a_number_that_is_kept_goes_to_the_port_of_its_name_only() {
    let rig = Rig::new();
    rig.switch.reserve_ports(vec![(0, "up".into(), 1)]);
    assert_eq!(rig.add(guest("vm1")).vport, 1);
    assert_eq!(kind(rig.switch.add_port(PortSpec { vport: Some(0), ..guest("vm0") })), ErrorKind::Exists);
    assert_eq!(rig.add(PortSpec { vport: Some(0), ..phy("up", "eth0") }).vport, 0);
}

#[test]
fn further_guests_have_packet_memory_of_their_own_and_talk_to_all() {
    let host = FakeHost::with_everything();
    let settings = DataplaneSettings { frames: 32_768, shared_queues: 1, ..small_settings() };
    let rig = Rig { switch: host.start_with(&settings), host };
    let has_own = |spec: PortSpec| rig.add(spec).queues.iter().map(|queue| queue.own_umem).collect::<Vec<_>>();
    assert_eq!(has_own(PortSpec { mac: Some(mac(1)), ..guest("a") }), [false]);
    assert_eq!(has_own(PortSpec { mac: Some(mac(2)), queues: Some(2), ..guest("b") }), [true; 2]);
    assert_eq!(has_own(PortSpec { mac: Some(mac(3)), ..guest("c") }), [true]);
    assert_eq!(has_own(phy("up", "eth0")), [false], "a NIC shares, however many guests there are");
    let netdevs = ["xs0", "xs1", "xs2", "eth0"];
    for (from, netdev) in (0..).zip(netdevs) {
        let others = netdevs.iter().filter(|other| **other != netdev);
        let sent = frame(MacAddr::BROADCAST, mac(from + 1), from);
        assert!(rig.host.receive(netdev, 0, &sent));
        others.for_each(|other| {
            let mut got = Vec::new();
            wait("it is flooded", || {
                got.extend((0..2).flat_map(|queue| rig.host.sent(other, queue)));
                !got.is_empty()
            });
            assert_eq!(got, std::slice::from_ref(&sent), "from {netdev} to {other}");
        });
    }
    // Rings of another depth have their own memory again.
    let deep = PortUpdate { queue_depth: Some(64), ..PortUpdate::default() };
    assert!(rig.switch.update_port("c", deep).unwrap().queues[0].own_umem);
    let audit = rig.switch.audit();
    assert!(audit.consistent, "{audit:?}");
    assert_eq!(audit.own, 2 * 512 + 128);
    // The place of a guest that shared is the next one's.
    rig.switch.del_port("a").unwrap();
    assert_eq!(has_own(guest("d")), [false]);
    for port in ["b", "c", "d", "up"] {
        rig.switch.del_port(port).unwrap();
    }
    rig.assert_balanced();
    rig.assert_empty();
}
