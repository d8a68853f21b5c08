//! What an accumulator collects, as data; and how values fall into bins.

use crate::error::Error;
use crate::model::Sae;
use alloc::string::ToString;
use alloc::vec::Vec;

/// What an [`Accumulator`](super::Accumulator) collects. Memory follows from it and never grows.
///
/// Counts, sums, sums of squares, maxima with their rows, minima over active rows and the row that
/// fired last are always there; the rest is asked for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Collect {
    /// [`Sae::fingerprint`] of the model.
    pub model: u64,
    /// Features of the model.
    pub d_sae: u32,
    /// The features collected, ascending; `None`: all of them.
    pub features: Option<Vec<u32>>,
    /// A histogram of the magnitudes of active values.
    pub bins: Option<Bins>,
    /// The rows of the largest values, so many per feature (at most [`MAX_TOP`]).
    pub top: u32,
    /// Features whose pairwise co-occurrence is counted, ascending.
    pub cooccurrence: Vec<u32>,
    /// Row conditions `0 .. conditions`, each with its own counts and sums; 0: none.
    pub conditions: u32,
    /// Sums with the rows' scalar label, for Pearson's correlation.
    pub label: bool,
    /// Values above which a feature predicts a label above 1/2, none negative.
    pub thresholds: Vec<f32>,
    /// Half-life, in rows, of the exponential average of the firing rate.
    pub half_life: Option<f64>,
}

/// Most rows that are kept per feature.
pub const MAX_TOP: u32 = 1024;
/// Most bins of a histogram, conditions and thresholds.
pub const MAX_BINS: u32 = 4096;

/// Bins of a histogram of `|f|`; values below the first bin fall into it, values beyond the last
/// one into that.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Bins {
    /// `2^split` equally wide bins in each octave `2^e .. 2^(e + 1)`, for
    /// `first <= e < end`. Found by bits, without a logarithm.
    Log {
        /// From 0 to 6.
        split: u8,
        /// The first exponent, from -126.
        first: i8,
        /// The exponent after the last, up to 127.
        end: i8,
    },
    /// `count` bins of this width, from 0.
    Linear {
        /// Above 0.
        width: f32,
        /// At least 1.
        count: u32,
    },
}

impl Bins {
    /// Two bins per octave from 2^-10 to 2^14: 48 bins.
    pub const USUAL: Bins = Bins::Log {
        split: 1,
        first: -10,
        end: 14,
    };

    /// How many bins there are.
    pub fn count(self) -> usize {
        match self {
            Bins::Log { split, first, end } => (usize::from(end.abs_diff(first))) << split.min(6),
            Bins::Linear { count, .. } => count as usize,
        }
    }

    /// The bin of a value that is not NaN.
    pub fn of(self, value: f32) -> usize {
        let magnitude = value.abs();
        let last = self.count().saturating_sub(1);
        match self {
            Bins::Log { split, first, .. } => {
                // The exponent and the first `split` bits of the fraction, counted from `first`.
                let place = (magnitude.to_bits() >> (23 - u32::from(split.min(6)))) as i64;
                let start = (i64::from(first) + 127) << split.min(6);
                ((place - start).max(0) as usize).min(last)
            }
            Bins::Linear { width, .. } => {
                // `as` saturates.
                ((f64::from(magnitude) / f64::from(width)) as usize).min(last)
            }
        }
    }

    /// Where a bin begins; that of `count()` is where the last one ends.
    pub fn start(self, bin: usize) -> f64 {
        match self {
            Bins::Log { split, first, .. } => {
                let parts = 1usize << split.min(6);
                let octave = libm::scalbn(1.0, i32::from(first) + (bin / parts) as i32);
                octave * (1.0 + (bin % parts) as f64 / parts as f64)
            }
            Bins::Linear { width, .. } => f64::from(width) * bin as f64,
        }
    }

    /// Whether these are bins, and no more than there may be.
    pub(super) fn valid(self) -> Result<(), Error> {
        let valid = match self {
            Bins::Log { split, first, end } => split <= 6 && first < end && first >= -126,
            Bins::Linear { width, count } => width > 0.0 && width.is_finite() && count > 0,
        };
        if !valid {
            let expected = "first < end, at least -126, and split up to 6; or a width above 0";
            return Err(Error::InvalidArgument {
                what: "bins of a histogram",
                expected: expected.into(),
                found: alloc::format!("{self:?}"),
            });
        }
        let count = self.count() as u64;
        match count > MAX_BINS.into() {
            true => Err(Error::Limit {
                what: "bins of a histogram".into(),
                limit: MAX_BINS.into(),
                found: count,
            }),
            false => Ok(()),
        }
    }
}

impl Collect {
    /// All features of a model.
    pub fn all(sae: &Sae<'_>) -> Self {
        Collect {
            model: sae.fingerprint(),
            d_sae: sae.d_sae() as u32,
            features: None,
            bins: None,
            top: 0,
            cooccurrence: Vec::new(),
            conditions: 0,
            label: false,
            thresholds: Vec::new(),
            half_life: None,
        }
    }

    /// These features of a model.
    pub fn features(sae: &Sae<'_>, features: &[u32]) -> Self {
        Collect {
            features: Some(features.to_vec()),
            ..Self::all(sae)
        }
    }

    /// With a histogram.
    #[must_use]
    pub fn histogram(mut self, bins: Bins) -> Self {
        self.bins = Some(bins);
        self
    }

    /// With the rows of the `count` largest values.
    #[must_use]
    pub fn top(mut self, count: u32) -> Self {
        self.top = count;
        self
    }

    /// With counts of pairs of these features.
    #[must_use]
    pub fn cooccurrence(mut self, features: &[u32]) -> Self {
        self.cooccurrence = features.to_vec();
        self
    }

    /// With counts and sums for each of so many conditions.
    #[must_use]
    pub fn conditions(mut self, count: u32) -> Self {
        self.conditions = count;
        self
    }

    /// With sums with a scalar label.
    #[must_use]
    pub fn label(mut self) -> Self {
        self.label = true;
        self
    }

    /// With true and false positives of a binary label (above 1/2) at these thresholds.
    #[must_use]
    pub fn thresholds(mut self, thresholds: &[f32]) -> Self {
        self.thresholds = thresholds.to_vec();
        self
    }

    /// With an exponential average of the firing rate.
    #[must_use]
    pub fn half_life(mut self, rows: f64) -> Self {
        self.half_life = Some(rows);
        self
    }

    /// How many features are collected.
    pub fn slots(&self) -> usize {
        self.features.as_ref().map_or(self.d_sae as usize, Vec::len)
    }

    /// The place of a feature among those collected.
    pub(crate) fn slot(&self, feature: u32) -> Option<usize> {
        match &self.features {
            None => (feature < self.d_sae).then_some(feature as usize),
            Some(features) => features.binary_search(&feature).ok(),
        }
    }

    /// Sorts the lists and checks the numbers.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        let lists = self.features.iter_mut().chain([&mut self.cooccurrence]);
        for list in lists {
            list.sort_unstable();
            list.dedup();
            if let Some(&last) = list.last().filter(|&&last| last >= self.d_sae) {
                return Err(Error::FeatureOutOfRange {
                    feature: last.into(),
                    d_sae: self.d_sae.into(),
                });
            }
        }
        let limit = |what: &'static str, found: u64, limit: u32| match found > limit.into() {
            true => Err(Error::Limit {
                what: what.into(),
                limit: limit.into(),
                found,
            }),
            false => Ok(()),
        };
        limit("rows kept per feature", self.top.into(), MAX_TOP)?;
        limit("conditions", self.conditions.into(), MAX_BINS)?;
        limit("thresholds", self.thresholds.len() as u64, MAX_BINS)?;
        limit(
            "features of a co-occurrence",
            self.cooccurrence.len() as u64,
            MAX_BINS,
        )?;
        let invalid = |what, expected: &str, found| {
            Err(Error::InvalidArgument {
                what,
                expected: expected.into(),
                found,
            })
        };
        if let Some(bins) = self.bins {
            bins.valid()?;
        }
        let mut thresholds = self.thresholds.iter();
        if let Some(found) = thresholds.find(|t| !(t.is_finite() && **t >= 0.0)) {
            return invalid(
                "threshold",
                "a finite number, 0 or above",
                found.to_string(),
            );
        }
        if let Some(found) = self.half_life.filter(|h| !(h.is_finite() && *h > 0.0)) {
            return invalid(
                "half-life in rows",
                "a finite number above 0",
                found.to_string(),
            );
        }
        Ok(self)
    }
}
