//! What a trace says, beside what workers then do.

use std::collections::BTreeMap;

use crossbeam::channel::Receiver;

use super::components::{TO, tagged};
use super::*;
use crate::engine::component::{Known, KnownPort, check};
use crate::engine::rule::Rules;
use crate::model::{TraceFate, TraceReport};
use crate::worker::component::{Component, Flows, Link, PortFlows, Scene as TraceScene, trace};
use crate::worker::ends::{NullEnd, OutsideEnd, Ring};

const PORTS: usize = 3;
const QUEUES: usize = 2;
const RINGS: u32 = 4;
/// Null ends, and outside ends, each.
const SINKS: u32 = 2;

/// Ports, rings and sinks, with components and rules between them as control puts them.
struct Net {
    bed: Bed,
    rings: Vec<Arc<Ring>>,
    nulls: Vec<Arc<NullEnd>>,
    outside: Vec<(Arc<OutsideEnd>, Receiver<CapturedFrame>)>,
}

/// Those of `specs` that can be beside those before them.
fn possible(specs: Vec<ComponentSpec>, workers: usize) -> Vec<ComponentSpec> {
    let known = Known {
        workers,
        port: &|_| Some(KnownPort::Free { queues: QUEUES as u32 }),
        ring: &|no| no < RINGS,
        outside: &|no| no < SINKS,
    };
    let mut good: Vec<ComponentSpec> = Vec::new();
    for (no, spec) in specs.into_iter().enumerate() {
        good.push(ComponentSpec { name: format!("c{no}"), worker: spec.worker % workers, ..spec });
        if check(&good, &known).is_err() {
            good.pop();
        }
    }
    good
}

impl Net {
    fn new(workers: usize, specs: Vec<ComponentSpec>, rules: [Vec<FlowRule>; PORTS]) -> Self {
        let bed = Bed::with_queues(workers, &[], PORTS, QUEUES);
        let outside = |no| {
            let (end, queue) = OutsideEnd::new(no, 65_535);
            (Arc::new(end), queue)
        };
        let mut net = Self {
            bed,
            rings: (0..RINGS).map(|no| Arc::new(Ring::new(no, 256))).collect(),
            nulls: (0..SINKS).map(|_| Arc::default()).collect(),
            outside: (0..SINKS).map(outside).collect(),
        };
        let components: Vec<_> = specs.into_iter().map(|spec| net.component(spec)).collect();
        net.place_queues(&components);
        let flows = |(no, rules): (usize, Vec<FlowRule>)| {
            let Link::Port(port, _) = net.bed.port(no) else { panic!("a port") };
            (!rules.is_empty()).then(|| Arc::new(PortFlows::new(&port, &rules, None, workers)))
        };
        let flows: Vec<_> = rules.into_iter().enumerate().map(flows).collect();
        for component in components.iter().filter(|component| component.is_ready()) {
            let worker = Some(component.spec.worker);
            for link in &component.rx {
                match link {
                    Link::Ring(ring) => ring.set_reader(worker),
                    Link::Port(port, one) => {
                        let queues = (0..QUEUES as u32).filter(|queue| one.is_none_or(|one| one == *queue));
                        let rings = flows[usize::from(port.no)]
                            .iter()
                            .flat_map(|flows| queues.clone().flat_map(move |queue| flows.rings_to(queue)));
                        rings.for_each(|ring| ring.set_reader(worker));
                    }
                    Link::Null(_) | Link::Outside(_) => {}
                }
            }
        }
        let flows = if flows.iter().all(Option::is_none) { Flows::default() } else { Arc::new(flows) };
        net.bed.run_with(components, flows);
        net
    }

    fn component(&self, spec: ComponentSpec) -> Component {
        let link = |end: &End| match &end.port {
            EndPort::Port { name, queue } => match self.bed.port(name[1..].parse().unwrap()) {
                Link::Port(port, _) => Link::Port(port, *queue),
                other => other,
            },
            EndPort::Ring(no) => Link::Ring(Arc::clone(&self.rings[*no as usize])),
            EndPort::Null(no) => Link::Null(Arc::clone(&self.nulls[*no as usize])),
            EndPort::Outside(no) => Link::Outside(Arc::clone(&self.outside[*no as usize].0)),
        };
        let (rx, tx) = (spec.rx.iter().map(link).collect(), spec.tx.iter().map(link).collect());
        Component::new(spec, rx, tx, Arc::default())
    }

    /// Each queue goes to the worker of the component that takes frames from it, else of one that sends by it.
    fn place_queues(&mut self, components: &[Component]) {
        let mut wanted = BTreeMap::new();
        let takers = components.iter().flat_map(|one| one.rx.iter().map(|link| (link, one.spec.worker)));
        let senders = components.iter().flat_map(|one| one.tx.iter().map(|link| (link, one.spec.worker)));
        for (link, worker) in takers.chain(senders) {
            let Link::Port(port, one) = link else { continue };
            for queue in (0..QUEUES as u32).filter(|queue| one.is_none_or(|one| one == *queue)) {
                wanted.entry((port.no, queue)).or_insert((Arc::clone(port), worker));
            }
        }
        for ((no, number), (port, to)) in wanted {
            let from = port.queues[number as usize].worker();
            let moved = self.bed.workers[from].remove(|queue| (queue.port.no, queue.number) == (no, number));
            port.queues[number as usize].assign(to);
            moved.into_iter().for_each(|queue| self.bed.workers[to].add(queue));
        }
        let old = self.bed.shared.view.load_full();
        let epoch = old.snapshot.epoch + 1;
        let snapshot = old.snapshot.clone().with_rules(epoch, Rules::default());
        self.bed.shared.publish(View { snapshot, ports_epoch: epoch, ..View::clone(&old) });
        self.bed.workers.iter_mut().for_each(Worker::refresh_view);
    }

    fn trace(&self, port: usize, queue: u32, frame: &[u8]) -> TraceReport {
        let Link::Port(port, _) = self.bed.port(port) else { panic!("a port") };
        let (set, view) = (self.bed.shared.components.in_force(), self.bed.shared.view.load_full());
        let scene = TraceScene { set: &set, view: &view, now_ns: 0, outside: &|no| format!("sink {no}") };
        trace(&scene, &port, queue, frame)
    }

    fn receive(&mut self, port: usize, queue: u32, frame: &[u8]) {
        assert!(self.bed.kernels[port * QUEUES + queue as usize].receive(frame));
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        let mut stats = PortStats::default();
        self.bed.counters.iter().for_each(|counters| counters.shard.add_to(&mut stats));
        for port in self.bed.shared.view.load().ports.iter().flatten() {
            port.shards.iter().for_each(|shard| shard.add_to(&mut stats));
        }
        stats.drops.into_iter().map(|(reason, count)| (reason, count.packets)).collect()
    }

    fn counts(&self) -> Counts {
        let waits = |ring: &Arc<Ring>| ring.queued().packets;
        Counts {
            nulls: self.nulls.iter().map(|null| null.tx.read()).collect(),
            rings: self.rings.iter().map(waits).collect(),
            idle: (0..PORTS * QUEUES).filter(|at| self.has_received(*at)).collect(),
            drops: self.drops(),
        }
    }

    /// Whether frames wait in that queue.
    fn has_received(&self, at: usize) -> bool {
        let (port, queue) = ((at / QUEUES) as PortNo, (at % QUEUES) as u32);
        let mut queues = self.bed.workers.iter().flat_map(|worker| &worker.queues);
        queues.any(|it| (it.port.no, it.number) == (port, queue) && it.backend.has_received())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    nulls: Vec<Count>,
    rings: Vec<u64>,
    idle: std::collections::BTreeSet<usize>,
    drops: BTreeMap<String, u64>,
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

impl Counts {
    /// What they are when what a trace says has happened, but for what left by ports and outside ends.
    fn after(mut self, at: usize, report: &TraceReport) -> Self {
        for end in &report.ends {
            match (end.fate, &end.at) {
                (TraceFate::Sent, Some(EndPort::Null(no))) => {
                    self.nulls[*no as usize].add(Count { packets: 1, bytes: end.hex.len() as u64 / 2 });
                }
                (TraceFate::Waiting, Some(EndPort::Ring(no))) => self.rings[*no as usize] += 1,
                (TraceFate::Waiting, _) => {
                    self.idle.insert(at);
                }
                (TraceFate::Dropped, _) => *self.drops.entry(end.reason.clone().unwrap()).or_default() += 1,
                _ => {}
            }
        }
        self
    }
}

/// Takes a frame out of those that went out; whether it was there.
fn take(sent: &mut Vec<Vec<u8>>, frame: &[u8]) -> bool {
    let at = sent.iter().position(|other| other == frame);
    at.map(|at| sent.swap_remove(at)).is_some()
}

fn any_end(sinks: bool) -> BoxedStrategy<End> {
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

fn any_mac() -> impl Strategy<Value = [u8; 6]> {
    prop::sample::select(vec![TO, [2, 0, 0, 0, 0, 8], [1, 0, 0x5e, 0, 0, 1]])
}

fn any_component() -> impl Strategy<Value = ComponentSpec> {
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

fn any_rules() -> impl Strategy<Value = Vec<FlowRule>> {
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

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
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
            let full = [DropReason::WorkerRingFull, DropReason::NoFrame, DropReason::TxRingFull];
            prop_assume!(full.iter().all(|reason| drops.remove(reason.label()).is_none()));
            prop_assert_eq!(net.counts(), before.after(port * QUEUES + queue as usize, &report), "{:#?}", report);
            let mut outside: Vec<Vec<_>> =
                net.outside.iter().map(|(_, queue)| queue.try_iter().map(|frame| frame.data).collect()).collect();
            for end in report.ends.iter().filter(|end| end.fate == TraceFate::Sent) {
                let frame = bytes_of(&end.hex);
                let went = match end.at.as_ref().unwrap() {
                    EndPort::Port { name, queue } => {
                        let first = name[1..].parse::<usize>().unwrap() * QUEUES;
                        let queues = queue.map_or(first..first + QUEUES, |queue| first + queue as usize..first + queue as usize + 1);
                        sent[queues].iter_mut().any(|sent| take(sent, &frame))
                    }
                    EndPort::Outside(no) => take(&mut outside[*no as usize], &frame),
                    EndPort::Null(_) | EndPort::Ring(_) => true,
                };
                prop_assert!(went, "{:?} in {:#?}", end, report);
            }
            prop_assert!(sent.concat().is_empty() && outside.concat().is_empty(), "{:?} {:?} {:#?}", sent, outside, report);
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
    // By the default of its VLAN to a ring whose component has nowhere to send.
    let report = net.trace(0, 0, &tagged(TO, Some(1), 1, 64));
    let text = told(&report);
    assert!(text.contains("no entry of VLAN 1 for 02:00:00:00:00:09: by the default of VLAN 1: to ring 1"), "{text}");
    assert!(text.contains("no component takes frames from ring 1 (c2, which has it, lacks a sending end)"), "{text}");
    assert_eq!((report.verdict.as_str(), report.ends[0].at.clone()), ("wait", Some(EndPort::Ring(1))));
    // By no entry; by a port that nobody has.
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
        tables.add_meter(spec, true, 0).unwrap();
        tables.bind(&MeterBinding { vport, direction, meter }, &ports).unwrap();
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
