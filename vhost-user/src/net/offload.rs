//! What a header leaves to the device: a checksum, and cutting into segments. It is checked against the packet.
//!
//! Pure: bytes in, a description out. Lengths and places come from the packet's own headers, never from hints of the
//! guest.

use super::net_header::{DATA_VALID, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, NetHeader};

/// `VIRTIO_NET_F_CSUM`: the device makes checksums of what the guest sends.
pub const F_CSUM: u64 = 1;
/// `VIRTIO_NET_F_HOST_TSO4`: the device cuts TCP in IPv4.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// `VIRTIO_NET_F_HOST_TSO6`.
pub const F_HOST_TSO6: u64 = 1 << 12;
/// `VIRTIO_NET_F_HOST_ECN`: it does so also with CWR set.
pub const F_HOST_ECN: u64 = 1 << 13;
/// `VIRTIO_NET_F_GUEST_CSUM`: the guest makes checksums of what it receives.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// `VIRTIO_NET_F_GUEST_TSO4`: the guest takes TCP in IPv4 that is not cut.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// `VIRTIO_NET_F_GUEST_TSO6`.
pub const F_GUEST_TSO6: u64 = 1 << 8;
/// `VIRTIO_NET_F_GUEST_ECN`: it does so also with CWR set.
pub const F_GUEST_ECN: u64 = 1 << 9;
/// `VIRTIO_NET_F_HOST_USO`: the device cuts UDP.
pub const F_HOST_USO: u64 = 1 << 56;

/// Most segments of a packet: 64 KiB at the least segment size of Linux, 48 bytes (`TCP_MIN_SND_MSS`). More would be
/// work that the guest does not pay for.
pub const MAX_SEGMENTS: usize = 1366;
/// Most bytes of all headers of a packet that is cut. Each segment has them.
const MAX_HEADERS: usize = 256;
/// Most extension headers of an IPv6 packet that is cut.
const MAX_EXTENSIONS: usize = 8;

const ADDRESSES: usize = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 2] = [0x8100, 0x88a8];
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Bytes of a TCP header without options, and where its checksum is.
const TCP_HEADER: usize = 20;
pub(super) const TCP_CHECKSUM: u16 = 16;
const UDP_HEADER: usize = 8;
pub(super) const UDP_CHECKSUM: u16 = 6;

/// A checksum to be made: the Internet checksum of the bytes from `start` on. A sum of the pseudo header is there
/// already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// First byte that it covers. It covers all to the end.
    pub start: u16,
    /// Where it is put, from `start` on. Both bytes are in the packet.
    pub offset: u16,
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP in IPv4.
    Tcp4,
    /// TCP in IPv6.
    Tcp6,
    /// UDP in either.
    Udp,
}

/// A packet to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What it is.
    pub kind: GsoKind,
    /// Whether CWR is set, which the first segment keeps alone.
    pub ecn: bool,
    /// Bytes of a segment's payload, not zero.
    pub size: u16,
    /// First byte of the IP header.
    pub network: u16,
    /// First byte of the TCP or UDP header.
    pub transport: u16,
    /// First byte of the payload: all before it goes in front of each segment.
    pub payload: u16,
}

/// What is left to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// A checksum is to be made.
    pub checksum: Option<Checksum>,
    /// The packet is to be cut. Then there is a checksum, too.
    pub gso: Option<Gso>,
    /// The sender vouches for the checksum.
    pub is_valid: bool,
}

impl Offload {
    /// The header that leaves this to a receiver.
    pub fn header(&self) -> NetHeader {
        let mut header = NetHeader::PLAIN;
        if let Some(Checksum { start, offset }) = self.checksum {
            (header.flags, header.csum_start, header.csum_offset) = (NEEDS_CSUM, start, offset);
        }
        if let Some(gso) = self.gso {
            header.gso_type = match gso.kind {
                GsoKind::Tcp4 => GSO_TCPV4,
                GsoKind::Tcp6 => GSO_TCPV6,
                GsoKind::Udp => GSO_UDP_L4,
            } | if gso.ecn { GSO_ECN } else { 0 };
            (header.gso_size, header.hdr_len) = (gso.size, gso.payload);
        }
        header
    }
}

/// Why a header is refused. The packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The offload was not negotiated, or is none.
    #[error("an offload that was not negotiated (flags {flags:#x}, GSO type {gso_type:#x})")]
    NotNegotiated {
        /// The header's flags.
        flags: u8,
        /// The header's GSO type.
        gso_type: u8,
    },
    /// The checksum's place is not in the packet.
    #[error("a checksum at {start} + {offset} in a packet of {len} bytes")]
    Checksum {
        /// Where it begins.
        start: u16,
        /// Where it is put.
        offset: u16,
        /// Bytes of the packet.
        len: usize,
    },
    /// A packet to be cut has no checksum to be made.
    #[error("segments without checksum")]
    NoChecksum,
    /// Segments would have no bytes, or be too many.
    #[error("segments of {size} bytes of {payload}")]
    Size {
        /// Bytes of a segment.
        size: u16,
        /// Bytes of them all.
        payload: usize,
    },
    /// The packet is not what the GSO type says, or its headers don't agree with the checksum's place.
    #[error("a packet that is not of its GSO type {gso_type:#x}")]
    Packet {
        /// The header's GSO type.
        gso_type: u8,
    },
}

/// Which offloads a guest may leave to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadRules(u64);

impl OffloadRules {
    /// Of the feature bits that both sides have.
    pub fn of_bits(features: u64) -> Self {
        Self(features)
    }

    fn has(self, feature: u64) -> bool {
        self.0 & feature != 0
    }

    /// Whether the guest may leave anything to the device. If not, headers of what it sends mean nothing.
    #[inline(always)]
    pub fn is_any(self) -> bool {
        self.has(F_CSUM)
    }

    /// Whether the guest receives a packet of which this much is left to do.
    pub fn lets_pass(self, offload: &Offload) -> bool {
        let gso = offload.gso.is_none_or(|gso| {
            let kind = match gso.kind {
                GsoKind::Tcp4 => self.has(F_GUEST_TSO4),
                GsoKind::Tcp6 => self.has(F_GUEST_TSO6),
                GsoKind::Udp => false,
            };
            kind && (!gso.ecn || self.has(F_GUEST_ECN))
        });
        gso && (offload.checksum.is_none() || self.has(F_GUEST_CSUM))
    }

    /// What the header leaves to the device for a packet of `len` bytes. `start` is the beginning of the packet. All
    /// headers of a packet that is cut must be in it.
    ///
    /// # Errors
    /// It is not what the device has offered, or not what the packet is.
    #[inline]
    pub fn check(self, header: &NetHeader, start: &[u8], len: usize) -> Result<Offload, OffloadError> {
        if header.is_plain() {
            return Ok(Offload { is_valid: header.flags & DATA_VALID != 0, ..Offload::default() });
        }
        self.check_offload(header, start, len)
    }

    fn check_offload(self, header: &NetHeader, start: &[u8], len: usize) -> Result<Offload, OffloadError> {
        let NetHeader { flags, gso_type, csum_start, csum_offset, .. } = *header;
        let refused = OffloadError::NotNegotiated { flags, gso_type };
        if flags & NEEDS_CSUM == 0 {
            return Err(OffloadError::NoChecksum);
        }
        if !self.has(F_CSUM) {
            return Err(refused);
        }
        let checksum = Checksum { start: csum_start, offset: csum_offset };
        if usize::from(csum_start) + usize::from(csum_offset) + 2 > len {
            return Err(OffloadError::Checksum { start: csum_start, offset: csum_offset, len });
        }
        if gso_type == GSO_NONE {
            return Ok(Offload { checksum: Some(checksum), ..Offload::default() });
        }
        let ecn = gso_type & GSO_ECN != 0;
        let (kind, feature) = match gso_type & !GSO_ECN {
            GSO_TCPV4 => (GsoKind::Tcp4, F_HOST_TSO4),
            GSO_TCPV6 => (GsoKind::Tcp6, F_HOST_TSO6),
            GSO_UDP_L4 if !ecn => (GsoKind::Udp, F_HOST_USO),
            _ => return Err(refused),
        };
        if !self.has(feature) || ecn && !self.has(F_HOST_ECN) {
            return Err(refused);
        }
        let start = &start[..start.len().min(len).min(MAX_HEADERS)];
        let places = places(kind, start).filter(|places| places.transport == usize::from(csum_start));
        let wanted = if kind == GsoKind::Udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        let Places { network, transport, payload } =
            places.filter(|_| csum_offset == wanted).ok_or(OffloadError::Packet { gso_type })?;
        let (size, bytes) = (header.gso_size, len - payload);
        if size == 0 || bytes.div_ceil(size.into()) > MAX_SEGMENTS {
            return Err(OffloadError::Size { size, payload: bytes });
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most `MAX_HEADERS`")]
        let [network, transport, payload] = [network, transport, payload].map(|place| place as u16);
        let gso = Gso { kind, ecn, size, network, transport, payload };
        Ok(Offload { checksum: Some(checksum), gso: Some(gso), is_valid: false })
    }
}

/// First bytes of a packet's parts.
struct Places {
    network: usize,
    transport: usize,
    payload: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

/// Where the parts of a packet are. None if it is not of that kind, or ends before its payload.
fn places(kind: GsoKind, packet: &[u8]) -> Option<Places> {
    let mut at = ADDRESSES;
    while TAGS.contains(&u16_at(packet, at)?) && at < ADDRESSES + 8 {
        at += 4;
    }
    let (ether_type, network) = (u16_at(packet, at)?, at + 2);
    let is_v4 = match kind {
        GsoKind::Tcp4 => true,
        GsoKind::Tcp6 => false,
        GsoKind::Udp => ether_type == IPV4,
    };
    if ether_type != if is_v4 { IPV4 } else { IPV6 } {
        return None;
    }
    let protocol = if kind == GsoKind::Udp { UDP } else { TCP };
    let ip = packet.get(network..)?;
    let transport = network + if is_v4 { end_of_ipv4(ip, protocol)? } else { end_of_ipv6(ip, protocol)? };
    let payload = transport
        + match protocol {
            UDP => UDP_HEADER,
            _ => usize::from(packet.get(transport + 12)? >> 4) * 4,
        };
    let shortest = if protocol == UDP { UDP_HEADER } else { TCP_HEADER };
    (payload >= transport + shortest && payload <= packet.len()).then_some(Places { network, transport, payload })
}

/// Bytes of the header of an IPv4 packet that is whole and has that protocol.
fn end_of_ipv4(ip: &[u8], protocol: u8) -> Option<usize> {
    let header = ip.first_chunk::<20>()?;
    let len = usize::from(header[0] & 0xf) * 4;
    // The rest of the word are the flags DF and the reserved one.
    let is_fragment = u16_at(ip, 6)? & 0x3fff != 0;
    (header[0] >> 4 == 4 && len >= 20 && !is_fragment && header[9] == protocol).then_some(len)
}

/// Bytes of the headers of an IPv6 packet before the one of that protocol.
fn end_of_ipv6(ip: &[u8], protocol: u8) -> Option<usize> {
    let header = ip.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (mut next, mut at) = (header[6], 40);
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            _ if next == protocol => return Some(at),
            // Hop-by-hop options, routing, destination options. A fragment is not cut.
            0 | 43 | 60 => {
                let [following, len] = *ip.get(at..)?.first_chunk()?;
                at += (usize::from(len) + 1) * 8;
                next = following;
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests;
