//! A chain that a device keeps while it works on it, for devices that use buffers in any order.

use std::sync::Arc;

use super::chain::{Chain, ChainInfo};
use super::store::Held;
use crate::memory::GuestMemory;

/// A place for one chain. It keeps the guest's memory mapped, so that the kernel may work on it.
#[derive(Debug)]
pub struct Request {
    /// The chain, while it is taken and not used.
    pub(super) info: Option<ChainInfo>,
    pub(super) held: Held,
}

impl Request {
    /// A place without a chain.
    pub fn new(memory: &Arc<GuestMemory>) -> Self {
        Self { info: None, held: Held::new(Arc::clone(memory)) }
    }

    /// The chain, if one is taken and not used yet.
    pub fn chain(&self) -> Option<Chain<'_>> {
        Some(Chain::new(self.info.as_ref()?, self.held.slices()))
    }

    /// What the driver knows the chain by.
    pub fn id(&self) -> Option<u16> {
        Some(self.info.as_ref()?.id)
    }
}
