//! Storm control: how many copies the floods of a port may cost.
//!
//! A flood passes if the port has a token left. Then it takes a token for each copy, also those that are still to come.
//! So a flood that is dropped costs next to nothing: its receivers are not looked for. Over any interval the copies are
//! at most rate × interval + one second's worth + those of one flood for each worker.
//!
//! Time is handed in, as for meters.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::meter::{Bucket, Unit};
use crate::model::MAX_PORTS;

/// Tokens that a flood can take in advance: one for each port. The bucket has them beside those of its burst.
const ADVANCE: u64 = Unit::Frame.cost_of_all(MAX_PORTS, 0);

/// The storm control of a port. Any number of workers ask it.
#[derive(Debug)]
pub struct StormControl {
    bucket: Bucket,
    is_on: AtomicBool,
}

impl Default for StormControl {
    /// None: all floods pass.
    fn default() -> Self {
        Self::new(0, 0)
    }
}

/// A burst is one second's worth.
const fn burst(rate: u32) -> u64 {
    ADVANCE + Unit::Frame.burst(rate)
}

impl StormControl {
    /// So many copies a second from nanosecond `now` on, with one second's worth at once. 0: as many as there are.
    pub fn new(rate: u32, now: u64) -> Self {
        Self { bucket: Bucket::new(rate, burst(rate), now), is_on: AtomicBool::new(rate > 0) }
    }

    /// Changes the rate at `now`.
    pub fn configure(&self, rate: u32, now: u64) {
        self.bucket.configure(rate, burst(rate), now);
        self.is_on.store(rate > 0, Relaxed);
    }

    /// Whether copies are bounded.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Whether a flood passes at `now`. If it does, [`StormControl::flooded`] is to follow.
    #[inline]
    pub fn lets_flood(&self, now: u64) -> bool {
        !self.is_on.load(Relaxed) || self.bucket.level(now) >= ADVANCE + Unit::Frame.cost(0)
    }

    /// A flood made so many copies, fewer than [`MAX_PORTS`].
    #[inline]
    pub fn flooded(&self, copies: usize, now: u64) {
        if self.is_on.load(Relaxed) {
            // It fails only if floods of several workers have taken more in advance than there is.
            let _ = self.bucket.take(Unit::Frame.cost_of_all(copies, 0), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Copies of floods that pass, one tried each `step` nanoseconds up to `end`.
    fn copies(storm: &StormControl, each: usize, step: u64, end: u64) -> u64 {
        let passes = |now: u64| {
            let passes = storm.lets_flood(now);
            if passes {
                storm.flooded(each, now);
            }
            passes
        };
        (0..end / step).filter(|n| passes(n * step)).count() as u64 * each as u64
    }

    #[test]
    fn none_means_all_floods_pass_and_the_rate_changes_under_way() {
        let storm = StormControl::default();
        assert_eq!(copies(&storm, 1000, 1000, SECOND), 1_000_000_000);
        storm.configure(1000, SECOND);
        assert!(!storm.lets_flood(SECOND) && storm.lets_flood(SECOND + SECOND / 1000));
        storm.configure(0, SECOND);
        assert!(storm.lets_flood(SECOND));
    }

    #[test]
    fn what_is_below_the_rate_is_never_dropped() {
        let storm = StormControl::new(10_000, 0);
        assert_eq!(copies(&storm, 10, SECOND / 1000, 100 * SECOND), 1_000_000);
    }

    proptest! {
        #[test]
        fn copies_are_within_rate_and_burst(
            rate in 1_u32..1_000_000, each in 1..MAX_PORTS, step in 1000_u64..10_000_000, steps in 1_u64..2000
        ) {
            let storm = StormControl::new(rate, 0);
            let end = step * steps;
            let most = u128::from(rate) * u128::from(end) / u128::from(SECOND) + u128::from(rate) + each as u128;
            prop_assert!(u128::from(copies(&storm, each, step, end)) <= most);
        }
    }
}
