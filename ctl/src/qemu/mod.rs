//! QEMU as a guest's process: what it is told of a port, how it is started, how it gets a card while it runs, and what it has
//! to be able to do.
//!
//! Nothing here is the daemon's. A launcher or an operator's command asks the daemon for a port's sockets
//! ([`crate::companion`]) and gives them to QEMU.

pub mod check;
pub mod hotplug;
pub mod launch;
pub mod options;
pub mod qmp;

#[cfg(test)]
mod double;

/// Packet memory of a socket of QEMU's, in bytes: 8,192 frames of 4,096 (`net/af-xdp.c`).
const UMEM: u64 = 32 << 20;
/// What else of a user's the kernel may count against the same limit.
const MEMLOCK_MARGIN: u64 = 8 << 20;

/// `RLIMIT_MEMLOCK`, in bytes, for a user whose guests in QEMU have that many queues together.
pub fn memlock(queues: u64) -> u64 {
    queues * UMEM + MEMLOCK_MARGIN
}
