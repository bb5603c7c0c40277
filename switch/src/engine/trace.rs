//! What happens to one packet, step by step, told by the code that switches packets.
//!
//! [`trace`] runs [`bridge::decide`] with a [`StepTracer`] that writes the steps down. For each receiver of a flood
//! it asks [`bridge::flood_verdict`], as a worker does. Nothing is learned, counted, metered or sent. Only control
//! calls this: it allocates.

use super::PortNo;
use super::bridge::{self, BurstContext, DryRunLookup, FloodVerdict, PortNames, StepTracer, Verdict};
use super::fdb::Fdb;
use super::meter::{Color, Meter};
use super::parse::{self, Fragment, L3, L4, Malformed, TPID_CTAG, Tag};
use super::rule::{Key, Rule, Rules, first_difference};
use super::snapshot::Snapshot;
use super::tables::PortMeters;
use super::vlan::TagEdit;
use crate::model::{DropReason, RuleAction, RuleTarget, TraceReport, TraceStep, Vid};

/// Rules that a trace names as not matching, at most.
const SHOWN_RULES: usize = 10;

/// What a trace looks at.
#[derive(Clone, Copy)]
pub struct TraceInput<'a> {
    /// Policy.
    pub snapshot: &'a Snapshot,
    /// FDB.
    pub fdb: &'a Fdb,
    /// Meters of ports.
    pub meters: &'a PortMeters,
    /// Time in seconds, as the FDB counts them.
    pub now: u32,
    /// Time in nanoseconds, as meters count them.
    pub now_ns: u64,
    /// PortNames of ports.
    pub names: PortNames<'a>,
    /// Index of a rule that the trace must tell about, even if many others don't match.
    pub rule: Option<u32>,
}

impl std::fmt::Debug for TraceInput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceInput").field("now", &self.now).field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// Traces `frame` as if it came in from `ingress` now.
pub fn trace(input: &TraceInput<'_>, ingress: PortNo, frame: &[u8]) -> TraceReport {
    let TraceInput { snapshot, fdb, meters, now, names, .. } = *input;
    let mut tracer = Tracer { steps: Vec::new(), input: *input, color: Color::Green };
    tracer.say("ingress", format!("{} bytes from {}", frame.len(), names(ingress)));
    if tracer.meter(meters.from(ingress), &format!("what {} sends", names(ingress)), frame.len()) == Color::Red {
        return tracer.dropped(DropReason::MeterFrom, None);
    }
    tracer.steps.extend(parse_steps(frame));
    // No worker counts anything here.
    let context = BurstContext { snap: snapshot, fdb, now, ingress, worker: 0 };
    let decision = bridge::decide(&context, frame, frame.len(), &mut DryRunLookup::default(), &mut tracer);
    let mut mirrored = None;
    if let Some(rule) = decision.rule {
        let mut mirror = rule.action.mirror.map(|mirror| snapshot.exit(mirror));
        let needs_copy = |to: &mut PortNo| !bridge::is_receiver(snapshot, ingress, &decision, *to, frame.len());
        if let Some(to) = mirror.take_if(needs_copy) {
            mirrored = tracer.mirror(ingress, to, frame);
        }
        let what = format!("rule {}", rule.index);
        if !matches!(decision.verdict, Verdict::Drop(_))
            && tracer.meter(rule.meter.as_ref(), &what, frame.len()) == Color::Red
        {
            mirrored = mirror.map_or(mirrored, |to| tracer.mirror(ingress, to, frame));
            return with_rule(tracer.dropped(DropReason::MeterRule, None), decision.rule, mirrored);
        }
        if let Some(to) = mirror {
            tracer.say("mirror", format!("no copy to {}: it gets the frame itself", names(to)));
        }
    }
    let report = match decision.verdict {
        Verdict::Drop(reason) => {
            tracer.dropped(reason, (decision.drop_port != ingress).then(|| names(decision.drop_port)))
        }
        Verdict::Unicast { port, edit, queue, .. } => {
            let queue = queue.map(|queue| format!(" queue {queue}")).unwrap_or_default();
            tracer.say("egress", format!("out of {}{queue}: {}", names(port), describe_edit(edit)));
            let len = edit.edited_len(frame.len());
            if tracer.meter(meters.to(port), &format!("what {} is sent", names(port)), len) == Color::Red {
                tracer.dropped(DropReason::MeterTo, Some(names(port)))
            } else {
                tracer.end("forward", vec![names(port)], format!("forwarded to {}", names(port)))
            }
        }
        Verdict::Flood { vid, tag } => tracer.flood(ingress, vid, tag, frame),
    };
    with_rule(report, decision.rule, mirrored)
}

/// The report, with the rule that applied and the port that got a copy.
fn with_rule(report: TraceReport, rule: Option<&Rule>, mirror: Option<String>) -> TraceReport {
    TraceReport { rule: rule.map(|rule| rule.index), mirror, ..report }
}

/// Writes the steps down.
struct Tracer<'t> {
    steps: Vec<TraceStep>,
    input: TraceInput<'t>,
    /// The colour that meters have given the frame so far.
    color: Color,
}

impl StepTracer for Tracer<'_> {
    fn step(&mut self, stage: &'static str, detail: impl FnOnce(PortNames<'_>) -> String) {
        self.say(stage, detail(self.input.names));
    }

    fn classified(&mut self, rules: &Rules, key: impl FnOnce() -> Key, found: Option<&Rule>) {
        let key = &key();
        let better = |rule: &&std::sync::Arc<Rule>| found.is_none_or(|found| rule.index < found.index);
        let tell = |rule: &Rule| {
            let index = rule.index;
            first_difference(&rule.compiled(), key).map(|(field, has, wanted)| {
                format!("rule {index} does not match: {field} is {has}, it asks for {wanted}")
            })
        };
        let passed: Vec<_> =
            rules.iter_from(0).take_while(better).take(SHOWN_RULES).filter_map(|rule| tell(rule)).collect();
        passed.into_iter().for_each(|detail| self.say("rule", detail));
        let more = rules.iter_from(0).take_while(better).count().saturating_sub(SHOWN_RULES);
        if more > 0 {
            self.say(
                "rule",
                format!("{more} more rules of better index do not match either (ask for one by its index)"),
            );
        }
        match self.input.rule.map(|index| (index, rules.get(index))) {
            Some((index, None)) => self.say("rule", format!("there is no rule {index}")),
            Some((index, Some(rule))) if found.is_none_or(|found| found.index != index) => {
                let told = tell(rule).unwrap_or_else(|| format!("rule {index} matches too, and has a worse index"));
                self.say("rule", told);
            }
            _ => {}
        }
        match found {
            Some(rule) => self.say("rule", self.describe_rule(rule)),
            None => self.say("rule", "no rule matches".to_owned()),
        }
    }
}

impl Tracer<'_> {
    fn say(&mut self, stage: &str, detail: String) {
        self.steps.push(step(stage, detail));
    }

    fn describe_rule(&self, rule: &Rule) -> String {
        let RuleAction { target, queue, meter, mirror } = &rule.action;
        let mut text = format!("rule {} matches: ", rule.index);
        text += &match target {
            RuleTarget::Drop => "drop".to_owned(),
            RuleTarget::Normal => "on by the MAC table".to_owned(),
            RuleTarget::Port(no) => format!("to {}", (self.input.names)(*no)),
        };
        text += &queue.map(|queue| format!(" queue {queue}")).unwrap_or_default();
        text += &meter.map(|meter| format!(", meter {meter}")).unwrap_or_default();
        text + &mirror.map(|mirror| format!(", mirrored to {}", (self.input.names)(mirror))).unwrap_or_default()
    }

    /// Asks a meter, if there is one, and tells its answer.
    fn meter(&mut self, meter: Option<&std::sync::Arc<Meter>>, what: &str, len: usize) -> Color {
        let Some(meter) = meter else { return Color::Green };
        let (color, step) = meter_step(meter, what, len, self.color, self.input.now_ns);
        self.color = color;
        self.steps.push(step);
        color
    }

    fn mirror(&mut self, ingress: PortNo, mirror: PortNo, frame: &[u8]) -> Option<String> {
        let name = (self.input.names)(mirror);
        let refused = bridge::mirror_check(self.input.snapshot, ingress, mirror, frame, frame.len()).err();
        match refused {
            None => self.say("mirror", format!("a copy to {name}, as it came in")),
            Some(why) => self.say("mirror", format!("no copy to {name}: {}", why.label())),
        }
        refused.is_none().then_some(name)
    }

    fn flood(mut self, ingress: PortNo, vid: Vid, tag: Option<Tag>, frame: &[u8]) -> TraceReport {
        let TraceInput { snapshot: snap, fdb, names, meters, .. } = self.input;
        let len = frame.len();
        let loop_ports = parse::parse_l2(frame).ok().and_then(|l2| fdb.loop_ports(l2.src, vid));
        let members = snap.flood_ports(vid);
        let (mut outputs, mut drop) = (Vec::new(), DropReason::NoDestination);
        for &port in members {
            let name = names(port);
            let detail = match bridge::flood_verdict(snap, ingress, port, vid, tag, len) {
                FloodVerdict::Send { port: exit, .. } if loop_ports.is_some_and(|ports| ports.contains(exit)) => {
                    format!("not to {name}: its sender flaps, and was seen there too")
                }
                FloodVerdict::Send { port: exit, edit } => {
                    let by = if exit == port { String::new() } else { format!(", redirected to {}", names(exit)) };
                    let color = self.color;
                    let what = format!("what {} is sent", names(exit));
                    if self.meter(meters.to(exit), &what, edit.edited_len(len)) == Color::Red {
                        drop = DropReason::MeterTo;
                    } else {
                        outputs.push(names(exit));
                    }
                    self.color = color;
                    format!("to {name}{by}: {}", describe_edit(edit))
                }
                FloodVerdict::Skip if port == ingress => format!("not to {name}: it came from there"),
                FloodVerdict::Skip if snap.exit(port) != port => {
                    format!("not to {name}: redirected to {}, which has it already", names(snap.exit(port)))
                }
                FloodVerdict::Skip => format!("not to {name}: isolated from where it came from"),
                FloodVerdict::Drop(reason) => {
                    drop = reason;
                    format!("dropped for {name}: {}: {}", reason.label(), reason.explain())
                }
            };
            self.say("flood", detail);
        }
        let others: Vec<_> = snap.ports().filter(|(no, _)| members.binary_search(no).is_err()).collect();
        if !others.is_empty() {
            let others: Vec<_> = others.into_iter().map(|(no, _)| names(no)).collect();
            self.say("flood", format!("not to ports that are not in VLAN {vid}: {}", others.join(", ")));
        }
        if outputs.is_empty() {
            return self.dropped(drop, None);
        }
        let detail = format!("flooded to {}", outputs.join(", "));
        self.end("flood", outputs, detail)
    }

    fn dropped(self, reason: DropReason, at: Option<String>) -> TraceReport {
        let at = at.map(|name| format!(" for {name}")).unwrap_or_default();
        let detail = format!("dropped{at}: {}: {}", reason.label(), reason.explain());
        TraceReport { drop_reason: Some(reason.label().to_owned()), ..self.end("drop", Vec::new(), detail) }
    }

    fn end(mut self, verdict: &str, outputs: Vec<String>, detail: String) -> TraceReport {
        self.say("verdict", detail);
        let (rule, mirror) = (None, None);
        let (drop_reason, ends) = (None, Vec::new());
        TraceReport { steps: self.steps, verdict: verdict.to_owned(), outputs, drop_reason, rule, mirror, ends }
    }
}

/// A step of that stage.
pub(crate) fn step(stage: &str, detail: String) -> TraceStep {
    TraceStep { stage: stage.to_owned(), detail }
}

/// What a meter would say now of a frame of that length, which earlier meters gave the colour `before`.
pub(crate) fn meter_step(meter: &Meter, what: &str, len: usize, before: Color, now_ns: u64) -> (Color, TraceStep) {
    let color = meter.preview(len, before, now_ns);
    let mark = match (color, meter.yellow_dscp()) {
        (Color::Yellow, Some(dscp)) => format!(", DSCP {dscp} is written"),
        _ => String::new(),
    };
    (color, step("meter", format!("meter {} of {what}: {} now{mark}", meter.id(), color.label())))
}

/// The headers of a frame in words.
pub(crate) fn parse_steps(frame: &[u8]) -> Vec<TraceStep> {
    let headers = match parse::parse(frame) {
        Ok(headers) => headers,
        Err(reason) => return vec![step("parse", format!("layer 2 is unusable: {}", reason.label()))],
    };
    let mut details = vec![format!("{} to {}, EtherType {:#06x}", headers.src, headers.dst, headers.ethertype)];
    for (place, tag) in [("outer", headers.outer), ("inner", headers.inner)] {
        details.extend(tag.map(|tag| format!("{place} tag: {}", describe_tag(tag))));
    }
    details.extend(describe_l3(&headers.l3));
    details.extend(describe_l4(&headers.l4));
    let malformed =
        |why: Malformed| format!("malformed, switched by its MAC addresses all the same: {}", why.explain());
    details.extend(headers.malformed.map(malformed));
    details.into_iter().map(|detail| step("parse", detail)).collect()
}

/// A tag in words.
pub(crate) fn describe_tag(tag: Tag) -> String {
    let kind = if tag.tpid == TPID_CTAG { "C-tag" } else { "S-tag" };
    let eligible = if tag.dei() { ", drop eligible" } else { "" };
    format!("{kind} ({:#06x}) VID {} PCP {}{eligible}", tag.tpid, tag.vid(), tag.pcp())
}

/// An edit in words.
pub(crate) fn describe_edit(edit: TagEdit) -> String {
    match edit {
        TagEdit::None => "as it is".to_owned(),
        TagEdit::Push { tpid, tci } => format!("tag pushed: {}", describe_tag(Tag::new(tpid, tci))),
        TagEdit::Pop => "outer tag removed".to_owned(),
        TagEdit::SetTci(tci) => {
            let tag = Tag::new(TPID_CTAG, tci);
            format!("outer tag set to VID {} PCP {}", tag.vid(), tag.pcp())
        }
    }
}

fn describe_l3(l3: &L3) -> Option<String> {
    Some(match l3 {
        L3::Other => return None,
        L3::Arp(arp) => {
            let kind = match arp.operation {
                1 => "ARP request".to_owned(),
                2 => "ARP reply".to_owned(),
                3 => "RARP request".to_owned(),
                4 => "RARP reply".to_owned(),
                other => format!("ARP operation {other}"),
            };
            format!("{kind}: sender {} {}, target {} {}", arp.sender_mac, arp.sender_ip, arp.target_mac, arp.target_ip)
        }
        L3::V4(ip) => {
            format!("IPv4 {} to {}, protocol {}{}", ip.src, ip.dst, ip.protocol, describe_fragment(ip.fragment))
        }
        L3::V6(ip) => {
            format!("IPv6 {} to {}, next header {}{}", ip.src, ip.dst, ip.protocol, describe_fragment(ip.fragment))
        }
    })
}

fn describe_fragment(fragment: Fragment) -> &'static str {
    match fragment {
        Fragment::Whole => "",
        Fragment::First => ", first fragment",
        Fragment::Later => ", later fragment without ports",
    }
}

fn describe_l4(l4: &L4) -> Option<String> {
    Some(match l4 {
        L4::Other => return None,
        L4::Tcp { src, dst, flags } => format!("TCP port {src} to {dst}, flags {flags:#04x}"),
        L4::Udp { src, dst } => format!("UDP port {src} to {dst}"),
        L4::Icmp { kind, code } => format!("ICMP type {kind} code {code}"),
        L4::Icmpv6 { kind, code } => format!("ICMPv6 type {kind} code {code}"),
    })
}
