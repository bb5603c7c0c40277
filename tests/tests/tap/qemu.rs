//! Tap ports with guests in QEMU, by `xswitch qemu run --net`.

use std::process::Command;

use serde_json::{Value, json};
use tests::companion::{ends_with, open_to_all};
use tests::guest::{Setup, Vm, qemu};
use tests::programs::product;
use tests::{Daemon, NetNs, shell};

use crate::{add, expect_link, info};

/// `xswitch qemu run` with these words, up to QEMU's program. In its mount namespace `/dev/net/tun` is open to all, as
/// udev makes it.
fn run(daemon: &Daemon, words: &str) -> Command {
    let device = daemon.path("all/tun");
    if !device.exists() {
        open_to_all(daemon);
        shell::run(Command::new("mknod").args(["-m", "666"]).arg(&device).args(["c", "10", "200"]));
    }
    let mut command = daemon.ns.command("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /dev/net/tun && exec \"$@\""]).arg(device);
    command.arg(product("xswitch")).arg("--run-dir").arg(daemon.path("run")).args(["qemu", "run"]);
    command.args(words.split_whitespace()).arg("--").arg(qemu().get_program());
    command
}

fn start(daemon: &Daemon, words: &str, number: u8) -> Vm {
    Vm::start(run(daemon, words), &Setup::with_addresses(&[&format!("10.0.0.{number}/24")]))
}

/// Bits a second that one guest sends another one by TCP.
fn tcp(from: &mut Vm, to: &str) -> f64 {
    let report = from.sh(&format!("iperf3 --json -c {to} -t 3"));
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_else(|| panic!("no rate: {report}"))
}

#[test]
fn guests_by_tap_by_vhost_and_by_af_xdp_reach_each_other() {
    let mut daemon = Daemon::start("tapqemu");
    let mut a = start(&daemon, "a --create --net tap --user nobody", 1);
    let mut b = start(&daemon, "b --create --net vhost --user nobody", 2);
    // This QEMU has all three.
    let mut c = start(&daemon, "c --create --user nobody", 3);
    [&mut a, &mut b, &mut c].into_iter().for_each(Vm::wait_ready);
    for (port, kind) in [("a", "tap"), ("b", "vhost"), ("c", "guest")] {
        assert_eq!(daemon.get(&format!("ports/{port}"))["spec"]["kind"], kind);
        expect_link(&daemon, port, true);
    }
    assert!(a.pings("10.0.0.2") && b.pings("10.0.0.3") && c.pings("10.0.0.1"));
    // What the guest at the tap sends lacks checksums and is not cut.
    let offloads = a.sh("ethtool -k eth0");
    for offload in ["tx-checksumming: on", "tcp-segmentation-offload: on"] {
        assert!(offloads.contains(offload), "{offloads}");
    }
    for guest in [&mut a, &mut c] {
        guest.sh("iperf3 -s -D; sleep 1");
    }
    let rates = [tcp(&mut a, "10.0.0.3"), tcp(&mut c, "10.0.0.1"), tcp(&mut b, "10.0.0.1")].map(|rate| rate / 1e6);
    println!("TCP from tap to af-xdp, back, and from vhost to tap: {rates:.0?} Mbit/s");
    // A loss of each packet that is not cut would leave next to nothing.
    assert!(rates.iter().all(|rate| *rate > 5.0), "{rates:?}");
    daemon.kill();
    daemon.launch();
    ["a", "b"].iter().for_each(|port| expect_link(&daemon, port, true));
    assert!(a.pings("10.0.0.2") && b.pings("10.0.0.3") && c.pings("10.0.0.1"), "after the daemon was killed");
    a.kill();
    expect_link(&daemon, "a", false);
    let mut a = start(&daemon, "a --user nobody", 1);
    a.wait_ready();
    assert!(a.pings("10.0.0.2"), "the next guest");
    drop((a, b, c));
    daemon.finish();
}

#[test]
fn a_guest_has_a_tap_of_two_queues_in_a_namespace() {
    let daemon = Daemon::start("tapqmq");
    let jail = NetNs::new("jail");
    let create = format!("a --create --net tap --user nobody --netns {} --queues 2", jail.name());
    let mut a = start(&daemon, &create, 1);
    let guest = daemon.guest("c", json!({}));
    guest.address("10.0.0.3/24");
    a.wait_ready();
    for queues in [1, 2] {
        a.sh(&format!("ethtool -L eth0 combined {queues}"));
        assert!(a.pings("10.0.0.3") && guest.pings("10.0.0.1"), "{queues} queues");
    }
    assert_eq!(info(&daemon, "a")["active_queues"], 2);
    drop(a);
    daemon.finish();
}

#[test]
fn what_can_not_be_is_told_with_what_would_do() {
    let daemon = Daemon::start("tapqno");
    add(&daemon, "a", json!({ "tap": { "owner": "12345" } }));
    let dir = open_to_all(&daemon);
    let old = dir.join("old-qemu");
    std::fs::write(&old, "#!/bin/sh\necho QEMU emulator version 7.2.0; echo Available netdev backend types: tap\n")
        .unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |words: &str, program: &str| {
        let mut command = daemon.cli_command();
        command.args(["qemu", "run"]).args(words.split_whitespace()).args(["--", program]);
        ends_with(&mut command, 125)
    };
    let (program, old) = (qemu().get_program().to_str().expect("a path").to_owned(), old.to_str().expect("a path"));
    for (words, program, text) in [
        ("a --net vhost", program.as_str(), "it is a tap port"),
        ("a --user nobody", program.as_str(), "is for user 12345"),
        ("b --create --net af-xdp", old, "this QEMU has no `af-xdp`"),
        ("b --create --kind phy", old, "--kind: QEMU is at a guest, vhost or tap port"),
        ("b --net tap", old, "there is no port"),
    ] {
        let said = run(words, program);
        assert!(said.contains(text), "{words}: {said}");
    }
    daemon.finish();
}
