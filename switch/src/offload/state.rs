//! The entries: installed, counted, looked after, ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use xdp_prog::{FLOW_PORTS, FlowAction, FlowTableKey, wait_for_programs};

use super::plan::{Plan, key_of, plan};
use super::{Offload, add};
use crate::engine::PortNo;
use crate::engine::bits::{low_u16, low_u32};
use crate::engine::parse::{L3, L4, parse};
use crate::engine::vlan::TagEdit;
use crate::model::{Count, DropReason, OffloadState, OffloadedFlow};
use crate::worker::view::{PortShared, View};

/// How long the earlier packets of a flow may take to leave. A busy switch has always some on their way. Then later
/// ones are dropped until the last has left.
const MOVE_WAIT: Duration = Duration::from_millis(20);
/// How long an entry may take to move into the kernel. Then its port is left alone for a while: its numbers get lost.
const MOVE_LIMIT: Duration = Duration::from_millis(200);
/// How long a port is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// How long an entry stays without packets.
const IDLE: Duration = Duration::from_secs(2);
/// Bytes of a packet that are kept, to decide again when the policy has changed: tag, IPv6, and TCP without options.
const HEAD: usize = 128;
/// Fewest slots of a port, however many ports there are.
const LEAST_SHARE: usize = 32;
/// Between two looks at the entries this process was stopped. What did not happen meanwhile means nothing.
const AWAY: Duration = Duration::from_millis(150);
/// How long a rate is counted.
const RATE: Duration = Duration::from_millis(500);

/// An entry.
#[derive(Debug)]
struct Flow {
    slot: usize,
    key: FlowTableKey,
    epoch: u32,
    ingress: Arc<PortShared>,
    queue: u32,
    plan: Plan,
    /// First bytes of a packet, and the packet's length.
    head: Box<[u8]>,
    len: usize,
    /// The slot's counters when they were last read.
    seen: Count,
    /// What the flow has counted.
    count: Count,
    since: Instant,
    active: Instant,
    /// Since when its packets are numbered. `None`: they go on in the kernel.
    moving: Option<Instant>,
    /// The number before the first that its packets get, and the last that one had got.
    first: u32,
    sent: u32,
    is_limited: bool,
    rate: u64,
    rated: (Instant, u64),
}

/// Why an entry ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Policy,
    Fdb,
    Idleness,
    Port,
    Stuck,
}

/// The entries, in no order.
#[derive(Debug)]
pub(super) struct State {
    flows: Vec<Flow>,
    /// Where the entry of a slot is among them.
    places: Box<[Option<u32>]>,
    /// Entries of each ingress port.
    of_port: Box<[u32]>,
    /// The epoch that is.
    epoch: u32,
    /// When the entries were last looked at.
    looked_at: Instant,
    /// Ports that are left alone, and until when.
    paused: Vec<(PortNo, Instant)>,
}

impl State {
    pub fn new(slots: usize) -> Self {
        Self {
            flows: Vec::new(),
            places: vec![None; slots].into_boxed_slice(),
            of_port: vec![0; FLOW_PORTS].into_boxed_slice(),
            epoch: 0,
            looked_at: Instant::now(),
            paused: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// The place of the entry of a slot, if it is that of this flow.
    fn place(&self, slot: usize, key: &FlowTableKey) -> Option<usize> {
        let place = self.places[slot]? as usize;
        (self.flows[place].key == *key).then_some(place)
    }

    fn add(&mut self, flow: Flow) {
        self.places[flow.slot] = Some(low_u32(self.flows.len() as u64));
        self.flows.push(flow);
    }

    fn remove(&mut self, place: usize) -> Flow {
        let flow = self.flows.swap_remove(place);
        self.places[flow.slot] = None;
        if let Some(moved) = self.flows.get(place) {
            self.places[moved.slot] = Some(low_u32(place as u64));
        }
        flow
    }
}

impl Offload {
    /// Makes an entry, if there is a place, and the port has less than its share.
    #[expect(clippy::too_many_arguments, reason = "all that an entry is made of")]
    pub(super) fn install(
        &self,
        state: &mut State,
        view: &View,
        (port, queue): (PortNo, u32),
        key: FlowTableKey,
        plan: Plan,
        head: &[u8],
        len: usize,
    ) {
        let places = self.table.places(&key);
        // Half of the slots at most: with more, flows of others would find no place.
        let ports = view.ports.iter().flatten().filter(|port| port.bridged).count().max(1);
        let share = (self.table.slots() / 2 / ports).max(LEAST_SHARE.min(self.table.slots() / 2));
        let Some(ingress) = view.port(port) else { return };
        if state.paused.iter().any(|(paused, _)| *paused == port) {
            return;
        }
        if places.iter().any(|slot| state.place(*slot, &key).is_some()) {
            return;
        }
        let place = places.into_iter().find(|slot| state.places[*slot].is_none());
        let Some(of_port) = state.of_port.get_mut(usize::from(port)) else { return };
        let Some(slot) = place.filter(|_| (*of_port as usize) < share) else {
            return add(&self.tally.refused, 1);
        };
        *of_port += 1;
        let (now, counts) = (Instant::now(), self.table.counts(slot));
        let seen = Count { packets: counts.0, bytes: counts.1 };
        let mut flow = Flow {
            slot,
            key,
            epoch: 0,
            ingress: Arc::clone(ingress),
            queue,
            plan,
            head: head[..head.len().min(HEAD)].into(),
            len,
            seen,
            count: Count::default(),
            since: now,
            active: now,
            moving: None,
            first: 0,
            sent: 0,
            is_limited: false,
            rate: 0,
            rated: (now, 0),
        };
        self.write(&mut flow, view, now);
        self.table.set_installed(port, *of_port);
        state.add(flow);
        add(&self.tally.installed, 1);
    }

    /// Writes an entry that no program is at.
    fn write(&self, flow: &mut Flow, view: &View, now: Instant) {
        flow.epoch = low_u32(view.snapshot.epoch);
        self.set_way(flow);
        if flow.moving.is_none() {
            self.moving.fetch_add(1, Ordering::Relaxed);
        }
        flow.moving = Some(now);
        flow.is_limited = false;
        flow.first = self.table.install(flow.slot, &flow.key, flow.plan.action, flow.epoch);
        flow.sent = flow.first;
        self.any.store(true, Ordering::Release);
    }

    /// Notes which way the switch sends what comes to it of a flow.
    fn set_way(&self, flow: &Flow) {
        let (queue, port) = match &flow.plan.egress {
            Some(egress) => (&egress.queues[0], egress.no),
            None => (&flow.ingress.queues[flow.queue as usize], PortNo::MAX),
        };
        let way = u32::from(low_u16(queue.worker() as u64)) << 16 | u32::from(port);
        self.ways[flow.slot].store(way, Ordering::Relaxed);
    }

    /// Frees an entry that no program is at.
    fn free(&self, state: &mut State, at: usize, end: End) {
        self.count(&mut state.flows[at]);
        let flow = state.remove(at);
        if flow.moving.is_some() {
            self.moving.fetch_sub(1, Ordering::Relaxed);
        }
        let port = flow.ingress.no;
        if let Some(of_port) = state.of_port.get_mut(usize::from(port)) {
            *of_port = of_port.saturating_sub(1);
            self.table.set_installed(port, *of_port);
        }
        let tally = &self.tally;
        self.any.store(!state.is_empty(), Ordering::Release);
        let counter = match end {
            End::Policy => &tally.ended_by_policy,
            End::Fdb => &tally.ended_by_fdb,
            End::Idleness => &tally.ended_by_idleness,
            End::Port => &tally.ended_by_port,
            End::Stuck => &tally.stuck,
        };
        add(counter, 1);
    }

    /// Counts what the kernel has done with a flow since it was last counted. True if that is something.
    fn count(&self, flow: &mut Flow) -> bool {
        let (packets, bytes) = self.table.counts(flow.slot);
        let more =
            Count { packets: packets.wrapping_sub(flow.seen.packets), bytes: bytes.wrapping_sub(flow.seen.bytes) };
        if more.packets == 0 {
            return false;
        }
        flow.seen = Count { packets, bytes };
        flow.count.add(more);
        add(&self.tally.packets, more.packets);
        add(&self.tally.bytes, more.bytes);
        let Flow { ingress, queue, plan, .. } = flow;
        ingress.queues[*queue as usize].kernel.rx.add(more.packets, more.bytes);
        let shard = &ingress.shards[self.workers];
        if let Some(rule) = &plan.rule {
            rule.applied_to_all(self.workers, more);
        }
        match &plan.egress {
            None => shard.dropped_all(DropReason::RuleDrop, more),
            Some(egress) => {
                let grown = plan.edit.grows_by();
                shard.retagged_all(grown, more.packets);
                if let Some(asked) = &plan.asked {
                    asked.shards[self.workers].redirected(more);
                }
                let bytes = more.bytes.wrapping_add_signed(more.packets.cast_signed() * i64::from(grown));
                egress.queues[0].kernel.tx.add(more.packets, bytes);
            }
        }
        true
    }

    /// Counts all flows.
    pub(super) fn count_all(&self, state: &mut State) {
        for flow in &mut state.flows {
            self.count(flow);
        }
    }

    /// Looks after all entries, at second `now`. Entries that hold no more end.
    pub(crate) fn sweep(&self, view: &View, now: u32) {
        let ended = self.look_at_all(view, now);
        if ended.is_empty() {
            return;
        }
        if let Err(error) = wait_for_programs() {
            tracing::error!(%error, "entries of the flow table are ended without waiting");
        }
        let mut state = self.lock();
        for (slot, key, end) in ended {
            // It may be gone, and the slot another's, since the lock was let go of.
            let Some(at) = state.place(slot, &key) else { continue };
            if end == End::Stuck {
                let port = state.flows[at].ingress.no;
                state.paused.push((port, Instant::now() + PAUSE));
            }
            if matches!(end, End::Idleness | End::Stuck) || !self.planned_again(&mut state.flows[at], view, now) {
                self.free(&mut state, at, end);
            }
        }
    }

    /// The plan for a flow by this policy, if it has an entry of the same key.
    fn planned(&self, flow: &Flow, view: &View, now: u32) -> Option<Plan> {
        let port = flow.ingress.no;
        let is_same_port = view.port(port).is_some_and(|port| port.generation == flow.ingress.generation);
        let is_same = is_same_port && key_of(view, port, flow.queue, &flow.head) == Some(flow.key);
        plan(self, view, port, &flow.head, flow.len, now).ok().filter(|_| is_same)
    }

    /// Whether a flow of an older policy has an entry by this one too. It is written then.
    fn planned_again(&self, flow: &mut Flow, view: &View, now: u32) -> bool {
        self.count(flow);
        let Some(plan) = self.planned(flow, view, now) else { return false };
        flow.plan = plan;
        self.write(flow, view, Instant::now());
        true
    }

    /// Lets entries hold by the next policy too that it leaves as they are. Their packets go on in the kernel without a
    /// gap.
    pub fn carry_over(&self, next: &View, now: u32) {
        let mut state = self.lock();
        let (epoch, next_epoch) = (state.epoch, low_u32(next.snapshot.epoch));
        // An entry of an older epoch does not hold now: its packets are on their way through the switch.
        for flow in state.flows.iter_mut().filter(|flow| flow.epoch == epoch) {
            if let Some(plan) = self.planned(flow, next, now).filter(|plan| plan.is_as(&flow.plan)) {
                self.count(flow);
                (flow.plan, flow.epoch) = (plan, next_epoch);
                self.set_way(flow);
                self.table.restamp(flow.slot, next_epoch);
            }
        }
    }

    /// Another policy is in force. Returns whether there are entries that do not hold any more.
    pub(super) fn note_epoch(&self, view: &View) -> bool {
        let mut state = self.lock();
        state.epoch = low_u32(view.snapshot.epoch);
        state.flows.iter().any(|flow| flow.epoch != state.epoch)
    }

    /// Counts all flows, and voids those that hold no more. Returns these.
    fn look_at_all(&self, view: &View, now: u32) -> Vec<(usize, FlowTableKey, End)> {
        let (mut state, time) = (self.lock(), Instant::now());
        let mut ended = Vec::new();
        state.paused.retain(|(_, until)| *until > time);
        if time.duration_since(std::mem::replace(&mut state.looked_at, time)) > AWAY {
            for flow in &mut state.flows {
                flow.active = time;
                flow.moving = flow.moving.map(|_| time);
            }
        }
        for flow in &mut state.flows {
            if self.count(flow) {
                flow.active = time;
                if view.fdb.is_current(flow.plan.sender.entry) && now > 0 {
                    let limit = view.snapshot.port(flow.ingress.no).map_or(0, |policy| policy.fdb_limit);
                    let sender = flow.plan.sender;
                    view.fdb.learn(sender.mac, sender.vid, flow.ingress.no, limit, now);
                }
            }
            rate(flow, time);
            if let Some(end) = self.end_of(flow, view, time) {
                self.table.void(flow.slot);
                ended.push((flow.slot, flow.key, end));
            }
        }
        let is_hurried = state.flows.iter().any(|flow| flow.moving.is_some() && flow.is_limited);
        self.hurried.store(is_hurried, Ordering::Relaxed);
        ended
    }

    /// Why an entry holds no more. What moves into the kernel is moved on.
    fn end_of(&self, flow: &mut Flow, view: &View, time: Instant) -> Option<End> {
        if flow.epoch != low_u32(view.snapshot.epoch) {
            return Some(End::Policy);
        }
        let plan = &flow.plan;
        let entries = plan.station.iter().chain([&plan.sender.entry]);
        if !entries.into_iter().all(|entry| view.fdb.is_current(*entry)) {
            return Some(End::Fdb);
        }
        if let FlowAction::Send { port, .. } = plan.action
            && self.exit(port) != plan.exit
        {
            return Some(End::Port);
        }
        if let Some(since) = flow.moving {
            let (sent, waited) = (self.table.sent(flow.slot), time.duration_since(since));
            let is_quiet = std::mem::replace(&mut flow.sent, sent) == sent;
            if sent == self.table.done(flow.slot) {
                flow.moving = None;
                flow.active = time;
                self.moving.fetch_sub(1, Ordering::Relaxed);
            } else if sent != flow.first && waited >= MOVE_LIMIT {
                return Some(End::Stuck);
            } else if flow.is_limited {
                // The last number that was given may have been lost in a full ring. The next one will tell.
                self.table.limit(flow.slot, sent.wrapping_add(1));
            } else if !is_quiet && waited >= MOVE_WAIT {
                flow.is_limited = true;
                self.table.limit(flow.slot, sent);
            }
        }
        (time.duration_since(flow.active) >= IDLE).then_some(End::Idleness)
    }

    /// All flows, those with the highest rates first.
    pub fn flows(&self) -> Vec<OffloadedFlow> {
        let mut state = self.lock();
        self.count_all(&mut state);
        let time = Instant::now();
        let mut flows: Vec<_> = state.flows.iter().map(|flow| shown(flow, time)).collect();
        flows.sort_by_key(|flow| std::cmp::Reverse((flow.rate, flow.count.packets)));
        flows
    }

    /// Slots of all entries.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> Vec<usize> {
        self.lock().flows.iter().map(|flow| flow.slot).collect()
    }
}

/// Counts a flow's rate.
fn rate(flow: &mut Flow, time: Instant) {
    let (since, before) = flow.rated;
    let passed = time.duration_since(since);
    if passed >= RATE {
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1);
        flow.rate = (flow.count.packets - before).saturating_mul(1_000_000) / micros;
        flow.rated = (time, flow.count.packets);
    }
}

fn shown(flow: &Flow, time: Instant) -> OffloadedFlow {
    let ms = |since: Instant| u64::try_from(time.duration_since(since).as_millis()).unwrap_or(u64::MAX);
    let verdict = match (&flow.plan.egress, flow.plan.edit) {
        (None, _) => "drop".to_owned(),
        (Some(_), TagEdit::None) => "send".to_owned(),
        (Some(_), TagEdit::Pop) => "pop the tag, send".to_owned(),
        (Some(_), TagEdit::SetTci(tci)) => format!("set the tag to VLAN {}, send", tci & 0xfff),
        (Some(_), TagEdit::Push { tci, .. }) => format!("push a tag of VLAN {}, send", tci & 0xfff),
    };
    OffloadedFlow {
        port: flow.ingress.name.clone(),
        queue: flow.queue,
        flow: described(flow),
        verdict,
        egress: flow.plan.egress.as_ref().map(|egress| egress.name.clone()),
        rule: flow.plan.rule.as_ref().map(|rule| rule.index),
        state: if flow.moving.is_some() { OffloadState::Moving } else { OffloadState::Kernel },
        count: flow.count,
        rate: flow.rate,
        age_ms: ms(flow.since),
        idle_ms: ms(flow.active),
    }
}

/// What packets of a flow have in common, in words.
fn described(flow: &Flow) -> String {
    let Ok(headers) = parse(&flow.head) else { return String::new() };
    let mut text = format!("{} > {}", headers.src, headers.dst);
    if let Some(tag) = headers.outer {
        text += &format!(", VLAN {}", tag.tci & 0xfff);
    }
    if flow.key.0[0] >> 63 == 1 {
        return text + ", IP";
    }
    let (from, to) = match headers.l3 {
        L3::V4(ip) => (ip.src.to_string(), ip.dst.to_string()),
        L3::V6(ip) => (ip.src.to_string(), ip.dst.to_string()),
        _ => return text,
    };
    let (kind, src, dst) = match headers.l4 {
        L4::Tcp { src, dst, .. } => ("TCP", src, dst),
        L4::Udp { src, dst } => ("UDP", src, dst),
        _ => return text,
    };
    text + &format!(", {kind} {from}.{src} > {to}.{dst}")
}
