//! What a bond tells its network after a failover: the addresses behind other ports, and who wants which groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use vhost_user::net::{Checksum, fill_checksum};

use crate::control::core::Core;
use crate::engine::bridge::{FloodVerdict, flood_verdict};
use crate::engine::snapshot::Snapshot;
use crate::engine::vlan::{self, TagEdit};
use crate::host::FrameSocket;
use crate::model::{MacAddr, PortNo, Vid};
use crate::rarp;
use crate::worker::view::PortShared;

/// Addresses that are announced at most. Others are found when their stations send.
const MOST: usize = 16_384;
/// VLANs in which groups are asked for at most.
const MOST_VLANS: usize = 64;
/// Room for a tag in front of a frame.
const TAG: usize = 4;
/// Bytes of the frames that are sent: the least of Ethernet, without FCS.
const LEN: usize = 60;

/// Announces each address that the FDB has behind another port of the bridge, once, by a RARP request. Switches learn
/// from it where the address is now.
pub fn addresses(core: &Core, bond: PortNo, socket: &dyn FrameSocket) {
    let view = core.shared.view.load_full();
    let others = view.fdb.entries(core.now()).into_iter().filter(|row| row.port != bond);
    let mut sent = 0_usize;
    for row in others.take(MOST) {
        let Some(edit) = edit_to(&view.snapshot, row.port, bond, row.vid) else { continue };
        // Who is not reached now learns of it from the next announcement, or from the station itself.
        if with_tag(&rarp::request(row.mac), edit, |frame| socket.send(frame)).is_err() {
            break;
        }
        sent += 1;
    }
    tracing::info!(port = bond, addresses = sent, "a bond announces the addresses behind other ports");
}

/// Asks all stations behind other ports which IPv4 groups they want, so that their answers go out by the bond, and
/// switches that snoop learn from them: an IGMPv2 general query (RFC 2236) from 0.0.0.0, as RFC 4541 has it for who has
/// no address.
pub fn query_groups(core: &Core, bond: &Arc<PortShared>, mac: MacAddr) {
    let view = core.shared.view.load_full();
    let others = view.fdb.entries(core.now()).into_iter().filter(|row| row.port != bond.no);
    let ports: BTreeSet<(Vid, PortNo)> = others.map(|row| (row.vid, row.port)).collect();
    let mut asked = BTreeSet::new();
    for (vid, port) in ports {
        if asked.len() >= MOST_VLANS || asked.contains(&vid) {
            continue;
        }
        // What the bond is sent in that VLAN is tagged as what it sends there.
        let Some(edit) = edit_to(&view.snapshot, port, bond.no, vid) else { continue };
        asked.insert(vid);
        with_tag(&igmp_query(mac), edit, |frame| core.gate.inject(&core.shared, bond, frame));
    }
}

/// What is done to the tag of an untagged frame of a VLAN on its way to the bond. `None`: it does not go there.
fn edit_to(snapshot: &Snapshot, from: PortNo, bond: PortNo, vid: Vid) -> Option<TagEdit> {
    match flood_verdict(snapshot, from, bond, vid, None, LEN) {
        FloodVerdict::Send { port, edit } if port == bond => Some(edit),
        _ => None,
    }
}

/// Gives an untagged frame with its tag edited to `take`.
fn with_tag<R>(frame: &[u8; LEN], edit: TagEdit, take: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0; TAG + LEN];
    buffer[TAG..].copy_from_slice(frame);
    let (start, len) = vlan::apply(edit, &mut buffer, TAG, LEN);
    take(&buffer[start..start + len])
}

/// A general query of IGMPv2 in a frame, with the Router Alert option (RFC 2113).
fn igmp_query(mac: MacAddr) -> [u8; LEN] {
    let mut frame = [0; LEN];
    frame[..6].copy_from_slice(&[0x01, 0, 0x5e, 0, 0, 1]);
    frame[6..12].copy_from_slice(&mac.octets());
    frame[12..14].copy_from_slice(&[8, 0]);
    // Version 4, six words; length 32; TTL 1; IGMP; to 224.0.0.1.
    frame[14..34].copy_from_slice(&[0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 224, 0, 0, 1]);
    frame[34..38].copy_from_slice(&[0x94, 4, 0, 0]);
    // Membership query, answered within 10 s.
    frame[38..46].copy_from_slice(&[0x11, 100, 0, 0, 0, 0, 0, 0]);
    fill_checksum(&mut frame[14..38], Checksum { start: 0, offset: 10 });
    fill_checksum(&mut frame[38..46], Checksum { start: 0, offset: 2 });
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Internet checksum (RFC 1071) of an even number of bytes.
    fn checksum(bytes: &[u8]) -> [u8; 2] {
        let sum = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let [.., upper, lower] = (!(folded + (folded >> 16))).to_be_bytes();
        [upper, lower]
    }

    #[test]
    fn a_group_query_has_right_checksums() {
        let frame = igmp_query(MacAddr::new([2, 0, 0, 0, 0, 1]));
        assert_eq!((checksum(&frame[14..38]), checksum(&frame[38..46])), ([0, 0], [0, 0]));
        // 0x11 << 8 | 100, by hand.
        assert_eq!(frame[40..42], [0xee, 0x9b]);
    }
}
