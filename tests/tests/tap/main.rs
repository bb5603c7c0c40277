//! Tap ports, with a program as the VMM that opens them.

mod follow;
mod killed;
mod qemu;

use std::time::Duration;

use serde_json::{Value, json};
use tests::packet::checksum;
use tests::tap::{Left, OpenTap, Vmm};
use tests::{Daemon, Frame, Guest, Mac, NetNs, Options, wait};

/// Longest time that a port takes to follow, and that a frame takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time in which a frame would have come that must not come.
const MOMENT: Duration = Duration::from_millis(300);
/// User and group `nobody` of Debian.
const NOBODY: u32 = 65_534;
const VMM_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

/// Adds a tap port; `more` has further fields. Returns the name of its tap.
fn add(daemon: &Daemon, name: &str, more: Value) -> String {
    let mut spec = json!({ "name": name, "kind": "tap" });
    spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let port = daemon.ok("POST", "ports", spec);
    port["spec"]["guest_ifname"].as_str().expect("the tap's name").to_owned()
}

fn open(ns: &NetNs, name: &str) -> OpenTap {
    Vmm::default().open(ns, name).unwrap_or_else(|error| panic!("opening {name}: {error}"))
}

fn info(daemon: &Daemon, port: &str) -> Value {
    daemon.get(&format!("ports/{port}"))["info"].clone()
}

fn expect_link(daemon: &Daemon, port: &str, up: bool) {
    wait::expect(&format!("the link of {port} is up: {up}"), PATIENCE, || info(daemon, port)["link_up"] == up);
}

fn names(ns: &NetNs) -> Vec<String> {
    let name = |link: &Value| link["ifname"].as_str().expect("a name").to_owned();
    let mut names: Vec<_> = ns.links().iter().map(name).collect();
    names.sort();
    names
}

/// Numbered frames go both ways, and none is lost, doubled or changed.
fn exchanges(tap: &OpenTap, guest: &Guest, from: u64) {
    let raw = guest.raw();
    let stream = |src, dst, seq, len| Frame::ethernet(src, dst).stream(7, seq, len);
    let is_marked = |frame: &Frame| frame.mark().is_some();
    // The kernel takes a moment after a tap was opened, until it sends by it. Then both are learned.
    let first = || {
        raw.send(&stream(guest.mac, VMM_MAC, 0, 60));
        tap.recv_if(MOMENT, is_marked)
    };
    wait::until(PATIENCE, first).expect("a first frame comes to the tap");
    tap.send(0, &stream(VMM_MAC, guest.mac, 0, 60));
    raw.recv_if(PATIENCE, is_marked).expect("a first frame comes from the tap");
    while tap.recv_if(MOMENT, is_marked).is_some() {}
    for seq in from..from + 200 {
        let len = 60 + usize::try_from(seq).expect("a number") * 7 % 1440;
        let there = stream(VMM_MAC, guest.mac, seq, len);
        tap.send(usize::try_from(seq).expect("a number") % tap.queues(), &there);
        assert_eq!(raw.recv_if(PATIENCE, is_marked).as_ref(), Some(&there), "frame {seq} from the tap");
        let back = stream(guest.mac, VMM_MAC, seq, len);
        raw.send(&back);
        let got = tap.recv_if(PATIENCE, is_marked).map(|(_, frame)| frame);
        assert_eq!(got, Some(back), "frame {seq} to the tap");
    }
}

#[test]
fn the_owner_opens_the_tap_and_exchanges_frames_with_a_guest() {
    let daemon = Daemon::start("tap");
    let guest = daemon.guest("c", json!({}));
    let name = add(&daemon, "a", json!({ "tap": { "owner": "nobody" } }));
    assert_eq!(name, "xt1");
    assert_eq!(info(&daemon, "a")["tap"]["owner"], NOBODY);
    expect_link(&daemon, "a", false);
    let vmm = |user, group| Vmm { user, group, ..Vmm::default() };
    let refused = vmm(12_345, NOBODY).open(&daemon.ns, &name).expect_err("another user");
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    let tap = vmm(NOBODY, NOBODY).open(&daemon.ns, &name).expect("the owner");
    expect_link(&daemon, "a", true);
    exchanges(&tap, &guest, 1);
    let seen = info(&daemon, "a");
    assert_eq!((&seen["active_queues"], &seen["tap"]["vnet_hdr"]), (&json!(1), &json!(true)), "{seen}");
    assert_eq!(seen.get("problems"), None, "{seen}");
    let shown = String::from_utf8(daemon.cli("port show a").stdout).expect("text");
    assert!(shown.contains("xt1") && shown.contains("user 65534"), "{shown}");
    // The VMM goes, and another one comes.
    drop(tap);
    expect_link(&daemon, "a", false);
    let is_known = || daemon.get("fdb").to_string().contains("02:00:00:00:00:77");
    wait::expect("what was learned there goes", PATIENCE, || !is_known());
    // What is flooded there meanwhile is dropped, and told.
    let dropped = || daemon.stats("a")["drops"]["link_down"]["packets"].as_u64().unwrap_or(0);
    let (before, sent) = (dropped(), daemon.stats("a")["tx"]["packets"].clone());
    guest.raw().send(&Frame::ethernet(guest.mac, VMM_MAC).stream(7, 9, 60));
    wait::expect("a frame for nobody has its reason", PATIENCE, || dropped() > before);
    assert_eq!(daemon.stats("a")["tx"]["packets"], sent, "none is sent");
    daemon.assert_balanced();
    exchanges(&vmm(NOBODY, NOBODY).open(&daemon.ns, &name).expect("the owner"), &guest, 1);
    daemon.ok("DELETE", "ports/a", Value::Null);
    assert_eq!(names(&daemon.ns), ["lo", "xs0"]);
    daemon.finish();
}

#[test]
fn a_tap_is_for_its_group_or_for_the_daemons_user_alone() {
    let daemon = Daemon::start("tapgroup");
    let group = add(&daemon, "a", json!({ "tap": { "group": "nogroup" } }));
    let nobodys = add(&daemon, "b", json!({}));
    let both = add(&daemon, "c", json!({ "tap": { "owner": "12345", "group": "54321" } }));
    let opens = |name: &str, user, group| Vmm { user, group, ..Vmm::default() }.open(&daemon.ns, name).is_ok();
    assert!(opens(&group, 12_345, NOBODY) && !opens(&group, NOBODY, 12_345));
    assert!(!opens(&nobodys, NOBODY, NOBODY) && opens(&nobodys, 0, 0));
    assert!(opens(&both, 12_345, 54_321) && !opens(&both, 12_345, NOBODY) && !opens(&both, NOBODY, 54_321));
    daemon.finish();
}

#[test]
fn a_live_tap_gets_another_owner_and_group_but_not_under_a_vmm() {
    let daemon = Daemon::start("tapgive");
    let opens = |name: &str, user, group| Vmm { user, group, ..Vmm::default() }.open(&daemon.ns, name);
    let set = |port: &str, tap: Value| daemon.call("PATCH", &format!("ports/{port}"), &json!({ "tap": tap }));
    let mine = add(&daemon, "a", json!({ "tap": { "owner": "12345" } }));
    let both = add(&daemon, "b", json!({ "queues": 2, "tap": { "owner": "12345", "group": "54321" } }));
    let index = |name: &str| daemon.ns.ifindex(name);
    let before = index(&mine);
    let vmm = opens(&mine, 12_345, NOBODY).expect("the owner");
    expect_link(&daemon, "a", true);
    let (status, answer) = set("a", json!({ "owner": "nobody" }));
    assert_eq!((status, info(&daemon, "a")["spec"]["tap"]["owner"].as_str()), (409, Some("12345")), "{answer}");
    drop(vmm);
    expect_link(&daemon, "a", false);
    assert_eq!(set("a", json!({ "owner": "nobody" })).0, 200);
    assert_eq!((index(&mine), info(&daemon, "a")["tap"]["owner"].as_u64()), (before, Some(NOBODY.into())));
    assert!(opens(&mine, 12_345, NOBODY).is_err() && opens(&mine, NOBODY, NOBODY).is_ok());
    assert_eq!(set("b", json!({ "owner": "nobody", "group": "nogroup" })).0, 200);
    let two = |user, group| Vmm { user, group, queues: 2, ..Vmm::default() }.open(&daemon.ns, &both).is_ok();
    assert!(two(NOBODY, NOBODY) && !two(12_345, 54_321));
    assert_ne!(set("b", json!({ "owner": "nobody" })).0, 200, "the kernel can't take a group away");
    daemon.finish();
}

/// A TCP packet in IPv4 with so much data. Of its checksum only the part of the pseudo-header is there.
fn tcp(dst: Mac, len: usize) -> (Frame, Left) {
    let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let data: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
    let length = u16::try_from(20 + len).expect("a packet").to_be_bytes();
    let mut header = [&[3, 232, 7, 208, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0x20, 0][..], &[0; 4]].concat();
    // The sum itself, not its complement.
    let partial = !checksum(&[&from, &to, &[0, 6], &length]);
    header[16..18].copy_from_slice(&partial.to_be_bytes());
    let frame = Frame::ethernet(VMM_MAC, dst).ipv4(6, from.into(), to.into(), &[header, data].concat());
    (frame, Left { checksum: Some((34, 16)), segments: None })
}

/// The data of a TCP packet in IPv4, after a check of its checksum.
fn tcp_data(frame: &Frame, at: usize) -> Vec<u8> {
    let ip = &frame.0[at..];
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = &ip[20..total];
    let length = u16::try_from(tcp.len()).expect("a packet").to_be_bytes();
    assert_eq!(checksum(&[&ip[12..20], &[0, 6], &length, tcp]), 0, "checksum of {frame:?}");
    assert_eq!(checksum(&[&ip[..20]]), 0, "header checksum of {frame:?}");
    tcp[20..].to_vec()
}

#[test]
fn checksums_and_segments_that_a_vmm_leaves_to_its_host_are_completed() {
    let daemon = Daemon::start("tapleft");
    let guest = daemon.guest("c", json!({ "vlan": { "mode": "trunk" } }));
    let name = add(&daemon, "a", json!({ "vlan": { "mode": "trunk" } }));
    let (tap, raw) = (open(&daemon.ns, &name), guest.raw());
    let next = || raw.recv_if(PATIENCE, |frame| frame.src() == VMM_MAC).expect("a packet");
    let (frame, left) = tcp(guest.mac, 1000);
    tap.send_left(0, &frame, left).expect("a packet that lacks its checksum");
    assert_eq!(tcp_data(&next(), 14).len(), 1000);
    // In a VLAN.
    let mut tagged = frame.clone();
    tagged.0.splice(12..12, [0x81, 0, 0, 7]);
    tap.send_left(0, &tagged, Left { checksum: Some((38, 16)), segments: None }).expect("the same in a VLAN");
    let got = next();
    assert_eq!((got.outer_tag(), tcp_data(&got, 18).len()), (Some((0x8100, 0, 7)), 1000));
    // A packet as large as a VMM can leave to be cut.
    let (frame, left) = tcp(guest.mac, 60_000);
    tap.send_left(0, &frame, Left { segments: Some((54, 1400)), ..left }).expect("a packet to be cut");
    let mut data = Vec::new();
    while data.len() < 60_000 {
        let segment = next();
        assert!(segment.0.len() <= 1454, "{}", segment.0.len());
        data.extend(tcp_data(&segment, 14));
    }
    assert_eq!(Frame(data), Frame(frame.0[54..].to_vec()));
    assert_eq!(daemon.stats("a")["rx"]["packets"], 2 + 60_000_u64.div_ceil(1400));
    daemon.finish();
}

#[test]
fn a_packet_that_is_too_long_or_no_packet_is_lost_and_nothing_else() {
    let daemon = Daemon::start("taplong");
    let guest = daemon.guest("c", json!({}));
    let name = add(&daemon, "a", json!({}));
    let tap = open(&daemon.ns, &name);
    for len in [1519, 4000, 60_000] {
        let _ = tap.try_send(0, &Frame::ethernet(VMM_MAC, guest.mac).payload(0x88b5, &vec![1; len - 14]));
    }
    // A header that promises what the packet has not, and one without a packet.
    let (frame, _) = tcp(guest.mac, 100);
    for left in [
        Left { checksum: Some((2000, 16)), segments: None },
        Left { checksum: Some((34, 16)), segments: Some((54, 0)) },
        Left { checksum: None, segments: Some((1, 1)) },
    ] {
        let _ = tap.send_left(0, &frame, left);
    }
    let _ = tap.try_send(0, &Frame(vec![1; 13]));
    exchanges(&tap, &guest, 1);
    daemon.finish();
}

#[test]
fn several_queues_are_opened_one_by_one() {
    let daemon = Daemon::with("tapmq", &Options { workers: 2, ..Options::default() });
    let guest = daemon.guest("c", json!({}));
    let name = add(&daemon, "a", json!({ "queues": 2 }));
    let single = Vmm::default().open(&daemon.ns, &name).expect_err("a tap of several queues");
    assert_eq!(single.raw_os_error(), Some(libc::EINVAL));
    let mut tap = Vmm { queues: 3, ..Vmm::default() }.open(&daemon.ns, &name).expect("more queues than the port has");
    exchanges(&tap, &guest, 1);
    // Frames that come in by several queues come to several queues of the switch.
    let queues = daemon.stats("a")["queues"].clone();
    let received = |queue: usize| queues[queue]["rx"]["packets"].as_u64().unwrap_or(0);
    assert!(received(0) > 0 && received(1) > 0, "{queues}");
    for open in [2, 1] {
        tap.close_one();
        exchanges(&tap, &guest, 1);
        assert_eq!(info(&daemon, "a")["active_queues"], open);
    }
    daemon.finish();
}

#[test]
fn a_tap_may_be_in_a_namespace_of_its_own() {
    let mut daemon = Daemon::start("tapns");
    let guest = daemon.guest("c", json!({}));
    let jail = NetNs::new("jail");
    let name = add(&daemon, "a", json!({ "netns": jail.name(), "guest_ifname": "tap0" }));
    assert_eq!(name, "tap0");
    let tap = open(&jail, "tap0");
    exchanges(&tap, &guest, 1);
    daemon.kill();
    daemon.launch();
    expect_link(&daemon, "a", true);
    exchanges(&tap, &guest, 1);
    daemon.ok("DELETE", "ports/a", Value::Null);
    assert_eq!(names(&jail), ["lo"]);
    daemon.finish();
}

#[test]
fn a_refused_add_leaves_nothing() {
    let daemon = Daemon::start("taprefused");
    daemon.ns.sh("ip tuntap add dev theirs mode tap");
    daemon.ns.sh("ip link add p0 type veth peer name p1");
    let before = names(&daemon.ns);
    for (more, text) in [
        (json!({ "guest_ifname": "theirs" }), "guest_ifname: theirs is there"),
        (json!({ "guest_ifname": "p0" }), "guest_ifname: p0 is there"),
        (json!({ "ifname": "p0" }), "ifname: p0 is there"),
        (json!({ "tap": { "owner": "no such user" } }), "tap.owner: there is no `no such user`"),
        (json!({ "tap": { "group": "no such group" } }), "tap.group: "),
        (json!({ "queues": 257 }), "queues: 257 is out of range"),
        (json!({ "mtu": 65522 }), "mtu: 65522 is out of range"),
        (json!({ "netns": "no-such-place" }), "netns: "),
        (json!({ "guest_sockets": true }), "guest_sockets: "),
        (json!({ "kind": "guest", "tap": {} }), "tap: "),
        (json!({ "mac_check": true }), "mac_check: "),
    ] {
        let mut spec = json!({ "name": "a", "kind": "tap" });
        spec.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        let (status, answer) = daemon.call("POST", "ports", &spec);
        assert!(status >= 400 && answer.to_string().contains(text), "{spec}: {status} {answer}");
        assert_eq!(names(&daemon.ns), before, "{spec}");
    }
    // A tap that the operator has made can be a NIC of the switch.
    daemon.ok("POST", "ports", json!({ "name": "b", "kind": "phy", "ifname": "theirs", "queues": 1 }));
    daemon.ok("DELETE", "ports/b", Value::Null);
    assert_eq!(names(&daemon.ns), before);
    daemon.finish();
}
