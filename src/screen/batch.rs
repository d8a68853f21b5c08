//! Batches: many inputs against the codes of 64 rows at a time.
//!
//! Inputs are rounded to 8 bits instead of 16, since half the products are half the time, with block
//! scales as rows have them: in block `b`, `v_j = s2 n_b z2_j + e2_j` with `|z2_j| <= 127` and `n_b`
//! an integer from 1 to 255. Theorem 1 does not ask how fine `z2` is: with `s2 n_b z2` for its `s2
//! z2`, `(m_b n_b) I_b` for its `m_b I_b` (the product of the factors is exact) and `D = 1.01 s2 max
//! n_b`, since half a unit of `g_b` is worth `n_b` times as much, every line of its proof stands.
//!
//! Second codes are read with the first ones. A first code and a second one stand for
//! `s m_b (u - h) + (s m_b / 4) (u' - h') = (s m_b / 4) (4 u + u' - (4 h + h'))`: that is a code of
//! 8 bits, `4 u + u'`, with a quarter of the step and the shift `4 h + h'`, to which theorem 1
//! applies with the refined residual; `H` is at most what it is for the first codes, whose steps
//! are larger. Dithered second codes are worth a third of the step and have no such sum, so
//! batches go through proven screens only.

use crate::error::Error;
use crate::kernels::Level;
use crate::kernels::screen::batch::{
    BatchKernels, GROUP_PANELS, GROUP_ROWS, GroupBounds, SecondCodes, TILE_INPUTS, Tile, TileInput,
    Totals, Word,
};
use crate::kernels::screen::{BLOCK_COLUMNS, HEADER_BYTES, PANEL_ROWS, ScreenKernels};
use crate::screen::numbers::{reserve, zeros};
use crate::screen::query::{Left, step_for};
use crate::screen::refine::CONSTANTS;
use crate::screen::{Certificate, Screen};
use alloc::vec::Vec;

/// Inputs whose basis is changed together: the transform is read once for all of them, and they
/// stay in the second-level cache.
const TOGETHER: usize = 24;
/// The largest integer of an input, and the largest factor of a block.
const LARGEST: f64 = 127.0;
const LARGEST_FACTOR: f64 = 255.0;
/// What a second code is worth, in first ones.
const PART: f32 = 0.25;

/// The inputs of a batch, as groups of rows meet them.
pub(crate) struct Tiles<'t> {
    /// Tiles of words.
    pub(crate) words: &'t mut [i32],
    /// Tiles of corrections.
    pub(crate) corrections: &'t mut [i32],
    /// Tiles of factors.
    pub(crate) factors: &'t mut [f32],
    /// For each input: step, spread and slack; what follows is not touched.
    pub(crate) numbers: &'t mut [[f64; 4]],
}

/// The parts of the work space of [`Screen::load_tiles`].
struct Together<'w> {
    values: &'w mut [f64],
    steps: &'w mut [f64],
    high: &'w mut [i8],
    low: &'w mut [i8],
    sums: &'w mut [i32],
}

impl Screen<'_> {
    /// The kernels for batches, if this screen and level have any.
    pub(crate) fn batch_kernels(&self, level: Level) -> Option<&'static BatchKernels> {
        match self.has_batches() {
            true => BatchKernels::for_level(level),
            false => None,
        }
    }

    fn has_batches(&self) -> bool {
        // First and second codes together have to fit a byte.
        let fits = self.refinement.is_none() || self.format.bits() <= 6;
        self.certificate == Certificate::Proven && fits
    }

    /// Words (four columns) of a row.
    pub(crate) fn words(&self) -> usize {
        self.blocks * BLOCK_COLUMNS / 4
    }

    /// Blocks of a row.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// What lower bounds are lowered by.
    pub(crate) fn lower_slack(&self) -> f32 {
        self.lower_slack
    }

    /// Length of the work space of [`Screen::load_tiles`], in f64 units.
    pub(crate) fn tiles_work_len(&self) -> usize {
        let width = self.blocks * BLOCK_COLUMNS;
        TOGETHER * (width + 1 + 2 * (width / 8)) + (TOGETHER * self.blocks).div_ceil(2)
    }

    /// Quantises the inputs `0 .. count` of a batch into tiles: each is d_in finite values, or `None`
    /// if it is not encoded. Those, and the others of the last tile, are zeros.
    pub(crate) fn load_tiles<'x>(
        &self,
        kernels: &ScreenKernels,
        count: usize,
        input: impl Fn(usize) -> Option<&'x [f32]>,
        tiles: Tiles<'_>,
        work: &mut [f64],
    ) {
        let (width, blocks) = (self.blocks * BLOCK_COLUMNS, self.blocks);
        tiles.words.fill(0);
        tiles.corrections.fill(0);
        tiles.factors.fill(1.0);
        let Some(mut together) = self.cut(work) else {
            // Without bounds everything is kept.
            let unbounded = [0.0, f64::INFINITY, f64::INFINITY];
            for numbers in tiles.numbers.iter_mut().take(count) {
                numbers[..3].copy_from_slice(&unbounded);
            }
            return;
        };
        let shift = self.batch_shift();
        for first in (0..count).step_by(TOGETHER) {
            let some = TOGETHER.min(count - first);
            let lefts = self.change_basis(kernels, first..first + some, &input, &mut together);
            for (i, mut left) in lefts.into_iter().enumerate().take(some) {
                let values = together.values.get(i * width..(i + 1) * width);
                let (Some(values), Some(numbers)) = (values, tiles.numbers.get_mut(first + i))
                else {
                    continue;
                };
                if self.transform.is_some() {
                    left.turned(kernels, values);
                }
                let high = together.high.get_mut(..width).unwrap_or(&mut []);
                let low = together.low.get_mut(..width).unwrap_or(&mut []);
                let sums = together.sums.get_mut(..blocks).unwrap_or(&mut []);
                let step = step_for(left.largest, LARGEST * LARGEST_FACTOR);
                let (tile, place) = ((first + i) / TILE_INPUTS, (first + i) % TILE_INPUTS);
                let (mut squares, mut most) = ([0.0; 2], 1f64);
                let to = tiles.factors.get_mut(tile * blocks * TILE_INPUTS..);
                let to = to.unwrap_or(&mut []).as_chunks_mut::<TILE_INPUTS>().0;
                let planes = high.as_chunks_mut::<BLOCK_COLUMNS>().0.iter_mut();
                let planes = planes
                    .zip(low.as_chunks_mut::<BLOCK_COLUMNS>().0)
                    .zip(&mut *sums);
                let values = values.as_chunks::<BLOCK_COLUMNS>().0.iter().zip(to);
                for ((values, to), ((high, low), sum)) in values.zip(planes) {
                    let [_, largest] = kernels.measure(values);
                    let factor = libm::ceil(largest / (LARGEST * step)).clamp(1.0, LARGEST_FACTOR);
                    // The integers fit the lower plane: the upper one is zeros.
                    let sum = core::slice::from_mut(sum);
                    let coded = kernels.quantise(values, step * factor, high, low, sum);
                    squares = [squares[0] + coded[0], squares[1] + coded[1]];
                    most = most.max(factor);
                    to[place] = factor as f32;
                }
                let bounds = self.numbers(&left, (step, most), squares);
                if !bounds.usable {
                    numbers[..3].copy_from_slice(&[0.0, f64::INFINITY, f64::INFINITY]);
                    continue;
                }
                let wide = [step, bounds.spread.into(), bounds.slack.into()];
                numbers[..3].copy_from_slice(&wide);
                let words = tiles.words.get_mut(tile * self.words() * TILE_INPUTS..);
                let words = words.unwrap_or(&mut []).as_chunks_mut::<TILE_INPUTS>().0;
                for (words, &word) in words.iter_mut().zip(bytemuck::cast_slice::<i8, i32>(low)) {
                    words[place] = word;
                }
                let to = tiles.corrections.get_mut(tile * blocks * TILE_INPUTS..);
                let to = to.unwrap_or(&mut []).as_chunks_mut::<TILE_INPUTS>().0;
                for (to, &sum) in to.iter_mut().zip(&*sums) {
                    to[place] = libm::rint(-shift * f64::from(sum)) as i32;
                }
            }
        }
    }

    /// Inputs, centred, as vectors that codes meet.
    fn change_basis<'x>(
        &self,
        kernels: &ScreenKernels,
        range: core::ops::Range<usize>,
        input: &impl Fn(usize) -> Option<&'x [f32]>,
        together: &mut Together<'_>,
    ) -> [Left; TOGETHER] {
        let (width, blocks) = (self.blocks * BLOCK_COLUMNS, self.blocks);
        let mut lefts = [Left::default(); TOGETHER];
        let count = range.len();
        let values = together.values.chunks_exact_mut(width);
        for (i, (values, left)) in values.zip(&mut lefts).enumerate().take(count) {
            let Some(x) = input(range.start + i) else {
                values.fill(0.0);
                continue;
            };
            *left = self.centred(kernels, x, values);
        }
        let Some(transform) = &self.transform else {
            return lefts;
        };
        let values = together.values.chunks_exact(width);
        let planes = together.high.chunks_exact_mut(width);
        let planes = planes.zip(together.low.chunks_exact_mut(width));
        let planes = planes.zip(together.sums.chunks_exact_mut(blocks));
        let steps = together.steps.iter_mut().zip(&mut lefts);
        for ((values, ((high, low), sums)), (step, left)) in
            values.zip(planes).zip(steps).take(count)
        {
            *step = left.integers(kernels, transform, values, (high, low, sums));
        }
        let planes = (&*together.high, &*together.low);
        let out = together.values.get_mut(..count * width).unwrap_or(&mut []);
        transform.apply(kernels, planes, together.sums, together.steps, out);
        lefts
    }

    /// Lower and upper bounds of every feature for some inputs, d_in finite values each, as batches
    /// form them: encoding only asks which features are kept. `None` where batches do not go through
    /// this screen, or an input has another length.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn batch_bounds(
        &self,
        kernels: &ScreenKernels,
        batch: &BatchKernels,
        inputs: &[&[f32]],
    ) -> Result<Option<Vec<Vec<[f32; 2]>>>, Error> {
        if !self.has_batches() || inputs.iter().any(|input| input.len() != self.d_in) {
            return Ok(None);
        }
        let (words, blocks) = (self.words(), self.blocks);
        let tiles = inputs.len().div_ceil(TILE_INPUTS);
        let mut memory: (Vec<i32>, Vec<i32>, Vec<f32>) = (
            zeros(tiles * TILE_INPUTS * words, "screen")?,
            zeros(tiles * TILE_INPUTS * blocks, "screen")?,
            zeros(tiles * TILE_INPUTS * blocks, "screen")?,
        );
        let mut numbers: Vec<[f64; 4]> = zeros(tiles * TILE_INPUTS, "screen")?;
        let mut work: Vec<f64> = zeros(self.tiles_work_len(), "screen")?;
        let to = Tiles {
            words: &mut memory.0,
            corrections: &mut memory.1,
            factors: &mut memory.2,
            numbers: &mut numbers,
        };
        let input = |i: usize| inputs.get(i).copied();
        self.load_tiles(kernels, inputs.len(), input, to, &mut work);

        let mut out: Vec<Vec<[f32; 2]>> = reserve(inputs.len(), "screen")?;
        for _ in inputs {
            out.push(reserve(self.features, "screen")?);
        }
        let mut codes: Vec<u8> = zeros(words * size_of::<Word>(), "screen")?;
        let codes: &mut [Word] = bytemuck::cast_slice_mut(&mut codes);
        let mut scales: Vec<f32> = zeros(blocks * GROUP_ROWS, "screen")?;
        for first in (0..self.features).step_by(GROUP_ROWS) {
            let group = self.group(batch, first, codes, &mut scales);
            for (tile, out) in out.chunks_mut(TILE_INPUTS).enumerate() {
                let [some_words, some] = [words, blocks].map(|len| len * TILE_INPUTS);
                let tile_of = |len: usize| tile * len..(tile + 1) * len;
                let columns = Tile {
                    words: memory.0.get(tile_of(some_words)).unwrap_or(&[]),
                    corrections: memory.1.get(tile_of(some)).unwrap_or(&[]),
                    factors: memory.2.get(tile_of(some)).unwrap_or(&[]),
                };
                let mut totals: Totals = [[0.0; GROUP_ROWS]; TILE_INPUTS];
                batch.multiply(codes, &scales, &columns, &mut totals);
                let of_tile = numbers.iter().skip(tile * TILE_INPUTS);
                for ((out, totals), numbers) in out.iter_mut().zip(&totals).zip(of_tile) {
                    let input = TileInput::from_numbers(*numbers);
                    for i in 0..GROUP_ROWS.min(self.features - first) {
                        let [lower, upper] = BatchKernels::bounds(totals, &input, &group, i);
                        out.push([lower - self.lower_slack, upper]);
                    }
                }
            }
        }
        Ok(Some(out))
    }

    fn cut<'w>(&self, work: &'w mut [f64]) -> Option<Together<'w>> {
        let (width, blocks) = (self.blocks * BLOCK_COLUMNS, self.blocks);
        let (values, rest) = work.split_at_mut_checked(TOGETHER * width)?;
        let (steps, rest) = rest.split_at_mut_checked(TOGETHER)?;
        let (high, rest) = rest.split_at_mut_checked(TOGETHER * (width / 8))?;
        let (low, rest) = rest.split_at_mut_checked(TOGETHER * (width / 8))?;
        let sums = bytemuck::cast_slice_mut::<f64, i32>(rest);
        Some(Together {
            values,
            steps,
            high: bytemuck::cast_slice_mut(high),
            low: bytemuck::cast_slice_mut(low),
            sums: sums.get_mut(..TOGETHER * blocks)?,
        })
    }

    /// The shift of the codes that batches meet, the same for all columns without dither.
    fn batch_shift(&self) -> f64 {
        let first = |shifts: &[f64]| shifts.first().copied().unwrap_or(0.0);
        match self.refinement {
            None => first(&self.codes_shift),
            Some(_) => first(&self.codes_shift) / f64::from(PART) + first(&self.refined_shift),
        }
    }

    /// The codes, block scales and bounds of the group of rows that starts with row `first`, a multiple
    /// of [`GROUP_ROWS`].
    pub(crate) fn group(
        &self,
        kernels: &BatchKernels,
        first: usize,
        codes: &mut [Word],
        scales: &mut [f32],
    ) -> GroupBounds {
        let panel_bytes = self.format.panel_bytes(self.blocks);
        let panels = self.panels.as_slice();
        let start = (first / PANEL_ROWS * panel_bytes).min(panels.len());
        let end = (start + GROUP_PANELS * panel_bytes).min(panels.len());
        let panels = panels.get(start..end).unwrap_or(&[]);
        let second = self.refinement.map(|refinement| SecondCodes {
            rows: (self.refined.as_slice())
                .get(first * refinement.stride..)
                .unwrap_or(&[]),
            stride: refinement.stride,
            start: CONSTANTS + self.blocks,
        });
        kernels.unpack(self.format, panels, self.blocks, second, codes, scales);

        let mut bounds = GroupBounds::EMPTY;
        for (p, panel) in panels.chunks_exact(panel_bytes).enumerate() {
            let header = panel.get(..HEADER_BYTES).unwrap_or(&[]);
            let vectors = header.as_chunks::<{ 4 * PANEL_ROWS }>().0;
            let &[weight, offset, residual, other, threshold] = vectors else {
                continue;
            };
            let set = |to: &mut [f32; GROUP_ROWS], from: &[u8; 4 * PANEL_ROWS]| {
                let to = to.iter_mut().skip(p * PANEL_ROWS);
                for (to, from) in to.zip(from.as_chunks::<4>().0) {
                    *to = f32::from_le_bytes(*from);
                }
            };
            set(&mut bounds.weight, &weight);
            set(&mut bounds.offset, &offset);
            set(&mut bounds.residual, &residual);
            set(&mut bounds.other, &other);
            set(&mut bounds.threshold, &threshold);
        }
        if self.refinement.is_some() {
            for i in 0..GROUP_ROWS.min(self.features.saturating_sub(first)) {
                let row = self.refined_row(first + i);
                let constants = row.as_chunks::<4>().0;
                if let Some(constants) = constants.first_chunk::<{ CONSTANTS / 4 }>() {
                    let [weight, _, _, residual, other, _] = constants.map(f32::from_le_bytes);
                    bounds.weight[i] = weight * PART;
                    bounds.residual[i] = residual;
                    bounds.other[i] = other;
                }
            }
        }
        bounds
    }
}
