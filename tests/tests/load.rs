//! Under load: order across workers and queues, ports that come and go beside a stream, an idle switch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::gensink::{Generator, Sink};
use tests::{Daemon, Frame, Guest, Options, narrow};

const STREAM_LEN: usize = 100;

fn learn(daemon: &Daemon, guest: &Guest) {
    guest.raw().send(&Frame::ethernet(guest.mac, tests::Mac::BROADCAST).payload(0x88b5, &[0; 46]));
    let known = || daemon.get("fdb").as_array().expect("rows").iter().any(|row| row["mac"] == guest.mac.to_string());
    tests::wait::expect("the receiver is learned", Duration::from_secs(3), known);
}

#[test]
fn a_stream_across_two_workers_stays_whole_and_in_order() {
    let daemon = Daemon::with("workers", &Options { workers: 2, ..Options::default() });
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    let worker = |port: &str| daemon.get(&format!("ports/{port}"))["info"]["queues"][0]["worker"].clone();
    assert_ne!(worker("a"), worker("b"), "the ports are on different workers");
    let (to_b, to_a) = (Sink::attach(&b.ns, &b.ifname), Sink::attach(&a.ns, &a.ifname));
    learn(&daemon, &a);
    learn(&daemon, &b);
    let stream = |from: &Guest, to: &Guest, id| Frame::ethernet(from.mac, to.mac).stream(id, 0, STREAM_LEN);
    let mut there = Generator::new(&a.ns, &a.ifname, stream(&a, &b, 1));
    let mut back = Generator::new(&b.ns, &b.ifname, stream(&b, &a, 2));
    for _ in 0..200 {
        there.send(100);
        back.send(100);
        std::thread::sleep(Duration::from_millis(1));
    }
    to_b.settle(1, there.sent()).assert_perfect(there.sent());
    to_a.settle(2, back.sent()).assert_perfect(back.sent());
    daemon.finish();
}

#[test]
fn every_flow_of_a_port_with_four_queues_stays_in_order() {
    let daemon = Daemon::with("queues", &Options { workers: 2, ..Options::default() });
    let four = json!({ "queues": 4 });
    let (a, b) = (daemon.guest("a", four.clone()), daemon.guest("b", four));
    assert_eq!(daemon.get("ports/a")["info"]["queues"].as_array().expect("queues").len(), 4);
    let sink = Sink::attach(&b.ns, &b.ifname);
    learn(&daemon, &b);
    a.address("10.0.0.1/24");
    let raw = a.raw();
    // A packet socket chooses a frame's queue by the hash of its flow.
    let flows: u32 = 16;
    for seq in 0..300 {
        for flow in 0..flows {
            let mut frame = Frame::ethernet(a.mac, b.mac).stream(flow, seq, STREAM_LEN);
            frame.0[34..36].copy_from_slice(&(10_000 + narrow::<u16>(flow)).to_be_bytes());
            raw.send(&frame);
        }
        if seq % 8 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    for flow in 0..flows {
        sink.settle(flow, 300).assert_perfect(300);
    }
    let stats = daemon.stats("a");
    let used = stats["queues"].as_array().expect("queues").iter().filter(|queue| queue["rx"]["packets"] != 0).count();
    assert!(used > 1, "the flows came in on one queue only: {stats}");
    daemon.finish();
}

#[test]
fn two_hundred_ports_come_and_go_beside_a_stream_that_loses_nothing() {
    let daemon = Daemon::with("churn", &Options { frames: 65_536, ..Options::default() });
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    let sink = Sink::attach(&b.ns, &b.ifname);
    learn(&daemon, &b);
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, STREAM_LEN));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200 {
                daemon.ok("POST", "ports", json!({ "name": format!("p{n}"), "kind": "guest", "queue_depth": 256 }));
            }
            assert_eq!(daemon.get("ports").as_array().expect("ports").len(), 202);
            for n in 0..200 {
                daemon.ok("DELETE", &format!("ports/p{n}"), Value::Null);
            }
            done.store(true, Ordering::Release);
        });
        generator.send_paced(10_000, || done.load(Ordering::Acquire));
    });
    assert!(done.load(Ordering::Acquire), "the stream ended before the ports were through");
    assert!(generator.sent() > 10_000, "only {} packets were sent meanwhile", generator.sent());
    sink.settle(1, generator.sent()).assert_perfect(generator.sent());
    assert_eq!(daemon.ns.links().len(), 3, "loopback and two ports");
    daemon.finish();
}

#[test]
fn an_idle_switch_takes_no_cpu() {
    let daemon = Daemon::with("idle", &Options { workers: 2, ..Options::default() });
    for n in 0..20 {
        daemon.ok("POST", "ports", json!({ "name": format!("p{n}"), "kind": "guest", "queue_depth": 256 }));
    }
    // A port without its netdev keeps frames that are flooded to it. That must keep nobody awake.
    daemon.ns.sh("ip link del xs0");
    let from = daemon.get("ports/p1")["spec"]["mac"].as_str().expect("an address").parse().expect("an address");
    let raw = tests::raw::RawSocket::open(&daemon.ns, "xg1");
    raw.send(&Frame::ethernet(from, tests::Mac::BROADCAST).payload(0x88b5, &[0; 46]));
    // User and system time in ticks of 10 ms: fields 14 and 15 of proc(5) stat. Our process names have no blank.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("it runs");
        let fields: Vec<_> = stat.split(' ').collect();
        fields[13].parse::<u64>().expect("a number") + fields[14].parse::<u64>().expect("a number")
    };
    std::thread::sleep(Duration::from_secs(1));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(4));
    let used = ticks() - before;
    // This is CPU time, not wall time. 2 % of a core over 4 s are 8 ticks.
    assert!(used <= 8, "{used} ticks in 4 s");
    daemon.finish();
}

#[test]
fn too_much_is_dropped_with_a_reason_and_still_adds_up() {
    let daemon = Daemon::start("overload");
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({ "queue_depth": 64 })));
    let sink = Sink::attach(&b.ns, &b.ifname);
    learn(&daemon, &b);
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, STREAM_LEN));
    generator.send(500_000);
    daemon.assert_balanced();
    let report = sink.settle(1, generator.sent());
    assert_eq!((report.reordered, report.duplicated), (0, 0), "{report:?}");
    let stats = daemon.stats("a");
    let queue = &stats["queues"][0];
    let number = |value: &Value| value.as_u64().expect("a number");
    // A redirected packet was received, or the kernel found the socket's rings full. Others go on in the kernel.
    let lost = number(&queue["xsk"]["rx_dropped"]) + number(&queue["xsk"]["rx_ring_full"]);
    let came = number(&queue["xdp"]["redirect"]) + number(&queue["xdp"]["flow"]);
    assert_eq!(came, number(&stats["rx"]["packets"]) + lost, "{stats}");
    assert_eq!(number(&daemon.stats("b")["tx"]["packets"]), report.received, "what went out came");
    daemon.finish();
}
