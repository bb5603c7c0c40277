//! The daemon is killed, and its guests go on.

use serde_json::json;
use tests::guest::Vm;
use tests::{Daemon, wait};

use super::{PATIENCE, Server, add_port, expect_link, guest_with, start_guest_with, vhost};

/// `VIRTIO_F_RING_PACKED`.
const PACKED: u64 = 1 << 34;

fn kill(daemon: &mut Daemon) {
    daemon.kill();
    daemon.launch();
    for port in ["a", "b"] {
        expect_link(daemon, port, true);
    }
}

/// Packets that port `a` has given its guest.
fn received(daemon: &Daemon) -> u64 {
    daemon.stats("a")["tx"]["packets"].as_u64().expect("a number")
}

fn check_guests_go_on(name: &str, device: &str, is_packed: bool) {
    let mut daemon = Daemon::start(name);
    let mut a = guest_with(&daemon, "a", Server::Switch, 1, device);
    let mut b = guest_with(&daemon, "b", Server::Qemu, 2, device);
    for port in ["a", "b"] {
        let features = vhost(&daemon, port)["features"].as_u64().expect("features");
        assert_eq!(features & PACKED != 0, is_packed, "{port}: {features:#x}");
    }
    assert!(a.pings("10.0.0.2"));
    for _ in 0..2 {
        kill(&mut daemon);
        assert!(a.pings("10.0.0.2"), "after the daemon was killed");
        assert!(b.pings("10.0.0.1"));
    }
    // Now while both send as fast as they can: bursts are under way.
    a.sh("iperf3 -s -D; sleep 1");
    b.console.send("iperf3 -c 10.0.0.1 -t 600 >/tmp/client 2>&1").expect("a console");
    for _ in 0..6 {
        // The daemon's own counters begin anew.
        wait::expect("packets come", PATIENCE, || received(&daemon) > 3000);
        kill(&mut daemon);
    }
    wait::expect("packets come", PATIENCE, || received(&daemon) > 3000);
    assert!(a.pings("10.0.0.2"), "after all");
    let complaints = a.sh("dmesg | grep -ciE 'virtio.*(not a head|bad)|oops|bug:' || true");
    assert_eq!(complaints.trim(), "0");
    daemon.assert_balanced();
    daemon.finish();
}

#[test]
fn guests_go_on_after_the_daemon_was_killed() {
    check_guests_go_on("vhostkill", "", false);
}

#[test]
fn guests_with_packed_rings_go_on_after_the_daemon_was_killed() {
    check_guests_go_on("vhostkillp", ",packed=on", true);
}

#[test]
fn packed_rings_go_on_though_the_run_directory_was_removed() {
    let mut daemon = Daemon::start("vhostrun");
    let mut a = guest_with(&daemon, "a", Server::Switch, 1, ",packed=on");
    let mut b = guest_with(&daemon, "b", Server::Qemu, 2, ",packed=on");
    assert!(a.pings("10.0.0.2"));
    let run = daemon.path("run");
    let is_there = |port: &str| run.join("rings").join(port).exists();
    std::fs::remove_file(run.join("rings/a")).expect("it is there");
    wait::expect("a file that was removed is made again", PATIENCE, || is_there("a"));
    // At once, or the daemon makes the first files again before the last ones are gone.
    std::fs::rename(&run, daemon.path("gone")).expect("it can be moved away");
    std::fs::remove_dir_all(daemon.path("gone")).expect("it can be removed");
    wait::expect("all are made again", PATIENCE, || is_there("a") && is_there("b"));
    // The rings go on in the new files, of which the next daemon learns where they stand.
    for _ in 0..3 {
        assert!(a.pings("10.0.0.2"));
    }
    wait::expect("the daemon answers", PATIENCE, || run.join("api.sock").exists());
    kill(&mut daemon);
    assert!(a.pings("10.0.0.2"), "after the daemon was killed");
    assert!(b.pings("10.0.0.1"));
    daemon.finish();
}

/// A guest that is booted anew while there is no daemon has made its rings anew.
#[test]
fn guests_that_reboot_meanwhile_are_served() {
    let mut daemon = Daemon::start("vhostreboot");
    let mut a = guest_with(&daemon, "a", Server::Switch, 1, ",packed=on");
    let mut b = guest_with(&daemon, "b", Server::Switch, 2, ",packed=on");
    assert!(a.pings("10.0.0.2"));
    daemon.kill();
    reset(&a);
    daemon.launch();
    a.wait_ready();
    assert!(a.pings("10.0.0.2"), "a guest that was booted anew");
    assert!(b.pings("10.0.0.1"));
    daemon.finish();
}

/// Presses the reset button.
fn reset(vm: &Vm) {
    let mut qmp = vm.qmp();
    qmp.ok("set-action", json!({ "reboot": "reset" }));
    qmp.ok("system_reset", json!({}));
}

/// A guest that has left takes nothing along, and what it left is of no use to the next.
#[test]
fn the_next_guest_with_packed_rings_begins_anew() {
    let mut daemon = Daemon::start("vhostnextp");
    let socket = add_port(&daemon, "a", Server::Switch, 1);
    let mut b = guest_with(&daemon, "b", Server::Switch, 2, ",packed=on");
    for _ in 0..2 {
        let mut a = start_guest_with(&socket, Server::Switch, 1, 1, ",packed=on", &[]);
        a.wait_ready();
        assert!(b.pings("10.0.0.1"));
        daemon.kill();
        a.kill();
        daemon.launch();
        expect_link(&daemon, "b", true);
    }
    daemon.finish();
}
