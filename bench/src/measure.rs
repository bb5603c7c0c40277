//! One measurement: a load through a device that runs, what came out, and what the CPUs did meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::wait;

use crate::cpu::{self, Clock};
use crate::generator::Generator;
use crate::lab::Ends;
use crate::load::Load;
use crate::results::{Percentiles, Sample};
use crate::stop;

/// How long a measurement takes.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Load before anything is counted.
    pub warm: Duration,
    /// While it is counted.
    pub measure: Duration,
    /// Without traffic, to see what a device takes then.
    pub idle: Duration,
}

impl Times {
    /// Of a turn in a [`contest`](crate::contest): a fraction of a second, so that all have had their turn before the machine is
    /// another one.
    pub fn of_a_turn(self) -> Self {
        Self { warm: self.warm / 5, measure: self.measure / 4, ..self }
    }
}

/// Time in which what is on its way arrives, or is lost.
const DRAIN: Duration = Duration::from_millis(50);
/// How long a load may take to begin.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    sent: u64,
    received: u64,
    cpus: [Clock; 2],
}

impl Look {
    fn new(sent: u64, ends: &Ends) -> Self {
        let cpus = [cpu::DEVICE, cpu::GENERATOR].map(Clock::read);
        Self { at: Instant::now(), sent, received: ends.far.seen().packets, cpus }
    }

    /// What happened from `before` to this one.
    fn since(&self, before: &Self) -> Sample {
        let seconds = (self.at - before.at).as_secs_f64();
        let share = |at: usize| self.cpus[at].since(before.cpus[at], seconds);
        Sample {
            offered: (self.sent - before.sent) as f64 / seconds,
            forwarded: (self.received - before.received) as f64 / seconds,
            device_cpu: share(0),
            generator_cpu: share(1),
        }
    }
}

/// Sends a load and counts what arrives at the far guest.
///
/// At full speed the count starts and ends while packets are on their way. Of a paced load every packet is waited for, so
/// that its loss is exact: the share of all that were sent which arrived.
///
/// # Errors
/// A signal came, or nothing is sent.
pub fn stream(generator: &mut Generator<'_>, ends: &Ends, load: &Load, times: Times) -> anyhow::Result<Sample> {
    if load.pps.is_some() {
        generator.during(load, |_| stop::sleep(times.warm))?;
        stop::sleep(DRAIN)?;
    }
    let first = ends.far.seen().packets;
    let mut sample = generator.during(load, |sending| {
        // The first call takes its time to begin.
        wait::until(PATIENCE, || (sending.sent() > 0).then_some(())).context("nothing is sent")?;
        if load.pps.is_none() {
            stop::sleep(times.warm)?;
        }
        let before = Look::new(sending.sent(), ends);
        stop::sleep(times.measure)?;
        anyhow::Ok(Look::new(sending.sent(), ends).since(&before))
    })?;
    if load.pps.is_some() {
        let sent = generator.sent();
        stop::sleep(DRAIN)?;
        let received = ends.far.seen().packets - first;
        sample.forwarded = sample.offered * received as f64 / sent as f64;
    }
    Ok(sample)
}

/// Sends a paced load whose packets return, and takes the time of each packet that comes back once the load is on its way.
///
/// # Errors
/// A signal came, or nothing came back.
pub fn round_trip(
    generator: &mut Generator<'_>,
    ends: &mut Ends,
    load: &Load,
    times: Times,
) -> anyhow::Result<Percentiles> {
    // Beside the generator: what this thread does must not take the CPU from the device.
    let _beside = cpu::Pinned::new(cpu::GENERATOR);
    let (done, percentiles) = generator.during(load, |_| {
        stop::sleep(times.warm)?;
        anyhow::Ok(ends.near.times_during(|| stop::sleep(times.measure)))
    })?;
    done?;
    ensure!(percentiles.packets > 0, "nothing came back");
    Ok(percentiles)
}
