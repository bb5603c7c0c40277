//! Checks of a configuration as a whole, before anything is changed. An error names the row and the field.

use std::collections::{BTreeMap, BTreeSet};

use ctl_disks::DiskSettings;
use ctl_types::{ConfigSection, DiskSpec, SwitchConfig};
use switch::model::*;
use switch::{KeptTables, Switch};

use super::diff::{Changes, Edit};
use super::item::{Item, by_key};
use super::port;
use crate::error::Error;
use crate::{Inner, Service, busy};

/// Checks what a file declares, as far as that depends neither on the machine nor on a running switch.
///
/// # Errors
/// The first row and field that can't be.
pub fn check_config(settings: &DataplaneSettings, config: &SwitchConfig) -> Result<(), Error> {
    Switch::check(settings, &config.bridge.clone().unwrap_or_default())?;
    Switch::check_ports(settings, &config.ports)?;
    check_once(&config.fdb)?;
    check_once(&config.meters)?;
    check_once(&config.bindings)?;
    check_once(&config.rules)?;
    check_once(&config.redirects)?;
    for row in &config.fdb {
        Switch::check_fdb(row).map_err(|error| of_row(row, "", error.into()))?;
        if let Some(port) = config.ports.iter().find(|port| port.name == row.port)
            && let Some(spp) = &port.spp
        {
            let why = format!("port: `{}` is {spp}, which is for components: the bridge has no frames of it", row.port);
            return Err(of_row(row, "", Error::invalid(why)));
        }
    }
    let meters: BTreeSet<u32> = config.meters.iter().map(|meter| meter.spec.id).collect();
    // Meters that were made at run time are not known here.
    let known = |rule: &RuleSpec| {
        let meter = rule.action.meter.filter(|id| meters.contains(id));
        RuleSpec { action: RuleAction { meter, ..rule.action.clone() }, ..rule.clone() }
    };
    let tables = KeptTables {
        meters: config.meters.iter().map(|meter| (meter.spec.clone(), meter.implicit)).collect(),
        bindings: Vec::new(),
        rules: config.rules.iter().map(known).collect(),
        redirects: config.redirects.clone(),
    };
    match Switch::check_tables(settings, tables).into_iter().next() {
        Some(why) => Err(Error::invalid(why)),
        None => Ok(()),
    }
}

/// Checks the disks that a file declares, as far as that does not depend on the machine.
///
/// # Errors
/// The first disk and field that can't be.
pub fn check_disks(settings: &DiskSettings, disks: &[DiskSpec]) -> Result<(), Error> {
    check_once(disks)?;
    let checked = ctl_disks::check_all(disks, settings);
    checked.map_err(|(name, error)| of_row(&DiskSpec::new(name), "", error.into()))
}

/// An error of a row, with its name.
pub(super) fn of_row<T: Item>(row: &T, field: &str, error: Error) -> Error {
    let (section, label) = (T::SECTION.name(), row.label());
    let label =
        if [ConfigSection::Port, ConfigSection::Disk].contains(&T::SECTION) { format!("`{label}`") } else { label };
    let text = format!("{section} {label}: {field}{error}");
    match error {
        Error::Switch(error) => Error::Switch(switch::Error::new(error.kind(), text)),
        Error::Disk(error) => Error::Disk(ctl_disks::Error::new(error.kind(), text)),
        _ => Error::invalid(text),
    }
}

fn check_once<T: Item>(rows: &[T]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match rows.iter().find(|row| !seen.insert(row.key())) {
        Some(row) => Err(of_row(row, "", Error::invalid("it is declared twice"))),
        None => Ok(()),
    }
}

impl Service {
    /// Checks that the switch can become `to` by these changes.
    pub(super) fn check_changes(&self, inner: &Inner, to: &SwitchConfig, changes: &Changes) -> Result<(), Error> {
        let mut whole = to.clone();
        // Of two ports that don't go together, the error names the one that is new or changed.
        let is_changed = |port: &PortSpec| changes.ports.iter().any(|edit| edit.to() == Some(port));
        whole.ports.sort_by_cached_key(is_changed);
        check_config(self.dataplane.settings(), &whole)?;
        check_references(to, changes)?;
        for edit in &changes.ports {
            self.check_port(inner, edit)?;
        }
        self.check_changes_of_disks(to, changes)
    }

    /// A disk that stays as it is may be wrong by now: its directory may have gone from the configuration.
    fn check_changes_of_disks(&self, to: &SwitchConfig, changes: &Changes) -> Result<(), Error> {
        if changes.disks.is_empty() {
            return Ok(());
        }
        let of_disk = |name: &str, error: ctl_disks::Error| of_row(&DiskSpec::new(name), "", error.into());
        let changed = |disk: &DiskSpec| changes.disks.iter().any(|edit| edit.to() == Some(disk));
        let mut whole: Vec<_> = to.disks.clone();
        whole.retain(|disk| changed(disk) || ctl_disks::complete(disk, self.disks.settings()).is_ok());
        whole.sort_by_cached_key(changed);
        self.disks.check(&whole).map_err(|(name, error)| of_disk(&name, error))?;
        let mut changed = changes.disks.iter().filter_map(Edit::to);
        changed.try_for_each(|disk| self.disks.check_change(disk).map_err(|error| of_disk(&disk.name, error)))
    }

    fn check_port(&self, inner: &Inner, edit: &Edit<PortSpec>) -> Result<(), Error> {
        let Some(from) = edit.from() else { return Ok(()) };
        let of_port = |error| of_row(from, "", error);
        let is_failed = inner.failed.iter().any(|port| port.name == from.name);
        let to = edit.to();
        if let Some(update) = to.and_then(|to| port::update(from, to)) {
            let checked = if is_failed { Ok(()) } else { self.dataplane.check_update(&from.name, &update) };
            return checked.map_err(|error| of_port(error.into()));
        }
        let user = self
            .dataplane
            .components()
            .into_iter()
            .find(|component| component.from.iter().chain(&component.to).any(|end| end.is_of_port(&from.name)));
        if let Some(user) = user {
            let why = format!("it is an end of component `{}`: detach it first", user.name);
            return Err(of_port(busy(why)));
        }
        let Some(to) = to else { return Ok(()) };
        if let Some(holder) = self.holder(&from.name) {
            let why = format!(
                "it has to be made anew, and process {} ({}) has its sockets: end that first",
                holder.pid, holder.command
            );
            return Err(of_port(busy(why)));
        }
        self.dataplane.check_outside(to).map_err(|error| of_port(error.into()))
    }
}

/// What rows of tables may name.
pub(super) struct References<'a> {
    ports: &'a [PortSpec],
    /// Queues by port number, as far as they are known.
    numbers: BTreeMap<u16, Option<u32>>,
    meters: BTreeSet<u32>,
}

impl<'a> References<'a> {
    pub fn of(config: &'a SwitchConfig) -> Self {
        Self {
            ports: &config.ports,
            numbers: config.ports.iter().filter_map(|port| Some((port.vport?, port.queues))).collect(),
            meters: config.meters.iter().map(|meter| meter.spec.id).collect(),
        }
    }

    fn port<T: Item>(&self, row: &T, field: &str, no: u16) -> Result<Option<u32>, Error> {
        let missing = || of_row(row, field, Error::not_found(format!("there is no vport {no}")));
        self.numbers.get(&no).copied().ok_or_else(missing)
    }

    fn meter<T: Item>(&self, row: &T, field: &str, id: u32) -> Result<(), Error> {
        match self.meters.contains(&id) {
            true => Ok(()),
            false => Err(of_row(row, field, Error::not_found(format!("there is no meter {id}")))),
        }
    }

    pub fn check_fdb(&self, row: &FdbSpec) -> Result<(), Error> {
        match self.ports.iter().any(|port| port.name == row.port) {
            true => Ok(()),
            false => Err(of_row(row, "port: ", Error::not_found(format!("there is no port `{}`", row.port)))),
        }
    }

    pub fn check_binding(&self, row: &MeterBinding) -> Result<(), Error> {
        self.port(row, "vport: ", row.vport)?;
        self.meter(row, "meter: ", row.meter)
    }

    pub fn check_rule(&self, row: &RuleSpec) -> Result<(), Error> {
        let RuleAction { target, queue, meter, mirror } = &row.action;
        if let RuleTarget::Port(no) = target
            && let Some(queues) = self.port(row, "action.vid: ", *no)?
            && let Some(queue) = queue.filter(|queue| *queue >= queues)
        {
            let why = format!("{queue} is out of range, vport {no} has queues 0 to {}", queues - 1);
            return Err(of_row(row, "action.qid: ", Error::invalid(why)));
        }
        mirror.map_or(Ok(None), |no| self.port(row, "action.mirror: ", no))?;
        meter.map_or(Ok(()), |id| self.meter(row, "action.meter: ", id))
    }

    pub fn check_redirect(&self, row: &RedirectSpec) -> Result<(), Error> {
        self.port(row, "src: ", row.src)?;
        self.port(row, "dest: ", row.dest).map(drop)
    }
}

/// Checks that rows which are new or changed name only what there will be. Redirects may not lose their ports either.
fn check_references(to: &SwitchConfig, changes: &Changes) -> Result<(), Error> {
    let there = References::of(to);
    changes.fdb.iter().filter_map(Edit::to).try_for_each(|row| there.check_fdb(row))?;
    changes.bindings.iter().filter_map(Edit::to).try_for_each(|row| there.check_binding(row))?;
    changes.rules.iter().filter_map(Edit::to).try_for_each(|row| there.check_rule(row))?;
    to.redirects.iter().try_for_each(|row| there.check_redirect(row))
}

/// Leaves out rows that were not in `is` and name what there is not. `left_out` hears why.
pub(super) fn leave_out_dangling(is: &SwitchConfig, to: &mut SwitchConfig, mut left_out: impl FnMut(Error)) {
    let whole = to.clone();
    let there = References::of(&whole);
    let mut keeps = |checked: Result<(), Error>| checked.map_err(&mut left_out).is_ok();
    to.fdb.retain(|row| is.fdb.contains(row) || keeps(there.check_fdb(row)));
    to.bindings.retain(|row| is.bindings.contains(row) || keeps(there.check_binding(row)));
    let rules = by_key(&is.rules);
    to.rules.retain(|row| rules.get(&row.key()) == Some(&row) || keeps(there.check_rule(row)));
    to.redirects.retain(|row| is.redirects.contains(row) || keeps(there.check_redirect(row)));
}
