//! Packets between a guest's buffers and frames.

use vhost_user::ring::{Burst, Chain};

/// What is in front of each packet in a guest's buffers: `struct virtio_net_hdr` (virtio 1.2, 5.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 12 bytes with `num_buffers`, else 10.
    len: usize,
    /// Whether a packet for the guest may be in several chains.
    mergeable: bool,
}

/// `VIRTIO_NET_F_MRG_RXBUF`.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// `VIRTIO_F_VERSION_1`.
pub const F_VERSION_1: u64 = 1 << 32;
/// Length of the longest header, in bytes.
const LONGEST: usize = 12;
/// Most chains that one packet is spread over.
pub(super) const MAX_MERGED: usize = 16;

impl Header {
    /// The header of a guest with these features.
    pub fn of(features: u64) -> Self {
        let mergeable = features & F_MRG_RXBUF != 0;
        Self { len: if mergeable || features & F_VERSION_1 != 0 { LONGEST } else { 10 }, mergeable }
    }

    /// Copies a packet of the guest to the beginning of `to`. Returns its length. `None` if it is no packet, or has
    /// more bytes than `to`.
    ///
    /// The header is not looked at: no feature was offered that gives it a meaning.
    #[inline(always)]
    pub(super) fn read(self, chain: &Chain<'_>, to: &mut [u8]) -> Option<usize> {
        let len = chain.readable_len().checked_sub(self.len).filter(|&len| (1..=to.len()).contains(&len))?;
        let mut reader = chain.reader();
        if self.len == LONGEST {
            reader.read_array::<LONGEST>()?;
        } else {
            reader.read_array::<10>()?;
        }
        (reader.read(&mut to[..len]) == len).then_some(len)
    }

    /// Copies a packet into the next chains of the guest. False if they have no room for it: then none is used.
    #[inline(always)]
    pub(super) fn write(self, burst: &mut Burst<'_>, packet: &[u8]) -> bool {
        let total = self.len + packet.len();
        let Some(first) = burst.chain(0) else { return false };
        if first.writable_len() < total {
            return self.mergeable && self.write_merged(burst, packet, total);
        }
        let mut writer = first.writer();
        writer.write(&header(1)[..self.len]);
        writer.write(packet);
        burst.advance(clamp(total));
        true
    }

    /// The same with several chains.
    #[inline(never)]
    fn write_merged(self, burst: &mut Burst<'_>, packet: &[u8], total: usize) -> bool {
        let (mut room, mut chains) = (0, 0_u8);
        while room < total {
            match burst.chain(usize::from(chains)) {
                Some(chain) if usize::from(chains) < MAX_MERGED => room += chain.writable_len(),
                _ => return false,
            }
            chains += 1;
        }
        let mut header = &header(chains.into())[..self.len];
        let mut packet = packet;
        for _ in 0..chains {
            let Some(chain) = burst.chain(0) else { return false };
            let mut writer = chain.writer();
            let mut written = 0;
            for part in [&mut header, &mut packet] {
                let count = writer.write(part);
                *part = &part[count..];
                written += count;
            }
            burst.advance(clamp(written));
        }
        true
    }
}

/// A header without offloads.
#[inline(always)]
fn header(num_buffers: u16) -> [u8; LONGEST] {
    let [low, high] = num_buffers.to_le_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high]
}

/// A number of bytes as rings have it.
#[inline(always)]
fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
