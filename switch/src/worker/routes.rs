//! Where a worker puts a frame for a port: a queue of its own, or another worker.

use super::queue::Queue;
use super::view::View;
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

/// The ways to one port; several if it has several queues.
#[derive(Debug, Default)]
struct Ways(Vec<Hop>);

/// The ways to all ports, by number.
#[derive(Debug, Default)]
pub(super) struct Routes(Vec<Ways>);

impl Routes {
    /// The next hop to a port; `flow` is asked for the frame's flow hash only if there is a choice.
    #[inline]
    pub(super) fn pick(&self, port: PortNo, flow: impl FnOnce() -> u32) -> Hop {
        match self.0.get(usize::from(port)).map(|ways| ways.0.as_slice()) {
            None | Some([]) => Hop::Nowhere,
            Some([hop]) => *hop,
            Some(hops) => hops[flow() as usize % hops.len()],
        }
    }

    /// Works out all ways anew: queues of this worker if it has some, else those of others.
    pub(super) fn rebuild(&mut self, view: &View, queues: &[Queue], worker: usize) {
        self.0.clear();
        self.0.resize_with(view.ports.len(), Ways::default);
        for (slot, queue) in queues.iter().enumerate() {
            if view.port(queue.port.no).is_some_and(|port| port.generation == queue.port.generation) {
                self.0[usize::from(queue.port.no)].0.push(Hop::Here(slot));
            }
        }
        for (ways, port) in self.0.iter_mut().zip(&view.ports).filter(|(ways, _)| ways.0.is_empty()) {
            let Some(port) = port else { continue };
            ways.0.extend(port.queues.iter().zip(0..).filter(|(queue, _)| queue.worker != worker).map(
                |(queue, number)| Hop::There { worker: queue.worker, queue: number, generation: port.generation },
            ));
        }
    }
}
