//! The command line: sends requests to the daemon, and prints the answers for people or for programs.
//!
//! Each command is one request. `--json` prints the answer as it is, otherwise it becomes a table. Decisions are left
//! to the daemon, and its refusals are shown in its own words.
//!
//! This crate knows the daemon only by its API. It depends on the API's types, the client, and QEMU's side of the
//! hand-over. Everything runs on one thread, with tokio for whatever has to wait.
#![forbid(unsafe_code)]

pub mod args;
mod doctor;
pub mod qemu;
pub mod run;
pub mod spp;
pub mod top;

mod show;
mod tables;

use std::io::{IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use model::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::args::{Arguments, BridgeCommand, CaptureArguments, Command, FdbCommand, PortCommand, TraceArguments};
use ctl_client::{Client, encode, query};
use ctl_qemu::check::default_binary;
use ctl_types::TraceRequest;

/// Clears a terminal and moves to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Executes a command line and returns the exit code.
///
/// # Errors
/// The daemon's refusal, or a failure on the way to it.
pub async fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let client = Client::new(&arguments.run_dir);
    let printer = Printer { json: arguments.json };
    let done = match arguments.command {
        Command::Port(command) => port(&client, &printer, command).await,
        Command::Stats { port } => {
            let answer = client.get(&format!("stats{}", query(&[("port", port.clone())]))).await?;
            printer.show(&answer, |report: StatsReport| show::stats(&report, port.is_some()))
        }
        Command::Fdb(command) => fdb(&client, &printer, command).await,
        Command::Meter(command) => tables::meter(&client, &printer, command).await,
        Command::Rule(command) => tables::rule(&client, &printer, command).await,
        Command::Redirect(command) => tables::redirect(&client, &printer, command).await,
        Command::Capability => tables::capability(&client, &printer).await,
        Command::Bridge(command) => {
            let answer = match command {
                BridgeCommand::Show => client.get("bridge").await?,
                BridgeCommand::Set { fdb_limit, fdb_ageing_seconds, forward_reserved } => {
                    let update = ctl_types::BridgeUpdate { fdb_limit, fdb_ageing_seconds, forward_reserved };
                    client.patch("bridge", &update).await?
                }
            };
            printer.show(&answer, |bridge: BridgeSettings| show::bridge(&bridge))
        }
        Command::Trace(arguments) => trace(&client, &printer, &arguments).await,
        Command::Capture(arguments) => capture(&client, &arguments).await,
        Command::Top { interval, count } => top(&client, &printer, interval, count).await,
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

/// Prints answers, as JSON or as text.
struct Printer {
    json: bool,
}

impl Printer {
    fn show<T: DeserializeOwned>(&self, answer: &Value, table: impl FnOnce(T) -> String) -> anyhow::Result<()> {
        let text = if self.json {
            format!("{}\n", serde_json::to_string_pretty(answer)?)
        } else {
            table(T::deserialize(answer).context("the daemon's answer is not as expected: are both of one version?")?)
        };
        print(&text)
    }

    /// Prints an answer: `answer` for programs, `text` for people.
    fn done(&self, answer: &Value, text: &str) -> anyhow::Result<()> {
        self.show(answer, |_: Value| format!("{text}\n"))
    }
}

/// Writes to standard output. [`ReaderGone`] if nobody reads it any more.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => Ok(result?),
    }
}

/// Standard output has been closed by its reader.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub struct ReaderGone;

async fn port(client: &Client, printer: &Printer, command: PortCommand) -> anyhow::Result<()> {
    match command {
        PortCommand::Add(arguments) => {
            let answer = client.post("ports", &PortSpec::from(*arguments)).await?;
            printer.show(&answer, |port| show::port(&port))
        }
        PortCommand::Del { names } => {
            for name in names {
                client.delete(&format!("ports/{}", encode(&name))).await.with_context(|| format!("port {name}"))?;
            }
            Ok(())
        }
        PortCommand::Set(arguments) => {
            let answer = client.patch(&format!("ports/{}", encode(&arguments.name)), &arguments.update()).await?;
            printer.show(&answer, |port| show::port(&port))
        }
        PortCommand::List => {
            let answer = client.get("ports").await?;
            printer.show(&answer, |ports: Vec<_>| show::ports(&ports))
        }
        PortCommand::Show { name } => {
            let answer = client.get(&format!("ports/{}", encode(&name))).await?;
            // What components of the Soft Patch Panel do with the frame, for people.
            let mut panel = String::new();
            if !printer.json && answer["spec"]["spp"].is_string() {
                let stats = client.get(&format!("stats{}", query(&[("port", Some(name))]))).await?;
                panel = show::panel(&serde_json::from_value(stats)?);
            }
            printer.show(&answer, |port| show::port(&port) + &panel)
        }
    }
}

async fn fdb(client: &Client, printer: &Printer, command: FdbCommand) -> anyhow::Result<()> {
    match command {
        FdbCommand::List { port, vlan, mac } => {
            let wanted = query(&[
                ("port", port),
                ("vlan", vlan.map(|vlan| vlan.to_string())),
                ("mac", mac.map(|mac| mac.to_string())),
            ]);
            let answer = client.get(&format!("fdb{wanted}")).await?;
            printer.show(&answer, |rows: Vec<FdbEntry>| show::fdb(&rows))
        }
        FdbCommand::Add { mac, port, vlan } => {
            let answer = client.post("fdb", &FdbSpec { mac, vlan, port }).await?;
            printer.done(&answer, &format!("{mac} is static in VLAN {vlan}"))
        }
        FdbCommand::Del { mac, vlan } => {
            client.delete(&format!("fdb/{mac}?vlan={vlan}")).await?;
            Ok(())
        }
        FdbCommand::Flush { port } => {
            let answer = client.post("fdb/flush", &json!({ "port": port })).await?;
            let text = format!("{} learned addresses forgotten", answer["flushed"]);
            printer.done(&answer, &text)
        }
    }
}

async fn trace(client: &Client, printer: &Printer, arguments: &TraceArguments) -> anyhow::Result<()> {
    let (port, queue, rule) = (arguments.port.clone(), arguments.queue, arguments.rule);
    let mut request = TraceRequest { port, queue, rule, ..TraceRequest::default() };
    match arguments.hex.as_deref() {
        Some("-") => {
            let mut hex = String::new();
            std::io::stdin().read_to_string(&mut hex).context("reading hex digits from standard input")?;
            request.hex = Some(hex);
        }
        Some(hex) => request.hex = Some(hex.to_owned()),
        None => request.packet = Some(arguments.packet()),
    }
    let answer = client.post("trace", &request).await?;
    printer.show(&answer, |report: TraceReport| show::trace(&report))
}

async fn capture(client: &Client, arguments: &CaptureArguments) -> anyhow::Result<()> {
    let to_stdout = arguments.write == "-";
    if to_stdout && std::io::stdout().is_terminal() {
        bail!("pcapng is not for terminals: write to a file (-w FILE) or into a pipe (`| tshark -r -`)");
    }
    let direction = arguments.direction.map(|direction| match direction {
        Direction::Rx => "rx".to_owned(),
        Direction::Tx => "tx".to_owned(),
    });
    let ports = (!arguments.ports.is_empty()).then(|| arguments.ports.join(","));
    let wanted = query(&[
        ("ports", ports),
        ("direction", direction),
        ("snaplen", arguments.snaplen.map(|snaplen| snaplen.to_string())),
        ("count", arguments.count.map(|count| count.to_string())),
        ("duration", arguments.duration.map(|duration| duration.to_string())),
    ]);
    let mut body = client.stream(&format!("capture{wanted}")).await?;
    let mut file: Box<dyn Write> = if to_stdout {
        Box::new(std::io::stdout())
    } else {
        let file = std::fs::File::create(&arguments.write).with_context(|| format!("making {}", arguments.write))?;
        Box::new(file)
    };
    loop {
        // A received chunk is always written whole, so an interrupted file ends at the end of a block.
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame?.into_data() else { continue };
        match file.write_all(&data).and_then(|()| file.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Err(ReaderGone.into()),
            result => result.with_context(|| format!("writing {}", arguments.write))?,
        }
    }
    Ok(())
}

async fn top(client: &Client, printer: &Printer, interval: f64, count: Option<u64>) -> anyhow::Result<()> {
    let sample = async || -> anyhow::Result<(Instant, StatsReport)> {
        let answer = client.get("stats").await?;
        Ok((Instant::now(), serde_json::from_value(answer)?))
    };
    let mut before = sample().await?;
    let mut left = count;
    while left != Some(0) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(interval)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        let after = sample().await?;
        let rates = top::rates(&before.1, &after.1, (after.0 - before.0).as_secs_f64());
        if printer.json {
            print(&format!("{}\n", serde_json::to_string(&rates)?))?;
        } else {
            let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
            print(&format!("{clear}{}\n", top::render(&rates)))?;
        }
        before = after;
        left = left.map(|left| left - 1);
    }
    Ok(())
}
