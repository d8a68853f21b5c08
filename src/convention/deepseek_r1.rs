//! A bare state dict of two linear layers: `DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt` (qresearch).
//! dictionary_learning's `AutoEncoderNew` has the same tensors and the same maths.
//!
//! Source: the loader `deepseek_r1` of SAELens 6.54.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder.weight`, `encoder.bias` | `[d_sae, d_in]`, `[d_sae]` | rows |
//! | `decoder.weight`, `decoder.bias` | `[d_in, d_sae]`, `[d_in]` | columns |
//!
//! `f = relu(W x + b)`, `y = D f + b_dec`: nothing is subtracted or normalised.

use super::common::{about, has_all, only, the_archive, two_layers};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::Parts;

pub(super) const CONVENTION: Convention = Convention {
    name: "deepseek_r1",
    detect,
    open,
};

const NAMES: [&str; 4] = [
    "encoder.weight",
    "encoder.bias",
    "decoder.weight",
    "decoder.bias",
];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    // Llama Scope has these names too, in safetensors, and is not a plain ReLU.
    only(checkpoint).is_some_and(|archive| archive.container == "torch" && has_all(archive, &NAMES))
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let tensors = Tensors::new(the_archive(checkpoint)?, "DeepSeek-R1 SAE");
    let mut parts = two_layers(&tensors, NAMES)?;
    parts.about = about(
        "qresearch",
        CONVENTION.name,
        "standard",
        &[&tensors],
        &[],
        settings,
    )?;
    Ok(parts)
}
