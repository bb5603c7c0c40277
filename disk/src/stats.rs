//! What a disk counts, for each queue.
//!
//! A queue's thread is the only writer, so counting is a load and a store. Anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Classes of latency: four for each power of two nanoseconds.
pub const CLASSES: usize = 160;

/// A number that one thread changes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes from it.
    #[inline]
    pub(crate) fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many operations took how long.
#[derive(Debug)]
pub struct Latencies {
    classes: [Counter; CLASSES],
    /// Nanoseconds of all of them together.
    pub total: Counter,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| Counter::default()), total: Counter::default() }
    }
}

/// The class of a time in nanoseconds.
fn class(nanoseconds: u64) -> usize {
    let exponent = nanoseconds.max(4).ilog2();
    let quarter = nanoseconds.max(4) >> (exponent - 2) & 3;
    let at = u64::from(exponent - 2) * 4 + quarter;
    usize::try_from(at).unwrap_or(CLASSES).min(CLASSES - 1)
}

/// Greatest time of a class in nanoseconds, plus one.
pub fn class_end(class: usize) -> u64 {
    let (exponent, quarter) = (class / 4, class % 4);
    let next = u64::try_from(quarter).unwrap_or_default() + 5;
    next.checked_shl(u32::try_from(exponent).unwrap_or(u32::MAX)).unwrap_or(u64::MAX)
}

impl Latencies {
    #[inline]
    pub(crate) fn count(&self, nanoseconds: u64) {
        self.classes[class(nanoseconds)].add(1);
        self.total.add(nanoseconds);
    }

    /// Number of operations in each class.
    pub fn read(&self) -> [u64; CLASSES] {
        std::array::from_fn(|class| self.classes[class].get())
    }
}

/// Counters of one direction.
#[derive(Debug, Default)]
pub struct DirectionCounters {
    /// Operations that were done.
    pub operations: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// From taking a request to using it, without the wait for limits.
    pub latencies: Latencies,
}

/// Counters of a queue.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// What was read.
    pub read: DirectionCounters,
    /// What was written.
    pub write: DirectionCounters,
    /// Flushes that the guest asked for.
    pub flush: DirectionCounters,
    /// Discards, and bytes of them.
    pub discard: DirectionCounters,
    /// Ranges of zeroes, and bytes of them.
    pub zero: DirectionCounters,
    /// Requests that failed in the store, for lack of space also.
    pub errors: Counter,
    /// Requests that failed because the store is full.
    pub no_space: Counter,
    /// Requests that were refused: out of range, unknown, malformed.
    pub refused: Counter,
    /// Requests that had to wait for limits.
    pub limited: Counter,
    /// Requests whose memory did not fit, so that they were copied.
    pub copied: Counter,
    /// Requests that were in work when an earlier daemon ended, and were done again.
    pub replayed: Counter,
    /// Requests that are taken and not used yet.
    pub in_flight: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_order_and_have_their_times() {
        let mut last = 0;
        for nanoseconds in (0..100_000_u64).chain((17..40).map(|bits| 1 << bits)) {
            let at = class(nanoseconds);
            assert!(at >= last && (at == CLASSES - 1 || nanoseconds < class_end(at)), "{nanoseconds} ns in {at}");
            assert!(at == 0 || nanoseconds >= class_end(at - 1), "{nanoseconds} ns in {at}");
            last = at;
        }
        assert_eq!((class(0), class(u64::MAX)), (0, CLASSES - 1));
    }

    #[test]
    fn counters_go_up_and_down() {
        let counter = Counter::default();
        counter.add(5);
        counter.sub(3);
        assert_eq!(counter.get(), 2);
    }
}
