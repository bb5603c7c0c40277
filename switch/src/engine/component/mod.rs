//! Components of the Soft Patch Panel, the pure part: what fits together ([`check`]), when a component has what it needs
//! ([`is_ready`]), what an end does to a tag ([`tag_edit`]), and the table of a classifier ([`Table`]).

mod check;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use check::{Known, KnownPort, check};
pub use table::{Table, Target};

use super::parse::{TPID_CTAG, parse_l2};
use super::vlan::TagEdit;
use crate::model::{ComponentKind, ComponentSpec, DropReason, VlanEdit};

/// Whether the component has the ends that its kind needs (and a classifier an entry). One that has not takes no frames: they
/// wait where they are.
pub fn is_ready(spec: &ComponentSpec) -> bool {
    let (rx, tx) = (spec.rx.len(), spec.tx.len());
    match spec.kind {
        ComponentKind::Forward => (rx, tx) == (1, 1),
        ComponentKind::Merge => rx >= 1 && tx == 1,
        ComponentKind::Classifier => rx == 1 && tx >= 1 && !spec.table.is_empty(),
        ComponentKind::Mirror => (rx, tx) == (1, 2),
    }
}

/// What an end does to the tag of this frame. A tag that is added is a C-tag; one that is there keeps its TPID.
///
/// # Errors
/// That the frame has no usable layer 2, which matters only if something is to be done to it.
#[inline(always)]
pub fn tag_edit(edit: VlanEdit, frame: &[u8]) -> Result<TagEdit, DropReason> {
    Ok(match edit {
        VlanEdit::None => TagEdit::None,
        VlanEdit::Add { vid, pcp } => {
            let tci = u16::from(pcp) << 13 | vid;
            match parse_l2(frame)?.tag {
                Some(_) => TagEdit::SetTci(tci),
                None => TagEdit::Push { tpid: TPID_CTAG, tci },
            }
        }
        VlanEdit::Del => match parse_l2(frame)?.tag {
            Some(_) => TagEdit::Pop,
            None => TagEdit::None,
        },
    })
}
