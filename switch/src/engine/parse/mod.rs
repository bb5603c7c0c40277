//! From frame bytes to headers.
//!
//! There are two depths. [`parse_l2`] reads addresses, outer VLAN tag and EtherType, which is all that the bridge
//! needs for each packet. [`parse`] reads on through a second tag, ARP, IPv4 and IPv6 to ports and ICMP types.
//!
//! Only an unusable layer 2 is an error. A frame that is broken higher up is still switched by its MAC addresses.
//! [`Headers::malformed`] says what was wrong first.
//!
//! Lengths in headers can only make a packet shorter. Bytes behind the end that the IP header names are padding, and
//! are not read. A length beyond the end of the frame is noted as malformed. Checksums are not verified, because
//! guests that offload send partial ones. Every function is total for any bytes, reads no byte twice a layer, and
//! allocates nothing.

mod l3;
#[cfg(test)]
pub(crate) mod tests;

use super::bits::{halves, low_u16, low_u32};
use crate::model::{DropReason, MacAddr};
pub(crate) use l3::Plain;
pub use l3::{Arp, Fragment, Ip4, Ip6, L3, L4, MAX_EXTENSIONS};

/// TPID of a customer VLAN tag (IEEE 802.1Q-2022, table 9-1).
pub const TPID_CTAG: u16 = 0x8100;
/// TPID of a service VLAN tag (IEEE 802.1Q-2022, table 9-1; formerly 802.1ad).
pub const TPID_STAG: u16 = 0x88a8;
/// EtherType of ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of RARP (RFC 903).
pub const ETHERTYPE_RARP: u16 = 0x8035;
/// EtherType of IPv4 (RFC 894).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6 (RFC 2464, section 3).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Length of an Ethernet header without tags, in bytes.
pub const ETH_HEADER: usize = 14;
/// Length of a VLAN tag, in bytes.
pub const VLAN_TAG: usize = 4;

/// A VLAN tag as it was found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Tag protocol identifier, [`TPID_CTAG`] or [`TPID_STAG`].
    pub tpid: u16,
    /// Tag control information: PCP, DEI and VID.
    pub tci: u16,
    /// Whether another VLAN tag follows it (QinQ). The sender chose the inner tag freely. So VLAN rules must know of
    /// it: no edit may make it the outer one where VLANs are told apart.
    pub stacked: bool,
}

impl Tag {
    /// A tag that no other tag follows.
    pub const fn new(tpid: u16, tci: u16) -> Self {
        Self { tpid, tci, stacked: false }
    }

    /// Priority code point, 0–7.
    #[inline]
    pub const fn pcp(self) -> u8 {
        self.tci.to_be_bytes()[0] >> 5
    }

    /// Drop eligible indicator.
    #[inline]
    pub const fn dei(self) -> bool {
        self.tci & 0x1000 != 0
    }

    /// VLAN identifier, 0–4095; 0 makes it a priority tag.
    #[inline]
    pub const fn vid(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// Layer 2 of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2 {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// Outer VLAN tag.
    pub tag: Option<Tag>,
    /// EtherType (or 802.3 length) after the outer tag. A TPID if the tag is stacked.
    pub ethertype: u16,
}

impl L2 {
    /// Offset of the bytes after [`L2::ethertype`], from the start of the frame.
    #[inline]
    pub fn payload_offset(&self) -> usize {
        if self.tag.is_some() { ETH_HEADER + VLAN_TAG } else { ETH_HEADER }
    }
}

/// What was wrong first with a frame beyond layer 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// The frame ends inside its second VLAN tag.
    InnerTagTruncated,
    /// ARP over Ethernet and IPv4 with fewer than 28 bytes.
    ArpTruncated,
    /// The frame ends inside the fixed IP header.
    IpTruncated,
    /// The IP version is not the one that the EtherType promises.
    IpVersion,
    /// The IPv4 header length is under 20 bytes or more than there is.
    Ipv4HeaderLength,
    /// The IP header's total or payload length is less than its headers or more than there is.
    IpLength,
    /// IPv6 extension headers are cut off or more than [`MAX_EXTENSIONS`].
    Ipv6Extensions,
    /// TCP, UDP, ICMP or ICMPv6 header cut off.
    L4Truncated,
}

impl Malformed {
    /// What is wrong, in words.
    pub const fn explain(self) -> &'static str {
        match self {
            Malformed::InnerTagTruncated => "the frame ends inside its second VLAN tag",
            Malformed::ArpTruncated => "the ARP packet is cut off",
            Malformed::IpTruncated => "the IP header is cut off",
            Malformed::IpVersion => "the IP version does not fit the EtherType",
            Malformed::Ipv4HeaderLength => "the IPv4 header length is impossible",
            Malformed::IpLength => "the length in the IP header does not fit the frame",
            Malformed::Ipv6Extensions => "the IPv6 extension headers are cut off or too many",
            Malformed::L4Truncated => "the transport header is cut off",
        }
    }
}

/// All headers of a frame that the switch understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// First VLAN tag.
    pub outer: Option<Tag>,
    /// Second VLAN tag.
    pub inner: Option<Tag>,
    /// EtherType (or 802.3 length) after the tags.
    pub ethertype: u16,
    /// Network layer.
    pub l3: L3,
    /// Transport layer.
    pub l4: L4,
    /// Hash of MAC and IP addresses, VIDs, protocol and ports. It is the same for all packets of a flow. Fragments
    /// are hashed without ports, so that those of a datagram stay together. It is not symmetric, and stable only
    /// within one build.
    pub flow_hash: u32,
    /// What was wrong beyond layer 2.
    pub malformed: Option<Malformed>,
}

/// Whether `ethertype` announces a VLAN tag.
#[inline]
pub(crate) const fn is_tpid(ethertype: u16) -> bool {
    matches!(ethertype, TPID_CTAG | TPID_STAG)
}

/// The big-endian number at `offset`.
#[inline]
pub(crate) fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    let pair = bytes.get(offset..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

/// Reads addresses, outer tag and EtherType.
///
/// # Errors
/// `FrameTooShort` under 14 bytes, `VlanMalformed` if the frame ends inside its outer tag. A frame may be shorter
/// than the 60 bytes of IEEE 802.3, because virtual links do not pad.
#[inline]
pub fn parse_l2(frame: &[u8]) -> Result<L2, DropReason> {
    let Some((front, back)) = frame.first_chunk::<ETH_HEADER>().and_then(|h| Some((h.first_chunk()?, h.last_chunk()?)))
    else {
        return Err(DropReason::FrameTooShort);
    };
    // Two words that overlap: the first begins with the destination, the second ends with source and EtherType.
    let (front, back) = (u64::from_be_bytes(*front), u64::from_be_bytes(*back));
    let (dst, src) = (MacAddr::from_u64(front >> 16), MacAddr::from_u64(back >> 16));
    let first = low_u16(back);
    if !is_tpid(first) {
        return Ok(L2 { dst, src, tag: None, ethertype: first });
    }
    let Some(&[c0, c1, e0, e1]) = frame.get(ETH_HEADER..).and_then(|rest| rest.first_chunk::<VLAN_TAG>()) else {
        return Err(DropReason::VlanMalformed);
    };
    let ethertype = u16::from_be_bytes([e0, e1]);
    let tag = Tag { tpid: first, tci: u16::from_be_bytes([c0, c1]), stacked: is_tpid(ethertype) };
    Ok(L2 { dst, src, tag: Some(tag), ethertype })
}

/// Reads a second tag. Returns the tag, the EtherType behind it, and the offset of the bytes behind that.
#[inline]
pub(crate) fn inner_tag(frame: &[u8], l2: &L2) -> Option<(Tag, u16, usize)> {
    if !l2.tag.is_some_and(|tag| tag.stacked) {
        return None;
    }
    let offset = l2.payload_offset();
    let (tci, ethertype) = (be16(frame, offset)?, be16(frame, offset + 2)?);
    Some((Tag { tpid: l2.ethertype, tci, stacked: is_tpid(ethertype) }, ethertype, offset + VLAN_TAG))
}

/// Reads every header that the switch understands.
///
/// # Errors
/// As [`parse_l2`].
pub fn parse(frame: &[u8]) -> Result<Headers, DropReason> {
    Ok(parse_upper(frame, &parse_l2(frame)?))
}

/// Reads on where [`parse_l2`] ended.
pub(crate) fn parse_upper(frame: &[u8], l2: &L2) -> Headers {
    let stacked = l2.tag.is_some_and(|tag| tag.stacked);
    let (inner, ethertype, offset) = match inner_tag(frame, l2) {
        Some((tag, ethertype, offset)) => (Some(tag), ethertype, offset),
        None => (None, l2.ethertype, l2.payload_offset()),
    };
    let mut upper = l3::Upper::default();
    if stacked && inner.is_none() {
        upper.malformed = Some(Malformed::InnerTagTruncated);
    } else {
        upper.read(ethertype, frame.get(offset..).unwrap_or_default());
    }
    let vids = u64::from(l2.tag.map_or(0, Tag::vid)) << 12 | u64::from(inner.map_or(0, Tag::vid));
    let hash = mix(mix(l2.dst.to_u64(), l2.src.to_u64() | u64::from(ethertype) << 48), vids);
    Headers {
        dst: l2.dst,
        src: l2.src,
        outer: l2.tag,
        inner,
        ethertype,
        l3: upper.l3,
        l4: upper.l4,
        flow_hash: fold(upper.hash_into(hash)),
        malformed: upper.malformed,
    }
}

/// [`Headers::flow_hash`] of a frame. 0 if its layer 2 is unusable.
pub fn flow_hash(frame: &[u8]) -> u32 {
    parse(frame).map_or(0, |headers| headers.flow_hash)
}

/// One round of hashing. Every input bit reaches every output bit.
#[inline]
fn mix(state: u64, word: u64) -> u64 {
    fold_product(state ^ 0x9e37_79b9_7f4a_7c15, word ^ 0xd1b5_4a32_d192_ed03)
}

/// Both halves of a 128-bit product, folded into one word.
#[inline]
pub(crate) fn fold_product(a: u64, b: u64) -> u64 {
    let [upper, lower] = halves(u128::from(a) * u128::from(b));
    upper ^ lower
}

#[inline]
fn fold(hash: u64) -> u32 {
    let hash = mix(hash, 0);
    low_u32(hash ^ (hash >> 32))
}
