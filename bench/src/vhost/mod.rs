//! Guests at vhost-user ports: packets between two of them, both ways, through a switch with one core.
//!
//! All switches are set up at once and take turns, as in a [`contest`](crate::contest). The guests are this process, so
//! there is no virtual machine whose speed would count. They send as much as the rings take.

pub mod devices;
mod guest;
mod veth;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tests::{NetNs, wait};

use self::devices::{Device, DpdkTestpmd, OpenVswitch, Running, Xswitch};
use self::guest::{Counts, Guest};
use crate::contest::Hold;
use crate::cpu::{self, Clock};
use crate::measure::Times;
use crate::peers::Peers;
use crate::results::{Experiment, Sample};
use crate::run::{Run, guarded};
use crate::stop;

/// Lengths on the wire, FCS included.
const FRAMES: [u32; 2] = [64, 1500];
/// Longest time until a switch forwards.
const PATIENCE: Duration = Duration::from_secs(60);
/// Packets that arrive before it counts as forwarding.
const PRIME: u64 = 10_000;

/// A switch with guests of its own, stopped until its turn.
#[derive(Debug)]
struct Contender<'a> {
    name: String,
    experiment: Experiment,
    hold: Hold,
    guests: [Guest; 2],
    /// It ends after the guests.
    _running: Box<dyn Running + 'a>,
}

impl<'a> Contender<'a> {
    fn new(device: &'a dyn Device, ns: &'a Arc<NetNs>, packed: bool) -> anyhow::Result<Self> {
        let running = device.start(ns)?;
        let mut guests = [Guest::new(0, packed)?, Guest::new(1, packed)?];
        for (guest, socket) in guests.iter_mut().zip(running.sockets()) {
            guest.connect(&socket)?;
        }
        let experiment = if packed { Experiment::VhostPacked } else { Experiment::VhostSplit };
        let hold = Hold(running.pids());
        let mut this = Self { name: device.name(), experiment, hold, guests, _running: running };
        this.prime()?;
        this.hold.signal(Signal::SIGSTOP);
        Ok(this)
    }

    /// Waits until packets arrive both ways. Open vSwitch sets its ports up anew when guests have connected.
    fn prime(&mut self) -> anyhow::Result<()> {
        let (counts, over) = (Counts::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| guest::run(&mut self.guests, &counts, &over));
            let arrived = wait::until(PATIENCE, || (counts.received.load(Ordering::Relaxed) > PRIME).then_some(()));
            over.store(true, Ordering::Relaxed);
            arrived.context("it forwards nothing")
        })
    }

    /// One measurement.
    fn measure(&mut self, frame: u32, times: Times) -> anyhow::Result<Sample> {
        self.hold.signal(Signal::SIGCONT);
        self.guests.iter_mut().for_each(|guest| guest.set_frame(frame));
        let (counts, over) = (Counts::default(), AtomicBool::new(false));
        let sample = std::thread::scope(|scope| {
            let sending = scope.spawn(|| guest::run(&mut self.guests, &counts, &over));
            let sample = look(&counts, frame, times);
            over.store(true, Ordering::Relaxed);
            ensure!(sending.join().is_ok(), "the device breaks its rings");
            sample
        });
        self.hold.signal(Signal::SIGSTOP);
        sample
    }
}

/// Counts what arrives while the guests send.
fn look(counts: &Counts, frame: u32, times: Times) -> anyhow::Result<Sample> {
    stop::sleep(times.warm)?;
    let now = || {
        let cpus = [cpu::DEVICE, cpu::GENERATOR].map(Clock::read);
        let count = [&counts.sent, &counts.received, &counts.bytes].map(|count| count.load(Ordering::Relaxed));
        (Instant::now(), count, cpus)
    };
    let (start, before, cpus) = now();
    stop::sleep(times.measure)?;
    let (end, after, cpus_after) = now();
    let seconds = (end - start).as_secs_f64();
    let [sent, received, bytes] = [0, 1, 2].map(|at| after[at] - before[at]);
    ensure!(received > 0, "nothing arrives");
    // Single packets may be of the length before.
    let length = bytes as f64 / received as f64;
    let expected = f64::from(guest::buffer_len(frame));
    ensure!((length - expected).abs() < 1.0, "packets of {length} bytes arrive instead of {expected}");
    let share = |at: usize| cpus_after[at].since(cpus[at], seconds);
    let (looks, idle) = (counts.looks.load(Ordering::Relaxed), counts.idle.load(Ordering::Relaxed));
    eprintln!("    the guests found nothing to do in {:.0} % of their looks", idle as f64 * 1e2 / looks as f64);
    Ok(Sample {
        offered: sent as f64 / seconds,
        forwarded: received as f64 / seconds,
        device_cpu: share(0),
        generator_cpu: share(1),
    })
}

/// Measures all switches that take part, and saves.
///
/// # Errors
/// A signal came, or the results can't be written.
pub fn measure(run: &mut Run, peers: Option<&Arc<Peers>>) -> anyhow::Result<()> {
    let mut devices: Vec<Box<dyn Device>> = vec![Box::new(Xswitch)];
    if let Some(peers) = peers {
        devices.push(Box::new(OpenVswitch(Arc::clone(peers))));
        devices.push(Box::new(DpdkTestpmd(Arc::clone(peers))));
    }
    devices.retain(|device| run.plan.wants(device.kind()));
    let ns = devices.iter().map(|device| [false, true].map(|_| Arc::new(NetNs::new(device.kind()))));
    let ns: Vec<_> = ns.collect();
    let mut contenders = Vec::new();
    for (device, ns) in devices.iter().zip(&ns) {
        run.note_version(device.version());
        for (packed, ns) in [false, true].into_iter().zip(ns) {
            match guarded(|| Contender::new(&**device, ns, packed)) {
                Ok(contender) => contenders.push(contender),
                Err(error) => run.skip(&format!("{}, packed {packed}", device.name()), &error),
            }
            stop::check()?;
        }
    }
    let (rounds, times) = (run.plan.rounds, run.plan.times.of_a_turn());
    for round in 0..rounds {
        for (frame, experiment) in
            FRAMES.into_iter().flat_map(|frame| [Experiment::VhostSplit, Experiment::VhostPacked].map(|e| (frame, e)))
        {
            let mut turns: Vec<usize> = (0..contenders.len()).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for at in turns {
                let contender = &mut contenders[at];
                if contender.experiment != experiment {
                    continue;
                }
                let sample = guarded(|| contender.measure(frame, times).context("a turn"));
                stop::check()?;
                match sample {
                    Ok(sample) => {
                        eprintln!(
                            "  {}, {experiment:?}, {frame} B: {:.3} Mpps",
                            contender.name,
                            sample.forwarded / 1e6
                        );
                        run.point(experiment, &contender.name, frame, f64::from(frame)).samples.push(sample);
                    }
                    Err(error) => run.skip(&format!("{experiment:?}, {}", contender.name), &error),
                }
            }
        }
    }
    drop(contenders);
    run.save()?;
    veth::measure(run)
}
