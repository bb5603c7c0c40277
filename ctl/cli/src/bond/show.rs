//! Bonds as tables, with all that `/proc/net/bonding/BOND` tells.

use ctl_types::table::Table;
use ctl_types::{BondEntry, PortState};
use model::{BondInfo, BondLacpInfo, BondMemberInfo, BondPartyInfo, BondPortInfo};

use crate::link::speed;

/// Buckets of flows of a bond.
const BUCKETS: usize = 256;

/// A line: what it tells, and the value.
type Line = (&'static str, String);

fn up(up: bool) -> String {
    if up { "up" } else { "down" }.to_owned()
}

fn state(state: PortState) -> &'static str {
    match state {
        PortState::Up => "up",
        PortState::Degraded => "degraded",
        PortState::Failed => "failed",
    }
}

/// An option by its word, or its number if it has no word.
fn option<'a>(info: &'a BondInfo, name: &str) -> &'a str {
    info.options.get(name).and_then(|value| value.split_whitespace().next()).unwrap_or_default()
}

fn distributing(info: &BondInfo) -> usize {
    info.members.iter().filter(|member| member.distributing).count()
}

/// `bond list`.
pub(super) fn list(bonds: &[BondEntry]) -> String {
    let mut table = Table::new(&["VPORT", "BOND", "STATE", "LINK", "MODE", "SENDING", "MEMBERS", "MAC", "MTU"]);
    for bond in bonds {
        let info = bond.info.as_ref();
        let asked = bond.spec.options.get("mode").cloned();
        table.row([
            bond.vport.map(|vport| vport.to_string()).unwrap_or_default(),
            bond.name.clone(),
            state(bond.state).to_owned(),
            info.map(|info| up(info.carrier)).unwrap_or_default(),
            info.map(|info| info.mode.clone()).or(asked).unwrap_or_default(),
            info.map(|info| format!("{} of {}", distributing(info), bond.spec.members.len())).unwrap_or_default(),
            bond.spec.members.join(","),
            info.map(|info| info.mac.to_string()).unwrap_or_default(),
            bond.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    for bond in bonds {
        text += &bond.error.as_ref().map(|error| format!("{}: {error}\n", bond.name)).unwrap_or_default();
    }
    text
}

/// `bond show`.
pub(super) fn bond(bond: &BondEntry) -> String {
    let mut lines = vec![
        ("bond", bond.name.clone()),
        ("port", bond.vport.map(|vport| vport.to_string()).unwrap_or_default()),
        ("state", state(bond.state).to_owned()),
    ];
    lines.extend(bond.error.iter().map(|error| ("error", error.clone())));
    let Some(info) = &bond.info else {
        lines.push(("members", bond.spec.members.join(", ")));
        lines.extend(bond.spec.options.iter().map(|(name, value)| ("option", format!("{name}={value}"))));
        return render("", &lines);
    };
    lines.extend(about(bond, info));
    let mut text = render("", &lines);
    for member in &info.members {
        text += &format!("\nmember {}\n{}", member.ifname, render("  ", &self::member(info, member)));
    }
    for name in &bond.missing {
        text += &format!("\nmember {name}\n{}", render("  ", &[("MII status", "missing".to_owned())]));
    }
    text
}

fn about(bond: &BondEntry, info: &BondInfo) -> Vec<Line> {
    let option = |name: &str| option(info, name);
    let millis = |name: &str| format!("{} ms", option(name));
    let mut lines = vec![
        ("mode", info.mode.clone()),
        ("hash policy", option("xmit_hash_policy").to_owned()),
        ("MII status", up(info.carrier)),
        ("miimon", millis("miimon")),
        ("up delay", millis("updelay")),
        ("down delay", millis("downdelay")),
        ("peer notif delay", millis("peer_notif_delay")),
        ("announcements", format!("{} after a failover", option("num_grat_arp"))),
        ("min links", option("min_links").to_owned()),
        ("all members in", if option("all_slaves_active") == "1" { "yes" } else { "no" }.to_owned()),
    ];
    match info.mode.as_str() {
        "balance-rr" => lines.push(("packets a member", option("packets_per_slave").to_owned())),
        "active-backup" => {
            let primary = match option("primary") {
                "" => "none".to_owned(),
                name => format!("{name} (reselect {})", option("primary_reselect")),
            };
            lines.push(("primary", primary));
            lines.push(("active member", info.active.clone().unwrap_or_else(|| "none".to_owned())));
            lines.push(("fail_over_mac", option("fail_over_mac").to_owned()));
        }
        _ => {}
    }
    lines.push(("MAC", info.mac.to_string()));
    lines.extend(bond.mtu.map(|mtu| ("MTU", mtu.to_string())));
    lines.push(("sending", format!("{} of {} members", distributing(info), bond.spec.members.len())));
    lines.extend(info.lacp.iter().flat_map(|lacp| self::lacp(info, lacp)));
    lines
}

/// What LACP has come to.
fn lacp(info: &BondInfo, lacp: &BondLacpInfo) -> Vec<Line> {
    let BondLacpInfo { system_priority, system, aggregator, ports, actor_key, partner_key, partner } = lacp;
    let mut lines = vec![
        ("LACP active", option(info, "lacp_active").to_owned()),
        ("LACP rate", option(info, "lacp_rate").to_owned()),
        ("ad_select", option(info, "ad_select").to_owned()),
        ("user port key", option(info, "ad_user_port_key").to_owned()),
        ("system", format!("priority {system_priority}, {system}")),
    ];
    match aggregator {
        None => lines.push(("active aggregator", "none".to_owned())),
        Some(number) => {
            lines.push(("active aggregator", format!("{number}, of {ports} ports")));
            lines.push(("actor key", actor_key.to_string()));
            lines.push(("partner key", partner_key.to_string()));
            lines.push(("partner", partner.to_string()));
        }
    }
    lines
}

fn member(info: &BondInfo, member: &BondMemberInfo) -> Vec<Line> {
    let unknown = || "unknown".to_owned();
    let BondMemberInfo { first_queue, queues, .. } = member;
    let traffic = match (member.collecting, member.distributing) {
        (true, true) => "in and out",
        (true, false) => "in only",
        (false, true) => "out only",
        (false, false) => "none",
    };
    let leaving = if member.leaving { ", is leaving" } else { "" };
    let mut lines = vec![
        ("number", member.number.to_string()),
        ("MII status", format!("{}{leaving}", member.mii_status)),
        ("link", up(member.link_up)),
        ("speed", member.speed.map_or_else(unknown, speed)),
        ("duplex", member.duplex.clone().unwrap_or_else(unknown)),
        ("link failures", member.link_failures.to_string()),
        ("permanent MAC", member.mac.to_string()),
        ("traffic", traffic.to_owned()),
        (
            "queues",
            match queues {
                0 | 1 => first_queue.to_string(),
                _ => format!("{first_queue} to {}", first_queue + queues - 1),
            },
        ),
        ("dropped inactive", format!("{} frames", member.inactive_drops)),
    ];
    if ["balance-xor", "802.3ad"].contains(&info.mode.as_str()) {
        lines.push(("buckets", format!("{} of {BUCKETS}", member.buckets)));
    }
    lines.extend(member.lacp.iter().flat_map(port));
    lines
}

/// A member as an LACP port.
fn port(port: &BondPortInfo) -> Vec<Line> {
    let churn = |state: &str, count: u64| format!("{state}, {count} times so far");
    vec![
        ("aggregator", port.aggregator.map_or_else(|| "none".to_owned(), |number| number.to_string())),
        ("receive machine", port.receive_state.clone()),
        ("mux machine", port.mux_state.clone()),
        ("actor churn", churn(&port.actor_churn, port.actor_churned)),
        ("partner churn", churn(&port.partner_churn, port.partner_churned)),
        ("actor", party(&port.actor)),
        ("actor state", words(&port.actor)),
        ("partner", party(&port.partner)),
        ("partner state", words(&port.partner)),
        ("LACPDUs", format!("{} received, {} sent, {} bad", port.pdus_received, port.pdus_sent, port.pdus_bad)),
    ]
}

fn party(party: &BondPartyInfo) -> String {
    let BondPartyInfo { system_priority, system, key, port_priority, port, .. } = party;
    format!("system {system} priority {system_priority}, key {key}, port {port} priority {port_priority}")
}

fn words(party: &BondPartyInfo) -> String {
    format!("{} ({})", party.state, party.state_words.join(" "))
}

fn render(indent: &str, lines: &[Line]) -> String {
    lines.iter().map(|(name, value)| format!("{indent}{name:<17} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use model::MacAddr;
    use serde_json::json;

    use super::*;

    fn lacp_bond() -> BondEntry {
        let party = |port: u16, state: u8, words: &[&str]| {
            json!({ "system_priority": 65535, "system": "02:00:00:00:00:01", "key": 15, "port_priority": 255,
                "port": port, "state": state, "state_words": words })
        };
        let member = json!({ "number": 1, "ifname": "eth1", "mac": "02:00:00:00:00:11", "link_up": true,
            "mii_status": "up", "speed": 10000, "link_failures": 3, "collecting": true, "distributing": true,
            "buckets": 256, "first_queue": 0, "queues": 2, "inactive_drops": 7, "lacp": { "aggregator": 1,
                "receive_state": "current", "mux_state": "distributing", "actor": party(1, 13, &["activity",
                "aggregation", "synchronization"]), "partner": party(9, 61, &["activity"]), "actor_churn": "none",
                "partner_churn": "churned", "actor_churned": 0, "partner_churned": 2, "pdus_received": 5,
                "pdus_sent": 6, "pdus_bad": 1 } });
        let options = json!({ "mode": "802.3ad 4", "xmit_hash_policy": "layer3+4 1", "miimon": "100",
            "lacp_rate": "fast 1", "ad_select": "stable 0", "downdelay": "200" });
        let lacp = json!({ "system_priority": 65535, "system": "02:00:00:00:00:01", "aggregator": 1, "ports": 1,
            "actor_key": 15, "partner_key": 8, "partner": "02:00:00:00:00:02" });
        let info = json!({ "mode": "802.3ad", "options": options, "mac": "02:00:00:00:00:01", "carrier": true,
            "lacp": lacp, "members": [member] });
        let bond = json!({ "name": "bond0", "vport": 3, "state": "degraded", "error": "eth2 is gone", "mtu": 1500,
            "spec": { "members": ["eth1", "eth2"] }, "missing": ["eth2"], "info": info });
        serde_json::from_value(bond).unwrap()
    }

    #[test]
    fn a_bond_is_shown_with_all_that_the_kernel_shows_of_its_own() {
        let text = bond(&lacp_bond());
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for expected in [
            "mode 802.3ad",
            "hash policy layer3+4",
            "MII status up",
            "miimon 100 ms",
            "down delay 200 ms",
            "LACP rate fast",
            "ad_select stable",
            "system priority 65535, 02:00:00:00:00:01",
            "active aggregator 1, of 1 ports",
            "actor key 15",
            "partner key 8",
            "partner 02:00:00:00:00:02",
            "sending 1 of 2 members",
            "member eth1",
            "speed 10G",
            "duplex unknown",
            "link failures 3",
            "permanent MAC 02:00:00:00:00:11",
            "queues 0 to 1",
            "buckets 256 of 256",
            "aggregator 1",
            "partner churn churned, 2 times so far",
            "actor state 13 (activity aggregation synchronization)",
            "partner system 02:00:00:00:00:01 priority 65535, key 15, port 9 priority 255",
            "LACPDUs 5 received, 6 sent, 1 bad",
            "member eth2",
            "MII status missing",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn a_list_has_a_line_a_bond_and_the_reasons_below() {
        let failed = BondEntry { info: None, state: PortState::Failed, ..lacp_bond() };
        let text = list(&[lacp_bond(), failed.clone()]);
        let words = |line: usize| text.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(1), "3 bond0 degraded up 802.3ad 1 of 2 eth1,eth2 02:00:00:00:00:01 1500");
        assert_eq!((words(2).as_str(), words(3).as_str()), ("3 bond0 failed eth1,eth2 1500", "bond0: eth2 is gone"));
        assert!(bond(&failed).contains("eth1, eth2"));
    }

    #[test]
    fn an_active_backup_has_its_active_member() {
        let mut entry = lacp_bond();
        let info = entry.info.as_mut().unwrap();
        (info.mode, info.active, info.lacp) = ("active-backup".into(), Some("eth1".into()), None);
        info.mac = MacAddr::ZERO;
        info.options = [("primary".into(), "eth2".into()), ("primary_reselect".into(), "better 1".into())].into();
        let text = bond(&entry);
        assert!(text.contains("eth2 (reselect better)") && !text.contains("ad_select"), "{text}");
    }
}
