//! AVX2: eight features to a register, two products to a lane (`vpmaddwd`, `vpaddd`).
//!
//! Six rows by sixteen features are twelve sums; two registers of weights, a broadcast and a
//! product make sixteen, which is all there are. So a panel's columns are taken one after the other.

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
    level: Level::Avx2,
    widen: [widen::<F32>, widen::<F16>, widen::<BF16>],
    measure,
    quantise,
    interleave: [interleave::<TILE_ROWS>, interleave::<COLUMN_FEATURES>],
    transpose: [transpose::<2>, transpose::<4>],
    multiply,
    keep,
};

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply(panel: &[i16], tile: &[i16], products: &mut Products) {
    let tile = tile.as_chunks::<2>().0.as_chunks::<TILE_ROWS>().0;
    let columns = panel.chunks_exact(panel.len() / (PANEL_FEATURES / COLUMN_FEATURES));
    for (column, panel) in columns.enumerate() {
        let mut sums = [[_mm256_setzero_si256(); 2]; TILE_ROWS];
        let lines = panel.as_chunks::<16>().0.as_chunks::<2>().0;
        for (line, rows) in lines.iter().zip(tile) {
            let weights = [load(&line[0]), load(&line[1])];
            for (sums, row) in sums.iter_mut().zip(rows) {
                let row = _mm256_set1_epi32(pair(*row));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, row));
                }
            }
        }
        for (products, sums) in products.iter_mut().zip(sums) {
            let out = products.as_chunks_mut::<8>().0.iter_mut();
            for (out, sum) in out.skip(2 * column).zip(sums) {
                // SAFETY: the array has the 32 bytes that are written; no alignment is needed.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
            }
        }
    }
}

/// Two integers as the 32 bits that are broadcast.
#[inline]
fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load(values: &[i16; 16]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
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

#[target_feature(enable = "avx2,fma,f16c")]
fn measure(values: &[f32]) -> [f64; 2] {
    loops::measure(values)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantise(values: &[f32], factor: f32, out: &mut [i16]) -> f64 {
    loops::quantise(values, factor, out)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn interleave<const WIDTH: usize>(rows: &[i16], stride: usize, out: &mut [i16]) {
    loops::interleave::<WIDTH>(rows, stride, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn transpose<const SIZE: usize>(columns: &[u8], stride: usize, size: [usize; 2], rows: &mut [u8]) {
    loops::transpose::<SIZE>(columns, stride, size, rows);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn keep(
    products: &Products,
    rows: &[TileRow; TILE_ROWS],
    panel: &PanelBounds,
    magnitude: bool,
) -> [u64; TILE_ROWS] {
    loops::keep(products, rows, panel, magnitude)
}
