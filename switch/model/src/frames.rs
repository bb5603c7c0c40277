//! Where the frames of UMEM are.

use serde::{Deserialize, Serialize};

/// Where the frames of UMEM are, as the ledger has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramePlaces {
    /// Free: in the pool or in a worker's cache.
    pub free: u32,
    /// With the kernel to be filled: fill rings, received but not yet taken.
    pub rx: u32,
    /// With the kernel to be sent: tx and completion rings.
    pub tx: u32,
    /// In a worker's hands, on their way from one to another, or in a ring between components.
    pub in_transit: u32,
}

/// Where the frames of UMEM are. The sum of all places is `frames` at any moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FrameAudit {
    /// Frames in all.
    pub frames: u32,
    /// Free: in the pool or in a worker's cache.
    pub free: u32,
    /// With the kernel to be filled: fill rings, received but not yet taken.
    pub rx: u32,
    /// With the kernel to be sent: tx and completion rings.
    pub tx: u32,
    /// On their way from one worker to another, or in a ring between components.
    pub in_transit: u32,
    /// Whether the two ledgers (per place and per frame) agree and every frame is in exactly one place.
    pub consistent: bool,
    /// Disagreements, in words; empty when consistent.
    pub problems: Vec<String>,
    /// Whether UMEM is on reserved huge pages.
    pub huge_pages: bool,
    /// Frames of queues that have a UMEM of their own. They are not among the others, and are audited queue by queue.
    #[serde(default)]
    pub own: u32,
}
