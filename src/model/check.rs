//! What is checked when a model is made, so that nothing of it can fail at encode.

use super::{Activation, Matrix, Parts, Pick, Pursuit, Refit, Thresholds, ValueMap};
use crate::error::Error;
use alloc::string::ToString;

/// Whether a vector has this length and only finite values.
pub(super) fn vector(name: &str, values: &[f64], length: usize) -> Result<(), Error> {
    length_is(name, values.len(), length)?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(bad_value(name, index, values[index])),
    }
}

/// Whether a matrix that meets input rows has every vector in one piece.
pub(super) fn one_block_per_feature(matrix: &Matrix<'_>) -> Result<(), Error> {
    match matrix.has_one_block_per_feature() {
        true => Ok(()),
        false => {
            let key = alloc::format!("blocks of `{}`", matrix.tensor());
            Err(invalid(&key, "exactly one for each feature", "others"))
        }
    }
}

/// Whether rows divide into the sites.
pub(super) fn sites(key: &str, sites: usize, width: usize) -> Result<(), Error> {
    match sites > 0 && width.is_multiple_of(sites) {
        true => Ok(()),
        false => Err(invalid(key, &alloc::format!("a divisor of {width}"), sites)),
    }
}

/// Whether the selection rule has all that it needs.
pub(super) fn rule(parts: &Parts<'_>) -> Result<(), Error> {
    let d_sae = parts.encoder.features();
    if let Some(weights) = &parts.rank_weight {
        vector("rank_weight", weights, d_sae)?;
        if let Some(index) = weights.iter().position(|&weight| weight < 0.0) {
            return Err(bad_value("rank_weight", index, weights[index]));
        }
    }
    match parts.value_map {
        ValueMap::Identity => {}
        ValueMap::SoftCap(cap) if cap.is_finite() && cap > 0.0 => {}
        ValueMap::SoftCap(cap) => return Err(invalid("soft_cap", "a positive number", cap)),
        ValueMap::One => {}
        ValueMap::Distance(from) if from.is_finite() => {}
        ValueMap::Distance(from) => return Err(invalid("distance", "a finite number", from)),
    }
    match &parts.activation {
        Activation::Relu | Activation::TanhRelu | Activation::Ensemble(_) => Ok(()),
        Activation::LeakyRelu { slope } if slope.is_finite() => Ok(()),
        Activation::LeakyRelu { slope } => Err(invalid("slope", "a finite number", slope)),
        Activation::Gated { gate_bias } => vector("gate_bias", gate_bias, d_sae),
        Activation::JumpRelu { threshold, .. } => thresholds(threshold, d_sae),
        Activation::TopK { k, .. } => count("k", *k, d_sae),
        Activation::GroupTopK { groups, k, .. } => {
            count("groups", *groups, d_sae)?;
            if !d_sae.is_multiple_of(*groups) {
                let expected = alloc::format!("a divisor of {d_sae}");
                return Err(invalid("groups", &expected, groups));
            }
            count("k", *k, d_sae / groups)
        }
        Activation::TopAfa if parts.rank_weight.is_none() => Err(Error::MissingKey {
            key: "rank_weight".into(),
            hint: "top-AFA ranks by decoder norms".into(),
        }),
        Activation::TopAfa => Ok(()),
        Activation::Pursuit(rule) => pursuit(parts, rule),
    }
}

/// Whether a pursuit can run on these parts; one pass over the dictionary.
fn pursuit(parts: &Parts<'_>, rule: &Pursuit) -> Result<(), Error> {
    if rule.steps == 0 {
        return Err(invalid("steps", "at least 1", 0));
    }
    if let Some(norm) = rule.stop_norm
        && !(norm.is_finite() && norm > 0.0)
    {
        return Err(invalid("residual_threshold", "a positive number", norm));
    }
    if !(rule.stop_rank.is_finite() && rule.stop_rank >= 0.0) {
        let expected = "a number that is not negative";
        return Err(invalid("tolerance", expected, rule.stop_rank));
    }
    if rule.pick == Pick::Any && rule.refit != Refit::Nothing {
        return Err(invalid("pick", "positive or magnitude", "any"));
    }
    if parts.bias.is_some() || parts.glu.is_some() || parts.value_map != ValueMap::Identity {
        let found = "an encoder bias, a gate or a value map";
        return Err(invalid("activation", "a pursuit without them", found));
    }
    let scale = |feature: usize| match &parts.decoder_scale {
        None => 1.0,
        Some(scale) => scale[feature],
    };
    let norms = parts.decoder.norms()?;
    let zero = |(feature, norm): (usize, &f64)| norm * scale(feature) == 0.0;
    match norms.iter().enumerate().position(zero) {
        None => Ok(()),
        Some(row) => Err(invalid(
            parts.decoder.tensor(),
            "a dictionary without rows of zeros",
            alloc::format!("row {row} of zeros"),
        )),
    }
}

/// Whether a count is within `1..=most`.
fn count(key: &str, found: usize, most: usize) -> Result<(), Error> {
    match (1..=most).contains(&found) {
        true => Ok(()),
        false => Err(invalid(key, &alloc::format!("1 to {most}"), found)),
    }
}

fn thresholds(threshold: &Thresholds, d_sae: usize) -> Result<(), Error> {
    let values = match threshold {
        Thresholds::Scalar(value) => core::slice::from_ref(value),
        Thresholds::PerFeature(values) => {
            length_is("threshold", values.len(), d_sae)?;
            values.as_slice()
        }
    };
    let bad = |value: &f32| value.is_nan() || *value == f32::NEG_INFINITY;
    match values.iter().position(bad) {
        None => Ok(()),
        Some(index) => Err(bad_value("threshold", index, values[index].into())),
    }
}

fn length_is(name: &str, found: usize, expected: usize) -> Result<(), Error> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::Shape {
            tensor: name.into(),
            expected: alloc::vec![expected],
            found: alloc::vec![found],
        }),
    }
}

fn bad_value(tensor: &str, index: usize, found: f64) -> Error {
    Error::BadValue {
        tensor: tensor.into(),
        index: index as u64,
        found,
    }
}

pub(super) fn invalid(key: &str, expected: &str, found: impl ToString) -> Error {
    Error::InvalidValue {
        key: key.into(),
        expected: expected.into(),
        found: found.to_string(),
    }
}
