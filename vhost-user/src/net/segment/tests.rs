//! Segments against a model: what a receiver puts together is what was sent, and every checksum is right.

use proptest::prelude::*;

use super::*;

/// The checksum as RFC 1071 describes it, word by word. Zero for bytes that contain their right checksum.
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0_u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What a packet to be cut is made of.
#[derive(Clone, Debug)]
struct Shape {
    kind: GsoKind,
    is_v4: bool,
    tags: usize,
    ip_options: usize,
    tcp_options: usize,
    size: u16,
    payload: Vec<u8>,
    flags: u8,
    sequence: u32,
    id: u16,
    noise: u8,
}

/// Its headers, with a partial checksum, and where they are.
fn headers(shape: &Shape) -> (Vec<u8>, Gso) {
    let mut head = vec![shape.noise; 12];
    head.extend([0x81, 0, 0, 7].repeat(shape.tags));
    head.extend(if shape.is_v4 { [8, 0] } else { [0x86, 0xdd] });
    let network = head.len();
    let protocol = if shape.kind == GsoKind::Udp { 17 } else { 6 };
    let l4 = if shape.kind == GsoKind::Udp { 8 } else { 20 + 4 * shape.tcp_options };
    let len = l4 + shape.payload.len();
    let pseudo: u16;
    if shape.is_v4 {
        let mut ip = vec![1; 20 + 4 * shape.ip_options];
        ip[0] = 0x45 + shape.ip_options as u8;
        let total = (ip.len() + len) as u16;
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[4..6].copy_from_slice(&shape.id.to_be_bytes());
        (ip[6], ip[7], ip[9]) = (0x40, 0, protocol);
        ip[12..20].copy_from_slice(&[10, 0, 0, shape.noise, 192, 168, shape.noise, 2]);
        pseudo = !checksum(&[&ip[12..20], &[0, protocol], &(len as u16).to_be_bytes()]);
        head.extend(ip);
    } else {
        let mut ip = vec![0; 40];
        ip[0] = 0x60;
        let extension = 8 * shape.ip_options;
        ip[4..6].copy_from_slice(&((extension + len) as u16).to_be_bytes());
        ip[6] = if extension > 0 { 60 } else { protocol };
        ip[8..40].fill(shape.noise ^ 0x35);
        pseudo = !checksum(&[&ip[8..40], &[0, protocol], &(len as u16).to_be_bytes()]);
        head.extend(ip);
        if extension > 0 {
            head.extend([protocol, shape.ip_options as u8 - 1]);
            head.resize(network + 40 + extension, 0);
        }
    }
    let transport = head.len();
    let mut l4 = vec![shape.noise; l4];
    if shape.kind == GsoKind::Udp {
        l4[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        l4[6..8].copy_from_slice(&pseudo.to_be_bytes());
    } else {
        l4[4..8].copy_from_slice(&shape.sequence.to_be_bytes());
        (l4[12], l4[13]) = ((5 + shape.tcp_options as u8) << 4, shape.flags);
        l4[16..18].copy_from_slice(&pseudo.to_be_bytes());
    }
    head.extend(l4);
    let payload = head.len();
    let [network, transport, payload] = [network, transport, payload].map(|place| place as u16);
    (head, Gso { kind: shape.kind, ecn: false, size: shape.size, network, transport, payload })
}

fn shapes() -> impl Strategy<Value = Shape> {
    let kinds = prop_oneof![
        Just((GsoKind::Tcp4, true)),
        Just((GsoKind::Tcp6, false)),
        Just((GsoKind::Udp, true)),
        Just((GsoKind::Udp, false))
    ];
    let payload = prop::collection::vec(any::<u8>(), 1..9000);
    (kinds, 0_usize..3, 0_usize..4, 0_usize..11, 48_u16..3000, payload, any::<(u8, u32, u16, u8)>()).prop_map(
        |((kind, is_v4), tags, ip_options, tcp_options, size, payload, (flags, sequence, id, noise))| Shape {
            kind,
            is_v4,
            tags,
            ip_options,
            tcp_options,
            size,
            payload,
            flags,
            sequence,
            id,
            noise,
        },
    )
}

proptest! {
    #[test]
    fn a_receiver_finds_right_checksums_and_all_of_the_payload(shape in shapes()) {
        let (head, gso) = headers(&shape);
        let cutter = Cutter::new(&head, gso, shape.payload.len()).unwrap();
        let count = shape.payload.len().div_ceil(shape.size.into());
        prop_assert_eq!(cutter.segments(), count);
        let (network, transport) = (usize::from(gso.network), usize::from(gso.transport));
        let mut all = Vec::new();
        for segment in 0..count {
            let payload = &shape.payload[cutter.range(segment)];
            let mut header = vec![0; head.len()];
            cutter.write_headers(segment, payload, &mut header);
            prop_assert_eq!(&header[..network], &head[..network]);
            let ip = &header[network..transport];
            let rest = (header.len() - transport + payload.len()) as u16;
            let length = number(ip, if shape.is_v4 { 2 } else { 4 });
            let addresses = if shape.is_v4 { &ip[12..20] } else { &ip[8..40] };
            if shape.is_v4 {
                prop_assert_eq!(usize::from(length), ip.len() + usize::from(rest));
                prop_assert_eq!(checksum(&[ip]), 0);
                prop_assert_eq!(number(ip, 4), shape.id.wrapping_add(segment as u16));
            } else {
                prop_assert_eq!(usize::from(length), ip.len() - 40 + usize::from(rest));
            }
            let protocol = [0, if shape.kind == GsoKind::Udp { 17 } else { 6 }];
            let sum = checksum(&[addresses, &protocol, &rest.to_be_bytes(), &header[transport..], payload]);
            prop_assert_eq!(sum, 0);
            if shape.kind == GsoKind::Udp {
                prop_assert_eq!(number(&header, transport + 4), rest);
                prop_assert_ne!(number(&header, transport + 6), 0);
            } else {
                let sequence = u32::from_be_bytes(*header[transport + 4..].first_chunk().unwrap());
                prop_assert_eq!(sequence, shape.sequence.wrapping_add(all.len() as u32));
                let expected = match (segment == 0, segment == count - 1) {
                    (true, true) => shape.flags,
                    (true, false) => shape.flags & !0x09,
                    (false, true) => shape.flags & !0x80,
                    (false, false) => shape.flags & !0x89,
                };
                prop_assert_eq!(header[transport + 13], expected);
                prop_assert_eq!(&header[transport + 18..], &head[transport + 18..]);
            }
            all.extend_from_slice(payload);
        }
        prop_assert_eq!(all, shape.payload);
    }

    #[test]
    fn a_filled_checksum_is_right(shape in shapes()) {
        let (head, gso) = headers(&shape);
        let mut packet = [head, shape.payload].concat();
        let offset = if shape.kind == GsoKind::Udp { 6 } else { 16 };
        fill_checksum(&mut packet, Checksum { start: gso.transport, offset });
        let ip = &packet[usize::from(gso.network)..];
        let addresses = if shape.is_v4 { &ip[12..20] } else { &ip[8..40] };
        let protocol = [0, if shape.kind == GsoKind::Udp { 17 } else { 6 }];
        let covered = &packet[usize::from(gso.transport)..];
        prop_assert_eq!(checksum(&[addresses, &protocol, &(covered.len() as u16).to_be_bytes(), covered]), 0);
    }

    #[test]
    fn the_length_in_the_ip_header_can_be_put_back(shape in shapes(), payload in 0_usize..60_000) {
        let (mut head, gso) = headers(&shape);
        let original = head.clone();
        let before = replace_ip_length(&mut head, &gso, payload);
        let more = head.len() - usize::from(gso.network) + payload;
        let at = usize::from(gso.network) + if shape.is_v4 { 2 } else { 4 };
        prop_assert_eq!(usize::from(number(&head, at)), more - if shape.is_v4 { 0 } else { 40 });
        restore_ip_length(&mut head, &gso, before);
        prop_assert_eq!(head, original);
    }

    #[test]
    fn no_description_makes_it_panic(
        start in prop::collection::vec(any::<u8>(), 0..200),
        places: (u16, u16, u16), payload in 0_usize..70_000, size: u16, segment in 0_usize..2000, start_sum: u16, offset: u16,
    ) {
        let (network, transport, behind) = (places.0 % 250, places.1 % 250, places.2 % 250);
        for kind in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            let gso = Gso { kind, ecn: false, size, network, transport, payload: behind };
            if let Some(cutter) = Cutter::new(&start, gso, payload) {
                let bytes = vec![0; cutter.range(segment).len()];
                cutter.write_headers(segment, &bytes, &mut vec![0; behind.into()]);
            }
            let mut packet = start.clone();
            replace_ip_length(&mut packet, &gso, payload);
            fill_checksum(&mut packet, Checksum { start: start_sum % 250, offset: offset % 250 });
        }
    }
}

#[test]
fn a_checksum_of_zero_has_its_other_form_in_udp_only() {
    // The sum of the covered bytes is 0xffff, so the checksum is 0.
    for (offset, written) in [(6, 0xff), (16, 0), (2, 0)] {
        let mut packet = [0; 18];
        packet[4..6].fill(0xff);
        fill_checksum(&mut packet, Checksum { start: 0, offset });
        assert_eq!(packet[usize::from(offset)..][..2], [written; 2], "at {offset}");
    }
}

#[test]
fn so_has_a_segments_checksum_of_zero() {
    for (kind, is_v4, zero) in [(GsoKind::Tcp4, true, 0), (GsoKind::Tcp6, false, 0), (GsoKind::Udp, true, 0xffff)] {
        let (tags, ip_options, tcp_options, size) = (0, 0, 0, 100);
        let payload = vec![0; 300];
        let (flags, sequence, id, noise) = (0x10, 1, 1, 0);
        let shape = Shape { kind, is_v4, tags, ip_options, tcp_options, size, payload, flags, sequence, id, noise };
        let (head, gso) = headers(&shape);
        let cutter = Cutter::new(&head, gso, 300).unwrap();
        let place = usize::from(gso.transport) + if kind == GsoKind::Udp { 6 } else { 16 };
        for segment in 0..3 {
            let sum_of = |payload: &[u8]| {
                let mut header = vec![0; head.len()];
                cutter.write_headers(segment, payload, &mut header);
                number(&header, place)
            };
            let mut payload = [0; 100];
            let sum = sum_of(&payload);
            payload[..2].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(sum_of(&payload), zero, "{kind:?}");
        }
    }
}
