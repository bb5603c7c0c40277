//! How long a worker looks for work before it sleeps.
//!
//! A worker that sleeps is woken within tens of microseconds at best, one that looks finds a frame at once, but takes a CPU. So it
//! always looks for a short while ([`Patience::new`]'s least), and longer only while that pays: the gaps between frames that outlasted
//! the short while are remembered, and as long as they say that looking costs no more CPU time than the most that is allowed
//! for each frame that it finds, the worker looks for up to twice the longest of them. It learns from gaps that it slept through
//! as well, so that it begins again when traffic does.
//!
//! Frames that come like clockwork need no CPU in between: as long as nothing has come in the first part of any gap, the worker
//! dozes through most of that part.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Gaps that are remembered.
const GAPS: usize = 16;
/// Gaps that must be known before they are trusted.
const FEW: usize = 4;
/// How long before the first moment at which a frame may come a doze ends, at least: what a timer may be late by.
const LATE: Duration = Duration::from_micros(150);
/// A doze that is shorter costs more than it saves.
const NAP: Duration = Duration::from_micros(200);

/// What a worker without work does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look again at once.
    Look,
    /// Sleep that long, unless something comes.
    Doze(Duration),
    /// Sleep until something comes.
    Sleep,
}

/// The governor of one worker.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    least: Duration,
    most: Duration,
    /// A ring.
    gaps: [Duration; GAPS],
    /// Gaps that there have been, up to [`GAPS`].
    known: usize,
    /// Where the next one goes.
    at: usize,
    /// Until when after work it dozes, and looks.
    doze: Duration,
    reach: Duration,
}

impl Patience {
    /// Always looks for the least, and never for longer than the most, which counts if it is more.
    pub fn new(spin: RangeInclusive<Duration>) -> Self {
        let (least, most) = spin.into_inner();
        let gaps = [Duration::ZERO; GAPS];
        Self { least, most, gaps, known: 0, at: 0, doze: Duration::ZERO, reach: least }
    }

    /// What to do after `waited` without work.
    #[inline]
    pub fn next(&self, waited: Duration) -> Next {
        if waited < self.least {
            Next::Look
        } else if waited < self.doze {
            Next::Doze(self.doze - waited)
        } else if waited < self.reach {
            Next::Look
        } else {
            Next::Sleep
        }
    }

    /// There was work after `gap` without any.
    #[inline]
    pub fn found(&mut self, gap: Duration) {
        // Whatever it learned, it would have been awake.
        if gap >= self.least {
            self.learn(gap);
        }
    }

    fn learn(&mut self, gap: Duration) {
        self.gaps[self.at] = gap;
        self.at = (self.at + 1) % GAPS;
        self.known = GAPS.min(self.known + 1);
        let gaps = &self.gaps[..self.known];
        let (mut cost, mut hits, mut longest, mut shortest) = (Duration::ZERO, 0, Duration::ZERO, Duration::MAX);
        for &gap in gaps {
            cost += gap.min(self.most);
            shortest = shortest.min(gap);
            if gap < self.most {
                hits += 1;
                longest = longest.max(gap);
            }
        }
        (self.doze, self.reach) = (Duration::ZERO, self.least);
        if self.known >= FEW && hits > 0 && cost <= self.most * hits {
            self.reach = (2 * longest).min(self.most);
            let quiet = shortest.saturating_sub(LATE.max(shortest / 4));
            if quiet >= self.least + NAP {
                self.doze = quiet;
            }
        }
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

    fn patience() -> Patience {
        Patience::new(LEAST..=MOST)
    }

    fn after(gaps: impl IntoIterator<Item = u64>) -> Patience {
        let mut patience = patience();
        gaps.into_iter().for_each(|gap| patience.found(us(gap)));
        patience
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

    /// What a gap of `gap` costs in looking beyond the least, and whether its end finds the worker awake.
    fn spend(patience: &Patience, gap: Duration) -> (Duration, bool) {
        let (mut waited, mut looked) = (LEAST, Duration::ZERO);
        loop {
            match patience.next(waited) {
                _ if waited >= gap => return (looked, true),
                Next::Look => (waited, looked) = (waited + us(1), looked + us(1)),
                Next::Doze(length) if waited + length >= gap => return (looked, false),
                Next::Doze(length) => waited += length,
                Next::Sleep => return (looked, false),
            }
        }
    }

    /// Share of the gaps that end while the worker is awake, and of the time that it looks, once it has learned.
    fn shares(gaps: impl Iterator<Item = u64>) -> (f64, f64) {
        let mut patience = patience();
        let (mut awake, mut all, mut looked, mut time) = (0, 0, Duration::ZERO, Duration::ZERO);
        for (place, gap) in gaps.take(20_000).map(us).enumerate() {
            if place >= 2 * GAPS && gap >= LEAST {
                let (cost, is_awake) = spend(&patience, gap);
                (awake, all) = (awake + u32::from(is_awake), all + 1);
                looked += cost;
            }
            time += gap;
            patience.found(gap);
        }
        (f64::from(awake) / f64::from(all), looked.as_secs_f64() / time.as_secs_f64())
    }

    #[test]
    fn without_experience_it_looks_for_the_least() {
        let patience = patience();
        assert_eq!(patience.next(us(49)), Next::Look);
        assert_eq!(patience.next(us(50)), Next::Sleep);
    }

    #[test]
    fn regular_frames_find_it_awake_though_it_dozes_between_them() {
        let patience = after([1000; FEW]);
        assert_eq!(patience.next(us(49)), Next::Look);
        assert_eq!(patience.next(us(50)), Next::Doze(us(700)), "a quarter before the next may come");
        assert_eq!(patience.next(us(600)), Next::Doze(us(150)), "woken for something else, it dozes on");
        assert_eq!(patience.next(us(750)), Next::Look);
        assert_eq!(patience.next(us(1999)), Next::Look);
        assert_eq!(patience.next(us(2000)), Next::Sleep);
        let (awake, looked) = shares(std::iter::repeat(1000));
        assert!(awake == 1.0 && looked <= 0.25, "{awake} {looked}");
    }

    #[test]
    fn a_doze_ends_well_before_the_earliest_frame() {
        assert_eq!(after([1000, 1000, 420, 1000]).next(LEAST), Next::Doze(us(220)), "a timer may be late");
        assert_eq!(after([1000, 1000, 399, 1000]).next(LEAST), Next::Look, "too short to doze");
    }

    #[test]
    fn frames_at_random_find_it_awake_but_for_the_longest_gaps() {
        let (awake, looked) = shares(random(500.0));
        assert!(awake > 0.95, "{awake}");
        assert!(looked < 1.0, "{looked}");
        let (awake, _) = shares(random(1000.0));
        assert!(awake > 0.7, "{awake}");
    }

    #[test]
    fn sparse_frames_cost_next_to_nothing() {
        for mean in [5_000.0, 10_000.0, 100_000.0] {
            let (_, looked) = shares(random(mean));
            assert!(looked < 0.01, "{mean}: {looked}");
        }
        let pairs = [200, 300_000].into_iter().cycle();
        assert_eq!(shares(pairs).1, 0.0, "questions and their answers");
    }

    #[test]
    fn it_looks_only_as_far_as_gaps_are_long() {
        let patience = after([100; GAPS]);
        assert_eq!(patience.next(us(199)), Next::Look);
        assert_eq!(patience.next(us(200)), Next::Sleep);
    }

    #[test]
    fn a_pause_does_not_make_it_forget_but_pauses_do() {
        let mut patience = after([1000; GAPS]);
        patience.found(us(50_000));
        assert_eq!(patience.next(us(1500)), Next::Look);
        let given_up = (0..GAPS).find(|_| {
            patience.found(us(50_000));
            patience.next(LEAST) == Next::Sleep
        });
        assert!(given_up.is_some_and(|pauses| pauses < GAPS / 2), "{given_up:?}");
        (0..GAPS).for_each(|_| patience.found(us(1000)));
        assert_eq!(patience.next(us(1500)), Next::Look, "it begins again");
    }

    #[test]
    fn gaps_that_the_least_covers_teach_nothing() {
        let mut patience = after([1000; GAPS]);
        (0..1000).for_each(|_| patience.found(us(10)));
        assert_eq!(patience.next(us(50)), Next::Doze(us(700)));
    }

    #[test]
    fn a_most_that_is_not_more_than_the_least_turns_it_off() {
        for most in [us(0), LEAST] {
            let mut patience = Patience::new(LEAST..=most);
            for gap in [10, 50, 60, 1000].repeat(GAPS) {
                patience.found(us(gap));
                assert_eq!((patience.next(us(49)), patience.next(LEAST)), (Next::Look, Next::Sleep));
            }
        }
    }

    proptest! {
        /// However traffic comes, looking costs at most the most for each frame that came within it, but for what is remembered.
        #[test]
        fn what_it_costs_is_bounded_by_what_comes(
            gaps in prop::collection::vec(prop_oneof![50u64..400, 50u64..2000, 2000u64..2100, 2000u64..100_000], 0..400),
        ) {
            let mut patience = patience();
            let (mut looked, mut hits) = (Duration::ZERO, 0);
            for gap in gaps.into_iter().map(us) {
                looked += spend(&patience, gap).0;
                hits += u32::from(gap < MOST);
                patience.found(gap);
            }
            prop_assert!(looked <= MOST * (hits + GAPS as u32), "{looked:?} for {hits}");
        }
    }
}
