//! Cloud disks: files and block devices as vhost-user-blk devices.
//!
//! - [`disk`] is a disk, and how it is made, grown, paused, limited, copied.
//! - [`image`] opens and makes images, in configured directories only.
//! - [`store`] is where bytes are: a trait, and files and block devices by io_uring.
//! - [`request`] reads requests of guests. It is pure.
//! - [`config`] is what a guest is offered.
//! - [`device`] is the session with a front end. [`thread`] serves its rings.
//! - [`limits`] and [`stats`] are what the names say.
//!
//! A disk has a thread for its socket and one or more for its queues. It depends on nothing of the switch.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]

#[cfg(feature = "client")]
pub mod client;
pub mod config;
mod confine;
pub mod device;
pub mod disk;
pub mod image;
pub mod limits;
pub mod request;
pub mod space;
pub mod stats;
pub mod store;
pub mod thread;
pub mod uring;
