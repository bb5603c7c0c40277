//! The exact-match cache in front of the classifier: one worker's, of a fixed size.
//!
//! Sets of two places. A new flow enters the second place of its set, on probation; found again there, it changes places with
//! the one in the first. So a sender of ever new flows, which are never seen again, takes away only probation places, and the
//! flows that are in use stay. Nothing is ever added to the cache's memory by what a guest sends.
//!
//! An entry is void when the rules have changed since (its version is another), so nothing has to be emptied.

use super::key::Key;
use super::{Rule, Rules};

/// Entries.
const ENTRIES: usize = 8192;
const SETS: usize = ENTRIES / 2;
/// No rule matches.
const NONE: u32 = u32::MAX;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    /// Version of the rules that it is of; 0: empty.
    version: u32,
    /// Index of the rule.
    index: u32,
}

const EMPTY: Entry = Entry { key: Key([0; super::key::WORDS]), version: 0, index: NONE };

/// The cache.
#[derive(Debug)]
pub struct FlowCache {
    sets: Box<[[Entry; 2]]>,
    hits: u64,
    misses: u64,
}

impl Default for FlowCache {
    fn default() -> Self {
        Self { sets: vec![[EMPTY; 2]; SETS].into_boxed_slice(), hits: 0, misses: 0 }
    }
}

impl FlowCache {
    /// The rule that applies to `key`, as [`Rules::find`] says it.
    #[inline]
    pub fn find<'a>(&mut self, rules: &'a Rules, key: &Key) -> Option<&'a Rule> {
        let version = rules.version();
        // Flows that differ in nothing that a rule looks at are one.
        let key = key.masked(rules.relevant());
        let set = &mut self.sets[key.hash() as usize % SETS];
        for at in 0..2 {
            if set[at].version == version && set[at].key.is(&key) {
                self.hits += 1;
                let index = set[at].index;
                if at == 1 {
                    set.swap(0, 1);
                }
                return if index == NONE { None } else { rules.get(index).map(AsRef::as_ref) };
            }
        }
        self.misses += 1;
        let found = rules.find(&key);
        let index = found.map_or(NONE, |rule| rule.spec.key_index);
        let place = usize::from(set[0].version == version);
        set[place] = Entry { key, version, index };
        found.map(AsRef::as_ref)
    }

    /// Lookups that the cache answered, and that it did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }
}
