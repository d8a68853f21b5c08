//! Correlations of the features of two models over the same rows.

use super::vectors::reserved;
use crate::error::Error;
use crate::features::{FeaturesRow, RowStatus};
use alloc::vec::Vec;

/// Streaming Pearson correlations of features of one model with features of another, over rows that
/// both saw: `sum f`, `sum f^2` of each and `sum f f'` of each pair, in f64 in the order of the rows;
/// `first * second * 8` bytes, which never change.
#[derive(Clone, Debug)]
pub struct Correlation {
    first: Side,
    second: Side,
    rows: u64,
    skipped: u64,
    /// `[first, second]`
    products: Vec<f64>,
}

#[derive(Clone, Debug)]
struct Side {
    features: Vec<u32>,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

/// The best partner of a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// The feature.
    pub feature: u32,
    /// Its partner of the largest correlation, the lowest among equals.
    pub partner: u32,
    /// The correlation; 0 if one of them does not vary.
    pub correlation: f64,
    /// Sum of the feature's values, its weight in [`wmppc`].
    pub sum: f64,
}

impl Side {
    fn new(features: &[u32]) -> Result<Self, Error> {
        let mut features = features.to_vec();
        features.sort_unstable();
        features.dedup();
        let zeros = || -> Result<Vec<f64>, Error> {
            let mut values = reserved(features.len(), "correlations")?;
            values.resize(features.len(), 0.0);
            Ok(values)
        };
        let (sums, squares) = (zeros()?, zeros()?);
        Ok(Side {
            features,
            sums,
            squares,
        })
    }

    fn active<'r>(&'r self, row: FeaturesRow<'r>) -> impl Iterator<Item = (usize, f64)> + 'r {
        let pairs = row.indices.iter().zip(row.values);
        pairs.filter_map(|(index, &value)| {
            Some((self.features.binary_search(index).ok()?, f64::from(value)))
        })
    }

    fn add(&mut self, row: FeaturesRow<'_>) {
        for (index, &value) in row.indices.iter().zip(row.values) {
            let Ok(slot) = self.features.binary_search(index) else {
                continue;
            };
            let value = f64::from(value);
            for (sums, term) in [(&mut self.sums, value), (&mut self.squares, value * value)] {
                if let Some(sum) = sums.get_mut(slot) {
                    *sum += term;
                }
            }
        }
    }

    fn moments(&self, slot: usize) -> (f64, f64) {
        let read = |of: &[f64]| of.get(slot).copied().unwrap_or(0.0);
        (read(&self.sums), read(&self.squares))
    }
}

impl Correlation {
    /// Nothing seen yet, of these features of the two models.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(first: &[u32], second: &[u32]) -> Result<Self, Error> {
        let (first, second) = (Side::new(first)?, Side::new(second)?);
        let count = first.features.len().saturating_mul(second.features.len());
        let mut products = reserved(count, "correlations")?;
        products.resize(count, 0.0);
        Ok(Correlation {
            first,
            second,
            rows: 0,
            skipped: 0,
            products,
        })
    }

    /// Adds a row as both models see it. One that is not finite in either, or that holds an infinite
    /// value, is counted and left out.
    pub fn add(&mut self, first: FeaturesRow<'_>, second: FeaturesRow<'_>) {
        let usable = |row: FeaturesRow<'_>| {
            row.status != RowStatus::NonFinite && row.values.iter().all(|value| value.is_finite())
        };
        if !usable(first) || !usable(second) {
            self.skipped += 1;
            return;
        }
        self.rows += 1;
        self.first.add(first);
        self.second.add(second);
        let columns = self.second.features.len();
        for (i, value) in self.first.active(first) {
            for (j, other) in self.second.active(second) {
                if let Some(sum) = self.products.get_mut(i * columns + j) {
                    *sum += value * other;
                }
            }
        }
    }

    /// Rows that entered, and rows that were left out.
    pub fn rows(&self) -> (u64, u64) {
        (self.rows, self.skipped)
    }

    /// The correlation of a pair; 0 if one of them does not vary, `None` if it is not followed.
    pub fn of(&self, first: u32, second: u32) -> Option<f64> {
        let i = self.first.features.binary_search(&first).ok()?;
        let j = self.second.features.binary_search(&second).ok()?;
        Some(self.at(i, j))
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        let n = self.rows as f64;
        let ((x, xx), (y, yy)) = (self.first.moments(i), self.second.moments(j));
        let at = i * self.second.features.len() + j;
        let xy = self.products.get(at).copied().unwrap_or(0.0);
        let (vx, vy) = (n * xx - x * x, n * yy - y * y);
        // What is left of a constant is rounding.
        if vx <= n * xx * 1e-13 || vy <= n * yy * 1e-13 {
            return 0.0;
        }
        ((n * xy - x * y) / libm::sqrt(vx) / libm::sqrt(vy)).clamp(-1.0, 1.0)
    }

    /// The best partner of every feature of the first model; none if the second has no features.
    pub fn best(&self) -> Vec<Best> {
        best(&self.first, &self.second, |i, j| self.at(i, j))
    }

    /// The best partner of every feature of the second model; none if the first has no features.
    pub fn best_of_second(&self) -> Vec<Best> {
        best(&self.second, &self.first, |j, i| self.at(i, j))
    }
}

fn best(of: &Side, among: &Side, correlation: impl Fn(usize, usize) -> f64) -> Vec<Best> {
    let each = of.features.iter().enumerate();
    let one = |(i, &feature): (usize, &u32)| {
        let partners = among.features.iter().enumerate();
        let partners = partners.map(|(j, &partner)| (partner, correlation(i, j)));
        let best = partners.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(partner, correlation)| Best {
            feature,
            partner,
            correlation,
            sum: of.moments(i).0,
        })
    };
    each.filter_map(one).collect()
}

/// wMPPC: `sum rho_i S_i / sum S_i`, `rho_i` the largest correlation of feature i with any feature of
/// the other model, S_i the sum of its values. `layers` are the best partners in each layer of the
/// other model, over the same features. 0 if nothing fired.
///
/// # Errors
/// [`Error::Length`] if the layers are not over the same features.
pub fn wmppc(layers: &[Vec<Best>]) -> Result<f64, Error> {
    let rho = largest(layers)?;
    let Some(first) = layers.first() else {
        return Ok(0.0);
    };
    let total: f64 = first.iter().map(|best| best.sum).sum();
    let weighted: f64 = first
        .iter()
        .zip(rho)
        .map(|(best, rho)| best.sum * rho)
        .sum();
    Ok(if total == 0.0 { 0.0 } else { weighted / total })
}

fn largest(layers: &[Vec<Best>]) -> Result<Vec<f64>, Error> {
    let mut rho: Vec<f64> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        if number == 0 {
            rho = layer.iter().map(|best| best.correlation).collect();
        }
        let same = layers.first().is_some_and(|first| {
            first.len() == layer.len()
                && first.iter().zip(layer).all(|(a, b)| a.feature == b.feature)
        });
        if !same {
            return Err(Error::Length {
                what: "features of the layers, which are the same",
                expected: rho.len() as u64,
                found: layer.len() as u64,
            });
        }
        for (rho, best) in rho.iter_mut().zip(layer) {
            *rho = rho.max(best.correlation);
        }
    }
    Ok(rho)
}

/// Comparative sharedness of every feature: `S_i (min_G rho_i^2 - max_H rho_i^2)`: how much better the
/// models of `group` know it than those of `against`. The minimum starts at the first model, not at 0
/// as in the published code, which makes it always 0.
///
/// # Errors
/// [`Error::Length`] if the models are not over the same features, or a side has none.
pub fn sharedness(group: &[Vec<Best>], against: &[Vec<Best>]) -> Result<Vec<f64>, Error> {
    let all: Vec<Vec<Best>> = group.iter().chain(against).cloned().collect();
    largest(&all)?;
    let (Some(first), false) = (group.first(), against.is_empty()) else {
        return Err(Error::Length {
            what: "models on each side",
            expected: 1,
            found: 0,
        });
    };
    let squares = |of: &'_ [Vec<Best>], i: usize| -> Vec<f64> {
        let at = of.iter().filter_map(|layer| layer.get(i));
        at.map(|best| best.correlation * best.correlation).collect()
    };
    let one = |(i, best): (usize, &Best)| {
        let least = squares(group, i).into_iter().fold(f64::INFINITY, f64::min);
        let most = squares(against, i).into_iter().fold(0.0, f64::max);
        best.sum * (least - most)
    };
    Ok(first.iter().enumerate().map(one).collect())
}
