//! Sums: counters of all ports, and the whereabouts of all frames.

use super::start::Threads;
use super::{Control, State};
use crate::io::umem::Whereabouts;
use crate::model::*;
use crate::worker::QueueHoldings;
use crate::worker::view::PortShared;

/// Adds what was counted at a port to `stats`, its queues summed.
pub(super) fn add_port(stats: &mut PortStats, port: &PortShared) {
    port.shards.iter().for_each(|shard| shard.add_to(stats));
    for queue in &port.queues {
        stats.rx.add(queue.counters.rx.read());
        stats.tx.add(queue.counters.tx.read());
    }
}

/// Adds the counters of a port that is gone to those of all that are.
pub(super) fn retire(retired: &mut PortStats, port: PortStats) {
    retired.rx.add(port.rx);
    retired.tx.add(port.tx);
    retired.flood_copies.add(port.flood_copies);
    retired.mirror_copies.add(port.mirror_copies);
    retired.redirected.add(port.redirected);
    retired.vlan_pushes += port.vlan_pushes;
    retired.vlan_pops += port.vlan_pops;
    for (reason, count) in port.drops {
        retired.drops.entry(reason).or_default().add(count);
    }
}

/// All counters.
pub(super) fn stats(state: &State, control: &Control) -> StatsReport {
    let mut report = StatsReport { retired: control.retired.clone(), ..StatsReport::default() };
    state.shared.workers.iter().for_each(|worker| worker.orphans.add_to(&mut report.retired));
    report.ports = control
        .ports
        .values()
        .map(|port| {
            let mut stats = PortStats {
                vport: port.shared.no,
                name: port.spec.name.clone(),
                queues: port.queue_stats(),
                ..PortStats::default()
            };
            add_port(&mut stats, &port.shared);
            stats.nic = stats.nic();
            stats
        })
        .collect();
    report.components = control.components.sum();
    report.running = control.components.infos();
    report.ends = control.components.ends();
    report.flow_rules = control.components.flow_counts(|port| control.name_of(port));
    let queued = control.components.queued();
    report.unaccounted_packets -= queued.packets.cast_signed();
    report.unaccounted_bytes -= queued.bytes.cast_signed();
    for port in report.ports.iter().chain([&report.retired, &report.components]) {
        let dropped = port.drops.values().fold(Count::default(), |mut sum, count| {
            sum.add(*count);
            sum
        });
        let signed = |number: u64| number.cast_signed();
        report.unaccounted_packets +=
            signed(port.rx.packets) + signed(port.flood_copies.packets) + signed(port.mirror_copies.packets)
                - signed(port.tx.packets)
                - signed(dropped.packets);
        report.unaccounted_bytes += signed(port.rx.bytes)
            + signed(port.flood_copies.bytes)
            + signed(port.mirror_copies.bytes)
            + 4 * (signed(port.vlan_pushes) - signed(port.vlan_pops))
            - signed(port.tx.bytes)
            - signed(dropped.bytes);
    }
    report
}

/// The workers.
pub(super) fn workers(state: &State, control: &Control) -> Vec<WorkerInfo> {
    let info = |(worker, shared): (usize, &crate::worker::shared::WorkerShared)| {
        let queues = control.ports.values().flat_map(|port| &port.shared.queues);
        WorkerInfo {
            worker,
            cpu: state.settings.cpus.get(worker).copied(),
            queues: queues.filter(|queue| queue.worker() == worker).count(),
            bursts: shared.counters.bursts(),
            packets: shared.counters.frames(),
            idle_polls: shared.counters.idle_polls(),
            sleeps: shared.counters.sleeps(),
            lookups: shared.counters.lookups(),
        }
    };
    state.shared.workers.iter().enumerate().map(info).collect()
}

/// Where all frames are, as they are counted without stopping anybody.
pub(super) fn frames(state: &State) -> FramePlaces {
    let Whereabouts { free, held, rx, tx } = state.shared.umem.whereabouts();
    FramePlaces { free, rx, tx, in_transit: held }
}

/// Where all frames are, and whether everybody agrees on it.
pub(super) fn audit(state: &State, threads: &Threads, control: &Control) -> FrameAudit {
    let umem = &state.shared.umem;
    // The taps' threads stand still while their gate is closed; the workers while they are paused, which is to be short.
    let taps = state.gate.pass();
    let in_rings = || control.components.all_rings().map(|ring| ring.queued().packets as u32).sum::<u32>();
    let (holdings, census, pooled, in_rings) =
        threads.pause(&state.shared, |holdings| (holdings, umem.census(), umem.pool_len(), in_rings()));
    let mut audit = FrameAudit { frames: umem.frames(), huge_pages: umem.is_huge(), ..FrameAudit::default() };
    audit.free = pooled + taps.len() as u32;
    audit.in_transit = in_rings;
    drop(taps);
    for worker in holdings {
        audit.free += worker.cached;
        audit.in_transit += worker.in_transit;
        for QueueHoldings { port, queue, counted: (rx, tx), owners } in worker.queues {
            let ledger = (census.at(owners.0), census.at(owners.1));
            audit.rx += rx;
            audit.tx += tx;
            if (rx, tx) != ledger {
                audit.problems.push(format!(
                    "queue {queue} of {} counts {rx} frames to be filled and {tx} to be sent, the ledger {} and {}",
                    port.name, ledger.0, ledger.1
                ));
            }
        }
    }
    let mut compare = |what: &str, counted: u32, ledger: u32| {
        if counted != ledger {
            audit.problems.push(format!("{counted} frames are counted {what}, the ledger says {ledger}"));
        }
    };
    compare("free", audit.free, census.free());
    compare("with the kernel", audit.rx + audit.tx, census.placed());
    compare("on their way", audit.in_transit, census.held());
    let sum = audit.free + audit.rx + audit.tx + audit.in_transit;
    if sum != audit.frames {
        audit.problems.push(format!("{sum} frames are somewhere, there are {}", audit.frames));
    }
    audit.consistent = audit.problems.is_empty();
    audit
}
