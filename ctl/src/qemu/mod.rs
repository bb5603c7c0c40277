//! QEMU as a guest's process: what it is told of a port, how it gets a card while it runs, and what it has to be able to do.
//!
//! Nothing here is the daemon's. A launcher or an operator's command asks the daemon for a port's sockets
//! ([`crate::companion`]) and gives them to QEMU.

pub mod check;
pub mod hotplug;
pub mod options;
pub mod qmp;

#[cfg(test)]
mod double;
