//! AVX-512: sixteen features to a register, two products to a lane (`vpdpwssd`; `vpmaddwd` and
//! `vpaddd` without VNNI).
//!
//! Six rows by 64 features are 24 sums. With four registers of weights and a broadcast that is 29
//! of 32, and ten loads feed 24 multiplications, so that the multiplier is what limits.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::{
    BlockedKernels, COLUMN_FEATURES, PANEL_FEATURES, PanelBounds, Products, TILE_ROWS, TileRow,
    loops,
};
use crate::kernels::{BF16, F16, F32, Level, scalar};

pub(super) static KERNELS: BlockedKernels = BlockedKernels {
    level: Level::Avx512,
    widen: [widen::<F32>, widen::<F16>, widen::<BF16>],
    measure,
    quantise,
    interleave: [interleave, interleave_column],
    transpose: [transpose, transpose_words],
    multiply,
    keep,
};

/// With VNNI.
pub(super) static VNNI: BlockedKernels = BlockedKernels {
    level: Level::Avx512,
    widen: [widen::<F32>, widen::<F16>, widen::<BF16>],
    measure,
    quantise,
    interleave: [interleave, interleave_column],
    transpose: [transpose, transpose_words],
    multiply: multiply_vnni,
    keep,
};

const COLUMNS: usize = PANEL_FEATURES / COLUMN_FEATURES;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn multiply(panel: &[i16], tile: &[i16], products: &mut Products) {
    let tile = tile.as_chunks::<2>().0.as_chunks::<TILE_ROWS>().0;
    let mut columns = columns(panel);
    let mut sums = [[_mm512_setzero_si512(); COLUMNS]; TILE_ROWS];
    for rows in tile {
        let mut weights = [_mm512_setzero_si512(); COLUMNS];
        for (weights, column) in weights.iter_mut().zip(&mut columns) {
            let Some(line) = column.next() else {
                return;
            };
            *weights = load(line);
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            let row = _mm512_set1_epi32(pair(*row));
            for (sum, weights) in sums.iter_mut().zip(&weights) {
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(*weights, row));
            }
        }
    }
    store(products, sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn multiply_vnni(panel: &[i16], tile: &[i16], products: &mut Products) {
    let tile = tile.as_chunks::<2>().0.as_chunks::<TILE_ROWS>().0;
    let mut columns = columns(panel);
    let mut sums = [[_mm512_setzero_si512(); COLUMNS]; TILE_ROWS];
    for rows in tile {
        let mut weights = [_mm512_setzero_si512(); COLUMNS];
        for (weights, column) in weights.iter_mut().zip(&mut columns) {
            let Some(line) = column.next() else {
                return;
            };
            *weights = load(line);
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            let row = _mm512_set1_epi32(pair(*row));
            for (sum, weights) in sums.iter_mut().zip(&weights) {
                *sum = _mm512_dpwssd_epi32(*sum, *weights, row);
            }
        }
    }
    store(products, sums);
}

/// The lines of each column of a panel.
#[inline(always)]
fn columns(panel: &[i16]) -> [core::slice::Iter<'_, [i16; 32]>; COLUMNS] {
    let mut out = [const { &[] as &[[i16; 32]] }; COLUMNS].map(<[_]>::iter);
    for (out, column) in out
        .iter_mut()
        .zip(panel.chunks_exact(panel.len() / COLUMNS))
    {
        *out = column.as_chunks().0.iter();
    }
    out
}

/// Two integers as the 32 bits that are broadcast.
#[inline]
fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(values: &[i16; 32]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(products: &mut Products, sums: [[__m512i; COLUMNS]; TILE_ROWS]) {
    for (products, sums) in products.iter_mut().zip(sums) {
        for (out, sum) in products.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: the array has the 64 bytes that are written; no alignment is needed.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn widen<const TYPE: u8>(bytes: &[u8], out: &mut [f32]) {
    if TYPE != F16 {
        for (out, weight) in out.iter_mut().zip(scalar::values::<TYPE>(bytes)) {
            *out = weight as f32;
        }
        return;
    }
    let (lines, rest) = bytes.as_chunks::<16>();
    let (out_lines, out_rest) = out.as_chunks_mut::<8>();
    for (line, out) in lines.iter().zip(out_lines) {
        // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
        let halves = unsafe { _mm_loadu_si128(line.as_ptr().cast()) };
        let wide = _mm256_cvtph_ps(halves);
        // SAFETY: the array has the 32 bytes that are written; the store needs no alignment.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), wide) };
    }
    for (out, weight) in out_rest.iter_mut().zip(scalar::values::<TYPE>(rest)) {
        *out = weight as f32;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn measure(values: &[f32]) -> [f64; 2] {
    loops::measure(values)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn quantise(values: &[f32], factor: f32, out: &mut [i16]) -> f64 {
    loops::quantise(values, factor, out)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn interleave(rows: &[i16], stride: usize, out: &mut [i16]) {
    loops::interleave::<TILE_ROWS>(rows, stride, out);
}

/// A pair is a word, so a column is the transpose of its rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn interleave_column(rows: &[i16], stride: usize, out: &mut [i16]) {
    if stride == 0 {
        return; // rows without inputs
    }
    let pairs = out.as_chunks_mut::<2>().0;
    let pairs = pairs.as_chunks_mut::<COLUMN_FEATURES>().0;
    let (squares, rest) = pairs.as_chunks_mut::<16>();
    let done = squares.len() * 16;
    for (square, out) in squares.iter_mut().enumerate() {
        let mut words = [_mm512_setzero_si512(); 16];
        for (words, row) in words.iter_mut().zip(rows.chunks_exact(stride)) {
            if let Some(line) = row.get(32 * square..).and_then(|row| row.first_chunk()) {
                *words = load(line);
            }
        }
        for (out, words) in out.iter_mut().zip(transposed(words)) {
            // SAFETY: the array has the 64 bytes that are written; no alignment is needed.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), words) };
        }
    }
    loops::interleave_rest(rows, stride, done, rest);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn transpose(columns: &[u8], stride: usize, size: [usize; 2], rows: &mut [u8]) {
    loops::transpose::<2>(columns, stride, size, rows);
}

/// Features of 16 inputs that are copied before they are turned.
const STAGED: usize = 256;
/// Inputs whose weights are asked for ahead. Lines of neighbouring inputs are often a power of two
/// apart, and then in one set of the first-level cache, which holds eight.
const FEW: usize = 4;

/// Squares of 16 inputs by 16 features go through registers, in whole cache lines, from a copy in
/// which they are not in each other's way.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn transpose_words(columns: &[u8], stride: usize, size: [usize; 2], rows: &mut [u8]) {
    let [inputs, features] = size;
    if inputs == 0 || features == 0 || !features.is_multiple_of(16) {
        return loops::transpose::<4>(columns, stride, size, rows);
    }
    let share = rows.len() / features;
    let whole = inputs - inputs % 16;
    let line = |j: usize| super::super::row_bytes(columns, j, stride, features * 4);
    let mut staged = [[[0u8; 64]; STAGED / 16]; 16];
    for first in (0..whole).step_by(16) {
        for start in (0..features).step_by(STAGED) {
            let width = STAGED.min(features - start);
            for (i, staged) in staged.iter_mut().enumerate() {
                let ahead = line(first + i + FEW).get(start * 4..(start + width) * 4);
                loops::prefetch(ahead.unwrap_or(&[]));
                let from = line(first + i).get(start * 4..).unwrap_or(&[]);
                for (to, from) in staged.iter_mut().zip(from.as_chunks().0) {
                    *to = *from;
                }
            }
            let rows = rows.get_mut(start * share..).unwrap_or(&mut []);
            let rows = rows.chunks_exact_mut(16 * share).take(width / 16);
            for (block, rows) in rows.enumerate() {
                let mut words = [_mm512_setzero_si512(); 16];
                for (words, staged) in words.iter_mut().zip(&staged) {
                    if let Some(weights) = staged.get(block) {
                        // SAFETY: the array has the 64 bytes that are read; no alignment is needed.
                        *words = unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) };
                    }
                }
                let words = transposed(words);
                for (row, words) in rows.chunks_exact_mut(share).zip(words) {
                    let out = row.get_mut(first * 4..).unwrap_or(&mut []);
                    if let Some(out) = out.first_chunk_mut::<64>() {
                        // SAFETY: the array has the 64 bytes that are written; no alignment is
                        // needed.
                        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), words) };
                    }
                }
            }
        }
    }
    for j in whole..inputs {
        let weights = line(j).as_chunks::<4>().0;
        for (row, weight) in rows.chunks_exact_mut(share).zip(weights) {
            let out = row.get_mut(j * 4..).unwrap_or(&mut []);
            if let Some(out) = out.first_chunk_mut() {
                *out = *weight;
            }
        }
    }
}

/// Sixteen lines of sixteen words: `out[i][j] = lines[j][i]`.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(mut lines: [__m512i; 16]) -> [__m512i; 16] {
    // Words of two lines, then pairs of four: within each quarter of a register.
    let mut twos = lines;
    for i in (0..16).step_by(2) {
        twos[i] = _mm512_unpacklo_epi32(lines[i], lines[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi32(lines[i], lines[i + 1]);
    }
    for i in (0..16).step_by(4) {
        lines[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
        lines[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
        lines[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
        lines[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
    // Quarter q of line 4 g + c now has word 4 q + c of the lines 4 g to 4 g + 3.
    let mut out = lines;
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(lines[c], lines[4 + c]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(lines[c], lines[4 + c]);
        let even_high = _mm512_shuffle_i32x4::<0x88>(lines[8 + c], lines[12 + c]);
        let odd_high = _mm512_shuffle_i32x4::<0xdd>(lines[8 + c], lines[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0x88>(even, even_high);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd_high);
        out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even_high);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_high);
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn keep(
    products: &Products,
    rows: &[TileRow; TILE_ROWS],
    panel: &PanelBounds,
    magnitude: bool,
) -> [u64; TILE_ROWS] {
    loops::keep(products, rows, panel, magnitude)
}
