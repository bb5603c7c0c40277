//! All disks, by number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ctl_types::DiskSpec;

use crate::error::Error;
use crate::open::Identity;
use crate::served::{Served, Taken};

type Disks = BTreeMap<u32, Arc<Served>>;

/// The disks. The lock is never held while anything waits for storage.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<Disks>);

impl Table {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Disks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All disks that are not being deleted.
    pub(crate) fn all(&self) -> Vec<Arc<Served>> {
        self.lock().values().filter(|served| !served.shown().goes).cloned().collect()
    }

    /// A disk by name, or by number if the key has digits only.
    pub(crate) fn find(&self, key: &str) -> Result<Arc<Served>, Error> {
        if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit()) {
            return match key.parse() {
                Ok(number) => self.numbered(number),
                Err(_) => Err(Error::not_found(format!("pvf_id: there is no disk {key}"))),
            };
        }
        self.named(key).ok_or_else(|| self.unknown(key))
    }

    /// A disk by number.
    pub(crate) fn numbered(&self, number: u32) -> Result<Arc<Served>, Error> {
        let found = self.lock().get(&number).filter(|served| !served.shown().goes).cloned();
        found.ok_or_else(|| Error::not_found(format!("pvf_id: there is no disk {number}")))
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<Served>> {
        self.all().into_iter().find(|served| served.shown().spec.name == name)
    }

    /// There is no disk of that name. A similar one may be meant.
    fn unknown(&self, name: &str) -> Error {
        let names: Vec<_> = self.all().iter().map(|served| served.shown().spec.name.clone()).collect();
        let near = names.iter().map(|other| (distance(name, other), other)).min();
        let near = near.filter(|(distance, other)| *distance <= 1 + other.chars().count() / 4);
        let hint = near.map(|(_, other)| format!("; is `{other}` meant?")).unwrap_or_default();
        Error::not_found(format!("name: there is no disk `{}`{hint}", name.escape_default()))
    }

    /// Takes a disk in. One that names no number gets the lowest free one.
    pub(crate) fn insert(&self, served: &Arc<Served>, capacity: u32) -> Result<u32, Error> {
        let mut disks = self.lock();
        let spec = served.shown().spec.clone();
        disks.iter().try_for_each(|(_, other)| no_conflict(&spec, &other.shown().spec))?;
        let number = match spec.pvf_id {
            Some(number) => match disks.get(&number) {
                Some(other) => {
                    let name = other.shown().spec.name.clone();
                    return Err(Error::exists(format!("pvf_id: {number} is disk `{name}`")));
                }
                None => number,
            },
            None => (0..capacity).find(|number| !disks.contains_key(number)).ok_or_else(|| {
                let text = format!("pvf_id: all {capacity} disks are in use");
                Error::new(model::ErrorKind::Full, text)
            })?,
        };
        served.shown().spec.pvf_id = Some(number);
        disks.insert(number, Arc::clone(served));
        Ok(number)
    }

    /// Says which other disk has an image that the disk `name` wants.
    pub(crate) fn taken(self: &Arc<Self>) -> Taken {
        let table: Weak<Self> = Arc::downgrade(self);
        Arc::new(move |name: &str, identity: Identity, read_only: bool| {
            let disks = table.upgrade()?.all();
            disks.iter().find_map(|other| {
                let other = other.shown();
                let shares = read_only && other.spec.read_only;
                let has = other.identity == Some(identity) && other.spec.name != name;
                (has && !shares).then(|| other.spec.name.clone())
            })
        })
    }
}

/// Checks that two disks can be there together.
pub(crate) fn no_conflict(spec: &DiskSpec, other: &DiskSpec) -> Result<(), Error> {
    if spec.name == other.name {
        return Err(Error::exists(format!("name: there is a disk `{}` already", spec.name)));
    }
    let (path, socket) = (spec.path.as_deref().unwrap_or_default(), spec.socket.as_deref().unwrap_or_default());
    if spec.path == other.path && !(spec.read_only && other.read_only) {
        return Err(Error::busy(format!("path: {path} is the image of disk `{}`", other.name)));
    }
    if spec.socket == other.socket {
        return Err(Error::exists(format!("socket: {socket} is that of disk `{}`", other.name)));
    }
    Ok(())
}

/// Characters that have to be put in, left out or replaced to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, char) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (at, there) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(char != *there);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_distance() {
        for (one, other, expected) in
            [("", "", 0), ("", "ab", 2), ("disk", "disc", 1), ("vm1", "vm21", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected), "{one} {other}");
        }
    }
}
