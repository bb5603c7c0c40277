//! The header in front of a packet in a ring: `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6).

/// Bytes of the header.
pub const HEADER: usize = 12;
/// Bytes of the header without the number of buffers.
pub const LEGACY_HEADER: usize = 10;

/// `VIRTIO_NET_F_MRG_RXBUF`: a packet may take several chains.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// `VIRTIO_F_VERSION_1`: this is no legacy device.
pub const F_VERSION_1: u64 = 1 << 32;

/// The checksum is to be made (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const NEEDS_CSUM: u8 = 1;
/// The checksum was found right (`VIRTIO_NET_HDR_F_DATA_VALID`).
pub const DATA_VALID: u8 = 2;

/// The packet is as it is (`VIRTIO_NET_HDR_GSO_NONE`).
pub const GSO_NONE: u8 = 0;
/// TCP in IPv4 that is to be cut into segments.
pub const GSO_TCPV4: u8 = 1;
/// TCP in IPv6 that is to be cut into segments.
pub const GSO_TCPV6: u8 = 4;
/// UDP that is to be cut into datagrams (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const GSO_UDP_L4: u8 = 5;
/// With one of the TCP types: the packet has CWR set.
pub const GSO_ECN: u8 = 0x80;

/// How the header lies in front of packets, by what was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFormat {
    /// Bytes of the header: [`HEADER`] or [`LEGACY_HEADER`].
    pub len: usize,
    /// Whether a packet may take several chains.
    pub mergeable: bool,
}

impl HeaderFormat {
    /// Of the feature bits that both sides have.
    pub fn of_bits(features: u64) -> Self {
        let mergeable = features & F_MRG_RXBUF != 0;
        let len = if mergeable || features & F_VERSION_1 != 0 { HEADER } else { LEGACY_HEADER };
        Self { len, mergeable }
    }
}

/// The header. All bytes are one, so it says nothing certain: [`super::OffloadRules`] has the checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// One of the GSO types.
    pub gso_type: u8,
    /// Bytes of all headers of the packet. It is a hint, and not to be relied on.
    pub hdr_len: u16,
    /// Bytes of a segment's payload.
    pub gso_size: u16,
    /// Where the checksum's bytes begin.
    pub csum_start: u16,
    /// Where the checksum is, from there on.
    pub csum_offset: u16,
    /// Number of chains that the packet takes. It means something only to the driver.
    pub num_buffers: u16,
}

impl NetHeader {
    /// Of a packet that is as it should be on a wire, in one chain.
    pub const PLAIN: Self =
        Self { flags: 0, gso_type: GSO_NONE, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0, num_buffers: 1 };

    /// Reads a header.
    #[inline(always)]
    pub fn of_bytes(bytes: [u8; HEADER]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h, i, j] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([a, b]),
            gso_size: u16::from_le_bytes([c, d]),
            csum_start: u16::from_le_bytes([e, f]),
            csum_offset: u16::from_le_bytes([g, h]),
            num_buffers: u16::from_le_bytes([i, j]),
        }
    }

    /// Reads a header without the number of buffers.
    #[inline(always)]
    pub fn of_legacy_bytes(bytes: [u8; LEGACY_HEADER]) -> Self {
        let mut all = [0; HEADER];
        all[..LEGACY_HEADER].copy_from_slice(&bytes);
        Self::of_bytes(all)
    }

    /// Its bytes. Without the last two it is a legacy header.
    #[inline(always)]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let ([a, b], [c, d]) = (self.hdr_len.to_le_bytes(), self.gso_size.to_le_bytes());
        let ([e, f], [g, h]) = (self.csum_start.to_le_bytes(), self.csum_offset.to_le_bytes());
        let [i, j] = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h, i, j]
    }

    /// Whether the packet is as it should be on a wire, whatever the other fields say.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_read_as_they_were_written(bytes: [u8; HEADER]) {
            let header = NetHeader::of_bytes(bytes);
            prop_assert_eq!(header.to_bytes(), bytes);
            let legacy = NetHeader::of_legacy_bytes(*bytes.first_chunk().unwrap());
            prop_assert_eq!(legacy, NetHeader { num_buffers: 0, ..header });
        }
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let header = NetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
            num_buffers: 0x090a,
        };
        assert_eq!(header.to_bytes(), [1, 0x81, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9]);
    }

    #[test]
    fn the_header_is_short_only_for_legacy_devices_without_merging() {
        let format = |features| HeaderFormat::of_bits(features);
        assert_eq!(format(0), HeaderFormat { len: 10, mergeable: false });
        assert_eq!(format(F_VERSION_1), HeaderFormat { len: 12, mergeable: false });
        assert_eq!(format(F_MRG_RXBUF), HeaderFormat { len: 12, mergeable: true });
        assert_eq!(format(F_MRG_RXBUF | F_VERSION_1), HeaderFormat { len: 12, mergeable: true });
    }
}
