//! AVX-512 with VNNI: a row to a lane, four columns to a `vpdpbusd`.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::{
    CodeFormat, Matrix, PANEL_ROWS, ScreenInput, ScreenKernels, ScreenOutput, U4, U6, U8,
    split_panel, subtract_products_tile,
};
use crate::kernels::Level;

pub(super) static KERNELS: ScreenKernels = ScreenKernels {
    level: Level::Avx512,
    screen: [screen::<U4>, screen::<U6>, screen::<U8>],
    dot_bytes,
    subtract_products,
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn screen<const FORMAT: u8>(
    panels: &[u8],
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    match (input.high.is_empty(), input.squares.is_empty()) {
        (true, true) => screen_all::<FORMAT, false, false>(panels, blocks, input, output),
        (true, false) => screen_all::<FORMAT, false, true>(panels, blocks, input, output),
        (false, true) => screen_all::<FORMAT, true, false>(panels, blocks, input, output),
        (false, false) => screen_all::<FORMAT, true, true>(panels, blocks, input, output),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
fn screen_all<const FORMAT: u8, const TWO: bool, const DITHERED: bool>(
    panels: &[u8],
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    let format = CodeFormat::ALL[FORMAT as usize];
    let low = input.low.as_chunks::<16>().0;
    let high = input.high.as_chunks::<16>().0;
    let panels = panels.chunks_exact(format.panel_bytes(blocks));
    for (p, (panel, keep)) in panels.zip(output.keep.iter_mut()).enumerate() {
        let (header, scales, codes) = split_panel(panel, blocks);
        let &[weight, offset, residual, other, threshold] = header else {
            continue;
        };
        let mut total = _mm512_setzero_ps();
        let mut square = _mm512_setzero_ps();
        let codes = codes.chunks_exact(format.block_bytes());
        for (b, (codes, scales)) in codes.zip(scales).enumerate() {
            let (Some(low), Some(&correction)) = (low.get(b), input.corrections.get(b)) else {
                break;
            };
            let mut sums = [_mm512_setzero_si512(); 4];
            sums[0] = _mm512_set1_epi32(correction);
            let mut high_sums = [_mm512_setzero_si512(); 4];
            let high = if TWO { high.get(b) } else { None };
            for quarter in 0..4 {
                let codes = quarter_codes::<FORMAT>(codes, quarter);
                for (i, codes) in codes.into_iter().enumerate() {
                    let z = _mm512_set1_epi32(low[quarter * 4 + i]);
                    sums[i] = _mm512_dpbusd_epi32(sums[i], codes, z);
                    if let Some(high) = high {
                        let z = _mm512_set1_epi32(high[quarter * 4 + i]);
                        high_sums[i] = _mm512_dpbusd_epi32(high_sums[i], codes, z);
                    }
                }
            }
            let mut sum = add4(sums);
            if TWO {
                sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<8>(add4(high_sums)));
            }
            let scale = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load16(scales)));
            total = _mm512_add_ps(total, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)));
            if DITHERED {
                let by = _mm512_set1_ps(input.squares.get(b).copied().unwrap_or(f32::NAN));
                let by = _mm512_mul_ps(scale, _mm512_mul_ps(scale, by));
                square = _mm512_add_ps(square, by);
            }
        }
        let t = _mm512_mul_ps(total, _mm512_set1_ps(input.step));
        let centre = _mm512_add_ps(_mm512_mul_ps(floats(&weight), t), floats(&offset));
        let spread = if DITHERED {
            _mm512_sqrt_ps(square)
        } else {
            _mm512_set1_ps(input.spread)
        };
        let margin = _mm512_add_ps(
            _mm512_mul_ps(floats(&residual), spread),
            _mm512_mul_ps(floats(&other), _mm512_set1_ps(input.slack)),
        );
        let upper = _mm512_add_ps(centre, margin);
        *keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(upper, floats(&threshold));
        if let Some(out) = output.upper.as_chunks_mut().0.get_mut(p) {
            store(out, upper);
        }
        if let Some(out) = output.lower.as_chunks_mut().0.get_mut(p) {
            store(out, _mm512_sub_ps(centre, margin));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn dot_bytes(codes: &[u8], high: &[i32], low: &[i32], out: &mut [i64; PANEL_ROWS]) {
    let mut sums = [_mm512_setzero_si512(); 4];
    let mut high_sums = [_mm512_setzero_si512(); 4];
    let codes = codes.as_chunks::<64>().0.as_chunks::<4>().0;
    let planes = high.as_chunks::<4>().0.iter().zip(low.as_chunks::<4>().0);
    for (codes, (high, low)) in codes.iter().zip(planes) {
        for i in 0..4 {
            let codes = load(&codes[i]);
            sums[i] = _mm512_dpbusd_epi32(sums[i], codes, _mm512_set1_epi32(low[i]));
            high_sums[i] = _mm512_dpbusd_epi32(high_sums[i], codes, _mm512_set1_epi32(high[i]));
        }
    }
    let (low, high) = (add4(sums), add4(high_sums));
    let (low_half, low_other) = halves(low);
    let (high_half, high_other) = halves(high);
    let join = |low, high| _mm512_add_epi64(low, _mm512_slli_epi64::<8>(high));
    let (first, second) = out.split_at_mut(8);
    if let (Some(first), Some(second)) = (first.first_chunk_mut(), second.first_chunk_mut()) {
        store64(first, join(low_half, high_half));
        store64(second, join(low_other, high_other));
    }
}

/// Four words of a block, 0 to 3 in the first quarter: each 16 rows by 4 columns, a code to a
/// byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
fn quarter_codes<const FORMAT: u8>(codes: &[u8], quarter: usize) -> [__m512i; 4] {
    let lines = codes.as_chunks::<64>().0;
    match FORMAT {
        U4 => {
            let Some(&[ref a, ref b]) = lines.as_chunks::<2>().0.get(quarter) else {
                return [_mm512_setzero_si512(); 4];
            };
            let (a, b, mask) = (load(a), load(b), _mm512_set1_epi8(15));
            [
                _mm512_and_si512(a, mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(a), mask),
                _mm512_and_si512(b, mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(b), mask),
            ]
        }
        U6 => {
            let Some(&[ref a, ref b, ref c]) = lines.as_chunks::<3>().0.get(quarter) else {
                return [_mm512_setzero_si512(); 4];
            };
            let (a, b, c, mask) = (load(a), load(b), load(c), _mm512_set1_epi8(63));
            // 0xca selects: bits of the second operand where the first has ones, else the third.
            let pair = _mm512_ternarylogic_epi32::<0xca>(
                _mm512_set1_epi8(3),
                _mm512_srli_epi16::<6>(a),
                _mm512_srli_epi16::<4>(b),
            );
            let all = _mm512_ternarylogic_epi32::<0xca>(
                _mm512_set1_epi8(15),
                pair,
                _mm512_srli_epi16::<2>(c),
            );
            [
                _mm512_and_si512(a, mask),
                _mm512_and_si512(b, mask),
                _mm512_and_si512(c, mask),
                _mm512_and_si512(all, mask),
            ]
        }
        _ => {
            let Some(&[ref a, ref b, ref c, ref d]) = lines.as_chunks::<4>().0.get(quarter) else {
                return [_mm512_setzero_si512(); 4];
            };
            [load(a), load(b), load(c), load(d)]
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add4(x: [__m512i; 4]) -> __m512i {
    _mm512_add_epi32(_mm512_add_epi32(x[0], x[1]), _mm512_add_epi32(x[2], x[3]))
}

/// The sixteen i32 as two vectors of i64.
#[target_feature(enable = "avx512f")]
#[inline]
fn halves(x: __m512i) -> (__m512i, __m512i) {
    (
        _mm512_cvtepi32_epi64(_mm512_castsi512_si256(x)),
        _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(x)),
    )
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn floats(bytes: &[u8; 64]) -> __m512 {
    _mm512_castsi512_ps(load(bytes))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(out: &mut [f32; 16], x: __m512) {
    // SAFETY: the reference covers the 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store64(out: &mut [i64; 8], x: __m512i) {
    // SAFETY: the reference covers the 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn subtract_products(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f64], stride: usize) {
    subtract_products_tile(a, b, c, stride);
}
