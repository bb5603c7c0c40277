//! Prefetching for a burst of which much is not cached: all lines that its lookups need are loaded, and rules are
//! found, for all frames together.
//!
//! A frame's decision depends on what the frames before it taught the FDB. So decisions are made one after the other,
//! and each would wait for its lines from memory. Which rule applies depends on the frame alone. So the lines of all
//! frames can be on their way at once.
//!
//! Functions named `touch` load what a later lookup will most probably need. What they return means nothing. It is
//! folded together and given to [`black_box`], so that the compiler keeps the loads.

use std::hint::black_box;

use super::entry::Set;
use super::flow_key::{flow_key, hash, hash_l2, hash_v4, l2_key, untagged_v4_key};
use super::tags::TagIndex;
use crate::engine::bridge::context::BurstContext;
use crate::engine::fdb::Fdb;
use crate::engine::parse::parse_l2;
use crate::engine::rule::{ExactMatchCache, Key, MAX_BATCH, NONE};
use crate::engine::vlan;
use crate::model::{MacAddr, Vid};

/// What was found out about the next frames of a burst.
#[derive(Debug)]
pub(super) struct Prefetched {
    /// For each frame the index of the rule that applies, or [`NONE`]. `None` if the frame's flow may be cached, so
    /// that its rule was not looked up, or if it is no frame.
    found: [Option<u32>; MAX_BATCH],
    next: usize,
    end: usize,
}

impl Default for Prefetched {
    fn default() -> Self {
        Self { found: [None; MAX_BATCH], next: 0, end: 0 }
    }
}

impl Prefetched {
    /// Forgets it all.
    #[inline]
    pub(super) fn clear(&mut self) {
        (self.next, self.end) = (0, 0);
    }

    /// Whether something was found out about the next frame.
    #[inline]
    pub(super) fn is_some(&self) -> bool {
        self.next < self.end
    }

    /// What was found out about the next frame.
    pub(super) fn pop(&mut self) -> Option<u32> {
        if !self.is_some() {
            return None;
        }
        self.next += 1;
        self.found[self.next - 1]
    }

    /// Prefetches for the next frames of the burst, as many as [`MAX_BATCH`].
    #[inline(never)]
    pub(super) fn fill<'f>(
        &mut self,
        context: &BurstContext<'_>,
        frames: impl Iterator<Item = &'f [u8]>,
        tags: &TagIndex,
        sets: &[Set],
        exact_match: &mut ExactMatchCache,
    ) {
        let frames = frames.take(MAX_BATCH);
        if context.snap.rules.is_empty() {
            self.fill_without_rules(context, frames, tags, sets)
        } else {
            self.fill_with_rules(context, frames, tags, sets, exact_match)
        }
    }

    /// Loads FDB entries and cache entries.
    fn fill_without_rules<'f>(
        &mut self,
        context: &BurstContext<'_>,
        frames: impl Iterator<Item = &'f [u8]>,
        tags: &TagIndex,
        sets: &[Set],
    ) {
        let (mut candidates, vid, mut last, mut all) =
            (Candidates::default(), untagged_vid(context), MacAddr::BROADCAST, 0);
        for (found, frame) in self.found.iter_mut().zip(frames) {
            *found = Some(NONE);
            if let Some(place) = l2_key(context.ingress, frame).and_then(|flow| tags.find(hash_l2(flow))) {
                candidates.push(place);
                *found = None;
            }
            all ^= touch_stations(context.fdb, vid, frame, &mut last);
            self.end += 1;
        }
        black_box(all ^ candidates.touch(sets, context));
    }

    /// Finds the rules of frames whose flows are not cached, and loads what applying them needs.
    fn fill_with_rules<'f>(
        &mut self,
        context: &BurstContext<'_>,
        frames: impl Iterator<Item = &'f [u8]>,
        tags: &TagIndex,
        sets: &[Set],
        exact_match: &mut ExactMatchCache,
    ) {
        let (mut keys, mut places, mut count) = ([Key::default(); MAX_BATCH], [0; MAX_BATCH], 0);
        let (mut candidates, vid, mut last, mut all) =
            (Candidates::default(), untagged_vid(context), MacAddr::BROADCAST, 0);
        for (at, frame) in frames.enumerate() {
            self.found[at] = None;
            self.end = at + 1;
            let hash = match untagged_v4_key(context.ingress, frame) {
                Some(flow) => Some(hash_v4(flow)),
                None => flow_key(context.ingress, frame).map(hash),
            };
            if let Some(place) = hash.and_then(|hash| tags.find(hash)) {
                candidates.push(place);
            } else if let Ok(l2) = parse_l2(frame) {
                all ^= touch_stations(context.fdb, vid, frame, &mut last);
                (keys[count], places[count]) = (Key::read(context.ingress, frame, &l2), at);
                count += 1;
            }
        }
        all ^= candidates.touch(sets, context);
        let found = exact_match.find_all(&context.snap.rules, &keys[..count]);
        for (at, rule) in places.into_iter().zip(found).take(count) {
            self.found[at] = Some(rule.map_or(NONE, |rule| rule.index));
            all ^= rule.map_or(0, |rule| rule.touch(context.worker));
        }
        black_box(all);
    }
}

/// The VLAN of untagged frames at the ingress port. Most frames are untagged. Others wait for the FDB.
fn untagged_vid(context: &BurstContext<'_>) -> Option<Vid> {
    vlan::ingress(&context.snap.port(context.ingress)?.vlan, None).ok()
}

/// Cache entries that may be those of frames: sets, and places in them.
#[derive(Debug)]
struct Candidates {
    places: [(usize, usize); MAX_BATCH],
    count: usize,
}

impl Default for Candidates {
    fn default() -> Self {
        Self { places: [(0, 0); MAX_BATCH], count: 0 }
    }
}

impl Candidates {
    #[inline]
    fn push(&mut self, place: (usize, usize)) {
        self.places[self.count] = place;
        self.count += 1;
    }

    /// Loads all of them, and then the FDB entries and rules that they name.
    fn touch(&self, sets: &[Set], context: &BurstContext<'_>) -> u64 {
        let places = self.places.iter().take(self.count);
        let entries = places.filter_map(|(set, place)| sets.get(*set)?.get(*place));
        let all = entries.clone().fold(0, |all, entry| all ^ entry.epoch ^ u64::from(entry.max_len));
        // Entries of other epochs may name slots of an FDB that is gone.
        entries.filter(|entry| entry.epoch == context.snap.epoch).fold(all, |all, entry| {
            let is_current = entry.fdb_entry.is_some_and(|entry| context.fdb.is_current(entry));
            all ^ u64::from(is_current) ^ entry.rule(context).map_or(0, |rule| rule.touch(context.worker))
        })
    }
}

/// Loads the FDB entries of a frame's destination, and of its sender if that is not `last`, the one of the frame
/// before.
#[inline]
fn touch_stations(fdb: &Fdb, vid: Option<Vid>, frame: &[u8], last: &mut MacAddr) -> u64 {
    let (Some(vid), Some([dst, src])) = (vid, frame.as_chunks().0.first_chunk()) else { return 0 };
    let src = MacAddr::new(*src);
    let of_src = if src == *last { 0 } else { fdb.touch(src, vid) };
    *last = src;
    u64::from(fdb.touch(MacAddr::new(*dst), vid) ^ of_src)
}
