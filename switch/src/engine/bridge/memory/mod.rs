//! What a worker remembers of the frames before: the observer of the hot path.
//!
//! A plain packet (TCP or UDP, whole, with one tag or none) that is forwarded to one port leaves its decision behind, under
//! those of its bytes that the decision came from. The next packet with the same goes the same way without being asked all the
//! questions again, as long as nothing has changed that the answers came from: the policy's epoch and, if the MAC table said
//! where to, the entry there. What these bytes do not say is looked at for each frame: its length, and that its sender is
//! learned. Drops and floods are decided anew each time. While there are no rules, addresses, EtherType and tag of an IP frame say it all,
//! and that is what is remembered then.
//!
//! Frames of a burst are recalled in one go, and come out as runs that leave by the same course ([`Memory::recall_all`]).
//!
//! While much of a burst has to be looked up, the next one begins with that: for all its frames together (`ahead`).
//!
//! Of a fixed size, a worker's own. Sets of two places. A flow is written down when it is asked for again while that is noted (`Asked`), or by
//! lot; one that still holds gives way by lot only, and if no frame went by it since the last time. So flows that come once, or too many in
//! turn, cost next to nothing and do not displace what is in use. An entry has all that a table of flows elsewhere would need to forward for the worker.

mod ahead;
mod flow;

use self::ahead::Ahead;
use self::flow::{Flow, WORDS, flow_of, hash, hash_l2, hash_v4, l2, untagged_v4};
use super::course::{Course, Run};
use super::{Decision, Fdb, Names, Observer, Verdict, decide_at, header_len};
use crate::engine::PortNo;
use crate::engine::fdb::{Learn, Spot};
use crate::engine::meter::Color;
use crate::engine::parse::parse_l2;
use crate::engine::rule::{FlowCache, Key, Rule, Rules};
use crate::engine::snapshot::Snapshot;
use crate::engine::vlan;
use crate::model::{LookupCounts, MacAddr, RuleTarget, Vid};

/// Sets of two entries; a power of two.
const SETS: usize = 2048;
/// Frames of a burst that had to be looked up, from which on the next burst is looked up ahead.
const MANY: u32 = 16;
/// One in so many of the flows that are asked for again may displace another.
const AGAIN: u64 = 4;
/// One in so many of all others is written down, and may do so too.
const ONCE: u64 = 64;
/// An epoch that no policy has.
const NEVER: u64 = u64::MAX;

/// The set that the entry of a flow with that hash is in.
#[inline(always)]
fn set_of(hash: u64) -> usize {
    (hash ^ hash >> 32) as usize % SETS
}

/// The part of a flow's hash that is kept apart from the entries.
#[inline(always)]
fn tag_of(hash: u64) -> u16 {
    (hash >> 48) as u16
}

/// Of each entry of one epoch the tag of its flow: whether a flow may be remembered is asked here without a look at the entries, which
/// take sixty times as much of the CPU's caches.
#[derive(Debug)]
struct Held {
    tags: Box<[[u16; 2]]>,
    epoch: u64,
}

impl Held {
    /// Forgets what was of another epoch.
    #[inline]
    fn keep_up(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.tags.fill([0; 2]);
        }
    }

    /// The set and the place in it where there may be an entry for a flow.
    #[inline]
    fn find(&self, hash: u64) -> Option<(usize, usize)> {
        let set = set_of(hash);
        let place = self.tags.get(set)?.iter().position(|tag| *tag == tag_of(hash))?;
        Some((set, place))
    }
}

/// Flows that were asked for a while ago: for each set of entries a part of the hashes of the last four.
#[derive(Debug)]
struct Asked(Box<[u64]>);

impl Asked {
    /// Notes a flow; whether it had been.
    #[inline]
    fn again(&mut self, hash: u64) -> bool {
        let tag = u64::from(tag_of(hash));
        let Some(four) = self.0.get_mut(set_of(hash)) else { return false };
        let noted = (0..4).any(|n| *four >> (16 * n) & 0xffff == tag);
        if !noted {
            *four = *four << 16 | tag;
        }
        noted
    }
}

/// Draws lots.
#[derive(Debug)]
struct Lot(u64);

impl Lot {
    /// Whether the next one wins, as one in so many does (a power of two).
    #[inline]
    fn is_one_in(&mut self, many: u64) -> bool {
        // A linear congruential generator; its upper bits are good enough.
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 32).is_multiple_of(many)
    }
}

/// A decision, and what it holds for: two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    flow: Flow<WORDS>,
    epoch: u64,
    course: Course,
    /// The sender, to be learned.
    station: Station,
    /// The entry of the MAC table that names the port; `None` if the rule does.
    spot: Option<Spot>,
    /// Index of the rule that applies.
    rule: Option<u32>,
    /// The port that it was for, if what would go there is redirected.
    instead_of: Option<PortNo>,
    /// Bytes of the longest frame that may pass.
    max_len: u16,
    /// Whether there is nothing to do but to count the rule and to send the frame.
    is_simple: bool,
    /// Whether a frame went by it since a flow that might have displaced it last found no place.
    found: bool,
}

const _: () = assert!(size_of::<Entry>() == 128);

const EMPTY: Entry = Entry {
    flow: [0; WORDS],
    epoch: NEVER,
    course: Course::NOWHERE,
    station: Station::NONE,
    spot: None,
    rule: None,
    instead_of: None,
    max_len: 0,
    is_simple: false,
    found: false,
};

/// An address in a VLAN, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Station(u64);

impl Station {
    const NONE: Self = Self(u64::MAX);

    #[inline]
    fn new(mac: MacAddr, vid: Vid) -> Self {
        Self(mac.to_u64() << 16 | u64::from(vid))
    }

    /// Learns where it is; returns it, unless that was skipped.
    #[inline]
    fn learn_at(self, fdb: &Fdb, port: PortNo, port_limit: u32, now: u32) -> Self {
        let (mac, vid) = (MacAddr::from_u64(self.0 >> 16), self.0 as Vid);
        if fdb.learn(mac, vid, port, port_limit, now) == Learn::Skipped { Self::NONE } else { self }
    }

    /// The same, behind the port of a burst, if there is one.
    #[inline(never)]
    fn learn(self, scene: &Scene<'_>) -> Option<Self> {
        let limit = scene.snap.port(scene.ingress)?.fdb_limit;
        Some(self.learn_at(scene.fdb, scene.ingress, limit, scene.now))
    }
}

/// What the frames of a burst have in common.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The policy.
    pub snap: &'a Snapshot,
    /// The MAC table.
    pub fdb: &'a Fdb,
    /// The second.
    pub now: u32,
    /// The port that they came in from.
    pub ingress: PortNo,
    /// The worker that has them.
    pub worker: usize,
}

/// The memory.
#[derive(Debug)]
pub struct Memory {
    flows: FlowCache,
    decided: Box<[[Entry; 2]]>,
    held: Held,
    asked: Asked,
    lot: Lot,
    /// The station that the frame before was of, if it was learned in this burst.
    learned: Station,
    recalled: u64,
    /// Frames of this burst that had to be looked up.
    looked_up: u32,
    /// Whether to look ahead at what is left of this burst.
    is_eager: bool,
    ahead: Ahead,
    /// The rule that applies to the frame that is decided on, as [`Ahead`] says it.
    known: Option<u32>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            flows: FlowCache::default(),
            decided: vec![[EMPTY; 2]; SETS].into_boxed_slice(),
            held: Held { tags: vec![[0; 2]; SETS].into_boxed_slice(), epoch: NEVER },
            asked: Asked(vec![0; SETS].into_boxed_slice()),
            lot: Lot(1),
            learned: Station::NONE,
            recalled: 0,
            looked_up: 0,
            is_eager: false,
            ahead: Ahead::default(),
            known: None,
        }
    }
}

impl Observer for Memory {
    const LEARN: bool = true;

    #[inline(always)]
    fn step(&mut self, _stage: &'static str, _detail: impl FnOnce(Names<'_>) -> String) {}

    #[inline]
    fn learn(&mut self, fdb: &Fdb, mac: MacAddr, vid: Vid, port: PortNo, port_limit: u32, now: u32) {
        let station = Station::new(mac, vid);
        if self.learned != station {
            self.learned = station.learn_at(fdb, port, port_limit, now);
        }
    }

    #[inline]
    fn classify<'a>(&mut self, rules: &'a Rules, key: impl FnOnce() -> Key) -> Option<&'a Rule> {
        match self.known {
            Some(index) => rules.get(index).map(AsRef::as_ref),
            None => self.flows.find(rules, &key()),
        }
    }
}

impl Memory {
    /// A burst begins: its frames all came in from one port at one time, so that a station is learned once as long as the
    /// frames are its own.
    #[inline]
    pub fn begin_burst(&mut self) {
        self.learned = Station::NONE;
        self.is_eager = self.looked_up >= MANY;
        self.ahead.clear();
        self.looked_up = 0;
    }

    /// How rules were found so far.
    #[inline]
    pub fn lookups(&self) -> LookupCounts {
        let (cached, searched) = self.flows.counts();
        LookupCounts { remembered: self.recalled, cached, searched }
    }

    /// As [`decide_at`]. All frames of a burst are decided on by this, or all by [`Memory::recall_all`].
    #[inline]
    pub fn decide<'a>(&mut self, scene: &Scene<'a>, frame: &[u8]) -> Decision<'a> {
        let (decided, learned) = (&mut self.decided, &mut self.learned);
        let entry = match scene.snap.rules.is_empty() {
            true => Self::recall::<false>(decided, learned, scene, frame),
            false => Self::recall::<true>(decided, learned, scene, frame),
        };
        match entry {
            Some(entry) => {
                let decision = entry.decision(scene);
                self.count(scene, 1);
                decision
            }
            None => self.decide_and_remember(scene, frame),
        }
    }

    /// Decides on frames, as long as there is nothing to do but to send them, and what was decided on their flows is remembered or their rules were
    /// found ahead: their rules have counted them, and `runs` gets where they go. Returns how many, and the decision on the frame that comes
    /// after those, if there is one.
    #[inline]
    pub fn recall_all<'a, 'f>(
        &mut self,
        scene: &Scene<'a>,
        frames: impl Iterator<Item = &'f [u8]> + Clone,
        runs: &mut Vec<Run>,
    ) -> (usize, Option<Decision<'a>>) {
        if std::mem::take(&mut self.is_eager) {
            self.look_ahead(scene, frames.clone());
        }
        if self.ahead.is_some() {
            self.decide_each(scene, frames, runs)
        } else if scene.snap.rules.is_empty() {
            self.recall_each::<false>(scene, frames, runs)
        } else {
            self.recall_each::<true>(scene, frames, runs)
        }
    }

    /// The loop of [`Self::recall_all`], with and without rules: a function each, so that each has all registers to itself.
    #[inline(never)]
    fn recall_each<'a, 'f, const RULES: bool>(
        &mut self,
        scene: &Scene<'a>,
        frames: impl Iterator<Item = &'f [u8]>,
        runs: &mut Vec<Run>,
    ) -> (usize, Option<Decision<'a>>) {
        let mut run = Run { course: Course::NOWHERE, color: Color::Green, frames: 0, bytes: 0 };
        let (mut before, mut after) = (0, None);
        for frame in frames {
            let Some(entry) = Self::recall::<RULES>(&mut self.decided, &mut self.learned, scene, frame) else {
                after = Some(self.decide_and_remember(scene, frame));
                break;
            };
            if !entry.is_simple {
                after = Some(entry.decision(scene));
                self.count(scene, 1);
                break;
            }
            if let Some(rule) = entry.rule(scene) {
                rule.applied(scene.worker, frame.len());
            }
            if entry.course != run.course {
                before += run.frames;
                run.add_to(runs);
                run = Run { course: entry.course, frames: 0, bytes: 0, ..run };
            }
            run.frames += 1;
            run.bytes += frame.len();
        }
        before += run.frames;
        self.count(scene, before);
        run.add_to(runs);
        (before, after)
    }

    /// Counts frames whose rules were remembered.
    #[inline(always)]
    fn count(&mut self, scene: &Scene<'_>, frames: usize) {
        if !scene.snap.rules.is_empty() {
            self.recalled += frames as u64;
        }
    }

    /// What was decided on the frame's flow, if it still holds.
    #[inline(always)]
    fn recall<'m, const RULES: bool>(
        decided: &'m mut [[Entry; 2]],
        learned: &mut Station,
        scene: &Scene<'_>,
        frame: &[u8],
    ) -> Option<&'m Entry> {
        let entry = if !RULES {
            let flow = l2(scene.ingress, frame)?;
            find(decided, hash_l2(flow), scene.snap.epoch, flow)?
        } else if let Some(flow) = untagged_v4(scene.ingress, frame) {
            find(decided, hash_v4(flow), scene.snap.epoch, flow)?
        } else {
            find_any(decided, scene, frame)?
        };
        if frame.len() > usize::from(entry.max_len) {
            return None;
        }
        if *learned != entry.station {
            *learned = entry.station.learn(scene)?;
        }
        if entry.spot.is_some_and(|spot| !scene.fdb.is_still_at(spot)) {
            return None;
        }
        if !entry.found {
            entry.found = true;
        }
        Some(entry)
    }

    #[inline(never)]
    fn decide_and_remember<'a>(&mut self, scene: &Scene<'a>, frame: &[u8]) -> Decision<'a> {
        let &Scene { snap, fdb, now, ingress, .. } = scene;
        let decision = decide_at(snap, fdb, now, ingress, frame, self);
        self.looked_up += 1;
        self.held.keep_up(snap.epoch);
        let flow = match snap.rules.is_empty() {
            true => l2(ingress, frame).map(|flow @ [a, b, c]| (hash_l2(flow), [a, b, c, 0, 0, 0, 0])),
            false => flow_of(ingress, frame).map(|flow| (hash(flow), flow)),
        };
        // Nothing else is remembered.
        if matches!(decision.verdict, Verdict::Unicast { .. })
            && let Some((hash, flow)) = flow
            && let again = self.asked.again(hash)
            && let is_lucky = self.lot.is_one_in(if again { AGAIN } else { ONCE })
            && (again || is_lucky)
            && let Some(set) = self.decided.get_mut(set_of(hash))
            && let Some(tags) = self.held.tags.get_mut(set_of(hash))
            && let Some(at) = place_of(set, &flow, snap.epoch, is_lucky)
            && let Some(entry) = remembered(flow, &decision, snap, fdb, ingress, frame)
        {
            (set[at], tags[at]) = (entry, tag_of(hash));
        }
        decision
    }
}

/// The entry of a frame's flow, whatever it is.
#[inline(never)]
fn find_any<'m>(decided: &'m mut [[Entry; 2]], scene: &Scene<'_>, frame: &[u8]) -> Option<&'m mut Entry> {
    let flow = flow_of(scene.ingress, frame)?;
    find(decided, hash(flow), scene.snap.epoch, flow)
}

/// The entry of that hash and epoch whose flow begins with those words.
#[inline(always)]
fn find<const N: usize>(decided: &mut [[Entry; 2]], hash: u64, epoch: u64, flow: Flow<N>) -> Option<&mut Entry> {
    let [first, second] = decided.get_mut(set_of(hash))?;
    let is_it = |entry: &Entry| entry.epoch == epoch && (0..N).all(|n| entry.flow[n] == flow[n]);
    if is_it(first) {
        return Some(first);
    }
    is_it(second).then_some(second)
}

/// Where in a set the entry of a flow may be put: where its own is, or what is there is of another epoch. If it `is_lucky`, also in place
/// of one that no frame went by since the last time that a lucky one found no place.
fn place_of(set: &mut [Entry; 2], flow: &Flow<WORDS>, epoch: u64, is_lucky: bool) -> Option<usize> {
    let first = |is_it: &dyn Fn(&Entry) -> bool| set.iter().position(is_it);
    let free = first(&|old| old.flow == *flow).or_else(|| first(&|old| old.epoch != epoch));
    if free.is_some() || !is_lucky {
        return free;
    }
    let forgotten = first(&|old| !old.found);
    if forgotten.is_none() {
        set.iter_mut().for_each(|old| old.found = false);
    }
    forgotten
}

impl Entry {
    /// The rule that applies.
    #[inline]
    fn rule<'a>(&self, scene: &Scene<'a>) -> Option<&'a Rule> {
        scene.snap.rules.get(self.rule?).map(AsRef::as_ref)
    }

    fn decision<'a>(&self, scene: &Scene<'a>) -> Decision<'a> {
        let (course, instead_of) = (self.course, self.instead_of);
        let verdict = Verdict::Unicast { port: course.port(), edit: course.edit(), queue: course.queue(), instead_of };
        Decision { verdict, at: scene.ingress, rule: self.rule(scene) }
    }
}

/// What to remember of a decision on a plain frame, if it is one to remember.
fn remembered(
    flow: Flow<WORDS>,
    decision: &Decision<'_>,
    snap: &Snapshot,
    fdb: &Fdb,
    ingress: PortNo,
    frame: &[u8],
) -> Option<Entry> {
    let Verdict::Unicast { port, edit, queue, instead_of } = decision.verdict else { return None };
    let l2 = parse_l2(frame).ok()?;
    let vid = vlan::ingress(&snap.port(ingress)?.vlan, l2.tag).ok()?;
    let rule = decision.rule;
    let spot = match rule.map(|rule| rule.action.target) {
        Some(RuleTarget::Port(_)) => None,
        // Another worker may have moved the station since.
        _ => Some(fdb.spot(l2.dst, vid).filter(|spot| spot.port() == instead_of.unwrap_or(port))?),
    };
    let max_len = snap.port(port)?.mtu.saturating_add(header_len(l2.tag) as u32);
    Some(Entry {
        flow,
        epoch: snap.epoch,
        course: Course::new(port, edit, queue),
        station: Station::new(l2.src, vid),
        spot,
        rule: rule.map(|rule| rule.index),
        instead_of,
        max_len: u16::try_from(max_len).unwrap_or(u16::MAX),
        is_simple: instead_of.is_none() && rule.is_none_or(Rule::is_simple),
        found: true,
    })
}
