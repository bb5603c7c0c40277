//! Live ports change as a whole or not at all.

use kit_host::{Call, Fate};
use nix::errno::Errno;
use switch::ErrorKind;
use switch::model::*;

use crate::rig::{Rig, frame, guest, kind, mac, phy};

#[test]
fn both_ends_follow_the_mtu_and_the_guest_its_address() {
    let rig = Rig::new();
    rig.add(guest("vm1"));
    let update = PortUpdate { mtu: Some(1300), mac: Some(mac(7)), isolated: Some(true), ..PortUpdate::default() };
    let port = rig.switch.update_port("vm1", update).unwrap();
    assert_eq!((port.spec.mtu, port.spec.mac, port.spec.isolated), (Some(1300), Some(mac(7)), true));
    let (near, far) = (rig.host.link("xs0").unwrap(), rig.host.link("xg0").unwrap());
    assert_eq!((near.mtu, far.mtu, far.mac), (1300, 1300, mac(7)));
}

#[test]
fn the_address_of_a_nics_port_is_the_switchs_own_affair() {
    let rig = Rig::new();
    let before = rig.add(phy("up", "eth0")).mac;
    rig.switch.update_port("up", PortUpdate { mac: Some(mac(7)), ..PortUpdate::default() }).unwrap();
    assert_eq!(rig.host.link("eth0").map(|link| link.mac), before);
}

#[test]
fn a_change_that_fails_half_way_is_undone_in_full() {
    let rig = Rig::new();
    let before = rig.add(guest("vm1"));
    let update = PortUpdate {
        guest_sockets: Some(true),
        queue_depth: Some(256),
        mtu: Some(1300),
        mac: Some(mac(7)),
        vlan: Some(VlanMode::Access { vid: 5 }),
        ..PortUpdate::default()
    };
    // The address is the last of four changes: both ends' MTU were changed before.
    rig.host.set_fate(Call::Change, Fate::FailsAfter(2, Errno::EBUSY));
    assert_eq!(kind(rig.switch.update_port("vm1", update.clone())), ErrorKind::Busy);
    rig.host.set_fate(Call::Change, Fate::Works);
    let depth = |port: &PortInfo| port.spec.queue_depth;
    let after = rig.switch.port("vm1").unwrap();
    assert_eq!((&after.spec, depth(&after), after.guest_end.is_some()), (&before.spec, depth(&before), false));
    rig.assert_balanced();
    let changed = rig.switch.update_port("vm1", update).unwrap();
    assert_eq!((depth(&changed), changed.spec.guest_sockets), (Some(256), true));
    assert_eq!(changed.spec.vlan, Some(VlanMode::Access { vid: 5 }));
}

#[test]
fn queues_of_another_depth_carry_frames_and_keep_their_counters() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    let pass = |mark| {
        assert!(rig.host.receive("xs0", 0, &frame(mac(2), mac(1), mark)));
        assert_eq!(rig.sent("xs1", 1).len(), 1);
    };
    pass(1);
    rig.switch.update_port("a", PortUpdate { queue_depth: Some(64), ..PortUpdate::default() }).unwrap();
    rig.switch.update_port("b", PortUpdate { queue_depth: Some(4096), ..PortUpdate::default() }).unwrap();
    pass(2);
    assert_eq!(rig.switch.stats().ports[0].rx.packets, 2);
    rig.assert_balanced();
}

#[test]
fn a_depth_that_cant_be_had_leaves_the_old_one() {
    let rig = Rig::new();
    rig.add(PortSpec { queues: Some(2), ..guest("a") });
    // The second queue of the new depth fails, then those of the old one work.
    rig.host.set_fate(Call::OpenQueue, Fate::FailsAfter(1, Errno::ENOMEM));
    let deep = PortUpdate { queue_depth: Some(4096), ..PortUpdate::default() };
    let error = rig.switch.update_port("a", deep.clone()).unwrap_err().to_string();
    assert!(error.contains("with the old depth neither"), "{error}");
    rig.switch.del_port("a").unwrap();
    rig.host.set_fate(Call::OpenQueue, Fate::Works);
    rig.add(PortSpec { queues: Some(2), ..guest("a") });
    rig.host.set_fate(Call::OpenQueue, Fate::FailsOnce(Errno::ENOMEM));
    rig.switch.update_port("a", deep).unwrap_err();
    let port = rig.switch.port("a").unwrap();
    assert_eq!((port.spec.queue_depth, port.queues.len()), (Some(DEFAULT_QUEUE_DEPTH), 2));
    rig.assert_balanced();
}

#[test]
fn what_a_live_port_cant_become_is_refused_with_nothing_changed() {
    let rig = Rig::new();
    let before = rig.add(guest("vm1"));
    let calls = rig.host.calls();
    for (update, expected) in [
        (PortUpdate { queues: Some(2), ..PortUpdate::default() }, ErrorKind::Unsupported),
        (PortUpdate { mtu: Some(65_536), ..PortUpdate::default() }, ErrorKind::Invalid),
        (PortUpdate { mac: Some(MacAddr::BROADCAST), mtu: Some(1300), ..PortUpdate::default() }, ErrorKind::Invalid),
        (PortUpdate { queue_depth: Some(63), ..PortUpdate::default() }, ErrorKind::Invalid),
        (PortUpdate { fdb_limit: Some(0), ..PortUpdate::default() }, ErrorKind::Invalid),
    ] {
        assert_eq!(kind(rig.switch.update_port("vm1", update)), expected);
    }
    assert_eq!((rig.switch.port("vm1").unwrap(), rig.host.calls()), (before, calls));
}
