//! The test's commands on standard input: one command a line, one line of answer each, in order.
//!
//! `@NETDEV` at the start of a line selects the device of that netdev. Without it the first device is meant.

use std::collections::VecDeque;
use std::io::{Read, Write, stdin, stdout};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::launch::Launch;
use super::machine::Machine;
use super::stack::Ping;

/// A command that takes a while.
#[derive(Debug)]
enum Job {
    Ping(Ping),
    Recv(Instant),
}

/// Commands in, answers out.
#[derive(Debug)]
pub struct Control {
    launch: Launch,
    input: Vec<u8>,
    lines: VecDeque<String>,
    job: Option<(Option<String>, Job)>,
    open: bool,
}

/// Prints a line for the test. The program goes on if nobody reads it.
pub fn say(line: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Address of `10.0.0.1/24` or `10.0.0.1`.
pub fn address(text: &str) -> Result<Ipv4Addr, String> {
    let ip = text.split_once('/').map_or(text, |(ip, _)| ip);
    ip.parse().map_err(|_| format!("'{text}' is no IPv4 address"))
}

impl Control {
    /// A control that has read nothing yet.
    pub fn new(launch: Launch) -> Self {
        Self { launch, input: Vec::new(), lines: VecDeque::new(), job: None, open: true }
    }

    /// Whether there may be more to read.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Reads commands once standard input is readable.
    pub fn readable(&mut self) {
        let mut part = [0; 65_536];
        match stdin().lock().read(&mut part) {
            Ok(0) | Err(_) => self.open = false,
            Ok(len) => self.input.extend(&part[..len]),
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.lines.push_back(String::from_utf8_lossy(&line).trim().to_owned());
        }
    }

    /// Time of its next work, if no command comes before.
    pub fn next(&self) -> Option<Instant> {
        match &self.job {
            Some((_, Job::Ping(ping))) => Some(ping.next()),
            Some((_, Job::Recv(until))) => Some(*until),
            None => None,
        }
    }

    /// Goes on with the commands. Returns an exit code if one of them ends the program.
    pub fn advance(&mut self, machine: &mut Machine) -> Option<u8> {
        loop {
            if let Some((netdev, job)) = &mut self.job {
                let answer = match (machine.nic(netdev.as_deref()), job) {
                    (None, _) => Some("error: no such device".to_owned()),
                    (Some((nic, _)), Job::Ping(ping)) => ping.advance(nic),
                    (Some((nic, _)), Job::Recv(until)) => match nic.inbox.pop_front() {
                        Some(frame) => Some(tests::Frame(frame).hex()),
                        None => (Instant::now() >= *until).then(|| "none".to_owned()),
                    },
                };
                say(&answer?);
                self.job = None;
            }
            let line = self.lines.pop_front()?;
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let netdev = words.first().and_then(|word| word.strip_prefix('@')).map(str::to_owned);
            if netdev.is_some() {
                words.remove(0);
            }
            if let ["exit", code] = words[..] {
                return Some(code.parse().unwrap_or(1));
            }
            match self.command(machine, netdev.as_deref(), &words) {
                Ok(None) => {}
                Ok(Some(Reply::Line(answer))) => say(&answer),
                Ok(Some(Reply::Job(job))) => self.job = Some((netdev, job)),
                Err(error) => say(&format!("error: {error}")),
            }
        }
    }

    fn command(&self, machine: &mut Machine, netdev: Option<&str>, words: &[&str]) -> Result<Option<Reply>, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
        let line = |text: String| Ok(Some(Reply::Line(text)));
        match words {
            [] => Ok(None),
            ["status"] => line(self.launch.report().to_string()),
            ["nics"] => line(machine.nics().to_string()),
            ["crash"] => {
                let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
                std::process::abort()
            }
            ["address", ip] => {
                machine.address(netdev, address(ip)?);
                line("ok".to_owned())
            }
            ["ping", ip, count, interval] => {
                let interval = Duration::from_millis(number(interval)?.into());
                Ok(Some(Reply::Job(Job::Ping(Ping::new(address(ip)?, number(count)?, interval)))))
            }
            ["recv", timeout] => {
                let timeout = Duration::from_millis(number(timeout)?.into());
                Ok(Some(Reply::Job(Job::Recv(Instant::now() + timeout))))
            }
            ["send", hex] => {
                let frame = tests::Frame::from_hex(hex).ok_or("a frame is an even number of hex digits")?;
                machine.nic(netdev).ok_or("no such device")?.0.outbox.push_back(frame.0);
                line("ok".to_owned())
            }
            ["count"] => {
                let (nic, netdev) = machine.nic(netdev).ok_or("no such device")?;
                let queues = netdev.map_or(&[][..], |netdev| &netdev.queues);
                let each: Vec<_> = queues
                    .iter()
                    .map(|queue| {
                        let (rx, tx) = (queue.received, queue.sent);
                        json!({ "rx": rx, "tx": tx, "swallowed": queue.swallowed, "reads": queue.read_poll })
                    })
                    .collect();
                let answer = json!({
                    "rx": queues.iter().map(|queue| queue.received).sum::<u64>(),
                    "tx": queues.iter().map(|queue| queue.sent).sum::<u64>(),
                    "swallowed": queues.iter().map(|queue| queue.swallowed).sum::<u64>(),
                    "inbox": nic.inbox.len(),
                    "outbox": nic.outbox.len(),
                    "overflow": nic.overflow,
                    "queues": each,
                });
                line(answer.to_string())
            }
            _ => Err(format!("no command: {}", words.join(" "))),
        }
    }
}

/// Result of a command.
enum Reply {
    Line(String),
    Job(Job),
}
