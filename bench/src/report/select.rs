//! Queries of the report: points by question, devices in order, medians over rounds, ratios.

use crate::names;
use crate::results::{CpuShare, Experiment, Point, Results, Sample, Spread, spread};

/// Points of one question, in the order of [`names::ALL`], then frame length, then `x`.
pub fn points(results: &Results, experiment: Experiment) -> Vec<&Point> {
    let mut points: Vec<&Point> = results.points.iter().filter(|point| point.experiment == experiment).collect();
    let unknown = in_order_of_appearance(points.iter().map(|point| point.device.as_str()));
    points.sort_by(|a, b| {
        let key = |point: &Point| (rank(&point.device, &unknown), point.frame);
        key(a).cmp(&key(b)).then(a.x.total_cmp(&b.x))
    });
    points
}

/// Each text once, in order of first appearance.
pub fn in_order_of_appearance<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}

/// Where a device is shown: known ones first, the others as they came.
pub fn rank(device: &str, appearance: &[&str]) -> usize {
    let at = |list: &[&str]| list.iter().position(|&name| name == device).unwrap_or(list.len());
    let known = at(&names::ALL);
    if known < names::ALL.len() { known } else { known + at(appearance) }
}

/// Median, least and greatest of a value of each sample.
pub fn over(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Option<Spread> {
    spread(samples.iter().map(of))
}

/// Median of a value of each sample. 0 without samples.
pub fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    over(samples, of).map_or(0.0, |(median, ..)| median)
}

/// Forwarded packets a second of each round.
pub fn forwarded(point: &Point) -> Vec<f64> {
    point.samples.iter().map(|sample| sample.forwarded).collect()
}

/// Median, least and greatest ratio of the rounds. `None` if there is nothing to divide.
pub fn ratio(over: &[f64], under: &[f64]) -> Option<Spread> {
    spread(over.iter().zip(under).filter(|&(_, &under)| under > 0.0).map(|(over, under)| over / under))
}

/// Nanoseconds of a CPU per forwarded packet: user, system, softirq. `None` if nothing was forwarded. All rounds count
/// together, because the kernel counts CPU time in ticks, of which a round has few.
pub fn per_packet(samples: &[Sample], cpu: impl Fn(&Sample) -> CpuShare) -> Option<[f64; 3]> {
    let parts: [fn(CpuShare) -> f64; 3] = [|cpu| cpu.user, |cpu| cpu.system, |cpu| cpu.softirq];
    let forwarded: f64 = samples.iter().map(|sample| sample.forwarded).sum();
    let nanoseconds = |part: fn(CpuShare) -> f64| {
        let busy: f64 = samples.iter().map(|sample| part(cpu(sample))).sum();
        busy * 1e9 / forwarded
    };
    (forwarded > 0.0).then(|| parts.map(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_rounds() {
        // The machine was half as fast in the second round.
        assert_eq!(ratio(&[3.0, 1.5, 2.8], &[2.0, 1.0, 2.0]), Some((1.5, 1.4, 1.5)));
        assert_eq!(ratio(&[], &[1.0]), None);
        assert_eq!(ratio(&[1.0], &[]), None);
        assert_eq!(ratio(&[1.0], &[0.0]), None, "nothing to divide by");
        assert_eq!(ratio(&[0.0], &[2.0]), Some((0.0, 0.0, 0.0)));
    }

    #[test]
    fn known_devices_come_first_and_others_as_they_came() {
        let seen = ["zebra", "aardvark", names::OVS, names::XSWITCH];
        let mut devices = seen.to_vec();
        devices.sort_by_key(|device| rank(device, &seen));
        assert_eq!(devices, [names::XSWITCH, names::OVS, "zebra", "aardvark"]);
    }

    #[test]
    fn nanoseconds_per_packet_are_of_each_part_of_the_cpu() {
        let device_cpu = CpuShare { user: 0.1, system: 0.4, softirq: 0.5 };
        let sample = Sample { offered: 4e6, forwarded: 2e6, device_cpu, generator_cpu: CpuShare::default() };
        let [user, system, softirq] = per_packet(&[sample], |sample| sample.device_cpu).expect("forwarded");
        assert_eq!([user.round(), system.round(), softirq.round()], [50.0, 200.0, 250.0]);
        assert_eq!(per_packet(&[Sample { forwarded: 0.0, ..sample }], |sample| sample.device_cpu), None);
    }
}
