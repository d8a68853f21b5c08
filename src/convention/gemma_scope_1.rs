//! Gemma Scope 1: one `params.npz`, no config.
//!
//! Source: `gemma_2` and `gemma_2_transcoder` loaders of SAELens 6.54; Lieberum et al. 2024.
//!
//! `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_out]`, `b_enc`, `threshold [d_sae]`, `b_dec [d_out]`.
//! `pre = W_enc^T x + b_enc` (`b_dec` is **not** subtracted), strict JumpReLU; without
//! `threshold` a plain ReLU. Lower-case `w_enc`, `w_dec` occur. The eight embedding SAEs (a
//! folder `embedding` above a `width_*`) follow SAELens: `W_enc / sqrt(d_in)` and
//! `W_dec * sqrt(d_in)`, everything else as stored.

use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{About, Activation, FeatureAxis, Parts, Thresholds};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "gemma_scope_1",
    detect,
    open,
};

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    let [(_, archive)] = checkpoint.archives.as_slice() else {
        return false;
    };
    archive.container == "npz"
}

fn open<'a>(checkpoint: &Checkpoint<'a>, _: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let [(_, archive)] = checkpoint.archives.as_slice() else {
        return Err(super::unknown(checkpoint));
    };
    let tensors = Tensors::new(archive, "Gemma Scope 1");
    let either = |upper, lower| {
        if tensors.has(upper) || !tensors.has(lower) {
            upper
        } else {
            lower
        }
    };
    let (w_enc, w_dec) = (either("W_enc", "w_enc"), either("W_dec", "w_dec"));
    let [d_in, d_sae] = tensors.shape_2d(w_enc)?;
    let [_, d_out] = tensors.shape_2d(w_dec)?;
    // Every shape is checked before a value is read: a deflated member may be a bomb.
    tensors.check_shape(w_dec, &[d_sae, d_out])?;
    tensors.check_shape("b_enc", &[d_sae])?;
    tensors.check_shape("b_dec", &[d_out])?;
    let jump = tensors.has("threshold");
    if jump {
        tensors.check_shape("threshold", &[d_sae])?;
    }
    let activation = match jump {
        true => Activation::JumpRelu {
            threshold: Thresholds::PerFeature(tensors.thresholds("threshold", d_sae)?),
            relu: true,
            inclusive: false,
        },
        false => Activation::Relu,
    };
    if tensors.has("scaling_factor") {
        let factors = tensors.vector("scaling_factor", d_sae)?;
        if let Some(index) = factors.iter().position(|&factor| factor != 1.0) {
            return Err(Error::BadValue {
                tensor: "scaling_factor".into(),
                index: index as u64,
                found: factors.get(index).copied().unwrap_or(f64::NAN),
            });
        }
    }
    let bias = tensors.vector("b_enc", d_sae)?;
    let decoder_bias = tensors.vector("b_dec", d_out)?;
    // As published: `embedding/width_4k/average_l0_21/params.npz`. A folder of the user's own that
    // happens to be called so is followed by another name.
    let embedding = checkpoint
        .folders
        .windows(2)
        .any(|pair| matches!(pair, [first, second] if first == "embedding" && second.starts_with("width_")));
    let root = libm::sqrt(d_in as f64);
    let mut notes = Vec::new();
    if embedding {
        notes.push(alloc::format!(
            "embedding SAE: encoder / sqrt(d_in), decoder * sqrt(d_in) ({root}), as SAELens does"
        ));
    }
    let encoder = tensors.matrix(w_enc, FeatureAxis::Second, d_sae, d_in)?;
    let decoder = tensors.matrix(w_dec, FeatureAxis::First, d_sae, d_out)?;
    Ok(Parts {
        scale: embedding.then(|| vec![1.0 / root; d_sae]),
        bias: Some(bias),
        decoder_scale: embedding.then(|| vec![root; d_sae]),
        decoder_bias: Some(decoder_bias),
        undo_norm: false,
        about: About {
            publisher: "Gemma Scope 1".into(),
            convention: "gemma_scope_1".into(),
            architecture: if jump { "jumprelu" } else { "standard" }.into(),
            ignored_tensors: tensors.ignored()?,
            notes,
            bytes_read: tensors.bytes_read(),
            l0: l0(&checkpoint.folders),
            ..About::default()
        },
        ..Parts::new(encoder, activation, decoder)
    })
}

/// The folder `average_l0_82` that a file was published in.
fn l0(folders: &[String]) -> Option<f64> {
    let number = folders.last()?.strip_prefix("average_l0_")?;
    number.parse().ok().filter(|l0: &f64| l0.is_finite())
}
