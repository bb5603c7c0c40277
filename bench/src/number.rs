//! Conversions of numbers that the standard library leaves to `as`.

/// Whole part of a number. A negative one gives 0, one that is too large the greatest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// Whole part of a small number, such as a power of ten. One that is out of range gives the nearest that is in it.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
pub(crate) fn small(value: f64) -> i32 {
    value as i32
}
