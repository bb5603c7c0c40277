//! Real guests: QEMU with af-xdp, run by `xswitch qemu run` as an ordinary user.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::guest::{Setup, Vm, qemu};
use tests::python::{environment, script};
use tests::{Daemon, shell, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// Adds a port whose guest's end stays in the daemon's namespace.
fn port(daemon: &Daemon, name: &str, more: Value) -> Value {
    let mut spec = json!({ "name": name, "kind": "guest" });
    spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    daemon.ok("POST", "ports", spec)
}

/// Starts a guest at a port.
fn start(daemon: &Daemon, port: &str, address: &str) -> Vm {
    let mut launcher = daemon.cli_command();
    launcher.args(["qemu", "run", port, "--user", "nobody", "--"]).arg(qemu().get_program());
    Vm::launch(launcher, &Setup::with_addresses(&[address]))
}

/// Two ports and a guest at each.
fn pair(daemon: &Daemon) -> (Vm, Vm) {
    port(daemon, "a", json!({}));
    port(daemon, "b", json!({}));
    (start(daemon, "a", "10.0.0.1/24"), start(daemon, "b", "10.0.0.2/24"))
}

/// Bits a second at an iperf3 server in 10.0.0.2, as the client reports them.
fn iperf(client: &mut Vm, more: &str) -> f64 {
    let report = client.sh(&format!("iperf3 --json -c 10.0.0.2 -t 4 {more}"));
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
    let end = &report["end"];
    let received = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
    received["bits_per_second"].as_f64().unwrap_or_else(|| panic!("no rate: {report}"))
}

#[test]
fn two_guests_ping_stream_and_keep_to_meter_and_rule() {
    let daemon = Daemon::start("qpair");
    let (mut a, mut b) = pair(&daemon);
    assert!(a.pings("10.0.0.2") && b.pings("10.0.0.1"));
    b.sh("iperf3 -s -D");
    let free = iperf(&mut a, "");
    let back = iperf(&mut a, "-R");
    println!("iperf3 between two guests: {:.0} and {:.0} Mbit/s", free / 1e6, back / 1e6);

    // Vport 0 is `a`. The meter with that number is its own, without a binding.
    daemon.ok("POST", "meters", json!({ "id": 0, "rate": 2000 }));
    let metered = iperf(&mut a, "");
    println!("with a meter of 2 Mbit/s: {:.1} Mbit/s", metered / 1e6);
    assert!(free > 5e6, "nothing would be seen of a meter: {free}");
    assert!(metered < 3e6, "{metered}");
    assert!(daemon.stats("a")["drops"].to_string().contains("meter"));
    daemon.ok("DELETE", "meters/0", Value::Null);

    // The rule drops one flow of the guest and no other.
    daemon.ok("POST", "rules", json!({ "key": { "ipprotocol": "6", "dl4port": "5201" }, "action": { "vid": "drop" } }));
    assert_ne!(a.console.run("iperf3 -c 10.0.0.2 -t 1 --connect-timeout 2000").expect("an answer").status, 0);
    assert!(a.pings("10.0.0.2"));
    drop((a, b));
    daemon.finish();
}

#[test]
fn a_service_moves_to_another_guest_under_a_running_ping() {
    let environment = environment();
    let daemon = Daemon::start("qmove");
    let (mut a, _b) = pair(&daemon);
    let mac = daemon.get("ports/b")["spec"]["mac"].clone();
    daemon.ok("PATCH", "ports/b", json!({ "shared_mac": true }));
    port(&daemon, "c", json!({ "mac": mac, "shared_mac": true }));
    let mut c = start(&daemon, "c", "10.0.0.2/24");
    assert!(a.pings("10.0.0.2"));
    a.sh("ping -i 0.1 -c 600 10.0.0.2 > /tmp/ping & echo $! > /tmp/pid");
    let replies = |a: &mut Vm| a.sh("grep -c 'bytes from' /tmp/ping; true").trim().parse::<u32>().expect("a number");
    wait::expect("the ping runs", PATIENCE, || replies(&mut a) > 5);
    let before = c.sh("grep ^Icmp: /proc/net/snmp | tail -n 1");
    let mut switch = script(&daemon, &environment, "drive.py");
    let switched = shell::output(switch.arg(daemon.path("run/dpu.sock")).args(["switch", "1", "2"]));
    assert!(switched.status.success(), "{}", shell::text(&switched));
    let at = replies(&mut a);
    wait::expect("the other guest answers", PATIENCE, || replies(&mut a) > at + 5);
    assert_ne!(c.sh("grep ^Icmp: /proc/net/snmp | tail -n 1"), before);
    a.sh("kill -INT $(cat /tmp/pid); wait");
    let loss = a.sh("grep loss /tmp/ping");
    println!("ping meanwhile: {}", loss.trim());
    let numbers: Vec<u32> = loss.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    // The last packet may be on its way when the ping is told to end.
    assert!(numbers[0] - numbers[1] <= 1 && !loss.contains("duplicates"), "{loss}");
    drop((a, _b, c));
    daemon.finish();
}

#[test]
fn a_guest_that_is_killed_comes_back_each_time() {
    let daemon = Daemon::start("qkill");
    let (mut a, mut b) = pair(&daemon);
    for round in 1..=20 {
        let pid = a.pid();
        assert_eq!(daemon.get("ports/a")["guest"]["pid"], pid, "it was executed in the launcher's place");
        a.kill();
        a = start(&daemon, "a", "10.0.0.1/24");
        assert_ne!(a.pid(), pid);
        assert!(b.pings("10.0.0.1"), "round {round}: {}", daemon.get("ports/a"));
    }
    drop((a, b));
    daemon.finish();
}

/// Numbers of the answers that a running ping has got so far.
fn answers(a: &mut Vm) -> Vec<u64> {
    let text = a.sh("cat /tmp/ping");
    let seq = |line: &str| line.split("seq=").nth(1)?.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(seq).collect()
}

#[test]
fn guests_do_not_notice_restarts_of_the_daemon() {
    const INTERVAL_MS: u64 = 20;
    let mut daemon = Daemon::start("qrestart");
    let (mut a, mut b) = pair(&daemon);
    daemon.ok("POST", "meters", json!({ "id": 0, "rate": 900_000 }));
    daemon.ok("POST", "rules", json!({ "key": { "ipprotocol": "17", "dl4port": "9" }, "action": { "vid": "drop" } }));
    b.sh("iperf3 -s -D");
    a.sh(&format!("ping -i 0.0{INTERVAL_MS} 10.0.0.2 > /tmp/ping & echo $! > /tmp/pid"));
    a.sh("iperf3 -c 10.0.0.2 -t 600 -b 1M -i 1 --forceflush > /tmp/stream & echo $! > /tmp/stream.pid");
    let streamed = |a: &mut Vm| a.sh("grep -c 'bits/sec' /tmp/stream; true").trim().parse::<u32>().expect("a number");
    wait::expect("the stream runs", PATIENCE, || streamed(&mut a) > 1);
    wait::expect("what is learned is kept", PATIENCE, || daemon.path("run/fdb.json").exists());
    let pids = [a.pid(), b.pid()];
    let (mut gaps, mut slowest) = (Vec::new(), Duration::ZERO);
    for round in 0..40 {
        let before = answers(&mut a).last().copied().unwrap_or(0);
        let started = Instant::now();
        if round % 2 == 0 {
            daemon.kill()
        } else {
            daemon.stop()
        }
        daemon.launch();
        slowest = slowest.max(started.elapsed());
        wait::expect("the ping goes on", PATIENCE, || answers(&mut a).last().is_some_and(|&last| last > before + 25));
        let seen = answers(&mut a);
        let gap = seen.windows(2).filter(|pair| pair[1] > before).map(|pair| pair[1] - pair[0] - 1).max();
        gaps.push(gap.unwrap_or(0) * INTERVAL_MS);
        for (name, pid) in ["a", "b"].iter().zip(pids) {
            let guest = daemon.get(&format!("ports/{name}"))["guest"].clone();
            assert_eq!((&guest["pid"], &guest["sockets"][0]["bound"]), (&json!(pid), &json!(true)), "{round}: {guest}");
        }
        assert_eq!(daemon.get("meters")[0]["spec"]["rate"], 900_000, "{}", daemon.get("meters"));
        assert_eq!(daemon.get("rules").as_array().map(Vec::len), Some(1));
        let learned = daemon.get("fdb");
        assert_eq!(learned.as_array().map(Vec::len), Some(2), "{learned}");
    }
    gaps.sort_unstable();
    println!(
        "20 restarts by SIGTERM and 20 by SIGKILL: pings lost for {} ms (median), {} ms (most); the daemon was back after {} ms \
         at most",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
        slowest.as_millis()
    );
    let at = streamed(&mut a);
    wait::expect("the stream goes on", PATIENCE, || streamed(&mut a) > at + 1);
    a.sh("kill -0 $(cat /tmp/stream.pid)");
    a.sh("kill $(cat /tmp/pid) $(cat /tmp/stream.pid)");
    drop((a, b));
    daemon.finish();
}

#[test]
fn a_card_is_plugged_in_and_out_while_the_guest_runs() {
    let daemon = Daemon::start("qplug");
    let (mut a, mut b) = pair(&daemon);
    port(&daemon, "c", json!({ "mtu": 1400 }));
    let words = |command: &str| format!("qemu {command} c --qmp {}", a.qmp_path().display());
    let (attach, detach) = (words("attach"), words("detach"));
    for _ in 0..3 {
        let done = daemon.cli(&attach);
        assert!(done.status.success(), "{}", shell::text(&done));
        a.sh("net-up eth1 10.0.1.1/24");
        assert_eq!(a.sh("cat /sys/class/net/eth1/mtu").trim(), "1400", "the card tells the port's MTU");
        b.sh("ip address add 10.0.1.2/24 dev eth0 2>/dev/null; true");
        assert!(a.pings("10.0.1.2"), "{}", daemon.get("ports/c"));
        assert_eq!(daemon.get("ports/c")["guest"]["pid"], a.pid());
        let again = daemon.cli(&attach);
        assert!(!again.status.success() && shell::text(&again).contains("has a guest"), "{}", shell::text(&again));
        let done = daemon.cli(&detach);
        assert!(done.status.success(), "{}", shell::text(&done));
        assert!(daemon.get("ports/c")["guest"].is_null());
        assert_eq!(a.sh("ls /sys/class/net").split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
        assert!(a.pings("10.0.0.2"), "its other card works on");
    }
    drop((a, b));
    daemon.finish();
}

#[test]
fn a_privileged_qemu_makes_its_sockets_itself() {
    let daemon = Daemon::start("qmap");
    port(&daemon, "a", json!({}));
    port(&daemon, "b", json!({}));
    let mut b = start(&daemon, "b", "10.0.0.2/24");
    let printed = daemon.cli("qemu args a --map-path");
    let words = shell::text(&printed);
    for _ in 0..2 {
        let mut launcher = daemon.ns.command(qemu().get_program());
        launcher.args(words.split_whitespace());
        let mut a = Vm::launch(launcher, &Setup::with_addresses(&["10.0.0.1/24"]));
        assert!(a.pings("10.0.0.2") && b.pings("10.0.0.1"), "{}", daemon.get("ports/a"));
        let mut second = daemon.cli_command();
        let refused = shell::output(second.args(["qemu", "run", "a", "--"]).arg(qemu().get_program()));
        assert_eq!(refused.status.code(), Some(125), "{}", shell::text(&refused));
        assert!(a.power_off().success());
    }
    drop(b);
    daemon.finish();
}

#[test]
fn exit_code_and_signals_pass_through_the_launcher() {
    let daemon = Daemon::start("qexit");
    port(&daemon, "a", json!({}));
    assert!(start(&daemon, "a", "10.0.0.1/24").power_off().success());
    wait::expect("the port is free again", PATIENCE, || daemon.get("ports/a")["guest"].is_null());
    let mut launcher = daemon.cli_command();
    launcher.args(["qemu", "run", "a", "--user", "nobody", "--"]).arg(qemu().get_program());
    let refused = shell::output(launcher.args(["-machine", "no-such-machine"]));
    assert_eq!(refused.status.code(), Some(1), "QEMU's own code: {}", shell::text(&refused));
    let mut launcher = daemon.cli_command();
    let none = shell::output(launcher.args(["qemu", "run", "a", "--"]).arg(OsStr::new("/no/such/qemu")));
    assert_eq!(none.status.code(), Some(127), "{}", shell::text(&none));
    daemon.finish();
}
