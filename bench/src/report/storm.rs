//! What a stream loses beside broadcasts of another guest.

use super::Section;
use super::select;
use super::text::{count, or_dash, range, table};
use crate::results::{Experiment, Results, Sample};
use crate::storm::FULL_SPEED;

/// A row a device, a column for each rate of broadcasts.
pub fn section(results: &Results) -> Section {
    let points = select::points(results, Experiment::Storm);
    let mut section = Section::default();
    if points.is_empty() {
        return section;
    }
    let mut columns: Vec<f64> = points.iter().map(|point| point.x).collect();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    let heading = |x: f64| if x >= FULL_SPEED { "as fast as it can".to_owned() } else { format!("{}/s", count(x)) };
    let headings: Vec<String> =
        std::iter::once("device".to_owned()).chain(columns.iter().map(|x| heading(*x))).collect();
    let rows: Vec<Vec<String>> = select::in_order_of_appearance(points.iter().map(|point| point.device.as_str()))
        .into_iter()
        .map(|device| {
            let cell = |x: &f64| {
                let point = points.iter().find(|point| point.device == device && point.x == *x);
                or_dash(point.and_then(|point| select::over(&point.samples, Sample::loss)), |loss| range(loss, 1e2))
            };
            std::iter::once(device.to_owned()).chain(columns.iter().map(cell)).collect()
        })
        .collect();
    section.text += "## Beside a storm\n\nLost of a stream of 10,000 packets a second, %, while a third guest broadcasts at that rate. \
                     The first column is without a storm, in the same rounds.\n\n";
    section.text += &table(&headings, &rows);
    section
}
