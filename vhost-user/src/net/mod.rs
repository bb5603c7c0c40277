//! What network devices put into rings: a header in front of each packet (virtio 1.2, 5.1.6).
//!
//! - [`net_header`] is pure: the header, and what it may say of a packet.
//! - [`segment`] is pure: checksums, and segments of a packet that is to be cut.
//! - [`transfer`] reads packets from chains that a guest sends, and writes packets into chains where it receives.

pub mod net_header;
mod offload;
pub mod segment;
pub mod transfer;

pub use self::net_header::{HeaderFormat, NetHeader};
pub use self::offload::{
    Checksum, F_CSUM, F_GUEST_CSUM, F_GUEST_ECN, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6, Gso,
    GsoKind, Offload, OffloadError, OffloadRules,
};
pub use self::segment::{Cutter, fill_checksum, replace_ip_length, restore_ip_length};
pub use self::transfer::{Undelivered, deliver, read_header};
