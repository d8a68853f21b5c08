//! Which features matter: selection from statistics, as the papers define it, giving lists that
//! plans of [`steer`](crate::steer) accept.
//!
//! | function | paper |
//! |---|---|
//! | [`by_correlation`] | CorrSteer: Pearson's correlation of pooled values with a label |
//! | [`crisp`] | CRISP: difference of frequencies, then ratio of sums |
//! | [`by_density`] | Farrell et al. (WMDP): density on one corpus, rare on the other |
//! | [`saeuron`] | SAeUron: importance for a concept |
//! | [`reason_score`] | SAE-Reasoning: ReasonScore |
//! | [`by_information`] | SpARE: mutual information of firing and condition |
//! | [`by_sensitivity`] | SAIF: share of pairs, over rows made by [`only_in`](super::only_in) |
//! | [`by_energy_ratio`] | Conceptual blindspots: energy in real against generated inputs |
//! | [`by_mean_difference`] | k-sparse probing: difference of class means |
//!
//! Scores are f64 from exact sums, sorted descending; the lowest feature comes first among equals.

use super::accumulator::Accumulator;
use crate::error::Error;
use crate::steer::{FeatureStatistics, Statistics};
use alloc::vec::Vec;

/// A feature and what it scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The feature.
    pub feature: u32,
    /// Its score.
    pub score: f64,
}

/// The features of a scored list, the best first: what edits of plans take.
pub fn features(scored: &[Scored]) -> Vec<u32> {
    scored.iter().map(|one| one.feature).collect()
}

/// Sorts descending and keeps the best `count`; scores that are not numbers are left out.
fn best(scored: impl Iterator<Item = Scored>, count: usize) -> Vec<Scored> {
    let mut all: Vec<Scored> = scored.filter(|one| !one.score.is_nan()).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.feature.cmp(&b.feature)));
    all.truncate(count);
    all
}

fn scores(of: &Accumulator, count: usize, score: impl Fn(u32) -> f64) -> Vec<Scored> {
    let one = |feature| Scored {
        feature,
        score: score(feature),
    };
    best(of.features().map(one), count)
}

fn need(collected: bool, what: &'static str, expected: &str) -> Result<(), Error> {
    match collected {
        true => Ok(()),
        false => Err(Error::InvalidArgument {
            what,
            expected: expected.into(),
            found: "statistics without".into(),
        }),
    }
}

fn same(a: &Accumulator, b: &Accumulator) -> Result<(), Error> {
    let key = |of: &Accumulator| {
        (
            of.collect.model,
            of.collect.d_sae,
            of.collect.features.clone(),
        )
    };
    match key(a) == key(b) {
        true => Ok(()),
        false => Err(Error::InvalidArgument {
            what: "two statistics",
            expected: "of the same features of one model".into(),
            found: alloc::format!(
                "models {:016x} and {:016x}, {} and {} features",
                a.collect.model,
                b.collect.model,
                a.collect.slots(),
                b.collect.slots()
            ),
        }),
    }
}

fn sum_of(of: &Accumulator, feature: u32) -> f64 {
    of.sum(feature).unwrap_or(0.0)
}

fn fired(of: &Accumulator, feature: u32) -> u64 {
    of.feature(feature).map_or(0, |one| one.fired)
}

fn density(of: &Accumulator, feature: u32) -> f64 {
    of.feature(feature).map_or(0.0, |one| one.density)
}

/// `r_i`, Pearson's correlation of `f_i` and the label over labelled rows (rows pooled over a
/// sample each, in the paper).
///
/// # Errors
/// [`Error::InvalidArgument`] if no labels are collected.
pub fn by_correlation(of: &Accumulator, count: usize) -> Result<Vec<Scored>, Error> {
    need(of.collect.label, "correlation", "statistics with labels")?;
    Ok(scores(of, count, |feature| {
        of.correlation(feature).unwrap_or(0.0)
    }))
}

/// The `candidates` (10,000 in the paper) features of the largest difference of counts of active
/// rows, `n_target - n_benign`; of these the first `count` with
/// `sum_target / (sum_benign + 1) >= ratio` (3 in the paper). The score is the difference.
///
/// # Errors
/// [`Error::InvalidArgument`] if the two are not of the same features of one model.
pub fn crisp(
    target: &Accumulator,
    benign: &Accumulator,
    candidates: usize,
    ratio: f64,
    count: usize,
) -> Result<Vec<Scored>, Error> {
    same(target, benign)?;
    let difference = |feature| fired(target, feature) as f64 - fired(benign, feature) as f64;
    let mut kept = scores(target, candidates, difference);
    kept.retain(|one| sum_of(target, one.feature) / (sum_of(benign, one.feature) + 1.0) >= ratio);
    kept.truncate(count);
    Ok(kept)
}

/// Features whose density on `retain` is below `limit` (0.01 in the paper), by their density on
/// `forget`.
///
/// # Errors
/// [`Error::InvalidArgument`] if the two are not of the same features of one model.
pub fn by_density(
    forget: &Accumulator,
    retain: &Accumulator,
    limit: f64,
    count: usize,
) -> Result<Vec<Scored>, Error> {
    same(forget, retain)?;
    let mut kept = scores(forget, usize::MAX, |feature| density(forget, feature));
    kept.retain(|one| density(retain, one.feature) < limit && one.score > 0.0);
    kept.truncate(count);
    Ok(kept)
}

/// `s_i = mean_i(concept) / sum_j mean_j(concept) - mean_i(others) / sum_j mean_j(others)`.
///
/// # Errors
/// [`Error::InvalidArgument`] if the two are not of the same features of one model.
pub fn saeuron(
    concept: &Accumulator,
    others: &Accumulator,
    count: usize,
) -> Result<Vec<Scored>, Error> {
    same(concept, others)?;
    let share = |of: &Accumulator| {
        let total: f64 = of.features().map(|feature| sum_of(of, feature)).sum();
        move |sum: f64| if total == 0.0 { 0.0 } else { sum / total }
    };
    let (ours, theirs) = (share(concept), share(others));
    Ok(scores(concept, count, |feature| {
        ours(sum_of(concept, feature)) - theirs(sum_of(others, feature))
    }))
}

/// `(mu+_i / sum mu+) H_i^alpha - mu-_i / sum mu-`: condition 0 is text without the words looked
/// for, the conditions from 1 on are their groups; `mu+` is the mean over the rows of all groups,
/// `H_i` the entropy of the group means of feature i divided by the logarithm of their number.
///
/// # Errors
/// [`Error::InvalidArgument`] if fewer than three conditions are collected.
pub fn reason_score(of: &Accumulator, alpha: f64, count: usize) -> Result<Vec<Scored>, Error> {
    let conditions = of.collect.conditions;
    need(
        conditions > 2,
        "ReasonScore",
        "statistics with 3 conditions or more",
    )?;
    let mean = |feature: u32, condition: u32| {
        let rows = of.condition_rows(condition);
        let sum = of.under(feature, condition).map_or(0.0, |part| part.1);
        if rows == 0 { 0.0 } else { sum / rows as f64 }
    };
    let rows: u64 = (1..conditions).map(|group| of.condition_rows(group)).sum();
    let inside = |feature: u32| {
        let parts = (1..conditions).filter_map(|group| of.under(feature, group));
        let sum: f64 = parts.map(|part| part.1).sum();
        if rows == 0 { 0.0 } else { sum / rows as f64 }
    };
    let all_inside: f64 = of.features().map(inside).sum();
    let all_outside: f64 = of.features().map(|feature| mean(feature, 0)).sum();
    let share = |value: f64, all: f64| if all == 0.0 { 0.0 } else { value / all };
    let entropy = |feature: u32| {
        let total: f64 = (1..conditions).map(|group| mean(feature, group)).sum();
        let terms = (1..conditions).map(|group| {
            let p = share(mean(feature, group), total);
            if p > 0.0 { -p * libm::log(p) } else { 0.0 }
        });
        terms.sum::<f64>() / libm::log(f64::from(conditions - 1))
    };
    Ok(scores(of, count, |feature| {
        share(inside(feature), all_inside) * libm::pow(entropy(feature), alpha)
            - share(mean(feature, 0), all_outside)
    }))
}

/// Mutual information, in bits, of whether a feature is active and the row's condition.
///
/// # Errors
/// [`Error::InvalidArgument`] if fewer than two conditions are collected.
pub fn by_information(of: &Accumulator, count: usize) -> Result<Vec<Scored>, Error> {
    let conditions = of.collect.conditions;
    need(
        conditions > 1,
        "mutual information",
        "statistics with 2 conditions or more",
    )?;
    let all: u64 = (0..conditions).map(|c| of.condition_rows(c)).sum();
    Ok(scores(of, count, |feature| {
        let active: u64 = (0..conditions)
            .filter_map(|c| of.under(feature, c))
            .map(|part| part.0)
            .sum();
        let mut information = 0.0;
        for condition in 0..conditions {
            let rows = of.condition_rows(condition);
            let on = of.under(feature, condition).map_or(0, |part| part.0);
            for (both, margin) in [(on, active), (rows - on.min(rows), all - active)] {
                if both > 0 {
                    let (both, all) = (both as f64, all as f64);
                    let expected = rows as f64 * margin as f64 / all;
                    information += both / all * libm::log2(both / expected);
                }
            }
        }
        information.max(0.0)
    }))
}

/// Share of rows in which a feature is active: over rows made by [`only_in`](super::only_in), the
/// share of pairs in which it is active with the instruction and not without.
pub fn by_sensitivity(pairs: &Accumulator, count: usize) -> Vec<Scored> {
    scores(pairs, count, |feature| density(pairs, feature))
}

/// `|ln((E_i(real) + floor) / (E_i(generated) + floor))|`, E the mean value: concepts that are lost
/// or invented. `floor` keeps features that never fire on one side apart from infinity.
///
/// # Errors
/// [`Error::InvalidArgument`] if the two are not of the same features of one model.
pub fn by_energy_ratio(
    real: &Accumulator,
    generated: &Accumulator,
    floor: f64,
    count: usize,
) -> Result<Vec<Scored>, Error> {
    same(real, generated)?;
    let energy = |of: &Accumulator, feature| of.feature(feature).map_or(0.0, |one| one.mean);
    Ok(scores(real, count, |feature| {
        let (a, b) = (
            energy(real, feature) + floor,
            energy(generated, feature) + floor,
        );
        libm::log(a / b).abs()
    }))
}

/// `|mean_i(one) - mean_i(other)|` over the rows of two conditions.
///
/// # Errors
/// [`Error::InvalidArgument`] if one of the conditions is not collected.
pub fn by_mean_difference(
    of: &Accumulator,
    one: u32,
    other: u32,
    count: usize,
) -> Result<Vec<Scored>, Error> {
    let collected = one.max(other) < of.collect.conditions;
    need(collected, "class means", "statistics with both conditions")?;
    let mean = |feature: u32, condition: u32| {
        let rows = of.condition_rows(condition);
        let sum = of.under(feature, condition).map_or(0.0, |part| part.1);
        if rows == 0 { 0.0 } else { sum / rows as f64 }
    };
    Ok(scores(of, count, |feature| {
        (mean(feature, one) - mean(feature, other)).abs()
    }))
}

impl Accumulator {
    /// What strengths of plans refer to: maximum, mean and deviation of these features over all
    /// rows. Features that are not collected are left out, and so is a maximum that is infinite.
    pub fn statistics(&self, features: &[u32]) -> Statistics {
        let mut statistics = Statistics::new();
        for one in features.iter().filter_map(|&feature| self.feature(feature)) {
            let found = FeatureStatistics {
                max: Some(one.max.into()).filter(|max: &f64| max.is_finite()),
                mean: Some(one.mean),
                deviation: Some(libm::sqrt(one.variance)),
            };
            statistics.insert(one.feature, found);
        }
        statistics
    }

    /// Features that were active in none of the rows.
    pub fn dead(&self) -> Vec<u32> {
        let never = self.summaries().filter(|one| one.fired == 0);
        never.map(|one| one.feature).collect()
    }

    /// Share of features whose density is above `rate`: over rows that mean nothing, FaithfulSAE's
    /// fake-feature ratio.
    pub fn share_above(&self, rate: f64) -> f64 {
        let above = self.summaries().filter(|one| one.density > rate).count();
        match self.cells.len() {
            0 => 0.0,
            all => above as f64 / all as f64,
        }
    }

    /// How often a feature fires in the streams in which it fires at all: rows in which it was
    /// active, over streams in which it was (`pooled` has one row per stream). `None` if it never
    /// was.
    pub fn fires_per_stream(&self, pooled: &Accumulator, feature: u32) -> Option<f64> {
        let streams = fired(pooled, feature);
        (streams > 0).then(|| fired(self, feature) as f64 / streams as f64)
    }

    /// Description length of a row's features, in bits:
    /// `sum_i H2(p_i) + p_i H(bin of f_i | active)`, p_i the density; the bins are the
    /// histogram's.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no histogram is collected.
    pub fn description_length(&self) -> Result<f64, Error> {
        need(
            self.collect.bins.is_some(),
            "description length",
            "statistics with histograms",
        )?;
        let term = |p: f64| if p > 0.0 { -p * libm::log2(p) } else { 0.0 };
        let bits = self.summaries().map(|one| {
            let p = one.density;
            let active = one.fired as f64;
            let bins = self.histogram(one.feature).iter();
            let of_bins: f64 = bins
                .map(|&count| term(count as f64 / active.max(1.0)))
                .sum();
            term(p) + term(1.0 - p) + p * of_bins
        });
        Ok(bits.sum())
    }

    /// The paper's bound on it: `L0 (bits of a value + log2 of the number of features)`.
    pub fn description_length_bound(&self, bits_per_value: f64) -> f64 {
        let l0: f64 = self.summaries().map(|one| one.density).sum();
        l0 * (bits_per_value + libm::log2(f64::from(self.collect.d_sae)))
    }
}
