//! Workers over rings that the test plays the kernel for.

mod components;
mod flows;
mod trace;

use std::collections::HashMap;

use arc_swap::ArcSwap;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::view::QueueShared;
use super::*;
use crate::engine::bridge::{DirectLookup, NoTrace, decide};
use crate::engine::fdb::Fdb;
use crate::engine::parse::ETHERTYPE_IPV4;
use crate::engine::parse::tests::udp_in_ipv4;
use crate::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use crate::engine::tables::Tables;
use crate::engine::vlan;
use crate::io::backend::Backend;
use crate::io::memory::{self, MemoryKernel};
use crate::io::umem::HEADROOM;
use crate::model::MacAddr;
use crate::model::*;

const FRAMES: u32 = 512;
const DEPTH: u32 = 64;

/// Workers with ports on them, all in one thread.
struct Bed {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// To each worker.
    commands: Vec<Sender<Command>>,
    kernels: Vec<MemoryKernel>,
    /// Those of components that ever ran.
    counters: Vec<Arc<component::Counters>>,
}

impl Bed {
    /// A port of the bridge for each mode, spread over the workers in turn.
    fn new(workers: usize, modes: &[VlanMode]) -> Self {
        Self::with_free(workers, modes, 0)
    }

    /// As many further ports for components.
    fn with_free(workers: usize, modes: &[VlanMode], free: usize) -> Self {
        Self::with_queues(workers, modes, free, 1)
    }

    /// With so many queues each; the kernels' ends stand port by port, queue by queue.
    fn with_queues(workers: usize, modes: &[VlanMode], free: usize, queues: usize) -> Self {
        let umem = Umem::new(FRAMES, 2048, HugePages::Off).unwrap();
        let policy = |vlan: &VlanMode| PortPolicy {
            mac: None,
            mac_check: false,
            isolated: false,
            vlan: vlan.clone(),
            mtu: 1500,
            fdb_limit: 64,
        };
        let policies = (0..).zip(modes.iter().map(policy)).collect();
        let ports: Vec<_> = (0..modes.len() + free)
            .map(|no| {
                Arc::new(PortShared {
                    no: no as PortNo,
                    generation: 1,
                    name: format!("p{no}"),
                    shards: (0..workers).map(|_| PortShard::default()).collect(),
                    bridged: no < modes.len(),
                    mtu: AtomicU32::new(1500),
                    queues: (0..queues).map(|queue| QueueShared::new((no + queue) % workers)).collect(),
                })
            })
            .collect();
        let view = View {
            snapshot: Snapshot::build(1, &BridgePolicy::default(), policies),
            ports_epoch: 1,
            fdb: Arc::new(Fdb::new(256, 300, 7)),
            ports: Arc::new(ports.iter().cloned().map(Some).collect()),
            meters: Arc::default(),
            metered: false,
            taps: Arc::default(),
        };
        let shared = Arc::new(Shared {
            umem: Arc::clone(&umem),
            view: ArcSwap::from_pointee(view),
            epoch: AtomicU64::new(1),
            components: Default::default(),
            now: AtomicU32::new(0),
            start: Instant::now(),
            workers: (0..workers).map(|_| WorkerShared::new().unwrap()).collect(),
        });
        let mut inboxes: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
        let mut outboxes: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for (from, outboxes) in outboxes.iter_mut().enumerate() {
            for (to, inboxes) in inboxes.iter_mut().enumerate() {
                outboxes.push((from != to).then(|| {
                    let (producer, consumer) = rtrb::RingBuffer::new(8);
                    inboxes.push(consumer);
                    producer
                }));
            }
        }
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| crossbeam::channel::unbounded()).unzip();
        let mut built: Vec<_> = inboxes
            .into_iter()
            .zip(outboxes)
            .zip(receivers)
            .enumerate()
            .map(|(id, ((inboxes, outboxes), commands))| {
                let shared = Arc::clone(&shared);
                let mut worker = Worker::new(Setup {
                    id,
                    shared,
                    commands,
                    inboxes,
                    outboxes,
                    spin: Some(Duration::ZERO..=Duration::ZERO),
                })
                .unwrap();
                worker.refresh_view();
                worker
            })
            .collect();
        let all = ports.iter().flat_map(|port| (0..queues as u32).map(move |queue| (Arc::clone(port), queue)));
        let kernels = all
            .map(|(port, queue)| {
                let (mut backend, kernel) = memory::queue(&umem, DEPTH, DEPTH / 2).unwrap();
                let worker = &mut built[port.queues[queue as usize].worker()];
                backend.refill(&mut worker.cache);
                worker.add(Queue::new(port, queue, Backend::Memory(backend)));
                kernel
            })
            .collect();
        Self { shared, workers: built, commands: senders, kernels, counters: Vec::new() }
    }

    /// Puts rules, meters and redirects in force.
    fn install(&mut self, tables: &Tables) {
        let old = self.shared.view.load_full();
        let epoch = old.snapshot.epoch + 1;
        let redirects = tables.redirects().map(|(spec, end)| (spec.src, end));
        let snapshot = old.snapshot.clone().with_redirects(redirects).with_rules(epoch, tables.rules().clone());
        let meters = tables.port_meters(self.kernels.len()).into();
        self.shared.publish(View { snapshot, meters, metered: true, ..View::clone(&old) });
        self.workers.iter_mut().for_each(Worker::refresh_view);
    }

    /// Turns all workers until none finds anything; returns what went out of each port.
    fn settle(&mut self) -> Vec<Vec<Vec<u8>>> {
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
    fn assert_balanced(&mut self) {
        let holdings: Vec<_> = self.workers.iter_mut().map(Worker::holdings).collect();
        let census = self.shared.umem.census();
        let (mut free, mut placed) = (self.shared.umem.pool_len(), 0);
        for worker in holdings {
            assert_eq!(worker.in_transit, 0);
            free += worker.cached;
            for queue in worker.queues {
                assert_eq!(queue.counted, (census.at(queue.owners.0), census.at(queue.owners.1)));
                placed += queue.counted.0 + queue.counted.1;
            }
        }
        assert_eq!((free, placed, 0), (census.free(), census.placed(), census.held()));
        assert_eq!(free + placed, FRAMES);
        let mut sum = PortStats::default();
        for port in self.shared.view.load().ports.iter().flatten() {
            port.shards.iter().for_each(|shard| shard.add_to(&mut sum));
            for queue in &port.queues {
                sum.rx.add(queue.counters.rx.read());
                sum.tx.add(queue.counters.tx.read());
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

/// Which port a rule of an even place is about.
fn port_of(key_index: u32) -> u32 {
    key_index / 2 % 4
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(from: u8, to: Option<u8>, mark: u8, len: usize) -> Vec<u8> {
    let mut frame = [to.map_or([0xff; 6], station), station(from)].concat();
    frame.extend([0x88, 0xb5, mark]);
    frame.resize(len.max(15), mark);
    frame
}

proptest! {
    /// The oracle: a map from station to port. A station may move; each frame is settled before the next.
    #[test]
    fn frames_go_where_a_simple_bridge_sends_them(
        workers in 1usize..4,
        packets in prop::collection::vec((0usize..4, 0u8..6, prop::option::of(0u8..6), 15usize..1500), 1..80),
    ) {
        let mut bed = Bed::new(workers, &[const { VlanMode::Access { vid: 0 } }; 4]);
        let mut known: HashMap<u8, usize> = HashMap::new();
        for (mark, (port, from, to, len)) in packets.into_iter().enumerate() {
            let data = frame(from, to, mark as u8, len);
            prop_assert!(bed.kernels[port].receive(&data));
            let sent = bed.settle();
            known.insert(from, port);
            let receivers = match to.and_then(|to| known.get(&to)) {
                Some(&there) => vec![there; usize::from(there != port)],
                None => (0..4).filter(|&other| other != port).collect(),
            };
            for (other, sent) in sent.iter().enumerate() {
                let expected = if receivers.contains(&other) { vec![data.clone()] } else { Vec::new() };
                prop_assert_eq!(sent, &expected);
            }
        }
        bed.assert_balanced();
    }

    /// Nor with any rules, mirrors, meters and redirects in force.
    #[test]
    fn the_books_balance_with_any_tables(
        workers in 1usize..3,
        rules in prop::collection::vec((0u32..8, 0u16..6, prop::option::of(0u32..3), prop::option::of(0u16..4)), 0..8),
        bindings in prop::collection::vec((0u16..4, any::<bool>(), 0u32..3), 0..4),
        redirects in prop::collection::vec((0u16..4, 0u16..4), 0..4),
        bursts in prop::collection::vec(prop::collection::vec((0usize..4, 0u8..5, prop::option::of(0u8..5), 14usize..300), 0..30), 1..8),
    ) {
        let all = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let access = VlanMode::Access { vid: 0 };
        let mut bed = Bed::new(workers, &[all.clone(), access.clone(), all, access]);
        let mut tables = Tables::new(Capacity::default(), workers);
        let ports = |no: u16| (no < 4).then_some(1);
        for (id, mode) in [(0, MeterMode::Single), (1, MeterMode::Rfc2698), (2, MeterMode::Rfc4115)] {
            let two = mode != MeterMode::Single;
            let (peak_rate, yellow_dscp) = (two.then_some(3), two.then_some(9));
            let spec = MeterSpec {
                kind: MeterType::Pps, burst: Some(5), peak_burst: two.then_some(5), mode, peak_rate, yellow_dscp,
                ..MeterSpec::new(id, 2)
            };
            tables.add_meter(spec, true, 0).unwrap();
        }
        for (vport, from, meter) in bindings {
            let direction = if from { MeterDirection::From } else { MeterDirection::To };
            tables.bind(&MeterBinding { vport, direction, meter }, &ports).unwrap();
        }
        for (key_index, target, meter, mirror) in rules {
            let target = [RuleTarget::Drop, RuleTarget::Normal].get(usize::from(target)).copied()
                .unwrap_or(RuleTarget::Port(target.saturating_sub(2)));
            let key = RuleKey { ingress_port: Some(Masked { value: port_of(key_index), mask: 3 }), ..RuleKey::default() };
            let key = if key_index % 2 == 0 { key } else { RuleKey::default() };
            let action = RuleAction { target, queue: None, meter, mirror };
            tables.change_rules(vec![RuleChange::Write(RuleSpec { key_index, key, action })], &ports).unwrap();
        }
        for (src, dest) in redirects {
            // One that would be a loop is refused.
            let _ = tables.redirect(RedirectSpec { src, dest }, &ports);
        }
        bed.install(&tables);
        for burst in bursts {
            for (mark, (port, from, to, len)) in burst.into_iter().enumerate() {
                bed.kernels[port].receive(&frame(from, to, mark as u8, len));
            }
            let sent = bed.settle();
            prop_assert!(sent.iter().flatten().all(|frame| frame.len() >= 14));
        }
        bed.assert_balanced();
    }

    /// Bursts of packets of many flows, most of them remembered: the oracle decides on each alone, by tables of its own. Every port
    /// gets the same frames in the same order, and every rule counts the same.
    #[test]
    fn a_burst_goes_where_each_of_its_frames_would_alone(
        rules in prop::collection::vec((0u32..6, 0u8..6, 0u16..7, prop::option::of(0u16..4), any::<bool>()), 1..6),
        bursts in prop::collection::vec((0usize..4, prop::collection::vec((0u8..4, 0u8..6, 0u8..3, 60usize..200), 1..24)), 1..10),
    ) {
        let all = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let access = |vid| VlanMode::Access { vid };
        let mut bed = Bed::new(1, &[access(0), all.clone(), access(0), all]);
        let mut tables = Tables::new(Capacity::default(), 1);
        let ports = |no: u16| (no < 4).then_some(1);
        tables.add_meter(MeterSpec::new(0, u32::MAX), true, 0).unwrap();
        for (key_index, to, target, mirror, metered) in rules {
            let dmac = Some(MaskedMac { value: MacAddr::new(station(to)), mask: MaskedMac::FULL });
            let target = [RuleTarget::Drop, RuleTarget::Normal, RuleTarget::Normal].get(usize::from(target)).copied()
                .unwrap_or(RuleTarget::Port(target.saturating_sub(3)));
            // Of every other rule there is nothing to do but to count it.
            let (mirror, meter) = if key_index % 2 == 0 { (None, None) } else { (mirror, metered.then_some(0)) };
            let action = RuleAction { target, queue: None, meter, mirror };
            let key = RuleKey { dmac, ..RuleKey::default() };
            tables.change_rules(vec![RuleChange::Write(RuleSpec { key_index, key, action })], &ports).unwrap();
        }
        bed.install(&tables);
        let oracle = View::clone(&bed.shared.view.load());
        let (snap, fdb) = (&oracle.snapshot, Fdb::new(256, 300, 9));
        let mut counted: HashMap<u32, Count> = HashMap::new();
        for (at, (port, burst)) in bursts.into_iter().enumerate() {
            let mut expected = vec![Vec::new(); 4];
            for (n, (from, to, source, len)) in burst.into_iter().enumerate() {
                let mut data = [station(to), station(from)].concat();
                data.extend(ETHERTYPE_IPV4.to_be_bytes());
                data.extend(udp_in_ipv4(len - 42));
                data[29] = source;
                let last = data.len() - 2;
                data[last..].copy_from_slice(&[at as u8, n as u8]);
                prop_assert!(bed.kernels[port].receive(&data));
                let ingress = port as PortNo;
                let context = BurstContext { snap, fdb: &fdb, now: 0, ingress, worker: 0 };
                let decision = decide(&context, &data, &mut DirectLookup, &mut NoTrace);
                let mut send = |port: PortNo, edit| {
                    let mut buf = [&[0; 4][..], &data].concat();
                    let (start, len) = vlan::apply(edit, &mut buf, 4, data.len());
                    expected[usize::from(port)].push(buf[start..start + len].to_vec());
                };
                if let Some(rule) = decision.rule {
                    counted.entry(rule.index).or_default().add(Count { packets: 1, bytes: data.len() as u64 });
                    if let Some(mirror) = rule.action.mirror && mirror_check(snap, ingress, mirror, &data).is_ok() {
                        send(mirror, TagEdit::None);
                    }
                }
                match decision.verdict {
                    Verdict::Drop(_) => {}
                    Verdict::Unicast { port, edit, .. } => send(port, edit),
                    Verdict::Flood { vid, tag } => {
                        for &port in snap.flood_ports(vid) {
                            if let FloodVerdict::Send { port, edit } = flood_verdict(snap, ingress, port, vid, tag, data.len()) {
                                send(port, edit);
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(bed.settle(), expected);
        }
        bed.assert_balanced();
        for rule in snap.rules.iter_from(0) {
            let expected = counted.get(&rule.index).copied().unwrap_or_default();
            // The oracle does not count at the rule itself.
            prop_assert_eq!(rule.matched(), expected);
        }
    }

    /// Whatever comes in, in bursts and with any bytes, nothing is lost from the books.
    #[test]
    fn the_books_balance_after_any_traffic(
        workers in 1usize..3,
        bursts in prop::collection::vec(prop::collection::vec((0usize..3, prop::collection::vec(any::<u8>(), 0..80)), 0..40), 1..12),
    ) {
        let all = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let mut bed = Bed::new(workers, &[all.clone(), VlanMode::Access { vid: 0 }, all]);
        for burst in bursts {
            for (port, data) in burst {
                bed.kernels[port].receive(&data);
            }
            bed.settle();
        }
        bed.assert_balanced();
    }
}

#[test]
fn a_burst_between_two_workers_stays_in_order_and_the_rest_is_dropped_with_a_reason() {
    let mut bed = Bed::new(2, &[const { VlanMode::Access { vid: 0 } }; 2]);
    // More than the ring between the workers holds, in one turn of the first.
    for mark in 0..20 {
        assert!(bed.kernels[0].receive(&frame(1, None, mark, 60)));
    }
    assert!(bed.workers[0].turn());
    let sent = bed.settle();
    let expected: Vec<_> = (0..8).map(|mark| frame(1, None, mark, 60)).collect();
    assert_eq!(sent[1], expected);
    let mut stats = PortStats::default();
    let view = bed.shared.view.load();
    view.ports[1].as_ref().unwrap().shards.iter().for_each(|shard| shard.add_to(&mut stats));
    assert_eq!(stats.drops["worker_ring_full"].packets, 12);
    drop(view);
    bed.assert_balanced();
}

#[test]
fn a_queue_that_ran_dry_is_filled_again_once_frames_are_free() {
    let mut bed = Bed::new(1, &[const { VlanMode::Access { vid: 0 } }; 2]);
    let worker = &mut bed.workers[0];
    let hoard: Vec<_> = std::iter::from_fn(|| worker.cache.take()).collect();
    // What comes in goes out to a port that sends nothing, until there is no frame left to receive with.
    while bed.kernels[0].receive(&frame(1, None, 0, 60)) {
        bed.workers[0].turn();
    }
    bed.workers[0].turn();
    assert!(!bed.kernels[0].receive(&frame(1, None, 0, 60)), "frames are still free");
    hoard.into_iter().for_each(|frame| bed.workers[0].cache.put(frame));
    bed.workers[0].turn();
    assert!(bed.kernels[0].receive(&frame(1, None, 0, 60)), "it stays dry");
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn a_receiver_that_takes_nothing_fills_its_ring_and_no_other() {
    let mut bed = Bed::new(1, &[const { VlanMode::Access { vid: 0 } }; 3]);
    let turns = 4 * DEPTH;
    for n in 0..turns {
        assert!(bed.kernels[0].receive(&frame(1, None, n as u8, 60)));
        bed.workers[0].turn();
        bed.kernels[1].transmit();
    }
    let mut stats = PortStats::default();
    let view = bed.shared.view.load();
    view.ports[2].as_ref().unwrap().shards.iter().for_each(|shard| shard.add_to(&mut stats));
    assert_eq!(stats.drops["tx_ring_full"].packets, u64::from(turns - DEPTH));
    drop(view);
    assert_eq!(bed.kernels[2].transmit().len(), DEPTH as usize);
    bed.settle();
    bed.assert_balanced();
}

#[test]
fn a_worker_that_sleeps_is_woken_by_a_frame() {
    let mut bed = Bed::new(1, &[const { VlanMode::Access { vid: 0 } }; 2]);
    let worker = bed.workers.remove(0);
    let thread = std::thread::spawn(|| worker.run());
    let (me, start) = (&bed.shared.workers[0], Instant::now());
    let (sleeps, mut seen) = (|| me.counters.sleeps(), 0);
    for mark in 0..3 {
        while sleeps() == seen {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not sleep");
            std::thread::yield_now();
        }
        seen = sleeps();
        let data = frame(1, None, mark, 60);
        assert!(bed.kernels[0].receive(&data));
        loop {
            match &bed.kernels[1].transmit()[..] {
                [] => assert!(start.elapsed() < Duration::from_secs(20), "it does not wake up"),
                sent => break assert_eq!(sent, [data]),
            }
            std::thread::yield_now();
        }
    }
    let (reply, stopped) = crossbeam::channel::bounded(1);
    bed.commands[0].send(Command::Stop(reply)).unwrap();
    me.attention.store(true, Ordering::Release);
    me.wake();
    assert_eq!(stopped.recv().unwrap().len(), 2);
    thread.join().unwrap();
}
