//! AVX-512: 16 values at a time, in two registers of f64.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::super::avx512::{load, load_weights, prefetch, reduce};
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn read_row<const TYPE: u8, const EIGHT: usize>(
    bytes: &[u8],
    center: &[f64],
    input: &mut [f32],
) -> RowSums {
    let limit = _mm512_set1_pd(TOO_LARGE);
    let mut sums = [_mm512_setzero_pd(); 2];
    let mut too_large = 0;
    let blocks = bytes.as_chunks::<EIGHT>().0.as_chunks::<2>().0;
    let center_blocks = center.as_chunks::<8>().0.as_chunks::<2>().0;
    let (inputs, input_tail) = input.as_chunks_mut::<LANES>();
    for (i, (block, inputs)) in blocks.iter().zip(&mut *inputs).enumerate() {
        let center = match center_blocks.get(i) {
            Some([low, high]) => [load(low), load(high)],
            None => [_mm512_setzero_pd(); 2],
        };
        let inputs = inputs.as_chunks_mut::<8>().0;
        for (((bytes, center), sum), to) in block.iter().zip(center).zip(&mut sums).zip(inputs) {
            let x = load_weights::<TYPE, EIGHT>(bytes);
            *sum = _mm512_add_pd(*sum, _mm512_mul_pd(x, x));
            let centered = _mm512_sub_pd(x, center);
            let magnitude = _mm512_abs_pd(centered);
            too_large |= _mm512_cmp_pd_mask::<_CMP_NLT_UQ>(magnitude, limit);
            let narrow = _mm512_cvtpd_ps(centered);
            // SAFETY: the array has the 32 bytes that are written, at any alignment.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), narrow) };
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
    RowSums::new(add_lanes(sums, &lanes), all_fit && too_large == 0)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn add_scaled_to_row<const TYPE: u8, const EIGHT: usize>(
    weights: &[u8],
    scale: f64,
    row: &[u8],
    out: &mut [u8],
) -> RowSums {
    let scale_all = _mm512_set1_pd(scale);
    let mut sums = Sums::new();
    let blocks = weights.as_chunks::<EIGHT>().0.as_chunks::<2>().0;
    let rows = row.as_chunks::<32>().0.as_chunks::<2>().0;
    let outs = out.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
    for (i, ((block, row), out)) in blocks.iter().zip(rows).zip(outs).enumerate() {
        if starts_line::<EIGHT>(i) {
            prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        }
        let change = [
            _mm512_mul_pd(load_weights::<TYPE, EIGHT>(&block[0]), scale_all),
            _mm512_mul_pd(load_weights::<TYPE, EIGHT>(&block[1]), scale_all),
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
    squares: [__m512d; 2],
    too_large: __mmask8,
}

impl Sums {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    #[inline]
    fn new() -> Self {
        Sums {
            squares: [_mm512_setzero_pd(); 2],
            too_large: 0,
        }
    }

    /// Writes 16 sums.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    #[inline]
    fn add(&mut self, change: [__m512d; 2], row: &[[u8; 32]; 2], out: &mut [[u8; 32]; 2]) {
        let limit = _mm512_set1_pd(TOO_LARGE);
        for half in 0..2 {
            let change = change[half];
            let square = _mm512_mul_pd(change, change);
            self.squares[half] = _mm512_add_pd(self.squares[half], square);
            let old = load_weights::<F32, 32>(&row[half]);
            let sum = _mm512_add_pd(old, change);
            let magnitude = _mm512_abs_pd(sum);
            self.too_large |= _mm512_cmp_pd_mask::<_CMP_NLT_UQ>(magnitude, limit);
            let equal = _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(sum, old);
            let new = _mm512_cvtpd_ps(_mm512_mask_mov_pd(sum, equal, old));
            // SAFETY: the array has the 32 bytes that are written, at any alignment.
            unsafe { _mm256_storeu_ps(out[half].as_mut_ptr().cast(), new) };
        }
    }

    /// Adds the last values, from `done` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
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
        RowSums::new(sum, all_fit && self.too_large == 0)
    }
}

/// The tree over sums and lanes of a tail: 0 added to a lane changes nothing.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
#[inline]
fn add_lanes(sums: [__m512d; 2], lanes: &[f64; LANES]) -> f64 {
    let [low, high] = padded::<f64, 8>(lanes);
    reduce([
        _mm512_add_pd(sums[0], load(&low)),
        _mm512_add_pd(sums[1], load(&high)),
    ])
}
