//! Start-up, memory and idle CPU of devices.

use super::Section;
use super::select;
use super::text::{count, number, table};
use crate::results::{Footprint, Results};

/// A table of start-up, memory and idle CPU.
pub fn section(results: &Results) -> Section {
    let mut section = Section::default();
    if results.footprints.is_empty() {
        return section;
    }
    let devices = select::in_order_of_appearance(results.footprints.iter().map(|footprint| footprint.device.as_str()));
    let mut footprints: Vec<&Footprint> = results.footprints.iter().collect();
    footprints.sort_by_key(|footprint| (select::rank(&footprint.device, &devices), footprint.ports, footprint.rules));
    let rows: Vec<Vec<String>> = footprints
        .iter()
        .map(|footprint| {
            vec![
                footprint.device.clone(),
                count(f64::from(footprint.ports)),
                count(f64::from(footprint.rules)),
                number(footprint.start_seconds),
                number(footprint.resident as f64 / f64::from(1 << 20)),
                number(footprint.idle_cpu * 1e2),
            ]
        })
        .collect();
    let headings = ["device", "ports", "rules", "start-up, s", "resident, MiB", "idle, % of a core"];
    section.text += "## Footprint\n\nStart-up is from the start of the process until all ports and rules are in place; resident memory \
                     includes packet memory; idle means that nothing is sent.\n\n";
    section.text += &table(&headings, &rows);
    section
}
