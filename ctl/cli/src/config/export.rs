//! The configuration of a switch as TOML.

use anyhow::Context;
use ctl_types::Capability;
use model::Capacity;
use serde_json::{Map, Value};

/// Sections, in the order of the file.
const SECTIONS: [&str; 8] = ["bridge", "port", "fdb", "meter", "binding", "rule", "redirect", "disk"];
/// Fields that come first in a row, because they tell it from others.
const FIRST: [&str; 4] = ["name", "id", "key_index", "kind"];

/// The text of a file with that configuration.
pub(super) fn toml(config: &Value, capability: &Capability) -> anyhow::Result<String> {
    let mut text = String::from("# Ports, tables and disks, as `xswitch config export` prints them.\n");
    text += &capacity(capability);
    for section in SECTIONS {
        match config.get(section) {
            Some(Value::Object(table)) => text += &format!("\n[{section}]\n{}", fields(table)?),
            Some(Value::Array(rows)) => {
                for row in rows {
                    let row =
                        row.as_object().context("the daemon's answer is not as expected: are both of one version?")?;
                    text += &format!("\n[[{section}]]\n{}", fields(row)?);
                }
            }
            _ => {}
        }
    }
    Ok(text)
}

/// The sizes of tables, where they are not the defaults. Rows may need them.
fn capacity(capability: &Capability) -> String {
    let default = Capacity::default();
    let sizes = [
        ("ports", capability.ports.total, default.ports),
        ("meters", capability.meters.total, default.meters),
        ("rules", capability.rules.total, default.rules),
    ];
    let other = sizes.iter().filter(|(_, size, default)| size != default);
    let lines: String = other.map(|(name, size, _)| format!("{name} = {size}\n")).collect();
    if lines.is_empty() { lines } else { format!("\n[dataplane.capacity]\n{lines}") }
}

fn fields(row: &Map<String, Value>) -> anyhow::Result<String> {
    let mut fields: Vec<_> = row.iter().collect();
    fields.sort_by_key(|(name, _)| (FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()), *name));
    let line = |(name, value): (&String, &Value)| Ok(format!("{name} = {}\n", inline(value)?));
    fields.into_iter().map(line).collect()
}

/// A value in TOML. TOML has no `null`. Only the native VLAN of a trunk may be, and is `"none"` then.
fn inline(value: &Value) -> anyhow::Result<toml::Value> {
    Ok(match value {
        Value::Null => toml::Value::String("none".to_owned()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| Ok((name.clone(), inline(value)?)));
            toml::Value::Table(fields.collect::<anyhow::Result<_>>()?)
        }
        value => toml::Value::try_from(value)?,
    })
}

#[cfg(test)]
mod tests {
    use ctl_types::{DiskLimits, DiskRate, DiskSpec, MeterConfig, SwitchConfig};
    use model::*;

    use super::super::file::File;
    use super::*;

    fn capability(ports: u32) -> Capability {
        let usage = |total| Usage { total, free: 0 };
        let default = Capacity::default();
        let (meters, rules) = (usage(default.meters), usage(default.rules));
        Capability { ports: usage(ports), meters, rules, rule_masks: 0, disks: usage(256) }
    }

    #[test]
    fn an_export_is_read_as_the_same_configuration() {
        let trunk = |native| VlanMode::Trunk { native, tagged: "10,20-29".parse().unwrap() };
        let port = |name: &str, vlan| PortSpec {
            vlan: Some(vlan),
            mac: Some(MacAddr::new([2, 0, 0, 0, 0, 1])),
            uuid: Some("a \"b\" \\ ü \u{7f}".into()),
            ..PortSpec::new(name, PortKind::Guest)
        };
        let key = RuleKey {
            ingress_port: Some(Masked { value: 2, mask: 0xfffe }),
            dmac: Some("02:00:00:00:00:00/ff:ff:ff:00:00:00".parse().unwrap()),
            dip: Some("2001:db8::/32".parse().unwrap()),
            dl4port: Some(Masked::exactly(80)),
            ip_type: Some(IpType::Ipv6),
            ..RuleKey::default()
        };
        let action =
            RuleAction { queue: Some(1), meter: Some(7), mirror: Some(2), ..RuleAction::to(RuleTarget::Port(3)) };
        let config = SwitchConfig {
            bridge: Some(BridgeSettings { forward_reserved: true, ..BridgeSettings::default() }),
            ports: vec![
                port("a", trunk(None)),
                port("b", trunk(Some(0))),
                port("c", trunk(Some(5))),
                port("d", VlanMode::Access { vid: 7 }),
            ],
            fdb: vec![FdbSpec { mac: MacAddr::new([2, 0, 0, 0, 0, 9]), vlan: 7, port: "d".into() }],
            meters: vec![
                MeterConfig { spec: MeterSpec::new(7, u32::MAX), implicit: false },
                MeterConfig {
                    spec: MeterSpec { kind: MeterType::Pps, burst: Some(9), ..MeterSpec::new(8, 1) },
                    implicit: true,
                },
            ],
            bindings: vec![MeterBinding { vport: 1, direction: MeterDirection::To, meter: 7 }],
            rules: vec![
                RuleSpec { key_index: 4, key, action },
                RuleSpec { key_index: 5, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Drop) },
            ],
            redirects: vec![RedirectSpec { src: 1, dest: 2 }],
            disks: vec![DiskSpec {
                size: Some(1 << 40),
                cpus: vec![0, 1],
                paused: Some(true),
                limits: DiskLimits { read_ops: Some(DiskRate { per_second: 7, burst: 9 }), ..DiskLimits::default() },
                ..DiskSpec::new("d \"1\"")
            }],
        };
        let text = toml(&serde_json::to_value(&config).unwrap(), &capability(256)).unwrap();
        assert_eq!(File::parse(&text).unwrap().switch_config(), config, "{text}");
        assert!(text.contains("native = \"none\"") && !text.contains("dataplane"), "{text}");
    }

    #[test]
    fn tables_of_another_size_are_named() {
        let text = toml(&serde_json::json!({}), &capability(1000)).unwrap();
        assert!(text.contains("[dataplane.capacity]\nports = 1000\n"), "{text}");
    }
}
