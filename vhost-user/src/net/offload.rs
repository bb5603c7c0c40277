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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: OffloadRules = OffloadRules(u64::MAX);

    /// The headers of a packet: Ethernet with tags, then this.
    fn packet(tags: usize, ether_type: u16, rest: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![2; ADDRESSES];
        packet.extend([0x81, 0, 0, 7].repeat(tags));
        packet.extend(ether_type.to_be_bytes());
        packet.extend(rest.concat());
        packet
    }

    fn ipv4(options: usize, protocol: u8) -> Vec<u8> {
        let mut header = vec![0; 20 + options * 4];
        (header[0], header[9]) = (0x45 + options as u8, protocol);
        header
    }

    fn ipv6(next: u8, extensions: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 40];
        (header[0], header[6]) = (0x60, next);
        [header, extensions.to_vec()].concat()
    }

    fn tcp(options: u8) -> Vec<u8> {
        let mut header = vec![0; 20 + usize::from(options) * 4];
        header[12] = (5 + options) << 4;
        header
    }

    fn gso(gso_type: u8, size: u16, start: usize, offset: u16) -> NetHeader {
        let csum_start = start as u16;
        NetHeader { flags: 1, gso_type, gso_size: size, csum_start, csum_offset: offset, ..NetHeader::PLAIN }
    }

    #[test]
    fn packets_to_be_cut_are_described_by_their_own_headers() {
        let found = |header: NetHeader, packet: &[u8]| ALL.check(&header, packet, packet.len() + 5000);
        let places = |kind, network, transport, payload| {
            let checksum = Checksum { start: transport, offset: if kind == GsoKind::Udp { 6 } else { 16 } };
            let gso = Gso { kind, ecn: false, size: 1000, network, transport, payload };
            Ok(Offload { checksum: Some(checksum), gso: Some(gso), is_valid: false })
        };
        let plain = packet(0, IPV4, &[&ipv4(0, TCP), &tcp(0)]);
        assert_eq!(found(gso(GSO_TCPV4, 1000, 34, 16), &plain), places(GsoKind::Tcp4, 14, 34, 54));
        let tagged = packet(2, IPV4, &[&ipv4(3, TCP), &tcp(10)]);
        assert_eq!(found(gso(GSO_TCPV4, 1000, 54, 16), &tagged), places(GsoKind::Tcp4, 22, 54, 114));
        let v6 = packet(1, IPV6, &[&ipv6(TCP, &[]), &tcp(0)]);
        assert_eq!(found(gso(GSO_TCPV6, 1000, 58, 16), &v6), places(GsoKind::Tcp6, 18, 58, 78));
        let extended = ipv6(0, &[&[60, 0][..], &[0; 6], &[TCP, 1], &[0; 14]].concat());
        let v6 = packet(0, IPV6, &[&extended, &tcp(0)]);
        assert_eq!(found(gso(GSO_TCPV6, 1000, 78, 16), &v6), places(GsoKind::Tcp6, 14, 78, 98));
        let udp = packet(0, IPV6, &[&ipv6(UDP, &[]), &[0; 8]]);
        assert_eq!(found(gso(GSO_UDP_L4, 1000, 54, 6), &udp), places(GsoKind::Udp, 14, 54, 62));
        let ecn = found(gso(GSO_TCPV4 | GSO_ECN, 1000, 34, 16), &plain).unwrap();
        assert!(ecn.gso.unwrap().ecn);
    }

    #[test]
    fn packets_that_are_not_of_their_gso_type_are_refused() {
        let refused = |header: NetHeader, packet: &[u8]| {
            let error = OffloadError::Packet { gso_type: header.gso_type };
            assert_eq!(ALL.check(&header, packet, packet.len() + 5000), Err(error));
        };
        let (v4, v6) = (gso(GSO_TCPV4, 1000, 34, 16), gso(GSO_TCPV6, 1000, 54, 16));
        let good = packet(0, IPV4, &[&ipv4(0, TCP), &tcp(0)]);
        refused(v6, &good);
        refused(NetHeader { csum_start: 38, ..v4 }, &good);
        refused(NetHeader { csum_offset: 6, ..v4 }, &good);
        refused(gso(GSO_UDP_L4, 1000, 34, 6), &good);
        for end in 0..good.len() {
            refused(v4, &good[..end]);
        }
        // A fragment; lengths of headers that are none; another version of IP; another protocol.
        for (at, byte) in [(20, 0x20), (21, 1), (14, 0x44), (14, 0x65), (23, UDP), (46, 0x40)] {
            let mut wrong = good.clone();
            wrong[at] = byte;
            refused(v4, &wrong);
        }
        refused(v6, &packet(0, IPV6, &[&ipv6(44, &[0; 8]), &tcp(0)]));
        refused(v6, &packet(0, IPV6, &[&ipv6(0, &[0, 0, 0, 0, 0, 0, 0, 0].repeat(12)), &tcp(0)]));
    }

    #[test]
    fn sizes_and_checksums_that_are_none_are_refused() {
        let good = packet(0, IPV4, &[&ipv4(0, TCP), &tcp(0)]);
        let check = |header: NetHeader, len| ALL.check(&header, &good, len);
        let tcp = gso(GSO_TCPV4, 48, 34, 16);
        assert!(check(tcp, 54 + 1366 * 48).is_ok());
        let error = OffloadError::Size { size: 48, payload: 1366 * 48 + 1 };
        assert_eq!(check(tcp, 54 + 1366 * 48 + 1), Err(error));
        assert_eq!(check(NetHeader { gso_size: 0, ..tcp }, 100), Err(OffloadError::Size { size: 0, payload: 46 }));
        assert_eq!(check(NetHeader { flags: 0, ..tcp }, 100), Err(OffloadError::NoChecksum));
        let sum = |start, offset| NetHeader { flags: 1, csum_start: start, csum_offset: offset, ..NetHeader::PLAIN };
        assert!(check(sum(34, 6), 42).is_ok());
        assert_eq!(check(sum(34, 6), 41), Err(OffloadError::Checksum { start: 34, offset: 6, len: 41 }));
        let far = OffloadError::Checksum { start: u16::MAX, offset: u16::MAX, len: 41 };
        assert_eq!(check(sum(u16::MAX, u16::MAX), 41), Err(far));
    }

    #[test]
    fn a_guest_receives_what_it_has_negotiated_and_the_header_says_it() {
        let cases = [
            (gso(GSO_TCPV4, 1000, 34, 16), packet(0, IPV4, &[&ipv4(0, TCP), &tcp(0)]), F_GUEST_TSO4),
            (gso(GSO_TCPV6, 1000, 54, 16), packet(0, IPV6, &[&ipv6(TCP, &[]), &tcp(0)]), F_GUEST_TSO6),
            (
                gso(GSO_TCPV4 | GSO_ECN, 7, 34, 16),
                packet(0, IPV4, &[&ipv4(0, TCP), &tcp(0)]),
                F_GUEST_TSO4 | F_GUEST_ECN,
            ),
            (gso(GSO_NONE, 0, 34, 6), packet(0, IPV4, &[&ipv4(0, UDP), &[0; 8]]), 0),
        ];
        for (header, packet, needs) in cases {
            let offload = ALL.check(&header, &packet, packet.len() + 3000).unwrap();
            let hdr_len = if header.gso_type == GSO_NONE { 0 } else { packet.len() as u16 };
            assert_eq!(offload.header(), NetHeader { hdr_len, ..header });
            let needs = needs | F_GUEST_CSUM;
            assert!(OffloadRules::of_bits(needs).lets_pass(&offload));
            for bit in (0..64).map(|bit| 1 << bit).filter(|bit| needs & bit != 0) {
                assert!(!OffloadRules::of_bits(!bit).lets_pass(&offload), "{header:?} without {bit:#x}");
            }
        }
        assert!(OffloadRules::of_bits(0).lets_pass(&Offload::default()));
        let udp = packet(0, IPV4, &[&ipv4(0, UDP), &[0; 8]]);
        let offload = ALL.check(&gso(GSO_UDP_L4, 1000, 34, 6), &udp, 5000).unwrap();
        assert!(!ALL.lets_pass(&offload), "no guest is offered it");
    }

    #[test]
    fn only_what_was_negotiated_is_taken() {
        let v4 = packet(0, IPV4, &[&ipv4(0, TCP), &tcp(0)]);
        let v6 = packet(0, IPV6, &[&ipv6(TCP, &[]), &tcp(0)]);
        let udp = packet(0, IPV4, &[&ipv4(0, UDP), &[0; 8]]);
        let cases = [
            (gso(GSO_TCPV4, 1000, 34, 16), &v4, F_HOST_TSO4),
            (gso(GSO_TCPV4 | GSO_ECN, 1000, 34, 16), &v4, F_HOST_TSO4 | F_HOST_ECN),
            (gso(GSO_TCPV6, 1000, 54, 16), &v6, F_HOST_TSO6),
            (gso(GSO_UDP_L4, 1000, 34, 6), &udp, F_HOST_USO),
            (gso(GSO_NONE, 0, 34, 6), &udp, 0),
        ];
        for (header, packet, needs) in cases {
            let needs = needs | F_CSUM;
            let check = |features| OffloadRules::of_bits(features).check(&header, packet, packet.len());
            assert!(check(needs).is_ok(), "{header:?}");
            let bits = (0..64).map(|bit| 1 << bit).filter(|bit| needs & bit != 0);
            for bit in bits {
                let error = OffloadError::NotNegotiated { flags: 1, gso_type: header.gso_type };
                assert_eq!(check(!bit), Err(error), "without {bit:#x}");
            }
        }
        // Types that are not offered, and the flag where it means nothing.
        for gso_type in [2, 3, 6, GSO_UDP_L4 | GSO_ECN, 0x20, 0x40, GSO_ECN] {
            assert!(ALL.check(&gso(gso_type, 1000, 34, 16), &v4, 5000).is_err());
        }
        let valid = NetHeader { flags: DATA_VALID, ..NetHeader::PLAIN };
        assert_eq!(OffloadRules(0).check(&valid, &v4, 54), Ok(Offload { is_valid: true, ..Offload::default() }));
    }

    proptest! {
        #[test]
        fn whatever_a_header_says_its_description_is_within_the_packet(
            bytes: [u8; 12], mut start in prop::collection::vec(any::<u8>(), 0..300), kind in 0_usize..3, more in 0_usize..70_000,
        ) {
            // Most packets begin as one that can be cut.
            let heads = [packet(0, IPV4, &[&ipv4(0, TCP)]), packet(1, IPV6, &[&ipv6(TCP, &[])]), Vec::new()];
            let both = start.len().min(heads[kind].len());
            start[..both].copy_from_slice(&heads[kind][..both]);
            let mut header = NetHeader::of_bytes(bytes);
            if kind < 2 {
                (header.csum_start, header.csum_offset, header.flags) = ([34, 58][kind], 16, 1);
                header.gso_type = [GSO_TCPV4, GSO_TCPV6][kind];
            }
            let len = start.len() + more;
            if let Ok(offload) = ALL.check(&header, &start, len) {
                if let Some(Checksum { start, offset }) = offload.checksum {
                    prop_assert!(usize::from(start) + usize::from(offset) + 2 <= len);
                }
                if let Some(gso) = offload.gso {
                    prop_assert!(offload.checksum.is_some_and(|sum| sum.start == gso.transport));
                    prop_assert!(gso.network < gso.transport && gso.transport < gso.payload);
                    prop_assert!(usize::from(gso.payload) <= start.len().min(MAX_HEADERS));
                    prop_assert!((len - usize::from(gso.payload)).div_ceil(gso.size.into()) <= MAX_SEGMENTS);
                }
            }
        }
    }
}
