//! The table of a classifier component: exact addresses within VLANs, in one hash table of any size.
//!
//! Untagged frames are a VLAN of their own, beside the 4,096 that a tag can name. Two things are computed ahead for
//! each VLAN: the receivers of group addresses, and the default. A VLAN without a default of its own has that of
//! untagged frames. A VLAN without entries has only the default of untagged frames, also as the receiver of group
//! addresses.

use crate::engine::bits::low_index;
use crate::engine::parse::{fold_product, parse_l2};
use crate::model::{DropReason, MacAddr, TableEntry, VID_COUNT};

/// Number of the VLAN of untagged frames.
const UNTAGGED: usize = VID_COUNT;
/// Key of an empty place. No VLAN has such a number.
const NOTHING: u64 = u64::MAX;

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// To one sending end.
    One(u16),
    /// To each of these sending ends, which are all different. There may be none.
    All(&'a [u16]),
    /// Nowhere.
    None,
}

/// Where frames of a VLAN go that have no entry of their own.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Sending end of unicast addresses.
    default: Option<u16>,
    /// Sending ends of group addresses.
    receivers: Box<[u16]>,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    /// VLAN and address with the sending end. Found by linear probing, and at most half full.
    exact: Box<[(u64, u16)]>,
    /// By VLAN: place in `rows`. The first row is that of VLANs without entries.
    row_of: Box<[u16]>,
    rows: Vec<Row>,
}

/// The sending end of an entry. `check` bounds it.
fn sending_end(entry: &TableEntry) -> u16 {
    u16::try_from(entry.tx).unwrap_or(u16::MAX)
}

#[inline]
fn key(vlan: usize, mac: MacAddr) -> u64 {
    (vlan as u64) << 48 | mac.to_u64()
}

#[inline]
fn place(vlan: Option<u16>) -> usize {
    vlan.map_or(UNTAGGED, usize::from)
}

impl Table {
    /// The table of those entries, which must have passed `check`.
    pub fn new(entries: &[TableEntry]) -> Self {
        let default_of =
            |vlan: Option<u16>| entries.iter().find(|entry| entry.vlan == vlan && entry.mac.is_none()).map(sending_end);
        let general = default_of(None);
        let mut rows = vec![Row { default: general, receivers: general.into_iter().collect() }];
        let mut row_of = vec![0; VID_COUNT + 1].into_boxed_slice();
        let size = (2 * entries.len()).next_power_of_two().max(2);
        let mut exact = vec![(NOTHING, 0); size].into_boxed_slice();
        let mut members: Vec<Vec<u16>> = vec![Vec::new()];
        for entry in entries {
            let Some(row) = row_of.get_mut(place(entry.vlan)) else { continue };
            if *row == 0 {
                *row = u16::try_from(rows.len()).unwrap_or_default();
                rows.push(Row { default: default_of(entry.vlan).or(general), receivers: Box::default() });
                members.push(Vec::new());
            }
            let members = &mut members[usize::from(*row)];
            let tx = sending_end(entry);
            if !members.contains(&tx) {
                members.push(tx);
            }
            if let Some(mac) = entry.mac {
                let key = key(place(entry.vlan), mac);
                let mut at = slot(key, size);
                while exact[at].0 != NOTHING && exact[at].0 != key {
                    at = (at + 1) % size;
                }
                exact[at] = (key, tx);
            }
        }
        for (row, mut members) in rows.iter_mut().zip(members).skip(1) {
            members.extend(general.filter(|general| !members.contains(general)));
            row.receivers = members.into();
        }
        Self { exact, row_of, rows }
    }

    /// Where a frame goes. That is one sending end at least.
    ///
    /// # Errors
    /// Why it goes nowhere.
    #[inline]
    pub fn decide(&self, frame: &[u8]) -> Result<Target<'_>, DropReason> {
        let l2 = parse_l2(frame)?;
        match self.find(l2.tag.map(|tag| tag.vid()), l2.dst) {
            Target::None | Target::All([]) => Err(DropReason::ClassifierMiss),
            target => Ok(target),
        }
    }

    /// Where a frame to `dst` goes that has a tag of that VLAN, or none.
    #[inline]
    pub fn find(&self, vlan: Option<u16>, dst: MacAddr) -> Target<'_> {
        let vlan = place(vlan);
        let (key, size) = (key(vlan, dst), self.exact.len());
        let mut at = slot(key, size);
        loop {
            match self.exact[at] {
                (found, tx) if found == key => return Target::One(tx),
                (NOTHING, _) => break,
                _ => at = (at + 1) & (size - 1),
            }
        }
        self.find_default(vlan, dst)
    }

    /// Where it goes without an entry of its own. It is not inlined, so that the search has all registers to itself.
    #[inline(never)]
    fn find_default(&self, vlan: usize, dst: MacAddr) -> Target<'_> {
        let row = &self.rows[self.row_of.get(vlan).map_or(0, |row| usize::from(*row))];
        if dst.is_group() {
            return Target::All(&row.receivers);
        }
        row.default.map_or(Target::None, Target::One)
    }
}

/// Where the search for a key begins in a table of that size, a power of two.
#[inline]
fn slot(key: u64, size: usize) -> usize {
    low_index(fold_product(key ^ 0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03)) & (size - 1)
}
