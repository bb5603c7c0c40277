//! Cost curves: packets a second under overload over the number of something.

use super::Section;
use super::rates::{plot_series, series_name};
use super::select;
use super::text::{count, number, range, table};
use crate::plot::{self, Lines};
use crate::results::{Experiment, Point, Results, spread};

/// A curve: what varies, the heading, and the name of the plot's file.
const CURVES: [(Experiment, &str, &str, &str); 6] = [
    (Experiment::Rules, "rules", "Rules, 64 flows", "rules"),
    (
        Experiment::RulesNewFlows,
        "rules under 8 masks",
        "Rules under 8 masks, a new flow every packet",
        "rules-new-flows",
    ),
    (Experiment::Masks, "masks", "Masks of 65,536 rules, a new flow every packet", "masks"),
    (Experiment::Ports, "ports", "Ports", "ports"),
    (Experiment::Flows, "flows", "Flows in turn", "flows"),
    (Experiment::Macs, "MAC addresses", "MAC addresses in turn", "macs"),
];

/// A table and a plot for each curve.
pub fn section(results: &Results) -> anyhow::Result<Section> {
    let mut section = Section::default();
    for (experiment, x, heading, file) in CURVES {
        let points = select::points(results, experiment);
        if points.is_empty() {
            continue;
        }
        if section.text.is_empty() {
            section.text += "## Cost curves\n\nForwarded under overload, Mpps, and the ratio to the device's first point below.\n\n";
        }
        section.text += &format!("### {heading}\n\n");
        let series = plot_series(&points, |point| point.x, |sample| sample.forwarded / 1e6);
        let plot = plot::lines(&Lines { x, y: "forwarded, Mpps", series })?;
        section.plot(file, &format!("Forwarded packets a second over {x}"), plot);
        section.text += &of_curve(&points, x);
    }
    Ok(section)
}

/// Two rows a device: rates and ratios. A column for each `x` that any device has.
fn of_curve(points: &[&Point], x: &str) -> String {
    let mut columns: Vec<f64> = points.iter().map(|point| point.x).collect();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    let headings: Vec<String> =
        std::iter::once(format!("device \\ {x}")).chain(columns.iter().map(|&x| count(x))).collect();
    let names: Vec<String> = points.iter().map(|point| series_name(point)).collect();
    let mut rows = Vec::new();
    for name in select::in_order_of_appearance(names.iter().map(String::as_str)) {
        let line: Vec<&Point> = points.iter().copied().filter(|point| series_name(point) == name).collect();
        let first = line.first().map(|point| select::forwarded(point)).unwrap_or_default();
        let row = |title: String, cell: &dyn Fn(&Point) -> Option<String>| {
            let cells = columns.iter().map(|&x| {
                let point = line.iter().find(|point| point.x == x);
                point.and_then(|point| cell(point)).unwrap_or_else(|| "–".to_owned())
            });
            std::iter::once(title).chain(cells).collect::<Vec<String>>()
        };
        rows.push(row(name.to_owned(), &|point| {
            spread(select::forwarded(point)).map(|(median, ..)| number(median / 1e6))
        }));
        rows.push(row("× first".to_owned(), &|point| {
            select::ratio(&select::forwarded(point), &first).map(|spread| range(spread, 1.0))
        }));
    }
    table(&headings, &rows)
}
