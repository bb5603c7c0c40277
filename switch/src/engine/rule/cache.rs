//! Exact-match caches in front of rules. Each belongs to one worker and has a fixed size. [`ExactMatchCache`] is that
//! of traffic rules.
//!
//! A cache has sets of two places. A new flow enters the second place of its set, on probation. Found again there, it
//! changes places with the flow in the first. So flows that are never seen again push out only each other, and flows
//! in use stay.
//!
//! The key is what any rule looks at ([`Rules::relevant`]). Flows that differ in nothing else are one. An entry is
//! void when the rules have another version than it has. So nothing has to be cleared.

use std::hint::black_box;
use std::sync::Arc;

use super::key::{Key, WORDS};
use super::{MAX_BATCH, NONE, Rule, Rules};
use crate::engine::bits::low_index;

/// Entries of a [`ExactMatchCache`].
const ENTRIES: usize = 8192;
/// With no more distinct masks than that, a whole burst is looked up without the cache: the subtables' lines are fewer.
const FEW_MASKS: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Entry<const N: usize> {
    key: [u64; N],
    /// Version of the rules that the entry is of; 0: empty.
    version: u32,
    /// Index of the rule, or [`NONE`].
    index: u32,
}

impl<const N: usize> Entry<N> {
    #[expect(clippy::needless_range_loop, reason = "an iterator over both may end as a call")]
    #[inline(always)]
    fn is(&self, version: u32, key: &[u64; N]) -> bool {
        // As `==`, but without a branch for each word.
        let mut differ = u64::from(self.version ^ version);
        for word in 0..N {
            differ |= self.key[word] ^ key[word];
        }
        differ == 0
    }
}

/// One or two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Set<const N: usize>([Entry<N>; 2]);

/// Keys of `N` words, each with the index of the rule that was found for it.
#[derive(Debug)]
pub(in crate::engine) struct TwoWayCache<const N: usize>(Box<[Set<N>]>);

impl<const N: usize> TwoWayCache<N> {
    /// An empty cache for that many entries, a power of two and at least 2.
    pub fn new(entries: usize) -> Self {
        let empty = Entry { key: [0; N], version: 0, index: NONE };
        Self(vec![Set([empty; 2]); entries / 2].into_boxed_slice())
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> usize {
        low_index(hash) & (self.0.len() - 1)
    }

    #[inline(always)]
    fn set(&mut self, hash: u64) -> &mut [Entry<N>; 2] {
        let at = self.place(hash);
        &mut self.0[at].0
    }

    /// The index that was put in under that key and version, if it is still there.
    #[inline(always)]
    pub fn find(&mut self, hash: u64, version: u32, key: &[u64; N]) -> Option<u32> {
        let set = self.set(hash);
        let [first, second] = &*set;
        if first.is(version, key) {
            return Some(first.index);
        }
        if second.is(version, key) {
            set.swap(0, 1);
            return Some(set[0].index);
        }
        None
    }

    /// Loads the set of a key with that hash. What it returns means nothing.
    #[inline]
    fn touch(&self, hash: u64) -> u32 {
        let [first, second] = &self.0[self.place(hash)].0;
        first.version ^ second.version
    }

    /// Puts an index in under a key that was not found. No version is 0.
    pub fn put(&mut self, hash: u64, version: u32, key: &[u64; N], index: u32) {
        let set = self.set(hash);
        let place = usize::from(set[0].version == version);
        set[place] = Entry { key: *key, version, index };
    }
}

/// The exact-match cache of traffic rules.
#[derive(Debug)]
pub struct ExactMatchCache {
    exact: TwoWayCache<WORDS>,
    hits: u64,
    misses: u64,
}

impl Default for ExactMatchCache {
    fn default() -> Self {
        Self { exact: TwoWayCache::new(ENTRIES), hits: 0, misses: 0 }
    }
}

impl ExactMatchCache {
    /// As [`Rules::find`].
    #[inline]
    pub fn find<'a>(&mut self, rules: &'a Rules, key: &Key) -> Option<&'a Rule> {
        let flow = key.masked(rules.relevant());
        let (hash, version) = (flow.hash(&Key::ALL), rules.version());
        if let Some(index) = self.exact.find(hash, version, &flow.0) {
            self.hits += 1;
            return rules.get(index).map(AsRef::as_ref);
        }
        self.misses += 1;
        let found = rules.find(key).map(AsRef::as_ref);
        self.exact.put(hash, version, &flow.0, found.map_or(NONE, |rule| rule.index));
        found
    }

    /// As [`ExactMatchCache::find`] for up to [`MAX_BATCH`] keys, with each result at its key's place. What is read
    /// for one key does not wait for what is read for another.
    pub(in crate::engine) fn find_all<'a>(
        &mut self,
        rules: &'a Rules,
        keys: &[Key],
    ) -> [Option<&'a Arc<Rule>>; MAX_BATCH] {
        if rules.masks() <= FEW_MASKS {
            self.misses += keys.len() as u64;
            return rules.find_all(keys);
        }
        let (mut flows, mut hashes) = ([Key::default(); MAX_BATCH], [0; MAX_BATCH]);
        for ((flow, hash), key) in flows.iter_mut().zip(&mut hashes).zip(keys) {
            *flow = key.masked(rules.relevant());
            *hash = flow.hash(&Key::ALL);
        }
        let asked = flows.iter().zip(hashes).take(keys.len());
        black_box(asked.clone().fold(0, |all, (_, hash)| all ^ self.exact.touch(hash)));
        let (mut found, mut missed, mut places, mut count) =
            ([None; MAX_BATCH], [Key::default(); MAX_BATCH], [0; MAX_BATCH], 0);
        for (at, (flow, hash)) in asked.enumerate() {
            match self.exact.find(hash, rules.version(), &flow.0) {
                Some(index) => found[at] = rules.get(index),
                None => {
                    (missed[count], places[count]) = (keys[at], at);
                    count += 1;
                }
            }
        }
        self.hits += (keys.len() - count) as u64;
        self.misses += count as u64;
        for (at, rule) in places.into_iter().zip(rules.find_all(&missed[..count])).take(count) {
            let index = rule.map_or(NONE, |rule| rule.index);
            self.exact.put(hashes[at], rules.version(), &flows[at].0, index);
            found[at] = rule;
        }
        found
    }

    /// Lookups that the cache answered, and those that it did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }
}
