//! A burst of chains, for devices that use buffers in the order in which they come.

use super::chain::Chain;
use super::error::RingError;
use super::queue::Core;
use super::store::Store;
use crate::memory::GuestMemory;

/// Chains that a driver has made available, oldest first.
///
/// They are looked at one after the other. What was done with those before the current one is shown to the driver by
/// [`Burst::finish`], all at once. The others stay available, also when a burst is dropped.
#[derive(Debug)]
pub struct Burst<'a> {
    pub(super) memory: &'a GuestMemory,
    pub(super) core: &'a mut Core,
    pub(super) store: Store<'a>,
    /// Number of chains that are done.
    pub(super) done: usize,
}

impl Burst<'_> {
    /// Chains that are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.store.chains.len() - self.done
    }

    /// Whether no chain is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The current chain, or the one so many after it.
    #[inline(always)]
    pub fn chain(&self, ahead: usize) -> Option<Chain<'_>> {
        Some(Chain::new(self.store.chains.get(self.done + ahead)?, self.store.slices))
    }

    /// Goes on to the next chain. `written` bytes were written into the current one.
    #[inline(always)]
    pub fn advance(&mut self, written: u32) {
        if let Some(chain) = self.store.chains.get_mut(self.done) {
            chain.written = written;
            self.done += 1;
        }
    }

    /// Shows the driver which chains are done. Returns how many. Ask [`super::Queue::needs_call`] next.
    ///
    /// # Errors
    /// The guest's memory has lost pages. What was read may be zeroes.
    #[inline]
    pub fn finish(self) -> Result<usize, RingError> {
        if self.done > 0 {
            let done = &self.store.chains[..self.done];
            if let Some(log) = &self.core.log {
                log.mark_chains(done, self.store.slices);
            }
            self.core.use_all(done);
        }
        if self.memory.is_broken() { Err(RingError::MemoryBroken) } else { Ok(self.done) }
    }

    /// Keeps the chains that are done, because the device still reads from them. Returns how many. The driver sees it
    /// by [`Queue::release`](super::Queue::release), which must come before the next burst of the queue.
    ///
    /// # Errors
    /// As for [`Burst::finish`].
    #[inline]
    pub fn hold(self) -> Result<usize, RingError> {
        if self.memory.is_broken() { Err(RingError::MemoryBroken) } else { Ok(self.done) }
    }
}
