//! Feature bits: of the protocol, and those of virtio that the protocol itself looks at.

/// Virtio: the device marks the pages that it writes, for migration (`VHOST_F_LOG_ALL`).
pub const LOG_ALL: u64 = 1 << 26;

/// Virtio: protocol features can be negotiated (`VHOST_USER_F_PROTOCOL_FEATURES`). The bit is reserved in virtio, so a
/// guest never sees it.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Virtio: rings are packed (`VIRTIO_F_RING_PACKED`).
pub const RING_PACKED: u64 = 1 << 34;

/// Several queues, and `GET_QUEUE_NUM`.
pub const MQ: u64 = 1 << 0;
/// The log of written pages is shared memory.
pub const LOG_SHMFD: u64 = 1 << 1;
/// `SEND_RARP`.
pub const RARP: u64 = 1 << 2;
/// Any request may ask for an acknowledgement.
pub const REPLY_ACK: u64 = 1 << 3;
/// `NET_SET_MTU`.
pub const MTU: u64 = 1 << 4;
/// The back end may make requests, on a socket that it is given.
pub const BACKEND_REQ: u64 = 1 << 5;
/// `GET_CONFIG` and `SET_CONFIG`.
pub const CONFIG: u64 = 1 << 9;
/// Requests in flight are kept in shared memory, for a restarted back end.
pub const INFLIGHT_SHMFD: u64 = 1 << 12;
/// `RESET_DEVICE`.
pub const RESET_DEVICE: u64 = 1 << 13;
/// Regions of memory come and go one by one.
pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
/// `SET_STATUS` and `GET_STATUS`.
pub const STATUS: u64 = 1 << 16;

/// What the protocol's bits are called, by number.
const NAMES: [&str; 20] = [
    "MQ",
    "LOG_SHMFD",
    "RARP",
    "REPLY_ACK",
    "MTU",
    "BACKEND_REQ",
    "CROSS_ENDIAN",
    "CRYPTO_SESSION",
    "PAGEFAULT",
    "CONFIG",
    "BACKEND_SEND_FD",
    "HOST_NOTIFIER",
    "INFLIGHT_SHMFD",
    "RESET_DEVICE",
    "INBAND_NOTIFICATIONS",
    "CONFIGURE_MEM_SLOTS",
    "STATUS",
    "XEN_MMAP",
    "SHARED_OBJECT",
    "DEVICE_STATE",
];

/// The names of the protocol features that are set, in the order of their bits. Bits without a name are left out.
pub fn protocol_names(bits: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| *name)
}
