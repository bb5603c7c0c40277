//! The ways of a frame through ports, rules, components and rings.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::parcel::Parcel;
use super::rule_tracer::RuleTracer;
use crate::engine::component::{Target, tag_edit};
use crate::engine::flow::{FlowRuleCache, FlowTable};
use crate::engine::meter::{Color, Meter};
use crate::engine::parse::parse_l2;
use crate::engine::trace::{describe_edit, meter_step, step};
use crate::engine::vlan::apply;
use crate::model::{ComponentKind, DropReason, EndPort, TraceEnd, TraceFate, TraceStep, VlanEdit};
use crate::worker::ends::Ring;
use crate::worker::frames::is_too_long;
use crate::worker::set::{Component, Link, Logic, Set};
use crate::worker::view::{PortShared, View};

/// What a trace looks at.
pub(crate) struct TraceContext<'a> {
    /// Components and flow rules.
    pub set: &'a Set,
    /// Ports and meters.
    pub view: &'a View,
    /// Nanoseconds, as meters count them.
    pub now_ns: u64,
    /// What an outside end is joined to.
    pub outside: &'a dyn Fn(u32) -> String,
}

/// A frame on its way into a component, by place in the set, by one of its receiving ends.
pub(super) struct Visit {
    component: usize,
    rx: usize,
    pub(super) parcel: Parcel,
    pub(super) before: Option<Rc<Passed>>,
}

/// A component that the frame has passed, and how it was when it came there.
pub(super) struct Passed {
    component: usize,
    rx: usize,
    data: Vec<u8>,
    before: Option<Rc<Passed>>,
}

pub(super) struct Walk<'a> {
    pub(super) context: &'a TraceContext<'a>,
    pub(super) steps: Vec<TraceStep>,
    pub(super) ends: Vec<TraceEnd>,
    /// What is still to be followed, the next one last.
    pub(super) todo: Vec<Visit>,
}

impl<'a> Walk<'a> {
    pub(super) fn say(&mut self, stage: &str, detail: String) {
        self.steps.push(step(stage, detail));
    }

    fn name_of(&self, end: &EndPort) -> String {
        match end {
            EndPort::Outside(no) => format!("{end} ({})", (self.context.outside)(*no)),
            end => end.to_string(),
        }
    }

    /// A way is at its end.
    pub(super) fn end(
        &mut self,
        fate: TraceFate,
        at: Option<EndPort>,
        reason: Option<DropReason>,
        parcel: &Parcel,
        passed: Option<&Rc<Passed>>,
    ) {
        let mut components = Vec::new();
        let mut next = passed;
        while let Some(one) = next {
            components.push(self.context.set.components[one.component].0.spec.name.clone());
            next = one.before.as_ref();
        }
        components.reverse();
        let reason = reason.map(|reason| reason.label().to_owned());
        self.ends.push(TraceEnd { fate, at, components, reason, hex: hex(parcel.data()) });
    }

    fn drop(&mut self, reason: DropReason, at: &EndPort, parcel: &Parcel, passed: Option<&Rc<Passed>>) {
        let place = self.name_of(at);
        self.say("drop", format!("at {place}: {}: {}", reason.label(), reason.explain()));
        self.end(TraceFate::Dropped, Some(at.clone()), Some(reason), parcel, passed);
    }

    /// Asks a meter, if there is one. False if the frame does not pass.
    fn passes(&mut self, meter: Option<&Arc<Meter>>, what: &str, len: usize) -> bool {
        let Some(meter) = meter else { return true };
        let (color, step) = meter_step(meter, what, len, Color::Green, self.context.now_ns);
        self.steps.push(step);
        color != Color::Red
    }

    /// The frame comes in by a queue.
    pub(super) fn enter(&mut self, port: &Arc<PortShared>, queue: u32, parcel: Parcel) {
        let (set, mut parcel) = (self.context.set, parcel);
        let flows = set.flows_of(port.no).filter(|flows| flows.has_ingress());
        let is_taken = set.takes_from(port, queue);
        let here = EndPort::Port { name: port.name.clone(), queue: Some(queue) };
        if !is_taken && !flows.is_some_and(|flows| flows.has_reader()) {
            let whose = self.unready(|link| link.is_queue(port, queue));
            self.say(
                "waiting",
                format!("no component takes frames from {here}{whose}: they wait in its ring, and what that has no room for is lost"),
            );
            return self.end(TraceFate::Waiting, Some(here), None, &parcel, None);
        }
        if !self.passes(self.context.view.meters.from(port.no), &format!("what {} sends", port.name), parcel.len) {
            return self.drop(DropReason::MeterFrom, &here, &parcel, None);
        }
        let mut to = queue;
        if let Some(flows) = flows {
            to = self.rules(flows.ingress(), "comes in", &mut parcel).unwrap_or(queue);
            if to != queue || !is_taken {
                match flows.ring_to(to, port.queues[queue as usize].worker()) {
                    None => return self.drop(DropReason::FlowNobody, &here, &parcel, None),
                    Some((ring, _)) if ring.is_full() => {
                        return self.drop(DropReason::FlowRingFull, &here, &parcel, None);
                    }
                    Some((_, reader)) => self.say("flow", format!("to the end of queue {to}, at worker {reader}")),
                }
            }
        }
        match set.taker(|link| link.is_queue(port, to)) {
            Some((component, rx)) => self.todo.push(Visit { component, rx, parcel, before: None }),
            None => self.drop(DropReason::FlowNobody, &here, &parcel, None),
        }
    }

    /// Carries out flow rules. Returns the queue that the frame is for, if a rule names one.
    fn rules(&mut self, table: &FlowTable, how: &str, parcel: &mut Parcel) -> Option<u32> {
        let mut tracer = RuleTracer { steps: &mut self.steps, how };
        let fate = table.run(&mut FlowRuleCache::default(), &mut parcel.buf, parcel.start, parcel.len, &mut tracer);
        (parcel.start, parcel.len) = (fate.start, fate.len);
        fate.queue
    }

    /// What an end does to the tag.
    fn retag(&mut self, vlan: VlanEdit, parcel: &mut Parcel) -> Result<(), DropReason> {
        let edit = tag_edit(vlan, parcel.data())?;
        (parcel.start, parcel.len) = apply(edit, &mut parcel.buf, parcel.start, parcel.len);
        if vlan != VlanEdit::None {
            self.say("vlan", format!("the end's edit: {}", describe_edit(edit)));
        }
        Ok(())
    }

    /// Says which component has an end, if one has that lacks another.
    fn unready(&self, is_it: impl Fn(&Link) -> bool) -> String {
        let mut unready = self.context.set.components.iter().filter(|(component, _)| !component.is_ready());
        let it = unready.find(|(component, _)| component.rx.iter().any(&is_it));
        it.map_or_else(String::new, |(component, _)| {
            let what = match component.spec.kind {
                ComponentKind::Classifier => "a sending end or an entry",
                ComponentKind::Mirror => "a sending end: it needs two",
                ComponentKind::Forward | ComponentKind::Merge => "a sending end",
            };
            format!(" ({}, which has it, lacks {what})", component.spec.name)
        })
    }

    /// The frame is in a component's hands.
    pub(super) fn visit(&mut self, visit: Visit) {
        let Visit { component: place, rx, mut parcel, before } = visit;
        let set = self.context.set;
        let (component, _) = &set.components[place];
        let from = &component.spec.rx[rx];
        let kind = match component.spec.kind {
            ComponentKind::Forward => "forward",
            ComponentKind::Merge => "merge",
            ComponentKind::Classifier => "classifier",
            ComponentKind::Mirror => "mirror",
        };
        let (name, worker) = (&component.spec.name, component.spec.worker);
        self.say("component", format!("{name} ({kind}, worker {worker}) takes it from {}", self.name_of(&from.port)));
        let data = parcel.data().to_vec();
        let passed = Rc::new(Passed { component: place, rx, data, before });
        let mut next = passed.before.as_ref();
        while let Some(one) = next {
            if (one.component, one.rx, &one.data) == (place, rx, &passed.data) {
                self.say("circle", format!("it was at {name} before, just as it is: it goes round for ever"));
                return self.end(TraceFate::Circling, Some(from.port.clone()), None, &parcel, Some(&passed));
            }
            next = one.before.as_ref();
        }
        if let Err(reason) = self.retag(from.vlan, &mut parcel) {
            return self.drop(reason, &from.port, &parcel, Some(&passed));
        }
        let targets = match &component.logic {
            Logic::First => vec![0],
            Logic::All => {
                self.say("mirror", "a copy to each sending end".to_owned());
                (0..component.tx.len()).collect()
            }
            Logic::Lookup(table) => match table.decide(parcel.data()) {
                Err(reason) => return self.drop(reason, &from.port, &parcel, Some(&passed)),
                Ok(Target::One(to)) => vec![usize::from(to)],
                Ok(Target::All(all)) => all.iter().map(|to| usize::from(*to)).collect(),
                Ok(Target::None) => Vec::new(),
            },
        };
        if matches!(component.logic, Logic::Lookup(_)) {
            self.say("classifier", self.why(component, parcel.data(), &targets));
        }
        let todo = self.todo.len();
        for to in targets {
            self.give(component, to, parcel.clone(), &passed);
        }
        // In the order of the ends.
        self.todo[todo..].reverse();
    }

    /// Why a classifier sends a frame where it does.
    fn why(&self, component: &Component, frame: &[u8], targets: &[usize]) -> String {
        let Ok(l2) = parse_l2(frame) else { return String::new() };
        let vlan = l2.tag.map(|tag| tag.vid());
        let of = vlan.map_or_else(|| "untagged frames".to_owned(), |vlan| format!("VLAN {vlan}"));
        let table = &component.spec.table;
        let has = |vlan, mac| table.iter().any(|entry| (entry.vlan, entry.mac) == (vlan, mac));
        let by = if has(vlan, Some(l2.dst)) {
            format!("by the entry of {of} for {}", l2.dst)
        } else if l2.dst.is_group() {
            format!("{} is a group address: to all ends with an entry of {of}, and to the untagged default", l2.dst)
        } else if has(vlan, None) {
            format!("no entry of {of} for {}: by the default of {of}", l2.dst)
        } else {
            format!("no entry of {of} for {}, and no default of it: by the default of untagged frames", l2.dst)
        };
        let ends: Vec<_> = targets.iter().map(|to| self.name_of(&component.spec.tx[*to].port)).collect();
        format!("{by}: to {}", ends.join(", "))
    }

    /// The frame is given to a sending end.
    fn give(&mut self, component: &Component, to: usize, parcel: Parcel, passed: &Rc<Passed>) {
        let (link, end, mut parcel) = (&component.tx[to], &component.spec.tx[to], parcel);
        let at = &end.port;
        if let Err(reason) = self.retag(end.vlan, &mut parcel) {
            return self.drop(reason, at, &parcel, Some(passed));
        }
        match link {
            Link::Port(port, _) => self.give_to_port(port, at, parcel, passed),
            Link::Ring(ring) => self.give_to_ring(ring, at, parcel, passed),
            Link::Outside(outside) if outside.is_full() => {
                self.drop(DropReason::OutsideFull, at, &parcel, Some(passed));
            }
            Link::Null(_) | Link::Outside(_) => {
                self.say("egress", format!("to {}: {}", self.name_of(at), parcel.describe()));
                self.end(TraceFate::Sent, Some(at.clone()), None, &parcel, Some(passed));
            }
        }
    }

    fn give_to_ring(&mut self, ring: &Arc<Ring>, at: &EndPort, parcel: Parcel, passed: &Rc<Passed>) {
        let waiting = ring.queued().packets;
        if ring.is_full() {
            self.say("ring", format!("{at} is full: {waiting} frames wait in it"));
            return self.drop(DropReason::RingFull, at, &parcel, Some(passed));
        }
        self.say("ring", format!("into {at}, in which {waiting} frames wait: {}", parcel.describe()));
        match self.context.set.taker(|link| link.is_ring(ring)) {
            Some((component, rx)) => {
                self.todo.push(Visit { component, rx, parcel, before: Some(Rc::clone(passed)) });
            }
            None => {
                let whose = self.unready(|link| link.is_ring(ring));
                self.say(
                    "waiting",
                    format!("no component takes frames from {at}{whose}: they wait there until it is full"),
                );
                self.end(TraceFate::Waiting, Some(at.clone()), None, &parcel, Some(passed));
            }
        }
    }

    /// As a worker does it: rules see the tag that the end has left, and the MTU holds for what they leave.
    fn give_to_port(&mut self, port: &Arc<PortShared>, at: &EndPort, mut parcel: Parcel, passed: &Rc<Passed>) {
        let flows = self.context.set.flows_of(port.no).filter(|flows| flows.has_egress()).map(|flows| flows.egress());
        if let Some(table) = flows {
            self.rules(table, "goes out", &mut parcel);
        }
        if is_too_long(parcel.data(), parcel.data().len(), port.mtu.load(Ordering::Relaxed) as usize) {
            return self.drop(DropReason::EgressMtu, at, &parcel, Some(passed));
        }
        let view = self.context.view;
        if !self.passes(view.meters.to(port.no), &format!("what {} is sent", port.name), parcel.len) {
            return self.drop(DropReason::MeterTo, at, &parcel, Some(passed));
        }
        if view.port(port.no).is_none_or(|there| there.generation != port.generation) {
            return self.drop(DropReason::PortGone, at, &parcel, Some(passed));
        }
        self.say("egress", format!("out of {at}: {}", parcel.describe()));
        self.end(TraceFate::Sent, Some(at.clone()), None, &parcel, Some(passed));
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}
