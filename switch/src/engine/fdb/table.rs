//! The slots of the FDB: a two-choice hash table of one 64-bit word per entry.
//!
//! A word names its key completely. So one atomic load gives a reader a key and its port together. A reader never
//! sees one entry's key with another's port, and has no version to check.
//!
//! The key fits because the hash is a bijection. The 60 bits of MAC and VID are permuted. The low bits are the
//! bucket, and only the rest is stored (quotienting).
//!
//! ```text
//!  63                      14   13      12      11     10      9 … 0
//! | rest of the permuted key | choice | valid | held | static | port |
//! ```
//!
//! Each key has one bucket under each of two permutations. `choice` says which one the entry is in. A bucket is a
//! cache line of eight slots. At most half of the slots are used. So a full pair of buckets does not happen by
//! chance. As long as the seed is secret, it does not happen on purpose either.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::engine::PortNo;
use crate::engine::bits::{low_index, low_u16};
use crate::model::{MAX_PORTS, MacAddr, VID_COUNT, Vid};

/// Slots of a bucket: as many as a cache line of 64 bytes holds.
pub const BUCKET: usize = 8;
/// Bits of a key: 48 of the address, 12 of the VID.
const KEY_BITS: u32 = 60;
const KEY_MASK: u64 = (1 << KEY_BITS) - 1;
const PORT_BITS: u32 = 10;
const STATIC: u64 = 1 << PORT_BITS;
const HELD: u64 = 1 << (PORT_BITS + 1);
const VALID: u64 = 1 << (PORT_BITS + 2);
const CHOICE: u32 = PORT_BITS + 3;
const REST: u32 = PORT_BITS + 4;
/// The bits of a word that do not belong to the key.
const VALUE: u64 = HELD | STATIC | (STATIC - 1);
/// Buckets of the smallest table: the bucket number must take 10 bits off the key for the rest to fit its word.
const MIN_BUCKETS: usize = 1 << (KEY_BITS + REST - 64);

const _: () = assert!(MAX_PORTS <= 1 << PORT_BITS);

/// MAC and VID as one number; `None` if the VID is out of range.
#[inline]
pub fn key(mac: MacAddr, vid: Vid) -> Option<u64> {
    (usize::from(vid) < VID_COUNT).then(|| mac.to_u64() << 12 | u64::from(vid))
}

/// The address and VLAN of a key.
pub fn station(key: u64) -> (MacAddr, Vid) {
    (MacAddr::from_u64(key >> 12), low_u16(key & 0xfff))
}

/// The word of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// The word of an empty slot.
    pub const EMPTY: Word = Word(0);

    #[inline]
    pub fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    #[inline]
    pub fn is_static(self) -> bool {
        self.0 & STATIC != 0
    }

    /// Whether the station does not move now.
    #[inline]
    pub fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// The same, held.
    pub fn held(self) -> Self {
        Word(self.0 | HELD)
    }

    #[inline]
    pub fn port(self) -> PortNo {
        low_u16(self.0 & (STATIC - 1))
    }

    /// The same key with another value, not held.
    pub fn with(self, port: PortNo, is_static: bool) -> Self {
        debug_assert!(usize::from(port) < MAX_PORTS);
        Word(self.0 & !VALUE | u64::from(port) & (STATIC - 1) | if is_static { STATIC } else { 0 })
    }
}

/// A bijection of 60-bit numbers that depends on the seed. Multiplications by odd numbers carry every bit upwards.
/// Shifts by half the width bring them down again.
#[derive(Clone, Copy, Debug)]
struct Permutation {
    add: u64,
    factors: [u64; 2],
    inverses: [u64; 2],
}

impl Permutation {
    fn new(seed: &mut u64) -> Self {
        let add = split_mix(seed) & KEY_MASK;
        let factors = [split_mix(seed) & KEY_MASK | 1, split_mix(seed) & KEY_MASK | 1];
        Self { add, factors, inverses: factors.map(inverse) }
    }

    #[inline]
    fn forward(&self, key: u64) -> u64 {
        let x = (key ^ self.add).wrapping_mul(self.factors[0]) & KEY_MASK;
        let x = (x ^ x >> (KEY_BITS / 2)).wrapping_mul(self.factors[1]) & KEY_MASK;
        x ^ x >> (KEY_BITS / 2)
    }

    fn backward(&self, x: u64) -> u64 {
        // x ^ x >> half is its own inverse when half is at least half of the width.
        let x = (x ^ x >> (KEY_BITS / 2)).wrapping_mul(self.inverses[1]) & KEY_MASK;
        let x = (x ^ x >> (KEY_BITS / 2)).wrapping_mul(self.inverses[0]) & KEY_MASK;
        x ^ self.add
    }
}

/// Inverse of an odd number modulo 2^64, hence also modulo 2^60. Each step of Newton's iteration doubles the correct
/// bits, from 3.
fn inverse(odd: u64) -> u64 {
    (0..5).fold(odd, |x, _| x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x))))
}

/// Next number of the SplitMix64 sequence (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; BUCKET]);

/// Where a key can be: two buckets and the word, without value, that it has in each.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub buckets: [usize; 2],
    pub words: [Word; 2],
}

impl Places {
    /// The slots of both buckets, each with the key's word there.
    pub fn slots(self) -> impl Iterator<Item = (usize, Word)> {
        (0..2).flat_map(move |c| (0..BUCKET).map(move |i| (self.buckets[c] * BUCKET + i, self.words[c])))
    }
}

/// The slots. Anybody may read at any time. Who stores must hold the table's lock.
#[derive(Debug)]
pub struct Table {
    buckets: Box<[Bucket]>,
    permutations: [Permutation; 2],
    bits: u32,
}

impl Table {
    /// A table that is at most half full with `limit` entries.
    pub fn new(limit: usize, mut seed: u64) -> Self {
        let count = (limit * 2).div_ceil(BUCKET).next_power_of_two().max(MIN_BUCKETS);
        Self {
            buckets: std::iter::repeat_with(Bucket::default).take(count).collect(),
            permutations: [Permutation::new(&mut seed), Permutation::new(&mut seed)],
            bits: count.trailing_zeros(),
        }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.buckets.len() * BUCKET
    }

    /// Both places of a key.
    pub fn places(&self, key: u64) -> Places {
        let [(first, at_first), (second, at_second)] = [self.place(key, 0), self.place(key, 1)];
        Places { buckets: [first, second], words: [at_first, at_second] }
    }

    /// The bucket that a key has by one of the two permutations, and its word there, without value.
    #[inline]
    fn place(&self, key: u64, choice: usize) -> (usize, Word) {
        let x = self.permutations[choice].forward(key);
        let bucket = low_index(x) & (self.buckets.len() - 1);
        (bucket, Word((x >> self.bits) << REST | (choice as u64) << CHOICE | VALID))
    }

    /// The slot and word of a key, if it is there.
    #[inline]
    pub fn find(&self, key: u64) -> Option<(usize, Word)> {
        // Most keys are in their first bucket. The second is worked out only if need be.
        for choice in 0..2 {
            let (bucket, want) = self.place(key, choice);
            for (i, slot) in self.buckets[bucket].0.iter().enumerate() {
                let word = slot.load(Relaxed);
                if word & !VALUE == want.0 {
                    return Some((bucket * BUCKET + i, Word(word)));
                }
            }
        }
        None
    }

    /// Loads the bucket that a key is most probably in. What it returns means nothing.
    #[inline]
    pub fn touch(&self, key: u64) -> Word {
        self.load(self.place(key, 0).0 * BUCKET)
    }

    /// What a slot holds. Relaxed, because a word stands for itself: nothing else is read because of it.
    #[inline]
    pub fn load(&self, slot: usize) -> Word {
        Word(self.buckets[slot / BUCKET].0[slot % BUCKET].load(Relaxed))
    }

    /// Changes what a slot holds. The caller has the table's lock.
    pub fn store(&self, slot: usize, word: Word) {
        self.buckets[slot / BUCKET].0[slot % BUCKET].store(word.0, Relaxed);
    }

    /// A free slot for a key in the emptier of its buckets, and the key's word there.
    pub fn free_slot(&self, places: Places) -> Option<(usize, Word)> {
        let free =
            |c: usize| places.slots().skip(c * BUCKET).take(BUCKET).filter(|(slot, _)| !self.load(*slot).is_valid());
        let choice = usize::from(free(1).count() > free(0).count());
        free(choice).next()
    }

    /// The address and VLAN of an entry.
    pub fn key_of(&self, slot: usize, word: Word) -> (MacAddr, Vid) {
        let permutation = &self.permutations[low_index(word.0 >> CHOICE & 1)];
        let key = permutation.backward((word.0 >> REST) << self.bits | (slot / BUCKET) as u64);
        station(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_gives_its_key_back(seed: u64, mac in 0_u64..1 << 48, vid in 0_u16..4096, limit in 16_usize..100_000) {
            let table = Table::new(limit, seed);
            let mac = MacAddr::from_u64(mac);
            let places = table.places(key(mac, vid).unwrap());
            for (bucket, word) in places.buckets.into_iter().zip(places.words) {
                prop_assert!(bucket < table.buckets.len());
                prop_assert_eq!(table.key_of(bucket * BUCKET, word.with(1023, true)), (mac, vid));
            }
        }
    }

    #[test]
    fn an_entry_whose_word_differs_in_any_key_bit_is_another_one() {
        let table = Table::new(100, 1);
        let key = key(MacAddr::from_u64(0x0200_0000_0001), 5).unwrap();
        let (slot, word) = table.free_slot(table.places(key)).unwrap();
        for bit in 0..64 {
            let other = Word(word.0 ^ 1 << bit);
            table.store(slot, other);
            let is_value = VALUE >> bit & 1 != 0;
            assert_eq!(table.find(key), is_value.then_some((slot, other)), "bit {bit}");
        }
    }

    #[test]
    fn half_full_tables_never_overflow_a_pair_of_buckets() {
        for seed in 0..4 {
            let table = Table::new(1 << 16, seed);
            for n in 0..1_u64 << 16 {
                // Consecutive addresses, as a lazy sender of floods uses them.
                let places = table.places(key(MacAddr::from_u64(0x0200_0000_0000 + n), 5).unwrap());
                let (slot, word) = table.free_slot(places).unwrap();
                table.store(slot, word);
            }
        }
    }
}
