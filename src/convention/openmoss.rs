//! OpenMOSS' current form (`lm-saes`, `llamascopium`): `config.json` with `sae_type` beside
//! `sae_weights.safetensors`.
//!
//! Source: OpenMOSS/Language-Model-SAEs at 95281ac (`sae.py`, `abstract_sae.py`).
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_E`, `b_E` | `[d, d_sae]`, `[d_sae]` | columns |
//! | `W_D`, `b_D` | `[d_sae, d]`, `[d]` | rows; `b_D` if `use_decoder_bias` |
//! | `activation_function.log_jumprelu_threshold` | `[d_sae]` | `threshold = exp(it)` |
//! | `W_E_glu`, `b_E_glu` | as `W_E`, `b_E` | `use_glu_encoder`: `p sigmoid(W_E_glu^T s x + b_E_glu)` |
//! | `dataset_average_activation_norm.<hook>` | 0-dim | may be uninitialised memory: read only if `norm_activation` is dataset-wise |
//!
//! `p = W_E^T (s x) + b_E`; nothing is subtracted. With `sparsity_include_decoder_norm` (on by
//! default) the gate looks at `p |d_i|` and the value is p: the norms are the weights of the
//! ranks. Top-k is taken of positive values.

use super::common::{about, fold_factor, has_all, k, norms, only, shape, the_archive, top_k};
use super::llama_scope::hooks;
use super::llama_scope_r1::factor;
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Glu, InputNorm, Parts, Thresholds};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "openmoss",
    detect,
    open,
};

pub(super) const CONFIG: &str = "config.json";
pub(super) const LOG_THRESHOLD: &str = "activation_function.log_jumprelu_threshold";
pub(super) const INFORMATIONAL: &[&str] = &["dtype", "device", "sae_pretrained_name_or_path"];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        has_all(archive, &["W_E"])
            || has_all(archive, &["W_Q", "W_K", "W_V", "W_O"])
            || checkpoint.says(CONFIG, "sae_type") && has_all(archive, &["W_D.0"])
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.need_config(CONFIG, "it says which activation the model has")?;
    config.informational(INFORMATIONAL);
    let stacked = shape(archive, "W_E").len() != 2 || !has_all(archive, &["W_D"]);
    let kind = config.text("sae_type")?;
    match kind {
        None | Some("sae") if !stacked => {}
        Some("lorsa") if has_all(archive, &["W_Q"]) => {
            return super::openmoss_lorsa::open(archive, &config, settings);
        }
        Some("molt") if shape(archive, "W_E").len() == 2 => {
            return super::openmoss_molt::open(archive, &config, settings);
        }
        Some("clt" | "crosscoder" | "lorsa" | "molt") => {
            return Err(Error::UnsupportedArchitecture {
                architecture: kind.unwrap_or("").into(),
            });
        }
        other => {
            let found = other.unwrap_or("nothing").into();
            return Err(config.invalid("sae_type", "the type that these tensors have", &found));
        }
    }
    let tensors = Tensors::new(archive, "OpenMOSS");
    let [d_in, d_sae] = tensors.shape_2d("W_E")?;
    let [_, d_out] = tensors.shape_2d("W_D")?;
    config.check_size("d_model", d_in)?;
    config.check_size("d_sae", d_sae)?;
    let _ = config.number("expansion_factor")?;
    let encoder = tensors.matrix("W_E", FeatureAxis::Second, d_sae, d_in)?;
    let decoder = tensors.matrix("W_D", FeatureAxis::First, d_sae, d_out)?;
    let mut notes = Vec::new();
    let by_norm = config
        .flag("sparsity_include_decoder_norm")?
        .unwrap_or(true);
    let activation = rule(&tensors, &config, settings, d_sae, &mut notes)?;
    let mut parts = Parts::new(encoder, activation, decoder);
    if by_norm && !matches!(parts.activation, Activation::Relu) {
        parts.rank_weight = Some(norms(&parts.decoder, &tensors)?);
        notes.push("decoder norms were computed at open".into());
    }
    parts.bias = Some(tensors.vector("b_E", d_sae)?);
    if config.flag("use_glu_encoder")?.unwrap_or(false) {
        parts.glu = Some(Glu {
            matrix: tensors.matrix("W_E_glu", FeatureAxis::Second, d_sae, d_in)?,
            bias: Some(tensors.vector("b_E_glu", d_sae)?),
        });
    }
    parts.decoder_bias = Some(match config.flag("use_decoder_bias")? {
        Some(false) if !tensors.has("b_D") => vec![0.0; d_out],
        _ => tensors.vector("b_D", d_out)?,
    });
    parts.about.notes = notes;
    let architecture = config.text("act_fn")?;
    match config.text("norm_activation")? {
        Some("token-wise") => {
            parts.input_norm = InputNorm::ConstantNorm;
            for name in tensors
                .names()
                .filter(|name| name.starts_with("dataset_average"))
            {
                tensors.skip(name);
            }
        }
        _ => {
            let factor = factor(&config, &tensors, settings, d_in)?;
            if factor != 1.0 && parts.glu.is_some() {
                return Err(Error::UnsupportedArchitecture {
                    architecture: "glu encoder with dataset-wise normalisation".into(),
                });
            }
            if factor != 1.0 {
                fold_factor(&mut parts, factor);
            }
        }
    }
    let site = hooks(&config)?;
    let notes = core::mem::take(&mut parts.about.notes);
    parts.about = about(
        "OpenMOSS",
        CONVENTION.name,
        architecture.unwrap_or(""),
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

/// The rule that `act_fn` names, for so many features.
pub(super) fn rule(
    tensors: &Tensors<'_, '_>,
    config: &Config<'_>,
    settings: &Settings<'_>,
    d_sae: usize,
    notes: &mut Vec<String>,
) -> Result<Activation, Error> {
    let stated_k = config.count("top_k")?;
    match config.text("act_fn")? {
        Some("relu") => Ok(Activation::Relu),
        Some("jumprelu") => {
            let log = tensors.vector(LOG_THRESHOLD, d_sae)?;
            let thresholds = log.into_iter().map(|log| libm::exp(log) as f32).collect();
            Ok(Activation::JumpRelu {
                threshold: Thresholds::PerFeature(thresholds),
                relu: false,
                inclusive: false,
            })
        }
        Some("topk") => Ok(top_k(k(settings, stated_k, CONFIG, notes)?, true)),
        Some(other @ ("batchtopk" | "layertopk" | "batchlayertopk")) => {
            Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("{other}, which selects over a whole batch"),
            })
        }
        other => {
            let expected = "relu, jumprelu or topk";
            Err(config.invalid("act_fn", expected, &other.unwrap_or("nothing").into()))
        }
    }
}
