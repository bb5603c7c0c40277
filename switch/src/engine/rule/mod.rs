//! Traffic rules: up to a million of them, with masks on any bits of any field. The lowest index wins, as in a TCAM.
//!
//! **Classifier.** It is a tuple space search (Srinivasan, Suri, Varghese 1999). The rules of each distinct mask are
//! in a hash table of their own, a subtable. So a lookup costs one probe a mask, however many rules there are. A
//! probe that finds nothing costs one cache line. Subtables stand in the order of their lowest index. A lookup ends
//! when no subtable can have a better rule than the one that it has. Rules are read last, so the lines of all
//! subtables come from memory together.
//!
//! **Exact-match cache.** Each worker has one in front of the classifier ([`ExactMatchCache`]).
//!
//! **Masks come from rules only.** Nothing that a guest sends makes tables grow. Caches that derive masks from packets
//! suffer such a tuple space explosion (CVE-2019-25076).
//!
//! **Versions.** [`Rules`] is a value. Workers hold a version of it, while control changes its own and hands out the
//! next. Both share all that did not change. So a change costs the same in a full table as in an empty one, and any
//! number of changes become visible as one.

mod array;
mod cache;
mod classifier;
mod hash_table;
mod index;
mod key;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use cache::ExactMatchCache;
pub(super) use cache::TwoWayCache;
pub use classifier::Rules;
pub use key::{Key, Match, WORDS, first_difference};
pub use table::RuleTable;

use super::meter::Meter;
use crate::counters::Shard;
use crate::model::{Count, RuleAction, RuleKey, RuleSpec, RuleTarget};

/// Stands for no rule, where an index would be.
pub(super) const NONE: u32 = u32::MAX;
/// Keys that are looked up together at most: as many as a burst has frames.
pub const MAX_BATCH: usize = 64;
/// Workers whose counters are in the rule itself.
const NEAR: usize = 2;

/// A rule in force.
///
/// Its layout is for a rule that was not used for a while, so that nothing of it is in the CPU's caches. A worker
/// needs three cache lines: a pair with match and action, and one with its own counters. From the third worker on the
/// counters are elsewhere.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Rule {
    /// The meter that its action names.
    pub meter: Option<Arc<Meter>>,
    /// What a packet's bits under `mask` must be. Zero elsewhere.
    value: Key,
    /// Its index: [`RuleSpec::key_index`].
    pub index: u32,
    /// What it does.
    pub action: RuleAction,
    mask: Key,
    /// Its key as it was written.
    pub key: RuleKey,
    /// Counters of the workers from [`NEAR`] on.
    far: Box<[Shard]>,
    /// Counters of the first workers.
    near: [Shard; NEAR],
}

impl Rule {
    /// A rule that has counted nothing yet.
    ///
    /// # Errors
    /// As [`Match::compile`].
    pub fn new(spec: RuleSpec, meter: Option<Arc<Meter>>, workers: usize) -> Result<Self, String> {
        let RuleSpec { key_index: index, key, action } = spec;
        let Match { value, mask } = Match::compile(&key)?;
        let far = (NEAR..workers).map(|_| Shard::default()).collect();
        Ok(Self { meter, value, index, action, mask, key, far, near: Default::default() })
    }

    /// A rule of that index whose key was compiled elsewhere. It has no action and no counters: its user has them.
    pub fn from_match(index: u32, compiled: Match) -> Self {
        let (Match { value, mask }, action) = (compiled, RuleAction::to(RuleTarget::Normal));
        let (key, far, near) = (RuleKey::default(), Box::default(), Default::default());
        Self { meter: None, value, index, action, mask, key, far, near }
    }

    /// The rule as it was written.
    pub fn spec(&self) -> RuleSpec {
        RuleSpec { key_index: self.index, key: self.key.clone(), action: self.action.clone() }
    }

    /// Its key, compiled.
    pub fn compiled(&self) -> Match {
        Match { value: self.value, mask: self.mask }
    }

    /// Counts a frame of `len` bytes that `worker` applied it to.
    #[inline]
    pub fn applied(&self, worker: usize, len: usize) {
        self.applied_to_all(worker, Count { packets: 1, bytes: len as u64 });
    }

    /// Counts frames that `worker` applied it to.
    #[inline]
    pub fn applied_to_all(&self, worker: usize, count: Count) {
        let shard = self.near.get(worker).or_else(|| self.far.get(worker - NEAR));
        if let Some(Shard(counter)) = shard {
            counter.add(count.packets, count.bytes);
        }
    }

    /// Whether a frame that it applies to is only counted and sent: it has neither meter nor mirror.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.meter.is_none() && self.action.mirror.is_none()
    }

    /// Loads the lines that applying it needs, if `worker` is one of the first. What it returns means nothing.
    #[inline]
    pub(super) fn touch(&self, worker: usize) -> u64 {
        let counted = self.near.get(worker).map_or(0, |Shard(counter)| counter.read().packets);
        u64::from(self.index) ^ counted
    }

    /// Frames that it was applied to.
    pub fn matched(&self) -> Count {
        let mut sum = Count::default();
        self.near.iter().chain(&self.far).for_each(|Shard(counter)| sum.add(counter.read()));
        sum
    }
}
