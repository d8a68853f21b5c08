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
//! names are several publishers'. The pickled `cfg` tells them apart (`block_layer`, `module_name`);
//! where a file lacks it, the caller says `convention=patchsae`.

use super::common::{about, has_all, only, owned, the_archive};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Parts};

pub(super) const CONVENTION: Convention = Convention {
    name: "patchsae",
    detect,
    open,
};

/// Classes of forks, by the key that asks for them.
const FORKS: &[&str] = &["gated_sae", "topk_sae", "jumprelu_sae", "matryoshka_sae"];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        archive.container == "torch"
            && has_all(archive, &["W_enc", "W_dec"])
            && checkpoint.says(CONFIG, "block_layer")
            && checkpoint.says(CONFIG, "module_name")
    })
}

const CONFIG: &str = "config.json";

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let tensors = Tensors::new(the_archive(checkpoint)?, "PatchSAE");
    let [d_in, d_sae] = tensors.shape_2d("W_enc")?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    config.check_size("d_in", d_in)?;
    config.check_size("d_sae", d_sae)?;
    for fork in FORKS {
        if config.flag(fork)? == Some(true) {
            return Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("PatchSAE with {fork}"),
            });
        }
    }
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
    let model_name = owned(&config, "model_name")?;
    let layer = config.value("block_layer").and_then(|it| it.as_u64());
    let module = config.text("module_name")?;
    let hook = layer.zip(module);
    let hook = hook.map(|(layer, module)| alloc::format!("layer {layer}, {module}"));
    parts.about = about(
        "PatchSAE",
        CONVENTION.name,
        "standard",
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.site.model_name = model_name;
    parts.about.site.hook_name = hook;
    Ok(parts)
}
