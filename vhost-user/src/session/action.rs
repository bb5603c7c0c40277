//! What a device has to do, and what comes of it.

use crate::message::InflightRegion;

/// What a device has to do. What is not in the action is in the session.
///
/// A turn's actions are in this order: rings stop, things change, rings start, rings are enabled or disabled. No ring
/// stops and starts in one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop the ring: use no more of its buffers, complete those that are in work, and do not touch its memory any
    /// more. Then say by [`super::Session::ring_stopped`] where it was.
    StopRing(u8),
    /// The device starts anew. Rings are stopped, no features are set, and no record of requests in flight is there.
    Reset,
    /// Other virtio features are used. While rings run, only the logging of pages can have changed.
    FeaturesChanged,
    /// Guest memory has changed. Rings may run: they go on in the new mappings. When the turn is finished, the front
    /// end may take memory away that is not in the table any more.
    MemoryChanged,
    /// The log of written pages is another one.
    LogChanged,
    /// The record of requests in flight is another one, or gone.
    InflightChanged,
    /// There is a socket for requests to the front end, or another one.
    BackendChannelChanged,
    /// The guest was told that MTU, in bytes.
    MtuChanged(u16),
    /// The driver has that status. It is for information.
    StatusChanged(u8),
    /// The ring has another kick event, or is to be polled. It runs.
    KickChanged(u8),
    /// The ring has another call event, or none. It runs.
    CallChanged(u8),
    /// The ring has another error event, or none. It runs.
    ErrChanged(u8),
    /// Writes to the used ring are logged, elsewhere, or no more. It runs.
    RingLogChanged(u8),
    /// Tell the network that the guest with that address is here.
    SendRarp([u8; 6]),
    /// Read the configuration space: the outcome is [`Outcome::Config`].
    ReadConfig {
        /// Where, in bytes.
        offset: u32,
        /// How much, 1 to [`crate::message::MAX_CONFIG`] bytes. The offset is not checked.
        size: u32,
    },
    /// Write the configuration space.
    WriteConfig {
        /// Where, in bytes. It is not checked.
        offset: u32,
        /// A migrated device is set up, so fields that are read-only for the guest may be written too.
        migration: bool,
        /// What, 1 to [`crate::message::MAX_CONFIG`] bytes.
        data: Vec<u8>,
    },
    /// Make a record of requests in flight, for so many rings of that size: the outcome is [`Outcome::Inflight`].
    MakeInflight {
        /// Rings, at least 1.
        rings: u16,
        /// Entries of each ring, at least 1.
        ring_size: u16,
    },
    /// Start the ring, from its base. What is available already must be looked at, without a kick.
    StartRing(u8),
    /// The ring, which runs, has effects or none.
    RingEnabled {
        /// The ring.
        ring: u8,
        /// It has effects.
        on: bool,
    },
}

/// What came of a turn's actions.
#[derive(Debug)]
pub enum Outcome {
    /// All is done.
    Done,
    /// This is in the configuration space. As many bytes as were asked for, else the front end is told of an error.
    Config(Vec<u8>),
    /// This is the new record of requests in flight.
    Inflight(InflightRegion),
    /// Nothing was done: a field is read-only, there is no such piece of configuration space, or no record. What else
    /// a device has to do can't be refused: it fails.
    Refused,
    /// The device can't go on: memory can't be mapped, a ring's memory is odd. The session ends.
    Failed(String),
}

impl Action {
    /// The ring that runs all the while, which the action is about.
    pub(super) fn running_ring(&self) -> Option<u8> {
        match *self {
            Self::KickChanged(ring) | Self::CallChanged(ring) | Self::ErrChanged(ring) | Self::RingLogChanged(ring) => {
                Some(ring)
            }
            _ => None,
        }
    }
}
