//! A worker's answers to the questions of a decision: with an exact-match cache, and without learning a station twice.

use super::station::Station;
use crate::engine::bridge::context::BurstContext;
use crate::engine::bridge::lookup::Lookup;
use crate::engine::rule::{ExactMatchCache, Key, Rule, Rules};
use crate::model::{MacAddr, Vid};

/// The [`Lookup`] of a worker.
#[derive(Debug)]
pub(super) struct WorkerLookup {
    pub(super) exact_match: ExactMatchCache,
    /// The sender of the frame before, if it was learned in this burst.
    pub(super) learned: Station,
    /// Index of the rule that applies to the next frame, if that was found by prefetching. No rule has the index
    /// [`NONE`](crate::engine::rule::NONE).
    pub(super) prefetched_rule: Option<u32>,
}

impl Default for WorkerLookup {
    fn default() -> Self {
        Self { exact_match: ExactMatchCache::default(), learned: Station::NONE, prefetched_rule: None }
    }
}

impl Lookup for WorkerLookup {
    #[inline]
    fn classify<'a>(&mut self, rules: &'a Rules, key: impl FnOnce() -> Key) -> Option<&'a Rule> {
        match self.prefetched_rule {
            Some(index) => rules.get(index).map(AsRef::as_ref),
            None => self.exact_match.find(rules, &key()),
        }
    }

    #[inline]
    fn learn(&mut self, context: &BurstContext<'_>, mac: MacAddr, vid: Vid, port_limit: u32) -> bool {
        let station = Station::new(mac, vid);
        if self.learned != station {
            let Some(learned) = station.learned(context, port_limit) else { return false };
            self.learned = learned;
        }
        true
    }
}
