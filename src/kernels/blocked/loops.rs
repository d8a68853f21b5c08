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

/// `out[pair][row] = rows[row][pair]` for `WIDTH` rows of pairs.
#[inline(always)]
pub(super) fn interleave<const WIDTH: usize>(rows: &[i16], stride: usize, out: &mut [i16]) {
    /// Pairs of a row that are moved before the next row's.
    const RUN: usize = 16;
    let runs = out.chunks_mut(RUN * WIDTH * 2).enumerate();
    for (run, out) in runs {
        let first = run * RUN * 2;
        for (r, row) in rows.chunks_exact(stride).take(WIDTH).enumerate() {
            let pairs = row.get(first..).unwrap_or(&[]).as_chunks::<2>().0;
            let places = out.as_chunks_mut::<2>().0.iter_mut().skip(r).step_by(WIDTH);
            for (place, pair) in places.zip(pairs) {
                *place = *pair;
            }
        }
    }
}

/// Square blocks, so that both sides stay in the cache.
#[inline(always)]
pub(super) fn transpose<const SIZE: usize>(
    columns: &[u8],
    stride: usize,
    features: usize,
    rows: &mut [u8],
) {
    const BLOCK: usize = 16;
    let inputs = rows.len() / features.max(1) / SIZE;
    let row_bytes = inputs * SIZE;
    for first in (0..inputs).step_by(BLOCK) {
        let count = BLOCK.min(inputs - first);
        for j in first..first + count {
            let line = super::super::row_bytes(columns, j, stride, features * SIZE);
            let line = line.as_chunks::<SIZE>().0;
            let places = rows.chunks_exact_mut(row_bytes);
            for (weight, row) in line.iter().zip(places) {
                if let Some(place) = row.get_mut(j * SIZE..(j + 1) * SIZE) {
                    place.copy_from_slice(weight);
                }
            }
        }
    }
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
