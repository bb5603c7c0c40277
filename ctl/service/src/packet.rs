//! Builds packets from fields or from hex digits, for `trace`. Errors name the field that is wrong.

use std::net::IpAddr;

use ctl_types::PacketSpec;
use etherparse::{IpNumber, PacketBuilder};
use switch::model::MacAddr;

/// Longest frame that can be traced, in bytes.
const MAX_LEN: usize = 4096;
const MIN_LEN: usize = 60;
const HOP_LIMIT: u8 = 64;
const TCP_WINDOW: u16 = 65_535;
const ETHERTYPE_ARP: u16 = 0x0806;

/// Builds a frame.
///
/// # Errors
/// The field that is wrong, and what would be right.
pub fn build(spec: &PacketSpec) -> Result<Vec<u8>, String> {
    let src = spec.src.unwrap_or(MacAddr::new([2, 0, 0, 0, 0, 1]));
    let dst = spec.dst.unwrap_or(MacAddr::BROADCAST);
    let mut frame = [dst.octets(), src.octets()].concat();
    if spec.vlan.is_none() && (spec.pcp.is_some() || spec.inner_vlan.is_some()) {
        return Err("vlan: pcp and inner_vlan need an outer tag (vlan 0 makes a priority tag)".to_owned());
    }
    if let Some(pcp) = spec.pcp.filter(|pcp| *pcp > 7) {
        return Err(format!("pcp: {pcp} is out of range, 0 to 7 are possible"));
    }
    let tags = [("vlan", spec.vlan, spec.pcp.unwrap_or(0)), ("inner_vlan", spec.inner_vlan, 0)];
    for (field, vid, pcp) in tags {
        let Some(vid) = vid else { continue };
        if vid > 4095 {
            return Err(format!("{field}: {vid} is out of range, 0 to 4095 are possible"));
        }
        frame.extend(0x8100_u16.to_be_bytes());
        frame.extend((u16::from(pcp) << 13 | vid).to_be_bytes());
    }
    let headers = frame.len() + 2;
    let wanted = spec.len.map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    if let Some(len) = wanted
        && !(headers..=MAX_LEN).contains(&len)
    {
        return Err(format!("len: {len} is out of range, {headers} to {MAX_LEN} are possible for this packet"));
    }
    let (ethertype, payload) = payload(spec, src, wanted.map(|len| len - headers))?;
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    match wanted {
        Some(len) if len < frame.len() => {
            Err(format!("len: {len} is too short, this packet has {} bytes of headers", frame.len()))
        }
        wanted => {
            frame.resize(wanted.unwrap_or(MIN_LEN).max(frame.len()), 0);
            Ok(frame)
        }
    }
}

/// EtherType and payload. `room` is the wanted length of the payload in bytes.
fn payload(spec: &PacketSpec, src: MacAddr, room: Option<usize>) -> Result<(u16, Vec<u8>), String> {
    let named = spec.ethertype.as_deref().map(parse_ethertype).transpose()?;
    let ips = match (spec.ip_src, spec.ip_dst) {
        (None, None) => None,
        (Some(from), Some(to)) => Some((from, to)),
        _ => return Err("ip_src, ip_dst: both are needed, or none".to_owned()),
    };
    match (named, ips) {
        (Some(ETHERTYPE_ARP), ips) => Ok((ETHERTYPE_ARP, arp_request(src, ips)?)),
        (named, Some((from, to))) => {
            let (ethertype, packet) = ip(spec, from, to, room)?;
            Ok((named.unwrap_or(ethertype), packet))
        }
        (_, None) if spec.proto.is_some() || spec.sport.is_some() || spec.dport.is_some() => {
            Err("proto, sport, dport: these need ip_src and ip_dst".to_owned())
        }
        (named, None) => Ok((named.unwrap_or(0x88b5), Vec::new())),
    }
}

fn ip(spec: &PacketSpec, from: IpAddr, to: IpAddr, room: Option<usize>) -> Result<(u16, Vec<u8>), String> {
    let (ethertype, builder) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (0x0800, PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT)),
        (IpAddr::V6(from), IpAddr::V6(to)) => (0x86dd, PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT)),
        _ => return Err("ip_src, ip_dst: both must be of one IP version".to_owned()),
    };
    let has_ports = spec.sport.is_some() || spec.dport.is_some();
    let (sport, dport) = (spec.sport.unwrap_or(10_000), spec.dport.unwrap_or(10_000));
    let proto = match spec.proto.as_deref() {
        None if has_ports => "udp",
        None => "59",
        Some(proto) => proto,
    };
    if has_ports && !["tcp", "udp", "6", "17"].contains(&proto) {
        return Err(format!("sport, dport: protocol {proto} has no ports"));
    }
    // The payload fills what the headers leave of the room.
    let fill = |headers: usize| vec![0; room.map_or(0, |room| room.saturating_sub(headers))];
    let mut packet = Vec::new();
    let written = match proto {
        "tcp" | "6" => {
            let step = builder.tcp(sport, dport, 0, TCP_WINDOW);
            let payload = fill(step.size(0));
            step.write(&mut packet, &payload)
        }
        "udp" | "17" => {
            let step = builder.udp(sport, dport);
            let payload = fill(step.size(0));
            step.write(&mut packet, &payload)
        }
        "icmp" | "1" => {
            let step = builder.icmpv4_echo_request(1, 1);
            let payload = fill(step.size(0));
            step.write(&mut packet, &payload)
        }
        "icmpv6" | "58" => {
            let step = builder.icmpv6_echo_request(1, 1);
            let payload = fill(step.size(0));
            step.write(&mut packet, &payload)
        }
        other => {
            let number = other.parse::<u8>().map_err(|_| {
                format!("proto: `{other}` is neither tcp, udp, icmp, icmpv6 nor a number from 0 to 255")
            })?;
            let headers = if ethertype == 0x0800 { 20 } else { 40 };
            builder.write(&mut packet, IpNumber(number), &fill(headers))
        }
    };
    written.map_err(|error| format!("proto: {proto} does not fit these addresses: {error}"))?;
    Ok((ethertype, packet))
}

fn parse_ethertype(text: &str) -> Result<u16, String> {
    let number = match text {
        "arp" => return Ok(ETHERTYPE_ARP),
        _ => match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        },
    };
    number
        .filter(|number| *number >= 0x0600)
        .ok_or_else(|| format!("ethertype: `{text}` is neither arp nor a number from 0x0600 to 0xffff"))
}

fn arp_request(src: MacAddr, ips: Option<(IpAddr, IpAddr)>) -> Result<Vec<u8>, String> {
    let (from, to) = match ips {
        None => ([0; 4], [0; 4]),
        Some((IpAddr::V4(from), IpAddr::V4(to))) => (from.octets(), to.octets()),
        Some(_) => return Err("ip_src, ip_dst: ARP is for IPv4".to_owned()),
    };
    // Hardware type Ethernet, protocol IPv4, address lengths 6 and 4, operation request (RFC 826).
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(src.octets());
    packet.extend(from);
    packet.extend([0; 6]);
    packet.extend(to);
    Ok(packet)
}

/// Parses a frame from hex digits. Spaces, line ends, colons and a leading `0x` are ignored.
///
/// # Errors
/// What is wrong, and where.
pub fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let body = text.trim_start().strip_prefix("0x").unwrap_or(text);
    let mut digits = Vec::new();
    for (at, c) in body.char_indices().filter(|(_, c)| !c.is_whitespace() && *c != ':') {
        match c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()) {
            Some(digit) => digits.push(digit),
            None => return Err(format!("`{}` at position {} is no hex digit", c.escape_default(), at + 1)),
        }
    }
    if digits.is_empty() || digits.len() % 2 != 0 || digits.len() / 2 > MAX_LEN {
        return Err(format!(
            "{} hex digits make no frame: 2 for each of 1 to {MAX_LEN} bytes are expected",
            digits.len()
        ));
    }
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use switch::engine::parse::{L3, L4, parse};

    use super::*;

    fn spec(change: impl FnOnce(&mut PacketSpec)) -> PacketSpec {
        let mut spec = PacketSpec::default();
        change(&mut spec);
        spec
    }

    fn ips(spec: &mut PacketSpec, from: &str, to: &str) {
        (spec.ip_src, spec.ip_dst) = (from.parse().ok(), to.parse().ok());
    }

    /// The Internet checksum of a header or pseudo-header (RFC 1071). It is 0 over data that contains its own checksum.
    fn checksum(data: &[u8]) -> u16 {
        let mut sum: u32 =
            data.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn every_protocol_parses_back_with_right_checksums() {
        for (from, to, proto) in [
            ("10.0.0.1", "10.0.0.2", "udp"),
            ("10.0.0.1", "10.0.0.2", "tcp"),
            ("fd00::1", "fd00::2", "udp"),
            ("fd00::1", "fd00::2", "tcp"),
        ] {
            let udp_or_tcp = spec(|s| {
                ips(s, from, to);
                (s.proto, s.sport, s.dport, s.len) = (Some(proto.into()), Some(1000), Some(53), Some(101));
            });
            let frame = build(&udp_or_tcp).unwrap();
            assert_eq!(frame.len(), 101);
            let headers = parse(&frame).unwrap();
            assert_eq!(headers.malformed, None, "{proto}");
            assert!(matches!(headers.l4, L4::Udp { .. } | L4::Tcp { .. }), "{:?}", headers.l4);
            let (number, transport) = if proto == "udp" { (17, 0) } else { (6, 0) };
            let ip = &frame[14..];
            let (addresses, segment) =
                if from.contains(':') { (&ip[8..40], &ip[40..]) } else { (&ip[12..20], &ip[20..]) };
            let pseudo =
                [addresses, &(segment.len() as u32).to_be_bytes(), &[0, 0, transport, number], segment].concat();
            assert_eq!(checksum(&pseudo), 0, "{proto} over {from}");
        }
        let echo = spec(|s| {
            ips(s, "10.0.0.1", "10.0.0.2");
            s.proto = Some("icmp".into());
        });
        assert_eq!(checksum(&build(&echo).unwrap()[34..42]), 0);
    }

    #[test]
    fn tags_and_arp_are_built_as_asked() {
        let frame = build(&spec(|s| (s.vlan, s.pcp, s.inner_vlan) = (Some(10), Some(5), Some(20)))).unwrap();
        assert_eq!(&frame[12..20], [0x81, 0, 0xa0, 10, 0x81, 0, 0, 20]);
        assert_eq!(frame.len(), 60);
        let arp = spec(|s| {
            s.ethertype = Some("arp".into());
            ips(s, "10.0.0.1", "10.0.0.2");
        });
        assert!(matches!(parse(&build(&arp).unwrap()).unwrap().l3, L3::Arp { .. }));
    }

    #[test]
    fn what_cannot_be_names_its_field() {
        let cases: [(&str, PacketSpec); 9] = [
            ("vlan", spec(|s| s.vlan = Some(4096))),
            ("pcp", spec(|s| (s.vlan, s.pcp) = (Some(1), Some(8)))),
            ("vlan", spec(|s| s.pcp = Some(1))),
            ("len", spec(|s| s.len = Some(13))),
            ("ip_src", spec(|s| s.ip_src = "10.0.0.1".parse().ok())),
            ("ip_src", spec(|s| ips(s, "10.0.0.1", "fd00::1"))),
            ("proto", spec(|s| s.dport = Some(1))),
            ("proto", spec(|s| (ips(s, "10.0.0.1", "10.0.0.2"), s.proto = Some("300".into())).1)),
            ("ethertype", spec(|s| s.ethertype = Some("0x0101".into()))),
        ];
        for (field, spec) in cases {
            let why = build(&spec).unwrap_err();
            assert!(why.starts_with(field), "{field}: {why}");
        }
    }

    #[test]
    fn hex_digits_are_read_with_or_without_separators() {
        assert_eq!(from_hex("0x01 02:aB\nff"), Ok(vec![1, 2, 0xab, 0xff]));
        assert!(from_hex("01 0g").unwrap_err().contains("position 5"));
        for bad in ["", "0x", "123", &"00".repeat(MAX_LEN + 1)] {
            assert!(from_hex(bad).is_err(), "{bad}");
        }
    }
}
