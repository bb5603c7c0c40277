//! NICs that are shared with the host.

use switch::host::SteerKey;
use switch::model::*;

use crate::rig::{Rig, frame, guest, mac, phy, wait};

fn shared() -> PortSpec {
    PortSpec { steering: Steering::Shared, ..phy("up", "eth0") }
}

fn key(last: u8) -> SteerKey {
    SteerKey { mac: mac(last).octets(), vid: Some(0) }
}

#[test]
fn stations_behind_other_ports_are_steered_to_the_switch() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(shared());
    assert_eq!(rig.host.steering("eth0"), [key(1)].into(), "also those of ports that were there before");
    rig.add(PortSpec { mac: Some(mac(2)), ..guest("b") });
    assert_eq!(rig.host.steering("eth0"), [key(1), key(2)].into());
    rig.switch.fdb_add(&FdbSpec { mac: mac(3), vlan: 0, port: "a".into() }).unwrap();
    rig.switch.update_port("b", PortUpdate { mac: Some(mac(4)), ..PortUpdate::default() }).unwrap();
    assert_eq!(rig.host.steering("eth0"), [key(1), key(3), key(4)].into());
    rig.switch.del_port("a").unwrap();
    assert_eq!(rig.host.steering("eth0"), [key(4)].into());
}

#[test]
fn what_is_not_steered_stays_with_the_host() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(shared());
    assert!(!rig.host.receive("eth0", 0, &frame(mac(8), mac(9), 1)));
    assert!(rig.host.receive("eth0", 0, &frame(mac(1), mac(9), 2)));
    assert_eq!(rig.sent("xs0", 1), [frame(mac(1), mac(9), 2)]);
    assert_eq!(rig.host.counters("eth0")[0].pass, 1);
}

#[test]
fn group_addressed_frames_come_by_the_copy() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(shared());
    let question = frame(MacAddr::BROADCAST, mac(9), 3);
    assert!(rig.host.receive_group("eth0", &question));
    assert_eq!(rig.sent("xs0", 1), [question]);
    rig.assert_balanced();
    rig.switch.del_port("up").unwrap();
    wait("nobody copies any more", || !rig.host.receive_group("eth0", &frame(MacAddr::BROADCAST, mac(9), 4)));
}
