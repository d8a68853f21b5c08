//! AVX2 with FMA and F16C: the 16 f64 lanes in four registers.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::walk::{self, PASS_ROWS, Pass};
use super::{
    BF16, CANONICAL_NAN, F16, F32, Kernels, LANES, Level, at_or_next, block, block_mut, blocks_of,
    canonical, edit, padded, row_bytes, scalar, starts_line,
};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Avx2,
    dot_rows: [
        dot_rows::<F32, 32>,
        dot_rows::<F16, 16>,
        dot_rows::<BF16, 16>,
    ],
    dot_columns: [
        dot_columns::<F32, 32>,
        dot_columns::<F16, 16>,
        dot_columns::<BF16, 16>,
    ],
    add_scaled_rows: [
        add_scaled_rows::<F32, 32>,
        add_scaled_rows::<F16, 16>,
        add_scaled_rows::<BF16, 16>,
    ],
    widen: [widen::<F32, 32>, widen::<F16, 16>, widen::<BF16, 16>],
    sum,
    sum_squares_about,
    edit: &edit::avx2::TABLE,
};

/// Runs of rows that [`dot_rows`] reads side by side.
const DOT_RUNS: usize = 2;
/// Rows that [`add_scaled_rows`] reads side by side, while that many are left.
const SCALED_ROWS: usize = 16;
/// How far ahead of what is being read a row is fetched, in bytes. The hardware follows long runs
/// by itself; requests that are further ahead only keep it from the lines that are needed first
/// (`benches/NOTES.md`).
const DOT_AHEAD: usize = 256;
/// The same for the rows of a pass over columns, of which there are more side by side.
const COLUMN_AHEAD: usize = 256;
/// The same for rows from all over a matrix.
const SCALED_AHEAD: usize = 256;

// In what follows `EIGHT` is the size in bytes of eight weights, and a block is 16 weights.

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<const TYPE: u8, const EIGHT: usize>(
    weights: &[u8],
    stride: usize,
    x: &[f32],
    out: &mut [f64],
) {
    let bytes = x.len() * (EIGHT / 8);
    let run = out.len() / DOT_RUNS;
    for first in 0..run {
        let rows = core::array::from_fn(|r| row_bytes(weights, first + r * run, stride, bytes));
        let dots = dot_group::<TYPE, EIGHT, DOT_RUNS, true>(rows, x);
        for (out, dot) in out.iter_mut().skip(first).step_by(run).zip(dots) {
            *out = dot;
        }
    }
    for (row, out) in out.iter_mut().enumerate().skip(run * DOT_RUNS) {
        [*out] = dot_group::<TYPE, EIGHT, 1, false>([row_bytes(weights, row, stride, bytes)], x);
    }
}

/// The dot products of `ROWS` rows with `x`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn dot_group<const TYPE: u8, const EIGHT: usize, const ROWS: usize, const FETCH: bool>(
    rows: [&[u8]; ROWS],
    x: &[f32],
) -> [f64; ROWS] {
    let x_blocks = x.as_chunks::<8>().0.as_chunks::<2>().0;
    let (blocks, count) = blocks_of::<EIGHT, ROWS>(rows, x_blocks.len());

    let mut sums = [[splat(0.0); 2]; ROWS];
    for (i, [x_low, x_high]) in x_blocks.iter().take(count).enumerate() {
        let (x_low, x_high) = (load_input(x_low), load_input(x_high));
        for (sums, blocks) in sums.iter_mut().zip(&blocks) {
            // SAFETY: `i` is below `count`, and every row has that many blocks.
            let [low, high] = unsafe { blocks.get_unchecked(i) };
            if FETCH && starts_line::<EIGHT>(i) {
                prefetch(low.as_ptr().wrapping_add(DOT_AHEAD));
            }
            sums[0] = multiply_add(load_weights::<TYPE, EIGHT>(low), x_low, sums[0]);
            sums[1] = multiply_add(load_weights::<TYPE, EIGHT>(high), x_high, sums[1]);
        }
    }
    let x_tail = x.as_chunks::<LANES>().1;
    if !x_tail.is_empty() {
        // padded with zeros: 0 * 0 added to a lane changes nothing
        let [x_low, x_high] = padded::<f32, 8>(x_tail);
        let (x_low, x_high) = (load_input(&x_low), load_input(&x_high));
        for (sums, row) in sums.iter_mut().zip(rows) {
            let tail = row.get(x_blocks.len() * 2 * EIGHT..).unwrap_or(&[]);
            let [low, high] = padded::<u8, EIGHT>(tail);
            sums[0] = multiply_add(load_weights::<TYPE, EIGHT>(&low), x_low, sums[0]);
            sums[1] = multiply_add(load_weights::<TYPE, EIGHT>(&high), x_high, sums[1]);
        }
    }
    let mut out = [0.0; ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = reduce(sums);
    }
    out
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_columns<const TYPE: u8, const EIGHT: usize>(
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
    let mut passes = walk::passes(x.len()).peekable();
    while let Some(pass) = passes.next() {
        let next = passes.peek().map_or(pass.first, |next| next.first);
        match pass.rows {
            PASS_ROWS => add_columns::<TYPE, EIGHT, PASS_ROWS>(&mut columns, pass, next),
            4 => add_columns::<TYPE, EIGHT, 4>(&mut columns, pass, next),
            1 => add_columns::<TYPE, EIGHT, 1>(&mut columns, pass, next),
            _ => add_columns::<TYPE, EIGHT, 0>(&mut columns, pass, next),
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
/// `r` in order; then the folds. Fetches the rows of the pass that starts at input `next`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add_columns<const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    columns: &mut Columns<'_>,
    pass: Pass,
    next: usize,
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
    let next_rows: [*const u8; ROWS] = core::array::from_fn(|r| {
        weights
            .as_ptr()
            .wrapping_add((next + r * LANES).wrapping_mul(stride))
    });
    let (blocks, count) = blocks_of::<EIGHT, ROWS>(rows, width / LANES);
    let mut x_all = [splat(0.0); ROWS];
    for (x_all, x) in x_all.iter_mut().zip(x) {
        *x_all = splat(x);
    }

    let at = pass.slot * width;
    let to = (pass.slot - pass.folds) * width;
    for i in 0..count {
        let mut low_sums = splat(0.0);
        let mut high_sums = splat(0.0);
        if !pass.fresh
            && let Some([low, high]) = block(lanes, at + i * LANES)
        {
            (low_sums, high_sums) = (load(low), load(high));
        }
        for r in 0..ROWS {
            // SAFETY: `i` is below `count`, and every row has that many blocks.
            let [low, high] = unsafe { blocks[r].get_unchecked(i) };
            if starts_line::<EIGHT>(i) {
                let at = i * 2 * EIGHT + COLUMN_AHEAD;
                prefetch(at_or_next(rows[r], next_rows[r], at));
            }
            low_sums = multiply_add(load_weights::<TYPE, EIGHT>(low), x_all[r], low_sums);
            high_sums = multiply_add(load_weights::<TYPE, EIGHT>(high), x_all[r], high_sums);
        }
        for fold in 1..=pass.folds {
            let Some([low, high]) = block(lanes, at - fold * width + i * LANES) else {
                break;
            };
            (low_sums, high_sums) = (add(load(low), low_sums), add(load(high), high_sums));
        }
        if let Some([low, high]) = block_mut(lanes, to + i * LANES) {
            store(low, low_sums);
            store(high, high_sums);
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

#[target_feature(enable = "avx2,fma,f16c")]
fn add_scaled_rows<const TYPE: u8, const EIGHT: usize>(
    matrix: &[u8],
    stride: usize,
    indices: &[u32],
    scales: &[f64],
    sums: &mut [f64],
) {
    // the first rows are on their way before anything waits for them
    let bytes = sums.len() * (EIGHT / 8);
    for &index in indices.iter().take(SCALED_ROWS) {
        let row = row_bytes(matrix, index as usize, stride, bytes);
        for line in row.chunks(64).take(SCALED_AHEAD / 64) {
            prefetch(line.as_ptr());
        }
    }
    let rows = ScaledRows {
        matrix,
        stride,
        indices,
        scales,
    };
    // a factor that fits an f32 makes every product exact, and then fusing changes nothing
    let exact = scales.iter().all(|&scale| f64::from(scale as f32) == scale);
    let rows = match exact {
        true => add_groups::<TYPE, EIGHT, SCALED_ROWS, true>(rows, sums),
        false => add_groups::<TYPE, EIGHT, SCALED_ROWS, false>(rows, sums),
    };
    let rows = add_groups::<TYPE, EIGHT, 4, false>(rows, sums);
    add_groups::<TYPE, EIGHT, 1, false>(rows, sums);
}

/// The rows that are still to be added.
#[derive(Clone, Copy)]
struct ScaledRows<'a> {
    matrix: &'a [u8],
    stride: usize,
    indices: &'a [u32],
    scales: &'a [f64],
}

/// `sums[c] += scale[r] * row[r][c]` for each column `c`, and for each `r` in order, in groups of
/// `ROWS` rows; `FUSED` only if every product is exact. Returns the rows that are too few for a
/// group.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add_groups<'a, const TYPE: u8, const EIGHT: usize, const ROWS: usize, const FUSED: bool>(
    left: ScaledRows<'a>,
    sums: &mut [f64],
) -> ScaledRows<'a> {
    let ScaledRows {
        matrix,
        stride,
        indices,
        scales,
    } = left;
    let bytes = sums.len() * (EIGHT / 8);
    let row = |index: u32| row_bytes(matrix, index as usize, stride, bytes);
    let (groups, other_indices) = indices.as_chunks::<ROWS>();
    let (factors, other_scales) = scales.as_chunks::<ROWS>();
    for (i, (group, &factors)) in groups.iter().zip(factors).enumerate() {
        let rows = group.map(row);
        let following = indices.get((i + 1) * ROWS..).unwrap_or(&[]);
        let next_rows = core::array::from_fn(|r| {
            following
                .get(r)
                .map_or(rows[r], |&index| row(index))
                .as_ptr()
        });
        add_group::<TYPE, EIGHT, ROWS, FUSED>(rows, next_rows, factors, sums);
    }
    ScaledRows {
        indices: other_indices,
        scales: other_scales,
        ..left
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add_group<const TYPE: u8, const EIGHT: usize, const ROWS: usize, const FUSED: bool>(
    rows: [&[u8]; ROWS],
    next_rows: [*const u8; ROWS],
    scales: [f64; ROWS],
    sums: &mut [f64],
) {
    let (blocks, count) = blocks_of::<EIGHT, ROWS>(rows, sums.len() / LANES);
    let mut scale_all = [splat(0.0); ROWS];
    for (scale_all, scale) in scale_all.iter_mut().zip(scales) {
        *scale_all = splat(scale);
    }
    let (sum_blocks, _) = sums.as_chunks_mut::<8>().0.as_chunks_mut::<2>();
    for (i, [sums_low, sums_high]) in sum_blocks.iter_mut().take(count).enumerate() {
        let (mut low_sums, mut high_sums) = (load(sums_low), load(sums_high));
        for r in 0..ROWS {
            // SAFETY: `i` is below `count`, and every row has that many blocks.
            let [low, high] = unsafe { blocks[r].get_unchecked(i) };
            if starts_line::<EIGHT>(i) {
                let at = i * 2 * EIGHT + SCALED_AHEAD;
                prefetch(at_or_next(rows[r], next_rows[r], at));
            }
            let low = load_weights::<TYPE, EIGHT>(low);
            let high = load_weights::<TYPE, EIGHT>(high);
            if FUSED {
                low_sums = multiply_add(low, scale_all[r], low_sums);
                high_sums = multiply_add(high, scale_all[r], high_sums);
            } else {
                low_sums = add(low_sums, multiply(low, scale_all[r]));
                high_sums = add(high_sums, multiply(high, scale_all[r]));
            }
        }
        store(sums_low, canonical_all(low_sums));
        store(sums_high, canonical_all(high_sums));
    }
    let done = count * 2 * EIGHT;
    let (_, sum_tail) = sums.as_chunks_mut::<LANES>();
    for (row, scale) in rows.iter().zip(scales) {
        let tail = row.get(done..).unwrap_or(&[]);
        for (sum, weight) in sum_tail.iter_mut().zip(scalar::values::<TYPE>(tail)) {
            let product = scale * weight;
            *sum = canonical(*sum + product);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn widen<const TYPE: u8, const EIGHT: usize>(bytes: &[u8], out: &mut [f64]) {
    let (blocks, tail) = bytes.as_chunks::<EIGHT>();
    let (out_blocks, out_tail) = out.as_chunks_mut::<8>();
    for (out, block) in out_blocks.iter_mut().zip(blocks) {
        store(out, canonical_all(load_weights::<TYPE, EIGHT>(block)));
    }
    for (out, weight) in out_tail.iter_mut().zip(scalar::values::<TYPE>(tail)) {
        *out = canonical(weight);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum(x: &[f64]) -> f64 {
    let mut sums = [splat(0.0); 2];
    for [low, high] in x.as_chunks::<8>().0.as_chunks::<2>().0 {
        sums[0] = add(sums[0], load(low));
        sums[1] = add(sums[1], load(high));
    }
    let [low, high] = padded::<f64, 8>(x.as_chunks::<LANES>().1);
    sums[0] = add(sums[0], load(&low));
    sums[1] = add(sums[1], load(&high));
    reduce(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum_squares_about(x: &[f64], mean: f64) -> f64 {
    let mean_all = splat(mean);
    let mut sums = [splat(0.0); 2];
    for [low, high] in x.as_chunks::<8>().0.as_chunks::<2>().0 {
        let low = subtract(load(low), mean_all);
        let high = subtract(load(high), mean_all);
        sums[0] = add(sums[0], multiply(low, low));
        sums[1] = add(sums[1], multiply(high, high));
    }
    let mut squares = [0.0; LANES];
    for (square, x) in squares.iter_mut().zip(x.as_chunks::<LANES>().1) {
        let difference = x - mean;
        *square = difference * difference;
    }
    let [low, high] = padded::<f64, 8>(&squares);
    sums[0] = add(sums[0], load(&low));
    sums[1] = add(sums[1], load(&high));
    reduce(sums)
}

/// The tree over lanes 0..8 and 8..16.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn reduce([low, high]: [Eight; 2]) -> f64 {
    let [low_four, high_four] = add(low, high);
    let four = _mm256_add_pd(low_four, high_four);
    let two = _mm_add_pd(
        _mm256_castpd256_pd128(four),
        _mm256_extractf128_pd::<1>(four),
    );
    let one = _mm_add_sd(two, _mm_unpackhi_pd(two, two));
    canonical(_mm_cvtsd_f64(one))
}

/// Each value, or the canonical NaN.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn canonical_all([low, high]: Eight) -> Eight {
    let nan = _mm256_set1_pd(CANONICAL_NAN);
    let low_is_nan = _mm256_cmp_pd::<_CMP_UNORD_Q>(low, low);
    let high_is_nan = _mm256_cmp_pd::<_CMP_UNORD_Q>(high, high);
    [
        _mm256_blendv_pd(low, nan, low_is_nan),
        _mm256_blendv_pd(high, nan, high_is_nan),
    ]
}

/// Eight values of the input, widened.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load_input(values: &[f32; 8]) -> Eight {
    // SAFETY: the array has the first 16 bytes; the load needs no alignment.
    let low = unsafe { _mm_loadu_ps(values.as_ptr()) };
    // SAFETY: values 4..8 are the array's last 16 bytes; the load needs no alignment.
    let high = unsafe { _mm_loadu_ps(values[4..].as_ptr()) };
    [_mm256_cvtps_pd(low), _mm256_cvtps_pd(high)]
}

/// Eight weights, widened exactly.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn load_weights<const TYPE: u8, const EIGHT: usize>(bytes: &[u8; EIGHT]) -> Eight {
    const { assert!(EIGHT == if TYPE == F32 { 32 } else { 16 }) };
    let [low, high] = if TYPE == F32 {
        // SAFETY: the array has 32 bytes (asserted above); the load needs no alignment.
        let low = unsafe { _mm_loadu_ps(bytes.as_ptr().cast()) };
        // SAFETY: as before, for the last 16 bytes.
        let high = unsafe { _mm_loadu_ps(bytes[16..].as_ptr().cast()) };
        [low, high]
    } else {
        // SAFETY: the array has 16 bytes (asserted above); the load needs no alignment.
        let stored = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        if TYPE == F16 {
            let single = _mm256_cvtph_ps(stored);
            [
                _mm256_castps256_ps128(single),
                _mm256_extractf128_ps::<1>(single),
            ]
        } else {
            // a BF16 is the upper half of an f32
            let zero = _mm_setzero_si128();
            let (low, high) = (
                _mm_unpacklo_epi16(zero, stored),
                _mm_unpackhi_epi16(zero, stored),
            );
            [_mm_castsi128_ps(low), _mm_castsi128_ps(high)]
        }
    };
    [_mm256_cvtps_pd(low), _mm256_cvtps_pd(high)]
}

/// Eight f64 values in two registers.
pub(super) type Eight = [__m256d; 2];

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn splat(value: f64) -> Eight {
    [_mm256_set1_pd(value); 2]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn add(a: Eight, b: Eight) -> Eight {
    [_mm256_add_pd(a[0], b[0]), _mm256_add_pd(a[1], b[1])]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn subtract(a: Eight, b: Eight) -> Eight {
    [_mm256_sub_pd(a[0], b[0]), _mm256_sub_pd(a[1], b[1])]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn multiply(a: Eight, b: Eight) -> Eight {
    [_mm256_mul_pd(a[0], b[0]), _mm256_mul_pd(a[1], b[1])]
}

/// `a * b + c`, for exact products: one rounding either way.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn multiply_add(a: Eight, b: Eight, c: Eight) -> Eight {
    [
        _mm256_fmadd_pd(a[0], b[0], c[0]),
        _mm256_fmadd_pd(a[1], b[1], c[1]),
    ]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn load(values: &[f64; 8]) -> Eight {
    // SAFETY: the array has the first 32 bytes; the load needs no alignment.
    let low = unsafe { _mm256_loadu_pd(values.as_ptr()) };
    // SAFETY: values 4..8 are the array's last 32 bytes; the load needs no alignment.
    let high = unsafe { _mm256_loadu_pd(values[4..].as_ptr()) };
    [low, high]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn store(to: &mut [f64; 8], [low, high]: Eight) {
    // SAFETY: the array has the first 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_pd(to.as_mut_ptr(), low) };
    // SAFETY: values 4..8 are the array's last 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_pd(to[4..].as_mut_ptr(), high) };
}

/// Asks for the cache line at `address`, which may be anything: a prefetch never faults.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn prefetch(address: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}
