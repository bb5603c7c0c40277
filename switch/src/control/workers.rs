//! The workers' threads: started, spoken to, stopped.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, bounded, unbounded};
use nix::errno::Errno;

use crate::counters::as_count;
use crate::model::DataplaneSettings;
use crate::worker::shared::Shared;
use crate::worker::view::{PortShared, QueueShared};
use crate::worker::{Command, Holdings, Queue, Setup, TRANSIT_DEPTH, TransitRings, Worker};
use crate::{Error, ErrorKind};

/// The running workers, and the way to speak to them.
#[derive(Debug)]
pub(super) struct Workers {
    commands: Vec<Sender<Command>>,
    /// Empty once they have stopped.
    threads: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
    /// Worker for the next new queue, counted on without end.
    next: AtomicUsize,
}

fn check_cpus(cpus: &[usize]) -> Result<(), Error> {
    let Some(allowed) = core_affinity::get_core_ids().filter(|_| !cpus.is_empty()) else { return Ok(()) };
    match cpus.iter().find(|&&cpu| allowed.iter().all(|core| core.id != cpu)) {
        None => Ok(()),
        Some(cpu) => Err(Error::invalid(format!(
            "cpus: CPU {cpu} is not there or not allowed for this process: {} are",
            allowed.iter().map(|core| core.id.to_string()).collect::<Vec<_>>().join(", ")
        ))),
    }
}

fn thread_error(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::System, format!("starting the worker thread: {error}"))
}

fn epoll_error(errno: Errno) -> Error {
    Error::new(ErrorKind::System, format!("setting up epoll: {errno}"))
}

/// Ends the process if a worker panics. A dead switch that looks alive helps nobody; a supervisor starts it again.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a worker panicked; aborting");
            std::process::abort();
        }
    }
}

impl Workers {
    /// Starts them.
    pub fn start(settings: &DataplaneSettings, shared: &Arc<Shared>) -> Result<Self, Error> {
        check_cpus(&settings.cpus)?;
        let mut workers = Self {
            commands: Vec::new(),
            threads: Mutex::default(),
            shared: Arc::clone(shared),
            next: AtomicUsize::new(0),
        };
        for (id, transit) in TransitRings::between(settings.workers, TRANSIT_DEPTH).into_iter().enumerate() {
            let (sender, commands) = unbounded();
            let setup = Setup { id, shared: Arc::clone(shared), commands, transit, spin: settings.spin() };
            let worker = Worker::new(setup).map_err(epoll_error)?;
            let cpu = settings.cpus.get(id).copied();
            let thread = std::thread::Builder::new().name(format!("xs-worker-{id}")).spawn(move || {
                let _abort = AbortOnPanic;
                if let Some(id) = cpu
                    && !core_affinity::set_for_current(core_affinity::CoreId { id })
                {
                    tracing::warn!(cpu = id, "a worker can't be pinned");
                }
                worker.run();
            });
            workers.threads().push(thread.map_err(|error| thread_error(&error))?);
            workers.commands.push(sender);
        }
        Ok(workers)
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Workers for the queues of a new port, in turn.
    pub fn spread(&self, queues: usize) -> impl Iterator<Item = usize> {
        let first = self.next.fetch_add(queues, Ordering::Relaxed);
        let count = self.count();
        (0..queues).map(move |queue| first.wrapping_add(queue) % count)
    }

    /// Gives a worker a command.
    pub fn command(&self, worker: usize, command: Command) {
        // The receiving end lives as long as the worker, which ends by `Workers::stop` only.
        let _ = self.commands[worker].send(command);
        self.shared.workers[worker].attention.store(true, Ordering::Release);
        self.shared.workers[worker].wake();
    }

    /// Gives a queue to its worker.
    pub fn add(&self, queue: Queue) {
        let worker = queue.port.queues[queue.number as usize].worker();
        self.command(worker, Command::Add(Box::new(queue)));
    }

    /// Takes the queues of a port back from its workers.
    pub fn take_back(&self, port: &PortShared) -> Vec<Queue> {
        self.take_back_some(port, 0..as_count(port.queues.len()))
    }

    /// Takes those queues of a port back from its workers that have such numbers.
    pub fn take_back_some(&self, port: &PortShared, numbers: Range<u32>) -> Vec<Queue> {
        let queues = &port.queues[numbers.start as usize..numbers.end as usize];
        let mut workers: Vec<_> = queues.iter().map(QueueShared::worker).collect();
        workers.sort_unstable();
        workers.dedup();
        let (sender, receiver) = bounded(workers.len());
        for &worker in &workers {
            self.command(worker, Command::Remove(port.no, numbers.clone(), sender.clone()));
        }
        drop(sender);
        receiver.iter().flatten().collect()
    }

    /// Gives a queue to another worker. What workers have handed over for it so far goes first.
    pub fn move_queue(&self, port: &PortShared, queue: u32, to: usize) {
        let (sender, receiver) = bounded(1);
        self.command(port.queues[queue as usize].worker(), Command::Move(port.no, queue, sender));
        for taken in receiver.iter().flatten() {
            port.queues[queue as usize].assign(to);
            self.command(to, Command::Add(Box::new(taken)));
        }
    }

    /// Stops all workers between two bursts, runs `count` with what each holds, and lets them go on.
    pub fn pause<T>(&self, count: impl FnOnce(Vec<Holdings>) -> T) -> T {
        let barrier = Arc::new(Barrier::new(self.count() + 1));
        let (sender, receiver) = bounded(self.count());
        for worker in 0..self.count() {
            self.command(worker, Command::Pause(sender.clone(), Arc::clone(&barrier)));
        }
        drop(sender);
        let result = count(receiver.iter().take(self.count()).collect());
        barrier.wait();
        result
    }

    /// Ends all threads.
    pub fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads());
        if threads.is_empty() {
            return;
        }
        let (sender, receiver) = bounded(self.count());
        for worker in 0..self.count() {
            self.command(worker, Command::Stop(sender.clone()));
        }
        drop(sender);
        let left: usize = receiver.iter().map(|queues| queues.len()).sum();
        debug_assert_eq!(left, 0, "ports are removed before the workers stop");
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}
