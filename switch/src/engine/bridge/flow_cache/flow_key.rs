//! The key of a flow: the bytes of a frame that a cached decision came from, as a few words, and hashes of them.

use crate::engine::PortNo;
use crate::engine::bits::low_u32;
use crate::engine::parse::{
    ETH_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Plain, TPID_CTAG, TPID_STAG, Tag, VLAN_TAG, be16, fold_product,
    parse_l2,
};
use crate::model::MAX_PORTS;

/// Words of the longest [`FlowKey`].
pub(super) const WORDS: usize = 7;
/// Words that IPv4 uses.
pub(super) const WORDS_V4: usize = 4;
/// Words that count while there are no rules.
pub(super) const WORDS_L2: usize = 3;

/// The bytes of a plain frame that decide, in the machine's byte order.
///
/// | words | bytes |
/// | --- | --- |
/// | 1, 2 | addresses and EtherType (or TPID); the words overlap by 2 bytes |
/// | 3 | ports, VLAN tag, ingress port, protocol, IP version |
/// | 4 | IP addresses of IPv4 |
/// | 4–7 | IP addresses of IPv6 |
pub(super) type FlowKey<const N: usize> = [u64; N];

/// Bit of the third word: the packet is IPv6.
const V6: u64 = 1 << 63;
/// Bit of the third word: the packet is TCP.
const TCP: u64 = 1 << 62;
/// Shift of the ingress port in the third word, above ports and tag.
const INGRESS: u32 = 48;
const _: () = assert!(MAX_PORTS <= 1 << (62 - INGRESS));

/// The key of an IP frame while there are no rules: addresses, EtherType, tag and ingress port.
#[inline(always)]
pub(super) fn l2_key(ingress: PortNo, frame: &[u8]) -> Option<FlowKey<WORDS_L2>> {
    let header = frame.first_chunk::<{ ETH_HEADER + VLAN_TAG }>()?;
    // ARP is left out: more of it is looked at.
    let is_ip = |at| matches!(be16(header, at), Some(ETHERTYPE_IPV4 | ETHERTYPE_IPV6));
    let ingress = u64::from(ingress) << INGRESS;
    let third = if is_ip(ETH_HEADER - 2) {
        ingress
    } else {
        let is_tagged = matches!(be16(header, ETH_HEADER - 2), Some(TPID_CTAG | TPID_STAG));
        (is_tagged && is_ip(ETH_HEADER + VLAN_TAG - 2)).then_some(())?;
        ingress | u64::from(u32::from_ne_bytes(*header.last_chunk()?))
    };
    Some([word(header, 0)?, word(header, 6)?, third])
}

/// The key of a frame as the flow table in XDP has it, but for the queue (`bpf/flows.h`). `is_l2`: there are no rules.
pub fn table_key(ingress: PortNo, frame: &[u8], is_l2: bool) -> Option<[u64; WORDS]> {
    if !is_l2 {
        return flow_key(ingress, frame);
    }
    let [a, b, c] = l2_key(ingress, frame)?;
    Some([a, b, c, 0, 0, 0, 0])
}

/// The eight bytes at that offset.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The key of an untagged IPv4 frame from `ingress`, if it is plain. Most frames are, so they have a function of
/// their own.
#[inline(always)]
pub(super) fn untagged_v4_key(ingress: PortNo, frame: &[u8]) -> Option<FlowKey<WORDS_V4>> {
    // The headers of the shortest plain packet. Behind this check no other length is checked.
    let header = frame.first_chunk::<{ ETH_HEADER + 28 }>()?;
    if be16(header, ETH_HEADER - 2) != Some(ETHERTYPE_IPV4) {
        return None;
    }
    v4(ingress, header, None, Plain::check(ETHERTYPE_IPV4, frame.get(ETH_HEADER..)?)?)
}

/// The key of a frame from `ingress`, if it is plain. Words that only IPv6 has are 0 in IPv4.
pub(super) fn flow_key(ingress: PortNo, frame: &[u8]) -> Option<FlowKey<WORDS>> {
    let l2 = parse_l2(frame).ok()?;
    let plain = Plain::check(l2.ethertype, frame.get(l2.payload_offset()..)?)?;
    if plain.v6 {
        return v6(ingress, frame, l2.tag, plain);
    }
    let [a, b, c, d] = v4(ingress, frame, l2.tag, plain)?;
    Some([a, b, c, d, 0, 0, 0])
}

#[inline(always)]
fn v4(ingress: PortNo, frame: &[u8], tag: Option<Tag>, plain: Plain) -> Option<FlowKey<WORDS_V4>> {
    let ip = if tag.is_some() { ETH_HEADER + VLAN_TAG } else { ETH_HEADER };
    let third = third_word(word(frame, ip + 20)?, tag, ingress, plain);
    Some([word(frame, 0)?, word(frame, 6)?, third, word(frame, ip + 12)?])
}

fn v6(ingress: PortNo, frame: &[u8], tag: Option<Tag>, plain: Plain) -> Option<FlowKey<WORDS>> {
    let ip = if tag.is_some() { ETH_HEADER + VLAN_TAG } else { ETH_HEADER };
    let third = third_word(word(frame, ip + 40)?, tag, ingress, plain);
    let address = |n: usize| word(frame, ip + 8 + 8 * n);
    Some([word(frame, 0)?, word(frame, 6)?, third, address(0)?, address(1)?, address(2)?, address(3)?])
}

/// Ports (the low half of `ports`), tag, ingress port and protocol.
#[inline(always)]
fn third_word(ports: u64, tag: Option<Tag>, ingress: PortNo, plain: Plain) -> u64 {
    u64::from(low_u32(ports))
        | u64::from(tag.map_or(0, |tag| tag.tci)) << 32
        | u64::from(ingress) << INGRESS
        | if plain.v6 { V6 } else { 0 }
        | if plain.tcp { TCP } else { 0 }
}

/// Hash of an IPv4 flow.
#[inline(always)]
pub(super) fn hash_v4([a, b, c, d]: FlowKey<WORDS_V4>) -> u64 {
    fold_product(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xd1b5_4a32_d192_ed03)
        ^ fold_product(c ^ 0x8bb8_4b93_962e_acc9, d ^ 0x2d35_8dcc_aa6c_78a5)
}

/// Hash of a flow while there are no rules.
#[inline(always)]
pub(super) fn hash_l2([a, b, c]: FlowKey<WORDS_L2>) -> u64 {
    fold_product(a ^ 0x9e37_79b9_7f4a_7c15, b ^ c ^ 0xd1b5_4a32_d192_ed03)
}

/// Hash of any flow.
pub(super) fn hash([a, b, c, d, e, f, g]: FlowKey<WORDS>) -> u64 {
    if c & V6 == 0 {
        return hash_v4([a, b, c, d]);
    }
    let rest = fold_product(e ^ 0x4b33_a62e_d433_d4a3, f ^ 0x4d5a_2da5_1de1_aa47);
    hash_v4([a, b, c, d ^ rest ^ g.rotate_left(32).wrapping_mul(0xa076_1d64_78bd_642f)])
}
