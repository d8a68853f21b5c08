//! Crosscoders: one dictionary over several activations side by side.
//!
//! Source: `dictionary.py` of science-of-finetuning/dictionary_learning (`config.json` beside
//! `model.safetensors`); the model-diffing notebook of ckkissane and neelnanda (`{v}.pt` beside
//! `{v}_cfg.json`).
//!
//! | | science-of-finetuning | model diffing |
//! |---|---|---|
//! | encoder | `encoder.weight [L, d, n]`, `encoder.bias [n]` | `W_enc [L, d, n]`, `b_enc [n]` |
//! | decoder | `decoder.weight [L, n, d]`, `decoder.bias [L, d]` | `W_dec [n, L, d]`, `b_dec [L, d]` |
//! | rule | ReLU, or BatchTopK (`k`, `threshold`): `f` where `f codenorm > threshold` | ReLU |
//!
//! Rows are the L activations side by side, `[L * d]`, and so are the reconstructions. The
//! matrices are read in place: `[L, d, n]` is `[L * d, n]`, `[n, L, d]` is `[n, L * d]`, and
//! `[L, n, d]` is L blocks. `code_normalization_id` says what codenorm is: 1 the sum over layers of the norms of the decoder rows, 2 the norm of all of them,
//! 4 is 1; 3 (needs weights that are not in the file) and 5 (a gate per layer) are refused.
//! Buffers of an activation normaliser that are not NaN are refused unless they change nothing.
//! What the model-diffing notebook does to its inputs is in the notebook only.

use super::common::{about, has_all, only, scalar_jump_relu, shape, the_archive};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, Matrix, Parts};
use alloc::vec;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "crosscoder",
    detect,
    open,
};

const CONFIG: &str = "config.json";

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        shape(archive, "encoder.weight").len() == 3 && has_all(archive, &["decoder.weight"])
            || shape(archive, "W_enc").len() == 3 && shape(archive, "W_dec").len() == 3
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let tensors = Tensors::new(archive, "crosscoder");
    let diffing = has_all(archive, &["W_enc"]);
    let config = match diffing {
        true => Config::empty("the notebook's config"),
        false => checkpoint.config_or_empty(CONFIG)?,
    };
    config.informational(&["model_type", "k", "device", "same_init_for_all_layers"]);
    let [w_enc, w_dec, b_enc, b_dec] = match diffing {
        true => ["W_enc", "W_dec", "b_enc", "b_dec"],
        false => [
            "encoder.weight",
            "decoder.weight",
            "encoder.bias",
            "decoder.bias",
        ],
    };
    let [layers, d, d_sae] = tensors.shape_3d(w_enc)?;
    config.check_size("activation_dim", d)?;
    config.check_size("dict_size", d_sae)?;
    config.check_size("num_layers", layers)?;
    tensors.check_shape(b_dec, &[layers, d])?;
    let encoder = tensors.flat_columns(w_enc)?;
    let mut notes = Vec::new();
    let decoder = if diffing {
        tensors.check_shape(w_dec, &[d_sae, layers, d])?;
        tensors.flat_rows(w_dec)?
    } else {
        tensors.check_shape(w_dec, &[layers, d_sae, d])?;
        Matrix::side_by_side(&tensors.weights(w_dec)?, d_sae, d)?
    };
    let mut parts = Parts::new(encoder, Activation::Relu, decoder);
    parts.input_sites = layers;
    parts.output_sites = layers;
    parts.bias = Some(tensors.vector(b_enc, d_sae)?);
    parts.decoder_bias = Some(tensors.flat_values(b_dec)?);

    let mut architecture = "standard";
    let id = tensors.scalar("code_normalization_id")?.unwrap_or(1.0);
    if tensors.has("threshold") {
        architecture = "batchtopk";
        let threshold = tensors.scalar("threshold")?.unwrap_or(0.0);
        parts.activation = scalar_jump_relu(threshold as f32);
        parts.rank_weight = code_norms(&parts.decoder, id)?;
        tensors.count_read(parts.decoder.size_bytes());
        notes.push("decoder norms were computed at open".into());
        let _ = tensors.count("k")?;
    } else if tensors.has("k") {
        return Err(tensors.missing("threshold"));
    }
    normalizer(&tensors)?;
    notes.push(alloc::format!(
        "rows are {layers} activations of {d} values, side by side"
    ));
    parts.about = about(
        if diffing {
            "model diffing"
        } else {
            "science-of-finetuning"
        },
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    Ok(parts)
}

/// What a value is multiplied with before it meets the threshold; None for 1.
fn code_norms(decoder: &Matrix<'_>, id: f64) -> Result<Option<Vec<f64>>, Error> {
    let unsupported = |kind: &str| Error::UnsupportedArchitecture {
        architecture: alloc::format!("crosscoder with {kind} code normalisation"),
    };
    let sum_over_layers = match id as i64 {
        1 => true,
        2 => false,
        4 => return Ok(None),
        3 => return Err(unsupported("mixed")),
        5 => return Err(unsupported("decoupled")),
        _ => return Err(unsupported("unknown")),
    };
    if !sum_over_layers {
        return decoder.norms().map(Some);
    }
    let mut sums = vec![0.0; decoder.features()];
    for block in decoder.blocks() {
        let norms = block.matrix.norms()?;
        sums.iter_mut()
            .zip(norms)
            .for_each(|(sum, norm)| *sum += norm);
    }
    if decoder.blocks().is_empty() {
        // One layer.
        sums = decoder.norms()?;
    }
    Ok(Some(sums))
}

/// Buffers of the activation normaliser: NaN means that there is none.
fn normalizer(tensors: &Tensors<'_, '_>) -> Result<(), Error> {
    let mut normalizes = true;
    for name in ["activation_mean", "activation_std"] {
        normalizes &= tensors.has(name) && !tensors.flat_values(name)?.iter().any(|v| v.is_nan());
    }
    tensors.skip("activation_global_scale");
    tensors.skip("target_rms");
    match normalizes {
        false => Ok(()),
        true => Err(Error::UnsupportedArchitecture {
            architecture: "crosscoder with an activation normaliser".into(),
        }),
    }
}
