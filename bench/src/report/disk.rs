//! Disks beside QEMU's storage daemon.

use super::Section;
use super::select;
use super::text::{count, number, or_dash, range, table};
use crate::names;
use crate::results::{DiskSample, Results, Spread, spread};

/// A figure of a sample, its heading, and which ratio to the storage daemon is enough.
struct Figure {
    heading: &'static str,
    of: fn(&DiskSample) -> f64,
    goal: Goal,
}

enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

const FIGURES: [Figure; 3] = [
    Figure { heading: "requests a second", of: |sample| sample.per_second, goal: Goal::AtLeast(1.1) },
    Figure { heading: "CPU of a request, µs", of: |sample| sample.cpu, goal: Goal::AtMost(0.9) },
    Figure { heading: "p99, µs", of: |sample| sample.p99, goal: Goal::AtMost(1.0) },
];

impl Goal {
    fn is_met(&self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(limit) => ratio >= *limit,
            Self::AtMost(limit) => ratio <= *limit,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::AtLeast(limit) => format!("≥ {limit}"),
            Self::AtMost(limit) => format!("≤ {limit}"),
        }
    }
}

/// A row a case. Each figure has its ratio to the storage daemon's.
pub fn section(results: &Results) -> Section {
    let mut section = Section::default();
    let cases = select::in_order_of_appearance(results.disks.iter().map(|point| point.case.as_str()));
    if cases.is_empty() {
        return section;
    }
    let mut headings = vec!["case".to_owned()];
    for figure in &FIGURES {
        headings.push(figure.heading.to_owned());
        headings.push(format!("ratio, {}", figure.goal.text()));
    }
    let rows: Vec<Vec<String>> = cases.iter().map(|case| row(results, case)).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    section.text += "## Disks\n\nxswitch's disks and qemu-storage-daemon's export: the same client, the same image, O_DIRECT. Ratios are \
                     xswitch's to the other's. Those that miss the goal are bold.\n\n";
    section.text += &table(&headings, &rows);
    section
}

fn row(results: &Results, case: &str) -> Vec<String> {
    let values = |device: &str, of: fn(&DiskSample) -> f64| -> Vec<f64> {
        let point = results.disks.iter().find(|point| point.case == case && point.device == device);
        point.map(|point| point.samples.iter().map(of).collect()).unwrap_or_default()
    };
    let mut row = vec![case.to_owned()];
    for Figure { of, goal, .. } in &FIGURES {
        let ours = values(names::XSWITCH, *of);
        let ratio = select::ratio(&ours, &values(names::STORAGE_DAEMON, *of));
        row.push(or_dash(
            spread(ours),
            |(median, ..): Spread| if median < 1e3 { number(median) } else { count(median) },
        ));
        row.push(or_dash(ratio, |ratio| match goal.is_met(ratio.0) {
            true => range(ratio, 1.0),
            false => format!("**{}**", range(ratio, 1.0)),
        }));
    }
    row
}
