//! Meeting the features through the model's screen: they were quantised when it was prepared, in a
//! basis that makes bounds tight, so their weights are read for survivors only.

use super::*;
use crate::kernels::screen::batch::{
    BatchKernels, GROUP_ROWS, TILE_INPUTS, Tile, TileInput, Totals, Word,
};
use crate::screen::{Screen, Tiles};

const _: () = assert!(TILE_INPUTS == TILE_ROWS && GROUP_ROWS == PANEL_FEATURES);

/// What a screen and its batches need, besides what every batch does.
#[derive(Clone, Copy)]
pub(super) struct CodeSizes {
    /// Words of four columns of a row, and its blocks.
    words: usize,
    blocks: usize,
    /// For quantising inputs, in f64 units.
    work: usize,
}

impl CodeSizes {
    /// `None` if batches do not go through the model's screen.
    pub(super) fn of(sae: &Sae<'_>) -> Option<Self> {
        let screen = sae.screen.as_ref()?;
        screen.batch_kernels(sae.level())?;
        Some(CodeSizes {
            words: screen.words(),
            blocks: screen.blocks(),
            work: screen.tiles_work_len(),
        })
    }

    /// In f64 units, what does not depend on the number of rows.
    pub(super) fn fixed(&self) -> usize {
        let codes = self.words * size_of::<Word>() / 8;
        codes + self.blocks * GROUP_ROWS / 2 + self.work
    }

    /// The same for a tile of rows.
    pub(super) fn tile(&self) -> usize {
        (self.words * TILE_INPUTS).div_ceil(2) + 2 * (self.blocks * TILE_INPUTS).div_ceil(2)
    }
}

/// The screen's side of a batch.
pub(super) struct Codes<'s> {
    screen: &'s Screen<'s>,
    kernels: &'static BatchKernels,
    /// Of a group of features.
    codes: &'s mut [Word],
    scales: &'s mut [f32],
    /// Of all rows.
    words: &'s mut [i32],
    corrections: &'s mut [i32],
    factors: &'s mut [f32],
    work: &'s mut [f64],
}

impl<'s> Codes<'s> {
    pub(super) fn cut(
        sae: &'s Sae<'s>,
        sizes: &CodeSizes,
        tiled: usize,
        cut: &mut Cut<'s>,
    ) -> Option<Self> {
        let screen = sae.screen.as_ref()?;
        Some(Codes {
            screen,
            kernels: screen.batch_kernels(sae.level())?,
            codes: bytemuck::cast_slice_mut(cut.words(sizes.words * size_of::<Word>() / 8)?),
            scales: cut.take(sizes.blocks * GROUP_ROWS)?,
            words: cut.take(tiled * sizes.words)?,
            corrections: cut.take(tiled * sizes.blocks)?,
            factors: cut.take(tiled * sizes.blocks)?,
            work: cut.words(sizes.work)?,
        })
    }
}

impl Batch<'_> {
    /// The rows as tiles of codes.
    pub(super) fn code_rows(&mut self, codes: &mut Codes<'_>) {
        let floor = f64::from(self.floor());
        for numbers in self.numbers.iter_mut() {
            *numbers = [0.0, 0.0, 0.0, floor];
        }
        let tiles = Tiles {
            words: codes.words,
            corrections: codes.corrections,
            factors: codes.factors,
            numbers: self.numbers,
        };
        let (inputs, d_in) = (&*self.inputs, self.d_in);
        let status = &*self.status;
        let input = |row: usize| match status.get(row) {
            Some(0) => inputs.get(row * d_in..(row + 1) * d_in),
            _ => None,
        };
        let kernels = self.sae.screen_kernels();
        codes
            .screen
            .load_tiles(kernels, self.rows, input, tiles, codes.work);
    }

    /// Meets the features of `range` that are in the group that starts with `first` with all rows.
    pub(super) fn run_group(&mut self, codes: &mut Codes<'_>, first: usize, range: &Range<usize>) {
        let encoder = &self.sae.parts.encoder;
        let group = codes
            .screen
            .group(codes.kernels, first, codes.codes, codes.scales);
        let magnitude = self.is_ranked_by_magnitude();
        let lower_slack = magnitude.then(|| codes.screen.lower_slack());
        let behind = |feature: usize| match feature.saturating_sub(first) {
            skip if skip < GROUP_ROWS => u64::MAX << skip,
            _ => 0,
        };
        let wanted = behind(range.start) & !behind(range.end);
        let panel = Panel {
            ty: encoder.weight_type(),
            first,
            weights: encoder.bytes_from(first),
            stride: encoder.stride_bytes(),
            row_bytes: self.d_in * encoder.weight_type().size(),
        };
        let mut totals: Totals = [[0.0; GROUP_ROWS]; TILE_INPUTS];
        let tiles = codes.words.chunks_exact(codes.codes.len() * TILE_INPUTS);
        let blocks = codes.scales.len() / GROUP_ROWS;
        let tiles = tiles.zip(codes.corrections.chunks_exact(blocks * TILE_INPUTS));
        let tiles = tiles.zip(codes.factors.chunks_exact(blocks * TILE_INPUTS));
        for (tile, ((words, corrections), factors)) in tiles.enumerate() {
            if tile * TILE_ROWS >= self.live {
                break;
            }
            let kernels = codes.kernels;
            let columns = Tile {
                words,
                corrections,
                factors,
            };
            kernels.multiply(codes.codes, codes.scales, &columns, &mut totals);
            let mut inputs = [TileInput::default(); TILE_INPUTS];
            let of_tile = self.numbers.iter().skip(tile * TILE_ROWS);
            for (to, numbers) in inputs.iter_mut().zip(of_tile) {
                *to = TileInput::from_numbers(*numbers);
            }
            let kept = kernels.keep(&totals, &inputs, &group, lower_slack);
            self.note(tile, kept.map(|kept| kept & wanted));
        }
        self.survivors(&panel);
    }
}
