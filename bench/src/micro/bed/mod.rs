//! A worker with ports on queues in memory: the bridge with everything on, and components ([`components`]).
//!
//! The kernel's part is as cheap as it can be. For the bridge no frame is written: each was filled in beforehand and
//! keeps its packet wherever it goes. So a turn of the kernel moves descriptors and nothing else. Its cost is still not
//! the worker's. [`PassThrough`] stands in for the worker to tell how much it is.

mod components;
mod pass_through;

use std::sync::Arc;

use switch::engine::meter::Meter;
use switch::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use switch::engine::tables::Tables;
use switch::io::backend::Backend;
use switch::io::memory::{self, MemoryKernel};
use switch::io::queue_rings::RingMemory;
use switch::io::umem::{FrameCache, Umem};
use switch::model::{
    Capacity, DEFAULT_QUEUE_DEPTH, HugePages, MeterBinding, MeterDirection, MeterSpec, RuleChange, RuleTarget, VlanMode,
};
use switch::worker::Worker;
use switch::worker::component::Set;
use switch::worker::memory_rig::{self, MemoryRig, RigSettings};
use switch::worker::view::{PortShared, View};

pub use self::components::components;
pub use self::pass_through::{PassThrough, pass_through};
use super::fixtures::{BURST, mac_table, rule_spec, station, udp4};

/// Flows of the traffic. Each goes to a station of its own, and has a rule of its own.
pub const FLOWS: u32 = 64;
/// Rules in force.
pub const RULES: u32 = 10_000;
/// Distinct masks of the rules.
const MASKS: u32 = 8;
/// Descriptors of a ring.
const DEPTH: u32 = DEFAULT_QUEUE_DEPTH;
/// Frames that a receive side is kept supplied with: about a queue's share of 65,536 frames.
const FILL: u32 = 1536;
/// Where the frames of most queues lie.
pub const SHARED: RingMemory = RingMemory::Shared { fill: FILL };
/// Frames of packet memory.
const FRAMES: u32 = 8192;
const FRAME_SIZE: u32 = 2048;
/// VLAN of both ports.
const VID: u16 = 10;

/// A queue whose frames lie there, not yet filled, and the kernel's end of it.
pub fn queue(umem: &Arc<Umem>, memory: RingMemory) -> (Backend, MemoryKernel) {
    let (queue, kernel) = memory::queue(umem, DEPTH, memory).expect("an eventfd");
    (Backend::Memory(queue), kernel)
}

/// What is behind a queue of a device.
pub trait Wire {
    /// Receives up to `count` frames, as many as there are empty ones. They are packets of `traffic`, or frames as they
    /// are.
    fn receive(&mut self, count: usize, traffic: Option<&mut Traffic>);
    /// Sends all that is to be sent. Returns how many frames.
    fn transmit(&mut self) -> usize;
}

impl Wire for MemoryKernel {
    fn receive(&mut self, count: usize, traffic: Option<&mut Traffic>) {
        match traffic {
            Some(traffic) => self.receive_each(count, |room| traffic.put(room)),
            None => self.receive_each(count, |_| FRAME_LEN),
        };
    }

    fn transmit(&mut self) -> usize {
        self.transmit_each(|_| {})
    }
}

/// Bytes of each frame without FCS.
const FRAME_LEN: usize = 60;

/// Packet memory in which every frame holds a packet of one of the flows.
pub fn umem() -> Arc<Umem> {
    let umem = Umem::new(FRAMES, FRAME_SIZE, HugePages::Off).expect("memory");
    let mut cache = FrameCache::new(Arc::clone(&umem));
    let packets: Vec<_> = (0..FLOWS).map(|flow| udp4(1 + flow, flow * 151 % RULES)).collect();
    let mut frames: Vec<_> = std::iter::from_fn(|| cache.take()).collect();
    for (frame, packet) in frames.iter_mut().zip(packets.iter().cycle()) {
        assert_eq!(packet.len(), FRAME_LEN);
        let start = frame.start();
        umem.chunk_mut(frame)[start..start + packet.len()].copy_from_slice(packet);
    }
    frames.into_iter().for_each(|frame| cache.put(frame));
    cache.spill_all();
    umem
}

/// Packets that come in one after another, over and over.
#[derive(Debug)]
pub struct Traffic {
    packets: Vec<Vec<u8>>,
    next: usize,
}

impl Traffic {
    fn new(packets: Vec<Vec<u8>>) -> Self {
        Self { packets, next: 0 }
    }

    /// Puts the next packet into a frame. Returns its length.
    fn put(&mut self, room: &mut [u8]) -> usize {
        let packet = &self.packets[self.next];
        self.next = (self.next + 1) % self.packets.len();
        room[..packet.len()].copy_from_slice(packet);
        packet.len()
    }
}

/// A device under test. It takes frames from the rings of the first ports, and gives them to those of others.
pub trait Device {
    /// What is behind its queues.
    type Wire: Wire;
    /// One turn over its ports.
    fn turn(&mut self);
}

impl Device for Worker {
    type Wire = MemoryKernel;

    fn turn(&mut self) {
        self.refresh_view();
        Worker::turn(self);
    }
}

/// A device and the kernel around it.
#[derive(Debug)]
pub struct Bed<D: Device> {
    /// The device.
    pub device: D,
    wires: Vec<D::Wire>,
    /// Packets come in by so many ports, the first ones.
    sources: usize,
    /// What comes in; `None`: frames as they are.
    traffic: Option<Traffic>,
    forwarded: u64,
}

impl<D: Device> Bed<D> {
    fn new(device: D, wires: Vec<D::Wire>) -> Self {
        Self { device, wires, sources: 1, traffic: None, forwarded: 0 }
    }

    /// The kernel's part of a turn: what the device sent is on the wire, and a burst has come in at each source.
    pub fn kernel_turn(&mut self) {
        self.forwarded += self.wires.iter_mut().map(Wire::transmit).sum::<usize>() as u64;
        for wire in &mut self.wires[..self.sources] {
            wire.receive(BURST, self.traffic.as_mut());
        }
    }

    /// Frames that the device has forwarded.
    pub fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// Turns device and kernel that often.
    pub fn turn(&mut self, times: u64) {
        for _ in 0..times {
            self.kernel_turn();
            self.device.turn();
        }
    }
}

/// A worker that switches with everything on: MAC learning, the check of the sender's address, [`RULES`] rules, and
/// a meter on what each port sends and is sent. Each frame has a rule that counts it.
pub fn worker() -> Bed<Worker> {
    worker_by(&tables())
}

/// One without rules and meters.
pub fn learner() -> Bed<Worker> {
    worker_by(&Tables::new(Capacity::default(), 1))
}

fn worker_by(tables: &Tables) -> Bed<Worker> {
    let ports: Vec<_> = (0..2).map(|no| port(no, true)).collect();
    let (device, wires) = set_up(&umem(), view(&ports, tables), Set::default());
    Bed::new(device, wires)
}

/// A worker with a queue for each port, whose fill rings are full, and the kernel's ends.
fn set_up(umem: &Arc<Umem>, view: View, set: Set) -> (Worker, Vec<MemoryKernel>) {
    let settings = RigSettings { workers: 1, depth: DEPTH, memory: vec![SHARED], transit: 0, spin: None };
    let MemoryRig { shared, mut workers, kernels, .. } = MemoryRig::new(umem, view, &settings).expect("descriptors");
    drop(shared.components.publish(Arc::new(set)));
    let mut device = workers.remove(0);
    device.refresh_view();
    (device, kernels)
}

fn port(no: u16, bridged: bool) -> Arc<PortShared> {
    memory_rig::port(no, bridged, 1, [0])
}

/// The policy of both ports and the rules.
pub fn snapshot() -> Snapshot {
    policies().with_rules(1, tables().rules.current().clone())
}

fn policies() -> Snapshot {
    // Behind port 0 is one station, whose address is checked; behind port 1 are all others.
    let policy = |no: u16| PortPolicy {
        mac: (no == 0).then(|| station(0)),
        mac_check: no == 0,
        isolated: false,
        vlan: VlanMode::Access { vid: VID },
        mtu: 1500,
        fdb_limit: 4096,
    };
    Snapshot::build(1, &BridgePolicy::default(), (0..2).map(|no| (no, policy(no))).collect())
}

fn view(ports: &[Arc<PortShared>], tables: &Tables) -> View {
    View {
        snapshot: policies().with_rules(1, tables.rules.current().clone()),
        ports_epoch: 1,
        fdb: Arc::new(mac_table(FLOWS)),
        ports: Arc::new(ports.iter().cloned().map(Some).collect()),
        meters: Arc::new(tables.meters.by_port(ports.len())),
        metered: tables.meters.any(),
        taps: Arc::default(),
    }
}

fn tables() -> Tables {
    let mut tables = Tables::new(Capacity::default(), 1);
    let ports = |no: u16| (no < 2).then_some(1);
    for vport in 0..2 {
        for (direction, meter) in
            [(MeterDirection::From, 2 * u32::from(vport)), (MeterDirection::To, 2 * u32::from(vport) + 1)]
        {
            tables.meters.add(MeterSpec::new(meter, u32::MAX), false, 0).expect("a meter");
            tables.meters.bind(&MeterBinding { vport, direction, meter }, &ports).expect("a binding");
        }
    }
    let rules = (0..RULES).map(|n| RuleChange::Write(rule_spec(n, MASKS, RuleTarget::Normal)));
    tables.change_rules(rules.collect(), &ports).expect("rules");
    tables
}

/// A meter with a rate that is never reached.
pub fn wide_meter() -> Meter {
    Meter::new(&MeterSpec::new(1, u32::MAX), 1, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_forwarded_by_both_devices() {
        let (mut worker, mut pass_through) = (worker(), pass_through());
        worker.turn(100);
        pass_through.turn(100);
        // What the last turn forwarded is not on the wire yet.
        assert_eq!((worker.forwarded(), pass_through.forwarded()), (99 * BURST as u64, 99 * BURST as u64));
    }
}
