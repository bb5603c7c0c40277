//! Where a worker puts a frame for a port: a queue of its own, or another worker.

use super::bond::BondHops;
use super::queue::Queue;
use crate::engine::PortNo;
use crate::worker::view::{QueueShared, View};

/// The next hop of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// There is no such port (any more).
    Nowhere,
    /// A queue of this worker, by its slot.
    Here(usize),
    /// A queue of another worker.
    There { worker: usize, queue: u32, generation: u32 },
    /// The table of a bond says it, by its place here.
    Bond(usize),
}

/// The next hops to one port.
#[derive(Debug, Default)]
struct PortHops {
    /// Those to choose from by flow. There are several if the port has several queues.
    any: Vec<Hop>,
    /// By queue.
    by_queue: Vec<Hop>,
}

/// The next hops to all ports, by number.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    ports: Vec<PortHops>,
    bonds: Vec<BondHops>,
    /// Epoch of the ports that they are for.
    epoch: u64,
}

impl NextHops {
    /// The next hop to a port: to its `queue` if one is named and exists, else the only one that there is. `None` if
    /// there are several, to choose from by flow.
    #[inline]
    pub(super) fn fixed(&self, port: PortNo, queue: Option<u32>) -> Option<Hop> {
        let Some(hops) = self.ports.get(usize::from(port)) else { return Some(Hop::Nowhere) };
        if let Some(hop) = queue.and_then(|queue| hops.by_queue.get(queue as usize)) {
            return Some(*hop);
        }
        match hops.any.as_slice() {
            [] => Some(Hop::Nowhere),
            [hop] => Some(*hop),
            _ => None,
        }
    }

    /// The next hop to a port for a frame of that flow hash.
    #[inline]
    pub(super) fn by_flow(&self, port: PortNo, flow: u32) -> Hop {
        match self.ports.get(usize::from(port)).map(|hops| hops.any.as_slice()) {
            None | Some([]) => Hop::Nowhere,
            Some(hops) => hops[flow as usize % hops.len()],
        }
    }

    /// The next hops of a bond.
    pub(super) fn bond(&mut self, place: usize) -> &mut BondHops {
        &mut self.bonds[place]
    }

    /// Works out all next hops anew, if the ports of `view` are not those that they are for.
    pub(super) fn keep_up(&mut self, view: &View, queues: &[Queue], here: usize) {
        if view.ports_epoch != self.epoch {
            self.rebuild(view, queues, here);
        }
    }

    /// Works out all next hops anew: queues of this worker if it has some, else those of others.
    pub(super) fn rebuild(&mut self, view: &View, queues: &[Queue], here: usize) {
        self.epoch = view.ports_epoch;
        self.ports.clear();
        self.ports.resize_with(view.ports.len(), PortHops::default);
        for (hops, port) in self.ports.iter_mut().zip(&*view.ports) {
            let Some(port) = port else { continue };
            let there = |(queue, number): (&QueueShared, u32)| {
                let (worker, generation) = (queue.worker(), port.generation);
                if worker == here { Hop::Nowhere } else { Hop::There { worker, queue: number, generation } }
            };
            hops.by_queue.extend(port.queues.iter().zip(0..).map(there));
        }
        for (slot, queue) in queues.iter().enumerate() {
            if view.port(queue.port.no).is_some_and(|port| port.generation == queue.port.generation) {
                let hops = &mut self.ports[usize::from(queue.port.no)];
                hops.any.push(Hop::Here(slot));
                hops.by_queue[queue.number as usize] = Hop::Here(slot);
            }
        }
        self.bonds.clear();
        for (hops, port) in self.ports.iter_mut().zip(&*view.ports) {
            let Some(bond) = port.as_ref().and_then(|port| port.bond.as_ref()) else { continue };
            self.bonds.push(BondHops::new(bond, &hops.by_queue));
            // A rule that names a queue would go past the bond's choice.
            *hops = PortHops { any: vec![Hop::Bond(self.bonds.len() - 1)], by_queue: Vec::new() };
        }
        for hops in self.ports.iter_mut().filter(|hops| hops.any.is_empty()) {
            hops.any = hops.by_queue.iter().filter(|hop| **hop != Hop::Nowhere).copied().collect();
        }
    }
}
