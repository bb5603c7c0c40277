//! Properties of the pure part: random switches, files and histories.

use std::collections::BTreeSet;

use ctl_types::{DiskSpec, MeterConfig, SwitchConfig};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use switch::model::*;

use super::check::check_config;
use super::diff::{Changes, Edit, diff};
use super::item::{Item, by_key};
use super::marks::{Marks, Source};
use super::target::{Wish, sort, target};

const SLOTS: usize = 16;

fn port() -> impl Strategy<Value = PortSpec> {
    let fields = (
        prop::option::of(0..6_u16),
        prop::option::of((0..3_u16).prop_map(|vid| VlanMode::Access { vid })),
        prop::option::of(prop::sample::select(vec![1400_u32, 1500])),
        prop::option::of((1..4_u8).prop_map(|last| MacAddr::new([2, 0, 0, 0, 0, last]))),
        any::<(bool, bool)>(),
        prop::option::of(1..3_u32),
        prop::option::of(prop::sample::select(vec!["n1", "n2"])),
    );
    fields.prop_map(|(vport, vlan, mtu, mac, (isolated, is_phy), queues, netns)| {
        let kind = if is_phy { PortKind::Phy } else { PortKind::Guest };
        PortSpec {
            vport,
            vlan,
            mtu,
            mac,
            isolated,
            queues,
            netns: netns.filter(|_| !is_phy).map(str::to_owned),
            ..PortSpec::new("", kind)
        }
    })
}

fn ports() -> impl Strategy<Value = Vec<PortSpec>> {
    btree_map(0..5_u8, port(), 0..5).prop_map(|ports| {
        let mut taken = BTreeSet::new();
        let named = ports.into_iter().map(|(name, port)| {
            let name = format!("p{name}");
            let ifname = (port.kind == PortKind::Phy).then(|| format!("eth-{name}"));
            let vport = port.vport.filter(|no| taken.insert(*no));
            PortSpec { name, ifname, vport, ..port }
        });
        named.collect()
    })
}

/// What a file may say. It names ports and meters whether or not there are such.
fn config() -> impl Strategy<Value = SwitchConfig> {
    let number = 0..6_u16;
    let rule = (prop::option::of(0..4_u32), 0..6_u16).prop_map(|(meter, no)| RuleAction {
        meter,
        ..RuleAction::to(if no == 0 { RuleTarget::Drop } else { RuleTarget::Port(no) })
    });
    let direction = prop::sample::select(vec![MeterDirection::From, MeterDirection::To]);
    let sections = (
        prop::option::of((16..20_u32).prop_map(|fdb_limit| BridgeSettings { fdb_limit, ..BridgeSettings::default() })),
        ports(),
        btree_map((0..2_u16, 1..4_u8), 0..5_u8, 0..4),
        btree_map(0..4_u32, (100..103_u32, any::<bool>()), 0..4),
        btree_map((number.clone(), direction), 0..4_u32, 0..4),
        btree_map(0..5_u32, rule, 0..4),
        btree_map(number.clone(), number, 0..3),
        btree_map(0..3_u8, (prop::option::of(1..3_u64), prop::option::of(any::<bool>())), 0..3),
    );
    sections.prop_map(|(bridge, ports, fdb, meters, bindings, rules, redirects, disks)| SwitchConfig {
        bridge,
        ports,
        fdb: fdb
            .into_iter()
            .map(|((vlan, last), port)| FdbSpec {
                mac: MacAddr::new([2, 0, 0, 0, 1, last]),
                vlan,
                port: format!("p{port}"),
            })
            .collect(),
        meters: meters
            .into_iter()
            .map(|(id, (rate, implicit))| MeterConfig { spec: MeterSpec::new(id, rate), implicit })
            .collect(),
        bindings: bindings
            .into_iter()
            .map(|((vport, direction), meter)| MeterBinding { vport, direction, meter })
            .collect(),
        rules: rules
            .into_iter()
            .map(|(key_index, action)| RuleSpec { key_index, key: RuleKey::default(), action })
            .collect(),
        redirects: redirects
            .into_iter()
            .filter(|(src, dest)| src != dest)
            .map(|(src, dest)| RedirectSpec { src, dest })
            .collect(),
        disks: disks
            .into_iter()
            .map(|(no, (mib, paused))| DiskSpec {
                size: mib.map(|mib| mib << 20),
                paused,
                ..DiskSpec::new(format!("d{no}"))
            })
            .collect(),
    })
}

/// A switch with the rows of a file, as if it had been empty before.
fn switch_of(config: &SwitchConfig) -> SwitchConfig {
    let wish = Wish { config, source: &Source::Unnamed, prune: true };
    target(&SwitchConfig::default(), &wish, &Marks::default(), SLOTS).config
}

fn apply_to<T: Item>(is: &[T], edits: &[Edit<T>]) -> Vec<T> {
    let mut rows = by_key(is);
    for edit in edits {
        match edit {
            Edit::Add(to) => assert!(rows.insert(to.key(), to).is_none()),
            Edit::Change { from, to } => assert_eq!(rows.insert(to.key(), to).map(Item::put), Some(from.put())),
            Edit::Remove(from) => assert!(rows.remove(&from.key()).is_some()),
        }
    }
    rows.into_values().cloned().collect()
}

fn apply(is: &SwitchConfig, changes: &Changes) -> SwitchConfig {
    SwitchConfig {
        bridge: apply_to(is.bridge.as_slice(), &changes.bridge).pop(),
        ports: apply_to(&is.ports, &changes.ports),
        fdb: apply_to(&is.fdb, &changes.fdb),
        meters: apply_to(&is.meters, &changes.meters),
        bindings: apply_to(&is.bindings, &changes.bindings),
        rules: apply_to(&is.rules, &changes.rules),
        redirects: apply_to(&is.redirects, &changes.redirects),
        disks: apply_to(&is.disks, &changes.disks),
    }
}

/// The target of a file, and the marks afterwards.
fn take(is: &SwitchConfig, config: &SwitchConfig, marks: &Marks, source: &Source) -> (SwitchConfig, Marks) {
    let target = target(is, &Wish { config, source, prune: false }, marks, SLOTS);
    let stays = target.stays.iter().map(|stay| stay.mark.as_str()).collect();
    let marks = marks.after(config, source, &stays);
    (target.config, marks)
}

proptest! {
    #[test]
    fn a_diff_leads_from_one_to_the_other(a in config(), b in config()) {
        let (mut a, mut b) = (a, b);
        sort(&mut a);
        sort(&mut b);
        prop_assert_eq!(apply(&a, &diff(&a, &b)), b.clone());
        prop_assert_eq!(diff(&b, &b), Changes::default());
        let rows = diff(&a, &b).rows();
        prop_assert_eq!(rows.is_empty(), a == b);
    }

    #[test]
    fn a_file_that_is_taken_again_changes_nothing(files in vec(config(), 1..4), other in config(), prune: bool) {
        let other = Source::File(format!("/{}", other.ports.len()));
        let (mut is, mut marks) = (switch_of(&SwitchConfig::default()), Marks::default());
        for (at, file) in files.iter().enumerate() {
            let source = if at % 2 == 0 { &Source::Configuration } else { &other };
            (is, marks) = take(&is, file, &marks, source);
            let (again, marks_again) = take(&is, file, &marks, source);
            prop_assert_eq!(diff(&is, &again), Changes::default());
            prop_assert_eq!(&marks_again, &marks);
            if prune {
                let wish = Wish { config: file, source, prune };
                let pruned = target(&is, &wish, &marks, SLOTS).config;
                let again = target(&pruned, &wish, &marks, SLOTS).config;
                prop_assert_eq!(diff(&pruned, &again), Changes::default());
            }
        }
    }

    #[test]
    fn an_export_makes_the_same_switch(file in config(), before in config()) {
        let is = switch_of(&file);
        prop_assert_eq!(&switch_of(&is), &is);
        // On a switch with other rows, with their removal.
        let wish = Wish { config: &is, source: &Source::Unnamed, prune: true };
        let to = target(&switch_of(&before), &wish, &Marks::default(), SLOTS).config;
        let guests = |config: &SwitchConfig| config.ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(guests(&to), guests(&is));
        prop_assert_eq!((&to.rules, &to.bindings, &to.redirects), (&is.rules, &is.bindings, &is.redirects));
        prop_assert_eq!((&to.meters, &to.fdb, &to.bridge), (&is.meters, &is.fdb, &is.bridge));
    }

    #[test]
    fn what_a_file_says_comes_true_and_rows_made_at_run_time_stay(made in config(), one in config(), two in config()) {
        let made = switch_of(&made);
        let (is, marks) = take(&made, &one, &Marks::default(), &Source::Configuration);
        let (is, _) = take(&is, &two, &marks, &Source::Configuration);
        let ports = by_key(&is.ports);
        for port in &two.ports {
            let is = ports[&port.name];
            prop_assert_eq!(&is.vlan, &port.vlan.clone().or(Some(port.kind.default_vlan())));
            prop_assert_eq!((is.kind, is.isolated, &is.netns), (port.kind, port.isolated, &port.netns));
            prop_assert!(port.vport.is_none() || port.vport == is.vport);
            prop_assert!(port.mac.is_none() || port.mac == is.mac);
        }
        let (rules, meters) = (by_key(&is.rules), by_key(&is.meters));
        prop_assert!(two.rules.iter().all(|rule| rules[&rule.key()] == rule));
        prop_assert!(two.meters.iter().all(|meter| meters[&meter.key()].spec == meter.spec));
        // Rows of the first file go, and those of nobody stay.
        let declared: BTreeSet<_> = one.rules.iter().chain(&two.rules).map(Item::key).collect();
        for rule in &made.rules {
            prop_assert!(declared.contains(&rule.key()) || rules[&rule.key()] == rule);
        }
        let last: BTreeSet<_> = two.rules.iter().map(Item::key).collect();
        prop_assert!(one.rules.iter().all(|rule| last.contains(&rule.key()) || !rules.contains_key(&rule.key())));
    }

    #[test]
    fn a_number_is_kept_and_given_once(one in config(), two in config()) {
        let (is, marks) = take(&switch_of(&SwitchConfig::default()), &one, &Marks::default(), &Source::Configuration);
        let (to, _) = take(&is, &two, &marks, &Source::Configuration);
        let wished = by_key(&two.ports);
        let before = by_key(&is.ports);
        for port in &to.ports {
            if let (Some(wish), Some(before)) = (wished.get(&port.name), before.get(&port.name)) {
                prop_assert_eq!(port.vport, wish.vport.or(before.vport));
            }
        }
        let numbers: Vec<_> = two.ports.iter().filter_map(|port| by_key(&to.ports)[&port.name].vport).collect();
        prop_assert_eq!(numbers.len(), two.ports.len());
        if check_config(&DataplaneSettings::default(), &to).is_ok() {
            prop_assert_eq!(to.ports.iter().filter_map(|port| port.vport).collect::<BTreeSet<_>>().len(), to.ports.len());
        }
    }
}

#[test]
fn a_row_that_is_needed_stays_and_goes_later() {
    let meter = MeterConfig { spec: MeterSpec::new(7, 100), implicit: true };
    let file = SwitchConfig {
        ports: ["a", "b"].map(|name| PortSpec::new(name, PortKind::Guest)).to_vec(),
        meters: vec![meter],
        ..SwitchConfig::default()
    };
    let source = Source::Configuration;
    let (mut is, marks) = take(&SwitchConfig::default(), &file, &Marks::default(), &source);
    // Made at run time.
    is.bindings.push(MeterBinding { vport: 0, direction: MeterDirection::To, meter: 7 });
    is.redirects.push(RedirectSpec { src: 0, dest: 1 });
    let file = SwitchConfig { ports: vec![PortSpec::new("a", PortKind::Guest)], ..SwitchConfig::default() };
    let wish = Wish { config: &file, source: &source, prune: false };
    let first = target(&is, &wish, &marks, SLOTS);
    assert_eq!((first.config.ports.len(), first.config.meters.len(), first.stays.len()), (2, 1, 2));
    assert!(first.stays[0].why.starts_with("port `b` stays"), "{:?}", first.stays);
    assert!(first.stays[1].why.starts_with("meter 7 stays"), "{:?}", first.stays);
    let stays = first.stays.iter().map(|stay| stay.mark.as_str()).collect();
    let marks = marks.after(&file, &source, &stays);
    let mut is = first.config;
    (is.bindings, is.redirects) = (Vec::new(), Vec::new());
    let later = target(&is, &wish, &marks, SLOTS);
    assert_eq!((later.config.ports.len(), later.config.meters.len(), later.stays.len()), (1, 0, 0));
    // All that is not declared goes at once by pruning.
    let pruned = target(&is, &Wish { prune: true, ..wish }, &Marks::default(), SLOTS).config;
    assert_eq!((pruned.ports.len(), pruned.meters.len()), (1, 0));
}

#[test]
fn a_port_goes_with_the_redirect_that_kept_it() {
    let port = |name: &str, vport| PortSpec { vport: Some(vport), ..PortSpec::new(name, PortKind::Guest) };
    let file = |ports: Vec<PortSpec>, redirects: Vec<RedirectSpec>| SwitchConfig {
        ports,
        redirects,
        ..SwitchConfig::default()
    };
    let other = Source::File("/other".to_owned());
    let empty = switch_of(&SwitchConfig::default());
    let first = file(vec![port("p2", 1)], Vec::new());
    let (is, marks) = take(&empty, &first, &Marks::default(), &Source::Configuration);
    let redirected = file(vec![port("p1", 4)], vec![RedirectSpec { src: 4, dest: 1 }]);
    let (is, marks) = take(&is, &redirected, &marks, &other);
    // The port moves away from the number that was redirected, and the file has the other port no more.
    let last = file(vec![port("p1", 0)], Vec::new());
    let (is, marks) = take(&is, &last, &marks, &Source::Configuration);
    assert_eq!(is.ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["p1"]);
    assert_eq!(is.redirects, []);
    let (again, _) = take(&is, &last, &marks, &Source::Configuration);
    assert_eq!(diff(&is, &again), Changes::default());
}
