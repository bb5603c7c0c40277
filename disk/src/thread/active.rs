//! A queue that a thread serves.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use vhost_user::event::Event;
use vhost_user::ring::inflight::TrackedQueue;

use crate::uring::Registered;

/// How a thread learns of requests.
#[derive(Clone, Debug)]
pub enum Kick {
    /// By this event.
    Event(Event),
    /// By looking.
    Polled,
}

/// A queue, with what belongs to it. It moves between the session's thread and the thread that serves it.
#[derive(Debug)]
pub struct Active {
    /// Its number.
    pub number: u16,
    /// The ring.
    pub queue: TrackedQueue,
    /// How requests are told.
    pub kick: Kick,
    /// How the driver is told.
    pub call: Option<Event>,
    /// Requests have effects.
    pub enabled: bool,
    /// Virtio features that were negotiated.
    pub features: u64,
}

/// The same while a thread has it.
#[derive(Debug)]
pub(super) struct Serving {
    pub active: Box<Active>,
    /// Requests that are taken and not used.
    pub in_flight: usize,
    /// Requests were used that the driver has not been shown.
    pub unpublished: bool,
    /// There may be requests.
    pub look: bool,
    /// The driver is not asked for kicks.
    pub quiet: bool,
    /// The guest has broken the ring.
    pub broken: bool,
    /// Requests that wait for limits: to read, and to write.
    pub waiting: [VecDeque<u32>; 2],
    /// Who wants it back, once nothing is in work.
    pub taker: Option<Sender<Box<Active>>>,
    pub kick_file: Option<Registered>,
    /// Tells kicks of an earlier event from those of this one.
    pub generation: u32,
}

impl Serving {
    pub fn new(active: Box<Active>, generation: u32) -> Self {
        Self {
            active,
            in_flight: 0,
            unpublished: false,
            look: true,
            quiet: false,
            broken: false,
            waiting: [VecDeque::new(), VecDeque::new()],
            taker: None,
            kick_file: None,
            generation,
        }
    }

    /// Requests of an earlier daemon that are still to be done.
    pub fn left_over(&self) -> usize {
        if self.broken { 0 } else { self.active.queue.left_over() }
    }

    /// Whether a request may be taken.
    pub fn may_take(&self, paused: bool) -> bool {
        if self.broken {
            return false;
        }
        match self.taker {
            // What was in work once has to end before the queue is given back, or a pause is answered.
            Some(_) => self.left_over() > 0,
            None => self.active.enabled && (!paused || self.left_over() > 0),
        }
    }
}
