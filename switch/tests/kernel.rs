//! The data plane on real netdevs: each test has a network namespace of its own, which ends with its thread.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use switch::Switch;
use switch::model::*;

fn settings(workers: usize) -> DataplaneSettings {
    DataplaneSettings { workers, frames: 16_384, ..DataplaneSettings::default() }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// Runs `test` in a new namespace with two more, named ones for guests.
fn in_namespaces(hint: &str, test: impl FnOnce([&str; 2]) + Send) {
    struct Named(String);
    impl Drop for Named {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
        }
    }
    let names = ["a", "b"].map(|guest| Named(format!("xt-{}-{hint}-{guest}", std::process::id())));
    names.iter().for_each(|name| ip(&format!("netns add {}", name.0)));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test([&names[0].0, &names[1].0]);
        });
        run.join().unwrap();
    });
}

fn guest(name: &str, netns: &str) -> PortSpec {
    PortSpec { netns: Some(netns.to_owned()), ..PortSpec::new(name, PortKind::Guest) }
}

/// Waits until every frame is accounted for and every packet counted.
fn assert_balanced(switch: &Switch) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let stats = switch.stats();
        let audit = switch.audit();
        assert!(audit.consistent, "{audit:?}");
        if stats.unaccounted_packets == 0 && stats.unaccounted_bytes == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn two_guests_talk(hint: &str, workers: usize, mode: ModeRequest) {
    in_namespaces(hint, |[a, b]| {
        let switch = Switch::start(&settings(workers), BridgeSettings::default(), None).unwrap();
        for (name, ns, address) in [("vm1", a, "10.0.0.1"), ("vm2", b, "10.0.0.2")] {
            let port = switch.add_port(PortSpec { mode, ..guest(name, ns) }).unwrap();
            let expected = if mode == ModeRequest::Generic { Mode::Generic } else { Mode::Native };
            assert_eq!(port.mode, expected, "{:?}", port.mode_reason);
            ip(&format!("-n {ns} addr add {address}/24 dev {}", port.spec.guest_ifname.unwrap()));
        }
        let ping =
            Command::new("ip").args(["netns", "exec", a, "ping", "-c3", "-i0.2", "-W2", "10.0.0.2"]).output().unwrap();
        assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
        // A stream through both stacks: wrong checksums would stall it.
        const BYTES: usize = 20 << 20;
        let in_namespace = |ns: &str| {
            let file = std::fs::File::open(format!("/run/netns/{ns}")).unwrap();
            nix::sched::setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        };
        std::thread::scope(|scope| {
            let (ready, is_ready) = std::sync::mpsc::channel();
            scope.spawn(move || {
                in_namespace(b);
                let listener = TcpListener::bind("10.0.0.2:5000").unwrap();
                ready.send(()).unwrap();
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                assert_eq!(received.len(), BYTES);
            });
            scope.spawn(move || {
                in_namespace(a);
                is_ready.recv().unwrap();
                TcpStream::connect("10.0.0.2:5000").unwrap().write_all(&vec![7; BYTES]).unwrap();
            });
        });
        assert_balanced(&switch);
        let learned = switch.fdb();
        assert!(
            learned.iter().any(|row| row.port == "vm1") && learned.iter().any(|row| row.port == "vm2"),
            "{learned:?}"
        );
        switch.del_port("vm1").unwrap();
        assert_balanced(&switch);
        switch.shutdown();
    });
}

#[test]
fn two_guests_talk_in_native_mode() {
    two_guests_talk("native", 1, ModeRequest::Auto);
}

#[test]
fn two_guests_talk_in_generic_mode() {
    two_guests_talk("generic", 1, ModeRequest::Generic);
}

#[test]
fn two_guests_talk_across_two_workers() {
    two_guests_talk("workers", 2, ModeRequest::Auto);
}

#[test]
fn frames_and_queues_come_back_when_ports_go_in_any_order() {
    in_namespaces("churn", |_| {
        let switch = Switch::start(&settings(2), BridgeSettings::default(), None).unwrap();
        for round in 0..5 {
            for n in 0..6 {
                switch
                    .add_port(PortSpec { queues: Some(2), ..PortSpec::new(format!("p{n}"), PortKind::Guest) })
                    .unwrap();
            }
            assert!(switch.audit().consistent);
            // The first socket that was opened goes first in even rounds: others share its UMEM registration.
            let order: Vec<_> = if round % 2 == 0 { (0..6).collect() } else { (0..6).rev().collect() };
            for n in order {
                switch.del_port(&format!("p{n}")).unwrap();
            }
        }
        let audit = switch.audit();
        assert!(audit.consistent && audit.free == audit.frames, "{audit:?}");
    });
}
