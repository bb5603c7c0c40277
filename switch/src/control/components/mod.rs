//! Components as control has them: those that run, and the ends that they may have.

mod counters;
mod ends;
mod flows;
mod handles;
mod live;
mod trace;

pub(super) use self::counters::stats_of;
#[cfg(test)]
pub(super) use self::handles::{FromComponents, ToComponents, queues};
#[cfg(test)]
pub(super) use self::live::LiveOutside;
pub(super) use self::live::{Live, compile};
pub(super) use self::trace::trace;
