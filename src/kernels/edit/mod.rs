//! One pass over a row for what steering needs of it: read it, and move it.
//!
//! Steering one feature reads two rows of weights and does little with them, so that what counts
//! is how often the row itself is passed over. These kernels do in one pass what would take one
//! pass each: widening, squares, centring, rounding and the test for infinities when a row is
//! read; the product, its square, the sum, rounding and the test when it is moved.
//!
//! ```text
//! read_row             input[i] = round32(x[i] - center[i])              sum of x[i]^2
//! add_to_row           out[i] = round32(row[i] + change[i])              sum of change[i]^2
//! add_scaled_to_row    the same with   change[i] = scale * weight[i], rounded
//! ```
//!
//! Differences, sums and products are in f64, each rounded by itself, none fused. A sum that
//! equals the value of the row keeps the row's bytes: -0 stays -0. Squares are rounded and then
//! added in the lanes and the tree of the dot product.

use super::{Kernels, WeightType};

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(super) mod avx2;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(super) mod avx512;
pub(super) mod scalar;
#[cfg(any(
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
pub(super) mod two;

/// The least magnitude that rounds to an infinite f32: half a step beyond the largest, `2^128 -
/// 2^103`.
pub(super) const TOO_LARGE: f64 = f64::from_bits(0x47ef_ffff_f000_0000);

/// What a pass over a row tells of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowSums {
    /// The sum of squares of what was read or added.
    pub sum_squares: f64,
    /// Whether the row, what was added to it and every value written are finite. If not, what was
    /// written means nothing.
    pub finite: bool,
}

impl RowSums {
    /// Squares of numbers that leave an f32 finite do not overflow an f64, so that an infinite sum
    /// tells of one that does not.
    #[inline]
    pub(super) fn new(sum_squares: f64, all_fit: bool) -> Self {
        RowSums {
            sum_squares,
            finite: all_fit && sum_squares.is_finite(),
        }
    }
}

/// `(bytes, center, input)`
type ReadRow = unsafe fn(&[u8], &[f64], &mut [f32]) -> RowSums;
/// `(change, row, out)`
type AddToRow = unsafe fn(&[f64], &[u8], &mut [u8]) -> RowSums;
/// `(weights, scale, row, out)`
type AddScaledToRow = unsafe fn(&[u8], f64, &[u8], &mut [u8]) -> RowSums;

/// The kernels of this module for one level; part of [`Kernels`], under the same contract.
pub(super) struct Table {
    pub(super) read_row: [ReadRow; 3],
    pub(super) add_to_row: AddToRow,
    pub(super) add_scaled_to_row: [AddScaledToRow; 3],
}

impl Kernels {
    /// `input[i]` = value `i` of `bytes` less `center[i]`, rounded once; no center is a center of
    /// zeros. The sum is that of the squares of the values themselves.
    pub fn read_row(
        &self,
        ty: WeightType,
        bytes: &[u8],
        center: &[f64],
        input: &mut [f32],
    ) -> RowSums {
        let held = input.len().checked_mul(ty.size());
        let bytes = held.and_then(|held| bytes.get(..held));
        let (Some(bytes), true) = (bytes, center.is_empty() || center.len() == input.len()) else {
            debug_assert!(
                false,
                "read_row: fewer values than inputs, or another center"
            );
            input.fill(0.0);
            return RowSums::new(0.0, false);
        };
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.edit.read_row[ty as usize])(bytes, center, input) }
    }

    /// `out[i] = row[i] + change[i]`, for rows of f32 values at any address.
    pub fn add_to_row(&self, change: &[f64], row: &[u8], out: &mut [u8]) -> RowSums {
        let held = change.len().checked_mul(4);
        if held != Some(row.len()) || held != Some(out.len()) {
            debug_assert!(false, "add_to_row: rows of different lengths");
            return RowSums::new(0.0, false);
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.edit.add_to_row)(change, row, out) }
    }

    /// `out[i] = row[i] + scale * w[i]`, product and sum rounded each, for rows of f32 values at
    /// any address.
    ///
    /// `scale` may be any f64.
    pub fn add_scaled_to_row(
        &self,
        ty: WeightType,
        weights: &[u8],
        scale: f64,
        row: &[u8],
        out: &mut [u8],
    ) -> RowSums {
        let held = (row.len() / 4).checked_mul(ty.size());
        let weights = held.and_then(|held| weights.get(..held));
        let (Some(weights), true) = (
            weights,
            row.len().is_multiple_of(4) && row.len() == out.len(),
        ) else {
            debug_assert!(false, "add_scaled_to_row: rows of different lengths");
            return RowSums::new(0.0, false);
        };
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.edit.add_scaled_to_row[ty as usize])(weights, scale, row, out) }
    }
}
