//! The guest's end of a port that a guest opens AF_XDP sockets of its own on.

use serde::{Deserialize, Serialize};

use super::Mode;

/// The guest's end of a port, open for a guest's own AF_XDP sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestEndInfo {
    /// XDP mode in force there.
    pub mode: Mode,
    /// Why a wish of `auto` ended in generic mode, if it did since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// Path of the pinned XSKMAP, in which the slot of a queue has the queue's number.
    pub map_path: String,
    /// Packets for the guest, by queue.
    pub queues: Vec<GuestQueue>,
}

/// Packets for a guest, by what the program on its end did with them, since that was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GuestQueue {
    /// Queue of the guest's end, 0-based.
    pub queue: u32,
    /// To a socket that was bound; what that loses for lack of room is in the socket's own counters.
    pub redirect: u64,
    /// Dropped: nobody had a socket.
    pub drop_no_socket: u64,
    /// Dropped: somebody had a socket and had not bound it yet (counted as `redirect` by kernels before 6.2).
    pub drop_unbound: u64,
}
