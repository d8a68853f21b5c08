//! Per-layer transcoder sets of circuit-tracer (`mwhanna/qwen3-*`, `mntss/transcoder-*`):
//! `layer_{i}.safetensors`, with `config.yaml` for the whole set.
//!
//! Source: `circuit_tracer/transcoder/single_layer_transcoder.py` of circuit-tracer 0.5; SAELens'
//! loader `mwhanna_transcoder`, which knows no threshold and no skip.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc` | `[d_sae, d_in]` | rows: transposed with respect to SAELens |
//! | `W_dec` | `[d_sae, d_out]` | rows |
//! | `b_enc`, `b_dec` | `[d_sae]`, `[d_out]` | nothing is subtracted from the input |
//! | `W_skip` | `[d_out, d_in]` | optional; `y += W_skip x` |
//! | `activation_function.threshold` | `[d_sae]` | optional: strict JumpReLU **without** ReLU; else ReLU |
//!
//! A threshold under another name (`log_thresholds`) is refused as an unknown tensor, as
//! circuit-tracer refuses it.

use super::common::{about, has_all, only, owned, shape, the_archive};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Parts, Site, Thresholds};

pub(super) const CONVENTION: Convention = Convention {
    name: "transcoder_set",
    detect,
    open,
};

pub(super) const CONFIG: &str = "config.yaml";
const THRESHOLD: &str = "activation_function.threshold";

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        if archive.container != "safetensors" || !has_all(archive, &["W_enc", "W_dec", "b_enc"]) {
            return false;
        }
        let (rows, columns) = match shape(archive, "W_enc") {
            &[rows, columns] => (rows, columns),
            _ => return false,
        };
        let square = rows == columns;
        let says = checkpoint.says(CONFIG, "model_kind");
        says || (shape(archive, "b_enc") == [rows] && !square && !checkpoint.is_saelens())
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    match config.text("model_kind")? {
        None | Some("transcoder_set") => {}
        Some(other) => {
            let expected = "transcoder_set, for a file with `W_enc` and `W_dec`";
            return Err(config.invalid("model_kind", expected, &other.into()));
        }
    }
    let tensors = Tensors::new(archive, "transcoder set");
    let [d_sae, d_in] = tensors.shape_2d("W_enc")?;
    let [_, d_out] = tensors.shape_2d("W_dec")?;
    let encoder = tensors.matrix("W_enc", FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_out)?;
    let jump = tensors.has(THRESHOLD);
    let activation = match jump {
        true => Activation::JumpRelu {
            threshold: Thresholds::PerFeature(tensors.thresholds(THRESHOLD, d_sae)?),
            relu: false,
            inclusive: false,
        },
        false => Activation::Relu,
    };
    let mut parts = Parts::new(encoder, activation, decoder);
    parts.bias = Some(tensors.vector("b_enc", d_sae)?);
    parts.decoder_bias = Some(tensors.vector("b_dec", d_out)?);
    let skip = tensors.has("W_skip");
    if skip {
        parts.skip = Some(tensors.matrix("W_skip", FeatureAxis::First, d_out, d_in)?);
    }
    let architecture = match (jump, skip) {
        (false, false) => "transcoder",
        (false, true) => "skip_transcoder",
        (true, false) => "jumprelu_transcoder",
        (true, true) => "jumprelu_skip_transcoder",
    };
    let layer = checkpoint.archives.first().and_then(|(name, _)| {
        let digits = name.strip_suffix(".safetensors")?.rsplit('_').next()?;
        digits.parse::<usize>().ok()
    });
    let site = site(&config, layer)?;
    config.informational(&["scan", "transcoders"]);
    parts.about = about(
        "circuit-tracer",
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.site = site;
    Ok(parts)
}

/// Hook points of a layer: the config names them without the layer.
pub(super) fn site(config: &Config<'_>, layer: Option<usize>) -> Result<Site, Error> {
    let hook = |key: &str| -> Result<_, Error> {
        let hook = config.text(key)?;
        Ok(hook
            .zip(layer)
            .map(|(hook, layer)| alloc::format!("blocks.{layer}.{hook}")))
    };
    Ok(Site {
        hook_name: hook("feature_input_hook")?,
        hook_name_out: hook("feature_output_hook")?,
        model_name: owned(config, "model_name")?,
        ..Site::default()
    })
}
