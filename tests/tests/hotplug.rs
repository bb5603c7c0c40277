//! `xswitch qemu attach` and `detach` with a running double of QEMU: what is plugged, and what a failure leaves.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::companion::{bound, ends_with, expect_free, guest, open_to_all, outcomes, port, start};
use tests::qemu_double::{self, Double, UMEM_BYTES, unprivileged};
use tests::qmp::Qmp;
use tests::{Daemon, shell};

/// Room for some at a time: the limit counts what all processes of a user have.
const MEMLOCK: u64 = 64 * UMEM_BYTES;

/// A daemon with ports `a` and `b`, and a guest at `b` that answers.
fn daemon(label: &str) -> (Daemon, Double) {
    let daemon = Daemon::start(label);
    open_to_all(&daemon);
    port(&daemon, "a");
    port(&daemon, "b");
    let b = start(&daemon, "b", "10.0.0.2");
    (daemon, b)
}

/// A double with a monitor and without a card. `environment` says what it does wrong.
fn machine(daemon: &Daemon, environment: &[(&str, &str)]) -> (Double, PathBuf) {
    let path = daemon.path("all/qmp");
    let mut command = daemon.ns.command(qemu_double::binary());
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path.display()));
    command.args(["-guest", "ip=10.0.0.1"]).envs(environment.iter().copied());
    unprivileged(&mut command, MEMLOCK, &[]);
    let mut double = Double::spawn(command);
    double.wait_ready();
    (double, path)
}

/// A command `xswitch qemu WORDS --qmp PATH`.
fn hotplug(daemon: &Daemon, words: &str, path: &Path) -> Command {
    let mut command = daemon.cli_command();
    command.args(["--json", "qemu"]).args(words.split_whitespace()).arg("--qmp").arg(path);
    command
}

fn done(mut command: Command) -> Value {
    serde_json::from_str(&shell::run(&mut command)).expect("JSON")
}

/// Number of a double's open sockets.
fn sockets(double: &mut Double) -> usize {
    let status = double.status();
    let open = status["open_fds"].as_object().expect("an object").values();
    open.filter(|target| target.as_str().is_some_and(|target| target.starts_with("socket:"))).count()
}

/// Checks that QEMU has nothing of port 0: no card, no netdev, no named descriptor.
fn expect_nothing_left(double: &mut Double, path: &Path, open: usize) {
    assert_eq!(double.ask_json("nics"), json!([]));
    let mut qmp = Qmp::connect(path);
    assert_eq!(qmp.fails("netdev_del", json!({ "id": "xsw0" })).0, "DeviceNotFound");
    assert!(qmp.fails("closefd", json!({ "fdname": "xsw0-q0" })).1.contains("not found"));
    drop(qmp);
    // The monitor sees the end of a connection before it answers anything else.
    assert_eq!(tests::wait::until(tests::companion::PATIENCE, || (sockets(double) == open).then_some(())), Some(()));
}

#[test]
fn a_card_is_plugged_and_unplugged_while_the_guest_runs() {
    let (daemon, mut b) = daemon("pplug");
    let (mut a, path) = machine(&daemon, &[]);
    let open = sockets(&mut a);
    let since = daemon.get("ports/a")["spec"]["mac"].clone();
    for round in 0..3 {
        let plugged = done(hotplug(&daemon, "attach a", &path));
        assert_eq!((&plugged["pid"], &plugged["mac"]), (&json!(a.pid()), &since), "{plugged}");
        assert_eq!(guest(&daemon, "a")["pid"], a.pid());
        assert_eq!(a.ask_json("nics")[0]["mac"], since);
        assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"), "{round}");
        let text = ends_with(&mut hotplug(&daemon, "attach a", &path), 1);
        assert!(text.contains("port `a` has a guest"), "{text}");
        bound(&daemon, "a");
        let gone = done(hotplug(&daemon, "detach a", &path));
        assert_eq!((&gone["netdev"], &gone["device"]), (&json!("xsw0"), &json!("xsw0-nic")), "{gone}");
        assert_eq!(guest(&daemon, "a"), Value::Null);
        expect_nothing_left(&mut a, &path, open);
        // Doing it again is no error.
        assert_eq!(done(hotplug(&daemon, "detach a", &path))["device"], Value::Null);
    }
    // Plugged and unplugged at once, before the daemon has looked whether it is bound.
    done(hotplug(&daemon, "attach a", &path));
    done(hotplug(&daemon, "detach a", &path));
    // Another guest has the port next. It gets nothing of what the first one had.
    let mut next = start(&daemon, "a", "10.0.0.1");
    assert!(next.ping("10.0.0.2"));
    let text = ends_with(&mut hotplug(&daemon, "attach a", &path), 1);
    assert!(text.contains(&format!("process {}", next.pid())), "{text}");
    expect_nothing_left(&mut a, &path, open);
    assert!(next.ping("10.0.0.2") && b.ping("10.0.0.1"));
    assert_eq!(outcomes(&daemon, "a")[2], 0);
    drop((a, b, next));
    daemon.finish();
}

#[test]
fn what_fails_in_qemu_leaves_nothing_behind() {
    let (daemon, b) = daemon("pfail");
    for (fails, why) in [
        ("getfd", "getfd fails"),
        ("netdev_add", "netdev_add fails"),
        ("device_add", "device_add fails"),
        ("qom-list", "qom-list fails"),
    ] {
        let (mut a, path) = machine(&daemon, &[("QEMU_DOUBLE_FAIL", fails)]);
        let open = sockets(&mut a);
        let text = ends_with(&mut hotplug(&daemon, "attach a", &path), 1);
        assert!(text.contains(why) && !text.contains("could not be undone"), "{fails}: {text}");
        assert_eq!(guest(&daemon, "a"), Value::Null, "{fails}");
        expect_nothing_left(&mut a, &path, open);
    }
    for (words, environment, why) in [
        ("attach a", ("QEMU_DOUBLE_VERSION", "8.1.9"), "8.2 is the first version"),
        ("attach a", ("QEMU_DOUBLE_NO_AF_XDP", "1"), "--enable-af-xdp"),
        ("attach c", ("NOTHING", ""), "no port"),
        ("attach a --pid 2147483647", ("NOTHING", ""), "process 2147483647"),
    ] {
        let (mut a, path) = machine(&daemon, &[environment]);
        let open = sockets(&mut a);
        let text = ends_with(&mut hotplug(&daemon, words, &path), 1);
        assert!(text.contains(why), "{words}: {text}");
        assert_eq!(guest(&daemon, "a"), Value::Null, "{words}");
        expect_nothing_left(&mut a, &path, open);
    }
    let text = ends_with(&mut hotplug(&daemon, "attach a", &daemon.path("all/none")), 1);
    assert!(text.contains("all/none"), "{text}");
    let mut a = start(&daemon, "a", "10.0.0.1");
    assert!(a.ping("10.0.0.2"), "the port is as if nothing had been");
    drop((a, b));
    daemon.finish();
}

#[test]
fn a_port_in_another_namespace_is_not_plugged() {
    let daemon = Daemon::start("pspace");
    open_to_all(&daemon);
    let port = daemon.guest("a", json!({}));
    let (mut a, path) = machine(&daemon, &[]);
    let open = sockets(&mut a);
    let text = ends_with(&mut hotplug(&daemon, "attach a", &path), 1);
    assert!(text.contains("is not in the network namespace") && text.contains(port.ns.name()), "{text}");
    assert_eq!(guest(&daemon, "a"), Value::Null);
    expect_nothing_left(&mut a, &path, open);
    drop((a, port));
    daemon.finish();
}

#[test]
fn a_guest_that_keeps_its_card_keeps_the_port_until_it_ends() {
    let (daemon, mut b) = daemon("pkeep");
    let (mut a, path) = machine(&daemon, &[("QEMU_DOUBLE_KEEP_DEVICE", "1")]);
    done(hotplug(&daemon, "attach a", &path));
    bound(&daemon, "a");
    for _ in 0..2 {
        let text = ends_with(&mut hotplug(&daemon, "detach a --timeout 1", &path), 1);
        assert!(text.contains("has not let go of the card xsw0-nic within 1 s"), "{text}");
        assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"), "netdev and sockets are as they were");
        assert_eq!(guest(&daemon, "a")["pid"], a.pid());
    }
    a.kill();
    a.wait();
    expect_free(&daemon, "a");
    let text = ends_with(&mut hotplug(&daemon, "detach a", &path), 1);
    assert!(text.contains("qmp"), "{text}");
    // Another one is plugged at once. It ends by itself while it has the card.
    let (mut a, path) = machine(&daemon, &[]);
    done(hotplug(&daemon, "attach a", &path));
    assert!(a.ping("10.0.0.2"));
    a.terminate();
    assert_eq!(a.wait().code(), Some(0));
    let mut a = start(&daemon, "a", "10.0.0.1");
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    drop((a, b));
    daemon.finish();
}
