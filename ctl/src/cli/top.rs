//! Rates between two samples of the counters.

use serde::{Deserialize, Serialize};
use switch::model::{Count, PortStats, StatsReport};

use super::table::{Table, scaled};

/// What a port did per second between two samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortRates {
    /// Port name.
    pub port: String,
    /// Frames in per second.
    pub rx_packets: f64,
    /// Bits in per second, on the Ethernet frame without FCS.
    pub rx_bits: f64,
    /// Frames out per second.
    pub tx_packets: f64,
    /// Bits out per second.
    pub tx_bits: f64,
    /// Frames dropped per second.
    pub drops: f64,
    /// Frames that were for the port and went elsewhere by a redirect, per second.
    pub redirected: f64,
}

fn dropped(port: &PortStats) -> u64 {
    port.drops.values().map(|count| count.packets).sum()
}

/// Rates of the ports that are in both samples, which are `seconds` apart. A counter that went back was started anew.
pub fn rates(before: &StatsReport, after: &StatsReport, seconds: f64) -> Vec<PortRates> {
    let per_second = |before: u64, after: u64| {
        let difference = if after >= before { after - before } else { after };
        difference as f64 / seconds
    };
    let count = |before: Count, after: Count| {
        (per_second(before.packets, after.packets), 8.0 * per_second(before.bytes, after.bytes))
    };
    let ports = after.ports.iter().filter_map(|after| {
        let before = before.ports.iter().find(|before| before.name == after.name)?;
        let ((rx_packets, rx_bits), (tx_packets, tx_bits)) = (count(before.rx, after.rx), count(before.tx, after.tx));
        let drops = per_second(dropped(before), dropped(after));
        let redirected = per_second(before.redirected.packets, after.redirected.packets);
        Some(PortRates { port: after.name.clone(), rx_packets, rx_bits, tx_packets, tx_bits, drops, redirected })
    });
    ports.collect()
}

/// The rates as a table.
pub fn render(rates: &[PortRates]) -> String {
    let mut table = Table::new(&["PORT", "RX PKT/S", "RX BIT/S", "TX PKT/S", "TX BIT/S", "DROP/S", "REDIRECTED/S"]);
    for port in rates {
        table.row([
            port.port.clone(),
            scaled(port.rx_packets),
            scaled(port.rx_bits),
            scaled(port.tx_packets),
            scaled(port.tx_bits),
            scaled(port.drops),
            scaled(port.redirected),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, packets: u64) -> StatsReport {
        let rx = Count { packets, bytes: packets * 100 };
        StatsReport {
            ports: vec![PortStats { name: name.to_owned(), rx, ..PortStats::default() }],
            ..StatsReport::default()
        }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let rates = rates(&sample("vm1", 100), &sample("vm1", 300), 2.0);
        assert_eq!((rates[0].rx_packets, rates[0].rx_bits, rates[0].tx_packets), (100.0, 80_000.0, 0.0));
    }

    #[test]
    fn a_port_that_was_added_anew_counts_from_nothing() {
        assert_eq!(rates(&sample("vm1", 300), &sample("vm1", 50), 1.0)[0].rx_packets, 50.0);
        assert_eq!(rates(&sample("vm2", 300), &sample("vm1", 50), 1.0), []);
    }
}
