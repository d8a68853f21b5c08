//! Weights on their way into a pack: one row per feature, checked, narrowed if that was asked for,
//! a block of rows at a time.

use crate::error::Error;
use crate::kernels::WeightType;
use crate::model::{Layout, Matrix};
use alloc::string::String;
use alloc::vec::Vec;

/// The most bytes of weights that are held at once. A block has at least one row.
pub const BLOCK_BYTES: usize = 32 << 20;

/// Weights that were stored in a narrower format than the source has.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Narrowed {
    /// The matrix: `w_enc`, `w_dec`, `w_glu`.
    pub matrix: String,
    /// Format in the source.
    pub from: WeightType,
    /// Format in the pack.
    pub to: WeightType,
    /// How many weights there are.
    pub weights: u64,
    /// How many have another value than before.
    pub changed: u64,
    /// The largest `|after - before|` beside the largest `|before|`.
    pub largest_error: f64,
    /// The largest `|before|`.
    pub largest_weight: f64,
}

impl Narrowed {
    pub(super) fn new(matrix: &str, from: WeightType, to: WeightType) -> Self {
        Narrowed {
            matrix: matrix.into(),
            from,
            to,
            weights: 0,
            changed: 0,
            largest_error: 0.0,
            largest_weight: 0.0,
        }
    }

    /// Whether the format has other values than the source's.
    pub(super) fn is_narrower(&self) -> bool {
        self.from != self.to && self.to != WeightType::F32
    }
}

/// Hands on the rows of a matrix, in blocks.
///
/// # Errors
/// [`Error::BadValue`] for a weight that is not finite, or not in the new format; what `write`
/// says; [`Error::OutOfMemory`].
pub(super) fn stream(
    matrix: &Matrix<'_>,
    to: WeightType,
    narrowed: &mut Narrowed,
    write: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let from = matrix.weight_type();
    let row_bytes = matrix.width() * from.size();
    let rows = (BLOCK_BYTES / row_bytes.max(1)).clamp(1, matrix.features().max(1));
    let mut block = Vec::new();
    let mut converted = Vec::new();
    let in_place = matrix.layout() == Layout::Rows && matrix.stride_bytes() == row_bytes;
    if !in_place {
        block = room(rows * row_bytes)?;
        block.resize(rows * row_bytes, 0);
    }
    if from != to {
        converted = room(rows * matrix.width() * to.size())?;
    }
    for first in (0..matrix.features()).step_by(rows) {
        let count = rows.min(matrix.features() - first);
        let length = count * row_bytes;
        let bytes = match in_place {
            true => matrix
                .bytes()
                .get(first * row_bytes..first * row_bytes + length),
            false => {
                let block = block.get_mut(..length).unwrap_or(&mut []);
                matrix.copy_rows(first, block);
                Some(&*block)
            }
        };
        let bytes = bytes.unwrap_or(&[]);
        let start = (first * matrix.width()) as u64;
        let bad = |(at, found): (usize, f64)| Error::BadValue {
            tensor: matrix.tensor().into(),
            index: start + at as u64,
            found,
        };
        if let Some(found) = not_finite(from, bytes) {
            return Err(bad(found));
        }
        if from == to {
            // In smaller pieces, for the progress.
            for piece in bytes.chunks(BLOCK_BYTES / 8) {
                write(piece)?;
            }
            continue;
        }
        converted.clear();
        convert(from, to, bytes, &mut converted, narrowed).map_err(bad)?;
        write(&converted)?;
    }
    Ok(())
}

fn room(bytes: usize) -> Result<Vec<u8>, Error> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes)
        .map_err(|_| Error::OutOfMemory {
            what: "a block of rows",
            bytes: bytes as u64,
        })?;
    Ok(room)
}

/// The first weight that is NaN or infinite: its place and value.
fn not_finite(ty: WeightType, bytes: &[u8]) -> Option<(usize, f64)> {
    // All bits of the exponent are set.
    fn place<const N: usize>(bytes: &[u8], is: impl Fn(&[u8; N]) -> bool) -> Option<usize> {
        let (weights, _) = bytes.as_chunks::<N>();
        // Whole pieces first: the test of one weight is a few instructions without a branch.
        let in_piece = |piece: &[[u8; N]]| piece.iter().fold(false, |bad, w| bad | is(w));
        let piece = weights.chunks(4096).position(in_piece)?;
        let at = weights.iter().skip(piece * 4096).position(is)?;
        Some(piece * 4096 + at)
    }
    let at = match ty {
        WeightType::F32 => place::<4>(bytes, |w| {
            u32::from_le_bytes(*w) & 0x7f80_0000 == 0x7f80_0000
        }),
        WeightType::F16 => place::<2>(bytes, |w| u16::from_le_bytes(*w) & 0x7c00 == 0x7c00),
        WeightType::BF16 => place::<2>(bytes, |w| u16::from_le_bytes(*w) & 0x7f80 == 0x7f80),
    }?;
    let size = ty.size();
    let weight = bytes.get(at * size..(at + 1) * size).unwrap_or(&[]);
    Some((at, f64::from(widen(ty, weight))))
}

fn widen(ty: WeightType, bytes: &[u8]) -> f32 {
    match (ty, bytes) {
        (WeightType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (WeightType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
        (WeightType::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
        _ => 0.0,
    }
}

/// Appends the weights in another format, rounded to nearest. The error is the place and value of
/// a weight that the format has not.
fn convert(
    from: WeightType,
    to: WeightType,
    bytes: &[u8],
    out: &mut Vec<u8>,
    narrowed: &mut Narrowed,
) -> Result<(), (usize, f64)> {
    for (at, bytes) in bytes.chunks_exact(from.size()).enumerate() {
        let before = widen(from, bytes);
        let after = match to {
            WeightType::F32 => {
                out.extend_from_slice(&before.to_le_bytes());
                before
            }
            WeightType::F16 => {
                let value = half::f16::from_f32(before);
                out.extend_from_slice(&value.to_le_bytes());
                value.to_f32()
            }
            WeightType::BF16 => {
                let value = half::bf16::from_f32(before);
                out.extend_from_slice(&value.to_le_bytes());
                value.to_f32()
            }
        };
        if !after.is_finite() {
            return Err((at, before.into()));
        }
        narrowed.weights += 1;
        narrowed.changed += u64::from(after.to_bits() != before.to_bits());
        let error = f64::from((after - before).abs());
        narrowed.largest_error = narrowed.largest_error.max(error);
        narrowed.largest_weight = narrowed.largest_weight.max(f64::from(before.abs()));
    }
    Ok(())
}
