//! Where a worker puts a frame for a port: a queue of its own, or another worker.

use super::queue::Queue;
use super::view::{QueueShared, View};
use crate::engine::PortNo;

/// The next hop of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// No such port (any more).
    Nowhere,
    /// A queue of this worker, by its slot.
    Here(usize),
    /// A queue of another worker.
    There { worker: usize, queue: u32, generation: u32 },
}

/// The ways to one port.
#[derive(Debug, Default)]
struct Ways {
    /// Those to choose from by flow; several if the port has several queues.
    any: Vec<Hop>,
    /// By queue.
    by_queue: Vec<Hop>,
}

/// The ways to all ports, by number.
#[derive(Debug, Default)]
pub(super) struct Routes(Vec<Ways>);

impl Routes {
    /// The next hop to a port: to its `queue` if one is named and there is one of that number, else to the only one that there is
    /// a way to. `None` if there are several, to choose from by flow.
    #[inline]
    pub(super) fn fixed(&self, port: PortNo, queue: Option<u32>) -> Option<Hop> {
        let Some(ways) = self.0.get(usize::from(port)) else { return Some(Hop::Nowhere) };
        if let Some(hop) = queue.and_then(|queue| ways.by_queue.get(queue as usize)) {
            return Some(*hop);
        }
        match ways.any.as_slice() {
            [] => Some(Hop::Nowhere),
            [hop] => Some(*hop),
            _ => None,
        }
    }

    /// The next hop to a port for a frame of that flow hash.
    #[inline]
    pub(super) fn by_flow(&self, port: PortNo, flow: u32) -> Hop {
        match self.0.get(usize::from(port)).map(|ways| ways.any.as_slice()) {
            None | Some([]) => Hop::Nowhere,
            Some(hops) => hops[flow as usize % hops.len()],
        }
    }

    /// Works out all ways anew: queues of this worker if it has some, else those of others.
    pub(super) fn rebuild(&mut self, view: &View, queues: &[Queue], here: usize) {
        self.0.clear();
        self.0.resize_with(view.ports.len(), Ways::default);
        for (ways, port) in self.0.iter_mut().zip(&*view.ports) {
            let Some(port) = port else { continue };
            let there = |(queue, number): (&QueueShared, u32)| {
                let (worker, generation) = (queue.worker(), port.generation);
                if worker == here { Hop::Nowhere } else { Hop::There { worker, queue: number, generation } }
            };
            ways.by_queue.extend(port.queues.iter().zip(0..).map(there));
        }
        for (slot, queue) in queues.iter().enumerate() {
            if view.port(queue.port.no).is_some_and(|port| port.generation == queue.port.generation) {
                let ways = &mut self.0[usize::from(queue.port.no)];
                ways.any.push(Hop::Here(slot));
                ways.by_queue[queue.number as usize] = Hop::Here(slot);
            }
        }
        for ways in self.0.iter_mut().filter(|ways| ways.any.is_empty()) {
            ways.any = ways.by_queue.iter().filter(|hop| **hop != Hop::Nowhere).copied().collect();
        }
    }
}
