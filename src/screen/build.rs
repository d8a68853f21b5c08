//! From rows to panels: centre, change basis, quantise, and bound what that loses.

use crate::error::Error;
use crate::kernels::screen::{
    BLOCK_COLUMNS, CodeFormat, HEADER_BYTES, PANEL_ROWS, ScreenKernels, TILE_COLUMNS,
};
use crate::screen::numbers::{norm_up, reserve, squares_up, up, zeros};
use crate::screen::refine::Refinement;
use crate::screen::transform::Transform;
use crate::screen::{
    Certificate, EncoderRows, Options, Rules, Screen, Weights, hash_rows, hash_rules,
};
use alloc::vec::Vec;

/// Rows that are solved for together: one panel.
const SLAB: usize = TILE_COLUMNS;
const _: () = assert!(SLAB == PANEL_ROWS);

/// What the three kinds of small errors are worth beside each other (see `Screen::other`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Balance {
    /// Multiplies the norm of the row in the input's basis.
    pub(crate) row: f64,
    /// Multiplies half the sum of the block steps.
    pub(crate) steps: f64,
}

/// One quantised row.
struct QuantisedRow {
    /// What one unit of the integer total is worth.
    step: f64,
    /// Upper bounds of norms: of the residual, of what the codes stand for, of the row itself in
    /// the screen's basis, and of the row in the input's basis.
    residual: f64,
    coded: f64,
    solved: f64,
    row: f64,
    /// Half the sum of the block steps.
    half_steps: f64,
    /// The norms of the residual and of the codes with the second codes added.
    refined_residual: f64,
    refined: f64,
}

/// The basis that rows are quantised in: that of the file, or the one of the encoder's Gram matrix.
/// Several screens of the same rows can share it.
#[derive(Clone, Debug)]
pub struct Basis {
    /// A power of two for each input.
    columns: Vec<f64>,
    transform: Option<Transform<'static>>,
}

impl Basis {
    /// The basis for these rows; that of their Gram matrix if `whiten`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn build(
        rows: &dyn EncoderRows,
        whiten: bool,
        kernels: &ScreenKernels,
    ) -> Result<Self, Error> {
        let columns = column_powers(rows, whiten)?;
        let transform = match whiten {
            true => Some(Transform::build(rows, &columns, kernels)?),
            false => None,
        };
        Ok(Basis { columns, transform })
    }

    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Whether it is that of the Gram matrix.
    pub fn is_whitened(&self) -> bool {
        self.transform.is_some()
    }
}

pub(crate) fn build(
    basis: &Basis,
    rows: &dyn EncoderRows,
    rules: &Rules<'_>,
    options: &Options<'_>,
    kernels: &ScreenKernels,
) -> Result<Screen<'static>, Error> {
    let (features, d_in) = (rows.features(), rows.width());
    let Basis { columns, transform } = basis.clone();
    let width = d_in.next_multiple_of(BLOCK_COLUMNS);
    let blocks = width / BLOCK_COLUMNS;
    let format = options.format;
    let rows_hash = hash_rows(rows)?;
    let factor_of_dither = dither_factor(options.delta_exponent);
    let seed = match (options.certificate, options.seed) {
        (Certificate::Proven, _) => 0,
        (Certificate::Dithered, Some(seed)) => seed,
        (Certificate::Dithered, None) => SplitMix(rows_hash).next(),
    };
    let dither = (options.certificate == Certificate::Dithered).then_some(seed);
    let grid = Grid::new(format, dither, width)?;
    let panel_bytes = format.panel_bytes(blocks);
    let count = features.div_ceil(PANEL_ROWS);
    let mut panels = Weights::zeros(count * panel_bytes)?;
    let refinement = options.refine.then(|| Refinement::new(blocks));
    let mut refined = match &refinement {
        Some(refinement) => Weights::zeros(count * PANEL_ROWS * refinement.stride)?,
        None => Weights::zeros(0)?,
    };
    let mut second = zeros::<u8>(width, "screen")?;

    let mut centre = zeros(width, "screen")?;
    if let Some(from) = options.centre {
        centre[..d_in].copy_from_slice(from);
    }
    let mut powers = zeros(width, "screen")?;
    powers.fill(1.0);
    for (power, column) in powers.iter_mut().zip(&columns) {
        *power = 1.0 / column;
    }
    let mut slab = zeros(width * SLAB, "screen")?;
    let mut line = zeros(width, "screen")?;
    let mut raw = zeros(d_in, "screen")?;
    let mut offsets = zeros(SLAB, "screen")?;
    let mut row_norms = zeros(SLAB, "screen")?;
    let mut codes = zeros::<u8>(PANEL_ROWS * width, "screen")?;
    let mut scales = zeros::<u8>(PANEL_ROWS * blocks, "screen")?;
    let mut quantised: Vec<QuantisedRow> = reserve(count * PANEL_ROWS, "screen")?;
    let mut constants: Vec<(f64, f64)> = reserve(count * PANEL_ROWS, "screen")?;
    let factor = match &transform {
        Some(transform) => Some(transform.factor()?),
        None => None,
    };

    for first in (0..features).step_by(SLAB) {
        slab.fill(0.0);
        for i in 0..SLAB.min(features - first) {
            rows.row(first + i, &mut raw);
            offsets[i] = dot(&raw, &centre);
            for (column, (value, power)) in raw.iter_mut().zip(&columns).enumerate() {
                *value *= power;
                slab[column * SLAB + i] = *value;
            }
            row_norms[i] = norm_up(&raw);
            if !row_norms[i].is_finite() {
                // Always kept: nothing is known about it.
                for column in 0..d_in {
                    slab[column * SLAB + i] = 0.0;
                }
            }
        }
        if let (Some(transform), Some(factor)) = (&transform, &factor) {
            transform.solve(factor, &mut slab, kernels);
        }
        for i in 0..PANEL_ROWS {
            for (value, column) in line.iter_mut().zip(slab.chunks_exact(SLAB)) {
                *value = column[i];
            }
            let (codes, scales) = (
                &mut codes[i * width..][..width],
                &mut scales[i * blocks..][..blocks],
            );
            let mut row = grid.quantise(&line, codes, scales, &mut second);
            if let Some(refinement) = &refinement {
                let at = (first + i) * refinement.stride;
                let to = &mut refined.bytes_mut()[at..][..refinement.stride];
                refinement.pack(scales, &second, to);
            }
            row.row = row_norms[i];
            quantised.push(row);
            constants.push((offsets[i], row_norms[i]));
        }
        let bytes = &mut panels.bytes_mut()[first / PANEL_ROWS * panel_bytes..][..panel_bytes];
        pack(format, &codes, &scales, blocks, bytes);
    }

    let balance = balance(&quantised);
    let centre_norm = norm_up(&scaled(&centre, &columns));
    let mut lower_slack = 0f32;
    let mut largest = (0f32, 0f32);
    for (feature, (row, &(offset, norm))) in quantised.iter().zip(&constants).enumerate() {
        let panel = &mut panels.bytes_mut()[feature / PANEL_ROWS * panel_bytes..];
        let mut set = |vector: usize, value: f32| {
            let at = vector * 64 + feature % PANEL_ROWS * 4;
            panel[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        if feature >= features {
            // Padding: never kept.
            set(4, f32::INFINITY);
            continue;
        }
        let scale = rules.scale.map_or(1.0, |scale| scale[feature]);
        let bias = rules.bias.map_or(0.0, |bias| bias[feature]);
        let size = scale.abs();
        let residual = match options.certificate {
            Certificate::Proven => row.residual,
            Certificate::Dithered => row.step * factor_of_dither,
        };
        let other = [
            row.coded,
            row.solved,
            row.row * balance.row,
            row.half_steps * balance.steps,
        ];
        let middle = bias + scale * offset;
        // The offset's own rounding, that of the sums it takes part in, and flushed subnormals.
        let slack = norm * centre_norm * (d_in as f64) * 1e-15 * size
            + (middle.abs() + bias.abs() + (scale * offset).abs()) * 6e-7
            + 1e-30;
        let refined_other = [
            row.coded.max(row.refined),
            row.solved,
            row.row * balance.row,
            row.half_steps * balance.steps,
        ];
        let refined_residual = match options.certificate {
            Certificate::Proven => row.refined_residual,
            Certificate::Dithered => row.step * factor_of_dither * DITHERED_PART,
        };
        let vectors = [
            up(scale * row.step),
            up(middle + slack),
            up(size * residual * 1.000_001),
            up(size * norm_up(&other) * 1.000_001),
        ];
        let threshold = rules.threshold.map_or(f32::NEG_INFINITY, |t| t[feature]);
        // A weight so small that f32 has fewer digits for it bounds nothing.
        let precise = vectors[0].abs() > 1e-30 || row.solved == 0.0;
        if vectors.iter().all(|v| v.is_finite()) && norm.is_finite() && precise {
            for (vector, value) in vectors.into_iter().enumerate() {
                set(vector, value);
            }
            set(4, threshold);
            if let Some(refinement) = &refinement {
                let at = feature * refinement.stride;
                let to = &mut refined.bytes_mut()[at..][..refinement.stride];
                refinement.set_constants(
                    to,
                    [
                        vectors[0],
                        vectors[2],
                        vectors[3],
                        up(size * refined_residual * 1.000_001),
                        up(size * norm_up(&refined_other) * 1.000_001),
                        threshold,
                    ],
                );
            }
            lower_slack = lower_slack.max(up(2.0 * slack * 1.000_01));
            largest.0 = largest.0.max(vectors[3]);
            largest.1 = largest.1.max(vectors[1].abs());
        } else {
            set(1, f32::INFINITY);
            set(4, f32::NEG_INFINITY);
            if let Some(refinement) = &refinement {
                let at = feature * refinement.stride;
                let to = &mut refined.bytes_mut()[at..][..refinement.stride];
                refinement
                    .set_constants(to, [0.0, 0.0, 0.0, f32::INFINITY, 0.0, f32::NEG_INFINITY]);
            }
        }
    }
    Ok(Screen {
        certificate: options.certificate,
        format,
        delta_exponent: match options.certificate {
            Certificate::Proven => 0,
            Certificate::Dithered => options.delta_exponent,
        },
        features,
        d_in,
        blocks,
        centre,
        powers,
        transform,
        codes_shift: grid.shift,
        refined_shift: match options.refine {
            true => grid.refined_shift,
            false => Vec::new(),
        },
        refinement,
        refined: refined.shared(),
        balance,
        lower_slack,
        largest,
        seed,
        rows_hash,
        rules_hash: hash_rules(features, rules),
        panels: panels.shared(),
    })
}

/// `sqrt(2 ln(2 / delta) / 12)` for delta = 2^-exponent, and a little more.
fn dither_factor(exponent: u32) -> f64 {
    libm::sqrt((f64::from(exponent) + 1.0) * core::f64::consts::LN_2 / 6.0) * 1.0001
}

/// What a unit of a second code is worth, in units of the first: a quarter, so that four cover a
/// step; and a third with dither, which takes up the fourth, and a little for rounding.
pub(crate) const PROVEN_PART: f64 = 0.25;
pub(crate) const DITHERED_PART: f64 = 0.3334;
/// The middle of the second codes.
const REFINED_MIDDLE: f64 = 1.5;

/// The lattice that codes stand for.
struct Grid {
    /// The same for second codes.
    refined_shift: Vec<f64>,
    part: f64,
    /// The value of code `u` in column `j` is `step * (u - shift_j)`.
    shift: Vec<f64>,
    /// Values up to `reach * step` have a code.
    reach: f64,
    lowest: f64,
    highest: f64,
    dithered: bool,
}

impl Grid {
    /// With a seed, the shifts are dithered.
    fn new(format: CodeFormat, seed: Option<u64>, width: usize) -> Result<Grid, Error> {
        let highest = f64::from((1u32 << format.bits()) - 1);
        // Code 0 of eight bits is not used.
        let lowest = if format == CodeFormat::U8 { 1.0 } else { 0.0 };
        let middle = (lowest + highest) / 2.0;
        let mut shift = zeros(width, "screen")?;
        shift.fill(middle);
        let mut refined_shift = zeros(width, "screen")?;
        refined_shift.fill(REFINED_MIDDLE);
        let mut reach = highest - middle + 0.5;
        if let Some(seed) = seed {
            // The middle of the codes plus the dither must not reach beyond the last half unit.
            reach -= 0.5 + 1e-9;
            let mut random = SplitMix(seed);
            for shift in &mut shift {
                *shift += random.uniform() - 0.5;
            }
            for shift in &mut refined_shift {
                *shift += random.uniform() - 0.5;
            }
        }
        Ok(Grid {
            refined_shift,
            part: match seed {
                Some(_) => DITHERED_PART,
                None => PROVEN_PART,
            },
            shift,
            reach,
            lowest,
            highest,
            dithered: seed.is_some(),
        })
    }

    /// Codes, block scales and second codes of a row.
    fn quantise(
        &self,
        row: &[f64],
        codes: &mut [u8],
        scales: &mut [u8],
        second: &mut [u8],
    ) -> QuantisedRow {
        let largest = |values: &[f64]| values.iter().fold(0f64, |max, v| max.max(v.abs()));
        let solved = norm_up(row);
        let mut out = QuantisedRow {
            step: 0.0,
            residual: 0.0,
            coded: 0.0,
            solved,
            row: 0.0,
            half_steps: 0.0,
            refined_residual: 0.0,
            refined: 0.0,
        };
        // One unit of the total: a 255th of the largest block step.
        out.step = crate::screen::numbers::to_f32_precision(
            largest(row) / (self.reach * 255.0) * (1.0 + 1e-6),
        );
        if !(out.step.is_normal() && solved.is_finite()) {
            second.fill(0);
            // Zeros are met exactly; anything else that comes here is always kept.
            codes.fill(self.lowest as u8);
            scales.fill(0);
            out.step = 0.0;
            return out;
        }
        let (mut residual, mut coded, mut steps) = (0.0, 0.0, 0.0);
        let (mut refined_residual, mut refined) = (0.0, 0.0);
        let blocks = row.chunks_exact(BLOCK_COLUMNS).zip(scales.iter_mut());
        for (b, (row, scale)) in blocks.enumerate() {
            let codes = &mut codes[b * BLOCK_COLUMNS..][..BLOCK_COLUMNS];
            let shift = &self.shift[b * BLOCK_COLUMNS..][..BLOCK_COLUMNS];
            let needed = libm::ceil(largest(row) / (self.reach * out.step));
            *scale = needed.min(255.0) as u8;
            let step = f64::from(*scale) * out.step;
            let mut errors = [0f64; BLOCK_COLUMNS];
            let mut values = [0f64; BLOCK_COLUMNS];
            for (i, (code, value)) in codes.iter_mut().zip(row).enumerate() {
                let place = if *scale == 0 {
                    self.lowest
                } else {
                    value / step + shift[i]
                };
                let rounded = libm::rint(place).clamp(self.lowest, self.highest);
                debug_assert!(!self.dithered || (rounded - place).abs() < 0.5 + 1e-9);
                *code = rounded as u8;
                values[i] = step * (rounded - shift[i]);
                errors[i] = value - values[i];
            }
            residual += squares_up(&errors);
            coded += squares_up(&values);
            let second = &mut second[b * BLOCK_COLUMNS..][..BLOCK_COLUMNS];
            let shift = &self.refined_shift[b * BLOCK_COLUMNS..][..BLOCK_COLUMNS];
            let part = step * self.part;
            for (i, second) in second.iter_mut().enumerate() {
                let place = match *scale {
                    0 => 0.0,
                    _ => errors[i] / part + shift[i],
                };
                let rounded = libm::rint(place).clamp(0.0, 3.0);
                *second = rounded as u8;
                let value = part * (rounded - shift[i]);
                errors[i] -= value;
                values[i] += value;
            }
            refined_residual += squares_up(&errors);
            refined += squares_up(&values);
            steps += step;
        }
        out.residual = libm::sqrt(residual) * (1.0 + 1e-12) + solved * 1e-14;
        out.coded = libm::sqrt(coded) * (1.0 + 1e-12);
        out.refined_residual = libm::sqrt(refined_residual) * (1.0 + 1e-12) + solved * 1e-14;
        out.refined = libm::sqrt(refined) * (1.0 + 1e-12);
        out.half_steps = 0.5 * steps * (1.0 + 1e-12);
        out
    }
}

/// Uniform numbers from a seed (Steele, Lea, Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`, a multiple of 2^-53.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A power of two for each column: near one over the root of the column's squares in the Gram
/// matrix, so that the transform's columns have like norms; ones without a transform.
fn column_powers(rows: &dyn EncoderRows, whiten: bool) -> Result<Vec<f64>, Error> {
    let mut powers = zeros(rows.width(), "screen")?;
    if !whiten {
        powers.fill(1.0);
        return Ok(powers);
    }
    let mut row = zeros(rows.width(), "screen")?;
    for feature in 0..rows.features() {
        rows.row(feature, &mut row);
        let square = squares_up(&row);
        if square > 0.0 && square.is_finite() {
            for (power, value) in powers.iter_mut().zip(&row) {
                *power += value * value / square;
            }
        }
    }
    for power in &mut powers {
        let exponent = if *power > 0.0 {
            -0.5 * libm::log2(*power)
        } else {
            0.0
        };
        *power = libm::exp2(libm::rint(exponent.clamp(-30.0, 30.0)));
    }
    Ok(powers)
}

fn balance(rows: &[QuantisedRow]) -> Balance {
    let sum = |of: fn(&QuantisedRow) -> f64| {
        let finite = rows.iter().map(of).filter(|value| value.is_finite());
        finite.sum::<f64>().clamp(1e-30, 1e30)
    };
    let coded = sum(|row| row.coded);
    Balance {
        row: coded / sum(|row| row.row),
        steps: coded / sum(|row| row.half_steps),
    }
}

/// `values[i] / columns[i]`.
fn scaled(values: &[f64], columns: &[f64]) -> Vec<f64> {
    values.iter().zip(columns).map(|(v, c)| v / c).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Writes the scales and codes of a panel; `codes` and `scales` are row by row.
fn pack(format: CodeFormat, codes: &[u8], scales: &[u8], blocks: usize, panel: &mut [u8]) {
    let width = blocks * BLOCK_COLUMNS;
    for b in 0..blocks {
        for r in 0..PANEL_ROWS {
            panel[HEADER_BYTES + b * PANEL_ROWS + r] = scales[r * blocks + b];
        }
    }
    let start = HEADER_BYTES + CodeFormat::scale_bytes(blocks);
    let mut word = [0u8; 64];
    for at in 0..width / 4 {
        for (i, byte) in word.iter_mut().enumerate() {
            *byte = codes[i / 4 * width + at * 4 + i % 4];
        }
        match format {
            CodeFormat::U8 => panel[start + at * 64..][..64].copy_from_slice(&word),
            CodeFormat::U3 => {
                let to = &mut panel[start + at / 8 * 192..][..192];
                for (i, code) in word.into_iter().enumerate() {
                    match at % 8 {
                        n @ (6 | 7) => {
                            to[(n - 6) * 64 + i] |= (code & 3) << 6;
                            to[128 + i] |= (code >> 2) << n;
                        }
                        n => to[n / 2 * 64 + i] |= code << (n % 2 * 3),
                    }
                }
            }
            CodeFormat::U4 => {
                let to = &mut panel[start + at / 2 * 64..][..64];
                for (to, code) in to.iter_mut().zip(word) {
                    *to |= code << (at % 2 * 4);
                }
            }
            CodeFormat::U6 => {
                let to = &mut panel[start + at / 4 * 192..][..192];
                for (i, code) in word.into_iter().enumerate() {
                    if at % 4 < 3 {
                        to[at % 4 * 64 + i] |= code;
                    } else {
                        for n in 0..3 {
                            to[n * 64 + i] |= (code >> (2 * n) & 3) << 6;
                        }
                    }
                }
            }
        }
    }
}
