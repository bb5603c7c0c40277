//! Bonds: several netdevs that are one port.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bond::options::Options;
use bond::{Action, Bond, Link, MemberId, NewMember};
use kit_host::FakeHost;
use switch::ErrorKind;
use switch::model::*;

use crate::rig::{Rig, frame, guest, kind, mac, phy, wait};

const SLOW: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 2];

fn bond(members: &[&str], options: &[(&str, &str)]) -> PortSpec {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let members = members.iter().map(|name| (*name).to_owned()).collect();
    PortSpec { bond: Some(BondSpec { members, options }), ..PortSpec::new("bond0", PortKind::Bond) }
}

/// A switch with NICs `e0`, `e1`, `e2` and a guest.
fn rig() -> (Rig, String) {
    let rig = Rig::bare();
    (0..3).for_each(|number| rig.host.add_nic(&format!("e{number}"), 1));
    let vm = rig.add(PortSpec { mac: Some(mac(1)), ..guest("vm") });
    (rig, vm.spec.guest_ifname.map(|_| vm.spec.ifname.unwrap_or_default()).unwrap_or_default())
}

fn info(rig: &Rig) -> BondInfo {
    rig.switch.ports().into_iter().find(|port| port.spec.name == "bond0").and_then(|port| port.bond).unwrap()
}

fn member(rig: &Rig, name: &str) -> BondMemberInfo {
    info(rig).members.into_iter().find(|member| member.ifname == name).unwrap()
}

fn update(rig: &Rig, update: BondUpdate) -> Result<PortInfo, switch::Error> {
    rig.switch.update_port("bond0", PortUpdate { bond: Some(update), ..PortUpdate::default() })
}

fn option(name: &str, value: &str) -> BondUpdate {
    BondUpdate { options: BTreeMap::from([(name.into(), value.into())]), ..BondUpdate::default() }
}

fn add(name: &str) -> BondUpdate {
    BondUpdate { add: vec![name.into()], ..BondUpdate::default() }
}

fn remove(name: &str) -> BondUpdate {
    BondUpdate { remove: vec![name.into()], ..BondUpdate::default() }
}

/// Sends a frame of the guest that is flooded; returns the members that it left by.
fn left_by(rig: &Rig, vm: &str, mark: u8) -> Vec<String> {
    let data = frame(MacAddr::BROADCAST, mac(1), mark);
    wait("the guest sends", || rig.host.receive(vm, 0, &data));
    let mut by = Vec::new();
    let sent = |by: &mut Vec<String>| {
        let all = ["e0", "e1", "e2"].into_iter().filter(|name| rig.host.sent(name, 0).contains(&data));
        by.extend(all.map(str::to_owned));
    };
    wait("it leaves", || {
        sent(&mut by);
        !by.is_empty()
    });
    // A copy that there must not be.
    std::thread::sleep(Duration::from_millis(5));
    sent(&mut by);
    by
}

fn drops(rig: &Rig, reason: DropReason) -> u64 {
    let stats = rig.switch.stats();
    let ports = stats.ports.iter().filter(|port| port.name == "bond0");
    ports.filter_map(|port| port.drops.get(reason.label())).map(|count| count.packets).sum()
}

#[test]
fn an_active_backup_bond_fails_over_and_tells_its_network() {
    let (rig, vm) = rig();
    let port = rig.add(bond(&["e0", "e1"], &[("mode", "active-backup")]));
    assert!(port.link_up && port.queues.len() == 2, "{port:?}");
    assert_eq!(info(&rig).active.as_deref(), Some("e0"));
    assert_eq!(left_by(&rig, &vm, 1), ["e0"]);
    // Only the active member's frames are taken.
    wait("a backup receives", || rig.host.receive("e1", 0, &frame(MacAddr::BROADCAST, mac(9), 2)));
    wait("it is dropped", || drops(&rig, DropReason::BondInactive) == 1);
    assert_eq!((member(&rig, "e1").inactive_drops, rig.host.sent(&vm, 0).len()), (1, 0));
    rig.host.sent_beside("e1");
    rig.host.set_up("e0", false);
    wait("it fails over", || info(&rig).active.as_deref() == Some("e1"));
    assert_eq!(left_by(&rig, &vm, 3), ["e1"]);
    wait("the guest's address is announced", || {
        rig.host.sent_beside("e1").iter().any(|frame| frame[6..12] == mac(1).octets() && frame[12..14] == [0x80, 0x35])
    });
    wait("groups are asked for", || rig.host.sent(&vm, 0).iter().any(|frame| frame[..6] == [1, 0, 0x5e, 0, 0, 1]));
    assert_eq!(member(&rig, "e0").link_failures, 1);
    rig.host.set_up("e1", false);
    wait("it has no carrier", || !info(&rig).carrier);
    wait("the guest sends", || rig.host.receive(&vm, 0, &frame(MacAddr::BROADCAST, mac(1), 4)));
    wait("it is dropped", || drops(&rig, DropReason::LinkDown) == 1);
    rig.assert_balanced();
    rig.switch.del_port("bond0").unwrap();
    rig.switch.del_port("vm").unwrap();
    rig.assert_empty();
    assert!(["e0", "e1"].iter().all(|name| rig.host.attached(name).is_none() && !rig.host.is_promiscuous(name)));
}

#[test]
fn each_mode_sends_as_it_says() {
    let (rig, vm) = rig();
    rig.add(bond(&["e0", "e1", "e2"], &[("mode", "broadcast")]));
    let mut by = left_by(&rig, &vm, 1);
    by.sort();
    assert_eq!(by, ["e0", "e1", "e2"]);
    rig.assert_balanced();
    rig.switch.del_port("bond0").unwrap();
    rig.add(bond(&["e0", "e1", "e2"], &[("mode", "balance-rr"), ("packets_per_slave", "2")]));
    let turns: Vec<_> = (0..12).flat_map(|mark| left_by(&rig, &vm, mark)).collect();
    assert_eq!(turns.len(), 12);
    for name in ["e0", "e1", "e2"] {
        assert_eq!(turns.iter().filter(|by| *by == name).count(), 4, "{turns:?}");
    }
    assert!(turns.chunks(2).all(|two| two[0] == two[1]), "{turns:?}");
    rig.switch.del_port("bond0").unwrap();
    rig.add(bond(&["e0", "e1", "e2"], &[("mode", "balance-xor"), ("xmit_hash_policy", "vlan+srcmac")]));
    let first = left_by(&rig, &vm, 1);
    assert!(first.len() == 1 && (0..5).all(|mark| left_by(&rig, &vm, mark) == first), "one flow, one member");
    let shares = || info(&rig).members.iter().map(|member| member.buckets).collect::<Vec<_>>();
    wait("buckets have moved", || shares().iter().all(|share| (85..=86).contains(share)));
    assert_eq!(shares().iter().sum::<usize>(), 256);
    rig.assert_balanced();
}

#[test]
fn members_come_and_go_and_have_queues_of_their_own() {
    let (rig, vm) = rig();
    rig.host.add_nic("wide", 3);
    rig.add(PortSpec { queues: Some(5), ..bond(&["e0", "wide"], &[("mode", "active-backup")]) });
    let queues = |name: &str| (member(&rig, name).first_queue, member(&rig, name).queues);
    assert_eq!((queues("e0"), queues("wide")), ((0, 1), (1, 3)));
    assert_eq!(kind(update(&rig, add("e0"))), ErrorKind::Exists);
    assert_eq!(kind(update(&rig, add("nothing"))), ErrorKind::NotFound);
    assert_eq!(kind(update(&rig, remove("e1"))), ErrorKind::NotFound);
    update(&rig, add("e1")).unwrap();
    assert_eq!(queues("e1"), (4, 1));
    // There is no room for one more.
    assert_eq!(kind(update(&rig, add("e2"))), ErrorKind::Invalid);
    assert!(rig.host.attached("e2").is_none());
    update(&rig, remove("e0")).unwrap();
    assert_eq!((info(&rig).active.as_deref(), rig.host.attached("e0")), (Some("wide"), None));
    // It takes the place of what has left.
    let after = update(&rig, add("e2")).unwrap();
    assert_eq!((queues("e2"), after.queues.len()), ((0, 1), 5));
    assert_eq!(after.spec.bond.unwrap().members, ["wide", "e1", "e2"]);
    update(&rig, remove("wide")).unwrap();
    assert_eq!(left_by(&rig, &vm, 1).len(), 1);
    wait("a member receives", || {
        let active = info(&rig).active.unwrap();
        rig.host.receive(&active, 0, &frame(mac(1), mac(9), 7))
    });
    assert_eq!(rig.sent(&vm, 1).len(), 1);
    rig.assert_balanced();
    rig.switch.update_port("bond0", PortUpdate { queue_depth: Some(128), ..PortUpdate::default() }).unwrap();
    assert_eq!(left_by(&rig, &vm, 2).len(), 1);
    rig.switch.del_port("bond0").unwrap();
    rig.switch.del_port("vm").unwrap();
    rig.assert_empty();
}

#[test]
fn a_member_that_is_gone_is_taken_up_again() {
    let (rig, vm) = rig();
    rig.add(bond(&["e0", "e1"], &[("mode", "active-backup")]));
    rig.host.delete_netdev("e0");
    wait("it is lost", || info(&rig).members.len() == 1);
    assert_eq!(left_by(&rig, &vm, 1), ["e1"]);
    let problems = || rig.switch.ports().into_iter().find(|port| port.spec.name == "bond0").unwrap().problems;
    wait("it is told", || problems().iter().any(|text| text.contains("e0 is missing")));
    assert_eq!(rig.switch.ports()[1].spec.bond.clone().unwrap().members, ["e0", "e1"]);
    rig.host.add_nic("e0", 1);
    wait("it is back", || info(&rig).members.len() == 2 && problems().is_empty());
    rig.host.rename("e1", "uplink");
    wait("the name is followed", || info(&rig).active.as_deref() == Some("uplink"));
    wait("and kept", || rig.switch.ports()[1].spec.bond.clone().unwrap().members == ["e0", "uplink"]);
    rig.assert_balanced();
}

#[test]
fn members_have_one_mtu_and_belong_to_one_port() {
    let (rig, _) = rig();
    rig.host.set_mtu("e0", 2000);
    let port = rig.add(bond(&["e0", "e1"], &[("mode", "balance-xor")]));
    let mtu = |name: &str| rig.host.link(name).unwrap().mtu;
    assert_eq!((port.spec.mtu, mtu("e0"), mtu("e1")), (Some(2000), 2000, 2000));
    rig.switch.update_port("bond0", PortUpdate { mtu: Some(1600), ..PortUpdate::default() }).unwrap();
    assert_eq!((mtu("e0"), mtu("e1")), (1600, 1600));
    update(&rig, add("e2")).unwrap();
    assert_eq!(mtu("e2"), 1600);
    for spec in [phy("p", "e1"), PortSpec { name: "bond1".into(), ..bond(&["e2"], &[]) }] {
        assert_eq!(kind(rig.switch.add_port(spec)), ErrorKind::Exists);
    }
    rig.host.set_mtu("e1", 1400);
    wait("it is told", || rig.switch.ports()[1].problems.iter().any(|text| text.contains("MTU 1400")));
}

#[test]
fn bad_bonds_are_refused_and_leave_nothing() {
    let (rig, _) = rig();
    for (spec, why) in [
        (PortSpec { bond: None, ..bond(&[], &[]) }, ErrorKind::Invalid),
        (PortSpec { ifname: Some("e0".into()), ..bond(&["e1"], &[]) }, ErrorKind::Invalid),
        (PortSpec { bond: bond(&["e0"], &[]).bond, ..phy("p", "e1") }, ErrorKind::Invalid),
        (bond(&["e0", "e0"], &[]), ErrorKind::Invalid),
        (bond(&["e0", "nothing"], &[]), ErrorKind::NotFound),
        (bond(&["e0"], &[("mode", "round")]), ErrorKind::Invalid),
        (bond(&["e0"], &[("colour", "red")]), ErrorKind::Invalid),
        (bond(&["e0"], &[("mode", "balance-alb")]), ErrorKind::Unsupported),
        (bond(&["e0"], &[("lacp_rate", "fast")]), ErrorKind::WrongMode),
        (bond(&["e0"], &[("updelay", "100")]), ErrorKind::NotReady),
        (bond(&["e0"], &[("slaves", "+e1")]), ErrorKind::Invalid),
        (PortSpec { queues: Some(1), ..bond(&["e0", "e1"], &[]) }, ErrorKind::Invalid),
    ] {
        let text = format!("{spec:?}");
        assert_eq!(rig.switch.add_port(spec).map_err(|error| error.kind()).unwrap_err(), why, "{text}");
    }
    assert!(["e0", "e1"].iter().all(|name| rig.host.attached(name).is_none()));
    rig.add(bond(&["e0"], &[("lacp_rate", "fast"), ("miimon", "100"), ("updelay", "250"), ("mode", "4")]));
    // What the driver does not change while a bond is up.
    for (name, value, why) in [
        ("mode", "0", ErrorKind::NotEmpty),
        ("lacp_rate", "slow", ErrorKind::Busy),
        ("primary", "e0", ErrorKind::WrongMode),
        ("arp_interval", "100", ErrorKind::WrongMode),
    ] {
        assert_eq!(kind(update(&rig, option(name, value))), why, "{name}");
    }
    // It is what it is now that is kept, not what was asked for.
    let after = update(&rig, option("miimon", "50")).unwrap();
    let kept = after.spec.bond.unwrap().options;
    assert_eq!((&kept["updelay"][..], &kept["miimon"][..], &kept["mode"][..]), ("100", "50", "802.3ad"));
    assert_eq!(info(&rig).options["updelay"], "100");
}

/// The other side of the links: another bond of the same crate.
struct Partner {
    bond: Bond,
    start: Instant,
    members: BTreeMap<MemberId, String>,
}

impl Partner {
    fn new(names: &[&str]) -> Self {
        let mut options = Options::default();
        for (name, value) in [("mode", "802.3ad"), ("lacp_rate", "fast")] {
            options.set(name, value, Default::default()).unwrap();
        }
        let mut bond = Bond::new(options, Some(mac(0x77)));
        bond.set_up(Duration::ZERO, true);
        let link = Link { up: true, speed: Some(10_000), duplex: Some(bond::Duplex::Full) };
        let mut join = |(name, last): (&&str, u8)| {
            let new = NewMember { name: (*name).to_owned(), mac: mac(0x80 + last), link };
            (bond.add(Duration::ZERO, new), (*name).to_owned())
        };
        let members = names.iter().zip(0..).map(&mut join).collect();
        Self { bond, start: Instant::now(), members }
    }

    /// Carries LACPDUs both ways, once.
    fn turn(&mut self, host: &FakeHost) {
        let now = self.start.elapsed();
        for (id, name) in &self.members {
            for frame in host.sent_beside(name) {
                assert_eq!((&frame[..6], &frame[12..14]), (&SLOW[..], &[0x88, 0x09][..]));
                self.bond.receive(now, *id, &frame).unwrap();
            }
        }
        self.bond.run(now, |_| 0);
        for action in self.bond.take_actions() {
            if let Action::Send { member, frame } = action {
                host.receive(&self.members[&member], 0, &frame);
            }
        }
    }

    fn until(&mut self, rig: &Rig, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        wait(what, || {
            self.turn(&rig.host);
            is_so(self)
        });
    }
}

#[test]
fn a_bond_negotiates_lacp_and_members_leave_without_a_loss() {
    let (rig, vm) = rig();
    for name in ["e0", "e1"] {
        let mode = LinkMode { speed: Some(10_000), duplex: Some(Duplex::Full), autoneg: None };
        rig.host.set_link(name, mode, NetdevCounters::default());
    }
    rig.add(bond(&["e0", "e1"], &[("mode", "802.3ad"), ("lacp_rate", "fast"), ("xmit_hash_policy", "layer3+4")]));
    assert!(!info(&rig).carrier, "nobody has answered");
    // What comes in before that is not the bond's.
    wait("a member receives", || rig.host.receive("e0", 0, &frame(mac(1), mac(9), 1)));
    wait("it is dropped", || drops(&rig, DropReason::BondInactive) == 1);
    let mut partner = Partner::new(&["e0", "e1"]);
    let both =
        |rig: &Rig| info(rig).members.iter().filter(|member| member.distributing && member.collecting).count() == 2;
    partner.until(&rig, "both sides agree", |partner| both(&rig) && partner.bond.carrier());
    let lacp = info(&rig).lacp.unwrap();
    assert_eq!((lacp.partner, lacp.ports), (mac(0x77), 2));
    partner.until(&rig, "all is said", |_| {
        let port = member(&rig, "e0").lacp.unwrap();
        (port.actor.state, port.partner.state, &port.mux_state[..]) == (63, 63, "distributing")
    });
    let port = member(&rig, "e0").lacp.unwrap();
    assert!(port.pdus_received > 0 && port.pdus_bad == 0);
    partner.until(&rig, "buckets have moved", |_| member(&rig, "e0").buckets == 128);
    assert_eq!(left_by(&rig, &vm, 2).len(), 1);
    wait("a member receives", || rig.host.receive("e1", 0, &frame(mac(1), mac(9), 3)));
    assert_eq!(rig.sent(&vm, 1).len(), 1);
    // PDUs are no traffic.
    let stats = rig.switch.stats();
    let of_bond = stats.ports.iter().find(|port| port.name == "bond0").unwrap();
    assert_eq!(of_bond.rx.packets, 2);
    // One leaves while the partner's machine runs beside.
    let rig = &rig;
    let mut partner = std::thread::scope(|scope| {
        let removal = scope.spawn(|| update(rig, remove("e0")).unwrap());
        partner.until(rig, "a member leaves", |_| removal.is_finished());
        let after = removal.join().unwrap();
        assert_eq!(after.spec.bond.unwrap().members, ["e1"]);
        partner
    });
    assert_eq!((left_by(rig, &vm, 4), drops(rig, DropReason::LinkDown)), (vec!["e1".to_owned()], 0));
    // Garbage costs nothing but a count.
    let mut bad = [&SLOW[..], &mac(0x81).octets(), &[0x88, 0x09, 1, 1, 9, 9]].concat();
    bad.resize(124, 0xff);
    wait("garbage comes in", || rig.host.receive("e1", 0, &bad));
    partner.until(rig, "it is counted", |_| member(rig, "e1").lacp.unwrap().pdus_bad == 1);
    assert!(info(rig).carrier);
    rig.assert_balanced();
}

#[test]
fn a_shared_bond_hears_lacp_and_floods_by_its_gate() {
    let (rig, vm) = rig();
    rig.add(PortSpec { steering: Steering::Shared, ..bond(&["e0", "e1"], &[("mode", "active-backup")]) });
    wait("a group frame is copied", || rig.host.receive_group("e0", &frame(MacAddr::BROADCAST, mac(9), 1)));
    assert_eq!(rig.sent(&vm, 1).len(), 1);
    rig.host.receive_group("e1", &frame(MacAddr::BROADCAST, mac(9), 2));
    wait("the backup's copy is dropped", || member(&rig, "e1").inactive_drops == 1);
    assert!(!rig.host.steering("e0").is_empty() && rig.host.steering("e0") == rig.host.steering("e1"));
    update(&rig, add("e2")).unwrap();
    assert_eq!(rig.host.steering("e2"), rig.host.steering("e0"));
}
