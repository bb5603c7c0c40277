//! The one service under every transport: it orders changes, keeps the state file true, and restores what it says.
//!
//! A change is made in the data plane, written to the state file, and then acknowledged; if it can't be written it is undone.
//! One mutex orders all changes, held while the data plane and the disk work; reads of counters do not take it. A port of the
//! state file that can't be brought up (its netdev is not there yet) is kept, shown as failed with the reason, and tried
//! again by [`Service::retry`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use switch::model::*;
use switch::{CaptureRequest, ErrorKind};

use crate::config::Config;
use crate::dataplane::{Capture, Dataplane};
use crate::error::Error;
use crate::packet::{PacketSpec, from_hex};
use crate::state::{State, Store};

/// Whether a port works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// It is part of the switch.
    Up,
    /// It is configured and could not be brought up.
    Failed,
}

/// A configured port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PortEntry {
    /// Name.
    pub name: String,
    /// Whether it works.
    pub state: PortState,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As configured, defaults filled in.
    pub spec: PortSpec,
    /// As it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<PortInfo>,
}

/// A packet to be traced: `hex`, or fields to build one from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Port that it comes in from.
    pub port: String,
    /// The frame without FCS, in hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// Fields of a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketSpec>,
}

/// Bridge settings to change; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeUpdate {
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdb_limit: Option<u32>,
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdb_ageing_seconds: Option<u32>,
    /// As in `BridgeSettings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_reserved: Option<bool>,
}

/// Rows of the MAC table that are wanted; absent: any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FdbFilter {
    /// Port name.
    pub port: Option<String>,
    /// VLAN.
    pub vlan: Option<u16>,
    /// Address.
    #[param(value_type = Option<String>)]
    pub mac: Option<MacAddr>,
}

/// A port that is configured and not up.
#[derive(Debug)]
struct Failed {
    name: String,
    why: String,
}

/// What the mutex guards.
#[derive(Debug)]
struct Inner {
    state: State,
    failed: Vec<Failed>,
}

/// The service.
pub struct Service {
    dataplane: Box<dyn Dataplane>,
    store: Store,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Service {
    /// Puts a service on a data plane without ports, and restores what the state file and the configuration say.
    ///
    /// # Errors
    /// A state file that can't be read. A port that can't be restored is none.
    pub fn start(dataplane: Box<dyn Dataplane>, store: Store, config: &Config) -> Result<Arc<Self>, Error> {
        let state = store.load()?;
        if let Some(bridge) = &state.bridge {
            dataplane.set_bridge(bridge.clone())?;
        }
        let inner = Inner { failed: Vec::new(), state };
        let service = Arc::new(Self { dataplane, store, inner: Mutex::new(inner) });
        service.restore();
        service.declare(&config.port);
        Ok(service)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data plane, to read from.
    pub fn dataplane(&self) -> &dyn Dataplane {
        &*self.dataplane
    }

    fn restore(&self) {
        let mut inner = self.lock();
        let Inner { state, failed } = &mut *inner;
        for spec in &state.ports {
            if let Err(error) = self.bring_up(spec, &state.fdb) {
                tracing::warn!(port = spec.name, %error, "a configured port can't be brought up; it will be tried again");
                failed.push(Failed { name: spec.name.clone(), why: error.to_string() });
            }
        }
    }

    /// Adds a port and its static rows to the data plane.
    fn bring_up(&self, spec: &PortSpec, fdb: &[FdbSpec]) -> Result<PortInfo, Error> {
        let info = self.dataplane.add_port(spec.clone())?;
        for row in fdb.iter().filter(|row| row.port == spec.name) {
            if let Err(error) = self.dataplane.fdb_add(row) {
                tracing::warn!(port = spec.name, mac = %row.mac, %error, "a static MAC row can't be restored");
            }
        }
        Ok(info)
    }

    /// Adds the ports that a configuration file declares, unless a port of that name exists.
    pub fn declare(&self, ports: &[PortSpec]) {
        for spec in ports {
            if self.lock().state.ports.iter().any(|port| port.name == spec.name) {
                continue;
            }
            if let Err(error) = self.add_port(spec.clone()) {
                tracing::error!(port = spec.name, %error, "a port of the configuration file can't be added");
            }
        }
    }

    /// Tries ports that could not be brought up once more.
    pub fn retry(&self) {
        let mut inner = self.lock();
        let Inner { state, failed } = &mut *inner;
        failed.retain_mut(|port| {
            let Some(spec) = state.ports.iter().find(|spec| spec.name == port.name) else { return false };
            match self.bring_up(spec, &state.fdb) {
                Ok(_) => {
                    tracing::info!(port = port.name, "a configured port is up after all");
                    false
                }
                Err(error) => {
                    port.why = error.to_string();
                    true
                }
            }
        });
    }

    /// All configured ports, in the order of their numbers, failed ones last.
    pub fn ports(&self) -> Vec<PortEntry> {
        let inner = self.lock();
        let up = self.dataplane.ports().into_iter().map(up_entry);
        let failed = inner.failed.iter().filter_map(|port| {
            let spec = inner.state.ports.iter().find(|spec| spec.name == port.name)?;
            Some(failed_entry(port, spec))
        });
        up.chain(failed).collect()
    }

    /// One configured port, by name or by number.
    pub fn port(&self, key: &str) -> Result<PortEntry, Error> {
        let inner = self.lock();
        let number = key.parse::<u16>().ok();
        let ports = &inner.state.ports;
        let by_number = || ports.iter().find(|spec| number.is_some() && spec.vport == number);
        let spec = ports.iter().find(|spec| spec.name == key).or_else(by_number);
        let spec = spec.ok_or_else(|| Error::not_found(format!("there is no port `{key}`")))?;
        match inner.failed.iter().find(|port| port.name == spec.name) {
            Some(port) => Ok(failed_entry(port, spec)),
            None => Ok(up_entry(self.dataplane.port(&spec.name)?)),
        }
    }

    /// Adds a port.
    pub fn add_port(&self, spec: PortSpec) -> Result<PortEntry, Error> {
        let mut inner = self.lock();
        let replaces = inner.failed.iter().position(|port| port.name == spec.name);
        if replaces.is_none() && inner.state.ports.iter().any(|port| port.name == spec.name) {
            return Err(exists(&spec.name));
        }
        let info = self.dataplane.add_port(spec)?;
        let mut state = inner.state.clone();
        state.ports.retain(|port| port.name != info.spec.name);
        state.ports.push(info.spec.clone());
        self.keep(&mut inner, state, || self.dataplane.del_port(&info.spec.name))?;
        inner.failed.retain(|port| port.name != info.spec.name);
        Ok(up_entry(info))
    }

    /// Deletes a port and its static rows.
    pub fn del_port(&self, key: &str) -> Result<(), Error> {
        let name = self.port(key)?.name;
        let mut inner = self.lock();
        let mut state = inner.state.clone();
        state.ports.retain(|port| port.name != name);
        state.fdb.retain(|row| row.port != name);
        // Written first: a port that is gone from the switch can't be put back as it was, one that is gone from the file can.
        let before = inner.state.clone();
        self.keep(&mut inner, state, || Ok(()))?;
        if inner.failed.iter().any(|port| port.name == name) {
            inner.failed.retain(|port| port.name != name);
            return Ok(());
        }
        if let Err(error) = self.dataplane.del_port(&name) {
            self.store.save(&before)?;
            inner.state = before;
            return Err(error.into());
        }
        Ok(())
    }

    /// Changes a port.
    pub fn update_port(&self, key: &str, update: PortUpdate) -> Result<PortEntry, Error> {
        let entry = self.port(key)?;
        let Some(before) = entry.info else {
            return Err(Error::Switch(switch::Error::new(
                ErrorKind::Busy,
                format!(
                    "port `{}` is not up ({}): delete it and add it anew",
                    entry.name,
                    entry.error.unwrap_or_default()
                ),
            )));
        };
        let mut inner = self.lock();
        let info = self.dataplane.update_port(&entry.name, update)?;
        let mut state = inner.state.clone();
        for port in state.ports.iter_mut().filter(|port| port.name == entry.name) {
            *port = info.spec.clone();
        }
        let undo = PortUpdate {
            mtu: before.spec.mtu,
            mac: before.spec.mac,
            vlan: before.spec.vlan,
            isolated: Some(before.spec.isolated),
            mac_check: before.spec.mac_check,
            fdb_limit: before.spec.fdb_limit,
        };
        self.keep(&mut inner, state, || self.dataplane.update_port(&entry.name, undo).map(drop))?;
        Ok(up_entry(info))
    }

    /// Writes a new state, or undoes what it stands for.
    fn keep(
        &self,
        inner: &mut Inner,
        state: State,
        undo: impl FnOnce() -> Result<(), switch::Error>,
    ) -> Result<(), Error> {
        match self.store.save(&state) {
            Ok(()) => {
                inner.state = state;
                Ok(())
            }
            Err(error) => {
                if let Err(undo) = undo() {
                    tracing::error!(error = %undo, "a change that can't be kept can't be undone either");
                }
                Err(error)
            }
        }
    }

    /// All counters, or those of one port.
    pub fn stats(&self, port: Option<&str>) -> Result<StatsReport, Error> {
        let mut report = self.dataplane.stats();
        if let Some(key) = port {
            let name = self.port(key)?.name;
            report.ports.retain(|port| port.name == name);
        }
        Ok(report)
    }

    /// Rows of the MAC table.
    pub fn fdb(&self, filter: &FdbFilter) -> Result<Vec<FdbEntry>, Error> {
        if let Some(port) = &filter.port {
            self.port(port)?;
        }
        let mut rows = self.dataplane.fdb();
        rows.retain(|row| {
            filter.port.as_ref().is_none_or(|port| row.port == *port)
                && filter.vlan.is_none_or(|vlan| row.vlan == vlan)
                && filter.mac.is_none_or(|mac| row.mac == mac)
        });
        Ok(rows)
    }

    /// Adds a static row.
    pub fn fdb_add(&self, row: FdbSpec) -> Result<(), Error> {
        let mut inner = self.lock();
        self.dataplane.fdb_add(&row)?;
        let mut state = inner.state.clone();
        state.fdb.retain(|other| (other.mac, other.vlan) != (row.mac, row.vlan));
        state.fdb.push(row.clone());
        let known = inner.state.fdb.contains(&row);
        self.keep(&mut inner, state, || if known { Ok(()) } else { self.dataplane.fdb_del(row.mac, row.vlan) })
    }

    /// Deletes a row.
    pub fn fdb_del(&self, mac: MacAddr, vlan: u16) -> Result<(), Error> {
        let mut inner = self.lock();
        let mut state = inner.state.clone();
        state.fdb.retain(|row| (row.mac, row.vlan) != (mac, vlan));
        let kept = inner.state.fdb.iter().find(|row| (row.mac, row.vlan) == (mac, vlan)).cloned();
        self.dataplane.fdb_del(mac, vlan)?;
        self.keep(&mut inner, state, || kept.map_or(Ok(()), |row| self.dataplane.fdb_add(&row)))
    }

    /// Forgets learned rows.
    pub fn fdb_flush(&self, port: Option<&str>) -> Result<usize, Error> {
        let name = port.map(|key| self.port(key)).transpose()?.map(|port| port.name);
        Ok(self.dataplane.fdb_flush(name.as_deref())?)
    }

    /// Changes the bridge settings.
    pub fn update_bridge(&self, update: &BridgeUpdate) -> Result<BridgeSettings, Error> {
        let mut inner = self.lock();
        let before = self.dataplane.bridge();
        let bridge = BridgeSettings {
            fdb_limit: update.fdb_limit.unwrap_or(before.fdb_limit),
            fdb_ageing_seconds: update.fdb_ageing_seconds.unwrap_or(before.fdb_ageing_seconds),
            forward_reserved: update.forward_reserved.unwrap_or(before.forward_reserved),
        };
        self.dataplane.set_bridge(bridge.clone())?;
        let mut state = inner.state.clone();
        state.bridge = Some(bridge.clone());
        self.keep(&mut inner, state, || self.dataplane.set_bridge(before))?;
        Ok(bridge)
    }

    /// Says what would happen to a packet.
    pub fn trace(&self, request: &TraceRequest) -> Result<TraceReport, Error> {
        let frame = match (&request.hex, &request.packet) {
            (Some(hex), None) => from_hex(hex).map_err(|why| Error::invalid(format!("hex: {why}")))?,
            (None, Some(packet)) => packet.build().map_err(|why| Error::invalid(format!("packet: {why}")))?,
            _ => return Err(Error::invalid("hex, packet: exactly one of them is needed")),
        };
        Ok(self.dataplane.trace(&self.port(&request.port)?.name, &frame)?)
    }

    /// Starts a capture.
    pub fn capture(&self, request: CaptureRequest) -> Result<Box<dyn Capture>, Error> {
        Ok(self.dataplane.capture(request)?)
    }
}

fn up_entry(info: PortInfo) -> PortEntry {
    let (name, spec) = (info.spec.name.clone(), info.spec.clone());
    PortEntry { name, state: PortState::Up, error: None, spec, info: Some(info) }
}

fn failed_entry(port: &Failed, spec: &PortSpec) -> PortEntry {
    let (name, spec) = (spec.name.clone(), spec.clone());
    PortEntry { name, state: PortState::Failed, error: Some(port.why.clone()), spec, info: None }
}

fn exists(name: &str) -> Error {
    Error::Switch(switch::Error::new(ErrorKind::Exists, format!("name: there is a port `{name}` already")))
}
