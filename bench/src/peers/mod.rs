//! Peers: Open vSwitch and DPDK's testpmd on AF_XDP sockets, as Debian packages them, private to the bench.
//!
//! `scripts/peers.sh` unpacks them into a temporary directory ([`Peers`]). Nothing is installed.
//!
//! A peer starts in a network namespace, on existing netdevs. It is a guard: when it is dropped, its processes end, and
//! the netdevs have no XDP program. A process is also killed when the thread that started it ends.
//!
//! Both open their sockets by libxdp, which attaches one program without its dispatcher here. The dispatcher needs a
//! kernel that can replace functions of programs, costs a call a packet, and pins into `/sys/fs/bpf`. Without it a peer
//! is at its best, and the same everywhere.

pub mod ovs;
pub mod testpmd;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ::tests::{NetNs, guest, wait};
use anyhow::{Context, anyhow, bail, ensure};
use tempfile::TempDir;

pub use ovs::Ovs;
pub use testpmd::Testpmd;

/// Longest time that a peer takes to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Mode of a program in the driver: `XDP_ATTACHED_DRV` of `linux/if_link.h`.
const XDP_ATTACHED_DRV: u64 = 1;

/// The unpacked peers, in the cache. What they write goes to a temporary directory, so this must outlive what runs
/// from it.
#[derive(Debug)]
pub struct Peers {
    root: PathBuf,
    scratch: TempDir,
    versions: Vec<(String, String)>,
}

impl Peers {
    /// Downloads and unpacks them into the cache, if they are not there yet: some seconds, and 100 MB. It needs root,
    /// Debian and its mirror.
    pub fn unpack() -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/peers.sh");
        let done = Command::new(&script).stdin(Stdio::null()).output();
        let done = done.with_context(|| format!("running {}", script.display()))?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.success(),
            "no peers: scripts/peers.sh ended with {}; it needs Debian 12, root, and apt sources that can be reached:\n{said}",
            done.status
        );
        let scratch = tempfile::Builder::new().prefix("xswitch-peers-").tempdir().context("a temporary directory")?;
        let versions = versions(&std::fs::read_to_string(guest::cached("peers/versions")).context("versions")?);
        Ok(Self { root: guest::cached("peers/root"), scratch, versions })
    }

    /// Version of an unpacked package.
    fn version(&self, package: &str) -> &str {
        self.versions.iter().find(|(name, _)| name == package).map_or("unknown", |(_, version)| version)
    }

    /// A path in the unpacked packages.
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Directory of the unpacked libraries.
    fn libraries(&self) -> PathBuf {
        self.path(&format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
    }

    /// A directory of its own for what a peer writes.
    fn run_dir(&self, label: &str) -> anyhow::Result<TempDir> {
        let dir = tempfile::Builder::new().prefix(label).tempdir_in(self.scratch.path());
        dir.context("a directory for what a peer writes")
    }

    /// Lets `command` find the unpacked libraries and the programs of libxdp.
    fn with_libraries(&self, command: &mut Command) {
        let libraries = self.libraries();
        let objects = libraries.join("bpf");
        if objects.exists() {
            command.env("LIBXDP_OBJECT_PATH", objects);
        }
        // Some packages still name /lib, which need not be a link to /usr/lib here.
        let other = self.path(&format!("lib/{}-linux-gnu", std::env::consts::ARCH));
        command.env("LD_LIBRARY_PATH", format!("{}:{}", libraries.display(), other.display()));
        command.env("LIBXDP_SKIP_DISPATCHER", "1");
        // A directory that is no bpffs, so that nothing is pinned in the machine's.
        command.env("LIBXDP_BPFFS", self.scratch.path());
    }
}

/// The lines `package: version`.
fn versions(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| line.split_once(": ").map(|(name, version)| (name.to_owned(), version.to_owned()));
    text.lines().filter_map(pair).collect()
}

/// A process that ends with its guard.
#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    fn spawn(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child })
    }

    /// Its exit status, if it has ended.
    fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| self.name)
    }

    /// Waits for its end after it was told to end. Kills it if it does not.
    fn ended(&mut self) -> anyhow::Result<()> {
        let Some(status) = wait::until(PATIENCE, || self.status().transpose()) else {
            self.child.kill()?;
            self.child.wait()?;
            bail!("{} did not end within {PATIENCE:?} and was killed", self.name)
        };
        let status = status?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both are harmless for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the netdevs have no XDP program. Sockets are torn down after the process has ended.
fn await_no_xdp(ns: &NetNs, ports: &[String]) -> anyhow::Result<()> {
    let free = || !ports.iter().any(|port| xdp_mode(ns, port) != 0);
    ensure!(wait::until(PATIENCE, || free().then_some(())).is_some(), "XDP programs are left on {}", ports.join(", "));
    Ok(())
}

/// Mode in which the netdev `ifname` runs an XDP program, by the kernel's number. 0 if there is none.
fn xdp_mode(ns: &NetNs, ifname: &str) -> u64 {
    let links = ns.links();
    let link = links.iter().find(|link| link["ifname"] == ifname);
    link.and_then(|link| link["xdp"]["mode"].as_u64()).unwrap_or(0)
}

/// Whether the netdev `ifname` runs an XDP program in its driver, before there is an `sk_buff`.
fn has_native_xdp(ns: &NetNs, ifname: &str) -> bool {
    xdp_mode(ns, ifname) == XDP_ATTACHED_DRV
}

/// Fails unless all netdevs exist.
fn expect_netdevs(ns: &NetNs, ports: &[&str]) -> anyhow::Result<()> {
    match ports.iter().find(|port| ns.find_ifindex(port).is_none()) {
        None => Ok(()),
        Some(port) => bail!("no netdev {port} in {}", ns.name()),
    }
}

/// An error with the end of a log.
fn with_log(error: anyhow::Error, log: &str) -> anyhow::Error {
    anyhow!("{error:#}\nlog:\n{}", tail(log))
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_found_by_package() {
        let versions = super::versions("openvswitch-switch: 3.1.0-2\nlibbpf1: 1:1.1.2-0\n\n");
        let expected = [("openvswitch-switch", "3.1.0-2"), ("libbpf1", "1:1.1.2-0")];
        assert_eq!(versions, expected.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }

    #[test]
    fn a_long_log_is_cut_to_its_end() {
        let log: Vec<_> = (0..50).map(|line| line.to_string()).collect();
        assert_eq!(super::tail(&log.join("\n")), log[20..].join("\n"));
        assert_eq!(super::tail("a\nb"), "a\nb");
    }
}
