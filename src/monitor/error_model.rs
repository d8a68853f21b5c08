//! The error that a row lets expect ("dark matter"): a linear baseline, and its fit.

use super::accumulator::filled;
use super::quality::RowQuality;
use crate::error::Error;
use alloc::vec::Vec;

/// A baseline of reconstruction errors ("dark matter"): `|x - y|^2` is predicted as `a . x + b`.
/// Rows far above it are unlike those that it was fitted on.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorModel {
    /// a, `[d]`.
    pub weights: Vec<f64>,
    /// b.
    pub bias: f64,
    /// Share of the variance of `|x - y|^2` that it explains over the rows of the fit.
    pub r_squared: f64,
    /// Root of the mean squared residual over them.
    pub deviation: f64,
}

impl ErrorModel {
    pub(super) fn is_finite(&self) -> bool {
        let rest = [self.bias, self.r_squared, self.deviation];
        self.weights.iter().chain(&rest).all(|x| x.is_finite())
    }

    /// The anomaly score of a row: `(|x - y|^2 - a . x - b) / deviation`. A signal for rules.
    pub fn score(&self, row: &[f32], quality: &RowQuality) -> f64 {
        let pairs = self.weights.iter().zip(row);
        let predicted: f64 = pairs.map(|(a, &x)| a * f64::from(x)).sum::<f64>() + self.bias;
        let excess = quality.error_norm * quality.error_norm - predicted;
        if self.deviation > 0.0 {
            excess / self.deviation
        } else {
            0.0
        }
    }
}

/// Fits an [`ErrorModel`] by least squares, row by row: normal equations of `d + 1` unknowns,
/// `(d + 1)(d + 2) / 2` sums in f64. For offline use: every row costs as many additions.
#[derive(Clone, Debug)]
pub struct ErrorFit {
    d: usize,
    rows: u64,
    /// Lower triangle, row by row, of `sum [x, 1] [x, 1]'`.
    matrix: Vec<f64>,
    right: Vec<f64>,
    squares: f64,
}

impl ErrorFit {
    /// Nothing seen yet, of rows of d values.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(d: usize) -> Result<Self, Error> {
        let n = d + 1;
        Ok(ErrorFit {
            d,
            rows: 0,
            matrix: filled(n.saturating_mul(n + 1) / 2, 0.0)?,
            right: filled(n, 0.0)?,
            squares: 0.0,
        })
    }

    /// Adds a row and its quality; one that is not finite is left out.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn add(&mut self, row: &[f32], quality: &RowQuality) -> Result<(), Error> {
        if row.len() != self.d {
            return Err(Error::Length {
                what: "values per row",
                expected: self.d as u64,
                found: row.len() as u64,
            });
        }
        if !quality.finite {
            return Ok(());
        }
        let value = |at: usize| row.get(at).map_or(1.0, |&x| f64::from(x));
        let target = quality.error_norm * quality.error_norm;
        let mut place = 0;
        for i in 0..=self.d {
            let xi = value(i);
            for (j, sum) in self.matrix.iter_mut().skip(place).take(i + 1).enumerate() {
                *sum += xi * value(j);
            }
            place += i + 1;
            if let Some(right) = self.right.get_mut(i) {
                *right += xi * target;
            }
        }
        self.squares += target * target;
        self.rows += 1;
        Ok(())
    }

    /// Adds what another fit has seen. The sums are f64 in the order of the rows, so a merge adds a
    /// rounding each.
    ///
    /// # Errors
    /// [`Error::Length`] if it is of rows of another width.
    pub fn merge(&mut self, other: &ErrorFit) -> Result<(), Error> {
        if self.d != other.d {
            return Err(Error::Length {
                what: "values per row",
                expected: self.d as u64,
                found: other.d as u64,
            });
        }
        let pairs = [
            (&mut self.matrix, &other.matrix),
            (&mut self.right, &other.right),
        ];
        for (to, from) in pairs {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
        self.squares += other.squares;
        self.rows += other.rows;
        Ok(())
    }

    /// Solves for the model. `ridge` times the mean of the diagonal is added to it, so that columns
    /// that depend on each other do no harm; 1e-9 changes nothing else.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are too few rows, or the equations cannot be solved.
    pub fn solve(&self, ridge: f64) -> Result<ErrorModel, Error> {
        let n = self.d + 1;
        let singular = || Error::InvalidArgument {
            what: "rows of an error model",
            expected: alloc::format!("more than {n} that are not all alike"),
            found: alloc::format!("{}", self.rows),
        };
        let at = |i: usize, j: usize| i * (i + 1) / 2 + j;
        let entry = |of: &[f64], i: usize, j: usize| of.get(at(i, j)).copied().unwrap_or(0.0);
        let trace: f64 = (0..n).map(|i| entry(&self.matrix, i, i)).sum();
        let mut factor = self.matrix.clone();
        // Cholesky, in place; then two triangular solves.
        for i in 0..n {
            for j in 0..=i {
                let mut sum = entry(&factor, i, j);
                if i == j {
                    sum += ridge * trace / n as f64;
                }
                for k in 0..j {
                    sum -= entry(&factor, i, k) * entry(&factor, j, k);
                }
                let value = match i == j {
                    true if sum > 0.0 => libm::sqrt(sum),
                    true => return Err(singular()),
                    false => sum / entry(&factor, j, j),
                };
                if let Some(place) = factor.get_mut(at(i, j)) {
                    *place = value;
                }
            }
        }
        let mut solution = self.right.clone();
        let read = |of: &[f64], i: usize| of.get(i).copied().unwrap_or(0.0);
        for i in 0..n {
            let known: f64 = (0..i)
                .map(|k| entry(&factor, i, k) * read(&solution, k))
                .sum();
            let value = (read(&solution, i) - known) / entry(&factor, i, i);
            if let Some(place) = solution.get_mut(i) {
                *place = value;
            }
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n)
                .map(|k| entry(&factor, k, i) * read(&solution, k))
                .sum();
            let value = (read(&solution, i) - known) / entry(&factor, i, i);
            if let Some(place) = solution.get_mut(i) {
                *place = value;
            }
        }
        if solution.iter().any(|value| !value.is_finite()) {
            return Err(singular());
        }
        let rows = self.rows as f64;
        let mean = read(&self.right, self.d) / rows;
        // sum (t - p)^2 = sum t^2 - 2 s.r + s'M s
        let explained: f64 = (0..n)
            .map(|i| read(&solution, i) * read(&self.right, i))
            .sum();
        let mut quadratic = 0.0;
        for i in 0..n {
            for j in 0..n {
                let m = entry(&self.matrix, i.max(j), i.min(j));
                quadratic += read(&solution, i) * m * read(&solution, j);
            }
        }
        let residual = (self.squares - 2.0 * explained + quadratic).max(0.0);
        let spread = (self.squares - rows * mean * mean).max(0.0);
        let bias = solution.pop().unwrap_or(0.0);
        Ok(ErrorModel {
            weights: solution,
            bias,
            r_squared: if spread > 0.0 {
                1.0 - residual / spread
            } else {
                0.0
            },
            deviation: libm::sqrt(residual / rows),
        })
    }
}
