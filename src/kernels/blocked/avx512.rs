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
    interleave: [interleave::<TILE_ROWS>, interleave::<COLUMN_FEATURES>],
    transpose: [transpose::<2>, transpose::<4>],
    multiply,
    keep,
};

/// With VNNI.
pub(super) static VNNI: BlockedKernels = BlockedKernels {
    level: Level::Avx512,
    widen: [widen::<F32>, widen::<F16>, widen::<BF16>],
    measure,
    quantise,
    interleave: [interleave::<TILE_ROWS>, interleave::<COLUMN_FEATURES>],
    transpose: [transpose::<2>, transpose::<4>],
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
fn interleave<const WIDTH: usize>(rows: &[i16], stride: usize, out: &mut [i16]) {
    loops::interleave::<WIDTH>(rows, stride, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn transpose<const SIZE: usize>(columns: &[u8], stride: usize, features: usize, rows: &mut [u8]) {
    loops::transpose::<SIZE>(columns, stride, features, rows);
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
