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
        (gso(GSO_TCPV4 | GSO_ECN, 7, 34, 16), packet(0, IPV4, &[&ipv4(0, TCP), &tcp(0)]), F_GUEST_TSO4 | F_GUEST_ECN),
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
