//! Ports that can't be brought up leave everything as it was.

use kit_host::{Call, FakeHost, Fate, small_settings};
use nix::errno::Errno;
use switch::ErrorKind;
use switch::host::{HostUse, Link};
use switch::model::*;

use crate::rig::{Rig, frame, guest, kind, mac, phy, wait};

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
        (PortSpec { mtu: Some(65_536), ..phy("up", "eth0") }, ErrorKind::Invalid),
        (PortSpec { ifname: Some("p0".into()), ..guest("vm1") }, ErrorKind::Invalid),
        (PortSpec { netns: Some("nowhere".into()), ..guest("vm1") }, ErrorKind::NotFound),
        (
            PortSpec { mtu: Some(3600), mode: ModeRequest::Native, guest_sockets: true, ..guest("vm1") },
            ErrorKind::Invalid,
        ),
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
fn the_port_that_is_refused_is_told_how_many_frames_are_wanted_and_a_flood_still_reaches_all() {
    let host = FakeHost::with_everything();
    let switch = host.start_with(&DataplaneSettings { frames: 4096, ..small_settings() });
    let added =
        switch.add_ports((0..100).map(|n| PortSpec { mac: Some(mac(n)), ..guest(&format!("vm{n}")) }).collect());
    let ports = added.iter().flatten().count();
    let error = added.into_iter().find_map(Result::err).unwrap();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("set `dataplane.frames` to 8192"), "{error}");
    let audit = switch.audit();
    assert!(audit.consistent && audit.free >= audit.frames / 4, "{audit:?}");
    assert!(host.receive("xs0", 0, &frame(MacAddr::BROADCAST, mac(0), 1)));
    wait("a broadcast has reached every other port", || {
        let stats = switch.stats();
        let drops: Vec<_> = stats.ports.iter().flat_map(|port| port.drops.keys()).collect();
        assert!(drops.is_empty(), "{drops:?}");
        stats.ports.iter().filter(|port| port.tx.packets == 1).count() == ports - 1
    });
    // What a port that goes had is there for another one, whatever it was given.
    switch.del_port("vm0").unwrap();
    switch.add_port(guest("other")).unwrap();
}

/// Everything of a netdev that a port may change.
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    link: Option<Link>,
    namespace: Option<String>,
    is_plain: bool,
    is_promiscuous: bool,
    program: Option<Mode>,
}

fn all_of(host: &FakeHost, names: &[&str]) -> Vec<Looks> {
    let one = |name: &&str| Looks {
        link: host.link(name),
        namespace: host.namespace_of(name),
        is_plain: host.is_plain(name),
        is_promiscuous: host.is_promiscuous(name),
        program: host.attached(name),
    };
    names.iter().map(one).collect()
}

#[test]
fn a_step_that_fails_leaves_all_of_every_netdev_as_it_was() {
    let adopted = PortSpec {
        ifname: Some("p0".into()),
        netns: Some("vm".into()),
        mac: Some(mac(9)),
        mtu: Some(1400),
        guest_sockets: true,
        ..guest("vm1")
    };
    let nic = PortSpec { mtu: Some(2000), steering: Steering::Shared, ..phy("up", "eth0") };
    let veth = PortSpec { mtu: Some(1400), ..phy("lan", "p0") };
    for (wish, is_up) in
        [(&adopted, false), (&adopted, true), (&nic, false), (&nic, true), (&veth, false), (&veth, true)]
    {
        for call in Call::ALL {
            // The first call of a kind fails, or the second, or the third.
            for fate in [0, 1, 2].map(|works| Fate::FailsOnceAfter(works, Errno::EIO)) {
                let rig = Rig::new();
                rig.host.add_nic("eth0", 1);
                rig.host.add_pair("p0", "p1", 1);
                let names = ["eth0", "p0", "p1"];
                names.iter().for_each(|name| rig.host.set_up(name, is_up));
                let before = all_of(&rig.host, &names);
                rig.host.set_fate(call, fate);
                if rig.switch.add_port(wish.clone()).is_err() {
                    assert_eq!(all_of(&rig.host, &names), before, "{wish:?} {call:?} {fate:?}");
                    assert!(rig.host.guest_ends().is_empty(), "{wish:?} {call:?} {fate:?}");
                    rig.assert_empty();
                }
            }
        }
    }
}

#[test]
fn a_change_that_fails_leaves_all_of_every_netdev_as_it_was() {
    let update = PortUpdate {
        mtu: Some(1400),
        mac: Some(mac(9)),
        guest_sockets: Some(true),
        queue_depth: Some(64),
        ..PortUpdate::default()
    };
    for call in Call::ALL {
        for works in 0..4 {
            let rig = Rig::new();
            let port = rig.add(guest("vm1"));
            let names = ["xs0", "xg0"];
            let before = all_of(&rig.host, &names);
            rig.host.set_fate(call, Fate::FailsOnceAfter(works, Errno::EIO));
            if rig.switch.update_port("vm1", update.clone()).is_err() {
                assert_eq!(all_of(&rig.host, &names), before, "{call:?} {works}");
                assert!(rig.host.guest_ends().is_empty(), "{call:?} {works}");
                assert_eq!(rig.switch.port("vm1").unwrap().spec, port.spec, "{call:?} {works}");
                rig.assert_balanced();
            }
        }
    }
}

#[test]
fn a_program_of_somebody_else_is_refused_before_anything_is_changed() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 1);
    rig.host.add_pair("p0", "p1", 1);
    for name in ["eth0", "p0"] {
        rig.host.set_other_program(name, Some(7));
    }
    for wish in [phy("up", "eth0"), phy("lan", "p0"), PortSpec { ifname: Some("p0".into()), ..guest("vm1") }] {
        assert_eq!(kind(rig.switch.add_port(wish)), ErrorKind::Busy);
    }
    assert_eq!(rig.host.calls(), []);
}

#[test]
fn a_nic_that_the_host_needs_is_taken_by_force_only_or_shared() {
    let rig = Rig::new();
    let uses = [
        HostUse { addresses: vec!["10.0.0.5/24".into()], default_route: false },
        HostUse { addresses: Vec::new(), default_route: true },
    ];
    for host_use in uses {
        rig.host.add_nic("eth0", 1);
        rig.host.set_host_use("eth0", host_use);
        let error = rig.switch.add_port(phy("up", "eth0")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("shared") && error.to_string().contains("force"), "{error}");
        for wish in [
            PortSpec { force: true, ..phy("up", "eth0") },
            PortSpec { steering: Steering::Shared, ..phy("up", "eth0") },
        ] {
            rig.add(wish);
            rig.switch.del_port("up").unwrap();
        }
        // A port that was there before is not lost for it.
        assert!(rig.switch.restore_ports(vec![phy("up", "eth0")])[0].is_ok());
        rig.switch.del_port("up").unwrap();
        rig.host.delete_netdev("eth0");
    }
}

#[test]
fn both_ends_of_a_pair_are_no_two_ports() {
    let rig = Rig::new();
    rig.host.add_pair("p0", "p1", 1);
    rig.add(guest("vm1"));
    rig.add(phy("lan", "p0"));
    for (wish, owner) in [
        (phy("a", "p1"), "`lan`"),
        (phy("b", "xg0"), "`vm1`"),
        (PortSpec { ifname: Some("p1".into()), ..guest("c") }, "`lan`"),
        (PortSpec { ifname: Some("xg0".into()), ..guest("d") }, "`vm1`"),
    ] {
        let error = rig.switch.add_port(wish).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
        assert!(error.to_string().contains(owner), "{error}");
    }
    // Also if both are asked for at once.
    rig.host.add_pair("q0", "q1", 1);
    let both = rig.switch.add_ports(vec![phy("e", "q0"), phy("f", "q1")]);
    assert_eq!((both[0].is_ok(), both[1].is_ok()), (true, false));
}
