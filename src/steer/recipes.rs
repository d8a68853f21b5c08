//! Methods from papers, as plans: each composes the rules of [`Rule`] with the
//! paper's defaults, and adds nothing to what runs. What a method selects features by is the
//! caller's; what it does to rows is here.
//!
//! | recipe | paper |
//! |---|---|
//! | [`wmdp_negative_clamp`] | Farrell et al., "Applying sparse autoencoders to unlearn knowledge" |
//! | [`crisp`] | "CRISP: persistent concept unlearning via sparse autoencoders" |
//! | [`spare`] | Zhao et al., SpARE, arXiv 2410.15999 |
//! | [`corr_steer`] | "CorrSteer" |
//! | [`saeuron`] | Cywinski and Deja, arXiv 2501.18052 |
//! | [`interpret_then_deactivate`] | Tian et al., arXiv 2503.09446 |
//! | [`topic_weight`], [`topic_swap`], [`topic_clamp`] | "Precise topic alignment" |
//! | [`saif`] | "SAIF" |
//! | [`ax_bench_add`], [`ax_bench_clamp`], [`ax_bench_min_clamp`], [`ax_bench_subspace_clamp`], [`ax_bench_threshold_add`] | Wu et al., arXiv 2501.17148 |
//! | [`reason_score`] | "ReasonScore": SAE-Reasoning |
//! | [`repetition_suppress`], [`repetition_induce`] | "Repeat curse" |
//! | [`output_feature`] | "SAEs are good for steering, if you select the right features" |
//! | [`token_scaled_vector`] | "Small vectors": steering vectors with a scale per token |
//! | [`diff_mean`], [`reft_r1`], [`ax_bench_add_direction`] | AxBench's directions: DiffMean and ReFT-r1 |
//! | [`effect_vector`], [`effect_inverse`], [`rotated_vector`] | Chalnev et al., SAE-TS, arXiv 2411.02193 |

use super::plan::{Condition, Edit, Mask, Plan, Rule, Scale, ScoreMode, Stage, Strength, Target};
use super::statistics::{FeatureStatistics, Statistics};
use crate::error::Error;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Where `f_i > 0`, `f_i := -c`; the first row stays. The paper finds that setting to 0 does not
/// unlearn, and uses c from 10 to 500.
pub fn wmdp_negative_clamp(features: &[u32], c: f64) -> Plan {
    let target = Target::Features(features.to_vec());
    Plan::new("WMDP negative clamp")
        .edit(Edit::on(target, Rule::NegativeWhenActive, c))
        .skip_first(1)
}

/// Where `f_i > 0`, `f_i := -|alpha mean_i|`; the first row stays. Features come with their means.
pub fn crisp(means: &[(u32, f64)], alpha: f64) -> Plan {
    let edit =
        |&(feature, mean): &(u32, f64)| Edit::negative_when_active(feature, (alpha * mean).abs());
    let edits = means.iter().map(edit);
    edits.fold(Plan::new("CRISP").skip_first(1), Plan::edit)
}

/// On pre-activations z at the last row of the prompt: takes `min(z_i, w_i)` away where it is
/// positive, adds `max(w_j - z_j, 0)`. w is the degree (1.8 to 3) times a weighted mean.
pub fn spare(remove: &[(u32, f64)], add: &[(u32, f64)]) -> Plan {
    let mut plan = Plan::new("SpARE").last_only();
    plan.rows.stage = Some(Stage::Prompt);
    for &(feature, w) in remove {
        plan = plan.edit(Edit::new(feature, Rule::Remove, w).of_pre_activation());
    }
    for &(feature, w) in add {
        plan = plan.edit(Edit::max_clamp(feature, w).of_pre_activation());
    }
    plan
}

/// `x + c_i d_i` at the last row of each generated step, c the mean pooled value over correct
/// samples.
pub fn corr_steer(coefficients: &[(u32, f64)]) -> Plan {
    let mut plan = Plan::new("CorrSteer").last_only();
    plan.rows.stage = Some(Stage::Generation);
    let edits = coefficients
        .iter()
        .map(|&(feature, c)| Edit::add(feature, c));
    edits.fold(plan, Plan::edit)
}

/// For each feature its means by step: where `f_i > mean of all concepts`, `f_i := gamma * mean of
/// the concept * f_i`. gamma from -1 to -30.
pub fn saeuron(features: &[(u32, Vec<f64>, Vec<f64>)], gamma: f64) -> Plan {
    let mut plan = Plan::new("SAeUron");
    for (feature, concept, all) in features {
        let factors: Vec<f64> = concept.iter().map(|mean| gamma * mean).collect();
        let edit = Edit::scale(*feature, Strength::by_phase(&factors));
        plan = plan.edit(edit.over(Strength::by_phase(all)));
    }
    plan
}

/// `f_i := tau f_i` (tau -8, or 0), output `decode(f')` without the error, if the mean squared
/// difference of that to the rows but the first reaches the threshold; else the rows as they are.
pub fn interpret_then_deactivate(features: &[u32], tau: f64, threshold: f64) -> Plan {
    let target = Target::Features(features.to_vec());
    Plan::new("Interpret-then-Deactivate")
        .edit(Edit::on(target, Rule::Scale, tau))
        .drop_error()
        .skip_first(1)
        .when(Condition::Reconstruction {
            edited: true,
            at_least: threshold,
        })
        .per_batch()
}

fn topic(mode: ScoreMode, scores: BTreeMap<u32, f64>) -> Plan {
    let mut plan = Plan::new("topic alignment").drop_error();
    plan.mask = Mask::Scores {
        mode,
        weights: scores,
        default: 0.0,
    };
    plan
}

/// `decode(act(s z))`; features without a score have s = 0.
pub fn topic_weight(scores: BTreeMap<u32, f64>) -> Plan {
    topic(ScoreMode::Weight, scores)
}

/// `decode` of z where `act(s z)` is not 0; features without a score have s = 0.
pub fn topic_swap(scores: BTreeMap<u32, f64>) -> Plan {
    topic(ScoreMode::Swap, scores)
}

/// `f_i += 10` for the five best features, `decode(f')` without the error.
pub fn topic_clamp(best_five: &[u32]) -> Plan {
    let target = Target::Features(best_five.to_vec());
    Plan::new("topic clamp")
        .edit(Edit::on(target, Rule::Add, 10.0))
        .drop_error()
}

/// `x + sum (mean_i + beta deviation_i) d_i`. Features come with mean and deviation.
pub fn saif(features: &[(u32, f64, f64)], beta: f64) -> Plan {
    let mut statistics = Statistics::new();
    let mut plan = Plan::new("SAIF");
    for &(feature, mean, deviation) in features {
        let found = FeatureStatistics {
            max: None,
            mean: Some(mean),
            deviation: Some(deviation),
        };
        statistics.insert(feature, found);
        let strength = Strength::corpus_mean(1.0).plus_deviations(beta);
        plan = plan.edit(Edit::add(feature, strength));
    }
    plan.statistics(statistics)
}

fn of_max(name: &str, rule: Rule, feature: u32, factor: f64, max: f64) -> Plan {
    let mut statistics = Statistics::new();
    let found = FeatureStatistics {
        max: Some(max),
        ..FeatureStatistics::default()
    };
    statistics.insert(feature, found);
    Plan::new(name)
        .edit(Edit::new(
            feature,
            rule,
            Strength::of(factor, Scale::CorpusMax),
        ))
        .statistics(statistics)
}

/// `x + factor max_i d_i`
pub fn ax_bench_add(feature: u32, factor: f64, max: f64) -> Plan {
    of_max("AxBench add", Rule::Add, feature, factor, max)
}

/// `f_i := factor max_i`
pub fn ax_bench_clamp(feature: u32, factor: f64, max: f64) -> Plan {
    of_max("AxBench clamp", Rule::Set, feature, factor, max)
}

/// `f_i := max(f_i, factor max_i)`
pub fn ax_bench_min_clamp(feature: u32, factor: f64, max: f64) -> Plan {
    of_max("AxBench min clamp", Rule::MaxClamp, feature, factor, max)
}

/// `h - relu(<h, v>) v + factor max v` for a direction v, made a unit vector. The first
/// `prefix` rows stay.
pub fn ax_bench_subspace_clamp(v: Vec<f32>, factor: f64, max: f64, prefix: u32) -> Plan {
    let target = Target::Direction("v".into());
    Plan::new("AxBench subspace clamp")
        .unit_direction("v", v)
        .edit(Edit::on(target, Rule::ReplacePositive, factor * max))
        .skip_first(prefix)
}

/// `h + m v` where `<h, v> < m`, for a direction v, made a unit vector.
pub fn ax_bench_threshold_add(v: Vec<f32>, m: f64) -> Plan {
    Plan::new("AxBench threshold add")
        .unit_direction("v", v)
        .edit(Edit::add_direction("v", m).under(m))
}

/// `h + factor max v` for a direction v, made a unit vector: how DiffMean's and ReFT-r1's
/// directions steer. `max` is the largest `relu(<h, v>)` over a corpus.
pub fn ax_bench_add_direction(v: Vec<f32>, factor: f64, max: f64) -> Plan {
    Plan::new("AxBench add, direction")
        .unit_direction("v", v)
        .edit(Edit::add_direction("v", factor * max))
}

/// `h + mean(TopK_t relu(<h_t, v>)) v`, as ReFT-r1 is trained: the mean is taken over the `k` rows
/// with the largest projections, of the rows of one sequence, `[n, width]`, v being `width` long.
/// With less than `k` rows it is over all of them. v is used as it is.
///
/// # Errors
/// [`Error::Length`] if there are no rows, no whole number of them, or `k` is 0.
pub fn reft_r1(rows: &[f32], v: Vec<f32>, k: usize) -> Result<Plan, Error> {
    let width = v.len();
    let count = rows.len().checked_div(width).unwrap_or(0);
    if count == 0 || count * width != rows.len() || k == 0 {
        return Err(Error::Length {
            what: "values in rows",
            expected: (count.max(1) * width) as u64,
            found: rows.len() as u64,
        });
    }
    let along = |row: &[f32]| -> f64 {
        let pairs = row.iter().zip(&v);
        let product: f64 = pairs.map(|(&h, &v)| f64::from(h) * f64::from(v)).sum();
        product.max(0.0)
    };
    let mut all: Vec<f64> = rows.chunks_exact(width).map(along).collect();
    all.sort_by(|a, b| b.total_cmp(a));
    all.truncate(k);
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let edit = Edit::add_direction("v", mean);
    Ok(Plan::new("ReFT-r1").direction("v", v).edit(edit))
}

/// `f_i := strength max_i`, on all rows.
pub fn reason_score(feature: u32, strength: f64, max: f64) -> Plan {
    of_max("ReasonScore", Rule::Set, feature, strength, max)
}

/// `f_i := 0` for features of repetition.
pub fn repetition_suppress(features: &[u32]) -> Plan {
    let target = Target::Features(features.to_vec());
    Plan::new("repetition, off").edit(Edit::on(target, Rule::Zero, 0.0))
}

/// `x + lambda d_i`; the paper takes 2.
pub fn repetition_induce(feature: u32, lambda: f64) -> Plan {
    Plan::new("repetition, on").edit(Edit::add(feature, lambda))
}

/// `f_i += s max_j f_j` at the last row.
pub fn output_feature(feature: u32, s: f64) -> Plan {
    Plan::new("output feature")
        .edit(Edit::add(feature, Strength::current_max(s)))
        .last_only()
}

/// `x + a_t v`, with the scale `a_t` of each row in [`RowInfo::factor`](super::RowInfo::factor).
pub fn token_scaled_vector(v: Vec<f32>) -> Plan {
    Plan::new("token-scaled vector")
        .direction("v", v)
        .edit(Edit::add_direction("v", 1.0))
}

/// The difference of two means of rows, `[n, width]` each, as a unit vector.
///
/// # Errors
/// [`Error::Length`] if either is empty or no whole number of rows, [`Error::InvalidArgument`] if
/// the means are equal or not finite.
pub fn diff_mean(positive: &[f32], negative: &[f32], width: usize) -> Result<Vec<f32>, Error> {
    let mean = |rows: &[f32]| -> Result<Vec<f64>, Error> {
        let count = rows.len().checked_div(width).unwrap_or(0);
        if count == 0 || count * width != rows.len() {
            return Err(Error::Length {
                what: "values in rows",
                expected: (count.max(1) * width) as u64,
                found: rows.len() as u64,
            });
        }
        let mut sums = alloc::vec![0.0; width];
        for row in rows.chunks_exact(width) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        Ok(sums.iter().map(|sum| sum / count as f64).collect())
    };
    let (positive, negative) = (mean(positive)?, mean(negative)?);
    let pairs = positive.iter().zip(&negative);
    unit(pairs.map(|(a, b)| a - b).collect())
}

/// SAE-TS: from an effect model `change of features = v W + b`, the direction whose effect is on
/// feature `target` and not what any vector does: `u = W_t / |W_t| - lambda W b / |W b|`, made a
/// unit vector. `effects` is W, `[width, features]`; the paper's lambda is 1.
///
/// # Errors
/// [`Error::Length`] if the sizes do not fit, [`Error::FeatureOutOfRange`],
/// [`Error::InvalidArgument`] if a length is 0 or not finite.
pub fn effect_vector(
    effects: &[f32],
    bias: &[f32],
    width: usize,
    target: u32,
    lambda: f64,
) -> Result<Vec<f32>, Error> {
    let features = bias.len();
    check_effects(effects, bias, width)?;
    if target as usize >= features {
        return Err(Error::FeatureOutOfRange {
            feature: target.into(),
            d_sae: features as u64,
        });
    }
    let rows = effects.chunks_exact(features);
    let column = rows.clone().map(|row| {
        row.get(target as usize)
            .map_or(0.0, |&value| f64::from(value))
    });
    let general = rows.map(|row| {
        let pairs = row.iter().zip(bias);
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    });
    let (column, general): (Vec<f64>, Vec<f64>) = (column.collect(), general.collect());
    let (a, b) = (length(&column)?, length(&general)?);
    let pairs = column.iter().zip(&general);
    unit(pairs.map(|(x, y)| x / a - lambda * y / b).collect())
}

/// SAE-TS, by the pseudo-inverse: the vector whose predicted effect is nearest to a target,
/// `v = (t / |t| - b) W^+`, not normalised. `effects` is W, `[width, features]`, of full rank;
/// `target` lists features of t with their values.
///
/// Solved through the smaller Gram matrix, in time `width features min(width, features)`.
///
/// # Errors
/// [`Error::Length`] if the sizes do not fit, [`Error::FeatureOutOfRange`],
/// [`Error::InvalidArgument`] if t has no length or W is not of full rank.
pub fn effect_inverse(
    effects: &[f32],
    bias: &[f32],
    width: usize,
    target: &[(u32, f64)],
) -> Result<Vec<f32>, Error> {
    check_effects(effects, bias, width)?;
    let features = bias.len();
    let mut wanted = alloc::vec![0.0; features];
    for &(feature, value) in target {
        let Some(to) = wanted.get_mut(feature as usize) else {
            return Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: features as u64,
            });
        };
        *to = value;
    }
    let norm = length(&wanted)?;
    let wanted = wanted.iter().zip(bias);
    let wanted: Vec<f64> = wanted.map(|(t, &b)| t / norm - f64::from(b)).collect();
    // Rows of W where they are fewer than its columns, else its columns.
    let wide = width <= features;
    let vectors: Vec<Vec<f64>> = match wide {
        true => effects
            .chunks_exact(features)
            .map(|row| row.iter().map(|&value| f64::from(value)).collect())
            .collect(),
        false => (0..features)
            .map(|column| {
                let values = effects.iter().skip(column).step_by(features);
                values.map(|&value| f64::from(value)).collect()
            })
            .collect(),
    };
    let mut gram: Vec<Vec<f64>> = vectors
        .iter()
        .enumerate()
        .map(|(i, a)| vectors.iter().take(i + 1).map(|b| dot(a, b)).collect())
        .collect();
    let found: Vec<f64> = match wide {
        // W^+ = W' (W W')^-1
        true => {
            let right = vectors.iter().map(|row| dot(row, &wanted)).collect();
            solve(&mut gram, right)?
        }
        // W^+ = (W' W)^-1 W'
        false => {
            let amounts = solve(&mut gram, wanted)?;
            (0..width)
                .map(|i| {
                    let parts = amounts.iter().zip(&vectors);
                    parts
                        .map(|(a, column)| a * column.get(i).copied().unwrap_or(0.0))
                        .sum()
                })
                .collect()
        }
    };
    Ok(found.iter().map(|&value| value as f32).collect())
}

/// SAE-TS, by a rotation: `u = R' v / |v|`, made a unit vector, less the correction b, made a unit
/// vector. v is a decoder vector or a sum of several; `rotation` is R, `[width, width]`.
///
/// # Errors
/// [`Error::Length`] if the sizes do not fit, [`Error::InvalidArgument`] if a length is 0 or not
/// finite.
pub fn rotated_vector(
    rotation: &[f32],
    correction: &[f32],
    vector: &[f32],
) -> Result<Vec<f32>, Error> {
    let width = vector.len();
    if width.checked_mul(width) != Some(rotation.len()) || correction.len() != width {
        return Err(Error::Length {
            what: "values of a rotation",
            expected: width.saturating_mul(width) as u64,
            found: rotation.len() as u64,
        });
    }
    let wide: Vec<f64> = vector.iter().map(|&value| f64::from(value)).collect();
    let norm = length(&wide)?;
    let mut turned = alloc::vec![0.0; width];
    for (row, value) in rotation.chunks_exact(width.max(1)).zip(&wide) {
        for (to, &weight) in turned.iter_mut().zip(row) {
            *to += f64::from(weight) * (value / norm);
        }
    }
    let norm = length(&turned)?;
    let pairs = turned.iter().zip(correction);
    unit(
        pairs
            .map(|(value, &b)| value / norm - f64::from(b))
            .collect(),
    )
}

fn check_effects(effects: &[f32], bias: &[f32], width: usize) -> Result<(), Error> {
    let features = bias.len();
    if width.checked_mul(features) == Some(effects.len()) && !effects.is_empty() {
        return Ok(());
    }
    Err(Error::Length {
        what: "values of an effect matrix",
        expected: width.saturating_mul(features) as u64,
        found: effects.len() as u64,
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves with a symmetric positive definite matrix, given and overwritten by its lower half
/// (Cholesky).
fn solve(matrix: &mut [Vec<f64>], mut right: Vec<f64>) -> Result<Vec<f64>, Error> {
    for i in 0..matrix.len() {
        let (done, rest) = matrix.split_at_mut(i);
        let Some(row) = rest.first_mut() else { break };
        let whole = row.get(i).copied().unwrap_or(0.0);
        for (j, above) in done.iter().enumerate() {
            let (before, after) = row.split_at_mut(j);
            if let (Some(value), Some(pivot)) = (after.first_mut(), above.get(j)) {
                *value = (*value - dot(before, above)) / pivot;
            }
        }
        let (before, after) = row.split_at_mut(i);
        let left = whole - dot(before, before);
        // What rounding leaves of a row that depends on the ones before.
        let enough = left > whole * 1e-12;
        let Some(pivot) = after.first_mut().filter(|_| enough) else {
            return Err(Error::InvalidArgument {
                what: "effect matrix",
                expected: "one of full rank".into(),
                found: alloc::format!("row or column {i} depends on the ones before"),
            });
        };
        *pivot = libm::sqrt(left);
    }
    for (i, row) in matrix.iter().enumerate() {
        let (solved, rest) = right.split_at_mut(i);
        if let (Some(value), Some(pivot)) = (rest.first_mut(), row.get(i)) {
            *value = (*value - dot(solved, row)) / pivot;
        }
    }
    for i in (0..matrix.len()).rev() {
        let column = matrix
            .iter()
            .skip(i + 1)
            .map(|row| row.get(i).copied().unwrap_or(0.0));
        let (before, solved) = right.split_at_mut(i + 1);
        let sum: f64 = column.zip(solved.iter()).map(|(a, b)| a * b).sum();
        let pivot = matrix.get(i).and_then(|row| row.get(i));
        if let (Some(value), Some(pivot)) = (before.last_mut(), pivot) {
            *value = (*value - sum) / pivot;
        }
    }
    Ok(right)
}

fn unit(vector: Vec<f64>) -> Result<Vec<f32>, Error> {
    let length = length(&vector)?;
    Ok(vector.iter().map(|value| (value / length) as f32).collect())
}

fn length(vector: &[f64]) -> Result<f64, Error> {
    let square: f64 = vector.iter().map(|value| value * value).sum();
    match square.is_finite() && square > 0.0 {
        true => Ok(libm::sqrt(square)),
        false => Err(Error::InvalidArgument {
            what: "length of a direction",
            expected: "a finite number above 0".into(),
            found: alloc::format!("{}", libm::sqrt(square)),
        }),
    }
}
