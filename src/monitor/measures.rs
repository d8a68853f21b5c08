//! Measures of features that need more than counts: how well they predict properties, how alike
//! the inputs are on which they fire, which of them is strongest.

use super::accumulator::{Accumulator, Confusion, filled};
use crate::error::Error;
use crate::features::{FeaturesRow, RowStatus};
use alloc::vec::Vec;

/// The feature with the largest value in a row, the lowest among equals; `None` if none fires.
/// PS-Eval asks whether two rows have the same.
pub fn strongest(row: FeaturesRow<'_>) -> Option<(u32, f32)> {
    let pairs = row.indices.iter().zip(row.values);
    pairs.fold(None, |best, (&index, &value)| match best {
        Some((_, most)) if value <= most => best,
        _ => Some((index, value)),
    })
}

impl Confusion {
    /// `(tp + tn) / all`; 0 if there is nothing.
    pub fn accuracy(&self) -> f64 {
        let right = self.true_positives + self.true_negatives;
        match right + self.false_positives + self.false_negatives {
            0 => 0.0,
            all => right as f64 / all as f64,
        }
    }
}

impl Accumulator {
    /// The feature and the threshold (its number) that predict a label above 1/2 best by F1, the
    /// lowest among equals; `None` if no thresholds are collected.
    pub fn best_f1(&self) -> Option<(u32, usize, f64)> {
        let mut best: Option<(u32, usize, f64)> = None;
        for feature in self.features() {
            for threshold in 0..self.collect().thresholds.len() {
                let f1 = self.confusion(feature, threshold)?.f1();
                if best.is_none_or(|(_, _, most)| f1 > most) {
                    best = Some((feature, threshold, f1));
                }
            }
        }
        best
    }
}

/// Coverage of properties (board games): the mean of [`Accumulator::best_f1`], over one accumulator
/// for each property; 0 if there are none.
pub fn coverage(properties: &[Accumulator]) -> f64 {
    let best = properties.iter().filter_map(Accumulator::best_f1);
    match properties.len() {
        0 => 0.0,
        all => best.map(|(_, _, f1)| f1).sum::<f64>() / all as f64,
    }
}

/// MonoSemanticity of features: the mean cosine of all pairs of inputs, each pair weighted by the
/// product of the feature's values on both. 1 for a feature that fires on inputs that are all alike.
///
/// With unit embeddings e and values a it is `(|sum a e|^2 - sum a^2) / ((sum a)^2 - sum a^2)`, so no
/// pairs are kept: d sums per feature. Scaling all values of a feature changes nothing, so the
/// paper's scaling to at most 1 is there; values must not be negative. The sums are plain f64 in the
/// order of the rows.
#[derive(Clone, Debug)]
pub struct Monosemanticity {
    features: Vec<u32>,
    d: usize,
    /// `[features, d]`
    directions: Vec<f64>,
    sums: Vec<f64>,
    squares: Vec<f64>,
    unit: Vec<f64>,
}

impl Monosemanticity {
    /// Nothing seen yet, of these features and of embeddings of d values.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(features: &[u32], d: usize) -> Result<Self, Error> {
        let mut features = features.to_vec();
        features.sort_unstable();
        features.dedup();
        let n = features.len();
        Ok(Monosemanticity {
            d,
            directions: filled(n.saturating_mul(d), 0.0)?,
            sums: filled(n, 0.0)?,
            squares: filled(n, 0.0)?,
            unit: filled(d, 0.0)?,
            features,
        })
    }

    /// Adds an input: its features, and its embedding by whatever model tells inputs apart. One
    /// that is not finite, or an embedding of length 0, is left out; so are negative values.
    ///
    /// # Errors
    /// [`Error::Length`] if the embedding has another length.
    pub fn add(&mut self, row: FeaturesRow<'_>, embedding: &[f32]) -> Result<(), Error> {
        if embedding.len() != self.d {
            return Err(Error::Length {
                what: "values of an embedding",
                expected: self.d as u64,
                found: embedding.len() as u64,
            });
        }
        let squares: f64 = embedding.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let usable = squares > 0.0 && squares.is_finite();
        if row.status == RowStatus::NonFinite || !usable {
            return Ok(());
        }
        let length = libm::sqrt(squares);
        for (unit, &x) in self.unit.iter_mut().zip(embedding) {
            *unit = f64::from(x) / length;
        }
        for (&index, &value) in row.indices.iter().zip(row.values) {
            let (Ok(slot), true) = (self.features.binary_search(&index), value > 0.0) else {
                continue;
            };
            if !value.is_finite() {
                continue;
            }
            let value = f64::from(value);
            let direction = self.directions.get_mut(slot * self.d..(slot + 1) * self.d);
            for (sum, unit) in direction.unwrap_or(&mut []).iter_mut().zip(&self.unit) {
                *sum += value * unit;
            }
            for (sums, term) in [(&mut self.sums, value), (&mut self.squares, value * value)] {
                if let Some(sum) = sums.get_mut(slot) {
                    *sum += term;
                }
            }
        }
        Ok(())
    }

    /// The score of a feature; `None` if it is not among them or fired on fewer than two inputs.
    pub fn score(&self, feature: u32) -> Option<f64> {
        let slot = self.features.binary_search(&feature).ok()?;
        let direction = self.directions.get(slot * self.d..(slot + 1) * self.d)?;
        let (sum, squares) = (self.sums.get(slot)?, self.squares.get(slot)?);
        let pairs = sum * sum - squares;
        let length: f64 = direction.iter().map(|x| x * x).sum();
        // Of one input alone nothing is left but rounding.
        (pairs > sum * sum * 1e-12).then(|| (length - squares) / pairs)
    }
}
