//! Open vSwitch with its userspace datapath, and ports of `type=afxdp` or `type=dpdkvhostuser`: a private database and
//! daemon. The latter need the build with DPDK. Its memory is ordinary pages, as testpmd's is.
//!
//! One bridge with `datapath_type=netdev`. Its ports have one receive queue each, in native mode with copies, which is
//! the best that a veth does. One thread (PMD) polls them all the time. The daemon's other threads run where they like.
//!
//! Caches (EMC, SMC) and all else have their defaults, except the size of the MAC table. The kernel's Open vSwitch
//! module is not needed. The bridge's own port is a tap, so `/dev/net/tun` is. A port takes 16,384 frames of packet
//! memory, 32 MiB.
//!
//! Packets pass two tables. Table 0 has a port's meter, if there is one, and goes on to table 1. Table 1 has the rules,
//! and below them normal learning. Decided flows are in the datapath's caches, so the second table costs their packets
//! nothing.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ::tests::{NetNs, shell, wait};
use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::{PATIENCE, Peers, Process, await_no_xdp, expect_netdevs, has_native_xdp, testpmd, with_log};

const BRIDGE: &str = "br0";
/// MAC addresses that a bridge learns. The default is 8,192.
const MACS: u32 = 131_072;
/// Options of a port.
const PORT: &str = "type=afxdp options:n_rxq=1 options:xdp-mode=native";
/// Options of a port for a guest. Open vSwitch makes the socket, named after the port, in its run directory.
const VHOST_PORT: &str = "type=dpdkvhostuser";
/// How DPDK is started. Open vSwitch wants 262,144 packet buffers a port, 600 MB.
const DPDK: &str = "--no-huge --legacy-mem -m 3072 --no-pci --no-telemetry --no-shconf";

/// A rule for UDP over IPv4, by destination address and by bits of the source port that must be 0. Its packets go where
/// they would go without the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Destination address, exact.
    pub dst: Ipv4Addr,
    /// Mask of the source port. 0 allows any port. The lookup tries one mask after the other.
    pub src_port_mask: u16,
}

/// The form that `ovs-ofctl` takes.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table=1,priority=100,udp,nw_dst={}", self.dst)?;
        if self.src_port_mask != 0 {
            write!(f, ",tp_src=0/{:#x}", self.src_port_mask)?;
        }
        write!(f, ",actions=NORMAL")
    }
}

/// A running Open vSwitch.
#[derive(Debug)]
pub struct Ovs<'a> {
    peers: &'a Peers,
    ns: &'a NetNs,
    ports: Vec<String>,
    vhost: bool,
    cpu: usize,
    daemon: Option<Process>,
    database: Option<Process>,
    dir: TempDir,
}

impl<'a> Ovs<'a> {
    /// Starts one with the netdevs `ports` of `ns` in its bridge, polled on CPU `cpu`, one of the first 64. Returns
    /// when all of them are native AF_XDP ports of the datapath.
    pub fn start(peers: &'a Peers, ns: &'a NetNs, ports: &[&str], cpu: usize) -> anyhow::Result<Self> {
        expect_netdevs(ns, ports)?;
        let ports = ports.iter().map(|&port| port.to_owned()).collect();
        Self::start_with(peers, ns, ports, false, cpu)
    }

    /// Starts one with so many ports for guests, which it makes sockets for.
    pub fn start_vhost(peers: &'a Peers, ns: &'a NetNs, ports: usize, cpu: usize) -> anyhow::Result<Self> {
        let ports = (0..ports).map(|number| format!("vhost{number}")).collect();
        Self::start_with(peers, ns, ports, true, cpu)
    }

    fn start_with(
        peers: &'a Peers,
        ns: &'a NetNs,
        ports: Vec<String>,
        vhost: bool,
        cpu: usize,
    ) -> anyhow::Result<Self> {
        ensure!(cpu < 64, "CPU {cpu} is none of the first 64");
        ensure!(Path::new("/dev/net/tun").exists(), "Open vSwitch needs /dev/net/tun for its bridge's own port");
        let dir = peers.run_dir("ovs-")?;
        let mut this = Self { peers, ns, ports, vhost, cpu, daemon: None, database: None, dir };
        this.launch().map_err(|error| with_log(error, &this.log()))?;
        Ok(this)
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let (conf, socket) = (self.path("conf.db"), self.path("db.sock"));
        let schema = self.peers.path("usr/share/openvswitch/vswitch.ovsschema");
        succeed(self.tool("bin/ovsdb-tool").arg("create").arg(&conf).arg(schema))?;
        let mut database = self.server("sbin/ovsdb-server", "database");
        database.arg(format!("--remote=punix:{}", socket.display())).arg(&conf);
        self.database = Some(Process::spawn("ovsdb-server", &mut database)?);
        ensure!(wait::until(PATIENCE, || socket.exists().then_some(())).is_some(), "ovsdb-server does not answer");
        self.vsctl("--no-wait init")?;
        self.vsctl(&format!("--no-wait set Open_vSwitch . {}", self.pmd_mask()))?;
        let program = if self.vhost {
            let mut command = self.vsctl_command();
            command.args(["--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true"]);
            let drivers = testpmd::drivers(&self.peers.libraries())?;
            let drivers: String = drivers.iter().map(|driver| format!(" -d {driver}")).collect();
            succeed(command.arg(format!("other_config:dpdk-extra=\"{DPDK}{drivers}\"")))?;
            "lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
        } else {
            "lib/openvswitch-switch/ovs-vswitchd"
        };
        let mut daemon = self.server(program, "daemon");
        daemon.arg(format!("unix:{}", socket.display()));
        self.daemon = Some(Process::spawn("ovs-vswitchd", &mut daemon)?);
        let bridge = format!("datapath_type=netdev other_config:mac-table-size={MACS}");
        self.vsctl(&format!("add-br {BRIDGE} -- set bridge {BRIDGE} {bridge}"))?;
        self.add_ports()?;
        succeed(&mut self.ofctl("del-flows"))?;
        for flow in ["table=0,priority=0,actions=goto_table:1", "table=1,priority=0,actions=NORMAL"] {
            succeed(self.ofctl("add-flow").arg(flow))?;
        }
        Ok(())
    }

    /// Adds the ports, again if need be: the kernel may still hold queues of another device.
    fn add_ports(&self) -> anyhow::Result<()> {
        if self.vhost {
            return self.ports.iter().try_for_each(|port| {
                self.vsctl(&format!("add-port {BRIDGE} {port} -- set interface {port} {VHOST_PORT}")).map(drop)
            });
        }
        let end = Instant::now() + PATIENCE;
        let mut missing: Vec<&str> = self.ports.iter().map(String::as_str).collect();
        loop {
            let adds = missing.iter().map(|port| format!("add-port {BRIDGE} {port} -- set interface {port} {PORT}"));
            self.vsctl(&adds.collect::<Vec<_>>().join(" -- "))?;
            let shown = self.appctl("daemon", "dpctl/show")?;
            missing.retain(|port| !is_native(&shown, port) || !has_native_xdp(self.ns, port));
            if missing.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "no native AF_XDP on {}:\n{shown}", missing.join(", "));
            let deletes = missing.iter().map(|port| format!("del-port {BRIDGE} {port}"));
            self.vsctl(&deletes.collect::<Vec<_>>().join(" -- "))?;
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Adds rules. Returns the time until all of them were in place.
    pub fn add_rules(&self, rules: impl IntoIterator<Item = Rule>) -> anyhow::Result<Duration> {
        let before = self.rules()?;
        let file = self.path("rules");
        let mut writer = BufWriter::new(File::create(&file).context("a file of rules")?);
        let mut added = 0;
        for rule in rules {
            writeln!(writer, "{rule}")?;
            added += 1;
        }
        writer.into_inner()?;
        let start = Instant::now();
        succeed(self.ofctl("add-flows").arg(&file))?;
        let took = start.elapsed();
        let after = self.rules()?;
        ensure!(after == before + added, "{added} rules were added to {before}, but there are {after}");
        Ok(took)
    }

    /// Number of rules.
    pub fn rules(&self) -> anyhow::Result<u64> {
        let said = succeed(self.ofctl("dump-aggregate").arg("table=1,udp"))?;
        let count = said.split("flow_count=").nth(1).and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok()).with_context(|| format!("no number of flows: {said}"))
    }

    /// Removes all rules.
    pub fn clear_rules(&self) -> anyhow::Result<()> {
        succeed(self.ofctl("del-flows").arg("table=1,udp")).map(drop)
    }

    /// Puts a meter on what every port receives. It drops what is above `kbps` kilobits a second, with a burst of
    /// `burst` kilobits.
    pub fn add_meters(&self, kbps: u32, burst: u32) -> anyhow::Result<()> {
        for (number, port) in (1..).zip(&self.ports) {
            let meter = format!("meter={number},kbps,burst,stats,band=type=drop,rate={kbps},burst_size={burst}");
            succeed(self.ofctl("add-meter").arg(meter))?;
            let flow = format!("table=0,priority=1,in_port={port},actions=meter:{number},goto_table:1");
            succeed(self.ofctl("add-flow").arg(flow))?;
        }
        Ok(())
    }

    /// Version of its package.
    pub fn version(peers: &Peers) -> String {
        peers.version("openvswitch-switch").to_owned()
    }

    /// Its set-up in words.
    pub fn settings(&self) -> String {
        format!(
            "datapath_type=netdev other_config:mac-table-size={MACS}; {}; {}",
            if self.vhost { VHOST_PORT } else { PORT },
            self.pmd_mask()
        )
    }

    /// Counters of the polling thread, for messages and reports: packets by cache, cycles a packet.
    pub fn pmd_stats(&self) -> anyhow::Result<String> {
        self.appctl("daemon", "dpif-netdev/pmd-stats-show")
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Path of a guest's socket.
    pub fn socket(&self, port: usize) -> PathBuf {
        self.path(&self.ports[port])
    }

    /// Process id of the daemon that forwards.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs until it is stopped").child.id()
    }

    /// Ends it, and waits until the netdevs are free.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            // Without this the taps of the bridge and of the datapath stay.
            self.appctl("daemon", "exit --cleanup")?;
            daemon.ended().map_err(|error| with_log(error, &self.log()))?;
            if !self.vhost {
                await_no_xdp(self.ns, &self.ports)?;
            }
        }
        if let Some(mut database) = self.database.take() {
            self.appctl("database", "exit")?;
            database.ended()?;
        }
        Ok(())
    }

    fn pmd_mask(&self) -> String {
        format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << self.cpu)
    }

    /// A path in its directory.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lets `command` find this instance's directories and libraries.
    fn prepare(&self, mut command: Command) -> Command {
        self.peers.with_libraries(&mut command);
        for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(name, self.dir.path());
        }
        command.env("OVS_PKGDATADIR", self.peers.path("usr/share/openvswitch")).stdin(Stdio::null());
        command
    }

    /// A server in the namespace, its control socket and log named after `name`.
    fn server(&self, program: &str, name: &str) -> Command {
        let mut command = self.prepare(self.ns.command(self.peers.path(&format!("usr/{program}"))));
        command.arg(format!("--unixctl={}", self.path(name).display())).arg("-vconsole:off");
        command
            .arg(format!("--log-file={}.log", self.path(name).display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn tool(&self, program: &str) -> Command {
        self.prepare(Command::new(self.peers.path(&format!("usr/{program}"))))
    }

    fn vsctl(&self, words: &str) -> anyhow::Result<String> {
        succeed(self.vsctl_command().args(words.split_whitespace()))
    }

    fn vsctl_command(&self) -> Command {
        let mut command = self.tool("bin/ovs-vsctl");
        command.arg(format!("--db=unix:{}", self.path("db.sock").display()));
        command.arg(format!("--timeout={}", PATIENCE.as_secs()));
        command
    }

    fn appctl(&self, server: &str, words: &str) -> anyhow::Result<String> {
        let mut command = self.tool("bin/ovs-appctl");
        command.arg(format!("--timeout={}", PATIENCE.as_secs())).arg("-t").arg(self.path(server));
        succeed(command.args(words.split_whitespace()))
    }

    fn ofctl(&self, what: &str) -> Command {
        let mut command = self.tool("bin/ovs-ofctl");
        let bridge = format!("unix:{}", self.path(&format!("{BRIDGE}.mgmt")).display());
        command.args(["-O", "OpenFlow13", what]).arg(bridge);
        command
    }
}

impl Drop for Ovs<'_> {
    fn drop(&mut self) {
        // This ends it as far as possible. Processes that still run are killed afterwards.
        let _ = self.end();
    }
}

/// Runs a tool. Returns what it printed, also as part of the error.
fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}\n{}", done.status, shell::text(&done));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Whether the output of `dpctl/show` says that a port is a native AF_XDP one.
fn is_native(shown: &str, port: &str) -> bool {
    let named = format!(": {port} (afxdp: ");
    shown.lines().any(|line| line.contains(&named) && line.contains("xdp-mode-in-use=native"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_lines_for_ofctl() {
        let rule = |src_port_mask| Rule { dst: Ipv4Addr::new(10, 0, 1, 2), src_port_mask }.to_string();
        assert_eq!(rule(0), "table=1,priority=100,udp,nw_dst=10.0.1.2,actions=NORMAL");
        assert_eq!(rule(0x30), "table=1,priority=100,udp,nw_dst=10.0.1.2,tp_src=0/0x30,actions=NORMAL");
    }

    #[test]
    fn a_port_that_fell_back_or_has_another_name_is_not_native() {
        let shown = "netdev@ovs-netdev:\n  port 0: ovs-netdev (tap)\n  port 2: p1 (afxdp: n_rxq=1, use-need-wakeup=true, \
                     xdp-mode=native, xdp-mode-in-use=native)\n  port 3: p2 (afxdp: n_rxq=1, use-need-wakeup=true, \
                     xdp-mode=best-effort, xdp-mode-in-use=generic)\n";
        assert!(is_native(shown, "p1"));
        assert!(!is_native(shown, "p2"));
        assert!(!is_native(shown, "p"));
    }
}
