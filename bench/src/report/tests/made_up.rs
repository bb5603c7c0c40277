//! A made-up run.

use crate::names;
use crate::results::{CpuShare, Experiment, Footprint, Latency, Percentiles, Point, Results, Sample, Setting};

/// Devices that take part. The report does not know the last.
pub const DEVICES: [&str; 4] = [names::XSWITCH, names::FORWARDER, names::OVS, "something else"];
/// Offered rates.
pub const RATES: [f64; 3] = [1e3, 1e5, 2e6];
/// Drift from round to round, the same for all devices.
const DRIFT: [f64; 3] = [1.0, 0.95, 1.05];

/// Three rounds: each device forwards `mpps` of twice as many.
pub fn point(experiment: Experiment, device: &str, frame: u32, x: f64, mpps: f64) -> Point {
    let sample = |drift: f64| Sample {
        offered: 2e6 * mpps * drift,
        forwarded: 1e6 * mpps * drift,
        device_cpu: CpuShare { user: 0.1 * drift, system: 0.4 * drift, softirq: 0.5 * drift },
        generator_cpu: CpuShare { user: 0.0, system: 0.2 * drift, softirq: 0.8 * drift },
    };
    Point { experiment, device: device.to_owned(), frame, x, samples: DRIFT.map(sample).to_vec() }
}

/// Round trips at the low load, the p99 being `micros` in the median.
pub fn latency(device: &str, micros: f64) -> Latency {
    let round = |drift: f64| {
        let p99 = (1.0 + 2.0 * (drift - 1.0)) * micros * 1e3;
        Percentiles { p50: p99 / 2.0, p99, p999: p99 * 2.0, packets: 1000 }
    };
    let rounds = DRIFT.map(round).to_vec();
    Latency { device: device.to_owned(), load: names::LOAD_LOW.to_owned(), pps: 1e3, rounds }
}

/// 200 ports and 65,536 rules.
pub fn footprint(device: &str, start_seconds: f64, idle_cpu: f64) -> Footprint {
    Footprint { device: device.to_owned(), ports: 200, rules: 65_536, start_seconds, resident: 64 << 20, idle_cpu }
}

/// The whole run.
pub fn results() -> Results {
    let mut results = Results {
        setting: Setting {
            date: "2026-01-02".to_owned(),
            machine: "two CPUs".to_owned(),
            kernel: "6.18".to_owned(),
            versions: vec![("Open vSwitch".to_owned(), "3.1.0".to_owned())],
            commands: vec!["make bench".to_owned()],
            rounds: 3,
        },
        skipped: vec!["testpmd: could not be had".to_owned()],
        ..Results::default()
    };
    for device in DEVICES {
        for frame in [64, 1500] {
            results.points.push(point(Experiment::Overload, device, frame, f64::from(frame), 2.0));
        }
        for rate in RATES {
            results.points.push(point(Experiment::Rate, device, 64, rate, rate / 1e6));
        }
        for (rules, mpps) in [(1.0, 2.0), (1024.0, 1.96), (65_536.0, 1.92)] {
            results.points.push(point(Experiment::Rules, device, 64, rules, mpps));
        }
        for broadcasts in [0.0, 2e4, 1e6] {
            results.points.push(point(Experiment::Storm, device, 64, broadcasts, 0.005));
        }
        results.latencies.push(latency(device, if device == names::OVS { 20.0 } else { 40.0 }));
        results.footprints.push(footprint(device, 1.5, 0.003));
    }
    results
}

/// Checks that tags are closed in order, attributes are quoted, and special characters are escaped.
pub fn well_formed(xml: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut elements = 0;
    let mut rest = xml.trim();
    while let Some(at) = rest.find('<') {
        bare(&rest[..at])?;
        let end = rest.find('>').ok_or("a tag without end")?;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('?') || tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes nothing"));
            }
            continue;
        }
        let name = tag.split([' ', '\n', '/']).next().unwrap_or_default();
        if name.is_empty() || !tag.matches('"').count().is_multiple_of(2) || tag.contains('<') {
            return Err(format!("<{tag}>"));
        }
        bare(tag)?;
        if open.is_empty() && elements > 0 {
            return Err("more than one root".to_owned());
        }
        elements += 1;
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    if open.is_empty() && elements > 0 && rest.is_empty() { Ok(()) } else { Err(format!("{open:?} left open")) }
}

/// An error if an ampersand begins no entity.
fn bare(text: &str) -> Result<(), String> {
    let entities = ["amp;", "lt;", "gt;", "quot;", "apos;", "#"];
    let good = text.split('&').skip(1).all(|after| entities.iter().any(|entity| after.starts_with(entity)));
    if good { Ok(()) } else { Err(format!("a bare & in {text}")) }
}

#[test]
fn the_check_of_xml_can_fail() {
    for good in ["<a/>", "<a b=\"c\"><d>e &amp; f</d></a>"] {
        well_formed(good).expect(good);
    }
    for bad in ["", "<a>", "<a></b>", "<a b=\"c></a>", "<a>b & c</a>", "<a/><b/>", "<a><b></a></b>"] {
        assert!(well_formed(bad).is_err(), "{bad}");
    }
}
