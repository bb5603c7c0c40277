//! A hash table of one mask's keys that many can read while one makes the next version of it.
//!
//! Linear hashing (Litwin 1980): the table grows by one bucket at a time, and shrinks likewise, so no change is dear. What is
//! looked at first of a bucket is a cache line: a piece of the hash of each of its keys. A key that is not there costs that
//! line and no more; one that is there costs its entry besides. Buckets are shared between versions as [`Array`] says.

use std::sync::Arc;

use super::array::Array;
use super::key::Key;

/// Keys of a bucket that are in its tags.
const TAGS: usize = 23;
/// Keys a bucket, on average: one not split yet has up to twice as many.
const FILL: usize = 9;
/// Stands behind the tags of a bucket that has more keys than tags; no tag is like it.
const MORE: u16 = u16::MAX;

/// A key and what is known of it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    index: u32,
}

/// The keys of a bucket. A cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket {
    /// Tags of the first entries; 0 where there is none; and [`MORE`] or 0.
    tags: [u16; TAGS + 1],
    entries: Arc<[Entry]>,
}

/// The piece of a hash that is in a bucket's line: neither 0 nor [`MORE`].
#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).clamp(1, MORE - 1)
}

impl Bucket {
    fn new(entries: impl Iterator<Item = Entry>) -> Self {
        let entries: Arc<[Entry]> = entries.collect();
        let mut tags = [0; TAGS + 1];
        tags.iter_mut().zip(&*entries).take(TAGS).for_each(|(place, entry)| *place = tag(entry.key.hash()));
        if entries.len() > TAGS {
            tags[TAGS] = MORE;
        }
        Self { tags, entries }
    }

    /// Place of a key whose tag is `tag`.
    #[inline]
    fn find(&self, tag: u16, key: &Key) -> Option<usize> {
        let mut wanted = [tag; TAGS + 1];
        wanted[TAGS] = MORE;
        let any = self.tags.iter().zip(&wanted).fold(false, |any, (tag, wanted)| any | (tag == wanted));
        if !any {
            return None;
        }
        let is_it = |(at, entry): &(usize, &Entry)| (*at >= TAGS || self.tags[*at] == tag) && entry.key == *key;
        self.entries.iter().enumerate().find(is_it).map(|(at, _)| at)
    }
}

/// The table: a number for each key.
#[derive(Clone, Debug)]
pub(super) struct Table {
    buckets: Array<Bucket>,
    /// One less than the power of two above the number of buckets.
    mask: usize,
    len: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { buckets: Array::new(Bucket::new(std::iter::empty())), mask: 1, len: 0 }
    }
}

impl Table {
    /// The bucket that a hash belongs to.
    #[inline]
    fn place(&self, hash: u64) -> usize {
        let at = hash as usize & self.mask;
        if at < self.buckets.len() { at } else { at & (self.mask >> 1) }
    }

    /// The number of that key, whose hash is `hash`.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let bucket = self.buckets.get(self.place(hash))?;
        bucket.find(tag(hash), key).map(|at| bucket.entries[at].index)
    }

    /// Gives a key a number, in place of one that it has, which is returned.
    pub(super) fn set(&mut self, key: Key, index: u32) -> Option<u32> {
        let hash = key.hash();
        let at = self.place(hash);
        let bucket = self.buckets.get_mut(at)?;
        if let Some(at) = bucket.find(tag(hash), &key) {
            let entry = &mut Arc::make_mut(&mut bucket.entries)[at];
            return Some(std::mem::replace(&mut entry.index, index));
        }
        *bucket = Bucket::new(bucket.entries.iter().copied().chain(std::iter::once(Entry { key, index })));
        self.len += 1;
        if self.len > self.buckets.len() * FILL {
            self.grow();
        }
        None
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, key: &Key) {
        let hash = key.hash();
        let at = self.place(hash);
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        let Some(gone) = bucket.find(tag(hash), key) else { return };
        let (before, after) = (&bucket.entries[..gone], &bucket.entries[gone + 1..]);
        *bucket = Bucket::new(before.iter().chain(after).copied());
        self.len -= 1;
        if self.len < self.buckets.len() * FILL / 2 {
            self.shrink();
        }
    }

    /// Splits the next bucket in turn in two, of which the second is a new one at the end.
    fn grow(&mut self) {
        let new = self.buckets.len();
        self.buckets.push(Bucket::new(std::iter::empty()));
        if new > self.mask {
            self.mask = self.mask * 2 + 1;
        }
        let Some(old) = self.buckets.get(new & (self.mask >> 1)).map(|bucket| Arc::clone(&bucket.entries)) else {
            return;
        };
        for at in [new & (self.mask >> 1), new] {
            let entries = old.iter().copied().filter(|entry| self.place(entry.key.hash()) == at);
            let half = Bucket::new(entries);
            if let Some(bucket) = self.buckets.get_mut(at) {
                *bucket = half;
            }
        }
    }

    /// Undoes what [`Table::grow`] did last.
    fn shrink(&mut self) {
        let Some(last) = self.buckets.pop() else { return };
        let gone = self.buckets.len();
        if let Some(bucket) = self.buckets.get_mut(gone & (self.mask >> 1)) {
            *bucket = Bucket::new(bucket.entries.iter().chain(&*last.entries).copied());
        }
        if gone > 1 && gone == self.mask / 2 + 1 {
            self.mask >>= 1;
        }
    }
}
