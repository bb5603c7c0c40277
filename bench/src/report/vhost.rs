//! Packets between two guests at vhost-user ports.

use super::Section;
use super::select;
use super::text::{count, number, or_dash, range, table};
use crate::results::{Experiment, Results};

/// A table for each kind of ring.
pub fn section(results: &Results) -> Section {
    let mut section = Section::default();
    for (experiment, rings) in [(Experiment::VhostSplit, "Split"), (Experiment::VhostPacked, "Packed")] {
        let points = select::points(results, experiment);
        if points.is_empty() {
            continue;
        }
        if section.text.is_empty() {
            section.text += "## Between guests at vhost-user ports\n\nBoth send to the other as fast as they can. The switch has one CPU, both guests the other one. They are \
                             no virtual machines: they offer the same buffers again and again.\n\n";
        }
        let rows: Vec<Vec<String>> = points
            .iter()
            .map(|point| {
                let megapackets = select::over(&point.samples, |sample| sample.forwarded / 1e6);
                let gigabits =
                    select::median(&point.samples, |sample| sample.forwarded) * f64::from(point.frame) * 8e-9;
                vec![
                    point.device.clone(),
                    count(f64::from(point.frame)),
                    or_dash(megapackets, |spread| range(spread, 1.0)),
                    number(gigabits),
                    number(select::median(&point.samples, |sample| sample.loss()) * 1e2),
                ]
            })
            .collect();
        let headings = ["device", "frame, B", "both ways, Mpps", "both ways, Gbit/s", "loss, %"];
        section.text += &format!("### {rings} rings\n\n{}", table(&headings, &rows));
    }
    let points = select::points(results, Experiment::VhostVeth);
    if !points.is_empty() {
        let rows: Vec<Vec<String>> = points
            .iter()
            .map(|point| {
                let megapackets = select::over(&point.samples, |sample| sample.forwarded / 1e6);
                vec![
                    point.device.clone(),
                    count(f64::from(point.frame)),
                    or_dash(megapackets, |spread| range(spread, 1.0)),
                ]
            })
            .collect();
        section.text += &format!(
            "## Between a guest and a veth\n\nThe guest's packets leave by AF_XDP. The other end of the veth sends them back. \
             Packets both ways are counted. The forwarder receives and sends by AF_XDP, from one veth to another.\n\n{}",
            table(&["device", "frame, B", "Mpps"], &rows)
        );
    }
    section
}
