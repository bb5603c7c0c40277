//! Commands for the tables: `meter`, `rule`, `redirect` and `capability`.

use std::io::Read;

use anyhow::Context;
use model::*;
use serde_json::{Value, json};

use super::Printer;
use super::args::{MeterCommand, PageArguments, RedirectCommand, RuleCommand};
use ctl_client::{Client, query};
use ctl_types::table::Table;
use ctl_types::{Capability, RuleWrite};

impl PageArguments {
    fn query(self) -> String {
        let text = |number: Option<u32>| number.map(|number| number.to_string());
        query(&[("from", text(self.from)), ("limit", text(self.limit))])
    }
}

pub(super) async fn capability(client: &Client, printer: &Printer) -> anyhow::Result<()> {
    let answer = client.get("capability").await?;
    printer.show(&answer, |capability: Capability| {
        let mut table = Table::new(&["TABLE", "TOTAL", "FREE"]);
        for (name, usage) in [("ports", capability.ports), ("meters", capability.meters), ("rules", capability.rules)] {
            table.row([name.to_owned(), usage.total.to_string(), usage.free.to_string()]);
        }
        format!("{}\ndistinct masks of rules: {}\n", table.render(), capability.rule_masks)
    })
}

pub(super) async fn meter(client: &Client, printer: &Printer, command: MeterCommand) -> anyhow::Result<()> {
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
            client.put(&format!("meter-bindings/{vport}/{}", word(direction)), &json!({ "meter": id })).await?;
            Ok(())
        }
        MeterCommand::Unbind { vport, direction } => {
            client.delete(&format!("meter-bindings/{vport}/{}", word(direction))).await?;
            Ok(())
        }
    }
}

fn word(direction: MeterDirection) -> &'static str {
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
        format!("{} {}{how}", word(binding.direction), binding.vport)
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

pub(super) async fn rule(client: &Client, printer: &Printer, command: RuleCommand) -> anyhow::Result<()> {
    let one = |answer: &Value| printer.show(answer, |rule: RuleInfo| rule_table(&[rule]));
    match command {
        RuleCommand::Add(arguments) => one(&client.post("rules", &RuleWrite::from(*arguments)).await?),
        RuleCommand::Del { indices } => {
            let changes: Vec<_> = indices.into_iter().map(RuleChange::Delete).collect();
            client.post("rules/batch", &changes).await?;
            Ok(())
        }
        RuleCommand::Show { index } => one(&client.get(&format!("rules/{index}")).await?),
        RuleCommand::List(page) => {
            let answer = client.get(&format!("rules{}", page.query())).await?;
            printer.show(&answer, |rules: Vec<RuleInfo>| rule_table(&rules))
        }
        RuleCommand::Load { file } => {
            let text = if file == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
                text
            } else {
                std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?
            };
            let changes: Vec<RuleChange> = serde_json::from_str(&text).with_context(|| {
                format!("{file} is no JSON array of {{\"write\": RULE}}, {{\"delete\": INDEX}} and \"clear\"")
            })?;
            let count = changes.len();
            let answer = client.post("rules/batch", &changes).await?;
            printer.done(&answer, &format!("{count} changes are in force"))
        }
        RuleCommand::Clear => {
            client.post("rules/batch", &[RuleChange::Clear]).await?;
            Ok(())
        }
    }
}

/// A rule's key in words.
fn key(key: &RuleKey) -> String {
    fn field(name: &str, value: Option<impl std::fmt::Display>) -> Option<String> {
        value.map(|value| format!("{name}={value}"))
    }
    let version = key.ip_type.map(|version| match version {
        IpType::Ipv4 => "ipv4",
        IpType::Ipv6 => "ipv6",
    });
    let fields = [
        field("vid", key.ingress_port),
        field("dmac", key.dmac),
        field("smac", key.smac),
        field("vlan", key.vlan),
        field("ip_type", version),
        field("ipprotocol", key.ipprotocol),
        field("dip", key.dip),
        field("sip", key.sip),
        field("dl4port", key.dl4port),
        field("sl4port", key.sl4port),
    ];
    let fields: Vec<_> = fields.into_iter().flatten().collect();
    if fields.is_empty() { "any".to_owned() } else { fields.join(" ") }
}

fn action(action: &RuleAction) -> String {
    let mut text = match action.target {
        RuleTarget::Port(no) => format!("vport {no}"),
        word => word.to_string(),
    };
    for (name, value) in [("queue", action.queue), ("meter", action.meter), ("mirror", action.mirror.map(u32::from))] {
        text += &value.map(|value| format!(", {name} {value}")).unwrap_or_default();
    }
    text
}

fn rule_table(rules: &[RuleInfo]) -> String {
    let mut table = Table::new(&["INDEX", "KEY", "ACTION", "PACKETS", "BYTES"]);
    for RuleInfo { spec, matched } in rules {
        table.row([
            spec.key_index.to_string(),
            key(&spec.key),
            action(&spec.action),
            matched.packets.to_string(),
            matched.bytes.to_string(),
        ]);
    }
    table.render()
}

pub(super) async fn redirect(client: &Client, printer: &Printer, command: RedirectCommand) -> anyhow::Result<()> {
    match command {
        RedirectCommand::Set { src, dest } => {
            client.put(&format!("redirects/{src}"), &json!({ "dest": dest })).await?;
            Ok(())
        }
        RedirectCommand::Del { src } => {
            client.delete(&format!("redirects/{src}")).await?;
            Ok(())
        }
        RedirectCommand::List => {
            let answer = client.get("redirects").await?;
            printer.show(&answer, |redirects: Vec<RedirectInfo>| {
                let mut table = Table::new(&["SRC", "DEST", "ENDS AT", "PACKETS", "BYTES"]);
                for RedirectInfo { spec, ends_at, redirected } in redirects {
                    let numbers = [u64::from(spec.src), u64::from(spec.dest), u64::from(ends_at)];
                    let counts = [redirected.packets, redirected.bytes];
                    table.row(numbers.into_iter().chain(counts).map(|number| number.to_string()));
                }
                table.render()
            })
        }
    }
}
