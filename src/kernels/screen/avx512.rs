//! AVX-512 with VNNI: a row to a lane, four columns to a `vpdpbusd`.

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
    level: Level::Avx512,
    screen: [
        screen::<U3, 384>,
        screen::<U4, 512>,
        screen::<U6, 768>,
        screen::<U8, 1024>,
    ],
    dot_bytes,
    refine_row,
    above,
    centre,
    measure,
    quantise,
    shift_sums,
    subtract_products,
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn screen<const FORMAT: u8, const BLOCK: usize>(
    panels: &[u8],
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    match (input.high.is_empty(), input.squares.is_empty()) {
        (true, true) => screen_all::<FORMAT, BLOCK, false, false>(panels, blocks, input, output),
        (true, false) => screen_all::<FORMAT, BLOCK, false, true>(panels, blocks, input, output),
        (false, true) => screen_all::<FORMAT, BLOCK, true, false>(panels, blocks, input, output),
        (false, false) => screen_all::<FORMAT, BLOCK, true, true>(panels, blocks, input, output),
    }
}

/// Panels that share each broadcast of the input.
const GROUP: usize = 4;
/// How far codes are fetched ahead, in each of the panels: four streams that change their pages
/// every few thousand bytes are too much for the prefetcher of the hardware.
const AHEAD: usize = 2048;
/// Panels of fewer bytes stay in a cache, where fetching ahead costs more than it brings.
const FAR: usize = 8 << 20;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
fn screen_all<const FORMAT: u8, const BLOCK: usize, const TWO: bool, const DITHERED: bool>(
    panels: &[u8],
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    let bytes = CodeFormat::ALL[FORMAT as usize].panel_bytes(blocks);
    let far = panels.len() >= FAR;
    let mut groups = panels.chunks_exact(GROUP * bytes);
    let mut first = 0;
    for group in &mut groups {
        screen_group::<FORMAT, BLOCK, TWO, DITHERED, GROUP>(
            (group, far),
            first,
            blocks,
            input,
            output,
        );
        first += GROUP;
    }
    for panel in groups.remainder().chunks_exact(bytes) {
        screen_group::<FORMAT, BLOCK, TWO, DITHERED, 1>((panel, far), first, blocks, input, output);
        first += 1;
    }
}

/// The panels `first ..`, side by side; `far` if they come from memory.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
fn screen_group<
    const FORMAT: u8,
    const BLOCK: usize,
    const TWO: bool,
    const DITHERED: bool,
    const PANELS: usize,
>(
    (group, far): (&[u8], bool),
    first: usize,
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    let format = CodeFormat::ALL[FORMAT as usize];
    let mut headers: [&[[u8; 64]]; PANELS] = [&[]; PANELS];
    let mut scales: [&[[u8; 16]]; PANELS] = [&[]; PANELS];
    let mut codes: [&[[u8; BLOCK]]; PANELS] = [&[]; PANELS];
    for (p, panel) in group
        .chunks_exact(format.panel_bytes(blocks))
        .take(PANELS)
        .enumerate()
    {
        let parts = split_panel(panel, blocks);
        (headers[p], scales[p], codes[p]) = (parts.0, parts.1, parts.2.as_chunks().0);
    }
    let mut totals = [_mm512_setzero_ps(); PANELS];
    let mut squares = [_mm512_setzero_ps(); PANELS];
    let zero = _mm512_setzero_si512();
    let lows = input.low.as_chunks::<16>().0;
    let highs = if TWO {
        input.high.as_chunks::<16>().0
    } else {
        lows
    };
    let planes = lows.iter().zip(highs).zip(input.corrections).enumerate();
    for (b, ((low, high), &correction)) in planes {
        // Behind the end of a panel comes the same one of the next group.
        let jump = match (b + 1) * BLOCK + AHEAD > blocks * BLOCK {
            true => (PANELS - 1) * format.panel_bytes(blocks),
            false => 0,
        };
        let mut sums = [_mm512_set1_epi32(correction); PANELS];
        let mut high_sums = [zero; PANELS];
        for quarter in 0..4 {
            let mut low_z = [zero; 4];
            let mut high_z = [zero; 4];
            for i in 0..4 {
                low_z[i] = _mm512_set1_epi32(low[quarter * 4 + i]);
                if TWO {
                    high_z[i] = _mm512_set1_epi32(high[quarter * 4 + i]);
                }
            }
            for p in 0..PANELS {
                let Some(block) = codes[p].get(b) else {
                    return;
                };
                if far {
                    prefetch::<BLOCK>(block, quarter, AHEAD + jump);
                }
                let codes = quarter_codes::<FORMAT, BLOCK>(block, quarter);
                for i in 0..4 {
                    sums[p] = _mm512_dpbusd_epi32(sums[p], codes[i], low_z[i]);
                    if TWO {
                        high_sums[p] = _mm512_dpbusd_epi32(high_sums[p], codes[i], high_z[i]);
                    }
                }
            }
        }
        for p in 0..PANELS {
            let Some(scales) = scales[p].get(b) else {
                return;
            };
            let mut sum = sums[p];
            if TWO {
                sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<8>(high_sums[p]));
            }
            let scale = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load16(scales)));
            totals[p] = _mm512_add_ps(totals[p], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)));
            if DITHERED {
                let by = _mm512_set1_ps(input.squares.get(b).copied().unwrap_or(f32::NAN));
                let by = _mm512_mul_ps(scale, _mm512_mul_ps(scale, by));
                squares[p] = _mm512_add_ps(squares[p], by);
            }
        }
    }
    for p in 0..PANELS {
        let &[weight, offset, residual, other, threshold] = headers[p] else {
            return;
        };
        let t = _mm512_mul_ps(totals[p], _mm512_set1_ps(input.step));
        let centre = _mm512_add_ps(_mm512_mul_ps(floats(&weight), t), floats(&offset));
        let spread = if DITHERED {
            _mm512_sqrt_ps(squares[p])
        } else {
            _mm512_set1_ps(input.spread)
        };
        let margin = _mm512_add_ps(
            _mm512_mul_ps(floats(&residual), spread),
            _mm512_mul_ps(floats(&other), _mm512_set1_ps(input.slack)),
        );
        let upper = _mm512_add_ps(centre, margin);
        if let Some(keep) = output.keep.get_mut(first + p) {
            *keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(upper, floats(&threshold));
        }
        if let Some(out) = output.upper.as_chunks_mut().0.get_mut(first + p) {
            store(out, upper);
        }
        if let Some(out) = output.lower.as_chunks_mut().0.get_mut(first + p) {
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

/// Asks for the lines that lie `ahead` bytes behind those of a quarter of a block.
#[target_feature(enable = "avx512f")]
#[inline]
fn prefetch<const BLOCK: usize>(block: &[u8; BLOCK], quarter: usize, ahead: usize) {
    let lines = BLOCK / 64;
    for line in quarter * lines / 4..(quarter + 1) * lines / 4 {
        let at = block.as_ptr().wrapping_add(line * 64 + ahead);
        // A prefetch faults at no address.
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
}

/// Four words of a block, 0 to 3 in the first quarter: each 16 rows by 4 columns, a code to a
/// byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
pub(super) fn quarter_codes<const FORMAT: u8, const BLOCK: usize>(
    block: &[u8; BLOCK],
    quarter: usize,
) -> [__m512i; 4] {
    let lines = block.as_chunks::<64>().0;
    match FORMAT {
        U3 => {
            let lines = &lines[quarter / 2 * 3..][..3];
            let (a, b) = (load(&lines[0]), load(&lines[1]));
            let mask = _mm512_set1_epi8(7);
            if quarter.is_multiple_of(2) {
                [
                    _mm512_and_si512(a, mask),
                    _mm512_and_si512(_mm512_srli_epi16::<3>(a), mask),
                    _mm512_and_si512(b, mask),
                    _mm512_and_si512(_mm512_srli_epi16::<3>(b), mask),
                ]
            } else {
                let c = load(&lines[2]);
                // 0xca selects: bits of the second operand where the first has ones, else the
                // third.
                let low = _mm512_set1_epi8(3);
                let join = |low_bits, high_bits| {
                    let all = _mm512_ternarylogic_epi32::<0xca>(low, low_bits, high_bits);
                    _mm512_and_si512(all, mask)
                };
                [
                    _mm512_and_si512(c, mask),
                    _mm512_and_si512(_mm512_srli_epi16::<3>(c), mask),
                    join(_mm512_srli_epi16::<6>(a), _mm512_srli_epi16::<4>(c)),
                    join(_mm512_srli_epi16::<6>(b), _mm512_srli_epi16::<5>(c)),
                ]
            }
        }
        U4 => {
            let (a, b) = (load(&lines[quarter * 2]), load(&lines[quarter * 2 + 1]));
            let mask = _mm512_set1_epi8(15);
            [
                _mm512_and_si512(a, mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(a), mask),
                _mm512_and_si512(b, mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(b), mask),
            ]
        }
        U6 => {
            let lines = &lines[quarter * 3..][..3];
            let (a, b, c) = (load(&lines[0]), load(&lines[1]), load(&lines[2]));
            let mask = _mm512_set1_epi8(63);
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
            let lines = &lines[quarter * 4..][..4];
            [
                load(&lines[0]),
                load(&lines[1]),
                load(&lines[2]),
                load(&lines[3]),
            ]
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
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
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
    let mut sums = [[_mm512_setzero_pd(); 2]; TILE_ROWS];
    for (a, b) in row_pairs(a, b) {
        let (low, high) = (load_doubles(&b[..8]), load_doubles(&b[8..]));
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = _mm512_set1_pd(*a);
            sums[0] = _mm512_add_pd(sums[0], _mm512_mul_pd(a, low));
            sums[1] = _mm512_add_pd(sums[1], _mm512_mul_pd(a, high));
        }
    }
    let mut out = [[0f64; TILE_COLUMNS]; TILE_ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
            store_doubles(out, sum);
        }
    }
    subtract_tile(c, stride, &out);
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_doubles(values: &[f64]) -> __m512d {
    debug_assert!(values.len() >= 8);
    match values.first_chunk::<8>() {
        // SAFETY: the reference covers the 64 bytes; the load needs no alignment.
        Some(values) => unsafe { _mm512_loadu_pd(values.as_ptr()) },
        None => _mm512_setzero_pd(),
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store_doubles(out: &mut [f64; 8], x: __m512d) {
    // SAFETY: the reference covers the 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_pd(out.as_mut_ptr(), x) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn centre(x: &[f32], centre: &[f64], powers: &[f64], y: &mut [f64]) -> [f64; 3] {
    input::centre(x, centre, powers, y)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn measure(values: &[f64]) -> [f64; 2] {
    input::measure(values)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn quantise(
    values: &[f64],
    step: f64,
    high: &mut [i8],
    low: &mut [i8],
    block_sums: &mut [i32],
) -> [f64; 2] {
    input::quantise(values, step, high, low, block_sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn shift_sums(high: &[i8], low: &[i8], shift: &[f64], out: &mut [f64]) {
    input::shift_sums(high, low, shift, out);
}

/// `vpmaddubsw` adds two products, at most 2 x 3 x 128; `vpdpwssd` multiplies them by the scale: a
/// lane grows by at most 4 x 3 x 128 x 255 for a block, and i32 holds 5,000 of those.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn refine_row(scales: &[u8], codes: &[u8], high: &[i8], low: &[i8]) -> i64 {
    let mut sums = [[_mm512_setzero_si512(); 2]; 2];
    let mask = _mm512_set1_epi8(3);
    let shifts = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
    let planes = high.as_chunks::<64>().0.iter().zip(low.as_chunks::<64>().0);
    let rows = codes.as_chunks::<16>().0.iter().zip(scales);
    for (b, ((codes, &scale), (high, low))) in rows.zip(planes).enumerate() {
        let scale = _mm512_set1_epi16(i16::from(scale));
        let all = _mm512_broadcast_i32x4(load16(codes));
        // The bits that come in from the byte above are masked away.
        let codes = _mm512_and_si512(_mm512_srlv_epi32(all, shifts), mask);
        for (sums, plane) in sums.iter_mut().zip([low, high]) {
            let pairs = _mm512_maddubs_epi16(codes, load_signed(plane));
            sums[b % 2] = _mm512_dpwssd_epi32(sums[b % 2], pairs, scale);
        }
    }
    let mut totals = [0; 2];
    for (total, [a, b]) in totals.iter_mut().zip(sums) {
        let (low, high) = halves(_mm512_add_epi32(a, b));
        *total = _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
    }
    let [low, high] = totals;
    256 * high + low
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_signed(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn above(values: &[f32], floor: f32) -> u32 {
    let (lines, rest) = values.as_chunks::<16>();
    let level = _mm512_set1_ps(floor);
    let mut bits = 0;
    for (i, line) in lines.iter().enumerate() {
        // SAFETY: the reference covers the 64 bytes; the load needs no alignment.
        let line = unsafe { _mm512_loadu_ps(line.as_ptr()) };
        bits |= u32::from(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(line, level)) << (16 * i);
    }
    match rest {
        [] => bits,
        rest => bits | input::above(rest, floor) << (16 * lines.len()),
    }
}
