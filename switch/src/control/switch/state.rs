//! What a switch tells of its state: counters, workers, frames, traces, netdevs.

use super::Switch;
use crate::Error;
use crate::control::ports::LivePort;
use crate::control::report;
use crate::model::*;

/// A finding about the netdevs of a live port, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevFinding {
    /// Port name.
    pub port: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Switch {
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
    pub fn check_netdevs(&self) -> Vec<NetdevFinding> {
        let findings = |port: &LivePort| {
            let name = port.spec.name.clone();
            let problems = port.attachment.problems(port.spec.mtu.unwrap_or(DEFAULT_MTU)).into_iter();
            problems.map(move |message| NetdevFinding { port: name.clone(), message }).collect::<Vec<_>>()
        };
        self.lock().ports.iter().flat_map(findings).collect()
    }
}
