//! A region of guest memory: where it is in the guest, in the front end, and here.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::error::MemoryError;
use super::mapping::Mapping;
use crate::message::RegionAddress;

impl RegionAddress {
    /// # Errors
    /// It has no bytes, or its end is no address.
    fn check(&self) -> Result<(), MemoryError> {
        if self.size == 0 {
            return Err(MemoryError::Empty);
        }
        let fits = [self.guest_addr, self.user_addr, self.mmap_offset]
            .iter()
            .all(|start| start.checked_add(self.size).is_some());
        fits.then_some(()).ok_or(MemoryError::Overflow { size: self.size })
    }

    /// Guest address of the first byte behind it.
    pub(super) fn end(&self) -> u64 {
        // Regions are checked when they are made.
        self.guest_addr.saturating_add(self.size)
    }
}

/// A region, mapped. It belongs to each [`super::GuestMemory`] that has it.
#[derive(Debug)]
pub struct Region {
    address: RegionAddress,
    mapping: Mapping,
}

impl Region {
    pub(super) fn of_file(
        fd: BorrowedFd<'_>,
        address: RegionAddress,
        broken: &Arc<AtomicBool>,
    ) -> Result<Self, MemoryError> {
        address.check()?;
        Ok(Self { address, mapping: Mapping::of_file(fd, address.mmap_offset, address.size, broken)? })
    }

    #[cfg(any(test, feature = "driver"))]
    pub(super) fn of_heap(address: RegionAddress) -> Result<Self, MemoryError> {
        address.check()?;
        let size = usize::try_from(address.size).map_err(|_| MemoryError::Overflow { size: address.size })?;
        Ok(Self { address, mapping: Mapping::of_heap(size) })
    }

    /// What the front end said of it.
    pub fn address(&self) -> &RegionAddress {
        &self.address
    }

    /// First byte in this process.
    pub(super) fn start(&self) -> *mut u8 {
        self.mapping.start().as_ptr()
    }
}
