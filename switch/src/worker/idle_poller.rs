//! How long a worker looks for work before it sleeps.
//!
//! A worker that sleeps is woken within tens of microseconds at best. One that polls finds a frame at once, but takes a
//! CPU. So it always polls for a short while (the least), and longer only while that pays.
//!
//! Gaps between frames that outlasted the short while are remembered. Polling pays as long as it costs no more CPU time
//! than the most for each frame that it finds. Then the worker polls for up to twice the longest gap. It learns also
//! from gaps that it slept through, so that it begins again when traffic does.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Gaps that are remembered.
const GAPS: usize = 16;
/// Gaps that must be known before they are trusted.
const FEW: usize = 4;

/// How long one worker polls.
#[derive(Clone, Debug)]
pub(super) struct IdlePoller {
    least: Duration,
    most: Duration,
    /// The last gaps, a ring.
    gaps: [Duration; GAPS],
    /// Gaps that there have been, up to [`GAPS`].
    known: usize,
    /// Where the next one goes.
    at: usize,
    reach: Duration,
}

impl IdlePoller {
    /// It polls for the least always, and for the most at most.
    pub fn new(spin: RangeInclusive<Duration>) -> Self {
        let (least, most) = spin.into_inner();
        Self { least, most, gaps: [Duration::ZERO; GAPS], known: 0, at: 0, reach: least }
    }

    /// How long a worker polls after it had work.
    #[inline]
    pub fn reach(&self) -> Duration {
        self.reach
    }

    /// There was work after `gap` without any.
    #[inline]
    pub fn found(&mut self, gap: Duration) {
        // After a shorter one it would have been awake whatever it learned.
        if gap >= self.least {
            self.learn(gap);
        }
    }

    fn learn(&mut self, gap: Duration) {
        self.gaps[self.at] = gap;
        self.at = (self.at + 1) % GAPS;
        self.known = GAPS.min(self.known + 1);
        let (mut cost, mut hits, mut longest) = (Duration::ZERO, 0, Duration::ZERO);
        for &gap in &self.gaps[..self.known] {
            cost += gap.min(self.most);
            if gap < self.most {
                hits += 1;
                longest = longest.max(gap);
            }
        }
        let pays = self.known >= FEW && cost <= self.most * hits;
        self.reach = if pays { (2 * longest).min(self.most).max(self.least) } else { self.least };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: Duration = us(50);
    const MOST: Duration = us(2000);

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn poller() -> IdlePoller {
        IdlePoller::new(LEAST..=MOST)
    }

    fn after(gaps: impl IntoIterator<Item = u64>) -> IdlePoller {
        let mut poller = poller();
        gaps.into_iter().for_each(|gap| poller.found(us(gap)));
        poller
    }

    /// Gaps of packets that come independently of each other, `mean` µs apart: the same ones every time.
    fn random(mean: f64) -> impl Iterator<Item = u64> {
        let mut state = 1u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = (state >> 11) as f64 / (1u64 << 53) as f64;
            (-mean * (1.0 - share).ln()) as u64
        })
    }

    /// What a gap costs in looking beyond the least.
    fn looked(poller: &IdlePoller, gap: Duration) -> Duration {
        poller.reach().min(gap).saturating_sub(LEAST)
    }

    /// Share of the gaps beyond the least that end while the worker looks, and of the time that it looks, once it has
    /// learned.
    fn shares(gaps: impl Iterator<Item = u64>) -> (f64, f64) {
        let mut poller = poller();
        let (mut awake, mut all, mut spent, mut time) = (0, 0, Duration::ZERO, Duration::ZERO);
        for (place, gap) in gaps.take(20_000).map(us).enumerate() {
            if place >= GAPS {
                if gap >= LEAST {
                    (awake, all) = (awake + u32::from(gap < poller.reach()), all + 1);
                }
                (spent, time) = (spent + looked(&poller, gap), time + gap);
            }
            poller.found(gap);
        }
        (f64::from(awake) / f64::from(all), spent.as_secs_f64() / time.as_secs_f64())
    }

    #[test]
    fn without_experience_it_looks_for_the_least() {
        assert_eq!(poller().reach(), LEAST);
        assert_eq!(after([1000; FEW - 1]).reach(), LEAST);
    }

    #[test]
    fn frames_at_a_steady_pace_find_it_awake() {
        assert_eq!(after([1000; FEW]).reach(), MOST);
        assert_eq!(shares(std::iter::repeat(1900)).0, 1.0);
        let one_in_ten_is_late = [1000; 9].into_iter().chain([5000]).cycle();
        let (awake, _) = shares(one_in_ten_is_late);
        assert!((0.899..0.901).contains(&awake), "all but the late ones: {awake}");
    }

    #[test]
    fn frames_at_random_find_it_awake_but_for_the_longest_gaps() {
        for (mean, at_least) in [(200.0, 0.99), (500.0, 0.95), (1000.0, 0.8)] {
            let (awake, _) = shares(random(mean));
            assert!(awake >= at_least, "{mean}: {awake}");
        }
    }

    #[test]
    fn sparse_frames_cost_next_to_nothing() {
        for mean in [5_000.0, 10_000.0, 100_000.0] {
            let (_, looked) = shares(random(mean));
            assert!(looked < 0.01, "{mean}: {looked}");
        }
        let questions_and_answers = [200, 300_000].into_iter().cycle();
        assert_eq!(shares(questions_and_answers).1, 0.0);
    }

    #[test]
    fn it_looks_only_as_far_as_gaps_are_long() {
        assert_eq!(after([100; GAPS]).reach(), us(200));
        assert_eq!(after([100; GAPS].into_iter().chain([700])).reach(), us(1400));
    }

    #[test]
    fn a_pause_does_not_make_it_forget_but_pauses_do() {
        let mut poller = after([1000; GAPS]);
        poller.found(us(50_000));
        assert_eq!(poller.reach(), MOST);
        let given_up = (0..GAPS).find(|_| {
            poller.found(us(50_000));
            poller.reach() == LEAST
        });
        assert!(given_up.is_some_and(|pauses| pauses < GAPS / 2), "{given_up:?}");
        (0..GAPS).for_each(|_| poller.found(us(1000)));
        assert_eq!(poller.reach(), MOST, "it begins again");
    }

    #[test]
    fn gaps_that_the_least_covers_teach_nothing() {
        let mut poller = after([1000; GAPS]);
        (0..1000).for_each(|_| poller.found(us(10)));
        assert_eq!(poller.reach(), MOST);
    }

    #[test]
    fn a_most_that_is_not_more_than_the_least_turns_it_off() {
        for most in [us(0), us(49), LEAST] {
            let mut poller = IdlePoller::new(LEAST..=most);
            for gap in [10, 50, 60, 1000].repeat(GAPS) {
                poller.found(us(gap));
                assert_eq!(poller.reach(), LEAST);
            }
        }
        let mut sleeper = IdlePoller::new(Duration::ZERO..=Duration::ZERO);
        (0..GAPS).for_each(|_| sleeper.found(us(1)));
        assert_eq!(sleeper.reach(), Duration::ZERO);
    }

    proptest! {
        /// However traffic comes, looking costs at most the most for each frame that came within it, but for what is
        /// remembered.
        #[test]
        fn what_it_costs_is_bounded_by_what_comes(
            gaps in prop::collection::vec(prop_oneof![50u64..400, 50u64..2000, 2000u64..2100, 2000u64..100_000], 0..400),
        ) {
            let mut poller = poller();
            let (mut spent, mut hits) = (Duration::ZERO, 0);
            for gap in gaps.into_iter().map(us) {
                spent += looked(&poller, gap);
                hits += u32::from(gap < MOST);
                poller.found(gap);
            }
            prop_assert!(spent <= MOST * (hits + GAPS as u32), "{spent:?} for {hits}");
        }
    }
}
