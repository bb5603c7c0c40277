//! `qemu`: cards of guests in QEMU. The commands talk to the daemon's hand-over socket and to QEMU's monitor.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use ctl_guest::client::HandOver;
use ctl_guest::protocol::Request;
use ctl_qemu::check::warn_of_queues;
use ctl_qemu::hotplug::{AttachOptions, DetachOptions, attach, detach};
use ctl_qemu::options::{DEFAULT_DRIVER, Sockets, command_line, libvirt_xml};
use ctl_stdio::complain;
use serde_json::{Value, json};

use crate::print::{Printer, print};
use crate::run::{self, RunArguments};

/// `qemu`.
#[derive(Debug, Subcommand)]
pub enum QemuCommand {
    /// Run QEMU without privileges. It inherits the sockets of its ports.
    Run(Box<RunArguments>),
    /// Give a running QEMU the card of a port.
    Attach(AttachArguments),
    /// Take the card of a port from a running QEMU.
    Detach(DetachArguments),
    /// Print the options that give QEMU the card of a port.
    Args(ArgsArguments),
    /// Declare the sockets of a port unused, although the process that got them still lives.
    Release(ReleaseArguments),
}

/// `qemu attach`.
#[derive(Debug, Args)]
pub struct AttachArguments {
    /// Port, by name or number.
    pub port: String,
    /// QEMU's QMP socket.
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,
    /// Bus for the card, such as a pcie-root-port of q35. Default: QEMU's choice.
    #[arg(long)]
    pub bus: Option<String>,
    /// Driver of the card, with further properties if needed: DRIVER[,NAME=VALUE]….
    #[arg(long, value_name = "DRIVER", default_value = DEFAULT_DRIVER)]
    pub device: String,
    /// QEMU's process. Default: the one that listens on the QMP socket.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
}

/// `qemu detach`.
#[derive(Debug, Args)]
pub struct DetachArguments {
    /// Port, by name or number.
    pub port: String,
    /// QEMU's QMP socket.
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,
    /// Time for the guest to release the card, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub timeout: u64,
}

/// `qemu args`.
#[derive(Debug, Args)]
pub struct ArgsArguments {
    /// Port, by name or number.
    pub port: String,
    /// Descriptor number of the first queue's socket in QEMU. Those of the other queues follow.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i32).range(3..=1_000_000))]
    pub fd: i32,
    /// Let QEMU create the sockets. This takes a privileged QEMU 10.1 or later.
    #[arg(long, conflicts_with = "fd")]
    pub map_path: bool,
    /// Print an element for a libvirt domain instead. QEMU then creates the sockets itself.
    #[arg(long, conflicts_with = "fd")]
    pub libvirt: bool,
}

/// `qemu release`.
#[derive(Debug, Args)]
pub struct ReleaseArguments {
    /// Port, by name or number.
    pub port: String,
    /// Do so even if the process still has them. They get no packets from then on.
    #[arg(long)]
    pub force: bool,
}

/// Executes a command and returns the exit code.
///
/// # Errors
/// A refusal by the daemon or QEMU, or a failure on the way to them.
pub async fn run(run_dir: &Path, json: bool, command: QemuCommand) -> anyhow::Result<u8> {
    let printer = Printer { json };
    let done = match command {
        QemuCommand::Run(arguments) => return run::launch(run_dir, *arguments).await,
        QemuCommand::Attach(arguments) => {
            let AttachArguments { port, qmp, bus, device: driver, pid } = arguments;
            let done = attach(run_dir, &AttachOptions { port, qmp, bus, driver, pid })?;
            let offer = &done.offer;
            if let Some(warning) = warn_of_queues(&offer.port, offer.queues) {
                complain(format_args!("xswitch: {warning}"));
            }
            let answer = json!({
                "port": offer.port, "pid": done.pid, "netdev": done.netdev, "device": done.device,
                "ifname": offer.ifname, "mac": offer.mac, "queues": offer.queues,
            });
            let text = format!(
                "process {} has port {} as {} ({}) on {}",
                done.pid, offer.port, done.device, offer.mac, offer.ifname
            );
            printer.done(&answer, &text)
        }
        QemuCommand::Detach(arguments) => {
            let timeout = Duration::from_secs(arguments.timeout);
            let done = detach(run_dir, &DetachOptions { port: arguments.port, qmp: arguments.qmp, timeout })?;
            let answer = json!({ "port": done.offer.port, "netdev": done.netdev, "device": done.device });
            let gone: Vec<_> = done.device.iter().chain(&done.netdev).map(String::as_str).collect();
            let text = match gone.as_slice() {
                [] => format!("QEMU had nothing of port {}, which is free", done.offer.port),
                [one] => format!("{one} is gone, and port {} is free", done.offer.port),
                more => format!("{} are gone, and port {} is free", more.join(" and "), done.offer.port),
            };
            printer.done(&answer, &text)
        }
        QemuCommand::Args(arguments) => {
            let request = Request::Describe { port: arguments.port, open: arguments.map_path || arguments.libvirt };
            let (offer, _) = HandOver::connect(run_dir)?.ask(&request)?;
            if arguments.libvirt {
                let xml = libvirt_xml(&offer, DEFAULT_DRIVER);
                let printed = if json { printer.done(&Value::String(xml), "") } else { print(&xml) };
                return printed.map(|()| 0);
            }
            let sockets = if arguments.map_path {
                Sockets::Map
            } else {
                Sockets::Numbers((0..offer.queues.cast_signed()).map(|queue| arguments.fd + queue).collect())
            };
            let words = command_line(&offer, &sockets, DEFAULT_DRIVER);
            let lines: Vec<_> = words
                .chunks(2)
                .map(|pair| pair.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
                .collect();
            printer.done(&json!(words), &lines.join("\n"))
        }
        QemuCommand::Release(arguments) => {
            let request = Request::Release { port: arguments.port, force: arguments.force };
            let (offer, _) = HandOver::connect(run_dir)?.ask(&request)?;
            printer.done(&serde_json::to_value(&offer)?, &format!("port {} is free", offer.port))
        }
    };
    done.map(|()| 0)
}

/// Quotes a word for the shell, if it contains characters that the shell could interpret.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn parse(line: &str) -> Result<QemuCommand, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| match arguments.command {
            Command::Qemu(command) => command,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn commands_have_their_defaults() {
        let QemuCommand::Attach(attach) = parse("xswitch qemu attach vm1 --qmp /q").unwrap() else { panic!() };
        assert_eq!((attach.device.as_str(), attach.bus, attach.pid), (DEFAULT_DRIVER, None, None));
        let QemuCommand::Detach(detach) = parse("xswitch qemu detach vm1 --qmp /q").unwrap() else { panic!() };
        assert_eq!(detach.timeout, 30);
        let QemuCommand::Args(args) = parse("xswitch qemu args vm1 --map-path").unwrap() else { panic!() };
        assert_eq!((args.fd, args.map_path, args.libvirt), (10, true, false));
        for bad in [
            "xswitch qemu attach vm1",
            "xswitch qemu attach vm1 --qmp /q --pid 0",
            "xswitch qemu args vm1 --fd 0",
            "xswitch qemu args vm1 --fd 7 --map-path",
            "xswitch qemu release",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_would_read_them_otherwise() {
        let plain = "af-xdp,id=xsw0,ifname=xsg-vm1,sock-fds=10:11,map-path=/sys/fs/bpf/x";
        assert_eq!(quoted(plain), plain);
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("a'$b"), r"'a'\''$b'");
        assert_eq!(quoted(""), "''");
    }
}
