//! Prisma (ViT-Prisma): `weights.pt` beside `config.json`, or both in one file.
//!
//! Source: `src/vit_prisma/sae/sae.py` and `transcoder.py` of ViT-Prisma.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc`, `b_enc` | `[d_in, d_sae]`, `[d_sae]` | columns |
//! | `W_dec` | `[d_sae, d_out]` | rows |
//! | `b_dec` | `[d_in]` | subtracted from the input, **also by transcoders** |
//! | `b_dec_out` | `[d_out]` | transcoders add it; SAEs add `b_dec` |
//! | `W_skip` | `[d_in, d_in]` | `y += W_skip x`, on the raw row, before the normalisation is undone |
//! | `b_gate`, `b_mag`, `r_mag` | `[d_sae]` | gated (its `b_enc` is unused) |
//!
//! `normalize_activations` layer_norm and constant_norm_rescale are SAELens'. Activations relu,
//! tanh-relu and topk; leaky_relu is refused by name, and so is a skip together with a normalisation.

use super::common::{about, has_all, k, only, owned, the_archive, top_k};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, InputNorm, Parts};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "prisma",
    detect,
    open,
};

const CONFIG: &str = "config.json";

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        let says = |key| checkpoint.says(CONFIG, key);
        archive.container == "torch"
            && has_all(archive, &["W_enc", "W_dec"])
            && (has_all(archive, &["b_dec_out"])
                || says("activation_fn_str") && (says("is_transcoder") || says("hook_point")))
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.need_config(CONFIG, "it says activation and normalisation")?;
    let tensors = Tensors::new(archive, "Prisma");
    let [d_in, d_sae] = tensors.shape_2d("W_enc")?;
    let [_, d_out] = tensors.shape_2d("W_dec")?;
    config.check_size("d_in", d_in)?;
    let transcoder = config.flag("is_transcoder")?.unwrap_or(false);
    let encoder = tensors.matrix("W_enc", FeatureAxis::Second, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_out)?;
    let mut notes = Vec::new();
    let (activation, mut architecture) = activation(&config, settings, &mut notes)?;
    let mut parts = Parts::new(encoder, activation, decoder);
    match config.text("architecture")? {
        _ if transcoder => architecture = "transcoder",
        None | Some("standard") => {}
        Some("gated") if matches!(parts.activation, Activation::Relu) => {
            architecture = "gated";
            let r_mag = tensors.vector("r_mag", d_sae)?;
            parts.scale = Some(r_mag.into_iter().map(libm::exp).collect());
            let gate_bias = tensors.vector("b_gate", d_sae)?;
            parts.activation = Activation::Gated { gate_bias };
            parts.bias = Some(tensors.vector("b_mag", d_sae)?);
            tensors.skip("b_enc");
        }
        Some(other) => {
            return Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("Prisma {other}"),
            });
        }
    }
    if parts.bias.is_none() {
        parts.bias = Some(tensors.vector("b_enc", d_sae)?);
    }
    let b_dec = tensors.vector("b_dec", d_in)?;
    parts.decoder_bias = Some(match transcoder {
        true => tensors.vector("b_dec_out", d_out)?,
        false => b_dec.clone(),
    });
    parts.center = Some(b_dec);
    parts.input_norm = match config.text("normalize_activations")? {
        None | Some("none") => InputNorm::None,
        Some("layer_norm") => InputNorm::LayerNorm,
        Some("constant_norm_rescale") => InputNorm::ConstantNorm,
        Some(other) => {
            let expected = "none, layer_norm or constant_norm_rescale";
            return Err(config.invalid("normalize_activations", expected, &other.into()));
        }
    };
    let skip = tensors.has("W_skip");
    if config
        .flag("transcoder_with_skip_connection")?
        .unwrap_or(skip)
        && transcoder
    {
        if parts.input_norm != InputNorm::None {
            return Err(Error::UnsupportedArchitecture {
                architecture: "Prisma transcoder with a skip and a normalisation".into(),
            });
        }
        architecture = "skip_transcoder";
        parts.skip = Some(tensors.matrix("W_skip", FeatureAxis::First, d_out, d_in)?);
    }
    let (hook_name, model_name) = (owned(&config, "hook_point")?, owned(&config, "model_name")?);
    parts.about = about(
        "Prisma",
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    parts.about.site.hook_name = hook_name;
    parts.about.site.model_name = model_name;
    Ok(parts)
}

fn activation(
    config: &Config<'_>,
    settings: &Settings<'_>,
    notes: &mut Vec<alloc::string::String>,
) -> Result<(Activation, &'static str), Error> {
    let kwargs = config.object("activation_fn_kwargs")?;
    match config.text("activation_fn_str")? {
        None | Some("relu") => Ok((Activation::Relu, "standard")),
        Some("tanh-relu") => Ok((Activation::TanhRelu, "standard")),
        Some("topk") => {
            let k = k(settings, kwargs.count("k")?, CONFIG, notes)?;
            Ok((top_k(k, true), "topk"))
        }
        Some(other) => Err(Error::UnsupportedArchitecture {
            architecture: alloc::format!("Prisma with activation {other}"),
        }),
    }
}
