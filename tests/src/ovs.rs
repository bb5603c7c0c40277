//! Open vSwitch with its userspace datapath, as a partner of a bond: a private database and daemon in a namespace.
//!
//! Its bridge `br0` has one bond, `bond0`, over netdevs of the namespace, and its own port, a tap of the same name. The
//! tap is persistent and goes with the namespace.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::guest::cached;
use crate::{NetNs, shell, wait};

/// Longest time that it takes to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Open vSwitch. It is killed when it is dropped.
#[derive(Debug)]
pub struct Ovs<'a> {
    ns: &'a NetNs,
    dir: TempDir,
    servers: Vec<Child>,
}

impl<'a> Ovs<'a> {
    /// Starts one with a bond over `members`. `options` are settings of its record, such as `lacp=active`.
    pub fn bond(ns: &'a NetNs, members: &[&str], options: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut ovs = Self { ns, dir, servers: Vec::new() };
        let (database, socket) = (ovs.path("conf.db"), format!("unix:{}", ovs.path("db.sock").display()));
        let schema = cached("peers/root/usr/share/openvswitch/vswitch.ovsschema");
        shell::run(ovs.tool("bin/ovsdb-tool").arg("create").arg(&database).arg(schema));
        ovs.serve("sbin/ovsdb-server", "db", &[database.display().to_string(), format!("--remote=p{socket}")]);
        wait::expect("the database answers", PATIENCE, || ovs.path("db.sock").exists());
        ovs.vsctl("--no-wait init");
        ovs.serve("lib/openvswitch-switch/ovs-vswitchd", "vswitchd", &[socket]);
        let members = members.join(" ");
        ovs.vsctl(&format!(
            "add-br br0 -- set bridge br0 datapath_type=netdev -- add-bond br0 bond0 {members} {options}"
        ));
        ns.sh("ip link set br0 up");
        ovs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command for one of its programs, by its path in `/usr`.
    fn tool(&self, program: &str) -> Command {
        let root = cached("peers/root");
        let mut command = self.ns.command(root.join("usr").join(program));
        let arch = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = ["usr/lib", "lib"].map(|at| root.join(at).join(&arch).display().to_string());
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.dir.path());
        }
        command
    }

    fn serve(&mut self, program: &str, name: &str, arguments: &[String]) {
        let mut command = self.tool(program);
        command.args(arguments).args(["-vconsole:off", "-vsyslog:off"]);
        for (option, ending) in [("--pidfile", "pid"), ("--unixctl", "ctl"), ("--log-file", "log")] {
            command.arg(format!("{option}={}", self.path(&format!("{name}.{ending}")).display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.servers.push(command.spawn().expect("a program of the peers"));
    }

    /// Runs `ovs-vsctl` with a line of words. Returns its output.
    pub fn vsctl(&self, line: &str) -> String {
        let mut command = self.tool("bin/ovs-vsctl");
        command.arg(format!("--db=unix:{}", self.path("db.sock").display())).arg("--timeout=30");
        shell::run(command.args(line.split_whitespace()))
    }

    /// Asks the daemon, such as `lacp/show bond0`. Returns its answer.
    pub fn ask(&self, line: &str) -> String {
        let mut command = self.tool("bin/ovs-appctl");
        command.arg("-t").arg(self.path("vswitchd.ctl"));
        shell::run(command.args(line.split_whitespace()))
    }
}

impl Drop for Ovs<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "log of Open vSwitch:\n{}",
                std::fs::read_to_string(self.path("vswitchd.log")).unwrap_or_default()
            );
        }
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
