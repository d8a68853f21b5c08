//! AVX-512 with VNNI: sixteen rows to a register, four columns to a `vpdpbusd`.
//!
//! Six inputs by 64 rows are 24 sums of integers; with four registers of codes and a broadcast that
//! is 29 of 32, and ten loads feed 24 multiplications. The sums of blocks are added up in memory,
//! once for 16 words.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::super::avx512::{load, quarter_codes};
use super::super::{CodeFormat, PANEL_ROWS, U3, U4, U6, U8, split_panel};
use super::{
    BatchKernels, GROUP_PANELS, GROUP_ROWS, GroupBounds, SecondCodes, TILE_INPUTS, Tile, TileInput,
    Totals, WORDS, Word, loops,
};
use crate::kernels::Level;

pub(super) static KERNELS: BatchKernels = BatchKernels {
    level: Level::Avx512,
    unpack: [
        unpack::<U3, 384>,
        unpack::<U4, 512>,
        unpack::<U6, 768>,
        unpack::<U8, 1024>,
    ],
    multiply,
    keep,
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn unpack<const FORMAT: u8, const BLOCK: usize>(
    panels: &[u8],
    blocks: usize,
    second: Option<SecondCodes<'_>>,
    codes: &mut [Word],
    scales: &mut [f32],
) {
    let format = CodeFormat::ALL[FORMAT as usize];
    let mask = _mm512_set1_epi8(3);
    let panels = panels.chunks_exact(format.panel_bytes(blocks));
    for (p, panel) in panels.take(GROUP_PANELS).enumerate() {
        let (_, from_scales, from) = split_panel(panel, blocks);
        let from = from.as_chunks::<BLOCK>().0.iter().zip(from_scales);
        let to = codes.as_chunks_mut::<WORDS>().0.iter_mut();
        let to = to.zip(scales.as_chunks_mut::<GROUP_ROWS>().0);
        for (b, ((from, from_scales), (to, scales))) in from.zip(to).enumerate() {
            for (scale, from) in scales[p * PANEL_ROWS..].iter_mut().zip(from_scales) {
                *scale = f32::from(*from);
            }
            let mut second_words = [_mm512_setzero_si512(); 4];
            if let Some(second) = &second {
                for (to, from) in second_words.iter_mut().zip(second.words(p, b)) {
                    *to = words(from);
                }
            }
            for (quarter, to) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let mut codes = quarter_codes::<FORMAT, BLOCK>(from, quarter);
                if second.is_some() {
                    let shift = _mm_cvtsi32_si128(2 * quarter as i32);
                    for (codes, second) in codes.iter_mut().zip(second_words) {
                        // First codes have six bits at most where there are second ones: what is
                        // shifted out of a byte is zero.
                        let low = _mm512_and_si512(_mm512_srl_epi32(second, shift), mask);
                        *codes = _mm512_or_si512(_mm512_slli_epi16::<2>(*codes), low);
                    }
                }
                for (to, codes) in to.iter_mut().zip(codes) {
                    store(&mut to[p], codes);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply(codes: &[Word], scales: &[f32], tile: &Tile<'_>, totals: &mut Totals) {
    let mut sums_of_blocks = [[_mm512_setzero_ps(); GROUP_PANELS]; TILE_INPUTS];
    let blocks = codes.as_chunks::<WORDS>().0.iter();
    let blocks = blocks.zip(scales.as_chunks::<GROUP_ROWS>().0);
    for ((codes, scales), (tile, corrections, factors)) in blocks.zip(tile.blocks()) {
        let mut sums = [[_mm512_setzero_si512(); GROUP_PANELS]; TILE_INPUTS];
        for (sums, &correction) in sums.iter_mut().zip(corrections) {
            *sums = [_mm512_set1_epi32(correction); GROUP_PANELS];
        }
        for (codes, tile) in codes.iter().zip(tile) {
            let mut lines = [_mm512_setzero_si512(); GROUP_PANELS];
            for (line, codes) in lines.iter_mut().zip(codes) {
                *line = load(codes);
            }
            for (sums, &z) in sums.iter_mut().zip(tile) {
                let z = _mm512_set1_epi32(z);
                for (sum, line) in sums.iter_mut().zip(lines) {
                    *sum = _mm512_dpbusd_epi32(*sum, line, z);
                }
            }
        }
        let scales = scales.as_chunks::<PANEL_ROWS>().0;
        let inputs = sums_of_blocks.iter_mut().zip(sums);
        for ((totals, sums), &factor) in inputs.zip(factors) {
            let factor = _mm512_set1_ps(factor);
            for ((total, sum), scales) in totals.iter_mut().zip(sums).zip(scales) {
                let worth = _mm512_mul_ps(floats(scales), factor);
                let product = _mm512_mul_ps(worth, _mm512_cvtepi32_ps(sum));
                *total = _mm512_add_ps(*total, product);
            }
        }
    }
    for (out, sums) in totals.iter_mut().zip(sums_of_blocks) {
        for (out, sums) in out.as_chunks_mut::<PANEL_ROWS>().0.iter_mut().zip(sums) {
            // SAFETY: the reference covers the 64 bytes; the store needs no alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn keep(
    totals: &Totals,
    inputs: &[TileInput; TILE_INPUTS],
    group: &GroupBounds,
    lower_slack: Option<f32>,
) -> [u64; TILE_INPUTS] {
    loops::keep(totals, inputs, group, lower_slack)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn words(words: [u32; PANEL_ROWS]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn floats(values: &[f32; PANEL_ROWS]) -> __m512 {
    // SAFETY: the reference covers the 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(out: &mut [u8; 64], codes: __m512i) {
    // SAFETY: the reference covers the 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), codes) };
}
