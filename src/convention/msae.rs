//! MSAE (WolodjaZ/MSAE): `{"model": state dict, "mean_center", "scaling_factor", "target_norm"}`.
//!
//! Source: `sae.py` (`load_model`, `SAE`, `Autoencoder`) and `train.py` of WolodjaZ/MSAE.
//!
//! | entry | shape | |
//! |---|---|---|
//! | `model.encoder`, `model.latent_bias` | `[d, n]`, `[n]` | columns |
//! | `model.decoder` | `[n, d]` | rows; absent if tied: the encoder |
//! | `model.pre_bias` | `[d]` | subtracted from the input and added to the output |
//! | `model.activation.log_threshold` | `[n]` | JumpReLU: `threshold = exp(it)` |
//! | `mean_center`, `scaling_factor` | `[d]` or number, number | `x' = (x - mean) s`, undone in the output |
//!
//! The rest is in the file's name, `{n}_{d}_{activation}[_{k}][_UW|_RW]_{tied}_{normalize}_{cap}_..`:
//! activation (ReLU, JumpReLU, TopK, TopKReLU), k, layer norm, and the soft cap `c tanh(z / c)` of the
//! values. A renamed file needs `activation` (`TopKReLU_64`), `normalize` and `soft_cap` from the caller.

use super::common::{about, has_all, jump_relu, k, only, the_archive, times, top_k};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, InputNorm, Parts, ValueMap};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use serde_json::Value;

pub(super) const CONVENTION: Convention = Convention {
    name: "msae",
    detect,
    open,
};

const PREFIX: &str = "model.";

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        has_all(
            archive,
            &["model.encoder", "model.pre_bias", "model.latent_bias"],
        )
    })
}

/// What the file's name says.
struct Named {
    activation: String,
    k: Option<usize>,
    normalize: bool,
    soft_cap: f64,
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let tensors = Tensors::below(archive, "MSAE", PREFIX);
    let [d_in, d_sae] = tensors.shape_2d("encoder")?;
    let file = checkpoint
        .archives
        .first()
        .map_or("", |(name, _)| name.as_str());
    let named = facts(file, settings)?;
    let encoder = tensors.matrix("encoder", FeatureAxis::Second, d_sae, d_in)?;
    let decoder = match tensors.has("decoder") {
        true => tensors.matrix("decoder", FeatureAxis::First, d_sae, d_in)?,
        false => encoder.clone(),
    };
    let mut notes = Vec::new();
    let (activation, architecture) = match named.activation.as_str() {
        "ReLU" => (Activation::Relu, "standard"),
        "JumpReLU" => {
            let log = tensors.vector("activation.log_threshold", d_sae)?;
            (
                jump_relu(log.into_iter().map(|log| libm::exp(log) as f32).collect()),
                "jumprelu",
            )
        }
        name @ ("TopK" | "TopKReLU") => {
            let k = k(settings, named.k, "the file's name", &mut notes)?;
            (top_k(k, name == "TopKReLU"), "topk")
        }
        other => {
            return Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("MSAE with activation {other}"),
            });
        }
    };
    let mut parts = Parts::new(encoder, activation, decoder);
    if named.soft_cap > 0.0 {
        parts.value_map = ValueMap::SoftCap(named.soft_cap);
    }
    parts.bias = Some(tensors.vector("latent_bias", d_sae)?);
    let pre_bias = tensors.vector("pre_bias", d_in)?;
    let mean = outside(archive, "mean_center", d_in)?;
    let factor = outside(archive, "scaling_factor", 1)?
        .first()
        .copied()
        .unwrap_or(1.0);
    if factor.is_nan() || factor <= 0.0 {
        return Err(Error::InvalidValue {
            key: "scaling_factor".into(),
            expected: "a positive number".into(),
            found: factor.to_string(),
        });
    }
    if named.normalize {
        if factor != 1.0 || mean.iter().any(|&mean| mean != 0.0) {
            return Err(Error::UnsupportedArchitecture {
                architecture: "MSAE with both a data normalisation and a layer norm".into(),
            });
        }
        parts.input_norm = InputNorm::LayerNorm;
    }
    // (x - mean) s - pre_bias = s (x - (mean + pre_bias / s)), and the output is undone alike.
    let shift = mean
        .iter()
        .zip(&pre_bias)
        .map(|(mean, bias)| mean + bias / factor);
    let shift: Vec<f64> = shift.collect();
    parts.center = Some(shift.clone());
    parts.decoder_bias = Some(shift);
    if factor != 1.0 {
        parts.scale = Some(times(None, factor, d_sae));
        parts.decoder_scale = Some(times(None, 1.0 / factor, d_sae));
        notes.push(alloc::format!("the data's scaling factor is {factor}"));
    }
    parts.about = about(
        "MSAE",
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[],
        settings,
    )?;
    parts.about.notes = notes;
    Ok(parts)
}

/// A tensor or a number beside the state dict; absent and false are 0.
fn outside(archive: &Archive<'_>, name: &str, length: usize) -> Result<Vec<f64>, Error> {
    if let Some(entry) = archive.entry(name) {
        let values = entry.load()?.to_f64()?;
        return match (values.as_slice(), length) {
            (values, _) if values.len() == length => Ok(values.to_vec()),
            (&[value], _) => Ok(vec![value; length]),
            _ => Err(Error::Shape {
                tensor: name.into(),
                expected: vec![length],
                found: entry.shape().to_vec(),
            }),
        };
    }
    match archive.value(name) {
        None | Some(Value::Null | Value::Bool(false)) => Ok(vec![0.0; length]),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(vec![number; length]),
            None => Err(Error::InvalidValue {
                key: name.into(),
                expected: "a number or a tensor".into(),
                found: value.to_string(),
            }),
        },
    }
}

/// Activation, k, layer norm and soft cap, from the caller or from the file's name.
fn facts(file: &str, settings: &Settings<'_>) -> Result<Named, Error> {
    let given = settings.text("activation");
    let normalize = settings.flag("normalize")?;
    let soft_cap = settings.number("soft_cap")?;
    let missing = |key: &str| Error::MissingKey {
        key: key.into(),
        hint: "MSAE keeps it in the file's name, which was changed; give activation=TopKReLU_64, \
               normalize=false and soft_cap=30, say"
            .into(),
    };
    let parsed = parse(file);
    let (activation, k) = match (given, &parsed) {
        (Some(given), _) => match given.split_once('_') {
            Some((name, k)) => (name.to_string(), k.parse().ok()),
            None => (given.to_string(), None),
        },
        (None, Some(named)) => (named.activation.clone(), named.k),
        (None, None) => return Err(missing("activation")),
    };
    let from_name = parsed.as_ref();
    Ok(Named {
        activation,
        k,
        normalize: normalize
            .or(from_name.map(|named| named.normalize))
            .ok_or_else(|| missing("normalize"))?,
        soft_cap: soft_cap
            .or(from_name.map(|named| named.soft_cap))
            .ok_or_else(|| missing("soft_cap"))?,
    })
}

fn parse(file: &str) -> Option<Named> {
    let (name, _) = file.rsplit_once(".pt")?;
    let mut words = name.split('_').peekable();
    let _latents: usize = words.next()?.parse().ok()?;
    let _inputs: usize = words.next()?.parse().ok()?;
    let activation = words.next()?.to_string();
    let mut k = None;
    if activation.contains("TopK") {
        k = Some(words.next()?.parse().ok()?);
    } else if activation == "ReLU" {
        // The weight of the sparsity loss.
        let _ = words.next()?;
    }
    if words
        .peek()
        .is_some_and(|word| matches!(*word, "UW" | "RW"))
    {
        let _ = words.next();
    }
    let flag = |word: &str| match word {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    };
    let _tied = flag(words.next()?)?;
    let normalize = flag(words.next()?)?;
    let soft_cap = words
        .next()?
        .parse()
        .ok()
        .filter(|cap: &f64| cap.is_finite())?;
    Some(Named {
        activation,
        k,
        normalize,
        soft_cap,
    })
}
