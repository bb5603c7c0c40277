//! The bridge on real netdevs: learning, flooding, VLANs, spoofing, isolation.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tests::packet::{CTAG, STAG};
use tests::raw::RawSocket;
use tests::{Daemon, Frame, Guest, Mac, wait};

const SOON: Duration = Duration::from_secs(3);
/// How long a test waits for a frame that must not come.
const QUIET: Duration = Duration::from_millis(200);
const TEST_ETHERTYPE: u16 = 0x88b5;

fn frame(from: Mac, to: Mac, mark: u8) -> Frame {
    Frame::ethernet(from, to).payload(TEST_ETHERTYPE, &[mark; 46])
}

/// Checks that the frame comes exactly once.
fn gets(socket: &RawSocket, expected: &Frame) {
    assert_eq!(socket.recv_if(SOON, |frame| frame == expected).as_ref(), Some(expected));
    assert_eq!(socket.recv_if(QUIET, |frame| frame == expected), None, "it came twice");
}

fn gets_nothing(socket: &RawSocket) {
    assert_eq!(socket.recv(QUIET), None);
}

fn three(daemon: &Daemon, more: [Value; 3]) -> [Guest; 3] {
    let mut names = ["a", "b", "c"].into_iter();
    more.map(|more| daemon.guest(names.next().expect("three"), more))
}

fn raws(guests: &[Guest; 3]) -> [RawSocket; 3] {
    guests.each_ref().map(Guest::raw)
}

#[test]
fn unknown_is_flooded_without_echo_and_known_goes_to_its_port_only() {
    let daemon = Daemon::start("learn");
    let guests = three(&daemon, [json!({}), json!({}), json!({})]);
    let [a, b, c] = raws(&guests);
    let first = frame(guests[0].mac, guests[1].mac, 1);
    a.send(&first);
    gets(&b, &first);
    gets(&c, &first);
    gets_nothing(&a);
    let answer = frame(guests[1].mac, guests[0].mac, 2);
    b.send(&answer);
    gets(&a, &answer);
    gets_nothing(&c);
    let second = frame(guests[0].mac, guests[1].mac, 3);
    a.send(&second);
    gets(&b, &second);
    gets_nothing(&c);
    for to in [Mac::BROADCAST, Mac([0x01, 0, 0x5e, 0, 0, 5])] {
        let group = frame(guests[0].mac, to, 4);
        a.send(&group);
        gets(&b, &group);
        gets(&c, &group);
        gets_nothing(&a);
    }
    let hairpin = frame(guests[0].mac, guests[0].mac, 5);
    a.send(&hairpin);
    daemon.expect_dropped("a", "same_port", 1);
    gets_nothing(&b);
    daemon.finish();
}

#[test]
fn an_address_that_is_not_seen_again_is_forgotten() {
    let daemon = Daemon::start("age");
    let guests = three(&daemon, [json!({}), json!({}), json!({})]);
    daemon.ok("PATCH", "bridge", json!({ "fdb_ageing_seconds": 1 }));
    let [a, ..] = raws(&guests);
    a.send(&frame(guests[0].mac, Mac::BROADCAST, 1));
    let known = || !daemon.get("fdb?port=a").as_array().expect("rows").is_empty();
    wait::expect("the address is learned", SOON, known);
    wait::expect("the address is forgotten", Duration::from_secs(10), || !known());
    daemon.finish();
}

#[test]
fn a_static_address_stays_where_it_was_put() {
    let mut daemon = Daemon::start("static");
    let guests = three(&daemon, [json!({ "mac_check": false }), json!({}), json!({ "mac_check": false })]);
    let station = Mac::stranger(1);
    daemon.ok("POST", "fdb", json!({ "mac": station.to_string(), "port": "b" }));
    let (status, error) = daemon.call("POST", "fdb", &json!({ "mac": station.to_string(), "port": "c" }));
    assert_eq!((status, error["code"].as_str()), (409, Some("EEXIST")), "{error}");
    let [a, b, c] = raws(&guests);
    // Another port's claim moves nothing.
    c.send(&frame(station, Mac::BROADCAST, 1));
    assert!(a.recv(SOON).is_some());
    b.drain();
    let to_station = frame(guests[0].mac, station, 2);
    a.send(&to_station);
    gets(&b, &to_station);
    gets_nothing(&c);
    daemon.stop();
    daemon.launch();
    let rows = daemon.get("fdb");
    let row =
        rows.as_array().expect("rows").iter().find(|row| row["mac"] == station.to_string()).expect("it is still there");
    assert_eq!((row["port"].as_str(), row["kind"].as_str()), (Some("b"), Some("static")));
    daemon.ok("DELETE", &format!("fdb/{station}"), Value::Null);
    assert_eq!(daemon.call("DELETE", &format!("fdb/{station}"), &Value::Null).0, 404);
    daemon.finish();
}

#[test]
fn a_mac_flood_costs_the_flooder_and_nobody_else() {
    let daemon = Daemon::start("flood");
    daemon.ok("PATCH", "bridge", json!({ "fdb_limit": 64 }));
    let open = json!({ "mac_check": false });
    let guests = three(&daemon, [open.clone(), open, json!({ "mac_check": false, "fdb_limit": 8 })]);
    let [a, b, c] = raws(&guests);
    for n in 0..10 {
        a.send(&frame(Mac::stranger(n), Mac::BROADCAST, 1));
    }
    let count = |port: &str| daemon.get(&format!("fdb?port={port}")).as_array().expect("rows").len();
    wait::expect("ten addresses of a", SOON, || count("a") == 10);
    // A burst has no more frames than the port's fill ring, because losses in the kernel are not this test's concern.
    let came_in = |port: &str| daemon.stats(port)["rx"]["packets"].as_u64().expect("a number");
    for n in 1000..1500 {
        b.send(&frame(Mac::stranger(n), Mac::BROADCAST, 2));
        if n % 100 == 99 {
            wait::expect("the flood has come in", SOON, || came_in("b") == u64::from(n - 999));
        }
    }
    for n in 2000..2050 {
        c.send(&frame(Mac::stranger(n), Mac::BROADCAST, 3));
    }
    wait::expect("the other flood has come in", SOON, || came_in("c") == 50);
    assert_eq!(count("a"), 10, "another port's flood took entries of a");
    assert_eq!(count("c"), 8, "the cap of a port");
    assert!(count("a") + count("b") + count("c") <= 64);
    daemon.finish();
}

#[test]
fn tags_are_pushed_popped_and_kept_as_the_ports_say() {
    let daemon = Daemon::start("vlan");
    let guests = three(
        &daemon,
        [
            json!({ "vlan": { "mode": "access", "vid": 10 } }),
            json!({ "vlan": { "mode": "trunk", "tagged": "10,20", "native": 30 } }),
            json!({ "vlan": { "mode": "access", "vid": 30 } }),
        ],
    );
    let [a, b, c] = raws(&guests);
    // Access to trunk: pushed. An access port's guest can't see VLAN 30.
    let untagged = frame(guests[0].mac, Mac::BROADCAST, 1);
    a.send(&untagged);
    gets(&b, &Frame::ethernet(guests[0].mac, Mac::BROADCAST).tag(CTAG, 0, 10).payload(TEST_ETHERTYPE, &[1; 46]));
    gets_nothing(&c);
    // A priority tag on an access port becomes the VLAN's tag with its priority.
    a.send(&Frame::ethernet(guests[0].mac, Mac::BROADCAST).tag(CTAG, 5, 0).payload(TEST_ETHERTYPE, &[2; 46]));
    gets(&b, &Frame::ethernet(guests[0].mac, Mac::BROADCAST).tag(CTAG, 5, 10).payload(TEST_ETHERTYPE, &[2; 46]));
    // Trunk to access: popped.
    b.send(&Frame::ethernet(guests[1].mac, guests[0].mac).tag(CTAG, 3, 10).payload(TEST_ETHERTYPE, &[3; 46]));
    gets(&a, &frame(guests[1].mac, guests[0].mac, 3));
    // Native VLAN: untagged on the trunk, both ways.
    b.send(&frame(guests[1].mac, Mac::BROADCAST, 4));
    gets(&c, &frame(guests[1].mac, Mac::BROADCAST, 4));
    c.send(&frame(guests[2].mac, guests[1].mac, 5));
    gets(&b, &frame(guests[2].mac, guests[1].mac, 5));
    // A VLAN that the trunk does not carry, and a tag on an access port.
    b.send(&Frame::ethernet(guests[1].mac, Mac::BROADCAST).tag(CTAG, 0, 99).payload(TEST_ETHERTYPE, &[6; 46]));
    daemon.expect_dropped("b", "vlan_not_allowed", 1);
    a.send(&Frame::ethernet(guests[0].mac, Mac::BROADCAST).tag(CTAG, 0, 30).payload(TEST_ETHERTYPE, &[7; 46]));
    daemon.expect_dropped("a", "vlan_not_allowed", 1);
    gets_nothing(&c);
    let pushes = daemon.stats("a")["vlan_pushes"].as_u64();
    assert_eq!((pushes, daemon.stats("b")["vlan_pops"].as_u64()), (Some(1), Some(1)));
    daemon.finish();
}

#[test]
fn the_same_address_in_two_vlans_is_two_stations() {
    let daemon = Daemon::start("pervlan");
    let trunk = json!({ "vlan": { "mode": "trunk", "tagged": "all" }, "mac_check": false });
    let guests = three(&daemon, [trunk.clone(), trunk.clone(), trunk]);
    let [a, b, c] = raws(&guests);
    let station = Mac::stranger(7);
    let tagged =
        |from, to, vid, mark: u8| Frame::ethernet(from, to).tag(CTAG, 0, vid).payload(TEST_ETHERTYPE, &[mark; 46]);
    b.send(&tagged(station, Mac::BROADCAST, 10, 1));
    c.send(&tagged(station, Mac::BROADCAST, 20, 2));
    wait::expect("both are learned", SOON, || {
        daemon.get(&format!("fdb?mac={station}")).as_array().expect("rows").len() == 2
    });
    for socket in [&a, &b, &c] {
        socket.drain();
    }
    for (vid, there, elsewhere) in [(10, &b, &c), (20, &c, &b)] {
        let to_station = tagged(guests[0].mac, station, vid, 3);
        a.send(&to_station);
        gets(there, &to_station);
        gets_nothing(elsewhere);
    }
    daemon.finish();
}

#[test]
fn an_inner_tag_is_never_touched() {
    let daemon = Daemon::start("qinq");
    let trunk = json!({ "vlan": { "mode": "trunk", "tagged": "all" } });
    let guests = three(&daemon, [trunk, json!({ "vlan": { "mode": "access", "vid": 100 } }), json!({})]);
    let [a, b, _] = raws(&guests);
    a.send(
        &Frame::ethernet(guests[0].mac, Mac::BROADCAST)
            .tag(STAG, 2, 100)
            .tag(CTAG, 5, 7)
            .payload(TEST_ETHERTYPE, &[1; 46]),
    );
    gets(&b, &Frame::ethernet(guests[0].mac, Mac::BROADCAST).tag(CTAG, 5, 7).payload(TEST_ETHERTYPE, &[1; 46]));
    daemon.finish();
}

#[test]
fn a_guest_cannot_speak_for_another() {
    let daemon = Daemon::start("spoof");
    let guests = three(&daemon, [json!({}), json!({}), json!({})]);
    let [a, b, _] = raws(&guests);
    a.send(&frame(guests[1].mac, Mac::BROADCAST, 1));
    daemon.expect_dropped("a", "mac_spoofed", 1);
    let (ip, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    a.send(&Frame::ethernet(guests[0].mac, Mac::BROADCAST).arp(2, (guests[1].mac, ip), (Mac::BROADCAST, other)));
    daemon.expect_dropped("a", "arp_spoofed", 1);
    gets_nothing(&b);
    let honest = Frame::ethernet(guests[0].mac, Mac::BROADCAST).arp(1, (guests[0].mac, ip), (Mac([0; 6]), other));
    a.send(&honest);
    gets(&b, &honest);
    daemon.ok("PATCH", "ports/a", json!({ "mac_check": false }));
    let trusted = frame(Mac::stranger(3), Mac::BROADCAST, 2);
    a.send(&trusted);
    gets(&b, &trusted);
    a.send(&frame(Mac([3, 0, 0, 0, 0, 1]), Mac::BROADCAST, 3));
    daemon.expect_dropped("a", "source_mac_invalid", 1);
    daemon.finish();
}

#[test]
fn isolated_ports_reach_open_ones_only() {
    let daemon = Daemon::start("isolate");
    let isolated = json!({ "isolated": true });
    let guests = three(&daemon, [isolated.clone(), isolated, json!({})]);
    let [a, b, c] = raws(&guests);
    let group = frame(guests[0].mac, Mac::BROADCAST, 1);
    a.send(&group);
    gets(&c, &group);
    gets_nothing(&b);
    b.send(&frame(guests[1].mac, Mac::BROADCAST, 2));
    gets(&c, &frame(guests[1].mac, Mac::BROADCAST, 2));
    a.send(&frame(guests[0].mac, guests[1].mac, 3));
    daemon.expect_dropped("a", "isolated", 1);
    c.send(&frame(guests[2].mac, guests[0].mac, 4));
    gets(&a, &frame(guests[2].mac, guests[0].mac, 4));
    daemon.finish();
}

#[test]
fn reserved_addresses_stay_unless_told_otherwise() {
    let daemon = Daemon::start("reserved");
    let guests = three(&daemon, [json!({}), json!({}), json!({})]);
    let [a, b, _] = raws(&guests);
    let lldp = frame(guests[0].mac, Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]), 1);
    a.send(&lldp);
    daemon.expect_dropped("a", "reserved_multicast", 1);
    gets_nothing(&b);
    daemon.ok("PATCH", "bridge", json!({ "forward_reserved": true }));
    a.send(&lldp);
    gets(&b, &lldp);
    daemon.finish();
}

#[test]
fn frames_cut_at_any_length_hurt_nobody() {
    let daemon = Daemon::start("cut");
    let trunk = json!({ "vlan": { "mode": "trunk", "tagged": "all" } });
    let guests = three(&daemon, [trunk.clone(), trunk, json!({})]);
    let [a, b, _] = raws(&guests);
    let (from, to) = ((Ipv4Addr::new(10, 0, 0, 1), 1), (Ipv4Addr::new(10, 0, 0, 2), 2));
    let (from6, to6) = (("fd00::1".parse().expect("an address"), 1), ("fd00::2".parse().expect("an address"), 2));
    let whole = [
        Frame::ethernet(guests[0].mac, Mac::BROADCAST).udp4(from, to, b"data"),
        Frame::ethernet(guests[0].mac, Mac::BROADCAST).tag(STAG, 1, 5).tag(CTAG, 1, 6).udp6(from6, to6, b"data"),
        Frame::ethernet(guests[0].mac, Mac::BROADCAST).arp(1, (guests[0].mac, from.0), (Mac([0; 6]), to.0)),
    ];
    let mut sent = 0;
    for frame in &whole {
        for len in 14..frame.0.len() {
            a.send(&Frame(frame.0[..len].to_vec()));
            sent += 1;
        }
    }
    // Bytes that lie about their lengths.
    for at in 14..60 {
        let mut frame = whole[0].clone();
        frame.0[at] = 0xff;
        a.send(&frame);
        sent += 1;
    }
    wait::expect("all have come in", SOON, || daemon.stats("a")["rx"]["packets"] == sent);
    let last = frame(guests[0].mac, Mac::BROADCAST, 9);
    a.send(&last);
    b.recv_if(SOON, |frame| *frame == last).expect("the switch is still there");
    daemon.finish();
}
