//! Devices that are all set up at once and take turns, a fraction of a second each.
//!
//! A virtual machine is as fast as its host lets it be, and that changes within seconds. Devices measured one after the
//! other, some seconds each, would be measured on different machines. So each device is stopped until its turn comes. A
//! ratio is taken within a round, in which all have had their turn within a few seconds.

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

/// A device that takes part.
#[derive(Debug)]
pub struct Contender<'a> {
    /// Lets the processes go on before the device ends.
    hold: Hold,
    /// The device.
    pub running: Box<dyn Running + 'a>,
    /// The generator at the near guest.
    pub generator: Generator<'a>,
    /// What is on the guests' ends.
    pub ends: Ends,
    /// Namespaces and veths.
    pub lab: &'a Lab,
}

/// Stops processes. They go on when it is dropped.
#[derive(Debug)]
pub(crate) struct Hold(pub(crate) Vec<i32>);

impl Hold {
    pub(crate) fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // The process may have ended. Then the measurement fails, because nothing comes out of it.
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
    /// Starts a device, waits until it forwards, runs `prepare` on it, and stops it until its turn.
    ///
    /// # Errors
    /// Those of the device or of `prepare`, or it does not forward.
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

/// A device and its questions.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Name in messages.
    pub name: String,
    /// The device.
    pub device: &'a dyn Device,
    /// The questions that it answers in each round.
    pub questions: Vec<usize>,
}

/// Sets up all entries by `prepare`. Then each answers its questions, `rounds` times. `ask` gets the result of
/// `prepare`. An entry that fails is left out from then on, and its error is in the answer.
///
/// Every other round goes in reverse order, so that a drift does not show in ratios.
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
