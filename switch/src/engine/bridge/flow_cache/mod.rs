//! The flow cache of a worker: whole decisions, by flow. It is in front of all other lookups.
//!
//! **Key.** A flow is what decides on a plain frame: TCP or UDP, whole, with at most one tag. With rules that is
//! ingress port, addresses, tag, IP addresses, protocol and ports. Without rules, ingress port, addresses, EtherType
//! and tag of an IP frame are enough.
//!
//! **Validity.** Only forwarding to one port is cached. A decision holds for one epoch of the policy, and for the FDB
//! entry that it came from. A frame's length, and the learning of its sender, are checked for each frame all the
//! same.
//!
//! **Bursts.** [`FlowCache::lookup_burst`] decides on as many frames as it can in one loop. They come out as runs
//! with one [`Egress`] each. While many frames of a burst miss, the next burst begins with prefetching (`prefetch`).
//!
//! **Size.** It is fixed: 4,096 entries, in sets of two. `insertion` says which flows enter. So flows that come once,
//! or too many in turn, cost next to nothing and do not evict what is in use.
//!
//! A cache belongs to one worker. An entry is plain data, all that a flow table in the kernel would need.

mod entry;
mod flow_key;
mod insertion;
mod lookup;
mod prefetch;
mod station;
mod tags;

use self::entry::{EMPTY, Entry, SETS, Set, find, find_any, set_of, victim};
pub use self::flow_key::table_key;
use self::flow_key::{flow_key, hash, hash_l2, hash_v4, l2_key, untagged_v4_key};
use self::insertion::{Insertion, InsertionPolicy};
use self::lookup::WorkerLookup;
use self::prefetch::Prefetched;
use self::station::Station;
use self::tags::TagIndex;
use super::context::BurstContext;
use super::decide::decide;
use super::egress::{Egress, Run};
use super::tracer::NoTrace;
use super::verdict::{Decision, Verdict};
use crate::engine::meter::Color;
use crate::model::LookupCounts;

/// Misses in a burst from which on the next burst is prefetched.
const PREFETCH_MISSES: u32 = 16;

/// The cache.
#[derive(Debug)]
pub struct FlowCache {
    sets: Box<[Set]>,
    tags: TagIndex,
    insertion: InsertionPolicy,
    lookup: WorkerLookup,
    /// Frames whose decision was cached, while there were rules.
    hits: u64,
    /// Frames of this burst whose decision was not.
    misses: u32,
    /// Whether to prefetch for what is left of this burst.
    prefetch_next: bool,
    prefetched: Prefetched,
}

impl Default for FlowCache {
    fn default() -> Self {
        Self {
            sets: vec![[EMPTY; 2]; SETS].into_boxed_slice(),
            tags: TagIndex::default(),
            insertion: InsertionPolicy::default(),
            lookup: WorkerLookup::default(),
            hits: 0,
            misses: 0,
            prefetch_next: false,
            prefetched: Prefetched::default(),
        }
    }
}

impl FlowCache {
    /// A burst begins. Its frames came in from one port at one time. So a station need not be learned again as long
    /// as the frames are its own.
    #[inline]
    pub fn begin_burst(&mut self) {
        self.lookup.learned = Station::NONE;
        self.prefetch_next = self.misses >= PREFETCH_MISSES;
        self.prefetched.clear();
        self.misses = 0;
    }

    /// Frames of this burst whose decision was not cached.
    #[inline]
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// How rules were found so far.
    #[inline]
    pub fn lookups(&self) -> LookupCounts {
        let (exact_match, classifier) = self.lookup.exact_match.counts();
        LookupCounts { flow_cache: self.hits, exact_match, classifier }
    }

    /// As [`decide()`]. All frames of a burst are decided by this and [`FlowCache::decide_long`], or all by
    /// [`FlowCache::lookup_burst`].
    #[inline]
    pub fn decide<'a>(&mut self, context: &BurstContext<'a>, frame: &[u8]) -> Decision<'a> {
        let (sets, learned) = (&mut self.sets, &mut self.lookup.learned);
        let entry = match context.snap.rules.is_empty() {
            true => Self::lookup::<false>(sets, learned, context, frame),
            false => Self::lookup::<true>(sets, learned, context, frame),
        };
        match entry {
            Some(entry) => {
                let decision = entry.decision(context);
                self.count_hits(context, 1);
                decision
            }
            None => self.decide_and_insert(context, frame),
        }
    }

    /// The same for a packet of `len` bytes, of which `head` has the first, with all headers. Such packets are not
    /// cached: their lengths do not fit the bytes that are here.
    #[inline(never)]
    pub fn decide_long<'a>(&mut self, context: &BurstContext<'a>, head: &[u8], len: usize) -> Decision<'a> {
        decide(context, head, len, &mut self.lookup, &mut NoTrace)
    }

    /// Decides on frames as long as they are only to be counted by their rules and sent, and as their flows are
    /// cached or their rules were prefetched. The rules have counted them, and `runs` gets where they go.
    ///
    /// Returns how many these were, and the decision on the frame behind them, if there is one.
    #[inline]
    pub fn lookup_burst<'a, 'f>(
        &mut self,
        context: &BurstContext<'a>,
        frames: impl Iterator<Item = &'f [u8]> + Clone,
        runs: &mut Vec<Run>,
    ) -> (usize, Option<Decision<'a>>) {
        if std::mem::take(&mut self.prefetch_next) {
            self.tags.keep_to(context.snap.epoch);
            self.prefetched.fill(context, frames.clone(), &self.tags, &self.sets, &mut self.lookup.exact_match);
        }
        if self.prefetched.is_some() {
            self.decide_prefetched(context, frames, runs)
        } else if context.snap.rules.is_empty() {
            self.lookup_each::<false>(context, frames, runs)
        } else {
            self.lookup_each::<true>(context, frames, runs)
        }
    }

    /// The loop of [`Self::lookup_burst`] without prefetching. With and without rules it is a function of its own, so
    /// that each has all registers to itself.
    #[inline(never)]
    fn lookup_each<'a, 'f, const RULES: bool>(
        &mut self,
        context: &BurstContext<'a>,
        frames: impl Iterator<Item = &'f [u8]>,
        runs: &mut Vec<Run>,
    ) -> (usize, Option<Decision<'a>>) {
        let mut run = Run { egress: Egress::NOWHERE, color: Color::Green, frames: 0, bytes: 0 };
        let (mut before, mut after) = (0, None);
        for frame in frames {
            let Some(entry) = Self::lookup::<RULES>(&mut self.sets, &mut self.lookup.learned, context, frame) else {
                after = Some(self.decide_and_insert(context, frame));
                break;
            };
            if entry.egress != run.egress {
                if entry.egress.is_aside() {
                    after = Some(entry.decision(context));
                    self.count_hits(context, 1);
                    break;
                }
                before += run.frames;
                run.add_to(runs);
                run = Run { egress: entry.egress, frames: 0, bytes: 0, ..run };
            }
            if let Some(rule) = entry.rule(context) {
                rule.applied(context.worker, frame.len());
            }
            run.frames += 1;
            run.bytes += frame.len();
        }
        before += run.frames;
        self.count_hits(context, before);
        run.add_to(runs);
        (before, after)
    }

    /// The loop of [`Self::lookup_burst`] over frames that were prefetched for. Frames that miss go along too, if
    /// they are only to be counted by their rules and sent.
    #[inline(never)]
    fn decide_prefetched<'a, 'f>(
        &mut self,
        context: &BurstContext<'a>,
        frames: impl Iterator<Item = &'f [u8]>,
        runs: &mut Vec<Run>,
    ) -> (usize, Option<Decision<'a>>) {
        let mut before = 0;
        for frame in frames {
            let decision = match self.prefetched.pop() {
                None => self.decide(context, frame),
                rule => {
                    self.lookup.prefetched_rule = rule;
                    let decision = self.decide_and_insert(context, frame);
                    self.lookup.prefetched_rule = None;
                    decision
                }
            };
            let Some(egress) = plain_egress(&decision) else { return (before, Some(decision)) };
            if let Some(rule) = decision.rule {
                rule.applied(context.worker, frame.len());
            }
            Run { egress, color: Color::Green, frames: 1, bytes: frame.len() }.add_to(runs);
            before += 1;
        }
        (before, None)
    }

    /// Without rules nothing is counted: no rule was looked up.
    #[inline(always)]
    fn count_hits(&mut self, context: &BurstContext<'_>, frames: usize) {
        if !context.snap.rules.is_empty() {
            self.hits += frames as u64;
        }
    }

    /// The entry of the frame's flow, if it still holds. `RULES`: whether there are rules. The sender is learned.
    #[inline(always)]
    fn lookup<'m, const RULES: bool>(
        sets: &'m mut [Set],
        learned: &mut Station,
        context: &BurstContext<'_>,
        frame: &[u8],
    ) -> Option<&'m Entry> {
        let entry = if !RULES {
            let flow = l2_key(context.ingress, frame)?;
            find(sets, hash_l2(flow), context.snap.epoch, flow)?
        } else if let Some(flow) = untagged_v4_key(context.ingress, frame) {
            find(sets, hash_v4(flow), context.snap.epoch, flow)?
        } else {
            find_any(sets, context, frame)?
        };
        if frame.len() > usize::from(entry.max_len) {
            return None;
        }
        if *learned != entry.sender {
            *learned = entry.sender.learned_at_ingress(context)?;
        }
        if entry.fdb_entry.is_some_and(|entry| !context.fdb.is_current(entry)) {
            return None;
        }
        // A store only if need be: most frames find the line clean.
        if !entry.in_use {
            entry.in_use = true;
        }
        Some(entry)
    }

    #[inline(never)]
    fn decide_and_insert<'a>(&mut self, context: &BurstContext<'a>, frame: &[u8]) -> Decision<'a> {
        let decision = decide(context, frame, frame.len(), &mut self.lookup, &mut NoTrace);
        self.misses += 1;
        let (epoch, ingress) = (context.snap.epoch, context.ingress);
        self.tags.keep_to(epoch);
        let flow = match context.snap.rules.is_empty() {
            true => l2_key(ingress, frame).map(|flow @ [a, b, c]| (hash_l2(flow), [a, b, c, 0, 0, 0, 0])),
            false => flow_key(ingress, frame).map(|flow| (hash(flow), flow)),
        };
        if matches!(decision.verdict, Verdict::Unicast { .. })
            && let Some((hash, flow)) = flow
            && let insertion = self.insertion.missed(hash)
            && insertion != Insertion::No
            && let Some(set) = self.sets.get_mut(set_of(hash))
            && let Some(place) = victim(set, &flow, epoch, insertion == Insertion::Evict)
            && let Some(entry) = Entry::new(flow, &decision, context, frame)
        {
            set[place] = entry;
            self.tags.put(hash, place);
        }
        decision
    }
}

/// Where a frame goes that is only to be counted by its rule and sent; `None` if there is more to do.
#[inline]
fn plain_egress(decision: &Decision<'_>) -> Option<Egress> {
    let Verdict::Unicast { port, edit, queue, redirected_from: None } = decision.verdict else { return None };
    decision.rule.is_none_or(|rule| rule.is_plain()).then(|| Egress::new(port, edit, queue))
}
