//! QEMU as a guest's process: what it is told of a port, how it is started, how it gets a card while it runs, and what it has
//! to be able to do.
//!
//! Nothing here is the daemon's. A launcher or an operator's command asks the daemon for a port's sockets ([`ctl_guest`])
//! and gives them to QEMU. The command line depends on this crate, and the API for what it tells of QEMU at a port. Calls
//! block the thread that makes them.
#![forbid(unsafe_code)]

pub mod check;
pub mod hotplug;
pub mod launch;
pub mod options;
pub mod qmp;

#[cfg(test)]
mod double;
