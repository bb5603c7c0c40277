//! What a worker takes frames from for components: worked out once for a set and the worker's queues.

use std::sync::Arc;

use crate::model::VlanEdit;
use crate::worker::debt::Debt;
use crate::worker::egress::{OwnQueues, Queue, Serves};
use crate::worker::ends::{NullEnd, OutsideEnd, Ring};
use crate::worker::set::{Component, Link, PortFlows, Set};
use crate::worker::view::PortShared;

/// A receiving end that is open.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) component: Arc<Component>,
    pub(super) from: Inlet,
    /// What the end does to the tag.
    pub(super) vlan: VlanEdit,
    /// What its frames have cost too much.
    pub(super) debt: Debt,
}

/// What a worker takes frames from.
#[derive(Debug)]
pub(super) enum Inlet {
    /// Its queue in that slot, of that port, and the rules that tell for which end its frames are.
    Queue(usize, Arc<PortShared>, Option<Arc<PortFlows>>),
    Ring(Arc<Ring>),
    Null(Arc<NullEnd>),
    Outside(Arc<OutsideEnd>),
}

impl Intake {
    fn new(component: Arc<Component>, from: Inlet, vlan: VlanEdit) -> Self {
        Self { component, from, vlan, debt: Debt::default() }
    }

    fn has_some(&self, queues: &[Queue]) -> bool {
        match &self.from {
            Inlet::Queue(slot, ..) => queues[*slot].has_some(),
            Inlet::Ring(ring) => !ring.is_empty(),
            Inlet::Outside(outside) => !outside.input.is_empty(),
            Inlet::Null(_) => true,
        }
    }
}

/// What a worker takes frames from.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) intakes: Vec<Intake>,
    /// Queues, by slot, that no component has, at ports where rules send frames to ends that one has.
    pub(super) untaken: Vec<(usize, Arc<PortFlows>)>,
}

impl Plan {
    /// The plan of a worker for the components of `set`. Queues are told who takes their frames.
    pub(super) fn new(set: &Set, queues: &mut OwnQueues, worker: usize) -> Self {
        for queue in queues.as_mut_slice().iter_mut().filter(|queue| queue.serves != Serves::Bridge) {
            queue.serves = Serves::Nobody;
        }
        let mut plan = Self::default();
        let mine = set.components.iter().filter(|(component, _)| component.spec.worker == worker);
        for (component, gate) in mine.filter(|(component, _)| component.is_ready()) {
            let ends = component.rx.iter().zip(&component.spec.rx);
            for (link, end) in ends.filter(|(link, _)| gate.lets(link)) {
                let take = |from| plan.intakes.push(Intake::new(Arc::clone(component), from, end.vlan));
                inlets(link, set, queues.as_mut_slice(), take);
            }
        }
        for slot in 0..queues.as_slice().len() {
            let queue = &mut queues.as_mut_slice()[slot];
            if queue.serves != Serves::Nobody {
                continue;
            }
            let flows = set.flows_of(queue.port.no).filter(|flows| flows.has_ingress() && flows.has_reader());
            match flows.filter(|_| !set.takes_from(&queue.port, queue.number)) {
                Some(flows) => {
                    queue.serves = Serves::Rules;
                    plan.untaken.push((slot, Arc::clone(flows)));
                }
                None => queues.leave(slot),
            }
        }
        plan
    }

    /// Whether there is something to take.
    pub(super) fn has_work(&self, queues: &[Queue]) -> bool {
        self.untaken.iter().any(|(slot, _)| queues[*slot].has_some())
            || self.intakes.iter().any(|intake| intake.has_some(queues))
    }

    /// Sending ends that one of its components has at most.
    pub(super) fn most_outs(&self) -> usize {
        self.intakes.iter().map(|intake| intake.component.tx.len()).max().unwrap_or_default()
    }
}

/// Has `take` called for each thing that a worker takes frames from for a receiving end.
fn inlets(link: &Link, set: &Set, queues: &mut [Queue], mut take: impl FnMut(Inlet)) {
    match link {
        Link::Port(port, wanted) => {
            let flows = set.flows_of(port.no);
            let rules = flows.filter(|flows| flows.has_ingress());
            let is_wanted = |number| wanted.is_none_or(|wanted| wanted == number);
            for (slot, queue) in queues.iter_mut().enumerate() {
                if Arc::ptr_eq(&queue.port, port) && is_wanted(queue.number) {
                    queue.serves = Serves::Component;
                    take(Inlet::Queue(slot, Arc::clone(port), rules.map(Arc::clone)));
                }
            }
            for (number, _) in (0..).zip(&port.queues).filter(|(number, _)| is_wanted(*number)) {
                let rings = flows.map_or(&[][..], |flows| flows.rings_to(number));
                rings.iter().for_each(|ring| take(Inlet::Ring(Arc::clone(ring))));
            }
        }
        Link::Ring(ring) => take(Inlet::Ring(Arc::clone(ring))),
        Link::Null(null) => take(Inlet::Null(Arc::clone(null))),
        Link::Outside(outside) => take(Inlet::Outside(Arc::clone(outside))),
    }
}
