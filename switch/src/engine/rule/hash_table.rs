//! The hash table of a subtable: the rules of one mask. Many threads can read a version while one makes the next.
//!
//! It uses linear hashing (Litwin 1980). The table grows and shrinks by one bucket at a time, so no change is
//! expensive.
//!
//! A bucket is a cache line. It has no keys, only a tag of each key's hash and the index of its rule, where the key
//! is. A lookup of a key that is not there reads that line, and one time in some hundreds a rule. Versions share
//! buckets, see [`Array`].

use std::sync::Arc;

use super::NONE;
use super::array::Array;
use crate::engine::bits::{low_index, low_u32};
use crate::model::MAX_TABLE_SIZE;

/// Rules that are in a bucket's own line.
const PLACES: usize = 14;
/// Rules of a bucket on average. A bucket that is not split yet has up to twice as many.
const FILL: usize = 5;
/// Bits of a rule's index.
const INDEX_BITS: u32 = MAX_TABLE_SIZE.trailing_zeros();
const _: () = assert!(MAX_TABLE_SIZE.is_power_of_two() && INDEX_BITS <= 20);

/// Bits of a tag.
const TAG_BITS: u32 = u32::BITS - INDEX_BITS;

/// A tag above an index; 0: none.
type Place = u32;

/// The tag of a hash, above the bits of an index. It is not 0.
#[inline]
fn tag(hash: u64) -> Place {
    (low_u32(hash >> 32) >> INDEX_BITS).max(1) << INDEX_BITS
}

#[inline]
fn index(place: Place) -> u32 {
    place % (1 << INDEX_BITS)
}

#[inline]
fn is_tagged(place: Place, tag: Place) -> bool {
    place & !(u32::MAX >> TAG_BITS) == tag
}

/// Rules whose keys' hashes have the same low bits.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    places: [Place; PLACES],
    /// Rules that have no place in the line.
    more: Option<Arc<Vec<Place>>>,
}

impl Bucket {
    /// The lowest index under `tag`, or [`NONE`].
    #[inline]
    fn lowest(&self, tag: Place) -> u32 {
        // All are compared without a branch for each, because mostly none has the tag.
        let any = self.places.iter().fold(false, |any, place| any | is_tagged(*place, tag));
        if any || self.more.is_some() { self.lowest_of_all(tag) } else { NONE }
    }

    /// The same, one place after the other. It is not inlined, so that the comparison above is compiled to vector
    /// instructions.
    #[inline(never)]
    fn lowest_of_all(&self, tag: Place) -> u32 {
        let of = |place: &Place| if is_tagged(*place, tag) { index(*place) } else { NONE };
        let lowest = self.places.iter().fold(NONE, |lowest, place| lowest.min(of(place)));
        self.more.iter().flat_map(|more| more.iter()).fold(lowest, |lowest, place| lowest.min(of(place)))
    }

    /// The indices under `tag`.
    fn tagged(&self, tag: Place) -> impl Iterator<Item = u32> {
        self.all().filter(move |place| is_tagged(*place, tag)).map(index)
    }

    /// All places that are taken.
    fn all(&self) -> impl Iterator<Item = Place> {
        let more = self.more.iter().flat_map(|more| more.iter());
        self.places.iter().chain(more).copied().filter(|place| *place != 0)
    }

    fn add(&mut self, new: Place) {
        match self.places.iter_mut().find(|place| **place == 0) {
            Some(free) => *free = new,
            None => Arc::make_mut(self.more.get_or_insert_default()).push(new),
        }
    }

    /// Puts `new` in the place of `old`. False if there is no `old`.
    fn replace(&mut self, old: Place, new: Place) -> bool {
        // The list is shared with other versions. It is copied only if `old` is in it.
        let more = self.more.iter_mut().filter(|more| more.contains(&old));
        let more = more.flat_map(|more| Arc::make_mut(more).iter_mut());
        let place = self.places.iter_mut().chain(more).find(|place| **place == old);
        place.map(|place| *place = new).is_some()
    }

    fn remove(&mut self, old: Place) -> bool {
        let Some(more) = &mut self.more else { return self.replace(old, 0) };
        let last = Arc::make_mut(more).pop();
        if more.is_empty() {
            self.more = None;
        }
        last.is_some_and(|last| last == old || self.replace(old, last))
    }
}

/// The table: for each key the index of a rule.
#[derive(Clone, Debug)]
pub(super) struct HashTable {
    buckets: Array<Bucket>,
    /// One less than the smallest power of two that is not below the number of buckets.
    mask: usize,
    len: usize,
}

impl Default for HashTable {
    fn default() -> Self {
        Self { buckets: Array::new(Bucket::default()), mask: 1, len: 0 }
    }
}

impl HashTable {
    /// Number of the bucket of a hash.
    #[inline]
    fn place(&self, hash: u64) -> usize {
        let at = low_index(hash) & self.mask;
        if at < self.buckets.len() { at } else { at & (self.mask >> 1) }
    }

    /// The lowest index whose key may have that hash, or [`NONE`].
    #[inline]
    pub(super) fn lowest(&self, hash: u64) -> u32 {
        self.buckets.get(self.place(hash)).map_or(NONE, |bucket| bucket.lowest(tag(hash)))
    }

    /// The indices whose keys may have that hash. All whose keys have it are among them.
    pub(super) fn tagged(&self, hash: u64) -> impl Iterator<Item = u32> {
        self.buckets.get(self.place(hash)).into_iter().flat_map(move |bucket| bucket.tagged(tag(hash)))
    }

    /// Adds the index of a key that is not in the table. `hash_of` gives the hash of the key of an index in the table.
    pub(super) fn add(&mut self, hash: u64, index: u32, hash_of: impl Fn(u32) -> u64) {
        if let Some(bucket) = self.buckets.get_mut(self.place(hash)) {
            bucket.add(tag(hash) | index);
            self.len += 1;
        }
        if self.len > self.buckets.len() * FILL {
            self.grow(hash_of);
        }
    }

    /// Replaces the index of a key with that hash.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        if let Some(bucket) = self.buckets.get_mut(self.place(hash)) {
            bucket.replace(tag(hash) | old, tag(hash) | new);
        }
    }

    /// Removes the index of a key with that hash.
    pub(super) fn remove(&mut self, hash: u64, index: u32) {
        if let Some(bucket) = self.buckets.get_mut(self.place(hash))
            && bucket.remove(tag(hash) | index)
        {
            self.len -= 1;
        }
        // It shrinks at half of the size where it grew. So a rule that comes and goes does not make it do both each
        // time.
        if self.len < self.buckets.len() * FILL / 2 {
            self.shrink();
        }
    }

    /// Splits the next bucket in turn. What no longer belongs to it goes to a new one at the end.
    fn grow(&mut self, hash_of: impl Fn(u32) -> u64) {
        let new = self.buckets.len();
        if new > self.mask {
            self.mask = self.mask * 2 + 1;
        }
        let mut halves = [Bucket::default(), Bucket::default()];
        let old = new & (self.mask >> 1);
        for place in self.buckets.get(old).iter().flat_map(|bucket| bucket.all()) {
            let goes = low_index(hash_of(index(place))) & self.mask == new;
            halves[usize::from(goes)].add(place);
        }
        let [stay, go] = halves;
        if let Some(bucket) = self.buckets.get_mut(old) {
            *bucket = stay;
        }
        self.buckets.push(go);
    }

    /// Undoes what [`HashTable::grow`] did last.
    fn shrink(&mut self) {
        let Some(last) = self.buckets.pop() else { return };
        let gone = self.buckets.len();
        if let Some(bucket) = self.buckets.get_mut(gone & (self.mask >> 1)) {
            last.all().for_each(|place| bucket.add(place));
        }
        if gone > 1 && gone == self.mask / 2 + 1 {
            self.mask >>= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Hashes of many kinds: all bits random, only few of them, or few values, so that keys meet in buckets and under
    /// tags.
    fn hash_of(kind: u8, index: u32) -> u64 {
        let random = u64::from(index).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match kind {
            0 => random ^ random >> 29,
            1 => random & 0xfff0_0000_0000_0000,
            2 => random >> 60,
            _ => 0,
        }
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn a_table_is_as_large_as_what_is_in_it() {
        let mut table = HashTable::default();
        let hash_of = |index| hash_of(0, index);
        (0..50_000).for_each(|n| table.add(hash_of(n), n, hash_of));
        assert_eq!(table.buckets.len(), 10_000);
        (0..50_000).for_each(|n| table.remove(hash_of(n), n));
        assert_eq!((table.buckets.len(), table.len), (1, 0));
    }

    proptest! {
        #[test]
        fn every_version_has_what_was_put_in(
            kind in 0_u8..4, steps in prop::collection::vec((0_u8..4, 0..2000_u32, 1..300_u32), 1..30)
        ) {
            let hash_of = |index| hash_of(kind, index);
            let (mut table, mut model) = (HashTable::default(), BTreeMap::new());
            let mut old = Vec::new();
            for (what, from, count) in steps {
                for name in from..from + count {
                    // A rule of another index takes the place of one of the same key.
                    let index = name + MAX_TABLE_SIZE / 2;
                    match (what, model.get(&name).copied()) {
                        (0 | 1, None) => {
                            table.add(hash_of(name), name, |index| hash_of(index % (MAX_TABLE_SIZE / 2)));
                            model.insert(name, name);
                        }
                        (2, Some(before)) => {
                            table.remove(hash_of(name), before);
                            model.remove(&name);
                        }
                        (3, Some(before)) => {
                            table.replace(hash_of(name), before, index);
                            model.insert(name, index);
                        }
                        _ => {}
                    }
                }
                prop_assert_eq!(table.len, model.len());
                old.push((table.clone(), model.clone()));
            }
            for (table, model) in old {
                for name in 0..2300 {
                    let found = table.tagged(hash_of(name)).find(|index| index % (MAX_TABLE_SIZE / 2) == name);
                    prop_assert_eq!(found, model.get(&name).copied());
                    let lowest = table.tagged(hash_of(name)).min().unwrap_or(NONE);
                    prop_assert_eq!(table.lowest(hash_of(name)), lowest);
                }
            }
        }
    }
}
