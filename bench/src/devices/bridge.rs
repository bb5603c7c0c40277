//! The Linux bridge: in the sender's context, as it is by default, or on the device's CPU by threaded NAPI.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tests::{NetNs, shell, wait};

use super::{Device, Running};
use crate::cpu;
use crate::lab::Lab;
use crate::names;

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Bridge {
    /// Whether a kernel thread pinned to the device's CPU receives.
    pub threaded: bool,
    /// Ports.
    pub ports: usize,
}

impl Device for Bridge {
    fn name(&self) -> String {
        let name = if self.threaded { names::BRIDGE_THREADED } else { names::BRIDGE };
        let ports = if self.ports == 2 { String::new() } else { format!(", {} ports", self.ports) };
        format!("{name}{ports}")
    }

    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn ports(&self) -> usize {
        self.ports
    }

    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let ns = &lab.switch;
        ns.sh("ip link add br0 type bridge");
        ns.sh("ip link set br0 up");
        let bridge = Enslaved { ns: Arc::clone(ns) };
        let before = threads();
        for port in lab.port_names() {
            // Live frames reach a veth only while its NAPI is on. GRO turns it on.
            ns.sh(&format!("ethtool -K {port} gro on"));
            ns.sh(&format!("ip link set {port} master br0"));
            if self.threaded {
                let switch_on = format!("echo 1 > /sys/class/net/{port}/threaded");
                shell::run(std::process::Command::new("ip").args(["netns", "exec", ns.name(), "sh", "-c", &switch_on]));
            }
        }
        if self.threaded {
            let ports = self.ports;
            let made = wait::until(Duration::from_secs(2), || {
                let made: Vec<i32> = threads().difference(&before).copied().collect();
                (made.len() >= ports).then_some(made)
            });
            let made = made.context("no thread for the NAPI of each port")?;
            made.into_iter().for_each(|thread| cpu::pin(thread, cpu));
        }
        Ok(Box::new(bridge))
    }
}

/// Kernel threads with the NAPI of a netdev `p…`.
fn threads() -> BTreeSet<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("napi/p")
    })
    .collect()
}

#[derive(Debug)]
struct Enslaved {
    ns: Arc<NetNs>,
}

impl Running for Enslaved {}

impl Drop for Enslaved {
    fn drop(&mut self) {
        let _ = self.ns.command("ip").args(["link", "del", "br0"]).status();
    }
}
