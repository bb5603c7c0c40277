//! QEMU as the process of a guest: its options, its start, hot plug of cards, and what it must be able to do.
//!
//! None of this runs in the daemon. A launcher or an operator's command gets a port's sockets from the daemon
//! ([`ctl_guest`]) and passes them to QEMU. The command line depends on this crate, and so does the API for its remarks
//! about QEMU at a port. Calls block the calling thread.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]
#![forbid(unsafe_code)]

pub mod check;
pub mod direct;
pub mod hotplug;
pub mod launch;
pub mod options;
pub mod qmp;

#[cfg(test)]
mod double;
