//! MLSAE (`tim-lawson/mlsae-*`): `config.json` beside `model.safetensors`.
//!
//! Source: tim-lawson/mlsae, `mlsae/model/autoencoder.py`.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder.weight` | `[n, d]` | rows, no bias |
//! | `decoder.weight` | `[d, n]` | columns |
//! | `pre_encoder_bias` | `[d]` | subtracted from the input and added to the output |
//! | `last_nonzero` | `[n]` I64 | training only |
//!
//! `x' = layer_norm(x)` if `standardize` (on by default), top-k of `W (x' - bias)`, then ReLU;
//! `y = (D f + bias) * std + mean`. The repositories `-tfm` hold a transformer too and prefix
//! these with `autoencoder.`.

use super::common::{about, has_all, k, only, the_archive, top_k};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{FeatureAxis, InputNorm, Parts};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "mlsae",
    detect,
    open,
};

const CONFIG: &str = "config.json";
const PREFIX: &str = "autoencoder.";
const INFORMATIONAL: &[&str] = &[
    "dead_steps_threshold",
    "dead_threshold",
    "auxk",
    "model_name",
];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        has_all(archive, &["pre_encoder_bias"])
            || has_all(archive, &["autoencoder.pre_encoder_bias"])
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    config.informational(INFORMATIONAL);
    let prefix = match has_all(archive, &["pre_encoder_bias"]) {
        true => "",
        false => PREFIX,
    };
    let tensors = Tensors::below(archive, "MLSAE", prefix);
    let [d_sae, d_in] = tensors.shape_2d("encoder.weight")?;
    config.check_size("n_inputs", d_in)?;
    config.check_size("n_latents", d_sae)?;
    let mut notes = Vec::new();
    let k = k(settings, config.count("k")?, CONFIG, &mut notes)?;
    if config.flag("tuned_lens")?.unwrap_or(false) {
        return Err(Error::UnsupportedArchitecture {
            architecture: "mlsae with a tuned lens".into(),
        });
    }
    let activation = top_k(k, true);
    let encoder = tensors.matrix("encoder.weight", FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix("decoder.weight", FeatureAxis::Second, d_sae, d_in)?;
    let mut parts = Parts::new(encoder, activation, decoder);
    let bias = tensors.vector("pre_encoder_bias", d_in)?;
    parts.center = Some(bias.clone());
    parts.decoder_bias = Some(bias);
    if config.flag("standardize")?.unwrap_or(true) {
        parts.input_norm = InputNorm::LayerNorm;
    }
    parts.about = about(
        "MLSAE",
        CONVENTION.name,
        "topk",
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    Ok(parts)
}
