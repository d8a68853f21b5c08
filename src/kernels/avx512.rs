//! AVX-512 (F, BW, VL, DQ) with f64 lanes in two registers.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::{BF16, CANONICAL_NAN, F16, F32, Kernels, LANES, Level, canonical, row_bytes, scalar};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Avx512,
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
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

    let mut sums = [[_mm512_setzero_pd(); 2]; ROWS];
    for (i, [x_low, x_high]) in x_blocks.iter().enumerate() {
        let (x_low, x_high) = (load(x_low), load(x_high));
        for (sums, blocks) in sums.iter_mut().zip(&blocks) {
            let Some([low, high]) = blocks.get(i) else {
                break;
            };
            prefetch(low.as_ptr().wrapping_add(ahead));
            sums[0] = _mm512_fmadd_pd(load_weights::<TYPE, EIGHT>(low), x_low, sums[0]);
            sums[1] = _mm512_fmadd_pd(load_weights::<TYPE, EIGHT>(high), x_high, sums[1]);
        }
    }
    if !x_tail.is_empty() {
        let [x_low, x_high] = padded::<f64, 8>(x_tail);
        let (x_low, x_high) = (load(&x_low), load(&x_high));
        for (sums, row) in sums.iter_mut().zip(rows) {
            let start = row.len() - row.len() % (2 * EIGHT);
            let [low, high] = padded::<u8, EIGHT>(&row[start..]);
            sums[0] = _mm512_fmadd_pd(load_weights::<TYPE, EIGHT>(&low), x_low, sums[0]);
            sums[1] = _mm512_fmadd_pd(load_weights::<TYPE, EIGHT>(&high), x_high, sums[1]);
        }
    }
    let mut out = [0.0; ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = reduce(sums);
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn add_columns<const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    rows: [&[u8]; ROWS],
    next_rows: [*const u8; ROWS],
    x: [f64; ROWS],
    lane: &mut [f64],
) {
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);
    let mut x_all = [_mm512_setzero_pd(); ROWS];
    for (x_all, x) in x_all.iter_mut().zip(x) {
        *x_all = _mm512_set1_pd(x);
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
            low_sums = _mm512_fmadd_pd(load_weights::<TYPE, EIGHT>(low), x_all[r], low_sums);
            high_sums = _mm512_fmadd_pd(load_weights::<TYPE, EIGHT>(high), x_all[r], high_sums);
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn reduce_columns(lanes: &[f64], out: &mut [f64]) {
    let width = out.len();
    let (blocks, tail) = out.as_chunks_mut::<8>();
    let tail_start = blocks.len() * 8;
    for (i, out) in blocks.iter_mut().enumerate() {
        let mut sums = [_mm512_setzero_pd(); LANES];
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
                sums[lane] = _mm512_add_pd(sums[lane], sums[lane + half]);
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn add_scaled_group<const TYPE: u8, const EIGHT: usize, const ROWS: usize>(
    rows: [&[u8]; ROWS],
    next_rows: [*const u8; ROWS],
    scales: [f64; ROWS],
    sums: &mut [f64],
) {
    let blocks = rows.map(|row| row.as_chunks::<EIGHT>().0.as_chunks::<2>().0);
    let mut scale_all = [_mm512_setzero_pd(); ROWS];
    for (scale_all, scale) in scale_all.iter_mut().zip(scales) {
        *scale_all = _mm512_set1_pd(scale);
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
            let low_products = _mm512_mul_pd(load_weights::<TYPE, EIGHT>(low), scale_all[r]);
            let high_products = _mm512_mul_pd(load_weights::<TYPE, EIGHT>(high), scale_all[r]);
            low_sums = _mm512_add_pd(low_sums, low_products);
            high_sums = _mm512_add_pd(high_sums, high_products);
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
fn sum(x: &[f64]) -> f64 {
    let (blocks, tail) = x.as_chunks::<8>().0.as_chunks::<2>();
    let _ = tail;
    let mut sums = [_mm512_setzero_pd(); 2];
    for [low, high] in blocks {
        sums[0] = _mm512_add_pd(sums[0], load(low));
        sums[1] = _mm512_add_pd(sums[1], load(high));
    }
    let [low, high] = padded::<f64, 8>(x.as_chunks::<LANES>().1);
    sums[0] = _mm512_add_pd(sums[0], load(&low));
    sums[1] = _mm512_add_pd(sums[1], load(&high));
    reduce(sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
fn sum_squares_about(x: &[f64], mean: f64) -> f64 {
    let mean_all = _mm512_set1_pd(mean);
    let mut sums = [_mm512_setzero_pd(); 2];
    for [low, high] in x.as_chunks::<8>().0.as_chunks::<2>().0 {
        let low = _mm512_sub_pd(load(low), mean_all);
        let high = _mm512_sub_pd(load(high), mean_all);
        sums[0] = _mm512_add_pd(sums[0], _mm512_mul_pd(low, low));
        sums[1] = _mm512_add_pd(sums[1], _mm512_mul_pd(high, high));
    }
    let mut squares = [0.0; LANES];
    for (square, x) in squares.iter_mut().zip(x.as_chunks::<LANES>().1) {
        let difference = x - mean;
        *square = difference * difference;
    }
    let [low, high] = padded::<f64, 8>(&squares);
    sums[0] = _mm512_add_pd(sums[0], load(&low));
    sums[1] = _mm512_add_pd(sums[1], load(&high));
    reduce(sums)
}

/// The tree over lanes 0..8 and 8..16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn reduce([low, high]: [__m512d; 2]) -> f64 {
    let eight = _mm512_add_pd(low, high);
    let four = _mm256_add_pd(
        _mm512_castpd512_pd256(eight),
        _mm512_extractf64x4_pd::<1>(eight),
    );
    let two = _mm_add_pd(
        _mm256_castpd256_pd128(four),
        _mm256_extractf128_pd::<1>(four),
    );
    let one = _mm_add_sd(two, _mm_unpackhi_pd(two, two));
    canonical(_mm_cvtsd_f64(one))
}

/// Each value, or the canonical NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn canonical_all(values: __m512d) -> __m512d {
    let nan = _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_mask_mov_pd(values, nan, _mm512_set1_pd(CANONICAL_NAN))
}

/// Eight weights, widened exactly.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn load_weights<const TYPE: u8, const EIGHT: usize>(bytes: &[u8; EIGHT]) -> __m512d {
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
    _mm512_cvtps_pd(single)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn load(values: &[f64; 8]) -> __m512d {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_pd(values.as_ptr()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
#[inline]
fn store(to: &mut [f64; 8], values: __m512d) {
    // SAFETY: the array has the 64 bytes that are written; the store needs no alignment.
    unsafe { _mm512_storeu_pd(to.as_mut_ptr(), values) }
}

/// Asks for the cache line at `address`, which may be anything: a prefetch never faults.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
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
