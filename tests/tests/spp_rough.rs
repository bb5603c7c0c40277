//! Components with a broken guest and a careless operator: odd frames, ports that go while frames come, and ends that
//! nobody empties. Every frame stays accounted for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::spp::{attach, call, component, detach, done, entry, vhost};
use tests::{Daemon, Frame, Mac, Options, wait};

const SOON: Duration = Duration::from_secs(10);

fn daemon(label: &str) -> Daemon {
    let config = "[[spp.process]]\ntype = \"vf\"\nclient_id = 1\n[[spp.process]]\ntype = \"mirror\"\nclient_id = 2\n\
                  [[spp.process]]\ntype = \"nfv\"\nclient_id = 3\n";
    Daemon::with(label, &Options { workers: 2, config: config.to_owned(), ..Options::default() })
}

/// Frames of odd lengths, truncated tags, and stacks of tags.
fn odd_frames(from: Mac, to: Mac) -> Vec<Frame> {
    let header = Frame::ethernet(from, to);
    let mut frames = Vec::new();
    for tags in 0..6 {
        let mut tagged = header.clone();
        for tag in 0..tags {
            tagged = tagged.tag(if tag % 2 == 0 { 0x8100 } else { 0x88a8 }, 3, 100 + tag);
        }
        let whole = tagged.payload(0x88b5, &[7; 1600]);
        for len in [14, 15, 16, 17, 18, 19, 21, 22, 33, 59, 60, 61, 64, 1500, 1513, 1514, 1518] {
            frames.push(Frame(whole.0[..len].to_vec()));
        }
    }
    // Zero addresses, group addresses, and lengths in place of a type.
    for (src, dst) in [([0; 6], [0; 6]), ([0xff; 6], [0xff; 6]), ([1, 0x80, 0xc2, 0, 0, 0], [1, 0x80, 0xc2, 0, 0, 1])] {
        for kind in [[0, 0], [0, 46], [0x05, 0xdc], [0x81, 0], [0xff, 0xff]] {
            frames.push(Frame([&dst[..], &src[..], &kind[..], &[0; 50][..]].concat()));
        }
    }
    frames
}

/// Sends all frames, except those that the kernel refuses.
fn pour(socket: &RawSocket, frames: &[Frame]) {
    for frame in frames {
        let _ = socket.try_send(frame);
    }
}

#[test]
fn frames_of_every_odd_form_go_through_every_component_or_are_dropped() {
    let daemon = daemon("roughodd");
    let guests: Vec<_> = (0..3).map(|no| vhost(&daemon, no)).collect();
    let sockets: Vec<_> = guests.iter().map(|guest| guest.raw()).collect();
    let to = Mac::stranger(9);
    let frames = odd_frames(guests[0].mac, to);
    let good = Frame::ethernet(guests[0].mac, to).tag(0x8100, 0, 5).payload(0x88b5, &[1; 100]);
    for (kind, at, ports) in [
        ("forward", "vfs/1", &["rx vhost:0", "tx vhost:1"][..]),
        ("forward", "vfs/1", &["rx vhost:0 add 100 3", "tx vhost:1"]),
        ("forward", "vfs/1", &["rx vhost:0 del", "tx vhost:1"]),
        ("forward", "vfs/1", &["rx vhost:0", "tx vhost:1 add 4094 7"]),
        ("forward", "vfs/1", &["rx vhost:0 del", "tx vhost:1 add 1 0"]),
        ("forward", "vfs/1", &["rx vhost:0 add 0 0", "tx vhost:1 del"]),
        ("merge", "vfs/1", &["rx vhost:0 add 7 1", "rx vhost:2 del", "tx vhost:1 add 8 1"]),
        ("classifier", "vfs/1", &["rx vhost:0", "tx vhost:1 add 5 5", "tx vhost:2 del"]),
        ("mirror", "mirrors/2", &["rx vhost:0", "tx vhost:1", "tx vhost:2"]),
    ] {
        component(&daemon, at, "c", 3, kind, ports);
        if kind == "classifier" {
            entry(&daemon, at, "add", None, "default", "vhost:1");
            entry(&daemon, at, "add", Some(100), "default", "vhost:2");
        }
        pour(&sockets[0], &frames);
        pour(&sockets[2], &frames);
        sockets[0].send(&good);
        let came = sockets[1].recv_if(SOON, |frame| frame.dst() == to && frame.0.ends_with(&[1; 100]));
        assert!(came.is_some(), "{kind} {ports:?}");
        daemon.assert_balanced();
        if kind == "classifier" {
            entry(&daemon, at, "del", None, "default", "vhost:1");
            entry(&daemon, at, "del", Some(100), "default", "vhost:2");
        }
        done(&daemon, "DELETE", &format!("/v1/{at}/components/c"), Value::Null);
        sockets.iter().for_each(|socket| drop(socket.drain()));
    }
    daemon.finish();
}

#[test]
fn the_longest_frames_have_room_for_a_tag_or_are_dropped() {
    let daemon = daemon("roughlong");
    let mtu = 3000;
    let guests: Vec<_> = (0..2)
        .map(|no| {
            let guest = daemon.guest(&format!("v{no}"), json!({ "spp": format!("vhost:{no}"), "mtu": mtu }));
            guest.ns.sh(&format!("ip link set {} mtu {mtu}", guest.ifname));
            guest
        })
        .collect();
    let sockets: Vec<_> = guests.iter().map(|guest| guest.raw()).collect();
    component(&daemon, "vfs/1", "a", 2, "forward", &["rx vhost:0 add 10 1", "tx ring:0 del"]);
    component(&daemon, "vfs/1", "b", 3, "forward", &["rx ring:0 add 11 1", "tx vhost:1"]);
    for len in [mtu + 13, mtu + 14] {
        let frame = Frame::ethernet(guests[0].mac, Mac::stranger(3)).payload(0x88b5, &vec![5; len - 14]);
        sockets[0].send(&frame);
        let came = sockets[1].recv_if(SOON, |frame| frame.dst() == Mac::stranger(3)).expect("it has room");
        assert_eq!((came.outer_tag(), came.0.len()), (Some((0x8100, 1, 11)), len + 4));
    }
    daemon.assert_balanced();
    daemon.finish();
}

#[test]
fn ports_that_go_under_traffic_take_nothing_with_them() {
    let daemon = daemon("roughgone");
    let guests: Vec<_> = (0..4).map(|no| vhost(&daemon, no)).collect();
    component(&daemon, "vfs/1", "one", 2, "forward", &["rx vhost:0 add 10 1", "tx ring:0"]);
    component(&daemon, "vfs/1", "two", 3, "merge", &["rx ring:0", "rx vhost:2", "tx vhost:1"]);
    component(&daemon, "mirrors/2", "copy", 4, "mirror", &["rx vhost:3", "tx vhost:0", "tx vhost:2"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for guest in &guests {
            let (socket, stop) = (guest.raw(), &stop);
            let burst: Vec<_> =
                (0..32).map(|n| Frame::ethernet(guest.mac, Mac::stranger(8)).stream(1, n, 200)).collect();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    pour(&socket, &burst);
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // A component's port can't be deleted. Once the component releases it, it can, and then comes again.
            for _ in 0..5 {
                let (status, why) = daemon.call("DELETE", "ports/v1", &Value::Null);
                assert_eq!(status, 409, "{why}");
                detach(&daemon, "vfs/1", "two", "tx vhost:1");
                attach(&daemon, "vfs/1", "two", "tx ring:5");
                detach(&daemon, "vfs/1", "two", "tx ring:5");
                attach(&daemon, "vfs/1", "two", "tx vhost:1");
                detach(&daemon, "mirrors/2", "copy", "tx vhost:0");
                attach(&daemon, "mirrors/2", "copy", "tx nullpmd:3");
                detach(&daemon, "mirrors/2", "copy", "tx nullpmd:3");
                attach(&daemon, "mirrors/2", "copy", "tx vhost:0");
                for core in [2, 5] {
                    call(&daemon, "DELETE", "/v1/vfs/1/components/one", "");
                    component(&daemon, "vfs/1", "one", core, "forward", &["rx vhost:0 add 10 1", "tx ring:0"]);
                }
            }
            // The guest's end goes down, and the pair is deleted under the component.
            guests[0].ns.sh(&format!("ip link set {} down", guests[0].ifname));
            guests[0].ns.sh(&format!("ip link set {} up", guests[0].ifname));
            guests[3].ns.sh(&format!("ip link del {}", guests[3].ifname));
            std::thread::sleep(Duration::from_millis(300));
            // The remaining ports go on.
            let before = daemon.stats("v0")["rx"]["packets"].as_u64();
            wait::expect("frames come in", SOON, || daemon.stats("v0")["rx"]["packets"].as_u64() > before);
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    daemon.assert_balanced();
    daemon.finish();
}

#[test]
fn a_mirror_whose_one_end_is_full_goes_on_with_the_other() {
    let daemon = daemon("roughmirror");
    let guests: Vec<_> = (0..2).map(|no| vhost(&daemon, no)).collect();
    component(&daemon, "mirrors/2", "m", 2, "mirror", &["rx vhost:0", "tx ring:9", "tx vhost:1"]);
    let (from, to) = (guests[0].raw(), guests[1].raw());
    // More frames than the ring holds, in bursts that the sockets hold.
    let mut came = 0;
    for round in 0..40_u64 {
        let burst: Vec<_> =
            (0..50).map(|n| Frame::ethernet(guests[0].mac, Mac::stranger(4)).stream(1, round * 50 + n, 100)).collect();
        pour(&from, &burst);
        for _ in 0..50 {
            came += u32::from(to.recv_if(SOON, |frame| frame.mark().is_some()).is_some());
        }
    }
    assert_eq!(came, 2000);
    daemon.assert_balanced();
    done(&daemon, "DELETE", "/v1/mirrors/2/components/m", Value::Null);
    daemon.finish();
}

#[test]
fn what_goes_round_in_a_circle_starves_nobody() {
    let daemon = daemon("roughcircle");
    let guests: Vec<_> = (0..3).map(|no| vhost(&daemon, no)).collect();
    // One core, and so one worker, for all.
    component(&daemon, "vfs/1", "through", 2, "forward", &["rx vhost:1", "tx vhost:2"]);
    component(&daemon, "vfs/1", "a", 2, "merge", &["rx vhost:0", "rx ring:1", "tx ring:0"]);
    component(&daemon, "vfs/1", "b", 2, "forward", &["rx ring:0", "tx ring:1"]);
    let (from, through, to) = (guests[0].raw(), guests[1].raw(), guests[2].raw());
    let frames = |guest: usize, n: u64| Frame::ethernet(guests[guest].mac, Mac::stranger(4)).stream(1, n, 100);
    for n in 0..3000 {
        let _ = from.try_send(&frames(0, n));
    }
    for n in 0..200 {
        through.send(&frames(1, n));
        assert!(to.recv_if(SOON, |frame| frame.mark() == Some((1, n))).is_some(), "{n}");
    }
    done(&daemon, "PUT", "/v1/vfs/1/flush", json!({ "action": "on" }));
    done(&daemon, "DELETE", "/v1/vfs/1/components/b", Value::Null);
    done(&daemon, "PUT", "/v1/vfs/1/flush", json!({ "action": "flush" }));
    daemon.assert_balanced();
    daemon.finish();
}
