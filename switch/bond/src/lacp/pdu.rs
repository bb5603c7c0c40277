//! Frames of the Slow Protocols: LACPDUs and Marker PDUs (IEEE 802.1AX-2008, 5.4.2 and 5.5.3; IEEE 802.3 Annex 57A).
//!
//! Whatever a partner sends is read without trust. Frames longer than a PDU, fields that are reserved, and TLVs behind
//! the known ones are passed over. Versions above 1 have the same TLVs in the same places first (802.1AX, 5.4.1).

use model::MacAddr;
use thiserror::Error;

use super::state::PortState;

/// Destination of all Slow Protocols frames. Bridges never forward it.
pub const SLOW_PROTOCOLS: MacAddr = MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 2]);
/// EtherType of the Slow Protocols.
pub const ETHERTYPE: u16 = 0x8809;
/// Length of the frames that are sent: header, and PDU of 110 bytes. Without FCS.
pub const FRAME_LEN: usize = HEADER + PDU_LEN;

const HEADER: usize = 14;
const PDU_LEN: usize = 110;
const SUBTYPE_LACP: u8 = 1;
const SUBTYPE_MARKER: u8 = 2;
/// Offsets in the PDU of the type bytes of LACP's TLVs, with type and length: actor, partner, collector.
const ACTOR: usize = 2;
const PARTNER: usize = 22;
const COLLECTOR: usize = 42;
const INFO_LEN: u8 = 20;
const COLLECTOR_LEN: u8 = 16;
const MARKER_LEN: u8 = 16;
const MARKER_INFORMATION: u8 = 1;
const MARKER_RESPONSE: u8 = 2;

/// What a port says about itself, or about its partner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortInfo {
    /// Priority of the system. A low number is a high priority.
    pub system_priority: u16,
    /// Address of the system. All zero: nobody is known.
    pub system: MacAddr,
    /// Ports of one system with the same key may be aggregated.
    pub key: u16,
    /// Priority of the port. A low number is a high priority.
    pub port_priority: u16,
    /// Number of the port in its system.
    pub port: u16,
    /// Its state.
    pub state: PortState,
}

impl PortInfo {
    /// Whether both mean the same port, with the same key and will to aggregate. What the receive machine compares
    /// before it changes the selection (`update_Selected`).
    pub(super) fn same_link(&self, other: &Self) -> bool {
        let plain = |info: &Self| PortInfo { state: PortState(info.state.0 & PortState::AGGREGATION.0), ..*info };
        plain(self) == plain(other)
    }
}

/// A LACPDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacpdu {
    /// Version of the protocol; 1 or more.
    pub version: u8,
    /// The sender about itself.
    pub actor: PortInfo,
    /// The sender about us.
    pub partner: PortInfo,
    /// How long the sender may keep a received frame, in units of 10 µs.
    pub collector_max_delay: u16,
}

/// A Marker PDU, or the response to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Port number of who asks.
    pub port: u16,
    /// System of who asks.
    pub system: MacAddr,
    /// What tells its markers apart.
    pub transaction: u32,
}

/// A frame of the Slow Protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pdu {
    /// A LACPDU.
    Lacp(Lacpdu),
    /// Asks for a response behind all frames sent before.
    Marker(Marker),
    /// That response.
    MarkerResponse(Marker),
    /// Another protocol, such as OAM (3).
    Other {
        /// Its number.
        subtype: u8,
    },
}

/// Why a frame is no PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PduError {
    /// Another destination or EtherType, or a tag.
    #[error("no frame of the Slow Protocols")]
    NotSlow,
    /// The frame ends inside of the PDU.
    #[error("the PDU is cut off")]
    Truncated,
    /// Version 0.
    #[error("version 0 is none")]
    Version,
    /// A TLV at a fixed place has another type or length.
    #[error("TLV {kind} of length {len} where {expected} is expected")]
    Tlv {
        /// Its type.
        kind: u8,
        /// Its length.
        len: u8,
        /// What should be there.
        expected: &'static str,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn mac_at(bytes: &[u8], at: usize) -> MacAddr {
    MacAddr::new(std::array::from_fn(|i| bytes[at + i]))
}

fn expect_tlv(pdu: &[u8], at: usize, kind: u8, len: u8, expected: &'static str) -> Result<(), PduError> {
    let found = (pdu[at], pdu[at + 1]);
    if found == (kind, len) { Ok(()) } else { Err(PduError::Tlv { kind: found.0, len: found.1, expected }) }
}

impl Pdu {
    /// Reads an Ethernet frame without FCS.
    ///
    /// # Errors
    /// If it is none of the Slow Protocols, or a badly formed one. See [`PduError`].
    pub fn parse(frame: &[u8]) -> Result<Self, PduError> {
        let (header, pdu) = frame.split_at_checked(HEADER).ok_or(PduError::NotSlow)?;
        if mac_at(header, 0) != SLOW_PROTOCOLS || u16_at(header, 12) != ETHERTYPE {
            return Err(PduError::NotSlow);
        }
        match pdu.first() {
            Some(&(SUBTYPE_LACP | SUBTYPE_MARKER)) if pdu.len() < PDU_LEN => Err(PduError::Truncated),
            Some(&SUBTYPE_LACP) => Self::parse_lacp(pdu),
            Some(&SUBTYPE_MARKER) => Self::parse_marker(pdu),
            Some(&subtype) => Ok(Self::Other { subtype }),
            None => Err(PduError::Truncated),
        }
    }

    fn parse_lacp(pdu: &[u8]) -> Result<Self, PduError> {
        let version = pdu[1];
        if version == 0 {
            return Err(PduError::Version);
        }
        expect_tlv(pdu, ACTOR, 1, INFO_LEN, "actor information")?;
        expect_tlv(pdu, PARTNER, 2, INFO_LEN, "partner information")?;
        expect_tlv(pdu, COLLECTOR, 3, COLLECTOR_LEN, "collector information")?;
        Ok(Self::Lacp(Lacpdu {
            version,
            actor: info_at(pdu, ACTOR + 2),
            partner: info_at(pdu, PARTNER + 2),
            collector_max_delay: u16_at(pdu, COLLECTOR + 2),
        }))
    }

    fn parse_marker(pdu: &[u8]) -> Result<Self, PduError> {
        if pdu[1] == 0 {
            return Err(PduError::Version);
        }
        let response = pdu[2] == MARKER_RESPONSE;
        let kind = if response { MARKER_RESPONSE } else { MARKER_INFORMATION };
        expect_tlv(pdu, 2, kind, MARKER_LEN, "marker information or response")?;
        let transaction = u32::from(u16_at(pdu, 12)) << 16 | u32::from(u16_at(pdu, 14));
        let marker = Marker { port: u16_at(pdu, 4), system: mac_at(pdu, 6), transaction };
        Ok(if response { Self::MarkerResponse(marker) } else { Self::Marker(marker) })
    }

    /// The frame to send from a port with address `source`. [`Pdu::Other`] has its subtype only.
    pub fn encode(&self, source: MacAddr) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        frame[..6].copy_from_slice(&SLOW_PROTOCOLS.octets());
        frame[6..12].copy_from_slice(&source.octets());
        frame[12..HEADER].copy_from_slice(&ETHERTYPE.to_be_bytes());
        let pdu = &mut frame[HEADER..];
        match self {
            Self::Lacp(lacp) => {
                pdu[..2].copy_from_slice(&[SUBTYPE_LACP, lacp.version]);
                pdu[ACTOR..ACTOR + 2].copy_from_slice(&[1, INFO_LEN]);
                put_info(pdu, ACTOR + 2, &lacp.actor);
                pdu[PARTNER..PARTNER + 2].copy_from_slice(&[2, INFO_LEN]);
                put_info(pdu, PARTNER + 2, &lacp.partner);
                pdu[COLLECTOR..COLLECTOR + 2].copy_from_slice(&[3, COLLECTOR_LEN]);
                pdu[COLLECTOR + 2..COLLECTOR + 4].copy_from_slice(&lacp.collector_max_delay.to_be_bytes());
            }
            Self::Marker(marker) => put_marker(pdu, MARKER_INFORMATION, marker),
            Self::MarkerResponse(marker) => put_marker(pdu, MARKER_RESPONSE, marker),
            Self::Other { subtype } => pdu[0] = *subtype,
        }
        frame
    }
}

fn info_at(pdu: &[u8], at: usize) -> PortInfo {
    PortInfo {
        system_priority: u16_at(pdu, at),
        system: mac_at(pdu, at + 2),
        key: u16_at(pdu, at + 8),
        port_priority: u16_at(pdu, at + 10),
        port: u16_at(pdu, at + 12),
        state: PortState(pdu[at + 14]),
    }
}

fn put_info(pdu: &mut [u8], at: usize, info: &PortInfo) {
    pdu[at..at + 2].copy_from_slice(&info.system_priority.to_be_bytes());
    pdu[at + 2..at + 8].copy_from_slice(&info.system.octets());
    pdu[at + 8..at + 10].copy_from_slice(&info.key.to_be_bytes());
    pdu[at + 10..at + 12].copy_from_slice(&info.port_priority.to_be_bytes());
    pdu[at + 12..at + 14].copy_from_slice(&info.port.to_be_bytes());
    pdu[at + 14] = info.state.0;
}

fn put_marker(pdu: &mut [u8], kind: u8, marker: &Marker) {
    pdu[..4].copy_from_slice(&[SUBTYPE_MARKER, 1, kind, MARKER_LEN]);
    pdu[4..6].copy_from_slice(&marker.port.to_be_bytes());
    pdu[6..12].copy_from_slice(&marker.system.octets());
    pdu[12..16].copy_from_slice(&marker.transaction.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 9]);

    fn lacpdu() -> Lacpdu {
        let info = |n: u16| PortInfo {
            system_priority: 0x8000 + n,
            system: MacAddr::from_u64(0x0200_0000_0000 + u64::from(n)),
            key: 0x100 + n,
            port_priority: 0x200 + n,
            port: 0x300 + n,
            state: PortState(0x3d),
        };
        Lacpdu { version: 1, actor: info(1), partner: info(2), collector_max_delay: 0x1234 }
    }

    #[test]
    fn a_lacpdu_has_the_octets_of_the_standard() {
        let frame = Pdu::Lacp(lacpdu()).encode(SOURCE);
        let expected = [
            &[0x01, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x88, 0x09, 1, 1][..],
            &[1, 20, 0x80, 1, 2, 0, 0, 0, 0, 1, 1, 1, 2, 1, 3, 1, 0x3d, 0, 0, 0],
            &[2, 20, 0x80, 2, 2, 0, 0, 0, 0, 2, 1, 2, 2, 2, 3, 2, 0x3d, 0, 0, 0],
            &[3, 16, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0; 52],
        ]
        .concat();
        assert_eq!(frame[..], expected[..]);
        assert_eq!(Pdu::parse(&frame), Ok(Pdu::Lacp(lacpdu())));
    }

    #[test]
    fn a_marker_and_its_response_have_the_octets_of_the_standard() {
        let marker = Marker { port: 7, system: SOURCE, transaction: 0x0102_0304 };
        let frame = Pdu::Marker(marker).encode(SOURCE);
        assert_eq!(frame[14..30], [2, 1, 1, 16, 0, 7, 2, 0, 0, 0, 0, 9, 1, 2, 3, 4]);
        assert_eq!(Pdu::parse(&frame), Ok(Pdu::Marker(marker)));
        let response = Pdu::MarkerResponse(marker).encode(SOURCE);
        assert_eq!(response[16], 2);
        assert_eq!(Pdu::parse(&response), Ok(Pdu::MarkerResponse(marker)));
    }

    #[test]
    fn later_versions_reserved_fields_and_longer_frames_are_taken() {
        let mut frame = Pdu::Lacp(lacpdu()).encode(SOURCE).to_vec();
        frame[15] = 2;
        // TLVs of version 2 (802.1AX-2014), and reserved bytes.
        frame[74..80].copy_from_slice(&[4, 8, 1, 2, 3, 4]);
        frame[33] = 0xff;
        frame.extend([0xaa; 40]);
        assert_eq!(Pdu::parse(&frame), Ok(Pdu::Lacp(Lacpdu { version: 2, ..lacpdu() })));
    }

    #[test]
    fn what_is_no_pdu_is_told_apart() {
        let good = Pdu::Lacp(lacpdu()).encode(SOURCE);
        let changed = |at: usize, byte: u8| {
            let mut frame = good;
            frame[at] = byte;
            Pdu::parse(&frame)
        };
        for at in [0, 5, 12, 13] {
            assert_eq!(changed(at, 0x77), Err(PduError::NotSlow), "byte {at}");
        }
        assert_eq!(changed(15, 0), Err(PduError::Version));
        for at in [16, 17, 36, 37, 56, 57] {
            assert!(matches!(changed(at, 9), Err(PduError::Tlv { .. })), "byte {at}");
        }
        assert_eq!(changed(14, 3), Ok(Pdu::Other { subtype: 3 }), "OAM");
        for len in 0..FRAME_LEN {
            let expected = if len < 14 { PduError::NotSlow } else { PduError::Truncated };
            assert_eq!(Pdu::parse(&good[..len]), Err(expected), "{len} bytes");
        }
    }
}
