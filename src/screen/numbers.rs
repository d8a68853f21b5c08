//! Directed rounding and memory, for the other parts.

use crate::error::Error;
use alloc::vec::Vec;

/// More than the relative rounding error of an f64 sum of up to four million squares.
pub(crate) const SUM_ERROR: f64 = 1e-9;

/// An upper bound of the Euclidean norm. Infinite or NaN if a value is.
pub(crate) fn norm_up(values: &[f64]) -> f64 {
    libm::sqrt(squares_up(values))
}

/// An upper bound of the sum of squares. Eight sums, so that it is not a chain of additions.
pub(crate) fn squares_up(values: &[f64]) -> f64 {
    let mut sums = [0f64; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * value;
        }
    }
    let rest: f64 = rest.iter().map(|value| value * value).sum();
    (sums.iter().sum::<f64>() + rest) * (1.0 + SUM_ERROR)
}

/// The lowest f32 that is not below `value`.
pub(crate) fn up(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value {
        near.next_up()
    } else {
        near
    }
}

/// `value` rounded to 24 significant bits, in f64: its product with a small integer is exact.
pub(crate) fn to_f32_precision(value: f64) -> f64 {
    const DROPPED: u64 = (1 << 29) - 1;
    f64::from_bits(value.to_bits() & !DROPPED)
}

/// An empty vector with room for `len` elements.
pub(crate) fn reserve<T>(len: usize, what: &'static str) -> Result<Vec<T>, Error> {
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| Error::OutOfMemory {
        what,
        bytes: len.saturating_mul(size_of::<T>()) as u64,
    })?;
    Ok(out)
}

/// `len` zeros.
pub(crate) fn zeros<T: Clone + Default>(len: usize, what: &'static str) -> Result<Vec<T>, Error> {
    let mut out = reserve(len, what)?;
    out.resize(len, T::default());
    Ok(out)
}
