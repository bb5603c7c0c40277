//! The next version of the classifier, as control makes it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Rule;
use super::classifier::Rules;
use super::key::{Key, Match};

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
        self.rules.next_version();
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
        self.rules.set(index, Some(rule));
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
        self.rules.set(index, None);
        Some(rule)
    }

    /// The lowest index that no rule has.
    pub fn first_free(&self) -> u32 {
        self.rules.first_free()
    }
}
