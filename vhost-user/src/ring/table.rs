//! Indirect tables: descriptors that lie in a buffer.

use super::error::RingError;
use crate::memory::{GuestSlice, Lookup};

/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;

/// A table of descriptors in the guest's memory, of any alignment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a>(GuestSlice<'a>);

impl<'a> Table<'a> {
    /// # Errors
    /// The length is no number of descriptors, or the table is not in one region.
    pub(super) fn new(lookup: &mut Lookup<'a>, guest: u64, len: u32) -> Result<Self, RingError> {
        let table = lookup.find(guest, len).filter(|table| table.len().is_multiple_of(DESCRIPTOR));
        table.map(Self).ok_or(RingError::Table { guest, len })
    }

    /// Number of descriptors, at least one.
    pub(super) fn len(&self) -> usize {
        self.0.len() / DESCRIPTOR
    }

    /// A copy of a descriptor, if there is one.
    #[inline]
    pub(super) fn get(&self, index: u16) -> Option<[u8; DESCRIPTOR]> {
        self.0.after(usize::from(index) * DESCRIPTOR).read_array()
    }
}
