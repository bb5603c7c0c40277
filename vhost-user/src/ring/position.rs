//! What a ring is, and where it stands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::area::Area;
use super::error::RingError;
use super::layout::Le16;
use crate::memory::GuestMemory;

/// `VIRTIO_RING_F_INDIRECT_DESC`: buffers may be tables of descriptors.
pub const F_INDIRECT: u64 = 1 << 28;
/// `VIRTIO_RING_F_EVENT_IDX`: each side says at which entry it wants a notification.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_RING_PACKED`.
pub const F_PACKED: u64 = 1 << 34;
/// `VIRTIO_F_IN_ORDER`: buffers are used in the order in which they were made available.
pub const F_IN_ORDER: u64 = 1 << 35;

/// Greatest size of a ring, in entries.
pub const MAX_SIZE: u16 = 1 << 15;

/// What was negotiated about rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// Rings are packed, not split.
    pub packed: bool,
    /// Buffers may be tables of descriptors.
    pub indirect: bool,
    /// Each side says at which entry it wants a notification.
    pub event_idx: bool,
    /// Buffers are used in order. Then several that nothing was written to are used by one entry.
    pub in_order: bool,
}

impl RingFeatures {
    /// Of the feature bits that both sides have (`VHOST_USER_SET_FEATURES`).
    pub fn of_bits(features: u64) -> Self {
        let has = |bit| features & bit != 0;
        Self {
            packed: has(F_PACKED),
            indirect: has(F_INDIRECT),
            event_idx: has(F_EVENT_IDX),
            in_order: has(F_IN_ORDER),
        }
    }
}

/// All that a front end says of a ring before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSetup {
    /// Number of entries (`VHOST_USER_SET_VRING_NUM`): at most [`MAX_SIZE`], a power of two in a split ring.
    pub size: u32,
    /// The descriptor table or ring, at an address of the front end's process (`VHOST_USER_SET_VRING_ADDR`).
    pub descriptors: u64,
    /// The available ring, or the driver's event suppression.
    pub available: u64,
    /// The used ring, or the device's event suppression.
    pub used: u64,
    /// What was negotiated.
    pub features: RingFeatures,
    /// Most buffers of a chain. Longer ones are an error of the guest.
    pub chain_limit: u16,
}

impl RingSetup {
    /// The size, if rings of this kind may have it.
    pub(super) fn checked_size(&self) -> Result<u16, RingError> {
        let size = u16::try_from(self.size).ok().filter(|size| (1..=MAX_SIZE).contains(size));
        let size = size.filter(|size| self.features.packed || size.is_power_of_two());
        size.ok_or(RingError::Size(self.size))
    }

    /// Where a ring goes on by what the front end says (`VHOST_USER_SET_VRING_BASE`).
    ///
    /// A split ring has its used index in the guest's memory. A packed ring has none. All that was available is taken
    /// as used, which is true unless the device was interrupted.
    ///
    /// # Errors
    /// The used ring is not in the guest's memory.
    pub fn position_of_base(&self, memory: &Arc<GuestMemory>, base: u32) -> Result<Position, RingError> {
        let [low, high, ..] = base.to_le_bytes();
        let available = u16::from_le_bytes([low, high]);
        let used = if self.features.packed { available } else { self.used_index(memory)? };
        Ok(Position { available, used })
    }

    /// Where a split ring goes on whose device was interrupted, and uses buffers in order: where the used ring ends.
    ///
    /// # Errors
    /// The used ring is not in the guest's memory.
    pub fn position_of_used_ring(&self, memory: &Arc<GuestMemory>) -> Result<Position, RingError> {
        let used = self.used_index(memory)?;
        Ok(Position { available: used, used })
    }

    /// The index in a split ring's used ring.
    pub(super) fn used_index(&self, memory: &Arc<GuestMemory>) -> Result<u16, RingError> {
        let words = Area::<Le16>::new(memory, USED_RING, self.used, 2, 4)?;
        Ok(words.wrapped(1).load(Ordering::Acquire))
    }
}

/// What errors call the used ring.
pub(super) const USED_RING: &str = "used ring";

/// Where a ring stands.
///
/// In a split ring these are free-running indices. In a packed ring they are indices of descriptors, with the wrap
/// counter in bit 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Next entry that the device takes from the driver.
    pub available: u16,
    /// Next entry that the device uses.
    pub used: u16,
}

impl Position {
    /// Where a new ring stands.
    pub fn start(features: RingFeatures) -> Self {
        let at = if features.packed { 1 << 15 } else { 0 };
        Self { available: at, used: at }
    }

    /// What a front end is told when a ring stops (`VHOST_USER_GET_VRING_BASE`).
    pub fn base(&self, features: RingFeatures) -> u32 {
        let used = if features.packed { self.used } else { 0 };
        u32::from(self.available) | u32::from(used) << 16
    }
}
