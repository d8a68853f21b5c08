//! SAEs on concatenated attention heads (`ckkissane/attn-saes-gpt2-small-all-layers`):
//! `NAME.pt` beside `NAME_cfg.json`.
//!
//! Source: the loader `connor_rob_hook_z` of SAELens 6.54.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc`, `b_enc` | `[d_in, d_sae]`, `[d_sae]` | columns |
//! | `W_dec`, `b_dec` | `[d_sae, d_in]`, `[d_in]` | rows |
//!
//! `f = relu(W_enc^T (x - b_dec) + b_enc)`, `y = W_dec^T f + b_dec`; rows are
//! `[heads * d_head]`. These four tensors alone would fit other publishers too: the config's
//! `act_size` and `act_name` tell.

use super::common::{about, has_all, only, owned, the_archive};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Parts};
use serde_json::Value;

pub(super) const CONVENTION: Convention = Convention {
    name: "hook_z",
    detect,
    open,
};

/// The config whose name depends on the file's.
fn config<'c>(checkpoint: &'c Checkpoint<'_>) -> Option<(&'c str, &'c Value)> {
    let mut configs = checkpoint.configs.iter();
    let (name, value) = configs.find(|(_, value)| {
        value.get("act_size").is_some()
            && value.get("act_name").is_some()
            && value.get("sae_type").is_none()
    })?;
    Some((name, value))
}

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        archive.container == "torch"
            && has_all(archive, &["W_enc", "b_enc", "W_dec", "b_dec"])
            && config(checkpoint).is_some()
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let tensors = Tensors::new(the_archive(checkpoint)?, "hook_z");
    let (name, value) = config(checkpoint).ok_or_else(|| super::unknown(checkpoint))?;
    let config = Config::new(name, value)?;
    let [d_in, d_sae] = tensors.shape_2d("W_enc")?;
    config.check_size("act_size", d_in)?;
    config.check_size("dict_size", d_sae)?;
    let encoder = tensors.matrix("W_enc", FeatureAxis::Second, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_in)?;
    let mut parts = Parts::new(encoder, Activation::Relu, decoder);
    parts.bias = Some(tensors.vector("b_enc", d_sae)?);
    let b_dec = tensors.vector("b_dec", d_in)?;
    parts.center = Some(b_dec.clone());
    parts.decoder_bias = Some(b_dec);
    let hook_name = owned(&config, "act_name")?;
    parts.about = about(
        "ckkissane",
        CONVENTION.name,
        "standard",
        &[&tensors],
        &[&config],
        settings,
    )?;
    let heads = |name: &str| name.contains("hook_z");
    parts.about.site.concatenated_heads = hook_name.as_deref().is_some_and(heads);
    parts.about.site.hook_name = hook_name;
    Ok(parts)
}
