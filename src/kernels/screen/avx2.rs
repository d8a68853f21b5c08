//! AVX2: eight rows to a vector; `vpmaddubsw` and `vpmaddwd` in place of `vpdpbusd`.
//!
//! `vpmaddubsw` adds two products in 16 bits and saturates. Codes of 4 and 6 bits cannot reach
//! that: 2 x 63 x 128 = 16,128, and even two such sums, 32,256, fit. Codes of 8 bits can, so they
//! are made signed, `u - 128`, and multiplied as `|z| * (sign(z) (u - 128))`, which is at most
//! 2 x 128 x 127 = 32,512 (code 0 is not used); `128 * sum of z` is added at the end.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::{
    CodeFormat, Matrix, PANEL_ROWS, ScreenInput, ScreenKernels, ScreenOutput, TILE_COLUMNS,
    TILE_ROWS, U3, U4, U6, U8, input, row_pairs, split_panel, subtract_tile,
};
use crate::kernels::Level;

pub(super) static KERNELS: ScreenKernels = ScreenKernels {
    level: Level::Avx2,
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

#[target_feature(enable = "avx2")]
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

#[target_feature(enable = "avx2")]
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
        let header = header.as_flattened().as_chunks::<32>().0;
        let Some(header) = header.first_chunk::<10>() else {
            continue;
        };
        let mut totals = [_mm256_setzero_ps(); 2];
        let mut squares = [_mm256_setzero_ps(); 2];
        let codes = codes.chunks_exact(format.block_bytes());
        for (b, (codes, scales)) in codes.zip(scales).enumerate() {
            let (Some(low), Some(&correction)) = (low.get(b), input.corrections.get(b)) else {
                break;
            };
            let sums = if TWO {
                let Some(high) = high.get(b) else { break };
                let [low_sums, high_sums] = block_sums::<FORMAT, 2>(codes, [low, high]);
                let join =
                    |i: usize| _mm256_add_epi32(low_sums[i], _mm256_slli_epi32::<8>(high_sums[i]));
                [join(0), join(1)]
            } else {
                let [sums] = block_sums::<FORMAT, 1>(codes, [low]);
                sums
            };
            let mut start = correction;
            if FORMAT == U8 {
                let sum = input.sums.get(b).copied().unwrap_or(0);
                start = start.wrapping_add(sum.wrapping_mul(128));
            }
            let start = _mm256_set1_epi32(start);
            let scales = load16(scales);
            let scales = [scales, _mm_unpackhi_epi64(scales, scales)];
            for half in 0..2 {
                let scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(scales[half]));
                let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sums[half], start));
                totals[half] = _mm256_add_ps(totals[half], _mm256_mul_ps(scale, sum));
                if DITHERED {
                    let by = _mm256_set1_ps(input.squares.get(b).copied().unwrap_or(f32::NAN));
                    let by = _mm256_mul_ps(scale, _mm256_mul_ps(scale, by));
                    squares[half] = _mm256_add_ps(squares[half], by);
                }
            }
        }
        *keep = 0;
        for half in 0..2 {
            let vector = |n: usize| floats(&header[2 * n + half]);
            let t = _mm256_mul_ps(totals[half], _mm256_set1_ps(input.step));
            let centre = _mm256_add_ps(_mm256_mul_ps(vector(0), t), vector(1));
            let spread = if DITHERED {
                _mm256_sqrt_ps(squares[half])
            } else {
                _mm256_set1_ps(input.spread)
            };
            let margin = _mm256_add_ps(
                _mm256_mul_ps(vector(2), spread),
                _mm256_mul_ps(vector(3), _mm256_set1_ps(input.slack)),
            );
            let upper = _mm256_add_ps(centre, margin);
            let kept = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(upper, vector(4)));
            *keep |= (kept as u16) << (8 * half);
            if let Some(out) = output.upper.as_chunks_mut().0.get_mut(2 * p + half) {
                store(out, upper);
            }
            if let Some(out) = output.lower.as_chunks_mut().0.get_mut(2 * p + half) {
                store(out, _mm256_sub_ps(centre, margin));
            }
        }
    }
}

/// For each plane: the sums of `u z` over a block for the rows 0 to 7 and 8 to 15; in 8 bits,
/// of `(u - 128) z`.
#[target_feature(enable = "avx2")]
#[inline]
fn block_sums<const FORMAT: u8, const PLANES: usize>(
    codes: &[u8],
    planes: [&[i32; 16]; PLANES],
) -> [[__m256i; 2]; PLANES] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; PLANES];
    for quarter in 0..4 {
        for half in 0..2 {
            let codes = quarter_codes::<FORMAT>(codes, quarter, half);
            for (sums, plane) in sums.iter_mut().zip(planes) {
                for i in [0, 2] {
                    let mut pairs = [_mm256_setzero_si256(); 2];
                    for (n, pairs) in pairs.iter_mut().enumerate() {
                        let z = _mm256_set1_epi32(plane[quarter * 4 + i + n]);
                        *pairs = if FORMAT == U8 {
                            signed_pairs(codes[i + n], z)
                        } else {
                            _mm256_maddubs_epi16(codes[i + n], z)
                        };
                    }
                    let sum = if FORMAT == U8 {
                        let [first, second] = pairs.map(|pairs| _mm256_madd_epi16(pairs, ones));
                        _mm256_add_epi32(first, second)
                    } else {
                        _mm256_madd_epi16(_mm256_add_epi16(pairs[0], pairs[1]), ones)
                    };
                    sums[half] = _mm256_add_epi32(sums[half], sum);
                }
            }
        }
    }
    sums
}

/// `(u - 128) z`, two neighbours added, in 16 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn signed_pairs(codes: __m256i, z: __m256i) -> __m256i {
    let signed = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    _mm256_maddubs_epi16(_mm256_abs_epi8(z), _mm256_sign_epi8(signed, z))
}

#[target_feature(enable = "avx2")]
fn dot_bytes(codes: &[u8], high: &[i32], low: &[i32], out: &mut [i64; PANEL_ROWS]) {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; 2];
    let mut plane_sums = [0i64; 2];
    let codes = codes.as_chunks::<32>().0.as_chunks::<2>().0;
    for (codes, (low, high)) in codes.iter().zip(low.iter().zip(high)) {
        for (plane, &z) in [low, high].into_iter().enumerate() {
            let sum: i32 = z.to_le_bytes().iter().map(|&z| i32::from(z as i8)).sum();
            plane_sums[plane] += i64::from(sum);
            let z = _mm256_set1_epi32(z);
            for (sum, codes) in sums[plane].iter_mut().zip(codes) {
                let pairs = signed_pairs(load(codes), z);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    let start = 128 * (plane_sums[0] + 256 * plane_sums[1]);
    let mut parts = [[0i32; PANEL_ROWS]; 2];
    for (part, sums) in parts.iter_mut().zip(sums) {
        let ([first, second], _) = part.as_chunks_mut::<8>() else {
            return;
        };
        store_ints(first, sums[0]);
        store_ints(second, sums[1]);
    }
    for (row, out) in out.iter_mut().enumerate() {
        *out = start + i64::from(parts[0][row]) + 256 * i64::from(parts[1][row]);
    }
}

/// Four words of a block for the rows `8 half ..`: a code to a byte.
#[target_feature(enable = "avx2")]
#[inline]
fn quarter_codes<const FORMAT: u8>(codes: &[u8], quarter: usize, half: usize) -> [__m256i; 4] {
    let lines = codes.as_chunks::<32>().0.as_chunks::<2>().0;
    match FORMAT {
        U3 => {
            let Some([a, b, c]) = lines.as_chunks::<3>().0.get(quarter / 2) else {
                return [_mm256_setzero_si256(); 4];
            };
            let (a, b, c) = (load(&a[half]), load(&b[half]), load(&c[half]));
            let bits = |x, bits: i8| _mm256_and_si256(x, _mm256_set1_epi8(bits));
            let last = |low, high| _mm256_or_si256(bits(low, 3), bits(high, 4));
            if quarter.is_multiple_of(2) {
                [
                    bits(a, 7),
                    bits(_mm256_srli_epi16::<3>(a), 7),
                    bits(b, 7),
                    bits(_mm256_srli_epi16::<3>(b), 7),
                ]
            } else {
                [
                    bits(c, 7),
                    bits(_mm256_srli_epi16::<3>(c), 7),
                    last(_mm256_srli_epi16::<6>(a), _mm256_srli_epi16::<4>(c)),
                    last(_mm256_srli_epi16::<6>(b), _mm256_srli_epi16::<5>(c)),
                ]
            }
        }
        U4 => {
            let Some([a, b]) = lines.as_chunks::<2>().0.get(quarter) else {
                return [_mm256_setzero_si256(); 4];
            };
            let (a, b, mask) = (load(&a[half]), load(&b[half]), _mm256_set1_epi8(15));
            [
                _mm256_and_si256(a, mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(a), mask),
                _mm256_and_si256(b, mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(b), mask),
            ]
        }
        U6 => {
            let Some([a, b, c]) = lines.as_chunks::<3>().0.get(quarter) else {
                return [_mm256_setzero_si256(); 4];
            };
            let (a, b, c) = (load(&a[half]), load(&b[half]), load(&c[half]));
            let mask = _mm256_set1_epi8(63);
            let bits = |x, bits: i8| _mm256_and_si256(x, _mm256_set1_epi8(bits));
            let fourth = _mm256_or_si256(
                _mm256_or_si256(
                    bits(_mm256_srli_epi16::<6>(a), 3),
                    bits(_mm256_srli_epi16::<4>(b), 12),
                ),
                bits(_mm256_srli_epi16::<2>(c), 48),
            );
            [
                _mm256_and_si256(a, mask),
                _mm256_and_si256(b, mask),
                _mm256_and_si256(c, mask),
                fourth,
            ]
        }
        _ => {
            let Some(lines) = lines.as_chunks::<4>().0.get(quarter) else {
                return [_mm256_setzero_si256(); 4];
            };
            let [a, b, c, d] = lines;
            [
                load(&a[half]),
                load(&b[half]),
                load(&c[half]),
                load(&d[half]),
            ]
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn floats(bytes: &[u8; 32]) -> __m256 {
    _mm256_castsi256_ps(load(bytes))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(out: &mut [f32; 8], x: __m256) {
    // SAFETY: the reference covers the 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), x) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store_ints(out: &mut [i32; 8], x: __m256i) {
    // SAFETY: the reference covers the 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) }
}

#[target_feature(enable = "avx2")]
fn subtract_products(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f64], stride: usize) {
    let mut out = [[0f64; TILE_COLUMNS]; TILE_ROWS];
    // Half of the columns at a time: sixteen registers.
    for half in 0..2 {
        let mut sums = [[_mm256_setzero_pd(); 2]; TILE_ROWS];
        for (a, b) in row_pairs(a, b) {
            let b = b.as_chunks::<4>().0;
            let (low, high) = (load_doubles(&b[2 * half]), load_doubles(&b[2 * half + 1]));
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = _mm256_set1_pd(*a);
                sums[0] = _mm256_add_pd(sums[0], _mm256_mul_pd(a, low));
                sums[1] = _mm256_add_pd(sums[1], _mm256_mul_pd(a, high));
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            let out = out.as_chunks_mut::<4>().0.iter_mut().skip(2 * half);
            for (out, sum) in out.zip(sums) {
                store_doubles(out, sum);
            }
        }
    }
    subtract_tile(c, stride, &out);
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_doubles(values: &[f64; 4]) -> __m256d {
    // SAFETY: the reference covers the 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_pd(values.as_ptr()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store_doubles(out: &mut [f64; 4], x: __m256d) {
    // SAFETY: the reference covers the 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_pd(out.as_mut_ptr(), x) }
}

#[target_feature(enable = "avx2")]
fn centre(x: &[f32], centre: &[f64], powers: &[f64], y: &mut [f64]) -> [f64; 3] {
    input::centre(x, centre, powers, y)
}

#[target_feature(enable = "avx2")]
fn measure(values: &[f64]) -> [f64; 2] {
    input::measure(values)
}

#[target_feature(enable = "avx2")]
fn quantise(
    values: &[f64],
    step: f64,
    high: &mut [i8],
    low: &mut [i8],
    block_sums: &mut [i32],
) -> [f64; 2] {
    input::quantise(values, step, high, low, block_sums)
}

#[target_feature(enable = "avx2")]
fn shift_sums(high: &[i8], low: &[i8], shift: &[f64], out: &mut [f64]) {
    input::shift_sums(high, low, shift, out);
}

/// `vpmaddubsw` adds two products, at most 2 x 3 x 128; `vpmaddwd` multiplies them by the scale: a
/// lane grows by at most 2 x 4 x 3 x 128 x 255 for a block, and i32 holds 2,700 of those.
#[target_feature(enable = "avx2")]
fn refine_row(scales: &[u8], codes: &[u8], high: &[i8], low: &[i8]) -> i64 {
    let mut sums = [_mm256_setzero_si256(); 2];
    let mask = _mm256_set1_epi8(3);
    let shifts = [
        _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2),
        _mm256_setr_epi32(4, 4, 4, 4, 6, 6, 6, 6),
    ];
    let planes = high.as_chunks::<64>().0.iter().zip(low.as_chunks::<64>().0);
    let rows = codes.as_chunks::<16>().0.iter().zip(scales);
    for ((codes, &scale), (high, low)) in rows.zip(planes) {
        let scale = _mm256_set1_epi16(i16::from(scale));
        let all = _mm256_broadcastsi128_si256(load16(codes));
        for (half, shift) in shifts.into_iter().enumerate() {
            // The bits that come in from the byte above are masked away.
            let codes = _mm256_and_si256(_mm256_srlv_epi32(all, shift), mask);
            for (sum, plane) in sums.iter_mut().zip([low, high]) {
                let z = load_signed(&plane.as_chunks::<32>().0[half]);
                let pairs = _mm256_maddubs_epi16(codes, z);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, scale));
            }
        }
    }
    let mut lanes = [[0i32; 8]; 2];
    for (lanes, sum) in lanes.iter_mut().zip(sums) {
        store_ints(lanes, sum);
    }
    let [low, high] = lanes.map(|lanes| lanes.iter().map(|&lane| i64::from(lane)).sum::<i64>());
    256 * high + low
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_signed(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn above(values: &[f32], floor: f32) -> u32 {
    let (lines, rest) = values.as_chunks::<8>();
    let level = _mm256_set1_ps(floor);
    let mut bits = 0;
    for (i, line) in lines.iter().enumerate() {
        // SAFETY: the reference covers the 32 bytes; the load needs no alignment.
        let line = unsafe { _mm256_loadu_ps(line.as_ptr()) };
        let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(line, level);
        bits |= (_mm256_movemask_ps(above) as u32) << (8 * i);
    }
    match rest {
        [] => bits,
        rest => bits | input::above(rest, floor) << (8 * lines.len()),
    }
}
