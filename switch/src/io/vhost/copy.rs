//! Packets between a guest's buffers and frames. What is in front of them (`virtio_net_hdr`) is the crate
//! `vhost_user`'s.

use vhost_user::net::net_header::GSO_NONE;
use vhost_user::net::{HeaderFormat, NetHeader, OffloadRules, deliver, read_header};
use vhost_user::ring::{Burst, Chain, Reader};

use crate::io::umem::{Frame, HEADROOM, TAIL, Umem};

/// Most chains that one packet of a frame's length is spread over.
pub(super) const MAX_MERGED: usize = 16;
/// Bytes of a packet that are read to find its headers. They end there, or it is not cut.
const HEADERS: usize = 256;
/// Longest packet: an IP packet behind an Ethernet header and two tags.
const LONGEST: usize = 65_535 + 22;

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untaken {
    /// It is none, is longer than a frame, or its header is not true of it.
    Malformed,
    /// No tail is free, or the burst has enough of them. It stays in the ring.
    NoTail,
}

/// Copies a packet of the guest into `frame`, behind the headroom. It may take `tails` tails, and says so.
#[inline(always)]
pub(super) fn read(
    (format, rules): (HeaderFormat, OffloadRules),
    chain: &Chain<'_>,
    frame: &mut Frame,
    umem: &Umem,
    tails: &mut u32,
) -> Result<(), Untaken> {
    let mut reader = chain.reader();
    let header = read_header(&mut reader, format).ok_or(Untaken::Malformed)?;
    // Without such a feature the header has no meaning.
    if rules.is_any() && !header.is_plain() {
        return read_offload(rules, header, reader, frame, umem, tails);
    }
    read_plain(&mut reader, frame)
}

#[inline(always)]
fn read_plain(reader: &mut Reader<'_>, frame: &mut Frame) -> Result<(), Untaken> {
    let (start, len) = (HEADROOM as usize, reader.left());
    let room = &mut frame.chunk_mut()[start..];
    if !(1..=room.len()).contains(&len) {
        return Err(Untaken::Malformed);
    }
    reader.read(&mut room[..len]);
    frame.set(start, len);
    Ok(())
}

/// The same for a packet that leaves something to be done. What the header says is checked against bytes that were
/// copied, so the guest can't change them any more.
#[inline(never)]
fn read_offload(
    rules: OffloadRules,
    header: NetHeader,
    mut reader: Reader<'_>,
    frame: &mut Frame,
    umem: &Umem,
    tails: &mut u32,
) -> Result<(), Untaken> {
    let (start, len) = (HEADROOM as usize, reader.left());
    if header.gso_type == GSO_NONE {
        read_plain(&mut reader, frame)?;
        let offload = rules.check(&header, frame.data(), len).map_err(|_| Untaken::Malformed)?;
        if let Some(checksum) = offload.checksum {
            frame.leave_checksum(checksum);
        }
        return Ok(());
    }
    if len > LONGEST {
        return Err(Untaken::Malformed);
    }
    let room = &mut frame.chunk_mut()[start..];
    let begun = HEADERS.min(len).min(room.len());
    reader.read(&mut room[..begun]);
    let offload = rules.check(&header, &room[..begun], len).map_err(|_| Untaken::Malformed)?;
    let (Some(checksum), Some(gso)) = (offload.checksum, offload.gso) else { return Err(Untaken::Malformed) };
    let first = usize::from(gso.payload) + usize::from(gso.size);
    let head = first.min(len);
    if head > room.len() {
        return Err(Untaken::Malformed);
    }
    if len <= first {
        // It is one segment as it is.
        reader.read(&mut room[begun..len]);
        frame.set(start, len);
        frame.leave_checksum(checksum);
        return Ok(());
    }
    if *tails == 0 {
        return Err(Untaken::NoTail);
    }
    let mut tail = umem.take_tail().ok_or(Untaken::NoTail)?;
    let bytes = umem.tail_mut(&mut tail);
    let over = begun.saturating_sub(head);
    bytes[..over].copy_from_slice(&room[begun - over..begun]);
    if head > begun {
        reader.read(&mut room[begun..head]);
    }
    let rest = (len - head).min(TAIL);
    reader.read(&mut bytes[over..rest]);
    frame.set(start, head);
    umem.leave_to_be_cut(frame, checksum, &gso, tail, rest);
    *tails -= 1;
    Ok(())
}

/// Copies a packet into the next chains of the guest. False if they have no room for it: then none is used.
#[inline(always)]
pub(super) fn write(format: HeaderFormat, burst: &mut Burst<'_>, header: NetHeader, parts: &[&[u8]]) -> bool {
    let total = format.len + parts.iter().map(|part| part.len()).sum::<usize>();
    let is_short = burst.chain(0).is_none_or(|chain| chain.writable_len() < total);
    if is_short && !fits_merged(burst, total) {
        return false;
    }
    deliver(burst, format, header, parts).is_ok()
}

/// Whether so many chains as one packet may take have room for it.
#[cold]
fn fits_merged(burst: &Burst<'_>, total: usize) -> bool {
    (0..MAX_MERGED).map_while(|ahead| burst.chain(ahead)).map(|chain| chain.writable_len()).sum::<usize>() >= total
}
