//! The largest MTU of a port, and what sets it.

use crate::host::VETH_NATIVE_MAX_MTU;
use crate::io::umem::HEADROOM;
use crate::model::ModeRequest;

/// Bytes of an Ethernet header and one VLAN tag: what a frame has beside its MTU's worth.
const L2_OVERHEAD: u32 = 14 + 4;

/// Largest MTU that fits a UMEM frame with headroom, header and tag, in bytes.
pub fn frame_mtu(frame_size: u32) -> u32 {
    frame_size - HEADROOM - L2_OVERHEAD
}

/// The largest MTU of a port on such a netdev, and what sets it. `mode` is the mode in force, or the one that is
/// asked for.
pub fn mtu_limit(mode: ModeRequest, is_veth: bool, frame_size: u32) -> (u32, &'static str) {
    let frame = frame_mtu(frame_size);
    if is_veth && mode == ModeRequest::Native && VETH_NATIVE_MAX_MTU < frame {
        return (
            VETH_NATIVE_MAX_MTU,
            "native XDP on veth needs each packet in one page with its headroom; mode generic carries more",
        );
    }
    (
        frame,
        "an AF_XDP frame holds one packet with 256 bytes of headroom, Ethernet header and VLAN tag; jumbo frames do not fit",
    )
}
