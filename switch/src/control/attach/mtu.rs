//! The largest MTU of a port, and what sets it.

use crate::host::{Host, VETH_NATIVE_MAX_MTU};
use crate::io::umem::{HEADROOM, MOST_CHUNKS};
use crate::model::ModeRequest;

/// Bytes of an Ethernet header and one VLAN tag: what a frame has beside its MTU's worth.
const L2_OVERHEAD: u32 = 14 + 4;
/// Largest MTU of a netdev: an IP packet has no more bytes.
const MAX_MTU: u32 = 65_535;
/// Largest MTU of a tap: its device counts the Ethernet header in (`tun_net_initialize` in `drivers/net/tun.c`).
const TAP_MAX_MTU: u32 = MAX_MTU - 14;

/// Why a port's packets have one chunk each, in the words of its refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneChunk {
    /// The kernel has nothing else.
    Kernel,
    /// The driver has nothing else for native programs.
    Driver,
    /// A guest has AF_XDP sockets of its own on the other end.
    GuestSockets,
    /// The sockets were opened so, for a driver that moves frames without a copy.
    ZeroCopy,
}

impl OneChunk {
    fn why(self) -> &'static str {
        match self {
            Self::Kernel => {
                "this kernel's AF_XDP has one packet in one frame, with 256 bytes of headroom, Ethernet header and VLAN tag; \
                 kernel 6.6 and later carry jumbo frames"
            }
            Self::Driver => {
                "its driver has no XDP multi-buffer support in native mode, so a packet must fit in one frame; mode generic \
                 carries jumbo frames"
            }
            Self::GuestSockets => {
                "the guest's end is open for a guest's own AF_XDP sockets, and QEMU's take packets of one page only; a \
                 port without guest_sockets carries jumbo frames"
            }
            Self::ZeroCopy => {
                "its sockets were opened for packets of one frame each, so that the driver can leave copies out; delete \
                 the port and add it with the larger MTU, or with zero_copy off"
            }
        }
    }
}

/// What a port's largest MTU depends on.
#[derive(Clone, Copy, Debug)]
pub struct MtuFacts {
    /// Mode in force, or the one that is asked for.
    pub mode: ModeRequest,
    /// Whether the netdev is a veth.
    pub is_veth: bool,
    /// Whether there is a tap behind it.
    pub has_tap: bool,
    /// Bytes of a chunk.
    pub frame_size: u32,
    /// Why each packet has one chunk, if so.
    pub one_chunk: Option<OneChunk>,
}

/// Largest MTU that fits one chunk with headroom, header and tag, in bytes.
pub fn frame_mtu(frame_size: u32) -> u32 {
    frame_size - HEADROOM - L2_OVERHEAD
}

/// Largest MTU that fits the chunks of the longest packet. The kernel leaves the headroom free in each of them.
pub fn jumbo_mtu(frame_size: u32) -> u32 {
    let chunks = u32::try_from(MOST_CHUNKS).unwrap_or(1);
    (chunks * (frame_size - HEADROOM) - L2_OVERHEAD).min(MAX_MTU)
}

/// Why packets of a port with such sockets on the guest's end, or without, would have one chunk each.
pub fn one_chunk(host: &dyn Host, has_guest_sockets: bool) -> Option<OneChunk> {
    match has_guest_sockets {
        _ if !host.knows_multi_buffer() => Some(OneChunk::Kernel),
        true => Some(OneChunk::GuestSockets),
        false => None,
    }
}

/// The largest MTU of a port, and what sets it.
pub fn mtu_limit(facts: MtuFacts) -> (u32, &'static str) {
    let MtuFacts { mode, is_veth, has_tap, frame_size, one_chunk } = facts;
    let frame = frame_mtu(frame_size);
    match one_chunk {
        None if has_tap => (jumbo_mtu(frame_size).min(TAP_MAX_MTU), "a tap has no larger one"),
        None if jumbo_mtu(frame_size) == MAX_MTU => (MAX_MTU, "a netdev has no larger one"),
        None => {
            (jumbo_mtu(frame_size), "a packet has 18 frames of `frame_size` at most, each with 256 bytes of headroom")
        }
        Some(why) if is_veth && mode == ModeRequest::Native => (VETH_NATIVE_MAX_MTU.min(frame), why.why()),
        Some(why) => (frame, why.why()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mtu_follows_from_what_carries_the_packets() {
        let jumbo =
            MtuFacts { mode: ModeRequest::Native, is_veth: true, has_tap: false, frame_size: 4096, one_chunk: None };
        let max = |facts| mtu_limit(facts).0;
        assert_eq!(max(jumbo), 65_535);
        assert_eq!(max(MtuFacts { has_tap: true, ..jumbo }), 65_521);
        assert_eq!(max(MtuFacts { frame_size: 2048, ..jumbo }), 18 * 1792 - 18);
        for one_chunk in [OneChunk::Kernel, OneChunk::Driver, OneChunk::GuestSockets, OneChunk::ZeroCopy].map(Some) {
            assert_eq!(max(MtuFacts { one_chunk, ..jumbo }), 3506);
            assert_eq!(max(MtuFacts { one_chunk, mode: ModeRequest::Generic, ..jumbo }), 3822);
            assert_eq!(max(MtuFacts { one_chunk, is_veth: false, ..jumbo }), 3822);
            assert_eq!(max(MtuFacts { one_chunk, frame_size: 2048, ..jumbo }), 1774);
        }
    }
}
