//! Meters: which frames are within a rate (policing), and how they are marked (RFC 2698, RFC 4115).
//!
//! A [`Meter`] belongs to no thread. Workers ask it for a frame ([`Meter::color`]) or for a whole burst
//! ([`Meter::take_all`]). Control changes its rates meanwhile ([`Meter::configure`]).
//!
//! Time is handed in, in nanoseconds since any moment that is the same for all callers. A caller whose time is a
//! little behind loses nothing and gains nothing. Frames cost their Ethernet length without FCS. A frame that finds
//! too few tokens takes none.

mod bucket;
mod check;
mod remark;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

pub use bucket::{Bucket, Unit};
pub(crate) use check::check;
pub use remark::remark;

use crate::counters::FrameCounter;
use crate::model::{Count, MeterMode, MeterSpec, MeterType};

/// Bytes of a full frame: MTU 1500 and an Ethernet header. The default burst holds ten.
const FULL_FRAME: u32 = 1514;
/// Least burst in kbit. A frame that fills 4,096 bytes of packet memory fits.
pub const MIN_BURST_KBIT: u32 = 33;
/// No DSCP has this value.
const NO_DSCP: u8 = u8::MAX;

/// What a meter says of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Color {
    /// Within the committed rate.
    #[default]
    Green,
    /// Above the committed rate, but within the peak or excess rate.
    Yellow,
    /// Above all rates: to be dropped.
    Red,
}

impl Color {
    /// Its name.
    pub const fn label(self) -> &'static str {
        match self {
            Color::Green => "green",
            Color::Yellow => "yellow",
            Color::Red => "red",
        }
    }
}

/// What one worker counts for one meter.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    /// Green, yellow, red.
    colors: [FrameCounter; 3],
}

/// A meter.
#[derive(Debug)]
pub struct Meter {
    id: u32,
    unit: Unit,
    mode: MeterMode,
    committed: Bucket,
    /// The peak bucket of RFC 2698, or the excess bucket of RFC 4115. Unused in single mode.
    peak: Bucket,
    color_aware: AtomicBool,
    yellow_dscp: AtomicU8,
    /// By worker.
    shards: Box<[Shard]>,
}

/// The default burst of a rate, in kbit or frames: 100 ms of it, but at least ten full frames.
pub fn default_burst(kind: MeterType, rate: u32) -> u32 {
    match kind {
        MeterType::Kbps => (rate / 10).max((FULL_FRAME * 8 * 10).div_ceil(1000)),
        MeterType::Pps => (rate / 10).max(10),
    }
}

/// The bursts of a configuration, in kbit or frames: committed, and peak or excess. The latter is 0 in single mode.
pub fn bursts(spec: &MeterSpec) -> (u32, u32) {
    let peak_rate = spec.peak_rate.unwrap_or(0);
    let peak = match spec.mode {
        MeterMode::Single => 0,
        _ => spec.peak_burst.unwrap_or_else(|| default_burst(spec.kind, peak_rate)),
    };
    (spec.burst.unwrap_or_else(|| default_burst(spec.kind, spec.rate)), peak)
}

impl Meter {
    /// A meter whose buckets are full at `now`, in nanoseconds. The configuration must have been checked by `check`.
    pub fn new(spec: &MeterSpec, workers: usize, now: u64) -> Self {
        let unit = match spec.kind {
            MeterType::Kbps => Unit::Kbit,
            MeterType::Pps => Unit::Frame,
        };
        let (burst, peak_burst) = bursts(spec);
        Self {
            id: spec.id,
            unit,
            mode: spec.mode,
            committed: Bucket::new(spec.rate, unit.burst(burst), now),
            peak: Bucket::new(spec.peak_rate.unwrap_or(0), unit.burst(peak_burst), now),
            color_aware: AtomicBool::new(spec.color_aware),
            yellow_dscp: AtomicU8::new(spec.yellow_dscp.unwrap_or(NO_DSCP)),
            shards: (0..workers).map(|_| Shard::default()).collect(),
        }
    }

    /// Number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Changes rates, bursts and marking. What it counts, and its mode, stay.
    pub fn configure(&self, spec: &MeterSpec, now: u64) {
        let (burst, peak_burst) = bursts(spec);
        self.committed.configure(spec.rate, self.unit.burst(burst), now);
        self.peak.configure(spec.peak_rate.unwrap_or(0), self.unit.burst(peak_burst), now);
        self.color_aware.store(spec.color_aware, Relaxed);
        self.yellow_dscp.store(spec.yellow_dscp.unwrap_or(NO_DSCP), Relaxed);
    }

    /// The colour of a frame of `len` bytes that earlier meters have given the colour `before`. It is counted for
    /// `worker`.
    #[inline]
    pub fn color(&self, worker: usize, len: usize, before: Color, now: u64) -> Color {
        let cost = self.unit.cost(len);
        let color = self.judge(before, |bucket| bucket.take(cost, now));
        if let Some(shard) = self.shards.get(worker) {
            shard.colors[color as usize].add(1, len as u64);
        }
        color
    }

    /// The colour of a frame. `has_tokens` says whether a bucket has enough tokens, and may take them. It is called
    /// only for buckets whose answer counts.
    #[inline]
    fn judge(&self, before: Color, has_tokens: impl Fn(&Bucket) -> bool) -> Color {
        let before = if self.color_aware.load(Relaxed) { before } else { Color::Green };
        match self.mode {
            MeterMode::Single if has_tokens(&self.committed) => Color::Green,
            MeterMode::Single => Color::Red,
            // RFC 2698, section 3: red leaves both buckets alone, yellow takes from the peak bucket only.
            MeterMode::Rfc2698 => {
                if before == Color::Red || !has_tokens(&self.peak) {
                    Color::Red
                } else if before == Color::Yellow || !has_tokens(&self.committed) {
                    Color::Yellow
                } else {
                    Color::Green
                }
            }
            // RFC 4115, section 2: green takes from the committed bucket only, yellow from the excess bucket only.
            MeterMode::Rfc4115 => {
                if before == Color::Green && has_tokens(&self.committed) {
                    Color::Green
                } else if before != Color::Red && has_tokens(&self.peak) {
                    Color::Yellow
                } else {
                    Color::Red
                }
            }
        }
    }

    /// The colour that a frame would have now. Takes nothing and counts nothing.
    pub fn preview(&self, len: usize, before: Color, now: u64) -> Color {
        let cost = self.unit.cost(len);
        self.judge(before, |bucket| bucket.level(now) >= cost)
    }

    /// Lets a whole burst pass as green if there are tokens for all of it. Else it takes nothing and returns false,
    /// and the caller asks frame by frame.
    #[inline]
    pub fn take_all(&self, worker: usize, frames: usize, bytes: usize, now: u64) -> bool {
        let all = self.mode == MeterMode::Single && self.committed.take(self.unit.cost_of_all(frames, bytes), now);
        if all && let Some(shard) = self.shards.get(worker) {
            shard.colors[Color::Green as usize].add(frames as u64, bytes as u64);
        }
        all
    }

    /// DSCP for yellow packets.
    #[inline]
    pub fn yellow_dscp(&self) -> Option<u8> {
        Some(self.yellow_dscp.load(Relaxed)).filter(|dscp| *dscp != NO_DSCP)
    }

    /// Frames that it has called green, yellow and red.
    pub fn counts(&self) -> [Count; 3] {
        let mut counts = [Count::default(); 3];
        for shard in &self.shards {
            counts.iter_mut().zip(&shard.colors).for_each(|(count, counter)| count.add(counter.read()));
        }
        counts
    }

    /// What could pass as green now, in thousandths of a bit or of a frame.
    pub fn level(&self, now: u64) -> u64 {
        match self.unit {
            Unit::Kbit => self.committed.level(now) / 1000,
            Unit::Frame => self.committed.level(now) / 1_000_000,
        }
    }

    /// Mode.
    pub fn mode(&self) -> MeterMode {
        self.mode
    }
}
