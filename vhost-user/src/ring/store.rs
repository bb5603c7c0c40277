//! Where chains are kept, so that taking a burst allocates nothing.
#![allow(unsafe_code, reason = "vectors are used again for chains of another lifetime")]

use std::sync::Arc;

use super::chain::{Chain, ChainInfo};
use crate::memory::{GuestMemory, GuestSlice};

/// Room for the chains of a burst. A worker has one, and uses it for all rings in turn.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Of any lifetime, as the slices are. [`Scratch::open`] begins with none.
    chains: Vec<ChainInfo<'static>>,
    /// Slices of chains that have several.
    slices: Vec<GuestSlice<'static>>,
}

/// A store that was opened. It is for chains in memory that lives for `'a`.
#[derive(Debug)]
pub(super) struct Store<'a> {
    pub chains: &'a mut Vec<ChainInfo<'a>>,
    pub slices: &'a mut Vec<GuestSlice<'a>>,
}

impl<'a> Store<'a> {
    /// Puts up to `most` chains behind those that are there, until `next` has none. It is a loop without a vector that
    /// may grow.
    #[inline(always)]
    pub(super) fn extend(&mut self, most: usize, mut next: impl FnMut() -> Option<ChainInfo<'a>>) {
        self.chains.reserve(most);
        let (before, mut count) = (self.chains.len(), 0);
        for place in self.chains.spare_capacity_mut().iter_mut().take(most) {
            let Some(chain) = next() else { break };
            place.write(chain);
            count += 1;
        }
        // SAFETY: so many places behind the first `before` were written, and the capacity has them.
        unsafe { self.chains.set_len(before + count) };
    }
}

impl Scratch {
    /// Forgets what was there.
    #[inline]
    pub(super) fn open<'a>(&'a mut self) -> Store<'a> {
        self.chains.clear();
        self.slices.clear();
        // SAFETY: the types differ in a lifetime only, and the vectors are empty. They are borrowed for `'a`. They have
        // slices of that lifetime afterwards. What they point to is not reached before the next call of this:
        // `Scratch::held` gives the chains for their numbers, and `Held` has the memory.
        unsafe {
            Store {
                chains: std::mem::transmute::<&'a mut Vec<ChainInfo<'static>>, &'a mut Vec<ChainInfo<'a>>>(
                    &mut self.chains,
                ),
                slices: std::mem::transmute::<&'a mut Vec<GuestSlice<'static>>, &'a mut Vec<GuestSlice<'a>>>(
                    &mut self.slices,
                ),
            }
        }
    }
}

impl Scratch {
    /// The first chains of the last burst. Only what the driver knows them by counts: their memory may be gone.
    pub(super) fn held(&self, count: usize) -> &[ChainInfo<'_>] {
        self.chains.get(..count).unwrap_or_default()
    }
}

/// Chains together with the memory that they are in.
#[derive(Debug)]
pub(super) struct Held {
    /// Its chains are in `memory`, and given out only while this value is borrowed.
    scratch: Scratch,
    memory: Arc<GuestMemory>,
}

impl Held {
    pub(super) fn new(memory: Arc<GuestMemory>) -> Self {
        Self { scratch: Scratch::default(), memory }
    }

    /// Forgets the chains, and is for chains in this memory from now on.
    pub(super) fn open<'a>(&'a mut self, memory: &Arc<GuestMemory>) -> (&'a GuestMemory, Store<'a>) {
        let store = self.scratch.open();
        if !Arc::ptr_eq(&self.memory, memory) {
            self.memory = Arc::clone(memory);
        }
        (&self.memory, store)
    }

    /// The first chain, if there is one.
    pub(super) fn chain(&self) -> Option<Chain<'_>> {
        Some(Chain::new(self.info()?, &self.scratch.slices))
    }

    /// What is known of it.
    pub(super) fn info(&self) -> Option<&ChainInfo<'_>> {
        self.infos().first()
    }

    /// The same of all chains, of which there is one at most.
    pub(super) fn infos(&self) -> &[ChainInfo<'_>] {
        &self.scratch.chains
    }

    /// Slices of the chain, if there are several.
    pub(super) fn slices(&self) -> &[GuestSlice<'_>] {
        &self.scratch.slices
    }

    /// Forgets the chain.
    pub(super) fn clear(&mut self) {
        self.scratch.open();
    }
}
