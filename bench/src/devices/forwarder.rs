//! Lower bound 1: a bare AF_XDP forwarder between two ports, in its own process: `xsk-forward` of `tests/xsk`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tests::programs;

use super::process::Process;
use super::{Device, Running};
use crate::lab::Lab;
use crate::names;

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Forwarder {
    /// Whether it sleeps in poll(2) without work, instead of spinning.
    pub sleep: bool,
}

impl Device for Forwarder {
    fn name(&self) -> String {
        if self.sleep { names::FORWARDER_SLEEPING } else { names::FORWARDER }.to_owned()
    }

    fn kind(&self) -> &'static str {
        "floor"
    }

    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let mut command = lab.switch.command(programs::xsk("xsk-forward"));
        command.args([Lab::port(0), Lab::port(1), cpu.to_string()]).arg(if self.sleep { "sleep" } else { "poll" });
        let mut process = Process(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
        let mut ready = String::new();
        BufReader::new(process.0.stdout.take().context("a pipe")?).read_line(&mut ready)?;
        ensure!(ready.trim() == "ready", "the forwarder did not start");
        Ok(Box::new(Forwarding(process)))
    }
}

#[derive(Debug)]
struct Forwarding(Process);

impl Running for Forwarding {
    fn pids(&self) -> Vec<i32> {
        vec![self.0.pid()]
    }
}
