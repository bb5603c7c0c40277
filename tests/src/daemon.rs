//! The daemon under test in a namespace of its own, and guests at its ports.
//!
//! A test ends with [`Daemon::finish`], which checks three things. Every packet and every frame is accounted for. The
//! daemon ends cleanly by SIGTERM. No XDP program is left on a netdev of its namespace.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::netns::NetNs;
use crate::packet::Mac;
use crate::raw::RawSocket;
use crate::{http, programs, shell, wait};

/// Longest time that the daemon takes to start, to stop, or to come to rest.
const PATIENCE: Duration = Duration::from_secs(20);

/// Options for starting the daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads.
    pub workers: usize,
    /// Frames of packet memory.
    pub frames: u32,
    /// More lines of its configuration file.
    pub config: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 1, frames: 16_384, config: String::new() }
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    dir: tempfile::TempDir,
    /// Namespace that it runs in.
    pub ns: Arc<NetNs>,
}

impl Daemon {
    /// Starts a daemon with the defaults.
    pub fn start(label: &str) -> Self {
        Self::with(label, &Options::default())
    }

    /// Starts a daemon with options.
    pub fn with(label: &str, options: &Options) -> Self {
        Self::within(Arc::new(NetNs::new(label)), options)
    }

    /// Starts a daemon in an existing namespace.
    pub fn within(ns: Arc<NetNs>, options: &Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Options { workers, frames, config } = options;
        // The whole suite can be run with a flow table: what is seen must be the same.
        let table = std::env::var("XSWITCH_TEST_FLOW_OFFLOAD").ok().filter(|_| !config.contains("flow_offload"));
        let table = table.map(|wish| format!("flow_offload = {wish:?}\n")).unwrap_or_default();
        let mut text = format!("[dataplane]\n{table}workers = {workers}\nframes = {frames}\n{config}\n");
        if !config.contains("[spp.vhost]") {
            // Daemons that run side by side have their own sockets.
            text += &format!("[spp.vhost]\ndirectory = {:?}\n", dir.path());
        }
        std::fs::write(dir.path().join("xswitch.toml"), text).expect("writing the configuration");
        let mut daemon = Self { child: None, dir, ns };
        daemon.launch();
        daemon
    }

    /// A path in its directory. The directory holds `run`, `state`, `xswitch.toml` and `log`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that starts another daemon on its directories.
    pub fn command(&self) -> Command {
        let mut command = self.ns.command(programs::product("xswitchd"));
        command.arg("--config").arg(self.path("xswitch.toml"));
        command.arg("--run-dir").arg(self.path("run")).arg("--state-dir").arg(self.path("state"));
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log file");
        let child =
            self.command().env("RUST_BACKTRACE", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("xswitchd starts"));
        let answers = wait::until(PATIENCE, || {
            if self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()).is_some() {
                panic!("xswitchd ended at once:\n{}", self.log());
            }
            http::over_unix(&self.path("run/api.sock"), "GET", "/api/v1/version", b"").ok()
        });
        assert!(answers.is_some(), "xswitchd does not answer:\n{}", self.log());
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id().cast_signed()
    }

    /// Sends a request to the API. Returns status and JSON.
    pub fn call(&self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = http::over_unix(&self.path("run/api.sock"), method, &format!("/api/v1/{target}"), &body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {target}: {error}\n{}", self.log()));
        let json =
            if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).expect("JSON") };
        (answer.status, json)
    }

    /// A GET that must succeed.
    pub fn get(&self, target: &str) -> Value {
        let (status, answer) = self.call("GET", target, &Value::Null);
        assert_eq!(status, 200, "GET {target}: {answer}");
        answer
    }

    /// A request with a body that must succeed.
    pub fn ok(&self, method: &str, target: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, target, &body);
        assert!((200..300).contains(&status), "{method} {target} {body}: {status} {answer}");
        answer
    }

    /// Runs `xswitch` with a line of words.
    pub fn cli(&self, line: &str) -> Output {
        let mut command = self.ns.command(programs::product("xswitch"));
        shell::output(command.arg("--run-dir").arg(self.path("run")).args(line.split_whitespace()))
    }

    /// A command `xswitch` without its words.
    pub fn cli_command(&self) -> Command {
        let mut command = self.ns.command(programs::product("xswitch"));
        command.arg("--run-dir").arg(self.path("run"));
        command
    }

    /// Adds a guest port with the guest's end in a new namespace. `more` has further fields of the port.
    pub fn guest(&self, name: &str, more: Value) -> Guest {
        let ns = NetNs::new(name);
        let mut spec = json!({ "name": name, "kind": "guest", "netns": ns.name() });
        spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        let port = self.ok("POST", "ports", spec);
        let text = |field: &str| port["spec"][field].as_str().unwrap_or_else(|| panic!("{field} in {port}")).to_owned();
        Guest {
            ifname: text("guest_ifname"),
            mac: text("mac").parse().expect("a MAC address"),
            name: name.to_owned(),
            ns,
        }
    }

    /// Counters of a port.
    pub fn stats(&self, port: &str) -> Value {
        self.get(&format!("stats?port={port}"))["ports"][0].clone()
    }

    /// Packets that a port dropped for a reason.
    pub fn dropped(&self, port: &str, reason: &str) -> u64 {
        self.stats(port)["drops"][reason]["packets"].as_u64().unwrap_or(0)
    }

    /// Waits until a port has dropped exactly that many packets for a reason.
    pub fn expect_dropped(&self, port: &str, reason: &str, packets: u64) {
        wait::expect(&format!("{packets} {reason} at {port}"), PATIENCE, || self.dropped(port, reason) >= packets);
        assert_eq!(self.dropped(port, reason), packets, "{reason} at {port}");
    }

    /// Waits until every packet is sent or dropped, and every frame is in its place.
    pub fn assert_balanced(&self) {
        let mut last = Value::Null;
        let balanced = wait::until(PATIENCE, || {
            let audit = self.get("audit");
            assert_eq!(audit["consistent"], true, "{audit}");
            last = self.get("stats");
            let zero = last["unaccounted_packets"] == 0 && last["unaccounted_bytes"] == 0;
            zero.then_some(())
        });
        assert!(balanced.is_some(), "not balanced: {last}");
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// Ends it by SIGTERM. It must end well.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it can be signalled");
        let ended = wait::until(PATIENCE, || child.try_wait().expect("it can be waited for"));
        let Some(status) = ended else {
            let _ = child.kill();
            panic!("xswitchd does not end:\n{}", self.log());
        };
        assert!(status.success(), "xswitchd ended with {status}:\n{}", self.log());
    }

    /// Ends a test, with its final checks.
    pub fn finish(mut self) {
        self.assert_balanced();
        let ports = self.get("ports");
        let ports = ports.as_array().expect("a list").iter().map(|port| &port["spec"]);
        let ends: Vec<_> =
            ports.filter(|spec| spec["guest_sockets"] == true).map(|spec| spec["guest_ifname"].clone()).collect();
        self.stop();
        // A program stays on guests' ends that are open.
        let open = |link: &Value| link["ifname"].as_str().is_some_and(|name| ends.iter().any(|end| end == name));
        for link in self.ns.links().iter().filter(|link| !open(link)) {
            assert!(link.get("xdp").is_none_or(Value::is_null), "a program is left: {link}");
        }
        assert!(!self.path("run/api.sock").exists(), "the API's socket is left");
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }
}

/// Daemons pin in directories named after their run directories.
const PINS: &str = "/sys/fs/bpf/xswitch";

impl Daemon {
    /// Its directory of pinned links and maps, if it has one.
    pub fn pins(&self) -> Option<PathBuf> {
        let own = self.dir.path().file_name().and_then(|name| name.to_str()).expect("a temporary name");
        let own = own.trim_start_matches('.');
        let entries = std::fs::read_dir(PINS).ok()?;
        entries.flatten().map(|entry| entry.path()).find(|path| path.to_str().is_some_and(|path| path.contains(own)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The end of a daemon leaves guests' ends as they are.
        if let Some(pins) = self.pins() {
            std::fs::remove_dir_all(pins).expect("pins can be removed");
        }
        if std::thread::panicking() {
            eprintln!("log of xswitchd:\n{}", self.log());
        }
    }
}

/// A guest: a namespace with the guest's end of a port.
#[derive(Debug)]
pub struct Guest {
    /// Its namespace.
    pub ns: NetNs,
    /// Its netdev.
    pub ifname: String,
    /// MAC address of its netdev.
    pub mac: Mac,
    /// Name of its port.
    pub name: String,
}

impl Guest {
    /// A packet socket on its netdev.
    pub fn raw(&self) -> RawSocket {
        RawSocket::open(&self.ns, &self.ifname)
    }

    /// Gives it an address such as `10.0.0.1/24`.
    pub fn address(&self, address: &str) {
        self.ns.sh(&format!("ip address add {address} dev {}", self.ifname));
    }

    /// Whether it gets answers to pings.
    pub fn pings(&self, ip: &str) -> bool {
        let mut ping = self.ns.command("ping");
        shell::output(ping.args(["-c", "3", "-i", "0.2", "-W", "2", ip])).status.success()
    }
}
