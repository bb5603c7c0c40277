//! The bridge against a small reference, and traces against the bridge, in random topologies.

use std::collections::{BTreeSet, HashMap};

use super::*;
use crate::engine::bridge::FlowCache;
use crate::engine::parse::parse;
use crate::engine::rule::Key;
use crate::engine::tables::Tables;
use crate::model::{Capacity, Masked, MaskedMac, RedirectSpec, RuleAction, RuleChange, RuleKey, RuleSpec, RuleTarget};

/// The reference: who gets a frame, by VLAN and MAC address, with sets and maps. Tags are left to the VLAN tests.
fn receivers(ports: &[PortPolicy], table: &mut HashMap<(u8, Vid), usize>, sent: &Sent) -> BTreeSet<PortNo> {
    let nobody = BTreeSet::new();
    let ingress = usize::from(sent.port);
    let Some(from) = ports.get(ingress) else { return nobody };
    let carried = sent.tags.first().map_or(0, |tag| tag.1 & 0xfff);
    let vid = match &from.vlan {
        VlanMode::Access { vid } => (carried == 0 && sent.tags.len() < 2).then_some(*vid),
        VlanMode::Trunk { native, .. } if carried == 0 => *native,
        VlanMode::Trunk { .. } => from.vlan.is_member(carried).then_some(carried),
    };
    let Some(vid) = vid.filter(|vid| *vid < 4095) else { return nobody };
    if from.mac_check && from.mac != Some(address(sent.src)) {
        return nobody;
    }
    table.insert((sent.src, vid), ingress);
    let known = table.get(&(sent.dst, vid));
    (0..ports.len())
        .filter(|to| sent.dst != 8 && *to != ingress && known.is_none_or(|known| known == to))
        .filter(|to| !(from.isolated && ports[*to].isolated) && ports[*to].vlan.is_member(vid))
        .filter(|to| sent.len <= ports[*to].mtu as usize)
        .map(|to| to as PortNo)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_topologies_are_switched_as_a_small_reference_bridge_does(
        ports in any_ports(), traffic in prop::collection::vec(any_sent(), 1..60)
    ) {
        let switch = Switch::new(ports.clone());
        let mut table = HashMap::new();
        for sent in traffic {
            let bytes = frame(address(sent.dst), address(sent.src), &sent.tags, 0x1234, &vec![0; sent.len]);
            let before = switch.fdb.len();
            let traced = switch.trace(sent.port, &bytes, &|port| format!("p{port}"));
            prop_assert_eq!(before, switch.fdb.len(), "a trace changes nothing");
            let expected = receivers(&ports, &mut table, &sent);
            let got = switch.switch(sent.port, &bytes);
            let ports_out: BTreeSet<_> = got.iter().flat_map(|out| out.keys().copied()).collect();
            prop_assert_eq!(&ports_out, &expected, "{:?}: {:?}", sent, got);
            prop_assert!(!ports_out.contains(&sent.port));
            prop_assert_eq!(&traced.outputs, &ports_out.iter().map(|port| format!("p{port}")).collect::<Vec<_>>());
            prop_assert_eq!(traced.drop_reason.as_deref(), got.as_ref().err().map(|reason| reason.label()));
            let verdict = match (&got, switch.decide(sent.port, &bytes)) {
                (Err(_), _) => "drop",
                (Ok(_), Verdict::Flood { .. }) => "flood",
                (Ok(_), _) => "forward",
            };
            prop_assert_eq!(&traced.verdict, verdict);
        }
    }

    /// With rules and redirects, a trace says what the switch does, with the cache and without. Nothing goes back to
    /// its sender. Nobody gets a frame twice, which `switch` checks.
    #[test]
    fn rules_and_redirects_are_traced_as_they_are_switched(
        ports in any_ports(),
        rules in prop::collection::vec((0_u32..20, 0_u16..8, 0_u8..4, 0_u8..7, 0_u16..10), 0..12),
        redirects in prop::collection::vec((0_u16..7, 0_u16..7), 0..6),
        traffic in prop::collection::vec(any_sent(), 1..40),
    ) {
        let count = ports.len() as PortNo;
        let mut switch = Switch::new(ports);
        let mut tables = Tables::new(Capacity::default(), 1);
        let any = |_: PortNo| Some(1);
        for (key_index, port, field, station, target) in rules {
            let mac = || Some(MaskedMac { value: mac(station), mask: MaskedMac::FULL });
            let key = match field {
                0 => RuleKey { ingress_port: Some(Masked::exactly(u32::from(port))), ..RuleKey::default() },
                1 => RuleKey { dmac: mac(), ..RuleKey::default() },
                2 => RuleKey { smac: mac(), ..RuleKey::default() },
                _ => RuleKey { vlan: Some(Masked::exactly(u32::from(port))), ..RuleKey::default() },
            };
            let target = match target {
                8 => RuleTarget::Drop,
                9 => RuleTarget::Normal,
                port => RuleTarget::Port(port),
            };
            let rule = RuleSpec { key_index, key, action: RuleAction::to(target) };
            tables.change_rules(vec![RuleChange::Write(rule)], &any).unwrap();
        }
        for (src, dest) in redirects {
            // A redirect that would be a loop is refused.
            let _ = tables.redirects.set(RedirectSpec { src, dest }, &any);
        }
        let ends: Vec<_> = tables.redirects.iter().map(|(spec, end)| (spec.src, end)).collect();
        switch.snap = switch.snap.with_redirects(ends.iter().copied()).with_rules(2, tables.rules.current().clone());
        let mut cache = FlowCache::default();
        for sent in traffic {
            let bytes = frame(address(sent.dst), address(sent.src), &sent.tags, 0x1234, &vec![0; sent.len]);
            let traced = switch.trace(sent.port, &bytes, &|port| format!("p{port}"));
            let got = switch.switch(sent.port, &bytes);
            let out: BTreeSet<_> = got.iter().flat_map(|out| out.keys().copied()).collect();
            prop_assert!(!out.contains(&sent.port) && out.iter().all(|port| *port < count));
            let is_redirected = |port: &PortNo| ends.iter().any(|(src, _)| src == port);
            prop_assert!(!out.iter().any(is_redirected), "a redirected port got something");
            let told: BTreeSet<_> = traced.outputs.iter().cloned().collect();
            prop_assert_eq!(told, out.iter().map(|port| format!("p{port}")).collect());
            if let Err(reason) = &got
                && !matches!(switch.decide(sent.port, &bytes), Verdict::Flood { .. })
            {
                prop_assert_eq!(traced.drop_reason.as_deref(), Some(reason.label()));
            }
            let key = parse(&bytes).map(|headers| Key::of(sent.port, &headers)).unwrap();
            let found = tables.rules.current().find(&key).map(|rule| rule.index);
            for _ in 0..2 {
                cache.begin_burst();
                let cached = cache.decide(&switch.context(0, sent.port), &bytes);
                prop_assert_eq!(cached.verdict, switch.decide(sent.port, &bytes));
                // Frames that are not admitted have no rule.
                prop_assert!(cached.rule.is_none_or(|rule| Some(rule.index) == found));
                prop_assert_eq!(traced.rule, cached.rule.map(|rule| rule.index));
            }
        }
    }

    #[test]
    fn no_bytes_make_the_bridge_or_the_trace_panic(
        ports in any_ports(), ingress in 0_u16..9, bytes in prop::collection::vec(any::<u8>(), 0..80), tpid: bool
    ) {
        let (switch, mut bytes) = (Switch::new(ports), bytes);
        if tpid && bytes.len() > 13 {
            bytes[12..14].copy_from_slice(&TPID_CTAG.to_be_bytes());
        }
        let report = switch.trace(ingress, &bytes, &|port| port.to_string());
        prop_assert!(switch.fdb.is_empty());
        let got = switch.switch(ingress, &bytes);
        prop_assert_eq!(report.drop_reason, got.err().map(|reason| reason.label().to_owned()));
    }
}
