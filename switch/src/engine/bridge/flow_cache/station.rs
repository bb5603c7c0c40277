//! A station in one word, and its learning.

use crate::engine::bits::low_u16;
use crate::engine::bridge::context::BurstContext;
use crate::engine::fdb::Learn;
use crate::model::{MacAddr, Vid};

/// An address in a VLAN: the address in the upper 48 bits, the VID in the lower 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Station(u64);

impl Station {
    /// No frame is from this one.
    pub(super) const NONE: Self = Self(u64::MAX);

    #[inline]
    pub(super) fn new(mac: MacAddr, vid: Vid) -> Self {
        Self(mac.to_u64() << 16 | u64::from(vid))
    }

    /// Learns that the station is behind the burst's ingress port. Returns the station, or [`Station::NONE`] if the FDB
    /// skipped it, so that the next frame tries again. `None` if it is held at another port.
    #[inline]
    pub(super) fn learned(self, context: &BurstContext<'_>, port_limit: u32) -> Option<Self> {
        let (mac, vid) = (MacAddr::from_u64(self.0 >> 16), low_u16(self.0));
        match context.fdb.learn(mac, vid, context.ingress, port_limit, context.now) {
            Learn::Held => None,
            Learn::Skipped => Some(Self::NONE),
            _ => Some(self),
        }
    }

    /// The same with the limit that the ingress port has; `None` also if there is no such port.
    #[inline(never)]
    pub(super) fn learned_at_ingress(self, context: &BurstContext<'_>) -> Option<Self> {
        let limit = context.snap.port(context.ingress)?.fdb_limit;
        self.learned(context, limit)
    }
}
