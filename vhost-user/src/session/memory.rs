//! The table of the guest's memory.

use std::sync::Arc;

use thiserror::Error;

use crate::message::{MemoryRegion, RegionAddress};

/// Why memory can't be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// A region has no length, or ends beyond the last address.
    #[error("a region at {0:#x} has no length, or ends beyond the last address")]
    Bounds(u64),
    /// A region overlaps another one.
    #[error("the region at {0:#x} overlaps another one")]
    Overlap(u64),
    /// All slots are taken.
    #[error("there are {0} regions already")]
    Full(usize),
    /// No region is there with these addresses.
    #[error("no region is at {0:#x}")]
    Absent(u64),
}

/// The table of the guest's memory.
///
/// Invariants: no region is empty or wraps, by guest addresses, user addresses and offsets. No two regions overlap, by
/// guest addresses and by user addresses.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable(Vec<Arc<MemoryRegion>>);

impl MemoryTable {
    /// A table of these regions.
    ///
    /// # Errors
    /// If a region is empty or wraps, or two overlap.
    pub(super) fn of(regions: Vec<MemoryRegion>) -> Result<Self, MemoryError> {
        let mut table = Self::default();
        for region in regions {
            table.add(region, usize::MAX)?;
        }
        Ok(table)
    }

    /// The regions, in the order in which they came. A region that stays while others come and go is the same `Arc`.
    pub fn regions(&self) -> &[Arc<MemoryRegion>] {
        &self.0
    }

    pub(super) fn add(&mut self, region: MemoryRegion, slots: usize) -> Result<(), MemoryError> {
        let new = region.address;
        let fits = |start: u64| start.checked_add(new.size).is_some();
        if new.size == 0 || !fits(new.guest_addr) || !fits(new.user_addr) || !fits(new.mmap_offset) {
            return Err(MemoryError::Bounds(new.guest_addr));
        }
        for old in self.0.iter().map(|region| &region.address) {
            if overlap(old, &new, |region| region.guest_addr) || overlap(old, &new, |region| region.user_addr) {
                return Err(MemoryError::Overlap(new.guest_addr));
            }
        }
        if self.0.len() >= slots {
            return Err(MemoryError::Full(self.0.len()));
        }
        self.0.push(Arc::new(region));
        Ok(())
    }

    /// Takes a region away. Its offset is not looked at, as the specification says.
    pub(super) fn remove(&mut self, gone: &RegionAddress) -> Result<(), MemoryError> {
        let is = |address: &RegionAddress| {
            (address.guest_addr, address.size, address.user_addr) == (gone.guest_addr, gone.size, gone.user_addr)
        };
        let at = self.0.iter().position(|region| is(&region.address));
        self.0.remove(at.ok_or(MemoryError::Absent(gone.guest_addr))?);
        Ok(())
    }

    /// One region has all of these bytes, by the front end's address.
    pub fn has(&self, user_addr: u64, len: u64) -> bool {
        self.0.iter().any(|region| {
            let RegionAddress { user_addr: start, size, .. } = region.address;
            user_addr.checked_sub(start).and_then(|at| at.checked_add(len)).is_some_and(|end| end <= size)
        })
    }
}

/// Neither range wraps.
fn overlap(a: &RegionAddress, b: &RegionAddress, start: impl Fn(&RegionAddress) -> u64) -> bool {
    start(a) < start(b).saturating_add(b.size) && start(b) < start(a).saturating_add(a.size)
}
