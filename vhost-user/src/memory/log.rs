//! The log of a live migration: a bit for each page that the back end has written (`VHOST_F_LOG_ALL`).

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::GuestSlice;
use super::error::MemoryError;
use super::mapping::Mapping;

/// Bytes of a page of the log (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;

/// The log that a front end shares. It begins with guest address 0.
///
/// A page is marked after it was written. The front end clears a bit before it copies the page. So a write that the
/// copy has missed is always marked again.
#[derive(Debug)]
pub struct DirtyLog {
    mapping: Mapping,
    broken: Arc<AtomicBool>,
}

impl DirtyLog {
    /// Maps `size` bytes of a file at `offset` as log (`VHOST_USER_SET_LOG_BASE`).
    ///
    /// # Errors
    /// The file is no memory of the kernel's own, or too short. Numbers overflow, or the kernel refuses.
    pub fn of_file(fd: BorrowedFd<'_>, offset: u64, size: u64) -> Result<Self, MemoryError> {
        let broken = Arc::new(AtomicBool::new(false));
        Ok(Self { mapping: Mapping::of_file(fd, offset, size, &broken)?, broken })
    }

    /// A log of `size` bytes without a file, for tests.
    ///
    /// # Panics
    /// If `size` is zero, or more than there is memory.
    #[cfg(any(test, feature = "driver"))]
    pub fn of_heap(size: usize) -> Self {
        Self { mapping: Mapping::of_heap(size), broken: Arc::default() }
    }

    /// First guest address that it has no bit for.
    pub fn end(&self) -> u64 {
        (self.mapping.len() as u64).saturating_mul(8 * PAGE)
    }

    /// Whether its file turned out to be shorter. From then on nothing is logged.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Marks the pages that have these bytes. Pages beyond the log's end are left out.
    pub fn mark(&self, guest: u64, len: u64) {
        let Some(rest) = len.checked_sub(1) else { return };
        let (first, last) = (guest / PAGE, guest.saturating_add(rest) / PAGE);
        let log = self.bytes();
        let Some(most) = (log.len() as u64 * 8).checked_sub(1) else { return };
        for page in first..=last.min(most) {
            let Some(byte) = usize::try_from(page / 8).ok().and_then(|at| log.get(at)) else { return };
            // The write must be seen by whoever sees the bit. On x86 this also keeps the write before a test of the
            // bit, so there is no test of it.
            byte.fetch_or(1 << (page % 8), Ordering::AcqRel);
        }
    }

    /// Numbers of the marked pages, in order.
    #[cfg(any(test, feature = "driver"))]
    pub fn marked(&self) -> Vec<u64> {
        let bits = |(at, byte): (usize, &AtomicU8)| {
            let byte = byte.load(Ordering::Relaxed);
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at as u64 * 8 + bit)
        };
        self.bytes().iter().enumerate().flat_map(bits).collect()
    }

    fn bytes(&self) -> &[AtomicU8] {
        GuestSlice::of_mapping(&self.mapping).atomics().unwrap_or_default()
    }
}
