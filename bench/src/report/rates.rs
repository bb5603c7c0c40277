//! Given offered rates: forwarded and lost packets, and the cost.

use super::Section;
use super::select;
use super::text::{number, or_dash, range, table};
use crate::plot::{self, Lines, Series};
use crate::results::{CpuShare, Experiment, Point, Results, Sample};

/// One table, and a plot each of what was forwarded, what was lost, and the device's CPU.
pub fn section(results: &Results) -> anyhow::Result<Section> {
    let points = select::points(results, Experiment::Rate);
    let mut section = Section::default();
    if points.is_empty() {
        return Ok(section);
    }
    section.text += "## Offered rates\n\nShares are of one CPU each.\n\n";
    let mut plot = |file, y, of| {
        section.plot(file, &format!("{y} over offered packets a second"), lines(&points, y, of)?);
        anyhow::Ok(())
    };
    plot("rates-forwarded", "forwarded, Mpps", |sample| sample.forwarded / 1e6)?;
    plot("rates-loss", "lost, % of what was offered", |sample| sample.loss() * 1e2)?;
    plot("rates-cpu", "device's CPU, % busy", |sample| sample.device_cpu.busy() * 1e2)?;
    let rows: Vec<Vec<String>> = points.iter().map(|point| row(point)).collect();
    let headings = [
        "device",
        "frame, B",
        "wanted, kpps",
        "offered, kpps",
        "forwarded, kpps",
        "loss, %",
        "device's CPU: user / system / softirq, %",
        "generator's CPU, %",
    ];
    section.text += &table(&headings, &rows);
    Ok(section)
}

fn row(point: &Point) -> Vec<String> {
    let samples = &point.samples;
    let cpu = |part: fn(CpuShare) -> f64| number(select::median(samples, |sample| part(sample.device_cpu)) * 1e2);
    vec![
        point.device.clone(),
        point.frame.to_string(),
        number(point.x / 1e3),
        number(select::median(samples, |sample| sample.offered) / 1e3),
        or_dash(select::over(samples, |sample| sample.forwarded), |spread| range(spread, 1e-3)),
        number(select::median(samples, Sample::loss) * 1e2),
        format!("{} / {} / {}", cpu(|cpu| cpu.user), cpu(|cpu| cpu.system), cpu(|cpu| cpu.softirq)),
        number(select::median(samples, |sample| sample.generator_cpu.busy()) * 1e2),
    ]
}

fn lines(points: &[&Point], y: &str, of: fn(&Sample) -> f64) -> anyhow::Result<Option<String>> {
    let series = plot_series(points, |point| select::median(&point.samples, |sample| sample.offered), of);
    plot::lines(&Lines { x: "offered, packets a second", y, series })
}

/// A line for each device and frame length, with the median of the rounds at each point. Points without samples are
/// left out.
pub fn plot_series(points: &[&Point], x: impl Fn(&Point) -> f64, y: impl Fn(&Sample) -> f64) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for point in points {
        let Some((median, ..)) = select::over(&point.samples, &y) else { continue };
        let name = series_name(point);
        let at = series.iter().position(|series| series.name == name).unwrap_or_else(|| {
            series.push(Series { name, points: Vec::new() });
            series.len() - 1
        });
        series[at].points.push((x(point), median));
    }
    series
}

/// The device, and the frame length unless that is 64.
pub fn series_name(point: &Point) -> String {
    if point.frame == 64 { point.device.clone() } else { format!("{}, {} B", point.device, point.frame) }
}
