//! Carries out the commands that [`words`](super::words) reads. The agent and the command line share it.

use std::path::PathBuf;

use super::flow::line::{self, Told};
use super::words::Command;
use super::{Instance, PortId, PrimaryStatus, Proc, ProcType, Spp, SppError};

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command is done.
    Done,
    /// The process exists. Its name is the answer.
    ClientId,
    /// What the process does.
    Status(Box<Status>),
    /// The process has ended.
    Ended,
    /// The answer to a command about flow rules.
    Flow(Told),
}

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The primary, with the counters of ports and rings.
    Primary(PrimaryStatus),
    /// Any other process.
    Secondary {
        /// The instance.
        instance: Instance,
        /// The switch's `phy` ports. A NIC with several queues is there queue by queue.
        nics: Vec<PortId>,
        /// pcap: the files of its capture. The last one is being written.
        files: Vec<PathBuf>,
    },
}

/// Carries out a command.
///
/// # Errors
/// `NotFound`: no such instance; `Refused` or `System` with the reason. Nothing has changed then.
pub fn run(spp: &Spp, proc: Proc, command: &Command) -> Result<Outcome, SppError> {
    match command {
        Command::ClientId => spp.instance(proc).map(|_| Outcome::ClientId),
        Command::Status => status(spp, proc).map(|status| Outcome::Status(Box::new(status))),
        Command::Exit => spp.end(proc).map(|()| Outcome::Ended),
        Command::Change(change) => spp.change(proc, change).map(|()| Outcome::Done),
        Command::Flush => spp.flush(proc).map(|()| Outcome::Done),
        Command::Discard => spp.discard(proc).map(|()| Outcome::Done),
        Command::FlushMode(on) => spp.set_flush_mode(proc, *on).map(|()| Outcome::Done),
        Command::Clear => spp.clear_status().map(|()| Outcome::Done),
        Command::Flow(words) => {
            line::run(spp, &words.iter().map(String::as_str).collect::<Vec<_>>()).map(Outcome::Flow)
        }
        Command::Launch(launch) => spp.launch_confined(launch).map(|()| Outcome::Done),
    }
}

/// What a process does.
///
/// # Errors
/// `NotFound`: no such instance.
pub fn status(spp: &Spp, proc: Proc) -> Result<Status, SppError> {
    if proc.kind == ProcType::Primary {
        return spp.primary_status().map(Status::Primary);
    }
    let instance = spp.instance(proc)?;
    let nics = spp.nics();
    let files = if proc.kind == ProcType::Pcap { spp.capture_files(proc) } else { Vec::new() };
    Ok(Status::Secondary { instance, nics, files })
}
