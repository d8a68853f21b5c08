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
//! | [`diff_mean`], [`effect_vector`] | directions: DiffMean, and SAE-TS from an effect matrix |

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

/// The difference of two means of rows, `[n, width]` each, as a unit vector. ReFT-r1 directions
/// are trained elsewhere and used like this one.
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
    if width.checked_mul(features) != Some(effects.len()) || features == 0 {
        return Err(Error::Length {
            what: "values of an effect matrix",
            expected: width.saturating_mul(features) as u64,
            found: effects.len() as u64,
        });
    }
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
