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
mod hash_table;
mod index;
mod key;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::Arc;

pub use cache::ExactMatchCache;
pub(super) use cache::TwoWayCache;
pub use key::{Key, Match, WORDS, first_difference};

use self::hash_table::HashTable;
use self::index::Index;
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
        let shard = self.near.get(worker).or_else(|| self.far.get(worker - NEAR));
        if let Some(Shard(counter)) = shard {
            counter.add(1, len as u64);
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

/// The rules of one distinct mask.
#[derive(Clone, Debug)]
struct Subtable {
    mask: Key,
    /// The lowest index in it.
    best: u32,
    /// For each key the rule of lowest index.
    table: HashTable,
}

/// A rule that may match: its tag does.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Its index.
    index: u32,
    /// Place of its subtable.
    subtable: u32,
}

impl Candidate {
    /// Stands for no candidate.
    const NONE: Self = Self { index: NONE, subtable: NONE };
}

/// A version of the classifier: all rules, to be looked up.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By their best index, ascending.
    subtables: Arc<Vec<Subtable>>,
    /// Bits of a key that any mask has. Nothing else of a packet matters.
    relevant: Key,
    by_index: Index,
    len: u32,
    version: u32,
}

impl Rules {
    /// The rule of lowest index that matches.
    #[inline]
    pub fn find(&self, key: &Key) -> Option<&Arc<Rule>> {
        let candidate = self.candidate(key);
        self.confirm(key, candidate, self.get(candidate.index)?)
    }

    /// As [`Rules::find`] for up to [`MAX_BATCH`] keys, with each result at its key's place. What is read for one key
    /// does not wait for what is read for another.
    #[inline(never)]
    pub(in crate::engine) fn find_all(&self, keys: &[Key]) -> [Option<&Arc<Rule>>; MAX_BATCH] {
        let mut candidates = [Candidate::NONE; MAX_BATCH];
        for (candidate, key) in candidates.iter_mut().zip(keys) {
            *candidate = self.candidate(key);
        }
        let mut found = [None; MAX_BATCH];
        for (rule, candidate) in found.iter_mut().zip(candidates).take(keys.len()) {
            *rule = self.get(candidate.index);
        }
        black_box(found.iter().flatten().fold(0, |all, rule| all ^ rule.value.0[0] ^ u64::from(rule.index)));
        for ((rule, candidate), key) in found.iter_mut().zip(candidates).zip(keys) {
            *rule = rule.and_then(|rule| self.confirm(key, candidate, rule));
        }
        found
    }

    /// The rule of lowest index that may match, by tags alone. No rule that matches has a lower index.
    ///
    /// No rule is read here. So the lines of all subtables are on their way from memory together.
    #[inline]
    fn candidate(&self, key: &Key) -> Candidate {
        let mut lowest = Candidate::NONE;
        for (subtable, at) in self.subtables.iter().zip(0..) {
            if lowest.index < subtable.best {
                break;
            }
            let index = subtable.table.lowest(key.hash(&subtable.mask));
            if index < lowest.index {
                lowest = Candidate { index, subtable: at };
            }
        }
        lowest
    }

    /// The rule that matches, given what [`Rules::candidate`] said and the rule of that index. Two keys can have the
    /// same tag, so the candidate is compared, and if it is another key's, all rules with the tag are.
    #[inline]
    fn confirm<'a>(&'a self, key: &Key, candidate: Candidate, rule: &'a Arc<Rule>) -> Option<&'a Arc<Rule>> {
        let mask = &self.subtables.get(candidate.subtable as usize)?.mask;
        if key.masked(mask) == rule.value { Some(rule) } else { self.search(key) }
    }

    /// As [`Rules::find`], but compares the key with each rule that has its tag.
    #[cold]
    fn search(&self, key: &Key) -> Option<&Arc<Rule>> {
        let mut found: Option<&Arc<Rule>> = None;
        for subtable in &*self.subtables {
            let lowest = found.map_or(NONE, |rule| rule.index);
            if lowest < subtable.best {
                break;
            }
            let rules = subtable.table.tagged(key.hash(&subtable.mask)).filter_map(|index| self.get(index));
            let mut rules = rules.filter(|rule| rule.index < lowest && key.masked(&subtable.mask) == rule.value);
            found = rules.next().or(found);
        }
        found
    }

    /// The rule with that index.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&Arc<Rule>> {
        self.by_index.get(index)
    }

    /// All rules from index `from` on, ascending.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = &Arc<Rule>> {
        self.by_index.iter_from(from)
    }

    /// Number of rules.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no rule.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of distinct masks: a lookup costs as many probes at most.
    pub fn masks(&self) -> usize {
        self.subtables.len()
    }

    /// Bits of a key that decide which rule matches. Keys that are the same in these bits match the same.
    #[inline]
    pub fn relevant(&self) -> &Key {
        &self.relevant
    }

    /// Number of this version, never 0.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version.max(1)
    }
}

/// The rules as control has them: the current version, and what is needed to make the next one.
#[derive(Debug, Default)]
pub struct RuleTable {
    rules: Rules,
    /// By mask: the indices of its rules.
    indices: HashMap<Key, BTreeSet<u32>>,
    /// By key: the indices of rules that never match, because a rule of lower index has the same key.
    shadowed: HashMap<Match, BTreeSet<u32>>,
}

impl RuleTable {
    /// The current version.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Ends a batch of changes. Returns the version after it.
    pub fn commit(&mut self) -> Rules {
        // 0 stands for an empty cache entry. After 2³² changes versions repeat. By then no cache entry is that old.
        self.rules.version = self.rules.version.max(1).wrapping_add(1).max(1);
        self.rules.clone()
    }

    /// Puts a rule at its index. Returns the rule that was there.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let index = rule.index;
        let replaced = self.remove(index);
        let key = rule.compiled();
        let indices = self.indices.entry(key.mask).or_default();
        let before = indices.first().copied();
        indices.insert(index);
        let best = indices.first().copied();
        self.rules.len += 1;
        self.rules.by_index.set(index, Some(rule));
        let shadowed = &mut self.shadowed;
        self.rules.update_subtable(&key.mask, before, best, |table, rules| {
            let hash = key.value.hash(&key.mask);
            let hash_of = |index| rules.get(index).map_or(0, |rule| rule.value.hash(&key.mask));
            let is_it = |other: &u32| rules.get(*other).is_some_and(|rule| rule.value == key.value);
            let Some(other) = table.tagged(hash).find(is_it) else {
                table.add(hash, index, hash_of);
                return;
            };
            if index < other {
                table.replace(hash, other, index);
            }
            shadowed.entry(key).or_default().insert(other.max(index));
        });
        replaced
    }

    /// Removes the rule with that index, and returns it.
    pub fn remove(&mut self, index: u32) -> Option<Arc<Rule>> {
        let rule = Arc::clone(self.rules.get(index)?);
        let key = rule.compiled();
        let (mut before, mut best) = (None, None);
        if let Some(indices) = self.indices.get_mut(&key.mask) {
            before = indices.first().copied();
            indices.remove(&index);
            best = indices.first().copied();
            if indices.is_empty() {
                self.indices.remove(&key.mask);
            }
        }
        let shadowed = &mut self.shadowed;
        self.rules.update_subtable(&key.mask, before, best, |table, _| {
            let hash = key.value.hash(&key.mask);
            let Some(others) = shadowed.get_mut(&key) else {
                table.remove(hash, index);
                return;
            };
            if !others.remove(&index)
                && let Some(next) = others.pop_first()
            {
                table.replace(hash, index, next);
            }
            if others.is_empty() {
                shadowed.remove(&key);
            }
        });
        self.rules.len -= 1;
        self.rules.by_index.set(index, None);
        Some(rule)
    }

    /// The lowest index that no rule has.
    pub fn first_free(&self) -> u32 {
        self.rules.by_index.first_free()
    }
}

impl Rules {
    /// Changes the subtable of `mask`, and keeps the subtables in order. Its best index was `before` (`None`: there
    /// is no such subtable yet) and is now `best` (`None`: it is empty and goes).
    fn update_subtable(
        &mut self,
        mask: &Key,
        before: Option<u32>,
        best: Option<u32>,
        change: impl FnOnce(&mut HashTable, &Index),
    ) {
        let subtables = Arc::make_mut(&mut self.subtables);
        // Best indices are distinct, because an index has one rule, which is in one subtable.
        let at = before.and_then(|before| subtables.binary_search_by_key(&before, |subtable| subtable.best).ok());
        match (at, best) {
            (Some(at), Some(best)) => {
                change(&mut subtables[at].table, &self.by_index);
                if before != Some(best) {
                    let subtable = Subtable { best, ..subtables.remove(at) };
                    subtables.insert(subtables.partition_point(|other| other.best < best), subtable);
                }
            }
            (Some(at), None) => {
                subtables.remove(at);
                self.relevant = subtables.iter().fold(Key::default(), |all, subtable| all.with(&subtable.mask));
            }
            (None, Some(best)) => {
                let mut subtable = Subtable { mask: *mask, best, table: HashTable::default() };
                change(&mut subtable.table, &self.by_index);
                subtables.insert(subtables.partition_point(|other| other.best < best), subtable);
                self.relevant = self.relevant.with(mask);
            }
            (None, None) => {}
        }
    }
}
