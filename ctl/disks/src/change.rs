//! Operations that clients ask for. Each waits for the disk's thread, for a limited time.
//!
//! A change is kept before it is made: `keep` gets what the disk is to be, and writes it. If it can't be written,
//! nothing has changed. If it can't be made, what was before is kept again. A disk that is made anew is the exception:
//! it is up before it is kept, so that a refusal leaves nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ctl_types::{DiskEntry, DiskSpec, DiskUpdate};
use model::ErrorKind;

use crate::error::Error;
use crate::served::{PAUSE_WAIT, Served, not_quiet};
use crate::spec::{check_limits, check_size, complete, limit_spec};
use crate::turn::Held;
use crate::{Disks, config, show};

/// How long a change waits for another one of the same disk.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// How long a new disk waits for the image's lock. Nobody has promised it, so it need not be long.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// How long a new disk may take.
const CREATE_WAIT: Duration = Duration::from_secs(30);
/// How long a disk that is deleted, or is not to be, may take to end.
const END_WAIT: Duration = Duration::from_secs(30);
/// How long growing may take.
const GROW_WAIT: Duration = Duration::from_secs(30);
/// How long a resumed disk may take to say so.
const RESUME_WAIT: Duration = Duration::from_secs(2);
/// How long a snapshot may take.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(60);

/// How a disk is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Also if a guest uses it.
    pub force: bool,
    /// Its image file goes too.
    pub image: bool,
}

/// An answer of a disk that does not come in time.
fn slow(what: &str) -> Error {
    Error::busy(format!("{what}: the storage has not answered yet"))
}

fn turn(served: &Served) -> Result<Held, Error> {
    let turn = served.common.turn.take(TURN_WAIT);
    let turn = turn.ok_or_else(|| Error::busy("another change of the disk is in work: try again"))?;
    if served.shown().goes {
        return Err(Error::not_found(format!("pvf_id: the disk `{}` has been deleted", served.shown().spec.name)));
    }
    Ok(turn)
}

impl Disks {
    /// Makes a disk. Its image is made if it is not there.
    ///
    /// # Errors
    /// The field that is wrong, or what `keep` says. Nothing is left then.
    pub fn create<E: From<Error>>(
        &self,
        spec: &DiskSpec,
        keep: impl FnOnce(&DiskSpec) -> Result<(), E>,
    ) -> Result<DiskEntry, E> {
        let spec = complete(spec, &self.settings)?;
        let served = Arc::new(Served::new(spec, self.surroundings(), true)?);
        let _turn = turn(&served)?;
        served.shown().fresh = true;
        let number = self.table.insert(&served, self.settings.capacity)?;
        let up = served.run(CREATE_WAIT, |work| work.first(LOCK_WAIT));
        let done = up.unwrap_or_else(|| Err(slow("path"))).map_err(E::from).and_then(|()| {
            let spec = served.shown().spec.clone();
            keep(&spec)
        });
        if let Err(error) = done {
            served.shown().goes = true;
            let _ = served.run(END_WAIT, |work| work.remove(false, true));
            self.table.lock().remove(&number);
            return Err(error);
        }
        let mut shown = served.shown();
        shown.fresh = false;
        Ok(show::entry(&shown))
    }

    /// Deletes a disk, by name or number. `keep` gets its name.
    ///
    /// # Errors
    /// There is none, a guest uses it, or what `keep` says.
    pub fn delete<E: From<Error>>(
        &self,
        key: &str,
        how: Deletion,
        keep: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let served = self.table.find(key)?;
        let _turn = turn(&served)?;
        let (name, number, active) = {
            let shown = served.shown();
            let active = shown.monitor.as_ref().map_or(0, |monitor| monitor.info().session.active_queues);
            (shown.spec.name.clone(), shown.spec.pvf_id.unwrap_or_default(), active)
        };
        if active > 0 && !how.force {
            let text = format!("pvf_id: a guest uses disk {number} (`{name}`): end it first, or force the deletion");
            return Err(Error::busy(text).into());
        }
        if let Some(other) = Some(&served).filter(|_| how.image).and_then(|served| self.shares_image(served)) {
            let text = format!("path: the image is that of disk `{other}` too: it can't be deleted");
            return Err(Error::busy(text).into());
        }
        keep(&name)?;
        served.shown().goes = true;
        let table = Arc::downgrade(&self.table);
        let ended = served.run(END_WAIT, move |work| {
            work.remove(how.image, false);
            if let Some(table) = table.upgrade() {
                // The disk's thread ends with the last reference, which may be this one.
                drop(table.lock().remove(&number));
            }
        });
        let text = "the disk is deleted, and its number is free once the storage has answered";
        ended.ok_or_else(|| Error::busy(text).into())
    }

    /// Another disk that has the same image, for reading as that one has it.
    fn shares_image(&self, served: &Served) -> Option<String> {
        let (path, identity) = {
            let shown = served.shown();
            (shown.spec.path.clone(), shown.identity)
        };
        let has = |other: &Served| {
            let shown = other.shown();
            shown.spec.path == path || identity.is_some() && shown.identity == identity
        };
        let others = self.all().into_iter().filter(|other| !std::ptr::eq(&raw const **other, served));
        others.into_iter().find(|other| has(other)).map(|other| other.shown().spec.name.clone())
    }

    /// Changes a disk in operation. All changes are made, or none.
    ///
    /// # Errors
    /// There is none, the field that is wrong, or what `keep` says.
    pub fn update<E: From<Error> + std::fmt::Display>(
        &self,
        key: &str,
        update: &DiskUpdate,
        keep: impl Fn(&DiskSpec) -> Result<(), E>,
    ) -> Result<DiskEntry, E> {
        let served = self.table.find(key)?;
        let _turn = turn(&served)?;
        check_limits(&update.limits)?;
        let before = served.shown().spec.clone();
        let monitor = served.shown().monitor.clone();
        let grows = update.size.map(|size| grows(&served, size)).transpose()?.unwrap_or(false);
        let limits = before.limits.changed_by(&update.limits);
        let size = if grows { update.size } else { before.size };
        let to = DiskSpec { size, limits, ..before.clone() };
        if to != before {
            keep(&to)?;
        }
        served.shown().spec = to.clone();
        if let Some(monitor) = monitor.as_ref().filter(|_| limits != before.limits) {
            monitor.set_limits(&limit_spec(&limits));
            served.tell(move |work| work.has_limits(limits));
        }
        if let Some(size) = size.filter(|_| grows) {
            let grown = served.run(GROW_WAIT, move |work| work.grow(size));
            // Without an answer it may yet grow: what is to be stays.
            if let Err(error) = grown.ok_or_else(|| slow("size"))? {
                served.shown().spec = before.clone();
                monitor.inspect(|monitor| monitor.set_limits(&limit_spec(&before.limits)));
                if let Err(error) = keep(&before) {
                    tracing::error!(disk = before.name, %error, "a change that was undone is kept as if it was made");
                }
                return Err(error.into());
            }
        }
        Ok(show::entry(&served.shown()))
    }

    /// Pauses a disk. Returns when no request is in work. Later ones wait.
    ///
    /// # Errors
    /// There is none, what `keep` says, or requests stay in work: then it is paused, and not quiet yet.
    pub fn pause<E: From<Error>>(
        &self,
        key: &str,
        pause: bool,
        keep: impl FnOnce(&DiskSpec) -> Result<(), E>,
    ) -> Result<DiskEntry, E> {
        let served = self.table.find(key)?;
        let _turn = turn(&served)?;
        let before = served.shown().spec.clone();
        let to = DiskSpec { paused: pause.then_some(true), ..before.clone() };
        if to != before {
            keep(&to)?;
            served.shown().spec = to;
        }
        if pause {
            let quiet = served.run(PAUSE_WAIT + RESUME_WAIT, |work| work.pause());
            quiet.unwrap_or_else(|| Err(not_quiet(PAUSE_WAIT)))?;
        } else {
            // It goes on once the storage answers.
            let _ = served.run(RESUME_WAIT, |work| work.resume());
        }
        Ok(show::entry(&served.shown()))
    }

    /// Copies a disk as it is now to a new file, which shares its blocks. A name without `/` is one beside the image.
    /// Returns the path of the copy.
    ///
    /// # Errors
    /// There is none, it is not up, the file system has no reflinks, or there is such a file already.
    pub fn snapshot(&self, key: &str, to: &str) -> Result<String, Error> {
        let served = self.table.find(key)?;
        let _turn = turn(&served)?;
        let image = served.shown().spec.path.clone().unwrap_or_default();
        let path = match Path::new(&image).parent() {
            Some(parent) if !to.contains('/') && !to.is_empty() && to != "." && to != ".." => parent.join(to),
            _ => Path::new(to).to_owned(),
        };
        let directories = &self.settings.directories;
        if !config::is_plain(&path) || !directories.iter().any(|directory| path.starts_with(directory)) {
            let to = to.escape_default();
            return Err(Error::invalid(format!("path: `{to}` is no path in a configured directory, and no file name")));
        }
        let text = path.display().to_string();
        let made = served.run(SNAPSHOT_WAIT, move |work| work.snapshot(&path));
        made.unwrap_or_else(|| Err(slow("path")))?;
        Ok(text)
    }
}

/// Whether a disk has to grow to have that size.
fn grows(served: &Served, size: u64) -> Result<bool, Error> {
    let shown = served.shown();
    let block = shown.spec.block_size.unwrap_or(512);
    check_size(size, block)?;
    let has = shown.monitor.as_ref().map_or(shown.spec.size.unwrap_or_default(), |monitor| monitor.info().bytes);
    if size < has {
        let text = format!("size: the disk has {has} bytes and can't shrink to {size}: the guest would lose data");
        return Err(Error::invalid(text));
    }
    if size > has && shown.monitor.is_none() {
        let why = shown.why.clone().unwrap_or_else(|| "it is being brought up".to_owned());
        return Err(Error::new(ErrorKind::System, format!("size: the disk is not up: {why}")));
    }
    Ok(size > has)
}

#[cfg(test)]
mod tests {
    use ctl_types::DiskState;

    use super::*;
    use crate::{DiskSettings, DisksConfig};

    #[test]
    fn a_disk_starts_until_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let settings: DiskSettings =
            DisksConfig::default().settings(&dir.path().join("run"), &dir.path().join("state"));
        let disks = Disks::new(settings, Arc::new(|_| Ok(())));
        let spec = DiskSpec { name: "d".to_owned(), size: Some(1 << 20), ..DiskSpec::default() };
        let shown = || disks.entry("d").ok().map(|entry| (entry.state, entry.error));
        let refused = disks.create::<Error>(&spec, |_| {
            assert_eq!(shown(), Some((DiskState::Starting, None)));
            Err(Error::busy("the state can't be kept"))
        });
        assert!(refused.is_err() && shown().is_none());
        disks.create::<Error>(&spec, |_| Ok(())).unwrap();
        assert_eq!(shown(), Some((DiskState::Up, None)));
    }
}
