//! The back end's side of vhost-user, for ports and disks.
//!
//! - [`message`] is pure: bytes and descriptors in, requests out; replies in, bytes out.
//! - [`session`] keeps what a front end has negotiated, and says what a device has to do.
//! - [`connection`] moves messages over a socket, and ties them to a session.
//! - [`event`] is how the front end is told of something, by descriptors that it could make anybody wait at.
//! - [`socket`] makes the sockets, by path, as server or client.
//! - [`memory`] is the guest's memory: its regions, and checked access to them.
//! - [`mapped`] is what a device keeps of a session's memory.
//! - [`ring`] is the virtqueues in that memory, split and packed.
//! - [`net`] is what network devices put into rings.
//!
//! The other side is a guest. None of its bytes, descriptors, addresses or lengths is believed.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]

pub mod connection;
#[cfg(any(test, feature = "driver"))]
pub mod driver;
pub mod event;
pub mod mapped;
pub mod memory;
pub mod message;
pub mod net;
pub mod ring;
pub mod session;
pub mod socket;
