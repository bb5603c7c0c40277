//! Disks, with their rows in the state file. The crate `ctl-disks` has the disks themselves.
//!
//! Disks wait for storage, and ports must not wait for disks. So these operations don't take the service's mutex. A
//! disk has a turn of its own, which is held until the change is written.

use ctl_disks::{Deletion, Disks};
use ctl_types::{DiskEntry, DiskSpec, DiskUpdate};

use crate::Service;
use crate::error::Error;
use crate::state::{Row, Table};

/// Rows of disks, by the key `disk/NAME`.
#[derive(Debug)]
pub struct DiskRows;

impl Table for DiskRows {
    const NAME: &'static str = "disk";
    type Row = DiskSpec;

    fn key(row: &DiskSpec) -> String {
        row.name.clone()
    }
}

impl Service {
    /// The disks, for looking at them.
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    fn keep_disk(&self, spec: &DiskSpec) -> Result<(), Error> {
        self.store.write(&[Row::put::<DiskRows>(spec)])
    }

    /// Makes a disk. Its image is made if it is not there.
    ///
    /// # Errors
    /// The field that is wrong. Nothing is left then.
    pub fn create_disk(&self, spec: &DiskSpec) -> Result<DiskEntry, Error> {
        self.disks.create(spec, |spec| self.keep_disk(spec))
    }

    /// Deletes a disk, by name or number.
    ///
    /// # Errors
    /// There is none, or a guest uses it.
    pub fn delete_disk(&self, key: &str, how: Deletion) -> Result<(), Error> {
        self.disks.delete(key, how, |name| self.store.write(&[Row::remove::<DiskRows>(name)]))
    }

    /// Changes a disk in operation. All changes are made, or none.
    ///
    /// # Errors
    /// There is none, or the field that is wrong.
    pub fn update_disk(&self, key: &str, update: &DiskUpdate) -> Result<DiskEntry, Error> {
        self.disks.update(key, update, |spec| self.keep_disk(spec))
    }

    /// Pauses or resumes a disk. A pause returns when no request is in work.
    ///
    /// # Errors
    /// There is none, or requests stay in work for long: then it is paused, and not quiet yet.
    pub fn pause_disk(&self, key: &str, pause: bool) -> Result<DiskEntry, Error> {
        self.disks.pause(key, pause, |spec| self.keep_disk(spec))
    }

    /// Copies a disk as it is now to a new file. Returns its path.
    ///
    /// # Errors
    /// There is none, it is not up, or the file system has no reflinks.
    pub fn snapshot_disk(&self, key: &str, to: &str) -> Result<String, Error> {
        Ok(self.disks.snapshot(key, to)?)
    }
}
