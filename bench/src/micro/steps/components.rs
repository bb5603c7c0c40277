//! A worker's whole turn with components. A burst comes in by each port that a component takes frames from, and goes
//! out.

use std::sync::Arc;

use switch::model::{
    ComponentKind, ComponentSpec, End, EndPort, FlowDirection, FlowKey, FlowRule, FlowTarget, Masked, MaskedMac,
    TableEntry, VlanEdit,
};
use switch::worker::Worker;
use switch::worker::component::{Component, Gate, Link, PortFlows, Set};
use switch::worker::ends::Ring;
use switch::worker::view::PortShared;

use super::{COMPONENTS, Case};
use crate::micro::bed::{Bed, Device, FLOWS, components};
use crate::micro::fixtures::{BURST, station, tagged, udp4};

/// Ports that a merge takes frames from, and ports that a classifier sends to.
const SPREAD: usize = 4;
/// Frames that a ring between components holds.
const RING: u32 = 1024;
/// VLANs that a table's entries are spread over.
const VLANS: u32 = 4000;
const ADD: VlanEdit = VlanEdit::Add { vid: 100, pcp: 3 };

/// An end: its specification, and what that stands for. Its name does not matter to a worker.
type Joint = (End, Link);

fn joint(link: &Link, vlan: VlanEdit) -> Joint {
    (End { port: EndPort::Null(0), vlan }, link.clone())
}

/// Ends with no change of tags.
fn plain(links: &[Link]) -> Vec<Joint> {
    links.iter().map(|link| joint(link, VlanEdit::None)).collect()
}

fn component(kind: ComponentKind, from: Vec<Joint>, to: Vec<Joint>, table: Vec<TableEntry>) -> Component {
    let ((rx, inlets), (tx, outlets)): ((_, Vec<_>), (_, Vec<_>)) = (from.into_iter().unzip(), to.into_iter().unzip());
    let spec = ComponentSpec { name: String::new(), worker: 0, kind, rx, tx, table };
    Component::new(spec, inlets.into(), outlets.into(), Arc::default())
}

fn set(components: impl IntoIterator<Item = Component>) -> Set {
    let components = components.into_iter().map(|component| (Arc::new(component), Gate::Open)).collect();
    Set { components, ..Set::default() }
}

/// Packets of that many flows: to stations 1 and up, none near the one before it.
fn flows(flows: u32, stations: u32) -> Vec<Vec<u8>> {
    (0..flows).map(|flow| udp4(1 + flow * 7919 % stations, flow)).collect()
}

/// A way through components.
struct Path {
    name: String,
    /// Ports that frames come in by.
    sources: usize,
    bed: Box<dyn Fn() -> Bed<Worker>>,
}

impl Path {
    fn new(name: impl Into<String>, sources: usize, bed: impl Fn() -> Bed<Worker> + 'static) -> Self {
        Self { name: name.into(), sources, bed: Box::new(bed) }
    }

    fn case(self) -> Case {
        let turn = |bed: &mut Bed<Worker>| Device::turn(&mut bed.device);
        Case::new(COMPONENTS, self.name, self.sources * BURST, self.bed, Bed::kernel_turn, turn)
    }
}

fn forward(name: &str, edit: VlanEdit, packet: fn(u32) -> Vec<u8>) -> Path {
    let bed = move || {
        components(2, 1, (0..FLOWS).map(packet).collect(), |_, ports| {
            let to = vec![joint(&ports[1], edit)];
            set([component(ComponentKind::Forward, plain(&ports[..1]), to, Vec::new())])
        })
    };
    Path::new(name, 1, bed)
}

fn merge() -> Path {
    let bed = || {
        components(1 + SPREAD as u16, SPREAD, flows(FLOWS, FLOWS), |_, ports| {
            let (from, to) = (plain(&ports[..SPREAD]), plain(&ports[SPREAD..]));
            set([component(ComponentKind::Merge, from, to, Vec::new())])
        })
    };
    Path::new(format!("merge of {SPREAD}"), SPREAD, bed)
}

fn mirror() -> Path {
    let bed = || {
        components(3, 1, flows(FLOWS, FLOWS), |_, ports| {
            set([component(ComponentKind::Mirror, plain(&ports[..1]), plain(&ports[1..]), Vec::new())])
        })
    };
    Path::new("mirror", 1, bed)
}

/// VLAN of the entry of station `1 + n`, if VLANs are looked at.
fn vlan(by_vlan: bool, n: u32) -> Option<u16> {
    by_vlan.then_some(1 + (n % VLANS) as u16)
}

fn entries(count: u32, by_vlan: bool) -> Vec<TableEntry> {
    let entry = |n| TableEntry { vlan: vlan(by_vlan, n), mac: Some(station(1 + n)), tx: n as usize % SPREAD };
    (0..count).map(entry).collect()
}

/// Packets to `count` of the `entries`.
fn to_entries(count: u32, entries: u32, by_vlan: bool) -> Vec<Vec<u8>> {
    let packet = |flow: u32| {
        let n = (u64::from(flow) * 7919 % u64::from(entries)) as u32;
        let packet = udp4(1 + n, flow);
        vlan(by_vlan, n).map_or(packet.clone(), |vid| tagged(&packet, vid))
    };
    (0..count).map(packet).collect()
}

fn classifier(table: u32, count: u32, by_vlan: bool) -> Path {
    let what = if by_vlan { "VLANs and addresses" } else { "addresses" };
    let traffic = if count == FLOWS { "64 flows" } else { "all in turn" };
    let bed = move || {
        components(1 + SPREAD as u16, 1, to_entries(count, table, by_vlan), |_, ports| {
            let (from, to) = (plain(&ports[..1]), plain(&ports[1..]));
            set([component(ComponentKind::Classifier, from, to, entries(table, by_vlan))])
        })
    };
    Path::new(format!("classifier, {table} {what}, {traffic}"), 1, bed)
}

/// A classifier whose ends are rings, which a merge takes frames from.
fn chain() -> Path {
    let bed = || {
        components(2, 1, flows(FLOWS, FLOWS), |_, ports| {
            let ring = |no| {
                let ring = Ring::new(no, RING);
                ring.set_reader(Some(0));
                Link::Ring(Arc::new(ring))
            };
            let rings = plain(&(0..SPREAD as u32).map(ring).collect::<Vec<_>>());
            let table = entries(FLOWS, false);
            let classifier = component(ComponentKind::Classifier, plain(&ports[..1]), rings.clone(), table);
            set([classifier, component(ComponentKind::Merge, rings, plain(&ports[1..]), Vec::new())])
        })
    };
    Path::new(format!("classifier, {SPREAD} rings, merge"), 1, bed)
}

/// Flow rules by destination under so many distinct masks, each sending to the queue that frames come in by.
fn flow_rules(rules: u32, masks: u32) -> Vec<FlowRule> {
    let rule = |n: u32| {
        let dmac = Some(MaskedMac { value: station(1 + n), mask: MaskedMac::FULL });
        // Of IPv4's EtherType none of these bits is set.
        let ethertype = (masks > 1).then(|| Masked { value: 0, mask: n % masks });
        let key = FlowKey { dmac, ethertype, ..FlowKey::default() };
        let (direction, target) = (FlowDirection::Ingress, FlowTarget::Queue(0));
        FlowRule { id: n, direction, group: 0, priority: n, key, edits: Vec::new(), target }
    };
    (0..rules).map(rule).collect()
}

fn behind_rules(rules: u32, masks: u32, flows: u32) -> Path {
    let bed = move || {
        components(2, 1, to_entries(flows, rules, false), |shared: &[Arc<PortShared>], ports| {
            let forward = component(ComponentKind::Forward, plain(&ports[..1]), plain(&ports[1..]), Vec::new());
            let flows = PortFlows::new(&shared[0], &flow_rules(rules, masks), None, 1);
            Set { flows: Arc::new(vec![Some(Arc::new(flows))]), ..set([forward]) }
        })
    };
    let traffic = if flows == FLOWS { "64 flows" } else { "all in turn" };
    Path::new(format!("{rules} flow rules, {masks} masks, {traffic}, forward"), 1, bed)
}

fn paths() -> Vec<Path> {
    let v4 = |n| udp4(n + 1, n);
    let mut paths = vec![
        forward("forward", VlanEdit::None, v4),
        forward("forward, tag added", ADD, v4),
        forward("forward, tag set", ADD, |n| tagged(&udp4(n + 1, n), 10)),
        forward("forward, tag removed", VlanEdit::Del, |n| tagged(&udp4(n + 1, n), 10)),
        merge(),
        mirror(),
    ];
    for by_vlan in [false, true] {
        paths.push(classifier(1, FLOWS, by_vlan));
        for entries in [1_000, 100_000] {
            paths.extend([FLOWS, entries].map(|flows| classifier(entries, flows, by_vlan)));
        }
    }
    paths.push(chain());
    for (rules, masks) in [(1, 1), (100, 1), (10_000, 1), (100, 8), (10_000, 8), (10_000, 64)] {
        paths.push(behind_rules(rules, masks, FLOWS));
    }
    paths.push(behind_rules(10_000, 8, 10_000));
    paths
}

pub(super) fn cases() -> Vec<Case> {
    paths().into_iter().map(Path::case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole way of each frame is measured, and no drop.
    #[test]
    fn every_frame_is_sent_and_by_a_mirror_twice() {
        const TURNS: u64 = 100;
        for Path { name, sources, bed } in paths() {
            let mut bed = bed();
            bed.turn(TURNS);
            let copies = if name == "mirror" { 2 } else { 1 };
            // What the last turn sent is not on the wire yet.
            assert_eq!(bed.forwarded(), (TURNS - 1) * (sources * BURST * copies) as u64, "{name}");
        }
    }
}
