//! The host keeps its own: addresses that it has on shared NICs are nobody else's.

use switch::ErrorKind;
use switch::host::SteerKey;
use switch::model::*;

use crate::rig::{Rig, frame, guest, kind, mac, phy, wait};

fn shared(name: &str, ifname: &str) -> PortSpec {
    PortSpec { steering: Steering::Shared, ..phy(name, ifname) }
}

fn own(rig: &Rig, ifname: &str) -> MacAddr {
    rig.host.link(ifname).expect("the NIC is there").mac
}

fn is_steered(rig: &Rig, nic: &str, mac: MacAddr) -> bool {
    let keys = rig.host.steering(nic);
    [Some(0), None].iter().any(|&vid| keys.contains(&SteerKey { mac: mac.octets(), vid }))
}

fn dropped(rig: &Rig, port: &str) -> u64 {
    let stats = rig.switch.stats();
    let port = stats.ports.into_iter().find(|stats| stats.name == port).expect("the port is there");
    port.drops.get("host_address").map_or(0, |count| count.packets)
}

fn knows(rig: &Rig, mac: MacAddr) -> bool {
    rig.switch.fdb().iter().any(|row| row.mac == mac)
}

/// Whether all of it can have that address: none of it can.
fn is_refused(rig: &Rig, address: MacAddr) -> bool {
    let refused = [
        rig.switch.add_port(PortSpec { mac: Some(address), ..guest("thief") }).map(drop),
        rig.switch.update_port("a", PortUpdate { mac: Some(address), ..PortUpdate::default() }).map(drop),
        rig.switch.fdb_add(&FdbSpec { mac: address, vlan: 0, port: "a".into() }),
        rig.switch.fdb_add(&FdbSpec { mac: address, vlan: 7, port: "a".into() }),
    ];
    refused.iter().all(|refused| {
        let error = refused.as_ref().expect_err("the address is the host's");
        let text = error.to_string();
        error.kind() == ErrorKind::Exists && text.starts_with("mac: ") && text.contains("host's own address on")
    })
}

#[test]
fn no_port_and_no_entry_may_have_the_address_of_a_shared_nic() {
    let rig = Rig::new();
    rig.add(PortSpec { mac: Some(mac(1)), ..guest("a") });
    rig.add(shared("up", "eth0"));
    rig.host.add_on_top("eth0.7", "eth0");
    rig.host.set_mac("eth0.7", mac(7));
    // Any change looks again at what is on top of the NIC.
    rig.switch.update_port("a", PortUpdate { isolated: Some(true), ..PortUpdate::default() }).unwrap();
    let before = (rig.host.netdevs(), rig.switch.ports(), rig.switch.fdb());
    assert!(is_refused(&rig, own(&rig, "eth0")) && is_refused(&rig, mac(7)));
    assert_eq!((rig.host.netdevs(), rig.switch.ports(), rig.switch.fdb()), before, "a refusal changes nothing");
    rig.switch.del_port("up").unwrap();
    rig.add(PortSpec { mac: Some(mac(7)), ..guest("heir") });
}

#[test]
fn frames_from_the_hosts_address_are_dropped_wherever_they_come_in() {
    let rig = Rig::new();
    rig.add(PortSpec { mac_check: Some(false), ..guest("a") });
    for (name, ifname) in [("up", "eth0"), ("second", "eth1")] {
        rig.add(PortSpec { isolated: true, ..shared(name, ifname) });
    }
    let (first, second) = (own(&rig, "eth0"), own(&rig, "eth1"));
    // A guest forges it. Then the host's own broadcast comes back by its other NIC, and by the same one.
    assert!(rig.host.receive("xs0", 0, &frame(MacAddr::BROADCAST, first, 1)));
    assert!(rig.host.receive("xs0", 0, &frame(mac(5), second, 2)));
    assert!(rig.host.receive_group("eth1", &frame(MacAddr::BROADCAST, first, 3)));
    assert!(rig.host.receive_group("eth0", &frame(MacAddr::BROADCAST, first, 4)));
    wait("they are dropped", || [dropped(&rig, "a"), dropped(&rig, "second"), dropped(&rig, "up")] == [2, 1, 1]);
    assert!(!knows(&rig, first) && !knows(&rig, second));
    // A station there is learned and steered as before.
    assert!(rig.host.receive("xs0", 0, &frame(MacAddr::BROADCAST, mac(5), 5)));
    wait("it is steered", || is_steered(&rig, "eth0", mac(5)) && is_steered(&rig, "eth1", mac(5)));
    assert!(![first, second].iter().any(|mac| is_steered(&rig, "eth0", *mac) || is_steered(&rig, "eth1", *mac)));
    rig.assert_balanced();
}

#[test]
fn a_new_address_of_the_nic_is_the_hosts_within_a_moment() {
    let rig = Rig::new();
    rig.add(PortSpec { mac_check: Some(false), ..guest("a") });
    rig.add(PortSpec { mac: Some(mac(8)), ..guest("b") });
    rig.add(shared("up", "eth0"));
    let old = own(&rig, "eth0");
    assert!(rig.host.receive("xs0", 0, &frame(MacAddr::BROADCAST, mac(9), 1)));
    wait("it is learned and steered", || is_steered(&rig, "eth0", mac(9)));
    for (address, was_port) in [(mac(9), false), (mac(8), true)] {
        rig.host.set_mac("eth0", address);
        wait("it is steered no more", || !is_steered(&rig, "eth0", address));
        wait("it is forgotten", || !knows(&rig, address));
        let before = dropped(&rig, "a");
        assert!(rig.host.receive("xs0", 0, &frame(MacAddr::BROADCAST, address, 2)));
        wait("it is dropped", || dropped(&rig, "a") == before + 1);
        assert!(was_port || is_refused(&rig, address));
    }
    rig.add(PortSpec { mac: Some(old), ..guest("heir") });
    wait("the old address is free", || is_steered(&rig, "eth0", old));
    rig.assert_balanced();
}

#[test]
fn a_nic_is_not_shared_while_a_port_or_an_entry_has_its_address() {
    let rig = Rig::new();
    rig.host.add_nic("eth0", 1);
    let address = own(&rig, "eth0");
    rig.add(PortSpec { mac: Some(address), ..guest("a") });
    let error = rig.switch.add_port(shared("up", "eth0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().starts_with("ifname: ") && error.to_string().contains("port `a`"), "{error}");
    assert!(!rig.host.link("eth0").unwrap().up, "a refusal changes nothing");
    rig.switch.update_port("a", PortUpdate { mac: Some(mac(1)), ..PortUpdate::default() }).unwrap();
    rig.switch.fdb_add(&FdbSpec { mac: address, vlan: 3, port: "a".into() }).unwrap();
    let error = rig.switch.add_port(shared("up", "eth0")).unwrap_err();
    assert!(error.to_string().contains("a static entry of the MAC table, in VLAN 3"), "{error}");
    rig.switch.fdb_del(address, 3).unwrap();
    // Together with a port that wants its address, the one that comes first has it.
    let added = rig.switch.add_ports(vec![shared("up", "eth0"), PortSpec { mac: Some(address), ..guest("b") }]);
    assert!(added[0].is_ok() && kind(added[1].clone()) == ErrorKind::Exists, "{added:?}");
    assert_eq!(kind(rig.switch.add_port(PortSpec { mac: Some(address), ..shared("own", "eth1") })), ErrorKind::Exists);
}

#[test]
fn a_nic_that_the_switch_has_alone_keeps_no_address_from_anybody() {
    let rig = Rig::new();
    rig.add(phy("up", "eth0"));
    rig.add(PortSpec { mac: Some(own(&rig, "eth0")), ..guest("a") });
    assert!(rig.host.receive("xs1", 0, &frame(MacAddr::BROADCAST, own(&rig, "eth0"), 1)));
    assert_eq!(rig.sent("eth0", 1).len(), 1);
}
