//! Where packed rings of a port stand, in a file that outlives the process.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_user::ring::{Journal, Record};

use crate::control::core::Core;
use crate::io::vhost::{VhostPair, Way};
use crate::{Error, ErrorKind};

/// The file of one port, with a record for each ring. The file is made again if somebody removes it.
///
/// Who needs the records to stay the same meanwhile has the lock. It is taken before that of a ring.
#[derive(Debug)]
pub struct Positions {
    port: String,
    rings: u16,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    file: File,
    journal: Journal,
}

/// The records, which stay the same while this is there.
#[derive(Debug)]
pub struct Records<'a>(MutexGuard<'a, Option<Kept>>);

impl Records<'_> {
    /// The record of a ring. None if nothing is kept, or there is no such ring.
    pub fn of(&self, ring: u8) -> Option<Record> {
        self.0.as_ref()?.journal.record(ring)
    }
}

impl Positions {
    /// The file of a port with so many queue pairs. A port that can't have it gets split rings only.
    pub fn open(core: &Core, port: &str, pairs: usize) -> Self {
        let rings = u16::try_from(2 * pairs).unwrap_or(u16::MAX);
        let kept = open(core, port, rings).unwrap_or_else(|error| {
            tracing::warn!(port, %error, "packed rings are not offered: where they stand can't be kept");
            None
        });
        Self { port: port.to_owned(), rings, kept: Mutex::new(kept) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether positions are kept.
    pub fn are_kept(&self) -> bool {
        self.lock().is_some()
    }

    /// Its records.
    pub fn records(&self) -> Records<'_> {
        Records(self.lock())
    }

    /// Whether the position of some ring is needed when its front end is back.
    pub fn hold(&self) -> bool {
        self.lock().as_ref().is_some_and(|kept| kept.journal.holds())
    }

    /// Looks whether the file is in its place. Makes it again if not, with what it had, and has rings that run go on
    /// in it. Returns whether it did.
    ///
    /// # Errors
    /// It can't be made. Rings go on as they are; positions are lost when the process ends.
    pub fn look_after(&self, core: &Core, pairs: &[Arc<VhostPair>]) -> Result<bool, Error> {
        let mut kept = self.lock();
        let Some(old) = kept.as_ref() else { return Ok(false) };
        if core.host.is_journal_in_place(&self.port, &old.file) {
            return Ok(false);
        }
        let Some(new) = open(core, &self.port, self.rings)? else { return Ok(false) };
        let ways = [Way::ToGuest, Way::FromGuest];
        let rings = pairs.iter().flat_map(|pair| ways.map(|way| (pair, way)));
        for (ring, (pair, way)) in (0..=u8::MAX).zip(rings) {
            // No burst is under way while the ring is locked.
            let mut running = pair.lock(way);
            if let (Some(from), Some(to)) = (old.journal.record(ring), new.journal.record(ring)) {
                to.copy(&from);
                if let Some(running) = running.as_mut()
                    && running.queue.take_record().is_some()
                {
                    running.queue.set_record(Some(to));
                }
            }
            drop(running);
            pair.nudge();
        }
        *kept = Some(new);
        Ok(true)
    }
}

fn open(core: &Core, port: &str, rings: u16) -> Result<Option<Kept>, Error> {
    let map = |file: File| match Journal::of_file(file.as_fd(), rings) {
        Ok(journal) => Ok(Kept { file, journal }),
        Err(error) => Err(Error::new(ErrorKind::System, format!("mapping it: {error}"))),
    };
    core.host.open_journal(port, Journal::bytes(rings))?.map(map).transpose()
}
