//! `qemu run`: adds the port on request, then becomes QEMU, or supervises it under a restart policy.

use std::ffi::OsString;
use std::path::Path;

use anyhow::bail;
use clap::{Args, ValueEnum};
use ctl_client::{Client, ClientError, encode};
use ctl_qemu::launch::{Launch, NOT_LAUNCHED, exit_code, keep_running, one_start, run};
use ctl_stdio::complain;
use model::PortKind;

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
    let RunArguments { ports, user, restart, create, port, command } = arguments;
    if let Err(error) = prepare(run_dir, &ports, create, port).await {
        complain(format_args!("xswitch: {error:#}"));
        return Ok(NOT_LAUNCHED);
    }
    let launch = Launch { run_dir: run_dir.to_owned(), ports, user, command };
    match restart {
        Restart::OnFailure => keep_running(&one_start(run_dir, &launch)).await,
        Restart::No => {
            let error = run(&launch);
            complain(format_args!("xswitch: {error:#}"));
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

/// Adds the port unless it exists.
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
