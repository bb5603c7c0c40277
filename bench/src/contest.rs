//! Devices that are all set up at once and measured in turn, for a fraction of a second each.
//!
//! A virtual machine is as fast as its host has time for it, and that changes within seconds. Devices that are measured one after the
//! other, some seconds each, are measured on different machines; so a device waits, stopped, until it is its turn again, and a
//! ratio is taken within a round, in which all of them have had their turn within a few seconds.

use std::collections::BTreeSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cpu;
use crate::devices::{Device, Running};
use crate::generator::Generator;
use crate::lab::{Ends, Lab};
use crate::load::Side;
use crate::run::guarded;
use crate::stop;

/// One that takes part.
#[derive(Debug)]
pub struct Contender<'a> {
    /// Goes on before the device is told to end.
    hold: Hold,
    /// The device.
    pub running: Box<dyn Running + 'a>,
    /// At the near guest.
    pub generator: Generator<'a>,
    /// What is on the guests' ends.
    pub ends: Ends,
    /// Namespaces and veths.
    pub lab: &'a Lab,
}

/// Stops processes, and lets them go on when it is dropped.
#[derive(Debug)]
struct Hold(Vec<i32>);

impl Hold {
    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // It may have ended; then nothing comes out of it, which is an error of the measurement.
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
    }
}

impl<'a> Contender<'a> {
    /// Starts a device, waits until it forwards, lets `prepare` have it, and stops it until its turn.
    ///
    /// # Errors
    /// The device's, it does not forward, or those of `prepare`.
    fn new<T>(
        device: &'a dyn Device,
        lab: &'a Lab,
        prepare: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Self, T)> {
        let ends = lab.ends();
        let running = device.start(lab, cpu::DEVICE)?;
        let mut this = Self { hold: Hold(running.pids()), running, generator: lab.generator(Side::Near), ends, lab };
        lab.prime(&this.ends, 1)?;
        let found = prepare(&mut this)?;
        this.hold.signal(Signal::SIGSTOP);
        Ok((this, found))
    }
}

/// A device, and what is asked of it.
#[derive(Debug)]
pub struct Entry<'a> {
    /// What it is called when something fails.
    pub name: String,
    /// The device.
    pub device: &'a dyn Device,
    /// Which questions it answers, in each round.
    pub questions: Vec<usize>,
}

/// Sets all entries up by `prepare`, and lets each answer each of its questions by `ask`, which is told what `prepare` has found out,
/// `rounds` times; what fails is left out from then on, and is in the answer. In every other round the order is reversed, so that a drift is none of the ratio's.
///
/// # Errors
/// A signal came.
pub fn contest<T>(
    entries: &[Entry<'_>],
    rounds: usize,
    mut prepare: impl FnMut(usize, &mut Contender<'_>) -> anyhow::Result<T>,
    mut ask: impl FnMut(usize, usize, &mut Contender<'_>, &T) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<(String, anyhow::Error)>> {
    let mut failed = Vec::new();
    let labs: Vec<Option<Lab>> = entries
        .iter()
        .map(|entry| match guarded(|| Lab::new(entry.device.ports())) {
            Ok(lab) => Some(lab),
            Err(error) => {
                failed.push((entry.name.clone(), error));
                None
            }
        })
        .collect();
    let mut contenders: Vec<Option<(Contender<'_>, T)>> = Vec::with_capacity(entries.len());
    for (at, (entry, lab)) in entries.iter().zip(&labs).enumerate() {
        let set_up = |lab| guarded(|| Contender::new(entry.device, lab, |contender| prepare(at, contender)));
        let contender = match lab.as_ref().map(set_up) {
            Some(Err(error)) => {
                failed.push((entry.name.clone(), error));
                None
            }
            Some(Ok(contender)) => Some(contender),
            None => None,
        };
        contenders.push(contender);
        stop::check()?;
    }
    let questions: BTreeSet<usize> = entries.iter().flat_map(|entry| entry.questions.iter().copied()).collect();
    let forwards: Vec<usize> = (0..entries.len()).collect();
    let backwards: Vec<usize> = forwards.iter().rev().copied().collect();
    for round in 0..rounds {
        for &question in &questions {
            for &at in if round % 2 == 0 { &forwards } else { &backwards } {
                let asked = entries[at].questions.contains(&question);
                let Some((contender, found)) = contenders[at].as_mut().filter(|_| asked) else { continue };
                contender.hold.signal(Signal::SIGCONT);
                let asked = guarded(|| ask(at, question, contender, found));
                contender.hold.signal(Signal::SIGSTOP);
                stop::check()?;
                if let Err(error) = asked {
                    failed.push((entries[at].name.clone(), error));
                    contenders[at] = None;
                }
            }
        }
    }
    Ok(failed)
}
