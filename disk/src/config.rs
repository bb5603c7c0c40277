//! What a disk offers: virtio features, and the configuration space (virtio 1.2, 5.2.3 and 5.2.4).

use vhost_user::message::features as protocol;
use vhost_user::ring::{F_EVENT_IDX, F_INDIRECT, F_PACKED};
use vhost_user::session::Offer;

use crate::request::SECTOR;

/// `VIRTIO_F_VERSION_1`.
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_BLK_F_SEG_MAX`: most buffers of data in a request.
pub const SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`: the disk is read-only.
pub const RO: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`: the size of a block is told.
pub const BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`: there is a cache, and FLUSH.
pub const FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_TOPOLOGY`: sizes for good performance are told.
pub const TOPOLOGY: u64 = 1 << 10;
/// `VIRTIO_BLK_F_CONFIG_WCE`: the driver may switch the cache.
pub const CONFIG_WCE: u64 = 1 << 11;
/// `VIRTIO_BLK_F_MQ`: several queues.
pub const MQ: u64 = 1 << 12;
/// `VIRTIO_BLK_F_DISCARD`.
pub const DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`.
pub const WRITE_ZEROES: u64 = 1 << 14;

/// Most sectors of a segment of DISCARD: 1 GiB.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// Most sectors of a segment of WRITE_ZEROES: 64 MiB. A file system may have to write them.
pub const MAX_ZEROES_SECTORS: u32 = 1 << 17;
/// Most segments of a request.
pub const MAX_SEGMENTS: u32 = 16;
/// Most buffers of data that a driver is told to use. It may use more.
const MOST_BUFFERS: u32 = 254;
/// Regions that can be added one by one, as many as QEMU has slots for.
const MEM_SLOTS: u16 = 509;

/// Bytes of the configuration space, up to the fields of WRITE_ZEROES.
pub const CONFIG_LEN: usize = 60;
/// Where the driver switches the cache: the only byte that it may write.
pub const WCE_AT: u32 = 32;

/// What a disk is to its guest, and does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Queues, 1 to 256.
    pub queues: u16,
    /// Largest ring, in entries.
    pub queue_depth: u16,
    /// Bytes of a block: 512 or 4096.
    pub block: u32,
    /// Bytes of a physical block, at least those of a block.
    pub physical_block: u32,
    /// Bytes that are best written at once. 0 if nobody knows.
    pub optimal_io: u32,
    /// Nothing can be written.
    pub read_only: bool,
    /// Ranges can be discarded.
    pub discard: bool,
}

impl Shape {
    /// What a front end is offered.
    pub fn offer(&self) -> Offer {
        let always = VERSION_1 | F_INDIRECT | F_EVENT_IDX | F_PACKED | protocol::LOG_ALL;
        let always = always | SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY | CONFIG_WCE;
        let several = if self.queues > 1 { MQ } else { 0 };
        let writable = match (self.read_only, self.discard) {
            (true, _) => RO,
            (false, true) => DISCARD | WRITE_ZEROES,
            (false, false) => WRITE_ZEROES,
        };
        Offer {
            features: always | several | writable,
            protocol_features: protocol::MQ
                | protocol::LOG_SHMFD
                | protocol::REPLY_ACK
                | protocol::BACKEND_REQ
                | protocol::CONFIG
                | protocol::INFLIGHT_SHMFD
                | protocol::RESET_DEVICE
                | protocol::CONFIGURE_MEM_SLOTS,
            rings: self.queues,
            queue_num: self.queues,
            enabled_at_first: 0,
            mem_slots: MEM_SLOTS,
            max_mtu: 0,
        }
    }

    /// The configuration space of a disk of that many bytes: `struct virtio_blk_config`.
    pub fn config(&self, capacity: u64, write_back: bool) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        let blocks = |bytes: u32| (bytes / self.block).max(1);
        let exponent = blocks(self.physical_block).ilog2().to_le_bytes()[0];
        let seg_max = u32::from(self.queue_depth).saturating_sub(2).clamp(1, MOST_BUFFERS);
        let sectors_of_block = self.block / 512;
        put(0, &(capacity / SECTOR).to_le_bytes());
        put(12, &seg_max.to_le_bytes());
        put(20, &self.block.to_le_bytes());
        put(24, &[exponent, 0]);
        // Least size of an efficient request is a physical block, the best one what the store says. In blocks.
        put(26, &u16::try_from(blocks(self.physical_block)).unwrap_or(1).to_le_bytes());
        put(28, &(self.optimal_io / self.block).to_le_bytes());
        put(32, &[u8::from(write_back)]);
        put(34, &self.queues.to_le_bytes());
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_SEGMENTS.to_le_bytes());
        put(44, &sectors_of_block.to_le_bytes());
        put(48, &MAX_ZEROES_SECTORS.to_le_bytes());
        put(52, &MAX_SEGMENTS.to_le_bytes());
        put(56, &[1]);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_space_has_its_fields_where_virtio_has_them() {
        let shape = Shape {
            queues: 4,
            queue_depth: 128,
            block: 4096,
            physical_block: 16384,
            optimal_io: 65536,
            read_only: false,
            discard: true,
        };
        let config = shape.config(1 << 30, true);
        let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from_le_bytes(config[..8].try_into().unwrap()), 1 << 21, "capacity in sectors");
        assert_eq!((word(12), word(20)), (126, 4096), "seg_max, blk_size");
        assert_eq!(config[24..28], [2, 0, 4, 0], "exponent, alignment offset, least size in blocks");
        assert_eq!(word(28), 16, "best size in blocks");
        assert_eq!((config[32], config[34]), (1, 4), "wce, queues");
        assert_eq!((word(36), word(40), word(44)), (MAX_DISCARD_SECTORS, MAX_SEGMENTS, 8));
        assert_eq!((word(48), word(52), config[56]), (MAX_ZEROES_SECTORS, MAX_SEGMENTS, 1));
    }

    #[test]
    fn a_read_only_disk_offers_nothing_that_writes() {
        let shape = Shape {
            queues: 1,
            queue_depth: 64,
            block: 512,
            physical_block: 512,
            optimal_io: 0,
            read_only: true,
            discard: true,
        };
        let features = shape.offer().features;
        assert_eq!(features & (RO | DISCARD | WRITE_ZEROES | MQ), RO);
    }
}
