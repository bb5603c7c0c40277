//! The workers: a thread each. It polls its port queues, runs bridge and components on what came in, and sends what
//! goes out.
//!
//! A socket belongs to one worker, both ways. A frame for a port whose socket another worker has goes there over a
//! single-producer single-consumer ring, one for each pair of workers. It is a descriptor that moves, not the data. The
//! queue that a frame leaves by depends only on the port, the worker and the flow. So frames of a flow stay in order.
//!
//! A worker turns its loop as long as there is work, then for a while more ([`Setup::spin`]). Then it
//! sleeps in epoll until a socket, another worker or control has something. It never waits for a lock, allocates or
//! logs for a packet. Control speaks to it by [`Command`]s, taken between two bursts, and by the [`View`].
//!
//! | part | what it does |
//! | --- | --- |
//! | `bridge` | decides on bursts of queues that the bridge has |
//! | `component` | runs the components that are at this worker |
//! | `ingress` | takes what other workers have handed over |
//! | `egress` | stages, meters, edits, finds the next hop, sends. The others are its clients |

#![cfg_attr(not(test), warn(clippy::expect_used))]

pub mod bond;
mod bridge;
mod command;
pub mod component;
mod debt;
mod egress;
pub mod ends;
mod frames;
mod idle_poller;
mod ingress;
#[cfg(any(test, feature = "memory-rig"))]
pub mod memory_rig;
mod set;
pub mod shared;
#[cfg(test)]
mod tests;
mod turn;
pub mod view;
mod watch;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use nix::errno::Errno;

use self::bridge::Bridge;
pub use self::command::{Command, Holdings, QueueHoldings};
use self::component::Runner;
use self::debt::{Debt, Found};
use self::egress::{Egress, Serves};
pub use self::egress::{Queue, TransitRings};
pub use self::frames::BURST;
use self::idle_poller::IdlePoller;
use self::ingress::Inboxes;
use self::shared::{Shared, WorkerShared};
use self::turn::Turn;
use self::view::View;
use crate::counters::as_count;
use crate::io::umem::Frame;

/// Frames that can wait between two workers.
pub const TRANSIT_DEPTH: usize = 4096;

/// How a worker is set up.
#[derive(Debug)]
pub struct Setup {
    /// Number.
    pub id: usize,
    /// What all share.
    pub shared: Arc<Shared>,
    /// From control.
    pub commands: Receiver<Command>,
    /// From and to other workers.
    pub transit: TransitRings,
    /// How long it looks for work before it sleeps, at least and at most. `None`: it never sleeps.
    pub spin: Option<RangeInclusive<Duration>>,
}

/// A worker's own state.
#[derive(Debug)]
pub struct Worker {
    id: usize,
    shared: Arc<Shared>,
    /// The view that it works by.
    view: Arc<View>,
    /// Epoch of that view, or 0 before the first.
    epoch: u64,
    /// Epoch of the bonds' tables that it works by.
    bonds_epoch: u64,
    commands: Receiver<Command>,
    inboxes: Inboxes,
    bridge: Bridge,
    components: Runner,
    egress: Egress,
    /// What came in. Empty between bursts.
    burst: Vec<Frame>,
    /// `None`: it never sleeps.
    idle_poller: Option<IdlePoller>,
}

impl Worker {
    /// A worker without queues.
    ///
    /// # Errors
    /// There is no descriptor for its epoll set.
    pub fn new(setup: Setup) -> Result<Self, Errno> {
        let Setup { id, shared, commands, transit, spin } = setup;
        let (egress, inboxes) = Egress::new(Arc::clone(&shared.umem), &shared.workers[id].event, transit)?;
        Ok(Self {
            id,
            view: shared.view.load_full(),
            epoch: 0,
            bonds_epoch: 0,
            commands,
            inboxes: Inboxes::new(inboxes),
            bridge: Bridge::new(),
            components: Runner::default(),
            egress,
            burst: Vec::with_capacity(BURST),
            idle_poller: spin.map(IdlePoller::new),
            shared,
        })
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let mut idle_since: Option<Instant> = None;
        loop {
            if self.me().attention.swap(false, Ordering::Acquire) && !self.obey() {
                return;
            }
            self.refresh_view();
            if self.turn() {
                if let (Some(poller), Some(since)) = (&mut self.idle_poller, idle_since.take()) {
                    poller.found(since.elapsed());
                }
                continue;
            }
            self.me().counters.polled_idle();
            let Some(poller) = &self.idle_poller else {
                std::hint::spin_loop();
                continue;
            };
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() < poller.reach() {
                std::hint::spin_loop();
            } else {
                self.sleep();
            }
        }
    }

    /// One turn over all that can bring frames. False if none came.
    pub fn turn(&mut self) -> bool {
        let Self { id, shared, view, inboxes, bridge, components, egress, burst, .. } = self;
        let turn = Turn { worker: *id, shared, view };
        let mut found = Found::default();
        for slot in 0..egress.queues().len() {
            match egress.queues()[slot].serves {
                Serves::Bridge => bridge.poll(slot, burst, &turn, egress, &mut found),
                Serves::Component | Serves::Rules | Serves::Nobody => egress.keep_up(slot),
            }
        }
        components.run(burst, &turn, egress, &mut found);
        bridge.take_injected(burst, &turn, egress, &mut found);
        found.took(inboxes.send_on(&turn, egress));
        egress.flush(shared);
        egress.forgive(found.is_uncontended());
        if found.is_only_debts() {
            self.ease_debts();
            return true;
        }
        found.frames > 0
    }

    /// All that has frames is in debt. What is to be paid for the least debt is paid to all.
    #[cold]
    fn ease_debts(&mut self) {
        if let Some(due) = Debt::least_due(self.debts().map(|debt| *debt)) {
            self.debts().for_each(|debt| debt.ease(due));
        }
    }

    fn debts(&mut self) -> impl Iterator<Item = &mut Debt> {
        let Self { bridge, components, egress, .. } = self;
        let queues = egress.queues_mut().as_mut_slice().iter_mut().map(|queue| &mut queue.debt);
        queues.chain(components.debts()).chain([bridge.injected_debt()])
    }

    /// What everybody knows of this worker.
    fn me(&self) -> &WorkerShared {
        &self.shared.workers[self.id]
    }

    /// Picks up newer components and a newer view, and says that the old ones are no longer used here.
    pub fn refresh_view(&mut self) {
        let Self { id, shared, view, epoch, components, egress, .. } = self;
        // Before the view. So who waits for a view and then changes components knows that commands from before were
        // obeyed.
        components.refresh(&Turn { worker: *id, shared, view }, egress);
        if shared.epoch.load(Ordering::Acquire) != *epoch {
            *view = shared.view.load_full();
            *epoch = view.snapshot.epoch;
            egress.refresh(&Turn { worker: *id, shared, view });
            self.me().seen.store(self.epoch, Ordering::Release);
        }
        let bonds = self.shared.bonds_epoch.load(Ordering::Acquire);
        if bonds != self.bonds_epoch {
            self.bonds_epoch = bonds;
            let Self { id, shared, view, egress, .. } = self;
            egress.refresh_bonds(&Turn { worker: *id, shared, view });
        }
    }

    /// Sleeps until somebody has something, unless somebody has it already.
    fn sleep(&mut self) {
        self.egress.prepare_sleep();
        self.me().prepare_sleep();
        if !self.has_work() {
            self.me().counters.slept();
            self.egress.wait();
        }
        self.me().awake();
    }

    fn has_work(&self) -> bool {
        let queues = self.egress.queues();
        self.me().attention.load(Ordering::Relaxed)
            || self.shared.epoch.load(Ordering::Relaxed) != self.epoch
            || self.shared.bonds_epoch.load(Ordering::Relaxed) != self.bonds_epoch
            || self.shared.components.epoch() != self.components.epoch()
            || !self.me().injected.is_empty()
            || !self.inboxes.is_empty()
            || queues.iter().any(|queue| queue.serves == Serves::Bridge && queue.has_some())
            || self.components.has_work(queues)
    }

    /// Carries out commands. False if one was to stop.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add(queue) => self.add(*queue),
                Command::Remove(port, queues, reply) => {
                    let removed = self.remove(|queue| queue.port.no == port && queues.contains(&queue.number));
                    // Nobody waits any more only if control gave up, which it does not.
                    let _ = reply.send(removed);
                }
                Command::Move(port, number, reply) => {
                    // No more than the rings hold: others may go on to fill them with frames for other ports.
                    for _ in 0..=TRANSIT_DEPTH / BURST {
                        if self.take_transit() == 0 {
                            break;
                        }
                    }
                    let _ = reply.send(self.remove(|queue| queue.port.no == port && queue.number == number));
                }
                Command::Pause(report, barrier) => {
                    let _ = report.send(self.holdings());
                    barrier.wait();
                }
                Command::Stop(reply) => {
                    let removed = self.remove(|_| true);
                    while self.take_transit() + self.take_injected() > 0 || !self.me().injected.is_empty() {}
                    self.egress.cache().spill_all();
                    let _ = reply.send(removed);
                    return false;
                }
            }
        }
        true
    }

    fn take_transit(&mut self) -> usize {
        let Self { id, shared, view, inboxes, egress, .. } = self;
        inboxes.send_on(&Turn { worker: *id, shared, view }, egress)
    }

    fn take_injected(&mut self) -> usize {
        let Self { id, shared, view, bridge, egress, burst, .. } = self;
        let mut found = Found::default();
        bridge.take_injected(burst, &Turn { worker: *id, shared, view }, egress, &mut found);
        found.frames
    }

    /// Polls this queue from now on. Its port must be in the view.
    pub fn add(&mut self, queue: Queue) {
        let Self { id, shared, view, components, egress, .. } = self;
        let turn = Turn { worker: *id, shared, view };
        egress.add(queue, &turn);
        components.rebuild(&turn, egress);
    }

    fn remove(&mut self, wanted: impl Fn(&Queue) -> bool) -> Vec<Queue> {
        let Self { id, shared, view, components, egress, .. } = self;
        let turn = Turn { worker: *id, shared, view };
        let removed = egress.remove(wanted, &turn);
        components.rebuild(&turn, egress);
        removed
    }

    fn holdings(&mut self) -> Holdings {
        self.egress.reap();
        let kept: usize = self.egress.queues().iter().map(Queue::waiting).sum();
        let waiting = self.inboxes.len() + self.me().injected.len() + kept + self.egress.held();
        Holdings {
            cached: as_count(self.egress.cache().len()),
            in_transit: as_count(waiting),
            queues: self.egress.queues().iter().map(QueueHoldings::of).collect(),
        }
    }
}
