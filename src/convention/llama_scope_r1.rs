//! Llama Scope R1-Distill: `config.json` beside `sae_weights.safetensors`.
//!
//! Source: the loader `llama_scope_r1_distill` of SAELens 6.54; OpenMOSS' `sae.py`.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder.weight`, `encoder.bias` | `[d_sae, d_in]`, `[d_sae]` | rows |
//! | `decoder.weight`, `decoder.bias` | `[d_out, d_sae]`, `[d_out]` | columns |
//! | `log_jumprelu_threshold` | `[d_sae]` | `threshold = exp(it)`; also under `activation_function.` |
//!
//! `f = p [p > threshold]`, `p = s (W x) + b`; `y = (D f + b_dec) / s`. The factor s of
//! `norm_activation: dataset-wise` is only in SAELens' registry, or in a tensor
//! `dataset_average_activation_norm.<hook>`. The original code gates on `p |d_i|`
//! (`sparsity_include_decoder_norm`), SAELens on `p`: equal if the norms are 1. If they are not,
//! the original code is followed and `inspect` says so.

use super::common::{
    about, fold_factor, has_all, jump_relu, norms, not_unit, only, positive, shape, the_archive,
};
use super::llama_scope::hooks;
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{FeatureAxis, Parts};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "llama_scope_r1",
    detect,
    open,
};

const CONFIG: &str = "config.json";
const LOG_THRESHOLD: &[&str] = &[
    "log_jumprelu_threshold",
    "activation_function.log_jumprelu_threshold",
];
const INFORMATIONAL: &[&str] = &["dtype", "device", "sae_type", "top_k", "use_decoder_bias"];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        has_all(archive, &["encoder.weight", "decoder.weight"])
            && LOG_THRESHOLD
                .iter()
                .any(|name| !shape(archive, name).is_empty())
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.need_config(CONFIG, "it says how the input is normalised")?;
    config.informational(INFORMATIONAL);
    let tensors = Tensors::new(archive, "Llama Scope R1");
    let [d_sae, d_in] = tensors.shape_2d("encoder.weight")?;
    let [d_out, _] = tensors.shape_2d("decoder.weight")?;
    config.check_size("d_model", d_in)?;
    config.check_size("d_sae", d_sae)?;
    if let Some(factor) = config.number("expansion_factor")?
        && factor * d_in as f64 != d_sae as f64
    {
        return Err(Error::Shape {
            tensor: alloc::format!("{CONFIG}: expansion_factor"),
            expected: alloc::vec![(factor * d_in as f64) as usize, d_in],
            found: alloc::vec![d_sae, d_in],
        });
    }
    match config.text("act_fn")? {
        None | Some("jumprelu") => {}
        Some(other) => return Err(config.invalid("act_fn", "jumprelu", &other.into())),
    }
    if config.flag("use_glu_encoder")?.unwrap_or(false) {
        return Err(Error::UnsupportedArchitecture {
            architecture: "glu encoder".into(),
        });
    }
    let mut notes = Vec::new();
    let encoder = tensors.matrix("encoder.weight", FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix("decoder.weight", FeatureAxis::Second, d_sae, d_out)?;
    let log = tensors.vector(tensors.either(LOG_THRESHOLD), d_sae)?;
    let thresholds: Vec<f64> = log.into_iter().map(libm::exp).collect();
    let gate = thresholds.iter().map(|&value| value as f32).collect();
    let mut rank_weight = None;
    if config
        .flag("sparsity_include_decoder_norm")?
        .unwrap_or(true)
    {
        let norms = norms(&decoder, &tensors)?;
        notes.push("decoder norms were computed at open".into());
        if let Some((least, most)) = not_unit(&norms) {
            rank_weight = Some(norms);
            notes.push(alloc::format!(
                "decoder columns have norms from {least:.3} to {most:.3}, not 1: features are \
                 gated on pre * norm as in the original code, not as in SAELens"
            ));
        }
    }
    let factor = factor(&config, &tensors, settings, d_in)?;
    let mut parts = Parts::new(encoder, jump_relu(gate), decoder);
    parts.rank_weight = rank_weight;
    parts.bias = Some(tensors.vector("encoder.bias", d_sae)?);
    parts.decoder_bias = Some(tensors.vector("decoder.bias", d_out)?);
    parts.about.notes = notes;
    if factor != 1.0 {
        fold_factor(&mut parts, factor);
    }
    let site = hooks(&config)?;
    let notes = core::mem::take(&mut parts.about.notes);
    parts.about = about(
        "Llama Scope R1",
        CONVENTION.name,
        "jumprelu",
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

/// The factor of the input: given, or from the average norm that the file may hold.
pub(super) fn factor(
    config: &Config<'_>,
    tensors: &Tensors<'_, '_>,
    settings: &Settings<'_>,
    d: usize,
) -> Result<f64, Error> {
    const KEY: &str = "norm_scaling_factor";
    const AVERAGE: &str = "dataset_average_activation_norm.";
    // They may be uninitialised memory unless the norm is used.
    let averages: Vec<&str> = tensors
        .names()
        .filter(|name| name.starts_with(AVERAGE))
        .collect();
    averages.iter().for_each(|name| tensors.skip(name));
    let given = settings
        .number(KEY)?
        .map(|factor| positive(KEY, factor))
        .transpose()?;
    match config.text("norm_activation")? {
        Some("dataset-wise") => {}
        Some("inference" | "none") | None => return Ok(given.unwrap_or(1.0)),
        Some(other) => {
            return Err(config.invalid(
                "norm_activation",
                "dataset-wise or inference",
                &other.into(),
            ));
        }
    }
    if let Some(factor) = given {
        return Ok(factor);
    }
    let hook = config.text("hook_point_in")?.unwrap_or("");
    let named = alloc::format!("{AVERAGE}{hook}");
    let name = averages.iter().find(|name| ***name == named);
    match name {
        Some(name) => match tensors.scalar(name)? {
            Some(norm) => Ok(libm::sqrt(d as f64) / positive(name, norm)?),
            None => Ok(1.0),
        },
        None => Err(Error::MissingKey {
            key: KEY.into(),
            hint: alloc::format!(
                "{CONFIG} says norm_activation dataset-wise, but only SAELens' registry has the \
                 factor; 1 gives what SAELens computes from disk"
            ),
        }),
    }
}
