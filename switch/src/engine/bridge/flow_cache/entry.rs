//! The entries of the flow cache: a decision each, and what it holds for.

use super::flow_key::{FlowKey, WORDS, flow_key, hash};
use super::station::Station;
use crate::engine::PortNo;
use crate::engine::bits::{low_index, low_u16};
use crate::engine::bridge::context::BurstContext;
use crate::engine::bridge::egress::Egress;
use crate::engine::bridge::forward::max_len_of;
use crate::engine::bridge::verdict::{Decision, Verdict};
use crate::engine::fdb::EntryRef;
use crate::engine::parse::parse_l2;
use crate::engine::rule::Rule;
use crate::engine::vlan;
use crate::model::RuleTarget;

/// Sets of two entries; a power of two.
pub(super) const SETS: usize = 2048;
/// An epoch that no policy has.
pub(super) const NO_EPOCH: u64 = u64::MAX;

/// Two entries, either of which may be that of a flow with the set's hash.
pub(super) type Set = [Entry; 2];

/// A decision, and what it holds for: two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    pub(super) flow: FlowKey<WORDS>,
    /// Policy that the decision was made by.
    pub(super) epoch: u64,
    /// Aside, unless a frame is only counted by its rule and sent.
    pub(super) egress: Egress,
    /// The sender, which is learned from each frame.
    pub(super) sender: Station,
    /// The FDB entry that the egress port came from; `None` if the rule names the port.
    pub(super) fdb_entry: Option<EntryRef>,
    /// Index of the rule that applies.
    rule: Option<u32>,
    /// The port that the frame was for, if a redirect leads elsewhere.
    redirected_from: Option<PortNo>,
    /// Length in bytes of the longest frame that may pass.
    pub(super) max_len: u16,
    /// Whether a frame used it since another flow last tried to replace it, and found the set full.
    pub(super) in_use: bool,
}

const _: () = assert!(size_of::<Entry>() == 128);

/// No flow's entry.
pub(super) const EMPTY: Entry = Entry {
    flow: [0; WORDS],
    epoch: NO_EPOCH,
    egress: Egress::NOWHERE,
    sender: Station::NONE,
    fdb_entry: None,
    rule: None,
    redirected_from: None,
    max_len: 0,
    in_use: false,
};

/// The set of a flow with that hash.
#[inline(always)]
pub(super) fn set_of(hash: u64) -> usize {
    low_index(hash ^ hash >> 32) % SETS
}

/// The tag of a flow with that hash.
#[inline(always)]
pub(super) fn tag_of(hash: u64) -> u16 {
    low_u16(hash >> 48)
}

/// The entry of a frame's flow, whatever kind of frame it is.
#[inline(never)]
pub(super) fn find_any<'m>(sets: &'m mut [Set], context: &BurstContext<'_>, frame: &[u8]) -> Option<&'m mut Entry> {
    let flow = flow_key(context.ingress, frame)?;
    find(sets, hash(flow), context.snap.epoch, flow)
}

/// The entry of that hash and epoch whose flow begins with those words.
#[inline(always)]
pub(super) fn find<const N: usize>(sets: &mut [Set], hash: u64, epoch: u64, flow: FlowKey<N>) -> Option<&mut Entry> {
    let [first, second] = sets.get_mut(set_of(hash))?;
    let is_it = |entry: &Entry| entry.epoch == epoch && (0..N).all(|n| entry.flow[n] == flow[n]);
    if is_it(first) {
        return Some(first);
    }
    is_it(second).then_some(second)
}

/// Where in a set the entry of a flow may be put: in its own place, or in that of an entry of another epoch. If it
/// `may_evict`, also in that of a valid entry that is not in use.
///
/// If all entries are in use, they are marked unused. So they can be evicted the next time, unless a frame comes by
/// then.
pub(super) fn victim(set: &mut Set, flow: &FlowKey<WORDS>, epoch: u64, may_evict: bool) -> Option<usize> {
    let first = |is_it: &dyn Fn(&Entry) -> bool| set.iter().position(is_it);
    let free = first(&|old| old.flow == *flow).or_else(|| first(&|old| old.epoch != epoch));
    if free.is_some() || !may_evict {
        return free;
    }
    let unused = first(&|old| !old.in_use);
    if unused.is_none() {
        set.iter_mut().for_each(|old| old.in_use = false);
    }
    unused
}

impl Entry {
    /// The entry of a decision on a frame of that flow; `None` if it can't be cached.
    pub(super) fn new(
        flow: FlowKey<WORDS>,
        decision: &Decision<'_>,
        context: &BurstContext<'_>,
        frame: &[u8],
    ) -> Option<Self> {
        let &BurstContext { snap, fdb, ingress, .. } = context;
        let Verdict::Unicast { port, edit, queue, redirected_from } = decision.verdict else { return None };
        let l2 = parse_l2(frame).ok()?;
        let vid = vlan::ingress(&snap.port(ingress)?.vlan, l2.tag).ok()?;
        let rule = decision.rule;
        let fdb_entry = match rule.map(|rule| rule.action.target) {
            Some(RuleTarget::Port(_)) => None,
            // Another worker may have moved the station since.
            _ => Some(fdb.entry(l2.dst, vid).filter(|entry| entry.port() == redirected_from.unwrap_or(port))?),
        };
        let max_len = max_len_of(l2.tag, snap.port(port)?.mtu);
        let egress = Egress::new(port, edit, queue);
        let is_plain = redirected_from.is_none() && rule.is_none_or(Rule::is_plain);
        Some(Self {
            flow,
            epoch: snap.epoch,
            egress: if is_plain { egress } else { egress.aside() },
            sender: Station::new(l2.src, vid),
            fdb_entry,
            rule: rule.map(|rule| rule.index),
            redirected_from,
            max_len,
            in_use: true,
        })
    }

    /// The rule that applies.
    #[inline]
    pub(super) fn rule<'a>(&self, context: &BurstContext<'a>) -> Option<&'a Rule> {
        context.snap.rules.get(self.rule?).map(AsRef::as_ref)
    }

    /// The decision.
    pub(super) fn decision<'a>(&self, context: &BurstContext<'a>) -> Decision<'a> {
        let (egress, redirected_from) = (self.egress, self.redirected_from);
        let verdict =
            Verdict::Unicast { port: egress.port(), edit: egress.edit(), queue: egress.queue(), redirected_from };
        Decision { verdict, drop_port: context.ingress, rule: self.rule(context) }
    }
}
