//! The configuration: what a file declares is what the switch is, at start, at SIGHUP and by `config apply`.
//!
//! | step | module |
//! | --- | --- |
//! | what the switch becomes by a file | `target`, with `port` and `bond` for what is declared in part (pure) |
//! | what differs from what it is | `diff` (pure) |
//! | whether it can become so, as a whole | `check` |
//! | making it so, or going back | `carry_out` |
//! | which file has declared a row | `marks`, kept in the state file |
//!
//! A file is taken under the service's mutex. All of it is written to the state file in one transaction. If a step or
//! the writing fails, everything becomes again what it was.
//!
//! At start nothing was promised yet, and the daemon must run. So what can be changed in operation is changed before a
//! port is up. What fails is logged and left out.

mod bond;
mod carry_out;
mod check;
mod diff;
mod item;
mod marks;
mod port;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ctl_disks::{DiskSettings, Turns};
use ctl_types::{
    ConfigChange, ConfigChanges, ConfigRequest, DiskEntry, DiskSpec, DiskState, MeterConfig, SwitchConfig,
};

use self::carry_out::Failing;
pub use self::check::{check_config, check_disks};
use self::check::{leave_out_dangling, of_row};
use self::diff::{Changes, Edit, diff};
use self::item::{Item, by_key};
pub(crate) use self::marks::Marks;
use self::marks::Source;
pub use self::marks::{DeclaredRow, DeclaredRows};
use self::target::{Target, Wish, sort, target};
use crate::bridge::RunTime;
use crate::disks::DiskRows;
use crate::error::Error;
use crate::fdb::StaticEntries;
use crate::meters::{MeterBindings, Meters};
use crate::ports::Ports;
use crate::redirects::Redirects;
use crate::rules::Rules;
use crate::state::{Row, State};
use crate::{Inner, Service, Unfinished};

/// The part of the daemon's configuration file that concerns the switch itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Absolute path of the file, if there is one.
    pub file: Option<PathBuf>,
    /// What it declares.
    pub config: SwitchConfig,
    /// Where disks may be.
    pub disks: DiskSettings,
}

/// What the state file had at start.
#[derive(Debug)]
pub(crate) struct Kept {
    config: SwitchConfig,
    pub marks: Marks,
    /// Rows that bring the file to the present form.
    rows: Vec<Row>,
}

impl Kept {
    /// Takes the rows of a state file.
    pub fn load(state: &mut State) -> Self {
        let (marks, rows) = Marks::load(state);
        let meters = state.take::<Meters>().into_iter();
        let mut config = SwitchConfig {
            bridge: Some(state.take::<RunTime>().pop().unwrap_or_default()),
            ports: state.take::<Ports>(),
            fdb: state.take::<StaticEntries>(),
            meters: meters.map(|meter| MeterConfig { spec: meter.spec, implicit: meter.implicit }).collect(),
            bindings: state.take::<MeterBindings>(),
            rules: state.take::<Rules>(),
            redirects: state.take::<Redirects>(),
            disks: state.take::<DiskRows>(),
        };
        sort(&mut config);
        Self { config, marks, rows }
    }

    /// What a switch has first, before ports are added, made anew and removed. Ports that can be changed in operation
    /// never come up as they were.
    pub fn first(&self, declared: &Declared, slots: usize) -> SwitchConfig {
        let to = self.target(declared, slots).config;
        let declared = by_key(&to.ports);
        let ports = self.config.ports.iter().map(|port| match declared.get(&port.name) {
            Some(to) if port::update(port, to).is_some() => (*to).clone(),
            _ => port.clone(),
        });
        SwitchConfig { ports: ports.collect(), ..to }
    }

    /// Whether the state file had a disk of that name.
    pub fn has_disk(&self, name: &str) -> bool {
        self.config.disks.iter().any(|disk| disk.name == name)
    }

    fn target(&self, declared: &Declared, slots: usize) -> Target {
        let wish = Wish { config: &declared.config, source: &Source::Configuration, prune: false };
        let mut target = target(&self.config, &wish, &self.marks, slots);
        leave_out_dangling(&self.config, &mut target.config, drop);
        target
    }
}

impl Service {
    /// Takes up the rest of the configuration at start, once all ports are up that there were.
    pub(crate) fn take_up(&self, kept: &Kept, declared: &Declared) {
        let mut inner = self.lock();
        let slots = self.slots();
        let source = Source::Configuration;
        let wish = Wish { config: &declared.config, source: &source, prune: false };
        let is = self.describe(&inner);
        let mut target = target(&is, &wish, &kept.marks, slots);
        leave_out_dangling(&is, &mut target.config, |error| tracing::error!(%error, "configuration: left out"));
        if let Err(error) = check_config(self.dataplane.settings(), &target.config) {
            tracing::error!(%error, "the configuration does not go with what was set at run time");
        }
        // What fails is left out, so there is no error.
        let mut begun = Vec::new();
        let _ = self.carry_out(&mut inner, &target.config, Failing::IsLeftOut, &mut begun);
        let SwitchConfig { ports, mut disks, .. } = self.describe(&inner);
        let wanted = kept.target(declared, slots).config;
        // A disk that could not be taken in keeps its row.
        let there: BTreeSet<_> = disks.iter().map(|disk| disk.name.clone()).collect();
        disks.extend(wanted.disks.iter().filter(|disk| !there.contains(&disk.name)).cloned());
        let now = SwitchConfig { ports, disks, ..wanted };
        let changes = diff(&kept.config, &now);
        let told = changes.describe(&declared.config, &kept.marks, &source);
        log(&told);
        target.stays.iter().for_each(|stay| tracing::warn!("configuration: {}", stay.why));
        let marks = kept.marks.after(&declared.config, &source, &names(&target));
        let mut rows = kept.rows.clone();
        rows.extend(changes.rows());
        rows.extend(kept.marks.rows_to(&marks));
        rows.extend(begun.iter().map(|port| Row::remove::<Unfinished>(port)));
        if let Err(error) = self.write(&rows) {
            tracing::error!(%error, "what the configuration has changed is in force, and will be changed again at the next start");
        }
        inner.marks = marks;
    }

    /// The ports and tables that there are, with every field. Ports that the switch has made for `vhost:N` of the Soft
    /// Patch Panel are none of them: the panel makes them again.
    pub fn config(&self) -> SwitchConfig {
        let mut config = self.describe(&self.lock());
        let (made, ports): (Vec<_>, Vec<_>) = config.ports.into_iter().partition(Item::is_made);
        config.ports = ports;
        let is_made = |vport| made.iter().any(|port| port.vport == Some(vport));
        config.fdb.retain(|row| !made.iter().any(|port| port.name == row.port));
        config.bindings.retain(|row| !is_made(row.vport));
        config.redirects.retain(|row| !is_made(row.src) && !is_made(row.dest));
        config
    }

    /// Says what a configuration would change. Changes nothing.
    ///
    /// # Errors
    /// It could not be applied: the row and the field.
    pub fn diff_config(&self, request: &ConfigRequest) -> Result<ConfigChanges, Error> {
        let source = self.source(request);
        let wish = Wish { config: &request.config, source: &source, prune: request.prune };
        check_config(self.dataplane.settings(), wish.config)?;
        check_disks(self.disks.settings(), &wish.config.disks)?;
        let inner = self.lock();
        let is = self.describe(&inner);
        let target = target(&is, &wish, &inner.marks, self.slots());
        let changes = diff(&is, &target.config);
        self.check_changes(&inner, &target.config, &changes)?;
        let warnings = target.stays.into_iter().map(|stay| stay.why).collect();
        Ok(ConfigChanges { changes: changes.describe(wish.config, &inner.marks, &source), warnings })
    }

    /// Makes the switch what a configuration says. Returns what was changed.
    ///
    /// # Errors
    /// It can't be applied in full. Everything is as it was then.
    pub fn apply_config(&self, request: &ConfigRequest) -> Result<ConfigChanges, Error> {
        let source = self.source(request);
        self.apply(&Wish { config: &request.config, source: &source, prune: request.prune })
    }

    /// Makes the switch what the daemon's configuration file says, which was read again.
    ///
    /// # Errors
    /// As for [`Service::apply_config`].
    pub fn reload_config(&self, config: &SwitchConfig) -> Result<ConfigChanges, Error> {
        self.apply(&Wish { config, source: &Source::Configuration, prune: false })
    }

    fn apply(&self, wish: &Wish<'_>) -> Result<ConfigChanges, Error> {
        check_config(self.dataplane.settings(), wish.config)?;
        check_disks(self.disks.settings(), &wish.config.disks)?;
        let turns = self.turns_for(wish.config);
        let _turns: Vec<_> = turns.iter().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let mut inner = self.lock();
        let is = self.describe(&inner);
        let target = target(&is, wish, &inner.marks, self.slots());
        let changes = diff(&is, &target.config);
        self.check_changes(&inner, &target.config, &changes)?;
        let _disks = self.turns_of_disks(&changes)?;
        let marks = inner.marks.after(wish.config, wish.source, &names(&target));
        let mut begun = Vec::new();
        let done = self.carry_out(&mut inner, &target.config, Failing::Ends, &mut begun).and_then(|()| {
            let mut rows = diff(&is, &self.describe(&inner)).rows();
            rows.extend(inner.marks.rows_to(&marks));
            rows.extend(begun.iter().map(|port| Row::remove::<Unfinished>(port)));
            self.write(&rows)
        });
        if let Err(error) = done {
            self.go_back(&mut inner, &is);
            self.end(&begun);
            self.unmade.forget(changes.disks.iter().filter_map(Edit::added).map(|disk| disk.name.as_str()));
            return Err(error);
        }
        self.unmade.forget(changes.disks.iter().filter_map(Edit::gone).map(|disk| disk.name.as_str()));
        let told = changes.describe(wish.config, &inner.marks, wish.source);
        inner.marks = marks;
        log(&told);
        let declared = by_key(&wish.config.ports);
        let waits = inner.failed.iter().filter(|port| declared.contains_key(&port.name));
        let waits = waits.map(|port| format!("port `{}` is not up: {}; it is tried again", port.name, port.why));
        let stays = target.stays.into_iter().map(|stay| stay.why);
        let warnings: Vec<_> = stays.chain(waits).chain(self.disks_that_wait(wish.config)).collect();
        warnings.iter().for_each(|why| tracing::warn!("configuration: {why}"));
        Ok(ConfigChanges { changes: told, warnings })
    }

    /// Makes the switch again what it was, as far as possible.
    fn go_back(&self, inner: &mut Inner, before: &SwitchConfig) {
        // What fails is left out, so there is no error.
        let _ = self.carry_out(inner, before, Failing::GoesBack, &mut Vec::new());
        if self.describe(inner) != *before {
            tracing::error!("a configuration failed, and not everything is as it was before");
        }
    }

    fn write(&self, rows: &[Row]) -> Result<(), Error> {
        if rows.is_empty() { Ok(()) } else { self.store.write(rows) }
    }

    /// Keeps clients from changing the disks that a configuration changes.
    fn turns_of_disks(&self, changes: &Changes) -> Result<Turns, Error> {
        let names = changes.disks.iter().filter_map(Edit::from).map(|disk| disk.name.as_str());
        self.disks.turns(names).map_err(|(name, error)| of_row(&DiskSpec::new(name), "", error.into()))
    }

    /// Declared disks that are known not to be up. New ones come up by and by.
    fn disks_that_wait(&self, config: &SwitchConfig) -> Vec<String> {
        let declared = by_key(&config.disks);
        let failed = self.disks.entries().into_iter().filter(|disk| disk.state == DiskState::Failed);
        let failed = failed.filter(|disk| declared.contains_key(&disk.name));
        let why = |disk: DiskEntry| {
            format!("disk `{}` is not up: {}; it is tried again", disk.name, disk.error.unwrap_or_default())
        };
        failed.map(why).collect()
    }

    fn slots(&self) -> usize {
        self.dataplane.port_slots() as usize
    }

    fn source(&self, request: &ConfigRequest) -> Source {
        match &request.file {
            None => Source::Unnamed,
            Some(file) if self.config_file.as_deref().is_some_and(|own| own.as_os_str() == file.as_str()) => {
                Source::Configuration
            }
            Some(file) => Source::File(file.clone()),
        }
    }

    /// The turns of ports whose guest's ends may be opened, in the order of their names.
    fn turns_for(&self, config: &SwitchConfig) -> Vec<Arc<Mutex<()>>> {
        let names: BTreeSet<_> = config.ports.iter().filter(|port| port.guest_sockets).map(|port| &port.name).collect();
        names.into_iter().map(|name| self.turn(name)).collect()
    }
}

/// Names of the rows that stay.
fn names(target: &Target) -> BTreeSet<&str> {
    target.stays.iter().map(|stay| stay.mark.as_str()).collect()
}

fn log(changes: &[ConfigChange]) {
    for change in changes {
        if change.run_time {
            tracing::warn!("configuration: {change}; it was changed at run time, and is as declared again");
        } else {
            tracing::info!("configuration: {change}");
        }
    }
}
