//! Workers over queues in memory, all in one thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::engine::PortNo;
use crate::engine::fdb::Fdb;
use crate::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use crate::engine::tables::Tables;
use crate::io::memory::MemoryKernel;
use crate::io::queue_rings::RingMemory;
use crate::io::umem::Umem;
use crate::model::*;
use crate::worker::bond::BondShared;
use crate::worker::memory_rig::{self, MemoryRig, RigSettings};
use crate::worker::shared::Shared;
use crate::worker::view::View;
use crate::worker::{Command, Worker, component};

const FRAMES: u32 = 512;
pub(super) const DEPTH: u32 = 64;
/// Where frames of most queues lie.
pub(super) const SHARED: RingMemory = RingMemory::Shared { fill: DEPTH / 2 };
/// Frames that can wait between two workers.
const TRANSIT: usize = 8;

/// Workers with ports on them, all in one thread.
pub(super) struct Bed {
    pub(super) shared: Arc<Shared>,
    pub(super) workers: Vec<Worker>,
    /// To each worker.
    pub(super) commands: Vec<Sender<Command>>,
    pub(super) kernels: Vec<MemoryKernel>,
    /// Those of components that ever ran.
    pub(super) counters: Vec<Arc<component::Counters>>,
}

impl Bed {
    /// A port of the bridge for each mode, spread over the workers in turn.
    pub(super) fn new(workers: usize, modes: &[VlanMode]) -> Self {
        Self::with_free(workers, modes, 0)
    }

    /// As many further ports for components.
    pub(super) fn with_free(workers: usize, modes: &[VlanMode], free: usize) -> Self {
        Self::with_queues(workers, modes, free, 1)
    }

    /// With so many queues each. The kernels' ends stand port by port, queue by queue.
    pub(super) fn with_queues(workers: usize, modes: &[VlanMode], free: usize, queues: usize) -> Self {
        Self::with_memory(workers, modes, (free, queues), vec![SHARED])
    }

    /// With queues whose frames lie there, port by port.
    pub(super) fn with_memory(
        workers: usize,
        modes: &[VlanMode],
        (free, queues): (usize, usize),
        memory: Vec<RingMemory>,
    ) -> Self {
        Self::with_mtu(1500, workers, modes, (free, queues), memory)
    }

    /// With so many queues each, and with ports that are bonds.
    pub(super) fn with_bond(
        workers: usize,
        modes: &[VlanMode],
        queues: usize,
        bond: impl Fn(usize) -> Option<Arc<BondShared>>,
    ) -> Self {
        Self::build(1500, workers, modes, (0, queues), vec![SHARED], bond)
    }

    /// With that MTU at all ports.
    pub(super) fn with_mtu(
        mtu: u32,
        workers: usize,
        modes: &[VlanMode],
        free_and_queues: (usize, usize),
        memory: Vec<RingMemory>,
    ) -> Self {
        Self::build(mtu, workers, modes, free_and_queues, memory, |_| None)
    }

    fn build(
        mtu: u32,
        workers: usize,
        modes: &[VlanMode],
        (free, queues): (usize, usize),
        memory: Vec<RingMemory>,
        bond: impl Fn(usize) -> Option<Arc<BondShared>>,
    ) -> Self {
        let umem = Umem::new(FRAMES, 2048, HugePages::Off).unwrap();
        let policy = |vlan: &VlanMode| PortPolicy {
            mac: None,
            mac_check: false,
            isolated: false,
            vlan: vlan.clone(),
            mtu,
            fdb_limit: 64,
        };
        let policies = (0..).zip(modes.iter().map(policy)).collect();
        let ports = (0..modes.len() + free).map(|no| {
            let queues = (0..queues).map(|queue| (no + queue) % workers);
            let mut port = memory_rig::port(no as PortNo, no < modes.len(), workers, queues);
            Arc::get_mut(&mut port).unwrap().bond = bond(no);
            port.mtu.store(mtu, Ordering::Relaxed);
            Some(port)
        });
        let view = View {
            snapshot: Snapshot::build(1, &BridgePolicy::default(), policies),
            ports_epoch: 1,
            fdb: Arc::new(Fdb::new(256, 300, 7)),
            ports: Arc::new(ports.collect()),
            meters: Arc::default(),
            metered: false,
            taps: Arc::default(),
        };
        let spin = Some(Duration::ZERO..=Duration::ZERO);
        let settings = RigSettings { workers, depth: DEPTH, memory, transit: TRANSIT, spin };
        let MemoryRig { shared, workers, commands, kernels } = MemoryRig::new(&umem, view, &settings).unwrap();
        Self { shared, workers, commands, kernels, counters: Vec::new() }
    }

    /// Puts rules, meters and redirects in force.
    pub(super) fn install(&mut self, tables: &Tables) {
        let old = self.shared.view.load_full();
        let epoch = old.snapshot.epoch + 1;
        let redirects = tables.redirects.iter().map(|(spec, end)| (spec.src, end));
        let snapshot = old.snapshot.clone().with_redirects(redirects).with_rules(epoch, tables.rules.current().clone());
        let meters = tables.meters.by_port(self.kernels.len()).into();
        self.shared.publish(View { snapshot, meters, metered: true, ..View::clone(&old) });
        self.workers.iter_mut().for_each(Worker::refresh_view);
    }

    /// Turns all workers until none finds anything. Returns what went out of each port.
    pub(super) fn settle(&mut self) -> Vec<Vec<Vec<u8>>> {
        let mut sent = vec![Vec::new(); self.kernels.len()];
        loop {
            let busy = self.workers.iter_mut().map(Worker::turn).fold(false, |any, busy| any | busy);
            for (sent, kernel) in sent.iter_mut().zip(&mut self.kernels) {
                sent.extend(kernel.transmit());
            }
            if !busy {
                return sent;
            }
        }
    }

    /// Every frame is in one place, by both ledgers, and packets and bytes add up.
    pub(super) fn assert_balanced(&mut self) {
        let holdings: Vec<_> = self.workers.iter_mut().map(Worker::holdings).collect();
        let census = self.shared.umem.census();
        let (mut free, mut placed) = (self.shared.umem.pool_len(), 0);
        for worker in holdings {
            assert_eq!(worker.in_transit, 0);
            free += worker.cached;
            for queue in worker.queues {
                if let Some(own) = queue.own {
                    assert!(own.is_balanced(), "{own:?}");
                    continue;
                }
                assert_eq!(queue.counted, (census.at(queue.owners.0), census.at(queue.owners.1)));
                placed += queue.counted.0 + queue.counted.1;
            }
        }
        assert_eq!((free, placed, 0, 0), (census.free(), census.placed(), census.held(), census.chained()));
        assert_eq!(self.shared.umem.check_chains(), Ok(()));
        assert_eq!(free + placed, FRAMES);
        let mut sum = PortStats::default();
        for port in self.shared.view.load().ports.iter().flatten() {
            port.shards.iter().for_each(|shard| shard.add_to(&mut sum));
            for queue in &port.queues {
                sum.rx.add(queue.rx());
                sum.tx.add(queue.tx());
            }
        }
        for counters in &self.counters {
            counters.shard.add_to(&mut sum);
            sum.rx.add(counters.came.read());
            sum.tx.add(counters.left.read());
        }
        let dropped: u64 = sum.drops.values().map(|count| count.packets).sum();
        let dropped_bytes: u64 = sum.drops.values().map(|count| count.bytes).sum();
        let copies = sum.flood_copies.packets + sum.mirror_copies.packets;
        assert_eq!(sum.rx.packets + copies, sum.tx.packets + dropped, "{sum:?}");
        let gained = sum.rx.bytes + sum.flood_copies.bytes + sum.mirror_copies.bytes + 4 * sum.vlan_pushes;
        assert_eq!(gained, sum.tx.bytes + dropped_bytes + 4 * sum.vlan_pops, "{sum:?}");
    }
}

pub(super) fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

pub(super) fn frame(from: u8, to: Option<u8>, mark: u8, len: usize) -> Vec<u8> {
    let mut frame = [to.map_or([0xff; 6], station), station(from)].concat();
    frame.extend([0x88, 0xb5, mark]);
    frame.resize(len.max(15), mark);
    frame
}
