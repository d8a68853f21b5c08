//! What each kernel computes, in plain Rust.

use super::super::scalar::word_codes;
use super::super::{CodeFormat, PANEL_ROWS, U3, U4, U6, U8, split_panel};
use super::{
    BatchKernels, GROUP_PANELS, GROUP_ROWS, GroupBounds, SecondCodes, TILE_INPUTS, Tile, TileInput,
    Totals, WORDS, Word, loops,
};
use crate::kernels::Level;

pub(super) static KERNELS: BatchKernels = BatchKernels {
    level: Level::Scalar,
    unpack: [unpack::<U3>, unpack::<U4>, unpack::<U6>, unpack::<U8>],
    multiply,
    keep,
};

fn unpack<const FORMAT: u8>(
    panels: &[u8],
    blocks: usize,
    second: Option<SecondCodes<'_>>,
    codes: &mut [Word],
    scales: &mut [f32],
) {
    let format = CodeFormat::ALL[FORMAT as usize];
    let panels = panels.chunks_exact(format.panel_bytes(blocks));
    for (p, panel) in panels.take(GROUP_PANELS).enumerate() {
        let (_, from_scales, from) = split_panel(panel, blocks);
        let from = from.chunks_exact(format.block_bytes()).zip(from_scales);
        let to = codes.as_chunks_mut::<WORDS>().0.iter_mut();
        let to = to.zip(scales.as_chunks_mut::<GROUP_ROWS>().0);
        for (b, ((from, from_scales), (to, scales))) in from.zip(to).enumerate() {
            for (scale, from) in scales[p * PANEL_ROWS..].iter_mut().zip(from_scales) {
                *scale = f32::from(*from);
            }
            let second = second.map(|second| second.words(p, b));
            for (word, to) in to.iter_mut().enumerate() {
                to[p] = word_codes::<FORMAT>(from, word);
                let Some(second) = &second else {
                    continue;
                };
                let rows = to[p].as_chunks_mut::<4>().0.iter_mut();
                for (codes, bytes) in rows.zip(&second[word % 4]) {
                    for (code, byte) in codes.iter_mut().zip(bytes.to_le_bytes()) {
                        *code = 4 * *code + (byte >> (word / 4 * 2) & 3);
                    }
                }
            }
        }
    }
}

fn multiply(codes: &[Word], scales: &[f32], tile: &Tile<'_>, totals: &mut Totals) {
    *totals = [[0.0; GROUP_ROWS]; TILE_INPUTS];
    let blocks = codes.as_chunks::<WORDS>().0.iter();
    let blocks = blocks.zip(scales.as_chunks::<GROUP_ROWS>().0);
    for ((codes, scales), (tile, corrections, factors)) in blocks.zip(tile.blocks()) {
        for (input, totals) in totals.iter_mut().enumerate() {
            for (i, total) in totals.iter_mut().enumerate() {
                let mut sum = corrections[input];
                for (codes, tile) in codes.iter().zip(tile) {
                    let codes = &codes[i / PANEL_ROWS][i % PANEL_ROWS * 4..][..4];
                    for (code, z) in codes.iter().zip(tile[input].to_le_bytes()) {
                        sum += i32::from(*code) * i32::from(z as i8);
                    }
                }
                *total += (scales[i] * factors[input]) * (sum as f32);
            }
        }
    }
}

fn keep(
    totals: &Totals,
    inputs: &[TileInput; TILE_INPUTS],
    group: &GroupBounds,
    lower_slack: Option<f32>,
) -> [u64; TILE_INPUTS] {
    loops::keep(totals, inputs, group, lower_slack)
}
