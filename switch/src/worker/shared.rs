//! What all threads of the data plane share: the view and the components in force, and a mailbox for each worker.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::ends::Ring;
use super::set::{Components, Set};
use super::view::{PortShared, View};
use crate::counters::{PortShard, WorkerCounters};
use crate::io::umem::{Frame, Umem};
use crate::offload::Offload;

/// Frames from packet sockets that wait in front of a worker, at most.
const INJECT_BACKLOG: usize = 1024;
/// How often control looks whether workers have picked up what was published.
const SEEN_POLL: Duration = Duration::from_micros(50);

/// A frame that came in by another way than the port's socket.
#[derive(Debug)]
pub struct Injected {
    /// The frame.
    pub frame: Frame,
    /// Port that it came in from.
    pub port: Arc<PortShared>,
}

/// What everybody knows of one worker.
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
    fn new() -> Result<Self, Errno> {
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

    /// Wakes the worker if it sleeps. What it is to find must be in place before.
    #[inline]
    pub fn wake(&self) {
        // Pairs with `prepare_sleep`: of "I put something" and "I go to sleep", one side sees the other's.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // The only failure is a full counter, which wakes as well.
            let _ = self.event.write(1);
        }
    }

    /// Says that the worker is going to sleep. It must look for work once more afterwards.
    pub fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
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
    /// The view in force.
    pub view: ArcSwap<View>,
    /// Epoch of that view.
    pub epoch: AtomicU64,
    /// Epoch of the tables of bonds. It rises with each table that is replaced.
    pub bonds_epoch: AtomicU64,
    /// The components in force.
    pub components: Components,
    /// The flow table in XDP, if there is one.
    pub offload: OnceLock<Arc<Offload>>,
    /// Seconds since the start, advanced by the clock thread.
    pub now: AtomicU32,
    /// The start, from which meters count their time.
    pub start: Instant,
    /// The workers.
    pub workers: Box<[WorkerShared]>,
}

impl Shared {
    /// So many workers. They work by `view`, and have no components.
    ///
    /// # Errors
    /// There is no descriptor for a worker's event.
    pub fn new(umem: Arc<Umem>, view: View, workers: usize) -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Self {
            umem,
            epoch: AtomicU64::new(view.snapshot.epoch),
            view: ArcSwap::from_pointee(view),
            bonds_epoch: AtomicU64::new(0),
            components: Components::default(),
            offload: OnceLock::new(),
            now: AtomicU32::new(0),
            start: Instant::now(),
            workers: (0..workers).map(|_| WorkerShared::new()).collect::<Result<_, _>>()?,
        }))
    }

    /// Puts a new view in place of the old, wakes the workers, and returns the old one. Who lets go of it last spends
    /// its time on freeing it, and that must not be a worker.
    pub fn publish(&self, view: View) -> Arc<View> {
        let epoch = view.snapshot.epoch;
        let old = self.view.swap(Arc::new(view));
        self.epoch.store(epoch, Ordering::Release);
        self.workers.iter().for_each(WorkerShared::wake);
        old
    }

    /// Has the workers go by the tables of bonds as they are now.
    pub fn publish_bonds(&self) {
        self.bonds_epoch.fetch_add(1, Ordering::Release);
        self.workers.iter().for_each(WorkerShared::wake);
    }

    /// The oldest epoch that a worker may still work by.
    pub fn oldest_epoch(&self) -> u64 {
        self.workers.iter().map(|worker| worker.seen.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }

    /// Nanoseconds since the start.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "64 bits of nanoseconds last for 584 years")]
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Wakes the worker that takes frames from `ring`, if one does.
    pub fn wake_reader(&self, ring: &Ring) {
        if let Some(worker) = ring.reader().and_then(|reader| self.workers.get(reader)) {
            worker.wake();
        }
    }

    /// Puts a new set of components in place, and waits until every worker goes by it: each has finished the turn that
    /// it was in. The caller lets go of the old set, and no worker does.
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
                std::thread::sleep(SEEN_POLL);
            }
        }
    }
}
