//! `config`: checks, compares, applies and exports the configuration of ports and tables.

mod export;
mod file;

use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ctl_client::Client;
use ctl_types::{Capability, ConfigAction, ConfigChange, ConfigChanges, ConfigRequest, SwitchConfig};

use self::file::File;
use crate::doctor::daemon;
use crate::print::{Printer, print};

/// Exit code of `config diff` if something differs.
const DIFFERENT: u8 = 2;

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file. Needs no running daemon.
    Check {
        /// File.
        file: String,
    },
    /// Show what a file would change. Exit code 0: nothing, 2: something, 1: it can't be applied.
    Diff(FileArguments),
    /// Make the switch what a file says, in full or not at all.
    Apply(FileArguments),
    /// Print ports and tables as a configuration file that makes the same switch.
    Export,
}

/// A file, and how it is taken.
#[derive(Debug, Args)]
pub struct FileArguments {
    /// File, or `-` for standard input. Sections that are not for ports and tables are left out.
    file: String,
    /// Remove everything that the file does not declare, whoever made it.
    #[arg(long)]
    prune: bool,
}

impl FileArguments {
    /// The request that the daemon gets.
    fn request(&self) -> anyhow::Result<ConfigRequest> {
        let (text, path) = if self.file == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
            (text, None)
        } else {
            let read = || format!("reading {}", self.file);
            let text = std::fs::read_to_string(&self.file).with_context(read)?;
            let path = Path::new(&self.file).canonicalize().with_context(read)?;
            (text, Some(path.to_string_lossy().into_owned()))
        };
        let file = File::parse(&text).map_err(|why| anyhow::anyhow!("configuration {}: {why}", self.file))?;
        Ok(ConfigRequest { config: file.switch_config(), prune: self.prune, file: path })
    }
}

/// Runs the command and returns the exit code.
pub(crate) async fn run(client: &Client, printer: &Printer, command: ConfigCommand) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Check { file } => check(&file),
        ConfigCommand::Diff(arguments) => {
            let answer = client.post("config/diff", &arguments.request()?).await?;
            printer.show(&answer, |changes: ConfigChanges| text(&changes))?;
            let changes: ConfigChanges = serde_json::from_value(answer)?;
            Ok(if changes.changes.is_empty() { 0 } else { DIFFERENT })
        }
        ConfigCommand::Apply(arguments) => {
            let answer = client.post("config/apply", &arguments.request()?).await?;
            printer.show(&answer, |changes: ConfigChanges| text(&changes))?;
            Ok(0)
        }
        ConfigCommand::Export => {
            let answer = client.get("config").await?;
            if printer.json {
                printer.show(&answer, |_: SwitchConfig| String::new())?;
            } else {
                let capability: Capability = serde_json::from_value(client.get("capability").await?)?;
                print(&export::toml(&answer, &capability)?)?;
            }
            Ok(0)
        }
    }
}

/// Checks a file. The daemon's program does it, because it knows all sections.
fn check(file: &str) -> anyhow::Result<u8> {
    let program = daemon();
    let path = if file == "-" { "/dev/stdin" } else { file };
    let status = Command::new(&program).arg("--check-config").arg(path).status();
    let status =
        status.with_context(|| format!("starting {}: put xswitchd beside xswitch, or into PATH", program.display()))?;
    if !status.success() {
        bail!("{file} can't be used");
    }
    print(&format!("{file} is all right\n"))?;
    Ok(0)
}

/// Changes for people.
fn text(changes: &ConfigChanges) -> String {
    let mut text: String = changes.changes.iter().map(describe).collect();
    for warning in &changes.warnings {
        text += &format!("! {warning}\n");
    }
    let count = |action| changes.changes.iter().filter(|change| change.action == action).count();
    if changes.changes.is_empty() {
        text += "nothing differs\n";
    } else {
        text += &format!(
            "{} added, {} changed, {} deleted and added anew, {} removed\n",
            count(ConfigAction::Add),
            count(ConfigAction::Change),
            count(ConfigAction::Replace),
            count(ConfigAction::Remove)
        );
    }
    text
}

fn describe(change: &ConfigChange) -> String {
    let (sign, how) = match change.action {
        ConfigAction::Add => ("+", ""),
        ConfigAction::Change => ("~", ""),
        ConfigAction::Replace => ("-/+", " (deleted and added anew)"),
        ConfigAction::Remove => ("-", ""),
    };
    let run_time = if change.run_time { " (was changed at run time)" } else { "" };
    let name = format!("{} {}", change.section.name(), change.key);
    let mut text = format!("{sign} {}{how}{run_time}\n", name.trim_end());
    for field in &change.fields {
        match (change.action, &field.to) {
            (ConfigAction::Remove, _) => {}
            (ConfigAction::Add, Some(to)) => text += &format!("    {}: {to}\n", field.field),
            _ => text += &format!("    {field}\n"),
        }
    }
    text
}
