//! `xswitch qemu run` with a double of QEMU: options, ports, exit codes, signals and restarts.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::companion::{PATIENCE, Supervised, bound, ends_with, expect_free, guest, open_to_all, port, run, start};
use tests::qemu_double::{self, Double, NOBODY};
use tests::{Daemon, NetNs, wait};

/// Runs `xswitch qemu run` with these words in front of `--`, and these options behind the program.
fn launch(daemon: &Daemon, words: &str, options: &[&str]) -> Double {
    let mut command = run(daemon, words);
    command.args(options);
    let mut double = Double::spawn(command);
    double.wait_ready();
    double
}

#[test]
fn placeholders_are_filled_and_two_ports_are_in_one_guest() {
    let daemon = Daemon::start("lplace");
    for (name, mtu) in [("a", 1500), ("b", 3000), ("c", 1500)] {
        daemon.ok("POST", "ports", json!({ "name": name, "kind": "guest", "mtu": mtu }));
    }
    let mac = |name: &str| daemon.get(&format!("ports/{name}"))["spec"]["mac"].clone();
    let mut c = start(&daemon, "c", "10.0.0.3");
    let options = [
        "-m",
        "128",
        "-netdev",
        "af-xdp,id=one,@PORT",
        "-device",
        "e1000,netdev=one,@a",
        "--netdev",
        "@1,type=af-xdp,id=two",
        "-device",
        "virtio-net-pci,@b,netdev=two,id=n2",
        "-name",
        "x,@y",
        "-guest",
        "netdev=one,ip=10.0.0.1",
        "-guest",
        "netdev=two,ip=10.0.0.2",
    ];
    let mut two = launch(&daemon, "a b --user nobody", &options);
    assert_eq!(two.ask("@one ping 10.0.0.3 3 20"), "received 3 of 3");
    assert_eq!(two.ask("@two ping 10.0.0.3 3 20"), "received 3 of 3");
    assert!(c.ping("10.0.0.1") && c.ping("10.0.0.2"));
    let nics = two.ask_json("nics");
    assert_eq!((&nics[0]["mac"], &nics[0]["host_mtu"]), (&mac("a"), &Value::Null), "{nics}");
    assert_eq!((&nics[1]["mac"], &nics[1]["host_mtu"]), (&mac("b"), &json!("3000")), "{nics}");
    let status = two.status();
    assert!(status["args"].to_string().contains("x,@y"), "other options are left alone: {status}");
    for name in ["a", "b"] {
        assert_eq!(bound(&daemon, name)["pid"], two.pid());
    }
    // The double has a socket for each queue and nothing of the launcher: no connection, namespace or event loop.
    let fds = status["fds"].as_object().expect("an object");
    let of_kind = |kind: &str| fds.values().filter(|target| target.to_string().contains(kind)).count();
    assert_eq!(["socket:", "net:", "anon_inode:"].map(of_kind), [2, 0, 0], "{fds:?}");
    drop(two);
    // One of two options names its port. The other port gets options of its own.
    let mut two = launch(
        &daemon,
        "a b --user nobody",
        &[
            "-netdev",
            "af-xdp,id=one,@b",
            "-device",
            "virtio-net-pci,netdev=one,@b",
            "-guest",
            "netdev=xsw0,ip=10.0.0.1",
        ],
    );
    assert_eq!(two.ask("@xsw0 ping 10.0.0.3 3 20"), "received 3 of 3");
    drop((two, c));
    daemon.finish();
}

#[test]
fn a_port_is_created_once_with_its_options() {
    let daemon = Daemon::start("lcreate");
    let words = "new --create --mtu 2000 --vlan access:7 --mac 02:00:00:00:00:77 --user nobody";
    for _ in 0..2 {
        let mut double = launch(&daemon, words, &[]);
        let spec = daemon.get("ports/new")["spec"].clone();
        assert_eq!((&spec["mtu"], &spec["mac"]), (&json!(2000), &json!("02:00:00:00:00:77")), "{spec}");
        assert_eq!(spec["vlan"]["vid"], 7, "{spec}");
        assert_eq!(double.ask_json("nics")[0]["host_mtu"], "2000");
    }
    let double = launch(&daemon, "wide --create --queues 2 --user nobody", &[]);
    let shown = bound(&daemon, "wide");
    let queues: Vec<_> = shown["sockets"].as_array().expect("sockets").iter().map(|socket| &socket["queue"]).collect();
    assert_eq!((queues, &shown["sockets"][1]["bound"]), (vec![&json!(0), &json!(1)], &json!(true)), "{shown}");
    drop(double);
    for (words, why) in [
        ("new --mtu 2000", "only with --create"),
        ("new newer --create", "--create adds one port, and 2 are named"),
        ("up --create --kind phy", "QEMU is at a guest, vhost or tap port"),
        ("big --create --mtu 70000", "mtu"),
    ] {
        let text = ends_with(&mut run(&daemon, words), 125);
        assert!(text.contains(why), "{words}: {text}");
    }
    assert_eq!(daemon.get("ports").as_array().map(Vec::len), Some(2));
    daemon.finish();
}

#[test]
fn exit_codes_and_signals_pass_through() {
    let daemon = Daemon::start("lcodes");
    port(&daemon, "a");
    let mut double = start(&daemon, "a", "10.0.0.1");
    double.terminate();
    assert_eq!(double.wait().code(), Some(0));
    wait::expect("it was told", PATIENCE, || double.errors().contains("terminating on signal 15"));
    let mut double = start(&daemon, "a", "10.0.0.1");
    double.say("exit 7");
    assert_eq!(double.wait().code(), Some(7));
    let mut double = start(&daemon, "a", "10.0.0.1");
    double.say("crash");
    assert_eq!(double.wait().signal(), Some(libc::SIGABRT));
    expect_free(&daemon, "a");
    daemon.finish();
}

/// A ready double under a restart policy.
fn supervise(daemon: &Daemon, words: &str, ip: &str) -> Supervised {
    let mut command = run(daemon, &format!("{words} --restart on-failure --user nobody"));
    command.args(["-guest", &format!("ip={ip}")]);
    let mut double = Supervised(Double::spawn(command));
    double.0.wait_ready();
    double
}

#[test]
fn a_guest_that_fails_is_started_again_and_one_that_ends_is_not() {
    let mut daemon = Daemon::start("lagain");
    port(&daemon, "a");
    port(&daemon, "b");
    let mut b = start(&daemon, "b", "10.0.0.2");
    let mut a = supervise(&daemon, "a", "10.0.0.1");
    let first = a.0.pid();
    assert!(a.0.ping("10.0.0.2"));
    a.0.say("crash");
    a.0.wait_ready();
    let second = a.0.pid();
    assert!(first != second && a.0.ping("10.0.0.2") && b.ping("10.0.0.1"));
    assert_eq!(guest(&daemon, "a")["pid"], second);
    assert!(a.0.errors().contains("started again in 1 s"), "{}", a.0.errors());
    // A start fails while the daemon is away. That is no reason to give up.
    daemon.stop();
    a.0.say("exit 3");
    wait::expect("it has tried", PATIENCE, || a.0.errors().contains("no daemon answers"));
    daemon.launch();
    a.0.wait_ready();
    assert!(a.0.ping("10.0.0.2") && b.ping("10.0.0.1"));
    a.0.say("exit 0");
    assert_eq!(a.0.wait().code(), Some(0));
    expect_free(&daemon, "a");

    let mut a = supervise(&daemon, "a", "10.0.0.1");
    let pid = a.0.pid();
    a.0.terminate();
    assert_eq!(a.0.wait().code(), Some(0));
    expect_free(&daemon, "a");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its guest has ended before it");
    // It is told to end in the pause before another start.
    let mut a = supervise(&daemon, "a", "10.0.0.1");
    a.0.say("exit 3");
    wait::expect("it pauses", PATIENCE, || a.0.errors().contains("started again"));
    // A signal that ends nothing comes first.
    a.0.signal(Signal::SIGUSR1);
    a.0.terminate();
    assert_eq!(a.0.wait().code(), Some(128 + libc::SIGTERM));
    // A program that can't be started at all is not tried again.
    for (words, code) in [("c", 125), ("a --user no-such-user", 125)] {
        ends_with(&mut run(&daemon, &format!("{words} --restart on-failure")), code);
    }
    drop(b);
    daemon.finish();
}

#[test]
fn what_can_not_be_run_is_told_and_leaves_the_port_free() {
    let daemon = Daemon::start("lusage");
    port(&daemon, "a");
    let all = open_to_all(&daemon);
    for (words, options, why) in [
        ("a --user no-such-user", &[][..], "--user: there is no user `no-such-user`"),
        ("c", &[], "port c: there is no port `c`"),
        ("a c", &[], "port c: there is no port `c`"),
        ("a 0", &[], "port a is named twice"),
        ("a", &["-netdev", "af-xdp,id=n,@b"], "-netdev af-xdp,id=n,@b: @b is none of the ports of this command line"),
    ] {
        let mut command = run(&daemon, words);
        let text = ends_with(command.args(options), 125);
        assert!(text.starts_with("xswitch: ") && text.contains(why), "{words}: {text}");
        expect_free(&daemon, "a");
    }
    let with = |program: &str| {
        let mut command = daemon.cli_command();
        command.args(["qemu", "run", "a", "--", program]);
        command
    };
    let plain = all.join("plain");
    std::fs::write(&plain, "text").expect("it can be written");
    for (program, code) in [("no-such-program", 127), ("/no/such", 127), (plain.to_str().expect("a path"), 126)] {
        let text = ends_with(&mut with(program), code);
        assert!(text.contains(&format!("running {program}: ")), "{text}");
        expect_free(&daemon, "a");
    }
    for words in ["qemu run a", "qemu run a --", "qemu run -- true", "qemu run a --restart always -- true"] {
        let mut command = daemon.cli_command();
        let text = ends_with(command.args(words.split_whitespace()), 2);
        assert!(text.starts_with("error: ") && text.contains("--help"), "{words}: {text}");
    }
    expect_free(&daemon, "a");
    daemon.finish();
}

#[test]
fn the_namespace_of_a_port_is_entered() {
    let mut daemon = Daemon::start("lspace");
    let ports = ["a", "b", "c"].map(|name| daemon.guest(name, json!({ "guest_ifname": "net0" })));
    let mut a = start(&daemon, "a", "10.0.0.1");
    // Root can start it from anywhere.
    let mut elsewhere = Command::new(daemon.cli_command().get_program());
    elsewhere.arg("--run-dir").arg(daemon.path("run")).args(["qemu", "run", "b", "--user", "nobody", "--"]);
    elsewhere.arg(qemu_double::binary()).args(["-guest", "ip=10.0.0.2"]);
    let mut b = Double::spawn(elsewhere);
    b.wait_ready();
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    let inside = |ns: &NetNs| {
        let link = ns.run(|| std::fs::read_link("/proc/thread-self/ns/net"));
        link.expect("it has one").display().to_string()
    };
    for (double, port) in [(&mut a, &ports[0]), (&mut b, &ports[1])] {
        let status = double.status();
        assert_eq!((&status["netns"], &status["uid"]), (&json!(inside(&port.ns)), &json!(NOBODY)), "{status}");
    }
    drop(b);
    let text = ends_with(&mut run(&daemon, "b c --user nobody"), 125);
    assert!(text.contains("ports b and c are in different network namespaces"), "{text}");
    expect_free(&daemon, "b");
    // A guest in its own namespace stays over a restart.
    daemon.kill();
    daemon.launch();
    assert_eq!(guest(&daemon, "a")["pid"], a.pid());
    let b = start(&daemon, "b", "10.0.0.2");
    assert!(a.ping("10.0.0.2"));
    drop((a, b));
    daemon.finish();
    drop(ports);
}

#[test]
fn a_command_that_never_binds_gives_the_guests_end_back() {
    let daemon = Daemon::start("lnobind");
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    a.address("10.0.0.1/24");
    b.address("10.0.0.2/24");
    assert!(a.pings("10.0.0.2"));
    let run = |command: &[&str]| {
        let mut run = daemon.cli_command();
        run.args(["qemu", "run", "a", "--"]).args(command);
        run
    };
    let is_open = || daemon.get("ports/a")["spec"]["guest_sockets"] == true;
    for (command, code) in [("true", 0), ("false", 1), ("/nonexistent", 127)] {
        ends_with(&mut run(&[command]), code);
        wait::expect(&format!("after {command} it is given back"), PATIENCE, || !is_open());
        assert!(a.pings("10.0.0.2"), "after {command}");
    }
    // One that goes on without binding is told of, with the way out.
    let mut sleeper = run(&["sh", "-c", "exec sleep 1000"]).spawn().expect("it starts");
    wait::expect("the log tells", PATIENCE, || daemon.log().contains("has not bound them"));
    assert!(daemon.log().contains("xswitch qemu release a --force") && is_open());
    sleeper.kill().expect("it runs");
    sleeper.wait().expect("it ends");
    wait::expect("it is given back", PATIENCE, || !is_open());
    assert!(a.pings("10.0.0.2"));
    // What an operator has opened stays open.
    daemon.ok("PATCH", "ports/a", json!({ "guest_sockets": true }));
    ends_with(&mut run(&["true"]), 0);
    expect_free(&daemon, "a");
    assert!(is_open());
    daemon.finish();
}
