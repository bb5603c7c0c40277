//! From a guest address to a slice, fast.
#![allow(unsafe_code, reason = "slices are made of the bounds of regions")]

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use super::region::Region;
use super::slice::GuestSlice;

/// Where a region is. It is a copy, so that loops have it in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'m> {
    /// First guest address.
    guest: u64,
    /// Number of bytes. They are mapped from `start` on, for `'m`.
    size: u64,
    start: *mut u8,
    _region: PhantomData<&'m Region>,
}

impl<'m> Bounds<'m> {
    /// No region.
    const NONE: Self = Self { guest: 0, size: 0, start: ptr::null_mut(), _region: PhantomData };

    fn of(region: &'m Region) -> Self {
        let address = region.address();
        Self { guest: address.guest_addr, size: address.size, start: region.start(), _region: PhantomData }
    }

    /// `len` bytes at a guest address. None if there are no bytes, or not all are in the region.
    #[inline(always)]
    pub(crate) fn slice(&self, guest: u64, len: u32) -> Option<GuestSlice<'m>> {
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
}

/// Finds slices by guest address. It looks at the region of the last one first, which costs two compares.
#[derive(Debug)]
pub struct Lookup<'m> {
    regions: &'m [Arc<Region>],
    /// Number of the region that was found last, and where it is.
    hint: usize,
    bounds: Bounds<'m>,
}

impl<'m> Lookup<'m> {
    /// Begins with the region of that number. If there is none, it begins with the search.
    #[inline]
    pub(super) fn new(regions: &'m [Arc<Region>], hint: usize) -> Self {
        Self { regions, hint, bounds: regions.get(hint).map_or(Bounds::NONE, |region| Bounds::of(region)) }
    }

    /// Number of the region of the last slice.
    #[inline]
    pub fn hint(&self) -> usize {
        self.hint
    }

    /// Where the region of the last slice is.
    #[inline(always)]
    pub(crate) fn bounds(&self) -> Bounds<'m> {
        self.bounds
    }

    /// `len` bytes at a guest address, all in one region. None if there are no bytes, or no region has them all.
    #[inline]
    pub fn find(&mut self, guest: u64, len: u32) -> Option<GuestSlice<'m>> {
        match self.bounds.slice(guest, len) {
            None => {
                self.search(guest);
                self.bounds.slice(guest, len)
            }
            found => found,
        }
    }

    /// As many of `len` bytes at a guest address as its region has. None if that is none.
    pub fn find_start(&mut self, guest: u64, len: u32) -> Option<GuestSlice<'m>> {
        let _first = self.find(guest, 1)?;
        let rest = self.bounds.size - (guest - self.bounds.guest);
        self.bounds.slice(guest, u32::try_from(rest).unwrap_or(u32::MAX).min(len))
    }

    /// Goes to the last region that begins at the address or before it.
    fn search(&mut self, guest: u64) {
        let after = self.regions.partition_point(|region| region.address().guest_addr <= guest);
        *self = Self::new(self.regions, after.saturating_sub(1));
    }
}
