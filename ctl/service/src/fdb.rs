//! FDB entries: listing, static entries, flushing. Static entries are in the state file, also while their port is
//! failed.

use ctl_types::FdbFilter;
use switch::ErrorKind;
use switch::model::*;

use crate::Service;
use crate::error::Error;
use crate::state::{Row, Table};

/// Rows of static entries, by the key `fdb/VLAN/MAC`.
#[derive(Debug)]
pub struct StaticEntries;

impl Table for StaticEntries {
    const NAME: &'static str = "fdb";
    type Row = FdbSpec;

    fn key(row: &FdbSpec) -> String {
        key(row.mac, row.vlan)
    }
}

pub(crate) fn key(mac: MacAddr, vlan: u16) -> String {
    format!("{vlan}/{mac}")
}

impl Service {
    /// FDB entries that match a filter.
    pub fn fdb(&self, filter: &FdbFilter) -> Result<Vec<FdbEntry>, Error> {
        let port = filter.port.as_deref().map(|key| self.name_of(key)).transpose()?;
        let mut rows = self.dataplane.fdb();
        rows.retain(|row| {
            port.as_ref().is_none_or(|port| row.port == *port)
                && filter.vlan.is_none_or(|vlan| row.vlan == vlan)
                && filter.mac.is_none_or(|mac| row.mac == mac)
        });
        Ok(rows)
    }

    /// Adds a static entry. Its port may be given by name or number.
    pub fn fdb_add(&self, row: FdbSpec) -> Result<FdbSpec, Error> {
        let mut inner = self.lock();
        let row = FdbSpec { port: self.live(&inner, &row.port)?.name.clone(), ..row };
        self.dataplane.fdb_add(&row)?;
        let known = inner.fdb.contains(&row);
        let undo = || if known { Ok(()) } else { self.dataplane.fdb_del(row.mac, row.vlan) };
        self.keep(&[Row::put::<StaticEntries>(&row)], undo)?;
        inner.fdb.retain(|other| (other.mac, other.vlan) != (row.mac, row.vlan));
        inner.fdb.push(row.clone());
        Ok(row)
    }

    /// Deletes an entry.
    pub fn fdb_del(&self, mac: MacAddr, vlan: u16) -> Result<(), Error> {
        let mut inner = self.lock();
        let kept = inner.fdb.iter().position(|row| (row.mac, row.vlan) == (mac, vlan));
        let there = match self.dataplane.fdb_del(mac, vlan) {
            // The static entry belongs to a port that is not up. Only the state file has it.
            Err(error) if error.kind() == ErrorKind::NotFound && kept.is_some() => false,
            result => result.map(|()| true)?,
        };
        let Some(at) = kept else { return Ok(()) };
        let row = inner.fdb[at].clone();
        let undo = || if there { self.dataplane.fdb_add(&row) } else { Ok(()) };
        self.keep(&[Row::remove::<StaticEntries>(&key(mac, vlan))], undo)?;
        inner.fdb.remove(at);
        Ok(())
    }

    /// Flushes learned entries, of one port or of all. Returns how many.
    pub fn fdb_flush(&self, port: Option<&str>) -> Result<usize, Error> {
        let inner = self.lock();
        let name = port.map(|key| self.live(&inner, key)).transpose()?.map(|port| port.name.as_str());
        Ok(self.dataplane.fdb_flush(name)?)
    }
}
