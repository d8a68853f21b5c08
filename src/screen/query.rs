//! From an input to the rows it can fire.

use crate::kernels::screen::{BLOCK_COLUMNS, PANEL_ROWS, ScreenInput, ScreenKernels, ScreenOutput};
use crate::screen::numbers::{SUM_ERROR, norm_up, squares_up, up};
use crate::screen::{Certificate, Screen};

/// The largest integer of a quantised input: both planes stay signed bytes.
const LARGEST: f64 = 32_639.0;
/// The smallest step; smaller inputs are all remainder.
const SMALLEST_STEP: f64 = 1e-30;

/// Block norms are not allowed to underflow.
const SMALLEST_SQUARE: f32 = 1e-36;

/// What a screen says about one input.
#[derive(Debug)]
pub struct Bounds<'w> {
    keep: &'w [u16],
    upper: &'w [f32],
    lower: &'w [f32],
    features: usize,
}

impl Bounds<'_> {
    /// The features whose upper bound is not below their threshold, ascending.
    pub fn kept(&self) -> impl Iterator<Item = usize> + Clone {
        let features = self.features;
        let panels = self.keep.iter().enumerate();
        panels
            .flat_map(move |(panel, &bits)| Bits(bits).map(move |r| panel * PANEL_ROWS + r))
            .take_while(move |&feature| feature < features)
    }

    /// Upper bounds of `p_i`; may be NaN or infinite, which bounds nothing. Empty unless asked for.
    pub fn upper(&self) -> &[f32] {
        self.upper.get(..self.features).unwrap_or(&[])
    }

    /// Lower bounds of `p_i`, likewise.
    pub fn lower(&self) -> &[f32] {
        self.lower.get(..self.features).unwrap_or(&[])
    }
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

/// How much of [`Bounds`] is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) upper: bool,
    pub(crate) lower: bool,
}

/// An input as integers.
struct Quantised<'w> {
    high: &'w mut [i32],
    low: &'w mut [i32],
    sums: &'w mut [i32],
    step: f64,
    /// Upper bound of the norm of what the integers leave out.
    remainder: f64,
    /// Upper bound of the norm of the integers times the step.
    coded: f64,
}

impl Screen {
    /// Length of the work space that [`Screen::bounds`] needs.
    pub fn work_len(&self) -> usize {
        let width = self.blocks * BLOCK_COLUMNS;
        let panels = self.features.div_ceil(PANEL_ROWS);
        // Two vectors; two planes twice; sums, corrections, squares; masks; bounds.
        2 * width
            + 4 * (width / 8)
            + 4 * self.blocks.div_ceil(2)
            + panels.div_ceil(4)
            + panels * PANEL_ROWS
    }

    /// Bounds for the input `x`, whose values are f32 and finite.
    ///
    /// `work` needs [`Screen::work_len`] values. With a shorter one, or an input whose square
    /// overflows, every feature is kept.
    pub fn bounds<'w>(
        &self,
        kernels: &ScreenKernels,
        x: &[f32],
        bounded: bool,
        work: &'w mut [f64],
    ) -> Bounds<'w> {
        let wanted = Wanted {
            upper: bounded,
            lower: bounded,
        };
        let width = self.blocks * BLOCK_COLUMNS;
        let panels = self.features.div_ceil(PANEL_ROWS);
        let mut rest = work;
        let mut take = |len: usize| -> &'w mut [f64] {
            let (part, tail) = core::mem::take(&mut rest)
                .split_at_mut_checked(len)
                .unwrap_or((&mut [], &mut []));
            rest = tail;
            part
        };
        let (y, z) = (take(width), take(width));
        let mut words = |len| bytemuck::cast_slice_mut::<f64, i32>(take(len));
        let mut first = Quantised {
            high: words(width / 8),
            low: words(width / 8),
            sums: words(self.blocks.div_ceil(2)),
            step: 0.0,
            remainder: 0.0,
            coded: 0.0,
        };
        let mut second = Quantised {
            high: words(width / 8),
            low: words(width / 8),
            sums: words(self.blocks.div_ceil(2)),
            step: 0.0,
            remainder: 0.0,
            coded: 0.0,
        };
        let corrections = &mut words(self.blocks.div_ceil(2))[..self.blocks];
        let squares = bytemuck::cast_slice_mut::<i32, f32>(words(self.blocks.div_ceil(2)));
        let squares = &mut squares[..self.blocks];
        let keep = bytemuck::cast_slice_mut::<f64, u16>(take(panels.div_ceil(4)));
        let bounds = bytemuck::cast_slice_mut::<f64, f32>(take(panels * PANEL_ROWS));
        let (upper, lower) = bounds.split_at_mut(panels * PANEL_ROWS);

        // y = (x - c) / column, and the norm of x in those units.
        let mut norm_x = 0.0;
        for (j, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let column = self.columns.get(j).copied().unwrap_or(1.0);
            let (inverse, x) = (1.0 / column, f64::from(*x));
            norm_x += (x * inverse) * (x * inverse);
            *y = (x - self.centre.get(j).copied().unwrap_or(0.0)) * inverse;
        }
        let norm_x = libm::sqrt(norm_x * (1.0 + SUM_ERROR));
        y.get_mut(self.d_in..).unwrap_or(&mut []).fill(0.0);
        let norm_y = norm_up(y);
        let d = self.d_in as f64;

        // What is left out before the screen's own basis, per unit of the row's norm ...
        let mut row_slack = norm_y * 3e-16 + norm_x * (d / 16.0 + 12.0) * 2.5e-16;
        // ... and per unit of the solved row's.
        let mut solved_slack = 0.0;
        let source = match &self.transform {
            None => &*y,
            Some(transform) => {
                quantise(y, &mut first);
                row_slack += first.remainder;
                let planes = (&*first.high, &*first.low, &first.sums[..self.blocks]);
                transform.apply(kernels, planes, first.step, z);
                solved_slack += (d + 64.0) * 2.3e-16 * transform.norm() * first.coded;
                &*z
            }
        };
        let spread = norm_up(source);
        solved_slack += spread * 1e-15;
        quantise(source, &mut second);
        let eta = (self.blocks as f64 + 16.0) * 1.3e-7;
        let coded_slack = second.remainder + second.coded * eta;
        let slack = norm_up(&[
            coded_slack,
            solved_slack,
            row_slack / self.balance.row,
            second.step * 1.01 / self.balance.steps,
        ]);

        for (b, correction) in corrections.iter_mut().enumerate() {
            let at = b * BLOCK_COLUMNS / 4..(b + 1) * BLOCK_COLUMNS / 4;
            let shift = &self.codes_shift[b * BLOCK_COLUMNS..][..BLOCK_COLUMNS];
            *correction = match self.certificate {
                Certificate::Proven => libm::rint(-shift[0] * f64::from(second.sums[b])) as i32,
                Certificate::Dithered => {
                    let mut total = 0.0;
                    let planes = second.high[at.clone()].iter().zip(&second.low[at]);
                    for (i, (high, low)) in planes.enumerate() {
                        let (high, low) = (high.to_le_bytes(), low.to_le_bytes());
                        for k in 0..4 {
                            let z = f64::from(high[k] as i8) * 256.0 + f64::from(low[k] as i8);
                            total -= z * shift[4 * i + k];
                        }
                    }
                    libm::rint(total) as i32
                }
            };
            let block = &source[b * BLOCK_COLUMNS..][..BLOCK_COLUMNS];
            if self.certificate == Certificate::Dithered {
                squares[b] = up(squares_up(block) * 1.000_01).max(SMALLEST_SQUARE);
            }
        }
        let (spread, slack) = (up(spread * 1.000_001), up(slack * 1.000_001));
        let (other, offset) = self.largest;
        let reach = f64::from(other) * 2.0 * (second.coded + f64::from(slack));
        let usable = second.step < 1e20 && reach + f64::from(offset) < 1e37 && spread.is_finite();
        let keep = keep.get_mut(..panels).unwrap_or(&mut []);
        if !usable {
            keep.fill(u16::MAX);
            upper.fill(f32::INFINITY);
            lower.fill(f32::NEG_INFINITY);
        } else {
            let input = ScreenInput {
                high: second.high,
                low: second.low,
                sums: &second.sums[..self.blocks],
                corrections,
                squares: match self.certificate {
                    Certificate::Dithered => squares,
                    Certificate::Proven => &[],
                },
                step: second.step as f32,
                spread,
                slack,
            };
            let mut output = ScreenOutput {
                keep: &mut *keep,
                upper: if wanted.upper { &mut *upper } else { &mut [] },
                lower: if wanted.lower { &mut *lower } else { &mut [] },
            };
            kernels.screen(
                self.format,
                self.panels.bytes(),
                self.blocks,
                &input,
                &mut output,
            );
            output
                .lower
                .iter_mut()
                .for_each(|lower| *lower -= self.lower_slack);
        }
        Bounds {
            keep,
            upper,
            lower,
            features: self.features,
        }
    }
}

/// Rounds `values` to `step * (256 high + low)`.
fn quantise(values: &[f64], out: &mut Quantised<'_>) {
    let largest = values.iter().fold(0f64, |max, v| max.max(v.abs()));
    // An f32, so that its product with a 16-bit integer is exact.
    let step = f64::from((largest / LARGEST * (1.0 + 1e-6)) as f32).max(SMALLEST_STEP);
    let inverse = 1.0 / step;
    let (mut left, mut coded) = (0.0, 0.0);
    let words = out.high.iter_mut().zip(out.low.iter_mut());
    for (values, (high, low)) in values.as_chunks::<4>().0.iter().zip(words) {
        let (mut highs, mut lows) = ([0u8; 4], [0u8; 4]);
        for (i, value) in values.iter().enumerate() {
            // Adding and taking away 1.5 * 2^52 rounds to the nearest integer.
            let z = (value * inverse + 6_755_399_441_055_744.0) - 6_755_399_441_055_744.0;
            let error = value - z * step;
            left += error * error;
            coded += (z * step) * (z * step);
            let z = z as i32;
            let upper = (z + 128) >> 8;
            highs[i] = upper as u8;
            lows[i] = (z - 256 * upper) as u8;
        }
        *high = i32::from_le_bytes(highs);
        *low = i32::from_le_bytes(lows);
    }
    for (b, sum) in out.sums.iter_mut().enumerate() {
        let at = b * BLOCK_COLUMNS / 4..(b + 1) * BLOCK_COLUMNS / 4;
        let plane = |words: &[i32]| -> i32 {
            let words = words.get(at.clone()).unwrap_or(&[]).iter();
            words
                .flat_map(|word| word.to_le_bytes())
                .map(|byte| i32::from(byte as i8))
                .sum()
        };
        *sum = 256 * plane(out.high) + plane(out.low);
    }
    out.step = step;
    out.remainder = libm::sqrt(left * (1.0 + SUM_ERROR)) * (1.0 + 1e-12);
    out.coded = libm::sqrt(coded * (1.0 + SUM_ERROR)) * (1.0 + 1e-12);
}
