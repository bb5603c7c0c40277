//! Where one frame goes.

use super::admit::admit;
use super::context::BurstContext;
use super::forward::AdmittedFrame;
use super::lookup::Lookup;
use super::tracer::StepTracer;
use super::verdict::{Decision, Verdict};
use crate::engine::PortNo;
use crate::engine::fdb::{Fdb, Learn};
use crate::engine::rule::Key;
use crate::model::{DropReason, MacAddr, RuleAction, RuleTarget, Vid};

/// Decides where a frame goes, and learns its source address. `frame` has its headers, and `len` is its whole length in
/// bytes.
#[inline]
pub fn decide<'a, L: Lookup, T: StepTracer>(
    context: &BurstContext<'a>,
    frame: &[u8],
    len: usize,
    lookup: &mut L,
    tracer: &mut T,
) -> Decision<'a> {
    let &BurstContext { snap, fdb, ingress, .. } = context;
    let (l2, vid, from) = match admit(snap, ingress, frame, tracer) {
        Ok(admitted) => admitted,
        Err(reason) => return Decision { verdict: Verdict::Drop(reason), drop_port: ingress, rule: None },
    };
    tracer.step("learn", |name| describe_learning(fdb, l2.src, vid, ingress, &name(ingress)));
    if !lookup.learn(context, l2.src, vid, from.fdb_limit) {
        return Decision { verdict: Verdict::Drop(DropReason::MacFlap), drop_port: ingress, rule: None };
    }
    let rule = if snap.rules.is_empty() {
        None
    } else {
        let key = || Key::read(ingress, frame, &l2);
        let found = lookup.classify(&snap.rules, key);
        tracer.classified(&snap.rules, key, found);
        found
    };
    let here = |verdict| Decision { verdict, drop_port: ingress, rule };
    let admitted = AdmittedFrame { snap, from, ingress, vid, tag: l2.tag, len };
    let to_port = |port, queue, tracer: &mut T| {
        let (verdict, drop_port) = match admitted.forward(port, queue, tracer) {
            Ok(verdict) => return here(verdict),
            Err(reason) if reason.is_egress() => (Verdict::Drop(reason), snap.exit(port)),
            Err(reason) => (Verdict::Drop(reason), ingress),
        };
        Decision { verdict, drop_port, rule }
    };
    match rule.map(|rule| &rule.action) {
        Some(RuleAction { target: RuleTarget::Drop, .. }) => return here(Verdict::Drop(DropReason::RuleDrop)),
        Some(RuleAction { target: RuleTarget::Port(port), queue, .. }) => {
            if snap.port(*port).is_none() {
                return here(Verdict::Drop(DropReason::RuleNoPort));
            }
            return to_port(*port, *queue, tracer);
        }
        Some(RuleAction { target: RuleTarget::Normal, .. }) | None => {}
    }
    let flood = here(Verdict::Flood { vid, tag: l2.tag });
    if l2.dst.is_group() {
        if is_reserved(l2.dst) {
            if !snap.bridge.forward_reserved {
                tracer.step("fdb", |_| format!("{} is reserved for bridges and not forwarded", l2.dst));
                return here(Verdict::Drop(DropReason::ReservedMulticast));
            }
            tracer.step("fdb", |_| format!("{} is reserved for bridges, but forward_reserved is set", l2.dst));
        } else {
            tracer.step("fdb", |_| format!("{} is a group address: flood VLAN {vid}", l2.dst));
        }
        return flood;
    }
    let Some(port) = lookup.find_station(fdb, l2.dst, vid) else {
        tracer.step("fdb", |_| format!("{} is unknown in VLAN {vid}: flood", l2.dst));
        return flood;
    };
    if snap.port(port).is_none() {
        // The port went and its entries are about to go. The station, if it is still there, may be anywhere.
        tracer.step("fdb", |name| format!("{} was last seen on {}, which is gone: flood", l2.dst, name(port)));
        return flood;
    }
    tracer.step("fdb", |name| format!("{} in VLAN {vid} is behind {}", l2.dst, name(port)));
    to_port(port, None, tracer)
}

/// Whether it is one of 01:80:c2:00:00:00–0f, which bridges keep to themselves (IEEE 802.1Q-2022, table 8-1).
#[inline]
fn is_reserved(mac: MacAddr) -> bool {
    mac.to_u64() & !0xf == 0x0180_c200_0000
}

fn describe_learning(fdb: &Fdb, src: MacAddr, vid: Vid, ingress: PortNo, name: &str) -> String {
    match fdb.preview(src, vid, ingress) {
        Learn::Learned => format!("{src} in VLAN {vid} is new and would be learned on {name}"),
        Learn::Moved => format!("{src} in VLAN {vid} would move to {name}"),
        Learn::Held => format!("{src} in VLAN {vid} is held at another port, because it flapped"),
        Learn::Static => format!("{src} in VLAN {vid} is static and stays where it is"),
        Learn::Known | Learn::Refreshed | Learn::Skipped => format!("{src} in VLAN {vid} is known on {name}"),
    }
}
