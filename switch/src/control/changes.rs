//! What the machine has done to ports by itself, for the manager of the switch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::PortSpec;

/// What became of a port without a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortChange {
    /// Its netdev is gone, or can't be used as it is. The port is out of the switch, and its number is kept. It can be
    /// added again as `spec`.
    Lost {
        /// The port, as it is to be added again.
        spec: Box<PortSpec>,
        /// What happened, in words.
        why: String,
    },
    /// The port goes by what somebody has changed: names, namespace, MTU.
    Followed(Box<PortSpec>),
}

/// Changes that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    /// Whether a port's change waits, to be asked without the lock.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    ports: Vec<PortChange>,
    /// Something on the machine has changed: a port that could not be added may be added now.
    host: bool,
    /// Ports that failed one after the other with their netdevs changed already.
    failures: u32,
    /// Until then changes of the machine are what such a port has left.
    echo_until: Option<Instant>,
}

/// How long changes of the machine mean nothing after a port has failed, for the first time and at most. Whoever
/// tries again at each change would else answer himself for ever.
const ECHO: Duration = Duration::from_millis(100);
const MAX_ECHO: Duration = Duration::from_secs(5);

impl Changes {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a port's change.
    pub fn note(&self, change: PortChange) {
        self.lock().ports.push(change);
        self.any.store(true, Ordering::Release);
    }

    /// Wakes who waits: a port has changed.
    pub fn ring(&self) {
        self.lock().host = true;
        self.bell.notify_all();
    }

    /// Wakes who waits: something on the machine has changed.
    pub fn ring_for_host(&self) {
        if self.lock().echo_until.is_none_or(|until| until <= Instant::now()) {
            self.ring();
        }
    }

    /// Notes whether a port came up whose netdevs were changed for it.
    pub fn tried(&self, is_up: bool) {
        let mut waiting = self.lock();
        if is_up {
            (waiting.failures, waiting.echo_until) = (0, None);
            return;
        }
        let echo = (ECHO * 2_u32.saturating_pow(waiting.failures.min(10))).min(MAX_ECHO);
        waiting.failures += 1;
        waiting.echo_until = Some(Instant::now() + echo);
    }

    /// Waits until something has changed, that long at most. False if nothing has.
    pub fn wait(&self, timeout: Duration) -> bool {
        let waiting = self.lock();
        let quiet = |waiting: &mut Waiting| !waiting.host;
        let (mut waiting, _) =
            self.bell.wait_timeout_while(waiting, timeout, quiet).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut waiting.host)
    }

    /// Takes the ports' changes, in order.
    pub fn take(&self) -> Vec<PortChange> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.lock().ports)
    }
}
