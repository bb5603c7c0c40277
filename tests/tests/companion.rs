//! The companion of QEMU with a double of QEMU: who gets sockets, what becomes of them, and what a restart does.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::qemu_double::{self, Double, NOBODY};
use tests::{Daemon, shell, wait};

const PATIENCE: Duration = Duration::from_secs(10);
/// CAP_IPC_LOCK, which a guest keeps where the limit of locked memory can't be raised.
const IPC_LOCK: u64 = 1 << 14;

/// Adds a port whose guest's end stays in the daemon's namespace.
fn port(daemon: &Daemon, name: &str) -> Value {
    daemon.ok("POST", "ports", json!({ "name": name, "kind": "guest" }))
}

/// `xswitch qemu run` with these words, as far as QEMU's program.
fn run(daemon: &Daemon, words: &str) -> Command {
    let mut command = daemon.cli_command();
    command.args(["qemu", "run"]).args(words.split_whitespace()).arg("--").arg(qemu_double::binary());
    command
}

fn start(daemon: &Daemon, port: &str, ip: &str) -> Double {
    let mut command = run(daemon, &format!("{port} --user nobody"));
    command.args(["-guest", &format!("ip={ip}")]);
    let mut double = Double::spawn(command);
    double.wait_ready();
    double
}

fn guest(daemon: &Daemon, port: &str) -> Value {
    daemon.get(&format!("ports/{port}"))["guest"].clone()
}

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
    assert_eq!(a.pid(), guest(&daemon, "a")["pid"].as_i64().expect("a process") as i32);
    wait::expect("it is seen to be bound", PATIENCE, || guest(&daemon, "a")["bound_since"].is_u64());
    let shown = guest(&daemon, "a");
    assert_eq!((shown["uid"].as_u64(), shown["sockets"][0]["bound"].as_bool()), (Some(NOBODY.into()), Some(true)));
    assert_eq!(shown["sockets"][0]["xsk"]["rx_dropped"], 0, "{shown}");
    assert_eq!(a.ask_json("nics")[0]["mac"], mac.as_str());
    let text = shell::text(&daemon.cli("port show a"));
    assert!(text.contains(&format!("process {}", a.pid())) && text.contains("bound since 2"), "{text}");
    drop((a, b));
    daemon.finish();
}
