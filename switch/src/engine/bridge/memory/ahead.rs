//! A burst of which much has to be looked up: what that needs is loaded, and rules are found, for all frames together before the first
//! is decided on.
//!
//! Decisions depend on each other by what they learn, so they are made one after the other; and each would wait for a few lines
//! from memory, one after the other too. Which rule applies depends on nothing but the frame, so the lines of all frames can be on
//! their way at once.

use std::hint::black_box;

use super::flow::{flow_of, hash, hash_l2, hash_v4, l2, untagged_v4};
use super::{Entry, Memory, Scene};
use crate::engine::bridge::course::{Course, Run};
use crate::engine::bridge::{Decision, Verdict};
use crate::engine::fdb::Fdb;
use crate::engine::meter::Color;
use crate::engine::parse::parse_l2;
use crate::engine::rule::{Key, NONE, TOGETHER};
use crate::engine::vlan;
use crate::model::{MacAddr, Vid};

/// What was found out about the next frames of a burst.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Index of the rule that applies, or [`NONE`]; `None` if the memory may know the frame's flow, and was not asked, or if it is no frame.
    found: [Option<u32>; TOGETHER],
    next: usize,
    end: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { found: [None; TOGETHER], next: 0, end: 0 }
    }
}

impl Ahead {
    /// Forgets it all.
    #[inline]
    pub(super) fn clear(&mut self) {
        (self.next, self.end) = (0, 0);
    }

    /// Whether something is known of the next frame.
    #[inline]
    pub(super) fn is_some(&self) -> bool {
        self.next < self.end
    }

    /// What is known of the next frame.
    fn pop(&mut self) -> Option<u32> {
        if !self.is_some() {
            return None;
        }
        self.next += 1;
        self.found[self.next - 1]
    }
}

impl Memory {
    /// Finds out about the next frames of the burst, as many as [`TOGETHER`].
    #[inline(never)]
    pub(super) fn look_ahead<'f>(&mut self, scene: &Scene<'_>, frames: impl Iterator<Item = &'f [u8]>) {
        let frames = frames.take(TOGETHER);
        self.held.keep_up(scene.snap.epoch);
        if scene.snap.rules.is_empty() {
            self.look_at_stations(scene, frames)
        } else {
            self.look_at_rules(scene, frames)
        }
    }

    /// While there are no rules: loads what is known of frames' stations.
    fn look_at_stations<'f>(&mut self, scene: &Scene<'_>, frames: impl Iterator<Item = &'f [u8]>) {
        let (mut entries, vid, mut last, mut all) = (Entries::default(), untagged_vid(scene), MacAddr::BROADCAST, 0);
        for (found, frame) in self.ahead.found.iter_mut().zip(frames) {
            *found = Some(NONE);
            if let Some(held) = l2(scene.ingress, frame).and_then(|flow| self.held.find(hash_l2(flow))) {
                entries.push(held);
                *found = None;
            }
            all ^= peek_stations(scene.fdb, vid, frame, &mut last);
            self.ahead.end += 1;
        }
        black_box(all ^ entries.peek(&self.decided, scene));
    }

    /// Finds the rules of frames whose flows are not remembered, and loads what their application needs.
    fn look_at_rules<'f>(&mut self, scene: &Scene<'_>, frames: impl Iterator<Item = &'f [u8]>) {
        let (mut keys, mut places, mut count) = ([Key::default(); TOGETHER], [0; TOGETHER], 0);
        let (mut entries, vid, mut last, mut all) = (Entries::default(), untagged_vid(scene), MacAddr::BROADCAST, 0);
        for (at, frame) in frames.enumerate() {
            self.ahead.found[at] = None;
            self.ahead.end = at + 1;
            let hash = match untagged_v4(scene.ingress, frame) {
                Some(flow) => Some(hash_v4(flow)),
                None => flow_of(scene.ingress, frame).map(hash),
            };
            if let Some(held) = hash.and_then(|hash| self.held.find(hash)) {
                entries.push(held);
            } else if let Ok(l2) = parse_l2(frame) {
                all ^= peek_stations(scene.fdb, vid, frame, &mut last);
                (keys[count], places[count]) = (Key::read(scene.ingress, frame, &l2), at);
                count += 1;
            }
        }
        all ^= entries.peek(&self.decided, scene);
        let found = self.flows.find_all(&scene.snap.rules, &keys[..count]);
        for (at, rule) in places.into_iter().zip(found).take(count) {
            self.ahead.found[at] = Some(rule.map_or(NONE, |rule| rule.index));
            all ^= rule.map_or(0, |rule| rule.peek(scene.worker));
        }
        black_box(all);
    }

    /// As [`Memory::recall_all`], for frames that were looked at ahead: those that are decided on anew go along too, if there is nothing to do but to
    /// send them.
    #[inline(never)]
    pub(super) fn decide_each<'a, 'f>(
        &mut self,
        scene: &Scene<'a>,
        frames: impl Iterator<Item = &'f [u8]>,
        runs: &mut Vec<Run>,
    ) -> (usize, Option<Decision<'a>>) {
        let mut before = 0;
        for frame in frames {
            let decision = match self.ahead.pop() {
                None => self.decide(scene, frame),
                known => {
                    self.known = known;
                    let decision = self.decide_and_remember(scene, frame);
                    self.known = None;
                    decision
                }
            };
            let Some(course) = simple_course(&decision) else { return (before, Some(decision)) };
            if let Some(rule) = decision.rule {
                rule.applied(scene.worker, frame.len());
            }
            Run { course, color: Color::Green, frames: 1, bytes: frame.len() }.add_to(runs);
            before += 1;
        }
        (before, None)
    }
}

/// The VLAN of untagged frames, which most are; for others the MAC table is waited for.
fn untagged_vid(scene: &Scene<'_>) -> Option<Vid> {
    vlan::ingress(&scene.snap.port(scene.ingress)?.vlan, None).ok()
}

/// Entries that may be those of frames: sets and places in them.
#[derive(Debug)]
struct Entries {
    places: [(usize, usize); TOGETHER],
    count: usize,
}

impl Default for Entries {
    fn default() -> Self {
        Self { places: [(0, 0); TOGETHER], count: 0 }
    }
}

impl Entries {
    /// Adds one.
    #[inline]
    fn push(&mut self, place: (usize, usize)) {
        self.places[self.count] = place;
        self.count += 1;
    }

    /// Loads all of them, and then what they name. What this returns, and functions like it, means nothing.
    fn peek(&self, decided: &[[Entry; 2]], scene: &Scene<'_>) -> u64 {
        let places = self.places.iter().take(self.count);
        let entries = places.filter_map(|(set, place)| decided.get(*set)?.get(*place));
        let all = entries.clone().fold(0, |all, entry| all ^ entry.epoch ^ u64::from(entry.max_len));
        // What others name may be places of a MAC table that is gone.
        entries.filter(|entry| entry.epoch == scene.snap.epoch).fold(all, |all, entry| {
            let is_still_there = entry.spot.is_some_and(|spot| scene.fdb.is_still_at(spot));
            all ^ u64::from(is_still_there) ^ entry.rule(scene).map_or(0, |rule| rule.peek(scene.worker))
        })
    }
}

/// Loads where the MAC table has a frame's destination, and its sender if that is not `last`, the one before.
#[inline]
fn peek_stations(fdb: &Fdb, vid: Option<Vid>, frame: &[u8], last: &mut MacAddr) -> u64 {
    let (Some(vid), Some([dst, src])) = (vid, frame.as_chunks().0.first_chunk()) else { return 0 };
    let src = MacAddr::new(*src);
    let of_src = if src == *last { 0 } else { fdb.peek(src, vid) };
    *last = src;
    u64::from(fdb.peek(MacAddr::new(*dst), vid) ^ of_src)
}

/// Where a frame goes, if there is nothing to do but to count its rule and to send it.
#[inline]
fn simple_course(decision: &Decision<'_>) -> Option<Course> {
    let Verdict::Unicast { port, edit, queue, instead_of: None } = decision.verdict else { return None };
    decision.rule.is_none_or(|rule| rule.is_simple()).then(|| Course::new(port, edit, queue))
}
