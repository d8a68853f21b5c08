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
//! `matching_pursuit` has `W_dec` and `b_dec` only: the encoder is the decoder.
//!
//! Training checkpoints (`batchtopk`, `matryoshka_batchtopk`) hold a 0-dim `topk_threshold`, and
//! older ones a `log_threshold`; they open as what SAELens exports: a jumprelu, here with the
//! decoder norms as scales per feature instead of folded into the matrices.
//!
//! Order: flatten heads, normalise, subtract `b_dec`, encode; decode, undo the normalisation
//! (not for transcoders), add the skip.

use super::common::{about, fold_factor, jump_relu, k, norms, scalar_jump_relu};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, InputNorm, Parts, Pursuit, Rank, Site, Thresholds};
use alloc::string::ToString;
use alloc::vec::Vec;
use serde_json::Value;

pub(super) const CONVENTION: Convention = Convention {
    name: "saelens",
    detect,
    open,
};

const CONFIG: &str = "cfg.json";
const RESCALE: &str = "rescale_acts_by_decoder_norm";

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
    "use_sparse_activations",
    "aux_loss_coefficient",
    "topk_threshold_lr",
    "use_matryoshka_aux_loss",
    "jumprelu_init_threshold",
    "jumprelu_bandwidth",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_tanh_scale",
    "jumprelu_ste_to_input",
    "l0_coefficient",
    "l0_warm_up_steps",
    "l1_coefficient",
    "l1_warm_up_steps",
    "lp_norm",
    "pre_act_loss_coefficient",
    "target_l0",
];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    let [(_, archive)] = checkpoint.archives.as_slice() else {
        return false;
    };
    let has = |name: &str| archive.entry(name).is_some();
    archive.container == "safetensors"
        && (has("W_enc") || has("W_dec") && checkpoint.config(CONFIG).is_some())
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
    BatchTopK,
    Pursuit,
}

fn architecture(name: &str) -> Option<Architecture> {
    let (rule, transcoder, skip) = match name {
        "standard" => (Rule::Standard, false, false),
        "gated" => (Rule::Gated, false, false),
        "jumprelu" => (Rule::JumpRelu, false, false),
        "topk" => (Rule::TopK(Rank::Value), false, false),
        "abstopk" => (Rule::TopK(Rank::Magnitude), false, false),
        // Training checkpoints; the export is a jumprelu.
        "batchtopk" | "matryoshka_batchtopk" => (Rule::BatchTopK, false, false),
        "matching_pursuit" => (Rule::Pursuit, false, false),
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
    let pursues = architecture.rule == Rule::Pursuit;
    let [d_sae, d_out] = tensors.shape_2d("W_dec")?;
    let [d_in, d_sae] = match pursues {
        true => [d_out, d_sae],
        false => tensors.shape_2d("W_enc")?,
    };
    let d_out = if architecture.transcoder { d_out } else { d_in };
    config.check_size("d_in", d_in)?;
    config.check_size("d_sae", d_sae)?;
    config.check_size("d_out", d_out)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_out)?;
    let encoder = match pursues {
        true => decoder.clone(),
        false => tensors.matrix("W_enc", FeatureAxis::Second, d_sae, d_in)?,
    };
    let mut parts = Parts::new(encoder, Activation::Relu, decoder);
    let b_dec = tensors.vector("b_dec", d_out)?;

    let mut notes = Vec::new();
    let mut l0 = None;
    let bias = match architecture.rule {
        Rule::Gated => "b_mag",
        _ => "b_enc",
    };
    if !pursues {
        parts.bias = Some(tensors.vector(bias, d_sae)?);
    }
    match architecture.rule {
        Rule::Gated => {
            expect_relu(&config, activation_fn)?;
            let r_mag = tensors.vector("r_mag", d_sae)?;
            parts.scale = Some(r_mag.into_iter().map(libm::exp).collect());
            let gate_bias = tensors.vector("b_gate", d_sae)?;
            parts.activation = Activation::Gated { gate_bias };
        }
        Rule::JumpRelu => {
            expect_relu(&config, activation_fn)?;
            parts.activation = jump_relu(thresholds(&tensors, d_sae)?);
        }
        Rule::Standard if activation_fn == Some("tanh-relu") => {
            parts.activation = Activation::TanhRelu;
        }
        Rule::Standard => expect_relu(&config, activation_fn)?,
        Rule::TopK(rank) => {
            let stated = match config.count("k")? {
                Some(k) => Some(k),
                None => kwargs.count("k")?,
            };
            let k = k(settings, stated, CONFIG, &mut notes)?;
            parts.activation = Activation::TopK {
                k,
                rank,
                relu: rank == Rank::Value,
            };
        }
        Rule::BatchTopK => {
            // k served in training only; it is what L0 should be.
            l0 = config.number("k")?;
            config.informational(&["matryoshka_widths"]);
            let threshold = tensors.scalar("topk_threshold")?;
            let threshold = threshold.ok_or_else(|| tensors.missing("topk_threshold"))?;
            parts.activation = scalar_jump_relu(threshold as f32);
        }
        Rule::Pursuit => parts.activation = pursuit(&config, d_in)?,
    }
    let rescaled = match architecture.rule {
        Rule::TopK(_) => config.flag(RESCALE)?.unwrap_or(false),
        // On by default in training.
        Rule::BatchTopK => config.flag(RESCALE)?.unwrap_or(true),
        _ => false,
    };
    kwargs.ignored(settings.strict)?;

    let subtract = config.flag("apply_b_dec_to_input")?.unwrap_or(true) && !architecture.transcoder;
    parts.center = subtract.then(|| b_dec.clone());
    // Matching pursuit is tied: its output has the bias only if its input lost it.
    parts.decoder_bias = (subtract || !pursues).then_some(b_dec);
    let (input_norm, factor) = normalization(&config, settings)?;
    parts.input_norm = input_norm;
    parts.undo_norm = !architecture.transcoder;
    if rescaled {
        let norms = norms(&parts.decoder, &tensors)?;
        notes.push("decoder norms were computed at open".into());
        rescale(&mut parts, norms, factor);
    } else if let Some(factor) = factor {
        fold_factor(&mut parts, factor);
        if let Activation::Pursuit(rule) = &mut parts.activation {
            // The encoder is the decoder; the residual is in units of the unscaled input.
            parts.scale = None;
            rule.stop_norm = rule.stop_norm.map(|norm| norm / factor);
        }
    }
    if let Some(factors) = finetuning_factors(&config, &tensors, d_sae)? {
        parts.decoder_scale = Some(match &parts.decoder_scale {
            Some(scale) => scale
                .iter()
                .zip(&factors)
                .map(|(scale, by)| scale * by)
                .collect(),
            None => factors,
        });
        notes.push("finetuning_scaling_factor multiplies values before decoding only".into());
    }
    if architecture.skip {
        parts.skip = Some(tensors.matrix("W_skip", FeatureAxis::First, d_out, d_in)?);
    }
    let mut site = site(&config)?;
    site.mean_center |= settings.flag("center_writing_weights")?.unwrap_or(false);
    if site.mean_center {
        notes.push(
            "the model's weights were processed with center_writing_weights: \
                    rows must be mean-centred"
                .into(),
        );
    }

    notes.append(&mut parts.about.notes);
    parts.about = about(
        "SAELens",
        CONVENTION.name,
        name,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.l0 = l0;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

/// Matching pursuit, with SAELens' defaults.
fn pursuit(config: &Config<'_>, d_in: usize) -> Result<Activation, Error> {
    let steps = config.count("max_iterations")?.unwrap_or(d_in);
    let residual = config.number("residual_threshold")?.unwrap_or(1e-2);
    let stop_on_repeat = config.flag("stop_on_duplicate_support")?.unwrap_or(true);
    let rule = Pursuit::matching(steps, residual, stop_on_repeat);
    Ok(Activation::Pursuit(rule))
}

/// Thresholds of a file: those of older training checkpoints are stored as logarithms.
fn thresholds(tensors: &Tensors<'_, '_>, d_sae: usize) -> Result<Vec<f32>, Error> {
    const LOG: &str = "log_threshold";
    if tensors.has(LOG) && !tensors.has("threshold") {
        let log = tensors.vector(LOG, d_sae)?;
        return Ok(log.into_iter().map(|log| libm::exp(log) as f32).collect());
    }
    tensors.thresholds("threshold", d_sae)
}

/// Values in units of decoder length: `pre |d_i|`, divided by `|d_i|` again before decoding. With
/// a factor s of the input, the norms are those of `W_dec / s`: s cancels but in the bias and in
/// a threshold.
fn rescale(parts: &mut Parts<'_>, norms: Vec<f64>, factor: Option<f64>) {
    let factor = factor.unwrap_or(1.0);
    for (bias, norm) in parts.bias.iter_mut().flatten().zip(&norms) {
        *bias = *bias * norm / factor;
    }
    if let Activation::JumpRelu { threshold, .. } = &mut parts.activation
        && let Thresholds::Scalar(value) = threshold
    {
        *value = (f64::from(*value) / factor) as f32;
    }
    let biases = [&mut parts.decoder_bias, &mut parts.center];
    for value in biases.into_iter().flatten().flatten() {
        *value /= factor;
    }
    // A zero row never fires (its rank is 0), so its scale is never used.
    let inverse = |norm: &f64| if *norm > 0.0 { 1.0 / norm } else { 0.0 };
    parts.decoder_scale = Some(norms.iter().map(inverse).collect());
    parts.scale = Some(norms);
}

fn expect_relu(config: &Config<'_>, activation_fn: Option<&str>) -> Result<(), Error> {
    match activation_fn {
        None | Some("relu") => Ok(()),
        Some(other) => Err(config.invalid("activation_fn", "relu", &Value::from(other))),
    }
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
        // A flag, or the list of the tokens that were left out.
        let special = match source.value("exclude_special_tokens") {
            Some(Value::Array(list)) => Some(!list.is_empty()),
            Some(value) => value.as_bool(),
            None => None,
        };
        site.exclude_special_tokens = site.exclude_special_tokens.or(special);
        let first = source.value("seqpos_slice").and_then(|slice| slice.get(0));
        let first = first.and_then(Value::as_u64).unwrap_or(0);
        site.first_position = site.first_position.max(first);
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
