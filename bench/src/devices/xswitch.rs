//! xswitch: its daemon, with the lab's veths as ports of kind `phy`. These have all features of guests' ports, and
//! leave the veths as the lab made them. MAC learning and all counters are on. Ports are guests' only where these have
//! packet memory of their own, because NICs never have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tests::{Daemon, Options, wait};

use super::{Device, Running};
use crate::cpu;
use crate::lab::Lab;
use crate::rules::RuleSet;

/// Changes in one request to the API.
const CHANGES: usize = 8192;
/// Longest time that the daemon takes to bring its ports up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Far above any packet rate. The meter is asked, and never refuses.
const METER_PPS: u64 = 100_000_000;

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Xswitch {
    /// Ports.
    pub ports: usize,
    /// Threads that move packets. The first is on the device's CPU. A second one shares the generator's CPU with the
    /// generator and its softirq work, since there are only two CPUs.
    pub workers: usize,
    /// Traffic rules, if any.
    pub rules: Option<RuleSet>,
    /// Whether each port's frames go through a meter of their own.
    pub meters: bool,
    /// Whether it never sleeps.
    pub busy: bool,
    /// Microseconds that it looks for work before it sleeps. `None` is the daemon's default.
    pub spin_us: Option<u32>,
    /// MAC addresses that a port may have.
    pub macs: u32,
    /// Whether each port is a guest's with packet memory of its own, so that frames are copied on both ways.
    pub own_umems: bool,
    /// Whether flows go on in the kernel.
    pub flow_table: bool,
}

impl Default for Xswitch {
    fn default() -> Self {
        Self {
            ports: 2,
            workers: 1,
            rules: None,
            meters: false,
            busy: false,
            spin_us: None,
            macs: 4096,
            own_umems: false,
            flow_table: false,
        }
    }
}

impl Device for Xswitch {
    fn name(&self) -> String {
        let mut name = "xswitch".to_owned();
        if self.workers > 1 {
            name += &format!(", {} workers", self.workers);
        }
        if self.ports > 2 {
            name += &format!(", {} ports", self.ports);
        }
        if let Some(RuleSet { rules, .. }) = self.rules {
            name += &format!(", {rules} rules");
        }
        if self.meters {
            name += ", meters";
        }
        if self.busy {
            name += ", polling";
        }
        if self.own_umems {
            name += ", ports' own memory";
        }
        if self.flow_table {
            name += ", flow table";
        }
        if let Some(us) = self.spin_us {
            name += &match us % 1000 {
                0 => format!(", awake for {} ms", us / 1000),
                _ => format!(", awake for {us} µs"),
            };
        }
        name
    }

    fn kind(&self) -> &'static str {
        "xswitch"
    }

    fn ports(&self) -> usize {
        self.ports
    }

    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let cpus: Vec<usize> = [cpu, cpu::GENERATOR].into_iter().cycle().take(self.workers).collect();
        let poll = if self.busy { "busy" } else { "adaptive" };
        let spin = self.spin_us.map_or_else(String::new, |us| format!("spin_us = {us}\nspin_max_us = 0\n"));
        let shared = if self.own_umems { "shared_queues = 0\n" } else { "" };
        let flows = if self.flow_table { "flow_offload = \"auto\"\n" } else { "" };
        let config = format!(
            "{shared}{flows}cpus = {cpus:?}\npoll = \"{poll}\"\n{spin}[metrics]\nlisten = \"\"\n[spp]\nlisten = \"\""
        );
        let daemon =
            Daemon::within(Arc::clone(&lab.switch), &Options { workers: self.workers, frames: 65_536, config });
        let mut running = Switching { daemon, ports: self.ports };
        for (number, ifname) in lab.port_names().iter().enumerate() {
            let mut port = json!({ "name": ifname, "ifname": ifname, "vport": number, "fdb_limit": self.macs });
            port["kind"] = json!(if self.own_umems { "guest" } else { "phy" });
            if self.own_umems {
                let guest = if number == 0 { &lab.near } else { &lab.far };
                port["netns"] = json!(guest.name());
                port["guest_ifname"] = json!(format!("g{number}"));
                port["mac_check"] = json!(false);
            }
            running.call("POST", "ports", &port)?;
        }
        if self.meters {
            for number in 0..self.ports {
                let id = 1000 + number;
                let meter = json!({ "id": id, "rate": METER_PPS, "type": "pps" });
                running.call("POST", "meters", &meter)?;
                running.call("PUT", &format!("meter-bindings/{number}/from"), &json!({ "meter": id }))?;
            }
        }
        if let Some(rules) = self.rules {
            running.set_rules(&rules)?;
        }
        Ok(Box::new(running))
    }

    fn version(&self) -> Option<(String, String)> {
        Some(("xswitch".to_owned(), env!("CARGO_PKG_VERSION").to_owned()))
    }
}

#[derive(Debug)]
struct Switching {
    daemon: Daemon,
    ports: usize,
}

impl Switching {
    fn call(&self, method: &str, target: &str, body: &Value) -> anyhow::Result<Value> {
        let (status, answer) = self.daemon.call(method, target, body);
        ensure!((200..300).contains(&status), "{method} {target}: {status} {answer}");
        Ok(answer)
    }
}

impl Running for Switching {
    fn pids(&self) -> Vec<i32> {
        vec![self.daemon.pid()]
    }

    fn restart(&mut self) -> anyhow::Result<Option<f64>> {
        self.daemon.stop();
        let start = Instant::now();
        self.daemon.launch();
        let ready = || {
            let ports = self.daemon.get("ports");
            let ports = ports.as_array().map(Vec::as_slice).unwrap_or_default();
            ports.len() == self.ports && ports.iter().all(|port| port["state"] == "up")
        };
        wait::expect("all ports are up again", PATIENCE, ready);
        Ok(Some(start.elapsed().as_secs_f64()))
    }

    fn set_rules(&mut self, rules: &RuleSet) -> anyhow::Result<()> {
        self.call("POST", "rules/batch", &json!(["clear"]))?;
        let changes: Vec<Value> = rules
            .keys()
            .map(|key| {
                let dip = std::net::Ipv4Addr::from_bits(key.dst_ip).to_string();
                let mut fields = json!({ "dip": dip, "ipprotocol": 17 });
                if key.src_port_mask > 0 {
                    fields["sl4port"] = json!(format!("0/{:#x}", key.src_port_mask));
                }
                json!({ "write": { "key_index": key.number, "key": fields, "action": { "vid": "normal" } } })
            })
            .collect();
        changes.chunks(CHANGES).try_for_each(|part| self.call("POST", "rules/batch", &json!(part)).map(drop))
    }
}
