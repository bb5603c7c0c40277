//! VLAN membership of ports and what it does to a frame's tag.
//!
//! The outer tag of a frame, C-tag or S-tag, says its VLAN. Without a tag, or with VID 0 (a priority tag), the port
//! says it. Inside the switch a frame keeps its bytes and has a VID, 0 for the untagged segment. What happens to the
//! tag is decided for each receiver, and done once on the way out.
//!
//! - An **access** port of VLAN *v* takes frames without a tag or with a priority tag. It sends frames of *v* without a
//!   tag.
//! - A **trunk** takes frames of its `tagged` VLANs and of its native VLAN with a tag. Frames without a VID belong to
//!   the native VLAN. It sends the native VLAN without a tag and the others with one.
//!
//! A trunk without a native VLAN drops frames without a VID. Where it sends a tag, a tag that is there keeps PCP, DEI
//! and TPID. A priority tag gets the VID. Else a C-tag with PCP 0 is pushed.
//!
//! An access port drops any tag with a VID, also its own, as Open vSwitch does (`vlan_mode` in
//! ovs-vswitchd.conf.db(5)). Whoever tags frames on an access port is misconfigured or tries something. VID 4095 is
//! always dropped.
//!
//! **No VLAN hopping by double tagging.** An inner tag is never changed. No edit lets it take the outer tag's place
//! where VLANs are told apart. So an access port does not take a priority tag with another tag behind it. A trunk
//! keeps the outer tag of a stacked frame of its native VLAN. Out of an access port the outer tag of a stacked frame
//! does go, as it does at the far end of a QinQ tunnel.
//!
//! These are pure functions on plain data, for any thread.

pub use edit::{TagEdit, apply};

use super::parse::{TPID_CTAG, Tag};
use crate::model::{DropReason, MAX_VID, Vid, VlanMode};

mod edit;
#[cfg(test)]
pub(crate) mod tests;

/// VLAN of a frame that came in from a port of that mode with that outer tag.
///
/// # Errors
/// `VlanNotAllowed` if such a port does not take such a frame.
#[inline]
pub fn ingress(mode: &VlanMode, tag: Option<Tag>) -> Result<Vid, DropReason> {
    let carried = tag.map_or(0, Tag::vid);
    let vid = match mode {
        VlanMode::Access { vid } => (carried == 0 && !tag.is_some_and(|tag| tag.stacked)).then_some(*vid),
        VlanMode::Trunk { native, .. } if carried == 0 => *native,
        VlanMode::Trunk { native, tagged } => (*native == Some(carried) || tagged.contains(carried)).then_some(carried),
    };
    vid.filter(|vid| *vid <= MAX_VID).ok_or(DropReason::VlanNotAllowed)
}

/// What to do to the tag of a frame of VLAN `vid` that goes out of a port of that mode. `tag` is the outer tag that
/// the frame came in with. `None` if the port is not a member of `vid`.
#[inline]
pub fn egress(mode: &VlanMode, vid: Vid, tag: Option<Tag>) -> Option<TagEdit> {
    if !mode.is_member(vid) {
        return None;
    }
    let (access, native) = match mode {
        VlanMode::Access { .. } => (true, false),
        VlanMode::Trunk { native, .. } => (false, *native == Some(vid)),
    };
    Some(match tag {
        None if access || native => TagEdit::None,
        None => TagEdit::Push { tpid: TPID_CTAG, tci: vid },
        Some(_) if access => TagEdit::Pop,
        // A stacked tag stays. Its VID is the native one or 0, which mean the same to the other end.
        Some(tag) if native => {
            if tag.stacked {
                TagEdit::None
            } else {
                TagEdit::Pop
            }
        }
        Some(tag) if tag.vid() == 0 => TagEdit::SetTci(tag.tci | vid),
        Some(_) => TagEdit::None,
    })
}
