//! Ports that can't be brought up leave everything as it was.

use kit_host::{Call, Fate};
use nix::errno::Errno;
use switch::ErrorKind;
use switch::model::*;

use crate::rig::{Rig, frame, guest, kind, mac, phy};

#[test]
fn whatever_fails_of_a_guest_leaves_no_pair_and_no_frame_behind() {
    let rig = Rig::new();
    let wish = || PortSpec { guest_sockets: true, queues: Some(2), ..guest("vm1") };
    for call in [
        Call::MakePair,
        Call::Change,
        Call::LoadProgram,
        Call::OpenQueue,
        Call::SetSocket,
        Call::AttachGuestEnd,
        Call::Attach,
    ] {
        for fate in [Fate::FailsOnce(Errno::EBUSY), Fate::FailsAfter(1, Errno::EBUSY)] {
            rig.host.set_fate(call, fate);
            match rig.switch.add_port(wish()) {
                Ok(_) => rig.switch.del_port("vm1").unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
            }
            rig.host.set_fate(call, Fate::Works);
            assert_eq!((rig.host.netdevs(), rig.host.guest_ends()), (Vec::new(), Vec::new()), "{call:?} {fate:?}");
            rig.assert_empty();
        }
    }
    assert_eq!(rig.add(wish()).vport, 0);
}

#[test]
fn whatever_fails_of_a_nic_leaves_it_as_it_was() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 2);
    let wish = || PortSpec { mtu: Some(2000), steering: Steering::Shared, ..phy("up", "eth0") };
    for call in [
        Call::LoadProgram,
        Call::OpenQueue,
        Call::SetSocket,
        Call::MakePromiscuous,
        Call::SetSteering,
        Call::CopyGroupFrames,
        Call::Attach,
    ] {
        rig.host.set_fate(call, Fate::FailsOnce(Errno::EPERM));
        assert_eq!(kind(rig.switch.add_port(wish())), ErrorKind::Denied, "{call:?}");
        assert_eq!(rig.host.link("eth0").unwrap().mtu, 1500, "{call:?}");
        assert!(!rig.host.is_promiscuous("eth0") && rig.host.attached("eth0").is_none(), "{call:?}");
        rig.assert_empty();
    }
    assert_eq!(rig.add(wish()).spec.mtu, Some(2000));
}

#[test]
fn an_adopted_pair_that_fails_is_where_and_what_it_was() {
    let rig = Rig::new();
    rig.host.add_pair("p0", "p1", 1);
    let before = rig.host.link("p1").unwrap();
    rig.host.set_fate(Call::Attach, Fate::Fails(Errno::EOPNOTSUPP));
    let wish = PortSpec {
        ifname: Some("p0".into()),
        netns: Some("vm".into()),
        mac: Some(mac(9)),
        mtu: Some(1400),
        ..guest("vm1")
    };
    assert_eq!(kind(rig.switch.add_port(wish)), ErrorKind::Unsupported);
    let after = rig.host.link("p1").unwrap();
    assert_eq!((after.mac, after.mtu), (before.mac, before.mtu));
    assert_eq!((rig.host.namespace_of("p1"), rig.host.link("p0").unwrap().mtu), (None, 1500));
}

#[test]
fn what_can_be_refused_by_looking_is_refused_before_anything_is_changed() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 4);
    rig.host.add_pair("p0", "p1", 2);
    rig.host.set_missing("nowhere", true);
    for (wish, expected) in [
        (PortSpec { queues: Some(3), ..phy("up", "eth0") }, ErrorKind::Invalid),
        (PortSpec { mtu: Some(9000), ..phy("up", "eth0") }, ErrorKind::Invalid),
        (PortSpec { ifname: Some("p0".into()), ..guest("vm1") }, ErrorKind::Invalid),
        (PortSpec { netns: Some("nowhere".into()), ..guest("vm1") }, ErrorKind::NotFound),
        (PortSpec { mtu: Some(3600), mode: ModeRequest::Native, ..guest("vm1") }, ErrorKind::Invalid),
    ] {
        assert_eq!(kind(rig.switch.add_port(wish)), expected);
    }
    assert_eq!(rig.host.calls(), []);
}

#[test]
fn frames_run_out_for_the_port_that_asks_for_too_many_alone() {
    let rig = Rig::new();
    let many: Vec<_> = (0..5).map(|n| PortSpec { queues: Some(64), ..guest(&format!("vm{n}")) }).collect();
    let added = rig.switch.add_ports(many);
    let failed: Vec<_> = added.iter().filter_map(|port| port.as_ref().err()).collect();
    assert!(!failed.is_empty() && failed.iter().all(|error| error.kind() == ErrorKind::Full), "{failed:?}");
    assert_eq!(rig.host.netdevs().len(), 2 * (5 - failed.len()), "nothing was made of those that have no frames");
    rig.assert_balanced();
}

#[test]
fn a_netdev_that_goes_away_under_a_port_costs_its_frames_only() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    rig.host.set_missing("xs1", true);
    for mark in 0..10 {
        assert!(rig.host.receive("xs0", 0, &frame(MacAddr::BROADCAST, mac(1), mark)));
    }
    rig.assert_balanced();
    let problems = rig.switch.check_netdevs();
    assert!(problems.iter().any(|found| found.port == "b" && found.message.contains("xs1 is gone")), "{problems:?}");
    assert_eq!(rig.switch.port("b").unwrap().mac, None);
    rig.switch.del_port("b").unwrap();
    rig.switch.del_port("a").unwrap();
    rig.assert_empty();
}
