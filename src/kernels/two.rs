//! The kernels of the levels whose vectors hold two f64: NEON and simd128.
//!
//! Both are in the baseline of the builds that have them, so the operations can be the methods of
//! a trait, and what they are put together to is written once. The order of the additions is that
//! of the other levels: the 16 lanes in eight vectors.

use super::walk::{self, PASS_ROWS, Pass};
use super::{F16, F32, LANES, block, block_mut, canonical, padded, row_bytes, scalar};

/// Rows that [`dot_rows`] reads side by side: two sums of eight vectors are what 32 registers hold.
const DOT_RUNS: usize = 2;
/// Rows that [`add_scaled_rows`] reads side by side, while that many are left.
const SCALED_ROWS: usize = 4;
/// Bytes that are being fetched ahead of those being read, over all rows read side by side.
const IN_FLIGHT: usize = 4096;

/// What an instruction set provides: vectors of two f64.
pub(super) trait Two: Copy {
    /// Both values.
    fn splat(value: f64) -> Self;
    fn load(values: &[f64; 2]) -> Self;
    fn store(self, to: &mut [f64; 2]);
    fn add(self, other: Self) -> Self;
    fn subtract(self, other: Self) -> Self;
    /// Rounded.
    fn multiply(self, other: Self) -> Self;
    /// `self + a * b`, for exact products: one rounding, fused or not.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// Each value, or the canonical NaN.
    fn canonical(self) -> Self;
    /// Eight values of an input, widened.
    fn widen_input(values: &[f32; 8]) -> Eight<Self>;
    /// Eight f32 values, widened.
    fn widen_f32(values: &[u8; 32]) -> Eight<Self>;
    /// Eight f16 values, widened.
    fn widen_f16(values: &[u8; 16]) -> Eight<Self>;
    /// Eight bf16 values, widened.
    fn widen_bf16(values: &[u8; 16]) -> Eight<Self>;
    /// All bits of each value whose magnitude is below that of `limit`, or none.
    fn within(self, limit: Self) -> Self;
    /// The bits that both have.
    fn and(self, other: Self) -> Self;
    /// Whether every bit is set, of values that have all or none.
    fn all(self) -> bool;
    /// Each value, or the old one if they are equal.
    fn keep_equal(self, old: Self) -> Self;
    /// Eight values, rounded to f32.
    fn store_f32(values: Eight<Self>, to: &mut [u8; 32]);
    /// Asks for the cache line at `address`, which may be anything.
    fn prefetch(address: *const u8);
}

/// Eight f64 values in four vectors.
pub(super) type Eight<V> = [V; 4];

// In what follows `EIGHT` is the size in bytes of eight weights, and a block is 16 weights.

pub(super) fn dot_rows<V: Two, const TYPE: u8, const EIGHT: usize>(
    weights: &[u8],
    stride: usize,
    x: &[f32],
    out: &mut [f64],
) {
    let bytes = x.len() * (EIGHT / 8);
    let run = out.len() / DOT_RUNS;
    for first in 0..run {
        let rows = core::array::from_fn(|r| row_bytes(weights, first + r * run, stride, bytes));
        let dots = dot_group::<V, TYPE, EIGHT, DOT_RUNS, true>(rows, x);
        for (out, dot) in out.iter_mut().skip(first).step_by(run).zip(dots) {
            *out = dot;
        }
    }
    for (row, out) in out.iter_mut().enumerate().skip(run * DOT_RUNS) {
        [*out] = dot_group::<V, TYPE, EIGHT, 1, false>([row_bytes(weights, row, stride, bytes)], x);
    }
}

/// The dot products of `ROWS` rows with `x`.
#[inline]
fn dot_group<V: Two, const TYPE: u8, const EIGHT: usize, const ROWS: usize, const FETCH: bool>(
    rows: [&[u8]; ROWS],
    x: &[f32],
) -> [f64; ROWS] {
    let x_blocks = x.as_chunks::<8>().0.as_chunks::<2>().0;
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);

    let mut sums = [[splat::<V>(0.0); 2]; ROWS];
    for (i, [x_low, x_high]) in x_blocks.iter().enumerate() {
        let (x_low, x_high) = (V::widen_input(x_low), V::widen_input(x_high));
        for (sums, blocks) in sums.iter_mut().zip(&blocks) {
            let Some([low, high]) = blocks.get(i) else {
                break;
            };
            if FETCH {
                V::prefetch(low.as_ptr().wrapping_add(IN_FLIGHT / ROWS));
            }
            add_products(&mut sums[0], &load_weights::<V, TYPE, EIGHT>(low), &x_low);
            add_products(&mut sums[1], &load_weights::<V, TYPE, EIGHT>(high), &x_high);
        }
    }
    let x_tail = x.as_chunks::<LANES>().1;
    if !x_tail.is_empty() {
        // padded with zeros: 0 * 0 added to a lane changes nothing
        let [x_low, x_high] = padded::<f32, 8>(x_tail);
        let (x_low, x_high) = (V::widen_input(&x_low), V::widen_input(&x_high));
        for (sums, row) in sums.iter_mut().zip(rows) {
            let tail = row.get(x_blocks.len() * 2 * EIGHT..).unwrap_or(&[]);
            let [low, high] = padded::<u8, EIGHT>(tail);
            add_products(&mut sums[0], &load_weights::<V, TYPE, EIGHT>(&low), &x_low);
            add_products(
                &mut sums[1],
                &load_weights::<V, TYPE, EIGHT>(&high),
                &x_high,
            );
        }
    }
    let mut out = [0.0; ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = reduce(sums);
    }
    out
}

pub(super) fn dot_columns<V: Two, const TYPE: u8, const EIGHT: usize>(
    weights: &[u8],
    stride: usize,
    x: &[f32],
    lanes: &mut [f64],
    out: &mut [f64],
) {
    let mut columns = Columns {
        weights,
        stride,
        x,
        lanes,
        width: out.len(),
    };
    for pass in walk::passes(x.len()) {
        match pass.rows {
            PASS_ROWS => add_columns::<V, TYPE, EIGHT, PASS_ROWS>(&mut columns, pass),
            4 => add_columns::<V, TYPE, EIGHT, 4>(&mut columns, pass),
            1 => add_columns::<V, TYPE, EIGHT, 1>(&mut columns, pass),
            _ => add_columns::<V, TYPE, EIGHT, 0>(&mut columns, pass),
        }
    }
    for (out, &sum) in out.iter_mut().zip(columns.lanes.iter()) {
        *out = canonical(sum);
    }
}

/// What the passes of one call of [`dot_columns`] share.
struct Columns<'a> {
    weights: &'a [u8],
    stride: usize,
    x: &'a [f32],
    lanes: &'a mut [f64],
    width: usize,
}

/// One pass: `lane[c] += weight[r][c] * x[r]` for each column `c`, and for each of `ROWS` inputs
/// `r` in order; then the folds.
#[inline]
fn add_columns<V: Two, const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    columns: &mut Columns<'_>,
    pass: Pass,
) {
    let Columns {
        weights,
        stride,
        x,
        ref mut lanes,
        width,
    } = *columns;
    let bytes = width * (EIGHT / 8);
    let input = |r: usize| x.get(pass.first + r * LANES).map_or(0.0, |&x| f64::from(x));
    let x: [f64; ROWS] = core::array::from_fn(input);
    let rows: [&[u8]; ROWS] =
        core::array::from_fn(|r| row_bytes(weights, pass.first + r * LANES, stride, bytes));
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);
    let x_all: [Eight<V>; ROWS] = x.map(splat);

    let at = pass.slot * width;
    let to = (pass.slot - pass.folds) * width;
    for i in 0..width / LANES {
        let mut sums = [splat::<V>(0.0); 2];
        if !pass.fresh
            && let Some([low, high]) = block(lanes, at + i * LANES)
        {
            sums = [load(low), load(high)];
        }
        for r in 0..ROWS {
            let Some([low, high]) = blocks[r].get(i) else {
                break;
            };
            V::prefetch(low.as_ptr().wrapping_add(IN_FLIGHT / PASS_ROWS));
            add_products(
                &mut sums[0],
                &load_weights::<V, TYPE, EIGHT>(low),
                &x_all[r],
            );
            add_products(
                &mut sums[1],
                &load_weights::<V, TYPE, EIGHT>(high),
                &x_all[r],
            );
        }
        for fold in 1..=pass.folds {
            let Some([low, high]) = block(lanes, at - fold * width + i * LANES) else {
                break;
            };
            sums = [add(load(low), sums[0]), add(load(high), sums[1])];
        }
        if let Some([low, high]) = block_mut(lanes, to + i * LANES) {
            store(low, sums[0]);
            store(high, sums[1]);
        }
    }
    for c in width - width % LANES..width {
        let mut sum = if pass.fresh { 0.0 } else { lanes[at + c] };
        for (row, x) in rows.iter().zip(x) {
            let weight = row.get(c * (EIGHT / 8)..).unwrap_or(&[]);
            sum += scalar::values::<TYPE>(weight)
                .next()
                .map_or(0.0, |weight| weight * x);
        }
        for fold in 1..=pass.folds {
            sum += lanes[at - fold * width + c];
        }
        lanes[to + c] = sum;
    }
}

pub(super) fn add_scaled_rows<V: Two, const TYPE: u8, const EIGHT: usize>(
    matrix: &[u8],
    stride: usize,
    indices: &[u32],
    scales: &[f64],
    sums: &mut [f64],
) {
    let bytes = sums.len() * (EIGHT / 8);
    let row = |index: u32| row_bytes(matrix, index as usize, stride, bytes);
    let (groups, other_indices) = indices.as_chunks::<SCALED_ROWS>();
    let (factors, other_scales) = scales.as_chunks::<SCALED_ROWS>();
    for (group, &factors) in groups.iter().zip(factors) {
        add_group::<V, TYPE, EIGHT, SCALED_ROWS>(group.map(row), factors, sums);
    }
    for (&index, &factor) in other_indices.iter().zip(other_scales) {
        add_group::<V, TYPE, EIGHT, 1>([row(index)], [factor], sums);
    }
}

/// `sums[c] += scale[r] * row[r][c]` for each column `c`, and for each `r` in order.
#[inline]
fn add_group<V: Two, const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    rows: [&[u8]; ROWS],
    scales: [f64; ROWS],
    sums: &mut [f64],
) {
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);
    let scale_all: [Eight<V>; ROWS] = scales.map(splat);
    let (sum_blocks, _) = sums.as_chunks_mut::<8>().0.as_chunks_mut::<2>();
    for (i, [sums_low, sums_high]) in sum_blocks.iter_mut().enumerate() {
        let (mut low_sums, mut high_sums) = (load::<V>(sums_low), load::<V>(sums_high));
        for r in 0..ROWS {
            let Some([low, high]) = blocks[r].get(i) else {
                break;
            };
            V::prefetch(low.as_ptr().wrapping_add(IN_FLIGHT / ROWS));
            let low_products = multiply(load_weights::<V, TYPE, EIGHT>(low), scale_all[r]);
            let high_products = multiply(load_weights::<V, TYPE, EIGHT>(high), scale_all[r]);
            low_sums = add(low_sums, low_products);
            high_sums = add(high_sums, high_products);
        }
        store(sums_low, low_sums.map(V::canonical));
        store(sums_high, high_sums.map(V::canonical));
    }
    let done = sum_blocks.len() * 2 * EIGHT;
    let (_, sum_tail) = sums.as_chunks_mut::<LANES>();
    for (row, scale) in rows.iter().zip(scales) {
        let tail = row.get(done..).unwrap_or(&[]);
        for (sum, weight) in sum_tail.iter_mut().zip(scalar::values::<TYPE>(tail)) {
            let product = scale * weight;
            *sum = canonical(*sum + product);
        }
    }
}

pub(super) fn widen<V: Two, const TYPE: u8, const EIGHT: usize>(bytes: &[u8], out: &mut [f64]) {
    let (blocks, tail) = bytes.as_chunks::<EIGHT>();
    let (out_blocks, out_tail) = out.as_chunks_mut::<8>();
    for (out, block) in out_blocks.iter_mut().zip(blocks) {
        store(out, load_weights::<V, TYPE, EIGHT>(block).map(V::canonical));
    }
    for (out, weight) in out_tail.iter_mut().zip(scalar::values::<TYPE>(tail)) {
        *out = canonical(weight);
    }
}

pub(super) fn sum<V: Two>(x: &[f64]) -> f64 {
    let mut sums = [splat::<V>(0.0); 2];
    for [low, high] in x.as_chunks::<8>().0.as_chunks::<2>().0 {
        sums = [add(sums[0], load(low)), add(sums[1], load(high))];
    }
    let [low, high] = padded::<f64, 8>(x.as_chunks::<LANES>().1);
    reduce([add(sums[0], load(&low)), add(sums[1], load(&high))])
}

pub(super) fn sum_squares_about<V: Two>(x: &[f64], mean: f64) -> f64 {
    let mean_all = V::splat(mean);
    let square = |values: &[f64; 8]| {
        load::<V>(values).map(|value| {
            let difference = value.subtract(mean_all);
            difference.multiply(difference)
        })
    };
    let mut sums = [splat::<V>(0.0); 2];
    for [low, high] in x.as_chunks::<8>().0.as_chunks::<2>().0 {
        sums = [add(sums[0], square(low)), add(sums[1], square(high))];
    }
    let mut squares = [0.0; LANES];
    for (square, x) in squares.iter_mut().zip(x.as_chunks::<LANES>().1) {
        let difference = x - mean;
        *square = difference * difference;
    }
    let [low, high] = padded::<f64, 8>(&squares);
    reduce([add(sums[0], load(&low)), add(sums[1], load(&high))])
}

/// The tree over lanes 0..8 and 8..16.
#[inline]
pub(super) fn reduce<V: Two>([low, high]: [Eight<V>; 2]) -> f64 {
    let [a, b, c, d] = add(low, high);
    let two = a.add(c).add(b.add(d));
    let mut lanes = [0.0; 2];
    two.store(&mut lanes);
    canonical(lanes[0] + lanes[1])
}

#[inline]
pub(super) fn splat<V: Two>(value: f64) -> Eight<V> {
    [V::splat(value); 4]
}

#[inline]
pub(super) fn add<V: Two>(a: Eight<V>, b: Eight<V>) -> Eight<V> {
    core::array::from_fn(|i| a[i].add(b[i]))
}

#[inline]
pub(super) fn multiply<V: Two>(a: Eight<V>, b: Eight<V>) -> Eight<V> {
    core::array::from_fn(|i| a[i].multiply(b[i]))
}

#[inline]
fn add_products<V: Two>(sums: &mut Eight<V>, a: &Eight<V>, b: &Eight<V>) {
    for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
        *sum = sum.add_product(a, b);
    }
}

#[inline]
pub(super) fn load<V: Two>(values: &[f64; 8]) -> Eight<V> {
    let pairs = values.as_chunks::<2>().0;
    core::array::from_fn(|i| V::load(&pairs[i]))
}

#[inline]
fn store<V: Two>(to: &mut [f64; 8], values: Eight<V>) {
    for (to, value) in to.as_chunks_mut::<2>().0.iter_mut().zip(values) {
        value.store(to);
    }
}

/// Eight weights, widened exactly.
#[inline]
pub(super) fn load_weights<V: Two, const TYPE: u8, const EIGHT: usize>(
    bytes: &[u8; EIGHT],
) -> Eight<V> {
    const { assert!(EIGHT == if TYPE == F32 { 32 } else { 16 }) };
    if TYPE == F32 {
        bytes.first_chunk().map_or(splat(0.0), V::widen_f32)
    } else if TYPE == F16 {
        bytes.first_chunk().map_or(splat(0.0), V::widen_f16)
    } else {
        bytes.first_chunk().map_or(splat(0.0), V::widen_bf16)
    }
}
