//! OpenMOSS' models over several layers or models: `clt` and `crosscoder`.
//!
//! Source: `clt.py` and `crosscoder.py` of OpenMOSS/Language-Model-SAEs.
//!
//! | tensor | `clt` | `crosscoder` |
//! |---|---|---|
//! | `W_E`, `b_E` | `[L, d, n]`, `[L, n]` | `[H, d, n]`, `[H, n]` |
//! | `W_D` | `W_D.{t} [t + 1, n, d]`, grouped by **target** layer (circuit-tracer groups by source) | `[H, n, d]` |
//! | `b_D` | `b_D.{t} [d]` | `[H, d]` |
//! | `activation_function.log_jumprelu_threshold` | `[L, n]` | `[n]` or `[H, n]` |
//!
//! Rows are the layers (heads) side by side, and so are the outputs. Everything is read in place.
//!
//! - `clt`: features are those of layer 0, then of layer 1, and so on: `p = W_E_l^T x_l + b_E_l`;
//!   the gate looks at `p |d_i|`, with `d_i` the feature's weights into all its target layers.
//! - `crosscoder`: `p = sum over heads of W_E_h^T x_h + b_E_h`, the same for all heads; head h
//!   gates on `p |d_h,i|`. With ReLU the heads agree, and there are n features; with a threshold or
//!   top-k each head has its own n, H n in all.
//!
//! `norm_activation: dataset-wise` scales every layer by a factor of its own, input and output: only
//! weights that have them folded in (`inference`) open.

use super::common::{about, k, norms};
use super::openmoss::{CONFIG, INFORMATIONAL, LOG_THRESHOLD};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, Block, FeatureAxis, Matrix, Parts, Rank, Thresholds};
use alloc::string::String;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "openmoss_stacked",
    detect,
    open,
};

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    super::common::only(checkpoint)
        .is_some_and(|archive| super::common::shape(archive, "W_E").len() == 3)
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = super::common::the_archive(checkpoint)?;
    let config = checkpoint.need_config(CONFIG, "it says which activation the model has")?;
    config.informational(INFORMATIONAL);
    config.informational(&["expansion_factor", "use_decoder_bias", "hook_points"]);
    config.informational(&["hook_points_in", "hook_points_out"]);
    let tensors = Tensors::new(archive, "OpenMOSS");
    let mut notes = Vec::new();
    let kind = config.text("sae_type")?;
    let crosscoder = tensors.has("W_D");
    match (kind, crosscoder) {
        (None | Some("crosscoder"), true) | (None | Some("clt"), false) => {}
        (other, _) => {
            let found = other.unwrap_or("nothing").into();
            return Err(config.invalid("sae_type", "the type that these tensors have", &found));
        }
    }
    match config.text("norm_activation")? {
        None | Some("inference") => {}
        Some(other) => {
            return Err(Error::UnsupportedArchitecture {
                architecture: alloc::format!("OpenMOSS {other} normalisation of several layers"),
            });
        }
    }
    for name in tensors
        .names()
        .filter(|name| name.starts_with("dataset_average"))
    {
        tensors.skip(name);
    }
    let mut parts = match crosscoder {
        true => open_crosscoder(&tensors, &config, settings, &mut notes)?,
        false => open_clt(&tensors, &config, settings, &mut notes)?,
    };
    let architecture = if crosscoder { "crosscoder" } else { "clt" };
    let name = CONVENTION.name;
    parts.about = about(
        "OpenMOSS",
        name,
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    Ok(parts)
}

/// The rule of a model with so many groups of features.
fn rule(
    tensors: &Tensors<'_, '_>,
    config: &Config<'_>,
    settings: &Settings<'_>,
    groups: usize,
    features: usize,
    notes: &mut Vec<String>,
) -> Result<Activation, Error> {
    let top_k = config.count("top_k")?;
    match config.text("act_fn")? {
        Some("relu") => Ok(Activation::Relu),
        Some("jumprelu") => {
            let log = tensors.flat_values(LOG_THRESHOLD)?;
            let one: Vec<f32> = log.into_iter().map(|log| libm::exp(log) as f32).collect();
            let threshold = match one.len() < features && !one.is_empty() {
                // The same for every head.
                true => one.iter().copied().cycle().take(features).collect(),
                false => one,
            };
            Ok(Activation::JumpRelu {
                threshold: Thresholds::PerFeature(threshold),
                relu: false,
                inclusive: false,
            })
        }
        Some("topk") => Ok(Activation::GroupTopK {
            groups,
            k: k(settings, top_k, CONFIG, notes)?,
            rank: Rank::Value,
            relu: true,
        }),
        Some(other) => Err(Error::UnsupportedArchitecture {
            architecture: alloc::format!("OpenMOSS {other} of several layers"),
        }),
        None => Err(config.invalid("act_fn", "relu, jumprelu or topk", &"nothing".into())),
    }
}

/// Weights of the ranks: norms of the decoder, unless the config switches them off.
fn rank_by_norms(
    parts: &mut Parts<'_>,
    tensors: &Tensors<'_, '_>,
    config: &Config<'_>,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let by_norm = config
        .flag("sparsity_include_decoder_norm")?
        .unwrap_or(true);
    if by_norm && !matches!(parts.activation, Activation::Relu) {
        parts.rank_weight = Some(norms(&parts.decoder, tensors)?);
        notes.push("decoder norms were computed at open".into());
    }
    Ok(())
}

fn open_clt<'a>(
    tensors: &Tensors<'_, 'a>,
    config: &Config<'_>,
    settings: &Settings<'_>,
    notes: &mut Vec<String>,
) -> Result<Parts<'a>, Error> {
    let [layers, d, n] = tensors.shape_3d("W_E")?;
    config.check_size("d_model", d)?;
    config.check_size("d_sae", n)?;
    tensors.check_shape("b_E", &[layers, n])?;
    let w_enc = tensors.weights("W_E")?;
    let (mut encoder, mut decoder, mut decoder_bias) = (Vec::new(), Vec::new(), Vec::new());
    for layer in 0..layers {
        let one = w_enc.at(layer).ok_or_else(|| tensors.missing("W_E"))?;
        encoder.push(Block {
            first_feature: layer * n,
            first_column: layer * d,
            matrix: Matrix::new(&one, FeatureAxis::Second, n, d)?,
        });
        let name = alloc::format!("W_D.{layer}");
        tensors.check_shape(&name, &[layer + 1, n, d])?;
        let w_dec = tensors.weights(&name)?;
        for source in 0..=layer {
            let one = w_dec.at(source).ok_or_else(|| tensors.missing(&name))?;
            decoder.push(Block {
                first_feature: source * n,
                first_column: layer * d,
                matrix: Matrix::new(&one, FeatureAxis::First, n, d)?,
            });
        }
        decoder_bias.extend(tensors.vector(&alloc::format!("b_D.{layer}"), d)?);
    }
    let (features, width) = (layers.saturating_mul(n), layers.saturating_mul(d));
    let encoder = Matrix::from_blocks("W_E", features, width, encoder)?;
    let decoder = Matrix::from_blocks("W_D", features, width, decoder)?;
    let rule = rule(tensors, config, settings, layers, features, notes)?;
    let mut parts = Parts::new(encoder, rule, decoder);
    parts.bias = Some(tensors.flat_values("b_E")?);
    parts.decoder_bias = Some(decoder_bias);
    rank_by_norms(&mut parts, tensors, config, notes)?;
    notes.push(alloc::format!(
        "rows are {layers} layers of {d} values, side by side; features are those of each layer \
         after another"
    ));
    Ok(parts)
}

fn open_crosscoder<'a>(
    tensors: &Tensors<'_, 'a>,
    config: &Config<'_>,
    settings: &Settings<'_>,
    notes: &mut Vec<String>,
) -> Result<Parts<'a>, Error> {
    let [heads, d, n] = tensors.shape_3d("W_E")?;
    config.check_size("d_model", d)?;
    config.check_size("d_sae", n)?;
    for (name, shape) in [
        ("W_D", &[heads, n, d][..]),
        ("b_E", &[heads, n]),
        ("b_D", &[heads, d]),
    ] {
        tensors.check_shape(name, shape)?;
    }
    let all = tensors.flat_columns("W_E")?;
    let w_dec = tensors.weights("W_D")?;
    // b_E of all heads is added.
    let mut bias = alloc::vec![0.0; n];
    for head in tensors.flat_values("b_E")?.chunks_exact(n.max(1)) {
        bias.iter_mut()
            .zip(head)
            .for_each(|(sum, value)| *sum += value);
    }
    let features = heads.saturating_mul(n);
    let rule = rule(tensors, config, settings, heads, features, notes)?;
    let mut parts = if let Activation::Relu = rule {
        Parts::new(all, rule, Matrix::side_by_side(&w_dec, n, d)?)
    } else {
        let (mut encoder, mut decoder) = (Vec::new(), Vec::new());
        for head in 0..heads {
            let one = w_dec.at(head).ok_or_else(|| tensors.missing("W_D"))?;
            encoder.push(Block {
                first_feature: head * n,
                first_column: 0,
                matrix: all.clone(),
            });
            decoder.push(Block {
                first_feature: head * n,
                first_column: head * d,
                matrix: Matrix::new(&one, FeatureAxis::First, n, d)?,
            });
        }
        bias = bias.iter().copied().cycle().take(features).collect();
        let width = heads.saturating_mul(d);
        Parts::new(
            Matrix::from_blocks("W_E", features, width, encoder)?,
            rule,
            Matrix::from_blocks("W_D", features, width, decoder)?,
        )
    };
    parts.bias = Some(bias);
    parts.decoder_bias = Some(tensors.flat_values("b_D")?);
    rank_by_norms(&mut parts, tensors, config, notes)?;
    notes.push(alloc::format!(
        "rows are {heads} activations of {d} values, side by side"
    ));
    Ok(parts)
}
