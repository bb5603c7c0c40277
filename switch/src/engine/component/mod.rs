//! The pure part of the Soft Patch Panel's components.
//!
//! - `check`: whether a set of components can run.
//! - [`is_ready`]: whether a component has the ends that it needs.
//! - [`tag_edit`]: what an end does to a tag.
//! - [`Table`]: the table of a classifier component.

mod check;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use check::{Known, KnownPort, check};
pub use table::{Table, Target};

use super::parse::{TPID_CTAG, parse_l2};
use super::vlan::TagEdit;
use crate::model::{ComponentKind, ComponentSpec, DropReason, VlanEdit};

/// Whether a component has the ends that its kind needs, and a classifier an entry. A component that is not ready
/// takes no frames. They wait where they are.
pub fn is_ready(spec: &ComponentSpec) -> bool {
    let (rx, tx) = (spec.rx.len(), spec.tx.len());
    match spec.kind {
        ComponentKind::Forward => (rx, tx) == (1, 1),
        ComponentKind::Merge => rx >= 1 && tx == 1,
        ComponentKind::Classifier => rx == 1 && tx >= 1 && !spec.table.is_empty(),
        ComponentKind::Mirror => (rx, tx) == (1, 2),
    }
}

/// What an end does to the tag of a frame. A tag that is added is a C-tag. A tag that is there keeps its TPID.
///
/// # Errors
/// As [`parse_l2`]. Without an edit the frame is not parsed.
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
