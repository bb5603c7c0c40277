//! Meters on real packets. No test asserts a duration. A meter's bounds are computed from the time that it took.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::gensink::{Generator, Sink};
use tests::{Daemon, Frame, Guest, Mac, Options, narrow, wait};

const LEN: usize = 100;
const SOON: Duration = Duration::from_secs(5);

fn learn(daemon: &Daemon, guest: &Guest) {
    daemon.ok("POST", "fdb", json!({ "mac": guest.mac.to_string(), "port": guest.name }));
}

fn counts(daemon: &Daemon, meter: u32) -> [u64; 3] {
    let meter = daemon.get(&format!("meters/{meter}"));
    ["green", "yellow", "red"].map(|color| meter[color]["packets"].as_u64().expect("a number"))
}

/// Bounds of the frames that a meter of `rate` frames a second has passed since `start`, from a full bucket: highest,
/// and lowest (99 %).
fn bounds(rate: u64, burst: u64, start: Instant) -> (u64, u64) {
    let time = narrow::<u64>(start.elapsed().as_nanos());
    (burst + rate * time / 1_000_000_000 + 1, burst)
}

/// Sends until the meter has seen `frames` frames, in bursts that the rings hold.
fn overload(generator: &mut Generator<'_>, frames: u64) {
    let until = generator.sent() + frames;
    while generator.sent() < until {
        generator.send(200);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn each_direction_of_a_port_is_held_to_its_rate_and_what_is_too_much_is_counted() {
    for (direction, reason, at) in [("from", "meter_from", "a"), ("to", "meter_to", "b")] {
        let daemon = Daemon::start("meterdir");
        let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
        learn(&daemon, &b);
        let sink = Sink::attach(&b.ns, &b.ifname);
        daemon.ok("POST", "meters", json!({ "id": 50, "rate": 1000, "type": "pps", "burst": 500 }));
        let vport = if direction == "from" { 0 } else { 1 };
        let before = Instant::now();
        daemon.ok("PUT", &format!("meter-bindings/{vport}/{direction}"), json!({ "meter": 50 }));
        let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
        overload(&mut generator, 10_000);
        let asked = |daemon: &Daemon| counts(daemon, 50).iter().sum::<u64>();
        wait::expect("the meter was asked for all", SOON, || asked(&daemon) == generator.sent());
        let (most, least) = bounds(1000, 500, before);
        let [green, yellow, red] = counts(&daemon, 50);
        assert!(green <= most && green >= least && yellow == 0, "{direction}: {green} of {least} to {most}");
        assert_eq!(sink.settle(1, green).received, green, "what is green comes, and nothing else");
        daemon.expect_dropped(at, reason, red);
        let nic = daemon.stats(at)["nic"].clone();
        assert_eq!(nic[if direction == "from" { "tx_drop" } else { "rx_drop" }], red, "{nic}");
        // The other direction has no meter.
        let from_b = Frame::ethernet(b.mac, a.mac).payload(0x88b5, &[1; 46]);
        let raw_a = a.raw();
        b.raw().send(&from_b);
        assert!(raw_a.recv_if(SOON, |frame| *frame == from_b).is_some());
        daemon.finish();
    }
}

#[test]
fn a_rate_changes_under_a_stream_without_a_gap_or_a_free_burst() {
    let daemon = Daemon::start("meterchange");
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    learn(&daemon, &b);
    // 100 bytes are 800 bits, so 800 kbit/s are 1,000 frames a second, and 400 kbit are 500 frames. The id is a's
    // vport, which binds the meter.
    let start = Instant::now();
    daemon.ok("POST", "meters", json!({ "id": 0, "rate": 800, "burst": 400 }));
    assert_eq!(daemon.get("meters/0")["bindings"], json!([{ "vport": 0, "direction": "from", "meter": 0 }]));
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, LEN));
    overload(&mut generator, 3_000);
    let settled =
        || wait::expect("all are asked for", SOON, || counts(&daemon, 0).iter().sum::<u64>() == generator.sent());
    settled();
    let (most, _) = bounds(1000, 500, start);
    let slow = counts(&daemon, 0)[0];
    assert!(slow <= most, "{slow} of {most} at the first rate");
    // Ten times the rate. The bucket is as empty as before, and the new rate counts from here on.
    let change = Instant::now();
    daemon.ok("PATCH", "meters/0", json!({ "rate": 8000 }));
    let mut generator = generator;
    overload(&mut generator, 5_000);
    wait::expect("all are asked for", SOON, || counts(&daemon, 0).iter().sum::<u64>() == generator.sent());
    let fast = counts(&daemon, 0)[0] - slow;
    let (most, _) = bounds(10_000, 500, change);
    assert!(fast <= most, "{fast} of {most} after the change");
    assert!(fast > 500, "{fast}: nothing but the burst passed");
    daemon.ok("DELETE", "meters/0", Value::Null);
    daemon.finish();
}

#[test]
fn ports_on_several_workers_share_one_meter() {
    let daemon = Daemon::with("metershare", &Options { workers: 2, ..Options::default() });
    let [a, b, c] = ["a", "b", "c"].map(|name| daemon.guest(name, json!({})));
    learn(&daemon, &c);
    let worker = |port: &str| daemon.get(&format!("ports/{port}"))["info"]["queues"][0]["worker"].clone();
    assert_ne!(worker("a"), worker("b"), "the senders are on different workers");
    let start = Instant::now();
    daemon.ok("POST", "meters", json!({ "id": 9, "rate": 2000, "type": "pps", "burst": 300 }));
    for vport in [0, 1] {
        daemon.ok("PUT", &format!("meter-bindings/{vport}/from"), json!({ "meter": 9 }));
    }
    let mut one = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, c.mac).stream(1, 0, LEN));
    let mut two = Generator::new(&b.ns, &b.ifname, Frame::ethernet(b.mac, c.mac).stream(2, 0, LEN));
    std::thread::scope(|scope| {
        scope.spawn(|| overload(&mut one, 5_000));
        overload(&mut two, 5_000);
    });
    let sent = one.sent() + two.sent();
    wait::expect("the meter was asked for all", SOON, || counts(&daemon, 9).iter().sum::<u64>() == sent);
    let (most, least) = bounds(2000, 300, start);
    let green = counts(&daemon, 9)[0];
    assert!((least..=most).contains(&green), "{green} of {least} to {most}");
    daemon.finish();
}

#[test]
fn a_rule_meters_its_flow_alone_and_yellow_packets_are_marked() {
    let daemon = Daemon::start("metermark");
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    learn(&daemon, &b);
    // Almost no rate, so that only the bursts decide: 5 green frames, 7 in all.
    let meter = json!({ "id": 3, "rate": 1, "type": "pps", "burst": 5, "mode": "rfc2698", "peak_rate": 1, "peak_burst": 7,
                        "yellow_dscp": 10 });
    daemon.ok("POST", "meters", meter);
    daemon.ok("PUT", "rules/0", json!({ "key": { "dl4port": 53 }, "action": { "vid": "normal", "meter": 3 } }));
    let (from, to) = (a.raw(), b.raw());
    let (ip_a, ip_b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let frame =
        |n: u16, dport| Frame::ethernet(a.mac, b.mac).udp4((ip_a, n), (ip_b, dport), b"marked, if it is too much");
    for n in 0..10 {
        from.send(&frame(n, 53));
        from.send(&frame(n, 54));
    }
    wait::expect("the meter was asked for all", SOON, || counts(&daemon, 3).iter().sum::<u64>() == 10);
    let [green, yellow, red] = counts(&daemon, 3);
    assert!(green >= 5 && green + yellow >= 7 && red <= 3 && yellow > 0, "{green} {yellow} {red}");
    let (mut plain, mut marked, mut others) = (0, 0, 0);
    while let Some(frame) = to.recv(Duration::from_millis(300)) {
        let port = u16::from_be_bytes([frame.0[36], frame.0[37]]);
        match (port, frame.0[15] >> 2) {
            (53, 0) => plain += 1,
            (53, 10) => marked += 1,
            (54, 0) => others += 1,
            odd => panic!("port and DSCP {odd:?}"),
        }
        assert_eq!(tests::packet::checksum(&[&frame.0[14..34]]), 0, "the header's checksum is right");
    }
    assert_eq!((plain, marked, others), (green, yellow, 10));
    daemon.expect_dropped("a", "meter_rule", red);
    let (status, error) = daemon.call("DELETE", "meters/3", &Value::Null);
    assert_eq!((status, error["code"].as_str()), (409, Some("EBUSY")), "{error}");
    daemon.finish();
}

#[test]
fn a_flood_is_metered_once_where_it_comes_from_and_at_each_port_that_has_a_meter() {
    let daemon = Daemon::start("meterflood");
    let [a, b, c] = ["a", "b", "c"].map(|name| daemon.guest(name, json!({})));
    for (id, vport, direction) in [(10, 0, "from"), (11, 2, "to")] {
        daemon.ok("POST", "meters", json!({ "id": id, "rate": 1, "type": "pps", "burst": 3 }));
        daemon.ok("PUT", &format!("meter-bindings/{vport}/{direction}"), json!({ "meter": id }));
    }
    daemon.ok("PATCH", "meters/10", json!({ "burst": 8 }));
    let (from, to_b, to_c) = (a.raw(), b.raw(), c.raw());
    for n in 0..8 {
        from.send(&Frame::ethernet(a.mac, Mac::BROADCAST).payload(0x88b5, &[n; 46]));
    }
    wait::expect("all are asked for", SOON, || counts(&daemon, 10).iter().sum::<u64>() == 8);
    let green = counts(&daemon, 10)[0];
    wait::expect("each copy for c is asked for", SOON, || counts(&daemon, 11).iter().sum::<u64>() == green);
    let received =
        |socket: &tests::raw::RawSocket| std::iter::from_fn(|| socket.recv(Duration::from_millis(200))).count();
    assert_eq!(received(&to_b) as u64, green);
    assert_eq!(received(&to_c) as u64, counts(&daemon, 11)[0]);
    daemon.expect_dropped("c", "meter_to", counts(&daemon, 11)[2]);
    daemon.finish();
}

#[test]
fn meters_and_bindings_outlive_sigkill_and_go_with_their_port() {
    let mut daemon = Daemon::start("meterkeep");
    let (_a, _b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    daemon.ok("POST", "meters", json!({ "id": 1, "rate": 64 }));
    daemon.ok("POST", "meters", json!({ "id": 4_000_000_000_u32, "rate": 100_000_000, "burst": 5000 }));
    daemon.ok("PUT", "meter-bindings/0/to", json!({ "meter": 4_000_000_000_u32 }));
    daemon.ok("PUT", "meter-bindings/1/to", json!({ "meter": 4_000_000_000_u32 }));
    daemon.ok("PATCH", "meters/1", json!({ "rate": 128 }));
    let before = daemon.get("meters");
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.get("meters"), before);
    daemon.ok("DELETE", "ports/a", Value::Null);
    assert_eq!(daemon.get("meter-bindings").as_array().expect("bindings").len(), 1);
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.get("meter-bindings").as_array().expect("bindings").len(), 1);
    daemon.ok("DELETE", "meter-bindings/1/to", Value::Null);
    daemon.ok("DELETE", "meters/4000000000", Value::Null);
    daemon.finish();
}
