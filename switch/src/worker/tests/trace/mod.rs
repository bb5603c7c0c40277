//! What a trace says, beside what workers then do.

mod net;
mod strategies;

use std::collections::BTreeMap;

use proptest::prelude::*;

use self::net::{Net, PORTS, QUEUES, bytes_of, possible, take};
use self::strategies::{any_component, any_frame, any_rules};
use super::components::{TO, tagged};
use super::*;
use crate::worker::component::{Component, Flows, Link};
use crate::worker::ends::Ring;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_trace_says_what_workers_then_do(
        workers in 1usize..3,
        specs in prop::collection::vec(any_component(), 1..7),
        rules in (any_rules(), any_rules(), any_rules()),
        frames in prop::collection::vec((0..PORTS, 0..QUEUES as u32, any_frame()), 1..8),
    ) {
        let mut net = Net::new(workers, possible(specs, workers), rules.into());
        // Some frames are too long for one of the ports.
        net.bed.shared.view.load().ports[2].as_ref().unwrap().mtu.store(50, Ordering::Relaxed);
        for (port, queue, frame) in frames {
            let report = net.trace(port, queue, &frame);
            let count = |fate| report.ends.iter().filter(|end| end.fate == fate).count();
            prop_assert_eq!(count(TraceFate::Sent), report.outputs.len());
            prop_assume!(count(TraceFate::Cut) == 0);
            let before = net.counts();
            net.receive(port, queue, &frame);
            if count(TraceFate::Circling) > 0 {
                // It never ends.
                let mut busy = false;
                for _ in 0..200 {
                    busy = net.bed.workers.iter_mut().map(Worker::turn).fold(false, |any, busy| any | busy);
                    net.bed.kernels.iter_mut().for_each(|kernel| drop(kernel.transmit()));
                }
                prop_assert!(busy, "{:#?}", report);
                return Ok(());
            }
            let mut sent = net.bed.settle();
            let mut drops = net.drops();
            // What depends on how much there is at a moment.
            let full =
                [DropReason::WorkerRingFull, DropReason::NoFrame, DropReason::TxRingFull, DropReason::LinkDown];
            prop_assume!(full.iter().all(|reason| drops.remove(reason.label()).is_none()));
            prop_assert_eq!(net.counts(), before.after(port * QUEUES + queue as usize, &report), "{:#?}", report);
            let mut outside: Vec<Vec<_>> =
                net.outside.iter().map(|(_, queue)| queue.try_iter().map(|frame| frame.data).collect()).collect();
            for end in report.ends.iter().filter(|end| end.fate == TraceFate::Sent) {
                let frame = bytes_of(&end.hex);
                let went = match end.at.as_ref().unwrap() {
                    EndPort::Port { name, queue } => {
                        let first = name[1..].parse::<usize>().unwrap() * QUEUES;
                        let mut queues = (0..QUEUES).filter(|at| queue.is_none_or(|queue| queue as usize == *at));
                        queues.any(|at| take(&mut sent[first + at], &frame))
                    }
                    EndPort::Outside(no) => take(&mut outside[*no as usize], &frame),
                    EndPort::Null(_) | EndPort::Ring(_) => true,
                };
                prop_assert!(went, "{:?} in {:#?}", end, report);
            }
            let is_all = sent.concat().is_empty() && outside.concat().is_empty();
            prop_assert!(is_all, "{:?} {:?} {:#?}", sent, outside, report);
        }
    }
}

fn end(port: EndPort) -> End {
    End { port, vlan: VlanEdit::None }
}

fn port(no: usize) -> EndPort {
    EndPort::Port { name: format!("p{no}"), queue: None }
}

fn spec(kind: ComponentKind, rx: Vec<EndPort>, tx: Vec<EndPort>, table: Vec<TableEntry>) -> ComponentSpec {
    let ends = |ports: Vec<EndPort>| ports.into_iter().map(end).collect();
    ComponentSpec { name: String::new(), worker: 0, kind, rx: ends(rx), tx: ends(tx), table }
}

fn told(report: &TraceReport) -> String {
    report.steps.iter().map(|step| format!("{}: {}\n", step.stage, step.detail)).collect()
}

#[test]
fn a_trace_names_components_rules_entries_and_ends() {
    use ComponentKind::{Classifier, Forward, Mirror};
    let entry = |vlan, mac: Option<[u8; 6]>, tx| TableEntry { vlan, mac: mac.map(MacAddr::new), tx };
    let mut specs = vec![
        spec(
            Classifier,
            vec![port(0)],
            vec![EndPort::Ring(0), EndPort::Ring(1)],
            vec![entry(None, Some(TO), 0), entry(Some(1), None, 1)],
        ),
        spec(Mirror, vec![EndPort::Ring(0)], vec![port(1), EndPort::Outside(1)], vec![]),
        spec(Forward, vec![EndPort::Ring(1)], vec![], vec![]),
    ];
    specs[1].tx[0].vlan = VlanEdit::Add { vid: 7, pcp: 3 };
    let rule = FlowRule {
        id: 4,
        direction: FlowDirection::Ingress,
        group: 0,
        priority: 0,
        key: FlowKey { tci: Some(Masked { value: 2, mask: 0xfff }), ..FlowKey::default() },
        edits: vec![FlowEdit::Pop],
        target: FlowTarget::Queue(1),
    };
    let net = Net::new(1, possible(specs, 1), [vec![rule], vec![], vec![]]);
    let report = net.trace(0, 0, &tagged(TO, Some(2), 1, 64));
    let text = told(&report);
    for line in [
        "ingress: 64 bytes from p0, queue 0\n",
        "flow: comes in: rule 4 of group 0: pop the tag, to queue 1\nflow: outer tag removed\n",
        "component: c0 (classifier, worker 0) takes it from port `p0`\n",
        "classifier: by the entry of untagged frames for 02:00:00:00:00:09: to ring 0\n",
        "ring: into ring 0, in which 0 frames wait: 60 bytes, untagged\n",
        "component: c1 (mirror, worker 0) takes it from ring 0\nmirror: a copy to each sending end\n",
        "vlan: the end's edit: tag pushed: C-tag (0x8100) VID 7 PCP 3\n",
        "egress: out of port `p1`: 64 bytes, C-tag (0x8100) VID 7 PCP 3\n",
        "egress: to outside end 1 (sink 1): 60 bytes, untagged\n",
        "verdict: sent to p1, sink 1\n",
    ] {
        assert!(text.contains(line), "{line}in\n{text}");
    }
    assert_eq!((report.verdict.as_str(), report.outputs), ("copy", vec!["p1".to_owned(), "sink 1".to_owned()]));
    assert!(report.ends.iter().all(|end| end.components == ["c0", "c1"]));
    // The default of its VLAN sends it to a ring. The component there has no sending end.
    let report = net.trace(0, 0, &tagged(TO, Some(1), 1, 64));
    let text = told(&report);
    assert!(text.contains("no entry of VLAN 1 for 02:00:00:00:00:09: by the default of VLAN 1: to ring 1"), "{text}");
    assert!(text.contains("no component takes frames from ring 1 (c2, which has it, lacks a sending end)"), "{text}");
    assert_eq!((report.verdict.as_str(), report.ends[0].at.clone()), ("wait", Some(EndPort::Ring(1))));
    // A frame without an entry, then one at a port that no component has.
    let report = net.trace(0, 0, &tagged([2, 0, 0, 0, 0, 3], None, 1, 64));
    assert_eq!((report.verdict.as_str(), report.drop_reason.as_deref()), ("drop", Some("classifier_miss")));
    let report = net.trace(2, 1, &tagged(TO, None, 1, 64));
    assert_eq!((report.verdict.as_str(), report.ends.len()), ("wait", 1));
    assert!(told(&report).contains("no component takes frames from port `p2` queue 1"), "{}", told(&report));
    assert_eq!(net.drops(), BTreeMap::new(), "a trace counts nothing");
}

#[test]
fn a_trace_that_goes_round_ends_and_so_does_one_that_multiplies() {
    use ComponentKind::{Forward, Merge, Mirror};
    let merge = spec(Merge, vec![port(0), EndPort::Ring(0)], vec![EndPort::Ring(1)], vec![]);
    let circle = vec![merge, spec(Forward, vec![EndPort::Ring(1)], vec![EndPort::Ring(0)], vec![])];
    let report = Net::new(1, possible(circle, 1), Default::default()).trace(0, 0, &tagged(TO, None, 1, 64));
    assert_eq!((report.verdict.as_str(), report.ends[0].fate), ("circle", TraceFate::Circling));
    assert_eq!(report.ends[0].components, ["c0", "c1", "c0", "c1"]);
    // Twice as many copies after each pair of components.
    let mut components = Vec::new();
    let mut net = Net::new(1, Vec::new(), Default::default());
    let ring = || Arc::new(Ring::new(0, 8));
    let mut from = net.bed.port(0);
    for _ in 0..20 {
        let (one, two, out) = (ring(), ring(), Link::Ring(ring()));
        let link = |ring: &Arc<Ring>| Link::Ring(Arc::clone(ring));
        let ends = |count| vec![end(EndPort::Ring(0)); count];
        let spec = |kind, rx, tx| ComponentSpec {
            name: "c".to_owned(),
            worker: 0,
            kind,
            rx: ends(rx),
            tx: ends(tx),
            table: Vec::new(),
        };
        let (both, none) = ([link(&one), link(&two)], Arc::default());
        components.push(Component::new(spec(Mirror, 1, 2), [from].into(), both.clone().into(), none));
        components.push(Component::new(spec(Merge, 2, 1), both.into(), [out.clone()].into(), Arc::default()));
        from = out;
    }
    net.bed.run_with(components, Flows::default());
    let report = net.trace(0, 0, &tagged(TO, None, 1, 64));
    assert!(report.ends.iter().any(|end| end.fate == TraceFate::Cut));
    assert!(report.steps.len() < 10_000, "{}", report.steps.len());
}

#[test]
fn a_trace_tells_of_full_rings_meters_and_mtus() {
    use ComponentKind::Forward;
    let specs = vec![
        spec(Forward, vec![port(0)], vec![EndPort::Ring(0)], vec![]),
        spec(Forward, vec![port(1)], vec![port(2)], vec![]),
    ];
    let mut net = Net::new(1, possible(specs, 1), Default::default());
    let frame = tagged(TO, None, 1, 64);
    for _ in 0..256 {
        assert_eq!(net.trace(0, 0, &frame).verdict, "wait");
        net.receive(0, 0, &frame);
        net.bed.settle();
    }
    assert_eq!(net.trace(0, 0, &frame).drop_reason.as_deref(), Some("ring_full"));
    assert_eq!(net.trace(1, 0, &tagged(TO, None, 1, 1515)).drop_reason.as_deref(), Some("egress_mtu"));
    let mut tables = Tables::new(Capacity::default(), 1);
    let ports = |no: u16| (no < 3).then_some(1);
    for (meter, vport, direction) in [(0, 0, MeterDirection::From), (1, 2, MeterDirection::To)] {
        let spec = MeterSpec { kind: MeterType::Pps, burst: Some(1), ..MeterSpec::new(meter, 1) };
        tables.meters.add(spec, true, 0).unwrap();
        tables.meters.bind(&MeterBinding { vport, direction, meter }, &ports).unwrap();
    }
    net.bed.install(&tables);
    assert_eq!(net.trace(1, 0, &frame).verdict, "forward");
    for port in 0..2 {
        net.receive(port, 0, &frame);
    }
    net.bed.settle();
    let reason = |port| net.trace(port, 0, &frame).drop_reason;
    assert_eq!((reason(0).as_deref(), reason(1).as_deref()), (Some("meter_from"), Some("meter_to")));
}

#[test]
fn a_trace_goes_by_the_room_and_the_length_that_workers_go_by() {
    use ComponentKind::Forward;
    let mut specs = vec![
        spec(Forward, vec![port(0)], vec![EndPort::Ring(0)], vec![]),
        spec(Forward, vec![port(1)], vec![port(2)], vec![]),
    ];
    specs[1].tx[0].vlan = VlanEdit::Del;
    let mut net = Net::new(1, possible(specs, 1), Default::default());
    // Nobody takes frames from it: it has less room than its depth.
    net.rings[0].set_room(Some(3));
    let frame = tagged(TO, None, 1, 64);
    for _ in 0..3 {
        assert_eq!(net.trace(0, 0, &frame).verdict, "wait");
        net.receive(0, 0, &frame);
        net.bed.settle();
    }
    assert_eq!(net.trace(0, 0, &frame).drop_reason.as_deref(), Some("ring_full"));
    net.receive(0, 0, &frame);
    net.bed.settle();
    assert_eq!(net.drops().get("ring_full"), Some(&1));
    // Of two tags one is taken off: then it is no longer than the MTU allows.
    let mut frame = tagged(TO, Some(1), 1, 1518);
    frame.splice(12..12, [0x88, 0xa8, 0, 2]);
    assert_eq!(net.trace(1, 0, &frame).verdict, "forward");
    net.receive(1, 0, &frame);
    assert_eq!(net.bed.settle().concat().len(), 1);
}
