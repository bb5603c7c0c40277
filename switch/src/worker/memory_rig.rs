//! Workers whose ports are queues in memory. Tests and micro-benchmarks play the kernel for them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Sender, unbounded};
use nix::errno::Errno;

use super::shared::Shared;
use super::view::{PortShared, QueueShared, View};
use super::{Command, Queue, Setup, TransitRings, Worker};
use crate::counters::PortShard;
use crate::engine::PortNo;
use crate::engine::storm::StormControl;
use crate::io::backend::Backend;
use crate::io::memory::{self, MemoryKernel};
use crate::io::queue_rings::RingMemory;
use crate::io::umem::Umem;
use crate::model::DEFAULT_MTU;

/// How the workers are set up.
#[derive(Clone, Debug)]
pub struct RigSettings {
    /// How many.
    pub workers: usize,
    /// Descriptors of each ring of a queue, a power of two.
    pub depth: u32,
    /// Where the frames of each port's queues lie, by number. Further ports begin again with the first.
    pub memory: Vec<RingMemory>,
    /// Frames that can wait between two workers.
    pub transit: usize,
    /// As in [`Setup::spin`].
    pub spin: Option<RangeInclusive<Duration>>,
}

/// Workers, and the kernel around them.
#[derive(Debug)]
pub struct MemoryRig {
    /// What all share.
    pub shared: Arc<Shared>,
    /// The workers. They run when they are told to take a turn.
    pub workers: Vec<Worker>,
    /// To each worker.
    pub commands: Vec<Sender<Command>>,
    /// The kernels' ends of all queues, port by port, queue by queue.
    pub kernels: Vec<MemoryKernel>,
}

impl MemoryRig {
    /// Workers that work by `view`, with a filled queue for each queue of its ports.
    ///
    /// # Errors
    /// There are no descriptors left.
    ///
    /// # Panics
    /// If the settings name no memory.
    pub fn new(umem: &Arc<Umem>, view: View, settings: &RigSettings) -> Result<Self, Errno> {
        let ports: Vec<_> = view.ports.iter().flatten().cloned().collect();
        let shared = Shared::new(Arc::clone(umem), view, settings.workers)?;
        let (mut workers, mut commands, mut kernels) = (Vec::new(), Vec::new(), Vec::new());
        for (id, transit) in TransitRings::between(settings.workers, settings.transit).into_iter().enumerate() {
            let (sender, receiver) = unbounded();
            let (shared, spin) = (Arc::clone(&shared), settings.spin.clone());
            let mut worker = Worker::new(Setup { id, shared, commands: receiver, transit, spin })?;
            worker.refresh_view();
            workers.push(worker);
            commands.push(sender);
        }
        for port in ports {
            let memory = settings.memory[usize::from(port.no) % settings.memory.len()];
            for (number, queue) in (0..).zip(&port.queues) {
                let (mut backend, kernel) = memory::queue(umem, settings.depth, memory)?;
                let worker = &mut workers[queue.worker()];
                backend.refill(worker.egress.cache());
                worker.add(Queue::new(Arc::clone(&port), number, Backend::Memory(backend)));
                kernels.push(kernel);
            }
        }
        Ok(Self { shared, workers, commands, kernels })
    }
}

/// A port of the bridge, or one for components. `queues` has the worker of each of its queues.
pub fn port(no: PortNo, bridged: bool, workers: usize, queues: impl IntoIterator<Item = usize>) -> Arc<PortShared> {
    Arc::new(PortShared {
        bond: None,
        no,
        generation: 1,
        name: format!("p{no}"),
        bridged,
        is_deserted: false.into(),
        mtu: DEFAULT_MTU.into(),
        storm: StormControl::default(),
        shards: (0..=workers).map(|_| PortShard::default()).collect(),
        queues: queues.into_iter().map(QueueShared::new).collect(),
    })
}
