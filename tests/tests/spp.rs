//! The Soft Patch Panel on real packets: every component and chain, set up over spp-ctl's API.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::gensink::{Generator, Sink};
use tests::packet::CTAG;
use tests::raw::RawSocket;
use tests::spp::{attach, component, detach, done, entry, get, phy, refused, vhost};
use tests::{Daemon, Frame, Mac, Options, narrow, wait};

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(150);
/// Number of changes under the stream.
const GENERATIONS: u16 = 40;

const VF: &str = r#"
    [[spp.process]]
    type = "vf"
    client_id = 1
"#;

fn daemon(label: &str, workers: usize, more: &str) -> Daemon {
    Daemon::with(label, &Options { workers, config: format!("{VF}{more}"), ..Options::default() })
}

fn frame(from: Mac, to: Mac, n: u8) -> Frame {
    Frame::ethernet(from, to).payload(0x88b5, &[n; 46])
}

fn tagged(from: Mac, to: Mac, (pcp, vid): (u8, u16), n: u8) -> Frame {
    Frame::ethernet(from, to).tag(CTAG, pcp, vid).payload(0x88b5, &[n; 46])
}

fn arrives(at: &RawSocket, frame: &Frame) {
    assert!(at.recv_if(SOON, |got| got == frame).is_some(), "{frame:?} did not come");
}

fn stays_away(at: &RawSocket, frame: &Frame) {
    assert_eq!(at.recv_if(QUIET, |got| got == frame), None);
}

#[test]
fn two_classifiers_into_merges_over_rings_and_forwards_back() {
    let daemon = daemon("sppchain", 2, "");
    let wires = [0, 1].map(|no| phy(&daemon, no, 1));
    let guests = [0, 1].map(|no| vhost(&daemon, no));
    let at = "vfs/1";
    // phy:0 and phy:1 go by address to each guest's merge. Guests' frames go to the wire of the same number.
    for no in [0, 1] {
        let (a, b) = (no * 2, no * 2 + 1);
        let ports = [format!("rx phy:{no}"), format!("tx ring:{a}"), format!("tx ring:{b}")];
        component(&daemon, at, &format!("cls{no}"), 2 + no, "classifier", &ports.each_ref().map(String::as_str));
    }
    for no in [0, 1] {
        let ports = [format!("rx ring:{no}"), format!("rx ring:{}", no + 2), format!("tx vhost:{no}")];
        component(&daemon, at, &format!("merge{no}"), 3 - no, "merge", &ports.each_ref().map(String::as_str));
        let back = [format!("rx vhost:{no}"), format!("tx phy:{no}")];
        component(&daemon, at, &format!("back{no}"), 2 + no, "forward", &back.each_ref().map(String::as_str));
    }
    for (no, guest) in guests.iter().enumerate() {
        entry(&daemon, at, "add", None, &guest.mac.to_string(), &format!("ring:{no}"));
    }
    // The table belongs to the instance and has one entry a key. cls1 sends to rings 2 and 3 by VLAN 7.
    for (no, guest) in guests.iter().enumerate() {
        entry(&daemon, at, "add", Some(7), &guest.mac.to_string(), &format!("ring:{}", no + 2));
    }
    let sockets = [&guests[0], &guests[1]].map(|guest| guest.raw());
    let wire = [&wires[0], &wires[1]].map(|ns| RawSocket::open(ns, "wire"));
    let far = Mac::stranger(1);
    for (n, guest) in guests.iter().enumerate() {
        let plain = frame(far, guest.mac, narrow(n));
        wire[0].send(&plain);
        arrives(&sockets[n], &plain);
        stays_away(&sockets[1 - n], &plain);
        let vlan = tagged(far, guest.mac, (0, 7), narrow(n));
        wire[1].send(&vlan);
        arrives(&sockets[n], &vlan);
        let back = frame(guest.mac, far, 9);
        sockets[n].send(&back);
        arrives(&wire[n], &back);
        stays_away(&wire[1 - n], &back);
    }
    // Nobody takes these: an untagged frame on cls1, whose table has VLAN 7 only, and a stranger's frame on cls0.
    let lost = frame(far, guests[0].mac, 0x77);
    wire[1].send(&lost);
    wire[0].send(&frame(far, far, 0x78));
    stays_away(&sockets[0], &lost);
    // A default entry takes it.
    entry(&daemon, at, "add", None, "default", "ring:3");
    wire[1].send(&lost);
    arrives(&sockets[1], &lost);
    // A frame to a group address goes once to everybody in its VLAN.
    let all = tagged(far, Mac::BROADCAST, (0, 7), 3);
    wire[1].send(&all);
    sockets.iter().for_each(|socket| arrives(socket, &all));
    sockets.iter().for_each(|socket| stays_away(socket, &all));
    let status = get(&daemon, "/v1/vfs/1");
    assert_eq!(status["client-id"], 1);
    assert_eq!(status["classifier_table"].as_array().map(Vec::len), Some(5), "{status}");
    daemon.finish();
}

#[test]
fn a_numbered_stream_through_classifier_ring_and_merge_loses_and_reorders_nothing() {
    let daemon = daemon("sppstream", 2, "");
    let (wire, guest) = (phy(&daemon, 0, 1), vhost(&daemon, 0));
    component(&daemon, "vfs/1", "cls", 0, "classifier", &["rx phy:0", "tx ring:0", "tx ring:1"]);
    component(&daemon, "vfs/1", "merge", 1, "merge", &["rx ring:0", "rx ring:1", "tx vhost:0"]);
    entry(&daemon, "vfs/1", "add", None, &guest.mac.to_string(), "ring:0");
    let sink = Sink::attach(&guest.ns, &guest.ifname);
    let mut generator = Generator::new(&wire, "wire", Frame::ethernet(Mac::stranger(1), guest.mac).stream(1, 0, 100));
    generator.send_paced(20_000, {
        let start = std::time::Instant::now();
        move || start.elapsed() > Duration::from_secs(1)
    });
    let sent = generator.sent();
    sink.settle(1, sent).assert_perfect(sent);
    let status = get(&daemon, "/v1/primary/status");
    assert_eq!(status["phy_ports"][0]["rx"], sent, "{status}");
    let ring = &status["ring_ports"][0];
    assert_eq!((&ring["id"], &ring["rx"], &ring["tx"]), (&json!(0), &json!(sent), &json!(sent)), "{status}");
    done(&daemon, "DELETE", "/v1/primary/status", Value::Null);
    assert_eq!(get(&daemon, "/v1/primary/status")["ring_ports"][0]["tx"], 0);
    daemon.finish();
}

#[test]
fn tags_are_put_on_and_taken_off_at_either_side() {
    let daemon = daemon("spptags", 1, "");
    let guests = [0, 1].map(|no| vhost(&daemon, no));
    let [a, b] = &guests;
    let [from, to] = [a, b].map(|guest| guest.raw());
    let plain = frame(a.mac, b.mac, 1);
    let with = |tag| tagged(a.mac, b.mac, tag, 1);
    // Each case has ports, a sent frame, and the frame that arrives.
    let cases = [
        (["rx vhost:0 add 10 3", "tx vhost:1"], plain.clone(), with((3, 10))),
        (["rx vhost:0", "tx vhost:1 add 4094 7"], plain.clone(), with((7, 4094))),
        (["rx vhost:0 del", "tx vhost:1"], with((5, 20)), plain.clone()),
        (["rx vhost:0", "tx vhost:1 del"], with((5, 20)), plain.clone()),
        (["rx vhost:0 del", "tx vhost:1"], plain.clone(), plain.clone()),
        // An existing tag is changed, as in SPP.
        (["rx vhost:0 add 30 1", "tx vhost:1"], with((5, 20)), with((1, 30))),
        (["rx vhost:0 add 30 1", "tx vhost:1 del"], plain.clone(), plain.clone()),
        (["rx vhost:0 del", "tx vhost:1 add 40 2"], with((5, 20)), with((2, 40))),
    ];
    for (ports, sent, expected) in cases {
        component(&daemon, "vfs/1", "f", 1, "forward", &ports);
        from.send(&sent);
        assert_eq!(to.recv_if(SOON, |got| got.src() == a.mac), Some(expected), "{ports:?}");
        done(&daemon, "DELETE", "/v1/vfs/1/components/f", Value::Null);
    }
    daemon.finish();
}

#[test]
fn a_mirror_copies_every_frame_exactly() {
    let more = "[[spp.process]]\ntype = \"mirror\"\nclient_id = 2";
    let daemon = daemon("sppmirror", 2, more);
    let guests = [0, 1, 2].map(|no| vhost(&daemon, no));
    let sinks = [&guests[1], &guests[2]].map(|guest| Sink::attach(&guest.ns, &guest.ifname));
    component(&daemon, "mirrors/2", "m", 1, "mirror", &["rx vhost:0", "tx vhost:1", "tx vhost:2"]);
    let template = Frame::ethernet(guests[0].mac, guests[1].mac).stream(1, 0, 594);
    let mut generator = Generator::new(&guests[0].ns, &guests[0].ifname, template);
    for _ in 0..40 {
        generator.send(64);
        std::thread::sleep(Duration::from_millis(4));
    }
    let sent = generator.sent();
    for sink in &sinks {
        let report = sink.settle(1, sent);
        report.assert_perfect(sent);
        assert_eq!(report.bytes, sent * 594);
    }
    daemon.finish();
}

#[test]
fn patches_carry_packets_while_forwarding_runs() {
    let more = "[[spp.process]]\ntype = \"nfv\"\nclient_id = 2";
    let daemon = daemon("sppnfv", 1, more);
    let [a, b] = [0, 1].map(|no| vhost(&daemon, no));
    let [at_a, at_b] = [&a, &b].map(|guest| guest.raw());
    for port in ["vhost:0", "vhost:1", "ring:0"] {
        done(&daemon, "PUT", "/v1/nfvs/2/ports", json!({ "action": "add", "port": port }));
    }
    let patch = |src: &str, dst: &str| done(&daemon, "PUT", "/v1/nfvs/2/patches", json!({ "src": src, "dst": dst }));
    patch("vhost:0", "ring:0");
    patch("ring:0", "vhost:1");
    patch("vhost:1", "vhost:0");
    let (there, back) = (frame(a.mac, b.mac, 1), frame(b.mac, a.mac, 2));
    at_a.send(&there);
    stays_away(&at_b, &there);
    assert_eq!(get(&daemon, "/v1/nfvs/2")["status"], "idling");
    done(&daemon, "PUT", "/v1/nfvs/2/forward", json!({ "action": "start" }));
    for _ in 0..2 {
        at_a.send(&there);
        arrives(&at_b, &there);
        at_b.send(&back);
        arrives(&at_a, &back);
    }
    assert_eq!(get(&daemon, "/v1/nfvs/2")["status"], "running");
    done(&daemon, "PUT", "/v1/nfvs/2/forward", json!({ "action": "stop" }));
    at_b.send(&back);
    stays_away(&at_a, &back);
    done(&daemon, "PUT", "/v1/nfvs/2/forward", json!({ "action": "start" }));
    done(&daemon, "DELETE", "/v1/nfvs/2/patches", Value::Null);
    assert_eq!(get(&daemon, "/v1/nfvs/2")["patches"], json!([]));
    // Frames from before the start have waited for it.
    arrives(&at_b, &there);
    at_a.send(&there);
    stays_away(&at_b, &there);
    daemon.finish();
}

#[test]
fn a_staged_change_under_a_numbered_stream_is_seen_by_no_packet_in_half() {
    let daemon = daemon("sppflush", 2, "");
    let (wire, guests) = (phy(&daemon, 0, 1), [0, 1].map(|no| vhost(&daemon, no)));
    let sockets = [&guests[0], &guests[1]].map(|guest| guest.raw());
    // One core tags, and the other sends. Generation n has tag 100 + n and goes to guest n modulo 2.
    component(&daemon, "vfs/1", "tag", 0, "forward", &["rx phy:0 add 100 0", "tx ring:0"]);
    component(&daemon, "vfs/1", "send", 1, "forward", &["rx ring:0", "tx vhost:0"]);
    done(&daemon, "PUT", "/v1/vfs/1/flush", json!({ "action": "on" }));
    let mut generator =
        Generator::new(&wire, "wire", Frame::ethernet(Mac::stranger(1), guests[0].mac).stream(1, 0, 100));
    let over = AtomicBool::new(false);
    let mut seen = Vec::new();
    let mut collect = || {
        for (no, socket) in (0_u16..).zip(&sockets) {
            let packets = socket.drain().into_iter().filter_map(|frame| Some((frame.mark()?.1, frame)));
            seen.extend(packets.map(|(seq, frame)| (seq, no, frame.outer_tag().map(|tag| tag.2))));
        }
        seen.len() as u64
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..GENERATIONS {
                let (old, new) = ((n - 1) % 2, n % 2);
                detach(&daemon, "vfs/1", "tag", "rx phy:0");
                attach(&daemon, "vfs/1", "tag", &format!("rx phy:0 add {} 0", 100 + n));
                detach(&daemon, "vfs/1", "send", &format!("tx vhost:{old}"));
                attach(&daemon, "vfs/1", "send", &format!("tx vhost:{new}"));
                let running = get(&daemon, "/v1/vfs/1");
                assert_eq!(running["components"][0]["rx_port"][0]["vlan"]["id"], 100 + n - 1, "it is only staged");
                done(&daemon, "PUT", "/v1/vfs/1/flush", json!({ "action": "flush" }));
                std::thread::sleep(Duration::from_millis(10));
            }
            over.store(true, Ordering::Release);
        });
        generator.send_paced(10_000, || {
            collect();
            over.load(Ordering::Acquire)
        });
    });
    // Some frames meet the last change, however soon the stream ended after it.
    generator.send(16);
    let sent = generator.sent();
    wait::expect("every packet came somewhere", SOON, || collect() >= sent);
    seen.sort_unstable();
    let numbers: Vec<u64> = seen.iter().map(|packet| packet.0).collect();
    assert_eq!(numbers.len() as u64, sent, "lost or duplicated");
    assert!(numbers.iter().copied().eq(0..sent), "each packet once");
    let mut generation = 100;
    for (seq, guest, tag) in seen {
        let tag = tag.unwrap_or_else(|| panic!("packet {seq} has no tag"));
        assert_eq!(guest, tag % 2, "packet {seq} with tag {tag} went to guest {guest}: it saw half of a change");
        assert!(tag >= generation, "packet {seq}: a change was undone");
        generation = tag;
    }
    assert_eq!(generation, 100 + GENERATIONS - 1, "the stream has met the last change");
    daemon.finish();
}

#[test]
fn components_work_again_after_sigkill() {
    let mut daemon = daemon("sppkill", 2, "");
    let [a, b] = [0, 1].map(|no| vhost(&daemon, no));
    component(&daemon, "vfs/1", "f", 0, "forward", &["rx vhost:0", "tx ring:5"]);
    component(&daemon, "vfs/1", "g", 1, "merge", &["rx ring:5", "rx ring:6", "tx vhost:1"]);
    let launch = json!({
        "client_id": 9, "proc_name": "spp_nfv", "eal": { "-l": "4,5" }, "app": { "-n": 9, "-s": "127.0.0.1:6666" }
    });
    done(&daemon, "PUT", "/v1/primary/launch", launch);
    let before = [get(&daemon, "/v1/vfs/1"), get(&daemon, "/v1/processes")];
    daemon.kill();
    daemon.launch();
    assert_eq!([get(&daemon, "/v1/vfs/1"), get(&daemon, "/v1/processes")], before);
    let there = frame(a.mac, b.mac, 1);
    let (from, to) = (a.raw(), b.raw());
    from.send(&there);
    arrives(&to, &there);
    daemon.finish();
}

#[test]
fn what_can_not_be_is_refused_and_changes_nothing() {
    let daemon = daemon("spprefuse", 1, "");
    let bridged = daemon.guest("bridged", json!({}));
    let _guest = vhost(&daemon, 0);
    component(&daemon, "vfs/1", "f", 1, "forward", &["rx vhost:0", "tx ring:0"]);
    component(&daemon, "vfs/1", "m", 1, "merge", &["rx ring:0"]);
    let before = get(&daemon, "/v1/vfs/1");
    let start = |name: &str, core: Value, kind: &str| json!({ "name": name, "core": core, "type": kind }).to_string();
    let post = |body: &str| refused(&daemon, "POST", "/v1/vfs/1/components", body);
    assert!(post(&start("f", json!(2), "forward")).contains("f"));
    assert!(post(&start("g", json!("2"), "forward")).contains("core"));
    assert!(post(&start("g", json!(2), "router")).contains("type"));
    assert!(post("{").contains("json"));
    assert!(post("{}").contains("key(name) required."));
    let put = |port: &str| {
        let body = json!({ "action": "attach", "port": port, "dir": "rx" }).to_string();
        refused(&daemon, "PUT", "/v1/vfs/1/components/m/ports", &body)
    };
    for port in ["vhost:0", "phy:0", "vhost:128", "nic:0", "ring", "ring:99999", "memif:0"] {
        assert!(put(port).contains(port), "{port}");
    }
    let (status, _, answer) = tests::spp::call(&daemon, "GET", "/v1/vfs/8", "");
    assert_eq!((status, answer.as_str()), (404, "sec_id 8 not found."));
    let (status, ..) = tests::spp::call(&daemon, "GET", "/v1/nothing", "");
    assert_eq!(status, 404);
    assert_eq!(get(&daemon, "/v1/vfs/1"), before);
    // A component's port can't be deleted, and a bridge's port is none of SPP's.
    let (status, error) = daemon.call("DELETE", "ports/v0", &Value::Null);
    assert_eq!((status, error["code"].as_str()), (409, Some("EBUSY")), "{error}");
    let (status, error) = daemon.call("POST", "ports", &json!({ "name": "x", "kind": "guest", "spp": "vhost:0" }));
    assert_eq!((status, error["code"].as_str()), (409, Some("EEXIST")), "{error}");
    drop(bridged);
    daemon.finish();
}
