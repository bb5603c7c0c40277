//! Changing the outer VLAN tag of a frame in place. Tags sit between the addresses and the EtherType, so pushing and popping
//! moves the 12 bytes of addresses and leaves the payload where it is.

use crate::engine::parse::{ETH_HEADER, VLAN_TAG};

/// Bytes of both MAC addresses.
const ADDRESSES: usize = 12;

/// What to do to a frame's outer tag on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TagEdit {
    /// Nothing.
    #[default]
    None,
    /// Put a tag in front of the others.
    Push {
        /// Tag protocol identifier.
        tpid: u16,
        /// PCP, DEI and VID.
        tci: u16,
    },
    /// Take the outer tag off.
    Pop,
    /// Replace PCP, DEI and VID of the outer tag; its TPID stays.
    SetTci(u16),
}

impl TagEdit {
    /// By how many bytes the frame gets longer.
    #[inline]
    pub const fn grows_by(self) -> i32 {
        match self {
            TagEdit::Push { .. } => 4,
            TagEdit::Pop => -4,
            TagEdit::None | TagEdit::SetTci(_) => 0,
        }
    }
}

/// Edits the frame that `buf` (a whole UMEM chunk) holds at `start..start + len`, and returns where it is afterwards as
/// (start, len).
///
/// The caller sees to it that a push finds 4 bytes before `start`, and that a frame whose tag is popped or set has one, as
/// [`super::egress`] does. If the bytes for an edit are not there, the frame stays as it is: a fault of the caller, which
/// debug builds stop at.
#[inline]
pub fn apply(edit: TagEdit, buf: &mut [u8], start: usize, len: usize) -> (usize, usize) {
    let inside = start.checked_add(len).is_some_and(|end| end <= buf.len());
    let possible = match edit {
        TagEdit::None => true,
        TagEdit::Push { .. } => inside && start >= VLAN_TAG && len >= ETH_HEADER,
        TagEdit::Pop | TagEdit::SetTci(_) => inside && len >= ETH_HEADER + VLAN_TAG,
    };
    debug_assert!(possible, "{edit:?} at {start}+{len} of {} bytes", buf.len());
    if !possible {
        return (start, len);
    }
    match edit {
        TagEdit::None => (start, len),
        TagEdit::Push { tpid, tci } => {
            let moved = start - VLAN_TAG;
            buf.copy_within(start..start + ADDRESSES, moved);
            buf[moved + ADDRESSES..moved + ADDRESSES + 2].copy_from_slice(&tpid.to_be_bytes());
            buf[moved + ADDRESSES + 2..moved + ADDRESSES + 4].copy_from_slice(&tci.to_be_bytes());
            (moved, len + VLAN_TAG)
        }
        TagEdit::Pop => {
            buf.copy_within(start..start + ADDRESSES, start + VLAN_TAG);
            (start + VLAN_TAG, len - VLAN_TAG)
        }
        TagEdit::SetTci(tci) => {
            buf[start + ADDRESSES + 2..start + ADDRESSES + 4].copy_from_slice(&tci.to_be_bytes());
            (start, len)
        }
    }
}
