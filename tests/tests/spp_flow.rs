//! Flow rules of the Soft Patch Panel on real packets, made and deleted over spp-ctl's API.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::gensink::{Generator, Sink};
use tests::packet::CTAG;
use tests::raw::RawSocket;
use tests::spp::{call, component, get, phy, vhost};
use tests::{Daemon, Frame, Guest, Mac, NetNs, Options};

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(150);
const RULES: &str = "/v1/primary/flow_rules/port_id/0";

const VF: &str = r#"
    [[spp.process]]
    type = "vf"
    client_id = 1
"#;

/// The answer to a request about rules. Its status is always 200.
fn ask(daemon: &Daemon, method: &str, target: &str, body: &str) -> Value {
    let (status, _, answer) = call(daemon, method, target, body);
    assert_eq!(status, 200, "{method} {target} {body}: {answer}");
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Makes a rule of `phy:0` and returns its number.
fn make(daemon: &Daemon, direction: &str, group: u32, pattern: &[&str], actions: &[&str]) -> String {
    let body = json!({ "rule": { "direction": direction, "group": group, "pattern": pattern, "actions": actions } });
    let answer = ask(daemon, "POST", RULES, &body.to_string());
    assert_eq!(answer["result"], "success", "{answer}");
    answer["rule_id"].as_str().expect("its number").to_owned()
}

fn delete(daemon: &Daemon, target: &str) {
    let answer = ask(daemon, "DELETE", target, "");
    assert_eq!(answer["result"], "success", "{answer}");
}

/// `phy:0` with two queues. Each has a component on a worker of its own, which sends to a guest, and one that sends
/// from the guest back to the queue.
fn two_queues(label: &str) -> (Daemon, NetNs, [Guest; 2]) {
    let daemon = Daemon::with(label, &Options { workers: 2, config: VF.to_owned(), ..Options::default() });
    let (wire, guests) = (phy(&daemon, 0, 2), [0, 1].map(|no| vhost(&daemon, no)));
    for no in [0, 1] {
        let way = |from: &str, to: &str| [format!("rx {from}"), format!("tx {to}")];
        let (nic, guest) = (format!("phy:0nq{no}"), format!("vhost:{no}"));
        for (name, ports) in [("in", way(&nic, &guest)), ("out", way(&guest, &nic))] {
            let ports = ports.each_ref().map(String::as_str);
            component(&daemon, "vfs/1", &format!("{name}{no}"), no, "forward", &ports);
        }
    }
    (daemon, wire, guests)
}

fn frame(from: Mac, to: Mac, vid: Option<u16>, n: u8) -> Frame {
    let frame = Frame::ethernet(from, to);
    let frame = if let Some(vid) = vid { frame.tag(CTAG, 0, vid) } else { frame };
    frame.payload(0x88b5, &[n; 46])
}

/// Checks that the frame comes to that guest only.
#[track_caller]
fn arrives(guests: &[RawSocket; 2], at: usize, frame: &Frame) {
    assert!(guests[at].recv_if(SOON, |got| got == frame).is_some(), "{frame:?} did not come to guest {at}");
    assert_eq!(guests[1 - at].recv_if(QUIET, |got| got == frame), None);
}

#[test]
fn rules_send_frames_to_the_guest_of_a_queue_and_survive_sigkill() {
    let (mut daemon, wire, guests) = two_queues("sppflow");
    let (far, [a, b]) = (Mac::stranger(1), [&guests[0], &guests[1]].map(|guest| guest.mac));
    // Tagged frames go by VLAN, with the tag popped. Others go by address, in a group of their own. What goes out of
    // VLAN 300 gets another tag.
    let by_vid: Vec<_> = [(100, 0), (200, 1)]
        .into_iter()
        .map(|(vid, queue)| {
            let (vlan, queue) = (format!("vlan vid is {vid}"), format!("queue index {queue}"));
            make(&daemon, "ingress", 0, &["eth", &vlan], &["of_pop_vlan", &queue])
        })
        .collect();
    make(&daemon, "ingress", 0, &["eth type is 0x88b5"], &["jump group 3"]);
    for (mac, queue) in [(a, 1), (b, 0)] {
        make(&daemon, "ingress", 3, &[&format!("eth dst is {mac}")], &[&format!("queue index {queue}")]);
    }
    let push = ["of_push_vlan ethertype 0x8100", "of_set_vlan_vid vlan_vid 7", "of_set_vlan_pcp vlan_pcp 5"];
    make(&daemon, "egress", 0, &["eth", "vlan vid is 300"], &push);
    let bad = json!({ "rule": { "direction": "ingress", "pattern": ["eth"], "actions": ["queue index 2"] } });
    assert_eq!(ask(&daemon, "POST", RULES, &bad.to_string())["result"], "error");
    let check = || {
        let at_wire = RawSocket::open(&wire, "wire");
        let sockets = [&guests[0], &guests[1]].map(Guest::raw);
        for n in 0..8 {
            // The kernel may put the frame into any queue.
            let from = Mac::stranger(u32::from(n));
            for (vid, at) in [(100, 0), (200, 1)] {
                at_wire.send(&frame(from, Mac::stranger(9), Some(vid), n));
                arrives(&sockets, at, &frame(from, Mac::stranger(9), None, n));
            }
            for (to, at) in [(a, 1), (b, 0)] {
                at_wire.send(&frame(from, to, None, n));
                arrives(&sockets, at, &frame(from, to, None, n));
            }
        }
        for (guest, mac) in sockets.iter().zip([a, b]) {
            guest.send(&frame(mac, far, Some(300), 1));
            let out = Frame::ethernet(mac, far).tag(CTAG, 5, 7).tag(CTAG, 0, 300).payload(0x88b5, &[1; 46]);
            assert!(at_wire.recv_if(SOON, |got| *got == out).is_some(), "{out:?} did not come");
            guest.send(&frame(mac, far, Some(301), 1));
            assert!(at_wire.recv_if(SOON, |got| *got == frame(mac, far, Some(301), 1)).is_some());
        }
    };
    check();
    // The trace predicts the whole way of two frames, one for each queue. Rules count what they matched.
    for (queue, vid, guest) in [(1, 100, "v0"), (0, 200, "v1")] {
        let hex = frame(far, Mac::stranger(9), Some(vid), 1).hex();
        let report = daemon.ok("POST", "trace", json!({ "port": "p0", "queue": queue, "hex": hex }));
        assert_eq!((&report["verdict"], &report["outputs"]), (&json!("forward"), &json!([guest])), "{report:#}");
        assert_eq!(report["ends"][0]["hex"], frame(far, Mac::stranger(9), None, 1).hex());
    }
    let counts = |daemon: &Daemon| {
        let stats = daemon.get("stats");
        let of = |rule: &Value| (rule["rule"].as_u64(), rule["matched"]["packets"].as_u64());
        stats["flow_rules"].as_array().expect("rules").iter().map(of).collect::<Vec<_>>()
    };
    let counted = |pairs: &[(u64, u64)]| pairs.iter().map(|(id, n)| (Some(*id), Some(*n))).collect::<Vec<_>>();
    let once = [(0, 8), (1, 8), (2, 16), (3, 8), (4, 8), (5, 2)];
    assert_eq!(counts(&daemon), counted(&once));
    assert_eq!(daemon.get("spp")["flow"][0]["rules"][0]["matched"], json!({ "packets": 8, "bytes": 512 }));
    let shown = |daemon: &Daemon| get(daemon, "/v1/primary/status")["phy_ports"][0]["flow"].clone();
    let before = shown(&daemon);
    assert_eq!(before.as_array().map(Vec::len), Some(6), "{before}");
    daemon.kill();
    daemon.launch();
    assert_eq!(shown(&daemon), before);
    check();
    daemon.assert_balanced();
    // Without its rule a VLAN's frame goes where the kernel put it, with its tag.
    delete(&daemon, &format!("/v1/primary/flow_rules/{}/port_id/0", by_vid[1]));
    assert_eq!(counts(&daemon), counted(&[&once[..1], &once[2..]].concat()), "the others go on");
    let (at_wire, sockets) = (RawSocket::open(&wire, "wire"), [&guests[0], &guests[1]].map(Guest::raw));
    let other = frame(far, Mac::stranger(9), Some(200), 1);
    at_wire.send(&other);
    assert!(sockets.iter().any(|socket| socket.recv_if(SOON, |got| *got == other).is_some()));
    at_wire.send(&frame(far, Mac::stranger(9), Some(100), 2));
    arrives(&sockets, 0, &frame(far, Mac::stranger(9), None, 2));
    delete(&daemon, RULES);
    let tagged = frame(far, Mac::stranger(9), Some(100), 3);
    at_wire.send(&tagged);
    assert!(sockets.iter().any(|socket| socket.recv_if(SOON, |got| *got == tagged).is_some()));
    daemon.finish();
}

#[test]
fn rules_change_under_load_and_every_frame_goes_by_one_of_them() {
    let (daemon, wire, guests) = two_queues("sppflowload");
    let to = [0, 1].map(|queue| {
        let rules = json!({ "rule": { "direction": "ingress", "pattern": ["eth"], "actions": [format!("queue index {queue}")] } });
        rules.to_string()
    });
    assert_eq!(ask(&daemon, "POST", RULES, &to[0])["result"], "success");
    let sinks = [&guests[0], &guests[1]].map(|guest| Sink::attach(&guest.ns, &guest.ifname));
    let stop = AtomicBool::new(false);
    let mut generator =
        Generator::new(&wire, "wire", Frame::ethernet(Mac::stranger(1), Mac::stranger(2)).stream(1, 0, 100));
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let begun = Instant::now();
            generator.send_paced(10_000, || stop.load(Ordering::Relaxed) || begun.elapsed() > Duration::from_secs(30));
            generator.sent()
        });
        let met_both = || sinks.iter().all(|sink| sink.report(1).received > 0);
        for n in (0..2000).take_while(|n| *n < 20 || !met_both()) {
            // The newer rule takes effect once the older is deleted, so there always is one.
            assert_eq!(ask(&daemon, "POST", RULES, &to[(n + 1) % 2])["result"], "success");
            delete(&daemon, &format!("/v1/primary/flow_rules/{n}/port_id/0"));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("the sender")
    });
    assert!(sent > 0);
    daemon.assert_balanced();
    let taken = || sinks.iter().map(|sink| sink.report(1).received).collect::<Vec<_>>();
    tests::wait::expect("all came", SOON, || taken().iter().sum::<u64>() == sent);
    assert!(taken().iter().all(|taken| *taken > 0), "the stream ended before both guests got some: {:?}", taken());
    daemon.finish();
}
