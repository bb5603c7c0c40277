//! Checks of bonds for `doctor`: carrier, members, and what LACP has come to.

use ctl_types::{BondEntry, Check, PortEntry, Status};
use switch::model::{BondInfo, BondMemberInfo, BondPortInfo};

/// The checks of a port. None if it is no bond, or not up.
pub fn checks(port: &PortEntry) -> Vec<Check> {
    let Some(bond) = BondEntry::of(port.clone()) else { return Vec::new() };
    let Some(info) = &bond.info else { return Vec::new() };
    let name = format!("bond {}", bond.name);
    let mut checks = Vec::new();
    if !info.carrier {
        checks.push(Check::bad(Status::Warn, &name, "it has no carrier: nothing is sent", no_carrier(&bond, info)));
    }
    for member in &bond.missing {
        let advice = "it is taken up by itself when its netdev is there and usable; `bond set --remove` ends the wait";
        checks.push(Check::bad(Status::Warn, format!("{name}: {member}"), "the member is missing", advice));
    }
    checks.extend(info.members.iter().filter_map(|member| self::member(&name, info, member)));
    if info.mode == "balance-rr" && bond.spec.members.len() > 1 {
        let advice = "balance-xor and 802.3ad keep flows in order; packets_per_slave makes the turns longer";
        let text = "mode balance-rr reorders the frames of a flow, which slows TCP down";
        checks.push(Check::bad(Status::Warn, &name, text, advice));
    }
    if checks.is_empty() {
        let sending = info.members.iter().filter(|member| member.distributing).count();
        checks.push(Check::ok(name, format!("{}, {sending} of {} members send", info.mode, info.members.len())));
    }
    checks
}

/// What to do for a carrier.
fn no_carrier(bond: &BondEntry, info: &BondInfo) -> String {
    let least = info.options.get("min_links").and_then(|value| value.parse().ok()).unwrap_or(0);
    let up = info.members.iter().filter(|member| is_up(member)).count();
    match up {
        0 if bond.spec.members.is_empty() => "it has no members: `bond set --add IF`".to_owned(),
        0 => "no member has a link: look at cables and at the other ends".to_owned(),
        up if up < least => format!("{up} links are up, and min_links is {least}"),
        _ => "the members' links are up: see what LACP says of them".to_owned(),
    }
}

fn is_up(member: &BondMemberInfo) -> bool {
    ["up", "going down"].contains(&member.mii_status.as_str())
}

/// What is wrong with a member.
fn member(bond: &str, info: &BondInfo, member: &BondMemberInfo) -> Option<Check> {
    let warn = |text: String, advice: String| {
        Some(Check::bad(Status::Warn, format!("{bond}: {}", member.ifname), text, advice))
    };
    let option = |name: &str| info.options.get(name).map(String::as_str).unwrap_or_default();
    match member.mii_status.as_str() {
        "up" | "going down" => {}
        "going back" => {
            let text = format!("its link is up, and is used after updelay ({} ms)", option("updelay"));
            return warn(text, "wait, or set a shorter updelay".to_owned());
        }
        _ => {
            let text = format!("its link is down; it has failed {} times", member.link_failures);
            return warn(text, "look at the cable and the other end; is the netdev up?".to_owned());
        }
    }
    let lacp = member.lacp.as_ref()?;
    if member.distributing || member.leaving {
        return None;
    }
    let (text, advice) = lacp_trouble(info, member, lacp);
    warn(text, advice.to_owned())
}

/// Why a link that is up carries nothing by LACP, and what to do.
fn lacp_trouble(info: &BondInfo, member: &BondMemberInfo, lacp: &BondPortInfo) -> (String, &'static str) {
    let active = info.lacp.clone().unwrap_or_default();
    let said = |word: &str| lacp.partner.state_words.iter().any(|said| said == word);
    if member.duplex.as_deref() == Some("half") {
        let advice = "let both ends negotiate, or set full duplex at both";
        return ("its link is half duplex, which LACP never aggregates".to_owned(), advice);
    }
    if lacp.receive_state != "current" {
        let advice = "turn LACP on at the other end, in mode active, and put its ports into one group";
        let heard = if lacp.pdus_received == 0 { "no LACPDU has come in" } else { "no LACPDU comes in any more" };
        return (format!("{heard}: its partner is {}", lacp.receive_state), advice);
    }
    if lacp.aggregator != active.aggregator {
        if lacp.partner.system != active.partner {
            let text =
                format!("its partner is {}, and that of the active aggregator {}", lacp.partner.system, active.partner);
            return (text, "connect all members to one switch, or to switches that are one to LACP (MLAG)");
        }
        let text = format!(
            "it is in aggregator {}, and not in the active one: keys {} and {}, there {} and {}",
            lacp.aggregator.unwrap_or_default(),
            lacp.actor.key,
            lacp.partner.key,
            active.actor_key,
            active.partner_key
        );
        return (text, "links of an aggregator have the same speed here, and are in the same group at the other end");
    }
    if !said("synchronization") || !said("collecting") {
        let text = format!("its partner does not collect yet: {}", lacp.partner.state_words.join(" "));
        return (text, "look at the group of that port at the other end");
    }
    (format!("LACP has come to {}", lacp.mux_state), "wait a few seconds and look again")
}

#[cfg(test)]
mod tests {
    use switch::model::*;

    use super::*;

    fn bond(mode: &str, change: impl FnOnce(&mut BondInfo)) -> Vec<Check> {
        let partner = BondPartyInfo { system: MacAddr::new([2, 0, 0, 0, 0, 9]), ..BondPartyInfo::default() };
        let lacp = BondPortInfo {
            aggregator: Some(1),
            receive_state: "current".into(),
            mux_state: "attached".into(),
            partner: partner.clone(),
            ..BondPortInfo::default()
        };
        let member = |ifname: &str| BondMemberInfo {
            ifname: ifname.into(),
            mii_status: "up".into(),
            distributing: true,
            lacp: (mode == "802.3ad").then(|| lacp.clone()),
            ..BondMemberInfo::default()
        };
        let active = BondLacpInfo { aggregator: Some(1), partner: partner.system, ..BondLacpInfo::default() };
        let mut info = BondInfo {
            mode: mode.into(),
            carrier: true,
            members: vec![member("eth1"), member("eth2")],
            lacp: (mode == "802.3ad").then_some(active),
            ..BondInfo::default()
        };
        change(&mut info);
        let members = vec!["eth1".into(), "eth2".into()];
        let spec =
            PortSpec { bond: Some(BondSpec { members, ..BondSpec::default() }), ..PortSpec::new("b", PortKind::Bond) };
        let port = serde_json::json!({ "spec": spec, "vport": 0, "link_up": true, "max_mtu": 0, "queues": [],
            "fdb_entries": 0, "bond": info });
        let info = serde_json::from_value(port).unwrap();
        let entry = PortEntry {
            name: "b".into(),
            state: ctl_types::PortState::Up,
            error: None,
            spec,
            info: Some(info),
            guest: None,
        };
        checks(&entry)
    }

    fn told(checks: &[Check]) -> Vec<(String, String)> {
        let bad = checks.iter().filter(|check| check.status != Status::Ok);
        bad.map(|check| (check.name.clone(), format!("{}; {}", check.text, check.advice.clone().unwrap_or_default())))
            .collect()
    }

    #[test]
    fn a_bond_that_works_is_told_in_a_line() {
        for mode in ["802.3ad", "active-backup", "balance-xor"] {
            let checks = bond(mode, |_| {});
            assert_eq!((checks.len(), checks[0].status), (1, Status::Ok), "{checks:?}");
            assert!(checks[0].text.contains("2 of 2"), "{checks:?}");
        }
        assert!(told(&bond("balance-rr", |_| {}))[0].1.contains("reorders"));
    }

    #[test]
    fn what_keeps_a_member_from_its_work_is_told_with_what_to_do() {
        type Change = fn(&mut BondInfo);
        let stopped: Change = |info| info.members[1].distributing = false;
        for (change, word) in [
            ((|info| drop(info.members.pop())) as Change, "missing"),
            (|info| info.members[1].mii_status = "down".into(), "link is down"),
            (|info| info.members[1].mii_status = "going back".into(), "updelay"),
            (|info| info.members[1].duplex = Some("half".into()), "half duplex"),
            (|info| info.members[1].lacp.as_mut().unwrap().receive_state = "defaulted".into(), "turn LACP on"),
            (
                |info| {
                    let lacp = info.members[1].lacp.as_mut().unwrap();
                    (lacp.aggregator, lacp.partner.system) = (Some(2), MacAddr::new([2, 0, 0, 0, 0, 8]));
                },
                "its partner is 02:00:00:00:00:08",
            ),
            (|info| info.members[1].lacp.as_mut().unwrap().aggregator = Some(2), "aggregator 2"),
            (|_| {}, "does not collect"),
        ] {
            let checks = bond("802.3ad", |info| {
                stopped(info);
                change(info);
            });
            let told = told(&checks);
            assert!(told.len() == 1 && told[0].0 == "bond b: eth2" && told[0].1.contains(word), "{word}: {told:?}");
        }
    }

    #[test]
    fn why_there_is_no_carrier_is_told() {
        let none = bond("active-backup", |info| {
            info.carrier = false;
            for member in &mut info.members {
                member.mii_status = "down".into();
            }
        });
        assert!(told(&none)[0].1.contains("no member has a link"), "{none:?}");
        let few = bond("802.3ad", |info| {
            info.carrier = false;
            info.options.insert("min_links".into(), "3".into());
        });
        assert!(told(&few)[0].1.contains("2 links are up, and min_links is 3"), "{few:?}");
    }
}
