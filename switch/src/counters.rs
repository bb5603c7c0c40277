//! Counters that workers write and control reads.
//!
//! Each counter has one writing thread. So adding is a plain load and store, and workers share no cache line. Each
//! worker has its own counters for a port ([`PortShard`]). Only a queue's worker writes the queue's counters.
//!
//! A reader gets each number whole. Sums are exact once no frame is on its way.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Count, DropReason, LookupCounts, PortStats};

/// A number of frames or queues as reports have it. There are never 2³² of them.
pub(crate) fn as_count(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// Frames and their bytes, with a single writing thread.
#[derive(Debug, Default)]
pub struct FrameCounter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl FrameCounter {
    /// Adds to both.
    #[inline]
    pub fn add(&self, packets: u64, bytes: u64) {
        bump(&self.packets, packets);
        bump(&self.bytes, bytes);
    }

    /// The count so far.
    pub fn read(&self) -> Count {
        Count { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// One worker's counts of something that other workers count too.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Shard(pub FrameCounter);

/// Packets and bytes that all workers count, each in a place of its own.
#[derive(Debug)]
pub struct Shards(Box<[Shard]>);

impl Shards {
    /// Zeroes for that many workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Shard::default()).collect())
    }

    /// Counts a frame of `len` bytes for that worker.
    #[inline]
    pub fn count(&self, worker: usize, len: usize) {
        if let Some(Shard(counter)) = self.0.get(worker) {
            counter.add(1, len as u64);
        }
    }

    /// The sum over all workers.
    pub fn read(&self) -> Count {
        let mut sum = Count::default();
        self.0.iter().for_each(|Shard(counter)| sum.add(counter.read()));
        sum
    }
}

#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// One worker's counters of one port.
#[derive(Debug)]
#[repr(align(128))]
pub struct PortShard {
    copies: FrameCounter,
    mirrored: FrameCounter,
    redirected: FrameCounter,
    pushes: AtomicU64,
    pops: AtomicU64,
    drops: [FrameCounter; DropReason::COUNT],
}

/// Arrays of more than 32 have no default of their own.
impl Default for PortShard {
    fn default() -> Self {
        let (copies, mirrored, redirected, pushes, pops) = Default::default();
        let drops = std::array::from_fn(|_| FrameCounter::default());
        Self { copies, mirrored, redirected, pushes, pops, drops }
    }
}

impl PortShard {
    /// A frame of `len` bytes was dropped.
    #[inline]
    pub fn dropped(&self, reason: DropReason, len: usize) {
        self.drops[reason.index()].add(1, len as u64);
    }

    /// Several frames were dropped.
    pub fn dropped_all(&self, reason: DropReason, count: Count) {
        self.drops[reason.index()].add(count.packets, count.bytes);
    }

    /// A flood made `copies` further copies of what came from this port: a frame, or the segments of one.
    #[inline]
    pub fn flooded(&self, copies: usize, each: Count) {
        let copies = copies as u64;
        self.copies.add(copies * each.packets, copies * each.bytes);
    }

    /// A rule's mirror copied what came from this port.
    #[inline]
    pub fn mirrored(&self, count: Count) {
        self.mirrored.add(count.packets, count.bytes);
    }

    /// A redirect sent elsewhere what was for this port.
    #[inline]
    pub fn redirected(&self, count: Count) {
        self.redirected.add(count.packets, count.bytes);
    }

    /// A frame from this port grew, or shrank, by a VLAN tag.
    #[inline]
    pub fn retagged(&self, grown_by: i32) {
        self.retagged_all(grown_by, 1);
    }

    /// So many frames from this port grew, or shrank, by a VLAN tag.
    #[inline]
    pub fn retagged_all(&self, grown_by: i32, frames: u64) {
        match grown_by {
            4 => bump(&self.pushes, frames),
            -4 => bump(&self.pops, frames),
            _ => {}
        }
    }

    /// Adds these counts to `stats`.
    pub fn add_to(&self, stats: &mut PortStats) {
        stats.flood_copies.add(self.copies.read());
        stats.mirror_copies.add(self.mirrored.read());
        stats.redirected.add(self.redirected.read());
        stats.vlan_pushes += self.pushes.load(Ordering::Relaxed);
        stats.vlan_pops += self.pops.load(Ordering::Relaxed);
        for reason in DropReason::ALL {
            let count = self.drops[reason.index()].read();
            if count.packets > 0 {
                stats.drops.entry(reason.label().to_owned()).or_default().add(count);
            }
        }
    }
}

/// Counters of one queue.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueCounters {
    /// Frames taken from the queue.
    pub rx: FrameCounter,
    /// Frames given to the queue.
    pub tx: FrameCounter,
}

/// A worker's counters of its own work.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    bursts: AtomicU64,
    frames: AtomicU64,
    idle_polls: AtomicU64,
    sleeps: AtomicU64,
    /// Lookups that the flow cache, the exact-match cache and the classifier answered.
    lookups: [AtomicU64; 3],
}

impl WorkerCounters {
    /// A burst of `frames` frames was taken.
    #[inline]
    pub fn took_burst(&self, frames: usize) {
        bump(&self.bursts, 1);
        bump(&self.frames, frames as u64);
    }

    /// A turn found nothing to do.
    #[inline]
    pub fn polled_idle(&self) {
        bump(&self.idle_polls, 1);
    }

    /// The worker slept once.
    pub fn slept(&self) {
        bump(&self.sleeps, 1);
    }

    /// Bursts with at least one frame.
    pub fn bursts(&self) -> u64 {
        self.bursts.load(Ordering::Relaxed)
    }

    /// Frames in those bursts.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Turns that found nothing to do.
    pub fn idle_polls(&self) -> u64 {
        self.idle_polls.load(Ordering::Relaxed)
    }

    /// How often the worker slept.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Ordering::Relaxed)
    }

    /// Sets the rule lookups so far.
    #[inline]
    pub fn set_lookups(&self, LookupCounts { flow_cache, exact_match, classifier }: LookupCounts) {
        for (counter, count) in self.lookups.iter().zip([flow_cache, exact_match, classifier]) {
            counter.store(count, Ordering::Relaxed);
        }
    }

    /// Rule lookups so far.
    pub fn lookups(&self) -> LookupCounts {
        let [flow_cache, exact_match, classifier] =
            self.lookups.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        LookupCounts { flow_cache, exact_match, classifier }
    }
}
