//! The memory of a session, mapped: what a device keeps of it while it carries out what the session asks for.
//!
//! Rings that run have a share of the [`GuestMemory`] that they were made with. After [`MappedMemory::follow_table`]
//! the device has them go on in the new one.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::memory::{DirtyLog, GuestMemory, MemoryError};
use crate::message::MemoryRegion;
use crate::ring::RingLog;
use crate::session::Session;

/// The guest's memory, and the log of written pages, as the front end has shared them.
#[derive(Debug, Default)]
pub struct MappedMemory {
    guest: Arc<GuestMemory>,
    /// What `guest` was made of.
    regions: Vec<Arc<MemoryRegion>>,
    log: Option<Arc<DirtyLog>>,
}

impl MappedMemory {
    /// The guest's memory.
    pub fn guest(&self) -> &Arc<GuestMemory> {
        &self.guest
    }

    /// The regions that it was made of.
    pub fn regions(&self) -> &[Arc<MemoryRegion>] {
        &self.regions
    }

    /// The region of that address of the front end's process.
    pub fn region_at(&self, user_addr: u64) -> Option<&Arc<MemoryRegion>> {
        self.regions.iter().find(|region| {
            let at = user_addr.checked_sub(region.address.user_addr);
            at.is_some_and(|at| at < region.address.size)
        })
    }

    /// Maps what is new in the session's table, and lets go of what is gone: `MemoryChanged` of
    /// [`crate::session::Action`].
    ///
    /// # Errors
    /// A region can't be mapped. Nothing has changed then.
    pub fn follow_table(&mut self, session: &Session) -> Result<(), MemoryError> {
        fn is_in(list: &[Arc<MemoryRegion>], one: &Arc<MemoryRegion>) -> bool {
            list.iter().any(|other| Arc::ptr_eq(other, one))
        }
        let table = session.memory().regions();
        let mut guest = GuestMemory::clone(&self.guest);
        for gone in self.regions.iter().filter(|old| !is_in(table, old)) {
            guest = guest.without(&gone.address)?;
        }
        for new in table.iter().filter(|new| !is_in(&self.regions, new)) {
            guest = guest.with(new.fd.as_fd(), new.address)?;
        }
        (self.regions, self.guest) = (table.to_vec(), Arc::new(guest));
        Ok(())
    }

    /// Maps the session's log, or lets go of it: `LogChanged` and `FeaturesChanged` of [`crate::session::Action`].
    ///
    /// # Errors
    /// It can't be mapped. The one before stays then.
    pub fn follow_log(&mut self, session: &Session) -> Result<(), MemoryError> {
        let log = session.log().map(|log| DirtyLog::of_file(log.fd.as_fd(), log.offset, log.size)).transpose()?;
        self.log = log.map(Arc::new);
        Ok(())
    }

    /// Where a ring notes what it writes, if there is a log.
    pub fn ring_log(&self, ring: u8, session: &Session) -> Option<RingLog> {
        let used = session.ring(ring).and_then(|ring| ring.addresses?.log);
        Some(RingLog { log: Arc::clone(self.log.as_ref()?), used })
    }
}
