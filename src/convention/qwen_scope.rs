//! Qwen-Scope: `layer{n}.sae.pt`, one state dict per layer.
//!
//! Source: the loader `qwen_scope` of SAELens 6.54.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc`, `b_enc` | `[d_sae, d_in]`, `[d_sae]` | rows |
//! | `W_dec`, `b_dec` | `[d_in, d_sae]`, `[d_in]` | columns |
//!
//! SAELens' names with both matrices transposed: told apart by the lengths of the biases. Top-k
//! of `W x + b`, then ReLU; nothing is subtracted. k is only in the repository's name
//! (`SAE-Res-Qwen3-1.7B-Base-W32K-L0_100`: d_sae is 32 * 1024, k is 100), which is looked for
//! among the folders; else the caller gives it.

use super::common::{about, has_all, only, shape, the_archive, top_k};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{FeatureAxis, Parts};
use alloc::string::ToString;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "qwen_scope",
    detect,
    open,
};

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        if archive.container != "torch" || !has_all(archive, &["W_enc", "W_dec", "b_enc", "b_dec"])
        {
            return false;
        }
        let (d_sae, d_in) = (shape(archive, "b_enc"), shape(archive, "b_dec"));
        let transposed = [d_sae, d_in].concat();
        shape(archive, "W_enc") == transposed
            && (d_sae != d_in || name(checkpoint).is_some_and(|(.., width, _)| [width] == *d_sae))
            && [d_in, d_sae].concat() == shape(archive, "W_dec")
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let tensors = Tensors::new(archive, "Qwen-Scope");
    let [d_sae, d_in] = tensors.shape_2d("W_enc")?;
    let mut notes = Vec::new();
    let named = name(checkpoint).filter(|(_, width, _)| *width == d_sae);
    let k = match (settings.count("k")?, &named) {
        (Some(k), Some((.., stated))) if k != *stated => {
            notes.push(alloc::format!(
                "k is {k} as given; the folder's name says {stated}"
            ));
            k
        }
        (Some(k), _) => k,
        (None, Some((.., k))) => {
            notes.push(alloc::format!("k = {k} is from the folder's name"));
            *k
        }
        (None, None) => {
            return Err(Error::MissingKey {
                key: "k".into(),
                hint: alloc::format!(
                    "the file does not say it; keep the repository's folder name \
                     (..-W{}K-L0_{{k}}), or give it as k=50, say",
                    d_sae / 1024
                ),
            });
        }
    };
    let activation = top_k(k, true);
    let encoder = tensors.matrix("W_enc", FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::Second, d_sae, d_in)?;
    let mut parts = Parts::new(encoder, activation, decoder);
    parts.bias = Some(tensors.vector("b_enc", d_sae)?);
    parts.decoder_bias = Some(tensors.vector("b_dec", d_in)?);
    parts.about = about(
        "Qwen-Scope",
        CONVENTION.name,
        "topk",
        &[&tensors],
        &[],
        settings,
    )?;
    parts.about.notes = notes;
    parts.about.site.model_name = named.map(|(model, ..)| model.to_string());
    let file = checkpoint
        .archives
        .first()
        .map_or("", |(name, _)| name.as_str());
    let layer = file
        .strip_prefix("layer")
        .and_then(|rest| rest.split('.').next());
    if let Some(layer) = layer.filter(|layer| layer.bytes().all(|b| b.is_ascii_digit())) {
        parts.about.site.hook_name = Some(alloc::format!("blocks.{layer}.hook_resid_post"));
    }
    Ok(parts)
}

/// Model, d_sae and k from the folder that is named as the repository. A download cache writes
/// `models--Qwen--SAE-Res-..`.
fn name<'c>(checkpoint: &'c Checkpoint<'_>) -> Option<(&'c str, usize, usize)> {
    checkpoint.folders.iter().rev().find_map(|folder| {
        let (front, k) = folder.rsplit_once("K-L0_")?;
        let (model, width) = front.rsplit_once("-W")?;
        let model = model
            .split_once("SAE-Res-")
            .map_or(model, |(_, model)| model);
        let width = width.parse::<usize>().ok()?.checked_mul(1024)?;
        let k = k.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((model, width, k.parse().ok()?))
    })
}
