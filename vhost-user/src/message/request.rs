//! What a front end asks for.

use std::os::fd::OwnedFd;

use super::region::{InflightLayout, InflightRegion, LogRegion, MemoryRegion, RegionAddress};

/// Where the parts of a ring are. The addresses of the parts are the front end's own (see
/// [`RegionAddress::user_addr`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// The descriptor table, or the descriptors of a packed ring.
    pub descriptors: u64,
    /// The available ring. Of a packed ring: the driver's event suppression area.
    pub available: u64,
    /// The used ring. Of a packed ring: the device's event suppression area.
    pub used: u64,
    /// Where the used ring is for the log of written pages, as a guest address. `None` if its writes are not logged.
    pub log: Option<u64>,
}

/// A request, with its descriptors. A ring's index is any of 256, whatever the device has.
#[derive(Debug)]
pub enum Request {
    /// Which virtio features are offered?
    GetFeatures,
    /// These virtio features are used.
    SetFeatures(u64),
    /// The session begins.
    SetOwner,
    /// Does nothing any more. It once ended sessions.
    ResetOwner,
    /// This is the guest's memory, at most eight regions.
    SetMemTable(Vec<MemoryRegion>),
    /// Written pages are marked there. `None` if the log is not shared memory.
    SetLogBase(Option<LogRegion>),
    /// Tells by this event when the log has changed.
    SetLogFd(OwnedFd),
    /// The ring has that many entries.
    SetVringNum {
        /// The ring.
        ring: u8,
        /// Entries.
        num: u32,
    },
    /// The ring is there.
    SetVringAddr {
        /// The ring.
        ring: u8,
        /// Its parts.
        addresses: RingAddresses,
    },
    /// The ring is processed from there on.
    SetVringBase {
        /// The ring.
        ring: u8,
        /// The position, as [`crate::session::RingBase`] reads it.
        base: u32,
    },
    /// The ring is to be stopped. Where?
    GetVringBase {
        /// The ring.
        ring: u8,
    },
    /// The driver tells by this event that there are buffers. `None` if the ring is to be polled.
    SetVringKick {
        /// The ring.
        ring: u8,
        /// The event.
        fd: Option<OwnedFd>,
    },
    /// The driver is told by this event that buffers were used. `None` if it polls.
    SetVringCall {
        /// The ring.
        ring: u8,
        /// The event.
        fd: Option<OwnedFd>,
    },
    /// The front end is told by this event that a ring is broken.
    SetVringErr {
        /// The ring.
        ring: u8,
        /// The event.
        fd: Option<OwnedFd>,
    },
    /// Which protocol features are offered?
    GetProtocolFeatures,
    /// These protocol features are used.
    SetProtocolFeatures(u64),
    /// How many queues are there? A net device counts pairs.
    GetQueueNum,
    /// The ring has effects, or none.
    SetVringEnable {
        /// The ring.
        ring: u8,
        /// It has.
        on: bool,
    },
    /// The guest with that address has moved here: tell the network.
    SendRarp([u8; 6]),
    /// The guest was told that MTU, in bytes.
    NetSetMtu(u64),
    /// The back end may make requests there.
    SetBackendReqFd(OwnedFd),
    /// What is in the configuration space?
    GetConfig {
        /// Where, in bytes.
        offset: u32,
        /// How much, in bytes, at most [`super::MAX_CONFIG`].
        size: u32,
        /// As they came. The reply repeats them.
        flags: u32,
    },
    /// The configuration space is written.
    SetConfig {
        /// Where, in bytes.
        offset: u32,
        /// A migrated device is set up, so fields that are read-only for the guest may be written too.
        migration: bool,
        /// What, at most [`super::MAX_CONFIG`] bytes.
        data: Vec<u8>,
    },
    /// A new record of requests in flight is needed.
    GetInflightFd(InflightLayout),
    /// This is the record of requests in flight, perhaps that of an earlier back end.
    SetInflightFd(InflightRegion),
    /// The device starts anew.
    ResetDevice,
    /// How many regions of memory can there be?
    GetMaxMemSlots,
    /// The guest has this memory too.
    AddMemReg(MemoryRegion),
    /// The guest has this memory no more.
    RemMemReg(RegionAddress),
    /// The driver's status. 0 is a reset.
    SetStatus(u64),
    /// What is the status?
    GetStatus,
}
