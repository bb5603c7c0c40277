//! A session: what a front end has negotiated with a device. It is a pure state machine, and does no I/O.
//!
//! A request is answered in two steps, because a device may need time. A worker has to let go of a ring, or a disk has
//! to end its requests, and the control thread may serve other sessions meanwhile.
//!
//! 1. [`Session::handle`] takes a message and gives a [`Turn`]: what the device has to do, in order.
//! 2. [`Session::finish`] takes the turn with its [`Outcome`] and gives the [`Answer`]: the reply, and whether the
//!    connection is over.
//!
//! The front end's next message is read after that. Where it ends, [`Session::hang_up`] tells which rings to stop.
//!
//! # When a ring runs
//!
//! A ring is started when it has a size, addresses, a kick event (or is to be polled), features are set, and all its
//! parts are in the guest's memory. It is stopped when one of these is no more. `GET_VRING_BASE` takes the kick event
//! away. The specification lets a ring start at its first kick. Here it starts earlier, because workers poll.
//!
//! A ring that runs may be disabled: then its buffers have no effect. Size, addresses, position and features change
//! only while a ring is stopped or disabled. A disabled one stops then, and waits for its next kick event.
//!
//! # What a front end may do wrong
//!
//! A request that is refused changes nothing. It is told so by a failed acknowledgement, if it asked for one, or by the
//! reply that it waits for. If neither is possible, both ends would differ, and the connection is closed. The same
//! holds for numbers of requests that are not known. So a front end never waits for ever. For the same reason an
//! acknowledgement is given whenever one is asked for, negotiated or not.
//!
//! The session is used by one thread at a time. Descriptors are in `Arc`s, so that workers may keep those in use.

mod action;
mod answer;
mod apply;
mod memory;
mod offer;
mod refusal;
mod ring;
mod state;
#[cfg(test)]
mod tests;

pub use action::{Action, Outcome};
pub use answer::{Answer, Turn};
pub use memory::{MemoryError, MemoryTable};
pub use offer::Offer;
pub use refusal::Refusal;
pub use ring::{Kick, PackedBase, Ring, RingBase};
pub use state::Session;
