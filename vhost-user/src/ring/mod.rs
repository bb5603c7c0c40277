//! Virtqueues, the device's side: split and packed (virtio 1.2, 2.7 and 2.8).
//!
//! A driver makes chains of buffers available. The device takes them, reads and writes them, and uses them, that is,
//! gives them back. [`Queue`] offers two ways:
//!
//! - **In order**, for devices that copy: [`Queue::burst`] looks at a burst of chains. What was done with them is shown
//!   to the driver in one step. Nothing is allocated, and a burst costs one read and one write of each index.
//! - **In any order**, for devices that work on the guest's memory: [`Queue::pop`] takes a chain into a [`Request`],
//!   and [`Queue::complete`] uses it.
//!
//! After that, [`Queue::needs_call`] says whether the driver wants a call. Before a device sleeps it asks for kicks by
//! [`Queue::enable_kicks`].
//!
//! The driver is hostile. Each number of a ring is read once and checked. Loops end by limits of this side. What can't
//! be is a [`RingError`], and ends the session. A queue's own state is never read back from the guest's memory.

mod area;
mod burst;
mod chain;
mod error;
pub mod inflight;
mod journal;
mod layout;
mod log;
mod packed;
mod position;
mod queue;
mod request;
mod split;
mod store;
mod table;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "driver"))]
pub(crate) use self::area::Area;
pub use self::burst::Burst;
pub use self::chain::{Chain, Reader, Writer};
pub use self::error::RingError;
pub use self::journal::{Journal, Record, RingIdentity};
#[cfg(any(test, feature = "driver"))]
pub(crate) use self::layout::{
    AVAIL, Descriptor, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, INDIRECT, Le16, Le32, NEXT, PackedDesc, SUPPRESS,
    SplitDesc, USED, UsedElement, WRITE,
};
pub use self::log::RingLog;
pub use self::position::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, F_PACKED, MAX_SIZE, Position, RingFeatures, RingSetup};
pub use self::queue::Queue;
pub use self::request::Request;
pub use self::store::Scratch;
