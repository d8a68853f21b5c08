//! From an input to the rows it can fire.

use crate::kernels::screen::{BLOCK_COLUMNS, PANEL_ROWS, ScreenInput, ScreenKernels, ScreenOutput};
use crate::screen::numbers::{SUM_ERROR, norm_up, squares_up, up};
use crate::screen::transform::Transform;
use crate::screen::{Certificate, Screen};

/// The largest integer of a quantised input: both planes stay signed bytes.
const LARGEST: f64 = 32_639.0;
/// The smallest step; smaller inputs are all remainder.
const SMALLEST_STEP: f64 = 1e-30;
/// Block norms are not allowed to underflow.
const SMALLEST_SQUARE: f32 = 1e-36;
/// Rows fetched ahead of the one being refined.
const AHEAD: usize = 6;

/// An input as the panels meet it.
#[derive(Debug)]
pub(crate) struct Input<'w> {
    pub(crate) high: &'w [i8],
    pub(crate) low: &'w [i8],
    sums: &'w [i32],
    corrections: &'w [i32],
    /// Empty unless dithered.
    pub(crate) squares: &'w [f32],
    /// For each block, the sum of the integers times the shift of second codes; empty without.
    pub(crate) refined_shifts: &'w [f64],
    pub(crate) step: f64,
    pub(crate) spread: f32,
    pub(crate) slack: f32,
    /// Whether bounds can be formed without overflow.
    usable: bool,
}

/// What a screen says about one input.
#[derive(Debug)]
pub struct Bounds<'w> {
    keep: &'w [u16],
    upper: &'w [f32],
    lower: &'w [f32],
    features: usize,
    passed_first: usize,
    input: Input<'w>,
}

impl Bounds<'_> {
    /// The features whose upper bound is not below their threshold, ascending.
    pub fn kept(&self) -> impl Iterator<Item = usize> + Clone {
        kept(self.keep, self.features)
    }

    /// How many features the first bound left, before any was refined. Not counted with ranks.
    pub fn passed_first(&self) -> usize {
        self.passed_first
    }

    /// Upper bounds of `p_i`; may be NaN or infinite, which bounds nothing. Empty unless asked for.
    pub fn upper(&self) -> &[f32] {
        self.upper.get(..self.features).unwrap_or(&[])
    }

    /// Lower bounds of `p_i`, likewise.
    pub fn lower(&self) -> &[f32] {
        self.lower.get(..self.features).unwrap_or(&[])
    }

    /// A closer upper bound for one feature, if the screen has second codes; else the same again.
    pub fn refined_upper(
        &self,
        screen: &Screen<'_>,
        kernels: &ScreenKernels,
        feature: usize,
    ) -> f32 {
        let upper = self.upper().get(feature).copied().unwrap_or(f32::INFINITY);
        match screen.refinement.is_some() && upper < f32::INFINITY {
            true => up(screen.refine(kernels, &self.input, feature, upper).0),
            false => upper,
        }
    }
}

/// The positions of the ones in masks of sixteen.
fn kept(keep: &[u16], features: usize) -> impl Iterator<Item = usize> + Clone {
    let panels = keep.iter().enumerate();
    panels
        .flat_map(move |(panel, &bits)| Bits(bits).map(move |r| panel * PANEL_ROWS + r))
        .take_while(move |&feature| feature < features)
}

/// The positions of the ones.
#[derive(Clone)]
struct Bits(u16);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let at = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(at)
    }
}

/// Cuts work space into parts.
struct Cut<'w>(&'w mut [f64]);

impl<'w> Cut<'w> {
    fn doubles(&mut self, len: usize) -> &'w mut [f64] {
        let (part, rest) = core::mem::take(&mut self.0)
            .split_at_mut_checked(len)
            .unwrap_or((&mut [], &mut []));
        self.0 = rest;
        part
    }

    /// `len` elements of a type whose size divides that of f64.
    fn take<T: bytemuck::Pod>(&mut self, len: usize) -> &'w mut [T] {
        let words = (len * size_of::<T>()).div_ceil(8);
        bytemuck::cast_slice_mut(self.doubles(words))
            .get_mut(..len)
            .unwrap_or(&mut [])
    }
}

impl Screen<'_> {
    /// Length of the work space that [`Screen::bounds`] needs.
    pub fn work_len(&self) -> usize {
        let width = self.blocks * BLOCK_COLUMNS;
        let panels = self.features.div_ceil(PANEL_ROWS);
        // Two vectors and shift sums; planes; sums twice, corrections, squares; masks; bounds.
        2 * width
            + self.blocks
            + 4 * (width / 8)
            + 4 * self.blocks.div_ceil(2)
            + panels.div_ceil(4)
            + panels * PANEL_ROWS
    }

    /// Bounds for the input `x`, d_in finite values; upper and lower ones for each feature if
    /// `ranked`.
    ///
    /// `None` if `work` is shorter than [`Screen::work_len`] or `x` has another length.
    pub fn bounds<'w>(
        &self,
        kernels: &ScreenKernels,
        x: &[f32],
        ranked: bool,
        work: &'w mut [f64],
    ) -> Option<Bounds<'w>> {
        if work.len() < self.work_len() || x.len() != self.d_in {
            return None;
        }
        let mut cut = Cut(work);
        let input = self.quantise(kernels, x, &mut cut);
        let panels = self.features.div_ceil(PANEL_ROWS);
        let keep: &mut [u16] = cut.take(panels);
        let rows = panels * PANEL_ROWS;
        // Refining starts from upper bounds.
        let bounded = ranked || self.refinement.is_some();
        let upper: &mut [f32] = cut.take(if bounded { rows } else { 0 });
        let lower: &mut [f32] = cut.take(if ranked { rows } else { 0 });
        let passed_first;
        if !input.usable {
            passed_first = self.features;
            keep.fill(u16::MAX);
            upper.fill(f32::INFINITY);
            lower.fill(f32::NEG_INFINITY);
        } else {
            let panel_input = ScreenInput {
                high: bytemuck::cast_slice(input.high),
                low: bytemuck::cast_slice(input.low),
                sums: input.sums,
                corrections: input.corrections,
                squares: input.squares,
                step: input.step as f32,
                spread: input.spread,
                slack: input.slack,
            };
            let mut output = ScreenOutput {
                keep: &mut *keep,
                upper: &mut *upper,
                lower: &mut *lower,
            };
            let (panels, blocks) = (self.panels.as_slice(), self.blocks);
            kernels.screen(self.format, panels, blocks, &panel_input, &mut output);
            lower
                .iter_mut()
                .for_each(|lower| *lower -= self.lower_slack);
            passed_first = keep.iter().map(|bits| bits.count_ones() as usize).sum();
            if self.refinement.is_some() && !ranked {
                self.refine_kept(kernels, &input, keep, upper);
            }
        }
        Some(Bounds {
            keep,
            upper,
            lower,
            features: self.features,
            passed_first,
            input,
        })
    }

    /// Drops the kept rows whose refined bound is below their threshold.
    fn refine_kept(
        &self,
        kernels: &ScreenKernels,
        input: &Input<'_>,
        keep: &mut [u16],
        upper: &[f32],
    ) {
        // Fetches run ahead of the masks that are being changed: they wait in a ring.
        let mut ring = [0usize; AHEAD];
        let (mut fetched, mut done) = (0, 0);
        let refine = |keep: &mut [u16], feature: usize| {
            let first = upper.get(feature).copied().unwrap_or(f32::INFINITY);
            if first.is_nan() || first == f32::INFINITY {
                return;
            }
            let (refined, threshold) = self.refine(kernels, input, feature, first);
            if refined < f64::from(threshold)
                && let Some(bits) = keep.get_mut(feature / PANEL_ROWS)
            {
                *bits &= !(1 << (feature % PANEL_ROWS));
            }
        };
        for panel in 0..keep.len() {
            for r in Bits(keep[panel]) {
                let feature = panel * PANEL_ROWS + r;
                if feature >= self.features {
                    break;
                }
                if fetched - done == AHEAD {
                    refine(keep, ring[done % AHEAD]);
                    done += 1;
                }
                kernels.prefetch(self.refined_row(feature));
                ring[fetched % AHEAD] = feature;
                fetched += 1;
            }
        }
        while done < fetched {
            refine(keep, ring[done % AHEAD]);
            done += 1;
        }
    }

    /// The input as integers, and what that leaves out.
    fn quantise<'w>(&self, kernels: &ScreenKernels, x: &[f32], cut: &mut Cut<'w>) -> Input<'w> {
        let (width, blocks) = (self.blocks * BLOCK_COLUMNS, self.blocks);
        let y = cut.doubles(width);
        let spare = cut.doubles(width);
        let mut left = self.centred(kernels, x, y);
        let high: &mut [i8] = cut.take(width);
        let low: &mut [i8] = cut.take(width);
        let first_sums: &mut [i32] = cut.take(blocks);
        let source = match &self.transform {
            None => &*y,
            Some(transform) => {
                let planes = (&mut *high, &mut *low, &mut *first_sums);
                let step = left.integers(kernels, transform, y, planes);
                let planes = (&*high, &*low);
                transform.apply(kernels, planes, first_sums, &[step], spare);
                left.turned(kernels, spare);
                &*spare
            }
        };

        let high: &mut [i8] = cut.take(width);
        let low: &mut [i8] = cut.take(width);
        let sums: &mut [i32] = cut.take(blocks);
        let step = step_for(left.largest, LARGEST);
        let coded = kernels.quantise(source, step, high, low, sums);
        let corrections: &mut [i32] = cut.take(blocks);
        let shifts = cut.doubles(blocks);
        let dithered = self.certificate == Certificate::Dithered;
        let squares: &mut [f32] = cut.take(if dithered { blocks } else { 0 });
        if dithered {
            kernels.shift_sums(high, low, &self.codes_shift, shifts);
            for (square, block) in squares
                .iter_mut()
                .zip(source.as_chunks::<BLOCK_COLUMNS>().0)
            {
                *square = up(squares_up(block) * 1.000_01).max(SMALLEST_SQUARE);
            }
        } else {
            let shift = self.codes_shift.first().copied().unwrap_or(0.0);
            for (out, sum) in shifts.iter_mut().zip(&*sums) {
                *out = shift * f64::from(*sum);
            }
        }
        for (correction, shift) in corrections.iter_mut().zip(&*shifts) {
            *correction = libm::rint(-shift) as i32;
        }
        if self.refinement.is_some() {
            kernels.shift_sums(high, low, &self.refined_shift, shifts);
        }
        let numbers = self.numbers(&left, (step, 1.0), coded);
        Input {
            high,
            low,
            sums,
            corrections,
            squares,
            refined_shifts: match self.refinement.is_some() {
                true => shifts,
                false => &[],
            },
            step,
            spread: numbers.spread,
            slack: numbers.slack,
            usable: numbers.usable,
        }
    }

    /// `y = (x - c) power`, in whole lines; the last one is padded.
    pub(super) fn centred(&self, kernels: &ScreenKernels, x: &[f32], y: &mut [f64]) -> Left {
        let d = self.d_in as f64;
        let (body, tail) = x.split_at(self.d_in / 8 * 8);
        let (y_body, y_tail) = y.split_at_mut(body.len());
        let (fixed, fixed_tail) = self.centre.split_at(body.len());
        let (powers, powers_tail) = self.powers.split_at(body.len());
        let [mut raw, mut sum, mut largest] = kernels.centre(body, fixed, powers, y_body);
        y_tail.fill(0.0);
        let fixed_tail = fixed_tail.iter().zip(powers_tail);
        for ((y, x), (centre, power)) in y_tail.iter_mut().zip(tail).zip(fixed_tail) {
            let scaled = f64::from(*x) * power;
            *y = (f64::from(*x) - centre) * power;
            raw += scaled * scaled;
            sum += *y * *y;
            largest = largest.max(y.abs());
        }
        let (norm_x, norm_y) = (root(raw), root(sum));
        Left {
            row: norm_y * 3e-16 + norm_x * (d / 16.0 + 12.0) * 2.5e-16,
            solved: 0.0,
            spread: norm_y,
            largest,
        }
    }

    /// The theorem's bounds for an input whose integers have this step, in some blocks up to `most`
    /// times that, and left out and stand for vectors of these squares.
    pub(super) fn numbers(
        &self,
        left: &Left,
        (step, most): (f64, f64),
        [out, coded]: [f64; 2],
    ) -> Numbers {
        let coded = root(coded);
        let slack = norm_up(&[
            root(out) + coded * (self.blocks as f64 + 16.0) * 1.3e-7,
            left.solved + left.spread * 1e-15,
            left.row / self.balance.row,
            step * most * 1.01 / self.balance.steps,
        ]);
        let (spread, slack) = (up(left.spread * 1.000_001), up(slack * 1.000_001));
        let (other, offset) = self.largest;
        // With second codes, rows stand for vectors of up to twice the norm.
        let reach = f64::from(other) * 4.0 * (coded + f64::from(slack));
        Numbers {
            spread,
            slack,
            usable: step * most < 1e20 && reach + f64::from(offset) < 1e37 && spread.is_finite(),
        }
    }
}

/// What an input leaves out before the codes meet it, and the size of what they meet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Left {
    /// Per unit of a row's norm.
    row: f64,
    /// Per unit of a solved row's norm.
    solved: f64,
    /// The norm of what meets the codes.
    spread: f64,
    /// The largest magnitude in it.
    pub(super) largest: f64,
}

impl Left {
    /// The integers that the transform meets, high and low plane and their sums; returns their step.
    pub(super) fn integers(
        &mut self,
        kernels: &ScreenKernels,
        transform: &Transform<'_>,
        y: &[f64],
        (high, low, sums): (&mut [i8], &mut [i8], &mut [i32]),
    ) -> f64 {
        let step = step_for(self.largest, LARGEST);
        let [out, coded] = kernels.quantise(y, step, high, low, sums);
        let d = y.len() as f64;
        self.row += root(out);
        self.solved += (d + 64.0) * 2.3e-16 * transform.norm() * root(coded);
        step
    }

    /// What the transform has made of it meets the codes.
    pub(super) fn turned(&mut self, kernels: &ScreenKernels, values: &[f64]) {
        let [sum, largest] = kernels.measure(values);
        (self.spread, self.largest) = (root(sum), largest);
    }
}

/// What turns products into bounds.
pub(crate) struct Numbers {
    pub(super) spread: f32,
    pub(super) slack: f32,
    /// Whether bounds can be formed without overflow.
    pub(super) usable: bool,
}

/// An upper bound of the root of a sum of squares.
fn root(sum: f64) -> f64 {
    libm::sqrt(sum * (1.0 + SUM_ERROR)) * (1.0 + 1e-12)
}

/// The step with which values up to `largest` are rounded to integers up to `to`: an f32, so that
/// its product with such an integer is exact.
pub(super) fn step_for(largest: f64, to: f64) -> f64 {
    f64::from((largest / to * (1.0 + 1e-6)) as f32).max(SMALLEST_STEP)
}
