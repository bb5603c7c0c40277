//! The run: every device of an experiment is taken in turn, and that is repeated for each round, so that a machine that
//! gets slower or faster meanwhile does so for all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};

use crate::cpu;
use crate::devices::{Device, Running, process};
use crate::lab::{Ends, Lab};
use crate::load::{Load, Side};
use crate::measure::{self, Times};
use crate::names;
use crate::report;
use crate::results::{Engine, Experiment, Footprint, Latency, Percentiles, Point, Results, Sample};
use crate::rules::RuleSet;
use crate::stop;

/// Name of the file with what a run measured.
pub const RESULTS: &str = "results.json";

/// One measurement that a device is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What varies; see [`Experiment`].
    pub x: f64,
    /// What is sent.
    pub load: Load,
    /// Rules to set first; `None` leaves them as they are.
    pub rules: Option<RuleSet>,
    /// Stations of the far guest that must have been learned.
    pub macs: u32,
}

impl Case {
    /// With one far station, and rules as they are.
    pub fn new(x: f64, load: Load) -> Self {
        Self { x, load, rules: None, macs: 1 }
    }
}

/// A device, and what it is asked for while it runs.
#[derive(Debug)]
pub struct Job {
    /// The device.
    pub device: Box<dyn Device>,
    /// What its points are called.
    pub series: String,
    /// In this order.
    pub cases: Vec<Case>,
}

impl Job {
    /// One whose points have the device's name.
    pub fn new(device: impl Device + 'static, cases: Vec<Case>) -> Self {
        Self { series: device.name(), device: Box::new(device), cases }
    }
}

/// A device that runs, in a lab that was made for it.
#[derive(Debug)]
pub struct Bed<'a> {
    /// The device.
    pub running: Box<dyn Running + 'a>,
    /// What is on the guests' ends.
    pub ends: Ends,
    /// Namespaces and veths.
    pub lab: &'a Lab,
}

/// Makes a lab, starts the device, waits until it forwards, lets `work` have it, and takes all of it down.
///
/// # Errors
/// The device's, it does not forward, or those of `work`.
pub fn with_bed<T>(device: &dyn Device, work: impl FnOnce(&mut Bed<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let lab = Lab::new(device.ports())?;
    let ends = lab.ends();
    let running = device.start(&lab, cpu::DEVICE)?;
    lab.prime(&ends, 1)?;
    work(&mut Bed { running, ends, lab: &lab })
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often rates under overload and round trips are measured.
    pub rounds: usize,
    /// How often cost curves are.
    pub curve_rounds: usize,
    /// How long each measurement takes.
    pub times: Times,
    /// Kinds of devices; empty: all.
    pub devices: Vec<String>,
    /// Directory of `results.json` and the report.
    pub out: PathBuf,
}

impl Plan {
    /// Whether devices of that kind take part.
    pub fn wants(&self, kind: &str) -> bool {
        self.devices.is_empty() || self.devices.iter().any(|wanted| wanted == kind)
    }
}

/// A run in progress.
#[derive(Debug)]
pub struct Run {
    /// How.
    pub plan: Plan,
    /// What has been measured.
    pub results: Results,
}

impl Run {
    /// Writes `results.json` and the report of it.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn save(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.plan.out)?;
        self.results.save(&self.plan.out.join(RESULTS))?;
        report::write(&self.results, &self.plan.out)
    }

    /// Notes once that something could not be measured.
    pub fn skip(&mut self, what: &str, error: &anyhow::Error) {
        let text = format!("{what}: {error:#}");
        eprintln!("  skipped {text}");
        if !self.results.skipped.contains(&text) {
            self.results.skipped.push(text);
        }
    }

    /// Does something with each of the devices that take part, in turn, once a round, and saves. A device that fails is
    /// noted and left out.
    ///
    /// # Errors
    /// A signal came, or the results can't be written.
    pub fn in_turn<'a, J: 'a>(
        &mut self,
        what: &str,
        jobs: impl IntoIterator<Item = &'a J>,
        device: impl Fn(&J) -> &dyn Device,
        rounds: usize,
        mut work: impl FnMut(&mut Self, &J) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let jobs: Vec<&J> = jobs.into_iter().filter(|job| self.plan.wants(device(job).kind())).collect();
        for round in 1..=rounds {
            for job in &jobs {
                let name = device(job).name();
                eprintln!("{what}, round {round} of {rounds}: {name}");
                self.note_version(device(job));
                let done = guarded(|| work(self, job));
                if stop::wanted() {
                    self.save()?;
                    return Err(anyhow!("stopped by a signal"));
                }
                if let Err(error) = done {
                    self.skip(&format!("{what}, {name}"), &error);
                }
            }
        }
        self.save()
    }

    fn note_version(&mut self, device: &dyn Device) {
        let versions = &mut self.results.setting.versions;
        versions.extend(device.version().filter(|version| !versions.contains(version)));
    }

    /// Measures packet rates.
    ///
    /// # Errors
    /// As [`Self::in_turn`].
    pub fn rates(&mut self, experiment: Experiment, jobs: &[Job]) -> anyhow::Result<()> {
        let rounds = if experiment == Experiment::Overload { self.plan.rounds } else { self.plan.curve_rounds };
        let work = |run: &mut Self, job: &Job| run.rates_of(experiment, job);
        self.in_turn(&format!("{experiment:?}"), jobs, |job| &*job.device, rounds, work)
    }

    fn rates_of(&mut self, experiment: Experiment, job: &Job) -> anyhow::Result<()> {
        with_bed(&*job.device, |bed| {
            for case in &job.cases {
                if let Some(rules) = &case.rules {
                    bed.running.set_rules(rules)?;
                }
                if case.macs > 1 {
                    bed.lab.prime(&bed.ends, case.macs)?;
                }
                let mut generator = bed.lab.generator(Side::Near);
                let sample = measure::stream(&mut generator, &bed.ends, &case.load, self.plan.times)?;
                eprintln!("  {}", line(case, &sample));
                self.point(experiment, &job.series, case).samples.push(sample);
            }
            Ok(())
        })
    }

    /// Measures round trips of single packets at 1,000 packets a second, and at half of what the device forwards: each
    /// packet passes it twice, so as many are sent as it forwards in a quarter of its time.
    ///
    /// # Errors
    /// As [`Self::in_turn`].
    pub fn round_trips(&mut self, devices: &[Box<dyn Device>]) -> anyhow::Result<()> {
        self.in_turn(
            "Round trips",
            devices,
            |device| &**device,
            self.plan.rounds,
            |run, device| {
                let times = run.plan.times;
                let (loads, name) = (with_bed(&**device, |bed| round_trips(bed, times))?, device.name());
                for (load, pps, percentiles) in loads {
                    eprintln!("  {load}, {pps:.0} packets a second: {percentiles:?}");
                    run.latency(&name, load, pps).rounds.push(percentiles);
                }
                Ok(())
            },
        )
    }

    fn latency(&mut self, device: &str, load: &str, pps: f64) -> &mut Latency {
        let all = &mut self.results.latencies;
        let at = all.iter().position(|one| one.device == device && one.load == load).unwrap_or_else(|| {
            all.push(Latency { device: device.to_owned(), load: load.to_owned(), pps, rounds: Vec::new() });
            all.len() - 1
        });
        &mut all[at]
    }

    /// Measures what devices take without traffic, once, with rules if there are some.
    ///
    /// # Errors
    /// As [`Self::in_turn`].
    pub fn footprints(&mut self, devices: &[(Box<dyn Device>, u32)]) -> anyhow::Result<()> {
        self.in_turn(
            "Footprint",
            devices,
            |job| &*job.0,
            1,
            |run, (device, rules)| {
                let footprint = footprint(&**device, *rules, run.plan.times.idle)?;
                eprintln!("  {footprint:?}");
                run.results.footprints.push(footprint);
                Ok(())
            },
        )
    }

    /// Measures the engine alone, by a program of its own, because it counts allocations.
    ///
    /// # Errors
    /// The results can't be written. That valgrind is missing is noted.
    pub fn engine(&mut self) -> anyhow::Result<()> {
        if !self.plan.wants("xswitch") {
            return Ok(());
        }
        eprintln!("Engine alone");
        match engine_cost() {
            Ok(engine) => self.results.engine = Some(engine),
            Err(error) => self.skip("engine alone", &error),
        }
        self.save()
    }

    fn point(&mut self, experiment: Experiment, series: &str, case: &Case) -> &mut Point {
        let points = &mut self.results.points;
        let same = |point: &Point| {
            (point.experiment, point.frame, point.x) == (experiment, case.load.frame, case.x) && point.device == series
        };
        let at = points.iter().position(same).unwrap_or_else(|| {
            let (device, frame) = (series.to_owned(), case.load.frame);
            points.push(Point { experiment, device, frame, x: case.x, samples: Vec::new() });
            points.len() - 1
        });
        &mut points[at]
    }
}

fn engine_cost() -> anyhow::Result<Engine> {
    let file = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(process::program("engine-cost")?);
    let status = command.arg("--json").arg(file.path()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "engine-cost ended with {status}");
    Ok(serde_json::from_slice(&std::fs::read(file.path())?)?)
}

fn round_trips(bed: &mut Bed<'_>, times: Times) -> anyhow::Result<Vec<(&'static str, f64, Percentiles)>> {
    let mut generator = bed.lab.generator(Side::Near);
    let full = measure::stream(&mut generator, &bed.ends, &Load::new(Side::Near), times)?.forwarded;
    let loads = [(names::LOAD_LOW, 1000.0), (names::LOAD_HALF, full / 4.0)];
    let mut measured = Vec::new();
    for (load, pps) in loads {
        let sent = Load::new(Side::Near).paced(pps).returning();
        measured.push((load, pps, measure::round_trip(&mut generator, &mut bed.ends, &sent, times)?));
    }
    Ok(measured)
}

fn footprint(device: &dyn Device, rules: u32, idle: Duration) -> anyhow::Result<Footprint> {
    let lab = Lab::new(device.ports())?;
    let start = Instant::now();
    let mut running = device.start(&lab, cpu::DEVICE)?;
    if rules > 0 {
        running.set_rules(&RuleSet { rules, masks: 1 })?;
    }
    let first = start.elapsed().as_secs_f64();
    let start_seconds = running.restart()?.unwrap_or(first);
    // What the start left behind is done by then.
    stop::sleep(idle / 4)?;
    let pids = running.pids();
    let sum =
        |of: &dyn Fn(i32) -> anyhow::Result<f64>| pids.iter().try_fold(0.0, |sum, pid| of(*pid).map(|one| sum + one));
    let (before, start) = (sum(&process::cpu_seconds)?, Instant::now());
    stop::sleep(idle)?;
    let idle_cpu = (sum(&process::cpu_seconds)? - before) / start.elapsed().as_secs_f64();
    let resident = sum(&|pid| process::resident(pid).map(|bytes| bytes as f64))? as u64;
    let ports = u32::try_from(device.ports())?;
    Ok(Footprint { device: device.name(), ports, rules, start_seconds, resident, idle_cpu })
}

fn line(case: &Case, sample: &Sample) -> String {
    format!(
        "{:>4} B, x {:>8}: {:.3} of {:.3} Mpps; device's CPU {:.2}+{:.2}+{:.2}, generator's {:.2}+{:.2}+{:.2} (user, system, softirq)",
        case.load.frame,
        case.x,
        sample.forwarded / 1e6,
        sample.offered / 1e6,
        sample.device_cpu.user,
        sample.device_cpu.system,
        sample.device_cpu.softirq,
        sample.generator_cpu.user,
        sample.generator_cpu.system,
        sample.generator_cpu.softirq,
    )
}

/// Runs `work`; a panic of a fixture becomes an error, after its guards have run.
pub(crate) fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(anyhow!(text.unwrap_or_else(|| "it panicked".to_owned())))
    })
}
