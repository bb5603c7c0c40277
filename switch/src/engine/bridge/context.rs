//! What the frames of a burst have in common.

use crate::engine::PortNo;
use crate::engine::fdb::Fdb;
use crate::engine::snapshot::Snapshot;

/// What a decision is made from, beside the frame itself. All frames of a burst share it.
#[derive(Clone, Copy, Debug)]
pub struct BurstContext<'a> {
    /// The policy.
    pub snap: &'a Snapshot,
    /// The FDB, shared with all workers.
    pub fdb: &'a Fdb,
    /// Time in seconds, as the FDB counts them.
    pub now: u32,
    /// The port that the frames came in from.
    pub ingress: PortNo,
    /// Number of the worker that has the frames. Rules count by it.
    pub worker: usize,
}
