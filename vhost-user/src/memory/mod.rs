//! A guest's memory: the regions that its front end shares, and checked access to them.
//!
//! [`GuestMemory`] is an immutable set of mapped regions. A region is checked when it comes in: its numbers, the size
//! of its file, the kind of its file system. An added or removed region gives a new set, which shares the mappings of
//! the others. So a worker uses one set for a burst, whatever a front end does meanwhile.
//!
//! Three kinds of addresses name a byte:
//!
//! | address | who uses it | how it becomes a pointer |
//! | --- | --- | --- |
//! | guest | descriptors, and the log of a migration | [`GuestMemory::slice`], [`Lookup`] |
//! | user: that of the front end's process | rings | [`GuestMemory::user_slice`] |
//! | this process's own | nobody else | – |
//!
//! The guest may write at any time, shrink its files, and name any address. [`GuestSlice`] stands the first, the
//! handler in `faults` the second, and bounds of every address the third. After the second, [`GuestMemory::is_broken`]
//! is true, and the owner ends the guest's session.

mod error;
mod faults;
mod log;
mod lookup;
mod mapping;
mod region;
mod slice;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::error::MemoryError;
pub use self::log::DirtyLog;
pub(crate) use self::lookup::Bounds;
pub use self::lookup::Lookup;
pub(crate) use self::mapping::Mapping;
pub use self::region::Region;
pub(crate) use self::slice::prefetch;
pub use self::slice::{Atomic, GuestSlice};
use crate::message::RegionAddress;

/// Most regions of a guest: as many as QEMU's memory slots (`VHOST_USER_MAX_RAM_SLOTS`).
pub const MAX_REGIONS: usize = 509;

/// A guest's memory at some time. It is shared by all who use it, on any thread.
#[derive(Clone, Debug, Default)]
pub struct GuestMemory {
    /// In the order of guest addresses, which don't overlap.
    regions: Box<[Arc<Region>]>,
    /// Set when a file turned out to be shorter than its region.
    broken: Arc<AtomicBool>,
}

impl GuestMemory {
    /// Maps these regions (`VHOST_USER_SET_MEM_TABLE`).
    ///
    /// # Errors
    /// There are more than [`MAX_REGIONS`], or they overlap in guest addresses. A region is not as it must be:
    /// [`MemoryError`] says what there is. Regions may share user addresses; then the first one is taken.
    pub fn of_files<F: AsFd>(regions: impl IntoIterator<Item = (F, RegionAddress)>) -> Result<Self, MemoryError> {
        regions.into_iter().try_fold(Self::default(), |memory, (fd, address)| memory.with(fd.as_fd(), address))
    }

    /// The same with one more region (`VHOST_USER_ADD_MEM_REG`).
    ///
    /// # Errors
    /// As for [`GuestMemory::of_files`].
    pub fn with(&self, fd: BorrowedFd<'_>, address: RegionAddress) -> Result<Self, MemoryError> {
        self.insert(address, || Region::of_file(fd, address, &self.broken))
    }

    /// The same without a region (`VHOST_USER_REM_MEM_REG`). Its offset does not matter.
    ///
    /// # Errors
    /// No region has these addresses and this size.
    pub fn without(&self, address: &RegionAddress) -> Result<Self, MemoryError> {
        let is_it = |region: &Arc<Region>| {
            let have = region.address();
            (have.guest_addr, have.user_addr, have.size) == (address.guest_addr, address.user_addr, address.size)
        };
        let at = self.regions.iter().position(is_it);
        let at = at.ok_or(MemoryError::NoRegion { guest: address.guest_addr, size: address.size })?;
        let mut regions = self.regions.to_vec();
        regions.remove(at);
        Ok(Self { regions: regions.into(), broken: Arc::clone(&self.broken) })
    }

    /// Ordinary memory with these addresses, for tests.
    ///
    /// # Errors
    /// As for [`GuestMemory::of_files`].
    #[cfg(any(test, feature = "driver"))]
    pub fn of_heap(regions: impl IntoIterator<Item = RegionAddress>) -> Result<Self, MemoryError> {
        let add = |memory: Self, address| memory.insert(address, || Region::of_heap(address));
        regions.into_iter().try_fold(Self::default(), add)
    }

    fn insert(
        &self,
        address: RegionAddress,
        map: impl FnOnce() -> Result<Region, MemoryError>,
    ) -> Result<Self, MemoryError> {
        let at = self.regions.partition_point(|region| region.address().guest_addr <= address.guest_addr);
        if self.regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let before = at.checked_sub(1).and_then(|before| self.regions.get(before));
        if let Some(later) = self.regions.get(at).filter(|later| later.address().guest_addr < address.end()) {
            return Err(MemoryError::Overlap { guest: later.address().guest_addr });
        }
        if before.is_some_and(|before| address.guest_addr < before.address().end()) {
            return Err(MemoryError::Overlap { guest: address.guest_addr });
        }
        let mut regions = self.regions.to_vec();
        regions.insert(at, Arc::new(map()?));
        Ok(Self { regions: regions.into(), broken: Arc::clone(&self.broken) })
    }

    /// The regions, in the order of guest addresses.
    pub fn regions(&self) -> impl Iterator<Item = &RegionAddress> {
        self.regions.iter().map(|region| region.address())
    }

    /// Whether a file turned out to be shorter than its region. From then on that region has zeroes of its own, and
    /// nothing that the guest does is worth an answer.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// `len` bytes at a guest address, all in one region.
    ///
    /// # Errors
    /// [`MemoryError::Guest`] if there are none, or no region has them all.
    pub fn slice(&self, guest: u64, len: u32) -> Result<GuestSlice<'_>, MemoryError> {
        let error = MemoryError::Guest { guest, len: len.into() };
        self.lookup(0).find(guest, len).ok_or(error)
    }

    /// `len` bytes at an address of the front end's process, all in one region.
    ///
    /// # Errors
    /// [`MemoryError::User`] if there are none, or no region has them all.
    pub fn user_slice(&self, user: u64, len: u32) -> Result<GuestSlice<'_>, MemoryError> {
        let has = |region: &&Arc<Region>| {
            let address = region.address();
            let offset = user.wrapping_sub(address.user_addr);
            offset < address.size && u64::from(len) <= address.size - offset && len > 0
        };
        let region = self.regions.iter().find(has).ok_or(MemoryError::User { user, len: len.into() })?;
        self.slice(region.address().guest_addr + (user - region.address().user_addr), len)
    }

    /// Copies bytes at a guest address. They may lie in several regions that follow each other.
    ///
    /// # Errors
    /// [`MemoryError::Guest`] if not all are the guest's memory. Some may have been copied.
    pub fn read(&self, guest: u64, to: &mut [u8]) -> Result<(), MemoryError> {
        self.each_part(guest, to.len(), |part, range| {
            part.read(&mut to[range]);
        })
    }

    /// Copies bytes to a guest address, as [`GuestMemory::read`] does from it. Nothing is logged.
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, guest: u64, from: &[u8]) -> Result<(), MemoryError> {
        self.each_part(guest, from.len(), |part, range| {
            part.write(&from[range]);
        })
    }

    fn each_part(
        &self,
        guest: u64,
        len: usize,
        mut each: impl FnMut(GuestSlice<'_>, std::ops::Range<usize>),
    ) -> Result<(), MemoryError> {
        let (mut lookup, mut done) = (self.lookup(0), 0);
        let error = MemoryError::Guest { guest, len: len as u64 };
        while done < len {
            let at = guest.checked_add(done as u64).ok_or(error)?;
            let rest = u32::try_from(len - done).unwrap_or(u32::MAX);
            let part = lookup.find_start(at, rest).ok_or(error)?;
            each(part, done..done + part.len());
            done += part.len();
        }
        Ok(())
    }

    /// Finds slices, beginning with the region that [`Lookup::hint`] named. Any hint is right.
    #[inline]
    pub fn lookup(&self, hint: usize) -> Lookup<'_> {
        Lookup::new(&self.regions, hint)
    }
}
