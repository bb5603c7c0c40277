//! Messages: bytes and descriptors in, requests out; replies in, bytes out. Nothing here does I/O.
//!
//! The source of every layout, number and rule is QEMU's `docs/interop/vhost-user.rst`. Numbers are in the machine's
//! byte order, because both ends are on one host.
//!
//! - [`Assembler`] puts messages together from the pieces of a stream. What it keeps is bounded.
//! - [`Request`] is what a message asks for. It owns the descriptors that came along.
//! - [`Reply`] is what goes back.
//!
//! There are two kinds of mistakes. After a [`Malformed`] header nobody knows where the next message begins, so the
//! connection is over. After an [`Invalid`] message the stream is intact, and the front end can be told. Descriptors
//! of a message with a mistake are closed.

mod assembler;
mod backend;
mod body;
mod code;
mod decode;
pub mod features;
mod header;
mod region;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use assembler::{Assembler, Message};
pub use backend::config_change;
pub use body::Invalid;
pub use code::Code;
pub use decode::decode;
pub use header::{HEADER_LEN, Header, MAX_PAYLOAD, Malformed};
pub use region::{InflightLayout, InflightRegion, LogRegion, MemoryRegion, RegionAddress};
pub use reply::Reply;
pub use request::{Request, RingAddresses};

/// Descriptors that a message may bring: one for each region of a memory table.
pub const MAX_DESCRIPTORS: usize = 8;

/// Bytes of configuration space that a message may ask for or bring (`VHOST_USER_MAX_CONFIG_SIZE` of QEMU).
pub const MAX_CONFIG: u32 = 256;
