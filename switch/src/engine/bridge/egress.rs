//! The way out that was decided on, in one word, and runs of frames that have it in common.

use crate::engine::PortNo;
use crate::engine::bits::{low_u16, low_u32};
use crate::engine::meter::Color;
use crate::engine::vlan::TagEdit;
use crate::model::MAX_QUEUES;

/// Port, queue and tag edit. They are one word, because each frame's is compared with that of the frame before.
///
/// ```text
///  63 … 48   47 … 32   31      30 … 28   27 … 16      15 … 0
/// | TPID    | TCI     | aside | edit    | 1 + queue  | port |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress(u64);

const POP: u64 = 1;
const SET_TCI: u64 = 2;
const PUSH: u64 = 3;
const ASIDE: u64 = 1 << 31;
const QUEUE: u32 = 16;
const EDIT: u32 = 28;
const TCI: u32 = 32;
const TPID: u32 = 48;
const _: () = assert!(MAX_QUEUES < 1 << (EDIT - QUEUE));

impl Egress {
    /// No frame has this one.
    pub const NOWHERE: Self = Self(u64::MAX);

    /// Out of `port`, by `queue` if one is named, with the tag edited. A queue that no port can have counts as none.
    #[inline]
    pub fn new(port: PortNo, edit: TagEdit, queue: Option<u32>) -> Self {
        let queue = queue.filter(|queue| *queue < MAX_QUEUES).map_or(0, |queue| u64::from(queue) + 1);
        let edit = match edit {
            TagEdit::None => 0,
            TagEdit::Pop => POP << EDIT,
            TagEdit::SetTci(tci) => SET_TCI << EDIT | u64::from(tci) << TCI,
            TagEdit::Push { tpid, tci } => PUSH << EDIT | u64::from(tci) << TCI | u64::from(tpid) << TPID,
        };
        Self(edit | queue << QUEUE | u64::from(port))
    }

    /// The same for frames that more has to be done with than to count and send them. No run has such an egress.
    #[inline]
    pub fn aside(self) -> Self {
        Self(self.0 | ASIDE)
    }

    /// Whether more has to be done.
    #[inline]
    pub fn is_aside(self) -> bool {
        self.0 & ASIDE != 0
    }

    /// The port.
    #[inline]
    pub fn port(self) -> PortNo {
        low_u16(self.0)
    }

    /// Queue of the port; `None`: by flow hash.
    #[inline]
    pub fn queue(self) -> Option<u32> {
        low_u32(self.0 >> QUEUE & 0xfff).checked_sub(1)
    }

    /// What to do to the tag first.
    #[inline]
    pub fn edit(self) -> TagEdit {
        let (tci, tpid) = (low_u16(self.0 >> TCI), low_u16(self.0 >> TPID));
        match self.0 >> EDIT & 0x7 {
            POP => TagEdit::Pop,
            SET_TCI => TagEdit::SetTci(tci),
            PUSH => TagEdit::Push { tpid, tci },
            _ => TagEdit::None,
        }
    }
}

/// Frames in a row with the same egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Their egress.
    pub egress: Egress,
    /// The colour that meters have given them so far.
    pub color: Color,
    /// How many.
    pub frames: usize,
    /// Their bytes, before the tag edit.
    pub bytes: usize,
}

impl Run {
    /// Appends it to `runs`, as part of the last run if that has the same egress and colour. An empty run is left out.
    #[inline]
    pub fn add_to(self, runs: &mut Vec<Run>) {
        match runs.last_mut() {
            Some(last) if last.egress == self.egress && last.color == self.color => {
                last.frames += self.frames;
                last.bytes += self.bytes;
            }
            _ if self.frames == 0 => {}
            _ => runs.push(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::MAX_PORTS;

    fn any_edit() -> impl Strategy<Value = TagEdit> {
        prop_oneof![
            Just(TagEdit::None),
            Just(TagEdit::Pop),
            any::<u16>().prop_map(TagEdit::SetTci),
            any::<(u16, u16)>().prop_map(|(tpid, tci)| TagEdit::Push { tpid, tci }),
        ]
    }

    proptest! {
        #[test]
        fn an_egress_says_what_it_was_made_of(
            port in 0..MAX_PORTS as PortNo, edit in any_edit(), queue in prop::option::of(0..2 * MAX_QUEUES)
        ) {
            let egress = Egress::new(port, edit, queue);
            let there = queue.filter(|queue| *queue < MAX_QUEUES);
            prop_assert_eq!((egress.port(), egress.edit(), egress.queue()), (port, edit, there));
            prop_assert!(!egress.is_aside());
            let aside = egress.aside();
            prop_assert_eq!((aside.port(), aside.edit(), aside.queue()), (port, edit, there));
            prop_assert!(aside.is_aside() && aside != egress && aside != Egress::NOWHERE);
        }
    }
}
