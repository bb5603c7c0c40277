//! The run: every device of an experiment is taken in turn, and that is repeated for each round, so that a machine that
//! gets slower or faster meanwhile does so for all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use anyhow::{Context, anyhow};

use crate::cpu;
use crate::devices::{Device, Running};
use crate::lab::{Ends, Far, Lab};
use crate::load::{Load, Side};
use crate::measure::{self, Times};
use crate::results::{Experiment, Point, Results, Sample};
use crate::rules::RuleSet;
use crate::stop;

/// One measurement that a device is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What varies; see [`Experiment`].
    pub x: f64,
    /// What is sent.
    pub load: Load,
    /// Rules to set first; `None` leaves them as they are.
    pub rules: Option<RuleSet>,
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
    /// Stations of the far guest that it must have learned.
    pub macs: u32,
}

impl Job {
    /// One whose points have the device's name, with one station a side.
    pub fn new(device: impl Device + 'static, cases: Vec<Case>) -> Self {
        Self { series: device.name(), device: Box::new(device), cases, macs: 1 }
    }
}

/// A device that is running in a lab that was made for it. Fields go in this order.
#[derive(Debug)]
pub struct Bed {
    /// The device.
    pub running: Box<dyn Running>,
    /// What is on the guests' ends.
    pub ends: Ends,
    /// Namespaces and veths.
    pub lab: Lab,
}

impl Bed {
    /// Makes a lab, starts the device, and waits until it forwards and knows `macs` far stations.
    ///
    /// # Errors
    /// The device's, or it does not forward.
    pub fn new(device: &dyn Device, far: Far, macs: u32) -> anyhow::Result<Self> {
        let lab = Lab::new(device.ports())?;
        let ends = lab.ends(far);
        let running = device.start(&lab, cpu::DEVICE)?;
        lab.prime(&ends, macs)?;
        Ok(Self { running, ends, lab })
    }
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often everything is measured.
    pub rounds: usize,
    /// How long each measurement takes.
    pub times: Times,
    /// Kinds of devices, or parts of their names; empty: all.
    pub devices: Vec<String>,
    /// Directory of `results.json` and the report.
    pub out: PathBuf,
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
    /// Whether a device takes part.
    pub fn wants(&self, device: &dyn Device) -> bool {
        let chosen = |name: &String| device.kind() == name || device.name() == *name;
        self.plan.devices.is_empty() || self.plan.devices.iter().any(chosen)
    }

    /// Writes `results.json`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self) -> anyhow::Result<()> {
        let path = self.plan.out.join("results.json");
        std::fs::create_dir_all(&self.plan.out)?;
        let text = serde_json::to_string_pretty(&self.results)?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())
    }

    /// Notes once that something could not be measured.
    pub fn skip(&mut self, what: &str, error: &anyhow::Error) {
        let text = format!("{what}: {error:#}");
        eprintln!("  skipped {text}");
        if !self.results.skipped.contains(&text) {
            self.results.skipped.push(text);
        }
    }

    /// Measures the jobs of an experiment of packet rates, all rounds, and saves.
    ///
    /// # Errors
    /// A signal came, or the results can't be written; a device that fails is noted and left out.
    pub fn rates(&mut self, experiment: Experiment, jobs: &[Job]) -> anyhow::Result<()> {
        let jobs: Vec<&Job> = jobs.iter().filter(|job| self.wants(&*job.device)).collect();
        for round in 1..=self.plan.rounds {
            for job in &jobs {
                eprintln!("{experiment:?}, round {round} of {}: {}", self.plan.rounds, job.device.name());
                let done = guarded(|| self.rates_of(experiment, job));
                if stop::wanted() {
                    return Err(anyhow!("stopped by a signal"));
                }
                if let Err(error) = done {
                    self.skip(&format!("{experiment:?}, {}", job.device.name()), &error);
                }
            }
        }
        self.save()
    }

    fn rates_of(&mut self, experiment: Experiment, job: &Job) -> anyhow::Result<()> {
        let mut bed = Bed::new(&*job.device, Far::Sink, job.macs)?;
        for case in &job.cases {
            if let Some(rules) = &case.rules {
                bed.running.set_rules(rules)?;
            }
            let mut generator = bed.lab.generator(Side::Near);
            let sample = measure::stream(&mut generator, &bed.ends, &case.load, self.plan.times)?;
            eprintln!("  {}", line(case, &sample));
            self.point(experiment, &job.series, case).samples.push(sample);
        }
        Ok(())
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
