//! A chain that a device keeps while it works on it, for devices that use buffers in any order.

use std::sync::Arc;

use super::chain::Chain;
use super::store::Held;
use crate::memory::GuestMemory;

/// A place for one chain. It keeps the guest's memory mapped, so that the kernel may work on it.
#[derive(Debug)]
pub struct Request {
    /// The chain, while it is taken and not used.
    pub(super) held: Held,
    /// The chain's entry in an inflight region, if it is in one.
    pub(super) entry: u16,
}

impl Request {
    /// A place without a chain.
    pub fn new(memory: &Arc<GuestMemory>) -> Self {
        Self { held: Held::new(Arc::clone(memory)), entry: 0 }
    }

    /// The chain, if one is taken and not used yet.
    pub fn chain(&self) -> Option<Chain<'_>> {
        self.held.chain()
    }

    /// What the driver knows the chain by.
    pub fn id(&self) -> Option<u16> {
        Some(self.held.info()?.id)
    }
}
