//! Checksums, and segments of a packet that was left to the device to cut. Pure: bytes in, bytes out.

use std::ops::Range;

use super::offload::{Checksum, Gso, GsoKind, TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Flags of TCP.
const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;
/// Places in a TCP header.
const TCP_HEADER: usize = 20;
const TCP_FLAGS: usize = 13;
const UDP_HEADER: usize = 8;

/// The sum of the Internet checksum (RFC 1071), of 16-bit words in the order in which they lie in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Sum(u64);

impl Sum {
    /// Adds bytes. What was added before must have been an even number.
    #[inline]
    fn add(self, bytes: &[u8]) -> Self {
        let words = bytes.chunks_exact(4);
        let mut last = [0; 4];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        // 64 KiB of them are far from an overflow.
        let all = words.fold(0, |sum, word| sum + u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])));
        Self(self.0 + all + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds a number as it stands in a packet.
    fn add_u16(self, number: u16) -> Self {
        self.add(&number.to_be_bytes())
    }

    /// The sum in 16 bits.
    fn fold(self) -> u16 {
        let mut sum = self.0;
        while let upper @ 1.. = sum >> 16 {
            sum = (sum & 0xffff) + upper;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends when it fits")]
        let sum = sum as u16;
        sum
    }

    /// The checksum at a place of the transport header. 0 means "none" in UDP, so the other form of zero is used there
    /// (RFC 768). In TCP that form is not what a sum ever is, and readers may call it wrong (RFC 1624).
    fn checksum(self, place: u16) -> [u8; 2] {
        match !self.fold() {
            0 if place == UDP_CHECKSUM => [0xff, 0xff],
            sum => sum.to_ne_bytes(),
        }
    }
}

fn put(bytes: &mut [u8], at: usize, number: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = number;
    }
}

fn number(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |number| u16::from_be_bytes(*number))
}

fn low_u16(number: usize) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Makes the checksum of a packet. The sum of the pseudo header is in its place. A place that is not in the packet
/// changes nothing.
pub fn fill_checksum(packet: &mut [u8], Checksum { start, offset }: Checksum) {
    if let Some(covered) = packet.get_mut(usize::from(start)..) {
        let checksum = Sum::default().add(covered).checksum(offset);
        put(covered, offset.into(), checksum);
    }
}

/// The place of the length in the IP header of a packet, and what is added to it for the length from the IP header on.
fn ip_length(gso: &Gso, headers: &[u8]) -> (usize, usize) {
    let network = usize::from(gso.network);
    match is_ipv4(gso, headers) {
        true => (network + 2, 0),
        false => (network + 4, IPV6_HEADER),
    }
}

fn is_ipv4(gso: &Gso, headers: &[u8]) -> bool {
    headers.get(usize::from(gso.network)).is_some_and(|byte| byte >> 4 == 4)
}

/// Replaces the length in the IP header of a packet by that of one with `payload` bytes. Returns the length that was
/// there. Only the length is changed, not the checksum of IPv4.
pub fn replace_ip_length(headers: &mut [u8], gso: &Gso, payload: usize) -> u16 {
    let (at, less) = ip_length(gso, headers);
    let length = usize::from(gso.payload) - usize::from(gso.network).min(gso.payload.into()) + payload;
    let before = number(headers, at);
    put(headers, at, low_u16(length.saturating_sub(less)).to_be_bytes());
    before
}

/// Puts back a length that [`replace_ip_length`] has returned.
pub fn restore_ip_length(headers: &mut [u8], gso: &Gso, length: u16) {
    let (at, _) = ip_length(gso, headers);
    put(headers, at, length.to_be_bytes());
}

/// A packet that is cut. A segment has all headers, and its part of the payload.
#[derive(Clone, Copy, Debug)]
pub struct Cutter<'a> {
    headers: &'a [u8],
    gso: Gso,
    payload: usize,
    is_ipv4: bool,
}

impl<'a> Cutter<'a> {
    /// Of a packet that begins with these bytes, all headers among them, and has `payload` bytes behind the headers.
    /// `None` if its parts can't be where `gso` says.
    pub fn new(start: &'a [u8], gso: Gso, payload: usize) -> Option<Self> {
        let headers = start.get(..gso.payload.into())?;
        let is_ipv4 = is_ipv4(&gso, headers);
        let ip = if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
        let transport = if gso.kind == GsoKind::Udp { UDP_HEADER } else { TCP_HEADER };
        let fits = usize::from(gso.network) + ip <= gso.transport.into()
            && usize::from(gso.transport) + transport <= gso.payload.into();
        (fits && gso.size > 0).then_some(Self { headers, gso, payload, is_ipv4 })
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.payload.div_ceil(self.gso.size.into())
    }

    /// Where a segment's part of the payload is.
    pub fn range(&self, segment: usize) -> Range<usize> {
        let size = usize::from(self.gso.size);
        let start = (segment * size).min(self.payload);
        start..(start + size).min(self.payload)
    }

    /// Writes the headers of a segment, whose part of the payload is `payload`. `to` has as many bytes as the headers.
    ///
    /// # Panics
    /// If it has not.
    pub fn write_headers(&self, segment: usize, payload: &[u8], to: &mut [u8]) {
        let Gso { kind, network, transport, .. } = self.gso;
        to.copy_from_slice(self.headers);
        let (network, transport) = (usize::from(network), usize::from(transport));
        let range = self.range(segment);
        replace_ip_length(to, &self.gso, payload.len());
        if self.is_ipv4 {
            let id = number(self.headers, network + 4).wrapping_add(low_u16(segment));
            put(to, network + 4, id.to_be_bytes());
            put(to, network + 10, [0; 2]);
            // Options are zeroes at worst, and the header ends where the transport header begins.
            let checksum = (!Sum::default().add(&to[network..transport]).fold()).to_ne_bytes();
            put(to, network + 10, checksum);
        }
        let len = to.len() - transport + payload.len();
        let offset = if kind == GsoKind::Udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        let place = transport + usize::from(offset);
        let pseudo = self.pseudo_header(network, transport, len, place);
        match kind {
            GsoKind::Udp => put(to, transport + 4, low_u16(len).to_be_bytes()),
            GsoKind::Tcp4 | GsoKind::Tcp6 => {
                if let Some(sequence) = to[transport + 4..].first_chunk_mut() {
                    let more = u32::try_from(range.start).unwrap_or(u32::MAX);
                    *sequence = u32::from_be_bytes(*sequence).wrapping_add(more).to_be_bytes();
                }
                let is_last = range.end == self.payload;
                to[transport + TCP_FLAGS] &= if is_last { !0 } else { !(FIN | PSH) };
                to[transport + TCP_FLAGS] &= if segment == 0 { !0 } else { !CWR };
            }
        }
        put(to, place, [0; 2]);
        // Both headers have an even number of bytes.
        let checksum = pseudo.add(&to[transport..]).add(payload).checksum(offset);
        put(to, place, checksum);
    }

    /// The sum of the pseudo header of a segment with `len` bytes from the transport header on.
    fn pseudo_header(&self, network: usize, transport: usize, len: usize, place: usize) -> Sum {
        let protocol = if self.gso.kind == GsoKind::Udp { UDP } else { TCP };
        let (addresses, plain) = match self.is_ipv4 {
            true => (network + 12..network + IPV4_HEADER, true),
            false => (network + 8..network + IPV6_HEADER, transport == network + IPV6_HEADER),
        };
        if plain {
            return Sum::default().add(&self.headers[addresses]).add_u16(protocol.into()).add_u16(low_u16(len));
        }
        // With extension headers the final destination may be another one. The sender has the sum for all of the
        // packet in place: only the length differs.
        let all = low_u16(self.headers.len() - transport + self.payload);
        Sum::default().add_u16(number(self.headers, place)).add_u16(!all).add_u16(low_u16(len))
    }
}

#[cfg(test)]
mod tests;
