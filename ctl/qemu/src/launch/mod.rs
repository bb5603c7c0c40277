//! `xswitch qemu run`: replaces this process by an unprivileged QEMU with sockets of the switch.
//!
//! The daemon hands the sockets to this process, and QEMU inherits them over `execve`. So the process that holds the
//! lease is QEMU itself, and the command's signals and exit code are QEMU's. With a restart policy this process stays.
//! It then runs itself without the policy for each start.

mod privileges;
mod restart;

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use ctl_guest::client::HandOver;
use ctl_guest::protocol::{Offer, Request};
use ctl_stdio::complain;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use self::privileges::{Account, drop_privileges, enter, raise_memlock};
pub use self::restart::{keep_running, one_start};
use super::check::warn_of_queues;
use super::options::{DEFAULT_DRIVER, Sockets, command_line, device_properties, netdev_properties};

/// Exit code if QEMU was not started, because of the command's arguments or the daemon.
pub const NOT_LAUNCHED: u8 = 125;
/// Exit codes if QEMU's program can't be run, or does not exist (the shell's convention).
const CANNOT_RUN: u8 = 126;
const NO_PROGRAM: u8 = 127;
/// Name that stands for the first port of the command line in QEMU's options.
const ANY_PORT: &str = "PORT";

/// Options of `xswitch qemu run`.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The daemon's run directory.
    pub run_dir: PathBuf,
    /// Ports, by name or number.
    pub ports: Vec<String>,
    /// User to run as. By default it is the caller.
    pub user: Option<String>,
    /// QEMU's program and options.
    pub command: Vec<OsString>,
}

/// A port with the descriptor numbers of its sockets.
#[derive(Debug)]
struct Nic {
    offer: Offer,
    fds: Vec<i32>,
}

impl Nic {
    fn sockets(&self) -> Sockets {
        Sockets::Numbers(self.fds.clone())
    }
}

/// Replaces this process by QEMU. Returns only on failure.
pub fn run(launch: &Launch) -> anyhow::Error {
    match prepare(launch) {
        Ok((mut command, sockets)) => {
            let error = command.exec();
            drop(sockets);
            let program = command.get_program().to_string_lossy().into_owned();
            let code = if error.kind() == std::io::ErrorKind::NotFound { NO_PROGRAM } else { CANNOT_RUN };
            anyhow::Error::new(NotRun { program, source: error, code })
        }
        Err(error) => error,
    }
}

/// QEMU's program can't be run.
#[derive(Debug, thiserror::Error)]
#[error("running {program}")]
struct NotRun {
    program: String,
    source: std::io::Error,
    code: u8,
}

/// Exit code for an error of [`run`].
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<NotRun>().map_or(NOT_LAUNCHED, |error| error.code)
}

fn prepare(launch: &Launch) -> anyhow::Result<(Command, Vec<OwnedFd>)> {
    let Some((program, arguments)) = launch.command.split_first() else { bail!("QEMU's command line is empty") };
    if let Some(option) = arguments.iter().find(|option| ["-daemonize", "--daemonize"].iter().any(|bad| option == bad))
    {
        bail!(
            "{}: QEMU would go on in another process, and the daemon would take its sockets for free: let a service \
             manager or `&` put it in the background",
            option.display()
        );
    }
    let account = launch.user.as_deref().map(Account::find).transpose()?;
    let daemon = HandOver::connect(&launch.run_dir)?;
    let (mut nics, mut sockets, mut namespaces) = (Vec::new(), Vec::new(), Vec::new());
    for port in &launch.ports {
        let request = Request::Sockets { port: port.clone(), pid: None, netns: true };
        let (offer, mut fds) = daemon.ask(&request).with_context(|| format!("port {port}"))?;
        namespaces.extend(fds.pop());
        if fds.len() != offer.queues as usize {
            bail!("port {port}: the daemon sent {} sockets for {} queues", fds.len(), offer.queues);
        }
        if let Some(warning) = warn_of_queues(&offer.port, offer.queues) {
            complain(format_args!("xswitch: {warning}"));
        }
        if nics.iter().any(|nic: &Nic| nic.offer.port == offer.port) {
            bail!("port {} is named twice", offer.port);
        }
        nics.push(Nic { offer, fds: fds.iter().map(AsRawFd::as_raw_fd).collect() });
        sockets.extend(fds);
    }
    drop(daemon);
    let arguments = fill(arguments, &nics)?;
    let memlock = raise_memlock(nics.iter().map(|nic| nic.offer.memlock).max().unwrap_or_default())?;
    enter(&namespaces, &nics)?;
    for socket in &sockets {
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).context("keeping a socket over execve")?;
    }
    drop_privileges(account.as_ref(), memlock)?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(Account { name, home, .. }) = &account {
        command.env("USER", name).env("LOGNAME", name).env("HOME", home);
    }
    Ok((command, sockets))
}

/// Inserts the properties of the ports into QEMU's options.
///
/// They replace `@NAME` among the properties of a `-netdev` or `-device`. A port that is not named this way gets two
/// options of its own at the end.
fn fill(arguments: &[OsString], nics: &[Nic]) -> anyhow::Result<Vec<OsString>> {
    let find = |name: &str| {
        let named = nics.iter().find(|nic| nic.offer.port == name || nic.offer.vport.to_string() == name);
        named.or_else(|| nics.first().filter(|_| name == ANY_PORT))
    };
    let mut used = vec![false; nics.len()];
    let mut filled: Vec<OsString> = Vec::new();
    for argument in arguments {
        let option = filled.last().and_then(|last| last.to_str()).map(|last| last.trim_start_matches('-'));
        let (Some(text), Some(option @ ("netdev" | "device"))) = (argument.to_str(), option) else {
            filled.push(argument.clone());
            continue;
        };
        let mut properties = Vec::new();
        for property in split(text) {
            let Some(name) = property.strip_prefix('@') else {
                properties.push(property.to_owned());
                continue;
            };
            let Some(nic) = find(name) else {
                bail!("-{option} {text}: @{name} is none of the ports of this command line: name it before `--`");
            };
            used.iter_mut().zip(nics).filter(|(_, of)| std::ptr::eq(*of, nic)).for_each(|(used, _)| *used = true);
            properties.push(match option {
                "netdev" => netdev_properties(&nic.offer, &nic.sockets()),
                _ => device_properties(&nic.offer, driver(text)),
            });
        }
        filled.push(properties.join(",").into());
    }
    for (nic, _) in nics.iter().zip(used).filter(|(_, used)| !used) {
        filled.extend(command_line(&nic.offer, &nic.sockets(), DEFAULT_DRIVER).map(OsString::from));
    }
    Ok(filled)
}

/// The driver of a `-device`: its first property, or the one called `driver`.
fn driver(text: &str) -> &str {
    let properties = split(text);
    let named = properties.iter().find_map(|property| property.strip_prefix("driver="));
    named.or(properties.first().copied()).unwrap_or_default()
}

/// Splits an option into its properties. They are separated by commas, and two commas stand for a literal one.
fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if bytes[at] != b',' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b',') {
            at += 2;
        } else {
            parts.push(&text[start..at]);
            at += 1;
            start = at;
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use model::{MacAddr, Mode};

    fn nic(vport: u16, port: &str, fds: &[i32]) -> Nic {
        let offer = Offer {
            port: port.to_owned(),
            vport,
            ifname: format!("xg{vport}"),
            netns: None,
            mac: MacAddr::new([2, 0, 0, 0, 0, vport as u8]),
            mtu: 1500,
            mode: Mode::Native,
            queues: fds.len() as u32,
            memlock: 40 << 20,
            map_path: Some("/sys/fs/bpf/x".to_owned()),
        };
        Nic { offer, fds: fds.to_vec() }
    }

    fn filled(line: &str, nics: &[Nic]) -> anyhow::Result<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Ok(fill(&words, nics)?.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn a_port_that_no_option_names_gets_two_of_its_own() {
        let text = filled("-m 128", &[nic(3, "vm1", &[7])]).unwrap();
        assert_eq!(
            text,
            "-m 128 -netdev af-xdp,id=xsw3,ifname=xg3,mode=native,queues=1,inhibit=on,sock-fds=7 \
             -device virtio-net-pci,netdev=xsw3,id=xsw3-nic,mac=02:00:00:00:00:03"
        );
    }

    #[test]
    fn placeholders_are_filled_where_they_stand() {
        let nics = [nic(3, "vm1", &[7]), nic(4, "vm2", &[8])];
        let line = "-netdev af-xdp,id=a,@vm1 -device e1000,@PORT,netdev=a --netdev @4,type=af-xdp,id=b -name x,@y,,z";
        assert_eq!(
            filled(line, &nics).unwrap(),
            "-netdev af-xdp,id=a,ifname=xg3,mode=native,queues=1,inhibit=on,sock-fds=7 \
             -device e1000,mac=02:00:00:00:00:03,netdev=a \
             --netdev ifname=xg4,mode=native,queues=1,inhibit=on,sock-fds=8,type=af-xdp,id=b -name x,@y,,z"
        );
        let error = filled("-netdev af-xdp,@vm3", &nics).unwrap_err();
        assert!(error.to_string().contains("@vm3"), "{error}");
        assert_eq!(split("a,b,,c,@d"), ["a", "b,,c", "@d"]);
        assert_eq!(split(""), [""]);
    }
}
