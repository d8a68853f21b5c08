//! Does an SAE fit the rows that a host feeds it? Streaming sparsity and reconstruction error.
//!
//! ```text
//! L0  = features that fire, per row
//! FVU = sum |y - decode(encode(x))|^2 / sum |y - mean of y|^2
//! ```
//!
//! over all rows so far, y the row at the output site (x itself, but for transcoders); sums in f64,
//! the mean updated row by row (Welford). FVU is the fraction of variance unexplained: 0.05 to 0.4
//! on the rows that an SAE was trained on, near or above 1 on rows of another tensor.

use crate::dtype::Dtype;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::model::Sae;
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::vec::Vec;

/// Rows that are decoded at once.
const BLOCK: usize = 8;

/// Whether rows look like those that an SAE was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Fewer than [`FitCheck::MIN_ROWS`] rows so far, or rows that are all the same.
    TooFewRows,
    /// FVU at most [`FitCheck::FITS`].
    Fits,
    /// FVU between the two limits: another quantisation, other texts, or another tensor nearby.
    Doubtful,
    /// FVU above [`FitCheck::WRONG`], or nothing fires: another tensor, another model, or rows that
    /// lack a normalisation.
    Wrong,
}

/// What is known of the fit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fit {
    /// The verdict.
    pub verdict: Verdict,
    /// Rows that were counted.
    pub rows: u64,
    /// Rows that were not: they are not finite.
    pub left_out: u64,
    /// Features that fire, per row; 0 without rows.
    pub l0: f64,
    /// Fraction of variance unexplained; NaN while the rows have no variance.
    pub fvu: f64,
}

/// Collects rows until there is a verdict. Belongs to one thread at a time; allocates when it is
/// made and when rows fire more features than before.
#[derive(Clone, Debug)]
pub struct FitCheck {
    mean: Vec<f64>,
    spread: f64,
    error: f64,
    rows: u64,
    left_out: u64,
    fired: u64,
    features: Features,
    decoded: Vec<f32>,
}

impl FitCheck {
    /// Fewest rows for a verdict.
    pub const MIN_ROWS: u64 = 32;
    /// Largest FVU of an SAE that fits.
    pub const FITS: f64 = 0.5;
    /// Above this FVU it is the wrong SAE.
    pub const WRONG: f64 = 0.9;

    /// An empty check for a model.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(sae: &Sae<'_>) -> Result<Self, Error> {
        let d_out = sae.d_out();
        Ok(FitCheck {
            mean: zeros(d_out)?,
            spread: 0.0,
            error: 0.0,
            rows: 0,
            left_out: 0,
            fired: 0,
            features: Features::new(),
            decoded: zeros(d_out.saturating_mul(BLOCK))?,
        })
    }

    /// Adds rows.
    ///
    /// `targets` are the rows at the output site, one for each row, for models whose output belongs
    /// elsewhere (transcoders); None: the rows themselves.
    ///
    /// # Errors
    /// [`Error::Length`] for another model than the check was made for, rows of another width, or
    /// another number of targets; [`Error::InvalidArgument`] for a model whose d_out is not its
    /// d_in, without targets; what encode and decode say.
    pub fn add(
        &mut self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        targets: Option<Rows<'_>>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), Error> {
        let d_out = sae.d_out();
        let length = |what, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => Err(Error::Length {
                what,
                expected: expected as u64,
                found: found as u64,
            }),
        };
        length("d_out of the model", self.mean.len(), d_out)?;
        let targets = match targets {
            Some(targets) => targets,
            None if sae.d_in() == d_out => rows,
            None => {
                return Err(Error::InvalidArgument {
                    what: "targets of a fit check",
                    expected: "the rows at the output site (d_out is not d_in)".into(),
                    found: "none".into(),
                });
            }
        };
        length("targets of a fit check", rows.rows(), targets.rows())?;
        length("width of targets", d_out, targets.width())?;
        for first in (0..rows.rows()).step_by(BLOCK) {
            let part = rows.part(first, BLOCK);
            self.features.clear();
            sae.encode(part, scratch, &mut self.features)?;
            let decoded = self
                .decoded
                .get_mut(..part.rows() * d_out)
                .unwrap_or(&mut []);
            sae.decode(&self.features, Some(part), scratch, decoded)?;
            for row in 0..part.rows() {
                self.count(row, &targets, first + row, d_out);
            }
        }
        Ok(())
    }

    /// Counts row `row` of the block, whose target is row `at` of `targets`.
    fn count(&mut self, row: usize, targets: &Rows<'_>, at: usize, d_out: usize) {
        let found = self.features.row(row);
        let finite = values(targets, at).all(f64::is_finite);
        let Some(found) = found.filter(|row| row.status == RowStatus::Ok && finite) else {
            self.left_out += 1;
            return;
        };
        let decoded = self.decoded.get(row * d_out..).unwrap_or(&[]);
        self.rows += 1;
        self.fired += found.indices.len() as u64;
        let n = self.rows as f64;
        for ((mean, y), decoded) in self.mean.iter_mut().zip(values(targets, at)).zip(decoded) {
            let from_mean = y - *mean;
            *mean += from_mean / n;
            self.spread += from_mean * (y - *mean);
            let error = y - f64::from(*decoded);
            self.error += error * error;
        }
    }

    /// What is known so far.
    #[must_use]
    pub fn result(&self) -> Fit {
        let fvu = match self.spread > 0.0 {
            true => self.error / self.spread,
            false => f64::NAN,
        };
        let verdict = if self.rows < Self::MIN_ROWS || fvu.is_nan() {
            Verdict::TooFewRows
        } else if fvu > Self::WRONG || self.fired == 0 {
            Verdict::Wrong
        } else if fvu > Self::FITS {
            Verdict::Doubtful
        } else {
            Verdict::Fits
        };
        Fit {
            verdict,
            rows: self.rows,
            left_out: self.left_out,
            l0: self.fired as f64 / self.rows.max(1) as f64,
            fvu,
        }
    }
}

/// The values of a row.
fn values<'r>(rows: &Rows<'r>, row: usize) -> impl Iterator<Item = f64> + use<'r> {
    let dtype = rows.dtype();
    let chunks = rows.row_bytes(row).chunks_exact(dtype.size());
    chunks.map(move |bytes| match (dtype, bytes) {
        (Dtype::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
        (Dtype::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f64(),
        (_, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        // Rows have no other format.
        _ => f64::NAN,
    })
}

fn zeros<T: Clone + Default>(count: usize) -> Result<Vec<T>, Error> {
    let mut out = Vec::new();
    out.try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory {
            what: "fit check",
            bytes: (count * size_of::<T>()) as u64,
        })?;
    out.resize(count, T::default());
    Ok(out)
}
