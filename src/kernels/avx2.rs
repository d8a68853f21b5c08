//! AVX2 with FMA and F16C: the 16 f64 lanes in four registers.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::{BF16, CANONICAL_NAN, F16, F32, Kernels, LANES, Level, canonical, row_bytes, scalar};

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
};

/// Rows that share each load of `x` in [`dot_rows`].
const DOT_ROWS: usize = 4;
/// Rows of one lane that share each load and store of that lane in [`dot_columns`].
const COLUMN_ROWS: usize = 8;
/// Bytes between a column being read and the one being fetched in [`dot_columns`].
const COLUMN_AHEAD: usize = 1024;
/// Rows that share each load and store of a sum in [`add_scaled_rows`].
const SCALED_ROWS: usize = 4;

// `EIGHT` is the size in bytes of eight weights: `8 * TYPE.size()`.

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<const TYPE: u8, const EIGHT: usize>(
    weights: &[u8],
    stride: usize,
    x: &[f64],
    out: &mut [f64],
) {
    let bytes = x.len() * (EIGHT / 8);
    let (groups, rest) = out.as_chunks_mut::<DOT_ROWS>();
    let grouped = groups.len() * DOT_ROWS;
    for (group, out) in groups.iter_mut().enumerate() {
        let first = group * DOT_ROWS;
        let rows = core::array::from_fn(|r| row_bytes(weights, first + r, stride, bytes));
        *out = dot_group::<TYPE, EIGHT, DOT_ROWS>(rows, DOT_ROWS * stride, x);
    }
    for (r, out) in rest.iter_mut().enumerate() {
        let row = row_bytes(weights, grouped + r, stride, bytes);
        [*out] = dot_group::<TYPE, EIGHT, 1>([row], stride, x);
    }
}

/// The dot products of `ROWS` rows, fetching the bytes `ahead` of those it reads.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn dot_group<const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    rows: [&[u8]; ROWS],
    ahead: usize,
    x: &[f64],
) -> [f64; ROWS] {
    let (x_blocks, x_tail) = x.as_chunks::<8>().0.as_chunks::<2>();
    let _ = x_tail;
    let x_tail = x.as_chunks::<LANES>().1;
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);

    let mut sums = [[splat(0.0); 2]; ROWS];
    for (i, [x_low, x_high]) in x_blocks.iter().enumerate() {
        let (x_low, x_high) = (load(x_low), load(x_high));
        for (sums, blocks) in sums.iter_mut().zip(&blocks) {
            let Some([low, high]) = blocks.get(i) else {
                break;
            };
            prefetch(low.as_ptr().wrapping_add(ahead));
            sums[0] = multiply_add(load_weights::<TYPE, EIGHT>(low), x_low, sums[0]);
            sums[1] = multiply_add(load_weights::<TYPE, EIGHT>(high), x_high, sums[1]);
        }
    }
    if !x_tail.is_empty() {
        let [x_low, x_high] = padded::<f64, 8>(x_tail);
        let (x_low, x_high) = (load(&x_low), load(&x_high));
        for (sums, row) in sums.iter_mut().zip(rows) {
            let start = row.len() - row.len() % (2 * EIGHT);
            let [low, high] = padded::<u8, EIGHT>(&row[start..]);
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
    x: &[f64],
    lanes: &mut [f64],
    out: &mut [f64],
) {
    let width = out.len();
    if width == 0 {
        return;
    }
    let bytes = width * (EIGHT / 8);
    for (lane, lane_values) in lanes.chunks_exact_mut(width).enumerate() {
        lane_values.fill(0.0);
        let mut first = lane;
        while first < x.len() {
            let after = first + COLUMN_ROWS * LANES;
            if after - LANES < x.len() {
                let row = |r: usize| row_bytes(weights, first + r * LANES, stride, bytes);
                let next = if after + COLUMN_ROWS * LANES - LANES < x.len() {
                    after
                } else {
                    lane + 1
                };
                let next_row = |r: usize| {
                    weights
                        .as_ptr()
                        .wrapping_add((next + r * LANES).wrapping_mul(stride))
                };
                add_columns::<TYPE, EIGHT, COLUMN_ROWS>(
                    core::array::from_fn(row),
                    core::array::from_fn(next_row),
                    core::array::from_fn(|r| x[first + r * LANES]),
                    lane_values,
                );
                first = after;
            } else {
                let row = row_bytes(weights, first, stride, bytes);
                let next_row = weights
                    .as_ptr()
                    .wrapping_add((first + LANES).wrapping_mul(stride));
                add_columns::<TYPE, EIGHT, 1>([row], [next_row], [x[first]], lane_values);
                first += LANES;
            }
        }
    }
    reduce_columns(lanes, out);
}

/// `lane[c] += rows[r][c] * x[r]` for each column `c`, and for each `r` in order.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add_columns<const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    rows: [&[u8]; ROWS],
    next_rows: [*const u8; ROWS],
    x: [f64; ROWS],
    lane: &mut [f64],
) {
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);
    let mut x_all = [splat(0.0); ROWS];
    for (x_all, x) in x_all.iter_mut().zip(x) {
        *x_all = splat(x);
    }
    let bytes = lane.len() * (EIGHT / 8);
    let (lane_blocks, lane_tail) = lane.as_chunks_mut::<LANES>();
    for (i, lane) in lane_blocks.iter_mut().enumerate() {
        let ([lane_low, lane_high], _) = lane.as_chunks_mut::<8>() else {
            break;
        };
        let (mut low_sums, mut high_sums) = (load(lane_low), load(lane_high));
        let at = i * 2 * EIGHT + COLUMN_AHEAD;
        for r in 0..ROWS {
            let Some([low, high]) = blocks[r].get(i) else {
                break;
            };
            if at < bytes {
                prefetch(low.as_ptr().wrapping_add(COLUMN_AHEAD));
            } else {
                prefetch(next_rows[r].wrapping_add(at - bytes));
            }
            low_sums = multiply_add(load_weights::<TYPE, EIGHT>(low), x_all[r], low_sums);
            high_sums = multiply_add(load_weights::<TYPE, EIGHT>(high), x_all[r], high_sums);
        }
        store(lane_low, low_sums);
        store(lane_high, high_sums);
    }
    let done = lane_blocks.len() * 2 * EIGHT;
    for (row, x) in rows.iter().zip(x) {
        let tail = row.get(done..).unwrap_or(&[]);
        for (lane, weight) in lane_tail.iter_mut().zip(scalar::values::<TYPE>(tail)) {
            *lane += weight * x;
        }
    }
}

/// The tree over 16 lanes of `out.len()` columns each.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn reduce_columns(lanes: &[f64], out: &mut [f64]) {
    let width = out.len();
    let (blocks, tail) = out.as_chunks_mut::<8>();
    let tail_start = blocks.len() * 8;
    for (i, out) in blocks.iter_mut().enumerate() {
        let mut sums = [splat(0.0); LANES];
        for (lane, sum) in sums.iter_mut().enumerate() {
            if let Some(values) = lanes
                .get(lane * width + i * 8..)
                .and_then(<[f64]>::first_chunk)
            {
                *sum = load(values);
            }
        }
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                sums[lane] = add(sums[lane], sums[lane + half]);
            }
            half /= 2;
        }
        store(out, canonical_all(sums[0]));
    }
    for (f, out) in tail.iter_mut().enumerate() {
        *out = scalar::reduce(core::array::from_fn(|lane| {
            lanes[lane * width + tail_start + f]
        }));
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
    let bytes = sums.len() * (EIGHT / 8);
    let (groups, rest) = indices.as_chunks::<SCALED_ROWS>();
    let (scale_groups, rest_scales) = scales.as_chunks::<SCALED_ROWS>();
    for (i, (group, &scales)) in groups.iter().zip(scale_groups).enumerate() {
        let rows = group.map(|index| row_bytes(matrix, index as usize, stride, bytes));
        let next = match groups.get(i + 1) {
            Some(next) => *next,
            None => core::array::from_fn(|r| rest.get(r).copied().unwrap_or(group[r])),
        };
        let next = next.map(|index| row_bytes(matrix, index as usize, stride, bytes).as_ptr());
        add_scaled_group::<TYPE, EIGHT, SCALED_ROWS>(rows, next, scales, sums);
    }
    for (&index, &scale) in rest.iter().zip(rest_scales) {
        let row = row_bytes(matrix, index as usize, stride, bytes);
        add_scaled_group::<TYPE, EIGHT, 1>([row], [row.as_ptr()], [scale], sums);
    }
}

/// `sums[c] += scales[r] * rows[r][c]` for each column `c`, and for each `r` in order.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add_scaled_group<const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    rows: [&[u8]; ROWS],
    next_rows: [*const u8; ROWS],
    scales: [f64; ROWS],
    sums: &mut [f64],
) {
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);
    let mut scale_all = [splat(0.0); ROWS];
    for (scale_all, scale) in scale_all.iter_mut().zip(scales) {
        *scale_all = splat(scale);
    }
    let (sum_blocks, sum_tail) = sums.as_chunks_mut::<LANES>();
    for (i, sums) in sum_blocks.iter_mut().enumerate() {
        let ([sums_low, sums_high], _) = sums.as_chunks_mut::<8>() else {
            break;
        };
        let (mut low_sums, mut high_sums) = (load(sums_low), load(sums_high));
        for r in 0..ROWS {
            let Some([low, high]) = blocks[r].get(i) else {
                break;
            };
            prefetch(next_rows[r].wrapping_add(i * 2 * EIGHT));
            let low_products = multiply(load_weights::<TYPE, EIGHT>(low), scale_all[r]);
            let high_products = multiply(load_weights::<TYPE, EIGHT>(high), scale_all[r]);
            low_sums = add(low_sums, low_products);
            high_sums = add(high_sums, high_products);
        }
        store(sums_low, canonical_all(low_sums));
        store(sums_high, canonical_all(high_sums));
    }
    let done = sum_blocks.len() * 2 * EIGHT;
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
    let (blocks, tail) = x.as_chunks::<8>().0.as_chunks::<2>();
    let _ = tail;
    let mut sums = [splat(0.0); 2];
    for [low, high] in blocks {
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
fn reduce([low, high]: [Eight; 2]) -> f64 {
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

/// Eight weights, widened exactly.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load_weights<const TYPE: u8, const EIGHT: usize>(bytes: &[u8; EIGHT]) -> Eight {
    const { assert!(EIGHT == if TYPE == F32 { 32 } else { 16 }) };
    let single = if TYPE == F32 {
        // SAFETY: the array has 32 bytes (asserted above); the load needs no alignment.
        unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) }
    } else {
        // SAFETY: the array has 16 bytes (asserted above); the load needs no alignment.
        let stored = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        if TYPE == F16 {
            _mm256_cvtph_ps(stored)
        } else {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(stored)))
        }
    };
    [
        _mm256_cvtps_pd(_mm256_castps256_ps128(single)),
        _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(single)),
    ]
}

/// Eight f64 values in two registers.
type Eight = [__m256d; 2];

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn splat(value: f64) -> Eight {
    [_mm256_set1_pd(value); 2]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add(a: Eight, b: Eight) -> Eight {
    [_mm256_add_pd(a[0], b[0]), _mm256_add_pd(a[1], b[1])]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn subtract(a: Eight, b: Eight) -> Eight {
    [_mm256_sub_pd(a[0], b[0]), _mm256_sub_pd(a[1], b[1])]
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn multiply(a: Eight, b: Eight) -> Eight {
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
fn load(values: &[f64; 8]) -> Eight {
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
fn prefetch(address: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}

/// The ragged end of a row as a full block, the rest zeros: adding 0 * 0 changes no lane.
#[inline]
fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [[T; N]; 2] {
    let mut block = [[T::default(); N]; 2];
    for (to, &from) in block.as_flattened_mut().iter_mut().zip(tail) {
        *to = from;
    }
    block
}
