//! The peers from Debian's packages: Open vSwitch and testpmd, see [`crate::peers`].

use std::sync::Arc;

use anyhow::Context;

use super::{Device, Running};
use crate::lab::Lab;
use crate::peers::{Ovs, Peers, Testpmd, ovs};
use crate::rules::{Key, RuleSet};
use crate::{cpu, names};

/// Open vSwitch: its userspace datapath on AF_XDP ports, normal learning.
#[derive(Clone, Debug)]
pub struct OpenVswitch {
    /// The unpacked programs.
    pub peers: Arc<Peers>,
    /// Rules, if any.
    pub rules: Option<RuleSet>,
}

impl Device for OpenVswitch {
    fn name(&self) -> String {
        match self.rules {
            None => names::OVS.to_owned(),
            Some(RuleSet { rules, .. }) => format!("{}, {rules} rules", names::OVS),
        }
    }

    fn kind(&self) -> &'static str {
        "ovs"
    }

    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let ports = lab.port_names();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        let mut running = Ovs::start(&self.peers, &lab.switch, &ports, cpu)?;
        if let Some(rules) = &self.rules {
            running.set_rules(rules)?;
        }
        Ok(Box::new(running))
    }

    fn version(&self) -> Option<(String, String)> {
        Some(("Open vSwitch".to_owned(), Ovs::version(&self.peers)))
    }
}

impl Running for Ovs<'_> {
    fn pids(&self) -> Vec<i32> {
        vec![self.pid().cast_signed()]
    }

    fn set_rules(&mut self, rules: &RuleSet) -> anyhow::Result<()> {
        self.clear_rules()?;
        let rule =
            |key: Key| ovs::Rule { dst: std::net::Ipv4Addr::from_bits(key.dst_ip), src_port_mask: key.src_port_mask };
        self.add_rules(rules.keys().map(rule)).map(drop)
    }
}

/// DPDK's testpmd in its `io` mode.
#[derive(Clone, Debug)]
pub struct DpdkTestpmd {
    /// The unpacked programs.
    pub peers: Arc<Peers>,
}

impl Device for DpdkTestpmd {
    fn name(&self) -> String {
        names::TESTPMD.to_owned()
    }

    fn kind(&self) -> &'static str {
        "testpmd"
    }

    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let (a, b) = (Lab::port(0), Lab::port(1));
        let running = Testpmd::start(&self.peers, &lab.switch, [&a, &b], cpu::GENERATOR, cpu);
        Ok(Box::new(running.context("testpmd")?))
    }

    fn version(&self) -> Option<(String, String)> {
        Some(("DPDK testpmd".to_owned(), Testpmd::version(&self.peers)))
    }
}

impl Running for Testpmd<'_> {
    fn pids(&self) -> Vec<i32> {
        vec![self.pid().cast_signed()]
    }
}
