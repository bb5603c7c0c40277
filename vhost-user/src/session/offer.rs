//! What a device offers.

use crate::message::features::PROTOCOL_FEATURES;

/// What a device offers. It does not change during a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Virtio features. The session adds `VHOST_USER_F_PROTOCOL_FEATURES` if there are protocol features.
    ///
    /// `LOG_ALL` and `RING_PACKED` are the device's choice. It must mark the pages that it writes, or know where a
    /// packed ring was when it starts anew.
    pub features: u64,
    /// Protocol features ([`crate::message::features`]). Requests of others are refused.
    pub protocol_features: u64,
    /// Rings, 1 to 256: the protocol has 8 bits for them.
    pub rings: u16,
    /// The answer to `GET_QUEUE_NUM`. A net device counts pairs, other devices count rings.
    pub queue_num: u16,
    /// Rings that are enabled before `SET_VRING_ENABLE`, from the first. A net device has 2, because front ends never
    /// enable the first pair if there is only one. Other devices have 0.
    pub enabled_at_first: u16,
    /// Regions of memory that can be added one by one. A table has at most eight.
    pub mem_slots: u16,
    /// Largest MTU in bytes that a guest may be told.
    pub max_mtu: u16,
}

impl Offer {
    /// All virtio features, with the bit of the protocol.
    pub(super) fn all_features(&self) -> u64 {
        if self.protocol_features == 0 { self.features } else { self.features | PROTOCOL_FEATURES }
    }
}
