//! Frames that other workers have for queues of this one.

use super::egress::{Egress, Transit};
use super::frames::BURST;
use super::turn::Turn;

/// The rings from other workers.
#[derive(Debug)]
pub(super) struct Inboxes(Vec<rtrb::Consumer<Transit>>);

impl Inboxes {
    pub(super) fn new(rings: Vec<rtrb::Consumer<Transit>>) -> Self {
        Self(rings)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(rtrb::Consumer::is_empty)
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(rtrb::Consumer::slots).sum()
    }

    /// Sends up to a burst of each ring. Returns how many frames.
    pub(super) fn send_on(&mut self, turn: &Turn<'_>, egress: &mut Egress) -> usize {
        let mut taken = 0;
        for inbox in &mut self.0 {
            for _ in 0..BURST {
                let Ok(transit) = inbox.pop() else { break };
                taken += 1;
                egress.take_over(transit, turn);
            }
        }
        taken
    }
}
