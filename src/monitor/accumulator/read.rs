//! Reading statistics out.

use super::*;

impl Accumulator {
    /// Rows that entered the statistics.
    pub fn rows(&self) -> u64 {
        self.totals.rows
    }

    /// Rows that were not finite, which entered nothing.
    pub fn non_finite(&self) -> u64 {
        self.totals.non_finite
    }

    /// Rows with a NaN pre-activation; the features that fired in them are counted.
    pub fn nan_pre_activations(&self) -> u64 {
        self.totals.nan_pre_activations
    }

    /// Values that were too large for a sum (2^31 and beyond).
    pub fn overflows(&self) -> u64 {
        self.totals.overflows
    }

    /// Rows that had a label, and how many of those labels were above 1/2.
    pub fn labelled(&self) -> (u64, u64) {
        (self.totals.labelled, self.totals.positives)
    }

    /// The features that are collected, ascending.
    pub fn features(&self) -> impl Iterator<Item = u32> {
        let list = self.collect.features.as_deref();
        (0..self.cells.len()).map(move |slot| match list {
            None => slot as u32,
            Some(list) => list.get(slot).copied().unwrap_or(0),
        })
    }

    /// What is known of a feature, or `None` if it is not collected.
    pub fn feature(&self, feature: u32) -> Option<FeatureSummary> {
        let slot = self.collect.slot(feature)?;
        let cell = self.cells.get(slot)?;
        let rows = self.totals.rows;
        let over = |value: f64, count: u64| match count {
            0 => 0.0,
            count => value / count as f64,
        };
        let spread = cell.sum.spread(cell.squares, rows).max(0.0);
        Some(FeatureSummary {
            feature,
            fired: cell.fired,
            density: over(cell.fired as f64, rows),
            mean: over(cell.sum.value(), rows),
            mean_active: over(cell.sum.value(), cell.fired),
            variance: over(over(spread, rows), rows),
            max: cell.max,
            max_at: cell.max_at,
            min: cell.min,
            rows_since: (cell.fired > 0).then(|| rows - cell.last),
            rate: self.collect.half_life.map(|half_life| {
                if rows == 0 {
                    return 0.0;
                }
                let now = cell.average * decay(rows - cell.last, half_life);
                // 1 + d + d^2 + .., one term for each row.
                let step = decay(1, half_life);
                let weights = match step < 1.0 {
                    true => (1.0 - decay(rows, half_life)) / (1.0 - step),
                    false => rows as f64,
                };
                now / weights
            }),
        })
    }

    /// All features collected.
    pub fn summaries(&self) -> impl Iterator<Item = FeatureSummary> {
        self.features().filter_map(|feature| self.feature(feature))
    }

    /// Sum of a feature's values.
    pub fn sum(&self, feature: u32) -> Option<f64> {
        let cell = self.cells.get(self.collect.slot(feature)?)?;
        Some(cell.sum.value())
    }

    /// The histogram of a feature's magnitudes; empty if none is collected.
    pub fn histogram(&self, feature: u32) -> &[u64] {
        let bins = self.collect.bins.map_or(0, |bins| bins.count());
        let slot = self.collect.slot(feature);
        slot.and_then(|slot| self.histograms.get(slot * bins..(slot + 1) * bins))
            .unwrap_or(&[])
    }

    /// The rows in which a feature was largest: descending, the lowest row among equals.
    pub fn top(&self, feature: u32) -> &[TopRow] {
        let top = self.collect.top as usize;
        let rows = || {
            let slot = self.collect.slot(feature)?;
            let count = (self.cells.get(slot)?.fired as usize).min(top);
            self.tops.get(slot * top..slot * top + count)
        };
        rows().unwrap_or(&[])
    }

    /// Rows in which two features of the co-occurrence set were both active (the same twice: in
    /// which it was active); `None` if one of them is not in the set.
    pub fn pair(&self, first: u32, second: u32) -> Option<u64> {
        let set = &self.collect.cooccurrence;
        let first = set.binary_search(&first).ok()?;
        let second = set.binary_search(&second).ok()?;
        let place = first.min(second) * set.len() + first.max(second);
        self.pairs.get(place).copied()
    }

    /// Rows under a condition.
    pub fn condition_rows(&self, condition: u32) -> u64 {
        let rows = self.condition_rows.get(condition as usize);
        rows.copied().unwrap_or(0)
    }

    /// Rows under a condition in which a feature was active, and the sum of its values there.
    pub fn under(&self, feature: u32, condition: u32) -> Option<(u64, f64)> {
        if condition >= self.collect.conditions {
            return None;
        }
        let slot = self.collect.slot(feature)?;
        let place = slot * self.collect.conditions as usize + condition as usize;
        let part = self.parts.get(place)?;
        Some((part.fired, part.sum.value()))
    }

    /// Pearson's correlation of a feature with the label, over the labelled rows; `None` if no
    /// labels are collected, 0 if the feature or the label does not vary.
    pub fn correlation(&self, feature: u32) -> Option<f64> {
        let sums = self.labelled.get(self.collect.slot(feature)?)?;
        let (rows, totals) = (self.totals.labelled, &self.totals);
        let both = sums.sum.joint_spread(totals.label_sum, sums.products, rows);
        let ours = sums.sum.spread(sums.squares, rows);
        let labels = totals.label_sum.spread(totals.label_squares, rows);
        if ours <= 0.0 || labels <= 0.0 {
            return Some(0.0);
        }
        let r = both / libm::sqrt(ours) / libm::sqrt(labels);
        Some(r.clamp(-1.0, 1.0))
    }

    /// How well `f > threshold` predicts a label above 1/2; `None` if that threshold is not
    /// collected.
    pub fn confusion(&self, feature: u32, threshold: usize) -> Option<Confusion> {
        let count = self.collect.thresholds.len();
        if threshold >= count {
            return None;
        }
        let slot = self.collect.slot(feature)?;
        let hits = self.hits.get(slot * count + threshold)?;
        let (labelled, positives) = self.labelled();
        Some(Confusion {
            true_positives: hits.positive,
            false_positives: hits.negative,
            false_negatives: positives - hits.positive,
            true_negatives: (labelled - positives) - hits.negative,
        })
    }
}

/// Predictions of a binary label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// Predicted and so.
    pub true_positives: u64,
    /// Predicted and not so.
    pub false_positives: u64,
    /// Not predicted but so.
    pub false_negatives: u64,
    /// Not predicted and not so.
    pub true_negatives: u64,
}

impl Confusion {
    /// `tp / (tp + fp)`; 0 if nothing was predicted.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives, self.false_positives)
    }

    /// `tp / (tp + fn)`; 0 if nothing was so.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives, self.false_negatives)
    }

    /// `2 tp / (2 tp + fp + fn)`; 0 if there is nothing to tell.
    pub fn f1(&self) -> f64 {
        ratio(
            2 * self.true_positives,
            self.false_positives + self.false_negatives,
        )
    }
}

fn ratio(part: u64, rest: u64) -> f64 {
    match part + rest {
        0 => 0.0,
        all => part as f64 / all as f64,
    }
}
