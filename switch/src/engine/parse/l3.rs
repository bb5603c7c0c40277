//! ARP, IPv4, IPv6 and what they carry.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_RARP, Malformed, be16, mix};
use crate::engine::bits::halves;
use crate::model::MacAddr;

/// Most IPv6 extension headers that are followed. RFC 8200 names six kinds, one of which may come twice. A longer
/// chain is an attempt to cost time.
pub const MAX_EXTENSIONS: usize = 8;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Network layer of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum L3 {
    /// None that the switch reads, or too broken to read.
    #[default]
    Other,
    /// ARP or RARP over Ethernet and IPv4.
    Arp(Arp),
    /// IPv4.
    V4(Ip4),
    /// IPv6.
    V6(Ip6),
}

/// An ARP or RARP packet over Ethernet and IPv4 (RFC 826, RFC 903).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 request, 2 reply, 3 and 4 the same of RARP.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: MacAddr,
    /// Sender protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: MacAddr,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Reads the bytes after the EtherType. `Ok(None)`: ARP of other media or protocols.
    ///
    /// Hardware types 1 (Ethernet) and 6 (IEEE 802) are both read, as Linux does (`arp_process` in net/ipv4/arp.c).
    /// Else a guest could speak for others in a form that the switch skips and its neighbours accept.
    ///
    /// # Errors
    /// `ArpTruncated`.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(&[h0, h1, p0, p1, hlen, plen]) = bytes.first_chunk::<6>() else {
            return Err(Malformed::ArpTruncated);
        };
        let ethernet = matches!([h0, h1], [0, 1 | 6]) && hlen == 6;
        if !ethernet || [p0, p1] != ETHERTYPE_IPV4.to_be_bytes() || plen != 4 {
            return Ok(None);
        }
        let Some(b) = bytes.first_chunk::<28>() else {
            return Err(Malformed::ArpTruncated);
        };
        Ok(Some(Self {
            operation: u16::from_be_bytes([b[6], b[7]]),
            sender_mac: MacAddr::new([b[8], b[9], b[10], b[11], b[12], b[13]]),
            sender_ip: Ipv4Addr::new(b[14], b[15], b[16], b[17]),
            target_mac: MacAddr::new([b[18], b[19], b[20], b[21], b[22], b[23]]),
            target_ip: Ipv4Addr::new(b[24], b[25], b[26], b[27]),
        }))
    }
}

/// Place of a packet in its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// All of it. An IPv6 fragment header with offset 0 and without "more fragments" counts as that (RFC 6946).
    #[default]
    Whole,
    /// The first of several. It has the transport header.
    First,
    /// A later one, without a transport header.
    Later,
}

/// An IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip4 {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Place in the datagram.
    pub fragment: Fragment,
}

/// An IPv6 header with its extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip6 {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Protocol number behind the extension headers. In a later fragment it is the one that the fragment header names.
    pub protocol: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Place in the datagram.
    pub fragment: Fragment,
}

/// Transport layer of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum L4 {
    /// None that the switch reads, a later fragment, or cut off.
    #[default]
    Other,
    /// TCP.
    Tcp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// Flags CWR … FIN, most significant first.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// ICMP (over IPv4).
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// ICMPv6 (over IPv6).
    Icmpv6 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// A plain packet: whole TCP or UDP, without IPv4 options or IPv6 extension headers, with lengths that fit. Most
/// packets are plain, so there is a short way for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// Whether it is IPv6.
    pub v6: bool,
    /// Whether it is TCP.
    pub tcp: bool,
}

impl Plain {
    /// Looks at the bytes after the EtherType. `None` if the packet is not plain.
    #[inline]
    pub fn check(ethertype: u16, bytes: &[u8]) -> Option<Self> {
        let (v6, protocol, header, end) = match ethertype {
            ETHERTYPE_IPV4 => {
                let h = bytes.first_chunk::<28>()?;
                // "More fragments" and offset are zero.
                if h[0] != 0x45 || u16::from_ne_bytes([h[6] & 0x3f, h[7]]) != 0 {
                    return None;
                }
                (false, h[9], 20, usize::from(u16::from_be_bytes([h[2], h[3]])))
            }
            ETHERTYPE_IPV6 => {
                let h = bytes.first_chunk::<48>()?;
                if h[0] >> 4 != 6 {
                    return None;
                }
                (true, h[6], 40, 40 + usize::from(u16::from_be_bytes([h[4], h[5]])))
            }
            _ => return None,
        };
        let transport = match protocol {
            TCP => 20,
            UDP => 8,
            _ => return None,
        };
        (header + transport <= end && end <= bytes.len()).then_some(Self { v6, tcp: protocol == TCP })
    }

    /// Protocol number.
    #[inline]
    pub fn protocol(self) -> u8 {
        if self.tcp { TCP } else { UDP }
    }
}

/// The headers above layer 2, as far as they are read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Upper {
    pub l3: L3,
    pub l4: L4,
    pub malformed: Option<Malformed>,
}

impl Upper {
    /// Reads `bytes`, which follow the EtherType.
    #[inline]
    pub fn read(&mut self, ethertype: u16, bytes: &[u8]) {
        match ethertype {
            ETHERTYPE_IPV4 => self.ipv4(bytes),
            ETHERTYPE_IPV6 => self.ipv6(bytes),
            ETHERTYPE_ARP | ETHERTYPE_RARP => match Arp::read(bytes) {
                Ok(arp) => self.l3 = arp.map_or(L3::Other, L3::Arp),
                Err(malformed) => self.note(malformed),
            },
            _ => {}
        }
    }

    fn note(&mut self, malformed: Malformed) {
        self.malformed.get_or_insert(malformed);
    }

    // Not inlined, like `ipv6`. So each has all registers to itself.
    #[inline(never)]
    fn ipv4(&mut self, bytes: &[u8]) {
        let Some(h) = bytes.first_chunk::<20>() else {
            return self.note(Malformed::IpTruncated);
        };
        if h[0] >> 4 != 4 {
            return self.note(Malformed::IpVersion);
        }
        let header = usize::from(h[0] & 0xf) * 4;
        if header < 20 || header > bytes.len() {
            return self.note(Malformed::Ipv4HeaderLength);
        }
        // Total length in bytes, header included (RFC 791, section 3.1).
        let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if total < header || total > bytes.len() {
            self.note(Malformed::IpLength);
        }
        // Flags and offset: bit 13 is "more fragments", the low 13 bits count units of 8 bytes.
        let place = u16::from_be_bytes([h[6], h[7]]);
        let fragment = match (place & 0x1fff, place & 0x2000 != 0) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        };
        let protocol = h[9];
        self.l3 = L3::V4(Ip4 {
            src: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
            dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
            protocol,
            tos: h[1],
            ttl: h[8],
            fragment,
        });
        if fragment != Fragment::Later {
            let payload = bytes.get(header..total.min(bytes.len())).unwrap_or_default();
            self.transport(protocol, payload, ICMP);
        }
    }

    #[inline(never)]
    fn ipv6(&mut self, bytes: &[u8]) {
        let Some(h) = bytes.first_chunk::<40>() else {
            return self.note(Malformed::IpTruncated);
        };
        if h[0] >> 4 != 6 {
            return self.note(Malformed::IpVersion);
        }
        let mut rest = &bytes[40..];
        // Payload length in bytes, extension headers included. 0 before a hop-by-hop header announces a jumbogram
        // (RFC 2675). No frame here can be that long, so the frame's own end is the bound then.
        let length = usize::from(u16::from_be_bytes([h[4], h[5]]));
        if length > rest.len() {
            self.note(Malformed::IpLength);
        } else if length != 0 || h[6] != 0 {
            rest = &rest[..length];
        }
        let mut ip = Ip6 {
            src: address(&h[8..24]),
            dst: address(&h[24..40]),
            protocol: h[6],
            traffic_class: h[0] << 4 | h[1] >> 4,
            flow_label: u32::from_be_bytes([0, h[1] & 0x0f, h[2], h[3]]),
            hop_limit: h[7],
            fragment: Fragment::Whole,
        };
        let complete = follow_extensions(&mut ip, &mut rest);
        self.l3 = L3::V6(ip);
        if !complete {
            self.note(Malformed::Ipv6Extensions);
        } else if ip.fragment != Fragment::Later {
            self.transport(ip.protocol, rest, ICMPV6);
        }
    }

    /// Reads the transport header. `icmp` is the protocol number of ICMP in this version of IP.
    #[inline]
    fn transport(&mut self, protocol: u8, bytes: &[u8], icmp: u8) {
        let l4 = match protocol {
            // Fixed parts: 20 bytes (RFC 9293, section 3.1), 8 bytes (RFC 768), 4 bytes (RFC 792, RFC 4443).
            TCP => bytes.first_chunk::<20>().map(|h| L4::Tcp { src: port(h, 0), dst: port(h, 2), flags: h[13] }),
            UDP => bytes.first_chunk::<8>().map(|h| L4::Udp { src: port(h, 0), dst: port(h, 2) }),
            ICMP if icmp == ICMP => bytes.first_chunk::<4>().map(|h| L4::Icmp { kind: h[0], code: h[1] }),
            ICMPV6 if icmp == ICMPV6 => bytes.first_chunk::<4>().map(|h| L4::Icmpv6 { kind: h[0], code: h[1] }),
            _ => Some(L4::Other),
        };
        match l4 {
            Some(l4) => self.l4 = l4,
            None => self.note(Malformed::L4Truncated),
        }
    }

    /// Adds what belongs to the flow to a hash of layer 2.
    #[inline]
    pub fn hash_into(&self, hash: u64) -> u64 {
        let ports = match self.l4 {
            L4::Tcp { src, dst, .. } | L4::Udp { src, dst } => u64::from(src) << 16 | u64::from(dst),
            _ => 0,
        };
        match self.l3 {
            L3::Other | L3::Arp(_) => hash,
            L3::V4(ip) => {
                let addresses = u64::from(ip.src.to_bits()) << 32 | u64::from(ip.dst.to_bits());
                let ports = if ip.fragment == Fragment::Whole { ports } else { 0 };
                mix(mix(hash, addresses), u64::from(ip.protocol) << 32 | ports)
            }
            L3::V6(ip) => {
                let ([s0, s1], [d0, d1]) = (halves(ip.src.to_bits()), halves(ip.dst.to_bits()));
                // Fragments of one datagram may name different next headers (RFC 8200, section 4.5). So the protocol
                // is left out too.
                let last = match ip.fragment {
                    Fragment::Whole => u64::from(ip.protocol) << 32 | ports,
                    Fragment::First | Fragment::Later => 0,
                };
                mix(mix(mix(mix(mix(hash, s0), s1), d0), d1), last)
            }
        }
    }
}

/// Steps over extension headers. False if the chain is cut off or too long. `ip.protocol` becomes the last one named.
fn follow_extensions(ip: &mut Ip6, rest: &mut &[u8]) -> bool {
    for _ in 0..=MAX_EXTENSIONS {
        let length = match ip.protocol {
            // Hop-by-hop, routing, destination options, mobility, HIP, Shim6: units of 8 bytes without the first
            // (RFC 8200, section 4; IANA's list of extension header types).
            0 | 43 | 60 | 135 | 139 | 140 => rest.get(1).map(|&units| (usize::from(units) + 1) * 8),
            // Authentication: units of 4 bytes minus 2 (RFC 4302, section 2.2).
            51 => rest.get(1).map(|&units| (usize::from(units) + 2) * 4),
            44 => Some(8),
            _ => return true,
        };
        let Some((header, behind)) = length.and_then(|length| rest.split_at_checked(length)) else {
            return false;
        };
        if ip.protocol == 44 {
            // Offset in the upper 13 bits, "more fragments" in the lowest (RFC 8200, section 4.5).
            let place = be16(header, 2).unwrap_or_default();
            ip.fragment = match (place >> 3, place & 1 != 0) {
                (0, false) => ip.fragment,
                (0, true) => Fragment::First,
                _ => Fragment::Later,
            };
        }
        ip.protocol = header[0];
        *rest = behind;
        if ip.fragment == Fragment::Later {
            return true;
        }
    }
    false
}

#[inline]
fn port<const N: usize>(header: &[u8; N], offset: usize) -> u16 {
    be16(header, offset).unwrap_or_default()
}

#[inline]
fn address(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from_bits(bytes.iter().fold(0, |bits, &byte| bits << 8 | u128::from(byte)))
}
