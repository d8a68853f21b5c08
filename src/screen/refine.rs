//! Second codes: two more bits for the few rows that pass the first bound.
//!
//! The residual of a row is itself quantised, in the same blocks, with a step of a quarter of the
//! first (a third, with a dither of its own). Adding that to the estimate leaves a quarter (a
//! third) of the residual: theorems 1 and 2 hold with the smaller residual, `|q|` being the larger
//! of the two codes' norms.
//!
//! A row, padded to a multiple of eight bytes, is: `weight`, `residual`, `other`, the refined
//! `residual` and `other`, `threshold` (f32); a byte of block scale for
//! each block; the codes, 16 bytes to a block, as [`ScreenKernels::refine_row`] reads them.

use crate::kernels::screen::{BLOCK_COLUMNS, ScreenKernels};
use crate::screen::Screen;
use crate::screen::query::Input;

/// Bytes of the constants.
pub(super) const CONSTANTS: usize = 24;
/// Bytes of a block's codes.
const CODE_BYTES: usize = BLOCK_COLUMNS / 4;

/// Where things are in a row of second codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refinement {
    /// Blocks of a row.
    pub(crate) blocks: usize,
    /// Bytes of a row.
    pub(crate) stride: usize,
}

impl Refinement {
    pub(crate) fn new(blocks: usize) -> Self {
        Refinement {
            blocks,
            stride: (CONSTANTS + blocks + blocks * CODE_BYTES).next_multiple_of(8),
        }
    }

    /// Writes scales and codes (a code to a byte).
    pub(crate) fn pack(&self, scales: &[u8], codes: &[u8], row: &mut [u8]) {
        row[CONSTANTS..][..scales.len()].copy_from_slice(scales);
        let start = CONSTANTS + self.blocks;
        for (at, code) in codes.iter().enumerate() {
            let (block, column) = (at / BLOCK_COLUMNS, at % BLOCK_COLUMNS);
            row[start + block * CODE_BYTES + column % CODE_BYTES] |=
                code << (column / CODE_BYTES * 2);
        }
    }

    pub(crate) fn set_constants(&self, row: &mut [u8], constants: [f32; 6]) {
        for (to, value) in row.as_chunks_mut::<4>().0.iter_mut().zip(constants) {
            *to = value.to_le_bytes();
        }
    }
}

impl Screen<'_> {
    /// The bytes that refining `feature` reads.
    #[inline]
    pub(crate) fn refined_row(&self, feature: usize) -> &[u8] {
        let stride = self.refinement.map_or(0, |refinement| refinement.stride);
        let start = feature * stride;
        self.refined
            .as_slice()
            .get(start..start + stride)
            .unwrap_or(&[])
    }

    /// A lower upper bound of `p`, from the first one, and the row's threshold.
    pub(crate) fn refine(
        &self,
        kernels: &ScreenKernels,
        input: &Input<'_>,
        feature: usize,
        upper: f32,
    ) -> (f64, f32) {
        let row = self.refined_row(feature);
        let (Some(refinement), Some((constants, rest))) =
            (&self.refinement, row.split_first_chunk::<CONSTANTS>())
        else {
            return (f64::from(upper), f32::NEG_INFINITY);
        };
        let (scales, codes) = rest
            .split_at_checked(refinement.blocks)
            .unwrap_or((&[], &[]));
        let codes = codes.get(..scales.len() * CODE_BYTES).unwrap_or(&[]);
        let constant = |at: usize| {
            let bytes = constants.as_chunks::<4>().0.get(at);
            bytes.map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes))
        };
        let wide = |at| f64::from(constant(at));

        let total = kernels.refine_row(scales, codes, input.high, input.low) as f64;
        let (mut shift, mut square) = (0.0, 0.0);
        for (b, shift_sum) in input.refined_shifts.iter().enumerate() {
            let scale = f64::from(scales.get(b).copied().unwrap_or(0));
            shift += scale * shift_sum;
            if let Some(&by) = input.squares.get(b) {
                square += scale * scale * f64::from(by);
            }
        }
        let spread = match input.squares.is_empty() {
            true => f64::from(input.spread),
            false => libm::sqrt(square),
        };
        let slack = f64::from(input.slack);
        // The first margin was formed in f32: a little less of it is taken away.
        let first = (wide(1) * spread + wide(2) * slack) * (1.0 - 1e-6);
        let second = (wide(3) * spread + wide(4) * slack) * (1.0 + 1e-6);
        let step = wide(0) * input.step * self.refined_part();
        let upper = f64::from(upper) - first + step * (total - shift) + second;
        (upper, constant(5))
    }
}
