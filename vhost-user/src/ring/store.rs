//! Where slices of chains are kept, so that taking a burst allocates nothing.
#![allow(unsafe_code, reason = "a vector is used again with slices of another lifetime")]

use std::sync::Arc;

use super::chain::ChainInfo;
use crate::memory::{GuestMemory, GuestSlice};

/// Room for the chains of a burst. A worker has one, and uses it for all rings in turn.
#[derive(Debug, Default)]
pub struct Scratch {
    chains: Vec<ChainInfo>,
    /// Of any lifetime. They are never read: [`Scratch::open`] begins with none.
    slices: Vec<GuestSlice<'static>>,
}

impl Scratch {
    /// Both vectors, empty, for slices of memory that lives as long as the borrow.
    pub(super) fn open<'a>(&'a mut self) -> (&'a mut Vec<ChainInfo>, &'a mut Vec<GuestSlice<'a>>) {
        self.chains.clear();
        (&mut self.chains, recycle(&mut self.slices))
    }
}

/// The vector, empty, for slices of another lifetime.
fn recycle<'a>(slices: &'a mut Vec<GuestSlice<'static>>) -> &'a mut Vec<GuestSlice<'a>> {
    slices.clear();
    // SAFETY: the types differ in a lifetime only. The caller's vector is borrowed for `'a`. It has slices of that
    // lifetime afterwards, which this module's users don't read.
    unsafe { std::mem::transmute::<&'a mut Vec<GuestSlice<'static>>, &'a mut Vec<GuestSlice<'a>>>(slices) }
}

/// A store that was opened, empty.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub memory: &'a GuestMemory,
    pub chains: &'a mut Vec<ChainInfo>,
    pub slices: &'a mut Vec<GuestSlice<'a>>,
}

/// Slices together with the memory that they are of.
#[derive(Debug)]
pub(super) struct Held {
    /// Where a chain is put while it is taken.
    chains: Vec<ChainInfo>,
    /// Of any lifetime. They are in `memory`, and given out only while this value is borrowed.
    slices: Vec<GuestSlice<'static>>,
    memory: Arc<GuestMemory>,
}

impl Held {
    pub(super) fn new(memory: Arc<GuestMemory>) -> Self {
        Self { chains: Vec::new(), slices: Vec::new(), memory }
    }

    /// Forgets the slices, and is for slices of this memory from now on.
    pub(super) fn open<'a>(&'a mut self, memory: &Arc<GuestMemory>) -> Opened<'a> {
        self.chains.clear();
        let slices = recycle(&mut self.slices);
        if !Arc::ptr_eq(&self.memory, memory) {
            self.memory = Arc::clone(memory);
        }
        Opened { memory: &self.memory, chains: &mut self.chains, slices }
    }

    pub(super) fn slices(&self) -> &[GuestSlice<'_>] {
        &self.slices
    }
}
