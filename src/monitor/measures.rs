//! Measures of features that need more than counts: how well they predict properties, how alike
//! the inputs are on which they fire, which of them is strongest.

use super::accumulator::{Accumulator, Confusion};
pub use super::monosemanticity::Monosemanticity;
use crate::features::FeaturesRow;

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
