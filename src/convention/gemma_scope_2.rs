//! Gemma Scope 2: `params.safetensors` with lower-case names, and a `config.json` that may be
//! missing.
//!
//! Source: `gemma_3` loader of SAELens 6.54 (the cross-layer files also circuit-tracer 0.5).
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `w_enc` | `[d_in, d_sae]` | columns |
//! | `w_dec` | `[d_sae, d_out]` | rows; `[d_sae, layers, d_out]` in a file of a cross-layer transcoder |
//! | `b_enc`, `threshold` | `[d_sae]` | |
//! | `b_dec` | `[d_out]` | **not** subtracted from the input |
//! | `affine_skip_connection` | `[d_in, d_out]` | `y += x @ it`: transposed with respect to SAELens' `W_skip` |
//!
//! `pre = w_enc^T x + b_enc`, strict JumpReLU, `y = w_dec^T f + b_dec (+ skip)`. Weights of
//! one cross-layer file reconstruct the part that this layer contributes to each target layer,
//! side by side: they are not summed over the targets, as SAELens does. Its `b_dec` and skip
//! belong to its own layer, so that the sum of all files' reconstructions is the model's.

use super::common::{about, has_all, jump_relu, only, owned, shape, the_archive};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{FeatureAxis, Parts, Site};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "gemma_scope_2",
    detect,
    open,
};

const CONFIG: &str = "config.json";
const SKIP: &str = "affine_skip_connection";
const INFORMATIONAL: &[&str] = &["width", "l0", "type", "model_name", "hf_hook_point_out"];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        archive.container == "safetensors"
            && (has_all(archive, &["w_enc"]) || has_all(archive, &["w_dec"]))
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    config.informational(INFORMATIONAL);
    match config.text("architecture")? {
        None | Some("jump_relu") => {}
        Some(other) => {
            return Err(Error::UnsupportedArchitecture {
                architecture: other.into(),
            });
        }
    }
    let tensors = Tensors::new(archive, "Gemma Scope 2");
    let [d_in, d_sae] = tensors.shape_2d("w_enc")?;
    let cross_layer = shape(archive, "w_dec").len() == 3;
    let decoder = match cross_layer {
        true => tensors.flat_rows("w_dec")?,
        false => {
            let [_, d_out] = tensors.shape_2d("w_dec")?;
            tensors.matrix("w_dec", FeatureAxis::First, d_sae, d_out)?
        }
    };
    let layers = match cross_layer {
        true => tensors.shape_3d("w_dec")?[1],
        false => 1,
    };
    let d_out = decoder.width() / layers.max(1);
    tensors.check_shape("b_enc", &[d_sae])?;
    tensors.check_shape("b_dec", &[d_out])?;
    let encoder = tensors.matrix("w_enc", FeatureAxis::Second, d_sae, d_in)?;
    let threshold = tensors.thresholds("threshold", d_sae)?;
    let mut parts = Parts::new(encoder, jump_relu(threshold), decoder);
    parts.bias = Some(tensors.vector("b_enc", d_sae)?);
    let b_dec = tensors.vector("b_dec", d_out)?;

    let affine = config.flag("affine_connection")?;
    let skip = tensors.has(SKIP);
    match (affine, skip) {
        (Some(true), false) => return Err(missing_skip()),
        (Some(false), true) => {
            return Err(Error::InvalidValue {
                key: alloc::format!("{CONFIG}: affine_connection"),
                expected: alloc::format!("true, since there is a tensor `{SKIP}`"),
                found: "false".into(),
            });
        }
        _ => {}
    }
    let site = site(checkpoint, &config)?;
    let transcoder = cross_layer || skip || site.hook_name_out.is_some();
    let mut notes = Vec::new();
    if cross_layer {
        let own = own_layer(checkpoint, layers)?;
        let mut whole = vec![0.0; layers * d_out];
        let place = whole.get_mut(own * d_out..(own + 1) * d_out);
        place.unwrap_or(&mut []).copy_from_slice(&b_dec);
        parts.decoder_bias = Some(whole);
        if skip {
            // A skip into one of several target layers.
            return Err(Error::UnsupportedArchitecture {
                architecture: "cross-layer transcoder with affine skip".into(),
            });
        }
        notes.push(alloc::format!(
            "layer {own} of a cross-layer transcoder: outputs are what it adds to each of \
             {layers} target layers, side by side"
        ));
    } else {
        parts.decoder_bias = Some(b_dec);
        if skip {
            parts.skip = Some(tensors.matrix(SKIP, FeatureAxis::Second, d_out, d_in)?);
        }
    }
    let architecture = match (cross_layer, transcoder, skip) {
        (true, ..) => "cross_layer_transcoder",
        (_, _, true) => "jumprelu_skip_transcoder",
        (_, true, _) => "jumprelu_transcoder",
        _ => "jumprelu",
    };
    parts.about = about(
        "Gemma Scope 2",
        "gemma_scope_2",
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    // Some files say it as a number, others as a word.
    parts.about.l0 = config.value("l0").and_then(serde_json::Value::as_f64);
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

fn missing_skip() -> Error {
    Error::MissingTensor {
        tensor: SKIP.into(),
        convention: alloc::format!("Gemma Scope 2, {CONFIG} says affine_connection"),
    }
}

/// The layer that a cross-layer file belongs to, from its name (`..layer_12..`).
fn own_layer(checkpoint: &Checkpoint<'_>, layers: usize) -> Result<usize, Error> {
    let names = checkpoint.archives.iter().map(|(name, _)| name.as_str());
    let folders = checkpoint.folders.iter().rev().map(String::as_str);
    match names.chain(folders).find_map(layer_of) {
        Some(layer) if layer < layers => Ok(layer),
        Some(layer) => Err(Error::InvalidValue {
            key: "layer".into(),
            expected: alloc::format!("below {layers}, the target layers of `w_dec`"),
            found: layer.to_string(),
        }),
        None => Err(Error::MissingKey {
            key: "layer".into(),
            hint: "the file name of a cross-layer transcoder says it: `..layer_12..`".into(),
        }),
    }
}

/// The number in `..layer_12..`.
fn layer_of(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once("layer_")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Hook points: those of the config, else those that the folder's name stands for.
fn site(checkpoint: &Checkpoint<'_>, config: &Config<'_>) -> Result<Site, Error> {
    let mut site = Site {
        hook_name: owned(config, "hf_hook_point_in")?,
        hook_name_out: owned(config, "hf_hook_point_out")?,
        model_name: owned(config, "model_name")?,
        ..Site::default()
    };
    let folders = checkpoint.folders.iter().rev();
    let layer = folders.clone().find_map(|folder| layer_of(folder));
    if let (None, Some(layer)) = (&site.hook_name, layer) {
        let place = |name: &str| Some(alloc::format!("model.layers.{layer}.{name}"));
        for folder in folders.take(3) {
            let begins = |kind: &str| folder.starts_with(kind);
            if begins("resid_post") {
                site.hook_name = place("output");
            } else if begins("attn_out") {
                site.hook_name = place("self_attn.o_proj.input");
            } else if begins("mlp_out") {
                site.hook_name = place("post_feedforward_layernorm.output");
            } else if begins("transcoder") || begins("clt") {
                site.hook_name = place("pre_feedforward_layernorm.output");
                site.hook_name_out = place("post_feedforward_layernorm.output");
            }
        }
    }
    if site.hook_name_out == site.hook_name {
        site.hook_name_out = None;
    }
    let heads = |name: &str| name.ends_with("o_proj.input");
    site.concatenated_heads = site.hook_name.as_deref().is_some_and(heads);
    Ok(site)
}
