//! What a flow's entry would say, or why it has none. Pure, but for the table of stations.

use std::sync::Arc;

use xdp_prog::{FlowAction, FlowDepth, FlowEdit, FlowTableKey};

use super::{Exit, Offload};
use crate::engine::PortNo;
use crate::engine::bridge::{BurstContext, Decision, DryRunLookup, NoTrace, Verdict, decide, max_len_of, table_key};
use crate::engine::fdb::EntryRef;
use crate::engine::parse::{TPID_CTAG, TPID_STAG, parse_l2};
use crate::engine::rule::Rule;
use crate::engine::vlan::{self, TagEdit};
use crate::model::{DropReason, MacAddr, RuleTarget, Vid};
use crate::worker::view::{PortShared, View};

/// Why a flow stays with the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Its packets are not those that the table has keys for.
    NotPlain,
    /// It is flooded.
    Flood,
    /// It is dropped for a reason that is not a rule.
    Dropped,
    /// A meter is to be asked.
    Meter,
    /// A rule copies it.
    Mirror,
    /// Somebody captures at one of its ports.
    Capture,
    /// The ingress port has no program that follows the table.
    Ingress,
    /// The egress port's netdev takes no packets from programs.
    Egress,
    /// The egress port has several queues, or a rule names one.
    Queues,
    /// Its sender is not in the FDB.
    Sender,
}

impl Stays {
    /// In words.
    pub fn why(self) -> &'static str {
        match self {
            Self::NotPlain => "not a plain IP packet",
            Self::Flood => "flooded",
            Self::Dropped => "dropped, and not by a rule",
            Self::Meter => "a meter is asked",
            Self::Mirror => "a rule mirrors it",
            Self::Capture => "somebody captures it",
            Self::Ingress => "the port that it comes from has no native XDP program that follows the table",
            Self::Egress => "the netdev that it is for takes no packets from XDP programs",
            Self::Queues => "the port that it is for has several queues",
            Self::Sender => "its sender was not learned",
        }
    }
}

/// What an entry would say, and what it depends on.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub action: FlowAction,
    pub egress: Option<Arc<PortShared>>,
    pub edit: TagEdit,
    /// The port that packets were for, if a redirect leads elsewhere.
    pub asked: Option<Arc<PortShared>>,
    pub rule: Option<Arc<Rule>>,
    pub sender: Sender,
    /// The entry that the egress port came from, if no rule names it.
    pub station: Option<EntryRef>,
    /// How packets could be sent out when it was made.
    pub exit: Exit,
}

impl Plan {
    /// Whether packets are dealt with by both in the same way.
    pub fn is_as(&self, other: &Self) -> bool {
        let port = |port: &Option<Arc<PortShared>>| port.as_ref().map(|port| (port.no, port.generation));
        self.action == other.action
            && (port(&self.egress), port(&self.asked)) == (port(&other.egress), port(&other.asked))
            && (self.sender.entry, self.station) == (other.sender.entry, other.station)
    }
}

/// Who sends a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub mac: MacAddr,
    pub vid: Vid,
    pub entry: EntryRef,
}

/// How much of a packet decisions depend on.
pub(super) fn depth(view: &View) -> FlowDepth {
    if view.snapshot.rules.is_empty() { FlowDepth::L2 } else { FlowDepth::L4 }
}

/// The key of a packet that came in from `queue`.
pub(super) fn key_of(view: &View, ingress: PortNo, queue: u32, head: &[u8]) -> Option<FlowTableKey> {
    let is_l2 = depth(view) == FlowDepth::L2;
    Some(FlowTableKey::new(table_key(ingress, head, is_l2)?, queue, is_l2))
}

/// Plans the entry for the flow of a packet of `len` bytes, which `head` has all headers of.
pub(super) fn plan(
    offload: &Offload,
    view: &View,
    ingress: PortNo,
    head: &[u8],
    len: usize,
    now: u32,
) -> Result<Plan, Stays> {
    if !offload.follows(ingress) {
        return Err(Stays::Ingress);
    }
    if !view.taps(ingress).is_empty() {
        return Err(Stays::Capture);
    }
    if view.meters.from(ingress).is_some() {
        return Err(Stays::Meter);
    }
    let snap = &view.snapshot;
    let context = BurstContext { snap, fdb: &view.fdb, now, ingress, worker: 0 };
    let l2 = parse_l2(head).map_err(|_| Stays::NotPlain)?;
    let decision = decide(&context, head, len, &mut DryRunLookup::default(), &mut NoTrace);
    let rule = decision.rule.and_then(|rule| snap.rules.get(rule.index)).cloned();
    if rule.as_ref().is_some_and(|rule| rule.action.mirror.is_some()) {
        return Err(Stays::Mirror);
    }
    let policy = snap.port(ingress).ok_or(Stays::Ingress)?;
    let vid = vlan::ingress(&policy.vlan, l2.tag).map_err(|_| Stays::Dropped)?;
    let entry = view.fdb.entry(l2.src, vid).filter(|entry| entry.is_static() || entry.port() == ingress);
    let sender = Sender { mac: l2.src, vid, entry: entry.ok_or(Stays::Sender)? };
    let dropped = Plan {
        action: FlowAction::Drop,
        egress: None,
        edit: TagEdit::None,
        asked: None,
        rule,
        sender,
        station: None,
        exit: Exit::None,
    };
    match decision.verdict {
        Verdict::Drop(DropReason::RuleDrop) => Ok(dropped),
        Verdict::Drop(_) => Err(Stays::Dropped),
        Verdict::Flood { .. } => Err(Stays::Flood),
        Verdict::Unicast { port, edit, queue, redirected_from } => {
            let Decision { rule, .. } = decision;
            if rule.is_some_and(|rule| rule.meter.is_some()) || view.meters.to(port).is_some() {
                return Err(Stays::Meter);
            }
            if !view.taps(port).is_empty() {
                return Err(Stays::Capture);
            }
            let egress = view.port(port).ok_or(Stays::Egress)?;
            if queue.is_some() || egress.queues.len() != 1 {
                return Err(Stays::Queues);
            }
            let exit = offload.exit(port);
            if exit == Exit::None || egress.bond.is_some() {
                return Err(Stays::Egress);
            }
            let station = match rule.map(|rule| rule.action.target) {
                Some(RuleTarget::Port(_)) => None,
                _ => {
                    let found = view.fdb.entry(l2.dst, vid);
                    Some(found.filter(|entry| entry.port() == redirected_from.unwrap_or(port)).ok_or(Stays::Flood)?)
                }
            };
            let longest = max_len_of(l2.tag, snap.port(port).ok_or(Stays::Egress)?.mtu);
            let flow_edit = match edit {
                TagEdit::None => FlowEdit::None,
                TagEdit::Pop => FlowEdit::Pop,
                TagEdit::SetTci(tci) => FlowEdit::SetTci(tci),
                TagEdit::Push { tpid: TPID_CTAG, tci } => FlowEdit::PushC(tci),
                TagEdit::Push { tpid: TPID_STAG, tci } => FlowEdit::PushS(tci),
                TagEdit::Push { .. } => return Err(Stays::Egress),
            };
            let asked = redirected_from.and_then(|asked| view.port(asked)).cloned();
            let multi_buffer = exit == Exit::Long;
            let action = FlowAction::Send { port, edit: flow_edit, longest, multi_buffer };
            Ok(Plan { action, egress: Some(Arc::clone(egress)), edit, asked, station, exit, ..dropped })
        }
    }
}
