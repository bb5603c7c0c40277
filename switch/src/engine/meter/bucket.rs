//! A token bucket that any number of threads draw from without a lock.
//!
//! Level and time of the last refill are one 128-bit word, which is replaced as one. So a token is given out once,
//! and time becomes tokens once, whatever the interleaving. The level is in parts so small that a nanosecond brings a
//! whole number of them ([`Unit`]). So nothing is rounded and nothing drifts. Over any interval a bucket lets through
//! at most rate × interval + burst.
//!
//! Rate and burst are words of their own, so they can change at any time. The level stays.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use portable_atomic::AtomicU128;

use crate::engine::bits::halves;

/// What is counted. A part is so small that a rate brings `rate` of them a nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Rates in kbit/s: a part is 10⁻⁶ bit.
    Kbit,
    /// Rates in frames/s: a part is 10⁻⁹ frame.
    Frame,
}

impl Unit {
    /// Parts that a frame of `len` bytes costs.
    #[inline]
    pub const fn cost(self, len: usize) -> u64 {
        match self {
            Unit::Kbit => len as u64 * 8_000_000,
            Unit::Frame => 1_000_000_000,
        }
    }

    /// Parts that `frames` frames of `bytes` bytes together cost.
    #[inline]
    pub const fn cost_of_all(self, frames: usize, bytes: usize) -> u64 {
        match self {
            Unit::Kbit => self.cost(bytes),
            Unit::Frame => frames as u64 * 1_000_000_000,
        }
    }

    /// Parts of a burst of that many kbit or frames.
    pub const fn burst(self, burst: u32) -> u64 {
        // A kbit has 1,000 bits of 10⁶ parts each, a frame has 10⁹ parts. The product of 32 bits and either fits in 64.
        burst as u64 * 1_000_000_000
    }
}

/// A token bucket.
#[derive(Debug)]
pub struct Bucket {
    /// Lower half: level in parts. Upper half: nanosecond up to which it was refilled.
    state: AtomicU128,
    /// Parts that a nanosecond brings.
    rate: AtomicU64,
    /// Most parts that it holds.
    burst: AtomicU64,
}

const fn pack(level: u64, at: u64) -> u128 {
    (at as u128) << 64 | level as u128
}

const fn unpack(state: u128) -> (u64, u64) {
    let [at, level] = halves(state);
    (level, at)
}

impl Bucket {
    /// A full bucket at nanosecond `now`.
    pub fn new(rate: u32, burst: u64, now: u64) -> Self {
        Self {
            state: AtomicU128::new(pack(burst, now)),
            rate: AtomicU64::new(u64::from(rate)),
            burst: AtomicU64::new(burst),
        }
    }

    /// The level at `now`, and the time that it holds for. That is never earlier than another thread has seen.
    #[inline]
    fn filled(&self, state: u128, now: u64) -> (u64, u64) {
        let (level, at) = unpack(state);
        let gained = u128::from(now.saturating_sub(at)) * u128::from(self.rate.load(Relaxed));
        let [_, level] = halves((u128::from(level) + gained).min(u128::from(self.burst.load(Relaxed))));
        (level, at.max(now))
    }

    /// Takes `cost` parts at nanosecond `now`, all or nothing.
    #[inline]
    pub fn take(&self, cost: u64, now: u64) -> bool {
        let mut state = self.state.load(Acquire);
        loop {
            let (level, at) = self.filled(state, now);
            let Some(rest) = level.checked_sub(cost) else { return false };
            match self.state.compare_exchange_weak(state, pack(rest, at), AcqRel, Acquire) {
                Ok(_) => return true,
                Err(other) => state = other,
            }
        }
    }

    /// Parts that could be taken at `now`.
    pub fn level(&self, now: u64) -> u64 {
        self.filled(self.state.load(Acquire), now).0
    }

    /// Changes rate and burst at `now`. The level stays, except for what a smaller burst can't hold.
    pub fn configure(&self, rate: u32, burst: u64, now: u64) {
        // Time up to now becomes tokens at the old rate, so that the new rate does not reach back.
        self.take(0, now);
        self.rate.store(u64::from(rate), Relaxed);
        self.burst.store(burst, Relaxed);
    }
}
