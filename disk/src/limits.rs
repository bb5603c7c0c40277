//! Limits on what a guest does: operations and bytes a second, read and write apart.
//!
//! A bucket has one number: the time at which it is full again. An operation moves that time on by what it costs. It
//! may begin while the bucket is not empty, which is while that time is less than a burst away. So an operation that
//! is greater than the burst is let through and paid for afterwards. Over any time, no more than rate and burst pass,
//! and one operation.
//!
//! All queues of a disk share the buckets, without a lock. Limits may be changed at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Units of time in a nanosecond. So rates of many bytes a nanosecond are met within 1 %.
const FINE: u64 = 16;
/// Units of time in a second.
const SECOND: u64 = 1_000_000_000 * FINE;

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Operations or bytes a second. 0 is no limit.
    pub per_second: u64,
    /// Operations or bytes that may come at once after a pause. 0 is what comes in a tenth of a second.
    pub burst: u64,
}

/// The limits of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// Operations.
    pub operations: Rate,
    /// Bytes.
    pub bytes: Rate,
}

/// All limits of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSpec {
    /// Of what the guest reads.
    pub read: Direction,
    /// Of what the guest writes, discards and zeroes. The last two have operations, and no bytes. Flushes are not
    /// counted.
    pub write: Direction,
}

/// A bucket.
#[derive(Debug, Default)]
struct Bucket {
    /// Time at which it is full, since some beginning.
    full_at: AtomicU64,
    /// Units a second. 0 is no limit.
    rate: AtomicU64,
    /// Time in which an empty bucket becomes full.
    span: AtomicU64,
}

/// `units` at `rate` a second take so long.
fn time_of(units: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(units) * u128::from(SECOND) / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

impl Bucket {
    fn set(&self, rate: Rate) {
        let burst = if rate.burst > 0 { rate.burst } else { (rate.per_second / 10).max(1) };
        self.span.store(time_of(burst, rate.per_second).max(1), Ordering::Relaxed);
        self.rate.store(rate.per_second, Ordering::Relaxed);
        // What was taken by the old rate is forgiven.
        self.full_at.store(0, Ordering::Relaxed);
    }

    /// How long it is empty from `now` on. 0 if it is not.
    fn empty_for(&self, now: u64) -> u64 {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let full_in = self.full_at.load(Ordering::Relaxed).saturating_sub(now);
        let span = self.span.load(Ordering::Relaxed);
        if full_in < span { 0 } else { full_in - span + 1 }
    }

    fn take(&self, now: u64, units: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let cost = time_of(units, rate);
        let paid = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid);
    }
}

/// The buckets of a disk.
#[derive(Debug, Default)]
pub struct Limits {
    /// Operations and bytes, read and write.
    buckets: [[Bucket; 2]; 2],
}

impl Limits {
    /// Limits of that kind, with full buckets.
    pub fn new(spec: &LimitSpec) -> Self {
        let limits = Self::default();
        limits.set(spec);
        limits
    }

    /// Changes all limits. Buckets are full again.
    pub fn set(&self, spec: &LimitSpec) {
        for (buckets, direction) in self.buckets.iter().zip([spec.read, spec.write]) {
            buckets[0].set(direction.operations);
            buckets[1].set(direction.bytes);
        }
    }

    /// Takes an operation of so many bytes out of the buckets. If they are empty, takes nothing, and tells for how long
    /// they are. `now` is a time since some beginning, in nanoseconds.
    ///
    /// # Errors
    /// The operation has to wait so long at least.
    pub fn take(&self, is_write: bool, bytes: u64, now: u64) -> Result<(), Duration> {
        let now = now.saturating_mul(FINE);
        let [operations, volume] = &self.buckets[usize::from(is_write)];
        let empty = operations.empty_for(now).max(volume.empty_for(now));
        if empty > 0 {
            return Err(Duration::from_nanos(empty.div_ceil(FINE)));
        }
        operations.take(now, 1);
        volume.take(now, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(operations: Rate, bytes: Rate) -> LimitSpec {
        LimitSpec { read: Direction { operations, bytes }, write: Direction::default() }
    }

    proptest! {
        #[test]
        fn no_more_than_rate_and_burst_and_one_operation_pass(
            rate in 1_u64..10_000_000_000,
            burst in 1_u64..100_000_000,
            sizes in prop::collection::vec((1_u64..4 << 20, 0_u64..10_000_000), 1..200),
        ) {
            let limits = Limits::new(&spec(Rate::default(), Rate { per_second: rate, burst }));
            let (mut now, mut passed, mut greatest) = (0, 0, 0);
            for (bytes, pause) in sizes {
                now += pause;
                if limits.take(false, bytes, now).is_ok() {
                    passed += bytes;
                    greatest = greatest.max(bytes);
                }
                let most = u128::from(rate) * u128::from(now) / 1_000_000_000 + u128::from(burst + greatest);
                // Costs are rounded down to a sixteenth of a nanosecond each.
                prop_assert!(u128::from(passed) <= most + most / 50 + 200, "{passed} of {most}");
            }
        }

        #[test]
        fn who_waits_as_long_as_it_is_told_gets_through(
            rate in 1_u64..1_000_000,
            sizes in prop::collection::vec(1_u64..1 << 20, 1..50),
        ) {
            let limits = Limits::new(&spec(Rate { per_second: rate, burst: 1 }, Rate { per_second: rate * 4096, burst: 0 }));
            let mut now = 0;
            for bytes in sizes {
                if let Err(wait) = limits.take(false, bytes, now) {
                    now += u64::try_from(wait.as_nanos()).unwrap();
                    prop_assert_eq!(limits.take(false, bytes, now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn the_rate_is_reached_exactly() {
        let limits = Limits::new(&spec(Rate { per_second: 300_000, burst: 1 }, Rate::default()));
        let (mut now, mut passed) = (0, 0_u32);
        while now < 1_000_000_000 {
            match limits.take(false, 4096, now) {
                Ok(()) => passed += 1,
                Err(wait) => now += u64::try_from(wait.as_nanos()).unwrap(),
            }
        }
        assert!((299_000..=300_010).contains(&passed), "{passed} in a second");
    }

    #[test]
    fn directions_are_apart_and_limits_change_at_once() {
        let once = Rate { per_second: 1, burst: 1 };
        let limits = Limits::new(&spec(once, Rate::default()));
        assert_eq!(limits.take(false, 1, 0), Ok(()));
        assert!(limits.take(false, 1, 0).is_err());
        assert_eq!(limits.take(true, 1, 0), Ok(()), "writes have no limit");
        limits.set(&LimitSpec::default());
        assert_eq!(limits.take(false, 1 << 40, 0), Ok(()));
    }
}
