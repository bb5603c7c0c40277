//! Tags of the cached flows. A lookup for a whole burst compares tags first, and touches an entry only when a tag
//! matches. Entries take sixty times as much of the CPU's caches.

use super::entry::{NO_EPOCH, SETS, set_of, tag_of};

/// The tag of each entry, if the entry is of the current epoch.
#[derive(Debug)]
pub(super) struct TagIndex {
    tags: Box<[[u16; 2]]>,
    epoch: u64,
}

impl Default for TagIndex {
    fn default() -> Self {
        Self { tags: vec![[0; 2]; SETS].into_boxed_slice(), epoch: NO_EPOCH }
    }
}

impl TagIndex {
    /// Clears all tags if they are of another epoch.
    #[inline]
    pub(super) fn keep_to(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.tags.fill([0; 2]);
        }
    }

    /// The set, and the place in it, of the entry that a flow with that hash may have.
    #[inline]
    pub(super) fn find(&self, hash: u64) -> Option<(usize, usize)> {
        let set = set_of(hash);
        let place = self.tags.get(set)?.iter().position(|tag| *tag == tag_of(hash))?;
        Some((set, place))
    }

    /// A flow with that hash has its entry at `place` of its set.
    #[inline]
    pub(super) fn put(&mut self, hash: u64, place: usize) {
        if let Some(tag) = self.tags.get_mut(set_of(hash)).and_then(|set| set.get_mut(place)) {
            *tag = tag_of(hash);
        }
    }
}
