//! Marking a frame that a meter called yellow.

use crate::engine::bits::low_u16;
use crate::engine::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, inner_tag, parse_l2};

/// Writes a DSCP (0–63) into the IP header of a frame, if it has one. An IPv4 checksum is updated.
pub fn remark(frame: &mut [u8], dscp: u8) {
    let Ok(l2) = parse_l2(frame) else { return };
    let (ethertype, at) = match inner_tag(frame, &l2) {
        Some((_, ethertype, offset)) => (ethertype, offset),
        None => (l2.ethertype, l2.payload_offset()),
    };
    let Some(header) = frame.get_mut(at..) else { return };
    match ethertype {
        ETHERTYPE_IPV4 if header.len() >= 20 && header[0] >> 4 == 4 => {
            let before = u16::from_be_bytes([header[0], header[1]]);
            header[1] = (header[1] & 0x03) | dscp << 2;
            let after = u16::from_be_bytes([header[0], header[1]]);
            // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
            let sum = !u16::from_be_bytes([header[10], header[11]]);
            let sum = u32::from(sum) + u32::from(!before) + u32::from(after);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !low_u16(u64::from((sum & 0xffff) + (sum >> 16)));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        ETHERTYPE_IPV6 if header.len() >= 40 && header[0] >> 4 == 6 => {
            // The traffic class is the low half of the first byte and the high half of the second. Its upper six bits
            // are the DSCP.
            header[0] = 0x60 | dscp >> 2;
            header[1] = (header[1] & 0x3f) | (dscp & 0x03) << 6;
        }
        _ => {}
    }
}
