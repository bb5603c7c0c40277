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
//! While much of a burst has to be looked up, the next one begins with a glance at all places where its frames' answers may be, so that they
//! come from memory together and not one after the other.
//!
//! Of a fixed size, a worker's own. Sets of two places, of which a new flow takes the one that was not found last, and only when it
//! is asked for again while that is noted (`Asked`): flows that come once, or too many in turn, cost next to nothing and do not displace one that
//! is in use. An entry has all that a table of flows elsewhere would need to forward for the worker.

use std::hint::black_box;

use super::course::{Course, Run};
use super::{Decision, Fdb, Names, Observer, Verdict, decide_at, header_len};
use crate::engine::PortNo;
use crate::engine::fdb::{Learn, Spot};
use crate::engine::mac::MacAddr;
use crate::engine::meter::Color;
use crate::engine::parse::{
    ETH_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Plain, TPID_CTAG, TPID_STAG, Tag, VLAN_TAG, be16, fold_product,
    parse_l2,
};
use crate::engine::rule::{FlowCache, Key, NONE, Rule, Rules};
use crate::engine::snapshot::Snapshot;
use crate::engine::vlan::{self, Vid};
use crate::model::{LookupCounts, MAX_PORTS, RuleTarget};

/// Sets of two entries; a power of two.
const SETS: usize = 2048;
/// Frames of a burst that had to be looked up, from which on the next burst is looked up ahead.
const MANY: u32 = 16;
/// Frames of a burst whose rules are looked at ahead.
const AHEAD: usize = 64;
/// An epoch that no policy has.
const NEVER: u64 = u64::MAX;

/// Words of a [`Flow`].
const WORDS: usize = 7;
/// Those of them that IPv4 uses.
const WORDS_V4: usize = 4;
/// Those that count while there are no rules.
const WORDS_L2: usize = 3;

/// What of a plain frame decides, in the bytes' own order: addresses and EtherType (or TPID) in two words that overlap; ports,
/// VLAN tag, ingress port and protocol in one; IP addresses, which are one word in IPv4 and four in IPv6.
type Flow<const N: usize> = [u64; N];

/// Bit of the third word: the packet is IPv6.
const V6: u64 = 1 << 63;
/// Bit of the third word: the packet is TCP.
const TCP: u64 = 1 << 62;
/// Where the ingress port is in the third word, above ports and tag.
const INGRESS: u32 = 48;
const _: () = assert!(MAX_PORTS <= 1 << (62 - INGRESS));

/// Addresses, EtherType, tag and ingress port of an IP frame: what decides while there are no rules.
#[inline(always)]
fn l2(ingress: PortNo, frame: &[u8]) -> Option<Flow<WORDS_L2>> {
    let header = frame.first_chunk::<{ ETH_HEADER + VLAN_TAG }>()?;
    // Of ARP more is looked at.
    let is_ip = |at| matches!(be16(header, at), Some(ETHERTYPE_IPV4 | ETHERTYPE_IPV6));
    let ingress = u64::from(ingress) << INGRESS;
    let third = if is_ip(ETH_HEADER - 2) {
        ingress
    } else {
        let is_tagged = matches!(be16(header, ETH_HEADER - 2), Some(TPID_CTAG | TPID_STAG));
        (is_tagged && is_ip(ETH_HEADER + VLAN_TAG - 2)).then_some(())?;
        ingress | u64::from(u32::from_ne_bytes(*header.last_chunk()?))
    };
    Some([word(header, 0)?, word(header, 6)?, third])
}

/// The eight bytes at that offset.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The flow of an untagged IPv4 frame from `ingress`, if it is plain: what most are, so that it has a way of its own.
#[inline(always)]
fn untagged_v4(ingress: PortNo, frame: &[u8]) -> Option<Flow<WORDS_V4>> {
    // The shortest that there is, so that no part of it is looked for in vain.
    let header = frame.first_chunk::<{ ETH_HEADER + 28 }>()?;
    if be16(header, ETH_HEADER - 2) != Some(ETHERTYPE_IPV4) {
        return None;
    }
    v4(ingress, header, None, Plain::check(ETHERTYPE_IPV4, frame.get(ETH_HEADER..)?)?)
}

/// The flow of a frame from `ingress`, if it is plain. The words that only IPv6 has are 0 in IPv4.
fn flow_of(ingress: PortNo, frame: &[u8]) -> Option<Flow<WORDS>> {
    let l2 = parse_l2(frame).ok()?;
    let plain = Plain::check(l2.ethertype, frame.get(l2.payload_offset()..)?)?;
    if plain.v6 {
        return v6(ingress, frame, l2.tag, plain);
    }
    let [a, b, c, d] = v4(ingress, frame, l2.tag, plain)?;
    Some([a, b, c, d, 0, 0, 0])
}

#[inline(always)]
fn v4(ingress: PortNo, frame: &[u8], tag: Option<Tag>, plain: Plain) -> Option<Flow<WORDS_V4>> {
    let ip = if tag.is_some() { ETH_HEADER + VLAN_TAG } else { ETH_HEADER };
    let third = third_word(word(frame, ip + 20)?, tag, ingress, plain);
    Some([word(frame, 0)?, word(frame, 6)?, third, word(frame, ip + 12)?])
}

fn v6(ingress: PortNo, frame: &[u8], tag: Option<Tag>, plain: Plain) -> Option<Flow<WORDS>> {
    let ip = if tag.is_some() { ETH_HEADER + VLAN_TAG } else { ETH_HEADER };
    let third = third_word(word(frame, ip + 40)?, tag, ingress, plain);
    let address = |n: usize| word(frame, ip + 8 + 8 * n);
    Some([word(frame, 0)?, word(frame, 6)?, third, address(0)?, address(1)?, address(2)?, address(3)?])
}

/// Ports (the low half of `ports`), tag, ingress port and protocol.
#[inline(always)]
fn third_word(ports: u64, tag: Option<Tag>, ingress: PortNo, plain: Plain) -> u64 {
    u64::from(ports as u32)
        | u64::from(tag.map_or(0, |tag| tag.tci)) << 32
        | u64::from(ingress) << INGRESS
        | if plain.v6 { V6 } else { 0 }
        | if plain.tcp { TCP } else { 0 }
}

/// Hash of an IPv4 flow.
#[inline(always)]
fn hash_v4([a, b, c, d]: Flow<WORDS_V4>) -> u64 {
    fold_product(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xd1b5_4a32_d192_ed03)
        ^ fold_product(c ^ 0x8bb8_4b93_962e_acc9, d ^ 0x2d35_8dcc_aa6c_78a5)
}

/// Hash of a flow of three words.
#[inline(always)]
fn hash_l2([a, b, c]: Flow<WORDS_L2>) -> u64 {
    fold_product(a ^ 0x9e37_79b9_7f4a_7c15, b ^ c ^ 0xd1b5_4a32_d192_ed03)
}

/// Hash of any flow.
fn hash([a, b, c, d, e, f, g]: Flow<WORDS>) -> u64 {
    if c & V6 == 0 {
        return hash_v4([a, b, c, d]);
    }
    let rest = fold_product(e ^ 0x4b33_a62e_d433_d4a3, f ^ 0x4d5a_2da5_1de1_aa47);
    hash_v4([a, b, c, d ^ rest ^ g.rotate_left(32).wrapping_mul(0xa076_1d64_78bd_642f)])
}

/// The set that the entry of a flow with that hash is in.
#[inline(always)]
fn set_of(hash: u64) -> usize {
    (hash ^ hash >> 32) as usize % SETS
}

/// Flows that were asked for a while ago: for each set of entries a part of the hashes of the last four.
#[derive(Debug)]
struct Asked(Box<[u64]>);

impl Asked {
    /// Notes a flow; whether it had been.
    #[inline]
    fn again(&mut self, hash: u64) -> bool {
        let tag = hash >> 48;
        let Some(four) = self.0.get_mut(set_of(hash)) else { return false };
        let noted = (0..4).any(|n| *four >> (16 * n) & 0xffff == tag);
        if !noted {
            *four = *four << 16 | tag;
        }
        noted
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
    /// Whether it was found later than the other one of its set.
    found_last: bool,
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
    found_last: false,
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
    asked: Asked,
    /// The station that the frame before was of, if it was learned in this burst.
    learned: Station,
    recalled: u64,
    /// Frames of this burst that had to be looked up.
    looked_up: u32,
    /// Whether to look ahead at what is left of this burst.
    is_eager: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            flows: FlowCache::default(),
            decided: vec![[EMPTY; 2]; SETS].into_boxed_slice(),
            asked: Asked(vec![0; SETS].into_boxed_slice()),
            learned: Station::NONE,
            recalled: 0,
            looked_up: 0,
            is_eager: false,
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
    fn classify<'a>(&mut self, rules: &'a Rules, key: &Key) -> Option<&'a Rule> {
        self.flows.find(rules, key)
    }
}

impl Memory {
    /// A burst begins: its frames all came in from one port at one time, so that a station is learned once as long as the
    /// frames are its own.
    #[inline]
    pub fn begin_burst(&mut self) {
        self.learned = Station::NONE;
        self.is_eager = self.looked_up >= MANY;
        self.looked_up = 0;
    }

    /// How rules were found so far.
    #[inline]
    pub fn lookups(&self) -> LookupCounts {
        let (cached, searched) = self.flows.counts();
        LookupCounts { remembered: self.recalled, cached, searched }
    }

    /// As [`decide_at`].
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

    /// Decides on frames, as long as what was decided on their flows is remembered and there is nothing to do but to send them: their
    /// rules have counted them, and `runs` gets where they go. Returns how many, and the decision on the frame that comes after
    /// those, if there is one.
    #[inline]
    pub fn recall_all<'a, 'f>(
        &mut self,
        scene: &Scene<'a>,
        frames: impl Iterator<Item = &'f [u8]> + Clone,
        runs: &mut Vec<Run>,
    ) -> (usize, Option<Decision<'a>>) {
        let eager = std::mem::take(&mut self.is_eager);
        if scene.snap.rules.is_empty() {
            if eager {
                black_box(self.look_ahead(scene, frames.clone()));
            }
            return self.recall_each::<false>(scene, frames, runs);
        }
        if eager {
            black_box(self.look_ahead_at_rules(scene, frames.clone()));
        }
        self.recall_each::<true>(scene, frames, runs)
    }

    /// Loads where the answers on frames may be while there are no rules: their entries here, and those of the MAC table. None of these
    /// loads waits for another, as they would between decisions.
    #[inline(never)]
    fn look_ahead<'f>(&self, scene: &Scene<'_>, frames: impl Iterator<Item = &'f [u8]>) -> u64 {
        // Most frames are untagged; for others the MAC table is waited for.
        let vid = scene.snap.port(scene.ingress).and_then(|port| vlan::ingress(&port.vlan, None).ok());
        let glance = |frame: &[u8]| {
            let [first, second] = self.decided.get(set_of(hash_l2(l2(scene.ingress, frame)?)))?;
            let port = scene.fdb.peek(MacAddr::new(*frame.first_chunk()?), vid?);
            Some(first.epoch ^ second.epoch ^ u64::from(port))
        };
        frames.filter_map(glance).fold(0, |all, one| all ^ one)
    }

    /// The same with rules: the entries here and the tables' lines of all frames, then the way to the rules that these name, then the rules.
    #[inline(never)]
    fn look_ahead_at_rules<'f>(&self, scene: &Scene<'_>, frames: impl Iterator<Item = &'f [u8]>) -> u64 {
        let rules = &scene.snap.rules;
        let (mut indices, mut all) = ([NONE; AHEAD], 0);
        for (index, frame) in indices.iter_mut().zip(frames) {
            if let Some(flow) = untagged_v4(scene.ingress, frame)
                && let Some([first, second]) = self.decided.get(set_of(hash_v4(flow)))
            {
                all ^= first.epoch ^ second.epoch;
            }
            if let Ok(l2) = parse_l2(frame) {
                *index = rules.candidate(&Key::read(scene.ingress, frame, &l2));
            }
        }
        let mut found = [None; AHEAD];
        for (rule, index) in found.iter_mut().zip(indices) {
            *rule = rules.get(index);
        }
        found.into_iter().flatten().fold(all, |all, rule| all ^ rule.peek(scene.worker))
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
        Some(entry)
    }

    #[inline(never)]
    fn decide_and_remember<'a>(&mut self, scene: &Scene<'a>, frame: &[u8]) -> Decision<'a> {
        let &Scene { snap, fdb, now, ingress, .. } = scene;
        let decision = decide_at(snap, fdb, now, ingress, frame, self);
        self.looked_up += 1;
        let flow = match snap.rules.is_empty() {
            true => l2(ingress, frame).map(|flow @ [a, b, c]| (hash_l2(flow), [a, b, c, 0, 0, 0, 0])),
            false => flow_of(ingress, frame).map(|flow| (hash(flow), flow)),
        };
        if let Some((hash, flow)) = flow
            && self.asked.again(hash)
            && let Some(entry) = remembered(flow, &decision, snap, fdb, ingress, frame)
            && let Some(set) = self.decided.get_mut(set_of(hash))
        {
            let place = match set.iter().position(|old| old.flow == flow) {
                Some(place) => place,
                None => usize::from(set[0].epoch == snap.epoch && (set[0].found_last || set[1].epoch != snap.epoch)),
            };
            set[place] = entry;
        }
        decision
    }
}

/// The entry of a frame's flow, whatever it is.
#[inline(never)]
fn find_any<'m>(decided: &'m mut [[Entry; 2]], scene: &Scene<'_>, frame: &[u8]) -> Option<&'m Entry> {
    let flow = flow_of(scene.ingress, frame)?;
    find(decided, hash(flow), scene.snap.epoch, flow)
}

/// The entry of that hash and epoch whose flow begins with those words.
#[inline(always)]
fn find<const N: usize>(decided: &mut [[Entry; 2]], hash: u64, epoch: u64, flow: Flow<N>) -> Option<&Entry> {
    let [first, second] = decided.get_mut(set_of(hash))?;
    let is_it = |entry: &Entry| entry.epoch == epoch && (0..N).all(|n| entry.flow[n] == flow[n]);
    let (entry, other) = if is_it(first) {
        (first, second)
    } else if is_it(second) {
        (second, first)
    } else {
        return None;
    };
    if !entry.found_last {
        (entry.found_last, other.found_last) = (true, false);
    }
    Some(entry)
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
    let spot = match rule.map(|rule| rule.spec.action.vid) {
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
        rule: rule.map(|rule| rule.spec.key_index),
        instead_of,
        max_len: u16::try_from(max_len).unwrap_or(u16::MAX),
        is_simple: instead_of.is_none()
            && rule.is_none_or(|rule| rule.meter.is_none() && rule.spec.action.mirror.is_none()),
        found_last: false,
    })
}
