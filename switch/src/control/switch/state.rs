//! What a switch tells of its state: counters, workers, frames, traces, netdevs.

use super::Switch;
use crate::Error;
use crate::control::flaps;
use crate::control::ports::LivePort;
use crate::control::report;
use crate::control::resolve::same_station;
use crate::model::*;

/// A finding about a live port, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevFinding {
    /// Port name.
    pub port: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// The finding about a port whose address another one has too.
fn shared_address<'a>(port: &LivePort, mut others: impl Iterator<Item = &'a LivePort>) -> Option<NetdevFinding> {
    let other = others.find(|other| port.spec.shared_mac && same_station(&port.spec, &other.spec))?;
    let (mac, name) = (port.spec.mac?, &other.spec.name);
    let message =
        format!("its address {mac} is that of port `{name}` too: frames go to the one that last sent from it");
    Some(NetdevFinding { port: port.spec.name.clone(), message })
}

/// The finding about an address that is held at a port.
fn flapping_address(held: HeldAddress) -> NetdevFinding {
    let HeldAddress { mac, vlan, port, other } = held;
    let message = format!(
        "{mac} in VLAN {vlan} flaps between this port and `{other}`, and is held here: look for a loop outside of the switch, \
         or for two stations with that address"
    );
    NetdevFinding { port, message }
}

impl Switch {
    /// The flow table in XDP.
    pub fn flow_offload(&self) -> FlowOffloadInfo {
        match self.core.offload() {
            Some(offload) => offload.info(),
            None => FlowOffloadInfo { reason: self.core.no_offload.clone(), ..FlowOffloadInfo::default() },
        }
    }

    /// Flows in it, those with the highest rates first.
    pub fn offloaded_flows(&self) -> Vec<OffloadedFlow> {
        self.core.offload().map(|offload| offload.flows()).unwrap_or_default()
    }

    /// All counters.
    pub fn stats(&self) -> StatsReport {
        report::stats(&self.lock())
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        report::workers(&self.lock())
    }

    /// Says what would happen to `frame` (Ethernet without FCS) from `port`, and why the traffic rule `rule` does
    /// not apply to it, if it does not. The queue matters only for ports of components. Changes nothing.
    ///
    /// # Errors
    /// `NotFound`: there is no such port, or it has no such queue.
    pub fn trace(&self, port: &str, queue: u32, frame: &[u8], rule: Option<u32>) -> Result<TraceReport, Error> {
        report::trace(&self.lock(), port, queue, frame, rule)
    }

    /// Where the frames are. Nobody is stopped for it, so a frame that moves meanwhile is counted where it is seen.
    pub fn frames(&self) -> FramePlaces {
        report::frames(&self.core)
    }

    /// Stops the workers between two bursts, counts the frames, lets them go on.
    pub fn audit(&self) -> FrameAudit {
        report::audit(&self.lock())
    }

    /// Looks at the netdevs of all live ports: offloads that would break checksums, MTU, carrier, foreign programs.
    /// Tells also which ports share an address, and which addresses flap.
    pub fn check_netdevs(&self) -> Vec<NetdevFinding> {
        let findings = |port: &LivePort| {
            let name = port.spec.name.clone();
            let problems = port.attachment.problems(port.spec.mtu.unwrap_or(DEFAULT_MTU)).into_iter();
            problems.map(move |message| NetdevFinding { port: name.clone(), message }).collect::<Vec<_>>()
        };
        let control = self.lock();
        let ports = || control.ports.iter();
        let flapping = flaps::held(&control).into_iter().map(flapping_address);
        let shared = ports().filter_map(|port| shared_address(port, ports()));
        ports().flat_map(findings).chain(shared).chain(flapping).collect()
    }
}
