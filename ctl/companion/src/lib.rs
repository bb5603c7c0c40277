//! The companion of QEMU: it gives guests' processes the AF_XDP sockets that they may not open themselves.
//!
//! It serves the hand-over socket `fds.sock` in the run directory, in the protocol of [`ctl_guest`]. Who asks is known by
//! `SO_PEERCRED`; the configuration says which users may have which sockets. The service makes the sockets and looks after
//! them. The daemon depends on this crate. Each connection has a thread of its own.
#![forbid(unsafe_code)]

mod config;
mod server;

pub use self::config::{GuestsConfig, uid_of};
pub use self::server::{Access, FdsSocket, Peer, carry_out, serve};
