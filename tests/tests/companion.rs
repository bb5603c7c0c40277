//! QEMU's companion with a double of QEMU: who gets sockets, what becomes of them, and what a restart does.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::companion::{
    PATIENCE, bound, connect, ends_with, expect_free, guest, mac, outcomes, port, request, run, start,
};
use tests::qemu_double::{self, Double, NOBODY};
use tests::{Daemon, Frame, narrow, shell, wait};

/// CAP_IPC_LOCK. A guest keeps it where the limit of locked memory can't be raised.
const IPC_LOCK: u64 = 1 << 14;

#[test]
fn guests_of_an_ordinary_user_reach_each_other() {
    let daemon = Daemon::start("cpair");
    let mac = port(&daemon, "a")["spec"]["mac"].as_str().expect("a MAC").to_owned();
    port(&daemon, "b");
    let mut a = start(&daemon, "a", "10.0.0.1");
    let mut b = start(&daemon, "b", "10.0.0.2");
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));

    let status = a.status();
    assert_eq!((status["uid"].as_u64(), status["no_new_privs"].as_u64()), (Some(NOBODY.into()), Some(1)), "{status}");
    let capabilities = |set: &str| u64::from_str_radix(status[set].as_str().expect("hex"), 16).expect("hex");
    for set in ["cap_eff", "cap_bnd", "cap_amb"] {
        assert_eq!(capabilities(set) & !IPC_LOCK, 0, "{set} in {status}");
    }
    assert_eq!(a.pid(), narrow::<i32>(guest(&daemon, "a")["pid"].as_i64().expect("a process")));
    let shown = bound(&daemon, "a");
    assert_eq!((shown["uid"].as_u64(), shown["sockets"][0]["bound"].as_bool()), (Some(NOBODY.into()), Some(true)));
    assert_eq!(shown["sockets"][0]["xsk"]["rx_dropped"], 0, "{shown}");
    assert_eq!(a.ask_json("nics")[0]["mac"], mac.as_str());
    let text = shell::text(&daemon.cli("port show a"));
    assert!(text.contains(&format!("process {}", a.pid())) && text.contains("bound since 2"), "{text}");
    drop((a, b));
    daemon.finish();
}

/// Makes `from` send packets to port `a`. Waits until the switch has sent them there.
fn shower(daemon: &Daemon, from: &mut Double, packets: u64) {
    let out = || daemon.stats("a")["tx"]["packets"].as_u64().expect("a number");
    let (before, to) = (out(), mac(daemon, "a"));
    let frame = Frame::ethernet(mac(daemon, "b"), to).payload(0x88b5, b"shower").hex();
    assert!(from.ask_all(&vec![format!("send {frame}"); narrow(packets)]).iter().all(|answer| answer == "ok"));
    wait::expect("all are out", PATIENCE, || out() >= before + packets);
}

#[test]
fn a_guest_that_is_killed_comes_back_each_time_and_every_packet_for_it_is_counted() {
    let daemon = Daemon::start("ckill");
    port(&daemon, "a");
    port(&daemon, "b");
    let mut a = start(&daemon, "a", "10.0.0.1");
    let mut b = start(&daemon, "b", "10.0.0.2");
    let mut pids = vec![a.pid()];
    for round in 1..=20_u64 {
        assert!(a.ping("10.0.0.2"), "{round}");
        a.kill();
        a.wait();
        if round % 5 == 0 {
            expect_free(&daemon, "a");
            let [taken, lost, unbound] = outcomes(&daemon, "a");
            shower(&daemon, &mut b, 10);
            wait::expect("nobody had it", PATIENCE, || outcomes(&daemon, "a") == [taken, lost + 10, unbound]);
        }
        a = start(&daemon, "a", "10.0.0.1");
        assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"), "{round}");
        pids.push(a.pid());
        assert_eq!(guest(&daemon, "a")["pid"], json!(a.pid()));
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 21, "each start is another process");

    a.kill();
    a.wait();
    expect_free(&daemon, "a");
    // This process has the socket, but does not bind it.
    let (offer, sockets) = connect(&daemon).ask(&request("a"));
    assert_eq!(sockets.len(), 1, "{offer}");
    assert_eq!(guest(&daemon, "a")["sockets"][0]["bound"], false);
    let [taken, lost, unbound] = outcomes(&daemon, "a");
    shower(&daemon, &mut b, 10);
    wait::expect("nobody had bound it", PATIENCE, || outcomes(&daemon, "a") == [taken, lost, unbound + 10]);
    assert_eq!((lost, unbound), (40, 0), "of a whole life");
    let out = daemon.stats("a")["tx"]["packets"].as_u64().expect("a number");
    assert_eq!(outcomes(&daemon, "a").iter().sum::<u64>(), out, "every packet came to something");
    drop((b, sockets));
    daemon.finish();
}

/// Restarts the daemon while both guests ping each other. It ends by SIGKILL or in order.
fn restart(daemon: &mut Daemon, guests: [&mut Double; 2], by_kill: bool) {
    let [a, b] = guests;
    a.say("ping 10.0.0.2 40 10");
    b.say("ping 10.0.0.1 40 10");
    if by_kill {
        daemon.kill()
    } else {
        daemon.stop()
    }
    daemon.launch();
    assert!(a.answer().starts_with("received ") && b.answer().starts_with("received "));
}

/// Learned addresses with their ports, sorted.
fn learned(daemon: &Daemon) -> Vec<(Value, Value)> {
    let rows = daemon.get("fdb");
    let mut rows: Vec<_> =
        rows.as_array().expect("rows").iter().map(|row| (row["mac"].clone(), row["port"].clone())).collect();
    rows.sort_by_key(|(mac, _)| mac.to_string());
    rows
}

#[test]
fn guests_stay_connected_over_restarts_of_the_daemon() {
    let mut daemon = Daemon::start("cagain");
    port(&daemon, "a");
    port(&daemon, "b");
    let mut a = start(&daemon, "a", "10.0.0.1");
    let mut b = start(&daemon, "b", "10.0.0.2");
    assert!(a.ping("10.0.0.2"));
    let fields = |shown: &Value| ["pid", "uid", "command", "since", "bound_since"].map(|field| shown[field].clone());
    let before = (fields(&bound(&daemon, "a")), fields(&bound(&daemon, "b")), learned(&daemon));
    assert_eq!(before.2.len(), 2, "{:?}", before.2);
    let mut taken = outcomes(&daemon, "a")[0];
    for round in 0..10 {
        restart(&mut daemon, [&mut a, &mut b], round % 2 == 1);
        assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"), "{round}");
        assert_eq!((fields(&guest(&daemon, "a")), fields(&guest(&daemon, "b")), learned(&daemon)), before, "{round}");
        let socket = guest(&daemon, "b")["sockets"][0].clone();
        assert_eq!((&socket["bound"], &socket["xsk"]["rx_invalid_descs"]), (&json!(true), &json!(0)), "{round}");
        let [now, lost, unbound] = outcomes(&daemon, "a");
        assert!(now > taken, "its counters go on: {now} after {taken}");
        assert_eq!((lost, unbound), (0, 0), "{round}");
        taken = now;
    }

    // Unbound sockets belong to their process over a restart too.
    let spare = port(&daemon, "c")["name"].as_str().expect("a name").to_owned();
    let (offer, sockets) = connect(&daemon).ask(&request(&spare));
    assert_eq!(sockets.len(), 1, "{offer}");
    let since = guest(&daemon, &spare)["since"].clone();
    daemon.kill();
    daemon.launch();
    let shown = guest(&daemon, &spare);
    assert_eq!((&shown["pid"], &shown["since"]), (&json!(std::process::id()), &since));
    assert_eq!((&shown["bound_since"], &shown["sockets"][0]["bound"]), (&Value::Null, &json!(false)), "{shown}");
    let text = ends_with(&mut run(&daemon, &spare), 125);
    assert!(text.contains("has a guest"), "{text}");
    drop(sockets);
    shell::run(daemon.cli_command().args(["qemu", "release", &spare]));
    shell::run(daemon.cli_command().args(["port", "del", &spare]));

    // One guest ends while the daemon is away, and another wants to start then.
    daemon.kill();
    a.kill();
    a.wait();
    let refused = ends_with(&mut run(&daemon, "a --user nobody"), 125);
    assert!(refused.contains("no daemon answers at") && refused.contains("start xswitchd"), "{refused}");
    daemon.launch();
    assert_eq!(guest(&daemon, "a"), Value::Null);
    let mut a = start(&daemon, "a", "10.0.0.1");
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    drop((a, b));
    daemon.finish();
}

#[test]
fn a_second_process_is_refused_and_nothing_happens_to_the_first() {
    let daemon = Daemon::start("csecond");
    port(&daemon, "a");
    port(&daemon, "b");
    let mut a = start(&daemon, "a", "10.0.0.1");
    let mut b = start(&daemon, "b", "10.0.0.2");
    let pid = a.pid();
    b.say("ping 10.0.0.1 50 10");
    // Once right away, and once after the daemon has seen it bound.
    for _ in 0..2 {
        let (code, text) = connect(&daemon).refused(&request("a"));
        assert!(code == "EBUSY" && text.contains(&format!("process {pid} (qemu-double)")), "{code}: {text}");
        bound(&daemon, "a");
    }
    let text = ends_with(&mut run(&daemon, "a --user nobody"), 125);
    assert!(text.contains(&pid.to_string()) && text.contains("qemu release a"), "{text}");
    let text = ends_with(daemon.cli_command().args(["qemu", "release", "a"]), 1);
    assert!(text.contains(&format!("process {pid} still has sockets of `a`")), "{text}");
    assert_eq!(b.answer(), "received 50 of 50");
    assert_eq!(guest(&daemon, "a")["pid"], pid);

    // A process that asks again before it has bound its sockets gets new ones, whether or not it still has the old
    // ones.
    drop(a);
    expect_free(&daemon, "a");
    let client = connect(&daemon);
    let (_, first) = client.ask(&request("a"));
    let (second, sockets) = client.ask(&request("a"));
    assert_eq!((first.len(), sockets.len()), (1, 1), "{second}");
    drop(first);
    let (third, sockets) = client.ask(&request("a"));
    assert_eq!(sockets.len(), 1, "{third}");
    assert_eq!(guest(&daemon, "a")["pid"], std::process::id());
    drop(sockets);
    shell::run(daemon.cli_command().args(["qemu", "release", "a"]));
    let mut a = start(&daemon, "a", "10.0.0.1");
    assert!(a.ping("10.0.0.2"));
    drop((a, b));
    daemon.finish();
}

/// Directories of pins. Their names are the ports' numbers.
fn pinned(daemon: &Daemon) -> Vec<String> {
    let Some(pins) = daemon.pins() else { return Vec::new() };
    let entries = std::fs::read_dir(pins).expect("it is there").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn leases(daemon: &Daemon) -> usize {
    std::fs::read_dir(daemon.path("run/guests")).expect("it is there").count()
}

#[test]
fn a_port_that_is_deleted_takes_everything_along() {
    let daemon = Daemon::start("cdelete");
    port(&daemon, "b");
    let mut b = start(&daemon, "b", "10.0.0.2");
    for _ in 0..2 {
        let ifname = port(&daemon, "a")["spec"]["guest_ifname"].as_str().expect("a name").to_owned();
        let mut a = start(&daemon, "a", "10.0.0.1");
        assert!(a.ping("10.0.0.2"));
        bound(&daemon, "a");
        assert_eq!((pinned(&daemon).len(), leases(&daemon)), (2, 2));
        shell::run(daemon.cli_command().args(["port", "del", "a"]));
        assert_eq!((pinned(&daemon).len(), leases(&daemon)), (1, 1));
        assert_eq!(daemon.ns.find_ifindex(&ifname), None);
        // The guest lives on, with a card that leads nowhere.
        assert_eq!(a.ask("ping 10.0.0.2 1 0"), "received 0 of 1");
        // A new guest starts at a new port of that name, while the old guest is there.
        port(&daemon, "a");
        let mut new = start(&daemon, "a", "10.0.0.1");
        assert!(new.ping("10.0.0.2") && b.ping("10.0.0.1"));
        drop(a);
        assert!(new.ping("10.0.0.2"));
        drop(new);
        shell::run(daemon.cli_command().args(["port", "del", "a"]));
    }
    drop(b);
    daemon.finish();
}

#[test]
fn ends_without_guests_are_open_after_a_restart_and_pins_of_no_port_are_removed() {
    let mut daemon = Daemon::start("cpins");
    shell::run(daemon.cli_command().args(["port", "add", "a", "--guest-sockets"]));
    port(&daemon, "b");
    assert_eq!(pinned(&daemon), ["0"]);
    for by_kill in [false, true] {
        if by_kill {
            daemon.kill()
        } else {
            daemon.stop()
        }
        assert_eq!(pinned(&daemon), ["0"]);
        daemon.launch();
        let shown = daemon.get("ports/a");
        let map = shown["info"]["guest_end"]["map_path"].as_str().unwrap_or_else(|| panic!("{shown}"));
        assert!(Path::new(map).exists() && outcomes(&daemon, "a") == [0, 0, 0], "{shown}");
    }
    // Lost pins are made again. A rebooted machine has none.
    daemon.stop();
    std::fs::remove_dir_all(daemon.pins().expect("pins").join("0")).expect("they can be removed");
    daemon.launch();
    assert_eq!(pinned(&daemon), ["0"]);
    let a = start(&daemon, "a", "10.0.0.1");
    drop(a);
    daemon.stop();
    std::fs::remove_dir_all(daemon.path("state")).expect("it can be removed");
    daemon.launch();
    assert_eq!((pinned(&daemon), daemon.get("ports")), (Vec::new(), json!([])));
    daemon.finish();
}

/// The double as root, with the output of `xswitch qemu args` for a QEMU that makes its own sockets.
fn by_map(daemon: &Daemon) -> Command {
    let words = shell::run(daemon.cli_command().args(["--json", "qemu", "args", "a", "--map-path"]));
    let words: Vec<String> = serde_json::from_str(&words).expect("a list of words");
    let mut command = daemon.ns.command(qemu_double::binary());
    command.args(&words).args(["-guest", "ip=10.0.0.1"]);
    command
}

#[test]
fn a_privileged_guest_makes_its_sockets_itself_and_is_not_disturbed() {
    let daemon = Daemon::start("cmap");
    port(&daemon, "a");
    port(&daemon, "b");
    let mut b = start(&daemon, "b", "10.0.0.2");
    let mut a = Double::spawn(by_map(&daemon));
    a.wait_ready();
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    assert_eq!(guest(&daemon, "a"), Value::Null, "the daemon has not given it anything");
    let text = ends_with(&mut run(&daemon, "a --user nobody"), 125);
    assert!(text.contains("a process that is not known here"), "{text}");
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    a.terminate();
    assert_eq!(a.wait().code(), Some(0));
    let mut a = start(&daemon, "a", "10.0.0.1");
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    // Then in the other order.
    let mut second = Double::spawn(by_map(&daemon));
    assert!(!second.gets_ready());
    wait::expect("it says why", Duration::from_secs(5), || second.errors().contains("Device or resource busy"));
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    drop((a, b));
    daemon.finish();
}

/// The client for authors of launchers.
fn script() -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/clients/fds.py"));
    command
}

#[test]
fn the_documented_client_starts_a_guest() {
    let daemon = Daemon::start("cscript");
    port(&daemon, "a");
    port(&daemon, "b");
    let mut b = start(&daemon, "b", "10.0.0.2");
    let socket = daemon.path("run/fds.sock");
    let mut command = daemon.ns.command("python3");
    command.args(script().get_args()).arg(&socket).args(["a", "--"]).arg(qemu_double::binary());
    command.args(["-guest", "ip=10.0.0.1"]);
    let mut a = Double::spawn(command);
    a.wait_ready();
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    assert_eq!(bound(&daemon, "a")["pid"], a.pid());
    let text = ends_with(script().arg(&socket).arg("a"), 1);
    assert!(text.starts_with("fds.py: port `a` has a guest") && text.ends_with("(EBUSY)\n"), "{text}");
    drop(a);
    expect_free(&daemon, "a");
    let text = ends_with(script().arg(&socket).arg("a"), 0);
    let mac = mac(&daemon, "a");
    assert!(text.starts_with("-netdev af-xdp,") && text.contains(&mac.to_string()), "{text}");
    expect_free(&daemon, "a");
    let text = ends_with(script().arg(&socket).args(["a", "--", "no-such-program"]), 1);
    assert!(text.contains("no-such-program"), "{text}");
    let text = ends_with(script().arg(daemon.path("run/none.sock")).arg("a"), 1);
    assert!(text.starts_with("fds.py: ") && text.contains("No such file"), "{text}");
    assert!(ends_with(script().arg(&socket), 1).contains("fds.py SOCKET PORT"));
    assert!(ends_with(script().arg(&socket).arg("c"), 1).contains("(ENOENT)"));
    drop(b);
    daemon.finish();
}

#[test]
fn a_guest_whose_pins_were_removed_has_its_slots_again_after_a_restart() {
    let mut daemon = Daemon::start("clost");
    port(&daemon, "a");
    port(&daemon, "b");
    let (mut a, mut b) = (start(&daemon, "a", "10.0.0.1"), start(&daemon, "b", "10.0.0.2"));
    bound(&daemon, "a");
    std::fs::remove_dir_all(daemon.pins().expect("it has pins").join("0")).expect("they can be removed");
    daemon.kill();
    daemon.launch();
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    assert_eq!(guest(&daemon, "a")["pid"], a.pid());
    drop((a, b));
    daemon.finish();
}

#[test]
fn a_guest_is_not_bound_to_an_end_that_is_gone() {
    let daemon = Daemon::start("cgone");
    port(&daemon, "a");
    let a = start(&daemon, "a", "10.0.0.1");
    assert_eq!(bound(&daemon, "a")["sockets"][0]["bound"], true);
    // A netdev that is down is still there.
    daemon.ns.sh("ip link set xg0 down");
    assert_eq!(guest(&daemon, "a")["sockets"][0]["bound"], true);
    // The pair is made again, and a guest has nothing of the new one.
    daemon.ns.sh("ip link del xg0");
    wait::expect("its hold ends", Duration::from_secs(10), || guest(&daemon, "a").is_null());
    drop(a);
    shell::run(daemon.cli_command().args(["port", "del", "a"]));
    daemon.finish();
}

#[test]
fn a_process_can_be_cut_off_by_root_only() {
    let daemon = Daemon::start("cforce");
    port(&daemon, "a");
    let sockets = connect(&daemon).ask(&request("a")).1;
    assert_eq!(sockets.len(), 1);
    let text = ends_with(daemon.cli_command().args(["qemu", "release", "a"]), 1);
    assert!(text.contains("still has sockets"), "{text}");
    shell::run(daemon.cli_command().args(["qemu", "release", "a", "--force"]));
    let mut a = start(&daemon, "a", "10.0.0.1");
    assert_eq!(bound(&daemon, "a")["pid"], a.pid());
    drop((a, sockets));
    daemon.finish();
}

#[test]
fn looking_at_a_port_does_not_cut_off_the_stack_behind_it() {
    let daemon = Daemon::start("clook");
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    shell::run(daemon.cli_command().args(["qemu", "args", "a"]));
    shell::run(daemon.cli_command().args(["qemu", "release", "a"]));
    ends_with(daemon.cli_command().args(["qemu", "detach", "a", "--qmp", "/nonexistent"]), 1);
    assert!(a.pings("10.0.0.2"));
    assert_eq!(daemon.get("ports/a")["spec"].get("guest_sockets"), None);
    // The guest's end is opened, and given back.
    shell::run(daemon.cli_command().args(["port", "set", "a", "--guest-sockets", "on"]));
    assert!(!a.pings("10.0.0.2"));
    shell::run(daemon.cli_command().args(["port", "set", "a", "--guest-sockets", "off"]));
    assert!(a.pings("10.0.0.2"));
    daemon.finish();
}
