//! The service behind every transport. It orders changes, keeps the state file in step with the data plane, and
//! restores it.
//!
//! A change is made in the data plane, then written to the state file, then acknowledged. If it can't be written, it is
//! undone. One mutex orders all changes. It is held during the work of data plane and disk. Reading counters does not
//! take it.
//!
//! A configured port may fail to come up, for example because its netdev does not exist yet. It keeps its number, is
//! shown as failed with the reason, and is retried by [`Service::retry`].

mod fdb;
mod guests;
mod learned;
mod ports;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switch::model::*;
use switch::{CaptureRequest, ErrorKind, KeptTables};

pub use self::learned::LearnedFile;
use crate::config::Config;
use crate::dataplane::{Capture, Dataplane};
use crate::error::Error;
use crate::packet::{build, from_hex};
use crate::spp::Instance;
use crate::spp::flow::PortRules;
use crate::state::{Row, Store};
pub use ctl_types::{
    BridgeUpdate, Capability, FdbFilter, GuestHolder, GuestSocket, Page, PortEntry, PortState, RuleWrite, TraceRequest,
};

/// A configured port that is not up.
#[derive(Debug)]
struct Failed {
    name: String,
    why: String,
}

/// Data guarded by the mutex.
#[derive(Debug)]
struct Inner {
    ports: Vec<PortSpec>,
    fdb: Vec<FdbSpec>,
    failed: Vec<Failed>,
}

/// The service. Its methods may be called from any thread, and may block.
pub struct Service {
    dataplane: Box<dyn Dataplane>,
    store: Store,
    inner: Mutex<Inner>,
    guests: guests::Guests,
    /// Instances and flow rules of the Soft Patch Panel from the state file, until [`Service::kept_spp`] takes them.
    spp: Mutex<(Vec<Instance>, Vec<PortRules>)>,
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
    /// If the state file can't be read or written. A port that can't be restored is not an error.
    pub fn start(dataplane: Box<dyn Dataplane>, store: Store, config: &Config) -> Result<Arc<Self>, Error> {
        let state = store.load()?;
        let mut bridge = state.bridge;
        if config.bridge != state.bridge_configured {
            // The file was edited, so its settings are newer than those made at run time.
            bridge = None;
            store.write(&[Row::bridge(None), Row::bridge_configured(config.bridge.as_ref())])?;
        }
        dataplane.set_bridge(bridge.or_else(|| config.bridge.clone()).unwrap_or_default())?;
        let kept = KeptTables {
            meters: state.meters.into_iter().map(|meter| (meter.spec, meter.implicit)).collect(),
            bindings: state.bindings,
            rules: state.rules,
            redirects: state.redirects,
        };
        for why in dataplane.restore_tables(kept) {
            tracing::error!("not restored: {why}");
        }
        let inner = Inner { failed: Vec::new(), ports: state.ports, fdb: state.fdb };
        let service = Arc::new(Self {
            dataplane,
            store,
            inner: Mutex::new(inner),
            guests: Default::default(),
            spp: Mutex::new((state.instances, state.flow_rules)),
        });
        service.restore();
        service.declare(&config.port);
        Ok(service)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data plane, for reading.
    pub fn dataplane(&self) -> &dyn Dataplane {
        &*self.dataplane
    }

    /// Takes the instances and flow rules that the state file had. Later calls get none.
    pub(crate) fn kept_spp(&self) -> (Vec<Instance>, Vec<PortRules>) {
        std::mem::take(&mut *self.spp.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes a change of instances or flow rules that is in force.
    pub(crate) fn keep_spp(&self, rows: &[Row]) -> Result<(), Error> {
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

    /// Limits for ports, meters and rules, and how many are free.
    pub fn capability(&self) -> Capability {
        let used = self.lock().ports.len() as u32;
        let total = self.dataplane.port_slots();
        Capability {
            ports: Usage { total, free: total.saturating_sub(used) },
            meters: self.dataplane.meter_usage(),
            rules: self.dataplane.rule_usage(),
            rule_masks: self.dataplane.rule_masks(),
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

    /// Changes the bridge settings.
    pub fn update_bridge(&self, update: &BridgeUpdate) -> Result<BridgeSettings, Error> {
        let _inner = self.lock();
        let before = self.dataplane.bridge();
        let bridge = BridgeSettings {
            fdb_limit: update.fdb_limit.unwrap_or(before.fdb_limit),
            fdb_ageing_seconds: update.fdb_ageing_seconds.unwrap_or(before.fdb_ageing_seconds),
            forward_reserved: update.forward_reserved.unwrap_or(before.forward_reserved),
        };
        self.dataplane.set_bridge(bridge.clone())?;
        self.keep(&[Row::bridge(Some(&bridge))], || self.dataplane.set_bridge(before))?;
        Ok(bridge)
    }

    /// Applies the bridge settings of an edited configuration file. They replace those made at run time.
    pub fn configure_bridge(&self, bridge: Option<&BridgeSettings>) -> Result<(), Error> {
        let _inner = self.lock();
        let before = self.dataplane.bridge();
        self.dataplane.set_bridge(bridge.cloned().unwrap_or_default())?;
        self.keep(&[Row::bridge(None), Row::bridge_configured(bridge)], || self.dataplane.set_bridge(before))
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
    pub fn capture(&self, request: CaptureRequest) -> Result<Box<dyn Capture>, Error> {
        Ok(self.dataplane.capture(request)?)
    }
}

fn busy(message: String) -> Error {
    Error::Switch(switch::Error::new(ErrorKind::Busy, message))
}
