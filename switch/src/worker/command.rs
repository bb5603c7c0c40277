//! What control asks of a worker, and what it answers.

use std::ops::Range;
use std::sync::{Arc, Barrier};

use crossbeam::channel::Sender;

use super::egress::Queue;
use super::view::PortShared;
use crate::engine::PortNo;
use crate::io::queue_rings::OwnFrames;

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Poll this queue from now on.
    Add(Box<Queue>),
    /// Give back the queues of this port that have such numbers.
    Remove(PortNo, Range<u32>, Sender<Vec<Queue>>),
    /// Give back one queue of this port, once what other workers have handed over so far has gone.
    Move(PortNo, u32, Sender<Vec<Queue>>),
    /// Report what you hold. Wait until all have reported and the barrier opens again.
    Pause(Sender<Holdings>, Arc<Barrier>),
    /// Give back everything, and end.
    Stop(Sender<Vec<Queue>>),
}

/// What a worker holds at a pause.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Free frames in its cache.
    pub cached: u32,
    /// Frames that wait to be taken over from other workers and packet sockets.
    pub in_transit: u32,
    /// Each queue.
    pub queues: Vec<QueueHoldings>,
}

/// Frames that a queue has with the kernel: to be filled, and to be sent.
#[derive(Clone, Debug)]
pub struct QueueHoldings {
    /// Port.
    pub port: Arc<PortShared>,
    /// Queue of the netdev.
    pub queue: u32,
    /// By the socket's own count.
    pub counted: (u32, u32),
    /// What the ledger calls these places: that of the shared UMEM, or of the queue's own.
    pub owners: (u32, u32),
    /// The frames of the queue's own UMEM, if it has one.
    pub own: Option<OwnFrames>,
}

impl QueueHoldings {
    pub(super) fn of(queue: &Queue) -> Self {
        Self {
            port: Arc::clone(&queue.port),
            queue: queue.number,
            counted: queue.backend.outstanding(),
            owners: queue.backend.owners(),
            own: queue.backend.own_frames(),
        }
    }
}
