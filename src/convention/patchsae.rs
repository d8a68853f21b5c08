//! PatchSAE and the ViT SAEs it descends from: `{"cfg": .., "state_dict": ..}`, one SAE for the
//! patches of a vision transformer.
//!
//! Source: `src/sae_training/sparse_autoencoder.py` of dynamical-inference/patchsae.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc`, `b_enc` | `[d_in, d_sae]`, `[d_sae]` | columns |
//! | `W_dec`, `b_dec` | `[d_sae, d_in]`, `[d_in]` | rows; `b_dec` is subtracted from the input |
//!
//! `f = relu(W_enc^T (x - b_dec) + b_enc)`, `y = W_dec^T f + b_dec`. Four tensors under these
//! names are several publishers': nothing tells them apart, so the caller says
//! `convention=patchsae`. A `cfg` that is an object of a class is refused by the container.

use super::common::{about, the_archive};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Parts};

pub(super) const CONVENTION: Convention = Convention {
    name: "patchsae",
    detect: |_| false,
    open,
};

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let tensors = Tensors::new(the_archive(checkpoint)?, "PatchSAE");
    let [d_in, d_sae] = tensors.shape_2d("W_enc")?;
    if tensors.has("r_mag") {
        // The published forward pass of a gated PatchSAE is a stub.
        return Err(Error::UnsupportedArchitecture {
            architecture: "gated PatchSAE".into(),
        });
    }
    let encoder = tensors.matrix("W_enc", FeatureAxis::Second, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_in)?;
    let mut parts = Parts::new(encoder, Activation::Relu, decoder);
    parts.bias = Some(tensors.vector("b_enc", d_sae)?);
    let b_dec = tensors.vector("b_dec", d_in)?;
    parts.center = Some(b_dec.clone());
    parts.decoder_bias = Some(b_dec);
    parts.about = about(
        "PatchSAE",
        CONVENTION.name,
        "standard",
        &[&tensors],
        &[],
        settings,
    )?;
    Ok(parts)
}
