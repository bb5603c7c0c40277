//! Traffic rules: lookups over 1, 1,000 and 65,536 rules under 1, 8 and 64 distinct masks.
//!
//! They are measured with locality (64 flows in turn, which the exact-match cache holds), and with a new flow for every
//! packet.

use std::hint::black_box;

use switch::engine::rule::{ExactMatchCache, Key, Rules};

use super::{BURSTS, Case, nothing};
use crate::micro::fixtures::{BURST, keys, rule_table};

const GROUP: &str = "classify";
const LOOKUPS: usize = BURSTS * BURST;
/// More flows than the cache holds by far, each seen again only after all others.
const MANY: u32 = 1 << 18;

struct State {
    rules: Rules,
    cache: ExactMatchCache,
    keys: Vec<Key>,
    at: usize,
}

impl State {
    fn new(rules: u32, masks: u32, keys: Vec<Key>) -> Self {
        Self { rules: rule_table(rules, masks).commit(), cache: ExactMatchCache::default(), keys, at: 0 }
    }

    fn look_up(&mut self) {
        let end = self.at + LOOKUPS;
        for key in &self.keys[self.at..end] {
            black_box(self.cache.find(&self.rules, black_box(key)));
        }
        self.at = end % self.keys.len();
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rules, masks) in [(1, 1), (1_000, 1), (1_000, 8), (1_000, 64), (65_536, 1), (65_536, 8), (65_536, 64)] {
        let hits = move || {
            let flows = keys(BURST as u32, rules);
            State::new(rules, masks, flows.into_iter().cycle().take(LOOKUPS).collect())
        };
        let misses = move || State::new(rules, masks, keys(MANY, rules));
        let name = |flows| format!("{rules} rules, {masks} masks, {flows}");
        cases.push(Case::new(GROUP, name("64 flows"), LOOKUPS, hits, nothing, State::look_up));
        cases.push(Case::new(GROUP, name("a new flow each"), LOOKUPS, misses, nothing, State::look_up));
    }
    cases
}
