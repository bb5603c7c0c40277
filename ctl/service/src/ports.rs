//! Ports: those that are up, and those that are configured but failed.
//!
//! A configured port is up or failed. A failed one keeps its number, which the data plane reserves. It also keeps its
//! meter bindings, redirect and static FDB entries. Adding a port of its name replaces it.
//!
//! A number has bindings and a redirect only while some configured port has it. A number that is the target of a
//! redirect can't be given up.

use std::sync::{MutexGuard, PoisonError};

use ctl_types::{PortEntry, PortState};
use switch::ErrorKind;
use switch::model::*;

use crate::error::Error;
use crate::fdb::{self, StaticEntries};
use crate::follow::Unfinished;
use crate::state::{Row, Table};
use crate::{Failed, Inner, Service, busy, numbers};

/// Rows of ports, by the key `port/NAME`.
#[derive(Debug)]
pub struct Ports;

impl Table for Ports {
    const NAME: &'static str = "port";
    type Row = PortSpec;

    fn key(row: &PortSpec) -> String {
        row.name.clone()
    }
}

impl Service {
    pub(super) fn restore(&self) {
        let mut inner = self.lock();
        let Inner { ports, fdb, failed, .. } = &mut *inner;
        // All numbers are reserved before the first port comes up. Otherwise a port without a number could take
        // another's.
        failed.extend(ports.iter().map(|spec| Failed::new(&spec.name, "not tried yet")));
        self.reserve(ports, failed);
        failed.clear();
        let results = self.bring_up(ports.clone(), fdb, true);
        for (spec, result) in ports.iter_mut().zip(results) {
            match result {
                Ok(info) => *spec = info.spec,
                Err(error) => {
                    tracing::warn!(
                        port = spec.name,
                        %error,
                        "a configured port can't be brought up; it will be tried again"
                    );
                    failed.push(Failed::new(&spec.name, error.to_string()));
                }
            }
        }
        self.reserve(ports, failed);
    }

    /// Reserves the numbers of ports that are not up in the data plane.
    pub(crate) fn reserve(&self, ports: &[PortSpec], failed: &[Failed]) {
        let kept = ports.iter().filter(|spec| failed.iter().any(|port| port.name == spec.name));
        let kept = kept.filter_map(|spec| Some((spec.vport?, spec.name.clone(), spec.queues.unwrap_or(1))));
        self.dataplane.reserve_ports(kept.collect());
    }

    /// Adds ports and their static FDB entries to the data plane. `known`: they were there before.
    pub(crate) fn bring_up(
        &self,
        specs: Vec<PortSpec>,
        fdb: &[FdbSpec],
        known: bool,
    ) -> Vec<Result<PortInfo, switch::Error>> {
        let added = match known {
            true => self.dataplane.restore_ports(specs),
            false => self.dataplane.add_ports(specs),
        };
        for info in added.iter().flatten() {
            for row in fdb.iter().filter(|row| row.port == info.spec.name) {
                if let Err(error) = self.dataplane.fdb_add(row) {
                    let port = &info.spec.name;
                    tracing::warn!(port, mac = %row.mac, %error, "a static MAC row can't be restored");
                }
            }
        }
        added
    }

    /// Retries the failed ports.
    pub fn retry(&self) {
        let mut inner = self.lock();
        if inner.failed.is_empty() {
            return;
        }
        let Inner { ports, fdb, failed, .. } = &mut *inner;
        failed.retain(|port| ports.iter().any(|spec| spec.name == port.name));
        let again = failed.iter().filter_map(|port| ports.iter().find(|spec| spec.name == port.name).cloned());
        let mut results = self.bring_up(again.collect(), fdb, true).into_iter();
        failed.retain_mut(|port| match results.next() {
            Some(Ok(info)) => {
                tracing::info!(port = port.name, "a configured port is up after all");
                if info.guest_end.is_some() {
                    self.return_sockets(&port.name);
                }
                if let Some(spec) = ports.iter_mut().find(|spec| spec.name == port.name && **spec != info.spec) {
                    *spec = info.spec;
                    if let Err(error) = self.store.write(&[Row::put::<Ports>(spec)]) {
                        tracing::error!(port = port.name, %error, "what the port has become is not kept");
                    }
                }
                false
            }
            Some(Err(error)) => {
                port.fails(&error);
                true
            }
            None => true,
        });
        self.reserve(ports, failed);
    }

    /// All configured ports, ordered by number. Failed ones come last.
    pub fn ports(&self) -> Vec<PortEntry> {
        self.entries(self.dataplane.ports())
    }

    /// The same without `active_queues`, which are expensive to read.
    pub fn ports_in_brief(&self) -> Vec<PortEntry> {
        self.entries(self.dataplane.ports_in_brief())
    }

    /// What all configured ports are, whether they are up or not.
    pub fn port_specs(&self) -> Vec<PortSpec> {
        self.lock().ports.clone()
    }

    fn entries(&self, up: Vec<PortInfo>) -> Vec<PortEntry> {
        let mut holders = self.holders();
        let inner = self.lock();
        let failed = inner.failed.iter().filter_map(|port| {
            let spec = inner.ports.iter().find(|spec| spec.name == port.name)?;
            // It may have come up since `up` was read.
            let known = up.iter().any(|info| info.spec.name == port.name);
            (!known).then(|| failed_entry(port, spec))
        });
        let failed: Vec<_> = failed.collect();
        let up = up.into_iter().map(|info| {
            let guest = holders.remove(&info.spec.name);
            PortEntry { guest, ..up_entry(info) }
        });
        up.chain(failed).collect()
    }

    /// A configured port, by name or by number.
    pub(super) fn find<'a>(&self, inner: &'a Inner, key: &str) -> Result<&'a PortSpec, Error> {
        let number = key.parse::<u16>().ok();
        let by_number = || inner.ports.iter().find(|spec| number.is_some() && spec.vport == number);
        let spec = inner.ports.iter().find(|spec| spec.name == key).or_else(by_number);
        spec.ok_or_else(|| Error::not_found(format!("there is no port `{key}`")))
    }

    /// The name of a configured port, by name or by number.
    pub fn name_of(&self, key: &str) -> Result<String, Error> {
        self.find(&self.lock(), key).map(|spec| spec.name.clone())
    }

    /// A port that is up, by name or by number.
    pub(super) fn live<'a>(&self, inner: &'a Inner, key: &str) -> Result<&'a PortSpec, Error> {
        let spec = self.find(inner, key)?;
        match inner.failed.iter().find(|port| port.name == spec.name) {
            None => Ok(spec),
            Some(port) => Err(busy(format!("port `{}` is not up: {}", port.name, port.why))),
        }
    }

    /// One configured port, by name or by number.
    pub fn port(&self, key: &str) -> Result<PortEntry, Error> {
        let inner = self.lock();
        let name = self.find(&inner, key)?.name.clone();
        self.entry(inner, &name)
    }

    fn entry(&self, inner: MutexGuard<'_, Inner>, name: &str) -> Result<PortEntry, Error> {
        let spec = self.find(&inner, name)?;
        if let Some(port) = inner.failed.iter().find(|port| port.name == name) {
            return Ok(failed_entry(port, spec));
        }
        let spec = spec.clone();
        drop(inner);
        match self.dataplane.port(name) {
            Ok(info) => Ok(PortEntry { guest: self.holder(name), ..up_entry(info) }),
            // It was lost just now.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let inner = self.lock();
                let failed = inner.failed.iter().find(|port| port.name == name);
                let again = Failed::new(name, "it is taken up again");
                self.find(&inner, name)?;
                Ok(failed_entry(failed.unwrap_or(&again), &spec))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a port. If it replaces a failed one of the same name, it inherits number and static FDB entries.
    pub fn add_port(&self, spec: PortSpec) -> Result<PortEntry, Error> {
        let mut inner = self.lock();
        let spec = self.admit(&inner, spec)?;
        // If nothing can be kept, nothing is begun.
        let begun = self.begin(std::slice::from_ref(&spec))?;
        let added = self.add(&mut inner, spec, &begun);
        if added.is_err() {
            self.end(&begun);
        }
        added
    }

    /// Adds a port whose netdevs are noted in the rows `begun`.
    fn add(&self, inner: &mut Inner, spec: PortSpec, begun: &[String]) -> Result<PortEntry, Error> {
        let missing = Error::not_found(format!("there is no port `{}`", spec.name));
        let info = self.bring_up(vec![spec], &inner.fdb, false).pop().ok_or(missing)??;
        let mut rows = vec![Row::put::<Ports>(&info.spec)];
        rows.extend(begun.iter().map(|port| Row::remove::<Unfinished>(port)));
        self.keep(&rows, || self.take_back(inner, &info))?;
        self.take_in(inner, &info);
        Ok(up_entry(info))
    }

    /// Checks that a port may be added. Fills in the number of a failed port that it replaces.
    fn admit(&self, inner: &Inner, mut spec: PortSpec) -> Result<PortSpec, Error> {
        let replaced = inner.ports.iter().find(|port| port.name == spec.name);
        match replaced.filter(|port| inner.failed.iter().any(|failed| failed.name == port.name)) {
            Some(port) => {
                let old = port.vport;
                spec.vport = spec.vport.or(old);
                old.filter(|_| spec.vport != old).map_or(Ok(()), |old| self.check_unused(old))?;
            }
            None if replaced.is_some() => {
                return Err(Error::exists(format!("name: there is a port `{}` already", spec.name)));
            }
            None => {}
        }
        if let Some(other) = inner.ports.iter().find(|port| port.name != spec.name && port.uuid() == spec.uuid()) {
            return Err(Error::exists(format!(
                "uuid: `{}` belongs to port `{}`",
                spec.uuid().escape_default(),
                other.name
            )));
        }
        Ok(spec)
    }

    /// Records a port that is up and saved. It replaces a failed one of its name.
    pub(crate) fn take_in(&self, inner: &mut Inner, info: &PortInfo) {
        let replaced = inner.ports.iter().position(|port| port.name == info.spec.name);
        let before = replaced.map(|at| inner.ports.remove(at));
        inner.ports.push(info.spec.clone());
        inner.failed.retain(|port| port.name != info.spec.name);
        self.reserve(&inner.ports, &inner.failed);
        let gone = before.and_then(|before| before.vport).filter(|old| *old != info.vport);
        // The old number may belong to another port, because of which this one had failed. Its bindings and redirect
        // then stay.
        if let Some(old) = gone.filter(|old| inner.ports.iter().all(|port| port.vport != Some(*old))) {
            self.forget(old);
        }
    }

    /// Removes a port that was just brought up. Bindings and redirects of its number stay, because a failed port may
    /// have had them before.
    fn take_back(&self, inner: &Inner, port: &PortInfo) -> Result<(), switch::Error> {
        let aside = self.set_aside(port.vport);
        let deleted = self.dataplane.del_port(&port.spec.name);
        self.reserve(&inner.ports, &inner.failed);
        let mut put_back = Ok(());
        for put in aside {
            put_back = put_back.and(put(deleted.is_ok()));
        }
        deleted.and(put_back)
    }

    /// Removes bindings and redirect of a number that no port has any more.
    fn forget(&self, no: u16) {
        if let Err(error) =
            self.dataplane.forget_port(no).map_err(Error::from).and_then(|()| self.store.write(&numbers::gone(no)))
        {
            tracing::warn!(vport = no, %error, "bindings or redirects of a number without a port stay");
        }
    }

    /// Deletes a port with its static FDB entries, meter bindings and redirect.
    pub fn del_port(&self, key: &str) -> Result<(), Error> {
        let mut inner = self.lock();
        let spec = self.find(&inner, key)?.clone();
        self.del(&mut inner, spec)
    }

    /// Deletes a port by its number. `field` names the number in errors.
    pub fn del_port_numbered(&self, field: &str, no: u32) -> Result<(), Error> {
        let mut inner = self.lock();
        let spec = self.numbered(&inner, field, no)?.clone();
        self.del(&mut inner, spec)
    }

    fn del(&self, inner: &mut Inner, spec: PortSpec) -> Result<(), Error> {
        let name = spec.name;
        let up = !inner.failed.iter().any(|port| port.name == name);
        // The old number may belong to another port, because of which this one had failed. Its bindings and redirect
        // then stay.
        let anothers = !up && inner.ports.iter().any(|port| port.name != name && port.vport == spec.vport);
        let vport = spec.vport.filter(|_| !anothers);
        vport.map_or(Ok(()), |no| self.check_unused(no))?;
        // The file is written first. A port deleted from the file can be restored, but one deleted from the switch
        // can't.
        let static_rows: Vec<_> = inner.fdb.iter().filter(|row| row.port == name).cloned().collect();
        let mut rows = vec![Row::remove::<Ports>(&name)];
        rows.extend(static_rows.iter().map(|row| Row::remove::<StaticEntries>(&fdb::key(row.mac, row.vlan))));
        rows.extend(vport.into_iter().flat_map(numbers::gone));
        let hanging: Vec<_> = vport.into_iter().flat_map(|no| self.rows_of(no)).collect();
        self.store.write(&rows)?;
        let deleted = match (up, vport) {
            (true, _) => self.dataplane.del_port(&name).or_else(|error| match (error.kind(), vport) {
                // It was lost just now.
                (ErrorKind::NotFound, Some(no)) => self.dataplane.forget_port(no),
                _ => Err(error),
            }),
            (false, Some(no)) => self.dataplane.forget_port(no),
            (false, None) => Ok(()),
        };
        if let Err(error) = deleted {
            let port = inner.ports.iter().find(|port| port.name == name);
            let mut rows: Vec<_> = port
                .map(Row::put::<Ports>)
                .into_iter()
                .chain(static_rows.iter().map(Row::put::<StaticEntries>))
                .collect();
            rows.extend(hanging);
            self.store.write(&rows)?;
            return Err(error.into());
        }
        if let Some(holder) = self.holder(&name) {
            tracing::warn!(port = name, pid = holder.pid, "a port was deleted while a guest had its sockets");
        }
        self.end_lease(&name);
        inner.ports.retain(|port| port.name != name);
        inner.fdb.retain(|row| row.port != name);
        inner.failed.retain(|port| port.name != name);
        Ok(())
    }

    /// Changes a port.
    pub fn update_port(&self, key: &str, update: PortUpdate) -> Result<PortEntry, Error> {
        let turn = self.turn(&self.name_of(key)?);
        let _turn = update.guest_sockets.map(|_| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let mut inner = self.lock();
        let spec = self.find(&inner, key)?.clone();
        self.update(&mut inner, &spec, update)
    }

    /// Changes a port by its number. `field` names the number in errors.
    pub fn update_port_numbered(&self, field: &str, no: u32, update: PortUpdate) -> Result<PortEntry, Error> {
        let mut inner = self.lock();
        let spec = self.numbered(&inner, field, no)?.clone();
        self.update(&mut inner, &spec, update)
    }

    fn update(&self, inner: &mut Inner, spec: &PortSpec, update: PortUpdate) -> Result<PortEntry, Error> {
        if let Some(port) = inner.failed.iter().find(|port| port.name == spec.name) {
            let (name, why) = (&port.name, &port.why);
            return Err(busy(format!("port `{name}` is not up ({why}): delete it and add it anew")));
        }
        if update.guest_sockets == Some(false)
            && let Some(holder) = self.holder(&spec.name)
        {
            return Err(busy(format!(
                "guest_sockets: process {} ({}) has the sockets of `{}`: end it first",
                holder.pid, holder.command, spec.name
            )));
        }
        let before = spec.clone();
        let (gives_mac, gives_tap) = (update.mac.is_some(), update.tap.is_some());
        let in_force = || self.dataplane.port(&before.name).ok().and_then(|info| info.bond);
        let bond = update.bond.as_ref().map(|bond| undo_bond(bond, &in_force().unwrap_or_default()));
        let info = self.dataplane.update_port(&before.name, update)?;
        let undo = PortUpdate {
            mtu: before.mtu,
            mac: before.mac,
            no_mac: gives_mac && before.mac.is_none(),
            shared_mac: Some(before.shared_mac),
            vlan: before.vlan,
            isolated: Some(before.isolated),
            mac_check: before.mac_check,
            fdb_limit: before.fdb_limit,
            queue_depth: before.queue_depth,
            guest_sockets: Some(before.guest_sockets),
            tap: gives_tap.then(|| before.tap.unwrap_or_default()),
            bond,
            queues: None,
        };
        self.keep(&[Row::put::<Ports>(&info.spec)], || self.dataplane.update_port(&before.name, undo).map(drop))?;
        for port in inner.ports.iter_mut().filter(|port| port.name == before.name) {
            *port = info.spec.clone();
        }
        Ok(up_entry(info))
    }

    /// Name of a port by its number. `field` names the number in errors.
    pub fn name_numbered(&self, field: &str, no: u32) -> Result<String, Error> {
        self.numbered(&self.lock(), field, no).map(|spec| spec.name.clone())
    }

    /// A port by its number. `field` names the number in errors.
    pub fn port_numbered(&self, field: &str, no: u32) -> Result<PortEntry, Error> {
        let inner = self.lock();
        let name = self.numbered(&inner, field, no)?.name.clone();
        self.entry(inner, &name)
    }

    fn numbered<'a>(&self, inner: &'a Inner, field: &str, no: u32) -> Result<&'a PortSpec, Error> {
        let slots = self.dataplane.port_slots();
        if no >= slots {
            return Err(Error::invalid(format!("{field}: {no} is out of range, 0 to {} are possible", slots - 1)));
        }
        // A port that is up takes precedence over one that failed because of it.
        let is_failed = |spec: &&PortSpec| inner.failed.iter().any(|port| port.name == spec.name);
        let same = inner.ports.iter().filter(|spec| spec.vport.map(u32::from) == Some(no));
        same.min_by_key(is_failed).ok_or_else(|| Error::not_found(format!("{field}: there is no vport {no}")))
    }
}

fn up_entry(info: PortInfo) -> PortEntry {
    let (name, spec) = (info.spec.name.clone(), info.spec.clone());
    let (state, error) = match info.problems[..] {
        [] => (PortState::Up, None),
        _ => (PortState::Degraded, Some(info.problems.join("; "))),
    };
    PortEntry { name, state, error, spec, info: Some(info), guest: None }
}

fn failed_entry(port: &Failed, spec: &PortSpec) -> PortEntry {
    let (name, spec) = (spec.name.clone(), spec.clone());
    PortEntry { name, state: PortState::Failed, error: Some(port.why.clone()), spec, info: None, guest: None }
}

/// The change that takes a change of a bond back. `before` is the bond before it.
fn undo_bond(update: &BondUpdate, before: &BondInfo) -> BondUpdate {
    // Words have their number behind them.
    let word = |value: &String| value.split_whitespace().next().unwrap_or_default().to_owned();
    let was = |name: &String| Some((name.clone(), word(before.options.get(name)?)));
    BondUpdate {
        options: update.options.keys().filter_map(was).collect(),
        add: update.remove.clone(),
        remove: update.add.clone(),
        active: update.active.as_ref().and(before.active.clone()),
    }
}
