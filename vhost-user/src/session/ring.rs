//! The state of a ring.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::memory::MemoryTable;
use crate::message::RingAddresses;

/// Largest ring (virtio 1.2, 2.7 and 2.8).
pub(super) const MAX_RING_SIZE: u16 = 32_768;

/// How a ring learns of new buffers.
#[derive(Clone, Debug, Default)]
pub enum Kick {
    /// Not known yet: the ring does not run.
    #[default]
    Unset,
    /// The ring is to be polled.
    Polled,
    /// The driver writes to this descriptor. It may be any kind of file until it is an [`crate::event::Event`].
    Event(Arc<OwnedFd>),
}

/// What a front end has said of a ring.
#[derive(Debug, Default)]
pub struct Ring {
    /// Entries, 1 to 32,768. It may be no power of two.
    pub num: Option<u16>,
    /// Its parts.
    pub addresses: Option<RingAddresses>,
    /// Where it goes on: as the front end said, or where it was stopped. [`Ring::start_base`] knows what holds if
    /// nobody said.
    pub base: Option<RingBase>,
    /// How it learns of new buffers.
    pub kick: Kick,
    /// Tells the driver that buffers were used. It may be any kind of file until it is an [`crate::event::Event`].
    pub call: Option<Arc<OwnedFd>>,
    /// Tells the front end that the ring is broken. It may be any kind of file, as above.
    pub err: Option<Arc<OwnedFd>>,
    /// What `SET_VRING_ENABLE` said last.
    pub(super) enable: Option<bool>,
    /// The device was told to start it, and not to stop it since.
    pub(super) started: bool,
    /// The device was told to stop it, and has not said where it was.
    pub(super) stopping: bool,
    /// The request at hand has set or forgotten the position. So what the device tells when it stops is void.
    pub(super) base_is_set: bool,
    /// Enabled, as the device was told last.
    pub(super) enabled: bool,
}

impl Ring {
    /// The device has it.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// It has effects. Only meaningful while it is started.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Where it starts. A new packed ring has both wrap counters set (virtio 1.2, 2.8.1).
    pub fn start_base(&self, packed: bool) -> RingBase {
        self.base.unwrap_or(if packed { RingBase(0x8000_8000) } else { RingBase(0) })
    }

    /// What a ring lacks to be started, if there is something: for whoever wonders why a guest has no packets.
    pub fn lacks(&self, memory: &MemoryTable, packed: bool) -> Option<&'static str> {
        let Some(num) = self.num else { return Some("size") };
        let Some(at) = self.addresses else { return Some("addresses") };
        if matches!(self.kick, Kick::Unset) {
            return Some("kick");
        }
        let num = u64::from(num);
        // Virtio 1.2, 2.7 and 2.8. The event index is not counted: the ring looks at it only if it is there.
        let (available, used) = if packed { (4, 4) } else { (4 + 2 * num, 4 + 8 * num) };
        let parts = [(at.descriptors, 16 * num), (at.available, available), (at.used, used)];
        (!parts.into_iter().all(|(start, len)| memory.has(start, len))).then_some("memory")
    }

    /// What a reset of the device makes void. Events that tell the driver stay: front ends do not send them again.
    pub(super) fn reset(&mut self) {
        (self.kick, self.enable) = (Kick::Unset, None);
    }

    /// Also forgets where it is.
    pub(super) fn forget(&mut self) {
        (self.num, self.addresses) = (None, None);
        self.set_base(None);
    }

    /// Sets the position. It holds even if the device has to stop the ring now.
    pub(super) fn set_base(&mut self, base: Option<RingBase>) {
        (self.base, self.base_is_set) = (base, true);
    }

    /// It has effects, so nobody may set it up anew.
    pub(super) fn is_in_use(&self) -> bool {
        self.started && self.enabled
    }
}

/// A ring's position, as the protocol has it.
///
/// Of a split ring, bits 0 to 15 are the index of the next available entry. Of a packed ring, bits 0 to 15 are that
/// position and bits 16 to 31 the next used one. Each is an index with the wrap counter in its highest bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingBase(pub u32);

/// The positions of a packed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBase {
    /// Index of the next available descriptor, 0 to 32,767.
    pub available: u16,
    /// The driver's wrap counter.
    pub available_wrap: bool,
    /// Index of the next used descriptor, 0 to 32,767.
    pub used: u16,
    /// The device's wrap counter.
    pub used_wrap: bool,
}

impl RingBase {
    /// Of a split ring that looks at that available entry next.
    pub fn split(available: u16) -> Self {
        Self(available.into())
    }

    /// Of a packed ring.
    pub fn packed(base: PackedBase) -> Self {
        let half = |index: u16, wrap: bool| u32::from(index & 0x7fff | u16::from(wrap) << 15);
        Self(half(base.available, base.available_wrap) | half(base.used, base.used_wrap) << 16)
    }

    /// The next available entry of a split ring.
    pub fn as_split(self) -> u16 {
        self.halves().0
    }

    /// The positions of a packed ring.
    ///
    /// DPDK's virtio-user leaves the upper half out. Then nothing is in work, and both positions are the same.
    pub fn as_packed(self) -> PackedBase {
        let (available, used) = self.halves();
        let used = if used == 0 { available } else { used };
        let index = |half: u16| half & 0x7fff;
        let wrap = |half: u16| half >> 15 != 0;
        PackedBase {
            available: index(available),
            available_wrap: wrap(available),
            used: index(used),
            used_wrap: wrap(used),
        }
    }

    fn halves(self) -> (u16, u16) {
        let [a, b, c, d] = self.0.to_le_bytes();
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
    }
}
