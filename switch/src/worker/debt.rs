//! What the frames of a queue cost the worker, and what a queue may cost it in a turn: deficit round robin (Shreedhar,
//! Varghese 1995).
//!
//! Each queue has a quantum a turn: what a burst of frames costs that are only sent. Some frames are cheap to send and
//! dear to carry: a flood costs a copy for each port. What a queue costs beyond its quantum is its debt. A queue in
//! debt is passed over until later turns have paid it. So what a queue gets of the worker is bounded by what others
//! ask for, whatever its frames are. A flood ends its burst once the quantum is spent, and the rest of the burst waits.
//!
//! Nobody waits for nothing. After a turn in which a single queue had frames, nobody owes anything. If a turn finds
//! only queues in debt, the least debt is paid at once ([`Debt::ease`]).
//!
//! Costs are in units of an eighth of a frame that is sent, some 50 ns. They were measured with a kernel. There, nearly
//! all of a frame's cost is its transmission, which is at the end of the turn and of all queues together. So a clock
//! would charge the wrong queue.

use super::frames::BURST;

/// A frame that is taken, whatever becomes of it.
const TAKEN: u32 = 1;
/// A frame that is sent.
pub(super) const SENT: u32 = 8;
/// A copy that is made, beside its being sent. Each goes to another socket, at a system call of its own. With 200 ports
/// a copy was measured at 1.3–2.3 µs, and a frame of a burst to one port at 0.45 µs.
pub(super) const COPIED: u32 = 16;
/// A frame whose decision was not cached.
const MISSED: u32 = 2;
/// A search for a frame's rule, and masks that are searched for one unit.
const SEARCHED: u64 = 4;
const MASKS: u64 = 4;
/// What a queue may cost in a turn.
#[expect(clippy::cast_possible_truncation, reason = "a constant")]
const QUANTUM: u32 = BURST as u32 * (TAKEN + SENT);

/// What a turn has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Frames.
    pub(super) frames: usize,
    /// Queues that had some.
    sources: usize,
    is_any_passed_over: bool,
}

impl Found {
    /// A queue had so many frames.
    #[inline]
    pub(super) fn took(&mut self, frames: usize) {
        self.frames += frames;
        self.sources += usize::from(frames > 0);
    }

    /// A queue is in debt.
    pub(super) fn passed_over(&mut self) {
        self.is_any_passed_over = true;
    }

    /// Whether all that may have had frames was in debt.
    pub(super) fn is_only_debts(&self) -> bool {
        self.frames == 0 && self.is_any_passed_over
    }

    /// Whether nobody had to wait for another.
    pub(super) fn is_uncontended(&self) -> bool {
        self.sources <= 1 && !self.is_any_passed_over
    }
}

/// What a queue has cost beyond what turns have paid.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debt(u32);

impl Debt {
    /// A turn comes to the queue. Says what it may cost now, 0 if it is passed over. `is_forgiven`: the turn before
    /// found frames at one queue at most.
    #[inline]
    pub(super) fn turn(&mut self, is_forgiven: bool) -> u32 {
        self.0 = if is_forgiven { 0 } else { self.0.saturating_sub(QUANTUM) };
        QUANTUM.saturating_sub(self.0)
    }

    /// The queue has cost so much.
    #[inline]
    pub(super) fn charge(&mut self, cost: u32) {
        self.0 = self.0.saturating_add(cost);
    }

    /// Whether the last turn passed the queue over.
    #[inline]
    pub(super) fn is_passed_over(self) -> bool {
        self.0 >= QUANTUM
    }

    /// So much is paid.
    pub(super) fn ease(&mut self, paid: u32) {
        self.0 = self.0.saturating_sub(paid);
    }

    /// What is to be paid of these debts so that the next turn comes to one that the last turn passed over. `None` if
    /// it passed over none.
    pub(super) fn least_due(debts: impl Iterator<Item = Debt>) -> Option<u32> {
        let due = debts.filter(|debt| debt.is_passed_over()).map(|Debt(debt)| debt.saturating_sub(QUANTUM));
        due.min()
    }
}

/// What it costs to take so many frames.
#[inline]
pub(super) fn cost_of_frames(taken: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "at most the frames of a burst")]
    let taken = taken as u32;
    taken * TAKEN
}

/// What it costs to decide on frames, of which so many were not cached. For so many the rule was searched, under so
/// many masks.
#[inline]
pub(super) fn cost_of_lookups(missed: u32, searched: u64, masks: impl FnOnce() -> usize) -> u32 {
    let cost = missed * MISSED;
    if searched == 0 { cost } else { cost.saturating_add(cost_of_searches(searched, masks())) }
}

#[inline(never)]
fn cost_of_searches(searched: u64, masks: usize) -> u32 {
    u32::try_from(searched * (SEARCHED + masks as u64 / MASKS)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_that_is_only_sent_costs_what_a_turn_pays() {
        let mut debt = Debt::default();
        for _ in 0..10 {
            assert_eq!(debt.turn(false), QUANTUM);
            debt.charge(cost_of_frames(BURST) + BURST as u32 * SENT);
        }
        // Its rules are searched under many masks.
        debt.charge(cost_of_lookups(64, 64, || 1024));
        assert_eq!((debt.turn(false), debt.is_passed_over()), (0, true));
        assert_eq!(debt.turn(true), QUANTUM);
    }

    #[test]
    fn a_turn_is_uncontended_if_one_had_frames_and_none_was_passed_over() {
        let mut found = Found::default();
        found.took(0);
        found.took(64);
        assert!(found.is_uncontended() && !found.is_only_debts());
        let mut two = found;
        two.took(1);
        assert_eq!((two.is_uncontended(), two.frames), (false, 65));
        found.passed_over();
        assert!(!found.is_uncontended() && !found.is_only_debts());
        let mut none = Found::default();
        none.passed_over();
        assert!(none.is_only_debts());
    }

    #[test]
    fn debts_are_paid_turn_by_turn_and_the_least_is_due_if_nobody_else_has_work() {
        let mut debts = [3, 5, 1].map(|quanta| {
            let mut debt = Debt::default();
            debt.charge(quanta * QUANTUM + 7);
            debt
        });
        let budgets = |debts: &mut [Debt; 3]| debts.each_mut().map(|debt| debt.turn(false));
        assert_eq!(budgets(&mut debts), [0, 0, QUANTUM - 7]);
        debts[2].charge(QUANTUM - 7);
        assert_eq!(budgets(&mut debts), [0, 0, QUANTUM]);
        let due = Debt::least_due(debts.iter().copied()).unwrap();
        debts.iter_mut().for_each(|debt| debt.ease(due));
        assert_eq!(budgets(&mut debts), [QUANTUM, 0, QUANTUM]);
        assert_eq!(Debt::least_due([Debt::default()].into_iter()), None);
        debts[0].charge(u32::MAX);
        debts[0].charge(u32::MAX);
        assert_eq!(debts[0].turn(false), 0);
    }
}
