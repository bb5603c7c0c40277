//! The way in: whether a port may send a frame, and in which VLAN the frame then is.

use super::tracer::StepTracer;
use crate::engine::PortNo;
use crate::engine::parse::{self, Arp, ETHERTYPE_ARP, ETHERTYPE_RARP, L2};
use crate::engine::snapshot::{PortPolicy, Snapshot};
use crate::engine::vlan;
use crate::model::{DropReason, MacAddr, Vid, VlanMode};

/// Checks a frame that came in from `ingress`. Returns its layer 2, its VLAN and the port's policy.
#[inline]
pub(super) fn admit<'a, T: StepTracer>(
    snap: &'a Snapshot,
    ingress: PortNo,
    frame: &[u8],
    tracer: &mut T,
) -> Result<(L2, Vid, &'a PortPolicy), DropReason> {
    let l2 = parse::parse_l2(frame)?;
    if !l2.src.is_unicast() {
        tracer.step("ingress", |_| format!("{} cannot be the address of a station", l2.src));
        return Err(DropReason::SourceMacInvalid);
    }
    let Some(from) = snap.port(ingress) else {
        tracer.step("ingress", |name| format!("{} does not exist", name(ingress)));
        return Err(DropReason::PortGone);
    };
    if snap.is_host_address(l2.src) {
        tracer.step("anti-spoof", |_| format!("{} is the host's own, on a NIC that it shares", l2.src));
        return Err(DropReason::HostAddress);
    }
    let vid = match vlan::ingress(&from.vlan, l2.tag) {
        Ok(vid) => vid,
        Err(reason) => {
            tracer.step("vlan", |name| format!("not accepted by {}: {}", name(ingress), describe_mode(&from.vlan)));
            return Err(reason);
        }
    };
    tracer.step("vlan", |name| format!("VLAN {vid} by {}: {}", name(ingress), describe_mode(&from.vlan)));
    if from.mac_check {
        check_sender(from, &l2, frame, tracer)?;
    } else {
        tracer.step("anti-spoof", |_| "off".to_owned());
    }
    Ok((l2, vid, from))
}

/// Compares source address and ARP sender with the port's address.
#[inline]
fn check_sender<T: StepTracer>(from: &PortPolicy, l2: &L2, frame: &[u8], tracer: &mut T) -> Result<(), DropReason> {
    let is_own = |mac: MacAddr| from.mac == Some(mac);
    let own = || from.mac.map_or_else(|| "no address".to_owned(), |mac| mac.to_string());
    if !is_own(l2.src) {
        tracer.step("anti-spoof", |_| format!("source {} while the port has {}", l2.src, own()));
        return Err(DropReason::MacSpoofed);
    }
    // ARP behind a second tag is checked too: the far end of a QinQ tunnel takes the outer tag off.
    let (ethertype, offset) = match parse::inner_tag(frame, l2) {
        Some((_, ethertype, offset)) => (ethertype, offset),
        None => (l2.ethertype, l2.payload_offset()),
    };
    if matches!(ethertype, ETHERTYPE_ARP | ETHERTYPE_RARP)
        && let Ok(Some(arp)) = Arp::read(frame.get(offset..).unwrap_or_default())
        && !is_own(arp.sender_mac)
    {
        tracer.step("anti-spoof", |_| format!("ARP sender {} while the port has {}", arp.sender_mac, own()));
        return Err(DropReason::ArpSpoofed);
    }
    tracer.step("anti-spoof", |_| format!("sender is {}, as it should", l2.src));
    Ok(())
}

fn describe_mode(mode: &VlanMode) -> String {
    match mode {
        VlanMode::Access { vid: 0 } => "access to the untagged segment".to_owned(),
        VlanMode::Access { vid } => format!("access to VLAN {vid}"),
        VlanMode::Trunk { native: Some(native), tagged } => format!("trunk of {tagged}, native {native}"),
        VlanMode::Trunk { native: None, tagged } => format!("trunk of {tagged}, no native VLAN"),
    }
}
