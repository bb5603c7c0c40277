//! Results of a run as plain data. The bench writes them, the report reads them, and JSON keeps them.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Shares of one CPU over one measurement: CPU seconds a second, 0 to 1 each.
///
/// From `/proc/stat`, of the whole CPU. Softirq time counts where the kernel charged it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuShare {
    /// In user space.
    pub user: f64,
    /// In system calls and kernel threads.
    pub system: f64,
    /// In software and hardware interrupts.
    pub softirq: f64,
}

impl CpuShare {
    /// The sum.
    pub fn busy(&self) -> f64 {
        self.user + self.system + self.softirq
    }
}

/// One measurement of a stream through a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Packets a second that the generator sent.
    pub offered: f64,
    /// Packets a second that the sink counted.
    pub forwarded: f64,
    /// The CPU that the device is pinned to.
    pub device_cpu: CpuShare,
    /// The CPU that the generator is pinned to. Work in the sender's context is here, such as an in-kernel device.
    pub generator_cpu: CpuShare,
}

impl Sample {
    /// Share of sent packets that did not arrive, 0 to 1.
    pub fn loss(&self) -> f64 {
        if self.offered > 0.0 { (1.0 - self.forwarded / self.offered).max(0.0) } else { 0.0 }
    }
}

/// The question that a [`Point`] answers. `x` is what varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Experiment {
    /// As many packets as the generator can send. `x` is the frame length.
    Overload,
    /// A given offered rate of 64-byte frames. `x` is packets a second.
    Rate,
    /// Overload over the number of rules, with locality (64 flows).
    Rules,
    /// Overload over the number of rules under 8 masks, a new flow every packet.
    RulesNewFlows,
    /// Overload over the number of distinct masks of 65,536 rules, a new flow every packet.
    Masks,
    /// Overload over the number of ports, with traffic from one to another.
    Ports,
    /// Overload over the number of flows in turn, rules present.
    Flows,
    /// Overload over the number of MAC addresses in turn.
    Macs,
    /// A stream of 10,000 packets a second, beside broadcasts of a third guest. `x` is broadcasts a second. From 1e6 on
    /// it is as many as the guest can send.
    Storm,
    /// Two guests at vhost-user ports with split rings send to each other as fast as they can. `x` is the frame length.
    VhostSplit,
    /// The same with packed rings.
    VhostPacked,
    /// A guest at a vhost-user port sends to a veth, whose other end sends everything back. Packets there and back are
    /// counted. For the forwarder it is overload from veth to veth.
    VhostVeth,
}

/// All samples of one device at one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The question.
    pub experiment: Experiment,
    /// Device and its set-up, such as `xswitch, 10,000 rules, meters`.
    pub device: String,
    /// Frame length on the wire, FCS included: 64, 594 or 1,500.
    pub frame: u32,
    /// What varies, as [`Experiment`] says.
    pub x: f64,
    /// One for each round.
    pub samples: Vec<Sample>,
}

/// Round trip times of one device under one load, all rounds together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Device and its set-up.
    pub device: String,
    /// `1 kpps` or `half load`.
    pub load: String,
    /// Packets a second that were sent.
    pub pps: f64,
    /// Percentiles in nanoseconds, one for each round.
    pub rounds: Vec<Percentiles>,
}

/// Percentiles of a round trip time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1,000 are faster.
    pub p999: f64,
    /// Packets that came back.
    pub packets: u64,
}

/// Resources of a device without traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Device and its set-up.
    pub device: String,
    /// Ports.
    pub ports: u32,
    /// Rules.
    pub rules: u32,
    /// Seconds from the start of the process until all of that is in place.
    pub start_seconds: f64,
    /// Resident memory in bytes, packet memory included.
    pub resident: u64,
    /// CPU seconds a second while nothing is sent.
    pub idle_cpu: f64,
}

/// All samples of a server of disks in one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskPoint {
    /// What the client does, such as `4 KiB random read, depth 1, 1 queue`.
    pub case: String,
    /// The server.
    pub device: String,
    /// One for each round.
    pub samples: Vec<DiskSample>,
}

/// One measurement of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSample {
    /// Requests a second.
    pub per_second: f64,
    /// Microseconds of a CPU that the server takes for a request.
    pub cpu: f64,
    /// Half of the requests take less, in microseconds.
    pub p50: f64,
    /// 99 of 100 take less, in microseconds.
    pub p99: f64,
}

/// Cost of xswitch's engine alone, on rings without a kernel, with everything on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Packets a second of one core.
    pub pps: f64,
    /// Instructions in user space per forwarded packet.
    pub instructions: f64,
    /// Allocations per forwarded packet.
    pub allocations: f64,
    /// Tables of all steps, in Markdown.
    pub tables: String,
}

/// Where and how it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Day, as `2026-11-21`.
    pub date: String,
    /// CPU model, number of CPUs, memory.
    pub machine: String,
    /// Kernel release.
    pub kernel: String,
    /// Name and version of each program that took part.
    pub versions: Vec<(String, String)>,
    /// Commands that were run, in order of first use.
    pub commands: Vec<String>,
    /// Rounds.
    pub rounds: usize,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Where and how.
    pub setting: Setting,
    /// Rates.
    pub points: Vec<Point>,
    /// Round trips.
    pub latencies: Vec<Latency>,
    /// Start-up, memory, idle.
    pub footprints: Vec<Footprint>,
    /// Disks.
    #[serde(default)]
    pub disks: Vec<DiskPoint>,
    /// The engine alone, if it was measured.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// What could not be measured, and why.
    pub skipped: Vec<String>,
}

impl Results {
    /// Reads what [`Results::save`] wrote. Fails if the file can't be read or is not such JSON.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} holds no results of a run", path.display()))
    }

    /// Writes it as JSON for people and for [`Results::load`]. Fails if the file can't be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// Median, least and greatest.
pub type Spread = (f64, f64, f64);

/// Median, least and greatest. `None` without values.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some((median, least, greatest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_takes_the_middle_of_any_number_of_values() {
        assert_eq!(spread([]), None);
        assert_eq!(spread([3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(spread([3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
    }

    #[test]
    fn loss_is_what_did_not_arrive() {
        let cpu = CpuShare::default();
        let sample = |offered, forwarded| Sample { offered, forwarded, device_cpu: cpu, generator_cpu: cpu };
        assert_eq!(sample(4.0, 3.0).loss(), 0.25);
        assert_eq!(sample(1.0, 1.01).loss(), 0.0, "what was on its way at the start");
        assert_eq!(sample(0.0, 0.0).loss(), 0.0);
    }
}
