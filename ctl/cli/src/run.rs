//! `qemu run`: adds the port on request, then becomes QEMU, or supervises it under a restart policy.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use ctl_client::{Client, ClientError, encode};
use ctl_qemu::direct::{Abilities, DirectPort, Net};
use ctl_qemu::launch::{Launch, LaunchPort, NOT_LAUNCHED, exit_code, keep_running, one_start, run};
use ctl_stdio::complain;
use ctl_types::PortEntry;
use model::{PortKind, PortSpec, TapSpec, VhostSpec};

use crate::port::PortOptions;

/// When to start QEMU again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Never: this process becomes QEMU.
    #[default]
    No,
    /// After an exit code other than 0, or after a signal that this program did not pass on.
    OnFailure,
}

/// How QEMU is connected to its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetWord {
    /// AF_XDP sockets on the guest's end of a guest port.
    AfXdp,
    /// The socket of a vhost port.
    Vhost,
    /// The tap of a tap port.
    Tap,
}

impl From<NetWord> for Net {
    fn from(word: NetWord) -> Self {
        match word {
            NetWord::AfXdp => Net::AfXdp,
            NetWord::Vhost => Net::Vhost,
            NetWord::Tap => Net::Tap,
        }
    }
}

/// `qemu run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Ports of the guest, by name or number.
    #[arg(required = true)]
    ports: Vec<String>,
    /// User to run QEMU as, by name or number. Default: the caller. QEMU keeps no capabilities, except CAP_IPC_LOCK if
    /// its limit of locked memory can't be raised.
    #[arg(long)]
    user: Option<String>,
    /// When to start QEMU again: no, on-failure.
    #[arg(long, value_enum, default_value_t)]
    restart: Restart,
    /// How QEMU is connected: vhost, tap or af-xdp. Default: as the port's kind is. For a port that is created it is
    /// the first that QEMU has of af-xdp, vhost and tap.
    #[arg(long, value_enum)]
    net: Option<NetWord>,
    /// Add the port first if it does not exist, with the options of `port add`.
    #[arg(long)]
    create: bool,
    #[command(flatten, next_help_heading = "Options of a port that is created")]
    port: PortOptions,
    /// QEMU's program and options. In -netdev and -device `@NAME` stands for the properties of that port, `@PORT` for
    /// those of the first one. A port that is not named gets a -netdev and a virtio-net-pci of its own.
    #[arg(last = true, required = true, value_name = "QEMU")]
    command: Vec<OsString>,
}

/// Becomes QEMU, or stays to start it again. Returns the exit code.
pub async fn launch(run_dir: &Path, arguments: RunArguments) -> anyhow::Result<u8> {
    let restart = arguments.restart;
    let launch = match prepare(run_dir, arguments).await {
        Ok(launch) => launch,
        Err(error) => {
            complain(format_args!("xswitch: {error:#}"));
            return Ok(NOT_LAUNCHED);
        }
    };
    match restart {
        Restart::OnFailure => keep_running(&one_start(run_dir, &launch)).await,
        Restart::No => {
            let error = run(&launch);
            complain(format_args!("xswitch: {error:#}"));
            Ok(exit_code(&error))
        }
    }
}

async fn prepare(run_dir: &Path, arguments: RunArguments) -> anyhow::Result<Launch> {
    let RunArguments { ports, user, create, net, port: options, command, .. } = arguments;
    let net = net.map(Net::from);
    let client = Client::new(run_dir);
    if create {
        let wish = NewPort { run_dir, net, user: user.as_deref(), program: command.first().map(Path::new) };
        self::create(&client, &ports, options, &wish).await?;
    } else if !options.is_default() {
        bail!("options of a port are of use only with --create");
    }
    let mut found = Vec::with_capacity(ports.len());
    for name in ports {
        let direct = direct_port(&client, &name, net).await.with_context(|| format!("port {name}"))?;
        found.push(LaunchPort { name, direct });
    }
    Ok(Launch { run_dir: run_dir.to_owned(), ports: found, net, user, command })
}

/// What a port is, if QEMU reaches it by itself.
async fn direct_port(client: &Client, name: &str, net: Option<Net>) -> anyhow::Result<Option<DirectPort>> {
    let port: PortEntry = match client.get(&format!("ports/{}", encode(name))).await {
        Ok(answer) => serde_json::from_value(answer)?,
        // Some may have sockets and not the API. Who hands the sockets over says what is wrong otherwise.
        Err(_) if net.is_none_or(|net| net == Net::AfXdp) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (kind, is) = (port.spec.kind.name(), Net::of(port.spec.kind));
    match (net, is) {
        (Some(net), Some(is)) if net != is => {
            bail!("--net {}: it is a {kind} port: leave --net out, or say --net {}", net.word(), is.word())
        }
        // The daemon says why it hands nothing over.
        _ => Ok(DirectPort::of(&port)),
    }
}

/// What a port that is created depends on beside its options.
struct NewPort<'a> {
    run_dir: &'a Path,
    net: Option<Net>,
    user: Option<&'a str>,
    program: Option<&'a Path>,
}

/// Adds the port unless it exists.
async fn create(client: &Client, ports: &[String], options: PortOptions, wish: &NewPort<'_>) -> anyhow::Result<()> {
    let [name] = ports else { bail!("--create adds one port, and {} are named", ports.len()) };
    match client.get(&format!("ports/{}", encode(name))).await {
        Ok(_) => return Ok(()),
        Err(ClientError::Refused(error)) if error.status == libc::ENOENT => {}
        Err(error) => return Err(error.into()),
    }
    let spec = wish.complete(options, name)?;
    client.post("ports", &spec).await?;
    Ok(())
}

impl NewPort<'_> {
    /// The port, with what QEMU and its user make of it.
    fn complete(&self, options: PortOptions, name: &str) -> anyhow::Result<PortSpec> {
        let abilities = self.program.map(Abilities::of).unwrap_or_default();
        let kind = match (options.kind(), self.net) {
            (Some(kind), Some(net)) if net.kind() != kind => {
                bail!("--kind {}: --net {} is for {} ports", kind.name(), net.word(), net.kind().name())
            }
            (Some(kind), _) => kind,
            (None, Some(net)) => net.kind(),
            // A socket that is named says it too.
            (None, None) if options.has_socket() => PortKind::Vhost,
            (None, None) => {
                let best = abilities.best();
                best.context("this QEMU has none of af-xdp, vhost-user and tap (`-netdev help`)")?.kind()
            }
        };
        let Some(net) = Net::of(kind) else { bail!("--kind: QEMU is at a guest, vhost or tap port") };
        abilities.check(net).map_err(|error| anyhow!(error))?;
        let mut spec = PortSpec { kind, ..options.spec(name.to_owned()) };
        let owner = || self.user.map(str::to_owned);
        match kind {
            PortKind::Tap if spec.tap.is_none() => {
                spec.tap = owner().map(|user| TapSpec { owner: Some(user), group: None })
            }
            PortKind::Vhost if spec.vhost.is_none() => {
                let socket = self.run_dir.join(format!("{name}.vhost"));
                let socket = std::path::absolute(socket).context("making a socket's path")?;
                spec.vhost = Some(VhostSpec { owner: owner(), ..VhostSpec::new(socket.display().to_string()) });
            }
            _ => {}
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};
    use crate::qemu::QemuCommand;

    fn complete(words: &str) -> anyhow::Result<PortSpec> {
        let line = format!("xswitch qemu run vm1 --create {words} -- /no/such/qemu");
        let words = line.split_whitespace();
        let Command::Qemu(QemuCommand::Run(run)) = Arguments::try_parse_from(words)?.command else { panic!("no run") };
        let RunArguments { net, port, user, command, .. } = *run;
        let program = command.first().map(Path::new);
        let wish = NewPort { run_dir: Path::new("/run/x"), net: net.map(Net::from), user: user.as_deref(), program };
        wish.complete(port, "vm1")
    }

    #[test]
    fn a_port_that_is_created_fits_the_way_and_the_user() {
        let tap = complete("--net tap --user qemu").unwrap();
        assert_eq!((tap.kind, tap.tap.unwrap().owner.as_deref()), (PortKind::Tap, Some("qemu")));
        let vhost = complete("--net vhost --user qemu").unwrap().vhost.unwrap();
        assert_eq!((vhost.socket.as_str(), vhost.owner.as_deref()), ("/run/x/vm1.vhost", Some("qemu")));
        assert_eq!(complete("--socket /s").unwrap().kind, PortKind::Vhost);
        assert_eq!(complete("--kind tap --tap-group 7").unwrap().tap.unwrap().owner, None);
        // A program that says nothing is taken to have af-xdp.
        assert_eq!(complete("").unwrap().kind, PortKind::Guest);
        for bad in ["--net tap --kind guest", "--kind phy", "--net e1000"] {
            assert!(complete(bad).is_err(), "{bad}");
        }
    }
}
