//! The same address on two ports: refused, unless both say that they share it.

use switch::model::*;
use switch::{ErrorKind, Switch};

use crate::rig::{Rig, frame, guest, kind, mac, phy, wait};

fn with_mac(name: &str, last: u8) -> PortSpec {
    PortSpec { mac: Some(mac(last)), ..guest(name) }
}

fn sharing(name: &str, last: u8) -> PortSpec {
    PortSpec { shared_mac: true, ..with_mac(name, last) }
}

#[test]
fn a_second_port_with_an_address_is_refused_and_the_first_one_named() {
    let rig = Rig::new();
    rig.add(with_mac("a", 1));
    rig.add(with_mac("b", 2));
    let before = (rig.host.netdevs(), rig.switch.ports());
    let error = rig.switch.add_port(with_mac("c", 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().starts_with("mac: 02:00:00:00:00:01 belongs to port `a`"), "{error}");
    let same = PortUpdate { mac: Some(mac(1)), ..PortUpdate::default() };
    assert_eq!(kind(rig.switch.update_port("b", same.clone())), ErrorKind::Exists);
    rig.switch.update_port("a", same).expect("it has that address");
    for wish in [sharing("c", 1), PortSpec { mac: Some(mac(1)), ..phy("c", "eth0") }] {
        assert_eq!(kind(rig.switch.add_port(wish)), ErrorKind::Exists, "one that shares is not enough");
    }
    let together = rig.switch.add_ports(vec![with_mac("c", 3), with_mac("d", 3)]);
    assert!(together[0].is_ok() && kind(together[1].clone()) == ErrorKind::Exists);
    rig.switch.del_port("c").unwrap();
    assert_eq!((rig.host.netdevs(), rig.switch.ports()), before);
    let both = [with_mac("x", 9), with_mac("y", 9)];
    let error = Switch::check_ports(rig.switch.settings(), &both).unwrap_err();
    assert!(error.to_string().starts_with("port `y`: mac: "), "{error}");
}

#[test]
fn an_address_that_a_pair_already_has_counts_too() {
    let rig = Rig::new();
    rig.host.add_pair("tap0", "tap1", 1);
    rig.host.set_mac("tap1", mac(1));
    rig.add(with_mac("a", 1));
    let adopted = PortSpec { ifname: Some("tap0".into()), ..guest("b") };
    assert_eq!(kind(rig.switch.add_port(adopted)), ErrorKind::Exists);
}

#[test]
fn in_vlans_without_a_common_one_it_is_another_station() {
    let rig = Rig::new();
    let access = |vid| Some(VlanMode::Access { vid });
    let trunk = |native, tagged: &str| Some(VlanMode::Trunk { native, tagged: tagged.parse().unwrap() });
    rig.add(PortSpec { vlan: access(5), ..with_mac("a", 1) });
    rig.add(PortSpec { vlan: access(6), ..with_mac("b", 1) });
    rig.add(PortSpec { vlan: trunk(None, "7-9"), ..with_mac("c", 1) });
    for vlan in [access(5), access(8), trunk(Some(6), "100"), trunk(None, "9-20")] {
        let wish = PortSpec { vlan: vlan.clone(), ..with_mac("d", 1) };
        assert_eq!(kind(rig.switch.add_port(wish)), ErrorKind::Exists, "{vlan:?}");
    }
    let moved = PortUpdate { vlan: access(6), ..PortUpdate::default() };
    assert_eq!(kind(rig.switch.update_port("a", moved)), ErrorKind::Exists);
    rig.add(PortSpec { vlan: trunk(Some(0), "10-20"), ..with_mac("d", 1) });
    // The bridge has nothing to do with ports of components.
    rig.add(PortSpec { spp: Some("vhost:0".into()), vlan: access(5), ..with_mac("e", 1) });
}

#[test]
fn a_service_may_move_between_ports_that_share_its_address() {
    let rig = Rig::new();
    rig.add(sharing("a", 1));
    rig.add(sharing("b", 1));
    rig.add(with_mac("c", 3));
    assert_eq!(rig.switch.check_netdevs().iter().filter(|found| found.message.contains("is that of port")).count(), 2);
    for (netdev, mark) in [("xs0", 1), ("xs1", 2), ("xs0", 3)] {
        assert!(rig.host.receive(netdev, 0, &frame(MacAddr::BROADCAST, mac(1), mark)));
        assert_eq!(rig.sent("xs2", 1), [frame(MacAddr::BROADCAST, mac(1), mark)]);
        assert!(rig.host.receive("xs2", 0, &frame(mac(1), mac(3), mark)));
        wait("the answer goes where it last was", || rig.host.sent(netdev, 0).contains(&frame(mac(1), mac(3), mark)));
    }
    let alone = PortUpdate { shared_mac: Some(false), ..PortUpdate::default() };
    assert_eq!(kind(rig.switch.update_port("a", alone.clone())), ErrorKind::Exists, "another one has it");
    rig.switch.del_port("b").unwrap();
    rig.switch.update_port("a", alone).unwrap();
    assert_eq!(kind(rig.switch.add_port(sharing("b", 1))), ErrorKind::Exists);
    rig.assert_balanced();
}
