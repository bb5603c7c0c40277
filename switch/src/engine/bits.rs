//! Low bits of a word, by name, where a word packs several fields or a hash becomes an index.
//!
//! The rest of the word is meant to be lost. A plain `as` would not say so.
#![expect(clippy::cast_possible_truncation, reason = "what these functions are for")]

/// The low 16 bits.
#[inline(always)]
pub(crate) const fn low_u16(word: u64) -> u16 {
    word as u16
}

/// The low 32 bits.
#[inline(always)]
pub(crate) const fn low_u32(word: u64) -> u32 {
    word as u32
}

/// The low bits as an index: all 64 on the machines that the switch runs on.
#[inline(always)]
pub(super) const fn low_index(word: u64) -> usize {
    word as usize
}

/// The upper and the lower half.
#[inline(always)]
pub(super) const fn halves(word: u128) -> [u64; 2] {
    [(word >> 64) as u64, word as u64]
}
