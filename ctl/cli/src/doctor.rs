//! `doctor`: checks by the daemon, or by its program if it does not run, and checks of QEMU on this host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use ctl_client::{Client, query};
use ctl_qemu::check::check_here;
use ctl_types::{Check, PortEntry, Status};

use crate::print::Printer;
use crate::show;

/// File name of the daemon's program.
const DAEMON: &str = "xswitchd";

/// The daemon's program, next to this one or in `PATH`.
pub(crate) fn daemon() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(DAEMON));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(DAEMON))
}

/// Checks that need no running daemon. The daemon's program makes them, because it knows its requirements.
fn local_checks(ifnames: &[String]) -> Vec<Check> {
    let program = daemon();
    checks_of(&program, ifnames).unwrap_or_else(|error| {
        let text = format!("{}: {error:#}: this machine is not looked at", program.display());
        vec![Check::bad(Status::Warn, DAEMON, text, "put xswitchd beside xswitch, or into PATH")]
    })
}

fn checks_of(program: &Path, ifnames: &[String]) -> anyhow::Result<Vec<Check>> {
    let output = Command::new(program).arg("--doctor").args(ifnames).output()?;
    serde_json::from_slice(&output.stdout).context("it does not say what it found")
}

/// Runs the checks. `qemu` asks for checks of QEMU too: of that file, or a failed one if there is none.
pub(crate) async fn run(
    client: &Client,
    printer: &Printer,
    ifnames: &[String],
    qemu: Option<Option<PathBuf>>,
) -> anyhow::Result<()> {
    let names = (!ifnames.is_empty()).then(|| ifnames.join(","));
    let mut checks = match client.get(&format!("doctor{}", query(&[("ifnames", names)]))).await {
        Ok(answer) => {
            let mut checks: Vec<Check> = serde_json::from_value(answer)?;
            checks.extend(serde_json::from_value::<Vec<Check>>(client.get("spp/doctor").await?)?);
            checks
        }
        Err(error) if error.is_absent() => {
            let text = format!("{error}; this is what can be seen without it");
            let mut checks = local_checks(ifnames);
            checks.push(Check { name: "daemon".to_owned(), status: Status::Warn, text, advice: None });
            checks
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(file) = qemu {
        let ports: Vec<PortEntry> =
            client.get("ports").await.ok().and_then(|ports| serde_json::from_value(ports).ok()).unwrap_or_default();
        checks.extend(check_here(file.as_deref(), &ports));
    }
    printer.show(&serde_json::to_value(&checks)?, |checks: Vec<Check>| show::doctor(&checks))?;
    let failed = checks.iter().filter(|check| check.status == Status::Fail).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", checks.len());
    }
    Ok(())
}
