//! What a worker remembers of the frames before: the observer of the hot path.
//!
//! A plain packet (TCP or UDP, whole, with one tag or none) that is forwarded to one port leaves its decision behind, under
//! those of its bytes that the decision came from. The next packet with the same goes the same way without being asked all the questions again, as long as nothing has
//! changed that the answers came from: the policy's epoch and, if the MAC table said where to, the entry there. What these
//! bytes do not say is looked at for each frame: its length, and that its sender is learned. Drops and floods are
//! decided anew each time, and so is everything while there are no rules, when there is less to ask than to remember.
//!
//! Of a fixed size, a worker's own. Sets of two places, of which a new flow takes the one that was not found last: flows that
//! come once do not displace one that is in use. An entry has all that a table of flows elsewhere would need to forward for
//! the worker.

use super::{Decision, Fdb, Names, Observer, Verdict, decide_at, header_len};
use crate::engine::PortNo;
use crate::engine::drop::DropReason;
use crate::engine::fdb::{Learn, Spot};
use crate::engine::mac::MacAddr;
use crate::engine::parse::{ETH_HEADER, Plain, fold_product, parse_l2};
use crate::engine::rule::{FlowCache, Key, Rule, Rules};
use crate::engine::snapshot::Snapshot;
use crate::engine::vlan::{self, Vid};
use crate::model::{LookupCounts, MAX_PORTS, RuleTarget};

/// Sets of two entries; a power of two.
const SETS: usize = 2048;
/// An epoch that no policy has.
const NEVER: u64 = u64::MAX;

/// Words of a [`Flow`].
const WORDS: usize = 7;
/// Those of them that IPv4 uses.
const WORDS_V4: usize = 4;

/// What of a plain frame decides, in the bytes' own order: addresses and EtherType (or TPID) in two words that overlap; ports,
/// VLAN tag, ingress port and protocol in one; IP addresses, which are one word in IPv4 and four in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow([u64; WORDS]);

/// Bit of the third word: the packet is IPv6.
const V6: u64 = 1 << 63;
/// Bit of the third word: the packet is TCP.
const TCP: u64 = 1 << 62;
/// Where the ingress port is in the third word, above ports and tag.
const INGRESS: u32 = 48;
const _: () = assert!(MAX_PORTS <= 1 << (62 - INGRESS));

/// The eight bytes at that offset, which must be there.
#[inline]
fn word<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|n| header[at + n]))
}

impl Flow {
    /// That of a frame from `ingress`, if it is plain.
    #[inline]
    fn of(ingress: PortNo, frame: &[u8]) -> Option<Self> {
        let l2 = parse_l2(frame).ok()?;
        let at = l2.payload_offset();
        let bytes = frame.get(at..)?;
        let plain = Plain::check(l2.ethertype, bytes)?;
        let ethernet = frame.first_chunk::<ETH_HEADER>()?;
        let mut words = [word(ethernet, 0), word(ethernet, 6), 0, 0, 0, 0, 0];
        let ports = if plain.v6 {
            let h = bytes.first_chunk::<48>()?;
            (3..WORDS).for_each(|n| words[n] = word(h, 8 * n - 16));
            word(h, 40)
        } else {
            let h = bytes.first_chunk::<28>()?;
            words[3] = word(h, 12);
            word(h, 20)
        };
        words[2] = u64::from(ports as u32)
            | u64::from(l2.tag.map_or(0, |tag| tag.tci)) << 32
            | u64::from(ingress) << INGRESS
            | if plain.v6 { V6 } else { 0 }
            | if plain.tcp { TCP } else { 0 };
        Some(Self(words))
    }

    #[inline]
    fn is_v6(&self) -> bool {
        self.0[2] & V6 != 0
    }

    /// Whether they are the same; the words that only IPv6 has are not looked at for IPv4.
    #[inline]
    fn is(&self, other: &Flow) -> bool {
        let same = |words: std::ops::Range<usize>| words.fold(0, |sum, n| sum | (self.0[n] ^ other.0[n])) == 0;
        same(0..WORDS_V4) && (!self.is_v6() || same(WORDS_V4..WORDS))
    }

    /// The set that its entry is in.
    #[inline]
    fn set(&self) -> usize {
        let w = &self.0;
        let mut hash = fold_product(w[0] ^ 0x9e37_79b9_7f4a_7c15, w[1] ^ 0xd1b5_4a32_d192_ed03)
            ^ fold_product(w[2] ^ 0x8bb8_4b93_962e_acc9, w[3] ^ 0x2d35_8dcc_aa6c_78a5);
        if self.is_v6() {
            hash ^= fold_product(w[4] ^ 0x4b33_a62e_d433_d4a3, w[5] ^ 0x4d5a_2da5_1de1_aa47)
                ^ w[6].wrapping_mul(0xa076_1d64_78bd_642f) >> 32;
        }
        (hash ^ hash >> 32) as usize % SETS
    }
}

/// A decision, and what it holds for: two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    flow: Flow,
    epoch: u64,
    verdict: Verdict,
    /// Index of the rule that applies.
    rule: Option<u32>,
    /// The entry of the MAC table that names the port; `None` if the rule does.
    spot: Option<Spot>,
    /// Bytes of the longest frame that may pass.
    max_len: u32,
    vid: Vid,
    /// Whether it was found later than the other one of its set.
    found_last: bool,
}

const _: () = assert!(size_of::<Entry>() == 128);

const EMPTY: Entry = Entry {
    flow: Flow([0; WORDS]),
    epoch: NEVER,
    verdict: Verdict::Drop(DropReason::NoDestination),
    rule: None,
    spot: None,
    max_len: 0,
    vid: 0,
    found_last: false,
};

/// The memory.
#[derive(Debug)]
pub struct Memory {
    flows: FlowCache,
    decided: Box<[[Entry; 2]]>,
    /// The station that the frame before was of, if it was learned in this burst.
    learned: Option<(MacAddr, Vid)>,
    recalled: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            flows: FlowCache::default(),
            decided: vec![[EMPTY; 2]; SETS].into_boxed_slice(),
            learned: None,
            recalled: 0,
        }
    }
}

impl Observer for Memory {
    const LEARN: bool = true;

    #[inline(always)]
    fn step(&mut self, _stage: &'static str, _detail: impl FnOnce(Names<'_>) -> String) {}

    #[inline]
    fn learn(&mut self, fdb: &Fdb, mac: MacAddr, vid: Vid, port: PortNo, port_limit: u32, now: u32) {
        if self.learned != Some((mac, vid)) {
            let learned = fdb.learn(mac, vid, port, port_limit, now) != Learn::Skipped;
            self.learned = learned.then_some((mac, vid));
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
        self.learned = None;
    }

    /// How rules were found so far.
    #[inline]
    pub fn lookups(&self) -> LookupCounts {
        let (cached, searched) = self.flows.counts();
        LookupCounts { remembered: self.recalled, cached, searched }
    }

    /// As [`decide_at`].
    #[inline]
    pub fn decide<'a>(
        &mut self,
        snap: &'a Snapshot,
        fdb: &Fdb,
        now: u32,
        ingress: PortNo,
        frame: &[u8],
    ) -> Decision<'a> {
        let flow = if snap.rules.is_empty() { None } else { Flow::of(ingress, frame) };
        let Some(flow) = flow else { return decide_at(snap, fdb, now, ingress, frame, self) };
        let set = flow.set();
        match self.recall(set, &flow, snap, fdb, now, ingress, frame.len()) {
            Some(decision) => {
                self.recalled += 1;
                decision
            }
            None => self.decide_and_remember(set, &flow, snap, fdb, now, ingress, frame),
        }
    }

    /// The decision that was made on the flow, if it still holds.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "what a decision takes, and where it is remembered")]
    fn recall<'a>(
        &mut self,
        set: usize,
        flow: &Flow,
        snap: &'a Snapshot,
        fdb: &Fdb,
        now: u32,
        ingress: PortNo,
        len: usize,
    ) -> Option<Decision<'a>> {
        let at = if self.decided[set][0].is_of(flow, snap) {
            0
        } else if self.decided[set][1].is_of(flow, snap) {
            1
        } else {
            return None;
        };
        if !self.decided[set][at].found_last {
            self.decided[set][at].found_last = true;
            self.decided[set][1 - at].found_last = false;
        }
        let Entry { verdict, rule, spot, vid, max_len, .. } = self.decided[set][at];
        if len > max_len as usize {
            return None;
        }
        let src = MacAddr::from_u64(u64::from_be(flow.0[1]) >> 16);
        if self.learned != Some((src, vid)) {
            self.learn(fdb, src, vid, ingress, snap.port(ingress)?.fdb_limit, now);
        }
        if spot.is_some_and(|spot| !fdb.is_still_at(spot)) {
            return None;
        }
        let rule = rule.and_then(|index| snap.rules.get(index)).map(AsRef::as_ref);
        Some(Decision { verdict, at: ingress, rule })
    }

    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "what a decision takes, and where it is remembered")]
    fn decide_and_remember<'a>(
        &mut self,
        set: usize,
        flow: &Flow,
        snap: &'a Snapshot,
        fdb: &Fdb,
        now: u32,
        ingress: PortNo,
        frame: &[u8],
    ) -> Decision<'a> {
        let decision = decide_at(snap, fdb, now, ingress, frame, self);
        if let Some(entry) = remembered(flow, &decision, snap, fdb, ingress, frame) {
            let set = &mut self.decided[set];
            let place = match set.iter().position(|old| old.flow.is(flow)) {
                Some(place) => place,
                None => usize::from(set[0].epoch == snap.epoch && (set[0].found_last || set[1].epoch != snap.epoch)),
            };
            set[place] = entry;
        }
        decision
    }
}

impl Entry {
    #[inline]
    fn is_of(&self, flow: &Flow, snap: &Snapshot) -> bool {
        self.epoch == snap.epoch && self.flow.is(flow)
    }
}

/// What to remember of a decision on a plain frame, if it is one to remember.
fn remembered(
    flow: &Flow,
    decision: &Decision<'_>,
    snap: &Snapshot,
    fdb: &Fdb,
    ingress: PortNo,
    frame: &[u8],
) -> Option<Entry> {
    let Verdict::Unicast { port, instead_of, .. } = decision.verdict else { return None };
    let l2 = parse_l2(frame).ok()?;
    let vid = vlan::ingress(&snap.port(ingress)?.vlan, l2.tag).ok()?;
    let spot = match decision.rule.map(|rule| rule.spec.action.vid) {
        Some(RuleTarget::Port(_)) => None,
        // Another worker may have moved the station since.
        _ => Some(fdb.spot(l2.dst, vid).filter(|spot| spot.port() == instead_of.unwrap_or(port))?),
    };
    Some(Entry {
        flow: *flow,
        epoch: snap.epoch,
        verdict: decision.verdict,
        rule: decision.rule.map(|rule| rule.spec.key_index),
        spot,
        max_len: snap.port(port)?.mtu.saturating_add(header_len(l2.tag) as u32),
        vid,
        found_last: false,
    })
}
