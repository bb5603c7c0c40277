//! The exact-match cache in front of the classifier: one worker's, of a fixed size.
//!
//! Sets of two places. A new flow enters the second place of its set, on probation; found again there, it changes places with
//! the one in the first. So a sender of ever new flows, which are never seen again, takes away only probation places, and the
//! flows that are in use stay. Nothing is ever added to the cache's memory by what a guest sends.
//!
//! Its key is what any rule looks at ([`Rules::relevant`]): flows that differ in nothing else are one. An entry is void when
//! the rules have changed since (its version is another), so nothing has to be emptied.

use super::key::Key;
use super::{NONE, Rule, Rules};

/// Entries.
const ENTRIES: usize = 8192;
const SETS: usize = ENTRIES / 2;

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
        // Flows that differ in nothing that a rule looks at are one.
        let flow = key.masked(rules.relevant());
        if let Some(index) = self.hit(rules, &flow) {
            return rules.get(index).map(AsRef::as_ref);
        }
        self.misses += 1;
        let found = rules.find(key).map(AsRef::as_ref);
        let version = rules.version();
        let index = found.map_or(NONE, |rule| rule.spec.key_index);
        let set = self.set(&flow);
        let place = usize::from(set[0].version == version);
        set[place] = Entry { key: flow, version, index };
        found
    }

    #[inline]
    fn set(&mut self, flow: &Key) -> &mut [Entry; 2] {
        &mut self.sets[flow.hash(&Key::ALL) as usize % SETS]
    }

    /// Index of the rule, or [`NONE`], if the flow is in the cache.
    #[inline]
    fn hit(&mut self, rules: &Rules, flow: &Key) -> Option<u32> {
        let version = rules.version();
        let set = self.set(flow);
        let at = (0..2).find(|at| set[*at].version == version && set[*at].key.is(flow))?;
        let index = set[at].index;
        if at == 1 {
            set.swap(0, 1);
        }
        self.hits += 1;
        Some(index)
    }

    /// Lookups that the cache answered, and that it did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }
}
