//! Activation rows that are edited in place: strided, in f32, f16 or bf16.
//!
//! A row is written once, from f64 values: `old` is the row as it was, widened, `new` what it
//! becomes. A value that compares equal to the old one keeps its bytes (so `-0` stays `-0`); any
//! other is rounded once, to nearest, ties to even, from f64 to the row's format.

use crate::dtype::Dtype;
use crate::error::Error;
use crate::rows::Rows;
use half::{bf16, f16};

/// A batch of rows of the caller that may be changed, `[rows, width]`: row `r` starts
/// `r * stride_bytes` bytes after the first. No alignment is needed, and bytes between rows are
/// never touched.
#[derive(Debug)]
pub struct RowsMut<'r> {
    bytes: &'r mut [u8],
    dtype: Dtype,
    rows: usize,
    width: usize,
    stride_bytes: usize,
}

impl<'r> RowsMut<'r> {
    /// Contiguous f32 rows.
    ///
    /// # Errors
    /// [`Error::Length`] if `values` is not a whole number of rows.
    pub fn from_f32(values: &'r mut [f32], width: usize) -> Result<Self, Error> {
        let rows = Rows::from_f32(values, width)?.rows();
        let bytes = bytemuck::cast_slice_mut(values);
        Self::from_bytes(bytes, Dtype::F32, rows, width, width * 4)
    }

    /// Strided rows of any row format (F32, F16 or BF16).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another dtype or a stride shorter than a row,
    /// [`Error::Length`] if the bytes do not hold all rows.
    pub fn from_bytes(
        bytes: &'r mut [u8],
        dtype: Dtype,
        rows: usize,
        width: usize,
        stride_bytes: usize,
    ) -> Result<Self, Error> {
        Rows::from_bytes(bytes, dtype, rows, width, stride_bytes)?;
        Ok(RowsMut {
            bytes,
            dtype,
            rows,
            width,
            stride_bytes,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Format of the values.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The same rows, to be read.
    ///
    /// # Errors
    /// None in practice: what was checked when the rows were formed is checked again.
    pub fn as_rows(&self) -> Result<Rows<'_>, Error> {
        Rows::from_bytes(
            self.bytes,
            self.dtype,
            self.rows,
            self.width,
            self.stride_bytes,
        )
    }

    /// The first `count` rows and the others, so that threads can share a batch.
    #[must_use]
    pub fn split_at(self, count: usize) -> (RowsMut<'r>, RowsMut<'r>) {
        let count = count.min(self.rows);
        let at = (count * self.stride_bytes).min(self.bytes.len());
        let (first, rest) = self.bytes.split_at_mut(at);
        let (dtype, width, stride_bytes) = (self.dtype, self.width, self.stride_bytes);
        let part = |bytes, rows| RowsMut {
            bytes,
            dtype,
            rows,
            width,
            stride_bytes,
        };
        (part(first, count), part(rest, self.rows - count))
    }

    /// The bytes of row `row`, empty if there is no such row.
    pub(crate) fn row_bytes(&self, row: usize) -> &[u8] {
        let start = row * self.stride_bytes;
        let bytes = match row < self.rows {
            true => self
                .bytes
                .get(start..start + self.width * self.dtype.size()),
            false => None,
        };
        bytes.unwrap_or(&[])
    }

    /// Writes these bytes over row `row`, if they are as many.
    pub(crate) fn replace(&mut self, row: usize, new: &[u8]) {
        let start = row * self.stride_bytes;
        let held = row < self.rows && new.len() == self.width * self.dtype.size();
        if let Some(bytes) = self.bytes.get_mut(start..start + new.len())
            && held
        {
            bytes.copy_from_slice(new);
        }
    }

    /// Writes `new` over row `row`, whose values are `old`; see the module's text. Says `false`,
    /// and writes nothing, if a value would not be finite.
    pub(crate) fn store(&mut self, row: usize, old: &[f64], new: &[f64]) -> bool {
        let size = self.dtype.size();
        let start = row * self.stride_bytes;
        let bytes = match row < self.rows {
            true => self.bytes.get_mut(start..start + self.width * size),
            false => None,
        };
        match (bytes, self.dtype) {
            (None, _) => false,
            (Some(bytes), Dtype::F16) => store(bytes, old, new, |value| {
                let value = f16::from_f32(to_odd_f32(value));
                (value.to_le_bytes(), value.is_finite())
            }),
            (Some(bytes), Dtype::BF16) => store(bytes, old, new, |value| {
                let value = bf16::from_f32(to_odd_f32(value));
                (value.to_le_bytes(), value.is_finite())
            }),
            (Some(bytes), _) => store(bytes, old, new, |value| {
                let value = value as f32;
                (value.to_le_bytes(), value.is_finite())
            }),
        }
    }
}

/// Whether `new` fits the format: what [`RowsMut::store`] checks, for a dry run.
pub(crate) fn fits(dtype: Dtype, new: &[f64]) -> bool {
    match dtype {
        Dtype::F16 => new
            .iter()
            .all(|&value| f16::from_f32(to_odd_f32(value)).is_finite()),
        Dtype::BF16 => new
            .iter()
            .all(|&value| bf16::from_f32(to_odd_f32(value)).is_finite()),
        _ => new.iter().all(|&value| (value as f32).is_finite()),
    }
}

#[inline]
fn store<const N: usize>(
    bytes: &mut [u8],
    old: &[f64],
    new: &[f64],
    round: impl Fn(f64) -> ([u8; N], bool),
) -> bool {
    // All values are judged before the first is written; folding with `&` keeps the loop straight.
    let finite = new
        .iter()
        .fold(true, |finite, &value| finite & round(value).1);
    if !finite {
        return false;
    }
    let (values, _) = bytes.as_chunks_mut::<N>();
    for ((to, &old), &new) in values.iter_mut().zip(old).zip(new) {
        // Equal values keep their sign of zero: widening was exact, so `old` gives its own bytes.
        let value = if new == old { old } else { new };
        *to = round(value).0;
    }
    true
}

/// f64 to f32, rounded to odd: a later rounding to a format at least two bits shorter gives what
/// one rounding from f64 would.
fn to_odd_f32(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || near.is_nan() {
        return near;
    }
    let over = f64::from(near).abs() > value.abs();
    // Towards zero (from infinity: the largest finite value), then the last bit set.
    f32::from_bits((near.to_bits() - u32::from(over)) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_once() {
        // Just above the tie between 1 and 1 + 2^-10: rounding through f32 would lose the excess.
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(f16::from_f32(to_odd_f32(tie)).to_f64(), 1.0);
        let above = tie + 2f64.powi(-50);
        assert_eq!(
            f16::from_f32(to_odd_f32(above)).to_f64(),
            1.0 + 2f64.powi(-10)
        );
        let tie = 1.0 + 2f64.powi(-8);
        assert_eq!(bf16::from_f32(to_odd_f32(tie)).to_f64(), 1.0);
        let above = tie + 2f64.powi(-50);
        assert_eq!(
            bf16::from_f32(to_odd_f32(above)).to_f64(),
            1.0 + 2f64.powi(-7)
        );
        for extreme in [1e300, -1e300, 1e-300, -1e-300, 65519.999999, 65520.0] {
            let half = f16::from_f32(to_odd_f32(extreme));
            let expected = match extreme.abs() {
                big if big >= 65520.0 => f64::INFINITY.copysign(extreme),
                small if small < 1.0 => 0.0,
                _ => 65504.0,
            };
            assert_eq!(half.to_f64(), expected, "{extreme}");
        }
    }

    #[test]
    fn bytes_of_equal_values_and_between_rows_stay() {
        let mut bytes = [0xaa_u8; 20];
        bytes[..4].copy_from_slice(&(-0.0f32).to_le_bytes());
        bytes[4..8].copy_from_slice(&1.5f32.to_le_bytes());
        let before = bytes;
        let mut rows = RowsMut::from_bytes(&mut bytes, Dtype::F32, 2, 2, 12).unwrap();
        assert!(rows.store(0, &[-0.0, 1.5], &[0.0, 1.5]));
        assert!(!rows.store(0, &[-0.0, 1.5], &[0.0, 1e39]));
        assert!(!rows.store(2, &[0.0, 0.0], &[0.0, 0.0]));
        assert_eq!(bytes, before);
    }
}
