//! Dark matter: how much of what a model fails to reconstruct is linear in the row.

use super::vectors::reserved;
use crate::error::Error;
use alloc::vec::Vec;
use nalgebra::DMatrix;

/// Fits reconstruction errors by least squares, `e ~ W [x, 1]`, row by row: `(d + 1)^2 + (d + 1) d'`
/// sums in f64, in the order of the rows. For offline use: every row costs as many additions.
#[derive(Clone, Debug)]
pub struct LinearErrorFit {
    d: usize,
    d_out: usize,
    rows: u64,
    /// `sum [x, 1] [x, 1]'`, column by column.
    gram: Vec<f64>,
    /// `sum [x, 1] e'`, column by column.
    cross: Vec<f64>,
    squares: f64,
    work: Vec<f64>,
}

/// The linear part of a reconstruction error.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearErrorModel {
    /// W, `[d_out][d + 1]`, the constant last.
    pub weights: Vec<Vec<f64>>,
    /// Share of the variance of the error that it explains over the rows of the fit:
    /// `1 - sum |e - W [x, 1]|^2 / sum |e - mean e|^2`.
    pub r_squared: f64,
}

impl LinearErrorFit {
    /// Nothing seen yet, of rows of `d` values and errors of `d_out`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(d: usize, d_out: usize) -> Result<Self, Error> {
        let n = d.saturating_add(1);
        let zeros = |count: usize| -> Result<Vec<f64>, Error> {
            let mut values = reserved(count, "sums of a fit")?;
            values.resize(count, 0.0);
            Ok(values)
        };
        Ok(LinearErrorFit {
            d,
            d_out,
            rows: 0,
            gram: zeros(n.saturating_mul(n))?,
            cross: zeros(n.saturating_mul(d_out))?,
            squares: 0.0,
            work: zeros(n)?,
        })
    }

    /// Adds a row and the reconstruction of its output; one that is not finite is left out. `target` is
    /// the row at the output site (the row itself, but for transcoders).
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn add(&mut self, row: &[f32], target: &[f32], decoded: &[f32]) -> Result<(), Error> {
        let lengths = [
            ("values of a row", self.d, row.len()),
            ("values of a target", self.d_out, target.len()),
            ("values of a reconstruction", self.d_out, decoded.len()),
        ];
        for (what, expected, found) in lengths {
            if expected != found {
                return Err(Error::Length {
                    what,
                    expected: expected as u64,
                    found: found as u64,
                });
            }
        }
        let all = row.iter().chain(target).chain(decoded);
        if all.into_iter().any(|value| !value.is_finite()) {
            return Ok(());
        }
        let n = self.d + 1;
        for (to, &x) in self.work.iter_mut().zip(row) {
            *to = x.into();
        }
        if let Some(last) = self.work.last_mut() {
            *last = 1.0;
        }
        for (column, x) in self.gram.chunks_exact_mut(n).zip(&self.work) {
            for (sum, y) in column.iter_mut().zip(&self.work) {
                *sum += x * y;
            }
        }
        let errors = target.iter().zip(decoded);
        let errors = errors.map(|(&x, &y)| f64::from(x) - f64::from(y));
        for (column, error) in self.cross.chunks_exact_mut(n).zip(errors) {
            self.squares += error * error;
            for (sum, x) in column.iter_mut().zip(&self.work) {
                *sum += x * error;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Solves for the model. `ridge` times the mean of the diagonal is added to it; 1e-9 does well.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are too few rows, or the equations cannot be solved.
    pub fn solve(&self, ridge: f64) -> Result<LinearErrorModel, Error> {
        let n = self.d + 1;
        let gram = DMatrix::from_column_slice(n, n, &self.gram);
        let cross = DMatrix::from_column_slice(n, self.d_out, &self.cross);
        let mut system = gram.clone();
        let more = ridge * gram.trace() / n as f64;
        for i in 0..n {
            if let Some(value) = system.get_mut((i, i)) {
                *value += more;
            }
        }
        let solved = nalgebra::Cholesky::new(system).map(|factor| factor.solve(&cross));
        let Some(weights) = solved.filter(|w| w.iter().all(|value| value.is_finite())) else {
            return Err(Error::InvalidArgument {
                what: "rows of a linear error model",
                expected: alloc::format!("more than {n} that are not all alike"),
                found: alloc::format!("{}", self.rows),
            });
        };
        // sum |e - W'x|^2 = sum |e|^2 - 2 <W, C> + <W, G W>
        let residual = self.squares - 2.0 * weights.dot(&cross) + weights.dot(&(&gram * &weights));
        // The last row of C holds the sums of the errors.
        let means = cross.row(self.d).norm_squared() / self.rows.max(1) as f64;
        let spread = self.squares - means;
        Ok(LinearErrorModel {
            weights: weights
                .column_iter()
                .map(|column| column.iter().copied().collect())
                .collect(),
            r_squared: if spread > self.squares * 1e-14 {
                1.0 - residual.max(0.0) / spread
            } else {
                0.0
            },
        })
    }
}

impl LinearErrorModel {
    /// `|e - W [x, 1]|`: the part of a row's error that is not linear in it. 0 for other lengths.
    pub fn nonlinear(&self, row: &[f32], target: &[f32], decoded: &[f32]) -> f64 {
        if target.len() != self.weights.len() || decoded.len() != self.weights.len() {
            return 0.0;
        }
        let errors = target.iter().zip(decoded);
        let errors = errors.map(|(&x, &y)| f64::from(x) - f64::from(y));
        let each = errors.zip(&self.weights).map(|(error, weights)| {
            let inputs = row.iter().map(|&x| f64::from(x)).chain([1.0]);
            let predicted: f64 = weights.iter().zip(inputs).map(|(w, x)| w * x).sum();
            (error - predicted) * (error - predicted)
        });
        libm::sqrt(each.sum::<f64>())
    }
}
