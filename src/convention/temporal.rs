//! Temporal SAEs (`canrager/temporalSAEs`): described by `inspect`, and refused by name otherwise.
//! Their features depend on the whole sequence, not on a row.
//!
//! Source: SAELens 6.54.12, `sae_lens/saes/temporal_sae.py`; arXiv 2511.01836.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `D` | `[n, d]` | decoder rows |
//! | `E` | `[d, n]` | encoder columns; `D` if it is not there (`tied_weights`) |
//! | `b` | `[d]` | decoder bias, subtracted from the input too |
//! | `attn_layers.I.{q_target,k_ctx}.{weight,bias}` | `[n / bottleneck, n]`, `[n / bottleneck]` | queries and keys |
//! | `attn_layers.I.{v_ctx,c_proj}.{weight,bias}` | `[n, n]`, `[n]` | values and their projection |
//!
//! The input is multiplied with `scaling_factor` of `conf.yaml` first.

use super::common::{about, has_all, k, only, positive, the_archive, top_k};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{FeatureAxis, Parts};
use alloc::string::ToString;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "temporal",
    detect,
    open,
};

const CONFIG: &str = "conf.yaml";
const LINEAR: [&str; 4] = ["q_target", "k_ctx", "v_ctx", "c_proj"];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint)
        .is_some_and(|archive| has_all(archive, &["D", "b", "attn_layers.0.q_target.weight"]))
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    let (llm, sae) = (config.object("llm")?, config.object("sae")?);
    let tensors = Tensors::new(archive, CONVENTION.name);
    let [d_sae, d] = tensors.shape_2d("D")?;
    llm.check_size("dimin", d)?;
    let decoder = tensors.matrix("D", FeatureAxis::First, d_sae, d)?;
    let tied = sae.flag("tied_weights")?.unwrap_or(!tensors.has("E"));
    let encoder = match tied {
        true => decoder.clone(),
        false => tensors.matrix("E", FeatureAxis::Second, d_sae, d)?,
    };
    attention(&tensors, sae.count("n_attn_layers")?, d_sae)?;
    let mut notes = Vec::new();
    let k = k(settings, sae.count("kval_topk")?, CONFIG, &mut notes)?;
    let mut parts = Parts::new(encoder, top_k(k, true), decoder);
    parts.decoder_bias = Some(tensors.vector("b", d)?);
    let stated = sae.number("scaling_factor")?;
    if let Some(factor) = settings.number("norm_scaling_factor")?.or(stated) {
        let factor = positive("scaling_factor", factor)?;
        notes.push(alloc::format!("the input is multiplied with {factor}"));
    }
    sae.informational(&[
        "exp_factor",
        "n_heads",
        "bottleneck_factor",
        "sae_diff_type",
    ]);
    config.object("data")?.informational(&["dtype"]);
    parts.about = about(
        "Temporal Feature Analysis",
        CONVENTION.name,
        CONVENTION.name,
        &[&tensors],
        &[&config, &llm, &sae],
        settings,
    )?;
    parts.about.notes = notes;
    parts.unsupported = Some(CONVENTION.name.to_string());
    Ok(parts)
}

/// Checks the shapes of the attention layers, which nothing else reads.
fn attention(tensors: &Tensors<'_, '_>, stated: Option<usize>, d_sae: usize) -> Result<(), Error> {
    let mut layers = 0;
    while tensors.has(&alloc::format!("attn_layers.{layers}.q_target.weight")) {
        let [heads, _] =
            tensors.shape_2d(&alloc::format!("attn_layers.{layers}.q_target.weight"))?;
        for name in LINEAR {
            let rows = match name {
                "q_target" | "k_ctx" => heads,
                _ => d_sae,
            };
            let named = |what: &str| alloc::format!("attn_layers.{layers}.{name}.{what}");
            let (weight, bias) = (named("weight"), named("bias"));
            tensors.check_shape(&weight, &[rows, d_sae])?;
            tensors.skip(&weight);
            if tensors.has(&bias) {
                tensors.check_shape(&bias, &[rows])?;
                tensors.skip(&bias);
            }
        }
        layers += 1;
    }
    match stated {
        Some(stated) if stated != layers => Err(Error::InvalidValue {
            key: "n_attn_layers".into(),
            expected: alloc::format!("{layers}, as the tensors say"),
            found: stated.to_string(),
        }),
        _ => Ok(()),
    }
}
