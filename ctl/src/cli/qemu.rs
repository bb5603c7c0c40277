//! `qemu`.

use std::path::Path;

use clap::Subcommand;

use super::run::{self, RunArguments};

/// Commands.
#[derive(Debug, Subcommand)]
pub enum QemuCommand {
    /// Run QEMU at ports, without privileges: it inherits their sockets.
    Run(Box<RunArguments>),
}

/// Carries out a command; returns the exit code.
pub async fn qemu(run_dir: &Path, command: QemuCommand) -> anyhow::Result<u8> {
    match command {
        QemuCommand::Run(arguments) => run::launch(run_dir, *arguments).await,
    }
}
