//! The parser on arbitrary bytes and on frames made of parts, and against a slow second reading of the tags.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::engine::rule::Key;

const DST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SRC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Ethernet header with tags (TPID, TCI), then EtherType and payload.
pub(crate) fn ethernet(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [DST, SRC].concat();
    for (tpid, tci) in tags {
        frame.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// IPv4 from 10.0.0.1 to 10.0.0.2. `options` is in words of 4 bytes, `place` is flags and fragment offset.
fn ipv4(protocol: u8, options: usize, place: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + 4 * options;
    let mut ip = vec![0x40 | (header / 4) as u8, 0xb8];
    ip.extend(((header + payload.len()) as u16).to_be_bytes());
    ip.extend([0, 7]);
    ip.extend(place.to_be_bytes());
    ip.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    ip.extend(vec![1; 4 * options]);
    ip.extend(payload);
    ip
}

/// IPv6 from fe80::1 to fe80::2. `chain` has the bytes of the extension headers, `next` is the first next header.
fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x6b, 0x81, 0x23, 0x45];
    ip.extend((rest.len() as u16).to_be_bytes());
    ip.extend([next, 255]);
    for last in [1, 2] {
        ip.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    ip.extend(rest);
    ip
}

fn tcp(src: u16, dst: u16, flags: u8) -> Vec<u8> {
    let mut header = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    header
}

fn udp(src: u16, dst: u16) -> Vec<u8> {
    [src.to_be_bytes(), dst.to_be_bytes(), [0, 8], [0, 0]].concat()
}

/// A UDP packet with that many bytes behind its headers.
pub(crate) fn udp_in_ipv4(len: usize) -> Vec<u8> {
    ipv4(17, 0, 0, &[udp(1, 2), vec![0; len]].concat())
}

/// The same in IPv6.
pub(crate) fn udp_in_ipv6(len: usize) -> Vec<u8> {
    ipv6(17, &[udp(1, 2), vec![0; len]].concat())
}

fn headers(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Headers {
    parse(&ethernet(tags, ethertype, payload)).unwrap()
}

#[test]
fn every_transport_of_both_ip_versions_is_read() {
    let transports = [
        (6, 6, tcp(1234, 80, 0x12), L4::Tcp { src: 1234, dst: 80, flags: 0x12 }),
        (17, 17, udp(53, 5353), L4::Udp { src: 53, dst: 5353 }),
        (1, 2, vec![8, 3, 0, 0], L4::Icmp { kind: 8, code: 3 }),
        (2, 58, vec![135, 1, 0, 0], L4::Icmpv6 { kind: 135, code: 1 }),
        (50, 50, vec![1, 2, 3], L4::Other),
    ];
    for (v4, v6, bytes, l4) in &transports {
        for options in [0, 1, 10] {
            let h = headers(&[], ETHERTYPE_IPV4, &ipv4(*v4, options, 0x4000, bytes));
            let expected = if *v4 == 2 { L4::Other } else { *l4 };
            let ip = Ip4 {
                src: Ipv4Addr::new(10, 0, 0, 1),
                dst: Ipv4Addr::new(10, 0, 0, 2),
                protocol: *v4,
                tos: 0xb8,
                ttl: 64,
                fragment: Fragment::Whole,
            };
            assert_eq!((h.l3, h.l4, h.malformed), (L3::V4(ip), expected, None));
        }
        let h = headers(&[(TPID_CTAG, 5)], ETHERTYPE_IPV6, &ipv6(*v6, bytes));
        let expected = if *v6 == 2 { L4::Other } else { *l4 };
        let ip = Ip6 {
            src: "fe80::1".parse::<Ipv6Addr>().unwrap(),
            dst: "fe80::2".parse::<Ipv6Addr>().unwrap(),
            protocol: *v6,
            traffic_class: 0xb8,
            flow_label: 0x12345,
            hop_limit: 255,
            fragment: Fragment::Whole,
        };
        assert_eq!((h.l3, h.l4, h.malformed), (L3::V6(ip), expected, None));
    }
}

#[test]
fn ipv6_extension_headers_are_followed_and_bounded() {
    let l4 = L4::Udp { src: 1, dst: 2 };
    // Hop-by-hop (8 bytes), routing (16), destination options (8), authentication (12), an atomic fragment, then UDP.
    let mut chain = vec![43, 0, 0, 0, 0, 0, 0, 0];
    chain.extend([60, 1].into_iter().chain([0; 14]));
    chain.extend([51, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend([44, 1].into_iter().chain([0; 10]));
    chain.extend([17, 0, 0, 0, 0, 0, 0, 1]);
    chain.extend(udp(1, 2));
    let h = headers(&[], ETHERTYPE_IPV6, &ipv6(0, &chain));
    assert_eq!((h.l4, h.malformed), (l4, None));
    for cut in 1..chain.len() - 8 {
        let h = headers(&[], ETHERTYPE_IPV6, &ipv6(0, &chain[..cut]));
        assert_eq!(h.l4, L4::Other, "{cut}");
        assert!(matches!(h.malformed, Some(Malformed::Ipv6Extensions | Malformed::L4Truncated)), "{cut}");
    }
    for (count, malformed) in [(MAX_EXTENSIONS, None), (MAX_EXTENSIONS + 1, Some(Malformed::Ipv6Extensions))] {
        let mut chain: Vec<u8> =
            (1..=count).flat_map(|n| [if n == count { 17 } else { 60 }, 0, 0, 0, 0, 0, 0, 0]).collect();
        chain.extend(udp(1, 2));
        let h = headers(&[], ETHERTYPE_IPV6, &ipv6(60, &chain));
        assert_eq!((h.l4 == l4, h.malformed), (malformed.is_none(), malformed));
    }
    // No next header, and a jumbogram's length 0.
    assert_eq!(headers(&[], ETHERTYPE_IPV6, &ipv6(59, &[])).malformed, None);
    let mut jumbo = ipv6(0, &[&[17, 0, 0, 0, 0, 0, 0, 0][..], &udp(1, 2)].concat());
    jumbo[4..6].fill(0);
    assert_eq!(headers(&[], ETHERTYPE_IPV6, &jumbo).l4, l4);
}

#[test]
fn all_fragments_of_a_datagram_hash_alike_and_without_ports() {
    let v4 = |place, payload: &[u8]| headers(&[], ETHERTYPE_IPV4, &ipv4(17, 0, place, payload));
    let (first, later, last) = (v4(0x2000, &udp(1, 2)), v4(0x2001, &[9; 24]), v4(0x0004, &[8]));
    assert_eq!(first.l4, L4::Udp { src: 1, dst: 2 });
    assert_eq!((later.l4, last.malformed), (L4::Other, None));
    assert!(first.flow_hash == later.flow_hash && later.flow_hash == last.flow_hash);
    assert_eq!(first.flow_hash, v4(0x2000, &udp(3, 4)).flow_hash);
    assert_ne!(first.flow_hash, v4(0, &udp(1, 2)).flow_hash);

    // In IPv6 only the first fragment has the header behind the options.
    let v6 = |next: u8, place: u16, payload: &[u8]| {
        let mut rest = vec![next, 0];
        rest.extend(place.to_be_bytes());
        rest.extend([0, 0, 0, 7]);
        rest.extend(payload);
        headers(&[], ETHERTYPE_IPV6, &ipv6(44, &rest))
    };
    let options = [&[17, 0, 0, 0, 0, 0, 0, 0][..], &udp(1, 2)].concat();
    let (first, later) = (v6(60, 1, &options), v6(60, 16 << 3, &[60; 16]));
    assert_eq!(first.l4, L4::Udp { src: 1, dst: 2 });
    assert_eq!((later.l4, later.malformed), (L4::Other, None));
    assert_eq!(first.flow_hash, later.flow_hash);
}

#[test]
#[cfg_attr(miri, ignore = "thousands of hashes")]
fn flow_hash_tells_flows_apart_and_ignores_what_is_not_the_flow() {
    let frame = |tags: &[(u16, u16)], port, flags| {
        flow_hash(&ethernet(tags, ETHERTYPE_IPV4, &ipv4(6, 0, 0, &tcp(port, 80, flags))))
    };
    assert_eq!(frame(&[(TPID_CTAG, 5)], 1, 0x10), frame(&[(TPID_CTAG, 0xe005)], 1, 0x18), "PCP and flags");
    assert_ne!(frame(&[(TPID_CTAG, 5)], 1, 0), frame(&[(TPID_CTAG, 6)], 1, 0));
    let mut queues = [0; 8];
    (0..8000).for_each(|port| queues[frame(&[], port, 0) as usize % 8] += 1);
    assert!(queues.iter().all(|n| (800..1200).contains(n)), "{queues:?}");
}

#[test]
fn lengths_are_believed_downwards_only() {
    // Ethernet padding behind the IP packet is no UDP header.
    let mut padded = ipv4(17, 0, 0, &[]);
    padded.extend([0; 26]);
    let h = headers(&[], ETHERTYPE_IPV4, &padded);
    assert_eq!((h.l4, h.malformed), (L4::Other, Some(Malformed::L4Truncated)));
    // A total length beyond the frame is noted, and what is there is read.
    let mut cut = ipv4(17, 0, 0, &[&udp(1, 2)[..], &[0; 8]].concat());
    cut.truncate(28);
    let h = headers(&[], ETHERTYPE_IPV4, &cut);
    assert_eq!((h.l4, h.malformed), (L4::Udp { src: 1, dst: 2 }, Some(Malformed::IpLength)));
    // Other faults.
    let mut bad = ipv4(17, 0, 0, &udp(1, 2));
    for (first, malformed) in
        [(0x44, Malformed::Ipv4HeaderLength), (0x4f, Malformed::Ipv4HeaderLength), (0x65, Malformed::IpVersion)]
    {
        bad[0] = first;
        assert_eq!(headers(&[], ETHERTYPE_IPV4, &bad).malformed, Some(malformed));
    }
    assert_eq!(headers(&[], ETHERTYPE_IPV6, &[0x60; 39]).malformed, Some(Malformed::IpTruncated));
}

#[test]
fn arp_of_ethernet_and_ipv4_is_read_and_other_arp_left_alone() {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 2];
    arp.extend([&SRC[..], &[10, 0, 0, 1], &DST, &[10, 0, 0, 2]].concat());
    for hardware in [1, 6] {
        arp[1] = hardware;
        let L3::Arp(read) = headers(&[(TPID_STAG, 1), (TPID_CTAG, 2)], ETHERTYPE_ARP, &arp).l3 else { panic!() };
        assert_eq!(
            (read.operation, read.sender_mac, read.sender_ip),
            (2, MacAddr::new(SRC), Ipv4Addr::new(10, 0, 0, 1))
        );
        assert_eq!((read.target_mac, read.target_ip), (MacAddr::new(DST), Ipv4Addr::new(10, 0, 0, 2)));
    }
    assert_eq!(headers(&[], ETHERTYPE_ARP, &arp[..27]).malformed, Some(Malformed::ArpTruncated));
    arp[1] = 32;
    let h = headers(&[], ETHERTYPE_RARP, &arp);
    assert_eq!((h.l3, h.malformed), (L3::Other, None));
}

#[test]
fn frames_too_short_for_layer_2_are_refused() {
    let frame = ethernet(&[(TPID_CTAG, 5)], 0x0800, &[]);
    for len in 0..14 {
        assert_eq!(parse(&frame[..len]), Err(DropReason::FrameTooShort));
    }
    for len in 14..18 {
        assert_eq!(parse(&frame[..len]), Err(DropReason::VlanMalformed));
    }
    assert!(parse(&frame).is_ok());
    let double = ethernet(&[(TPID_STAG, 5), (TPID_CTAG, 6)], 0x0800, &[]);
    assert_eq!(parse(&double[..20]).unwrap().malformed, Some(Malformed::InnerTagTruncated));
}

/// Tags, EtherType and payload offset, read the slow way.
fn tags_slowly(frame: &[u8]) -> Option<(Vec<(u16, u16)>, u16)> {
    let mut words = frame.get(12..)?.chunks(2).map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
    let mut tags = Vec::new();
    loop {
        let word = words.next()??;
        if (word != 0x8100 && word != 0x88a8) || tags.len() == 2 {
            return Some((tags, word));
        }
        tags.push((word, words.next()??));
    }
}

/// Bytes that often look like headers.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), Just(0x8035), Just(0x8100), any::<u16>()];
    let tags = prop::collection::vec((prop_oneof![Just(TPID_CTAG), Just(TPID_STAG)], any::<u16>()), 0..4);
    let first = prop_oneof![Just(0x45_u8), Just(0x60), Just(0x4f), any::<u8>()];
    let next = prop_oneof![Just(0_u8), Just(43), Just(44), Just(51), Just(60), Just(6), Just(17), any::<u8>()];
    let payload = (first, next, prop::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..120));
    let whole = (tags, ethertype, payload).prop_map(|(tags, ethertype, (first, next, mut payload))| {
        if payload.len() > 41 {
            (payload[0], payload[6], payload[9], payload[40]) = (first, next, next, next);
        }
        ethernet(&tags, ethertype, &payload)
    });
    (whole, any::<prop::sample::Index>(), prop::bool::weighted(0.3)).prop_map(|(mut frame, at, cut)| {
        if cut {
            frame.truncate(at.index(frame.len()));
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    #[cfg_attr(miri, ignore = "cases of any length take minutes")]
    fn any_bytes_are_parsed_without_a_panic(
        frame in prop_oneof![plausible(), prop::collection::vec(any::<u8>(), 0..200)]
    ) {
        let (deep, shallow) = (parse(&frame), parse_l2(&frame));
        prop_assert_eq!(deep.map(|h| (h.dst, h.src, h.outer)), shallow.map(|l2| (l2.dst, l2.src, l2.tag)));
        prop_assert_eq!(flow_hash(&frame), deep.map_or(0, |h| h.flow_hash));
    }

    #[test]
    fn tags_agree_with_a_slow_second_reading(frame in plausible()) {
        let Ok(h) = parse(&frame) else {
            prop_assert!(tags_slowly(&frame).is_none());
            return Ok(());
        };
        let tags: Vec<_> = h.outer.into_iter().chain(h.inner).map(|tag| (tag.tpid, tag.tci)).collect();
        match tags_slowly(&frame) {
            Some((expected, ethertype)) => {
                prop_assert_eq!(h.outer.is_some_and(|tag| tag.stacked), expected.len() == 2);
                prop_assert_eq!((tags, h.ethertype), (expected, ethertype));
            }
            None => prop_assert_eq!(h.malformed, Some(Malformed::InnerTagTruncated)),
        }
    }

    /// Plain packets, and what becomes of them when some bytes are changed.
    #[test]
    fn a_key_read_the_short_way_is_the_key_of_all_headers(
        tags in prop::collection::vec((prop_oneof![Just(TPID_CTAG), Just(TPID_STAG)], any::<u16>()), 0..3),
        v6: bool,
        transport in prop_oneof![Just((6, tcp(1234, 80, 2))), Just((17, udp(53, 5353))), Just((1, vec![8, 0, 0, 0]))],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        padding in -12_isize..12,
    ) {
        let (protocol, bytes) = transport;
        let (ethertype, packet) =
            match v6 {
                true => (ETHERTYPE_IPV6, ipv6(protocol, &bytes)),
                false => (ETHERTYPE_IPV4, ipv4(protocol, 0, 0x4000, &bytes)),
            };
        let mut frame = ethernet(&tags, ethertype, &packet);
        let is_plain = tags.len() < 2 && protocol != 1 && changes.is_empty() && padding >= 0;
        for (at, byte) in &changes {
            let at = at.index(frame.len());
            frame[at] = *byte;
        }
        frame.resize(frame.len().saturating_add_signed(padding), 0xee);
        let Ok(l2) = parse_l2(&frame) else { return Ok(()) };
        prop_assert_eq!(Key::read(5, &frame, &l2), Key::of(5, &parse(&frame).unwrap()));
        if is_plain {
            prop_assert!(Plain::check(l2.ethertype, &frame[l2.payload_offset()..]).is_some());
        }
    }
}
