//! Changing the outer VLAN tag of a frame in place. Tags are between the addresses and the EtherType. So a push or
//! pop moves the 12 bytes of addresses and leaves the payload where it is.

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
    /// Replace PCP, DEI and VID of the outer tag. Its TPID stays.
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

    /// Length in bytes of a frame of `len` bytes after the edit.
    #[inline]
    pub const fn edited_len(self, len: usize) -> usize {
        match self {
            TagEdit::Push { .. } => len + VLAN_TAG,
            TagEdit::Pop => len.saturating_sub(VLAN_TAG),
            TagEdit::None | TagEdit::SetTci(_) => len,
        }
    }
}

/// Edits the frame that `buf`, a whole UMEM chunk, holds at `start..start + len`. Returns start and length after the
/// edit.
///
/// The caller sees to it that a push finds 4 bytes before `start`, and that a frame whose tag is popped or set has one.
/// [`super::egress`] does so. If the bytes for an edit are not there, the frame stays as it is. That is a fault of the
/// caller, and debug builds stop there.
#[inline(always)]
pub fn apply(edit: TagEdit, buf: &mut [u8], start: usize, len: usize) -> (usize, usize) {
    // Addresses and tag begin at `first`, before a pop or after a push. Without 4 bytes before `start` it wraps, and is
    // not in `buf`.
    let (first, least) = match edit {
        TagEdit::None => return (start, len),
        TagEdit::Push { .. } => (start.wrapping_sub(VLAN_TAG), ETH_HEADER),
        TagEdit::Pop | TagEdit::SetTci(_) => (start, ETH_HEADER + VLAN_TAG),
    };
    let inside = len >= least && start.checked_add(len).is_some_and(|end| end <= buf.len());
    let size = buf.len();
    let front = if inside { buf.get_mut(first..) } else { None };
    let front = front.and_then(|front| front.first_chunk_mut::<{ ADDRESSES + VLAN_TAG }>());
    debug_assert!(front.is_some(), "{edit:?} at {start}+{len} of {size} bytes");
    let Some(front) = front else { return (start, len) };
    // All 16 bytes as one number, the first byte lowest.
    let all = u128::from_le_bytes(*front);
    let (all, start, len) = match edit {
        TagEdit::None => (all, start, len),
        TagEdit::Push { tpid, tci } => {
            let tag = (u32::from(tpid) << 16 | u32::from(tci)).swap_bytes();
            (all >> 32 | u128::from(tag) << 96, start - VLAN_TAG, len + VLAN_TAG)
        }
        TagEdit::Pop => (all << 32, start + VLAN_TAG, len - VLAN_TAG),
        TagEdit::SetTci(tci) => (all << 16 >> 16 | u128::from(tci.swap_bytes()) << 112, start, len),
    };
    *front = all.to_le_bytes();
    (start, len)
}
