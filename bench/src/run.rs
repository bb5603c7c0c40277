//! The run. The devices of an experiment take turns of fractions of a second ([`contest`]). Where that takes too long,
//! each is set up, measured and taken down in turn. That is repeated for each round.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use tests::programs;

use crate::contest::{self, Contender, Entry};
use crate::cpu;
use crate::devices::{Device, Running, process};
use crate::lab::{Ends, Lab};
use crate::load::{Load, Side};
use crate::measure::{self, Times};
use crate::names;
use crate::number::whole;
use crate::report;
use crate::results::{Engine, Experiment, Footprint, Latency, Point, Results, Sample};
use crate::rules::RuleSet;
use crate::stop;
use crate::storm::Storm;

/// Name of the file with a run's results.
pub const RESULTS: &str = "results.json";

/// One measurement that a device is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What varies; see [`Experiment`].
    pub x: f64,
    /// The load.
    pub load: Load,
    /// Rules to set first. `None` leaves the rules alone.
    pub rules: Option<RuleSet>,
    /// Stations of the far guest that must have been learned.
    pub macs: u32,
    /// Broadcasts a second of a third guest. 0: none.
    pub storm: f64,
}

impl Case {
    /// A measurement with one far station and unchanged rules.
    pub fn new(x: f64, load: Load) -> Self {
        Self { x, load, rules: None, macs: 1, storm: 0.0 }
    }
}

/// A device, and the measurements that it is asked for.
#[derive(Debug)]
pub struct Job {
    /// The device.
    pub device: Box<dyn Device>,
    /// Name of its points.
    pub series: String,
    /// The measurements, in this order.
    pub cases: Vec<Case>,
}

impl Job {
    /// A job whose points have the device's name.
    pub fn new(device: impl Device + 'static, cases: Vec<Case>) -> Self {
        Self { series: device.name(), device: Box::new(device), cases }
    }
}

/// A running device in a lab of its own.
#[derive(Debug)]
pub struct Bed<'a> {
    /// The device.
    pub running: Box<dyn Running + 'a>,
    /// What is on the guests' ends.
    pub ends: Ends,
    /// Namespaces and veths.
    pub lab: &'a Lab,
}

/// Makes a lab, starts the device, waits until it forwards, runs `work`, and takes all of it down.
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

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds of rates under overload and of round trips.
    pub rounds: usize,
    /// Rounds of each point of cost curves.
    pub curve_rounds: usize,
    /// Rounds of given offered rates.
    pub rate_rounds: usize,
    /// Rounds of each case of disks.
    pub disk_rounds: usize,
    /// Times of each measurement.
    pub times: Times,
    /// Kinds of devices. All if empty.
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
    /// Settings of the run.
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

    /// Calls a function with each device that takes part, in turn, once a round, and saves. A device that fails is
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
                self.note_version(device(job).version());
                let done = guarded(|| work(self, job));
                if stop::wanted() {
                    self.save()?;
                    return stop::check();
                }
                if let Err(error) = done {
                    self.skip(&format!("{what}, {name}"), &error);
                }
            }
        }
        self.save()
    }

    /// Keeps program and version for the report.
    pub(crate) fn note_version(&mut self, version: Option<(String, String)>) {
        let versions = &mut self.results.setting.versions;
        versions.extend(version.filter(|version| !versions.contains(version)));
    }

    /// Measures packet rates: given offered rates device by device, all else side by side.
    ///
    /// # Errors
    /// As [`Self::in_turn`].
    pub fn rates(&mut self, experiment: Experiment, jobs: &[Job]) -> anyhow::Result<()> {
        match experiment {
            Experiment::Rate => {
                let work = |run: &mut Self, job: &Job| run.offered_rates(job);
                self.in_turn(&format!("{experiment:?}"), jobs, |job| &*job.device, self.plan.rate_rounds, work)
            }
            Experiment::Overload => self.side_by_side(experiment, jobs, self.plan.rounds),
            _ => self.side_by_side(experiment, jobs, self.plan.curve_rounds),
        }
    }

    fn offered_rates(&mut self, job: &Job) -> anyhow::Result<()> {
        with_bed(&*job.device, |bed| {
            let mut generator = bed.lab.generator(Side::Near);
            for case in &job.cases {
                let sample = measure::stream(&mut generator, &bed.ends, &case.load, self.plan.times)?;
                self.note(Experiment::Rate, &job.series, case, sample);
            }
            Ok(())
        })
    }

    /// Runs all jobs in a contest. A device takes part once for each state of its learned addresses and rules that its
    /// cases need.
    fn side_by_side(&mut self, experiment: Experiment, jobs: &[Job], rounds: usize) -> anyhow::Result<()> {
        let mut entries = Vec::new();
        let mut of_jobs = Vec::new();
        for job in jobs {
            if !self.plan.wants(job.device.kind()) {
                continue;
            }
            self.note_version(job.device.version());
            let all: Vec<usize> = (0..job.cases.len()).collect();
            let same = job.cases.iter().all(|case| case.rules.is_none() && case.macs == 1);
            for questions in all.chunks(if same { all.len() } else { 1 }) {
                entries.push(Entry { name: job.series.clone(), device: &*job.device, questions: questions.to_vec() });
                of_jobs.push(job);
            }
        }
        eprintln!("{experiment:?}, {rounds} rounds");
        let times = self.plan.times.of_a_turn();
        let prepare = |at: usize, contender: &mut Contender<'_>| {
            let job: &Job = of_jobs[at];
            let case = &job.cases[entries[at].questions[0]];
            eprintln!("  {} for {}", job.series, case.x);
            if let Some(rules) = &case.rules {
                contender.running.set_rules(rules)?;
            }
            if case.macs > 1 {
                contender.lab.prime(&contender.ends, case.macs)?;
            }
            Ok(())
        };
        let ask = |at: usize, question: usize, contender: &mut Contender<'_>, (): &()| {
            let job: &Job = of_jobs[at];
            let case = &job.cases[question];
            let _storm = (case.storm > 0.0).then(|| Storm::start(contender.lab, case.storm)).transpose()?;
            let sample = measure::stream(&mut contender.generator, &contender.ends, &case.load, times)?;
            self.note(experiment, &job.series, case, sample);
            Ok(())
        };
        let failed = contest::contest(&entries, rounds, prepare, ask);
        self.after(&format!("{experiment:?}"), failed)
    }

    /// Keeps a sample.
    fn note(&mut self, experiment: Experiment, series: &str, case: &Case, sample: Sample) {
        eprintln!("  {series}, {}", line(case, &sample));
        self.point(experiment, series, case.load.frame, case.x).samples.push(sample);
    }

    /// Notes what failed in a contest, and saves.
    pub(crate) fn after(
        &mut self,
        what: &str,
        failed: anyhow::Result<Vec<(String, anyhow::Error)>>,
    ) -> anyhow::Result<()> {
        let stopped = failed.map(|failed| {
            for (name, error) in failed {
                self.skip(&format!("{what}, {name}"), &error);
            }
        });
        self.save()?;
        stopped
    }

    /// Measures round trips of single packets at 1,000 packets a second, and at half of what the device forwards. Each
    /// packet passes it twice, so a quarter of what it forwards is sent.
    ///
    /// # Errors
    /// As [`Self::in_turn`].
    pub fn round_trips(&mut self, devices: &[Box<dyn Device>]) -> anyhow::Result<()> {
        const LOADS: [&str; 2] = [names::LOAD_LOW, names::LOAD_HALF];
        let devices = devices.iter().filter(|device| self.plan.wants(device.kind()));
        let entries: Vec<Entry<'_>> = devices
            .map(|device| Entry { name: device.name(), device: &**device, questions: (0..LOADS.len()).collect() })
            .collect();
        entries.iter().for_each(|entry| self.note_version(entry.device.version()));
        let (times, rounds) = (self.plan.times, self.plan.rounds);
        eprintln!("Round trips, {rounds} rounds");
        let prepare = |at: usize, contender: &mut Contender<'_>| {
            eprintln!("  {}", entries[at].name);
            let full = measure::stream(&mut contender.generator, &contender.ends, &Load::new(Side::Near), times)?;
            Ok([1000.0, full.forwarded / 4.0])
        };
        let ask = |at: usize, question: usize, contender: &mut Contender<'_>, rates: &[f64; LOADS.len()]| {
            let (load, pps) = (LOADS[question], rates[question]);
            let sent = Load::new(Side::Near).paced(pps).returning();
            // Only the low load needs the whole time for enough packets.
            let measure = if load == names::LOAD_LOW { times.measure } else { times.measure / 4 };
            let times = Times { measure, ..times.of_a_turn() };
            let percentiles = measure::round_trip(&mut contender.generator, &mut contender.ends, &sent, times)?;
            eprintln!("  {}, {load}, {pps:.0} packets a second: {percentiles:?}", entries[at].name);
            self.latency(&entries[at].name, load, pps).rounds.push(percentiles);
            Ok(())
        };
        let failed = contest::contest(&entries, rounds, prepare, ask);
        self.after("Round trips", failed)
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
    /// The results can't be written. A missing valgrind is only noted.
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

    /// The samples of a device at a point.
    pub(crate) fn point(&mut self, experiment: Experiment, series: &str, frame: u32, x: f64) -> &mut Point {
        let points = &mut self.results.points;
        let same = |point: &Point| {
            (point.experiment, point.frame, point.x) == (experiment, frame, x) && point.device == series
        };
        let at = points.iter().position(same).unwrap_or_else(|| {
            points.push(Point { experiment, device: series.to_owned(), frame, x, samples: Vec::new() });
            points.len() - 1
        });
        &mut points[at]
    }
}

fn engine_cost() -> anyhow::Result<Engine> {
    let file = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(programs::path("engine-cost", "cargo build -p bench"));
    let status = command.arg("--json").arg(file.path()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "engine-cost ended with {status}");
    Ok(serde_json::from_slice(&std::fs::read(file.path())?)?)
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
    // Work left over from the start is done by then.
    stop::sleep(idle / 4)?;
    let pids = running.pids();
    let sum =
        |of: &dyn Fn(i32) -> anyhow::Result<f64>| pids.iter().try_fold(0.0, |sum, pid| of(*pid).map(|one| sum + one));
    let (before, start) = (sum(&process::cpu_seconds)?, Instant::now());
    stop::sleep(idle)?;
    let idle_cpu = (sum(&process::cpu_seconds)? - before) / start.elapsed().as_secs_f64();
    let resident = whole(sum(&|pid| process::resident(pid).map(|bytes| bytes as f64))?);
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

/// Runs `work`. A panic of a fixture becomes an error, after its guards have run.
pub(crate) fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(anyhow!(text.unwrap_or_else(|| "it panicked".to_owned())))
    })
}
