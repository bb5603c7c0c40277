//! Port switching (`ProcSwitch`) on real packets, and elastic NICs that change while they live.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::gensink::{Generator, Sink};
use tests::xsk_guest::XskGuest;
use tests::{Daemon, Frame, Mac, Options, wait};

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(150);

#[test]
fn a_hundred_switches_under_a_numbered_stream_lose_duplicate_and_reorder_nothing() {
    let daemon = Daemon::with("procswitch", &Options { workers: 2, ..Options::default() });
    let [a, b, c] = ["a", "b", "c"].map(|name| daemon.guest(name, json!({})));
    daemon.ok("POST", "fdb", json!({ "mac": b.mac.to_string(), "port": "b" }));
    let sinks = [&b, &c].map(|guest| Sink::attach(&guest.ns, &guest.ifname));
    let mut generator = Generator::new(&a.ns, &a.ifname, Frame::ethernet(a.mac, b.mac).stream(1, 0, 100));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // At least a hundred, and until the stream has met both.
            let sent_by = |port: &str| daemon.stats(port)["tx"]["packets"].as_u64().expect("a number");
            let met_both = || sent_by("b") > 0 && sent_by("c") > 0;
            for _ in (0..2000).take_while(|n| *n < 50 || !met_both()) {
                for dest in [2, 1] {
                    daemon.ok("PUT", "redirects/1", json!({ "dest": dest }));
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            done.store(true, Ordering::Release);
        });
        generator.send_paced(10_000, || done.load(Ordering::Acquire));
    });
    assert!(done.load(Ordering::Acquire), "the stream ended before the switches");
    let sent = generator.sent();
    let reports = || sinks.each_ref().map(|sink| sink.report(1));
    wait::expect("every packet came somewhere", SOON, || {
        reports().iter().map(|report| report.received).sum::<u64>() == sent
    });
    let [at_b, at_c] = reports();
    for report in [&at_b, &at_c] {
        assert_eq!((report.reordered, report.duplicated), (0, 0), "{report:?}");
        assert!(report.received > 0, "nothing came here: {report:?}");
    }
    // What one receiver lacks the other has. The gaps of each are the packets of the other, except those behind its
    // last one.
    assert!(at_b.gaps <= at_c.received && at_c.gaps <= at_b.received, "{at_b:?} {at_c:?}");
    assert_eq!(daemon.stats("b")["redirected"]["packets"], at_c.received);
    assert_eq!(daemon.get("redirects"), json!([]), "the last switch undid it");
    daemon.finish();
}

#[test]
fn floods_follow_a_redirect_once_and_never_back_to_their_sender() {
    let daemon = Daemon::start("redirflood");
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| daemon.guest(name, json!({})));
    let [from_a, at_b, at_c, at_d] = [&a, &b, &c, &d].map(|guest| guest.raw());
    // c gets what is for b and for d. c is in the VLAN itself, so it gets one copy.
    daemon.ok("PUT", "redirects/1", json!({ "dest": 2 }));
    daemon.ok("PUT", "redirects/3", json!({ "dest": 1 }));
    let ends: Vec<_> =
        daemon.get("redirects").as_array().expect("rows").iter().map(|row| row["ends_at"].clone()).collect();
    assert_eq!(ends, [json!(2), json!(2)], "chained");
    let flood = Frame::ethernet(a.mac, Mac::BROADCAST).payload(0x88b5, &[1; 46]);
    from_a.send(&flood);
    assert!(at_c.recv_if(SOON, |frame| *frame == flood).is_some());
    for socket in [&at_b, &at_c, &at_d, &from_a] {
        assert_eq!(socket.recv_if(QUIET, |frame| *frame == flood), None);
    }
    // A frame from c itself: b's and d's copies would come back to it, and a gets its own.
    let back = Frame::ethernet(c.mac, Mac::BROADCAST).payload(0x88b5, &[2; 46]);
    at_c.send(&back);
    assert!(from_a.recv_if(SOON, |frame| *frame == back).is_some());
    for socket in [&at_b, &at_c, &at_d] {
        assert_eq!(socket.recv_if(QUIET, |frame| *frame == back), None);
    }
    let (status, error) = daemon.call("PUT", "redirects/2", &json!({ "dest": 3 }));
    assert_eq!((status, error["code"].as_str()), (409, Some("ELOOP")), "{error}");
    let (status, error) = daemon.call("DELETE", "ports/c", &Value::Null);
    assert_eq!((status, error["code"].as_str()), (409, Some("EBUSY")), "{error}");
    daemon.ok("DELETE", "redirects/1", Value::Null);
    from_a.send(&flood);
    assert!(at_c.recv_if(SOON, |frame| *frame == flood).is_some());
    assert!(at_b.recv_if(SOON, |frame| *frame == flood).is_some());
    assert_eq!(at_b.recv_if(QUIET, |frame| *frame == flood), None, "d's copy is not a second one");
    daemon.finish();
}

#[test]
fn a_redirect_outlives_sigkill_and_gives_what_its_source_would_have_got() {
    let mut daemon = Daemon::start("redirkeep");
    let a = daemon.guest("a", json!({ "vlan": { "mode": "trunk", "native": 0, "tagged": "all" } }));
    let b = daemon.guest("b", json!({ "vlan": { "mode": "access", "vid": 5 } }));
    let c = daemon.guest("c", json!({ "vlan": { "mode": "access", "vid": 9 } }));
    daemon.ok("POST", "fdb", json!({ "mac": b.mac.to_string(), "port": "b", "vlan": 5 }));
    daemon.ok("PUT", "redirects/1", json!({ "dest": 2 }));
    daemon.kill();
    daemon.launch();
    let (from, to) = (a.raw(), c.raw());
    let payload = [7; 46];
    from.send(&Frame::ethernet(a.mac, b.mac).tag(tests::packet::CTAG, 0, 5).payload(0x88b5, &payload));
    let untagged = Frame::ethernet(a.mac, b.mac).payload(0x88b5, &payload);
    assert!(to.recv_if(SOON, |frame| *frame == untagged).is_some(), "as b would have got it: without the tag");
    // A frame of port c to the address that it took over does not come back.
    to.send(&Frame::ethernet(c.mac, b.mac).payload(0x88b5, &payload));
    assert_eq!(to.recv_if(QUIET, |frame| *frame == untagged), None);
    daemon.finish();
}

#[test]
fn a_live_nic_takes_another_depth_mtu_and_address_and_tells_who_has_bound_its_queues() {
    let daemon = Daemon::start("nic");
    let [a, b] = ["a", "b"].map(|name| daemon.guest(name, json!({ "mac_check": false })));
    let info = |field: &str| daemon.get("ports/b")["info"][field].clone();
    assert_eq!(info("active_queues"), 0, "nobody has bound a queue");
    let mut guest = XskGuest::open(&b);
    assert_eq!(info("active_queues"), 1);
    let hello = Frame::ethernet(a.mac, b.mac).payload(0x88b5, &[3; 46]);
    let from = a.raw();
    from.send(&hello);
    assert!(guest.recv(SOON).is_some_and(|frame| frame == hello));
    for depth in [64, 4096, 2048] {
        daemon.ok("PATCH", "ports/b", json!({ "queue_depth": depth }));
        daemon.ok("PATCH", "ports/a", json!({ "queue_depth": depth }));
        from.send(&hello);
        assert!(guest.recv(SOON).is_some_and(|frame| frame == hello), "after a change to {depth}");
    }
    drop(guest);
    wait::expect("the queue is free again", SOON, || info("active_queues") == 0);
    daemon.ok("PATCH", "ports/b", json!({ "mtu": 1400, "mac": "02:00:00:00:00:99", "queue_depth": 512 }));
    let link = b.ns.links().into_iter().find(|link| link["ifname"] == b.ifname.as_str()).expect("the guest's end");
    assert_eq!((&link["mtu"], &link["address"]), (&json!(1400), &json!("02:00:00:00:00:99")));
    for (update, code) in [
        (json!({ "queues": 2 }), "EOPNOTSUPP"),
        (json!({ "queue_depth": 100 }), "EINVAL"),
        (json!({ "queue_depth": 128, "mtu": 70000 }), "EINVAL"),
    ] {
        let (_, error) = daemon.call("PATCH", "ports/b", &update);
        assert_eq!(error["code"], code, "{update}: {error}");
    }
    let spec = daemon.get("ports/b")["spec"].clone();
    assert_eq!((&spec["mtu"], &spec["queue_depth"], &spec["queues"]), (&json!(1400), &json!(512), &json!(1)), "{spec}");
    daemon.finish();
}
