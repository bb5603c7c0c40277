//! A limit on frames a second.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Time;

/// Any window of this length has at most the allowed number of frames.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// Allows so many frames in any second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RateLimit {
    most: usize,
    /// When the last ones were sent, oldest first; at most `most`.
    sent: VecDeque<Time>,
}

impl RateLimit {
    /// At most `most` frames a second.
    pub(super) fn new(most: usize) -> Self {
        Self { most, sent: VecDeque::with_capacity(most) }
    }

    /// When the next frame may be sent. None: at once.
    pub(super) fn wait(&self, now: Time) -> Option<Time> {
        let oldest = self.sent.front().filter(|_| self.sent.len() >= self.most)?;
        Some(*oldest + WINDOW).filter(|at| *at > now)
    }

    /// Whether a frame may be sent now. If so, it counts as sent.
    pub(super) fn take(&mut self, now: Time) -> bool {
        if self.wait(now).is_some() {
            return false;
        }
        if self.sent.len() >= self.most {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
        true
    }
}
