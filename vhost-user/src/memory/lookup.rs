//! From a guest address to a slice, fast.
#![allow(unsafe_code, reason = "slices are made of the bounds of regions")]

use std::ptr;
use std::sync::Arc;

use super::region::Region;
use super::slice::GuestSlice;

/// Finds slices by guest address. It looks at the region of the last one first, which costs two compares.
#[derive(Debug)]
pub struct Lookup<'m> {
    regions: &'m [Arc<Region>],
    /// Number of the region whose bounds are below. They are copies, so that loops have them in registers.
    hint: usize,
    /// First guest address of that region.
    guest: u64,
    /// Its bytes. They are mapped from `start` on, for `'m`.
    size: u64,
    start: *mut u8,
}

impl<'m> Lookup<'m> {
    /// Begins with the region of that number. If there is none, it begins with the search.
    #[inline]
    pub(super) fn new(regions: &'m [Arc<Region>], hint: usize) -> Self {
        let mut lookup = Self { regions, hint, guest: 0, size: 0, start: ptr::null_mut() };
        lookup.go_to(hint);
        lookup
    }

    /// Number of the region of the last slice.
    #[inline]
    pub fn hint(&self) -> usize {
        self.hint
    }

    /// `len` bytes at a guest address, all in one region. None if there are no bytes, or no region has them all.
    #[inline(always)]
    pub fn find(&mut self, guest: u64, len: u32) -> Option<GuestSlice<'m>> {
        match self.in_region(guest, len) {
            None => {
                self.search(guest);
                self.in_region(guest, len)
            }
            found => found,
        }
    }

    /// As many of `len` bytes at a guest address as its region has. None if that is none.
    pub fn find_start(&mut self, guest: u64, len: u32) -> Option<GuestSlice<'m>> {
        let _first = self.find(guest, 1)?;
        let rest = self.size - (guest - self.guest);
        self.in_region(guest, u32::try_from(rest).unwrap_or(u32::MAX).min(len))
    }

    #[inline(always)]
    fn in_region(&self, guest: u64, len: u32) -> Option<GuestSlice<'m>> {
        let offset = guest.wrapping_sub(self.guest);
        // No bytes become the greatest number of bytes, which no region has.
        let last = u64::from(len).wrapping_sub(1);
        if offset >= self.size || last >= self.size - offset {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than the size of a mapping")]
        let offset = offset as usize;
        // SAFETY: `offset` is below the size, so the first byte lies in the region. So does the last one, `len - 1`
        // bytes behind it. Regions are mapped for `'m`, and reached by copies and atomics only.
        Some(unsafe { GuestSlice::new(self.start.add(offset), guest, len) })
    }

    /// Goes to the last region that begins at the address or before it.
    #[cold]
    fn search(&mut self, guest: u64) {
        let after = self.regions.partition_point(|region| region.spec().guest <= guest);
        self.go_to(after.saturating_sub(1));
    }

    #[inline]
    fn go_to(&mut self, hint: usize) {
        if let Some(region) = self.regions.get(hint) {
            self.hint = hint;
            (self.guest, self.size, self.start) = (region.spec().guest, region.spec().size, region.start());
        }
    }
}
