//! Conversions of numbers.

/// A number as a narrower type, or as one with another sign. Panics if it does not fit.
pub fn narrow<T>(value: impl TryInto<T>) -> T {
    value.try_into().unwrap_or_else(|_| panic!("the number fits"))
}
