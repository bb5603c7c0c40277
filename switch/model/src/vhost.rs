//! vhost-user ports: what a user asks for, and what a guest has negotiated.

use serde::{Deserialize, Serialize};

/// Most queue pairs of a vhost-user port: the protocol counts 256 rings.
pub const MAX_VHOST_PAIRS: u32 = 128;
/// Longest path of a Unix socket, in bytes (`sun_path` without its last zero).
pub const MAX_SOCKET_PATH: usize = 107;

/// `VIRTIO_NET_F_MRG_RXBUF`: a packet for the guest may take several of its buffers.
pub const VIRTIO_NET_MRG_RXBUF: u64 = 1 << 15;
/// `VIRTIO_F_EVENT_IDX`: each side says when it wants to be told.
pub const VIRTIO_EVENT_IDX: u64 = 1 << 29;

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
    /// Packets to be cut that the guest was sent whole.
    #[serde(default)]
    pub long_sent: u64,
    /// Packets to be cut that the guest was sent in segments which the switch has made.
    #[serde(default)]
    pub segmented: u64,
    /// Packets for the guest of which the switch has filled the checksum, because the guest does not take it unfilled.
    #[serde(default)]
    pub checksums_filled: u64,
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

/// Names of feature bits (virtio 1.3, sections 5.1.3 and 6).
const NAMES: [(u32, &str); 33] = [
    (0, "VIRTIO_NET_F_CSUM"),
    (1, "VIRTIO_NET_F_GUEST_CSUM"),
    (2, "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS"),
    (3, "VIRTIO_NET_F_MTU"),
    (5, "VIRTIO_NET_F_MAC"),
    (7, "VIRTIO_NET_F_GUEST_TSO4"),
    (8, "VIRTIO_NET_F_GUEST_TSO6"),
    (9, "VIRTIO_NET_F_GUEST_ECN"),
    (10, "VIRTIO_NET_F_GUEST_UFO"),
    (11, "VIRTIO_NET_F_HOST_TSO4"),
    (12, "VIRTIO_NET_F_HOST_TSO6"),
    (13, "VIRTIO_NET_F_HOST_ECN"),
    (14, "VIRTIO_NET_F_HOST_UFO"),
    (15, "VIRTIO_NET_F_MRG_RXBUF"),
    (16, "VIRTIO_NET_F_STATUS"),
    (17, "VIRTIO_NET_F_CTRL_VQ"),
    (18, "VIRTIO_NET_F_CTRL_RX"),
    (19, "VIRTIO_NET_F_CTRL_VLAN"),
    (21, "VIRTIO_NET_F_GUEST_ANNOUNCE"),
    (22, "VIRTIO_NET_F_MQ"),
    (23, "VIRTIO_NET_F_CTRL_MAC_ADDR"),
    (26, "VHOST_F_LOG_ALL"),
    (28, "VIRTIO_F_INDIRECT_DESC"),
    (29, "VIRTIO_F_EVENT_IDX"),
    (30, "VHOST_USER_F_PROTOCOL_FEATURES"),
    (32, "VIRTIO_F_VERSION_1"),
    (33, "VIRTIO_F_ACCESS_PLATFORM"),
    (34, "VIRTIO_F_RING_PACKED"),
    (35, "VIRTIO_F_IN_ORDER"),
    (54, "VIRTIO_NET_F_GUEST_USO4"),
    (55, "VIRTIO_NET_F_GUEST_USO6"),
    (56, "VIRTIO_NET_F_HOST_USO"),
    (60, "VIRTIO_NET_F_RSS"),
];

/// Names of the virtio features of a network device that are in `bits`, as far as they have one.
pub fn virtio_net_features(bits: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| *name)
}
