//! The service behind every transport. It orders changes, keeps the state file in step with the data plane, and
//! restores it.
//!
//! A change is made in the data plane, then written to the state file, then acknowledged. If it can't be written, it is
//! undone. One mutex orders all changes. It is held during the work of data plane and disk. Reading counters does not
//! take it.
//!
//! A configured port may fail to come up, for example because its netdev does not exist yet. It keeps its number, is
//! shown as failed with the reason, and is retried by [`Service::retry`].
//!
//! The transports, the Soft Patch Panel and the companion depend on this crate, which knows none of them. Each table is
//! a module with its operations and its rows in the state file. Other owners register rows of their own
//! ([`state::Table`]). Any thread may call the service. Calls that change something may block for a while.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]
#![forbid(unsafe_code)]

pub mod bond_checks;
mod bonds;
mod bridge;
mod declared;
mod disks;
pub mod doctor;
mod error;
mod fdb;
mod follow;
pub mod guests;
mod learned;
mod links;
mod meters;
mod numbers;
mod packet;
mod place;
mod ports;
mod redirects;
mod rules;
pub mod state;
pub mod upkeep;
pub mod vhost_checks;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ctl_disks::Disks;
use ctl_types::{Capability, DiskSpec, TraceRequest};
use switch::model::*;
use switch::{CaptureRequest, CaptureStream, ErrorKind, KeptTables, Switch};

pub use self::bridge::{Configured, RunTime};
pub use self::declared::{Declared, DeclaredRow, DeclaredRows, check_config, check_disks};
use self::disks::Unmade;
pub use self::disks::{DiskRows, UnmadeDisks};
pub use self::error::Error;
pub use self::fdb::StaticEntries;
pub use self::follow::Unfinished;
pub use self::learned::LearnedFile;
pub use self::meters::{MeterBindings, MeterRecord, Meters};
pub use self::place::Place;
pub use self::ports::Ports;
pub use self::redirects::Redirects;
pub use self::rules::Rules;
use crate::declared::{Kept, Marks};
use crate::packet::{build, from_hex};
use crate::state::{Row, State, Store, Table, Tables};
use crate::upkeep::Upkeep;

/// Kinds of rows that belong to the service.
pub fn tables() -> Tables {
    Tables::default()
        .with::<RunTime>()
        .with::<Configured>()
        .with::<Ports>()
        .with::<Unfinished>()
        .with::<StaticEntries>()
        .with::<Meters>()
        .with::<MeterBindings>()
        .with::<Rules>()
        .with::<Redirects>()
        .with::<DiskRows>()
        .with::<UnmadeDisks>()
        .with::<DeclaredRows>()
}

/// A configured port that is not up.
#[derive(Debug)]
struct Failed {
    name: String,
    /// Why it is not up now.
    why: String,
    /// How it was lost, if it was up before.
    lost: Option<String>,
}

impl Failed {
    fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into(), lost: None }
    }

    /// Notes why another try failed.
    fn fails(&mut self, why: &switch::Error) {
        self.why = match &self.lost {
            Some(lost) => format!("{lost}; it can't be taken up again: {why}"),
            None => why.to_string(),
        };
    }
}

/// Data guarded by the mutex.
#[derive(Debug)]
struct Inner {
    ports: Vec<PortSpec>,
    fdb: Vec<FdbSpec>,
    failed: Vec<Failed>,
    /// Rows that files have declared.
    marks: Marks,
}

/// The service. Its methods may be called from any thread, and may block.
pub struct Service {
    dataplane: Arc<Switch>,
    store: Arc<Store>,
    disks: Disks,
    unmade: Arc<Unmade>,
    inner: Mutex<Inner>,
    guests: guests::Guests,
    upkeep: Arc<Upkeep>,
    /// Rows of the state file that belong to other owners, until [`Service::take_rows`] takes them.
    others: Mutex<State>,
    /// The daemon's configuration file.
    config_file: Option<PathBuf>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Service {
    /// Creates the service for a data plane without ports, and restores state file and configuration.
    ///
    /// # Errors
    /// If the configuration has a mistake, or the state file can't be read. A port that can't be brought up is not an
    /// error.
    pub fn start(dataplane: Arc<Switch>, store: Store, declared: &Declared) -> Result<Arc<Self>, Error> {
        check_config(dataplane.settings(), &declared.config)?;
        let mut state = store.load()?;
        let kept = Kept::load(&mut state);
        let first = kept.first(declared, dataplane.port_slots() as usize);
        dataplane.set_bridge(first.bridge.unwrap_or_default())?;
        let tables = KeptTables {
            meters: first.meters.into_iter().map(|meter| (meter.spec, meter.implicit)).collect(),
            bindings: first.bindings,
            rules: first.rules,
            redirects: first.redirects,
        };
        for why in dataplane.restore_tables(tables) {
            tracing::error!("not restored: {why}");
        }
        // Disks come up by themselves. Nothing here waits for their storage.
        let store = Arc::new(store);
        let unmade = Unmade::start(&store, state.take::<UnmadeDisks>(), |name| kept.has_disk(name));
        let disks = Disks::new(declared.disks.clone(), Unmade::notice(&unmade));
        let is_new = |disk: &&DiskSpec| !kept.has_disk(&disk.name);
        if let Err(error) = unmade.add(first.disks.iter().filter(is_new)) {
            tracing::error!(%error, "an image that can't be made before the daemon ends will not be made");
        }
        first.disks.iter().for_each(|disk| disks.put(disk, is_new(&disk) || unmade.has(&disk.name)));
        let unfinished = state.take::<Unfinished>();
        let inner = Inner { failed: Vec::new(), ports: first.ports, fdb: first.fdb, marks: kept.marks.clone() };
        let service = Arc::new(Self {
            dataplane,
            store,
            disks,
            unmade,
            inner: Mutex::new(inner),
            guests: Default::default(),
            upkeep: Arc::default(),
            others: Mutex::new(state),
            config_file: declared.file.clone(),
        });
        service.clear_away(&unfinished)?;
        service.restore();
        service.take_up(&kept, declared);
        Ok(service)
    }

    /// Takes the lock. Ports are then as the machine has changed them.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_changes(&mut inner);
        inner
    }

    /// The data plane, for reading.
    pub fn dataplane(&self) -> &Switch {
        &self.dataplane
    }

    /// The daemon's own files and sockets.
    pub fn upkeep(&self) -> &Arc<Upkeep> {
        &self.upkeep
    }

    /// Looks whether the state file and the records of guests are in their places. Makes them again if not.
    pub fn look_after_files(&self) {
        let look = self.store.look_after().map_err(|error| match error {
            Error::NotKept { source, .. } => source.to_string(),
            error => error.to_string(),
        });
        self.upkeep.note("state_file", self.store.path(), look);
        self.guests.look_after_records(&self.upkeep);
    }

    /// Takes the rows of another owner that the state file had. Later calls get none.
    pub fn take_rows<T: Table>(&self) -> Vec<T::Row> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).take::<T>()
    }

    /// Writes a change of another owner's rows that is in force.
    ///
    /// # Errors
    /// If they can't be written. Nothing is written then.
    pub fn keep_rows(&self, rows: &[Row]) -> Result<(), Error> {
        self.store.write(rows)
    }

    /// Writes the rows of a change that is in force, or undoes the change.
    fn keep(&self, rows: &[Row], undo: impl FnOnce() -> Result<(), switch::Error>) -> Result<(), Error> {
        self.store.write(rows).map_err(|error| match undo() {
            Ok(()) => error,
            Err(undo) => {
                tracing::error!(%error, %undo, "a change that can't be kept can't be undone either");
                Error::NotUndone { source: Box::new(error), undo }
            }
        })
    }

    /// Show limits for ports, meters and rules, and how many are free.
    pub fn capability(&self) -> Capability {
        let used = u32::try_from(self.lock().ports.len()).unwrap_or(u32::MAX);
        let total = self.dataplane.port_slots();
        Capability {
            ports: Usage { total, free: total.saturating_sub(used) },
            meters: self.dataplane.meter_usage(),
            rules: self.dataplane.rule_usage(),
            rule_masks: self.dataplane.rule_masks(),
            disks: self.disks.usage(),
        }
    }

    /// All counters. With a port: its own, those of components that use it, and those of their other ends.
    pub fn stats(&self, port: Option<&str>) -> Result<StatsReport, Error> {
        let mut report = self.dataplane.stats();
        if let Some(key) = port {
            let name = self.name_of(key)?;
            report.ports.retain(|port| port.name == name);
            report.flow_rules.retain(|count| count.port == name);
            let ends = |component: &ComponentInfo| [component.from.as_slice(), component.to.as_slice()].concat();
            report.running.retain(|component| ends(component).iter().any(|end| end.is_of_port(&name)));
            let theirs: HashSet<_> = report.running.iter().flat_map(ends).collect();
            report.ends.retain(|end| theirs.contains(&end.end));
        }
        Ok(report)
    }

    /// Explains what would happen to a packet.
    pub fn trace(&self, request: &TraceRequest) -> Result<TraceReport, Error> {
        let frame = match (&request.hex, &request.packet) {
            (Some(hex), None) => from_hex(hex).map_err(|why| Error::invalid(format!("hex: {why}")))?,
            (None, Some(packet)) => build(packet).map_err(|why| Error::invalid(format!("packet: {why}")))?,
            _ => return Err(Error::invalid("hex, packet: exactly one of them is needed")),
        };
        let name = self.live(&self.lock(), &request.port)?.name.clone();
        Ok(self.dataplane.trace(&name, request.queue, &frame, request.rule)?)
    }

    /// Starts a capture.
    pub fn capture(&self, request: CaptureRequest) -> Result<CaptureStream, Error> {
        Ok(self.dataplane.capture(request)?)
    }
}

fn busy(message: String) -> Error {
    Error::Switch(switch::Error::new(ErrorKind::Busy, message))
}
