//! The meaning of each kernel, in the plainest Rust: what every other level is tested against.
//!
//! Not tuned. Conversions are written out here with integers, so that the crate's other way to
//! widen a half (`half`) and this one can be compared.

use super::{BF16, F16, F32, Kernels, LANES, Level, canonical, edit, row_bytes};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Scalar,
    dot_rows: [dot_rows::<F32>, dot_rows::<F16>, dot_rows::<BF16>],
    dot_columns: [dot_columns::<F32>, dot_columns::<F16>, dot_columns::<BF16>],
    add_scaled_rows: [
        add_scaled_rows::<F32>,
        add_scaled_rows::<F16>,
        add_scaled_rows::<BF16>,
    ],
    widen: [widen::<F32>, widen::<F16>, widen::<BF16>],
    sum,
    sum_squares_about,
    edit: &edit::scalar::TABLE,
};

fn dot_rows<const TYPE: u8>(weights: &[u8], stride: usize, x: &[f32], out: &mut [f64]) {
    for (row, out) in out.iter_mut().enumerate() {
        let row = row_bytes(weights, row, stride, x.len() * size(TYPE));
        let mut lanes = [0.0; LANES];
        for (i, (weight, x)) in values::<TYPE>(row).zip(x).enumerate() {
            lanes[i % LANES] += weight * f64::from(*x);
        }
        *out = reduce(lanes);
    }
}

fn dot_columns<const TYPE: u8>(
    weights: &[u8],
    stride: usize,
    x: &[f32],
    _lanes: &mut [f64],
    out: &mut [f64],
) {
    // a block of outputs at a time, so that a row's line of memory is used while it is at hand
    for (block, out) in out.chunks_mut(16).enumerate() {
        let start = block * 16 * size(TYPE);
        let mut lanes = [[0.0; 16]; LANES];
        for (j, &x) in x.iter().enumerate() {
            let row = row_bytes(weights, j, stride, start + out.len() * size(TYPE));
            let row = row.get(start..).unwrap_or(&[]);
            for (lane, weight) in lanes[j % LANES].iter_mut().zip(values::<TYPE>(row)) {
                *lane += weight * f64::from(x);
            }
        }
        for (f, out) in out.iter_mut().enumerate() {
            *out = reduce(lanes.map(|lane| lane[f]));
        }
    }
}

fn add_scaled_rows<const TYPE: u8>(
    matrix: &[u8],
    stride: usize,
    indices: &[u32],
    scales: &[f64],
    sums: &mut [f64],
) {
    for (&index, &scale) in indices.iter().zip(scales) {
        let row = row_bytes(matrix, index as usize, stride, sums.len() * size(TYPE));
        for (sum, weight) in sums.iter_mut().zip(values::<TYPE>(row)) {
            let product = scale * weight;
            *sum = canonical(*sum + product);
        }
    }
}

fn widen<const TYPE: u8>(bytes: &[u8], out: &mut [f64]) {
    for (out, weight) in out.iter_mut().zip(values::<TYPE>(bytes)) {
        *out = canonical(weight);
    }
}

fn sum(x: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    for (i, x) in x.iter().enumerate() {
        lanes[i % LANES] += x;
    }
    reduce(lanes)
}

fn sum_squares_about(x: &[f64], mean: f64) -> f64 {
    let mut lanes = [0.0; LANES];
    for (i, x) in x.iter().enumerate() {
        let difference = x - mean;
        let square = difference * difference;
        lanes[i % LANES] += square;
    }
    reduce(lanes)
}

/// The tree: lane `l` += lane `l + 8`, then `+ 4`, `+ 2`, `+ 1`.
pub(super) fn reduce(mut lanes: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    canonical(lanes[0])
}

const fn size(weight_type: u8) -> usize {
    if weight_type == F32 { 4 } else { 2 }
}

/// The weights in `bytes`, widened exactly.
pub(super) fn values<const TYPE: u8>(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(size(TYPE)).map(|bytes| match *bytes {
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        [a, b] if TYPE == F16 => from_f16(u16::from_le_bytes([a, b])),
        [a, b] => f64::from(f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16)),
        _ => 0.0, // no chunk has another length
    })
}

/// Half precision: 1 sign bit, 5 exponent bits (bias 15), 10 fraction bits.
fn from_f16(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let exponent = u64::from(bits >> 10 & 0x1f);
    let fraction = u64::from(bits & 0x3ff);
    let magnitude = match exponent {
        // zero and subnormals: fraction * 2^-24, a product without rounding
        0 => fraction as f64 * f64::from_bits((1023 - 24) << 52),
        0x1f if fraction == 0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => f64::from_bits((exponent + 1023 - 15) << 52 | fraction << 42),
    };
    sign * magnitude
}
