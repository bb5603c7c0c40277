//! Ports, rings and sinks with components and rules between them, and what moved there.

use std::collections::{BTreeMap, BTreeSet};

use crossbeam::channel::Receiver;

use super::*;
use crate::engine::component::{Known, KnownPort, check};
use crate::engine::rule::Rules;
use crate::worker::component::{Flows, Link, PortFlows, TraceContext, trace};
use crate::worker::ends::{NullEnd, OutsideEnd};

pub(super) const PORTS: usize = 3;
pub(super) const QUEUES: usize = 2;
pub(super) const RINGS: u32 = 4;
/// Null ends, and outside ends, each.
pub(super) const SINKS: u32 = 2;

/// Ports, rings and sinks, with components and rules between them as control puts them.
pub(super) struct Net {
    pub(super) bed: Bed,
    pub(super) rings: Vec<Arc<Ring>>,
    nulls: Vec<Arc<NullEnd>>,
    pub(super) outside: Vec<(Arc<OutsideEnd>, Receiver<CapturedFrame>)>,
}

/// Those of `specs` that can be beside those before them.
pub(super) fn possible(specs: Vec<ComponentSpec>, workers: usize) -> Vec<ComponentSpec> {
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
    pub(super) fn new(workers: usize, specs: Vec<ComponentSpec>, rules: [Vec<FlowRule>; PORTS]) -> Self {
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

    pub(super) fn component(&self, spec: ComponentSpec) -> Component {
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
    pub(super) fn place_queues(&mut self, components: &[Component]) {
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

    pub(super) fn trace(&self, port: usize, queue: u32, frame: &[u8]) -> TraceReport {
        let Link::Port(port, _) = self.bed.port(port) else { panic!("a port") };
        let (set, view) = (self.bed.shared.components.in_force(), self.bed.shared.view.load_full());
        let context = TraceContext { set: &set, view: &view, now_ns: 0, outside: &|no| format!("sink {no}") };
        trace(&context, &port, queue, frame)
    }

    pub(super) fn receive(&mut self, port: usize, queue: u32, frame: &[u8]) {
        assert!(self.bed.kernels[port * QUEUES + queue as usize].receive(frame));
    }

    pub(super) fn drops(&self) -> BTreeMap<String, u64> {
        let mut stats = PortStats::default();
        self.bed.counters.iter().for_each(|counters| counters.shard.add_to(&mut stats));
        for port in self.bed.shared.view.load().ports.iter().flatten() {
            port.shards.iter().for_each(|shard| shard.add_to(&mut stats));
        }
        stats.drops.into_iter().map(|(reason, count)| (reason, count.packets)).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let waits = |ring: &Arc<Ring>| ring.queued().packets;
        Counts {
            nulls: self.nulls.iter().map(|null| null.tx.read()).collect(),
            rings: self.rings.iter().map(waits).collect(),
            idle: (0..PORTS * QUEUES).filter(|at| self.has_received(*at)).collect(),
            drops: self.drops(),
        }
    }

    /// Whether frames wait in that queue.
    pub(super) fn has_received(&self, at: usize) -> bool {
        let (port, queue) = ((at / QUEUES) as PortNo, (at % QUEUES) as u32);
        let mut queues = self.bed.workers.iter().flat_map(|worker| worker.egress.queues());
        queues.any(|it| (it.port.no, it.number) == (port, queue) && it.backend.has_received())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    nulls: Vec<Count>,
    rings: Vec<u64>,
    idle: BTreeSet<usize>,
    drops: BTreeMap<String, u64>,
}

pub(super) fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

impl Counts {
    /// What they are when what a trace says has happened, but for what left by ports and outside ends.
    pub(super) fn after(mut self, at: usize, report: &TraceReport) -> Self {
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

/// Takes a frame out of those that went out. False if it was not there.
pub(super) fn take(sent: &mut Vec<Vec<u8>>, frame: &[u8]) -> bool {
    let at = sent.iter().position(|other| other == frame);
    at.map(|at| sent.swap_remove(at)).is_some()
}
