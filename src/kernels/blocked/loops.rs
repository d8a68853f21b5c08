//! Plain loops that each level compiles with its own instructions. Nothing is fused, and the lanes
//! are part of the definition, so all levels give the same bits.

use super::{PANEL_FEATURES, PanelBounds, Products, TILE_ROWS, TileRow};

const LANES: usize = 16;

/// Adding and taking away 1.5 * 2^23 rounds a number below 2^22 to the nearest integer; before it
/// is taken away, the low 16 bits are that integer.
const MAGIC: f32 = 12_582_912.0;

/// Lane `l` += lane `l + 8`, then `+ 4`, `+ 2`, `+ 1`.
#[inline(always)]
fn total(mut lanes: [f64; LANES]) -> f64 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

#[inline(always)]
pub(super) fn measure(values: &[f32]) -> [f64; 2] {
    let (mut sums, mut largest) = ([0f64; LANES], [0f32; LANES]);
    let (lines, rest) = values.as_chunks::<LANES>();
    for line in lines {
        for i in 0..LANES {
            let wide = f64::from(line[i]);
            sums[i] += wide * wide;
            let size = line[i].abs();
            largest[i] = if size > largest[i] { size } else { largest[i] };
        }
    }
    for (i, value) in rest.iter().enumerate() {
        let wide = f64::from(*value);
        sums[i] += wide * wide;
        largest[i] = if value.abs() > largest[i] {
            value.abs()
        } else {
            largest[i]
        };
    }
    let largest = largest.iter().fold(0f32, |a, &b| if b > a { b } else { a });
    [total(sums), f64::from(largest)]
}

#[inline(always)]
pub(super) fn quantise(values: &[f32], factor: f32, out: &mut [i16]) -> f64 {
    let mut left = [0f32; LANES];
    let (lines, rest) = values.as_chunks::<LANES>();
    let (out_lines, out_rest) = out.as_chunks_mut::<LANES>();
    for (line, out) in lines.iter().zip(out_lines) {
        for i in 0..LANES {
            let place = line[i] * factor;
            let shifted = place + MAGIC;
            out[i] = shifted.to_bits() as i16;
            let error = place - (shifted - MAGIC);
            left[i] += error * error;
        }
    }
    for (i, (value, out)) in rest.iter().zip(out_rest).enumerate() {
        let place = value * factor;
        let shifted = place + MAGIC;
        *out = shifted.to_bits() as i16;
        let error = place - (shifted - MAGIC);
        left[i] += error * error;
    }
    total(left.map(f64::from))
}

/// Pairs of a row that are moved before the next row's.
const RUN: usize = 16;

/// `out[pair][row] = rows[row][pair]` for `WIDTH` rows of pairs.
#[inline(always)]
pub(super) fn interleave<const WIDTH: usize>(rows: &[i16], stride: usize, out: &mut [i16]) {
    if stride == 0 {
        return; // rows without inputs
    }
    let pairs = out.as_chunks_mut::<2>().0.as_chunks_mut::<WIDTH>().0;
    let (runs, rest) = pairs.as_chunks_mut::<RUN>();
    let done = runs.len() * RUN;
    for (run, out) in runs.iter_mut().enumerate() {
        for (r, row) in rows.chunks_exact(stride).take(WIDTH).enumerate() {
            let row = row.as_chunks::<2>().0.get(run * RUN..).unwrap_or(&[]);
            let Some(row) = row.first_chunk::<RUN>() else {
                return;
            };
            for p in 0..RUN {
                out[p][r] = row[p];
            }
        }
    }
    interleave_rest(rows, stride, done, rest);
}

/// The same for the last pairs, from pair `done` on.
#[inline(always)]
pub(super) fn interleave_rest<const WIDTH: usize>(
    rows: &[i16],
    stride: usize,
    done: usize,
    rest: &mut [[[i16; 2]; WIDTH]],
) {
    for (r, row) in rows.chunks_exact(stride).take(WIDTH).enumerate() {
        let row = row.as_chunks::<2>().0.iter().skip(done);
        for (out, pair) in rest.iter_mut().zip(row) {
            out[r] = *pair;
        }
    }
}

/// Inputs whose weights are asked for ahead of those being copied.
pub(super) const AHEAD: usize = 24;

/// In blocks of 16 inputs by 16 features: rows that a power of two apart would push each other out
/// of the first-level cache.
#[inline(always)]
pub(super) fn transpose<const SIZE: usize>(
    columns: &[u8],
    stride: usize,
    [inputs, features]: [usize; 2],
    rows: &mut [u8],
) {
    const BLOCK: usize = 16;
    let share = rows.len() / features.max(1);
    if inputs == 0 || share == 0 {
        return;
    }
    let line = |j: usize| super::super::row_bytes(columns, j, stride, features * SIZE);
    for j in 0..AHEAD.min(inputs) {
        prefetch(line(j));
    }
    for first in (0..inputs).step_by(BLOCK) {
        for j in first..first + BLOCK {
            if j + AHEAD < inputs {
                prefetch(line(j + AHEAD));
            }
        }
        let count = BLOCK.min(inputs - first);
        let blocks = rows.chunks_mut(BLOCK * share).enumerate();
        for (block, rows) in blocks {
            let at = block * BLOCK * SIZE;
            // One square block, by way of the stack: whole lines are read and written.
            let mut square = [[[0u8; SIZE]; BLOCK]; BLOCK];
            for (i, j) in (first..first + count).enumerate() {
                let weights = line(j).get(at..).unwrap_or(&[]).as_chunks::<SIZE>().0;
                if let Some(weights) = weights.first_chunk::<BLOCK>() {
                    for f in 0..BLOCK {
                        square[f][i] = weights[f];
                    }
                } else {
                    for (square, weight) in square.iter_mut().zip(weights) {
                        square[i] = *weight;
                    }
                }
            }
            for (row, square) in rows.chunks_exact_mut(share).zip(&square) {
                let row = row.as_chunks_mut::<SIZE>().0.get_mut(first..inputs);
                let row = row.unwrap_or(&mut []);
                // Of a known length, so that it is no call.
                if let Some(to) = row.first_chunk_mut::<BLOCK>() {
                    *to = *square;
                } else {
                    for (to, from) in row.iter_mut().zip(square) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

/// Asks for the cache lines of `bytes`, which are read soon.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; a prefetch faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

#[inline(always)]
pub(super) fn keep(
    products: &Products,
    rows: &[TileRow; TILE_ROWS],
    panel: &PanelBounds,
    magnitude: bool,
) -> [u64; TILE_ROWS] {
    let mut out = [0; TILE_ROWS];
    for ((out, products), row) in out.iter_mut().zip(products).zip(rows) {
        let mut kept = [0u8; PANEL_FEATURES];
        for i in 0..PANEL_FEATURES {
            let estimate = panel.weight[i] * row.step * f64::from(products[i]) + panel.offset[i];
            let estimate = if magnitude { estimate.abs() } else { estimate };
            let margin =
                panel.coded[i] * row.coded + panel.residual[i] * row.spread + panel.slack[i];
            let threshold = if row.floor > panel.threshold[i] {
                row.floor
            } else {
                panel.threshold[i]
            };
            let dropped = estimate + margin < threshold;
            kept[i] = u8::from(!dropped);
        }
        for (i, kept) in kept.into_iter().enumerate() {
            *out |= u64::from(kept) << i;
        }
    }
    out
}
