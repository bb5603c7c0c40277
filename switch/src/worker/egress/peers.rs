//! The other workers: rings that frames for their ports go over, and wake-ups.

use xdp_prog::FlowMark;

use crate::engine::PortNo;
use crate::io::umem::Frame;
use crate::worker::shared::Shared;

/// What is on its way to another worker.
#[derive(Debug)]
pub(in crate::worker) enum Transit {
    /// A frame, to the worker that sends it.
    Frame {
        frame: Frame,
        port: PortNo,
        /// Tells the port from a later one of the same number.
        generation: u32,
        queue: u32,
    },
    /// A number of the flow table, behind the frame that has it. It has left when that frame has.
    Mark(FlowMark),
}

/// A worker's ends of the rings between workers. There is a single-producer single-consumer ring for each pair and
/// direction.
#[derive(Debug, Default)]
pub struct TransitRings {
    /// From each other worker, in any order.
    inboxes: Vec<rtrb::Consumer<Transit>>,
    /// To each worker by number. `None` to itself.
    outboxes: Vec<Option<rtrb::Producer<Transit>>>,
}

impl TransitRings {
    /// The rings between so many workers, `depth` frames each, as each worker has them.
    pub fn between(workers: usize, depth: usize) -> Vec<Self> {
        let mut ends: Vec<_> = (0..workers).map(|_| Self::default()).collect();
        for from in 0..workers {
            for to in 0..workers {
                let (producer, consumer) = (from != to).then(|| rtrb::RingBuffer::new(depth)).unzip();
                ends[from].outboxes.push(producer);
                ends[to].inboxes.extend(consumer);
            }
        }
        ends
    }

    /// Where frames come in, and where they go.
    pub(super) fn into_parts(self) -> (Vec<rtrb::Consumer<Transit>>, Peers) {
        let Self { inboxes, outboxes } = self;
        (inboxes, Peers { to_wake: Vec::with_capacity(outboxes.len()), outboxes })
    }
}

/// The way to other workers.
#[derive(Debug)]
pub(super) struct Peers {
    outboxes: Vec<Option<rtrb::Producer<Transit>>>,
    /// Workers that were sent something in this turn.
    to_wake: Vec<usize>,
}

impl Peers {
    /// Hands something over to a worker.
    ///
    /// # Errors
    /// The ring is full. It comes back.
    pub(super) fn hand_over(&mut self, worker: usize, transit: Transit) -> Result<(), Transit> {
        match &mut self.outboxes[worker] {
            Some(outbox) => outbox.push(transit).map_err(|rtrb::PushError::Full(transit)| transit)?,
            None => return Err(transit),
        }
        self.wake(worker);
        Ok(())
    }

    /// Has a worker woken at the end of the turn.
    #[inline]
    pub(super) fn wake(&mut self, worker: usize) {
        if !self.to_wake.contains(&worker) {
            self.to_wake.push(worker);
        }
    }

    /// The turn is over: workers that were sent something are woken.
    pub(super) fn flush(&mut self, shared: &Shared) {
        for worker in self.to_wake.drain(..) {
            shared.workers[worker].wake();
        }
    }
}
