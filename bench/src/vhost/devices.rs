//! Switches between two guests' vhost-user sockets.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::json;
use tempfile::TempDir;
use tests::{Daemon, NetNs, Options};

use crate::peers::{Ovs, Peers, Testpmd};
use crate::{cpu, names};

/// A description of something that forwards between two guests.
pub trait Device: Debug {
    /// Name and set-up, as the report shows it.
    fn name(&self) -> String;

    /// Short name of its kind, for choosing devices.
    fn kind(&self) -> &'static str;

    /// Starts it, with its thread on the device's CPU.
    ///
    /// # Errors
    /// It can't run here.
    fn start<'a>(&'a self, ns: &'a Arc<NetNs>) -> anyhow::Result<Box<dyn Running + 'a>>;

    /// Program and version, as the report shows them.
    fn version(&self) -> Option<(String, String)>;
}

/// A running device. It ends when it is dropped.
pub trait Running: Debug {
    /// Its processes.
    fn pids(&self) -> Vec<i32>;

    /// Sockets of the guests. The device makes them.
    fn sockets(&self) -> [PathBuf; 2];
}

/// xswitch: one worker, MAC learning, all counters.
#[derive(Clone, Copy, Debug)]
pub struct Xswitch;

impl Device for Xswitch {
    fn name(&self) -> String {
        names::XSWITCH.to_owned()
    }

    fn kind(&self) -> &'static str {
        "xswitch"
    }

    fn start<'a>(&'a self, ns: &'a Arc<NetNs>) -> anyhow::Result<Box<dyn Running + 'a>> {
        let config = format!("cpus = [{}]\n[metrics]\nlisten = \"\"\n[spp]\nlisten = \"\"", cpu::DEVICE);
        let daemon = Daemon::within(Arc::clone(ns), &Options { workers: 1, frames: 65_536, config });
        for number in 0..2 {
            let socket = daemon.path(&format!("guest{number}"));
            let port = json!({ "name": format!("vhost{number}"), "kind": "vhost", "vhost": { "socket": socket } });
            let (status, answer) = daemon.call("POST", "ports", &port);
            ensure!((200..300).contains(&status), "a port: {status} {answer}");
        }
        Ok(Box::new(Switching(daemon)))
    }

    fn version(&self) -> Option<(String, String)> {
        Some(("xswitch".to_owned(), env!("CARGO_PKG_VERSION").to_owned()))
    }
}

#[derive(Debug)]
struct Switching(Daemon);

impl Running for Switching {
    fn pids(&self) -> Vec<i32> {
        vec![self.0.pid()]
    }

    fn sockets(&self) -> [PathBuf; 2] {
        ["guest0", "guest1"].map(|name| self.0.path(name))
    }
}

/// Open vSwitch with its userspace datapath on DPDK's vhost ports, normal learning. It polls.
#[derive(Clone, Debug)]
pub struct OpenVswitch(pub Arc<Peers>);

impl Device for OpenVswitch {
    fn name(&self) -> String {
        names::OVS_DPDK.to_owned()
    }

    fn kind(&self) -> &'static str {
        "ovs"
    }

    fn start<'a>(&'a self, ns: &'a Arc<NetNs>) -> anyhow::Result<Box<dyn Running + 'a>> {
        Ok(Box::new(Ovs::start_vhost(&self.0, ns, 2, cpu::DEVICE).context("Open vSwitch with DPDK")?))
    }

    fn version(&self) -> Option<(String, String)> {
        Some(("Open vSwitch".to_owned(), Ovs::version(&self.0)))
    }
}

impl Running for Ovs<'_> {
    fn pids(&self) -> Vec<i32> {
        vec![self.pid().cast_signed()]
    }

    fn sockets(&self) -> [PathBuf; 2] {
        [0, 1].map(|port| self.socket(port))
    }
}

/// DPDK's testpmd in its `io` mode, which looks at nothing. It polls.
#[derive(Clone, Debug)]
pub struct DpdkTestpmd(pub Arc<Peers>);

impl Device for DpdkTestpmd {
    fn name(&self) -> String {
        names::TESTPMD_VHOST.to_owned()
    }

    fn kind(&self) -> &'static str {
        "testpmd"
    }

    fn start<'a>(&'a self, ns: &'a Arc<NetNs>) -> anyhow::Result<Box<dyn Running + 'a>> {
        let dir = tempfile::tempdir().context("a directory for sockets")?;
        let [a, b] = ["guest0", "guest1"].map(|name| dir.path().join(name));
        let testpmd = Testpmd::start_vhost(&self.0, ns, [&a, &b], cpu::GENERATOR, cpu::DEVICE);
        Ok(Box::new(Forwarding { testpmd: testpmd.context("testpmd")?, dir }))
    }

    fn version(&self) -> Option<(String, String)> {
        Some(("DPDK testpmd".to_owned(), Testpmd::version(&self.0)))
    }
}

#[derive(Debug)]
struct Forwarding<'a> {
    testpmd: Testpmd<'a>,
    dir: TempDir,
}

impl Running for Forwarding<'_> {
    fn pids(&self) -> Vec<i32> {
        vec![self.testpmd.pid().cast_signed()]
    }

    fn sockets(&self) -> [PathBuf; 2] {
        ["guest0", "guest1"].map(|name| self.dir.path().join(name))
    }
}
