//! Round trips: percentiles by device and load.

use super::Section;
use super::select;
use super::text::{count, number, or_dash, range, table};
use crate::names;
use crate::results::{Latency, Percentiles, Results, spread};

/// A table for each load.
pub fn section(results: &Results) -> Section {
    let mut section = Section::default();
    if results.latencies.is_empty() {
        return section;
    }
    section.text += "## Round trips\n\nThere and back through the device, 64-byte frames; half load is half of what that device forwards \
                     under overload, so another rate for each. A round is a second at 1 kpps, whose \
                     packets a thread sends that sleeps in between.\n\n";
    let devices = select::in_order_of_appearance(results.latencies.iter().map(|latency| latency.device.as_str()));
    for load in select::in_order_of_appearance(results.latencies.iter().map(|latency| latency.load.as_str())) {
        let mut latencies: Vec<&Latency> = results.latencies.iter().filter(|latency| latency.load == load).collect();
        latencies.sort_by_key(|latency| select::rank(&latency.device, &devices));
        section.text += &format!("### {load}\n\n{}", under_load(&latencies));
    }
    section
}

fn under_load(latencies: &[&Latency]) -> String {
    let peer = latencies.iter().find(|latency| latency.device == names::OVS).map(|latency| p99(latency));
    let rows: Vec<Vec<String>> = latencies
        .iter()
        .map(|latency| {
            let micros = |of: fn(&Percentiles) -> f64| {
                or_dash(spread(latency.rounds.iter().map(of)), |spread| range(spread, 1e-3))
            };
            let to_peer = peer.as_ref().and_then(|peer| select::ratio(&p99(latency), peer));
            vec![
                latency.device.clone(),
                number(latency.pps / 1e3),
                micros(|round| round.p50),
                micros(|round| round.p99),
                micros(|round| round.p999),
                or_dash(to_peer, |spread| range(spread, 1.0)),
                count(latency.rounds.iter().map(|round| round.packets as f64).sum()),
            ]
        })
        .collect();
    let headings =
        ["device", "sent, kpps", "p50, µs", "p99, µs", "p99.9, µs", "p99 to Open vSwitch afxdp, ×", "packets"];
    table(&headings, &rows)
}

/// p99 of each round.
fn p99(latency: &Latency) -> Vec<f64> {
    latency.rounds.iter().map(|round| round.p99).collect()
}
