//! A stand-in for `qemu-system-x86_64` with an af-xdp netdev, for quick tests of what starts and feeds a QEMU.
//!
//! It takes QEMU's options, and treats an inherited AF_XDP socket as QEMU 10.2 does. It speaks the part of QMP that hot
//! plug needs. Its guest has a tiny stack that a test controls by standard input ([`control`]).
//!
//! Only the double has the option `-guest [netdev=ID,]ip=ADDRESS[/PREFIX]`. The environment variable
//! `QEMU_DOUBLE_GUEST` gives the same, several with `;` between. Other variables:
//!
//! - `QEMU_DOUBLE_VERSION`: the reported version, 10.2.2 by default.
//! - `QEMU_DOUBLE_NO_AF_XDP`: acts as a QEMU built without AF_XDP.
//! - `QEMU_DOUBLE_FAIL`: QMP commands that fail, separated by commas.
//! - `QEMU_DOUBLE_KEEP_DEVICE`: the guest never releases a device.
#![allow(unsafe_code, reason = "system calls, and packet memory as QEMU uses it")]

mod control;
mod launch;
mod machine;
mod netdev;
mod options;
mod qmp;
mod stack;
mod xsk;

use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::Instant;

use ::tests::narrow;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;

use control::{Control, address, say};
use launch::Launch;
use machine::{Machine, event};
use options::{BACKENDS, Params, has_af_xdp};
use qmp::{Monitor, Next};

/// QEMU's options without a value. Others take the next word, unless that is an option too.
const FLAGS: [&str; 16] = [
    "S",
    "s",
    "nographic",
    "nodefaults",
    "no-user-config",
    "no-reboot",
    "no-shutdown",
    "no-acpi",
    "no-hpet",
    "enable-kvm",
    "snapshot",
    "full-screen",
    "usb",
    "mem-prealloc",
    "preconfig",
    "only-migratable",
];

/// What the command line asks for.
#[derive(Debug, Default)]
struct CommandLine {
    netdevs: Vec<String>,
    devices: Vec<String>,
    monitors: Vec<String>,
    guests: Vec<String>,
}

/// What the command line makes the program do.
enum Action {
    Run(CommandLine),
    Print(String),
}

fn version() -> String {
    std::env::var("QEMU_DOUBLE_VERSION").unwrap_or_else(|_| "10.2.2".to_owned())
}

fn parse(args: impl IntoIterator<Item = String>) -> Result<Action, String> {
    let mut line = CommandLine::default();
    if let Ok(guests) = std::env::var("QEMU_DOUBLE_GUEST") {
        line.guests.extend(guests.split(';').map(str::to_owned));
    }
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { continue };
        let mut value = || args.next().ok_or_else(|| format!("{arg}: requires an argument"));
        match name {
            "version" => {
                let text = format!("QEMU emulator version {}\nNo emulator: the tests' double of one", version());
                return Ok(Action::Print(text));
            }
            "netdev" => line.netdevs.push(value()?),
            "device" => line.devices.push(value()?),
            "qmp" => line.monitors.push(value()?),
            "guest" => line.guests.push(value()?),
            _ if FLAGS.contains(&name) => {}
            _ => {
                args.next_if(|next| !next.starts_with('-'));
            }
        }
    }
    if line.netdevs.iter().any(|netdev| ["help", "?"].contains(&netdev.as_str())) {
        let backends = BACKENDS.into_iter().filter(|backend| *backend != "af-xdp" || has_af_xdp());
        let list: Vec<&str> = backends.collect();
        return Ok(Action::Print(format!("Available netdev backend types:\n{}", list.join("\n"))));
    }
    Ok(Action::Run(line))
}

/// Everything that the main loop serves.
struct Emulator {
    machine: Machine,
    monitors: Vec<Monitor>,
    control: Control,
    signals: SignalFd,
    program: String,
}

impl Emulator {
    /// Sets up everything in QEMU's order: monitors, netdevs, devices.
    fn start(line: &CommandLine, program: &str) -> Result<Self, String> {
        let control = Control::new(Launch::look());
        let mut set = SigSet::empty();
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| set.add(signal));
        let signals = set.thread_block().and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC));
        let signals = signals.map_err(|errno| format!("signalfd: {errno}"))?;
        let mut machine = Machine::default();
        let mut monitors = Vec::new();
        for text in &line.monitors {
            monitors.push(Monitor::open(text, &version()).map_err(|error| format!("-qmp {text}: {error}"))?);
        }
        for text in &line.guests {
            let guest = |text: &str| {
                let params = Params::parse(text, "ip")?;
                Ok((params.text("netdev")?.map(str::to_owned), address(params.required("ip")?)?))
            };
            let (netdev, ip) = guest(text).map_err(|error: String| format!("-guest {text}: {error}"))?;
            machine.address(netdev.as_deref(), ip);
        }
        for text in &line.netdevs {
            let made = Params::parse(text, "type").map_err(Into::into).and_then(|it| machine.netdev_add(&it, None));
            made.map_err(|failure| format!("-netdev {text}: {}", failure.desc))?;
        }
        for text in &line.devices {
            let made = Params::parse(text, "driver").map_err(Into::into).and_then(|it| machine.device_add(&it));
            made.map_err(|failure| format!("-device {text}: {}", failure.desc))?;
        }
        for netdev in machine.lonely() {
            eprintln!("{program}: warning: netdev {netdev} has no peer");
        }
        Ok(Self { machine, monitors, control, signals, program: program.to_owned() })
    }

    /// Runs the loop once. Returns an exit code at the end.
    fn round(&mut self) -> Option<u8> {
        // One part may give work to another. The guest's stack gives it to the netdev, and a removed device to the
        // monitors.
        if let Some(code) = self.control.advance(&mut self.machine) {
            return Some(code);
        }
        self.machine.advance();
        for event in std::mem::take(&mut self.machine.events) {
            self.monitors.iter_mut().for_each(|monitor| monitor.tell(&event));
        }
        let read = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let input = if self.control.is_open() { 0 } else { -1 };
        let mut polls = vec![read(self.signals.as_fd().as_raw_fd()), read(input)];
        polls.extend(self.monitors.iter().map(|monitor| read(monitor.fd())));
        let others = polls.len();
        polls.extend(self.machine.polls());
        let next = [self.control.next(), self.machine.next()].into_iter().flatten().min();
        // Rounded up, so that the loop does not wake up too early and run for nothing.
        let wait = next
            .map_or(-1, |at| narrow::<i32>(at.saturating_duration_since(Instant::now()).as_millis().min(60_000)) + 1);
        // SAFETY: a live array with its length.
        let found = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, wait) };
        if found <= 0 {
            return None;
        }
        self.machine.dispatch(&polls[others..]);
        if polls[0].revents != 0
            && let Ok(Some(signal)) = self.signals.read_signal()
        {
            eprintln!("{}: terminating on signal {} from pid {}", self.program, signal.ssi_signo, signal.ssi_pid);
            self.shutdown("host-signal");
            return Some(0);
        }
        if polls[1].revents != 0 {
            self.control.readable();
        }
        for (monitor, poll) in self.monitors.iter_mut().zip(&polls[2..others]) {
            if poll.revents != 0 && monitor.readable(&mut self.machine) == Next::Quit {
                self.shutdown("host-qmp-quit");
                return Some(0);
            }
        }
        None
    }

    fn shutdown(&mut self, reason: &str) {
        let event = event("SHUTDOWN", json!({ "guest": false, "reason": reason }));
        self.monitors.iter_mut().for_each(|monitor| monitor.tell(&event));
    }
}

fn run(program: &str, args: impl IntoIterator<Item = String>) -> Result<u8, String> {
    let line = match parse(args)? {
        Action::Print(text) => {
            say(&text);
            return Ok(0);
        }
        Action::Run(line) => line,
    };
    let mut emulator = Emulator::start(&line, program)?;
    say("ready");
    loop {
        if let Some(code) = emulator.round() {
            return Ok(code);
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    match run(program, args) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("{program}: {message}");
            ExitCode::FAILURE
        }
    }
}
