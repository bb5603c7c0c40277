//! The companion of QEMU: gives unprivileged guest processes the AF_XDP sockets of their ports.
//!
//! It serves the hand-over socket `fds.sock` in the run directory, by the protocol of [`ctl_guest`]. `SO_PEERCRED`
//! identifies the client, and the configuration says which users may have which sockets. The service creates and
//! supervises the sockets. Each connection has a thread. The daemon depends on this crate.
#![forbid(unsafe_code)]

mod config;
mod server;

pub use self::config::{GuestsConfig, uid_of};
pub use self::server::{Access, FdsSocket, Peer, carry_out, serve};
