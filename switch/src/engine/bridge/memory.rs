//! What a worker remembers of the frames before: the observer of the hot path.
//!
//! A plain packet (TCP or UDP, whole, with one tag or none) that is forwarded to one port leaves its decision behind, under its
//! key. The next packet of that key goes the same way without being asked all the questions again, as long as nothing has
//! changed that the answers came from: the policy's epoch and, if the MAC table said where to, the entry there. What the key
//! does not hold is looked at for each frame: its length, and that its sender is learned. Drops and floods are
//! decided anew each time, and so is everything while there are no rules, when there is less to ask than to remember.
//!
//! Of a fixed size, a worker's own. Sets of two places, filled as the classifier's cache is: a flow that comes once does not
//! displace one that came twice. An entry has all that a table of flows elsewhere would need to forward for the worker.

use super::{Decision, Fdb, Names, Observer, Verdict, decide_at};
use crate::engine::PortNo;
use crate::engine::fdb::{Learn, Spot};
use crate::engine::mac::MacAddr;
use crate::engine::parse::{ETH_HEADER, TPID_CTAG, Tag, VLAN_TAG};
use crate::engine::rule::{FlowCache, Key, Rule, Rules};
use crate::engine::snapshot::Snapshot;
use crate::engine::vlan::{self, TagEdit, Vid};
use crate::model::RuleTarget;

/// Sets of two entries; a power of two.
const SETS: usize = 2048;
/// An epoch that no policy has.
const NEVER: u64 = u64::MAX;

/// A decision, and what it holds for: two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    epoch: u64,
    /// Index of the rule that applies.
    rule: Option<u32>,
    /// The entry of the MAC table that names the port; `None` if the rule does.
    spot: Option<Spot>,
    queue: Option<u32>,
    instead_of: Option<PortNo>,
    port: PortNo,
    edit: TagEdit,
    vid: Vid,
    /// Bytes of the longest frame that may pass.
    max_len: u32,
}

const EMPTY: Entry = Entry {
    key: Key([0; crate::engine::rule::KEY_WORDS]),
    epoch: NEVER,
    rule: None,
    spot: None,
    queue: None,
    instead_of: None,
    port: 0,
    edit: TagEdit::None,
    vid: 0,
    max_len: 0,
};

/// The memory.
#[derive(Debug)]
pub struct Memory {
    flows: FlowCache,
    decided: Box<[[Entry; 2]]>,
    /// The station that the frame before was of, if it was learned in this burst.
    learned: Option<(MacAddr, Vid)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { flows: FlowCache::default(), decided: vec![[EMPTY; 2]; SETS].into_boxed_slice(), learned: None }
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
        let plain = if snap.rules.is_empty() { None } else { Key::of_plain(ingress, frame) };
        let Some(key) = plain else { return decide_at(snap, fdb, now, ingress, frame, self) };
        let set = key.hash() as usize % SETS;
        match self.recall(set, &key, snap, fdb, now, frame.len()) {
            Some(decision) => decision,
            None => self.decide_and_remember(set, &key, snap, fdb, now, frame),
        }
    }

    /// The decision that was made on the flow, if it still holds.
    #[inline]
    fn recall<'a>(
        &mut self,
        set: usize,
        key: &Key,
        snap: &'a Snapshot,
        fdb: &Fdb,
        now: u32,
        len: usize,
    ) -> Option<Decision<'a>> {
        let at = self.decided[set].iter().position(|entry| entry.epoch == snap.epoch && entry.key.is(key))?;
        if at == 1 {
            self.decided[set].swap(0, 1);
        }
        let Entry { rule, spot, queue, instead_of, port, edit, vid, max_len, .. } = self.decided[set][0];
        if len > max_len as usize {
            return None;
        }
        let (ingress, (src, _)) = (key.ingress(), key.stations());
        if self.learned != Some((src, vid)) {
            self.learn(fdb, src, vid, ingress, snap.port(ingress)?.fdb_limit, now);
        }
        if spot.is_some_and(|spot| !fdb.is_still_at(spot)) {
            return None;
        }
        let rule = rule.and_then(|index| snap.rules.get(index)).map(AsRef::as_ref);
        let verdict = Verdict::Unicast { port, edit, queue, instead_of };
        Some(Decision { verdict, at: ingress, rule })
    }

    #[inline(never)]
    fn decide_and_remember<'a>(
        &mut self,
        set: usize,
        key: &Key,
        snap: &'a Snapshot,
        fdb: &Fdb,
        now: u32,
        frame: &[u8],
    ) -> Decision<'a> {
        let decision = decide_at(snap, fdb, now, key.ingress(), frame, self);
        if let Some(entry) = remembered(key, &decision, snap, fdb) {
            let set = &mut self.decided[set];
            let place = match set.iter().position(|old| old.key.is(key)) {
                Some(place) => place,
                None => usize::from(set[0].epoch == snap.epoch),
            };
            set[place] = entry;
        }
        decision
    }
}

/// What to remember of a decision on a plain frame, if it is one to remember.
fn remembered(key: &Key, decision: &Decision<'_>, snap: &Snapshot, fdb: &Fdb) -> Option<Entry> {
    let Verdict::Unicast { port, edit, queue, instead_of } = decision.verdict else { return None };
    // Of a tag that is the only one and has a VID, the VID alone decides.
    let tag = Some(key.vid()).filter(|vid| *vid != 0).map(|vid| Tag::new(TPID_CTAG, vid));
    let vid = vlan::ingress(&snap.port(key.ingress())?.vlan, tag).ok()?;
    let header = ETH_HEADER + if tag.is_some() { VLAN_TAG } else { 0 };
    let spot = match decision.rule.map(|rule| rule.spec.action.vid) {
        Some(RuleTarget::Port(_)) => None,
        // Another worker may have moved the station since.
        _ => Some(fdb.spot(key.stations().1, vid).filter(|spot| spot.port() == instead_of.unwrap_or(port))?),
    };
    Some(Entry {
        key: *key,
        epoch: snap.epoch,
        rule: decision.rule.map(|rule| rule.spec.key_index),
        spot,
        queue,
        instead_of,
        port,
        edit,
        vid,
        max_len: snap.port(port)?.mtu.saturating_add(header as u32),
    })
}
