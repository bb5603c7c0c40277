//! What a ring logs while its guest migrates.

use std::sync::Arc;

use super::chain::ChainInfo;
use crate::memory::{DirtyLog, GuestSlice};

/// The log of a migration, and how a ring uses it (`VHOST_F_LOG_ALL`, `VHOST_VRING_F_LOG`).
///
/// Bytes that the device has written into buffers are always logged.
#[derive(Clone, Debug)]
pub struct RingLog {
    /// The log.
    pub log: Arc<DirtyLog>,
    /// Where writes to the used ring are logged: the address that stands for its first byte. None if they are not.
    pub used: Option<u64>,
}

impl RingLog {
    /// Marks bytes of the used ring.
    pub(super) fn mark_used(&self, offset: u64, len: u64) {
        if let Some(used) = self.used {
            self.log.mark(used.saturating_add(offset), len);
        }
    }

    /// Marks bytes of a ring that is not the used ring, where that one would be logged too.
    pub(super) fn mark_ring(&self, guest: u64, len: u64) {
        if self.used.is_some() {
            self.log.mark(guest, len);
        }
    }

    /// Marks what was written into chains. Slices are in the store where a chain has several.
    pub(super) fn mark_chains(&self, chains: &[ChainInfo<'_>], store: &[GuestSlice<'_>]) {
        for chain in chains {
            let mut left = chain.written as usize;
            for slice in chain.slices(store).1 {
                let written = left.min(slice.len());
                self.log.mark(slice.guest(), written as u64);
                left -= written;
            }
        }
    }
}
