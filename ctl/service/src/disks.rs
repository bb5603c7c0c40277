//! Disks, with their rows in the state file. The crate `ctl-disks` has the disks themselves.
//!
//! Disks wait for storage, and ports must not wait for disks. So these operations don't take the service's mutex. A
//! disk has a turn of its own, which is held until the change is written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ctl_disks::{Deletion, Disks, ImageNotice};
use ctl_types::{DiskEntry, DiskSpec, DiskUpdate};
use serde::{Deserialize, Serialize};

use crate::Service;
use crate::error::Error;
use crate::state::{Row, Store, Table};

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

/// Rows of disks that never had an image, by the key `unmade_disk/NAME`. Only such a disk's image is made by itself. A
/// row is there from before the disk is tried until just before it is served.
#[derive(Debug)]
pub struct UnmadeDisks;

/// A disk that never had an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmadeDisk {
    name: String,
}

impl Table for UnmadeDisks {
    const NAME: &'static str = "unmade_disk";
    type Row = UnmadeDisk;

    fn key(row: &UnmadeDisk) -> String {
        row.name.clone()
    }
}

/// The disks that never had an image, as the state file has them.
#[derive(Debug)]
pub(crate) struct Unmade {
    store: Arc<Store>,
    names: Mutex<BTreeSet<String>>,
}

impl Unmade {
    /// Those of an earlier daemon. Of a disk that is not there any more the row goes.
    pub fn start(store: &Arc<Store>, rows: Vec<UnmadeDisk>, is_there: impl Fn(&str) -> bool) -> Arc<Self> {
        let names: BTreeSet<_> = rows.into_iter().map(|row| row.name).collect();
        let stale: Vec<_> = names.iter().filter(|name| !is_there(name)).cloned().collect();
        let unmade = Arc::new(Self { store: Arc::clone(store), names: Mutex::new(names) });
        unmade.forget(stale.iter().map(String::as_str));
        unmade
    }

    /// What takes a disk out of these.
    pub fn notice(unmade: &Arc<Self>) -> ImageNotice {
        let unmade = Arc::clone(unmade);
        Arc::new(move |name| unmade.remove(&[name]).map_err(|error| error.to_string()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that disk is one of these.
    pub fn has(&self, name: &str) -> bool {
        self.lock().contains(name)
    }

    /// Takes disks in.
    ///
    /// # Errors
    /// They can't be written. Then none is in.
    pub fn add<'a>(&self, disks: impl Iterator<Item = &'a DiskSpec>) -> Result<(), Error> {
        let new: Vec<_> = disks.map(|disk| UnmadeDisk { name: disk.name.clone() }).collect();
        if !new.is_empty() {
            let mut names = self.lock();
            self.store.write(&new.iter().map(Row::put::<UnmadeDisks>).collect::<Vec<_>>())?;
            names.extend(new.into_iter().map(|disk| disk.name));
        }
        Ok(())
    }

    fn remove(&self, gone: &[&str]) -> Result<(), Error> {
        let mut names = self.lock();
        let known: Vec<_> = gone.iter().copied().filter(|name| names.contains(*name)).collect();
        if !known.is_empty() {
            self.store.write(&known.iter().map(|name| Row::remove::<UnmadeDisks>(name)).collect::<Vec<_>>())?;
            names.retain(|name| !gone.contains(&name.as_str()));
        }
        Ok(())
    }

    /// Takes disks out that are not there any more. A row that stays is looked at by the next daemon.
    pub fn forget<'a>(&self, gone: impl Iterator<Item = &'a str>) {
        if let Err(error) = self.remove(&gone.collect::<Vec<_>>()) {
            tracing::warn!(%error, "rows of disks that are gone stay in the state file");
        }
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
        self.disks.delete(key, how, |name| {
            self.store.write(&[Row::remove::<DiskRows>(name)])?;
            self.unmade.forget(std::iter::once(name));
            Ok(())
        })
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
