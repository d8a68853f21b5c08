//! SAELens, versions 3 to 6: `cfg.json` beside `sae_weights.safetensors`.
//!
//! Source: `sae_lens/saes/*.py` and `sae_lens/loading/pretrained_sae_loaders.py` of SAELens
//! 6.54; for files before version 6 also 5.5.1, where 6 changed the maths silently (`tanh-relu`)
//! or refuses (`finetuning_scaling_factor`).
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc` | `[d_in, d_sae]` | columns |
//! | `W_dec` | `[d_sae, d_out]` | rows |
//! | `b_enc`, `threshold` | `[d_sae]` | |
//! | `b_gate`, `b_mag`, `r_mag` | `[d_sae]` | gated only, which has no `b_enc` |
//! | `b_dec` | `[d_out]` | subtracted from the input if `apply_b_dec_to_input` |
//! | `W_skip` | `[d_out, d_in]` | skip transcoders, on the raw row |
//!
//! Order: flatten heads, normalise, subtract `b_dec`, encode; decode, undo the normalisation
//! (not for transcoders), add the skip.

use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{About, Activation, FeatureAxis, InputNorm, Parts, Rank, Site, Thresholds};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use serde_json::Value;

pub(super) const CONVENTION: Convention = Convention {
    name: "saelens",
    detect,
    open,
};

const CONFIG: &str = "cfg.json";

/// Keys that say nothing about the maths of inference.
const INFORMATIONAL: &[&str] = &[
    "dtype",
    "device",
    "model_class_name",
    "hook_layer",
    "hook_point_layer",
    "hook_head_index",
    "hook_point_head_index",
    "hf_hook_name",
    "dataset_path",
    "dataset_trust_remote_code",
    "sae_lens_version",
    "sae_lens_training_version",
    "neuronpedia_id",
    "exclude_special_tokens",
    "seqpos_slice",
    "decoder_init_norm",
];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    let [(_, archive)] = checkpoint.archives.as_slice() else {
        return false;
    };
    archive.container == "safetensors"
        && archive.entry("W_dec").is_some()
        && (archive.entry("W_enc").is_some() || checkpoint.config(CONFIG).is_some())
}

/// What an architecture's name stands for.
struct Architecture {
    rule: Rule,
    transcoder: bool,
    skip: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Standard,
    Gated,
    JumpRelu,
    TopK(Rank),
}

fn architecture(name: &str) -> Option<Architecture> {
    let (rule, transcoder, skip) = match name {
        "standard" => (Rule::Standard, false, false),
        "gated" => (Rule::Gated, false, false),
        "jumprelu" => (Rule::JumpRelu, false, false),
        "topk" => (Rule::TopK(Rank::Value), false, false),
        "abstopk" => (Rule::TopK(Rank::Magnitude), false, false),
        "transcoder" => (Rule::Standard, true, false),
        "skip_transcoder" => (Rule::Standard, true, true),
        "jumprelu_transcoder" => (Rule::JumpRelu, true, false),
        "jumprelu_skip_transcoder" => (Rule::JumpRelu, true, true),
        _ => return None,
    };
    Some(Architecture {
        rule,
        transcoder,
        skip,
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let [(_, archive)] = checkpoint.archives.as_slice() else {
        return Err(super::unknown(checkpoint));
    };
    let config = match checkpoint.config(CONFIG) {
        Some(value) => Config::new(CONFIG, value)?,
        None => {
            return Err(Error::MissingKey {
                key: CONFIG.into(),
                hint:
                    "SAELens keeps architecture and normalisation in it; put it beside the weights"
                        .into(),
            });
        }
    };
    config.informational(INFORMATIONAL);
    let activation_fn = match config.text("activation_fn")? {
        Some(name) => Some(name),
        None => config.text("activation_fn_str")?,
    };
    let kwargs = config.object("activation_fn_kwargs")?;
    let mut name = config.text("architecture")?.unwrap_or("standard");
    if name == "standard" && activation_fn == Some("topk") {
        name = "topk";
    }
    let Some(architecture) = architecture(name) else {
        return Err(Error::UnsupportedArchitecture {
            architecture: name.into(),
        });
    };

    let tensors = Tensors::new(archive, &alloc::format!("SAELens {name}"));
    let [d_in, d_sae] = tensors.shape_2d("W_enc")?;
    let [_, d_out] = tensors.shape_2d("W_dec")?;
    let d_out = if architecture.transcoder { d_out } else { d_in };
    config.check_size("d_in", d_in)?;
    config.check_size("d_sae", d_sae)?;
    config.check_size("d_out", d_out)?;
    let encoder = tensors.matrix("W_enc", FeatureAxis::Second, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_out)?;
    let b_dec = tensors.vector("b_dec", d_out)?;

    let mut scale = None;
    let mut decoder_scale = None;
    let mut notes = Vec::new();
    let mut rescaled = false;
    let (mut activation, mut bias) = match architecture.rule {
        Rule::Gated => {
            expect_relu(&config, activation_fn)?;
            let r_mag = tensors.vector("r_mag", d_sae)?;
            scale = Some(r_mag.into_iter().map(libm::exp).collect());
            let gate_bias = tensors.vector("b_gate", d_sae)?;
            (
                Activation::Gated { gate_bias },
                tensors.vector("b_mag", d_sae)?,
            )
        }
        Rule::JumpRelu => {
            expect_relu(&config, activation_fn)?;
            let threshold = Thresholds::PerFeature(tensors.thresholds("threshold", d_sae)?);
            let rule = Activation::JumpRelu {
                threshold,
                relu: true,
                inclusive: false,
            };
            (rule, tensors.vector("b_enc", d_sae)?)
        }
        Rule::Standard => {
            let rule = match activation_fn {
                Some("tanh-relu") => Activation::TanhRelu,
                other => {
                    expect_relu(&config, other)?;
                    Activation::Relu
                }
            };
            (rule, tensors.vector("b_enc", d_sae)?)
        }
        Rule::TopK(rank) => {
            let stated = match config.count("k")? {
                Some(k) => Some(k),
                None => kwargs.count("k")?,
            };
            let k = match (settings.count("k")?, stated) {
                (Some(k), Some(stated)) if k != stated => {
                    notes.push(alloc::format!("k is {k} as given; the file says {stated}"));
                    k
                }
                (Some(k), _) | (None, Some(k)) => k,
                (None, None) => {
                    return Err(Error::MissingKey {
                        key: "k".into(),
                        hint: "cfg.json does not say it; give it as k=32, say".into(),
                    });
                }
            };
            let mut bias = tensors.vector("b_enc", d_sae)?;
            if config
                .flag("rescale_acts_by_decoder_norm")?
                .unwrap_or(false)
            {
                let norms = decoder_norms(&decoder);
                for (bias, norm) in bias.iter_mut().zip(&norms) {
                    *bias *= norm;
                }
                // A zero row never fires (its rank is 0), so its scale is never used.
                let inverse = |norm: &f64| if *norm > 0.0 { 1.0 / norm } else { 0.0 };
                decoder_scale = Some(norms.iter().map(inverse).collect());
                scale = Some(norms);
                rescaled = true;
                notes.push("decoder norms were computed at open".into());
            }
            (
                Activation::TopK {
                    k,
                    rank,
                    relu: rank == Rank::Value,
                },
                bias,
            )
        }
    };
    kwargs.ignored(settings.strict)?;

    let subtract = config.flag("apply_b_dec_to_input")?.unwrap_or(true) && !architecture.transcoder;
    let mut center = subtract.then(|| b_dec.clone());
    let mut decoder_bias = b_dec;
    let (input_norm, factor) = normalization(&config, settings)?;
    if let Some(factor) = factor {
        // As SAELens folds it: W_enc *= s, W_dec /= s, b_dec /= s.
        let times = |values: Option<Vec<f64>>, by: f64| match values {
            Some(values) => values.into_iter().map(|value| value * by).collect(),
            None => vec![by; d_sae],
        };
        if rescaled {
            // SAELens then takes the norms of W_dec / s: s and 1 / s cancel, but not in the bias.
            bias.iter_mut().for_each(|value| *value /= factor);
        } else {
            scale = Some(times(scale, factor));
            decoder_scale = Some(times(decoder_scale, 1.0 / factor));
        }
        if let Activation::Gated { gate_bias } = &mut activation {
            // s S + b > 0 where S + b / s > 0.
            gate_bias.iter_mut().for_each(|value| *value /= factor);
        }
        decoder_bias.iter_mut().for_each(|value| *value /= factor);
        center
            .iter_mut()
            .flatten()
            .for_each(|value| *value /= factor);
        notes.push(alloc::format!("folded activation norm factor {factor}"));
    }
    if let Some(factors) = finetuning_factors(&config, &tensors, d_sae)? {
        decoder_scale = Some(match decoder_scale {
            Some(scale) => scale
                .iter()
                .zip(&factors)
                .map(|(scale, by)| scale * by)
                .collect(),
            None => factors,
        });
        notes.push("finetuning_scaling_factor multiplies values before decoding only".into());
    }
    let skip = match architecture.skip {
        true => Some(tensors.matrix("W_skip", FeatureAxis::First, d_out, d_in)?),
        false => None,
    };
    let site = site(&config)?;
    if site.mean_center {
        notes.push(
            "the model's weights were processed with center_writing_weights: \
                    rows must be mean-centred"
                .into(),
        );
    }

    Ok(Parts {
        input_norm,
        center,
        scale,
        bias: Some(bias),
        decoder_scale,
        decoder_bias: Some(decoder_bias),
        undo_norm: !architecture.transcoder,
        skip,
        about: About {
            publisher: "SAELens".into(),
            convention: "saelens".into(),
            architecture: name.to_string(),
            site,
            ignored_keys: config.ignored(settings.strict)?,
            ignored_tensors: tensors.ignored()?,
            notes,
            bytes_read: tensors.bytes_read(),
            files: Vec::new(),
        },
        ..Parts::new(encoder, activation, decoder)
    })
}

fn expect_relu(config: &Config<'_>, activation_fn: Option<&str>) -> Result<(), Error> {
    match activation_fn {
        None | Some("relu") => Ok(()),
        Some(other) => Err(config.invalid("activation_fn", "relu", &Value::from(other))),
    }
}

/// Norms of the decoder's rows: square roots of the sums of squares, in f64.
fn decoder_norms(decoder: &crate::model::Matrix<'_>) -> Vec<f64> {
    let kernels = crate::kernels::Kernels::best();
    let mut row = vec![0.0; decoder.width()];
    let ty = decoder.weight_type();
    let norm = |feature| {
        kernels.widen(ty, decoder.row(feature).unwrap_or(&[]), &mut row);
        libm::sqrt(kernels.sum_squares_about(&row, 0.0))
    };
    (0..decoder.features()).map(norm).collect()
}

/// The normalisation, and the factor of `expected_average_only_in`.
fn normalization(
    config: &Config<'_>,
    settings: &Settings<'_>,
) -> Result<(InputNorm, Option<f64>), Error> {
    const KEY: &str = "normalize_activations";
    let given = settings.text(KEY).map(Value::from);
    let name = match given.as_ref().or(config.value(KEY)) {
        None | Some(Value::Bool(false)) => "none",
        Some(Value::Bool(true)) => "expected_average_only_in",
        Some(Value::String(name)) => name,
        Some(other) => return Err(config.invalid(KEY, "a string or a bool", other)),
    };
    match name {
        // Whitening is folded into the weights when it is exported.
        "none" | "covariance_whitening" => Ok((InputNorm::None, None)),
        "layer_norm" => Ok((InputNorm::LayerNorm, None)),
        "constant_norm_rescale" => Ok((InputNorm::ConstantNorm, None)),
        "expected_average_only_in" => match settings.number("norm_scaling_factor")? {
            Some(1.0) => Ok((InputNorm::None, None)),
            Some(factor) if factor > 0.0 => Ok((InputNorm::None, Some(factor))),
            Some(factor) => Err(Error::InvalidValue {
                key: "norm_scaling_factor".into(),
                expected: "a positive number".into(),
                found: factor.to_string(),
            }),
            None => Err(Error::MissingKey {
                key: "norm_scaling_factor".into(),
                hint: "cfg.json says expected_average_only_in, but only SAELens' registry has the \
                       factor; 1 gives what SAELens computes from disk"
                    .into(),
            }),
        },
        other => Err(config.invalid(
            KEY,
            "none, layer_norm, constant_norm_rescale, expected_average_only_in or \
             covariance_whitening",
            &Value::from(other),
        )),
    }
}

/// Factors that multiply the values before decoding (SAELens 5), unless they are all 1.
fn finetuning_factors(
    config: &Config<'_>,
    tensors: &Tensors<'_, '_>,
    d_sae: usize,
) -> Result<Option<Vec<f64>>, Error> {
    const KEY: &str = "finetuning_scaling_factor";
    let wanted = config.flag(KEY)?.unwrap_or(false);
    let present = |name: &&&str| tensors.has(name);
    match [KEY, "scaling_factor"].iter().find(present) {
        None if wanted => Err(Error::MissingTensor {
            tensor: KEY.into(),
            convention: "SAELens, cfg.json says finetuning_scaling_factor".into(),
        }),
        None => Ok(None),
        Some(name) => {
            let factors = tensors.vector(name, d_sae)?;
            match (factors.iter().all(|&factor| factor == 1.0), wanted) {
                (true, _) => Ok(None),
                (false, true) => Ok(Some(factors)),
                // SAELens would not have applied it: whoever wrote the file must say.
                (false, false) => Err(Error::InvalidValue {
                    key: "cfg.json: finetuning_scaling_factor".into(),
                    expected: alloc::format!("true, since tensor `{name}` is not all ones"),
                    found: "false".into(),
                }),
            }
        }
    }
}

/// Where the rows come from; in version 6 under `metadata`, before at the top.
fn site(config: &Config<'_>) -> Result<Site, Error> {
    let metadata = config.object("metadata")?;
    let mut site = Site::default();
    for source in [&metadata, config] {
        let text = |key: &str| source.text(key).ok().flatten().map(ToString::to_string);
        let hook = text("hook_name").or_else(|| text("hook_point"));
        site.hook_name = site.hook_name.or(hook);
        site.hook_name_out = site.hook_name_out.or_else(|| text("hook_name_out"));
        site.model_name = site.model_name.or_else(|| text("model_name"));
        let bos = source.flag("prepend_bos").ok().flatten();
        site.prepend_bos = site.prepend_bos.or(bos);
        let context = source.count("context_size").ok().flatten();
        site.context_size = site.context_size.or(context.map(|size| size as u64));
        let kwargs = source.object("model_from_pretrained_kwargs").ok();
        let centred =
            kwargs.and_then(|kwargs| kwargs.flag("center_writing_weights").ok().flatten());
        site.mean_center |= centred.unwrap_or(false);
    }
    site.concatenated_heads = match config.text("reshape_activations")? {
        Some("none") => false,
        Some("hook_z") => true,
        None => site
            .hook_name
            .as_deref()
            .is_some_and(|name| name.contains("hook_z")),
        Some(other) => {
            return Err(config.invalid("reshape_activations", "none or hook_z", &other.into()));
        }
    };
    Ok(site)
}
