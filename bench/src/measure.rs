//! One measurement: a load through a running device, the packets that come out, and the CPUs' work meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::wait;

use crate::cpu::{self, Clock};
use crate::generator::Generator;
use crate::lab::Ends;
use crate::load::Load;
use crate::results::{Percentiles, Sample};
use crate::stop;

/// Times of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Load before counting starts.
    pub warm: Duration,
    /// Time while packets are counted.
    pub measure: Duration,
    /// Time without traffic, for memory and idle CPU.
    pub idle: Duration,
}

impl Times {
    /// A turn in a [`contest`](crate::contest): a fraction of a second, so that all have had their turn before the
    /// machine changes.
    pub fn of_a_turn(self) -> Self {
        Self { warm: self.warm / 5, measure: self.measure / 4, ..self }
    }
}

/// Time for packets on their way to arrive.
const DRAIN: Duration = Duration::from_millis(50);
/// Longest time until a load begins.
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

    /// Rates and shares between `before` and this look.
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

/// Sends a load and counts the packets that arrive at the far guest.
///
/// At full speed the count starts and ends while packets are on their way. With a paced load every packet is waited
/// for, so that the loss is exact: the share of sent packets that did not arrive.
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
        // The first call takes time to begin.
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

/// Sends a paced load whose packets return. Takes the time of each packet that comes back once the load is on its way.
///
/// # Errors
/// A signal came, or nothing came back.
pub fn round_trip(
    generator: &mut Generator<'_>,
    ends: &mut Ends,
    load: &Load,
    times: Times,
) -> anyhow::Result<Percentiles> {
    // On the generator's CPU, because this thread must not take CPU from the device.
    let _beside = cpu::Pinned::new(cpu::GENERATOR);
    let (done, percentiles) = generator.during(load, |_| {
        stop::sleep(times.warm)?;
        anyhow::Ok(ends.near.times_during(|| stop::sleep(times.measure)))
    })?;
    done?;
    ensure!(percentiles.packets > 0, "nothing came back");
    Ok(percentiles)
}
