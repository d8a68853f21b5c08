//! overcomplete: the state dict of a model (`sae_state_dict.pt`, say), with a linear encoder.
//!
//! Source: `overcomplete/sae/*.py` of overcomplete 0.3.0.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder.final_block.0.weight`, `.bias` | `[n, d]`, `[n]` | rows; absent for matching pursuit |
//! | `dictionary._weights` | `[n, d]` | rows, **normalised at load** |
//! | `dictionary.multiplier` | 0-dim | the dictionary is multiplied by `exp(it)` |
//! | `dictionary.W [n, c]`, `.C [c, d]`, `.Relax [n, d]` | | relaxed archetypal dictionaries |
//! | `thresholds` | `[n]` | JumpSAE: logarithms |
//!
//! `a = relu(W x + b)`, then the rule of the class; `y = f D`, nothing subtracted or added.
//! `D = w / (|w| + 1e-8) * exp(m)`: a factor per feature. Archetypal: `D = (W' C + Relax)
//! exp(m)` with `W' = relu(W) / (rowsum + 1e-8)`, which is computed once at open, in f64,
//! rounded to f32 and held in memory. BatchTopK keeps `a >= running_threshold`. MpSAE has no
//! encoder: exactly k steps of matching pursuit on the largest correlation, which may be negative.
//! OMP and QSAE classes are refused by name.
//!
//! Class, k and running threshold are attributes that a state dict does not hold: they are read
//! from `meta.json` (`class`, `top_k`, `k`, `running_threshold`) if there is one, else the caller
//! gives them. Whole pickled modules are refused by the container.

use super::common::{about, has_all, jump_relu, k, norms, only, shape, the_archive, top_k};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::kernels::WeightType;
use crate::model::{Activation, FeatureAxis, Matrix, Parts, Pursuit, Thresholds};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "overcomplete",
    detect,
    open,
};

const CONFIG: &str = "meta.json";
const ENCODER: &str = "encoder.final_block.0.weight";
const WEIGHTS: &str = "dictionary._weights";
const MULTIPLIER: &str = "dictionary.multiplier";
/// As in overcomplete's normalisation.
const EPSILON: f64 = 1e-8;

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        has_all(archive, &[WEIGHTS]) || has_all(archive, &["dictionary.W", "dictionary.C"])
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    let tensors = Tensors::new(archive, "overcomplete");
    let mut notes = Vec::new();
    let class = class(&config, &tensors, settings)?;
    let archetypal = shape(archive, "dictionary.C").len() == 2;
    let rule = class.strip_prefix("RA").unwrap_or(&class);
    let pursues = rule == "MpSAE";
    let [d_sae, d_in] = match (pursues, archetypal) {
        (false, _) => tensors.shape_2d(ENCODER)?,
        (true, false) => tensors.shape_2d(WEIGHTS)?,
        (true, true) => tensors.shape_2d("dictionary.Relax")?,
    };
    let multiplier = libm::exp(tensors.scalar(MULTIPLIER)?.unwrap_or(0.0));
    let (decoder, decoder_scale) = match archetypal {
        true => {
            notes.push("the archetypal dictionary was computed at open and is in memory".into());
            (archetypes(&tensors, d_sae, d_in)?, vec![multiplier; d_sae])
        }
        false => {
            let [_, d_out] = tensors.shape_2d(WEIGHTS)?;
            let decoder = tensors.matrix(WEIGHTS, FeatureAxis::First, d_sae, d_out)?;
            let norms = norms(&decoder, &tensors)?;
            notes.push("dictionary norms were computed at open".into());
            let scale = |norm: f64| multiplier / (norm + EPSILON);
            (decoder, norms.into_iter().map(scale).collect())
        }
    };
    let stated_k = match config.count("k")? {
        Some(k) => Some(k),
        None => config.count("top_k")?,
    };
    let (activation, architecture) = match rule {
        "SAE" => (Activation::Relu, "standard"),
        "MpSAE" => {
            let steps = k(settings, stated_k, CONFIG, &mut notes)?;
            let rule = Activation::Pursuit(Pursuit::matching_any(steps));
            (rule, "matching_pursuit")
        }
        "TopKSAE" | "TopK" => (
            top_k(k(settings, stated_k, CONFIG, &mut notes)?, true),
            "topk",
        ),
        "JumpSAE" | "Jump" => {
            let log = tensors.vector("thresholds", d_sae)?;
            let thresholds = log.into_iter().map(|log| libm::exp(log) as f32).collect();
            (jump_relu(thresholds), "jumprelu")
        }
        "BatchTopKSAE" | "BatchTopK" => {
            const KEY: &str = "running_threshold";
            let stated = config.number(KEY)?;
            let threshold = match (settings.number(KEY)?, stated) {
                (Some(threshold), _) | (None, Some(threshold)) => threshold,
                (None, None) => {
                    return Err(Error::MissingKey {
                        key: KEY.into(),
                        hint: "a state dict does not hold it; give running_threshold=.., the \
                               attribute of the trained model"
                            .into(),
                    });
                }
            };
            let rule = Activation::JumpRelu {
                threshold: Thresholds::Scalar(threshold as f32),
                relu: true,
                inclusive: true,
            };
            (rule, "batchtopk")
        }
        _ => {
            return Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("overcomplete {class}"),
            });
        }
    };
    config.informational(&["k", "top_k", "running_threshold"]);
    let encoder = match pursues {
        true => decoder.clone(),
        false => tensors.matrix(ENCODER, FeatureAxis::First, d_sae, d_in)?,
    };
    let mut parts = Parts::new(encoder, activation, decoder);
    if !pursues {
        parts.bias = Some(tensors.vector("encoder.final_block.0.bias", d_sae)?);
    }
    parts.decoder_scale = Some(decoder_scale);
    parts.about = about(
        "overcomplete",
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    Ok(parts)
}

fn class(
    config: &Config<'_>,
    tensors: &Tensors<'_, '_>,
    settings: &Settings<'_>,
) -> Result<String, Error> {
    let stated = config.text("class")?;
    match settings.text("class").or(stated) {
        Some(class) => Ok(class.into()),
        None if tensors.has("thresholds") => Ok("JumpSAE".into()),
        None => Err(Error::MissingKey {
            key: "class".into(),
            hint: "a state dict does not say it; give class=SAE, TopKSAE, BatchTopKSAE or another \
                   class of overcomplete"
                .into(),
        }),
    }
}

/// `W' C + Relax`, rounded to f32.
fn archetypes(tensors: &Tensors<'_, '_>, d_sae: usize, d: usize) -> Result<Matrix<'static>, Error> {
    let [_, candidates] = tensors.shape_2d("dictionary.W")?;
    for (name, shape) in [
        ("dictionary.W", [d_sae, candidates]),
        ("dictionary.C", [candidates, d]),
        ("dictionary.Relax", [d_sae, d]),
    ] {
        tensors.check_shape(name, &shape)?;
    }
    let mixture = tensors.flat_values("dictionary.W")?;
    let points = tensors.flat_values("dictionary.C")?;
    let relax = tensors.flat_values("dictionary.Relax")?;
    let bytes = d_sae * d * 4;
    let mut rows: Vec<u8> = Vec::new();
    rows.try_reserve_exact(bytes)
        .map_err(|_| Error::OutOfMemory {
            what: "the archetypal dictionary",
            bytes: bytes as u64,
        })?;
    let mut row = vec![0.0; d];
    let features = mixture
        .chunks_exact(candidates.max(1))
        .zip(relax.chunks_exact(d.max(1)));
    for (weights, relax) in features {
        row.copy_from_slice(relax);
        let total: f64 = weights.iter().map(|weight| weight.max(0.0)).sum();
        for (weight, point) in weights.iter().zip(points.chunks_exact(d.max(1))) {
            let share = weight.max(0.0) / (total + EPSILON);
            for (to, value) in row.iter_mut().zip(point) {
                *to += share * value;
            }
        }
        for value in &row {
            rows.extend_from_slice(&(*value as f32).to_le_bytes());
        }
    }
    Ok(Matrix::from_rows(
        "dictionary",
        rows,
        WeightType::F32,
        d_sae,
        d,
    ))
}
