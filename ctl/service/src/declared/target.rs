//! What a switch becomes by a configuration. Pure.
//!
//! Rows that the configuration declares become as it says. Of the other rows, those go that its file declared before.
//! Rows made at run time, and rows of other files, stay.
//!
//! Entries of a port that goes, or gets another number, go with it: bindings, its own redirect, static FDB entries.
//! A row that goes stays if a row made at run time needs it. So a meter stays that is in use, and a port that frames
//! are redirected to.

use std::collections::{BTreeMap, BTreeSet};

use ctl_disks::complete_declared;
use ctl_types::SwitchConfig;
use switch::model::*;

use super::item::{Item, by_key};
use super::marks::{Marks, Source};
use super::port::complete;

/// A configuration, and how it is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub config: &'a SwitchConfig,
    /// Where it comes from.
    pub source: &'a Source,
    /// Whether all rows go that it does not declare, but for those that the switch needs itself.
    pub prune: bool,
}

impl Wish<'_> {
    /// Whether a row goes if it is not declared.
    fn may_go(&self, marks: &Marks, row: &impl Item) -> bool {
        !row.is_made() && (self.prune || marks.is_of(&row.mark(), self.source))
    }
}

/// What a switch becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Target {
    pub config: SwitchConfig,
    /// Rows that should go and stay, with the reason.
    pub stays: Vec<Stay>,
}

/// A row that should go and stays.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stay {
    /// The row's name among those of all sections.
    pub mark: String,
    pub why: String,
}

/// What `is` becomes by a wish. There can be `slots` ports.
pub(super) fn target(is: &SwitchConfig, wish: &Wish<'_>, marks: &Marks, slots: usize) -> Target {
    let mut target = step(is, wish, marks, slots);
    // A redirect goes with the number of its port. Then nothing keeps the port that it led to.
    for _ in 0..slots {
        let next = step(&target.config, wish, marks, slots);
        if next.config == target.config {
            break;
        }
        target = next;
    }
    target
}

/// The same, but for what goes because of what goes.
fn step(is: &SwitchConfig, wish: &Wish<'_>, marks: &Marks, slots: usize) -> Target {
    let config = wish.config;
    let mut stays = Vec::new();
    let redirects = kept(&is.redirects, &config.redirects, wish, marks);
    let ports = ports(is, wish, marks, &redirects, slots, &mut stays);
    let moved = given_up(&is.ports, &ports);
    let mut bindings = kept(&is.bindings, &config.bindings, wish, marks);
    bindings.retain(|binding| !moved.contains(&binding.vport));
    bindings.extend(config.bindings.iter().cloned());
    let mut redirects = redirects;
    redirects.retain(|redirect| !moved.contains(&redirect.src));
    redirects.extend(config.redirects.iter().filter(|redirect| redirect.src != redirect.dest).copied());
    let mut fdb = kept(&is.fdb, &config.fdb, wish, marks);
    fdb.retain(|row| ports.iter().any(|port| port.name == row.port));
    fdb.extend(config.fdb.iter().cloned());
    let mut rules = kept(&is.rules, &config.rules, wish, marks);
    rules.extend(config.rules.iter().cloned());
    let bridge = match (&config.bridge, &is.bridge) {
        (Some(bridge), _) => bridge.clone(),
        (None, Some(bridge)) if !wish.may_go(marks, bridge) => bridge.clone(),
        _ => BridgeSettings::default(),
    };
    let mut disks = kept(&is.disks, &config.disks, wish, marks);
    let there = by_key(&is.disks);
    disks.extend(config.disks.iter().map(|disk| complete_declared(disk, there.get(&disk.name).copied())));
    let mut config =
        SwitchConfig { bridge: Some(bridge), ports, fdb, meters: Vec::new(), bindings, rules, redirects, disks };
    config.meters = meters(is, wish, marks, &config, &mut stays);
    sort(&mut config);
    Target { config, stays }
}

/// Rows that stay without being declared.
fn kept<T: Item>(is: &[T], declared: &[T], wish: &Wish<'_>, marks: &Marks) -> Vec<T> {
    let declared = by_key(declared);
    is.iter().filter(|row| !declared.contains_key(&row.key()) && !wish.may_go(marks, *row)).cloned().collect()
}

/// Rows that go.
fn going<'a, T: Item>(is: &'a [T], declared: &[T], wish: &Wish<'_>, marks: &Marks) -> Vec<&'a T> {
    let declared = by_key(declared);
    is.iter().filter(|row| !declared.contains_key(&row.key()) && wish.may_go(marks, *row)).collect()
}

fn ports(
    is: &SwitchConfig,
    wish: &Wish<'_>,
    marks: &Marks,
    redirects: &[RedirectSpec],
    slots: usize,
    stays: &mut Vec<Stay>,
) -> Vec<PortSpec> {
    let declared = &wish.config.ports;
    let mut ports = kept(&is.ports, declared, wish, marks);
    for port in going(&is.ports, declared, wish, marks) {
        let from = |redirect: &&RedirectSpec| port.vport == Some(redirect.dest) && port.vport != Some(redirect.src);
        // A port that is declared may take the number.
        let taken = declared.iter().any(|other| other.vport.is_some() && other.vport == port.vport);
        if let Some(redirect) = redirects.iter().find(from).filter(|_| !taken) {
            let why = format!(
                "port `{}` stays: what would go to vport {} is redirected to it: undo that redirect first",
                port.name, redirect.src
            );
            stays.push(Stay { mark: port.mark(), why });
            ports.push(port.clone());
        }
    }
    let there = by_key(&is.ports);
    let mut taken: BTreeSet<u16> = ports.iter().chain(declared).filter_map(|port| port.vport).collect();
    taken.extend(declared.iter().filter_map(|port| there.get(&port.name)?.vport));
    for port in declared {
        let is = there.get(&port.name).copied();
        let free = || (0..PortNo::MAX).take(slots).find(|no| !taken.contains(no));
        let vport = port.vport.or_else(|| is?.vport).or_else(free);
        taken.extend(vport);
        let before = marks.declared::<PortSpec>(&port.mark(), wish.source);
        ports.push(complete(&PortSpec { vport, ..port.clone() }, is, before.as_ref()));
    }
    ports
}

/// Numbers that no port has any more, or another one.
fn given_up(is: &[PortSpec], ports: &[PortSpec]) -> BTreeSet<u16> {
    let ports = by_key(ports);
    let stays = |port: &PortSpec| ports.get(&port.name).is_some_and(|to| to.vport == port.vport);
    let mut given_up: BTreeSet<u16> = is.iter().filter(|port| !stays(port)).filter_map(|port| port.vport).collect();
    // Of two ports with one number, one is not up.
    let kept: BTreeSet<u16> = is.iter().filter(|port| stays(port)).filter_map(|port| port.vport).collect();
    given_up.retain(|no| !kept.contains(no));
    given_up
}

/// Meters, with those that `config` needs. One that a binding or a rule names is implicit no more.
fn meters(
    is: &SwitchConfig,
    wish: &Wish<'_>,
    marks: &Marks,
    config: &SwitchConfig,
    stays: &mut Vec<Stay>,
) -> Vec<ctl_types::MeterConfig> {
    let declared = &wish.config.meters;
    let mut users: BTreeMap<u32, String> = BTreeMap::new();
    for rule in &config.rules {
        rule.action.meter.map(|id| users.insert(id, format!("rule {}", rule.key_index)));
    }
    for binding in &config.bindings {
        users.insert(binding.meter, format!("vport {}", binding.vport));
    }
    let mut meters = kept(&is.meters, declared, wish, marks);
    meters.extend(declared.iter().cloned());
    if !wish.prune {
        for meter in going(&is.meters, declared, wish, marks) {
            let Some(user) = users.get(&meter.spec.id) else { continue };
            let why = format!("meter {} stays: it is in use by {user}: unbind it or delete that first", meter.spec.id);
            stays.push(Stay { mark: meter.mark(), why });
            meters.push(meter.clone());
        }
    }
    for meter in meters.iter_mut().filter(|meter| users.contains_key(&meter.spec.id)) {
        meter.implicit = false;
    }
    meters
}

/// Sorts the rows of each section by their keys.
pub(super) fn sort(config: &mut SwitchConfig) {
    config.ports.sort_by_key(Item::key);
    config.fdb.sort_by_key(Item::key);
    config.meters.sort_by_key(Item::key);
    config.bindings.sort_by_key(Item::key);
    config.rules.sort_by_key(Item::key);
    config.redirects.sort_by_key(Item::key);
    config.disks.sort_by_key(Item::key);
}
