//! Goodfire: one `.pth` or `.pt` state dict of two linear layers.
//!
//! Source: the loader `goodfire` of SAELens 6.54.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder_linear.weight`, `encoder_linear.bias` | `[d_sae, d_in]`, `[d_sae]` | rows |
//! | `decoder_linear.weight`, `decoder_linear.bias` | `[d_in, d_sae]`, `[d_in]` | columns |
//!
//! `f = relu(W x + b)`, `y = D f + b_dec`: nothing is subtracted or normalised.

use super::common::{about, has_all, only, the_archive, two_layers};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::Parts;

pub(super) const CONVENTION: Convention = Convention {
    name: "goodfire",
    detect,
    open,
};

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| has_all(archive, &["encoder_linear.weight"]))
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let tensors = Tensors::new(the_archive(checkpoint)?, "Goodfire");
    let mut parts = two_layers(
        &tensors,
        [
            "encoder_linear.weight",
            "encoder_linear.bias",
            "decoder_linear.weight",
            "decoder_linear.bias",
        ],
    )?;
    parts.about = about(
        "Goodfire",
        CONVENTION.name,
        "standard",
        &[&tensors],
        &[],
        settings,
    )?;
    // The file's name says model and layer: `Llama-3.1-8B-Instruct-SAE-l19.pth`.
    let name = checkpoint
        .archives
        .first()
        .map_or("", |(name, _)| name.as_str());
    if let Some((model, rest)) = name.split_once("-SAE-l") {
        let layer = rest.split('.').next().unwrap_or("");
        parts.about.site.model_name = Some(model.into());
        parts.about.site.hook_name = Some(alloc::format!("blocks.{layer}.hook_resid_post"));
    }
    Ok(parts)
}
