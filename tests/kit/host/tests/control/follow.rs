//! Ports follow what others do to their netdevs.

use std::time::{Duration, Instant};

use kit_host::{Call, FakeHost, Fate};
use nix::errno::Errno;
use switch::PortChange;
use switch::model::*;

use crate::rig::{Rig, frame, guest, mac, phy, wait};

/// One of each kind of attachment: a pair of the switch, a pair of somebody, a NIC, an end of a pair as a NIC.
const KINDS: [&str; 4] = ["made", "adopted", "nic", "veth"];

/// Adds such a port, with its peer `b` beside it; returns the name of its netdev.
fn add(rig: &Rig, kind: &str) -> &'static str {
    match kind {
        "made" => {
            rig.add(PortSpec { mac: Some(mac(1)), netns: Some("vm".into()), ifname: Some("m0".into()), ..guest("a") });
            "m0"
        }
        "adopted" => {
            rig.host.add_pair("p0", "p1", 1);
            rig.add(PortSpec { mac: Some(mac(1)), ifname: Some("p0".into()), ..guest("a") });
            "p0"
        }
        "nic" => {
            rig.host.add_nic("eth0", 1);
            rig.add(phy("a", "eth0"));
            "eth0"
        }
        _ => {
            rig.host.add_pair("p0", "p1", 1);
            rig.add(phy("a", "p0"));
            "p0"
        }
    }
}

fn rig_with(kind: &str) -> (Rig, &'static str) {
    let rig = Rig::bare();
    let name = add(&rig, kind);
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    (rig, name)
}

/// Frames go both ways.
fn works(rig: &Rig, netdev: &str, b: &str) {
    rig.sent(b, 0);
    wait("a frame comes in", || rig.host.receive(netdev, 0, &frame(MacAddr::BROADCAST, mac(1), 1)));
    rig.sent(b, 1);
    wait("a frame comes back", || rig.host.receive(b, 0, &frame(mac(1), mac(2), 2)));
    // By which queue depends on the flow.
    wait("it is sent", || (0..4).any(|queue| !rig.host.sent(netdev, queue).is_empty()));
}

fn next_changes(rig: &Rig) -> Vec<PortChange> {
    let mut changes = Vec::new();
    wait("a port changes", || {
        rig.switch.wait_for_changes(Duration::from_millis(100));
        changes.extend(rig.switch.take_port_changes());
        !changes.is_empty()
    });
    changes
}

fn lost(rig: &Rig) -> (PortSpec, String) {
    match next_changes(rig).pop() {
        Some(PortChange::Lost { spec, why }) => (*spec, why),
        other => panic!("{other:?}"),
    }
}

fn followed(rig: &Rig) -> PortSpec {
    match next_changes(rig).pop() {
        Some(PortChange::Followed(spec)) => *spec,
        other => panic!("{other:?}"),
    }
}

fn problems(rig: &Rig) -> Vec<String> {
    rig.switch.port("a").unwrap().problems
}

#[test]
fn a_netdev_that_is_renamed_keeps_its_port() {
    for kind in KINDS {
        let (rig, name) = rig_with(kind);
        rig.host.rename(name, "new0");
        assert_eq!(followed(&rig).ifname.as_deref(), Some("new0"), "{kind}");
        assert_eq!(rig.switch.port("a").unwrap().spec.ifname.as_deref(), Some("new0"));
        works(&rig, "new0", "xs1");
        // The name is free for another netdev, which is not the port's.
        rig.host.add_nic(name, 1);
        rig.add(phy("c", name));
        assert!(rig.switch.add_port(phy("d", "new0")).unwrap_err().to_string().contains("`a`"), "{kind}");
        rig.switch.del_port("a").unwrap();
        assert_eq!(rig.host.link("new0").is_some(), kind != "made", "{kind}");
        rig.assert_balanced();
    }
}

#[test]
fn a_netdev_that_is_gone_takes_its_port_along_and_back() {
    for kind in KINDS {
        for how in ["deleted", "moved"] {
            let (rig, name) = rig_with(kind);
            works(&rig, name, "xs1");
            assert!(rig.switch.fdb().iter().any(|row| row.port == "a"));
            match how {
                "deleted" => rig.host.delete_netdev(name),
                _ => rig.host.move_netdev(name, Some("elsewhere")),
            }
            let (spec, why) = lost(&rig);
            assert!(why.contains(name), "{why}");
            assert_eq!(rig.switch.port_names(), [(1, "b".to_owned())], "{kind} {how}");
            assert!(rig.switch.fdb().iter().all(|row| row.port != "a"), "what was learned there goes");
            // Its number is nobody else's meanwhile.
            assert_eq!(rig.add(guest("c")).vport, 2, "{kind} {how}");
            match (how, kind) {
                ("moved", _) => rig.host.move_back(name),
                (_, "nic") => rig.host.add_nic(name, 1),
                (_, "made") => {}
                _ => rig.host.add_pair("p0", "p1", 1),
            }
            let again = rig.switch.restore_ports(vec![spec]).remove(0).unwrap();
            assert_eq!(again.vport, 0, "{kind} {how}");
            works(&rig, name, "xs1");
            rig.assert_balanced();
        }
    }
}

#[test]
fn a_netdev_that_was_away_for_a_moment_is_taken_up_again() {
    for kind in KINDS {
        let (rig, name) = rig_with(kind);
        rig.host.move_netdev(name, Some("elsewhere"));
        rig.host.move_back(name);
        rig.host.set_up(name, true);
        let (spec, _) = lost(&rig);
        rig.switch.restore_ports(vec![spec]).remove(0).unwrap();
        works(&rig, name, "xs1");
    }
}

#[test]
fn a_netdev_whose_queues_can_not_be_told_was_not_away() {
    for kind in KINDS {
        let (rig, name) = rig_with(kind);
        // It went down after it was seen to be up.
        rig.host.set_bound_queues(name, None);
        rig.host.set_up(name, true);
        rig.host.set_mtu(name, 1_400);
        assert_eq!(followed(&rig).mtu, Some(1_400), "{kind}");
        works(&rig, name, "xs1");
    }
}

#[test]
fn what_names_a_lost_port_stays() {
    let (rig, name) = rig_with("nic");
    rig.switch.redirect(RedirectSpec { src: 1, dest: 0 }).unwrap();
    rig.host.delete_netdev(name);
    let (spec, _) = lost(&rig);
    assert_eq!(rig.switch.redirects().len(), 1);
    rig.host.add_nic(name, 1);
    rig.switch.restore_ports(vec![spec]).remove(0).unwrap();
    assert_eq!(rig.switch.redirects().len(), 1);
}

#[test]
fn a_component_goes_on_without_a_lost_port() {
    let rig = Rig::bare();
    for (no, ifname) in [(0, "eth0"), (1, "eth1"), (2, "eth2")] {
        rig.host.add_nic(ifname, 1);
        rig.add(PortSpec { spp: Some(format!("phy:{no}")), ..phy(&format!("p{no}"), ifname) });
    }
    rig.switch.add_ring(0, 64).unwrap();
    let end = |port: EndPort| End { port, vlan: VlanEdit::None };
    let port = |name: &str| end(EndPort::Port { name: name.to_owned(), queue: None });
    let forward = |name: &str, rx: End, tx: End| ComponentSpec {
        name: name.to_owned(),
        kind: ComponentKind::Forward,
        worker: 0,
        rx: vec![rx],
        tx: vec![tx],
        table: Vec::new(),
    };
    let set = vec![forward("lost", port("p0"), end(EndPort::Ring(0))), forward("stays", port("p1"), port("p2"))];
    rig.switch.set_components(set).unwrap();
    rig.host.delete_netdev("eth0");
    lost(&rig);
    let running: Vec<_> = rig.switch.components().into_iter().map(|component| component.name).collect();
    assert_eq!(running, ["stays"]);
    assert!(rig.host.receive("eth1", 0, &frame(MacAddr::BROADCAST, mac(1), 1)));
    rig.sent("eth2", 1);
    rig.assert_balanced();
}

#[test]
fn a_guests_end_is_followed_by_name_and_place() {
    let (rig, name) = rig_with("made");
    let far = rig.switch.port("a").unwrap().spec.guest_ifname.unwrap();
    rig.host.rename(&far, "lan0");
    assert_eq!(followed(&rig).guest_ifname.as_deref(), Some("lan0"));
    rig.host.move_netdev("lan0", Some("new"));
    assert_eq!(followed(&rig).netns.as_deref(), Some("new"));
    works(&rig, name, "xs1");
    // In a namespace without a name it can't be seen, and the port works.
    rig.host.move_netdev("lan0", None);
    next_changes(&rig);
    works(&rig, name, "xs1");
}

#[test]
fn a_namespace_that_is_deleted_is_let_go() {
    let (rig, name) = rig_with("made");
    rig.host.set_missing("vm", true);
    let (spec, why) = lost(&rig);
    assert!(why.contains(name), "{why}");
    let refused = rig.switch.restore_ports(vec![spec.clone()]).remove(0).unwrap_err();
    assert!(refused.to_string().contains("`vm`"), "{refused}");
    rig.host.set_missing("vm", false);
    assert!(rig.switch.wait_for_changes(Duration::from_secs(5)), "there is reason to try again");
    rig.switch.restore_ports(vec![spec]).remove(0).unwrap();
    works(&rig, name, "xs1");
}

#[test]
fn what_was_learned_behind_a_link_that_goes_down_is_forgotten() {
    for kind in KINDS {
        let (rig, name) = rig_with(kind);
        works(&rig, name, "xs1");
        rig.switch.fdb_add(&FdbSpec { mac: mac(7), vlan: 0, port: "a".to_owned() }).unwrap();
        rig.host.set_up(name, false);
        let of_a = || rig.switch.fdb().into_iter().filter(|row| row.port == "a").map(|row| row.mac).collect::<Vec<_>>();
        wait("the rows go", || of_a() == [mac(7)]);
        wait("it is told", || problems(&rig).iter().any(|problem| problem.contains("down")));
        rig.host.set_up(name, true);
        wait("it works again", || problems(&rig).is_empty());
        works(&rig, name, "xs1");
    }
}

#[test]
fn the_mtu_of_the_netdev_is_the_ports() {
    for kind in KINDS {
        let (rig, name) = rig_with(kind);
        rig.host.set_mtu(name, 1400);
        assert_eq!(followed(&rig).mtu, Some(1400), "{kind}");
        assert_eq!(rig.switch.port("a").unwrap().spec.mtu, Some(1400));
        rig.host.set_mtu(name, 70_000);
        wait("it is told", || problems(&rig).iter().any(|problem| problem.contains("70000")));
        rig.host.set_mtu(name, 1500);
        assert_eq!(followed(&rig).mtu, Some(1500), "{kind}");
        assert_eq!(problems(&rig), <[String; 0]>::default());
    }
}

#[test]
fn other_queues_have_the_port_added_again_with_them() {
    for kind in ["nic", "veth", "adopted"] {
        let (rig, name) = rig_with(kind);
        rig.host.set_queues(name, 4);
        let (spec, why) = lost(&rig);
        assert!(why.contains("4 queues"), "{why}");
        let again = rig.switch.restore_ports(vec![spec]).remove(0).unwrap();
        assert_eq!(again.queues.len(), 4);
        works(&rig, name, "xs1");
        assert!(rig.host.receive(name, 3, &frame(MacAddr::BROADCAST, mac(1), 1)));
    }
}

#[test]
fn a_port_that_fails_for_good_does_not_wake_who_tries_it_again() {
    let (rig, _) = rig_with("nic");
    rig.host.set_fate(Call::Attach, Fate::Fails(Errno::EOPNOTSUPP));
    let end = Instant::now() + Duration::from_secs(2);
    let mut tries = 0;
    while Instant::now() < end {
        if rig.switch.wait_for_changes(Duration::from_millis(100)) {
            tries += 1;
            // A pair is made and deleted again, and the kernel tells of both.
            rig.switch.restore_ports(vec![guest("never")]).remove(0).unwrap_err();
        }
    }
    assert!(tries < 12, "{tries} tries");
}

#[test]
fn a_program_that_is_taken_off_is_put_back() {
    for kind in KINDS {
        let (rig, name) = rig_with(kind);
        rig.host.take_program_off(name);
        wait("it is back", || rig.host.attached(name).is_some());
        works(&rig, name, "xs1");
        // Somebody else's is in its place.
        rig.host.set_other_program(name, Some(99));
        rig.host.take_program_off(name);
        wait("it is told", || problems(&rig).iter().any(|problem| problem.contains("99")));
        rig.host.set_other_program(name, None);
        wait("it works again", || rig.host.attached(name).is_some() && problems(&rig).is_empty());
        works(&rig, name, "xs1");
    }
}

#[test]
fn a_program_that_can_not_be_put_back_is_told_of() {
    let (rig, name) = rig_with("nic");
    rig.host.set_fate(Call::Attach, Fate::Fails(Errno::EBUSY));
    rig.host.take_program_off(name);
    wait("it is told", || problems(&rig).iter().any(|problem| problem.contains("program")));
    rig.host.set_fate(Call::Attach, Fate::Works);
    wait("it works again", || problems(&rig).is_empty());
}

#[test]
fn offloads_of_the_other_end_are_turned_off_again() {
    for (kind, far) in [("adopted", "p1"), ("veth", "p1")] {
        let (rig, _) = rig_with(kind);
        rig.host.set_offloads(far);
        wait("they are off", || rig.host.is_plain(far));
    }
}

#[test]
fn a_pair_is_known_by_its_mark_after_a_restart() {
    let host = FakeHost::new();
    let switch = host.start();
    let spec = switch.add_port(PortSpec { netns: Some("vm".into()), ..guest("a") }).unwrap().spec;
    drop(switch);
    host.rename("xs0", "renamed");
    host.rename("xg0", "lan0");
    host.move_netdev("lan0", Some("new"));
    let switch = host.start();
    let after = switch.restore_ports(vec![spec.clone()]).remove(0).unwrap().spec;
    assert_eq!((after.ifname.as_deref(), after.guest_ifname.as_deref()), (Some("renamed"), Some("lan0")));
    assert_eq!(after.netns.as_deref(), Some("new"));
    assert_eq!(host.netdevs().len(), 2);
    // A pair that no port has any more goes.
    drop(switch);
    let switch = host.start();
    switch.clear_leftovers(&[guest("another")]);
    assert_eq!(host.netdevs().len(), 0);
}

#[test]
fn netdevs_of_a_port_that_was_not_finished_are_put_back() {
    let host = FakeHost::new();
    host.add_pair("p0", "p1", 1);
    let wish = PortSpec {
        ifname: Some("p0".into()),
        netns: Some("vm".into()),
        mac: Some(mac(9)),
        mtu: Some(1400),
        ..guest("a")
    };
    let state =
        |host: &FakeHost| ["p0", "p1"].map(|name| (host.link(name), host.namespace_of(name), host.is_plain(name)));
    let was = state(&host);
    let switch = host.start();
    let before = switch.netdevs_before(std::slice::from_ref(&wish));
    assert_eq!(state(&host), was, "to look changes nothing");
    switch.add_port(wish).unwrap();
    assert_ne!(state(&host), was);
    drop(switch);
    let switch = host.start();
    before.iter().for_each(|(_, before)| switch.put_netdevs_back(before));
    assert_eq!(state(&host), was);
}
