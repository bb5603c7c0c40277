//! The command line: sends requests to the daemon, and prints the answers for people or for programs.
//!
//! Each command is one request. `--json` prints the answer as it is, otherwise it becomes a table. Decisions are left
//! to the daemon, and its refusals are shown in its own words.
//!
//! This crate knows the daemon only by its API. It depends on the API's types, the client, and QEMU's side of the
//! hand-over. Everything runs on one thread, with tokio for whatever has to wait.
#![forbid(unsafe_code)]

pub mod args;
mod bond;
mod bridge;
mod capability;
mod capture;
mod config;
mod disk;
mod doctor;
mod fdb;
mod link;
mod meter;
mod port;
mod print;
mod qemu;
mod redirect;
mod rule;
mod run;
mod show;
mod spp;
mod top;
mod trace;
mod values;

use anyhow::bail;
use ctl_client::{Client, query};
use ctl_qemu::check::default_binary;
use model::{FlowTableReport, FrameAudit, StatsReport, WorkerInfo};
use serde_json::{Value, json};

use self::args::{Arguments, Command, FlowsArgs};
use self::print::Printer;
pub use self::print::ReaderGone;

/// Executes a command line and returns the exit code.
///
/// # Errors
/// The daemon's refusal, or a failure on the way to it.
pub async fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let client = Client::new(&arguments.run_dir);
    let printer = Printer { json: arguments.json };
    let done = match arguments.command {
        Command::Port(command) => port::run(&client, &printer, command).await,
        Command::Stats { port } => {
            let answer = client.get(&format!("stats{}", query(&[("port", port.clone())]))).await?;
            printer.show(&answer, |report: StatsReport| show::stats(&report, port.is_some()))
        }
        Command::Link(command) => link::run(&client, &printer, command).await,
        Command::Bond(command) => bond::run(&client, &printer, command).await,
        Command::Fdb(command) => fdb::run(&client, &printer, command).await,
        Command::Meter(command) => meter::run(&client, &printer, command).await,
        Command::Rule(command) => rule::run(&client, &printer, command).await,
        Command::Redirect(command) => redirect::run(&client, &printer, command).await,
        Command::Disk(command) => disk::run(&client, &printer, command).await,
        Command::Capability => capability::run(&client, &printer).await,
        Command::Bridge(command) => bridge::run(&client, &printer, command).await,
        Command::Config(command) => return config::run(&client, &printer, command).await,
        Command::Trace(arguments) => trace::run(&client, &printer, &arguments).await,
        Command::Capture(arguments) => capture::run(&client, &arguments).await,
        Command::Top { interval, count } => top::run(&client, &printer, interval, count).await,
        Command::Doctor { ifname, qemu } => {
            let qemu = qemu.map(|named| named.or_else(default_binary));
            doctor::run(&client, &printer, &ifname, qemu).await
        }
        Command::Qemu(command) => return qemu::run(&arguments.run_dir, arguments.json, command).await,
        Command::Spp(arguments) => spp::run(&client, &printer, arguments).await,
        Command::Audit => {
            let answer = client.get("audit").await?;
            printer.show(&answer, |audit: FrameAudit| show::audit(&audit))?;
            match answer["consistent"].as_bool() {
                Some(true) => Ok(()),
                _ => bail!("the frames of packet memory are not all accounted for: please report this"),
            }
        }
        Command::Flows(FlowsArgs { port, limit }) => {
            let answer =
                client.get(&format!("flows{}", query(&[("limit", Some(limit.to_string())), ("port", port)]))).await?;
            printer.show(&answer, |report: FlowTableReport| show::flows(&report))
        }
        Command::Workers => {
            let answer = client.get("workers").await?;
            printer.show(&answer, |workers: Vec<WorkerInfo>| show::workers(&workers))
        }
        Command::Version => {
            let daemon = client.get("version").await.ok();
            let answer = json!({ "xswitch": env!("CARGO_PKG_VERSION"), "xswitchd": daemon.map(|daemon| daemon["version"].clone()) });
            printer.show(&answer, |answer: Value| {
                let daemon = answer["xswitchd"].as_str().unwrap_or("does not answer");
                format!("xswitch {}\nxswitchd {daemon}\n", env!("CARGO_PKG_VERSION"))
            })
        }
    };
    done.map(|()| 0)
}
