//! The flow table in XDP: which flows are in it, and what they have counted.
//!
//! A worker samples the frames that it switches ([`Sampler`]). A flow that has many is offered ([`Offload::offer`]). If
//! its decision can be carried out in the kernel, it gets an entry. The entry's packets come to the switch with numbers
//! until the last one has left ([`Offload::left`]). From then on they go on in the kernel, and stay in order.
//!
//! An entry holds in one epoch of the policy, and as long as the FDB entries that it came from are as they were. A
//! thread goes over all entries some times a second, and at once when something has changed. It counts what the kernel
//! has done, keeps senders from ageing out, and ends entries that hold no more or are idle.
//!
//! What the kernel has done counts as if a worker had done it. It has the counters behind those of the workers.

mod plan;
mod sampler;
mod state;
mod thread;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use xdp_prog::{FlowMark, FlowTable, wait_for_programs};

pub use self::plan::Stays;
pub use self::sampler::Sampler;
use self::state::State;
pub use self::thread::OffloadThread;
use crate::engine::PortNo;
use crate::engine::bits::{low_u16, low_u32};
use crate::model::{Count, FlowOffloadInfo, MAX_PORTS};
use crate::worker::view::View;

/// What a port's netdev takes from programs on other netdevs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Nothing.
    #[default]
    None,
    /// Packets of one buffer.
    Short,
    /// Packets of several buffers too.
    Long,
}

/// What of a port has to do with the table.
#[derive(Debug, Default)]
struct Place {
    /// Whether its program follows the table.
    follows: AtomicBool,
    exit: AtomicU8,
}

/// Why entries have ended, and how often.
#[derive(Debug, Default)]
struct Tally {
    installed: AtomicU64,
    refused: AtomicU64,
    ended_by_policy: AtomicU64,
    ended_by_fdb: AtomicU64,
    ended_by_idleness: AtomicU64,
    ended_by_port: AtomicU64,
    stuck: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// Adds to a counter that is written under the lock only.
fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The table, and what is known of its entries.
#[derive(Debug)]
pub struct Offload {
    table: Arc<FlowTable>,
    places: Box<[Place]>,
    /// Where the switch sends what comes to it of a slot's flow: the port, and in the upper half the worker.
    ways: Box<[AtomicU32]>,
    /// Entries whose packets come to the switch still.
    moving: AtomicU32,
    /// Whether there are entries.
    any: AtomicBool,
    /// Whether packets of one are dropped, because they wait for earlier ones.
    hurried: AtomicBool,
    state: Mutex<State>,
    tally: Tally,
    /// Number of workers: the place of the counters of what the kernel does.
    workers: usize,
    bell: (Mutex<bool>, Condvar),
    has_ended: AtomicBool,
}

impl Offload {
    /// Over a table without entries.
    pub fn new(table: Arc<FlowTable>, workers: usize) -> Self {
        let slots = table.slots();
        Self {
            state: Mutex::new(State::new(slots)),
            ways: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            places: (0..MAX_PORTS).map(|_| Place::default()).collect(),
            table,
            moving: AtomicU32::new(0),
            any: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            tally: Tally::default(),
            workers,
            bell: Default::default(),
            has_ended: AtomicBool::new(false),
        }
    }

    /// The table.
    pub fn table(&self) -> &Arc<FlowTable> {
        &self.table
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a port has a program which follows the table, or has none.
    pub fn set_follows(&self, port: PortNo, follows: bool) {
        if let Some(place) = self.places.get(usize::from(port)) {
            place.follows.store(follows, Ordering::Release);
        }
    }

    fn follows(&self, port: PortNo) -> bool {
        self.places.get(usize::from(port)).is_some_and(|place| place.follows.load(Ordering::Acquire))
    }

    /// Says what a port's netdev takes. Entries that it has become too little for end.
    pub fn set_exit(&self, port: PortNo, exit: Exit) {
        let Some(place) = self.places.get(usize::from(port)) else { return };
        if place.exit.swap(exit as u8, Ordering::AcqRel) != exit as u8 {
            self.ring();
        }
    }

    /// What a port's netdev takes.
    pub fn exit(&self, port: PortNo) -> Exit {
        match self.places.get(usize::from(port)).map_or(0, |place| place.exit.load(Ordering::Acquire)) {
            0 => Exit::None,
            1 => Exit::Short,
            _ => Exit::Long,
        }
    }

    /// Has the thread look at the entries now.
    pub fn ring(&self) {
        let (rung, bell) = &self.bell;
        *rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
    }

    /// The FDB has changed: entries may hold no more.
    #[inline]
    pub fn stations_changed(&self) {
        if self.any.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Ends the thread.
    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.ring();
    }

    fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Whether packets come that have numbers.
    #[inline]
    pub fn is_moving(&self) -> bool {
        self.moving.load(Ordering::Relaxed) > 0
    }

    /// The worker that sends what comes to the switch of that flow, or drops it, and the port that it is for.
    pub fn way(&self, slot: usize) -> (usize, PortNo) {
        let way = u64::from(self.ways[slot].load(Ordering::Relaxed));
        (usize::from(low_u16(way >> 16)), low_u16(way))
    }

    /// Says that the packet of that number has left the switch, or was dropped by it.
    pub fn left(&self, mark: FlowMark) {
        self.table.set_done(mark.slot, mark.number);
    }

    /// A hash of the packet's flow, for a [`Sampler`]. `None` if the flow has no key.
    pub fn hash(&self, view: &View, port: PortNo, queue: u32, head: &[u8]) -> Option<u64> {
        Some(self.table.hash(&plan::key_of(view, port, queue, head)?))
    }

    /// Offers the flow of a packet of `len` bytes that came in from a queue of `port`. `head` has its headers. Never
    /// waits.
    #[cold]
    pub fn offer(&self, view: &View, port: PortNo, queue: u32, head: &[u8], len: usize, now: u32) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Some(key) = plan::key_of(view, port, queue, head) else { return };
        if let Ok(plan) = plan::plan(self, view, port, head, len, now) {
            let is_first = state.is_empty();
            self.install(&mut state, view, (port, queue), key, plan, head, len);
            drop(state);
            if is_first {
                self.ring();
            }
        }
    }

    /// Tells whether the flow of a packet can go on in the kernel, or why not.
    pub fn explain(&self, view: &View, port: PortNo, queue: u32, frame: &[u8], now: u32) -> String {
        let planned = match plan::key_of(view, port, queue, frame) {
            Some(_) => plan::plan(self, view, port, frame, frame.len(), now),
            None => Err(Stays::NotPlain),
        };
        match planned {
            Ok(_) => "its flow goes on in the kernel once it has many packets".to_owned(),
            Err(why) => format!("its flow stays with the switch: {}", why.why()),
        }
    }

    /// Has entries of an older policy hold no more, but for those that were [carried over](Self::carry_over). Returns
    /// when no program follows one of them.
    pub fn begin_epoch(&self, view: &View) {
        self.table.begin_epoch(low_u32(view.snapshot.epoch), plan::depth(view));
        if self.note_epoch(view) {
            if let Err(error) = wait_for_programs() {
                tracing::error!(%error, "a few packets may go by the policy before");
            }
            self.ring();
        }
    }

    /// Ends entries that the FDB has changed under. Returns when no program follows one of them.
    pub fn check_stations(&self, view: &View) {
        self.sweep(view, 0);
    }

    /// Counts what the kernel has done up to now.
    pub fn settle(&self) {
        self.count_all(&mut self.lock());
    }

    /// What users see of it, without its flows.
    pub fn info(&self) -> FlowOffloadInfo {
        let mut state = self.lock();
        self.count_all(&mut state);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FlowOffloadInfo {
            on: true,
            reason: None,
            slots: low_u32(self.table.slots() as u64),
            flows: low_u32(state.len() as u64),
            moving: self.moving.load(Ordering::Relaxed),
            installed: load(&self.tally.installed),
            refused: load(&self.tally.refused),
            ended_by_policy: load(&self.tally.ended_by_policy),
            ended_by_fdb: load(&self.tally.ended_by_fdb),
            ended_by_idleness: load(&self.tally.ended_by_idleness),
            ended_by_port: load(&self.tally.ended_by_port),
            stuck: load(&self.tally.stuck),
            count: Count { packets: load(&self.tally.packets), bytes: load(&self.tally.bytes) },
        }
    }
}
