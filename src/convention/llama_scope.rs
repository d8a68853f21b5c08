//! Llama Scope: `hyperparams.json` above `checkpoints/final.safetensors`.
//!
//! Source: OpenMOSS/Language-Model-SAEs at 4ec6f0aa (`sae.py`, `from_config`), and the loader
//! `llama_scope` of SAELens 6.54.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder.weight`, `encoder.bias` | `[d_sae, d_in]`, `[d_sae]` | rows |
//! | `decoder.weight`, `decoder.bias` | `[d_out, d_sae]`, `[d_out]` | columns |
//!
//! With `s_in = sqrt(d) / dataset_average_activation_norm.in`, `s_out` likewise, one threshold t:
//!
//! - SAELens (the default): `f = p [p > t s_in]`, `p = s_in (W x) + b`;
//!   `y = (D f + b_dec) / s_out`. Features are in units of the normalised input.
//! - the original code (`units=raw`): `f = p [p > t]`, `p = n (W x + b / s_in)` with
//!   `n = |d_i| s_in / s_out` the norm of the decoder column; `y = sum f d_i / |d_i| + b_dec / s_out`.
//!
//! The two agree, up to the factor `s_in`, if the decoder columns have unit norm. If a sample
//! of them has not, `inspect` says so.

use super::common::{
    about, has_all, norms, not_unit, only, owned, positive, sample_norms, scalar_jump_relu,
    the_archive,
};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{FeatureAxis, Parts, Site};
use alloc::vec;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "llama_scope",
    detect,
    open,
};

const CONFIG: &str = "hyperparams.json";
const INFORMATIONAL: &[&str] = &["dtype", "device", "expansion_factor", "top_k", "hook_point"];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        has_all(archive, &["encoder.weight", "decoder.weight"])
            && checkpoint.says(CONFIG, "jump_relu_threshold")
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.need_config(CONFIG, "Llama Scope keeps threshold and norms in it")?;
    config.informational(INFORMATIONAL);
    let tensors = Tensors::new(archive, "Llama Scope");
    let [d_sae, d_in] = tensors.shape_2d("encoder.weight")?;
    let [d_out, _] = tensors.shape_2d("decoder.weight")?;
    config.check_size("d_model", d_in)?;
    config.check_size("d_sae", d_sae)?;
    let threshold = config.number("jump_relu_threshold")?.unwrap_or(0.0);
    match config.text("act_fn")? {
        Some("jumprelu") => {}
        // Post-processing has turned the top-k of training into a threshold.
        None | Some("topk") if threshold > 0.0 => {}
        other => {
            let found = other.unwrap_or("nothing").into();
            let expected = "jumprelu, or topk with a positive jump_relu_threshold";
            return Err(config.invalid("act_fn", expected, &found));
        }
    }
    if config.flag("use_glu_encoder")?.unwrap_or(false) {
        return Err(Error::UnsupportedArchitecture {
            architecture: "glu encoder".into(),
        });
    }
    let mut notes = Vec::new();
    let (s_in, s_out) = factors(&config, settings, d_in, d_out, &mut notes)?;
    let encoder = tensors.matrix("encoder.weight", FeatureAxis::First, d_sae, d_in)?;
    let decoder = tensors.matrix("decoder.weight", FeatureAxis::Second, d_sae, d_out)?;
    let mut bias = tensors.vector("encoder.bias", d_sae)?;
    let mut decoder_bias = match config.flag("use_decoder_bias")? {
        Some(false) if !tensors.has("decoder.bias") => vec![0.0; d_out],
        _ => tensors.vector("decoder.bias", d_out)?,
    };
    decoder_bias.iter_mut().for_each(|value| *value /= s_out);
    let include_norm = config
        .flag("sparsity_include_decoder_norm")?
        .unwrap_or(true);

    let mut parts = match settings.text("units") {
        None | Some("normalised" | "normalized" | "saelens") => {
            if include_norm && let Some((least, most)) = not_unit(&sample_norms(&decoder, &tensors))
            {
                notes.push(alloc::format!(
                    "decoder columns have norms from {least:.3} to {most:.3}, not 1: SAELens, \
                     which is followed here, and the original code disagree on which features \
                     fire; units=raw follows the original code"
                ));
            }
            let mut parts = Parts::new(
                encoder,
                scalar_jump_relu((threshold * s_in) as f32),
                decoder,
            );
            parts.scale = Some(vec![s_in; d_sae]);
            parts.decoder_scale = Some(vec![1.0 / s_out; d_sae]);
            notes.push(alloc::format!(
                "features in units of the normalised input (SAELens); raw units are {s_in} times smaller"
            ));
            parts
        }
        Some("raw") => {
            let mut scale = vec![s_in / s_out; d_sae];
            let mut inverse = vec![1.0; d_sae];
            if include_norm {
                let norms = norms(&decoder, &tensors)?;
                for ((scale, inverse), norm) in scale.iter_mut().zip(&mut inverse).zip(&norms) {
                    *scale *= norm;
                    // A column of zeros never fires, so its inverse is never used.
                    *inverse = if *norm > 0.0 { 1.0 / norm } else { 0.0 };
                }
                notes.push("decoder norms were computed at open".into());
            } else {
                scale.fill(1.0);
                inverse.fill(s_in / s_out);
            }
            for (bias, scale) in bias.iter_mut().zip(&scale) {
                *bias *= scale / s_in;
            }
            let mut parts = Parts::new(encoder, scalar_jump_relu(threshold as f32), decoder);
            parts.scale = Some(scale);
            parts.decoder_scale = Some(inverse);
            notes.push("features in raw units, as the original code reports them".into());
            parts
        }
        Some(other) => {
            return Err(Error::InvalidValue {
                key: "units".into(),
                expected: "normalised or raw".into(),
                found: other.into(),
            });
        }
    };
    parts.bias = Some(bias);
    if apply_b_dec(&config, settings)? {
        parts.center = Some(decoder_bias.clone());
    }
    parts.decoder_bias = Some(decoder_bias);
    let site = hooks(&config)?;
    parts.about = about(
        "Llama Scope",
        CONVENTION.name,
        "jumprelu",
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

/// Whether the decoder bias is subtracted from the input. The config class has it on by default
/// and SAELens never does it, so a file that does not say is not guessed at.
fn apply_b_dec(config: &Config<'_>, settings: &Settings<'_>) -> Result<bool, Error> {
    const KEY: &str = "apply_decoder_bias_to_pre_encoder";
    match (settings.flag(KEY)?, config.flag(KEY)?) {
        (Some(flag), _) | (None, Some(flag)) => Ok(flag),
        (None, None) => Err(Error::MissingKey {
            key: KEY.into(),
            hint: "hyperparams.json does not say it; SAELens reads such files as false, the \
                   original code as true"
                .into(),
        }),
    }
}

/// The factors of input and output; a given one goes before the file's.
fn factors(
    config: &Config<'_>,
    settings: &Settings<'_>,
    d_in: usize,
    d_out: usize,
    notes: &mut Vec<alloc::string::String>,
) -> Result<(f64, f64), Error> {
    const KEY: &str = "norm_scaling_factor";
    const NORMS: &str = "dataset_average_activation_norm";
    /// Relative difference of two factors that is worth telling.
    const DISAGREEMENT: f64 = 1e-4;
    let norms = config.object(NORMS)?;
    let stated = match config.text("norm_activation")? {
        Some("dataset-wise") => {
            let factor = |key: &str, d: usize| -> Result<Option<f64>, Error> {
                let Some(norm) = norms.number(key)? else {
                    return Ok(None);
                };
                let name = alloc::format!("{CONFIG}: {NORMS}: {key}");
                Ok(Some(libm::sqrt(d as f64) / positive(&name, norm)?))
            };
            (factor("in", d_in)?, factor("out", d_out)?)
        }
        // Folded into the weights already, or never used.
        Some("inference" | "none") => {
            let _ = (norms.value("in"), norms.value("out"));
            (Some(1.0), Some(1.0))
        }
        None => (None, None),
        Some(other) => {
            return Err(config.invalid("norm_activation", "dataset-wise", &other.into()));
        }
    };
    let given = settings.number(KEY)?;
    let given = given.map(|factor| positive(KEY, factor)).transpose()?;
    let same_place = config.text("hook_point_in")? == config.text("hook_point_out")?;
    let s_in = match (given, stated.0) {
        (Some(given), Some(stated)) => {
            if (given / stated - 1.0).abs() > DISAGREEMENT {
                notes.push(alloc::format!(
                    "{KEY} is {given} as given; {CONFIG} says {stated}"
                ));
            }
            given
        }
        (Some(factor), None) | (None, Some(factor)) => factor,
        (None, None) => {
            return Err(Error::MissingKey {
                key: KEY.into(),
                hint: alloc::format!("{CONFIG} has no {NORMS}: in"),
            });
        }
    };
    let s_out = match stated.1 {
        _ if same_place => s_in,
        Some(factor) => factor,
        None => {
            return Err(Error::MissingKey {
                key: alloc::format!("{NORMS}: out"),
                hint: alloc::format!("{CONFIG} must say it for a transcoder"),
            });
        }
    };
    Ok((s_in, s_out))
}

/// The hooks of OpenMOSS configs.
pub(super) fn hooks(config: &Config<'_>) -> Result<Site, Error> {
    let (hook_name, out) = (
        owned(config, "hook_point_in")?,
        owned(config, "hook_point_out")?,
    );
    Ok(Site {
        hook_name_out: out.filter(|out| Some(out) != hook_name.as_ref()),
        hook_name,
        model_name: owned(config, "model_name")?,
        ..Site::default()
    })
}
