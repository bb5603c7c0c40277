//! Threads: the workers and the clock, started and stopped.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded, unbounded};
use nix::errno::Errno;

use super::group_tap::TapGate;
use super::{Control, PinPlace, State, Switch, WeakState, build_view, ports};
use crate::engine::fdb::Fdb;
use crate::engine::tables::Tables;
use crate::io::umem::{FrameCache, Umem};
use crate::model::*;
use crate::worker::shared::Shared;
use crate::worker::view::{PortShared, QueueShared};
use crate::worker::{Command, Holdings, Queue, Setup, TRANSIT_DEPTH, TransitRings, Worker};
use crate::{Error, ErrorKind};

/// How often the clock advances, the MAC table ages and steering sets follow.
const TICK: Duration = Duration::from_secs(1);

/// The running threads, and the way to speak to the workers.
#[derive(Debug)]
pub(super) struct Threads {
    commands: Vec<Sender<Command>>,
    workers: Vec<JoinHandle<()>>,
    clock: Option<JoinHandle<()>>,
    clock_stop: Arc<(Mutex<bool>, Condvar)>,
    shared: Arc<Shared>,
    next_worker: AtomicU32,
}

fn system(what: &str, errno: Errno) -> Error {
    Error::new(ErrorKind::System, format!("{what}: {errno}"))
}

/// Makes UMEM and the threads.
pub(super) fn start(
    settings: &DataplaneSettings,
    bridge: BridgeSettings,
    pins: Option<PinPlace>,
) -> Result<Switch, Error> {
    let umem = Umem::new(settings.frames, settings.frame_size, settings.huge_pages).map_err(|errno| {
        let bytes = u64::from(settings.frames) * u64::from(settings.frame_size);
        let advice = match settings.huge_pages {
            HugePages::On => {
                format!(": {} free 2 MiB huge pages are needed (sysctl vm.nr_hugepages)", bytes.div_ceil(2 << 20))
            }
            _ => ": lower `frames` in [dataplane]".to_owned(),
        };
        Error::new(ErrorKind::System, format!("UMEM of {} MiB can't be had ({errno}){advice}", bytes >> 20))
    })?;
    check_cpus(&settings.cpus)?;
    let mut seed = [0; 8];
    getrandom(&mut seed)?;
    let fdb = Arc::new(Fdb::new(bridge.fdb_limit, bridge.fdb_ageing_seconds, u64::from_ne_bytes(seed)));
    let control = Control {
        ports: Default::default(),
        bridge,
        fdb,
        tables: Tables::new(settings.capacity, settings.workers),
        components: Default::default(),
        reserved: Default::default(),
        taps: Vec::new(),
        old_views: Vec::new(),
        epoch: 1,
        generation: 0,
        retired: PortStats { name: "retired".to_owned(), ..PortStats::default() },
    };
    let shared = Shared::new(Arc::clone(&umem), build_view(&control), settings.workers)
        .map_err(|errno| system("making an eventfd", errno))?;
    let threads = Threads::start(settings, &shared)?;
    let state = Arc::new(State {
        settings: settings.clone(),
        pins,
        shared,
        sharers: Default::default(),
        gate: Arc::new(TapGate::new(FrameCache::new(umem))),
        control: Mutex::new(control),
    });
    let mut switch = Switch { state, threads };
    let clock = start_clock(Arc::downgrade(&switch.state), Arc::clone(&switch.threads.clock_stop));
    switch.threads.clock = Some(clock.map_err(|error| thread_error("clock", &error))?);
    Ok(switch)
}

fn getrandom(bytes: &mut [u8]) -> Result<(), Error> {
    use std::io::Read as _;
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(bytes))
        .map_err(|error| Error::new(ErrorKind::System, format!("reading /dev/urandom: {error}")))
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

fn thread_error(what: &str, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::System, format!("starting the {what} thread: {error}"))
}

/// Ends the process if a worker does not end by being told to: a switch that is dead and looks alive helps nobody, and a
/// supervisor starts it again.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a worker panicked; aborting");
            std::process::abort();
        }
    }
}

impl Threads {
    fn start(settings: &DataplaneSettings, shared: &Arc<Shared>) -> Result<Self, Error> {
        let mut threads = Self {
            commands: Vec::new(),
            workers: Vec::new(),
            clock: None,
            clock_stop: Arc::default(),
            shared: Arc::clone(shared),
            next_worker: AtomicU32::new(0),
        };
        for (id, transit) in TransitRings::between(settings.workers, TRANSIT_DEPTH).into_iter().enumerate() {
            let (sender, commands) = unbounded();
            let setup = Setup { id, shared: Arc::clone(shared), commands, transit, spin: settings.spin() };
            let worker = Worker::new(setup).map_err(|errno| system("setting up epoll", errno))?;
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
            threads.workers.push(thread.map_err(|error| thread_error("worker", &error))?);
            threads.commands.push(sender);
        }
        Ok(threads)
    }

    /// Number of workers.
    pub(super) fn count(&self) -> usize {
        self.commands.len()
    }

    /// Workers for the queues of a new port, in turn.
    pub(super) fn spread(&self, queues: u32) -> impl Iterator<Item = usize> {
        let first = self.next_worker.fetch_add(queues, Ordering::Relaxed) as usize;
        let count = self.count();
        (0..queues as usize).map(move |queue| (first + queue) % count)
    }

    /// Gives a worker a command.
    pub(super) fn command(&self, shared: &Shared, worker: usize, command: Command) {
        // The receiving end lives as long as the worker, which ends by `Threads::stop` only.
        let _ = self.commands[worker].send(command);
        shared.workers[worker].attention.store(true, Ordering::Release);
        shared.workers[worker].wake();
    }

    /// Takes the queues of a port back from its workers.
    pub(super) fn take_back(&self, shared: &Shared, port: &PortShared) -> Vec<Queue> {
        let mut workers: Vec<_> = port.queues.iter().map(QueueShared::worker).collect();
        workers.sort_unstable();
        workers.dedup();
        let (sender, receiver) = bounded(workers.len());
        for &worker in &workers {
            self.command(shared, worker, Command::Remove(port.no, sender.clone()));
        }
        drop(sender);
        receiver.iter().flatten().collect()
    }

    /// Gives a queue to another worker. What workers have handed over for it so far goes first.
    pub(super) fn move_queue(&self, shared: &Shared, port: &PortShared, queue: u32, to: usize) {
        let (sender, receiver) = bounded(1);
        self.command(shared, port.queues[queue as usize].worker(), Command::Move(port.no, queue, sender));
        for taken in receiver.iter().flatten() {
            port.queues[queue as usize].assign(to);
            self.command(shared, to, Command::Add(Box::new(taken)));
        }
    }

    /// Stops all workers between two bursts, runs `count` with what each holds, and lets them go on.
    pub(super) fn pause<T>(&self, shared: &Shared, count: impl FnOnce(Vec<Holdings>) -> T) -> T {
        let barrier = Arc::new(Barrier::new(self.count() + 1));
        let (sender, receiver) = bounded(self.count());
        for worker in 0..self.count() {
            self.command(shared, worker, Command::Pause(sender.clone(), Arc::clone(&barrier)));
        }
        drop(sender);
        let result = count(receiver.iter().take(self.count()).collect());
        barrier.wait();
        result
    }

    /// Ends all threads.
    pub(super) fn stop(&mut self) {
        let (stopped, bell) = &*self.clock_stop;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
        let (sender, receiver) = bounded(self.count());
        for worker in 0..self.count() {
            self.command(&self.shared, worker, Command::Stop(sender.clone()));
        }
        drop(sender);
        let left: usize = receiver.iter().map(|queues| queues.len()).sum();
        debug_assert_eq!(left, 0, "ports are removed before the workers stop");
        for thread in self.workers.drain(..).chain(self.clock.take()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            self.stop();
        }
    }
}

fn start_clock(state: WeakState, stop: Arc<(Mutex<bool>, Condvar)>) -> std::io::Result<JoinHandle<()>> {
    let start = Instant::now();
    std::thread::Builder::new().name("xs-clock".to_owned()).spawn(move || {
        let (stopped, bell) = &*stop;
        let mut guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*guard {
            guard = bell.wait_timeout(guard, TICK).unwrap_or_else(PoisonError::into_inner).0;
            let Some(state) = state.upgrade().filter(|_| !*guard) else { return };
            state.shared.now.store(u32::try_from(start.elapsed().as_secs()).unwrap_or(u32::MAX), Ordering::Relaxed);
            let fdb = Arc::clone(&state.shared.view.load().fdb);
            fdb.age(state.now());
            // Control may be busy, or waiting for this thread: the next tick will do.
            if let Ok(mut control) = state.control.try_lock() {
                state.forget_views(&mut control);
                ports::steer(&state, &control);
            }
        }
    })
}

impl State {
    /// Seconds since the start.
    pub(super) fn now(&self) -> u32 {
        self.shared.now.load(Ordering::Relaxed)
    }

    /// Gives the frames of a cache that ends back to the pool; what is less than a slab goes to the taps' cache.
    pub(super) fn recycle(&self, mut cache: FrameCache) {
        cache.spill_all();
        let mut rest = self.gate.pass();
        while !cache.is_empty() {
            match cache.take() {
                Some(frame) => rest.put(frame),
                None => break,
            }
        }
    }
}

/// A `Switch` is used from many threads.
const _: fn() = || {
    fn shareable<T: Send + Sync>() {}
    shareable::<Switch>();
};
