//! What is left to be done with a packet, and the segments of one that is to be cut.
//!
//! A guest may leave a checksum, and cutting into segments, to whoever needs that done. The frame says so by a flag.
//! The rest is in a record at the beginning of its chunk, in front of the packet. Places in the record count from the
//! chunk's first byte, so they stay right when a tag is put in front of the packet or taken off.
//!
//! The frame of a packet that is to be cut has its first segment, as long as segments are on the wire. Its IP header
//! has the length of that, so that whoever reads the frame finds an ordinary packet. The rest is in a tail.

use vhost_user::net::{Checksum, Cutter, Gso, GsoKind, Offload, fill_checksum, replace_ip_length, restore_ip_length};

use super::frame::{CHECKSUM, CUT};
use super::{Frame, FrameCache, Tail, Umem};
use crate::model::Count;

/// Bytes of the record.
const RECORD: usize = 20;

/// The record. Places count from the chunk's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    csum_start: u16,
    csum_offset: u16,
    network: u16,
    payload: u16,
    /// Bytes of a segment's payload.
    size: u16,
    /// Length that the IP header of the whole packet has.
    ip_length: u16,
    kind: u8,
    ecn: u8,
    /// Bytes of the tail.
    tail: u32,
}

impl Record {
    fn of(frame: &Frame) -> Self {
        let Some(bytes) = frame.chunk().first_chunk::<RECORD>() else { return Self::default() };
        let [a, b, c, d, e, f, g, h, i, j, k, l, kind, ecn, _, _, w, x, y, z] = *bytes;
        Self {
            csum_start: u16::from_ne_bytes([a, b]),
            csum_offset: u16::from_ne_bytes([c, d]),
            network: u16::from_ne_bytes([e, f]),
            payload: u16::from_ne_bytes([g, h]),
            size: u16::from_ne_bytes([i, j]),
            ip_length: u16::from_ne_bytes([k, l]),
            kind,
            ecn,
            tail: u32::from_ne_bytes([w, x, y, z]),
        }
    }

    /// Writes it in front of a packet.
    ///
    /// # Panics
    /// If there is no room.
    fn put(&self, frame: &mut Frame) {
        assert!(frame.start() >= RECORD, "no room in front of the packet");
        let numbers = [self.csum_start, self.csum_offset, self.network, self.payload, self.size, self.ip_length];
        let chunk = frame.chunk_mut();
        for (place, number) in chunk.chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        chunk[12..16].copy_from_slice(&[self.kind, self.ecn, 0, 0]);
        chunk[16..RECORD].copy_from_slice(&self.tail.to_ne_bytes());
    }
}

/// A place in a chunk, from one in the packet that begins at `start`, and back.
fn shift(place: u16, start: usize, is_up: bool) -> u16 {
    let start = u16::try_from(start).unwrap_or(u16::MAX);
    if is_up { place.saturating_add(start) } else { place.saturating_sub(start) }
}

impl Frame {
    /// Leaves a checksum to be made.
    ///
    /// # Panics
    /// If the packet begins in the chunk's first bytes.
    pub fn leave_checksum(&mut self, Checksum { start, offset }: Checksum) {
        let csum_start = shift(start, self.start(), true);
        Record { csum_start, csum_offset: offset, ..Record::default() }.put(self);
        self.mark(CHECKSUM);
    }

    /// What is left to be done. Places are those in the packet.
    pub fn offload(&self) -> Offload {
        if self.lacks_checksum() { self.offload_of(&Record::of(self)) } else { Offload::default() }
    }

    fn offload_of(&self, record: &Record) -> Offload {
        let down = |place| shift(place, self.start(), false);
        let checksum = Checksum { start: down(record.csum_start), offset: record.csum_offset };
        let kind = match record.kind {
            _ if !self.is_to_be_cut() => None,
            0 => Some(GsoKind::Tcp4),
            1 => Some(GsoKind::Tcp6),
            _ => Some(GsoKind::Udp),
        };
        let gso = kind.map(|kind| Gso {
            kind,
            ecn: record.ecn != 0,
            size: record.size,
            network: down(record.network),
            transport: checksum.start,
            payload: down(record.payload),
        });
        Offload { checksum: Some(checksum), gso, is_valid: false }
    }

    /// Packets and bytes of it on a wire.
    #[inline]
    pub fn wire(&self) -> Count {
        if self.is_to_be_cut() {
            self.wire_of_segments()
        } else {
            Count { packets: 1, bytes: self.packet_len() as u64 }
        }
    }

    #[cold]
    fn wire_of_segments(&self) -> Count {
        let Record { payload, size, tail, .. } = Record::of(self);
        let headers = usize::from(payload).saturating_sub(self.start()).min(self.len());
        let payload = (self.len() - headers) as u64 + u64::from(tail);
        let packets = payload.div_ceil(u64::from(size).max(1));
        Count { packets, bytes: packets * headers as u64 + payload }
    }

    /// Makes the checksum that was left to be made. The data must be all there. A packet that is to be cut stays as it
    /// is.
    #[inline]
    pub fn fill_checksum(&mut self) {
        debug_assert!(self.rest().is_none(), "a checksum of what is not there");
        if self.lacks_checksum() && !self.is_to_be_cut() {
            self.fill_left_checksum();
        }
    }

    #[inline(never)]
    fn fill_left_checksum(&mut self) {
        if let Some(checksum) = self.offload().checksum {
            let (start, len) = (self.start(), self.len());
            fill_checksum(&mut self.chunk_mut()[start..start + len], checksum);
        }
        self.mark(0);
    }

    /// Puts the length of the whole packet into the IP header, as its sender had it there.
    pub fn restore_ip_length(&mut self) {
        if let Some(gso) = self.offload().gso {
            let (length, start, len) = (Record::of(self).ip_length, self.start(), self.len());
            restore_ip_length(&mut self.chunk_mut()[start..start + len], &gso, length);
        }
    }
}

impl Umem {
    /// Leaves a packet to be cut, of which the frame has the first segment. `offload` is what a guest has said, and was
    /// checked. `tail` has the other `len` bytes.
    ///
    /// # Panics
    /// If the packet begins in the chunk's first bytes.
    pub fn leave_to_be_cut(&self, frame: &mut Frame, checksum: Checksum, gso: &Gso, tail: Tail, len: usize) {
        let start = frame.start();
        let up = |place| shift(place, start, true);
        let end = start + frame.len();
        let head = &mut frame.chunk_mut()[start..end];
        let ip_length = replace_ip_length(head, gso, head.len().saturating_sub(gso.payload.into()));
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let record = Record {
            csum_start: up(checksum.start),
            csum_offset: checksum.offset,
            network: up(gso.network),
            payload: up(gso.payload),
            size: gso.size,
            ip_length,
            kind: match gso.kind {
                GsoKind::Tcp4 => 0,
                GsoKind::Tcp6 => 1,
                GsoKind::Udp => 2,
            },
            ecn: gso.ecn.into(),
            tail: len,
        };
        record.put(frame);
        self.tie(frame, tail, len);
        frame.mark(CHECKSUM | CUT);
    }

    /// Makes `copy` a copy of `frame`, with what is left to be done. They share the tail. A rest is left where it is.
    // Inlined always: a mirror's loop is not much more than this.
    #[inline(always)]
    pub fn copy(&self, frame: &Frame, copy: &mut Frame) {
        copy.copy_from(frame);
        if !frame.is_plain() {
            self.copy_offload(frame, copy);
        }
    }

    #[inline(never)]
    fn copy_offload(&self, frame: &Frame, copy: &mut Frame) {
        if frame.is_to_be_cut() {
            Record::of(frame).put(copy);
            self.share_tail(frame, copy);
            copy.mark(CHECKSUM | CUT);
        } else if frame.lacks_checksum() {
            Record::of(frame).put(copy);
            copy.mark(CHECKSUM);
        }
        if let Some(number) = frame.rest() {
            copy.leave_rest(number);
        }
    }

    /// The segments of a packet that is to be cut. `None` if it is not, or can't be.
    pub fn cut<'a>(&'a self, frame: &'a Frame) -> Option<Cut<'a>> {
        let gso = frame.offload().gso?;
        let (tail, first) = (self.tail(frame), frame.data().get(gso.payload.into()..)?);
        Some(Cut { cutter: Cutter::new(frame.data(), gso, first.len() + tail.len())?, first, tail })
    }
}

/// The segments of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    cutter: Cutter<'a>,
    /// The first segment's payload, and that of the others.
    first: &'a [u8],
    tail: &'a [u8],
}

impl<'a> Cut<'a> {
    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.cutter.segments()
    }

    /// A segment's part of the payload.
    pub fn payload(&self, segment: usize) -> &'a [u8] {
        let (range, before) = (self.cutter.range(segment), self.first.len());
        let part = match range.start < before {
            true => self.first.get(range),
            false => self.tail.get(range.start - before..range.end - before),
        };
        part.unwrap_or_default()
    }

    /// Writes the headers of a segment to `to`, which has as many bytes as they. Returns the payload.
    pub fn write_headers(&self, segment: usize, to: &mut [u8]) -> &'a [u8] {
        let payload = self.payload(segment);
        self.cutter.write_headers(segment, payload, to);
        payload
    }
}

/// A packet that becomes frames, segment by segment.
#[derive(Debug)]
pub struct Segments {
    packet: Frame,
    next: usize,
}

impl Segments {
    /// Of a packet.
    pub fn new(packet: Frame) -> Self {
        Self { packet, next: 0 }
    }

    /// The packet, if it is not to be cut. Its checksum is made.
    ///
    /// # Errors
    /// It is: it comes back.
    pub fn whole(self) -> Result<Frame, Self> {
        if self.packet.is_to_be_cut() {
            return Err(self);
        }
        let mut packet = self.packet;
        packet.fill_checksum();
        Ok(packet)
    }

    /// What is left on a wire.
    pub fn left(&self) -> Count {
        let Count { packets, bytes } = self.packet.wire();
        let first = self.packet.len() as u64;
        let gone = (self.next as u64).min(packets);
        // All segments but the last are as long as the first.
        Count { packets: packets - gone, bytes: if gone == packets { 0 } else { bytes - gone * first } }
    }

    /// The next one. `None` at the end, or if no frame is free.
    pub fn next(&mut self, cache: &mut FrameCache) -> Option<Frame> {
        let headers = usize::from(self.packet.offload().gso?.payload);
        if self.left().packets == 0 {
            return None;
        }
        let mut frame = cache.take()?;
        let start = self.packet.start();
        let Some(cut) = cache.umem().cut(&self.packet) else {
            cache.put(frame);
            return None;
        };
        let room = &mut frame.chunk_mut()[start..];
        let payload = cut.write_headers(self.next, &mut room[..headers]);
        // It is no longer than the first segment, which lies at the same place of such a chunk.
        room[headers..headers + payload.len()].copy_from_slice(payload);
        frame.set(start, headers + payload.len());
        self.next += 1;
        Some(frame)
    }

    /// Frees the packet.
    pub fn finish(self, cache: &mut FrameCache) {
        cache.put(self.packet);
    }
}
