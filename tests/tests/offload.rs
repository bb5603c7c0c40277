//! Flows that go on in the kernel: they stay whole, in order and counted, and follow what changes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::gensink::{Generator, Sink};
use tests::random::Random;
use tests::{Daemon, Frame, Guest, Mac, Options, wait};

const LEN: usize = 100;
/// Packets after which a stream's flow must be in the kernel.
const MANY: u64 = 100_000;
const SOON: Duration = Duration::from_secs(10);

/// A daemon with a flow table.
fn daemon(label: &str, workers: usize) -> Daemon {
    Daemon::with(label, &Options { workers, config: "flow_offload = \"auto\"".to_owned(), ..Options::default() })
}

/// Has the bridge learn guests.
fn learn(daemon: &Daemon, guests: &[&Guest]) {
    for guest in guests {
        guest.raw().send(&Frame::ethernet(guest.mac, Mac::BROADCAST).payload(0x88b5, &[0; 46]));
        let known =
            || daemon.get("fdb").as_array().expect("rows").iter().any(|row| row["mac"] == guest.mac.to_string());
        wait::expect("the guest is learned", SOON, known);
    }
}

/// The flow from one port to another, if there is one.
fn flow(daemon: &Daemon, from: &str) -> Option<Value> {
    let report = daemon.get("flows");
    assert_eq!(report["table"]["on"], true, "{report}");
    report["flows"].as_array().expect("flows").iter().find(|flow| flow["port"] == from).cloned()
}

/// Whether the kernel has sent so many packets of the port's flow on.
fn is_in_kernel(daemon: &Daemon, from: &str, packets: u64) -> bool {
    flow(daemon, from).is_some_and(|flow| {
        flow["state"] == "kernel" && flow["count"]["packets"].as_u64().is_some_and(|count| count >= packets)
    })
}

/// Sends until the stream's flow is in the kernel, and some time longer.
fn send_until_in_kernel(daemon: &Daemon, from: &str, generator: &mut Generator<'_>) {
    let until = generator.sent() + MANY;
    while !is_in_kernel(daemon, from, 1000) {
        assert!(generator.sent() < until, "{}\n{}", daemon.get("flows"), daemon.stats(from));
        let chunk = generator.sent() + 2000;
        send_to(generator, chunk);
    }
}

/// Sends until so many packets were sent in all.
fn send_to(generator: &mut Generator<'_>, sent: u64) {
    while generator.sent() < sent {
        generator.send(120);
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn packets(daemon: &Daemon, port: &str, direction: &str) -> u64 {
    daemon.stats(port)[direction]["packets"].as_u64().expect("a count")
}

#[test]
fn a_stream_goes_on_in_the_kernel_whole_in_order_and_counted() {
    for (workers, with_rules) in [(1, false), (1, true), (2, false)] {
        let daemon = daemon("flowstream", workers);
        let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
        let sink = Sink::attach(&b.ns, &b.ifname);
        learn(&daemon, &[&a, &b]);
        if with_rules {
            daemon.ok("PUT", "rules/3", json!({ "key": { "ipprotocol": 17 }, "action": { "vid": "normal" } }));
        }
        let before = (packets(&daemon, "a", "rx"), packets(&daemon, "b", "tx"));
        let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
        send_until_in_kernel(&daemon, "a", &mut generator);
        let flow = flow(&daemon, "a").expect("it");
        assert_eq!((&flow["egress"], &flow["verdict"]), (&json!("b"), &json!("send")), "{flow}");
        let in_kernel = flow["count"]["packets"].as_u64();
        let (before_more, more) = (generator.sent(), generator.sent() + 6_000);
        send_to(&mut generator, more);
        let more = generator.sent() - before_more;
        sink.settle(1, generator.sent()).assert_perfect(generator.sent());
        let after = (packets(&daemon, "a", "rx"), packets(&daemon, "b", "tx"));
        assert_eq!((after.0 - before.0, after.1 - before.1), (generator.sent(), generator.sent()));
        let flow = self::flow(&daemon, "a").expect("it");
        assert_eq!(flow["count"]["packets"].as_u64(), in_kernel.map(|count| count + more), "all of them: {flow}");
        if with_rules {
            let rule = daemon.get("rules/3");
            assert_eq!(rule["matched"]["packets"], generator.sent(), "{rule}");
            assert_eq!(rule["matched"]["bytes"], generator.sent() * LEN as u64, "{rule}");
            assert_eq!(flow["rule"], 3);
        }
        let text = String::from_utf8(daemon.cli("flows").stdout).expect("text");
        assert!(text.contains("kernel") && text.contains(&a.mac.to_string()), "{text}");
        // Nobody sends any more.
        wait::expect("the flow is gone", SOON, || self::flow(&daemon, "a").is_none());
        daemon.assert_balanced();
        daemon.finish();
    }
}

#[test]
fn a_flow_that_the_switch_cannot_keep_up_with_moves_too() {
    for with_rules in [false, true] {
        let daemon = daemon("flowflood", 1);
        let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
        let sink = Sink::attach(&b.ns, &b.ifname);
        learn(&daemon, &[&a, &b]);
        if with_rules {
            daemon.ok("PUT", "rules/3", json!({ "key": { "ipprotocol": 17 }, "action": { "vid": "normal" } }));
        }
        let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
        let start = Instant::now();
        while !is_in_kernel(&daemon, "a", 1000) {
            assert!(start.elapsed() < SOON, "{}\n{}", daemon.get("flows"), daemon.stats("a"));
            generator.send(50_000);
        }
        let before = sink.report(1).received;
        for _ in 0..5 {
            generator.send(20_000);
        }
        let report = sink.settle(1, before + 100_000);
        assert_eq!((report.received - before, report.reordered, report.duplicated), (100_000, 0, 0));
        daemon.assert_balanced();
        daemon.finish();
    }
}

#[test]
fn policy_changes_under_a_stream_lose_nothing_and_let_nothing_by() {
    let daemon = daemon("flowpolicy", 1);
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    let sink = Sink::attach(&b.ns, &b.ifname);
    learn(&daemon, &[&a, &b]);
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
    send_until_in_kernel(&daemon, "a", &mut generator);
    // Rules come and go: the depth of keys changes each time.
    std::thread::scope(|scope| {
        let change = scope.spawn(|| {
            for n in 0..40 {
                let rule = json!({ "key": { "ipprotocol": 6 }, "action": { "vid": "normal" } });
                if n % 2 == 0 {
                    daemon.ok("PUT", "rules/7", rule);
                } else {
                    daemon.ok("DELETE", "rules/7", Value::Null);
                }
                std::thread::sleep(Duration::from_millis(60));
            }
        });
        while !change.is_finished() {
            generator.send(120);
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    sink.settle(1, generator.sent()).assert_perfect(generator.sent());
    let table = daemon.get("flows")["table"].clone();
    assert!(table["installed"].as_u64() > Some(3), "{table}");
    // A rule that drops: not one packet goes by when it was answered.
    send_until_in_kernel(&daemon, "a", &mut generator);
    daemon.ok("PUT", "rules/9", json!({ "key": { "ipprotocol": 17 }, "action": { "vid": "drop" } }));
    let (passed, sent) = (sink.report(1).received, generator.sent());
    send_to(&mut generator, sent + 20_000);
    let dropped = || daemon.dropped("a", "rule_drop");
    wait::expect("all the others are dropped", SOON, || dropped() >= generator.sent() - sent);
    wait::expect("each is counted", SOON, || dropped() == generator.sent() - passed);
    assert_eq!(sink.report(1).received, passed);
    wait::expect("they are dropped in the kernel", SOON, || {
        let until = generator.sent() + 2000;
        send_to(&mut generator, until);
        flow(&daemon, "a").is_some_and(|flow| flow["verdict"] == "drop" && flow["state"] == "kernel")
    });
    daemon.ok("DELETE", "rules/9", Value::Null);
    let dropped = daemon.dropped("a", "rule_drop");
    let until = generator.sent() + 5000;
    send_to(&mut generator, until);
    wait::expect("they pass again", SOON, || sink.report(1).received >= passed + 5000);
    assert_eq!(daemon.dropped("a", "rule_drop"), dropped);
    assert_eq!(sink.report(1).received + dropped, generator.sent());
    daemon.finish();
}

#[test]
fn a_station_that_moves_takes_its_flows_along() {
    let daemon = daemon("flowmove", 1);
    let (a, b, c) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})), daemon.guest("c", json!({})));
    let (at_b, at_c) = (Sink::attach(&b.ns, &b.ifname), Sink::attach(&c.ns, &c.ifname));
    learn(&daemon, &[&a, &b]);
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
    send_until_in_kernel(&daemon, "a", &mut generator);
    let at = generator.sent();
    at_b.settle(1, at).assert_perfect(at);
    // One frame of the station elsewhere is enough.
    c.raw().send(&Frame::ethernet(b.mac, a.mac).payload(0x88b5, &[0; 46]));
    std::thread::sleep(Duration::from_millis(50));
    send_until_in_kernel(&daemon, "a", &mut generator);
    wait::expect("all comes to the other", SOON, || at_c.report(1).received == generator.sent() - at);
    assert_eq!((at_b.report(1).received, at_c.report(1).reordered), (at, 0));
    // A static row moves them back, and none goes on by the row before.
    daemon.ok("POST", "fdb", json!({ "mac": b.mac.to_string(), "port": "b" }));
    let (before, sent) = (at_c.report(1).received, generator.sent());
    send_to(&mut generator, sent + 2000);
    let back = generator.sent() - sent;
    wait::expect("all comes to the first", SOON, || at_b.report(1).received == at + back);
    assert_eq!(at_c.report(1).received, before);
    daemon.finish();
}

#[test]
fn who_captures_sees_all_and_meters_are_asked() {
    let daemon = daemon("flowcapture", 1);
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    let _sink = Sink::attach(&b.ns, &b.ifname);
    learn(&daemon, &[&a, &b]);
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
    send_until_in_kernel(&daemon, "a", &mut generator);
    daemon.ok("POST", "meters", json!({ "id": 50, "rate": 1_000_000, "type": "pps" }));
    daemon.ok("PUT", "meter-bindings/1/to", json!({ "meter": 50 }));
    let sent = generator.sent();
    send_to(&mut generator, sent + 10_000);
    let colors = || daemon.get("meters/50")["green"]["packets"].as_u64().expect("a count");
    wait::expect("the meter was asked for each", SOON, || colors() == generator.sent() - sent);
    assert!(flow(&daemon, "a").is_none(), "it stays with the switch");
    daemon.ok("DELETE", "meter-bindings/1/to", Value::Null);
    send_until_in_kernel(&daemon, "a", &mut generator);
    daemon.finish();
}

#[test]
fn tags_are_edited_and_a_guest_that_stops_to_gather_gets_its_packets_from_the_switch() {
    let daemon = daemon("flowtags", 1);
    let (a, b) = (
        daemon.guest("a", json!({ "vlan": { "mode": "access", "vid": 10 } })),
        daemon.guest("b", json!({ "vlan": { "mode": "trunk", "tagged": "10-20" } })),
    );
    // No program is on the guest's end: its stack is the receiver.
    b.raw().send(&Frame::ethernet(b.mac, Mac::BROADCAST).tag(0x8100, 0, 10).payload(0x88b5, &[0; 46]));
    learn(&daemon, &[&a]);
    let receiver = b.raw();
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
    send_until_in_kernel(&daemon, "a", &mut generator);
    let flow = flow(&daemon, "a").expect("it");
    assert_eq!(flow["verdict"], "push a tag of VLAN 10, send", "{flow}");
    receiver.drain();
    generator.send(1);
    let frame = receiver.recv_if(SOON, |frame| frame.mark().is_some()).expect("it comes");
    assert_eq!((frame.outer_tag(), frame.mark()), (Some((0x8100, 0, 10)), Some((1, generator.sent() - 1))));
    let stats = daemon.stats("a");
    assert_eq!(stats["vlan_pushes"], stats["rx"]["packets"], "{stats}");
    // Without GRO no program can send to it.
    b.ns.sh(&format!("ethtool -K {} gro off", b.ifname));
    wait::expect("its flows end", SOON, || self::flow(&daemon, "a").is_none());
    receiver.drain();
    let first = generator.sent();
    let sent = generator.sent() + 5000;
    send_to(&mut generator, sent);
    assert!(self::flow(&daemon, "a").is_none());
    let mut next = first;
    while let Some(frame) = receiver.recv_if(Duration::from_secs(1), |frame| frame.mark().is_some()) {
        assert_eq!(frame.mark(), Some((1, next)));
        next += 1;
    }
    assert_eq!(next, generator.sent(), "all come by way of the switch");
    daemon.finish();
}

/// Frames of a burst.
const BURST: u64 = 300;

/// What can be seen of a run: frames by receiver, and counters by port, of rules too.
type Seen = (Vec<Vec<Frame>>, Vec<Value>);

/// Random traffic under random changes, the same for each seed. Returns what was seen, and what the kernel has done.
fn random_traffic(seed: u64, offload: &str) -> (Seen, u64) {
    let config = format!("flow_offload = {offload:?}");
    let daemon = Daemon::with("flowrandom", &Options { config, ..Options::default() });
    let vlans = [
        json!({ "mode": "access", "vid": 10 }),
        json!({ "mode": "trunk", "tagged": "10-20" }),
        json!({ "mode": "access", "vid": 10 }),
        json!({ "mode": "trunk", "native": 10, "tagged": "11-12" }),
    ];
    let guests: Vec<Guest> = ["a", "b", "c", "d"]
        .into_iter()
        .zip(vlans)
        .map(|(name, vlan)| {
            let mtu = if name == "c" { 1000 } else { 1500 };
            daemon.guest(
                name,
                json!({ "vlan": vlan, "mac_check": false, "mtu": mtu, "mac": format!("02:00:00:00:00:0{name}") }),
            )
        })
        .collect();
    let sockets: Vec<_> = guests.iter().map(Guest::raw).collect();
    let mut random = Random(seed);
    let mut received = vec![Vec::new(); guests.len()];
    let (mut sent, mut step) = (0, 0);
    while step < 60 {
        step += 1;
        match random.below(10) {
            0..=5 => {
                // Some pairs are more frequent than others, so that flows come back.
                let from = *random.one_of(&[0, 1, 2, 3]);
                let to = if random.below(3) == 0 { random.below(4) } else { (from as u64 + 1) % 4 };
                let dst = guests[usize::try_from(to).expect("small")].mac;
                let mut head = Frame::ethernet(guests[from].mac, dst);
                if from == 1 || (from == 3 && random.below(2) == 0) {
                    head = head.tag(0x8100, 3, if from == 1 { 10 } else { 11 });
                }
                let len = if random.below(8) == 0 { 1200 } else { LEN };
                let port = 6000 + u16::try_from(random.below(3)).expect("small");
                for number in 0..BURST {
                    let mut frame = head.clone().stream(u32::from(port), number, len);
                    let at = frame.mark_at().expect("a mark") - 6;
                    frame.0[at..at + 2].copy_from_slice(&port.to_be_bytes());
                    // What a guest's own MTU forbids is not sent.
                    sent += u64::from(sockets[from].try_send(&frame).is_ok());
                    if number % 50 == 49 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            }
            6 => {
                let target = random.one_of(&["drop", "normal"]);
                let rule = json!({ "key": { "dl4port": 6000 + random.below(3) }, "action": { "vid": target } });
                daemon.ok("PUT", &format!("rules/{}", random.below(3)), rule);
            }
            7 => drop(daemon.call("DELETE", &format!("rules/{}", random.below(3)), &Value::Null)),
            8 => {
                let (src, dest) = (random.below(4), random.below(4));
                drop(daemon.call("PUT", &format!("redirects/{src}"), &json!({ "dest": dest })));
            }
            _ => {
                // A station is elsewhere for a frame.
                let (at, of) = (*random.one_of(&[0, 1, 2, 3]), *random.one_of(&[0, 1, 2, 3]));
                let mut head = Frame::ethernet(guests[of].mac, Mac::BROADCAST);
                if at == 1 {
                    head = head.tag(0x8100, 0, 10);
                }
                sockets[at].send(&head.stream(1, step, LEN));
                sent += 1;
            }
        }
        let count = |stats: &Value| {
            let ports = stats["ports"].as_array().expect("ports");
            ports.iter().map(|port| port["rx"]["packets"].as_u64().expect("a count")).sum::<u64>()
        };
        wait::expect("all came in, and went out or were dropped", SOON, || {
            let stats = daemon.get("stats");
            count(&stats) == sent && stats["unaccounted_packets"] == 0 && stats["unaccounted_bytes"] == 0
        });
        std::thread::sleep(Duration::from_millis(5));
        for (received, socket) in received.iter_mut().zip(&sockets) {
            received.extend(socket.drain().into_iter().filter(|frame| frame.mark().is_some()));
        }
    }
    let fields = ["rx", "tx", "drops", "vlan_pushes", "vlan_pops", "redirected", "flood_copies"];
    let ports = guests.iter().map(|guest| {
        let stats = daemon.stats(&guest.name);
        json!(fields.map(|field| stats[field].clone()))
    });
    let mut counters: Vec<Value> = ports.collect();
    counters.extend(daemon.get("rules").as_array().expect("rules").iter().map(|rule| rule["matched"].clone()));
    let by_kernel = daemon.get("flows")["table"]["count"]["packets"].as_u64().expect("a count");
    daemon.assert_balanced();
    daemon.finish();
    ((received, counters), by_kernel)
}

#[test]
fn random_traffic_is_the_same_with_and_without_a_table() {
    for seed in [1, 7, 0x2545_f491_4f6c_dd1d] {
        let (without, none) = random_traffic(seed, "off");
        let (with, some) = random_traffic(seed, "auto");
        assert_eq!(none, 0);
        assert!(some > BURST, "{some} packets went on in the kernel");
        println!("seed {seed}: {some} packets went on in the kernel");
        assert_eq!(with.1, without.1, "seed {seed}");
        for (port, (with, without)) in with.0.iter().zip(&without.0).enumerate() {
            let first = with.iter().zip(without).position(|(one, other)| one != other);
            assert_eq!(first, None, "seed {seed}, port {port}: the first frame that differs");
            assert_eq!(with.len(), without.len(), "seed {seed}, port {port}");
        }
    }
}
