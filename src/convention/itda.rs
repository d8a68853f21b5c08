//! ITDA (davidkaczer/itda): `atoms.pt`, a bare tensor, beside `metadata.yaml`.
//!
//! Source: `train.py` of davidkaczer/itda.
//!
//! The atoms `[n, d]` are activations, normalised in training; there is no encoder and no bias. k
//! steps (40 by default) of signed matching pursuit: the atom with the largest `|r . a_i|` gets
//! `r . a_i`. k is in `metadata.yaml` (read if the library is built with YAML), else the caller
//! gives it.

use super::common::{about, k, only, owned, the_archive};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Parts, Pursuit};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "itda",
    detect,
    open,
};

const CONFIG: &str = "metadata.yaml";

/// A file that is one tensor, without a name.
fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| match archive.entries.as_slice() {
        [atoms] => atoms.name().is_empty() && atoms.shape().len() == 2,
        _ => false,
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let config = checkpoint.config_or_empty(CONFIG)?;
    config.informational(&["lm_name", "layer", "target_loss", "max_sequences"]);
    let tensors = Tensors::new(the_archive(checkpoint)?, "ITDA");
    let [d_sae, d_in] = tensors.shape_2d("")?;
    config.check_size("activation_dim", d_in)?;
    config.check_size("dict_size", d_sae)?;
    let mut notes = Vec::new();
    let steps = k(settings, config.count("k")?, CONFIG, &mut notes)?;
    let decoder = tensors.matrix("", FeatureAxis::First, d_sae, d_in)?;
    let rule = Activation::Pursuit(Pursuit::matching_signed(steps));
    let mut parts = Parts::new(decoder.clone(), rule, decoder);
    let model_name = owned(&config, "lm_name")?;
    let name = "matching_pursuit_signed";
    parts.about = about(
        "ITDA",
        CONVENTION.name,
        name,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    parts.about.site.model_name = model_name;
    Ok(parts)
}
