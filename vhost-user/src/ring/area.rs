//! Parts of a ring in the guest's memory.
#![allow(unsafe_code, reason = "a part of a ring borrows from the memory that it keeps mapped")]

use std::sync::Arc;

use super::error::RingError;
use crate::memory::{Atomic, GuestMemory, GuestSlice, Mapping};

/// An array in memory that others write, too. It keeps the memory mapped.
#[derive(Debug)]
pub(crate) struct Area<T: 'static> {
    /// Entries in `_memory`, at least one. They are handed out for no longer than this value lives.
    entries: &'static [T],
    /// Greatest power of two of entries, minus one. It is an index.
    mask: usize,
    /// Guest address of the first entry.
    guest: u64,
    _memory: Keeper,
}

/// What keeps the memory of an array mapped.
#[derive(Clone, Debug)]
enum Keeper {
    Guest(#[expect(dead_code, reason = "held for its drop")] Arc<GuestMemory>),
    Mapping(#[expect(dead_code, reason = "held for its drop")] Arc<Mapping>),
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
        let area = Self::of_slice(slice, Keeper::Guest(Arc::clone(memory))).filter(|_| aligned);
        area.ok_or(RingError::Alignment { part, user, align })
    }

    /// `count` entries from a byte of a mapping on. None if they are not all in it, or not aligned.
    pub(super) fn of_mapping(mapping: &Arc<Mapping>, offset: usize, count: usize) -> Option<Self> {
        let len = count.checked_mul(size_of::<T>())?;
        let slice = GuestSlice::of_mapping(mapping).after(offset).first(len);
        Self::of_slice(slice, Keeper::Mapping(Arc::clone(mapping))).filter(|area| area.entries.len() == count)
    }

    /// The entries of a slice, which is in memory of the keeper's.
    fn of_slice(slice: GuestSlice<'_>, keeper: Keeper) -> Option<Self> {
        let entries: &[T] = slice.atomics()?;
        let mask = (1 << entries.len().checked_ilog2()?) - 1;
        // SAFETY: the keeper keeps the entries mapped. The result gives them out only while it is borrowed itself.
        let entries = unsafe { std::mem::transmute::<&[T], &'static [T]>(entries) };
        Some(Self { entries, mask, guest: slice.guest(), _memory: keeper })
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
