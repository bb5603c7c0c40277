//! Which ports there are, as far as checks of tables ask.

use super::not_found;
use crate::Error;
use crate::engine::PortNo;

/// The ports that there are, live or configured to come back.
pub trait Ports {
    /// Queues of that port; `None` if there is no such port.
    fn queues(&self, no: PortNo) -> Option<u32>;
}

impl<F: Fn(PortNo) -> Option<u32>> Ports for F {
    fn queues(&self, no: PortNo) -> Option<u32> {
        self(no)
    }
}

/// The number of queues of a port that `field` names.
pub(super) fn expect_port(field: &str, no: PortNo, ports: &dyn Ports) -> Result<u32, Error> {
    ports.queues(no).ok_or_else(|| not_found(format!("{field}: there is no vport {no}")))
}
