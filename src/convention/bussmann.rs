//! Checkpoints of bartbussmann's BatchTopK and matryoshka_sae, and of top-afa-sae:
//! `sae.pt` beside `config.json`.
//!
//! Source: `sae.py` of bartbussmann/matryoshka_sae and bartbussmann/BatchTopK; `training/sae.py`
//! of top-afa-sae.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc`, `W_dec` | `[d, n]`, `[n, d]` | columns, rows |
//! | `b_dec` | `[d]` | subtracted from the input and added to the output |
//! | `b_enc` | `[n]` | stored always, **added only by vanilla and jumprelu** |
//! | `threshold` | 0-dim | matryoshka and later BatchTopK: `a [a > threshold]` |
//! | `jumprelu.log_threshold` | `[n]` | jumprelu: `threshold = exp(it)` |
//!
//! `input_unit_norm` is SAELens' layer norm. A BatchTopK without a threshold selects over the
//! batch it is given; the caller gives `threshold`, or `class=topk` to select k in each row.

use super::common::{
    about, has_all, jump_relu, k, norms, only, owned, scalar_jump_relu, the_archive, top_k,
};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, InputNorm, Parts};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "bussmann",
    detect,
    open,
};

const CONFIG: &str = "config.json";
const LOG_THRESHOLD: &str = "jumprelu.log_threshold";
const INFORMATIONAL: &[&str] = &[
    "seed",
    "batch_size",
    "lr",
    "num_tokens",
    "l1_coeff",
    "beta1",
    "beta2",
    "max_grad_norm",
    "seq_len",
    "dtype",
    "device",
    "wandb_project",
    "n_batches_to_dead",
    "top_k_aux",
    "aux_penalty",
    "name",
    "bandwidth",
    "site",
    "layer",
    "dataset_path",
    "model_batch_size",
    "num_batches_in_buffer",
    "group_sizes",
    "perf_log_freq",
    "checkpoint_freq",
    "model_dtype",
];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        has_all(archive, &["W_enc", "W_dec", "b_enc", "b_dec"])
            && checkpoint.says(CONFIG, "sae_type")
            && checkpoint.says(CONFIG, "act_size")
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.need_config(CONFIG, "it says which class the file is of")?;
    config.informational(INFORMATIONAL);
    let tensors = Tensors::new(archive, "bussmann");
    let [d_in, d_sae] = tensors.shape_2d("W_enc")?;
    config.check_size("act_size", d_in)?;
    let nested = config
        .value("group_sizes")
        .and_then(|sizes| sizes.as_array());
    // matryoshka_sae sizes the dictionary by its groups.
    let of_groups = nested.map(|sizes| sizes.iter().filter_map(|size| size.as_u64()).sum::<u64>());
    if of_groups != Some(d_sae as u64) {
        config.check_size("dict_size", d_sae)?;
    } else {
        config.informational(&["dict_size"]);
    }
    let encoder = tensors.matrix("W_enc", FeatureAxis::Second, d_sae, d_in)?;
    let decoder = tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_in)?;
    let mut parts = Parts::new(encoder, Activation::Relu, decoder);
    let b_dec = tensors.vector("b_dec", d_in)?;
    parts.center = Some(b_dec.clone());
    parts.decoder_bias = Some(b_dec);
    if config.flag("input_unit_norm")?.unwrap_or(false) {
        parts.input_norm = InputNorm::LayerNorm;
    }
    let mut notes = Vec::new();
    let stated_k = config.count("top_k")?;
    let stated = config.text("sae_type")?;
    let class = settings.text("class").or(stated).unwrap_or("");
    let (architecture, biased) = match class {
        "vanilla" | "relu" => ("standard", true),
        "jumprelu" => {
            let log = tensors.vector(LOG_THRESHOLD, d_sae)?;
            let thresholds = log.into_iter().map(|log| libm::exp(log) as f32).collect();
            parts.activation = jump_relu(thresholds);
            ("jumprelu", true)
        }
        "topk" => {
            parts.activation = top_k(k(settings, stated_k, CONFIG, &mut notes)?, true);
            tensors.skip("threshold");
            ("topk", false)
        }
        "topafa" | "top-afa" | "top_afa" => {
            parts.activation = Activation::TopAfa;
            parts.rank_weight = Some(norms(&parts.decoder, &tensors)?);
            notes.push("decoder norms were computed at open".into());
            ("top_afa", false)
        }
        class if class == "batchtopk" || class.contains("matryoshka") => {
            let stored = tensors.scalar("threshold")?;
            let threshold = match (settings.number("threshold")?, stored) {
                (Some(threshold), _) | (None, Some(threshold)) => threshold,
                (None, None) => {
                    return Err(Error::MissingKey {
                        key: "threshold".into(),
                        hint: "this BatchTopK selects over the batch that it is given; give \
                               threshold=.., or class=topk to select k in each row"
                            .into(),
                    });
                }
            };
            parts.activation = scalar_jump_relu(threshold as f32);
            ("batchtopk", false)
        }
        other => {
            return Err(Error::UnsupportedArchitecture {
                architecture: other.into(),
            });
        }
    };
    match biased {
        true => parts.bias = Some(tensors.vector("b_enc", d_sae)?),
        false => {
            tensors.check_shape("b_enc", &[d_sae])?;
            notes.push("`b_enc` is stored, but this class does not add it".into());
        }
    }
    let (hook_name, model_name) = (owned(&config, "hook_point")?, owned(&config, "model_name")?);
    parts.about = about(
        "bartbussmann",
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[&config],
        settings,
    )?;
    parts.about.notes = notes;
    parts.about.site.hook_name = hook_name;
    parts.about.site.model_name = model_name;
    Ok(parts)
}
