//! What happens to one packet, step by step, told by the very code that switches packets.
//!
//! [`trace`] runs [`bridge::decide`] with an observer that writes down what it hears, then asks [`bridge::egress_check`] for
//! each receiver of a flood as a worker would. Nothing is learned, counted or sent. For control, which may allocate.

use serde::{Deserialize, Serialize};

use super::PortNo;
use super::bridge::{self, Egress, Observer, Verdict};
use super::drop::DropReason;
use super::fdb::Fdb;
use super::parse::{self, Fragment, Headers, L3, L4, TPID_CTAG, Tag};
use super::snapshot::Snapshot;
use super::vlan::{TagEdit, Vid};

/// One step on the way of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TraceStep {
    /// Stage: `parse`, `ingress`, `vlan`, `anti-spoof`, `learn`, `fdb`, `flood`, `egress`, …
    pub stage: String,
    /// What was looked at and found.
    pub detail: String,
}

/// The way of a traced packet and where it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TraceReport {
    /// The steps in order.
    pub steps: Vec<TraceStep>,
    /// `forward`, `flood` or `drop`.
    pub verdict: String,
    /// Ports that the packet goes out of, by name.
    pub outputs: Vec<String>,
    /// Label of the drop reason, if the verdict is `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
}

/// Tells the way of `frame`, as if it came in from `ingress` at second `now`; `names` gives the names of ports.
pub fn trace(
    snap: &Snapshot,
    fdb: &Fdb,
    now: u32,
    ingress: PortNo,
    frame: &[u8],
    names: &dyn Fn(PortNo) -> String,
) -> TraceReport {
    let mut tracer = Tracer { steps: Vec::new() };
    tracer.say("ingress", format!("{} bytes from {}", frame.len(), names(ingress)));
    match parse::parse(frame) {
        Ok(headers) => tracer.headers(&headers),
        Err(reason) => tracer.say("parse", format!("layer 2 is unusable: {}", reason.label())),
    }
    let decision = bridge::decide_at(snap, fdb, now, ingress, frame, &mut tracer);
    match decision.verdict {
        Verdict::Drop(reason) => tracer.dropped(reason, (decision.at != ingress).then(|| names(decision.at))),
        Verdict::Unicast { port, edit } => {
            tracer.say("egress", format!("out of {}: {}", names(port), describe_edit(edit)));
            tracer.end("forward", vec![names(port)], format!("forwarded to {}", names(port)))
        }
        Verdict::Flood { vid, tag } => tracer.flood(snap, ingress, vid, tag, frame.len(), names),
    }
}

/// The observer that writes down.
struct Tracer {
    steps: Vec<TraceStep>,
}

impl Observer for Tracer {
    const LEARN: bool = false;

    fn step(&mut self, stage: &'static str, detail: impl FnOnce() -> String) {
        self.say(stage, detail());
    }
}

impl Tracer {
    fn say(&mut self, stage: &str, detail: String) {
        self.steps.push(TraceStep { stage: stage.to_owned(), detail });
    }

    fn headers(&mut self, headers: &Headers) {
        self.say("parse", format!("{} to {}, EtherType {:#06x}", headers.src, headers.dst, headers.ethertype));
        for (place, tag) in [("outer", headers.outer), ("inner", headers.inner)] {
            if let Some(tag) = tag {
                self.say("parse", format!("{place} tag: {}", describe_tag(tag)));
            }
        }
        if let Some(l3) = describe_l3(&headers.l3) {
            self.say("parse", l3);
        }
        if let Some(l4) = describe_l4(&headers.l4) {
            self.say("parse", l4);
        }
        if let Some(malformed) = headers.malformed {
            self.say(
                "parse",
                format!("malformed, switched by its MAC addresses all the same: {}", malformed.explain()),
            );
        }
    }

    fn flood(
        mut self,
        snap: &Snapshot,
        ingress: PortNo,
        vid: Vid,
        tag: Option<Tag>,
        len: usize,
        names: &dyn Fn(PortNo) -> String,
    ) -> TraceReport {
        let members = snap.flood_ports(vid);
        let (mut outputs, mut drop) = (Vec::new(), DropReason::NoDestination);
        for &port in members {
            let name = names(port);
            let detail = match bridge::egress_check(snap, ingress, port, vid, tag, len) {
                Egress::Send(edit) => {
                    outputs.push(name.clone());
                    format!("to {name}: {}", describe_edit(edit))
                }
                Egress::Skip if port == ingress => format!("not to {name}: it came from there"),
                Egress::Skip => format!("not to {name}: isolated from where it came from"),
                Egress::Drop(reason) => {
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
        TraceReport { steps: self.steps, verdict: verdict.to_owned(), outputs, drop_reason: None }
    }
}

fn describe_tag(tag: Tag) -> String {
    let kind = if tag.tpid == TPID_CTAG { "C-tag" } else { "S-tag" };
    let eligible = if tag.dei() { ", drop eligible" } else { "" };
    format!("{kind} ({:#06x}) VID {} PCP {}{eligible}", tag.tpid, tag.vid(), tag.pcp())
}

fn describe_edit(edit: TagEdit) -> String {
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
