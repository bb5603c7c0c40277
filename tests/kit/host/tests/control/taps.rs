//! Tap ports: a pair of the switch with a tap behind it.

use std::time::Duration;

use kit_host::{Call, Fate};
use nix::errno::Errno;
use switch::model::*;
use switch::{ErrorKind, PortChange};

use crate::rig::{Rig, frame, guest, kind, mac, wait};

fn tap(name: &str) -> PortSpec {
    PortSpec::new(name, PortKind::Tap)
}

fn in_namespace(name: &str) -> PortSpec {
    PortSpec { netns: Some("vm".into()), ..tap(name) }
}

/// Frames go both ways by a pair, whose far end and tap are joined.
fn works(rig: &Rig, netdev: &str, far: &str, tap: &str) {
    assert_eq!(rig.host.redirected_to(far).as_deref(), Some(tap));
    assert_eq!(rig.host.redirected_to(tap).as_deref(), Some(far));
    // Nothing is sent to a tap that no VMM has, until the watcher has seen that one has.
    rig.host.open_tap(tap, 1);
    rig.sent("xs9", 0);
    wait("a frame comes in", || rig.host.receive(netdev, 0, &frame(MacAddr::BROADCAST, mac(1), 1)));
    rig.sent("xs9", 1);
    wait("a frame comes back", || {
        rig.host.receive("xs9", 0, &frame(mac(1), mac(2), 2));
        !rig.host.sent(netdev, 0).is_empty()
    });
}

/// A rig with a guest beside, which has number 9.
fn rig() -> Rig {
    let rig = Rig::bare();
    rig.add(PortSpec { mac: Some(mac(2)), vport: Some(9), ..guest("b") });
    rig
}

fn expect(rig: &Rig, what: &str, is_so: impl Fn(&PortInfo) -> bool) {
    wait(what, || is_so(&rig.switch.port("a").unwrap()));
}

#[test]
fn what_nobody_takes_is_dropped_and_told() {
    let rig = rig();
    rig.add(tap("a"));
    let count = |name: &str| {
        let stats = rig.switch.stats();
        let port = stats.ports.iter().find(|port| port.name == name).unwrap();
        (port.tx.packets, port.drops.get("link_down").map_or(0, |count| count.packets))
    };
    let send = |mark| assert!(rig.host.receive("xs9", 0, &frame(MacAddr::BROADCAST, mac(2), mark)));
    send(1);
    wait("it is dropped", || count("a") == (0, 1));
    rig.host.open_tap("xt0", 1);
    // The watcher sees it after a moment.
    wait("it is sent", || {
        send(2);
        count("a").0 > 0
    });
    rig.host.open_tap("xt0", 0);
    let (_, before) = count("a");
    wait("it is dropped again", || {
        send(3);
        count("a").1 > before
    });
    rig.assert_balanced();
}

#[test]
fn a_tap_gets_and_loses_the_address_of_its_guest() {
    let rig = rig();
    let before = rig.add(PortSpec { mac: Some(mac(1)), ..tap("a") }).spec;
    let update = |update| rig.switch.update_port("a", update);
    let no_mac = || PortUpdate { no_mac: true, ..PortUpdate::default() };
    // It is checked against: one has to go with the other.
    assert_eq!(kind(update(no_mac())), ErrorKind::Invalid);
    assert_eq!(kind(update(PortUpdate { mac: Some(mac(7)), ..no_mac() })), ErrorKind::Invalid);
    assert_eq!(rig.switch.port("a").unwrap().spec, before);
    let bare = update(PortUpdate { mac_check: Some(false), ..no_mac() }).unwrap().spec;
    assert_eq!((bare.mac, bare.mac_check), (None, Some(false)));
    // Another port may have it now.
    rig.add(PortSpec { mac: Some(mac(1)), ..tap("c") });
    assert_eq!(kind(rig.switch.update_port("b", no_mac())), ErrorKind::Invalid, "a guest of a veth always has one");
    let link = rig.host.link("xt0").unwrap();
    update(PortUpdate { mac: Some(mac(7)), mac_check: Some(true), ..PortUpdate::default() }).unwrap();
    assert_eq!(rig.host.link("xt0").unwrap().index, link.index, "it is the same tap");
}

#[test]
fn a_tap_is_joined_to_a_pair_on_which_no_stack_speaks() {
    for wish in [tap("a"), in_namespace("a")] {
        let rig = rig();
        let info = rig.add(PortSpec { queues: Some(2), mtu: Some(1400), ..wish.clone() });
        let spec = &info.spec;
        assert_eq!((spec.ifname.as_deref(), spec.guest_ifname.as_deref()), (Some("xs0"), Some("xt0")));
        assert_eq!((spec.mac, spec.mac_check), (None, Some(false)), "the address of the guest is not known");
        let link = rig.host.link("xt0").unwrap();
        let state = link.tap.unwrap();
        let daemon = nix::unistd::geteuid().as_raw();
        assert_eq!((state.owner, state.group, state.is_multi_queue), (Some(daemon), None, true));
        assert_eq!((link.mtu, link.up, rig.host.namespace_of("xt0")), (1400, true, wish.netns.clone()));
        assert_eq!(rig.host.namespace_of("xf0"), wish.netns);
        assert!(rig.host.is_plain("xf0") && rig.host.is_silent("xf0") && rig.host.is_silent("xt0"));
        works(&rig, "xs0", "xf0", "xt0");
        rig.switch.update_port("a", PortUpdate { mtu: Some(1300), ..PortUpdate::default() }).unwrap();
        assert!(["xs0", "xf0", "xt0"].iter().all(|name| rig.host.link(name).unwrap().mtu == 1300));
        rig.switch.del_port("a").unwrap();
        assert_eq!(rig.host.netdevs().len(), 2);
        rig.assert_balanced();
    }
}

#[test]
fn the_link_is_up_while_a_vmm_has_the_tap() {
    let rig = rig();
    assert!(!rig.add(tap("a")).link_up);
    works(&rig, "xs0", "xf0", "xt0");
    rig.host.open_tap("xt0", 1);
    expect(&rig, "a VMM is seen", |port| port.link_up && port.active_queues == 1);
    assert!(rig.switch.port("a").unwrap().tap.is_some_and(|tap| tap.vnet_hdr && tap.open_queues == 1));
    assert!(rig.switch.fdb().iter().any(|row| row.port == "a"));
    // The watcher may miss a VMM that comes and goes at once. Nothing was learned from that one then.
    wait("what was learned there goes", || {
        rig.host.open_tap("xt0", 0);
        let is_gone = rig.switch.fdb().iter().all(|row| row.port != "a");
        if !is_gone {
            rig.host.open_tap("xt0", 1);
        }
        is_gone
    });
    expect(&rig, "it is gone", |port| !port.link_up);
    // What is said of others does not bring it back.
    rig.host.set_mtu("xg9", 1400);
    expect(&rig, "it is gone", |port| !port.link_up);
}

#[test]
fn whatever_fails_leaves_nothing() {
    for wish in [tap("a"), in_namespace("a")] {
        for call in Call::ALL {
            for fate in [0, 1, 2, 3].map(|works| Fate::FailsOnceAfter(works, Errno::EIO)) {
                let rig = Rig::bare();
                rig.host.set_fate(call, fate);
                if rig.switch.add_port(wish.clone()).is_err() {
                    assert_eq!(rig.host.netdevs(), [] as [&str; 0], "{call:?} {fate:?}");
                    rig.assert_empty();
                }
            }
        }
    }
}

#[test]
fn a_change_that_fails_changes_nothing() {
    for works in 0..4 {
        let rig = Rig::bare();
        rig.add(tap("a"));
        rig.host.set_fate(Call::Change, Fate::FailsOnceAfter(works, Errno::EIO));
        let changed = rig.switch.update_port("a", PortUpdate { mtu: Some(1300), ..PortUpdate::default() });
        let mtu = if changed.is_ok() { 1300 } else { 1500 };
        assert!(["xs0", "xf0", "xt0"].iter().all(|name| rig.host.link(name).unwrap().mtu == mtu), "{works}");
        assert_eq!(changed.is_ok(), works == 3);
    }
}

/// A change of the user who may open a tap, and of whatever else.
fn given(owner: &str, more: PortUpdate) -> PortUpdate {
    PortUpdate { tap: Some(TapSpec { owner: Some(owner.into()), group: None }), ..more }
}

#[test]
fn a_live_tap_gets_another_owner() {
    for wish in [tap("a"), in_namespace("a")] {
        let rig = rig();
        rig.add(wish);
        let before = rig.host.link("xt0").unwrap();
        let info = rig.switch.update_port("a", given("4711", PortUpdate::default())).unwrap();
        assert_eq!(info.spec.tap, Some(TapSpec { owner: Some("4711".into()), group: None }));
        assert_eq!(info.tap.unwrap().owner, Some(4711));
        let link = rig.host.link("xt0").unwrap();
        assert_eq!((link.index, link.tap.unwrap().owner, link.tap.unwrap().group), (before.index, Some(4711), None));
        assert!(rig.switch.check_netdevs().is_empty(), "it is as the port says");
        // Nobody in particular is the daemon's user.
        let nobody = PortUpdate { tap: Some(TapSpec::default()), ..PortUpdate::default() };
        assert_eq!(rig.switch.update_port("a", nobody).unwrap().spec.tap, None);
        assert_eq!(rig.host.link("xt0").unwrap().tap.unwrap().owner, Some(nix::unistd::geteuid().as_raw()));
    }
}

#[test]
fn a_tap_that_can_not_be_given_leaves_all_as_it_was() {
    let rig = rig();
    let before = rig.add(PortSpec { mac: Some(mac(1)), ..tap("a") }).spec;
    let other = || PortUpdate { mtu: Some(1300), mac: Some(mac(7)), ..PortUpdate::default() };
    let refused = |name: &str, update, expected| {
        assert_eq!(kind(rig.switch.update_port(name, update)), expected);
        assert_eq!(rig.switch.port("a").unwrap().spec, before);
        let link = rig.host.link("xt0").unwrap();
        assert_eq!((link.mtu, link.tap.unwrap().owner), (1500, Some(nix::unistd::geteuid().as_raw())));
    };
    refused("b", given("4711", PortUpdate::default()), ErrorKind::Invalid);
    refused("a", given("no such user", other()), ErrorKind::Invalid);
    let group = TapSpec { owner: None, group: Some("4711".into()) };
    refused("a", PortUpdate { tap: Some(group), ..other() }, ErrorKind::Unsupported);
    rig.host.open_tap("xt0", 1);
    refused("a", given("4711", other()), ErrorKind::Busy);
    rig.host.open_tap("xt0", 0);
    rig.host.set_fate(Call::GiveTap, Fate::Fails(Errno::EPERM));
    refused("a", given("4711", other()), ErrorKind::Denied);
    rig.host.set_fate(Call::GiveTap, Fate::Works);
    let spec = rig.switch.update_port("a", given("4711", other())).unwrap().spec;
    assert_eq!((spec.mtu, spec.mac), (Some(1300), Some(mac(7))));
    rig.assert_balanced();
}

#[test]
fn a_netdev_of_somebody_else_is_refused_before_anything_is_made() {
    let rig = Rig::bare();
    rig.host.add_tap("theirs");
    rig.host.add_nic("eth0", 1);
    for wish in [
        PortSpec { guest_ifname: Some("theirs".into()), ..tap("a") },
        PortSpec { guest_ifname: Some("eth0".into()), ..tap("a") },
        PortSpec { ifname: Some("eth0".into()), ..tap("a") },
    ] {
        assert_eq!(kind(rig.switch.add_port(wish)), ErrorKind::Exists);
    }
    let nobody = TapSpec { owner: Some("no such user".into()), group: None };
    assert_eq!(kind(rig.switch.add_port(PortSpec { tap: Some(nobody), ..tap("a") })), ErrorKind::Invalid);
    assert_eq!(rig.host.calls(), []);
    // Another port's tap is none that can be named, and no NIC.
    rig.add(tap("a"));
    let wish = PortSpec { guest_ifname: Some("xt0".into()), ..tap("b") };
    assert_eq!(kind(rig.switch.add_port(wish)), ErrorKind::Exists);
    let phy = PortSpec { ifname: Some("xt0".into()), ..PortSpec::new("c", PortKind::Phy) };
    assert!(rig.switch.add_port(phy).unwrap_err().to_string().contains("port `a`"));
}

#[test]
fn a_tap_that_is_deleted_is_made_again_and_one_that_can_not_is_told() {
    for wish in [tap("a"), in_namespace("a")] {
        let rig = rig();
        rig.add(wish);
        rig.host.open_tap("xt0", 1);
        expect(&rig, "a VMM is seen", |port| port.link_up);
        rig.host.delete_netdev("xt0");
        wait("there is one again", || rig.host.link("xt0").is_some_and(|link| link.up));
        expect(&rig, "nobody has it", |port| !port.link_up && port.problems.is_empty());
        works(&rig, "xs0", "xf0", "xt0");
        rig.host.set_fate(Call::MakePortTap, Fate::Fails(Errno::EPERM));
        rig.host.delete_netdev("xt0");
        expect(&rig, "it is told", |port| port.problems.iter().any(|problem| problem.contains("xt0 is gone")));
        rig.host.set_fate(Call::MakePortTap, Fate::Works);
        rig.host.set_up("xf0", true);
        expect(&rig, "it is made when it can be", |port| port.problems.is_empty());
        works(&rig, "xs0", "xf0", "xt0");
    }
}

#[test]
fn a_tap_is_followed_when_it_is_renamed_and_told_when_it_is_down() {
    let rig = rig();
    rig.add(tap("a"));
    rig.host.rename("xt0", "other");
    expect(&rig, "the port follows", |port| port.spec.guest_ifname.as_deref() == Some("other"));
    assert!(matches!(rig.switch.take_port_changes().pop(), Some(PortChange::Followed(_))));
    rig.host.set_up("other", false);
    expect(&rig, "it is told", |port| port.problems.iter().any(|problem| problem.contains("ip link set other up")));
    assert!(
        rig.switch.check_netdevs().iter().any(|found| found.port == "a" && found.message.contains("other is down"))
    );
    rig.host.set_up("other", true);
    expect(&rig, "all is well", |port| port.problems.is_empty());
    for netdev in ["other", "xf0"] {
        rig.host.take_redirect_off(netdev);
        wait("its filter is back", || rig.host.redirected_to(netdev).is_some());
    }
    works(&rig, "xs0", "xf0", "other");
}

#[test]
fn a_pair_that_is_gone_is_made_anew_behind_the_same_tap() {
    for wish in [tap("a"), in_namespace("a")] {
        let rig = rig();
        rig.add(wish);
        rig.host.open_tap("xt0", 1);
        let before = rig.host.link("xt0").unwrap().index;
        rig.host.delete_netdev("xs0");
        let mut lost = None;
        wait("the port is lost", || {
            rig.switch.wait_for_changes(Duration::from_millis(100));
            lost = rig.switch.take_port_changes().pop();
            lost.is_some()
        });
        let Some(PortChange::Lost { spec, .. }) = lost else { panic!("{lost:?}") };
        // One that fails leaves the tap to its VMM.
        for call in [Call::Attach, Call::Redirect, Call::OpenQueue] {
            rig.host.set_fate(call, Fate::FailsOnce(Errno::EIO));
            assert!(rig.switch.restore_ports(vec![(*spec).clone()])[0].is_err());
            assert_eq!(rig.host.link("xt0").map(|link| link.index), Some(before), "{call:?}");
            assert!(rig.host.link("xs0").is_none(), "{call:?}");
        }
        let again = rig.switch.restore_ports(vec![*spec]).remove(0).unwrap();
        assert!(again.link_up);
        assert_eq!(rig.host.link("xt0").map(|link| link.index), Some(before));
        works(&rig, "xs0", "xf0", "xt0");
    }
}

#[test]
fn the_next_process_takes_up_pair_and_tap_whatever_they_are_called() {
    for wish in [tap("a"), in_namespace("a")] {
        let rig = rig();
        let spec = rig.add(wish).spec;
        rig.host.open_tap("xt0", 1);
        let Rig { host, switch } = rig;
        let b = switch.port("b").unwrap().spec;
        drop(switch);
        host.rename("xt0", "tap-of-a");
        host.rename("xs0", "near-of-a");
        let rig = Rig { switch: host.start(), host };
        rig.switch.clear_leftovers(&[spec.clone(), b.clone()]);
        let mut again = rig.switch.restore_ports(vec![spec.clone(), b]);
        let info = again.remove(0).unwrap();
        assert_eq!((info.spec.guest_ifname.as_deref(), info.link_up), (Some("tap-of-a"), true));
        works(&rig, "near-of-a", "xf0", "tap-of-a");
        // A process that has no such port any more removes both.
        let Rig { host, switch } = rig;
        drop(switch);
        host.start().clear_leftovers(&[]);
        assert_eq!(host.netdevs(), [] as [&str; 0]);
    }
}
