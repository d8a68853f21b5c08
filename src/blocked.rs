//! Encoding in batches: many rows against the mapped weights, in 16-bit integers, with a bound on
//! what they leave out; features that the bound does not rule out are computed exactly (D1). So a
//! batch has the bits of its rows alone, whatever its size.
//!
//! The weights are read where they are, in either orientation, 64 features at a time: quantised into
//! a panel (`kernels::blocked`), multiplied with all rows of the batch, judged, and forgotten.
//! A model that was prepared has its weights quantised already, in a better basis: where its screen
//! and the instruction set allow it (`Screen::batch_kernels`), a batch meets the screen's codes
//! instead, and the theorem is the one of `crate::screen`.
//! Nothing of size rows x d_sae is ever written. Rules that can tell from a bound on one feature
//! that it is not selected (ReLU, JumpReLU, Gated, TopK) are encoded so; LeakyReLU, TopK in groups,
//! top-AFA, pursuits, ensembles, gated linear units, distances and encoders made of blocks take one
//! row at a time.
//!
//! # What is bounded
//!
//! Feature `i` has weights `w` (f32, f16 or bf16 values), `x'` is a prepared row (f32 values); the
//! library forms, in f64, `S = dot(w, x')`, `p = fl(fl(scale S) + bias)` and ranks or compares
//! `round32(p)`. Let `c` be the mean of the batch's rows rounded to f32 (any finite vector would
//! do), and `y = round32(x' - c)`.
//!
//! *Integers.* `w_j = a (q_j + r_j)` and `y_j = h (z_j + e_j)` with `q`, `z` the nearest integers
//! and `a`, `h` powers of two, the smallest that keep every integer within 32,767 and give
//!
//! ```text
//! |w| / a + sqrt(d) / 2 <= 46,340        |y| / h + sqrt(d) / 2 <= 46,340
//! ```
//!
//! (`|.|` is the Euclidean norm.) Then `|q|` and `|z|`, at most `|w| / a + |r|` and `|y| / h + |e|`
//! with `|r|, |e| <= sqrt(d) / 2`, are at most 46,340, so `I = sum_j q_j z_j` fits an i32 by the
//! Cauchy-Schwarz inequality, and sums that wrap on the way give it exactly in any order.
//!
//! # Theorem
//!
//! With `w . c` the computed exact product (D1) of the feature and `c`, for every finite row
//!
//! ```text
//! | p - (scale a h I + (scale (w . c) + bias)) |  <=  Q T + R U + B
//!
//! Q = |scale| a (|w| / a + |r|)      T = h |e| + 2^-24 |y| + eta (|y| + h |e| + |c|)
//! R = |scale| a |r|                  U = |y| + h |e|
//! B = 4e-15 |bias| + 1e-290          eta = (d / 16 + 64) 2.3e-16
//! ```
//!
//! *Proof.* Write `u = 2^-53`. In real arithmetic, with `y = h (z + e)`,
//!
//! ```text
//! w . x' = w . c + w . y + w . (x' - c - y)      |w . (x' - c - y)| <= 2^-24 |w| |y| (1 + 2^-23)
//! w . y  = a h I + a h q . e + a r . y           |a h q . e| <= a |q| h |e|,  |a r . y| <= a |r| |y|
//! ```
//!
//! by the Cauchy-Schwarz inequality in each line: `y` is one rounding of `x' - c` to f32, whose
//! error is at most `2^-24 |x' - c|`, element by element (a difference below the normal numbers is
//! exact); and `|w| <= Q / |scale|`, `a |q| <= Q / |scale|`. That is `T` without its last term, and `R U`.
//!
//! What is left is f64 rounding. D1: `|S - w . x'| <= (d / 16 + 5) u (1 + 1e-12) |w| |x'|` with
//! `|x'| <= (|y| + |c|) (1 + 2^-23)`, and the same for `w . c` with `|c|`. Forming `p` adds at most
//! `2.1 u (|scale S| + |bias|)`, and rank weights (which multiply scale and bias here, `p` there)
//! `4 u` times the same. Forming the estimate and the margin, in `kernels::blocked`, adds at most
//! `4 u` times `|scale| a h |I|`, `|scale (w . c)|`, `|bias|`, and the margin itself. All but the
//! bias's are below `30 u Q (|y| + h |e| + |c|)`, as `h |I| a |scale| <= Q h |z|` and `h |z| <= |y| +
//! h |e|`; with D1's they are below `eta Q (|y| + h |e| + |c|)`, since 2.3e-16 is over `2 u` and 64
//! over `30 + 2 * 5`. The bias's are below 20 u, and 4e-15 is over 36 u.
//!
//! *Norms.* `|w|` and `|y|` come from sums of squares in f64, `|r|` and `|e|` from sums in f32 over
//! 16 lanes; the products `w_j / a` are exact (a power of two), as are the remainders, except where
//! they fall below the normal numbers of f32, by at most 2^-150 each. A sum of `n` terms in 16
//! lanes errs by at most `n / 16 + 6` roundings, relative, as no term is negative. So norms are
//! multiplied by `1 + 1e-9`, or by `1 + (d / 16 + 16) 1.2e-7` and raised by 1e-15 units. The last
//! four relative errors `2^-23`, `1e-12`, `(1 + 2^-23)` and the like are covered by a factor of
//! `1 + 1e-6` on `T` and `U`. ∎
//!
//! *Range.* A feature or a row whose weights or norms are not finite, or too large for a step,
//! gets bounds of NaN or infinity, and is kept: comparisons are written so. An overflow of an f64
//! on the way does the same. `pre` that overflows f32 is above no finite bound either, since `p` is
//! bounded before it is rounded.
//!
//! *TopK.* Panels come in ascending order, and every row keeps the k best of the exact ranks so
//! far. A feature whose bound is below the worst of those cannot be among the k best of all; one
//! that is equal is computed. A bound is compared as f64, a rank is an f32, and rounding is
//! monotone: `p <= bound < rank` gives `round32(p) <= rank`, and equality is no matter, because the
//! feature with the lower index wins it and came before.

mod bounds;
mod codes;
mod memory;
mod panel;
mod pool;
mod survivors;

use crate::encode::RowSource;
use crate::error::Error;
use crate::features::RowStatus;
use crate::kernels::WeightType;
use crate::kernels::blocked::{
    BlockedKernels, COLUMN_FEATURES, LARGEST, LARGEST_NORM, PANEL_FEATURES, PanelBounds, Products,
    TILE_ROWS, TileRow,
};
use crate::model::{Activation, Asked, Layout, Rank, Sae, asked};
use crate::scratch::{Scratch, Work};
use crate::select::{Chosen, Fate, Sink, judge, rank_key, rank_of};
use bounds::*;
use codes::{CodeSizes, Codes};
use core::ops::Range;
use memory::*;
use survivors::Panel;

/// Rows that [`crate::Scratch::new`] has room for: enough that quantising the weights, once for
/// all of them, is a small part.
const BATCH_ROWS: usize = 512;

/// How much that may be, in f64 units: 64 MB.
const MOST_WORDS: usize = 8 << 20;

/// Features that a row may have on average before the batch is cut in two.
const ROW_FEATURES: usize = 256;

/// Codes that are read as fast as they are multiplied.
const CACHED_BYTES: usize = 4 << 20;

/// Rows whose survivors are most of the encoder.
const MANY_ROWS: usize = 64;

/// The widest rows: `sqrt(d) / 2` stays small beside [`LARGEST_NORM`].
const WIDEST: usize = 1 << 24;

/// Features that are copied out of columns at once, some panels of them: a kilobyte of each input's
/// weights in f32, so that the pages that columns lie in are visited a few times, not 64 features
/// at a time.
const COPIED_FEATURES: usize = 4 * PANEL_FEATURES;

/// No entry of the pool.
const NONE: u32 = u32::MAX;

impl Sae<'_> {
    /// Whether the rule and the encoder allow batches.
    pub(crate) fn is_blocked(&self) -> bool {
        // With k = 0 nothing is left to do, and 0 stands for rules that do not rank below. Every row of
        // a pursuit goes its own way after the first step.
        let alone = matches!(
            self.parts.activation,
            Activation::TopK { k: 0, .. } | Activation::Pursuit(_)
        );
        !alone
            && self.parts.encoder.layout() != Layout::Blocks
            && self.d_in() <= WIDEST
            && asked(&self.parts, 0).is_some()
    }

    /// Scratch, in f64 units, that batches of this many rows need besides that of one row.
    pub(crate) fn batch_words(&self, rows: usize) -> usize {
        match self.is_blocked() && rows > 1 {
            true => Sizes::of(self).total(rows),
            false => 0,
        }
    }

    /// Rows that are best encoded in one call, and that [`Scratch::new`] has room for: with so
    /// many, reading the weights once for all of them is a small part. 1 for models that take one
    /// row at a time, whose calls may have any number of rows.
    pub fn batch_rows(&self) -> usize {
        match self.is_blocked() {
            true => Sizes::of(self).rows(MOST_WORDS).clamp(1, BATCH_ROWS),
            false => 1,
        }
    }

    /// How many of `rows` rows are best encoded at once in this much scratch; 0 for one at a time.
    fn rows_at_once(&self, rows: usize, words: usize) -> usize {
        if !self.is_blocked() {
            return 0;
        }
        let room = Sizes::of(self).rows(words);
        // Batches of the same size, none of them a small rest.
        rows.div_ceil(rows.div_ceil(room.max(1)).max(1)).min(room)
    }

    /// Encodes the features of a range in batches, as far as batches pay, and says how many rows
    /// that were.
    pub(crate) fn encode_blocks<S: Sink>(
        &self,
        rows: impl RowSource,
        range: &Range<usize>,
        scratch: &mut Scratch<'_>,
        sink: &mut S,
    ) -> Result<usize, Error> {
        if self.screen_options().check && self.screen.is_some() {
            // Each row is then compared with the dense scan.
            return Ok(0);
        }
        let (mut done, mut most) = (0, usize::MAX);
        while done < rows.count() {
            let mut work = scratch.split(self)?;
            let left = rows.count() - done;
            let count = self.rows_at_once(left, work.rest.len()).min(most);
            if count < self.least_rows() {
                break;
            }
            if count >= MANY_ROWS {
                self.packed.read_all_rows();
            }
            let block = (done, count);
            let encoded = self.encode_block(rows, block, range.clone(), &mut work, sink)?;
            if encoded < count {
                // The next ones have about as many features.
                most = encoded;
            }
            done += encoded;
        }
        Ok(done)
    }

    /// Rows from which a batch is faster than one row at a time: quantising the weights, or unpacking
    /// the screen's codes, takes as long as about ten rows do alone; and where a screen takes rows
    /// one at a time only, these are faster. TopK alone meets its best features first, in a batch
    /// those of each group as it comes, of which more are computed exactly: with codes that stay in a
    /// cache, which a batch does not read faster, no number of rows is enough.
    fn least_rows(&self) -> usize {
        let top = matches!(self.parts.activation, Activation::TopK { .. });
        match (&self.screen, CodeSizes::of(self)) {
            (Some(screen), Some(_)) if top && screen.bytes_held() <= CACHED_BYTES => usize::MAX,
            (None, _) | (_, Some(_)) => 12,
            (Some(_), None) => 24,
        }
    }

    /// Encodes as many of the rows `first .. first + count` as the scratch holds the features of, at
    /// least one, and says how many.
    fn encode_block<S: Sink>(
        &self,
        rows: impl RowSource,
        (first, count): (usize, usize),
        range: Range<usize>,
        work: &mut Work<'_>,
        sink: &mut S,
    ) -> Result<usize, Error> {
        let words = core::mem::take(&mut work.rest);
        let Some(mut batch) = Batch::cut(self, words, count) else {
            return Ok(0);
        };
        batch.load(rows, first, work);
        if let Some(mut codes) = batch.codes.take() {
            batch.code_rows(&mut codes);
            let first = range.start / PANEL_FEATURES * PANEL_FEATURES;
            for first in (first..range.end).step_by(PANEL_FEATURES) {
                batch.run_group(&mut codes, first, &range);
            }
            batch.give(sink)?;
            return Ok(batch.live);
        }
        batch.quantise_rows();
        for start in range.clone().step_by(COPIED_FEATURES) {
            let end = range.end.min(start + COPIED_FEATURES);
            batch.copy_rows(start, end - start);
            for first in (start..end).step_by(PANEL_FEATURES) {
                batch.run_panel(first - start, start, PANEL_FEATURES.min(end - first));
            }
        }
        batch.give(sink)?;
        Ok(batch.live)
    }
}

/// The work space of one batch.
struct Batch<'s> {
    sae: &'s Sae<'s>,
    kernels: &'static BlockedKernels,
    rows: usize,
    /// Rows whose features are still collected; the others wait for the next batch.
    live: usize,
    d_in: usize,
    padded: usize,
    /// The prepared rows, `[rows, d_in]`.
    inputs: &'s mut [f32],
    /// The tiles.
    tiles: &'s mut [i16],
    /// For each row, a [`TileRow`].
    numbers: &'s mut [[f64; 4]],
    status: &'s mut [u32],
    /// For each row, the features of a panel that its bounds leave.
    kept: &'s mut [u64],
    /// TopK: how many of the row's best there are. Other rules: the row's last entry in the pool.
    tails: &'s mut [u32],
    /// Other rules: the row's first entry.
    heads: &'s mut [u32],
    /// TopK: the best of each row, a heap with the worst at the root.
    heaps: &'s mut [[u64; 2]],
    k: usize,
    /// Other rules: index, value and next entry.
    pool: &'s mut [[u32; 3]],
    used: usize,
    /// The first entry of those that were given back.
    free: u32,
    /// The mean of the rows, and its norm.
    centre: &'s mut [f32],
    centre_norm: f64,
    line: &'s mut [f32],
    column: &'s mut [i16],
    panel: &'s mut [i16],
    copied: &'s mut [u8],
    /// For models whose screen batches go through; the panels are empty then.
    codes: Option<Codes<'s>>,
}

impl<'s> Batch<'s> {
    fn cut(sae: &'s Sae<'s>, words: &'s mut [f64], rows: usize) -> Option<Self> {
        let sizes = Sizes::of(sae);
        let tiled = rows.next_multiple_of(TILE_ROWS);
        // Panels in whole cache lines.
        let skip = words.as_ptr().align_offset(64).min(8);
        let mut cut = Cut(words.get_mut(skip..)?);
        let batch = Batch {
            sae,
            kernels: BlockedKernels::for_level(sae.level()),
            rows,
            live: rows,
            d_in: sizes.d_in,
            padded: sizes.padded,
            codes: match &sizes.codes {
                Some(codes) => Some(Codes::cut(sae, codes, tiled, &mut cut)?),
                None => None,
            },
            panel: cut.take(PANEL_FEATURES * sizes.padded)?,
            copied: cut.take(COPIED_FEATURES * sizes.copied)?,
            column: cut.take(COLUMN_FEATURES * sizes.padded)?,
            tiles: cut.take(tiled * sizes.padded)?,
            inputs: cut.take(tiled * sizes.d_in)?,
            numbers: cut.words(4 * tiled)?.as_chunks_mut().0,
            heaps: cut.take::<u64>(2 * tiled * sizes.best)?.as_chunks_mut().0,
            k: sizes.best,
            status: cut.take(tiled)?,
            kept: cut.take(tiled.next_multiple_of(64))?,
            tails: cut.take(tiled)?,
            heads: cut.take(tiled)?,
            centre: cut.take(sizes.d_in)?,
            centre_norm: 0.0,
            line: cut.take(sizes.d_in)?,
            pool: cut.take::<u32>(3 * sizes.pool(tiled))?.as_chunks_mut().0,
            used: 0,
            free: NONE,
        };
        batch.status.fill(0);
        batch.kept.fill(0);
        batch.heads.fill(NONE);
        batch.tails.fill(if batch.k > 0 { 0 } else { NONE });
        Some(batch)
    }

    /// Prepares the rows `first ..`.
    fn load(&mut self, rows: impl RowSource, first: usize, work: &mut Work<'_>) {
        let inputs = self.inputs.chunks_exact_mut(self.d_in).take(self.rows);
        for (row, (input, status)) in inputs.zip(&mut *self.status).enumerate() {
            if !rows.wanted(first + row) {
                *status = u32::from(RowStatus::Skipped as u8);
                input.fill(0.0);
                continue;
            }
            let prepared = self.sae.prepare_row(rows, first + row, work);
            if prepared.is_none() {
                *status = u32::from(RowStatus::NonFinite as u8);
                input.fill(0.0);
            } else if let Some(from) = work.input.get(..self.d_in) {
                input.copy_from_slice(from);
            }
        }
    }

    /// What every rank is above, or reaches.
    fn floor(&self) -> f32 {
        match self.sae.parts.activation {
            Activation::TopK {
                rank: Rank::Value,
                relu: true,
                ..
            } => 0.0,
            _ => f32::NEG_INFINITY,
        }
    }

    fn is_ranked_by_magnitude(&self) -> bool {
        matches!(
            self.sae.parts.activation,
            Activation::TopK {
                rank: Rank::Magnitude,
                ..
            }
        )
    }

    fn is_encoded(&self, row: usize) -> bool {
        row < self.live
            && matches!(
                self.status_of(row),
                RowStatus::Ok | RowStatus::NanPreActivation
            )
    }

    fn status_of(&self, row: usize) -> RowStatus {
        let status = self.status.get(row).copied().unwrap_or(0);
        let is = |of: RowStatus| status == u32::from(of as u8);
        match () {
            () if is(RowStatus::NonFinite) => RowStatus::NonFinite,
            () if is(RowStatus::NanPreActivation) => RowStatus::NanPreActivation,
            () if is(RowStatus::Skipped) => RowStatus::Skipped,
            () => RowStatus::Ok,
        }
    }

    #[inline]
    fn take(&mut self, row: usize, feature: u32, fate: Fate) {
        match fate {
            Fate::Off => {}
            Fate::Nan => {
                if let Some(status) = self.status.get_mut(row) {
                    *status = u32::from(RowStatus::NanPreActivation as u8);
                }
            }
            Fate::On { value, rank } if self.k > 0 => self.rank(row, feature, value, rank),
            Fate::On { value: 0.0, .. } => {}
            Fate::On { value, .. } => self.append(row, feature, value),
        }
    }

    /// Hands the live rows on, in order.
    fn give<S: Sink>(&mut self, sink: &mut S) -> Result<(), Error> {
        for row in 0..self.live {
            if self.k > 0 {
                let count = self.tails.get(row).map_or(0, |&count| count as usize);
                let heap = self.heaps.get_mut(row * self.k..row * self.k + count);
                Chosen::of(heap.unwrap_or(&mut [])).give(sink)?;
            }
            let mut at = match self.k {
                0 => self.heads.get(row).copied().unwrap_or(NONE),
                _ => NONE,
            };
            while let Some(&[feature, value, next]) = self.pool.get(at as usize) {
                let value = f32::from_bits(value);
                sink.take(feature, value, value)?;
                at = next;
            }
            sink.end(self.status_of(row))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::pool::{sift_down, sift_up};
    use super::*;
    use crate::kernels::Kernels;
    use alloc::vec::Vec;

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// From -1 to 1.
        fn value(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        }
    }

    /// `|p - estimate| / margin` for one feature, one row and a centre.
    fn error_to_bound(weights: &[f32], x: &[f32], centre: &[f32], asked: &Asked) -> f64 {
        let kernels = BlockedKernels::for_level(crate::Level::best());
        let exact = |x: &[f32]| {
            let (bytes, mut out) = (bytemuck::cast_slice(weights), [0.0]);
            Kernels::best().dot_rows(WeightType::F32, bytes, 0, x, &mut out);
            out[0]
        };
        let d = x.len();
        let y: Vec<f32> = x.iter().zip(centre).map(|(x, c)| x - c).collect();
        let (mut q, mut z) = (alloc::vec![0; d], alloc::vec![0; d]);
        let (feature, row) = (
            quantise(kernels, weights, &mut q),
            quantise(kernels, &y, &mut z),
        );
        let integer: i64 = q
            .iter()
            .zip(&z)
            .map(|(q, z)| i64::from(*q) * i64::from(*z))
            .sum();
        let integer = i32::try_from(integer).expect("the product fits");
        let mut bounds = PanelBounds::EMPTY;
        set_feature(&mut bounds, 0, asked, &feature, exact(centre));
        let centre_norm = norm_up(kernels.measure(centre)[0]);
        let row = row_numbers(&row, centre_norm, d, 0.0);
        let estimate = bounds.weight[0] * row.step * f64::from(integer) + bounds.offset[0];
        let margin =
            bounds.coded[0] * row.coded + bounds.residual[0] * row.spread + bounds.slack[0];
        let p = asked.scale * exact(x) + asked.bias;
        (p - estimate).abs() / margin
    }

    /// Hill climbing on weights and rows, from starts of all kinds: the error stays below the
    /// bound, and comes near it, so that the bound is not merely loose.
    #[test]
    fn no_search_finds_an_error_above_the_bound() {
        let mut random = Random(0x1234_5678_9abc_def1);
        let mut worst = 0f64;
        for case in 0..120 {
            let d = [1, 2, 3, 7, 16, 33, 64, 200][case % 8];
            let size = [1.0, 1e-30, 1e30, 1e-3, 1e-42][case / 8 % 5];
            let spread = |random: &mut Random| match case / 40 {
                0 => random.value(),
                1 => random.value().powi(15),
                _ => (random.value() * 4.0).round() * 0.25 + 1e-5,
            };
            let mut weights: Vec<f32> = (0..d)
                .map(|_| (spread(&mut random) * size) as f32)
                .collect();
            let mut x: Vec<f32> = (0..d).map(|_| spread(&mut random) as f32).collect();
            let centre: Vec<f32> = (0..d)
                .map(|_| (random.value() * [0.0, 1.0, 1e4][case % 3]) as f32)
                .collect();
            for (x, c) in x.iter_mut().zip(&centre) {
                *x += c;
            }
            let asked = Asked {
                scale: [1.0, -3.0, 1e-8][case % 3],
                bias: [0.0, 0.7, -1e9][case / 3 % 3],
                threshold: 0.0,
            };
            let mut best = error_to_bound(&weights, &x, &centre, &asked);
            for _ in 0..400 {
                let (mut w, mut z) = (weights.clone(), x.clone());
                let at = (random.next() % d as u64) as usize;
                let factor = 1.0 + random.value() * [1e-4, 1e-2, 1.0][random.next() as usize % 3];
                match random.next() % 2 {
                    0 => w[at] = (f64::from(w[at]) * factor) as f32,
                    _ => z[at] = (f64::from(z[at]) * factor) as f32,
                }
                let found = error_to_bound(&w, &z, &centre, &asked);
                assert!(found <= 1.0, "{found}: {w:?} {z:?}");
                if found >= best {
                    (best, weights, x) = (found, w, z);
                }
            }
            worst = worst.max(best);
        }
        assert!(worst > 0.5, "{worst}");
    }

    #[test]
    fn steps_leave_room_for_the_product() {
        let kernels = BlockedKernels::for_level(crate::Level::best());
        let mut random = Random(99);
        for case in 0..200 {
            let d = 1 + (random.next() % 3000) as usize;
            let size = libm::exp2((case as f64 - 100.0) * 1.2);
            let values: Vec<f32> = (0..d).map(|_| (random.value() * size) as f32).collect();
            let mut integers = alloc::vec![0i16; d];
            let coded = quantise(kernels, &values, &mut integers);
            let squares: i64 = integers.iter().map(|&q| i64::from(q) * i64::from(q)).sum();
            assert!(squares < 1 << 31, "{squares}");
            assert!(integers.iter().all(|&q| q > i16::MIN));
            let left = values.iter().zip(&integers);
            let left: f64 = left
                .map(|(v, q)| libm::pow(f64::from(*v) - f64::from(*q) * coded.step, 2.0))
                .sum();
            assert!(libm::sqrt(left) <= coded.residual, "{size} {left}");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let coded = quantise(kernels, &[1.0, bad], &mut [0; 2]);
            assert!(coded.norm == f64::INFINITY && coded.step == 0.0);
        }
    }

    #[test]
    fn heaps_keep_the_best() {
        let mut random = Random(5);
        for k in [1, 2, 3, 10, 31] {
            let mut heap = alloc::vec![[0u64; 2]; k];
            let mut all: Vec<u64> = (0..100).map(|_| random.next() >> 40).collect();
            for (taken, &key) in all.iter().enumerate() {
                if taken < k {
                    heap[taken] = [key, 0];
                    sift_up(&mut heap, taken);
                } else if key > heap[0][0] {
                    heap[0] = [key, 0];
                    sift_down(&mut heap);
                }
            }
            all.sort_unstable_by(|a, b| b.cmp(a));
            let mut kept: Vec<u64> = heap.iter().map(|entry| entry[0]).collect();
            kept.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(kept, all[..k]);
        }
    }
}
