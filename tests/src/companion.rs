//! Ports with guests' ends, and QEMU doubles that the companion starts there.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::handover::Client;
use crate::qemu_double::{self, Double};
use crate::{Daemon, Mac, shell, wait};

/// Longest time that the daemon takes to notice something.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Adds a port whose guest's end stays in the daemon's namespace.
pub fn port(daemon: &Daemon, name: &str) -> Value {
    daemon.ok("POST", "ports", json!({ "name": name, "kind": "guest" }))
}

/// Address of the guest at a port.
pub fn mac(daemon: &Daemon, name: &str) -> Mac {
    let port = daemon.get(&format!("ports/{name}"));
    port["spec"]["mac"].as_str().and_then(|mac| mac.parse().ok()).unwrap_or_else(|| panic!("no address in {port}"))
}

/// A command `xswitch qemu run` with these words, up to QEMU's program.
pub fn run(daemon: &Daemon, words: &str) -> Command {
    let mut command = daemon.cli_command();
    command.args(["qemu", "run"]).args(words.split_whitespace()).arg("--").arg(qemu_double::binary());
    command
}

/// Starts a double at a port, as an ordinary user.
pub fn start(daemon: &Daemon, port: &str, ip: &str) -> Double {
    let mut command = run(daemon, &format!("{port} --user nobody"));
    command.args(["-guest", &format!("ip={ip}")]);
    let mut double = Double::spawn(command);
    double.wait_ready();
    double
}

/// The holder of a port's sockets. Null if nobody has them.
pub fn guest(daemon: &Daemon, port: &str) -> Value {
    daemon.get(&format!("ports/{port}"))["guest"].clone()
}

/// The same, once the daemon has seen that the sockets are bound.
pub fn bound(daemon: &Daemon, port: &str) -> Value {
    wait::expect(&format!("the sockets of {port} are bound"), PATIENCE, || guest(daemon, port)["bound_since"].is_u64());
    guest(daemon, port)
}

/// Waits until nobody has the sockets of a port.
pub fn expect_free(daemon: &Daemon, port: &str) {
    wait::expect(&format!("{port} is free"), PATIENCE, || guest(daemon, port).is_null());
}

/// Packets by outcome at the program on a port's guest's end, over all queues: given to a socket, dropped without a
/// socket, dropped because the socket was not bound.
pub fn outcomes(daemon: &Daemon, port: &str) -> [u64; 3] {
    let shown = daemon.get(&format!("ports/{port}"));
    let queues = shown["info"]["guest_end"]["queues"].as_array().unwrap_or_else(|| panic!("no open end: {shown}"));
    ["redirect", "drop_no_socket", "drop_unbound"]
        .map(|name| queues.iter().map(|queue| queue[name].as_u64().expect("a number")).sum())
}

/// A connection to the hand-over socket.
pub fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.path("run/fds.sock"))
}

/// A request for a port's sockets.
pub fn request(port: &str) -> Value {
    json!({ "request": "sockets", "port": port })
}

/// Lets all users reach the daemon's sockets. Returns a directory that they may write to.
pub fn open_to_all(daemon: &Daemon) -> PathBuf {
    let set = |path: &PathBuf, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("it is ours");
    };
    let all = daemon.path("all");
    std::fs::create_dir_all(&all).expect("a directory");
    set(&all, 0o777);
    set(&daemon.path("."), 0o755);
    set(&daemon.path("run"), 0o755);
    all
}

/// Runs a command that must end with that exit code. Returns both its outputs.
pub fn ends_with(command: &mut Command, code: i32) -> String {
    let ended: Output = shell::output(command.stdin(std::process::Stdio::null()));
    let text = shell::text(&ended);
    assert_eq!(ended.status.code(), Some(code), "{command:?}: {text}");
    text
}

/// A double under a restart policy. A drop ends both, because a killed supervisor leaves its guest alone.
#[derive(Debug)]
pub struct Supervised(pub Double);

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.end();
    }
}
