//! `meter`: adds, changes, binds, lists and deletes meters.

use anyhow::Context;
use clap::{Args, Subcommand};
use ctl_client::Client;
use ctl_types::table::Table;
use model::{MeterBinding, MeterDirection, MeterInfo, MeterMode, MeterSpec, MeterType, MeterUpdate};
use serde_json::{Value, json};

use crate::print::Printer;
use crate::values::{PageArguments, word};

/// `meter`.
#[derive(Debug, Subcommand)]
pub enum MeterCommand {
    /// Add a meter. Until it is first bound or named by a rule, it applies to frames from the vport of its number.
    Add(MeterArguments),
    /// Delete meters.
    #[command(visible_alias = "delete")]
    Del {
        /// Numbers.
        #[arg(required = true)]
        ids: Vec<u32>,
    },
    /// Change a meter while frames pass it. Options that are not given keep their value.
    Set {
        /// Number.
        id: u32,
        /// Rate in kbit/s, or frames/s.
        #[arg(long)]
        rate: Option<u32>,
        /// Burst in kbit, or frames.
        #[arg(long)]
        burst: Option<u32>,
        /// Peak or excess rate.
        #[arg(long)]
        peak_rate: Option<u32>,
        /// Peak or excess burst.
        #[arg(long)]
        peak_burst: Option<u32>,
        /// Start from the colour that earlier meters gave the frame.
        #[arg(long)]
        color_aware: Option<bool>,
        /// DSCP for yellow packets, 0-63.
        #[arg(long)]
        yellow_dscp: Option<u8>,
    },
    /// Show a meter, its bindings and counters.
    Show {
        /// Number.
        id: u32,
    },
    /// List meters.
    List(PageArguments),
    /// Bind a meter to the frames from a port or to it. Replaces the binding that is there.
    Bind {
        /// Number of the meter.
        id: u32,
        /// Number of the port.
        vport: u16,
        /// Direction: from or to.
        #[arg(value_parser = word::<MeterDirection>)]
        direction: MeterDirection,
    },
    /// Remove a binding.
    Unbind {
        /// Number of the port.
        vport: u16,
        /// Direction: from or to.
        #[arg(value_parser = word::<MeterDirection>)]
        direction: MeterDirection,
    },
}

/// `meter add`.
#[derive(Debug, Args)]
pub struct MeterArguments {
    /// Number.
    id: u32,
    /// Rate (committed rate of two-rate modes) in kbit/s, or frames/s with --type pps.
    rate: u32,
    /// Unit of the rate: kbps or pps.
    #[arg(long = "type", default_value = "kbps", value_parser = word::<MeterType>)]
    kind: MeterType,
    /// Burst (committed burst of two-rate modes) in kbit or frames. Default: 100 ms of the rate, at least ten full
    /// frames.
    #[arg(long)]
    burst: Option<u32>,
    /// Marking: single, rfc2698 or rfc4115.
    #[arg(long, default_value = "single", value_parser = word::<MeterMode>)]
    mode: MeterMode,
    /// Two-rate modes: peak or excess rate.
    #[arg(long)]
    peak_rate: Option<u32>,
    /// Two-rate modes: peak or excess burst.
    #[arg(long)]
    peak_burst: Option<u32>,
    /// Two-rate modes: start from the colour that earlier meters gave the frame.
    #[arg(long)]
    color_aware: bool,
    /// Two-rate modes: DSCP for yellow packets, 0-63.
    #[arg(long)]
    yellow_dscp: Option<u8>,
}

impl From<MeterArguments> for MeterSpec {
    fn from(a: MeterArguments) -> Self {
        MeterSpec {
            id: a.id,
            rate: a.rate,
            kind: a.kind,
            burst: a.burst,
            mode: a.mode,
            peak_rate: a.peak_rate,
            peak_burst: a.peak_burst,
            color_aware: a.color_aware,
            yellow_dscp: a.yellow_dscp,
        }
    }
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: MeterCommand) -> anyhow::Result<()> {
    let one = |answer: &Value| printer.show(answer, |meter: MeterInfo| show_meter(&meter));
    match command {
        MeterCommand::Add(arguments) => one(&client.post("meters", &MeterSpec::from(arguments)).await?),
        MeterCommand::Del { ids } => {
            for id in ids {
                client.delete(&format!("meters/{id}")).await.with_context(|| format!("meter {id}"))?;
            }
            Ok(())
        }
        MeterCommand::Set { id, rate, burst, peak_rate, peak_burst, color_aware, yellow_dscp } => {
            let update = MeterUpdate { rate, burst, peak_rate, peak_burst, color_aware, yellow_dscp };
            one(&client.patch(&format!("meters/{id}"), &update).await?)
        }
        MeterCommand::Show { id } => one(&client.get(&format!("meters/{id}")).await?),
        MeterCommand::List(page) => {
            let answer = client.get(&format!("meters{}", page.query())).await?;
            printer.show(&answer, |meters: Vec<MeterInfo>| meter_table(&meters))
        }
        MeterCommand::Bind { id, vport, direction } => {
            client
                .put(&format!("meter-bindings/{vport}/{}", direction_word(direction)), &json!({ "meter": id }))
                .await?;
            Ok(())
        }
        MeterCommand::Unbind { vport, direction } => {
            client.delete(&format!("meter-bindings/{vport}/{}", direction_word(direction))).await?;
            Ok(())
        }
    }
}

fn direction_word(direction: MeterDirection) -> &'static str {
    match direction {
        MeterDirection::From => "from",
        MeterDirection::To => "to",
    }
}

fn rate(rate: u32, kind: MeterType) -> String {
    match kind {
        MeterType::Kbps => format!("{rate} kbit/s"),
        MeterType::Pps => format!("{rate} frames/s"),
    }
}

fn burst(burst: u32, kind: MeterType) -> String {
    match kind {
        MeterType::Kbps => format!("{burst} kbit"),
        MeterType::Pps => format!("{burst} frames"),
    }
}

fn mode(spec: &MeterSpec) -> &'static str {
    match spec.mode {
        MeterMode::Single => "single",
        MeterMode::Rfc2698 => "rfc2698",
        MeterMode::Rfc4115 => "rfc4115",
    }
}

fn bindings(meter: &MeterInfo) -> String {
    let implied = |binding: &MeterBinding| meter.implicit && u32::from(binding.vport) == meter.spec.id;
    let text = |binding: &MeterBinding| {
        let how = if implied(binding) { " (implied)" } else { "" };
        format!("{} {}{how}", direction_word(binding.direction), binding.vport)
    };
    meter.bindings.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn meter_table(meters: &[MeterInfo]) -> String {
    let mut table =
        Table::new(&["METER", "RATE", "BURST", "MODE", "VPORTS", "RULES", "GREEN PACKETS", "YELLOW", "RED (DROPPED)"]);
    for meter in meters {
        let spec = &meter.spec;
        table.row([
            spec.id.to_string(),
            rate(spec.rate, spec.kind),
            burst(meter.burst, spec.kind),
            mode(spec).to_owned(),
            bindings(meter),
            meter.rules.to_string(),
            meter.green.packets.to_string(),
            meter.yellow.packets.to_string(),
            meter.red.packets.to_string(),
        ]);
    }
    table.render()
}

fn show_meter(meter: &MeterInfo) -> String {
    let spec = &meter.spec;
    let mut lines = vec![
        ("meter", spec.id.to_string()),
        ("rate", rate(spec.rate, spec.kind)),
        ("burst", burst(meter.burst, spec.kind)),
        ("mode", mode(spec).to_owned()),
    ];
    if let Some(peak) = spec.peak_rate {
        lines.push(("peak rate", rate(peak, spec.kind)));
        lines.push(("peak burst", burst(meter.peak_burst, spec.kind)));
        lines.push(("colour-aware", spec.color_aware.to_string()));
    }
    lines.extend(spec.yellow_dscp.map(|dscp| ("yellow DSCP", dscp.to_string())));
    lines.push(("vports", bindings(meter)));
    lines.push(("rules", meter.rules.to_string()));
    for (name, count) in [("green", meter.green), ("yellow", meter.yellow), ("red", meter.red)] {
        lines.push((name, format!("{} packets, {} bytes", count.packets, count.bytes)));
    }
    lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}
