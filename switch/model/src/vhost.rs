//! vhost-user ports: what a user asks for, and what a guest has negotiated.

use serde::{Deserialize, Serialize};

/// Most queue pairs of a vhost-user port: the protocol counts 256 rings.
pub const MAX_VHOST_PAIRS: u32 = 128;
/// Longest path of a Unix socket, in bytes (`sun_path` without its last zero).
pub const MAX_SOCKET_PATH: usize = 107;

/// Which side makes the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SocketRole {
    /// The switch listens, and the guest's front end connects.
    #[default]
    Server,
    /// The front end listens, and the switch connects, again and again until it can.
    Client,
}

/// The socket of a vhost-user port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VhostSpec {
    /// Path of the socket, absolute, at most 107 bytes. No two ports have the same.
    pub socket: String,
    /// Which side makes it.
    #[serde(default)]
    pub role: SocketRole,
    /// `server` only: user that the socket belongs to, a name or a number; default: the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `server` only: group that the socket belongs to, a name or a number; default: what the directory gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `server` only: permission bits of the socket, in octal; default `660`. Who may write to it may be the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl VhostSpec {
    /// A socket at that path, with every default.
    pub fn new(socket: impl Into<String>) -> Self {
        Self { socket: socket.into(), role: SocketRole::Server, owner: None, group: None, mode: None }
    }
}

/// A guest at a vhost-user port, as it has negotiated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VhostInfo {
    /// Whether a front end is connected.
    pub connected: bool,
    /// Virtio feature bits that the guest is offered.
    #[serde(default)]
    pub offered: u64,
    /// Virtio feature bits in use; absent before they are negotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<u64>,
    /// Protocol feature bits in use.
    #[serde(default)]
    pub protocol_features: u64,
    /// Regions of guest memory.
    #[serde(default)]
    pub memory_regions: usize,
    /// Queue pairs of which both rings run and are enabled.
    #[serde(default)]
    pub active_pairs: u32,
    /// Packets that the guest has left to be cut into segments.
    #[serde(default)]
    pub long_received: u64,
    /// Such packets that the guest was sent as they are.
    #[serde(default)]
    pub long_sent: u64,
    /// Packets of the guest that were none: without room for a header, longer than a frame, or with a header that is
    /// not true of them.
    #[serde(default)]
    pub malformed: u64,
    /// Packets for which the guest had room for a part only.
    #[serde(default)]
    pub no_room: u64,
    /// Packets that the guest sent by a ring that it had not enabled.
    #[serde(default)]
    pub disabled: u64,
    /// Front ends that have connected since the port was added.
    #[serde(default)]
    pub sessions: u64,
    /// Why the last session ended, or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
