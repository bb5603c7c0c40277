//! Counters of all ports, components and workers.

use crate::control::ports::LivePort;
use crate::control::state::Control;
use crate::control::sums::add_port;
use crate::model::*;
use crate::worker::shared::WorkerShared;
use crate::worker::view::QueueShared;

/// All counters.
pub(in crate::control) fn stats(control: &Control) -> StatsReport {
    control.core.settle_flows();
    let mut report = StatsReport { retired: control.retired.clone(), ..StatsReport::default() };
    control.core.shared.workers.iter().for_each(|worker| worker.orphans.add_to(&mut report.retired));
    report.ports = control.ports.iter().map(port_stats).collect();
    report.components = control.components.sum();
    report.running = control.components.infos();
    report.ends = control.components.ends();
    report.flow_rules = control.components.flow_counts(|port| control.ports.name_of(port));
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

fn port_stats(port: &LivePort) -> PortStats {
    let mut stats = PortStats {
        vport: port.shared.no,
        name: port.spec.name.clone(),
        queues: queue_stats(port),
        ..PortStats::default()
    };
    add_port(&mut stats, &port.shared);
    stats.nic = stats.nic();
    stats
}

/// Counters of a port's queues: in the switch, in the XDP program, and of the kernel's sockets.
fn queue_stats(port: &LivePort) -> Vec<QueueStats> {
    let outside = port.attachment.counters();
    let named = |(label, value): (&str, u64)| (label.to_owned(), value);
    let queue = |((number, at), queue): ((u32, usize), &QueueShared)| QueueStats {
        queue: number,
        rx: queue.rx(),
        tx: queue.tx(),
        xdp: outside.program.get(at).map(|counters| counters.iter().map(named).collect()).unwrap_or_default(),
        xsk: outside.sockets.get(at).map(|counters| counters.0.into_iter().map(named).collect()).unwrap_or_default(),
    };
    let open = port.attachment.queue_numbers();
    let is_open = |number: u32| open.as_ref().is_none_or(|open| open.contains(&number));
    let queues = (0..).zip(0..).zip(port.shared.queues.iter());
    queues.filter(|((number, _), _)| is_open(*number)).map(queue).collect()
}

/// The workers.
pub(in crate::control) fn workers(control: &Control) -> Vec<WorkerInfo> {
    let info = |(worker, shared): (usize, &WorkerShared)| {
        let queues = control.ports.iter().flat_map(|port| &port.shared.queues);
        WorkerInfo {
            worker,
            cpu: control.core.settings.cpus.get(worker).copied(),
            queues: queues.filter(|queue| queue.worker() == worker).count(),
            bursts: shared.counters.bursts(),
            packets: shared.counters.frames(),
            idle_polls: shared.counters.idle_polls(),
            sleeps: shared.counters.sleeps(),
            lookups: shared.counters.lookups(),
        }
    };
    control.core.shared.workers.iter().enumerate().map(info).collect()
}
