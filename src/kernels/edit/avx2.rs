//! AVX2: 16 values at a time, in four registers of f64.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::super::avx2::{
    Eight, add, load, load_weights, multiply, prefetch, reduce, splat, subtract,
};
use super::super::{BF16, F16, F32, LANES, padded, starts_line};
use super::{RowSums, TOO_LARGE, Table, scalar};

pub(in super::super) const TABLE: Table = Table {
    read_row: [
        read_row::<F32, 32>,
        read_row::<F16, 16>,
        read_row::<BF16, 16>,
    ],
    add_to_row,
    add_scaled_to_row: [
        add_scaled_to_row::<F32, 32>,
        add_scaled_to_row::<F16, 16>,
        add_scaled_to_row::<BF16, 16>,
    ],
};

/// How far ahead of what is being read weights are fetched, in bytes.
const AHEAD: usize = 512;

#[target_feature(enable = "avx2,fma,f16c")]
fn read_row<const TYPE: u8, const EIGHT: usize>(
    bytes: &[u8],
    center: &[f64],
    input: &mut [f32],
) -> RowSums {
    let mut sums = [splat(0.0); 2];
    let mut too_large = _mm256_setzero_pd();
    let blocks = bytes.as_chunks::<EIGHT>().0.as_chunks::<2>().0;
    let center_blocks = center.as_chunks::<8>().0.as_chunks::<2>().0;
    let (inputs, input_tail) = input.as_chunks_mut::<LANES>();
    for (i, (block, inputs)) in blocks.iter().zip(&mut *inputs).enumerate() {
        let center = match center_blocks.get(i) {
            Some([low, high]) => [load(low), load(high)],
            None => [splat(0.0); 2],
        };
        let inputs = inputs.as_chunks_mut::<8>().0;
        for (((bytes, center), sum), to) in block.iter().zip(center).zip(&mut sums).zip(inputs) {
            let x = load_weights::<TYPE, EIGHT>(bytes);
            *sum = add(*sum, multiply(x, x));
            let centered = subtract(x, center);
            too_large = _mm256_or_pd(too_large, beyond(centered));
            // SAFETY: the eight values are 32 bytes, and any bytes are an f32.
            store_narrow(unsafe { &mut *to.as_mut_ptr().cast() }, centered);
        }
    }
    let done = inputs.len() * LANES;
    let mut lanes = [0.0; LANES];
    let all_fit = scalar::read_tail::<TYPE>(
        bytes.get(done * (EIGHT / 8)..).unwrap_or(&[]),
        center.get(done..).unwrap_or(&[]),
        input_tail,
        &mut lanes,
    );
    let all_fit = all_fit && _mm256_movemask_pd(too_large) == 0;
    RowSums::new(add_lanes(sums, &lanes), all_fit)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add_to_row(change: &[f64], row: &[u8], out: &mut [u8]) -> RowSums {
    let mut sums = Sums::new();
    let changes = change.as_chunks::<8>().0.as_chunks::<2>().0;
    let rows = row.as_chunks::<32>().0.as_chunks::<2>().0;
    let outs = out.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
    for ((change, row), out) in changes.iter().zip(rows).zip(outs) {
        sums.add([load(&change[0]), load(&change[1])], row, out);
    }
    let done = rows.len() * LANES;
    let tail = change.get(done..).unwrap_or(&[]).iter().copied();
    sums.finish(tail, done, row, out)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add_scaled_to_row<const TYPE: u8, const EIGHT: usize>(
    weights: &[u8],
    scale: f64,
    row: &[u8],
    out: &mut [u8],
) -> RowSums {
    let scale_all = splat(scale);
    let mut sums = Sums::new();
    let blocks = weights.as_chunks::<EIGHT>().0.as_chunks::<2>().0;
    let rows = row.as_chunks::<32>().0.as_chunks::<2>().0;
    let outs = out.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
    for (i, ((block, row), out)) in blocks.iter().zip(rows).zip(outs).enumerate() {
        if starts_line::<EIGHT>(i) {
            prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        }
        let change = [
            multiply(load_weights::<TYPE, EIGHT>(&block[0]), scale_all),
            multiply(load_weights::<TYPE, EIGHT>(&block[1]), scale_all),
        ];
        sums.add(change, row, out);
    }
    let done = rows.len() * LANES;
    let tail = weights.get(done * (EIGHT / 8)..).unwrap_or(&[]);
    let tail = super::super::scalar::values::<TYPE>(tail).map(|weight| scale * weight);
    sums.finish(tail, done, row, out)
}

/// What is known of the values written so far.
struct Sums {
    squares: [Eight; 2],
    /// The sign bit of each value is whether one in its place was.
    too_large: __m256d,
}

impl Sums {
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn new() -> Self {
        Sums {
            squares: [splat(0.0); 2],
            too_large: _mm256_setzero_pd(),
        }
    }

    /// Writes 16 sums.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn add(&mut self, change: [Eight; 2], row: &[[u8; 32]; 2], out: &mut [[u8; 32]; 2]) {
        for half in 0..2 {
            let change = change[half];
            self.squares[half] = add(self.squares[half], multiply(change, change));
            let old = load_weights::<F32, 32>(&row[half]);
            let sum = add(old, change);
            self.too_large = _mm256_or_pd(self.too_large, beyond(sum));
            let new = [keep_equal(sum[0], old[0]), keep_equal(sum[1], old[1])];
            store_narrow(&mut out[half], new);
        }
    }

    /// Adds the last values, from `done` on.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn finish(
        self,
        tail: impl Iterator<Item = f64>,
        done: usize,
        row: &[u8],
        out: &mut [u8],
    ) -> RowSums {
        let mut lanes = [0.0; LANES];
        let row = row.get(done * 4..).unwrap_or(&[]);
        let out = out.get_mut(done * 4..).unwrap_or(&mut []);
        let all_fit = scalar::add_tail(tail, row, out, &mut lanes);
        let sum = add_lanes(self.squares, &lanes);
        RowSums::new(sum, all_fit && _mm256_movemask_pd(self.too_large) == 0)
    }
}

/// All bits of each value of which some do not fit an f32; a NaN does not.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn beyond([low, high]: Eight) -> __m256d {
    let limit = _mm256_set1_pd(TOO_LARGE);
    let sign = _mm256_set1_pd(-0.0);
    let low = _mm256_cmp_pd::<_CMP_NLT_UQ>(_mm256_andnot_pd(sign, low), limit);
    let high = _mm256_cmp_pd::<_CMP_NLT_UQ>(_mm256_andnot_pd(sign, high), limit);
    _mm256_or_pd(low, high)
}

/// The old values where the new ones are equal.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn keep_equal(new: __m256d, old: __m256d) -> __m256d {
    _mm256_blendv_pd(new, old, _mm256_cmp_pd::<_CMP_EQ_OQ>(new, old))
}

/// Writes eight values as f32.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn store_narrow(to: &mut [u8; 32], [low, high]: Eight) {
    let (low, high) = (_mm256_cvtpd_ps(low), _mm256_cvtpd_ps(high));
    // SAFETY: the array has the first 16 bytes; the store needs no alignment.
    unsafe { _mm_storeu_ps(to.as_mut_ptr().cast(), low) };
    // SAFETY: as before, for the last 16 bytes.
    unsafe { _mm_storeu_ps(to[16..].as_mut_ptr().cast(), high) };
}

/// The tree over sums and lanes of a tail: 0 added to a lane changes nothing.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add_lanes(sums: [Eight; 2], lanes: &[f64; LANES]) -> f64 {
    let [low, high] = padded::<f64, 8>(lanes);
    reduce([add(sums[0], load(&low)), add(sums[1], load(&high))])
}
