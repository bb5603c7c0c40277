//! Frames that other workers have for queues of this one.

use super::egress::{Egress, Transit};
use super::frames::BURST;
use super::turn::Turn;

/// Bursts of one ring in a turn at most, so that the worker's own queues get their turns.
const MOST_BURSTS: usize = 16;

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
    pub(super) fn len(&mut self) -> usize {
        let waiting = |inbox: &mut rtrb::Consumer<Transit>| {
            let slots = inbox.slots();
            let frames = inbox.read_chunk(slots).map(|chunk| {
                let (one, other) = chunk.as_slices();
                one.iter().chain(other).filter(|transit| matches!(transit, Transit::Frame { .. })).count()
            });
            frames.unwrap_or(slots)
        };
        self.0.iter_mut().map(waiting).sum()
    }

    /// Sends up to a burst of each ring for each queue of this worker, as another worker has as many that fill it.
    /// Returns how many frames. What these cost was charged where they came in.
    #[inline(always)]
    pub(super) fn send_on(&mut self, turn: &Turn<'_>, egress: &mut Egress) -> usize {
        let most = BURST * egress.queues().len().clamp(1, MOST_BURSTS);
        let mut taken = 0;
        for inbox in &mut self.0 {
            for _ in 0..most {
                let Ok(transit) = inbox.pop() else { break };
                taken += 1;
                egress.take_over(transit, turn);
            }
        }
        taken
    }
}
