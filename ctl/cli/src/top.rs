//! `top`: packet and bit rates between two samples of the counters.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use ctl_client::Client;
use ctl_types::table::{Table, scaled};
use model::{ComponentInfo, Count, StatsReport};
use serde::{Deserialize, Serialize};

use crate::print::{Printer, print};

/// Rates of a port or component between two samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortRates {
    /// Name of the port, or of the component, such as `vf 1/fwd1`.
    pub port: String,
    /// Received frames per second.
    pub rx_packets: f64,
    /// Received bits per second, counting Ethernet frames without FCS.
    pub rx_bits: f64,
    /// Sent frames per second.
    pub tx_packets: f64,
    /// Sent bits per second, counted the same way.
    pub tx_bits: f64,
    /// Dropped frames per second.
    pub drops: f64,
    /// Frames for the port that a redirect sent elsewhere, per second.
    pub redirected: f64,
}

/// The counters of a port or component that are compared.
#[derive(Clone, Copy)]
struct Sample {
    rx: Count,
    tx: Count,
    dropped: u64,
    redirected: u64,
}

/// Ports, then components, with their names.
fn samples(report: &StatsReport) -> impl Iterator<Item = (&str, Sample)> {
    let ports = report.ports.iter().map(|port| {
        let dropped = port.drops.values().map(|count| count.packets).sum();
        (port.name.as_str(), Sample { rx: port.rx, tx: port.tx, dropped, redirected: port.redirected.packets })
    });
    let components = report.running.iter().map(|component| {
        let ComponentInfo { name, rx, tx, dropped, .. } = component;
        (name.as_str(), Sample { rx: *rx, tx: *tx, dropped: dropped.packets, redirected: 0 })
    });
    ports.chain(components)
}

/// Rates of the ports and components in both samples, taken `seconds` apart. A counter that went back is taken to have
/// started from 0.
pub fn rates(before: &StatsReport, after: &StatsReport, seconds: f64) -> Vec<PortRates> {
    let per_second = |before: u64, after: u64| {
        let difference = if after >= before { after - before } else { after };
        difference as f64 / seconds
    };
    let count = |before: Count, after: Count| {
        (per_second(before.packets, after.packets), 8.0 * per_second(before.bytes, after.bytes))
    };
    let before: HashMap<_, _> = samples(before).collect();
    let rates = samples(after).filter_map(|(name, after)| {
        let before = before.get(name)?;
        let ((rx_packets, rx_bits), (tx_packets, tx_bits)) = (count(before.rx, after.rx), count(before.tx, after.tx));
        let drops = per_second(before.dropped, after.dropped);
        let redirected = per_second(before.redirected, after.redirected);
        Some(PortRates { port: name.to_owned(), rx_packets, rx_bits, tx_packets, tx_bits, drops, redirected })
    });
    rates.collect()
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

/// Clears a terminal and moves to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(crate) async fn run(client: &Client, printer: &Printer, interval: f64, count: Option<u64>) -> anyhow::Result<()> {
    let sample = async || -> anyhow::Result<(Instant, StatsReport)> {
        let answer = client.get("stats").await?;
        Ok((Instant::now(), serde_json::from_value(answer)?))
    };
    let mut before = sample().await?;
    let mut left = count;
    while left != Some(0) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(interval)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        let after = sample().await?;
        let rates = rates(&before.1, &after.1, (after.0 - before.0).as_secs_f64());
        if printer.json {
            print(&format!("{}\n", serde_json::to_string(&rates)?))?;
        } else {
            let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
            print(&format!("{clear}{}\n", render(&rates)))?;
        }
        before = after;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{ComponentKind, PortStats};

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
    fn components_are_behind_the_ports() {
        let with = |packets| {
            let count = Count { packets, bytes: packets * 100 };
            let component = ComponentInfo {
                name: "vf 1/f".to_owned(),
                worker: 0,
                kind: ComponentKind::Forward,
                ready: true,
                from: Vec::new(),
                to: Vec::new(),
                rx: count,
                tx: count,
                dropped: count,
                drops: [("ring_full".to_owned(), count)].into(),
            };
            StatsReport { running: vec![component], ..sample("vm1", packets) }
        };
        let rates = rates(&with(100), &with(300), 2.0);
        let names: Vec<_> = rates.iter().map(|rates| rates.port.as_str()).collect();
        assert_eq!((names, rates[1].tx_bits, rates[1].drops), (vec!["vm1", "vf 1/f"], 80_000.0, 100.0));
    }

    #[test]
    fn a_port_that_was_added_anew_counts_from_nothing() {
        assert_eq!(rates(&sample("vm1", 300), &sample("vm1", 50), 1.0)[0].rx_packets, 50.0);
        assert_eq!(rates(&sample("vm2", 300), &sample("vm1", 50), 1.0), []);
    }
}
