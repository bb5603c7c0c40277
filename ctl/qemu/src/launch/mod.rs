//! `xswitch qemu run`: replaces this process by an unprivileged QEMU with sockets of the switch.
//!
//! The daemon hands the sockets of `guest` ports to this process, and QEMU inherits them over `execve`. So the process
//! that holds the lease is QEMU itself, and the command's signals and exit code are QEMU's. `vhost` and `tap` ports are
//! reached by QEMU itself. With a restart policy this process stays. It then runs itself without the policy for each
//! start.

mod privileges;
mod restart;

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use ctl_guest::client::HandOver;
use ctl_guest::protocol::{Offer, Request};
use ctl_stdio::complain;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Gid, getegid, geteuid, getgroups};

use self::privileges::{Account, drop_privileges, enter, raise_memlock};
pub use self::restart::{keep_running, one_start};
use super::check::warn_of_queues;
use super::direct::{Abilities, DirectPort, Net, Place, is_emulated, shared_memory};
use super::options::{DEFAULT_DRIVER, Sockets, command_line, device_properties, netdev_properties};

/// Exit code if QEMU was not started, because of the command's arguments or the daemon.
pub const NOT_LAUNCHED: u8 = 125;
/// Exit codes if QEMU's program can't be run, or does not exist (the shell's convention).
const CANNOT_RUN: u8 = 126;
const NO_PROGRAM: u8 = 127;
/// The device by which taps are opened.
const TUN: &str = "/dev/net/tun";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Name that stands for the first port of the command line in QEMU's options.
const ANY_PORT: &str = "PORT";

/// Options of `xswitch qemu run`.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The daemon's run directory.
    pub run_dir: PathBuf,
    /// Ports, in the order of the command line.
    pub ports: Vec<LaunchPort>,
    /// How QEMU is to be connected to them, if that was said.
    pub net: Option<Net>,
    /// User to run as. By default it is the caller.
    pub user: Option<String>,
    /// QEMU's program and options.
    pub command: Vec<OsString>,
}

/// A port of a command line.
#[derive(Clone, Debug)]
pub struct LaunchPort {
    /// Its name or number, as it was given.
    pub name: String,
    /// What it is, if QEMU reaches it by itself. Otherwise the daemon hands over its sockets.
    pub direct: Option<DirectPort>,
}

/// A port with what QEMU needs for it.
#[derive(Debug)]
enum Nic {
    /// The descriptor numbers of its sockets.
    Sockets { offer: Offer, sockets: Sockets },
    /// It is reached by QEMU itself.
    Direct(DirectPort),
}

impl Nic {
    fn offer(&self) -> &Offer {
        match self {
            Nic::Sockets { offer, .. } => offer,
            Nic::Direct(port) => &port.offer,
        }
    }
}

/// QEMU as far as the options of ports depend on it.
#[derive(Debug, Default)]
struct Target {
    abilities: Abilities,
    emulated: bool,
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
    let target = target(launch, Path::new(program), arguments)?;
    let needs_daemon = launch.ports.iter().any(|port| port.direct.is_none());
    let daemon = needs_daemon.then(|| HandOver::connect(&launch.run_dir)).transpose()?;
    let (mut nics, mut sockets, mut namespaces) = (Vec::new(), Vec::new(), Vec::new());
    for port in &launch.ports {
        let name = &port.name;
        let nic = match (&port.direct, &daemon) {
            (Some(direct), _) => {
                check_tap(direct, account.as_ref())?;
                namespaces.push(namespace_of(direct)?);
                Nic::Direct(direct.clone())
            }
            (None, None) => continue,
            (None, Some(daemon)) => {
                let request = Request::Sockets { port: name.clone(), pid: None, netns: true };
                let (offer, mut fds) = daemon.ask(&request).with_context(|| format!("port {name}"))?;
                namespaces.push(fds.pop());
                if fds.len() != offer.queues as usize {
                    bail!("port {name}: the daemon sent {} sockets for {} queues", fds.len(), offer.queues);
                }
                if let Some(warning) = warn_of_queues(&offer.port, offer.queues) {
                    complain(format_args!("xswitch: {warning}"));
                }
                let numbers = fds.iter().map(AsRawFd::as_raw_fd).collect();
                sockets.extend(fds);
                Nic::Sockets { offer, sockets: Sockets::Numbers(numbers) }
            }
        };
        if nics.iter().any(|other: &Nic| other.offer().port == nic.offer().port) {
            bail!("port {} is named twice", nic.offer().port);
        }
        nics.push(nic);
    }
    drop(daemon);
    let arguments = fill(arguments, &nics, &target)?;
    let memlock = raise_memlock(nics.iter().map(|nic| nic.offer().memlock).max().unwrap_or_default())?;
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

/// Looks at QEMU, as far as the ports need that.
fn target(launch: &Launch, program: &Path, arguments: &[OsString]) -> anyhow::Result<Target> {
    let is_direct = |port: &LaunchPort| port.direct.is_some();
    if launch.net.is_none() && !launch.ports.iter().any(is_direct) {
        return Ok(Target::default());
    }
    let abilities = Abilities::of(program);
    for port in &launch.ports {
        let net = port.direct.as_ref().map_or(Net::AfXdp, DirectPort::net);
        abilities.check(net).map_err(|error| anyhow!("port {}: {error}", port.name))?;
    }
    Ok(Target { abilities, emulated: is_emulated(arguments) })
}

/// Says that QEMU may not open the tap of a port.
fn check_tap(port: &DirectPort, account: Option<&Account>) -> anyhow::Result<()> {
    let Place::Tap { owner } = port.place else { return Ok(()) };
    let (name, tap) = (&port.offer.port, &port.offer.ifname);
    let uid = account.map_or_else(geteuid, |account| account.uid).as_raw();
    if let Some(owner) = owner.filter(|owner| *owner != uid) {
        bail!(
            "port {name}: its tap {tap} is for user {owner}, and QEMU is to run as user {uid}: name that user by --user, or \
             add the port with --tap-owner {uid}"
        );
    }
    let device = std::fs::metadata(TUN).with_context(|| format!("looking at {TUN}"))?;
    let is_in_group = |gid| match account {
        Some(account) => account.groups.iter().any(|group| group.as_raw() == gid),
        None => getegid().as_raw() == gid || getgroups().is_ok_and(|groups| groups.contains(&Gid::from_raw(gid))),
    };
    let shift = match () {
        () if device.uid() == uid => 6,
        () if is_in_group(device.gid()) => 3,
        () => 0,
    };
    if device.mode() >> shift & 0o6 != 0o6 {
        bail!("port {name}: user {uid} may not open {TUN}: `chmod 666 {TUN}`, as udev does");
    }
    Ok(())
}

/// The namespace of a port's tap. `None`: QEMU can stay where it is.
fn namespace_of(port: &DirectPort) -> anyhow::Result<Option<OwnedFd>> {
    let Some(name) = port.offer.netns.as_deref().filter(|_| port.net() == Net::Tap) else { return Ok(None) };
    let path = Path::new(NAMESPACES).join(name);
    let file = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Some(file.into()))
}

/// Inserts the properties of the ports into QEMU's options.
///
/// They replace `@NAME` among the properties of a `-netdev` or `-device`. A port that is not named this way gets two
/// options of its own at the end.
fn fill(arguments: &[OsString], nics: &[Nic], target: &Target) -> anyhow::Result<Vec<OsString>> {
    let Target { abilities, emulated } = target;
    let find = |name: &str| {
        let is_it = |nic: &&Nic| nic.offer().port == name || nic.offer().vport.to_string() == name;
        nics.iter().find(is_it).or_else(|| nics.first().filter(|_| name == ANY_PORT))
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
            properties.push(match (nic, option) {
                (Nic::Sockets { offer, sockets }, "netdev") => netdev_properties(offer, sockets),
                (Nic::Sockets { offer, .. }, _) => device_properties(offer, driver(text)),
                (Nic::Direct(port), "netdev") => port.netdev_properties(),
                (Nic::Direct(port), _) => port.device_properties(driver(text), abilities, *emulated),
            });
        }
        filled.push(properties.join(",").into());
    }
    // What the netdevs refer to is there whoever wrote their options.
    let direct = || nics.iter().filter_map(|nic| if let Nic::Direct(port) = nic { Some(port) } else { None });
    filled.extend(direct().flat_map(|port| port.further_options(abilities)).map(OsString::from));
    if direct().any(|port| port.net() == Net::Vhost) {
        filled.extend(shared_memory(arguments).map_err(|error| anyhow!(error))?.into_iter().map(OsString::from));
    }
    for (nic, _) in nics.iter().zip(used).filter(|(_, used)| !used) {
        let words = match nic {
            Nic::Sockets { offer, sockets } => command_line(offer, sockets, DEFAULT_DRIVER),
            Nic::Direct(port) => port.command_line(DEFAULT_DRIVER, abilities, *emulated),
        };
        filled.extend(words.map(OsString::from));
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
        Nic::Sockets { offer, sockets: Sockets::Numbers(fds.to_vec()) }
    }

    fn filled(line: &str, nics: &[Nic]) -> anyhow::Result<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Ok(fill(&words, nics, &Target::default())?.join(OsStr::new(" ")).into_string().unwrap())
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
    fn ports_that_qemu_reaches_by_itself_get_what_their_netdevs_refer_to() {
        let direct = |vport, place| {
            let Nic::Sockets { offer, .. } = nic(vport, &format!("vm{vport}"), &[7]) else { panic!("sockets") };
            Nic::Direct(DirectPort { place, offer })
        };
        let vhost = Place::Vhost { socket: "/s".to_owned(), role: model::SocketRole::Client };
        let nics = [nic(1, "vm1", &[7]), direct(2, Place::Tap { owner: None }), direct(3, vhost)];
        let text = filled("-m 64 -netdev vhost-user,id=v,@vm3 -device e1000,netdev=v,@vm3", &nics).unwrap();
        assert_eq!(
            text,
            "-m 64 -netdev vhost-user,id=v,chardev=xsw3-socket -device e1000,netdev=v,mac=02:00:00:00:00:03 \
             -chardev socket,id=xsw3-socket,path=/s,server=on,wait=off \
             -object memory-backend-memfd,id=xsw-memory,size=67108864,share=on -machine memory-backend=xsw-memory \
             -netdev af-xdp,id=xsw1,ifname=xg1,mode=native,queues=1,inhibit=on,sock-fds=7 \
             -device virtio-net-pci,netdev=xsw1,id=xsw1-nic,mac=02:00:00:00:00:01 \
             -netdev tap,id=xsw2,ifname=xg2,script=no,downscript=no \
             -device virtio-net-pci,netdev=xsw2,id=xsw2-nic,mac=02:00:00:00:00:02"
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
