//! DPDK's testpmd between two netdevs by `net_af_xdp`, or between two guests by `net_vhost`.
//!
//! It has no look-ups (`--forward-mode=io`): each packet goes to the other port unchanged. One logical core forwards
//! and polls all the time. The kernel's busy polling for it (64 packets) is at its default. The main core sleeps.
//! Memory is ordinary pages, because huge ones would have to be taken from the machine.
//!
//! DPDK refuses drivers in a directory that anybody can write to, such as `/tmp/…`. So drivers are named without a path
//! and found by `LD_LIBRARY_PATH`.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ::tests::{NetNs, wait};
use anyhow::{Context, anyhow, ensure};
use tempfile::TempDir;

use super::{PATIENCE, Peers, Process, await_no_xdp, expect_netdevs, has_native_xdp, with_log};

/// Drivers that it opens at run time.
const DRIVERS: [&str; 3] = ["librte_mempool_ring.so.", "librte_net_af_xdp.so.", "librte_net_vhost.so."];
/// Packet buffers, 2 KiB each, for rings of 2,048 in each direction of two ports, and for caches.
const BUFFERS: u32 = 16_384;
/// All of its memory in MiB.
const MEMORY: u32 = 160;
/// It prints this when it forwards.
const READY: &str = "Press enter to exit";
/// Attempts to start it. The kernel may still hold queues of another device.
const STARTS: u32 = 5;

/// A running testpmd.
#[derive(Debug)]
pub struct Testpmd<'a> {
    process: Process,
    ns: &'a NetNs,
    netdevs: Vec<String>,
    arguments: Vec<String>,
    dir: TempDir,
}

impl<'a> Testpmd<'a> {
    /// Starts one that forwards between two netdevs in `ns` on CPU `cpu`. Its main thread, which sleeps, is on
    /// `main_cpu`. Returns when it forwards.
    pub fn start(
        peers: &'a Peers,
        ns: &'a NetNs,
        ports: [&str; 2],
        main_cpu: usize,
        cpu: usize,
    ) -> anyhow::Result<Self> {
        expect_netdevs(ns, &ports)?;
        let mut attempt = 1;
        loop {
            let devices =
                ports.map(|port| format!("net_af_xdp{{}},iface={port},start_queue=0,queue_count=1,force_copy=1"));
            match Self::try_start(peers, ns, ports.map(str::to_owned).to_vec(), devices, main_cpu, cpu) {
                Err(_) if attempt < STARTS => attempt += 1,
                done => return done,
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Starts one that forwards between the guests at two sockets, which it makes.
    pub fn start_vhost(
        peers: &'a Peers,
        ns: &'a NetNs,
        sockets: [&Path; 2],
        main_cpu: usize,
        cpu: usize,
    ) -> anyhow::Result<Self> {
        let devices = sockets.map(|socket| format!("net_vhost{{}},iface={},queues=1", socket.display()));
        Self::try_start(peers, ns, Vec::new(), devices, main_cpu, cpu)
    }

    fn try_start(
        peers: &'a Peers,
        ns: &'a NetNs,
        netdevs: Vec<String>,
        devices: [String; 2],
        main_cpu: usize,
        cpu: usize,
    ) -> anyhow::Result<Self> {
        ensure!(main_cpu != cpu, "testpmd needs a CPU for its main thread beside the one that forwards");
        let dir = peers.run_dir("testpmd-")?;
        let log = File::create(dir.path().join("log")).context("the log of testpmd")?;
        let arguments = arguments(&drivers(&peers.libraries())?, &devices, main_cpu, cpu);
        // Output line by line. Otherwise a file would get it only at the end.
        let mut command = ns.command("stdbuf");
        command.arg("-oL").arg(peers.path("usr/bin/dpdk-testpmd")).args(&arguments);
        peers.with_libraries(&mut command);
        command.env("RUNTIME_DIRECTORY", dir.path()).current_dir(dir.path());
        // testpmd ends when its input does.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn("testpmd", &mut command)?;
        let mut this = Self { process, ns, netdevs, arguments, dir };
        let answer = wait::until(PATIENCE, || match this.process.status() {
            Ok(None) => this.log().contains(READY).then_some(Ok(())),
            Ok(Some(status)) => Some(Err(anyhow!("testpmd ended with {status}"))),
            Err(error) => Some(Err(error)),
        });
        let started = answer.unwrap_or_else(|| Err(anyhow!("testpmd is not ready after {PATIENCE:?}")));
        let native = started.and_then(|()| match this.netdevs.iter().find(|port| !has_native_xdp(ns, port)) {
            None => Ok(()),
            Some(port) => Err(anyhow!("testpmd has no native XDP on {port}")),
        });
        native.map_err(|error| with_log(error, &this.log()))?;
        Ok(this)
    }

    /// Version of its package.
    pub fn version(peers: &Peers) -> String {
        peers.version("dpdk-dev").to_owned()
    }

    /// Its command line.
    pub fn settings(&self) -> String {
        format!("dpdk-testpmd {}", self.arguments.join(" "))
    }

    /// Its output.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Ends it, and waits until the netdevs are free.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end()?;
        await_no_xdp(self.ns, &self.netdevs)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        drop(self.process.child.stdin.take());
        self.process.ended().map_err(|error| with_log(error, &self.log()))
    }
}

impl Drop for Testpmd<'_> {
    fn drop(&mut self) {
        // It detaches its programs only if it ends by itself.
        let _ = self.end();
    }
}

/// The unpacked drivers, by file name with the version of DPDK's interface. DPDK finds the machine's own by itself.
pub(super) fn drivers(libraries: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(libraries).with_context(|| format!("{}", libraries.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let version = DRIVERS.iter().find_map(|driver| name.strip_prefix(driver));
        if version.is_some_and(|version| version.parse::<u32>().is_ok()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Its command line. `{}` in a device stands for its number.
fn arguments(drivers: &[String], devices: &[String; 2], main_cpu: usize, cpu: usize) -> Vec<String> {
    let mut line = format!(
        "-l {main_cpu},{cpu} --main-lcore {main_cpu} --no-huge -m {MEMORY} --no-shconf --no-telemetry --no-pci"
    );
    for driver in drivers {
        line.push_str(&format!(" -d {driver}"));
    }
    for (number, device) in devices.iter().enumerate() {
        line.push_str(&format!(" --vdev {}", device.replace("{}", &number.to_string())));
    }
    line.push_str(&format!(
        " -- --forward-mode=io --auto-start --nb-cores=1 --rxq=1 --txq=1 --total-num-mbufs={BUFFERS}"
    ));
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_drivers_that_were_unpacked_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(drivers(dir.path()).expect("an empty directory"), [""; 0]);
        for name in ["librte_net_af_xdp.so.23", "librte_net_af_xdp.so.23.0", "librte_net_af_xdp.so", "librte_eal.so.23"]
        {
            File::create(dir.path().join(name)).expect("a file");
        }
        assert_eq!(drivers(dir.path()).expect("a directory"), ["librte_net_af_xdp.so.23"]);
    }

    #[test]
    fn the_command_line_names_cpus_drivers_and_netdevs() {
        let devices = ["p0", "p1"].map(|port| format!("net_af_xdp{{}},iface={port}"));
        let line = arguments(&["librte_net_af_xdp.so.23".to_owned()], &devices, 0, 1).join(" ");
        assert!(line.starts_with("-l 0,1 --main-lcore 0 "), "{line}");
        assert!(line.contains(" -d librte_net_af_xdp.so.23 "), "{line}");
        assert!(line.contains(" --vdev net_af_xdp1,iface=p1 "), "{line}");
        let (eal, application) = line.split_once(" -- ").expect("options of the application");
        assert!(eal.contains("--vdev net_af_xdp0,iface=p0 "), "{eal}");
        assert!(application.contains("--forward-mode=io"), "{application}");
    }
}
