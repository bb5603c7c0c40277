//! Makes a switch what a configuration says, step by step.
//!
//! The order is: what goes, ports that change, ports that come, tables that change, tables that come, disks. What
//! ports lose by being made anew is looked for again afterwards. So each section ends as it should, whatever was in
//! between.
//!
//! A step that fails ends it all, and the caller goes back the same way. At the start of the daemon, and on the way
//! back, a step that fails is logged and left out.

use std::collections::BTreeSet;

use ctl_types::{MeterConfig, SwitchConfig};
use switch::ErrorKind;
use switch::model::*;

use super::check::of_row;
use super::diff::{Changes, Edit, diff, is_other_meter};
use super::item::Item;
use super::port;
use super::target::sort;
use crate::error::Error;
use crate::{Failed, Inner, Service};

/// What becomes of a step that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// It ends everything. Only a new port may lack its netdev, which may come later.
    Ends,
    /// It is logged and left out. A port that can't be brought up is kept as failed.
    IsLeftOut,
    /// The same, on the way back. Ports that are added were there before.
    GoesBack,
}

impl Failing {
    /// Takes a failed step of a row.
    fn meet<T: Item>(self, row: &T, step: Result<(), Error>) -> Result<(), Error> {
        match (self, step) {
            (_, Ok(())) => Ok(()),
            (Failing::Ends, Err(error)) => Err(of_row(row, "", error)),
            (Failing::IsLeftOut | Failing::GoesBack, Err(error)) => {
                tracing::error!(section = T::SECTION.name(), row = row.label(), %error, "configuration: left out");
                Ok(())
            }
        }
    }
}

impl Service {
    /// The switch as it is, with failed ports.
    pub(super) fn describe(&self, inner: &Inner) -> SwitchConfig {
        let meters = self.dataplane.meters(0, usize::MAX).into_iter();
        let rules = self.dataplane.rules(0, usize::MAX).into_iter();
        let mut config = SwitchConfig {
            bridge: Some(self.dataplane.bridge()),
            ports: inner.ports.clone(),
            fdb: inner.fdb.clone(),
            meters: meters.map(|meter| MeterConfig { spec: meter.spec, implicit: meter.implicit }).collect(),
            bindings: self.dataplane.meter_bindings(),
            rules: rules.map(|rule| rule.spec).collect(),
            redirects: self.dataplane.redirects().into_iter().map(|redirect| redirect.spec).collect(),
            disks: self.disks.specs(),
        };
        sort(&mut config);
        config
    }

    /// Makes the switch `to`. The state file is not written, but for notes of netdevs that ports take
    /// ([`Unfinished`](crate::Unfinished)). `begun` gets the names of these ports.
    ///
    /// # Errors
    /// Of the first step that failed. The steps before it are done.
    pub(super) fn carry_out(
        &self,
        inner: &mut Inner,
        to: &SwitchConfig,
        failing: Failing,
        begun: &mut Vec<String>,
    ) -> Result<(), Error> {
        let changes = diff(&self.describe(inner), to);
        let failed: BTreeSet<String> = inner.failed.iter().map(|port| port.name.clone()).collect();
        self.take_away(inner, &changes, failing)?;
        self.change_ports(inner, &changes, failing)?;
        let new = |edit: &Edit<PortSpec>| matches!(edit, Edit::Add(_));
        let may_wait = |name: &str| {
            failed.contains(name)
                || changes.ports.iter().any(|edit| new(edit) && edit.to().is_some_and(|port| port.name == name))
        };
        let there: BTreeSet<&str> = inner.ports.iter().map(|port| port.name.as_str()).collect();
        let new = to.ports.iter().filter(|port| !there.contains(port.name.as_str()));
        let mut new: Vec<PortSpec> = new.cloned().collect();
        // Workers are given out in that order.
        new.sort_by_key(|port| port.vport);
        if failing != Failing::GoesBack {
            match self.begin(&new) {
                Ok(ports) => begun.extend(ports),
                Err(error) if failing == Failing::Ends => return Err(error),
                Err(error) => tracing::error!(%error, "netdevs of new ports are taken without a note of how they were"),
            }
        }
        self.add_ports(inner, &new, failing, may_wait)?;
        let changes = diff(&self.describe(inner), to);
        self.change_tables(inner, &changes, failing)?;
        self.change_disks(&changes, failing)
    }

    /// Changes disks, which become by and by what they are to be. So nothing waits here. Only the note can fail that
    /// the images of new ones are still to be made.
    fn change_disks(&self, changes: &Changes, failing: Failing) -> Result<(), Error> {
        let new = changes.disks.iter().filter_map(Edit::added).filter(|_| failing != Failing::GoesBack);
        match self.unmade.add(new) {
            Err(error) if failing == Failing::Ends => return Err(error),
            Err(error) => {
                tracing::error!(%error, "an image that can't be made before the daemon ends will not be made")
            }
            Ok(()) => {}
        }
        for edit in &changes.disks {
            match edit {
                // An image is never made for a disk that had one before.
                Edit::Add(disk) => {
                    self.disks.put(disk, failing != Failing::GoesBack || self.unmade.has(&disk.name));
                }
                Edit::Change { to, .. } => self.disks.change(to),
                Edit::Remove(disk) => self.disks.take(&disk.name, failing == Failing::GoesBack),
            }
        }
        Ok(())
    }

    /// Takes away what goes, and what is in the way of changes.
    fn take_away(&self, inner: &mut Inner, changes: &Changes, failing: Failing) -> Result<(), Error> {
        let anew: Vec<&PortSpec> =
            changes.ports.iter().filter(|edit| is_anew(inner, edit)).filter_map(Edit::from).collect();
        let numbers: BTreeSet<u16> = anew.iter().filter_map(|port| port.vport).collect();
        let gone: BTreeSet<u16> =
            changes.redirects.iter().filter_map(Edit::from).map(|redirect| redirect.src).collect();
        for redirect in self.dataplane.redirects() {
            let RedirectSpec { src, dest } = redirect.spec;
            if gone.contains(&src) || numbers.contains(&src) || numbers.contains(&dest) {
                self.dataplane.restore_redirect(src, None);
            }
        }
        for edit in &changes.bindings {
            if let Edit::Remove(binding) = edit {
                let done = self.dataplane.unbind_meter(binding.vport, binding.direction);
                failing.meet(binding, done.map(drop).map_err(Error::from))?;
            }
        }
        for row in changes.fdb.iter().filter_map(Edit::from) {
            failing.meet(row, self.take_static(inner, row))?;
        }
        for edit in &changes.meters {
            if let Some(meter) = edit.from().filter(|_| edit.is_anew(is_other_meter)) {
                failing.meet(meter, self.take_meter(meter.spec.id))?;
            }
        }
        for port in anew {
            failing.meet(port, self.take_port(inner, port))?;
        }
        inner.fdb.retain(|row| {
            !changes.ports.iter().any(|edit| matches!(edit, Edit::Remove(port) if port.name == row.port))
        });
        Ok(())
    }

    fn take_static(&self, inner: &mut Inner, row: &FdbSpec) -> Result<(), Error> {
        match self.dataplane.fdb_del(row.mac, row.vlan) {
            // Its port is not up.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done?,
        }
        inner.fdb.retain(|other| other.key() != row.key());
        Ok(())
    }

    /// Takes away a meter in use. Rules that name it stay in force without a meter, until they are written again.
    fn take_meter(&self, id: u32) -> Result<(), Error> {
        for binding in self.dataplane.meter(id)?.bindings {
            // The implicit one can't be undone, and need not be.
            let _ = self.dataplane.unbind_meter(binding.vport, binding.direction);
        }
        let rules = self.dataplane.rules(0, usize::MAX).into_iter().map(|rule| rule.spec);
        let without = rules.filter(|rule| rule.action.meter == Some(id)).map(|rule| {
            RuleChange::Write(RuleSpec { action: RuleAction { meter: None, ..rule.action.clone() }, ..rule })
        });
        self.dataplane.change_rules(without.collect())?;
        Ok(self.dataplane.del_meter(id)?)
    }

    /// Takes a port out, as deleting it does. Its static entries are kept for it.
    fn take_port(&self, inner: &mut Inner, port: &PortSpec) -> Result<(), Error> {
        let name = &port.name;
        let is_failed = inner.failed.iter().any(|failed| failed.name == *name);
        // The number of a failed port may be another port's.
        let is_anothers = || inner.ports.iter().any(|other| other.name != *name && other.vport == port.vport);
        match port.vport {
            _ if !is_failed => self.dataplane.del_port(name)?,
            Some(no) if !is_anothers() => self.dataplane.forget_port(no)?,
            _ => {}
        }
        if let Some(holder) = self.holder(name) {
            tracing::warn!(port = name, pid = holder.pid, "a port was deleted while a guest had its sockets");
        }
        self.end_lease(name);
        inner.ports.retain(|other| other.name != *name);
        inner.failed.retain(|failed| failed.name != *name);
        self.reserve(&inner.ports, &inner.failed);
        Ok(())
    }

    /// Changes ports in operation.
    fn change_ports(&self, inner: &mut Inner, changes: &Changes, failing: Failing) -> Result<(), Error> {
        for edit in &changes.ports {
            let Edit::Change { from, to } = edit else { continue };
            let (false, Some(update)) = (is_anew(inner, edit), port::update(from, to)) else { continue };
            let done = self.dataplane.update_port(&from.name, update).map_err(Error::from).map(|info| {
                for port in inner.ports.iter_mut().filter(|port| port.name == from.name) {
                    *port = info.spec.clone();
                }
            });
            failing.meet(from, done)?;
        }
        Ok(())
    }

    /// Adds ports. `may_wait` tells which of them may lack their netdevs.
    fn add_ports(
        &self,
        inner: &mut Inner,
        new: &[PortSpec],
        failing: Failing,
        may_wait: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let known = failing == Failing::GoesBack;
        let mut result = Ok(());
        for (spec, added) in new.iter().zip(self.bring_up(new.to_vec(), &inner.fdb, known)) {
            match added {
                Ok(info) => self.take_in(inner, &info),
                Err(error)
                    if failing != Failing::Ends || error.kind() == ErrorKind::NotFound && may_wait(&spec.name) =>
                {
                    tracing::error!(port = spec.name, %error, "a declared port can't be brought up; it will be tried again");
                    inner.ports.push(spec.clone());
                    inner.failed.push(Failed::new(&spec.name, error.to_string()));
                }
                Err(error) => result = result.and(Err(of_row(spec, "", error.into()))),
            }
        }
        self.reserve(&inner.ports, &inner.failed);
        result
    }

    /// Changes tables, once all ports are there.
    fn change_tables(&self, inner: &mut Inner, changes: &Changes, failing: Failing) -> Result<(), Error> {
        for bridge in changes.bridge.iter().filter_map(Edit::to) {
            failing.meet(bridge, self.dataplane.set_bridge(bridge.clone()).map_err(Error::from))?;
        }
        for meter in changes.meters.iter() {
            let done = match meter {
                Edit::Add(to) => self.dataplane.add_meter(to.spec.clone(), to.implicit),
                Edit::Change { to, .. } => self.dataplane.configure_meter(to.spec.clone()),
                Edit::Remove(_) => continue,
            };
            let Some(to) = meter.to() else { continue };
            failing.meet(to, done.map_err(Error::from))?;
        }
        for binding in changes.bindings.iter().filter_map(Edit::to) {
            failing.meet(binding, self.dataplane.bind_meter(binding).map(drop).map_err(Error::from))?;
        }
        self.change_rules_to(&changes.rules, failing)?;
        for redirect in changes.redirects.iter().filter_map(Edit::to) {
            failing.meet(redirect, self.dataplane.redirect(*redirect).map(drop).map_err(Error::from))?;
        }
        for row in changes.fdb.iter().filter_map(Edit::to) {
            failing.meet(row, self.put_static(inner, row))?;
        }
        for edit in &changes.meters {
            match edit {
                Edit::Remove(meter) => {
                    failing.meet(meter, self.dataplane.del_meter(meter.spec.id).map_err(Error::from))?;
                }
                // Bindings and rules may have said otherwise meanwhile.
                Edit::Add(to) | Edit::Change { to, .. } => {
                    self.dataplane.set_meter_implicit(to.spec.id, to.implicit);
                }
            }
        }
        Ok(())
    }

    /// Changes rules in one batch. If a rule is left out, the others are changed one by one.
    fn change_rules_to(&self, edits: &[Edit<RuleSpec>], failing: Failing) -> Result<(), Error> {
        let change = |edit: &Edit<RuleSpec>| match edit {
            Edit::Add(rule) | Edit::Change { to: rule, .. } => RuleChange::Write(rule.clone()),
            Edit::Remove(rule) => RuleChange::Delete(rule.key_index),
        };
        match self.dataplane.change_rules(edits.iter().map(change).collect()) {
            Ok(_) => Ok(()),
            Err(error) if failing == Failing::Ends => Err(error.into()),
            Err(_) => edits.iter().try_for_each(|edit| {
                let done = self.dataplane.change_rules(vec![change(edit)]).map(drop);
                edit.to().map_or(Ok(()), |rule| failing.meet(rule, done.map_err(Error::from)))
            }),
        }
    }

    /// Puts a static entry. That of a failed port waits for it.
    fn put_static(&self, inner: &mut Inner, row: &FdbSpec) -> Result<(), Error> {
        if !inner.failed.iter().any(|port| port.name == row.port) {
            self.dataplane.fdb_add(row)?;
        }
        inner.fdb.push(row.clone());
        Ok(())
    }
}

/// Whether a port has to be taken out by this edit: it goes, or it has to be made anew. A failed port always has.
fn is_anew(inner: &Inner, edit: &Edit<PortSpec>) -> bool {
    match edit {
        Edit::Add(_) => false,
        Edit::Remove(_) => true,
        Edit::Change { from, to } => {
            port::update(from, to).is_none() || inner.failed.iter().any(|port| port.name == from.name)
        }
    }
}
