//! The bridge's settings and its MAC table.

use std::sync::Arc;

use super::Switch;
use crate::control::change;
use crate::control::fields::{check_mac, check_vlan};
use crate::control::flaps;
use crate::control::settings::check_bridge;
use crate::engine::fdb::{Learn, Row, StaticError};
use crate::model::*;
use crate::{Error, ErrorKind};

impl Switch {
    /// Current bridge settings.
    pub fn bridge(&self) -> BridgeSettings {
        self.lock().bridge.clone()
    }

    /// Changes the bridge settings.
    pub fn set_bridge(&self, bridge: BridgeSettings) -> Result<(), Error> {
        check_bridge(&bridge)?;
        let mut control = self.lock();
        if bridge.fdb_limit != control.bridge.fdb_limit {
            control.fdb = Arc::new(control.fdb.resized(bridge.fdb_limit));
        }
        control.fdb.set_ageing(bridge.fdb_ageing_seconds);
        control.fdb.set_flap_limit(bridge.flap_limit);
        let now = control.core.shared.now_ns();
        control.ports.iter().for_each(|port| port.shared.storm.configure(bridge.storm_control, now));
        control.bridge = bridge;
        control.publish();
        Ok(())
    }

    /// MAC table, by VLAN and address.
    pub fn fdb(&self) -> Vec<FdbEntry> {
        let control = self.lock();
        let mut rows = control.fdb.entries(self.core.now());
        rows.sort_by_key(|row| (row.vid, row.mac));
        let entry = |row: Row| FdbEntry {
            mac: row.mac,
            vlan: row.vid,
            port: control.ports.name_of(row.port),
            kind: if row.is_static { FdbKind::Static } else { FdbKind::Learned },
            age_seconds: row.age,
            held: row.is_held,
        };
        rows.into_iter().map(entry).collect()
    }

    /// Addresses that flapped, and are held at a port now.
    pub fn held_addresses(&self) -> Vec<HeldAddress> {
        flaps::held(&self.lock())
    }

    /// How often an address was held since the start.
    pub fn address_holds(&self) -> u64 {
        self.lock().fdb.holds()
    }

    /// Checks the fields of a static row.
    pub fn check_fdb(entry: &FdbSpec) -> Result<(), Error> {
        check_mac(entry.mac)?;
        check_vlan(&VlanMode::Access { vid: entry.vlan })
    }

    /// Adds a static row, or turns a learned one into it. A static row of another port is an error of kind `Exists`.
    pub fn fdb_add(&self, entry: &FdbSpec) -> Result<(), Error> {
        Self::check_fdb(entry)?;
        let control = self.lock();
        let no = control.ports.bridged_number(&entry.port)?;
        control.host_addresses.check(entry.mac)?;
        let same = |row: &Row| row.is_static && row.mac == entry.mac && row.vid == entry.vlan;
        if let Some(row) = control.fdb.entries(self.core.now()).iter().find(|row| same(row))
            && row.port != no
        {
            return Err(Error::new(
                ErrorKind::Exists,
                format!(
                    "{} in VLAN {} is static on port `{}`: delete that first",
                    entry.mac,
                    entry.vlan,
                    control.ports.name_of(row.port)
                ),
            ));
        }
        control.fdb.add_static(entry.mac, entry.vlan, no).map_err(|error| match error {
            StaticError::Full => {
                Error::new(ErrorKind::Full, "the MAC table is full of static rows: raise fdb_limit or delete some")
            }
            error => Error::invalid(error.to_string()),
        })?;
        self.stations_changed();
        change::steer(&control);
        Ok(())
    }

    /// Removes a row, static or learned.
    pub fn fdb_del(&self, mac: MacAddr, vlan: u16) -> Result<(), Error> {
        let control = self.lock();
        if !control.fdb.remove(mac, vlan) {
            return Err(Error::new(ErrorKind::NotFound, format!("the MAC table has no {mac} in VLAN {vlan}")));
        }
        self.stations_changed();
        change::steer(&control);
        Ok(())
    }

    /// Forgets learned rows, of one port or of all; returns how many.
    pub fn fdb_flush(&self, port: Option<&str>) -> Result<usize, Error> {
        let control = self.lock();
        let no = port.map(|name| control.ports.find(name).map(|port| port.shared.no)).transpose()?;
        let flushed = control.fdb.flush_learned(no);
        self.stations_changed();
        Ok(flushed)
    }

    /// Returns when no packet goes on in the kernel by a row that was there before.
    fn stations_changed(&self) {
        if let Some(offload) = self.core.offload() {
            offload.check_stations(&self.core.shared.view.load());
        }
    }

    /// Learns addresses that an earlier switch had learned, on ports of the same names, unless they were seen here
    /// already; returns how many.
    pub fn relearn(&self, rows: &[FdbEntry]) -> usize {
        let control = self.lock();
        let limit = |no| control.ports.get(no).and_then(|port| port.spec.fdb_limit).unwrap_or(u32::MAX);
        let relearn = |row: &&FdbEntry| {
            let Ok(no) = control.ports.bridged_number(&row.port) else { return false };
            if control.host_addresses.contains(row.mac) || control.fdb.lookup(row.mac, row.vlan).is_some() {
                return false;
            }
            let learn = || control.fdb.learn(row.mac, row.vlan, no, limit(no), self.core.now());
            // Not while a worker learns, which takes a moment at most.
            let learned = (0..100).map(|_| learn()).find(|learned| *learned != Learn::Skipped);
            learned == Some(Learn::Learned)
        };
        let learned = rows.iter().filter(relearn).count();
        change::steer(&control);
        learned
    }
}
