//! The change of basis that makes a screen tight: the encoder's own Gram matrix, factored.
//!
//! The error bound of a quantised row is a product of two norms, `|w - w'| |y|`. Both norms depend
//! on the basis; the product `w . y` does not. With `M = sum over rows of w w^T / |w|^2` and
//! `M = R^T R`, the basis `w~ = R^-T w`, `y~ = R y` gives `|y~|^2 = y^T M y`, which is the sum of
//! the squared (normalised) pre-activations of that very input: directions that the encoder does
//! not look at no longer count, however large the input is there. And the rows `w~` have about the
//! same length each and no preferred direction, which is what a quantiser with one step likes.
//! The bound then is about `sqrt(d_in) * 2^-bits` standard deviations of a pre-activation, for
//! any encoder and any input. (An encoder that cancels the strong directions of its input, as
//! trained ones do, is three to four times worse in the basis that it is stored in.)
//!
//! `R` is rounded to signed bytes, one scale per row: that is then the basis, exactly, and the
//! rows are solved for in it. `R` is triangular, so a row costs `d_in^2 / 2` bytes to change basis.

use crate::bytes::Bytes;
use crate::error::Error;
use crate::kernels::screen::{Matrix, PANEL_ROWS, ScreenKernels, TILE_COLUMNS, TILE_ROWS};
use crate::screen::EncoderRows;
use crate::screen::numbers::{norm_up, reserve, to_f32_precision, zeros};
use alloc::vec::Vec;

/// Rows of `R` that are factored, solved and packed together.
const STEP: usize = 64;
/// The Gram matrix is formed from at most this many rows for each input.
const ROWS_PER_INPUT: usize = 8;
/// Added to the diagonal, relative to its mean, so that the factor exists.
const RIDGE: f64 = 1e-6;

/// An upper triangular matrix `R' = diag(scale) * codes`, codes in -127..=127, and the columns'
/// powers of two.
#[derive(Clone, Debug)]
pub(crate) struct Transform<'a> {
    /// Columns, a multiple of 64.
    width: usize,
    /// In panels: for each 16 rows, from the block that holds the diagonal on; code + 128.
    codes: Bytes<'a>,
    /// For each row.
    scale: Vec<f64>,
    /// An upper bound of the Frobenius norm of `R'`.
    norm: f64,
}

impl<'a> Transform<'a> {
    /// Bytes of the codes.
    pub(crate) fn code_bytes(width: usize) -> usize {
        let panels = (0..width / PANEL_ROWS).map(|p| (width - first_column(p)) * PANEL_ROWS);
        panels.sum()
    }

    /// A transform that was stored; `codes` has [`Transform::code_bytes`].
    pub(crate) fn stored(width: usize, codes: Bytes<'a>, scale: Vec<f64>, norm: f64) -> Self {
        Transform {
            width,
            codes,
            scale,
            norm,
        }
    }

    pub(crate) fn codes(&self) -> &[u8] {
        self.codes.as_slice()
    }

    pub(crate) fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// The transform for rows whose columns have been multiplied by `columns`.
    pub(crate) fn build(
        rows: &dyn EncoderRows,
        columns: &[f64],
        kernels: &ScreenKernels,
    ) -> Result<Transform<'static>, Error> {
        let width = rows.width().next_multiple_of(STEP);
        let mut matrix = gram(rows, columns, width, kernels)?;
        factor(&mut matrix, width, kernels)?;
        let mut scale = zeros(width, "screen")?;
        let mut codes: Vec<u8> = reserve(Transform::code_bytes(width), "screen")?;
        for (panel, scales) in scale.chunks_exact_mut(PANEL_ROWS).enumerate() {
            for (r, scale) in scales.iter_mut().enumerate() {
                let row = panel * PANEL_ROWS + r;
                let line = &matrix[row * width..][..width];
                let largest = line[row..].iter().fold(0f64, |max, v| max.max(v.abs()));
                *scale = to_f32_precision(largest / 127.0);
                if !(scale.is_finite() && *scale > 0.0) {
                    *scale = 1.0;
                }
            }
            for word in (first_column(panel)..width).step_by(4) {
                for (r, scale) in scales.iter().enumerate() {
                    let row = panel * PANEL_ROWS + r;
                    for column in word..word + 4 {
                        let code = round_code(matrix[row * width + column], *scale, row, column);
                        codes.push((code + 128) as u8);
                        matrix[row * width + column] = f64::from(code) * scale;
                    }
                }
            }
        }
        let norm = norm_up(&matrix);
        Ok(Transform {
            width,
            codes: Bytes::owned(codes),
            scale,
            norm,
        })
    }

    /// Bytes held, and read for each input.
    pub(crate) fn bytes(&self) -> usize {
        self.codes.len() + self.scale.len() * 8
    }

    /// An upper bound of the Frobenius norm.
    pub(crate) fn norm(&self) -> f64 {
        self.norm
    }

    /// `out = step * R' z` for the integers `z = 256 high + low` of each of some inputs, one after the
    /// other: each element is an exact integer times `scale * step`, with two roundings. `sums` are
    /// the sums of `z` over blocks of 64.
    pub(crate) fn apply(
        &self,
        kernels: &ScreenKernels,
        (high, low): (&[i8], &[i8]),
        sums: &[i32],
        steps: &[f64],
        out: &mut [f64],
    ) {
        let width = self.width;
        let mut codes = self.codes.as_slice();
        for (panel, scales) in self.scale.chunks_exact(PANEL_ROWS).enumerate() {
            let (at, first) = (panel * PANEL_ROWS, first_column(panel));
            let Some((panel, rest)) = codes.split_at_checked((width - first) * PANEL_ROWS) else {
                return;
            };
            codes = rest;
            let planes = high.chunks_exact(width).zip(low.chunks_exact(width));
            let inputs = planes.zip(sums.chunks_exact(width / 64)).zip(steps);
            for (out, (((high, low), sums), step)) in out.chunks_exact_mut(width).zip(inputs) {
                let planes = [high, low].map(|plane| plane.get(first..).unwrap_or(&[]));
                let [high, low] = planes.map(bytemuck::cast_slice);
                let mut totals = [0; PANEL_ROWS];
                kernels.dot_bytes(panel, high, low, &mut totals);
                let from = sums.get(first / 64..).unwrap_or(&[]);
                let shift = 128 * from.iter().map(|&sum| i64::from(sum)).sum::<i64>();
                let out = out.get_mut(at..at + PANEL_ROWS).unwrap_or(&mut []);
                for ((out, total), scale) in out.iter_mut().zip(totals).zip(scales) {
                    *out = (total - shift) as f64 * (scale * step);
                }
            }
        }
    }

    /// Replaces rows `w` by the solutions `w~` of `R'^T w~ = w`, by substitution. `rows` holds
    /// [`TILE_COLUMNS`] of them: `[width, TILE_COLUMNS]`.
    pub(crate) fn solve(&self, factor: &Factor, rows: &mut [f64], kernels: &ScreenKernels) {
        for (tile, columns) in factor.tiles().enumerate() {
            let first = tile * TILE_ROWS;
            let (done, rest) = rows.split_at_mut(first * TILE_COLUMNS);
            kernels.subtract_products(
                Matrix {
                    values: columns,
                    stride: TILE_ROWS,
                    rows: first,
                },
                Matrix {
                    values: done,
                    stride: TILE_COLUMNS,
                    rows: first,
                },
                rest,
                TILE_COLUMNS,
            );
            let corner = columns.get(first * TILE_ROWS..).unwrap_or(&[]);
            for i in 0..TILE_ROWS {
                let (before, line) = rest.split_at_mut(i * TILE_COLUMNS);
                let line = &mut line[..TILE_COLUMNS];
                for (j, known) in before.chunks_exact(TILE_COLUMNS).enumerate() {
                    let factor = corner[j * TILE_ROWS + i];
                    for (value, known) in line.iter_mut().zip(known) {
                        *value -= factor * known;
                    }
                }
                let diagonal = corner[i * TILE_ROWS + i];
                line.iter_mut().for_each(|value| *value /= diagonal);
            }
        }
    }

    /// `R'` in f64, for [`Transform::solve`].
    pub(crate) fn factor(&self) -> Result<Factor, Error> {
        let tiles = self.width / TILE_ROWS;
        let mut values = zeros(tiles * (tiles + 1) / 2 * TILE_ROWS * TILE_ROWS, "screen")?;
        let mut codes = self.codes.as_slice().iter();
        for panel in 0..self.width / PANEL_ROWS {
            for word in (first_column(panel)..self.width).step_by(4) {
                for row in panel * PANEL_ROWS..(panel + 1) * PANEL_ROWS {
                    for column in word..word + 4 {
                        let code = f64::from(codes.next().copied().unwrap_or(128)) - 128.0;
                        let tile = column / TILE_ROWS;
                        if row < (tile + 1) * TILE_ROWS {
                            let at = Factor::start(tile) + row * TILE_ROWS + column % TILE_ROWS;
                            values[at] = code * self.scale[row];
                        }
                    }
                }
            }
        }
        Ok(Factor { values, tiles })
    }
}

/// `R'` in f64: [`TILE_ROWS`] columns at a time, each such tile from the first row to its last.
pub(crate) struct Factor {
    values: Vec<f64>,
    tiles: usize,
}

impl Factor {
    fn start(tile: usize) -> usize {
        tile * (tile + 1) / 2 * TILE_ROWS * TILE_ROWS
    }

    fn tiles(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.tiles).map(|tile| &self.values[Self::start(tile)..Self::start(tile + 1)])
    }
}

/// The first column that a panel of the triangle stores.
fn first_column(panel: usize) -> usize {
    panel * PANEL_ROWS / 64 * 64
}

/// The code of an element: zero below the diagonal, never zero on it.
fn round_code(value: f64, scale: f64, row: usize, column: usize) -> i32 {
    if column < row {
        return 0;
    }
    let code = libm::rint(value / scale).clamp(-127.0, 127.0) as i32;
    if row == column && code == 0 { 1 } else { code }
}

/// `sum of w w^T / |w|^2` over (a selection of) the rows, upper triangle, with the ridge.
fn gram(
    rows: &dyn EncoderRows,
    columns: &[f64],
    width: usize,
    kernels: &ScreenKernels,
) -> Result<Vec<f64>, Error> {
    /// Rows that are added at once.
    const DEPTH: usize = 128;
    let d = rows.width();
    let mut matrix: Vec<f64> = zeros(width * width, "screen")?;
    let mut slab: Vec<f64> = zeros(DEPTH * width, "screen")?;
    let mut tiles: Vec<f64> = zeros(DEPTH * width, "screen")?;
    let mut wide = [0f64; DEPTH * TILE_COLUMNS];
    let wanted = (d * ROWS_PER_INPUT).min(rows.features());
    let stride = (rows.features() / wanted.max(1)).max(1);
    let chosen: Vec<usize> = (0..wanted).map(|i| i * stride).collect();
    for chosen in chosen.chunks(DEPTH) {
        slab.fill(0.0);
        for (line, &feature) in slab.chunks_exact_mut(width).zip(chosen) {
            rows.row(feature, &mut line[..d]);
            for (value, column) in line.iter_mut().zip(columns) {
                *value *= column;
            }
            let norm = norm_up(&line[..d]);
            // A zero row has no direction, a non-finite one no meaning.
            let factor = if norm > 0.0 && norm.is_finite() {
                1.0 / norm
            } else {
                0.0
            };
            let scale = |v: &mut f64| *v = if factor == 0.0 { 0.0 } else { *v * factor };
            line.iter_mut().for_each(scale);
        }
        let whole = Matrix {
            values: &slab,
            stride: width,
            rows: chosen.len(),
        };
        for i in (0..width).step_by(TILE_ROWS) {
            let tile = &mut tiles[i * DEPTH..][..DEPTH * TILE_ROWS];
            copy_columns::<TILE_ROWS>(whole, i, tile);
        }
        for j in (0..width).step_by(TILE_COLUMNS) {
            copy_columns::<TILE_COLUMNS>(whole, j, &mut wide);
            let b = Matrix {
                values: &wide,
                stride: TILE_COLUMNS,
                rows: chosen.len(),
            };
            for i in (0..j + TILE_COLUMNS).step_by(TILE_ROWS) {
                let a = Matrix {
                    values: &tiles[i * DEPTH..],
                    stride: TILE_ROWS,
                    rows: chosen.len(),
                };
                kernels.subtract_products(a, b, &mut matrix[i * width + j..], width);
            }
        }
    }
    matrix.iter_mut().for_each(|value| *value = -*value);
    let trace: f64 = (0..d).map(|i| matrix[i * width + i]).sum();
    let ridge = if trace > 0.0 {
        RIDGE * trace / d as f64
    } else {
        1.0
    };
    for i in 0..width {
        matrix[i * width + i] += if i < d { ridge } else { 1.0 };
    }
    Ok(matrix)
}

/// The columns `first .. first + N` of a matrix, side by side.
fn copy_columns<const N: usize>(from: Matrix<'_>, first: usize, to: &mut [f64]) {
    for (row, to) in to
        .as_chunks_mut::<N>()
        .0
        .iter_mut()
        .enumerate()
        .take(from.rows)
    {
        if let Some(line) = from.values.get(row * from.stride + first..)
            && let Some(line) = line.first_chunk()
        {
            *to = *line;
        }
    }
}

/// Cholesky: the upper triangle of `matrix = R^T R` becomes `R`, below it zeros.
fn factor(matrix: &mut [f64], width: usize, kernels: &ScreenKernels) -> Result<(), Error> {
    let mut narrow: Vec<f64> = zeros(width * STEP, "screen")?;
    let mut wide: Vec<f64> = zeros(width * TILE_COLUMNS, "screen")?;
    for first in (0..width).step_by(STEP) {
        let (done, rest) = matrix.split_at_mut(first * width);
        let known = Matrix {
            values: done,
            stride: width,
            rows: first,
        };
        for row in (0..STEP).step_by(TILE_ROWS) {
            copy_columns::<TILE_ROWS>(known, first + row, &mut narrow[row * width..]);
        }
        for column in (first..width).step_by(TILE_COLUMNS) {
            copy_columns::<TILE_COLUMNS>(known, column, &mut wide);
            let b = Matrix {
                values: &wide,
                stride: TILE_COLUMNS,
                rows: first,
            };
            for row in (0..STEP).step_by(TILE_ROWS) {
                let a = Matrix {
                    values: &narrow[row * width..],
                    stride: TILE_ROWS,
                    rows: first,
                };
                kernels.subtract_products(a, b, &mut rest[row * width + column..], width);
            }
        }
        for i in 0..STEP {
            let (before, line) = rest.split_at_mut(i * width);
            let line = &mut line[..width];
            for known in before.chunks_exact(width) {
                let factor = known[first + i];
                for (value, known) in line[first + i..].iter_mut().zip(&known[first + i..]) {
                    *value -= factor * known;
                }
            }
            // The ridge keeps pivots positive; rounding may not, and any positive pivot will do.
            let pivot = libm::sqrt(line[first + i].max(RIDGE * RIDGE));
            line[..first + i].fill(0.0);
            line[first + i..]
                .iter_mut()
                .for_each(|value| *value /= pivot);
            line[first + i] = pivot;
        }
    }
    Ok(())
}
