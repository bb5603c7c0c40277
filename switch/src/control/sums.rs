//! Sums of counters, in the terms of a port.

use crate::model::PortStats;
use crate::worker::view::PortShared;

/// Adds what was counted at a port to `stats`, its queues summed.
pub(super) fn add_port(stats: &mut PortStats, port: &PortShared) {
    port.shards.iter().for_each(|shard| shard.add_to(stats));
    for queue in &port.queues {
        stats.rx.add(queue.rx());
        stats.tx.add(queue.tx());
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
