//! Scores of the papers that need a few numbers of the host: how well a feature separates, what an
//! edit did to answers, what a feature says about its inputs and its outputs.
//!
//! | function | is | source |
//! |---|---|---|
//! | [`auroc`], [`auroc_of`] | area under the ROC curve, exact or from histograms | Othello, AxBench |
//! | [`class_entropy`] | entropy of the classes of a feature's top rows | CytoSAE, PatchSAE |
//! | [`by_class_mean`] | the features with the largest mean in a class | Mammo-SAE |
//! | [`layer_spread`] | how a feature is spread over layers | MLSAE |
//! | [`ser`] | share of changed answers that became wrong | CorrSteer |
//! | [`output_score`], [`input_score`] | S_out, S_in | "SAEs are good for steering" |
//! | [`scr`], [`tpp`] | effects of ablations on probes | SAEBench |
//! | [`zf_bound`] | how far `|dec(f) - b|` can be from `|f|` | top-AFA |
//! | [`binned`] | features at the middles of their bins | MDL |
//! | [`relative`] | features in units of their maxima | board games |
//! | [`Boards`] | boards predicted by precise features | board games |

use super::accumulator::{Accumulator, TopRow};
use super::choose::Scored;
use super::collect::Bins;
use super::row::RowId;
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

fn length(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::Length {
            what,
            expected: expected as u64,
            found: found as u64,
        }),
    }
}

/// The probability that a positive score is above a negative one, ties counted half; `None` if one
/// side has no scores, or a score is NaN. `n log n`.
pub fn auroc(positive: &[f64], negative: &[f64]) -> Option<f64> {
    let tagged = |of: &[f64], tag: bool| -> Vec<(f64, bool)> {
        of.iter().map(|&score| (score, tag)).collect()
    };
    let mut all = tagged(positive, true);
    all.extend(tagged(negative, false));
    if positive.is_empty() || negative.is_empty() || all.iter().any(|one| one.0.is_nan()) {
        return None;
    }
    // 0 and -0 are one score.
    all.sort_by(|a, b| (a.0 + 0.0).total_cmp(&(b.0 + 0.0)));
    // Twice the wins, so that halves are whole.
    let (mut wins, mut below) = (0.0, 0.0);
    let mut rest = all.as_slice();
    while let Some(first) = rest.first() {
        let ties = rest.partition_point(|one| one.0 <= first.0);
        let (group, others) = rest.split_at(ties);
        let ones = group.iter().filter(|one| one.1).count() as f64;
        let zeros = group.len() as f64 - ones;
        wins += ones * (2.0 * below + zeros);
        below += zeros;
        rest = others;
    }
    Some(wins / 2.0 / (positive.len() as f64 * negative.len() as f64))
}

/// An area under a curve that histograms leave uncertain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auroc {
    /// With the pairs within a bin counted half.
    pub value: f64,
    /// The exact one is within this of it: half the share of such pairs.
    pub uncertainty: f64,
}

/// [`auroc`] of a feature's values over the rows of two corpora, from their histograms; inactive rows
/// are 0. `None` if the feature is not collected, or one side has no rows.
///
/// # Errors
/// [`Error::InvalidArgument`] if the two do not collect the same, no histograms, or if the feature is
/// negative somewhere: histograms are of magnitudes.
pub fn auroc_of(
    positive: &Accumulator,
    negative: &Accumulator,
    feature: u32,
) -> Result<Option<Auroc>, Error> {
    let invalid = |found: &str| Error::InvalidArgument {
        what: "statistics of an area under a curve",
        expected: "two with the same histograms, of a feature that is never negative".into(),
        found: found.into(),
    };
    if positive.collect() != negative.collect() {
        return Err(invalid("two that collect different things"));
    }
    if positive.collect().bins.is_none() {
        return Err(invalid("two without histograms"));
    }
    let (Some(ones), Some(zeros)) = (positive.feature(feature), negative.feature(feature)) else {
        return Ok(None);
    };
    if ones.min < 0.0 || zeros.min < 0.0 {
        return Err(invalid("negative values"));
    }
    let pairs = positive.rows() as f64 * negative.rows() as f64;
    if pairs == 0.0 {
        return Ok(None);
    }
    let inactive = (
        (positive.rows() - ones.fired) as f64,
        (negative.rows() - zeros.fired) as f64,
    );
    let mut value = 0.5 * inactive.0 * inactive.1;
    let (mut below, mut unsure) = (inactive.1, 0.0);
    let bins = positive.histogram(feature).iter();
    for (&p, &n) in bins.zip(negative.histogram(feature)) {
        let (p, n) = (p as f64, n as f64);
        value += p * (below + 0.5 * n);
        unsure += 0.5 * p * n;
        below += n;
    }
    Ok(Some(Auroc {
        value: value / pairs,
        uncertainty: unsure / pairs,
    }))
}

/// Entropy, in nats, of the classes of a feature's top rows, each weighted by its value:
/// `-sum p ln p`, p the share of a class in the sum of the values. 0: one class only. `None` for fewer
/// than `least` rows (10 in the published code) or a sum that is not above 0.
pub fn class_entropy(top: &[TopRow], class: impl Fn(RowId) -> u32, least: usize) -> Option<f64> {
    let mut sums: BTreeMap<u32, f64> = BTreeMap::new();
    for one in top {
        *sums.entry(class(one.row)).or_default() += f64::from(one.value);
    }
    let total: f64 = sums.values().sum();
    if top.len() < least.max(1) || total.is_nan() || total <= 0.0 || total.is_infinite() {
        return None;
    }
    let terms = sums.values().map(|sum| {
        let p = sum / total;
        if p > 0.0 { -p * libm::log(p) } else { 0.0 }
    });
    Some(terms.sum::<f64>() + 0.0)
}

/// The features with the largest mean over the rows of a class (a condition), descending, the lowest
/// first among equals; features that are 0 there are left out.
///
/// # Errors
/// [`Error::InvalidArgument`] if that condition is not collected.
pub fn by_class_mean(of: &Accumulator, class: u32, count: usize) -> Result<Vec<Scored>, Error> {
    if class >= of.collect().conditions {
        return Err(Error::InvalidArgument {
            what: "class",
            expected: alloc::format!("below {}", of.collect().conditions),
            found: alloc::format!("{class}"),
        });
    }
    let rows = of.condition_rows(class).max(1) as f64;
    let mut all: Vec<Scored> = of
        .features()
        .map(|feature| Scored {
            feature,
            score: of.under(feature, class).map_or(0.0, |part| part.1) / rows,
        })
        .filter(|one| one.score != 0.0)
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.feature.cmp(&b.feature)));
    all.truncate(count);
    Ok(all)
}

/// How a feature is spread over layers.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpread {
    /// Share of the sum of its values in each layer.
    pub share: Vec<f64>,
    /// Mean layer, `sum l share_l`.
    pub mean: f64,
    /// Variance of the layer, `sum (l - mean)^2 share_l`.
    pub variance: f64,
}

/// The spread of a feature over layers, which are the conditions of the rows; `None` if it is not
/// collected or its sum is not above 0.
pub fn layer_spread(of: &Accumulator, feature: u32) -> Option<LayerSpread> {
    let layers = 0..of.collect().conditions;
    let sums: Option<Vec<f64>> = layers
        .map(|layer| of.under(feature, layer).map(|part| part.1))
        .collect();
    let sums = sums?;
    let total: f64 = sums.iter().sum();
    if total.is_nan() || total <= 0.0 {
        return None;
    }
    let share: Vec<f64> = sums.iter().map(|sum| sum / total).collect();
    let weighted = |of: &dyn Fn(f64) -> f64| -> f64 {
        let each = share.iter().enumerate();
        each.map(|(layer, share)| share * of(layer as f64)).sum()
    };
    let mean = weighted(&|layer| layer);
    let variance = weighted(&|layer| (layer - mean) * (layer - mean));
    Some(LayerSpread {
        share,
        mean,
        variance,
    })
}

/// Side effect ratio: of the answers that steering changed, the share that is wrong now; 0 if none
/// changed. One entry for each answer.
///
/// # Errors
/// [`Error::Length`].
pub fn ser(changed: &[bool], right_now: &[bool]) -> Result<f64, Error> {
    length("answers", changed.len(), right_now.len())?;
    let all = changed.iter().filter(|&&changed| changed).count();
    let pairs = changed.iter().zip(right_now);
    let wrong = pairs.filter(|(changed, right)| **changed && !**right);
    Ok(wrong.count() as f64 / all.max(1) as f64)
}

/// S_out: `(1 - rank / tokens) * p`, over the tokens that a feature promotes (the logit lens gives
/// them): the lowest rank of any of them, from 0, and the largest probability, in the distribution of
/// the steered model, whose logits these are. 0 without promoted tokens.
///
/// # Errors
/// [`Error::InvalidArgument`] for a token without a logit, or a logit that is NaN.
pub fn output_score(promoted: &[u32], logits: &[f32]) -> Result<f64, Error> {
    let invalid = |found| Error::InvalidArgument {
        what: "logits",
        expected: "a number for every token".into(),
        found,
    };
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(invalid("NaN".into()));
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| libm::exp(f64::from(logit) - f64::from(most));
    let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    let mut best: Option<f32> = None;
    for &token in promoted {
        let logit = logits.get(token as usize);
        let &logit = logit.ok_or_else(|| invalid(alloc::format!("none of token {token}")))?;
        best = Some(best.map_or(logit, |best| best.max(logit)));
    }
    // The token of the largest logit has both the lowest rank and the largest probability.
    let Some(best) = best else { return Ok(0.0) };
    let rank = logits.iter().filter(|&&logit| logit > best).count();
    Ok((1.0 - rank as f64 / logits.len() as f64) * weight(best) / total)
}

/// S_in: of the texts in which a feature is largest, at most 100, the share whose strongest token is
/// among those that it promotes; `None` for fewer than 10.
pub fn input_score(promoted: &[u32], strongest: &[u32]) -> Option<f64> {
    let texts = strongest.get(..100).unwrap_or(strongest);
    let hits = texts.iter().filter(|token| promoted.contains(token));
    (texts.len() >= 10).then(|| hits.count() as f64 / texts.len() as f64)
}

/// SHIFT's score: `(ablated - base) / (oracle - base)`, accuracies of a probe that learnt a spurious
/// signal: as it is, with the signal's features ablated, and trained without the signal. `None` if
/// there is nothing to gain.
pub fn scr(base: f64, ablated: f64, oracle: f64) -> Option<f64> {
    (oracle != base).then(|| (ablated - base) / (oracle - base))
}

/// Targeted probe perturbation: the mean loss of accuracy of the probe whose class's features were
/// ablated, minus that of the other probes. `ablated[i][j]` is the accuracy of probe j without the
/// features of class i.
///
/// # Errors
/// [`Error::Length`] unless there are as many rows and columns as probes, and at least two.
pub fn tpp(clean: &[f64], ablated: &[Vec<f64>]) -> Result<f64, Error> {
    let n = clean.len();
    length("probes, at least two", n.max(2), n)?;
    length("ablated classes", n, ablated.len())?;
    let (mut own, mut others) = (0.0, 0.0);
    for (i, row) in ablated.iter().enumerate() {
        length("accuracies of an ablated class", n, row.len())?;
        for (j, (clean, ablated)) in clean.iter().zip(row).enumerate() {
            *(if i == j { &mut own } else { &mut others }) += clean - ablated;
        }
    }
    let n = n as f64;
    Ok(own / n - others / (n * (n - 1.0)))
}

/// How far `|dec(f) - b|^2` can be from `|f|^2` where decoder rows have length 1 and cosines of at
/// most `coherence` with each other: `coherence * ((sum |f|)^2 - sum f^2)`. What is beyond it is not
/// explained by the dictionary.
pub fn zf_bound(row: FeaturesRow<'_>, coherence: f64) -> f64 {
    let values = row.values.iter().map(|&f| f64::from(f).abs());
    let (sum, squares) = values.fold((0.0, 0.0), |(sum, squares), f| (sum + f, squares + f * f));
    coherence * (sum * sum - squares).max(0.0)
}

/// Appends a row with every value at the middle of its bin: what is left of it at that description
/// length. Decode it and measure, and take the coarsest bins that are good enough. Values in the last
/// bin, which has no end, stay as they are.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn binned(row: FeaturesRow<'_>, bins: Bins, out: &mut Features) -> Result<(), Error> {
    let last = bins.count().saturating_sub(1);
    for (&index, &value) in row.indices.iter().zip(row.values) {
        let bin = bins.of(value);
        let middle = 0.5 * (bins.start(bin) + bins.start(bin + 1));
        let kept = if bin == last || value.is_nan() {
            value
        } else {
            (middle as f32).copysign(value)
        };
        out.push(index, kept)?;
    }
    out.end_row(row.status)
}

/// Appends a row in units of each feature's largest value so far, so that thresholds are shares of it;
/// features that never fired, or whose largest value is not above 0, are left out.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn relative(
    row: FeaturesRow<'_>,
    maxima: &Accumulator,
    out: &mut Features,
) -> Result<(), Error> {
    for (&index, &value) in row.indices.iter().zip(row.values) {
        let max = maxima.feature(index).map_or(0.0, |one| one.max);
        if max > 0.0 && max.is_finite() {
            out.push(index, (f64::from(value) / f64::from(max)) as f32)?;
        }
    }
    out.end_row(row.status)
}

/// Board reconstruction: a property of a board is predicted where any of its precise features is
/// above its threshold; the score is the mean F1 over boards.
#[derive(Clone, Debug)]
pub struct Boards {
    /// For each property what predicts it, sorted by feature.
    classifiers: Vec<Vec<(u32, f32)>>,
    boards: u64,
    sum: f64,
}

impl Boards {
    /// For each property one accumulator of training rows, labelled 1 where it holds, with
    /// thresholds: of each feature the lowest threshold with at least this precision (0.95 in the
    /// paper) and a hit.
    pub fn new(properties: &[Accumulator], precision: f64) -> Self {
        let one = |of: &Accumulator| {
            let thresholds = &of.collect().thresholds;
            let precise = |feature: u32| {
                let each = thresholds.iter().enumerate();
                let good = each.filter(|(number, _)| {
                    let found = of.confusion(feature, *number);
                    found.is_some_and(|c| c.true_positives > 0 && c.precision() >= precision)
                });
                let least = good.map(|(_, &threshold)| threshold).min_by(f32::total_cmp);
                Some((feature, least?))
            };
            of.features().filter_map(precise).collect()
        };
        Boards {
            classifiers: properties.iter().map(one).collect(),
            boards: 0,
            sum: 0.0,
        }
    }

    /// What predicts a property: features and thresholds.
    pub fn classifiers(&self, property: usize) -> &[(u32, f32)] {
        self.classifiers.get(property).map_or(&[], Vec::as_slice)
    }

    /// Adds a board and returns its F1 over the properties; 0 if none holds and none is predicted. A
    /// row that is not finite predicts nothing.
    ///
    /// # Errors
    /// [`Error::Length`] unless there is a truth for each property.
    pub fn add(&mut self, row: FeaturesRow<'_>, truth: &[bool]) -> Result<f64, Error> {
        length("properties of a board", self.classifiers.len(), truth.len())?;
        let fires = |&(feature, threshold): &(u32, f32)| {
            let at = row.indices.binary_search(&feature);
            let value = at.ok().and_then(|at| row.values.get(at));
            row.status != RowStatus::NonFinite && value.is_some_and(|&value| value > threshold)
        };
        let (mut hits, mut wrong) = (0u32, 0u32);
        for (classifiers, &truth) in self.classifiers.iter().zip(truth) {
            match (classifiers.iter().any(fires), truth) {
                (true, true) => hits += 1,
                (false, false) => {}
                _ => wrong += 1,
            }
        }
        let all = f64::from(2 * hits + wrong);
        let f1 = f64::from(2 * hits) / if all > 0.0 { all } else { 1.0 };
        self.boards += 1;
        self.sum += f1;
        Ok(f1)
    }

    /// Mean F1 over the boards; 0 if there are none.
    pub fn score(&self) -> f64 {
        self.sum / self.boards.max(1) as f64
    }
}
