//! Crafted frames: Ethernet, 802.1Q and QinQ tags, ARP, IPv4, IPv6, UDP, ICMP, and the payload of numbered streams.
//!
//! A frame is built from the outside in: [`Frame::ethernet`], then [`Frame::tag`]s, then one of the payloads. Checksums
//! are right, because the switch must not need to repair them. Tests of wrong checksums change the bytes.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::number::narrow;

/// TPID of a customer tag (IEEE 802.1Q).
pub const CTAG: u16 = 0x8100;
/// TPID of a service tag (IEEE 802.1ad).
pub const STAG: u16 = 0x88a8;
/// First four bytes of a stream packet's payload: `XSST`.
pub const MAGIC: [u8; 4] = *b"XSST";
/// Number of streams that the sink has rows for. Streams count from 0.
pub const MAX_STREAMS: u32 = 64;
/// Bytes of the mark in a stream packet: magic, stream, sequence number.
const MARK_LEN: usize = 16;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// A locally administered unicast address that no test's guest has: `02:ee:…` and the number.
    pub fn stranger(number: u32) -> Self {
        let n = number.to_be_bytes();
        Mac([0x02, 0xee, n[0], n[1], n[2], n[3]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
        let bytes = bytes.map_err(|error| format!("{text}: {error}"))?;
        bytes.try_into().map(Mac).map_err(|_| format!("{text}: six bytes are expected"))
    }
}

/// An Ethernet frame without FCS, under construction or received.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes ", self.0.len())?;
        self.0.iter().take(80).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Frame {
    /// Starts a frame with its addresses. An EtherType must follow.
    pub fn ethernet(src: Mac, dst: Mac) -> Self {
        Self([dst.0, src.0].concat())
    }

    /// Adds a VLAN tag. `pcp` is 0–7, `vid` 0–4095.
    pub fn tag(mut self, tpid: u16, pcp: u8, vid: u16) -> Self {
        self.0.extend(tpid.to_be_bytes());
        self.0.extend((u16::from(pcp) << 13 | vid).to_be_bytes());
        self
    }

    /// Adds an EtherType with a payload, padded to the 60 bytes of a minimal frame.
    pub fn payload(mut self, ethertype: u16, payload: &[u8]) -> Self {
        self.0.extend(ethertype.to_be_bytes());
        self.0.extend(payload);
        self.padded(60)
    }

    /// Pads with zeros to at least `len` bytes.
    pub fn padded(mut self, len: usize) -> Self {
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        self
    }

    /// An ARP packet for Ethernet and IPv4 (RFC 826). `operation` 1 asks, 2 answers.
    pub fn arp(self, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        let mut body = vec![0, 1, 8, 0, 6, 4];
        body.extend(operation.to_be_bytes());
        for (mac, ip) in [sender, target] {
            body.extend(mac.0);
            body.extend(ip.octets());
        }
        self.payload(0x0806, &body)
    }

    /// A UDP datagram in IPv4.
    pub fn udp4(self, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), data: &[u8]) -> Self {
        let pseudo = [&src.0.octets()[..], &dst.0.octets()].concat();
        let udp = udp(&pseudo, src.1, dst.1, data);
        self.ipv4(17, src.0, dst.0, &udp)
    }

    /// An IPv4 packet of any protocol.
    pub fn ipv4(self, protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, data: &[u8]) -> Self {
        let len = u16::try_from(20 + data.len()).expect("an IPv4 packet has at most 65,535 bytes");
        let mut ip = vec![0x45, 0];
        ip.extend(len.to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        ip.extend(src.octets());
        ip.extend(dst.octets());
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(data);
        self.payload(0x0800, &ip)
    }

    /// An ICMP echo request in IPv4.
    pub fn ping4(self, src: Ipv4Addr, dst: Ipv4Addr, sequence: u16) -> Self {
        let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34];
        icmp.extend(sequence.to_be_bytes());
        icmp.extend([0x55; 32]);
        let sum = checksum(&[&icmp]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        self.ipv4(1, src, dst, &icmp)
    }

    /// A UDP datagram in IPv6.
    pub fn udp6(self, src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16), data: &[u8]) -> Self {
        let pseudo = [&src.0.octets()[..], &dst.0.octets()].concat();
        let udp = udp(&pseudo, src.1, dst.1, data);
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(u16::try_from(udp.len()).expect("a small datagram").to_be_bytes());
        ip.extend([17, 64]);
        ip.extend(pseudo);
        ip.extend(udp);
        self.payload(0x86dd, &ip)
    }

    /// A packet of stream `stream`: UDP in IPv4, with the mark as payload, padded to a frame of `len` bytes. The UDP
    /// checksum is 0 (not used, RFC 768), because the generator changes the sequence number without updating it.
    pub fn stream(self, stream: u32, seq: u64, len: usize) -> Self {
        let head = self.0.len() + 2 + 20 + 8;
        let mut data = Vec::with_capacity(len);
        data.extend(MAGIC);
        data.extend(stream.to_le_bytes());
        data.extend(seq.to_le_bytes());
        data.resize(len.saturating_sub(head).max(MARK_LEN), 0);
        let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let mut udp = udp(&[], 4000, 5000, &data);
        udp[6..8].fill(0);
        self.ipv4(17, src, dst, &udp)
    }

    /// Offset of the mark, if this is a stream packet.
    pub fn mark_at(&self) -> Option<usize> {
        self.0.windows(MARK_LEN).position(|window| window.starts_with(&MAGIC))
    }

    /// Stream and sequence number, if this is a stream packet.
    pub fn mark(&self) -> Option<(u32, u64)> {
        let mark = &self.0[self.mark_at()?..];
        let stream = mark[4..8].try_into().expect("four bytes");
        let seq = mark[8..16].try_into().expect("eight bytes");
        Some((u32::from_le_bytes(stream), u64::from_le_bytes(seq)))
    }

    /// Destination address.
    pub fn dst(&self) -> Mac {
        Mac(self.0[..6].try_into().expect("six bytes"))
    }

    /// Source address.
    pub fn src(&self) -> Mac {
        Mac(self.0[6..12].try_into().expect("six bytes"))
    }

    /// Outer VLAN tag: TPID, PCP and VID.
    pub fn outer_tag(&self) -> Option<(u16, u8, u16)> {
        let word = |at: usize| Some(u16::from_be_bytes(self.0.get(at..at + 2)?.try_into().ok()?));
        let (tpid, tci) = (word(12)?, word(14)?);
        [CTAG, STAG].contains(&tpid).then_some((tpid, narrow(tci >> 13), tci & 0x0fff))
    }

    /// The bytes as hex digits, in the form that `trace` takes.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Parses hex digits. `None` unless there is an even number of them.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let pairs = hex.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> =
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        bytes.filter(|_| hex.len().is_multiple_of(2)).map(Self)
    }
}

fn udp(pseudo: &[u8], src: u16, dst: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).expect("a datagram has at most 65,535 bytes").to_be_bytes();
    let mut udp = [src.to_be_bytes(), dst.to_be_bytes(), len, [0, 0]].concat();
    udp.extend(data);
    let sum = match checksum(&[pseudo, &[0, 17], &len, &udp]) {
        0 => 0xffff, // 0 would mean "no checksum"
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    udp
}

/// Internet checksum (RFC 1071) over parts. All but the last must have an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | word.get(1).copied().map_or(0, u64::from)).sum();
    let folded = (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16));
    !narrow::<u16>(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn checksums_verify_to_zero() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let frame = Frame::ethernet(A, B).udp4((a, 1), (b, 2), b"odd").0;
        assert_eq!(checksum(&[&frame[14..34]]), 0, "IPv4 header");
        let udp = &frame[34..34 + 8 + 3];
        assert_eq!(checksum(&[&a.octets(), &b.octets(), &[0, 17], &[0, 11], udp]), 0, "UDP with pseudo header");
    }

    #[test]
    fn a_stream_packet_keeps_its_mark_behind_tags() {
        let frame = Frame::ethernet(A, B).tag(STAG, 5, 100).tag(CTAG, 0, 7).stream(3, 77, 64);
        assert_eq!(frame.mark(), Some((3, 77)));
        assert_eq!(frame.outer_tag(), Some((STAG, 5, 100)));
        assert_eq!((frame.0.len(), frame.src(), frame.dst()), (66, A, B), "two tags, headers and mark");
        assert_eq!(Frame::ethernet(A, B).stream(0, 0, 0).0.len(), 60);
    }
}
