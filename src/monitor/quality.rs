//! How well rows are reconstructed, streaming.

use super::accumulator::filled;
use super::error_model::ErrorModel;
use super::sum::Sum;
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::kernels::Kernels;
use crate::model::Sae;
use crate::rows::Rows;
use alloc::vec::Vec;

/// Rows with a norm of this and beyond count as overflows.
const NORM_LIMIT: f64 = 1_073_741_824.0; // 2^30

/// Quality of one row's reconstruction. x is the row, y its reconstruction, f its features, b the
/// decoder's bias. 0 where a quotient has no denominator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RowQuality {
    /// Number of active features.
    pub l0: f64,
    /// `sum f`
    pub l1: f64,
    /// `|f|`
    pub l2: f64,
    /// `|x|`
    pub norm: f64,
    /// `|y|`
    pub reconstruction_norm: f64,
    /// `|x - y|`
    pub error_norm: f64,
    /// `<x, y> / (|x| |y|)`
    pub cosine: f64,
    /// `|y| / |x|`
    pub norm_ratio: f64,
    /// `(|y - b|^2 - |f|^2) / |f|^2`: near 0 where decoder rows are orthonormal (ZF); its size is
    /// a sign of rows unlike those of training.
    pub zf_deviation: f64,
    /// `(|f| - |x - b|)^2`, the AFA loss.
    pub afa_loss: f64,
    /// [`ErrorModel::score`]; 0 without an error model. A signal for rules.
    pub anomaly: f64,
    /// Whether all of that is known: the row and its reconstruction are finite.
    pub finite: bool,
}

/// Means over rows, and what is formed from sums over all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct QualitySummary {
    /// Rows that entered.
    pub rows: u64,
    /// Rows that were not finite, or whose reconstruction was not.
    pub non_finite: u64,
    /// Rows with a norm of 2^30 and beyond, which entered nothing.
    pub overflows: u64,
    /// Rows whose [`RowQuality::anomaly`] is above the limit of [`Quality::set_error_model`].
    pub anomalous: u64,
    /// Mean number of active features.
    pub l0: f64,
    /// Mean of `sum f`.
    pub l1: f64,
    /// Mean squared error per value.
    pub mse: f64,
    /// Fraction of variance unexplained, global: `sum |x - y|^2 / sum |x - mean|^2`. The mean is
    /// the one that was given, else that of the rows.
    pub fvu: f64,
    /// `1 - fvu`
    pub explained_variance: f64,
    /// Mean cosine of row and reconstruction.
    pub cosine: f64,
    /// Mean of `|y| / |x|`.
    pub norm_ratio: f64,
    /// `mean |y|^2 / mean <x, y>`; 1 is without bias.
    pub reconstruction_bias: f64,
    /// Mean of [`RowQuality::zf_deviation`].
    pub zf_deviation: f64,
    /// Mean of [`RowQuality::afa_loss`].
    pub afa_loss: f64,
}

/// Which sums are kept.
#[derive(Clone, Copy)]
enum Term {
    L0,
    L1,
    /// `|x - c|^2`
    About,
    Error,
    /// `|y|^2`
    Reconstruction,
    /// `<x, y>`
    Product,
    Cosine,
    Ratio,
    Zf,
    Afa,
}

pub(super) const TERMS: usize = 10;

/// Streaming quality of reconstructions, for models whose output site is their input site, or with
/// the rows of the output site as x.
///
/// Every number of a row is formed by the kernels' lanes and tree in f64, rounded, and then added
/// exactly, as in [`Accumulator`](super::Accumulator): merging and the order of rows change no bit,
/// and [`Quality::remove`] undoes [`Quality::add`] exactly.
///
/// The global variance is `sum |x - c|^2 - |sum (x - c)|^2 / n` with a fixed c near the mean (the
/// decoder's bias), so little cancels: its relative error is at most about
/// `d 2^-52 sum |x - c|^2 / sum |x - mean|^2`.
///
/// Snapshots: [`Quality::to_bytes`] comes back to the bit, [`Quality::to_json`] is for reading. Which
/// features are dead and how long the description of a row is follow from an
/// [`Accumulator`](super::Accumulator) and stand in its snapshots.
#[derive(Clone, Debug)]
pub struct Quality {
    kernels: &'static Kernels,
    /// [`Sae::fingerprint`] of the model.
    pub(super) model: u64,
    /// c.
    pub(super) about: Vec<f64>,
    pub(super) known_mean: bool,
    bias: Vec<f64>,
    pub(super) rows: u64,
    pub(super) non_finite: u64,
    pub(super) overflows: u64,
    pub(super) anomalous: u64,
    pub(super) sums: [Sum; TERMS],
    /// `sum (x - c)`, per column; empty if the mean is known.
    pub(super) columns: Vec<Sum>,
    /// The baseline, and the score above which a row is anomalous.
    pub(super) errors: Option<(ErrorModel, f64)>,
    work: Vec<f64>,
    narrow: Vec<f32>,
}

impl Quality {
    /// Nothing seen yet; the variance is that about the mean of the rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(sae: &Sae<'_>) -> Result<Self, Error> {
        Self::make(sae, None)
    }

    /// Nothing seen yet; the variance is that about this row.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::OutOfMemory`]; [`Error::InvalidArgument`] if it is not finite.
    pub fn about(sae: &Sae<'_>, mean: &[f32]) -> Result<Self, Error> {
        if mean.len() != sae.d_out() {
            return Err(Error::Length {
                what: "values of a mean row",
                expected: sae.d_out() as u64,
                found: mean.len() as u64,
            });
        }
        if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::InvalidArgument {
                what: "mean row",
                expected: "finite values".into(),
                found: alloc::format!("{value}"),
            });
        }
        Self::make(sae, Some(mean))
    }

    /// Scores every row from here on by a baseline of its error, and counts those whose score is
    /// above `over`.
    ///
    /// # Errors
    /// [`Error::Length`] for a baseline of rows of another width; [`Error::InvalidArgument`] for one
    /// with a number that is not finite, or once rows were added.
    pub fn set_error_model(&mut self, model: ErrorModel, over: f64) -> Result<(), Error> {
        if model.weights.len() != self.work.len() {
            return Err(Error::Length {
                what: "weights of an error model",
                expected: self.work.len() as u64,
                found: model.weights.len() as u64,
            });
        }
        let seen = self.rows > 0 || self.non_finite > 0 || self.overflows > 0;
        if seen || !model.is_finite() || !over.is_finite() {
            return Err(Error::InvalidArgument {
                what: "error model",
                expected: "finite numbers, before the first row".into(),
                found: match seen {
                    true => alloc::format!("{} rows", self.rows),
                    false => "a number that is not finite".into(),
                },
            });
        }
        self.errors = Some((model, over));
        Ok(())
    }

    pub(super) fn make(sae: &Sae<'_>, mean: Option<&[f32]>) -> Result<Self, Error> {
        let d = sae.d_out();
        let mut bias = filled(d, 0.0)?;
        if let Some(values) = &sae.parts().decoder_bias {
            bias.copy_from_slice(values);
        }
        let about = match mean {
            None => bias.clone(),
            Some(mean) => mean.iter().map(|&value| f64::from(value)).collect(),
        };
        Ok(Quality {
            kernels: sae.kernels,
            model: sae.fingerprint(),
            about,
            known_mean: mean.is_some(),
            bias,
            rows: 0,
            non_finite: 0,
            overflows: 0,
            anomalous: 0,
            sums: [Sum::default(); TERMS],
            columns: filled(if mean.is_some() { 0 } else { d }, Sum::default())?,
            errors: None,
            work: filled(d, 0.0)?,
            narrow: filled(d, 0.0)?,
        })
    }

    /// Values per row.
    pub fn d_out(&self) -> usize {
        self.work.len()
    }

    /// Bytes held, which change with an error model only.
    pub fn bytes(&self) -> u64 {
        let weights = self.errors.as_ref();
        let lists = [
            weights.map_or(0, |errors| size_of_val(&errors.0.weights[..])),
            size_of_val(&self.narrow[..]),
            size_of_val(&self.about[..]),
            size_of_val(&self.bias[..]),
            size_of_val(&self.columns[..]),
            size_of_val(&self.work[..]),
            size_of::<Self>(),
        ];
        lists.iter().sum::<usize>() as u64
    }

    /// The quality of one row; nothing is added. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Length`] if row or reconstruction are not d_out wide.
    pub fn row(
        &mut self,
        row: &[f32],
        features: FeaturesRow<'_>,
        reconstruction: &[f32],
    ) -> Result<RowQuality, Error> {
        Ok(self.measure(row, features, reconstruction)?.0)
    }

    fn measure(
        &mut self,
        row: &[f32],
        features: FeaturesRow<'_>,
        reconstruction: &[f32],
    ) -> Result<(RowQuality, [f64; TERMS]), Error> {
        let d = self.work.len();
        for values in [row, reconstruction] {
            if values.len() != d {
                return Err(Error::Length {
                    what: "values of a row and its reconstruction",
                    expected: d as u64,
                    found: values.len() as u64,
                });
            }
        }
        let finite = features.status != RowStatus::NonFinite
            && row
                .iter()
                .chain(reconstruction)
                .all(|value| value.is_finite())
            && features.values.iter().all(|value| value.is_finite());
        if !finite {
            return Ok((RowQuality::default(), [0.0; TERMS]));
        }
        let (kernels, work) = (self.kernels, &mut self.work);
        let mut sum = |squares: bool, of: &dyn Fn(usize) -> f64| {
            for (at, value) in work.iter_mut().enumerate() {
                *value = of(at);
            }
            match squares {
                true => kernels.sum_squares_about(work, 0.0),
                false => kernels.sum(work),
            }
        };
        let value = |of: &[f32], at: usize| f64::from(of.get(at).copied().unwrap_or(0.0));
        let wide = |of: &[f64], at: usize| of.get(at).copied().unwrap_or(0.0);
        let xx = sum(true, &|at| value(row, at));
        let yy = sum(true, &|at| value(reconstruction, at));
        let ee = sum(true, &|at| value(row, at) - value(reconstruction, at));
        let about = sum(true, &|at| value(row, at) - wide(&self.about, at));
        let centred = sum(true, &|at| value(row, at) - wide(&self.bias, at));
        let decoded = sum(true, &|at| value(reconstruction, at) - wide(&self.bias, at));
        let xy = sum(false, &|at| value(row, at) * value(reconstruction, at));
        // In ascending order of the features.
        let l1: f64 = features.values.iter().map(|&f| f64::from(f)).sum();
        let ff: f64 = features
            .values
            .iter()
            .map(|&f| f64::from(f) * f64::from(f))
            .sum();
        let over = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
        let (norm, reconstruction_norm, l2) = (libm::sqrt(xx), libm::sqrt(yy), libm::sqrt(ff));
        let distance = l2 - libm::sqrt(centred);
        let mut found = RowQuality {
            l0: features.values.iter().filter(|&&f| f != 0.0).count() as f64,
            l1,
            l2,
            norm,
            reconstruction_norm,
            error_norm: libm::sqrt(ee),
            cosine: over(over(xy, norm), reconstruction_norm),
            norm_ratio: over(reconstruction_norm, norm),
            zf_deviation: over(decoded - ff, ff),
            afa_loss: distance * distance,
            anomaly: 0.0,
            finite: true,
        };
        if let Some((model, _)) = &self.errors {
            found.anomaly = model.score(row, &found);
        }
        let terms = [
            found.l0,
            l1,
            about,
            ee,
            yy,
            xy,
            found.cosine,
            found.norm_ratio,
            found.zf_deviation,
            found.afa_loss,
        ];
        Ok((found, terms))
    }

    /// Adds a row, with its features and its reconstruction, and returns its quality. One that is
    /// not finite is counted. Allocates nothing.
    ///
    /// # Errors
    /// As [`Quality::row`].
    pub fn add(
        &mut self,
        row: &[f32],
        features: FeaturesRow<'_>,
        reconstruction: &[f32],
    ) -> Result<RowQuality, Error> {
        self.change(row, features, reconstruction, false)
    }

    /// Adds rows of any format with their features and reconstructions, `[rows, d_out]`; `each` is
    /// told the number of a row and its quality. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are as many of each, d_out wide; nothing is added then.
    pub fn add_all(
        &mut self,
        rows: Rows<'_>,
        features: &Features,
        reconstructions: &[f32],
        each: &mut dyn FnMut(usize, &RowQuality),
    ) -> Result<(), Error> {
        let d = self.work.len();
        let lengths = [
            ("values per row", d, rows.width()),
            ("rows of features", rows.rows(), features.rows()),
            (
                "values of reconstructions",
                rows.rows().saturating_mul(d),
                reconstructions.len(),
            ),
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
        let mut narrow = core::mem::take(&mut self.narrow);
        let parts = features.iter().zip(reconstructions.chunks_exact(d.max(1)));
        let mut result = Ok(());
        for (number, (found, decoded)) in parts.enumerate() {
            rows.read(number, &mut narrow);
            match self.add(&narrow, found, decoded) {
                Ok(quality) => each(number, &quality),
                Err(error) => result = Err(error),
            }
        }
        self.narrow = narrow;
        result
    }

    /// Undoes [`Quality::add`] of the same row, to the bit, whatever was added since.
    ///
    /// # Errors
    /// As [`Quality::row`].
    pub fn remove(
        &mut self,
        row: &[f32],
        features: FeaturesRow<'_>,
        reconstruction: &[f32],
    ) -> Result<RowQuality, Error> {
        self.change(row, features, reconstruction, true)
    }

    fn change(
        &mut self,
        row: &[f32],
        features: FeaturesRow<'_>,
        reconstruction: &[f32],
        undo: bool,
    ) -> Result<RowQuality, Error> {
        let (found, terms) = self.measure(row, features, reconstruction)?;
        let one = if undo { u64::MAX } else { 1 };
        if !found.finite {
            self.non_finite = self.non_finite.wrapping_add(one);
            return Ok(found);
        }
        let limit = NORM_LIMIT * NORM_LIMIT;
        if found.norm >= NORM_LIMIT
            || terms
                .iter()
                .any(|term| term.is_nan() || term.abs() >= limit)
        {
            self.overflows = self.overflows.wrapping_add(one);
            return Ok(found);
        }
        self.rows = self.rows.wrapping_add(one);
        if (self.errors.as_ref()).is_some_and(|(_, over)| found.anomaly > *over) {
            self.anomalous = self.anomalous.wrapping_add(one);
        }
        let put = |sum: &mut Sum, term: f64| match undo {
            true => sum.take(Sum::of(term)),
            false => sum.add(term),
        };
        for (sum, term) in self.sums.iter_mut().zip(terms) {
            put(sum, term);
        }
        for ((sum, value), about) in self.columns.iter_mut().zip(row).zip(&self.about) {
            put(sum, f64::from(*value) - about);
        }
        Ok(found)
    }

    /// Adds what another one has seen.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it measures the variance about another row, another model, or
    /// anomalies by another baseline.
    pub fn merge(&mut self, other: &Quality) -> Result<(), Error> {
        let same = self.model == other.model
            && self.known_mean == other.known_mean
            && self.about == other.about
            && self.errors == other.errors;
        if !same {
            return Err(Error::InvalidArgument {
                what: "quality to merge",
                expected: "that of the same model, about the same mean, by the same error model"
                    .into(),
                found: "another".into(),
            });
        }
        // Snapshots may say any number.
        self.rows = self.rows.saturating_add(other.rows);
        self.non_finite = self.non_finite.saturating_add(other.non_finite);
        self.overflows = self.overflows.saturating_add(other.overflows);
        self.anomalous = self.anomalous.saturating_add(other.anomalous);
        for (sum, other) in self.sums.iter_mut().zip(other.sums) {
            sum.merge(other);
        }
        for (sum, other) in self.columns.iter_mut().zip(&other.columns) {
            sum.merge(*other);
        }
        Ok(())
    }

    /// Means over all rows so far.
    pub fn summary(&self) -> QualitySummary {
        let n = self.rows as f64;
        let total = |term: Term| self.sums.get(term as usize).map_or(0.0, |sum| sum.value());
        let over = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
        let mean = |term: Term| over(total(term), n);
        let mut shift = 0.0;
        for column in &self.columns {
            let value = column.value();
            shift += value * value;
        }
        let variance = (total(Term::About) - over(shift, n)).max(0.0);
        let fvu = over(total(Term::Error), variance);
        QualitySummary {
            rows: self.rows,
            non_finite: self.non_finite,
            overflows: self.overflows,
            anomalous: self.anomalous,
            l0: mean(Term::L0),
            l1: mean(Term::L1),
            mse: over(mean(Term::Error), self.work.len() as f64),
            fvu,
            explained_variance: 1.0 - fvu,
            cosine: mean(Term::Cosine),
            norm_ratio: mean(Term::Ratio),
            reconstruction_bias: over(total(Term::Reconstruction), total(Term::Product)),
            zf_deviation: mean(Term::Zf),
            afa_loss: mean(Term::Afa),
        }
    }
}
