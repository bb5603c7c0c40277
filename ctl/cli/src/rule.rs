//! `rule`: writes, deletes, lists and loads traffic rules.

use std::io::Read;

use anyhow::Context;
use clap::{Args, Subcommand};
use ctl_client::Client;
use ctl_types::RuleWrite;
use ctl_types::table::Table;
use model::*;
use serde_json::Value;

use crate::print::Printer;
use crate::values::{PageArguments, word};

/// `rule`.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Write a rule. Replaces the rule at its index.
    Add(Box<RuleArguments>),
    /// Delete rules, either all of those named or none.
    #[command(visible_alias = "delete")]
    Del {
        /// Indices.
        #[arg(required = true)]
        indices: Vec<u32>,
    },
    /// Show a rule and its counters.
    Show {
        /// Index.
        index: u32,
    },
    /// List rules.
    List(PageArguments),
    /// Apply a batch of changes from a file at once: a JSON array of {"write": RULE}, {"delete": INDEX} and "clear".
    /// Rules as `rule list --json` prints them are written.
    Load {
        /// File, or `-` for standard input.
        file: String,
    },
    /// Delete all rules.
    Clear,
}

/// `rule add`. Values may have a mask: 80/0xfff0, 10.0.0.0/8, 02:00:00:00:00:00/ff:ff:ff:00:00:00.
#[derive(Debug, Args)]
pub struct RuleArguments {
    /// Index, or `auto` for the lowest free one.
    #[arg(value_parser = place)]
    index: Place,
    /// Target of the frames: a vport, `drop`, or `normal` (forwarding by the MAC table).
    #[arg(long)]
    to: RuleTarget,
    /// Queue of the target port. Default: by flow hash.
    #[arg(long)]
    queue: Option<u32>,
    /// Meter that frames have to pass.
    #[arg(long)]
    meter: Option<u32>,
    /// Port that gets a copy of each frame.
    #[arg(long, value_name = "VPORT")]
    mirror: Option<u16>,
    /// Ingress port, by its vport number.
    #[arg(long)]
    vid: Option<Masked<16>>,
    /// Destination MAC address.
    #[arg(long)]
    dmac: Option<MaskedMac>,
    /// Source MAC address.
    #[arg(long)]
    smac: Option<MaskedMac>,
    /// VID of the outer tag. 0 is untagged.
    #[arg(long)]
    vlan: Option<Masked<12>>,
    /// ipv4 or ipv6.
    #[arg(long, value_parser = word::<IpType>)]
    ip_type: Option<IpType>,
    /// IP protocol.
    #[arg(long)]
    ipprotocol: Option<Masked<8>>,
    /// Destination IP address.
    #[arg(long)]
    dip: Option<MaskedIp>,
    /// Source IP address.
    #[arg(long)]
    sip: Option<MaskedIp>,
    /// Destination port of TCP or UDP.
    #[arg(long)]
    dl4port: Option<Masked<16>>,
    /// Source port of TCP or UDP.
    #[arg(long)]
    sl4port: Option<Masked<16>>,
}

/// Index of a rule. `None` is the lowest free one.
type Place = Option<u32>;

fn place(text: &str) -> Result<Place, String> {
    match text {
        "auto" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("`{text}` is neither a number nor `auto`")),
    }
}

impl From<RuleArguments> for RuleWrite {
    fn from(a: RuleArguments) -> Self {
        RuleWrite {
            key_index: a.index,
            key: RuleKey {
                ingress_port: a.vid,
                dmac: a.dmac,
                smac: a.smac,
                vlan: a.vlan,
                ip_type: a.ip_type,
                ipprotocol: a.ipprotocol,
                dip: a.dip,
                sip: a.sip,
                dl4port: a.dl4port,
                sl4port: a.sl4port,
            },
            action: RuleAction { target: a.to, queue: a.queue, meter: a.meter, mirror: a.mirror },
        }
    }
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: RuleCommand) -> anyhow::Result<()> {
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
            let changes = batch(&text).with_context(|| {
                format!("{file} is no JSON array of {{\"write\": RULE}}, {{\"delete\": INDEX}}, \"clear\" and rules")
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

/// A batch of changes. A rule by itself, as a list has it, is one to be written.
fn batch(text: &str) -> serde_json::Result<Vec<RuleChange>> {
    let change = |mut change: Value| match change.as_object_mut() {
        Some(rule) if rule.contains_key("key_index") => {
            // What it has counted.
            rule.remove("matched");
            serde_json::from_value(change).map(RuleChange::Write)
        }
        _ => serde_json::from_value(change),
    };
    serde_json::from_str::<Vec<Value>>(text)?.into_iter().map(change).collect()
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn parse(line: &str) -> Command {
        Arguments::try_parse_from(line.split(' ')).unwrap().command
    }

    #[test]
    fn a_rule_is_described_in_full() {
        let line = "xswitch rule add auto --to 5 --queue 1 --meter 7 --mirror 9 --vid 3/0x3 --dmac 02:00:00:00:00:01 \
                    --vlan 10 --ip-type ipv4 --ipprotocol 6 --dip 10.0.0.0/8 --dl4port 80/0xfff0";
        let Command::Rule(RuleCommand::Add(arguments)) = parse(line) else { panic!() };
        let expected = r#"{"key":{"vid":"3/0x3","dmac":"02:00:00:00:00:01","vlan":10,"ip_type":"ipv4","ipprotocol":6,
            "dip":"10.0.0.0/8","dl4port":"80/0xfff0"},"action":{"vid":5,"qid":1,"meter":7,"mirror":9}}"#;
        assert_eq!(RuleWrite::from(*arguments), serde_json::from_str(expected).unwrap());
        let Command::Rule(RuleCommand::Add(arguments)) = parse("xswitch rule add 3 --to drop") else { panic!() };
        assert_eq!(RuleWrite::from(*arguments).key_index, Some(3));
    }

    #[test]
    fn a_list_of_rules_is_a_batch_that_writes_them() {
        let spec = RuleSpec { key_index: 7, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Drop) };
        let listed = RuleInfo { spec: spec.clone(), matched: Count { packets: 3, bytes: 180 } };
        let text = serde_json::to_string_pretty(&[listed]).unwrap();
        assert_eq!(batch(&text).unwrap(), [RuleChange::Write(spec.clone())]);
        let mixed = r#"["clear", {"delete": 3}, {"key_index": 7, "action": {"vid": "drop"}}]"#;
        assert_eq!(batch(mixed).unwrap(), [RuleChange::Clear, RuleChange::Delete(3), RuleChange::Write(spec)]);
        for bad in
            [r#"[{"key_index": 7, "kye": {}, "action": {"vid": "drop"}}]"#, r#"[{"action": {"vid": "drop"}}]"#, "{}"]
        {
            assert!(batch(bad).is_err(), "{bad}");
        }
    }
}
