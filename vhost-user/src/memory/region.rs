//! A region of guest memory: where it is in the guest, in the front end, and here.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::error::MemoryError;
use super::mapping::Mapping;

/// What a front end says of a memory region (`VhostUserMemoryRegion` in QEMU's `docs/interop/vhost-user.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// First byte in the guest's physical memory. Descriptors have such addresses.
    pub guest: u64,
    /// Number of bytes, not zero.
    pub size: u64,
    /// First byte in the front end's process. Addresses of rings are such addresses.
    pub user: u64,
    /// First byte in the file.
    pub offset: u64,
}

impl RegionSpec {
    /// # Errors
    /// It has no bytes, or its end is no address.
    fn check(&self) -> Result<(), MemoryError> {
        if self.size == 0 {
            return Err(MemoryError::Empty);
        }
        let fits = [self.guest, self.user, self.offset].iter().all(|start| start.checked_add(self.size).is_some());
        fits.then_some(()).ok_or(MemoryError::Overflow { size: self.size })
    }

    /// Guest address of the first byte behind it.
    pub(super) fn end(&self) -> u64 {
        // Regions are checked when they are made.
        self.guest.saturating_add(self.size)
    }
}

/// A region, mapped. It belongs to each [`super::GuestMemory`] that has it.
#[derive(Debug)]
pub struct Region {
    spec: RegionSpec,
    mapping: Mapping,
}

impl Region {
    pub(super) fn of_file(fd: BorrowedFd<'_>, spec: RegionSpec, broken: &Arc<AtomicBool>) -> Result<Self, MemoryError> {
        spec.check()?;
        Ok(Self { spec, mapping: Mapping::of_file(fd, spec.offset, spec.size, broken)? })
    }

    #[cfg(any(test, feature = "driver"))]
    pub(super) fn of_heap(spec: RegionSpec) -> Result<Self, MemoryError> {
        spec.check()?;
        let size = usize::try_from(spec.size).map_err(|_| MemoryError::Overflow { size: spec.size })?;
        Ok(Self { spec, mapping: Mapping::of_heap(size) })
    }

    /// What the front end said of it.
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    /// First byte in this process.
    pub(super) fn start(&self) -> *mut u8 {
        self.mapping.start().as_ptr()
    }
}
