//! What each screen kernel computes, in plain Rust.

use super::{
    BLOCK_COLUMNS, CodeFormat, Matrix, PANEL_ROWS, ScreenInput, ScreenKernels, ScreenOutput,
    TILE_COLUMNS, TILE_ROWS, U3, U4, U6, U8, input, row_pairs, split_panel, subtract_tile,
};
use crate::kernels::Level;

pub(super) static KERNELS: ScreenKernels = ScreenKernels {
    level: Level::Scalar,
    screen: [screen::<U3>, screen::<U4>, screen::<U6>, screen::<U8>],
    dot_bytes,
    refine_row,
    above,
    centre,
    measure,
    quantise,
    shift_sums,
    subtract_products,
};

/// Words (four columns) of a block.
const WORDS: usize = 16;

fn screen<const FORMAT: u8>(
    panels: &[u8],
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    let format = CodeFormat::ALL[FORMAT as usize];
    let panels = panels.chunks_exact(format.panel_bytes(blocks));
    for (p, (panel, keep)) in panels.zip(output.keep.iter_mut()).enumerate() {
        let (header, scales, codes) = split_panel(panel, blocks);
        let mut totals = [0f32; PANEL_ROWS];
        let mut squares = [0f32; PANEL_ROWS];
        let codes = codes.chunks_exact(format.block_bytes());
        for (b, (codes, scales)) in codes.zip(scales).enumerate() {
            let mut sums = [input.corrections[b]; PANEL_ROWS];
            for word in 0..WORDS {
                let codes = word_codes::<FORMAT>(codes, word);
                let at = b * WORDS + word;
                let low = input.low[at].to_le_bytes();
                let high = input.high.get(at).copied().unwrap_or(0).to_le_bytes();
                for (row, sum) in sums.iter_mut().enumerate() {
                    for column in 0..4 {
                        let z = 256 * i32::from(high[column] as i8) + i32::from(low[column] as i8);
                        *sum += i32::from(codes[row * 4 + column]) * z;
                    }
                }
            }
            for row in 0..PANEL_ROWS {
                let scale = f32::from(scales[row]);
                totals[row] += scale * (sums[row] as f32);
                if let Some(square) = input.squares.get(b) {
                    squares[row] += scale * (scale * square);
                }
            }
        }
        let lane = |vector: usize, row: usize| {
            let at = &header[vector][row * 4..];
            f32::from_le_bytes([at[0], at[1], at[2], at[3]])
        };
        *keep = 0;
        for row in 0..PANEL_ROWS {
            let centre = lane(0, row) * (totals[row] * input.step) + lane(1, row);
            let spread = if input.squares.is_empty() {
                input.spread
            } else {
                libm_sqrt(squares[row])
            };
            let margin = lane(2, row) * spread + lane(3, row) * input.slack;
            let upper = centre + margin;
            let below = upper < lane(4, row);
            *keep |= u16::from(!below) << row;
            if let Some(out) = output.upper.get_mut(p * PANEL_ROWS + row) {
                *out = upper;
            }
            if let Some(out) = output.lower.get_mut(p * PANEL_ROWS + row) {
                *out = centre - margin;
            }
        }
    }
}

/// The correctly rounded square root of a non-negative number, without a library: rounding the
/// f64 root of an f32 to f32 is exact rounding (f64 has more than twice the bits), and three
/// Newton steps from a good start give the f64 root to well within that.
fn libm_sqrt(value: f32) -> f32 {
    // The bit trick halves the exponent; relative error below 4% before the steps.
    if value.is_nan() || value <= 0.0 || value == f32::INFINITY {
        return if value < 0.0 { f32::NAN } else { value };
    }
    let wide = f64::from(value);
    let mut root = f64::from_bits((wide.to_bits() >> 1) + 0x1ff7_a3be_a91d_9b1b);
    for _ in 0..4 {
        root = 0.5 * (root + wide / root);
    }
    root as f32
}

/// The 16 x 4 codes of a word, one to a byte.
pub(super) fn word_codes<const FORMAT: u8>(codes: &[u8], word: usize) -> [u8; 64] {
    let mut out = [0; 64];
    match FORMAT {
        U3 => {
            let from = &codes[word / 8 * 192..];
            for (i, out) in out.iter_mut().enumerate() {
                let [a, b, c] = [from[i], from[64 + i], from[128 + i]];
                *out = match word % 8 {
                    6 => a >> 6 | (c >> 6 & 1) << 2,
                    7 => b >> 6 | (c >> 7) << 2,
                    n => from[n / 2 * 64 + i] >> (n % 2 * 3) & 7,
                };
            }
        }
        U4 => {
            let from = &codes[word / 2 * 64..];
            for (out, &byte) in out.iter_mut().zip(from) {
                *out = if word.is_multiple_of(2) {
                    byte & 15
                } else {
                    byte >> 4
                };
            }
        }
        U6 => {
            let from = &codes[word / 4 * 192..];
            for (i, out) in out.iter_mut().enumerate() {
                *out = match word % 4 {
                    3 => (0..3).map(|n| from[64 * n + i] >> 6 << (2 * n)).sum(),
                    n => from[64 * n + i] & 63,
                };
            }
        }
        _ => out.copy_from_slice(&codes[word * 64..][..64]),
    }
    out
}

fn dot_bytes(codes: &[u8], high: &[i32], low: &[i32], out: &mut [i64; PANEL_ROWS]) {
    out.fill(0);
    for (codes, (high, low)) in codes.chunks_exact(64).zip(high.iter().zip(low)) {
        let (high, low) = (high.to_le_bytes(), low.to_le_bytes());
        for (row, sum) in out.iter_mut().enumerate() {
            for column in 0..4 {
                let z = 256 * i64::from(high[column] as i8) + i64::from(low[column] as i8);
                *sum += i64::from(codes[row * 4 + column]) * z;
            }
        }
    }
}

pub(super) fn subtract_products(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f64], stride: usize) {
    let mut sums = [[0f64; TILE_COLUMNS]; TILE_ROWS];
    for (a, b) in row_pairs(a, b) {
        for (sums, a) in sums.iter_mut().zip(a) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    subtract_tile(c, stride, &sums);
}

fn centre(x: &[f32], centre: &[f64], powers: &[f64], y: &mut [f64]) -> [f64; 3] {
    input::centre(x, centre, powers, y)
}

fn measure(values: &[f64]) -> [f64; 2] {
    input::measure(values)
}

fn quantise(
    values: &[f64],
    step: f64,
    high: &mut [i8],
    low: &mut [i8],
    block_sums: &mut [i32],
) -> [f64; 2] {
    input::quantise(values, step, high, low, block_sums)
}

fn shift_sums(high: &[i8], low: &[i8], shift: &[f64], out: &mut [f64]) {
    input::shift_sums(high, low, shift, out);
}

fn refine_row(scales: &[u8], codes: &[u8], high: &[i8], low: &[i8]) -> i64 {
    let mut sum = 0;
    for (at, (high, low)) in high.iter().zip(low).enumerate() {
        let (block, column) = (at / BLOCK_COLUMNS, at % BLOCK_COLUMNS);
        let code = codes[block * 16 + column % 16] >> (column / 16 * 2) & 3;
        let z = 256 * i64::from(*high) + i64::from(*low);
        sum += i64::from(scales[block]) * i64::from(code) * z;
    }
    sum
}

fn above(values: &[f32], floor: f32) -> u32 {
    input::above(values, floor)
}
