//! Packets between a guest's buffers and frames. What is in front of them (`virtio_net_hdr`) is the crate
//! `vhost_user`'s.

use vhost_user::net::{HeaderFormat, NetHeader, deliver, read_header};
use vhost_user::ring::{Burst, Chain};

/// Most chains that one packet is spread over.
pub(super) const MAX_MERGED: usize = 16;

/// Copies a packet of the guest to the beginning of `to`. Returns its length. `None` if it is no packet, or has more
/// bytes than `to`.
///
/// The header is not looked at: no feature was offered that gives it a meaning.
#[inline(always)]
pub(super) fn read(format: HeaderFormat, chain: &Chain<'_>, to: &mut [u8]) -> Option<usize> {
    let mut reader = chain.reader();
    read_header(&mut reader, format)?;
    let len = reader.left();
    (1..=to.len()).contains(&len).then(|| reader.read(&mut to[..len]))
}

/// Copies a packet into the next chains of the guest. False if they have no room for it: then none is used.
#[inline(always)]
pub(super) fn write(format: HeaderFormat, burst: &mut Burst<'_>, packet: &[u8]) -> bool {
    let total = format.len + packet.len();
    let is_short = burst.chain(0).is_none_or(|chain| chain.writable_len() < total);
    if is_short && !fits_merged(burst, total) {
        return false;
    }
    deliver(burst, format, NetHeader::PLAIN, &[packet]).is_ok()
}

/// Whether so many chains as one packet may take have room for it.
#[cold]
fn fits_merged(burst: &Burst<'_>, total: usize) -> bool {
    (0..MAX_MERGED).map_while(|ahead| burst.chain(ahead)).map(|chain| chain.writable_len()).sum::<usize>() >= total
}
