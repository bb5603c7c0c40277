//! Clearing the counters of the primary's status. A clear notes the counters, and the status shows what came since.
//! The data plane's own counters go on, because those of a scrape must not go back.
//!
//! A port or ring that was removed and added again counts from zero. Rings are forgotten when they are removed. A
//! port that has counted less than at the clear must be a new one.

use std::collections::BTreeMap;

use ctl_spp_types::PortId;
use switch::model::{Count, EndInfo, EndPort};

use super::PortCounters;

/// Counters at the last clear.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    ports: BTreeMap<PortId, PortCounters>,
    rings: BTreeMap<EndPort, EndInfo>,
}

impl Cleared {
    /// A clear at this moment, with these counters.
    pub fn now(ports: Vec<PortCounters>, rings: Vec<EndInfo>) -> Self {
        Self {
            ports: ports.into_iter().map(|counters| (counters.port, counters)).collect(),
            rings: rings.into_iter().map(|ring| (ring.end.clone(), ring)).collect(),
        }
    }

    /// Notes that a ring was removed.
    pub fn forget_ring(&mut self, no: u32) {
        self.rings.remove(&EndPort::Ring(no));
    }

    /// What was counted since the clear.
    pub fn port(&self, mut now: PortCounters) -> PortCounters {
        if let Some(then) = self.ports.get(&now.port)
            && let (Some(rx), Some(tx), Some(tx_dropped)) =
                (now.rx.checked_sub(then.rx), now.tx.checked_sub(then.tx), now.tx_dropped.checked_sub(then.tx_dropped))
        {
            (now.rx, now.tx, now.tx_dropped) = (rx, tx, tx_dropped);
        }
        now
    }

    /// What was counted since the clear.
    pub fn ring(&self, mut now: EndInfo) -> EndInfo {
        if let Some(then) = self.rings.get(&now.end) {
            now.rx = since(now.rx, then.rx);
            now.tx = since(now.tx, then.tx);
            now.tx_dropped = since(now.tx_dropped, then.tx_dropped);
            now.rx_dropped = since(now.rx_dropped, then.rx_dropped);
        }
        now
    }
}

fn since(now: Count, then: Count) -> Count {
    Count { packets: now.packets.saturating_sub(then.packets), bytes: now.bytes.saturating_sub(then.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(rx: u64, tx: u64) -> PortCounters {
        let port = "phy:0".parse().unwrap();
        PortCounters { port, mac: None, rx, tx, tx_dropped: 0, queues: 1 }
    }

    fn ring(packets: u64) -> EndInfo {
        let count = Count { packets, bytes: 64 * packets };
        let none = Count::default();
        EndInfo { end: EndPort::Ring(3), rx: count, tx: count, tx_dropped: none, rx_dropped: none, queued: 0 }
    }

    #[test]
    fn counters_are_those_since_the_clear() {
        let cleared = Cleared::now(vec![port(5, 7)], vec![ring(9)]);
        assert_eq!(cleared.port(port(15, 7)), port(10, 0));
        assert_eq!(cleared.ring(ring(10)), ring(1));
    }

    #[test]
    fn what_came_again_since_the_clear_is_counted_from_its_beginning() {
        let mut cleared = Cleared::now(vec![port(5, 7)], vec![ring(9)]);
        assert_eq!(cleared.port(port(6, 1)), port(6, 1));
        cleared.forget_ring(3);
        assert_eq!(cleared.ring(ring(2)), ring(2));
    }
}
