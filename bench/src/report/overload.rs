//! Overload by frame length: as many packets as the generator can send.

use super::Section;
use super::select;
use super::text::{count, number, or_dash, range, table};
use crate::names;
use crate::plot::{self, Bars, Group};
use crate::results::{Experiment, Point, Results, Spread};

/// A table for each frame length, and one chart of all.
pub fn section(results: &Results) -> anyhow::Result<Section> {
    let points = select::points(results, Experiment::Overload);
    let mut section = Section::default();
    if points.is_empty() {
        return Ok(section);
    }
    section.text += "## Overload\n\nPacket costs are nanoseconds of a CPU per forwarded packet: user / system / softirq. In the generator's \
                     are sending and what the device does in its context.\n\n";
    let mut frames: Vec<u32> = points.iter().map(|point| point.frame).collect();
    frames.sort_unstable();
    frames.dedup();
    section.plot("overload", "Forwarded packets a second by device and frame length", chart(&points, &frames)?);
    for frame in frames {
        let of_frame: Vec<&Point> = points.iter().copied().filter(|point| point.frame == frame).collect();
        section.text += &format!("### {} B\n\n{}", count(f64::from(frame)), of_length(&of_frame));
    }
    Ok(section)
}

fn of_length(points: &[&Point]) -> String {
    let floor = points.iter().find(|point| point.device == names::FORWARDER).map(|point| select::forwarded(point));
    let rows: Vec<Vec<String>> = points
        .iter()
        .map(|point| {
            let samples = &point.samples;
            let to_floor = floor.as_ref().and_then(|floor| select::ratio(&select::forwarded(point), floor));
            vec![
                point.device.clone(),
                or_dash(megapackets(point), |spread| range(spread, 1.0)),
                or_dash(to_floor, |spread| range(spread, 1.0)),
                number(select::median(samples, |sample| sample.offered) / 1e6),
                number(select::median(samples, |sample| sample.loss()) * 1e2),
                or_dash(select::per_packet(samples, |sample| sample.device_cpu), nanoseconds),
                or_dash(select::per_packet(samples, |sample| sample.generator_cpu), nanoseconds),
            ]
        })
        .collect();
    let headings = [
        "device",
        "forwarded, Mpps",
        "to the bare forwarder, ×",
        "offered, Mpps",
        "loss, %",
        "device's CPU, ns a packet",
        "generator's CPU, ns a packet",
    ];
    table(&headings, &rows)
}

/// User, system, softirq in whole nanoseconds.
fn nanoseconds([user, system, softirq]: [f64; 3]) -> String {
    format!("{} / {} / {}", count(user), count(system), count(softirq))
}

fn megapackets(point: &Point) -> Option<Spread> {
    select::over(&point.samples, |sample| sample.forwarded / 1e6)
}

fn chart(points: &[&Point], frames: &[u32]) -> anyhow::Result<Option<String>> {
    let devices = select::in_order_of_appearance(points.iter().map(|point| point.device.as_str()));
    let value = |device: &str, frame: u32| {
        megapackets(points.iter().find(|point| point.device == device && point.frame == frame)?)
    };
    plot::bars(&Bars {
        x: "forwarded under overload, Mpps; line: least to greatest of the rounds",
        series: frames.iter().map(|&frame| format!("{} B", count(f64::from(frame)))).collect(),
        groups: devices
            .iter()
            .map(|&device| Group {
                name: device.to_owned(),
                bars: frames.iter().map(|&frame| value(device, frame)).collect(),
            })
            .collect(),
    })
}
