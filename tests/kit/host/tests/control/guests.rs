//! Guests that open sockets of their own.

use kit_host::FakeHost;
use switch::ErrorKind;
use switch::model::*;

use crate::rig::{Rig, guest, kind, phy};

#[test]
fn a_guest_gets_a_socket_a_queue_once_its_end_is_open() {
    let rig = Rig::new();
    rig.add(PortSpec { queues: Some(3), ..guest("vm1") });
    assert_eq!(kind(rig.switch.guest_sockets("vm1")), ErrorKind::Busy);
    let end = rig.switch.open_guest_end("vm1").unwrap();
    assert_eq!((end.queues.len(), end.mode), (3, Mode::Native));
    assert_eq!(rig.switch.guest_sockets("vm1").unwrap().sockets.len(), 3);
    let port = rig.switch.port("vm1").unwrap();
    assert_eq!((port.spec.guest_sockets, port.guest_end.unwrap().map_path), (true, end.map_path));
    rig.switch.withdraw_guest_sockets("vm1").unwrap();
}

#[test]
fn bound_queues_are_asked_for_at_the_guests_netdev() {
    let rig = Rig::new();
    rig.add(PortSpec { queues: Some(3), ..guest("vm1") });
    rig.host.set_bound_queues("xg0", Some(2));
    let active = |ports: Vec<PortInfo>| ports[0].active_queues;
    assert_eq!((active(rig.switch.ports()), active(rig.switch.ports_in_brief())), (2, 0));
}

#[test]
fn a_nic_has_no_guests_end() {
    let rig = Rig::new();
    rig.add(phy("up", "eth0"));
    assert_eq!(kind(rig.switch.open_guest_end("up")), ErrorKind::Unsupported);
    assert!(rig.host.guest_ends().is_empty());
}

#[test]
fn what_a_guest_has_outlives_the_switch_and_is_taken_up() {
    let host = FakeHost::new();
    let switch = host.start();
    switch.add_port(guest("vm1")).unwrap();
    switch.open_guest_end("vm1").unwrap();
    let given = switch.guest_sockets("vm1").unwrap();
    let spec = switch.port("vm1").unwrap().spec;
    drop(switch);
    assert_eq!(host.guest_ends(), [0]);
    let switch = host.start();
    switch.add_port(spec).unwrap();
    assert!(switch.return_guest_sockets("vm1", &given.sockets).unwrap());
    switch.del_port("vm1").unwrap();
    assert_eq!((host.guest_ends(), host.netdevs().len()), (vec![], 0));
}

#[test]
fn what_is_kept_of_ports_that_are_gone_is_forgotten() {
    let host = FakeHost::new();
    let switch = host.start();
    for name in ["a", "b", "c"] {
        switch.add_port(guest(name)).unwrap();
        switch.open_guest_end(name).unwrap();
    }
    let spec = switch.port("a").unwrap().spec;
    drop(switch);
    let switch = host.start();
    switch.add_port(spec).unwrap();
    switch.reserve_ports(vec![(1, "b".into(), 1)]);
    switch.forget_stale_pins();
    assert_eq!(host.guest_ends(), [0, 1]);
    switch.forget_port(1).unwrap();
    assert_eq!(host.guest_ends(), [0]);
}
