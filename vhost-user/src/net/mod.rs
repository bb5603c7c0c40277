//! What network devices put into rings: a header in front of each packet (virtio 1.2, 5.1.6).
//!
//! - [`net_header`] is pure: the header, and what it may say of a packet.
//! - [`transfer`] reads packets from chains that a guest sends, and writes packets into chains where it receives.

pub mod net_header;
mod offload;
pub mod transfer;

pub use self::net_header::{HeaderFormat, NetHeader};
pub use self::offload::{Checksum, Gso, GsoKind, Offload, OffloadError, OffloadRules};
pub use self::transfer::{Undelivered, deliver, read_header};
