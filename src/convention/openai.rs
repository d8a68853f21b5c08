//! OpenAI's `sparse_autoencoder`, versions 1, 4 and 5 (`{layer}.pt`), and sdxl-unbox
//! (`state_dict.pth` beside `config.json`), which took the form over.
//!
//! Source: `sparse_autoencoder/model.py` of openai/sparse_autoencoder at 4965b94; sdxl-unbox
//! `SAE/sae.py`.
//!
//! | entry | shape | |
//! |---|---|---|
//! | `encoder.weight`, `latent_bias` | `[n, d]`, `[n]` | rows |
//! | `decoder.weight` | `[d, n]` | columns, or rows where it is stored column-major |
//! | `decoder.linear.weight` | `[n, d]` | tied: the encoder itself |
//! | `pre_bias` | `[d]` | subtracted from the input and added to the output |
//! | `activation`, `activation_state_dict` | | `ReLU`, `TopK` with `k` and `postact_fn`, `Identity` |
//!
//! TopK implies the layer norm of the input, which the output undoes. `postact_fn` Identity keeps
//! negative values among the k largest. sdxl-unbox has k in its config, no layer norm, and ReLU.

use super::common::{about, has_all, k, only, the_archive, top_k};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, InputNorm, Parts};
use alloc::string::ToString;
use alloc::vec::Vec;
use serde_json::Value;

pub(super) const CONVENTION: Convention = Convention {
    name: "openai",
    detect,
    open,
};

const CONFIG: &str = "config.json";
const TIED: &str = "decoder.linear.weight";
/// Statistics of training.
const STATISTICS: &[&str] = &["latents_activation_frequency", "latents_mean_square"];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint)
        .is_some_and(|archive| has_all(archive, &["pre_bias", "latent_bias", "encoder.weight"]))
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let tensors = Tensors::new(archive, "OpenAI");
    let config = checkpoint.config_or_empty(CONFIG)?;
    let [d_sae, d_in] = tensors.shape_2d("encoder.weight")?;
    let encoder = tensors.matrix("encoder.weight", FeatureAxis::First, d_sae, d_in)?;
    let tied = tensors.has(TIED);
    let decoder = match tied {
        true => tensors.matrix(TIED, FeatureAxis::First, d_sae, d_in)?,
        false => tensors.matrix("decoder.weight", FeatureAxis::Second, d_sae, d_in)?,
    };
    let mut notes = Vec::new();
    let state = |key: &str| {
        let nested = archive
            .value("activation_state_dict")
            .and_then(|state| state.get(key));
        nested.or_else(|| archive.value(&alloc::format!("activation_state_dict.{key}")))
    };
    let name = archive.value("activation").and_then(Value::as_str);
    let (activation, architecture, input_norm) = match name {
        Some("ReLU") => (Activation::Relu, "standard", InputNorm::None),
        Some("TopK") => {
            let stated = state("k").map(whole).transpose()?;
            let k = k(settings, stated, "activation_state_dict", &mut notes)?;
            let relu = match state("postact_fn").and_then(Value::as_str) {
                None | Some("ReLU") => true,
                Some("Identity") => false,
                Some(other) => {
                    return Err(Error::InvalidValue {
                        key: "activation_state_dict: postact_fn".into(),
                        expected: "ReLU or Identity".into(),
                        found: other.into(),
                    });
                }
            };
            (top_k(k, relu), "topk", InputNorm::LayerNorm)
        }
        Some(other) => {
            return Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("OpenAI with activation {other}"),
            });
        }
        // sdxl-unbox.
        None => {
            let k = k(settings, config.count("k")?, CONFIG, &mut notes)?;
            (top_k(k, true), "topk", InputNorm::None)
        }
    };
    let mut parts = Parts::new(encoder, activation, decoder);
    parts.input_norm = input_norm;
    parts.bias = Some(tensors.vector("latent_bias", d_sae)?);
    let pre_bias = tensors.vector("pre_bias", d_in)?;
    parts.center = Some(pre_bias.clone());
    parts.decoder_bias = Some(pre_bias);
    STATISTICS.iter().for_each(|name| tensors.skip(name));
    let configs = match name {
        Some(_) => &[][..],
        None => &[&config][..],
    };
    parts.about = about(
        "OpenAI",
        CONVENTION.name,
        architecture,
        &[&tensors],
        configs,
        settings,
    )?;
    parts.about.notes = notes;
    if tied {
        parts
            .about
            .notes
            .push("the decoder is the encoder (tied)".into());
    }
    Ok(parts)
}

/// The k of the activation.
fn whole(k: &Value) -> Result<usize, Error> {
    let count = k.as_u64().and_then(|k| usize::try_from(k).ok());
    count.ok_or_else(|| Error::InvalidValue {
        key: "activation_state_dict: k".into(),
        expected: "a whole number".into(),
        found: k.to_string(),
    })
}
