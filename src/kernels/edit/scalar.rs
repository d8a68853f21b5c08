//! The meaning of each kernel, in the plainest Rust.

use super::super::scalar::{reduce, values};
use super::super::{BF16, F16, F32, LANES};
use super::{RowSums, TOO_LARGE, Table};

pub(in super::super) const TABLE: Table = Table {
    read_row: [read_row::<F32>, read_row::<F16>, read_row::<BF16>],
    add_to_row,
    add_scaled_to_row: [
        add_scaled_to_row::<F32>,
        add_scaled_to_row::<F16>,
        add_scaled_to_row::<BF16>,
    ],
};

fn read_row<const TYPE: u8>(bytes: &[u8], center: &[f64], input: &mut [f32]) -> RowSums {
    let mut lanes = [0.0; LANES];
    let all_fit = read_tail::<TYPE>(bytes, center, input, &mut lanes);
    RowSums::new(reduce(lanes), all_fit)
}

fn add_to_row(change: &[f64], row: &[u8], out: &mut [u8]) -> RowSums {
    add(change.iter().copied(), row, out)
}

fn add_scaled_to_row<const TYPE: u8>(
    weights: &[u8],
    scale: f64,
    row: &[u8],
    out: &mut [u8],
) -> RowSums {
    add(
        values::<TYPE>(weights).map(|weight| scale * weight),
        row,
        out,
    )
}

fn add(changes: impl Iterator<Item = f64>, row: &[u8], out: &mut [u8]) -> RowSums {
    let mut lanes = [0.0; LANES];
    let all_fit = add_tail(changes, row, out, &mut lanes);
    RowSums::new(reduce(lanes), all_fit)
}

/// The sums of a row, or of its last values, with the squares of the changes added to the lanes;
/// whether all of them fit an f32.
pub(super) fn add_tail(
    changes: impl Iterator<Item = f64>,
    row: &[u8],
    out: &mut [u8],
    lanes: &mut [f64; LANES],
) -> bool {
    let mut all_fit = true;
    let out = out.as_chunks_mut::<4>().0;
    for (i, ((change, old), out)) in changes.zip(values::<F32>(row)).zip(out).enumerate() {
        let square = change * change;
        lanes[i % LANES] += square;
        let sum = old + change;
        all_fit &= sum.abs() < TOO_LARGE;
        let new = if sum == old { old } else { sum };
        *out = (new as f32).to_le_bytes();
    }
    all_fit
}

/// The inputs of a row, or of its last values, with the squares of the values added to the lanes;
/// whether all inputs fit an f32.
pub(super) fn read_tail<const TYPE: u8>(
    bytes: &[u8],
    center: &[f64],
    input: &mut [f32],
    lanes: &mut [f64; LANES],
) -> bool {
    let mut all_fit = true;
    for (i, (input, x)) in input.iter_mut().zip(values::<TYPE>(bytes)).enumerate() {
        let centered = x - center.get(i).copied().unwrap_or(0.0);
        let square = x * x;
        lanes[i % LANES] += square;
        all_fit &= centered.abs() < TOO_LARGE;
        *input = centered as f32;
    }
    all_fit
}
