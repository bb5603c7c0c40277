//! DPDK's virtio-user as the front end: a guest's driver that polls, and has four queues at once.

use serde_json::{Value, json};
use tests::testpmd::{Counters, Testpmd, VirtioUser};
use tests::{Daemon, Options, wait};

use super::{PATIENCE, Server, add_port, expect_link, vhost};

/// Virtio features.
const IN_ORDER: u64 = 1 << 35;
const PACKED: u64 = 1 << 34;
const MRG_RXBUF: u64 = 1 << 15;
/// Bursts of 32 packets that a queue sends in a round. A ring takes a round of all queues.
const BURSTS: u32 = 4;
const ROUNDS: u32 = 20;

/// Two ports, `a` and `b`, with a device each. They differ in nothing.
fn pair(daemon: &Daemon, server: Server, queues: u32) -> Vec<VirtioUser> {
    let device = |(name, mac): (&str, &str)| {
        let socket = add_port(daemon, name, server, queues);
        let server = matches!(server, Server::Qemu);
        VirtioUser { server, queues, ..VirtioUser::new(&socket, mac) }
    };
    [("a", "52:54:00:00:00:0a"), ("b", "52:54:00:00:00:0b")].map(device).to_vec()
}

/// Packets that the switch has received from a port, and sent to it.
fn counted(daemon: &Daemon, port: &str) -> Counters {
    let stats = daemon.stats(port);
    let count = |way: &str| stats[way]["packets"].as_u64().expect("a count");
    Counters { rx: count("rx"), tx: count("tx") }
}

/// Packets go both ways, round by round. None is lost, and the switch has counted what the devices have.
fn exchange(daemon: &Daemon, testpmd: &mut Testpmd, queues: u32) {
    let ports = ["a", "b"];
    let before: Vec<_> =
        ports.iter().enumerate().map(|(at, port)| (testpmd.counters(at), counted(daemon, port))).collect();
    for _ in 0..ROUNDS {
        let round = u64::from(BURSTS * 32 * queues);
        let wanted = [0, 1].map(|at| testpmd.counters(at).rx + round);
        testpmd.send(BURSTS);
        wait::expect("a round comes", PATIENCE, || (0..2).all(|at| testpmd.counters(at).rx >= wanted[at]));
        testpmd.rest();
    }
    let total = u64::from(ROUNDS * BURSTS * 32 * queues);
    for (at, port) in ports.iter().enumerate() {
        let (was, counted_before) = before[at];
        let is = testpmd.counters(at);
        assert_eq!((is.tx - was.tx, is.rx - was.rx), (total, total), "device of {port}");
        let expected = Counters { rx: counted_before.rx + total, tx: counted_before.tx + total };
        wait::expect(&format!("{expected:?} at {port}"), PATIENCE, || counted(daemon, port) == expected);
    }
}

fn features(daemon: &Daemon, port: &str) -> u64 {
    vhost(daemon, port)["features"].as_u64().unwrap_or_default()
}

#[test]
fn packets_go_both_ways_whatever_the_driver_takes() {
    let daemon = Daemon::start("pmdone");
    let devices = pair(&daemon, Server::Switch, 1);
    for (more, has, lacks) in [
        ("in_order=1,mrg_rxbuf=1", IN_ORDER | MRG_RXBUF, PACKED),
        ("in_order=0,mrg_rxbuf=1", MRG_RXBUF, IN_ORDER),
        ("in_order=1,mrg_rxbuf=0", IN_ORDER, MRG_RXBUF),
        ("in_order=0,mrg_rxbuf=0", 0, IN_ORDER | MRG_RXBUF),
        ("packed_vq=1,in_order=1", PACKED | IN_ORDER, 0),
        ("packed_vq=1,in_order=0", PACKED, IN_ORDER),
    ] {
        let devices: Vec<_> =
            devices.iter().map(|device| VirtioUser { more: more.to_owned(), ..device.clone() }).collect();
        let mut testpmd = Testpmd::start(&daemon.ns, &devices);
        for port in ["a", "b"] {
            expect_link(&daemon, port, true);
            let features = features(&daemon, port);
            assert_eq!((features & has, features & lacks), (has, 0), "{more}: {features:#x}");
        }
        exchange(&daemon, &mut testpmd, 1);
        drop(testpmd);
        ["a", "b"].iter().for_each(|port| expect_link(&daemon, port, false));
    }
    let is_known = || daemon.get("fdb").to_string().contains("52:54:00:00:00:0a");
    wait::expect("what was learned of guests that are gone goes", PATIENCE, || !is_known());
    daemon.finish();
}

#[test]
fn four_queues_send_and_receive() {
    let daemon = Daemon::with("pmdmq", &Options { workers: 2, frames: 32_768, ..Options::default() });
    let devices = pair(&daemon, Server::Switch, 4);
    let mut testpmd = Testpmd::start(&daemon.ns, &devices);
    for port in ["a", "b"] {
        wait::expect("four pairs", PATIENCE, || vhost(&daemon, port)["active_pairs"] == 4);
    }
    exchange(&daemon, &mut testpmd, 4);
    drop(testpmd);
    daemon.finish();
}

#[test]
fn a_driver_that_makes_the_socket_goes_on_after_the_daemon_was_killed() {
    goes_on("");
}

#[test]
fn with_packed_rings_it_does_too() {
    goes_on("packed_vq=1");
}

fn goes_on(more: &str) {
    let mut daemon = Daemon::start("pmdserver");
    let devices = pair(&daemon, Server::Qemu, 1);
    let devices: Vec<_> = devices.into_iter().map(|device| VirtioUser { more: more.to_owned(), ..device }).collect();
    let mut testpmd = Testpmd::start(&daemon.ns, &devices);
    ["a", "b"].iter().for_each(|port| expect_link(&daemon, port, true));
    exchange(&daemon, &mut testpmd, 1);
    for _ in 0..2 {
        daemon.kill();
        daemon.launch();
        ["a", "b"].iter().for_each(|port| expect_link(&daemon, port, true));
        exchange(&daemon, &mut testpmd, 1);
    }
    drop(testpmd);
    daemon.finish();
}

#[test]
fn a_port_takes_the_next_driver_after_either_side_was_killed() {
    let mut daemon = Daemon::start("pmdclient");
    let devices = pair(&daemon, Server::Switch, 1);
    let mut testpmd = Testpmd::start(&daemon.ns, &devices);
    exchange(&daemon, &mut testpmd, 1);
    testpmd.kill();
    ["a", "b"].iter().for_each(|port| expect_link(&daemon, port, false));
    let mut testpmd = Testpmd::start(&daemon.ns, &devices);
    exchange(&daemon, &mut testpmd, 1);
    daemon.kill();
    daemon.launch();
    // As a client this driver does not connect again: it is started anew.
    testpmd.kill();
    let mut testpmd = Testpmd::start(&daemon.ns, &devices);
    ["a", "b"].iter().for_each(|port| expect_link(&daemon, port, true));
    exchange(&daemon, &mut testpmd, 1);
    drop(testpmd);
    daemon.finish();
}

#[test]
fn a_port_that_a_panel_makes_is_one_for_a_driver_too() {
    let sockets = tempfile::tempdir().expect("a temporary directory");
    let config = format!(
        "[spp.vhost]\ndirectory = {:?}\nqueues = 4\n[[spp.process]]\ntype = \"nfv\"\nclient_id = 1\ncores = [0, 1]\n",
        sockets.path()
    );
    let mut daemon = Daemon::with("pmdspp", &Options { config, ..Options::default() });
    let say = |daemon: &Daemon, line: &str| daemon.ok("POST", "spp/commands", json!({ "line": line }));
    for line in ["add vhost:0", "add vhost:1", "patch vhost:0 vhost:1", "patch vhost:1 vhost:0", "forward"] {
        say(&daemon, &format!("nfv 1; {line}"));
    }
    let device = |no: u32| {
        let socket = sockets.path().join(format!("sock{no}")).display().to_string();
        VirtioUser { queues: 4, ..VirtioUser::new(&socket, &format!("52:54:00:00:00:0{no}")) }
    };
    let devices = [device(0), device(1)];
    for _ in 0..2 {
        let mut testpmd = Testpmd::start(&daemon.ns, &devices);
        let total = u64::from(BURSTS * 32 * 4);
        testpmd.send(BURSTS);
        for (at, port) in ["vhost0", "vhost1"].iter().enumerate() {
            let expected = Counters { rx: total, tx: total };
            wait::expect("all comes", PATIENCE, || testpmd.counters(at) == expected);
            wait::expect("all is counted", PATIENCE, || counted(&daemon, port) == expected);
        }
        testpmd.kill();
        // What the panel was told outlives the daemon.
        daemon.kill();
        daemon.launch();
    }
    let status = say(&daemon, "nfv 1; status");
    assert!(status["text"].as_str().is_some_and(|text| text.contains("vhost:0 -> vhost:1")), "{status}");
    say(&daemon, "nfv 1; patch reset");
    say(&daemon, "nfv 1; del vhost:0");
    assert!(!sockets.path().join("sock0").exists());
    assert_eq!(daemon.call("GET", "ports/vhost0", &Value::Null).0, 404);
    daemon.finish();
}
