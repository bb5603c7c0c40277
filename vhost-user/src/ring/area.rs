//! Parts of a ring in the guest's memory.
#![allow(unsafe_code, reason = "a part of a ring borrows from the memory that it keeps mapped")]

use std::sync::Arc;

use super::error::RingError;
use crate::memory::{Atomic, GuestMemory};

/// An array in the guest's memory. It keeps the memory mapped.
#[derive(Debug)]
pub(crate) struct Area<T: 'static> {
    /// Entries in `_memory`. They are handed out for no longer than this value lives.
    entries: &'static [T],
    /// Greatest power of two of entries, minus one. It is an index.
    mask: usize,
    /// Guest address of the first entry.
    guest: u64,
    _memory: Arc<GuestMemory>,
}

impl<T: Atomic + 'static> Area<T> {
    /// `count` entries at an address of the front end's process, aligned to `align` and to what `T` needs.
    ///
    /// # Errors
    /// They are not in the guest's memory, not in one region, or not aligned. `part` names them in the error.
    pub(crate) fn new(
        memory: &Arc<GuestMemory>,
        part: &'static str,
        user: u64,
        count: usize,
        align: usize,
    ) -> Result<Self, RingError> {
        // The greatest ring has far less than 4 GiB.
        let len = u32::try_from(count * size_of::<T>()).unwrap_or(u32::MAX);
        let slice = memory.user_slice(user, len).map_err(|error| RingError::Area { part, error })?;
        let aligned = slice.as_ptr().addr().is_multiple_of(align) && user.is_multiple_of(align as u64);
        let entries: Option<&[T]> = slice.atomics();
        let entries = entries.filter(|entries| aligned && !entries.is_empty());
        let entries = entries.ok_or(RingError::Alignment { part, user, align })?;
        // SAFETY: `_memory` keeps the entries mapped. This value gives them out only while it is borrowed itself.
        let entries = unsafe { std::mem::transmute::<&[T], &'static [T]>(entries) };
        let mask = (1 << entries.len().ilog2()) - 1;
        Ok(Self { entries, mask, guest: slice.guest(), _memory: Arc::clone(memory) })
    }

    /// All entries.
    #[inline(always)]
    pub(crate) fn entries(&self) -> &[T] {
        self.entries
    }

    /// The entry of a free-running index. The number of entries is a power of two; else some are never reached.
    #[inline(always)]
    pub(crate) fn wrapped(&self, index: u16) -> &T {
        // SAFETY: `mask` is less than the number of entries.
        unsafe { self.entries.get_unchecked(usize::from(index) & self.mask) }
    }

    /// Guest address of the first entry.
    pub(crate) fn guest(&self) -> u64 {
        self.guest
    }
}
