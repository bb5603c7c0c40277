//! What a session knows, and the steps of a request.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::action::{Action, Outcome};
use super::answer::{Answer, Question, Turn};
use super::memory::MemoryTable;
use super::offer::Offer;
use super::refusal::Refusal;
use super::ring::{Ring, RingBase};
use crate::message::features::{LOG_ALL, LOG_SHMFD, PROTOCOL_FEATURES, RING_PACKED};
use crate::message::{InflightRegion, LogRegion, Message};

/// Rings that the protocol can name.
const MAX_RINGS: u16 = 256;

/// A session with a front end. The [module](super) tells how it is used.
///
/// Invariants, between any two calls: a started ring has size, addresses and a kick, lies in memory that the table
/// has, and features are set. There are as many rings as were offered. What was not offered is not negotiated.
#[derive(Debug)]
pub struct Session {
    pub(super) offer: Offer,
    /// `None` before they are set.
    pub(super) features: Option<u64>,
    pub(super) protocol_features: u64,
    pub(super) owned: bool,
    pub(super) memory: MemoryTable,
    pub(super) log: Option<Arc<LogRegion>>,
    pub(super) log_event: Option<Arc<OwnedFd>>,
    pub(super) rings: Vec<Ring>,
    pub(super) inflight: Option<Arc<InflightRegion>>,
    pub(super) backend_channel: Option<Arc<OwnedFd>>,
    pub(super) mtu: Option<u16>,
    pub(super) status: u8,
}

impl Session {
    /// A session of a device with that offer, before the first message. More than 256 rings become 256.
    pub fn new(offer: Offer) -> Self {
        let rings = offer.rings.min(MAX_RINGS);
        Self {
            offer: Offer { rings, ..offer },
            features: None,
            protocol_features: 0,
            owned: false,
            memory: MemoryTable::default(),
            log: None,
            log_event: None,
            rings: (0..rings).map(|_| Ring::default()).collect(),
            inflight: None,
            backend_channel: None,
            mtu: None,
            status: 0,
        }
    }

    /// Takes a message, and tells what the device has to do for it. The answer is due after that.
    pub fn handle(&mut self, message: Message) -> Turn {
        let log_shared = self.protocol_features & LOG_SHMFD != 0;
        let question = Question::of(message.code, message.size, message.need_reply, log_shared);
        let mut turn = Turn { actions: Vec::new(), question, refusal: None };
        let applied = message.request.map_err(Refusal::from).and_then(|request| self.apply(request, &mut turn));
        match applied {
            Ok(()) => self.settle(&mut turn.actions),
            Err(refusal) => turn.refusal = Some(refusal),
        }
        turn
    }

    /// The device was told to stop that ring, and has. Goes on from `base` if the ring is started again.
    pub fn ring_stopped(&mut self, ring: u8, base: RingBase) {
        if let Some(ring) = self.rings.get_mut(usize::from(ring)).filter(|ring| ring.stopping) {
            ring.stopping = false;
            if !ring.base_is_set {
                ring.base = Some(base);
            }
        }
    }

    /// All of a turn's actions were carried out, or one was not.
    pub fn finish(&mut self, turn: Turn, outcome: Outcome) -> Answer {
        let Turn { question, refusal, .. } = turn;
        self.rings.iter_mut().for_each(|ring| ring.base_is_set = false);
        let open = (0..=u8::MAX).zip(&self.rings).find(|(_, ring)| ring.stopping).map(|(ring, _)| ring);
        match (refusal, open) {
            (Some(refusal), _) => question.refuse(&refusal),
            (None, Some(ring)) if !matches!(outcome, Outcome::Failed(_)) => question.refuse(&Refusal::NotStopped(ring)),
            _ => {
                let base = question.base_of().and_then(|ring| self.ring(ring));
                question.answer(outcome, base.map_or(0, |ring| ring.start_base(self.is_packed()).0))
            }
        }
    }

    /// The connection is over. Gives the rings that are to be stopped. The session is of no use after that, but tells
    /// where they were ([`Session::ring_stopped`]).
    pub fn hang_up(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.rings.iter_mut().for_each(|ring| ring.base_is_set = false);
        self.features = None;
        self.settle(&mut actions);
        actions
    }

    /// Finds the rings that have to stop or start after a request, and puts that around what the request itself
    /// brought.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        let changes = std::mem::take(actions);
        let runs: Vec<bool> = self.rings.iter().map(|ring| self.may_run(ring)).collect();
        for ((number, ring), runs) in (0..=u8::MAX).zip(&mut self.rings).zip(&runs) {
            if ring.started && !runs {
                (ring.started, ring.stopping) = (false, true);
                actions.push(Action::StopRing(number));
            }
        }
        actions.extend(changes.into_iter().filter(|change| change.running_ring().is_none_or(|ring| self.runs(ring))));
        let all_enabled = self.features.is_some_and(|features| features & PROTOCOL_FEATURES == 0);
        let first = self.offer.enabled_at_first;
        for ((number, ring), runs) in (0..=u8::MAX).zip(&mut self.rings).zip(runs) {
            let enabled = ring.enable.unwrap_or(all_enabled || u16::from(number) < first);
            if runs && !ring.started {
                (ring.started, ring.enabled) = (true, enabled);
                actions.push(Action::StartRing(number));
            } else if ring.started && ring.enabled != enabled {
                ring.enabled = enabled;
                actions.push(Action::RingEnabled { ring: number, on: enabled });
            }
        }
    }

    fn may_run(&self, ring: &Ring) -> bool {
        self.features.is_some() && ring.lacks(&self.memory, self.is_packed()).is_none()
    }

    /// The ring is started.
    pub(super) fn runs(&self, ring: u8) -> bool {
        self.ring(ring).is_some_and(Ring::is_started)
    }

    /// What the device offers.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The virtio features in use. `None` before they are set, and after a reset.
    pub fn features(&self) -> Option<u64> {
        self.features
    }

    /// All of these virtio features are in use.
    pub fn has(&self, features: u64) -> bool {
        self.features.is_some_and(|set| set & features == features)
    }

    /// The protocol features in use.
    pub fn protocol_features(&self) -> u64 {
        self.protocol_features
    }

    /// The front end has said that the session begins.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// Rings are packed.
    pub fn is_packed(&self) -> bool {
        self.has(RING_PACKED)
    }

    /// The guest's memory.
    pub fn memory(&self) -> &MemoryTable {
        &self.memory
    }

    /// The log of written pages, if pages are to be logged now.
    pub fn log(&self) -> Option<&Arc<LogRegion>> {
        self.log.as_ref().filter(|_| self.has(LOG_ALL))
    }

    /// The event that tells the front end of a change of the log. It may be any kind of file.
    pub fn log_event(&self) -> Option<&Arc<OwnedFd>> {
        self.log_event.as_ref()
    }

    /// A ring.
    pub fn ring(&self, ring: u8) -> Option<&Ring> {
        self.rings.get(usize::from(ring))
    }

    /// All rings, by number.
    pub fn rings(&self) -> &[Ring] {
        &self.rings
    }

    /// The record of requests in flight.
    pub fn inflight(&self) -> Option<&Arc<InflightRegion>> {
        self.inflight.as_ref()
    }

    /// The socket for requests to the front end. It may be any kind of file.
    pub fn backend_channel(&self) -> Option<&Arc<OwnedFd>> {
        self.backend_channel.as_ref()
    }

    /// The MTU in bytes that the guest was told.
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// The driver's status (virtio 1.2, 2.1), 0 if the front end does not tell it.
    pub fn status(&self) -> u8 {
        self.status
    }
}
