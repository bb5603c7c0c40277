//! What control tells: ports, counters, frames, traces.

mod audit;
mod info;
mod stats;
mod trace;

pub(super) use self::audit::{audit, frames};
pub(super) use self::info::{BoundQueues, info, infos, infos_of};
pub(super) use self::stats::{stats, workers};
pub(super) use self::trace::trace;
