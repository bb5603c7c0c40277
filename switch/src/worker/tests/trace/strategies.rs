//! Components, rules and frames at random.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::net::{PORTS, QUEUES, RINGS, SINKS};
use super::*;

pub(super) fn any_end(sinks: bool) -> BoxedStrategy<End> {
    let port = (0..PORTS, prop::option::of(0..QUEUES as u32))
        .prop_map(|(no, queue)| EndPort::Port { name: format!("p{no}"), queue });
    let ring = (0..RINGS).prop_map(EndPort::Ring);
    let sink = prop_oneof![(0..SINKS).prop_map(EndPort::Null), (0..SINKS).prop_map(EndPort::Outside)];
    let vlan = prop_oneof![
        3 => Just(VlanEdit::None),
        1 => (0u16..3, 0u8..8).prop_map(|(vid, pcp)| VlanEdit::Add { vid, pcp }),
        1 => Just(VlanEdit::Del)
    ];
    let place =
        if sinks { prop_oneof![3 => port, 4 => ring, 1 => sink].boxed() } else { prop_oneof![port, ring].boxed() };
    (place, vlan).prop_map(|(port, vlan)| End { port, vlan }).boxed()
}

pub(super) fn any_mac() -> impl Strategy<Value = [u8; 6]> {
    prop::sample::select(vec![TO, [2, 0, 0, 0, 0, 8], [1, 0, 0x5e, 0, 0, 1]])
}

pub(super) fn any_component() -> impl Strategy<Value = ComponentSpec> {
    use ComponentKind::{Classifier, Forward, Merge, Mirror};
    let entry = (prop::option::of(0u16..3), prop::option::of(any_mac().prop_map(MacAddr::new)), 0usize..3);
    let entry = entry.prop_map(|(vlan, mac, tx)| TableEntry { vlan, mac, tx });
    let ends = |sinks, most| prop::collection::vec(any_end(sinks), 0..=most);
    let kind = prop::sample::select(vec![Forward, Merge, Mirror, Mirror, Classifier, Classifier]);
    (0usize..2, kind, ends(false, 3), ends(true, 3), prop::collection::vec(entry, 0..6)).prop_map(
        |(worker, kind, mut rx, mut tx, table)| {
            rx.truncate(if kind == Merge { 3 } else { 1 });
            tx.truncate(match kind {
                Forward | Merge => 1,
                Mirror => 2,
                Classifier => 3,
            });
            let mut unique = BTreeMap::new();
            for entry in table.into_iter().filter(|entry| kind == Classifier && entry.tx < tx.len()) {
                unique.entry((entry.vlan, entry.mac)).or_insert(entry);
            }
            let table = unique.into_values().collect();
            ComponentSpec { name: String::new(), worker, kind, rx, tx, table }
        },
    )
}

pub(super) fn any_rules() -> impl Strategy<Value = Vec<FlowRule>> {
    let key = (prop::option::of(0u32..3), prop::option::of(any_mac())).prop_map(|(vid, mac)| FlowKey {
        tci: vid.map(|value| Masked { value, mask: 0xfff }),
        dmac: mac.map(|mac| MaskedMac { value: MacAddr::new(mac), mask: MaskedMac::FULL }),
        ..FlowKey::default()
    });
    let edit = prop_oneof![
        Just(FlowEdit::Pop),
        Just(FlowEdit::Push(0x8100)),
        (0u16..3).prop_map(FlowEdit::Vid),
        (0u8..8).prop_map(FlowEdit::Pcp)
    ];
    let target = prop_oneof![
        Just(FlowTarget::Normal),
        (0..QUEUES as u32).prop_map(FlowTarget::Queue),
        Just(FlowTarget::Group(1))
    ];
    let direction = prop::sample::select(vec![FlowDirection::Ingress, FlowDirection::Egress]);
    let rule = (direction, 0u32..2, key, prop::collection::vec(edit, 0..3), target);
    prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(rule, 1..5)].prop_map(|rules| {
        let rules = (0..).zip(rules).map(|(id, (direction, group, key, edits, target))| {
            let target = match target {
                FlowTarget::Group(_) if group == 1 => FlowTarget::Normal,
                FlowTarget::Queue(_) if direction == FlowDirection::Egress => FlowTarget::Normal,
                target => target,
            };
            FlowRule { id, direction, group, priority: 0, key, edits, target }
        });
        rules.collect()
    })
}

pub(super) fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let tci = prop::option::of(prop::sample::select(vec![0u16, 1, 2, 0xe001]));
    // With up to three tags, some of them as long as the MTU allows.
    let len = prop_oneof![0usize..90, 60usize..80];
    let whole = (any_mac(), tci, 0..3, len).prop_map(|(to, tci, more, len)| {
        let mut frame = tagged(to, tci, len as u8, len);
        (0..more).for_each(|_| drop(frame.splice(12..12, [0x88, 0xa8, 0, 2])));
        frame
    });
    prop_oneof![9 => whole, 1 => prop::collection::vec(any::<u8>(), 1..20)]
}
