//! Something that is to be done a few times, at fixed intervals.

use std::time::Duration;

use crate::Time;

/// What is left to do, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repeat {
    left: u32,
    next: Time,
}

impl Repeat {
    /// To be done so many times from now on, instead of what was left.
    pub(crate) fn start(&mut self, now: Time, times: u32) {
        *self = Self { left: times, next: now };
    }

    /// Whether it is to be done now. The next time is `every` later.
    pub(crate) fn due(&mut self, now: Time, every: Duration) -> bool {
        if self.deadline().is_none_or(|next| next > now) {
            return false;
        }
        *self = Self { left: self.left - 1, next: now + every };
        true
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        (self.left > 0).then_some(self.next)
    }
}
