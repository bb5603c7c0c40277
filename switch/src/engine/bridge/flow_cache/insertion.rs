//! Which flows enter the cache. Most flows that come once are not worth an entry.
//!
//! A flow enters when it misses again while its first miss is noted. Of all other flows one in 64 enters. A valid entry
//! gives way by chance only: see [`Insertion`].

use super::entry::{SETS, set_of, tag_of};

/// One in so many of the flows that miss again may evict a valid entry.
const EVICT_INV_PROBABILITY: u64 = 4;
/// One in so many of all other flows enters, and may evict too.
const INSERT_INV_PROBABILITY: u64 = 64;

/// Whether a flow may have an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// No.
    No,
    /// Only in a place without a valid entry.
    Free,
    /// Also in the place of an entry that is not in use.
    Evict,
}

/// Decides which flows may have an entry.
#[derive(Debug)]
pub(super) struct InsertionPolicy {
    recent_misses: RecentMisses,
    chance: Chance,
}

impl Default for InsertionPolicy {
    fn default() -> Self {
        Self { recent_misses: RecentMisses::default(), chance: Chance(1) }
    }
}

impl InsertionPolicy {
    /// A flow with that hash missed.
    #[inline]
    pub(super) fn missed(&mut self, hash: u64) -> Insertion {
        let again = self.recent_misses.note(hash);
        match self.chance.one_in(if again { EVICT_INV_PROBABILITY } else { INSERT_INV_PROBABILITY }) {
            true => Insertion::Evict,
            false if again => Insertion::Free,
            false => Insertion::No,
        }
    }
}

/// The last four flows of each set that missed: tags of 16 bits, the latest lowest.
#[derive(Debug)]
struct RecentMisses(Box<[u64]>);

impl Default for RecentMisses {
    fn default() -> Self {
        Self(vec![0; SETS].into_boxed_slice())
    }
}

impl RecentMisses {
    /// Notes a flow. Returns whether it was noted already.
    #[inline]
    fn note(&mut self, hash: u64) -> bool {
        let tag = u64::from(tag_of(hash));
        let Some(four) = self.0.get_mut(set_of(hash)) else { return false };
        let noted = (0..4).any(|n| *four >> (16 * n) & 0xffff == tag);
        if !noted {
            *four = *four << 16 | tag;
        }
        noted
    }
}

/// Random decisions by a linear congruential generator. Only its upper bits are used, which are good enough.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// True one time in `count`, a power of two.
    #[inline]
    fn one_in(&mut self, count: u64) -> bool {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 32).is_multiple_of(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_misses_again_enters_and_others_by_chance() {
        let mut policy = InsertionPolicy::default();
        let hashes = (0..10_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let entered = hashes.clone().filter(|hash| policy.missed(*hash) != Insertion::No).count();
        assert!((100..230).contains(&entered), "{entered} of 10,000, about one in 64 is expected");
        let mut policy = InsertionPolicy::default();
        let again = hashes.take(1000).map(|hash| (policy.missed(hash), policy.missed(hash)).1);
        let mut counts = [0; 3];
        again.for_each(|insertion| counts[insertion as usize] += 1);
        assert_eq!(counts[Insertion::No as usize], 0);
        assert!((150..350).contains(&counts[Insertion::Evict as usize]), "{counts:?}, about one in four is expected");
    }
}
