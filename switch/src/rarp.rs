//! RARP, by which switches learn where a station is that does not speak itself.

use crate::model::MacAddr;

/// A frame with the request by which a station asks for its own protocol address (RFC 903).
pub fn request(mac: MacAddr) -> [u8; 60] {
    let (mut packet, mac) = ([0; 60], mac.octets());
    packet[..6].fill(0xff);
    packet[6..12].copy_from_slice(&mac);
    // RARP of Ethernet addresses for IPv4, "request reverse".
    packet[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    packet[22..28].copy_from_slice(&mac);
    packet[32..38].copy_from_slice(&mac);
    packet
}
