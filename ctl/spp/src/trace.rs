//! Traces of frames that come in by ports of instances.
//!
//! The data plane traces the way. It can't say why nobody takes a waiting frame, because a stopped instance has no
//! components there. That is added here.

use ctl_service::Error;
use ctl_types::TraceRequest;
use switch::model::*;

use super::compile;
use super::{PortId, PortType, Spp};

impl Spp {
    /// Traces a packet, whether its ingress port belongs to the bridge or to an instance.
    ///
    /// # Errors
    /// Those of [`Service::trace`](ctl_service::Service::trace).
    pub fn trace(&self, request: &TraceRequest) -> Result<TraceReport, Error> {
        let mut report = self.service.trace(request)?;
        if !report.ends.iter().any(|end| end.fate == TraceFate::Waiting) {
            return Ok(report);
        }
        let named: Vec<_> = self.ports().into_iter().collect();
        let spp_name = |at: &EndPort| match at {
            EndPort::Port { name, queue } => {
                let (port, _) = named.iter().find(|(_, own)| own == name)?;
                Some(PortId { queue: *queue, ..*port })
            }
            EndPort::Ring(no) => Some(PortId { kind: PortType::Ring, no: *no, queue: None }),
            EndPort::Null(_) | EndPort::Outside(_) => None,
        };
        let inner = self.lock();
        let waiting = report.ends.iter().filter(|end| end.fate == TraceFate::Waiting);
        let mut whys: Vec<_> = waiting
            .filter_map(|end| end.at.as_ref().and_then(spp_name))
            .flat_map(|port| compile::why_idle(&inner.instances, port))
            .collect();
        whys.dedup();
        // The verdict stays the last step.
        let at = report.steps.len().saturating_sub(1);
        let steps = whys.into_iter().map(|detail| TraceStep { stage: "waiting".to_owned(), detail });
        report.steps.splice(at..at, steps);
        Ok(report)
    }
}
