//! The classifier: rules in subtables, one for each distinct mask.

use std::hint::black_box;
use std::sync::Arc;

use super::hash_table::HashTable;
use super::index::Index;
use super::key::Key;
use super::{MAX_BATCH, NONE, Rule};

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
pub(super) struct Candidate {
    /// Its index.
    pub(super) index: u32,
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
    pub(super) fn candidate(&self, key: &Key) -> Candidate {
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
    pub(super) fn search(&self, key: &Key) -> Option<&Arc<Rule>> {
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

    /// Begins the next version.
    pub(super) fn next_version(&mut self) {
        // 0 stands for an empty cache entry. After 2³² changes versions repeat. By then no cache entry is that old.
        self.version = self.version.max(1).wrapping_add(1).max(1);
    }

    /// The lowest index that no rule has.
    pub(super) fn first_free(&self) -> u32 {
        self.by_index.first_free()
    }

    /// Leaves of the index that this version shares with another, and those that differ.
    #[cfg(test)]
    pub(super) fn shared_leaves(&self, other: &Self) -> (usize, usize) {
        self.by_index.shared_leaves(&other.by_index)
    }

    /// Sets a rule where there is none, or takes one away. The subtables are left as they are.
    pub(super) fn set(&mut self, index: u32, rule: Option<Arc<Rule>>) {
        match &rule {
            Some(_) => self.len += 1,
            None => self.len -= 1,
        }
        self.by_index.set(index, rule);
    }

    /// Changes the subtable of `mask`, and keeps the subtables in order. Its best index was `before` (`None`: there
    /// is no such subtable yet) and is now `best` (`None`: it is empty and goes).
    pub(super) fn update_subtable(
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
