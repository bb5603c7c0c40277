//! What workers see: an immutable picture of the whole switch, replaced as one.
//!
//! Control builds a [`View`] beside the one in use and swaps it in; each worker picks the new one up between two bursts and
//! says so by its epoch. When every worker has, nothing of the old picture is used any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::component::{Components, Set};
use crate::capture::Tap;
use crate::counters::{PortShard, QueueCounters, WorkerCounters};
use crate::engine::PortNo;
use crate::engine::fdb::Fdb;
use crate::engine::snapshot::Snapshot;
use crate::engine::tables::PortMeters;
use crate::io::umem::{Frame, Umem};

/// Frames that wait in front of a worker, from packet sockets, at most.
const INJECT_BACKLOG: usize = 1024;

/// A port as all workers share it.
#[derive(Debug)]
pub struct PortShared {
    /// Number.
    pub no: PortNo,
    /// Tells a port from a later one of the same number.
    pub generation: u32,
    /// Name.
    pub name: String,
    /// Whether it is a port of the bridge; else it is for components.
    pub bridged: bool,
    /// MTU in bytes, as components see to it.
    pub mtu: AtomicU32,
    /// Counters, one shard per worker.
    pub shards: Box<[PortShard]>,
    /// Queues, in order.
    pub queues: Box<[QueueShared]>,
}

/// A queue as all workers share it.
#[derive(Debug)]
pub struct QueueShared {
    worker: AtomicUsize,
    /// Its counters, written by that worker.
    pub counters: QueueCounters,
}

impl QueueShared {
    /// A queue of that worker.
    pub fn new(worker: usize) -> Self {
        Self { worker: AtomicUsize::new(worker), counters: QueueCounters::default() }
    }

    /// Worker that has its socket.
    pub fn worker(&self) -> usize {
        self.worker.load(Ordering::Relaxed)
    }

    /// Says which worker is to have its socket. Workers learn it from the next view with an epoch of ports of its own.
    pub fn assign(&self, worker: usize) {
        self.worker.store(worker, Ordering::Relaxed);
    }
}

/// The picture. Its parts are shared between views, so that one with another rule is made in no time.
#[derive(Clone, Debug)]
pub struct View {
    /// Policy of ports and bridge, rules and redirects; carries the epoch.
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
    /// Taps by port number; empty as a whole when nobody captures.
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

/// A frame that came in by another way than the port's socket.
#[derive(Debug)]
pub struct Injected {
    /// The frame.
    pub frame: Frame,
    /// Port that it came in from.
    pub port: Arc<PortShared>,
}

/// What is known of one worker by everybody.
#[derive(Debug)]
pub struct WorkerShared {
    /// Epoch of the view that it works by.
    pub seen: AtomicU64,
    /// Number of the set of components that it works by.
    pub components_seen: AtomicU64,
    /// Whether there is a command for it.
    pub attention: AtomicBool,
    /// Whether it sleeps, or is about to.
    asleep: AtomicBool,
    /// Wakes it.
    pub event: EventFd,
    /// Counters of its own.
    pub counters: WorkerCounters,
    /// Drops at ports that were gone when the frame arrived.
    pub orphans: PortShard,
    /// Frames from packet sockets.
    pub injected: ArrayQueue<Injected>,
}

impl WorkerShared {
    /// A worker that has seen nothing yet.
    pub fn new() -> Result<Self, nix::Error> {
        Ok(Self {
            seen: AtomicU64::new(0),
            components_seen: AtomicU64::new(0),
            attention: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            event: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            counters: WorkerCounters::default(),
            orphans: PortShard::default(),
            injected: ArrayQueue::new(INJECT_BACKLOG),
        })
    }

    /// Wakes the worker if it sleeps. What it is to find must have been put before.
    #[inline]
    pub fn wake(&self) {
        // Pairs with `prepare_sleep`: of "I put something" and "I go to sleep", one side sees the other's.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // The only failure is a full counter, which wakes as well.
            let _ = self.event.write(1);
        }
    }

    /// Says that the worker is going to sleep; it must look for work once more afterwards.
    pub fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Says that the worker is awake.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        let _ = self.event.read();
    }
}

/// What all threads of the data plane share.
#[derive(Debug)]
pub struct Shared {
    /// Frames.
    pub umem: Arc<Umem>,
    /// The picture in use.
    pub view: ArcSwap<View>,
    /// Epoch of that picture.
    pub epoch: AtomicU64,
    /// The components in force.
    pub components: Components,
    /// Seconds since the start, advanced by the clock thread.
    pub now: AtomicU32,
    /// The start, from which meters count their time.
    pub start: Instant,
    /// The workers.
    pub workers: Box<[WorkerShared]>,
}

impl Shared {
    /// Puts a new view in place of the old, wakes the workers, and returns the old one: whoever lets go of it last frees what
    /// it alone has, and that is not to be a worker.
    pub fn publish(&self, view: View) -> Arc<View> {
        let epoch = view.snapshot.epoch;
        let old = self.view.swap(Arc::new(view));
        self.epoch.store(epoch, Ordering::Release);
        self.workers.iter().for_each(WorkerShared::wake);
        old
    }

    /// The oldest epoch that a worker may still work by.
    pub fn oldest_epoch(&self) -> u64 {
        self.workers.iter().map(|worker| worker.seen.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }

    /// Nanoseconds since the start.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Puts a new set of components in place, and waits until every worker goes by it: each has finished the turn that it was
    /// in. The old set goes with that, and not by a worker.
    pub fn publish_components(&self, set: Arc<Set>) {
        let old = self.components.publish(set);
        self.workers.iter().for_each(WorkerShared::wake);
        self.wait_for(self.components.epoch(), |worker| &worker.components_seen);
        drop(old);
    }

    /// Waits until no worker works by an older view than the current one.
    pub fn quiesce(&self) {
        self.wait_for(self.epoch.load(Ordering::Acquire), |worker| &worker.seen);
    }

    fn wait_for(&self, epoch: u64, seen: impl Fn(&WorkerShared) -> &AtomicU64) {
        for worker in &self.workers {
            while seen(worker).load(Ordering::Acquire) < epoch {
                worker.wake();
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    }
}
