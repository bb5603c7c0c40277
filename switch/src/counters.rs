//! Counters that workers write and control reads.
//!
//! Each counter has one writing thread, so adding is a plain load and store, and no two workers share a cache line: what
//! belongs to a port is kept once per worker ([`PortShard`]), what belongs to a queue is written by the queue's worker only.
//! A reader gets each number whole, and sums that are exact once no frame is on its way.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Count, DropReason, LookupCounts, PortStats};

/// Packets and bytes with a single writer.
#[derive(Debug, Default)]
pub struct Tally {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Adds to both.
    #[inline]
    pub fn add(&self, packets: u64, bytes: u64) {
        bump(&self.packets, packets);
        bump(&self.bytes, bytes);
    }

    /// What was counted so far.
    pub fn read(&self) -> Count {
        Count { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// What one worker counts of something that others count too.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Shard(pub Tally);

/// Packets and bytes that any worker counts, each by itself.
#[derive(Debug)]
pub struct Shards(Box<[Shard]>);

impl Shards {
    /// Nothing counted by so many workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Shard::default()).collect())
    }

    /// A worker counts a frame of `len` bytes.
    #[inline]
    pub fn count(&self, worker: usize, len: usize) {
        if let Some(Shard(tally)) = self.0.get(worker) {
            tally.add(1, len as u64);
        }
    }

    /// What all of them counted.
    pub fn read(&self) -> Count {
        let mut sum = Count::default();
        self.0.iter().for_each(|Shard(tally)| sum.add(tally.read()));
        sum
    }
}

#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// What one worker counts for one port.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortShard {
    copies: Tally,
    mirrored: Tally,
    redirected: Tally,
    pushes: AtomicU64,
    pops: AtomicU64,
    drops: [Tally; DropReason::COUNT],
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

    /// `copies` further copies of a frame of `len` bytes that came from this port were made for flooding.
    #[inline]
    pub fn flooded(&self, copies: usize, len: usize) {
        self.copies.add(copies as u64, (copies * len) as u64);
    }

    /// A copy of a frame of `len` bytes that came from this port was made by a rule's mirror.
    #[inline]
    pub fn mirrored(&self, len: usize) {
        self.mirrored.add(1, len as u64);
    }

    /// A frame of `len` bytes that was for this port goes elsewhere by a redirect.
    #[inline]
    pub fn redirected(&self, len: usize) {
        self.redirected.add(1, len as u64);
    }

    /// A frame that came from this port grew (or shrank) by a VLAN tag.
    #[inline]
    pub fn retagged(&self, grown_by: i32) {
        match grown_by {
            4 => bump(&self.pushes, 1),
            -4 => bump(&self.pops, 1),
            _ => {}
        }
    }

    /// Adds what was counted here to `stats`.
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

/// What the worker of one queue counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueTally {
    /// Taken from the queue.
    pub rx: Tally,
    /// Given to the queue.
    pub tx: Tally,
}

/// What a worker counts of itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerTally {
    /// Bursts with at least one frame, and the frames in them.
    pub bursts: Tally,
    /// Turns that found nothing, and times that it slept.
    pub idle: Tally,
    lookups: [AtomicU64; 3],
}

impl WorkerTally {
    /// Look-ups of rules so far.
    #[inline]
    pub fn set_lookups(&self, LookupCounts { remembered, cached, searched }: LookupCounts) {
        for (counter, count) in self.lookups.iter().zip([remembered, cached, searched]) {
            counter.store(count, Ordering::Relaxed);
        }
    }

    /// What was counted of look-ups.
    pub fn lookups(&self) -> LookupCounts {
        let [remembered, cached, searched] = self.lookups.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        LookupCounts { remembered, cached, searched }
    }
}
