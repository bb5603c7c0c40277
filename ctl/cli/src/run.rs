//! `qemu run`.

use std::ffi::OsString;
use std::path::Path;

use anyhow::bail;
use clap::{Args, ValueEnum};
use model::PortKind;

use super::args::PortOptions;
use ctl_client::{Client, ClientError, encode};
use ctl_qemu::launch::{Launch, NOT_LAUNCHED, exit_code, keep_running, one_start, run};

/// When QEMU is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Never: this program becomes QEMU.
    #[default]
    No,
    /// After an exit code other than 0, or a signal that did not come by way of this program.
    OnFailure,
}

/// `qemu run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Ports that the guest is at, by name or number.
    #[arg(required = true)]
    ports: Vec<String>,
    /// User that QEMU runs as, by name or number; default: the one who calls. In any case it has no capabilities.
    #[arg(long)]
    user: Option<String>,
    /// When QEMU is started again: no, on-failure.
    #[arg(long, value_enum, default_value_t)]
    restart: Restart,
    /// Add the port first if there is none of that name, with the options of `port add`.
    #[arg(long)]
    create: bool,
    #[command(flatten, next_help_heading = "Options of a port that is created")]
    port: PortOptions,
    /// QEMU's program and options. In -netdev and -device `@NAME` stands for what that port needs there, `@PORT` for the first
    /// one; a port that none names gets a -netdev and a virtio-net-pci of its own.
    #[arg(last = true, required = true, value_name = "QEMU")]
    command: Vec<OsString>,
}

/// Becomes QEMU, or stays to start it again. Returns the exit code.
pub async fn launch(run_dir: &Path, arguments: RunArguments) -> anyhow::Result<u8> {
    let RunArguments { ports, user, restart, create, port, command } = arguments;
    if let Err(error) = prepare(run_dir, &ports, create, port).await {
        eprintln!("xswitch: {error:#}");
        return Ok(NOT_LAUNCHED);
    }
    let launch = Launch { run_dir: run_dir.to_owned(), ports, user, command };
    match restart {
        Restart::OnFailure => keep_running(&one_start(run_dir, &launch)).await,
        Restart::No => {
            let error = run(&launch);
            eprintln!("xswitch: {error:#}");
            Ok(exit_code(&error))
        }
    }
}

async fn prepare(run_dir: &Path, ports: &[String], create: bool, options: PortOptions) -> anyhow::Result<()> {
    if create {
        self::create(&Client::new(run_dir), ports, options).await
    } else if options.is_default() {
        Ok(())
    } else {
        bail!("options of a port are of use only with --create")
    }
}

/// Adds the port unless it is there.
async fn create(client: &Client, ports: &[String], options: PortOptions) -> anyhow::Result<()> {
    let [name] = ports else { bail!("--create adds one port, and {} are named", ports.len()) };
    match client.get(&format!("ports/{}", encode(name))).await {
        Ok(_) => return Ok(()),
        Err(ClientError::Refused(error)) if error.status == libc::ENOENT => {}
        Err(error) => return Err(error.into()),
    }
    let spec = options.spec(name.clone());
    if spec.kind != PortKind::Guest {
        bail!("--kind: QEMU is at a guest port");
    }
    client.post("ports", &spec).await?;
    Ok(())
}
