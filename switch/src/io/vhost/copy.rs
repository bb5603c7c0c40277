//! Packets between a guest's buffers and frames. What is in front of them (`virtio_net_hdr`) is the crate
//! `vhost_user`'s.

use vhost_user::memory::GuestSlice;
use vhost_user::net::net_header::GSO_NONE;
use vhost_user::net::{HeaderFormat, NetHeader, OffloadRules, deliver, read_header};
use vhost_user::ring::{Burst, Chain, Reader};

use crate::io::umem::{Frame, HEADROOM, Rests, TAIL, Umem};

/// Most chains that one packet of a frame's length is spread over.
pub(super) const MAX_MERGED: usize = 16;
/// Bytes of a packet that are read to find its headers. They end there, or it is not cut.
const HEADERS: usize = 256;
/// Bytes of a packet that are copied if its rest is left in the guest's memory. Nothing behind them is read to decide
/// about a [shallow](is_shallow) packet: two tags, and at most 60 bytes of IPv4 and 20 of TCP.
const HEAD: usize = 128;
/// Packets of fewer bytes are copied whole: two short copies take as long.
const LONG_ENOUGH: usize = 512;
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

/// Copies a packet of the guest into `frame`, behind the headroom. It may take `tails` tails, and says so. With
/// `rests`, the rest of a longer packet may be left there.
#[inline(always)]
pub(super) fn read(
    (format, rules): (HeaderFormat, OffloadRules),
    chain: &Chain<'_>,
    frame: &mut Frame,
    umem: &Umem,
    tails: &mut u32,
    rests: Option<&mut Rests>,
) -> Result<(), Untaken> {
    let mut reader = chain.reader();
    let header = read_header(&mut reader, format).ok_or(Untaken::Malformed)?;
    // Without such a feature the header has no meaning.
    if rules.is_any() && !header.is_plain() {
        return read_offload(rules, header, reader, frame, umem, tails, rests);
    }
    read_plain(&mut reader, frame, rests)
}

#[inline(always)]
fn read_plain(reader: &mut Reader<'_>, frame: &mut Frame, rests: Option<&mut Rests>) -> Result<(), Untaken> {
    let (start, len) = (HEADROOM as usize, reader.left());
    let room = &mut frame.chunk_mut()[start..];
    if !(1..=room.len()).contains(&len) {
        return Err(Untaken::Malformed);
    }
    if len >= LONG_ENOUGH
        && let Some(rests) = rests
    {
        read_head(reader, frame, rests);
        return Ok(());
    }
    reader.read(&mut room[..len]);
    frame.set(start, len);
    Ok(())
}

/// Copies the head of a packet that is longer, and leaves the rest where it is. If that can't be, it is copied too.
#[inline(never)]
fn read_head(reader: &mut Reader<'_>, frame: &mut Frame, rests: &mut Rests) {
    let (start, len) = (HEADROOM as usize, reader.left());
    let room = &mut frame.chunk_mut()[start..start + len];
    let (head, behind) = room.split_at_mut(HEAD.min(len));
    reader.read(head);
    let rest = reader.rest().filter(|_| is_shallow(head));
    let number = rest.and_then(|rest| rests.add(rest));
    if number.is_none() {
        reader.read(behind);
    }
    frame.set(start, len);
    if let Some(number) = number {
        frame.leave_rest(number);
    }
}

/// Whether all that is read to decide about a packet is in its first [`HEAD`] bytes. It is not known of IPv6 with
/// extension headers.
fn is_shallow(head: &[u8]) -> bool {
    /// Of Ethernet, and of a tag.
    const ETHERTYPE: usize = 12;
    const TAG: usize = 4;
    let ethertype = |at: usize| head.get(at..).and_then(|rest| rest.first_chunk().copied());
    let mut at = ETHERTYPE;
    for _ in 0..2 {
        at += if matches!(ethertype(at), Some([0x81, 0] | [0x88, 0xa8])) { TAG } else { 0 };
    }
    // TCP, UDP, ICMPv6, no next header (RFC 8200, section 4.7), GRE, ESP.
    ethertype(at) != Some([0x86, 0xdd])
        || head.get(at + 8).is_some_and(|next| matches!(next, 6 | 17 | 58 | 59 | 47 | 50))
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
    rests: Option<&mut Rests>,
) -> Result<(), Untaken> {
    let (start, len) = (HEADROOM as usize, reader.left());
    if header.gso_type == GSO_NONE {
        read_plain(&mut reader, frame, rests)?;
        let rest = frame.rest();
        let there = if rest.is_some() { HEAD } else { len };
        let offload = rules.check(&header, &frame.data()[..there], len).map_err(|_| Untaken::Malformed)?;
        if let Some(checksum) = offload.checksum {
            frame.leave_checksum(checksum);
        }
        if let Some(number) = rest {
            frame.leave_rest(number);
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

/// Copies a packet into the next chains of the guest. Its last bytes are `rest`, which is with another guest. False if
/// they have no room for it: then none is used.
#[inline(always)]
pub(super) fn write(
    format: HeaderFormat,
    burst: &mut Burst<'_>,
    header: NetHeader,
    parts: &[&[u8]],
    rest: GuestSlice<'_>,
) -> bool {
    let total = format.len + parts.iter().map(|part| part.len()).sum::<usize>() + rest.len();
    let is_short = burst.chain(0).is_none_or(|chain| chain.writable_len() < total);
    if is_short && !fits_merged(burst, total) {
        return false;
    }
    deliver(burst, format, header, parts, rest).is_ok()
}

/// Whether so many chains as one packet may take have room for it.
#[cold]
fn fits_merged(burst: &Burst<'_>, total: usize) -> bool {
    (0..MAX_MERGED).map_while(|ahead| burst.chain(ahead)).map(|chain| chain.writable_len()).sum::<usize>() >= total
}
