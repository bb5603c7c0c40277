//! What a configuration, or the state file, asks for. Nothing here waits for storage: a disk becomes what it is to be
//! by and by, and shows whether it is.

use std::sync::Arc;

use ctl_types::DiskSpec;

use crate::Disks;
use crate::config::DiskSettings;
use crate::error::Error;
use crate::served::Served;
use crate::spec::complete;
use crate::table::no_conflict;
use crate::turn::Held;

/// The right to change disks. Until it ends, no client changes them.
#[derive(Debug)]
pub struct Turns(#[expect(dead_code, reason = "held until it is dropped")] Vec<Held>);

/// Checks disks that are declared together, as far as that does not depend on the machine.
///
/// # Errors
/// The first disk and field that can't be: its name, and why.
pub fn check_all(specs: &[DiskSpec], settings: &DiskSettings) -> Result<(), (String, Error)> {
    let mut known: Vec<DiskSpec> = Vec::new();
    for spec in specs {
        let named = |error| (spec.name.clone(), error);
        let whole = complete(spec, settings).map_err(named)?;
        for other in &known {
            no_conflict(&whole, other).map_err(named)?;
            if let Some(number) = whole.pvf_id.filter(|_| whole.pvf_id == other.pvf_id) {
                return Err(named(Error::exists(format!("pvf_id: {number} is disk `{}`", other.name))));
            }
        }
        known.push(whole);
    }
    let most = usize::try_from(settings.capacity).unwrap_or(usize::MAX);
    match specs.get(most) {
        Some(spec) => {
            let text = format!("there can be {most} disks at most");
            Err((spec.name.clone(), Error::new(model::ErrorKind::Full, text)))
        }
        None => Ok(()),
    }
}

impl Disks {
    /// Checks disks that are to be there together.
    ///
    /// # Errors
    /// The first disk and field that can't be: its name, and why.
    pub fn check(&self, specs: &[DiskSpec]) -> Result<(), (String, Error)> {
        check_all(specs, &self.settings)
    }

    /// Checks that a disk which is there can become `to`.
    ///
    /// # Errors
    /// It would become smaller.
    pub fn check_change(&self, to: &DiskSpec) -> Result<(), Error> {
        let Some(served) = self.table.named(&to.name) else { return Ok(()) };
        let shown = served.shown();
        let is_same = shown.spec.path == to.path;
        let has = shown.monitor.as_ref().map_or(shown.spec.size.unwrap_or(0), |monitor| monitor.info().bytes);
        match to.size.filter(|size| *size < has && is_same) {
            Some(size) => {
                let text = format!("size: it has {has} bytes and can't shrink to {size}: the guest would lose data");
                Err(Error::invalid(text))
            }
            None => Ok(()),
        }
    }

    /// Takes the right to change these disks.
    ///
    /// # Errors
    /// A client is changing one of them.
    pub fn turns<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Turns, (String, Error)> {
        let mut held = Vec::new();
        for name in names {
            let Some(served) = self.table.named(name) else { continue };
            let turn = served.common.turn.take(std::time::Duration::ZERO);
            let busy = || (name.to_owned(), Error::busy("a change of the disk is in work: try again"));
            held.push(turn.ok_or_else(busy)?);
        }
        Ok(Turns(held))
    }

    /// Adds a disk. With `may_make` an image that is not there is made. A disk that can't be is kept as failed, with
    /// the reason.
    pub fn put(&self, spec: &DiskSpec, may_make: bool) {
        let (whole, wrong) = match complete(spec, &self.settings) {
            Ok(whole) => (whole, None),
            Err(error) => (spec.clone(), Some(error)),
        };
        let served = match Served::new(whole, self.surroundings(), may_make) {
            Ok(served) => Arc::new(served),
            Err(error) => {
                tracing::error!(disk = spec.name, %error, "a disk is left out");
                return;
            }
        };
        let number = self.table.insert(&served, self.settings.capacity).or_else(|error| {
            // Another one may have its number by now.
            tracing::error!(disk = spec.name, %error, "a disk gets another number");
            served.shown().spec.pvf_id = None;
            self.table.insert(&served, self.settings.capacity)
        });
        if let Err(error) = number {
            tracing::error!(disk = spec.name, %error, "a disk is left out");
            return;
        }
        match wrong {
            // It stays so until a restart: only a configuration can mend it.
            Some(error) => served.refuse(&error),
            None => served.look(),
        }
    }

    /// Has a disk become what `to` says. What can't be changed in operation makes it anew.
    pub fn change(&self, to: &DiskSpec) {
        let Some(served) = self.table.named(&to.name) else { return };
        let whole = complete(to, &self.settings).unwrap_or_else(|_| to.clone());
        let mut disks = self.table.lock();
        let before = std::mem::replace(&mut served.shown().spec, whole.clone());
        if let (Some(from), Some(number)) = (before.pvf_id, whole.pvf_id)
            && from != number
        {
            if disks.contains_key(&number) {
                served.shown().spec.pvf_id = before.pvf_id;
                tracing::error!(disk = to.name, number, "a disk keeps its number, because another one has that");
            } else if let Some(moved) = disks.remove(&from) {
                disks.insert(number, moved);
            }
        }
        drop(disks);
        served.tell(move |work| work.become_as_shown(&before));
    }

    /// Deletes a disk. Its image stays. With `undo` it goes if it was made for this disk.
    pub fn take(&self, name: &str, undo: bool) {
        let Some(served) = self.table.named(name) else { return };
        let number = {
            let mut shown = served.shown();
            shown.goes = true;
            shown.spec.pvf_id.unwrap_or_default()
        };
        // It is gone for others at once. What is left of it ends by and by.
        self.table.lock().remove(&number);
        served.tell(move |work| work.remove(false, undo));
    }
}
