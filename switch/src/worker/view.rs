//! What workers see of the whole switch: an immutable view, replaced as one.
//!
//! Control builds a [`View`] beside the one in force and swaps it in. Each worker picks the new one up between two
//! bursts, and says so by its epoch. When every worker has, nothing of the old view is in use any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::bond::BondShared;
use crate::capture::Tap;
use crate::counters::{FrameCounter, PortShard, QueueCounters};
use crate::engine::PortNo;
use crate::engine::fdb::Fdb;
use crate::engine::snapshot::Snapshot;
use crate::engine::storm::StormControl;
use crate::engine::tables::PortMeters;
use crate::model::Count;

/// A port as all workers share it.
#[derive(Debug)]
pub struct PortShared {
    /// Number.
    pub no: PortNo,
    /// Tells a port from a later one of the same number.
    pub generation: u32,
    /// Name.
    pub name: String,
    /// Whether it is a port of the bridge. If not, it is for components.
    pub bridged: bool,
    /// MTU in bytes. It holds for what components send.
    pub mtu: AtomicU32,
    /// Nobody is there: no guest of a vhost-user port, no VMM at a tap. Of other ports that is not known.
    pub is_deserted: AtomicBool,
    /// What it may have flooded.
    pub storm: StormControl,
    /// Counters, a shard for each worker, and one for what the kernel does by the flow table.
    pub shards: Box<[PortShard]>,
    /// Queues, in order. A bond has room for queues of members that may come.
    pub queues: Box<[QueueShared]>,
    /// What makes it a bond.
    pub bond: Option<Arc<BondShared>>,
}

/// A queue as all workers share it.
#[derive(Debug)]
pub struct QueueShared {
    worker: AtomicUsize,
    /// Its counters, written by that worker.
    pub counters: QueueCounters,
    /// What came in and went out by the flow table.
    pub kernel: QueueCounters,
}

impl QueueShared {
    /// A queue of that worker.
    pub fn new(worker: usize) -> Self {
        let (counters, kernel) = Default::default();
        Self { worker: AtomicUsize::new(worker), counters, kernel }
    }

    /// Frames received, by worker and kernel.
    pub fn rx(&self) -> Count {
        sum(&self.counters.rx, &self.kernel.rx)
    }

    /// Frames sent, by worker and kernel.
    pub fn tx(&self) -> Count {
        sum(&self.counters.tx, &self.kernel.tx)
    }

    /// Worker that has its socket.
    pub fn worker(&self) -> usize {
        self.worker.load(Ordering::Relaxed)
    }

    /// Says which worker is to have its socket. Workers learn it from the next view in which the ports changed.
    pub fn assign(&self, worker: usize) {
        self.worker.store(worker, Ordering::Relaxed);
    }
}

fn sum(one: &FrameCounter, other: &FrameCounter) -> Count {
    let mut sum = one.read();
    sum.add(other.read());
    sum
}

/// What workers see. Views share their parts, so one with another rule is made in no time.
#[derive(Clone, Debug)]
pub struct View {
    /// Policy of ports and bridge, rules and redirects. It carries the epoch.
    pub snapshot: Snapshot,
    /// Epoch of the last view in which the ports changed.
    pub ports_epoch: u64,
    /// MAC table.
    pub fdb: Arc<Fdb>,
    /// Ports by number.
    pub ports: Arc<Vec<Option<Arc<PortShared>>>>,
    /// Meters of ports.
    pub meters: Arc<PortMeters>,
    /// Whether there are meters at all, so that bursts need a time.
    pub metered: bool,
    /// Taps by port number. It is empty when nobody captures.
    pub taps: Arc<Vec<Vec<Arc<Tap>>>>,
}

impl View {
    /// The port of that number, if there is one.
    #[inline]
    pub fn port(&self, no: PortNo) -> Option<&Arc<PortShared>> {
        self.ports.get(usize::from(no))?.as_ref()
    }

    /// The taps on that port.
    #[inline]
    pub fn taps(&self, no: PortNo) -> &[Arc<Tap>] {
        self.taps.get(usize::from(no)).map_or(&[], Vec::as_slice)
    }
}
