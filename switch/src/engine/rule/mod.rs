//! Traffic rules: up to a million of them, any bits of any field, the lowest index wins, as in a TCAM.
//!
//! A tuple space search (Srinivasan, Suri, Varghese 1999): the rules of each distinct mask are in a hash table of their own
//! ([`trie`]), so a lookup costs one probe a mask, however many rules there are. The masks are kept in the order of their
//! lowest index; once a rule is found, masks that can only have higher ones are not asked. In front of it each worker has an
//! exact-match cache ([`FlowCache`]) of a fixed size. Masks come from rules only and never from packets: what a guest sends
//! can't make tables (the tuple space explosion of caches that derive masks, CVE-2019-25076).
//!
//! [`Rules`] is a value: workers hold a version of it, while control changes its own and hands out the next. Both share all
//! that did not change, so a change costs the same in a full table as in an empty one, and any number of changes become
//! visible as one.

mod cache;
mod index;
mod key;
#[cfg(test)]
mod tests;
mod trie;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub use cache::FlowCache;
pub use key::{Key, Match, first_difference};

use self::index::Index;
use self::trie::Trie;
use super::meter::Meter;
use crate::counters::Tally;
use crate::model::{Count, RuleSpec};

/// What one worker counts for one rule.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Tally);

/// A rule in force.
#[derive(Debug)]
pub struct Rule {
    /// As it was written.
    pub spec: RuleSpec,
    /// Its key.
    pub compiled: Match,
    hash: u64,
    /// The meter that its action names.
    pub meter: Option<Arc<Meter>>,
    /// One for each worker.
    shards: Box<[Shard]>,
}

impl Rule {
    /// A rule that has counted nothing yet.
    ///
    /// # Errors
    /// As [`Match::compile`].
    pub fn new(spec: RuleSpec, meter: Option<Arc<Meter>>, workers: usize) -> Result<Self, String> {
        let compiled = Match::compile(&spec.key)?;
        let hash = compiled.value.hash();
        Ok(Self { spec, compiled, hash, meter, shards: (0..workers).map(|_| Shard::default()).collect() })
    }

    /// It was applied to a frame of `len` bytes by `worker`.
    #[inline]
    pub fn applied(&self, worker: usize, len: usize) {
        if let Some(Shard(tally)) = self.shards.get(worker) {
            tally.add(1, len as u64);
        }
    }

    /// What it was applied to.
    pub fn matched(&self) -> Count {
        let mut sum = Count::default();
        self.shards.iter().for_each(|Shard(tally)| sum.add(tally.read()));
        sum
    }
}

/// The rules of one mask.
#[derive(Clone, Debug)]
struct Tuple {
    mask: Key,
    rules: Trie,
}

/// A tuple in the order of lookup.
#[derive(Clone, Debug)]
struct Ranked {
    /// Lowest index in it.
    best: u32,
    tuple: Arc<Tuple>,
}

/// A version of all rules, to look things up in.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By best index, ascending.
    tuples: Arc<Vec<Ranked>>,
    by_index: Index,
    len: u32,
    version: u32,
}

impl Rules {
    /// The rule of lowest index that matches.
    #[inline]
    pub fn find(&self, key: &Key) -> Option<&Arc<Rule>> {
        let mut found: Option<&Arc<Rule>> = None;
        for Ranked { best, tuple } in &*self.tuples {
            if found.is_some_and(|rule| rule.spec.key_index < *best) {
                break;
            }
            let masked = key.masked(&tuple.mask);
            if let Some(rule) = tuple.rules.find(masked.hash(), &masked)
                && found.is_none_or(|other| rule.spec.key_index < other.spec.key_index)
            {
                found = Some(rule);
            }
        }
        found
    }

    /// The rule of that index.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&Arc<Rule>> {
        self.by_index.get(index)
    }

    /// All rules from index `from` on, ascending.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = &Arc<Rule>> {
        self.by_index.iter_from(from)
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of distinct masks: the probes that a lookup costs at most.
    pub fn masks(&self) -> usize {
        self.tuples.len()
    }

    /// Number of this version, never 0.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version.max(1)
    }
}

/// The rules as control has them: the current version, and what is needed to make the next.
#[derive(Debug, Default)]
pub struct RuleTable {
    rules: Rules,
    /// Indices in use under each mask.
    indices: HashMap<Key, BTreeSet<u32>>,
}

impl RuleTable {
    /// The current version.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Ends a batch of changes: the version is a new one.
    pub fn commit(&mut self) -> Rules {
        // 0 stands for an empty cache entry; after 2³² changes versions come again, by when no entry is that old.
        self.rules.version = self.rules.version.max(1).wrapping_add(1).max(1);
        self.rules.clone()
    }

    /// Puts a rule in its place; returns the one that was there.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let index = rule.spec.key_index;
        let replaced = self.remove(index);
        let mask = rule.compiled.mask;
        let indices = self.indices.entry(mask).or_default();
        let before = indices.first().copied();
        indices.insert(index);
        let best = indices.first().copied().unwrap_or(index);
        self.retuple(mask, before, Some(best), |tuple| tuple.rules.insert(Arc::clone(&rule)));
        self.rules.len += 1;
        self.rules.by_index.set(index, Some(rule));
        replaced
    }

    /// Takes the rule of that index out.
    pub fn remove(&mut self, index: u32) -> Option<Arc<Rule>> {
        let rule = Arc::clone(self.rules.get(index)?);
        let mask = rule.compiled.mask;
        let (mut before, mut best) = (None, None);
        if let Some(indices) = self.indices.get_mut(&mask) {
            before = indices.first().copied();
            indices.remove(&index);
            best = indices.first().copied();
            if indices.is_empty() {
                self.indices.remove(&mask);
            }
        }
        self.retuple(mask, before, best, |tuple| tuple.rules.remove(&rule));
        self.rules.len -= 1;
        self.rules.by_index.set(index, None);
        Some(rule)
    }

    /// Lowest index that no rule has.
    pub fn first_free(&self) -> u32 {
        self.rules.by_index.first_free()
    }

    /// Changes the tuple of `mask`, whose best index was `before` (`None`: there is none yet) and is now `best` (`None`: it is
    /// empty and goes), and keeps the order.
    fn retuple(&mut self, mask: Key, before: Option<u32>, best: Option<u32>, change: impl FnOnce(&mut Tuple)) {
        let tuples = Arc::make_mut(&mut self.rules.tuples);
        // Best indices are distinct: an index has one rule, which is in one tuple.
        let at = before.and_then(|before| tuples.binary_search_by_key(&before, |ranked| ranked.best).ok());
        let mut tuple = match at {
            Some(at) if before == best => {
                change(Arc::make_mut(&mut tuples[at].tuple));
                return;
            }
            Some(at) => tuples.remove(at).tuple,
            None => Arc::new(Tuple { mask, rules: Trie::default() }),
        };
        if let Some(best) = best {
            change(Arc::make_mut(&mut tuple));
            let to = tuples.partition_point(|ranked| ranked.best < best);
            tuples.insert(to, Ranked { best, tuple });
        }
    }
}
