//! EleutherAI's sparsify: `cfg.json` beside `sae.safetensors`, a folder per hook point.
//!
//! Source: `sparsify/sparse_coder.py` and `fused_encoder.py` of eai-sparsify 1.3.3; for `signed`,
//! the code of June to mid 2024. (SAELens' loader of this form transposes `W_dec` and knows
//! neither `transcode` nor `signed`, skip and groupmax: it is not followed.)
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder.weight` | `[d_sae, d_in]` | rows |
//! | `encoder.bias` | `[d_sae]` | |
//! | `W_dec` | `[d_sae, d_out]` | rows, **not** transposed |
//! | `b_dec` | `[d_out]` | subtracted from the input unless `transcode` |
//! | `W_skip` | `[d_out, d_in]` | optional; `y += W_skip x`, on the raw row |
//!
//! `a = relu(W (x - b_dec) + b)`, then the k largest (`topk`), or the largest of each of k
//! groups of neighbours (`groupmax`), or with `signed` the k largest magnitudes without ReLU.
//! `num_latents` 0 means `d_in * expansion_factor`. Code before 12 February 2025 subtracted
//! `b_dec` for transcoders too: `apply_b_dec_to_input=true` opens such a file.

use super::common::{about, has_all, k, only, the_archive};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, InputNorm, Parts, Rank};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "sparsify",
    detect,
    open,
};

const CONFIG: &str = "cfg.json";
/// Training only; `batch_topk` and `sample_topk` (SAeUron) are switched off at inference.
pub(super) const INFORMATIONAL: &[&str] = &[
    "normalize_decoder",
    "multi_topk",
    "batch_topk",
    "sample_topk",
];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| has_all(archive, &["encoder.weight", "W_dec"]))
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.need_config(CONFIG, "sparsify keeps k and the activation in it")?;
    config.informational(INFORMATIONAL);
    let tensors = Tensors::new(archive, "sparsify");
    let [d_sae, d_in] = tensors.shape_2d("encoder.weight")?;
    let [_, d_out] = tensors.shape_2d("W_dec")?;
    check_latents(&config, d_in, d_sae)?;
    let mut notes = Vec::new();
    let k = k(settings, config.count("k")?, CONFIG, &mut notes)?;
    let signed = config.flag("signed")?.unwrap_or(false);
    let (activation, architecture) = rule(&config, k, signed)?;
    let encoder = tensors.matrix("encoder.weight", FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_out)?;
    let mut parts = Parts::new(encoder, activation, decoder);
    parts.bias = Some(tensors.vector("encoder.bias", d_sae)?);
    let b_dec = tensors.vector("b_dec", d_out)?;
    let transcode = config.flag("transcode")?.unwrap_or(false);
    let subtract = settings.flag("apply_b_dec_to_input")?;
    if subtract.unwrap_or(!transcode) {
        parts.center = Some(b_dec.clone());
    }
    parts.decoder_bias = Some(b_dec);
    if config.flag("input_unit_norm")?.unwrap_or(false) {
        parts.input_norm = InputNorm::LayerNorm;
    }
    let has_skip = tensors.has("W_skip");
    match config.flag("skip_connection")? {
        Some(wanted) if wanted != has_skip => {
            return Err(match has_skip {
                false => Error::MissingTensor {
                    tensor: "W_skip".into(),
                    convention: alloc::format!("sparsify, {CONFIG} says skip_connection"),
                },
                true => Error::InvalidValue {
                    key: alloc::format!("{CONFIG}: skip_connection"),
                    expected: "true, since there is a tensor `W_skip`".into(),
                    found: "false".into(),
                },
            });
        }
        _ if has_skip => {
            parts.skip = Some(tensors.matrix("W_skip", FeatureAxis::First, d_out, d_in)?);
        }
        _ => {}
    }
    parts.about = about(
        "sparsify",
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    // The folder is named after the hook point: `layers.10.mlp`.
    parts.about.site.hook_name = checkpoint.folders.last().cloned();
    Ok(parts)
}

/// Whether the sizes are those that the config states.
pub(super) fn check_latents(config: &Config<'_>, d_in: usize, d_sae: usize) -> Result<(), Error> {
    config.check_size("d_in", d_in)?;
    let expansion = config.count("expansion_factor")?;
    match (config.count("num_latents")?, expansion) {
        (Some(0) | None, Some(factor)) if d_in.checked_mul(factor) != Some(d_sae) => {
            Err(Error::Shape {
                tensor: alloc::format!("{CONFIG}: expansion_factor"),
                expected: alloc::vec![d_in.saturating_mul(factor), d_in],
                found: alloc::vec![d_sae, d_in],
            })
        }
        (Some(0) | None, _) => Ok(()),
        (Some(_), _) => config.check_size("num_latents", d_sae),
    }
}

/// The activation, and what it is called.
pub(super) fn rule(
    config: &Config<'_>,
    k: usize,
    signed: bool,
) -> Result<(Activation, &'static str), Error> {
    Ok(match (config.text("activation")?, signed) {
        (None | Some("topk"), false) => (ranked(k, Rank::Value), "topk"),
        (None | Some("topk"), true) => (ranked(k, Rank::Magnitude), "abstopk"),
        (Some("groupmax"), false) => (Activation::group_max(k), "groupmax"),
        (Some(other), _) => {
            return Err(config.invalid("activation", "topk or groupmax", &other.into()));
        }
    })
}

fn ranked(k: usize, rank: Rank) -> Activation {
    Activation::TopK {
        k,
        rank,
        relu: rank == Rank::Value,
    }
}
