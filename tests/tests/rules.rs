//! Traffic rules on real packets: each field, each kind of mask, each action, and tables that change under a stream.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::gensink::{Generator, Sink};
use tests::packet::CTAG;
use tests::raw::RawSocket;
use tests::{Daemon, Frame, Guest, Mac, Options, http, narrow, wait};

const SOON: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_millis(100);
const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const B4: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 7);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 3);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 7);

/// Three guests whose frames may have any source and content. `a` sends. Frames for `b` go there, unless a rule sends
/// them to `c`.
struct Bed {
    daemon: Daemon,
    guests: [Guest; 3],
}

impl Bed {
    fn new(label: &str, options: &Options) -> Self {
        let daemon = Daemon::with(label, options);
        let open = json!({ "mac_check": false, "vlan": { "mode": "trunk", "native": 0, "tagged": "all" } });
        let guests = ["a", "b", "c"].map(|name| daemon.guest(name, open.clone()));
        for vlan in [0, 5, 7] {
            let row = json!({ "mac": guests[1].mac.to_string(), "port": "b", "vlan": vlan });
            daemon.ok("POST", "fdb", row);
        }
        Self { daemon, guests }
    }

    fn raws(&self) -> [RawSocket; 3] {
        self.guests.each_ref().map(Guest::raw)
    }

    fn to_b(&self) -> Frame {
        Frame::ethernet(self.guests[0].mac, self.guests[1].mac)
    }

    fn rule(&self, index: u32, key: Value, action: Value) {
        self.daemon.ok("PUT", &format!("rules/{index}"), json!({ "key": key, "action": action }));
    }

    fn matched(&self, index: u32) -> (u64, u64) {
        let rule = self.daemon.get(&format!("rules/{index}"));
        let number = |name: &str| rule["matched"][name].as_u64().expect("a number");
        (number("packets"), number("bytes"))
    }
}

fn comes(socket: &RawSocket, frame: &Frame) -> bool {
    socket.recv_if(SOON, |got| got == frame).is_some()
}

fn stays_away(socket: &RawSocket, frame: &Frame) -> bool {
    socket.recv_if(QUIET, |got| got == frame).is_none()
}

#[test]
fn each_field_with_each_kind_of_mask_decides_where_real_packets_go() {
    let bed = Bed::new("fields", &Options::default());
    let [a, b, c] = bed.raws();
    let (mac_a, mac_b) = (bed.guests[0].mac, bed.guests[1].mac);
    let udp4 = |sport, dport| bed.to_b().udp4((A4, sport), (B4, dport), b"udp over IPv4, long enough");
    let udp6 = |sport, dport| bed.to_b().udp6((A6, sport), (B6, dport), b"udp over IPv6");
    let tagged = |vlan| bed.to_b().tag(CTAG, 3, vlan).udp4((A4, 1), (B4, 2), b"tagged, and long enough to be one");
    let other_mac = || Frame::ethernet(Mac::stranger(1), mac_b).udp4((A4, 1), (B4, 2), b"from a stranger, padded out");
    let icmp = || bed.to_b().ping4(A4, B4, 1);
    let plain = || bed.to_b().payload(0x88b5, &[7; 46]);
    let tail = |mac: Mac| format!("00:00:00:00:00:{:02x}/00:00:00:00:00:ff", mac.0[5]);
    // Each case has a key, a packet that it matches, and one that it does not.
    let cases = [
        (json!({ "vid": 0 }), plain(), None),
        (json!({ "vid": "0/0x1" }), plain(), None),
        (json!({ "vid": 1 }), udp4(9, 9), Some(())),
        (json!({ "smac": mac_a.to_string() }), plain(), Some(())),
        (json!({ "smac": tail(mac_a) }), udp4(1, 2), Some(())),
        (json!({ "dmac": mac_b.to_string() }), plain(), None),
        (json!({ "dmac": tail(mac_b) }), plain(), None),
        (json!({ "vlan": 5 }), tagged(5), Some(())),
        (json!({ "vlan": "4/0xffd" }), tagged(4), Some(())),
        (json!({ "vlan": "5/0xffd" }), tagged(7), Some(())),
        (json!({ "vlan": 0 }), udp4(1, 2), Some(())),
        (json!({ "ip_type": "ipv4" }), udp4(1, 2), Some(())),
        (json!({ "ip_type": "ipv6" }), udp6(1, 2), Some(())),
        (json!({ "ipprotocol": 1 }), icmp(), Some(())),
        (json!({ "ipprotocol": "16/0xf0" }), udp6(1, 2), Some(())),
        (json!({ "dip": B4.to_string() }), udp4(1, 2), Some(())),
        (json!({ "dip": "10.9.0.0/16" }), udp4(1, 2), Some(())),
        (json!({ "dip": "10.0.0.7/255.0.0.255" }), udp4(1, 2), Some(())),
        (json!({ "sip": A4.to_string() }), icmp(), Some(())),
        (json!({ "sip": "10.1.2.0/24" }), udp4(1, 2), Some(())),
        (json!({ "dip": B6.to_string() }), udp6(1, 2), Some(())),
        (json!({ "dip": "2001:db8:2::/48" }), udp6(1, 2), Some(())),
        (json!({ "sip": "::3/::ff" }), udp6(1, 2), Some(())),
        (json!({ "dl4port": 53 }), udp4(9, 53), Some(())),
        (json!({ "dl4port": "48/0xfff0" }), udp6(9, 63), Some(())),
        (json!({ "sl4port": 4000 }), udp6(4000, 9), Some(())),
        (json!({ "sl4port": "1/0x1" }), udp4(4001, 9), Some(())),
        (
            json!({ "vid": 0, "smac": mac_a.to_string(), "vlan": 0, "ip_type": "ipv4", "ipprotocol": 17, "dip": "10.9.8.0/24",
                    "sip": A4.to_string(), "dl4port": 80, "sl4port": "0/0x1" }),
            udp4(4000, 80),
            Some(()),
        ),
    ];
    // Each of these differs from all those above in some field, where that is possible.
    let strange = [udp4(4000, 81), udp6(4000, 80), tagged(6), other_mac(), plain(), icmp()];
    for (key, packet, has_opposite) in cases {
        bed.rule(5, key.clone(), json!({ "vid": 2 }));
        let expected = key["vid"] != 1;
        a.send(&packet);
        assert!(comes(if expected { &c } else { &b }, &packet), "{key}");
        assert_eq!(bed.matched(5), (u64::from(expected), if expected { packet.0.len() as u64 } else { 0 }), "{key}");
        [&b, &c].into_iter().for_each(|socket| drop(socket.drain()));
        let mut passed = 0;
        for packet in &strange {
            // The trace runs the same code as the switch, so the frame must go where the trace says.
            let report = bed.daemon.ok("POST", "trace", json!({ "port": "a", "hex": packet.hex(), "rule": 5 }));
            let by_rule = report["rule"] == 5;
            a.send(packet);
            let to = if by_rule { &c } else { &b };
            let known = packet.outer_tag().is_none();
            if by_rule || known {
                assert!(comes(to, packet), "{key}: {report}");
            }
            passed += u32::from(!by_rule);
            [&b, &c].into_iter().for_each(|socket| drop(socket.drain()));
        }
        assert_eq!(passed > 0, has_opposite.is_some(), "{key}: {passed} of the strangers passed by");
    }
    bed.daemon.finish();
}

#[test]
fn actions_drop_send_mirror_and_pass_on_and_the_lowest_index_wins() {
    let bed = Bed::new("actions", &Options::default());
    let [a, b, c] = bed.raws();
    let packet = |dport| bed.to_b().udp4((A4, 1), (B4, dport), b"long enough not to be padded by anyone");
    bed.rule(10, json!({ "ipprotocol": 17 }), json!({ "vid": "drop" }));
    bed.rule(9, json!({ "dl4port": 80 }), json!({ "vid": "normal", "mirror": 2 }));
    bed.rule(8, json!({ "dl4port": 81 }), json!({ "vid": 2, "qid": 0 }));
    bed.rule(7, json!({ "dl4port": 82 }), json!({ "vid": "drop", "mirror": 2 }));
    let frames = [79, 80, 81, 82].map(packet);
    frames.iter().for_each(|frame| a.send(frame));
    assert!(comes(&b, &frames[1]) && comes(&c, &frames[1]), "on by the MAC table, and a copy to the mirror");
    assert!(comes(&c, &frames[2]) && comes(&c, &frames[3]), "to the port, and a copy of what is dropped");
    for (socket, others) in [(&b, &[0, 2, 3][..]), (&c, &[0])] {
        assert!(others.iter().all(|other| stays_away(socket, &frames[*other])));
    }
    bed.daemon.expect_dropped("a", "rule_drop", 2);
    assert_eq!(bed.daemon.stats("a")["mirror_copies"]["packets"], 2);
    for index in 7..=10 {
        assert_eq!(bed.matched(index), (1, frames[0].0.len() as u64), "rule {index}");
    }
    // A rule with a lower index takes over, and gives back.
    bed.rule(1, json!({}), json!({ "vid": 2 }));
    a.send(&frames[0]);
    assert!(comes(&c, &frames[0]));
    bed.daemon.ok("DELETE", "rules/1", Value::Null);
    a.send(&frames[0]);
    bed.daemon.expect_dropped("a", "rule_drop", 3);
    // A rule stays when its port goes, and says why nothing comes.
    let ns = bed.guests[2].ns.name().to_owned();
    bed.daemon.ok("DELETE", "ports/c", Value::Null);
    a.send(&frames[2]);
    bed.daemon.expect_dropped("a", "rule_no_port", 1);
    let again = json!({ "name": "c", "kind": "guest", "netns": ns, "vport": 2, "mac_check": false });
    bed.daemon.ok("POST", "ports", again);
    let c = RawSocket::open(&bed.guests[2].ns, "xg2");
    a.send(&frames[2]);
    assert!(comes(&c, &frames[2]), "the port is back, and the rule finds it");
    bed.daemon.finish();
}

#[test]
fn a_trace_names_the_rule_and_what_the_better_ones_were_missing() {
    let bed = Bed::new("ruletrace", &Options::default());
    bed.daemon.ok("POST", "meters", json!({ "id": 7, "rate": 1000 }));
    bed.rule(3, json!({ "dl4port": 443 }), json!({ "vid": "drop" }));
    bed.rule(4, json!({ "dip": "10.8.0.0/16" }), json!({ "vid": "drop" }));
    bed.rule(5, json!({ "ipprotocol": 17 }), json!({ "vid": 2, "meter": 7 }));
    bed.rule(6, json!({}), json!({ "vid": "drop" }));
    bed.daemon.ok("PUT", "redirects/2", json!({ "dest": 1 }));
    let line = "trace --in a --src 02:00:00:00:00:77 --dst 02:00:00:00:00:99 --ip-src 10.1.2.3 --ip-dst 10.9.8.7 --proto udp \
                --sport 9 --dport 80 --rule 6";
    let said = bed.daemon.cli(line);
    let text = String::from_utf8_lossy(&said.stdout);
    for expected in [
        "rule 3 does not match: dl4port is 80, it asks for 443",
        "rule 4 does not match: dip is 10.9.8.7, it asks for 10.8.0.0/16",
        "rule 6 matches too, and has a worse index",
        "rule 5 matches: to c, meter 7",
        "what would go to c goes to b",
        "meter 7 of rule 5: green now",
        "=> forward to b",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert_eq!(bed.matched(5), (0, 0), "a trace counts nothing");
    bed.daemon.finish();
}

#[test]
fn a_queue_by_number_is_the_one_that_the_packets_leave_by() {
    let daemon = Daemon::with("queue", &Options { workers: 2, ..Options::default() });
    let a = daemon.guest("a", json!({ "mac_check": false }));
    let b = daemon.guest("b", json!({ "queues": 4 }));
    let (from, to) = (a.raw(), b.raw());
    for queue in 0..4 {
        daemon.ok("PUT", "rules/0", json!({ "action": { "vid": 1, "qid": queue } }));
        for n in 0..8 {
            let frame = Frame::ethernet(a.mac, b.mac).udp4((A4, n), (B4, 9), b"spread by nothing but the rule");
            from.send(&frame);
            assert!(comes(&to, &frame));
        }
        let sent = daemon.stats("b")["queues"][queue]["tx"]["packets"].as_u64().expect("a number");
        assert!(sent >= 8, "queue {queue} sent {sent}");
    }
    let total: u64 =
        (0..4).map(|queue| daemon.stats("b")["queues"][queue]["tx"]["packets"].as_u64().expect("a number")).sum();
    assert_eq!(total, 32);
    daemon.finish();
}

fn exact_rules(count: u32) -> Value {
    let rule = |n: u32| {
        let dip = Ipv4Addr::from(0x0b00_0000 + n).to_string();
        json!({ "write": { "key_index": n, "key": { "dip": dip, "dl4port": n % 4096 }, "action": { "vid": "drop" } } })
    };
    (0..count).map(rule).collect()
}

#[test]
fn a_full_table_is_loaded_and_changed_under_a_stream_that_loses_nothing() {
    let bed = Bed::new("fulltable", &Options::default());
    let sink = Sink::attach(&bed.guests[1].ns, &bed.guests[1].ifname);
    let mut generator = Generator::new(&bed.guests[0].ns, &bed.guests[0].ifname, bed.to_b().stream(1, 0, 100));
    let done = AtomicBool::new(false);
    let daemon = &bed.daemon;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            daemon.ok("POST", "rules/batch", exact_rules(65_536));
            assert_eq!(daemon.get("capability")["rules"]["free"], 0);
            let (status, error) = daemon.call("POST", "rules", &json!({ "action": { "vid": "drop" } }));
            assert_eq!((status, error["code"].as_str()), (507, Some("ENOSPC")), "{error}");
            for n in 0..200 {
                daemon.ok("DELETE", &format!("rules/{}", n * 300), Value::Null);
                let key = json!({ "dip": "172.16.0.0/12", "sl4port": n });
                daemon.ok("PUT", &format!("rules/{}", n * 300), json!({ "key": key, "action": { "vid": 2 } }));
            }
            assert_eq!(daemon.get("rules?from=60000&limit=3").as_array().expect("rules").len(), 3);
            daemon.ok("POST", "rules/batch", json!(["clear"]));
            done.store(true, Ordering::Release);
        });
        generator.send_paced(5_000, || done.load(Ordering::Acquire));
    });
    assert!(done.load(Ordering::Acquire), "the stream ended before the table was through");
    sink.settle(1, generator.sent()).assert_perfect(generator.sent());
    assert_eq!(daemon.get("capability")["rules"]["free"], 65_536);
    bed.daemon.finish();
}

#[test]
fn a_batch_is_in_force_for_each_packet_whole_or_not_at_all() {
    let bed = Bed::new("batch", &Options { workers: 2, ..Options::default() });
    let sinks = [1, 2].map(|guest: usize| Sink::attach(&bed.guests[guest].ns, &bed.guests[guest].ifname));
    let mut generator = Generator::new(&bed.guests[0].ns, &bed.guests[0].ifname, bed.to_b().stream(1, 0, 100));
    // With the rule at 1 or 2 a packet goes to b or c. Without either the rule at 3 would drop it.
    let stream = json!({ "ipprotocol": 17, "dl4port": 5000 });
    bed.rule(3, stream.clone(), json!({ "vid": "drop" }));
    bed.rule(1, stream.clone(), json!({ "vid": 1 }));
    let (done, daemon) = (AtomicBool::new(false), &bed.daemon);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // At least a hundred, and until the stream has met both.
            let sent_by = |port: &str| daemon.stats(port)["tx"]["packets"].as_u64().expect("a number");
            let met_both = || sent_by("b") > 0 && sent_by("c") > 0;
            for n in (0..5000).take_while(|n| *n < 100 || !met_both()) {
                let (gone, new) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
                let rule = json!({ "key_index": new, "key": stream.clone(), "action": { "vid": new } });
                daemon.ok("POST", "rules/batch", json!([{ "delete": gone }, { "write": rule }]));
            }
            done.store(true, Ordering::Release);
        });
        generator.send_paced(10_000, || done.load(Ordering::Acquire));
    });
    let sent = generator.sent();
    let reports = || sinks.each_ref().map(|sink| sink.report(1));
    wait::expect("every packet came somewhere", SOON, || {
        reports().iter().map(|report| report.received).sum::<u64>() == sent
    });
    for report in reports() {
        assert_eq!((report.reordered, report.duplicated), (0, 0), "{report:?}");
        assert!(report.received > 0, "nothing came here: {report:?}");
    }
    assert_eq!(daemon.dropped("a", "rule_drop"), 0, "a packet met half of a batch");
    bed.daemon.finish();
}

#[test]
fn rules_outlive_restart_and_sigkill() {
    let mut bed = Bed::new("rulekeep", &Options::default());
    bed.daemon.ok("POST", "rules/batch", exact_rules(1000));
    bed.rule(5000, json!({ "dl4port": 80 }), json!({ "vid": 2 }));
    bed.daemon.ok("DELETE", "rules/7", Value::Null);
    let without_counters = |rules: Value| -> Vec<Value> {
        let rules = rules.as_array().expect("rules").iter();
        rules.map(|rule| json!([rule["key_index"], rule["key"], rule["action"]])).collect()
    };
    let before = without_counters(bed.daemon.get("rules"));
    assert_eq!(before.len(), 1000);
    bed.daemon.kill();
    bed.daemon.launch();
    assert_eq!(without_counters(bed.daemon.get("rules")), before);
    let [a, _, c] = bed.raws();
    let packet = bed.to_b().udp4((A4, 1), (B4, 80), b"still sent to c by the rule");
    a.send(&packet);
    assert!(comes(&c, &packet));
    bed.daemon.stop();
    bed.daemon.launch();
    assert_eq!(without_counters(bed.daemon.get("rules")), before);
    bed.daemon.finish();
}

/// Writes rules one by one and in batches of ten, until the daemon is gone. Returns what was acknowledged, and what was
/// begun.
fn write_until_gone(socket: &Path, from: u32) -> (Vec<u32>, Vec<u32>) {
    let (mut acknowledged, mut begun) = (Vec::new(), Vec::new());
    let action = json!({ "vid": "drop" });
    for group in (from..).step_by(20) {
        // Ten indices for single rules, ten for a batch.
        for index in group..group + 10 {
            let body = json!({ "key": { "dl4port": index % 1000 }, "action": action }).to_string();
            match http::over_unix(socket, "PUT", &format!("/api/v1/rules/{index}"), body.as_bytes()) {
                Ok(answer) if answer.status == 200 => acknowledged.push(index),
                _ => return (acknowledged, begun),
            }
        }
        let batch = group + 10..group + 20;
        begun.push(batch.start);
        let rules = batch.clone().map(|index| json!({ "write": { "key_index": index, "action": action } }));
        let body = Value::from(rules.collect::<Vec<_>>()).to_string();
        match http::over_unix(socket, "POST", "/api/v1/rules/batch", body.as_bytes()) {
            Ok(answer) if answer.status == 204 => acknowledged.extend(batch),
            _ => return (acknowledged, begun),
        }
    }
    (acknowledged, begun)
}

#[test]
fn sigkill_between_any_two_writes_leaves_what_was_acknowledged_and_no_half_batch() {
    let mut daemon = Daemon::start("killwrites");
    let mut kept = BTreeSet::new();
    for round in 0..6_u32 {
        let socket = daemon.path("run/api.sock");
        let (acknowledged, begun) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || write_until_gone(&socket, round * 10_000));
            std::thread::sleep(Duration::from_millis(u64::from(40 + 37 * round)));
            daemon.kill();
            writer.join().expect("the writer ends when the daemon does")
        });
        assert!(!acknowledged.is_empty(), "nothing was written in round {round}");
        kept.extend(acknowledged);
        daemon.launch();
        let rules = daemon.get("rules");
        let there: BTreeSet<_> = rules
            .as_array()
            .expect("rules")
            .iter()
            .map(|rule| narrow(rule["key_index"].as_u64().expect("a number")))
            .collect();
        let lost: Vec<_> = kept.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
        for start in begun {
            let count = there.range(start..start + 10).count();
            assert!(count == 0 || count == 10, "{count} of the ten rules of a batch are there");
        }
    }
    daemon.finish();
}
