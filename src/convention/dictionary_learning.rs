//! dictionary_learning: `ae.pt` beside `config.json` (or, from a fork, `model.safetensors`).
//!
//! Source: `dictionary_learning/dictionary.py`, `trainers/*.py` of dictionary-learning 0.1.0; the
//! loader `dictionary_learning_1` of SAELens 6.54.
//!
//! | `dict_class` | tensors | f |
//! |---|---|---|
//! | `AutoEncoder` | `bias`, `encoder.weight`, `encoder.bias`, `decoder.weight` | `relu(W (x - bias) + b)` |
//! | `AutoEncoderNew` | `encoder.*`, `decoder.weight`, `decoder.bias` | `relu(W x + b)`, nothing subtracted |
//! | `GatedAutoEncoder` | `decoder_bias`, `encoder.weight`, `r_mag`, `gate_bias`, `mag_bias`, `decoder.weight` | `u = W (x - decoder_bias)`; `[u + gate_bias > 0] relu(exp(r_mag) u + mag_bias)` |
//! | `AutoEncoderTopK` | `b_dec`, `k`, `encoder.*`, `decoder.weight`, later files `threshold` | the k largest of `relu(W (x - b_dec) + b)`; the threshold only with `use_threshold=true` |
//! | `BatchTopKSAE` | the same | `a [a > threshold]`, `a = relu(..)`; a threshold of -1 is unset and passes everything |
//! | `MatryoshkaBatchTopKSAE` | `W_enc [d, n]`, `b_enc`, `W_dec [n, d]`, `b_dec`, `k`, `threshold`, `group_sizes` | the same; `groups=2` switches off all but the first two groups |
//! | `JumpReluAutoEncoder` | `W_enc [d, n]`, `b_enc`, `W_dec [n, d]`, `b_dec`, `threshold [n]` | `relu(p [p > threshold])`, `p = W x + b`, nothing subtracted |
//!
//! `encoder.weight` is `[n, d]` (often stored column-major), `decoder.weight` `[d, n]`. Every
//! output bias is the tensor that is named like one. Biases are stored ready for raw rows. TopK
//! and BatchTopK have the same tensors: only the config tells them apart, else `class=..` must.

use super::common::{
    about, has_all, jump_relu, k, only, owned, scalar_jump_relu, shape, the_archive, top_k,
};
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Parts};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "dictionary_learning",
    detect,
    open,
};

const CONFIG: &str = "config.json";

#[derive(Clone, Copy, PartialEq)]
enum Class {
    AutoEncoder,
    AutoEncoderNew,
    Gated,
    TopK,
    BatchTopK,
    Matryoshka,
    JumpRelu,
}

const CLASSES: &[(&str, Class)] = &[
    ("AutoEncoder", Class::AutoEncoder),
    ("AutoEncoderNew", Class::AutoEncoderNew),
    ("GatedAutoEncoder", Class::Gated),
    ("AutoEncoderTopK", Class::TopK),
    ("BatchTopKSAE", Class::BatchTopK),
    ("MatryoshkaBatchTopKSAE", Class::Matryoshka),
    ("JumpReluAutoEncoder", Class::JumpRelu),
];

fn says_class(checkpoint: &Checkpoint<'_>) -> bool {
    let trainer = checkpoint
        .config(CONFIG)
        .and_then(|config| config.get("trainer"));
    trainer.is_some_and(|trainer| trainer.get("dict_class").is_some())
}

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        let linear = shape(archive, "encoder.weight").len() == 2
            && shape(archive, "decoder.weight").len() == 2;
        let known = says_class(checkpoint) && (linear || has_all(archive, &["W_enc", "W_dec"]));
        known
            || linear
                && ["bias", "gate_bias", "b_dec"]
                    .iter()
                    .any(|name| archive.entry(name).is_some())
            || has_all(archive, &["W_enc", "W_dec", "group_sizes"])
            || archive.container == "torch" && is_jump_relu(archive)
    })
}

fn is_jump_relu(archive: &Archive<'_>) -> bool {
    let features = shape(archive, "b_enc");
    has_all(archive, &["W_enc", "W_dec", "b_dec"])
        && features.len() == 1
        && shape(archive, "threshold") == features
}

/// The class that the tensors alone leave open or not.
fn class_of_tensors(archive: &Archive<'_>) -> Result<Class, Error> {
    let has = |name: &str| archive.entry(name).is_some();
    if has("group_sizes") {
        Ok(Class::Matryoshka)
    } else if is_jump_relu(archive) {
        Ok(Class::JumpRelu)
    } else if has("gate_bias") {
        Ok(Class::Gated)
    } else if has("bias") {
        Ok(Class::AutoEncoder)
    } else if has("decoder.bias") {
        Ok(Class::AutoEncoderNew)
    } else {
        Err(Error::MissingKey {
            key: "class".into(),
            hint: "AutoEncoderTopK and BatchTopKSAE have the same tensors, and there is no \
                   config.json with trainer: dict_class; give class=AutoEncoderTopK, say"
                .into(),
        })
    }
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    let trainer = config.object("trainer")?;
    let buffer = config.object("buffer")?;
    let mut notes = Vec::new();
    let class = class(&trainer, archive, settings, &mut notes)?;
    let name = CLASSES
        .iter()
        .find(|(_, found)| *found == class)
        .map_or("", |(name, _)| name);
    let tensors = Tensors::new(archive, &alloc::format!("dictionary_learning {name}"));

    // Orientation.
    let columns = matches!(class, Class::Matryoshka | Class::JumpRelu);
    let (encoder, decoder, bias) = match columns {
        true => {
            let [d_in, d_sae] = tensors.shape_2d("W_enc")?;
            (
                tensors.matrix("W_enc", FeatureAxis::Second, d_sae, d_in)?,
                tensors.matrix("W_dec", FeatureAxis::First, d_sae, d_in)?,
                "b_enc",
            )
        }
        false => {
            let [d_sae, d_in] = tensors.shape_2d("encoder.weight")?;
            (
                tensors.matrix("encoder.weight", FeatureAxis::First, d_sae, d_in)?,
                tensors.matrix("decoder.weight", FeatureAxis::Second, d_sae, d_in)?,
                "encoder.bias",
            )
        }
    };
    let (d_sae, d_in) = (encoder.features(), encoder.width());
    trainer.check_size("activation_dim", d_in)?;
    trainer.check_size("dict_size", d_sae)?;
    let mut parts = Parts::new(encoder, Activation::Relu, decoder);

    let output_bias = match class {
        Class::AutoEncoder => "bias",
        Class::AutoEncoderNew => "decoder.bias",
        Class::Gated => "decoder_bias",
        _ => "b_dec",
    };
    let output_bias = tensors.vector(output_bias, d_in)?;
    if !matches!(class, Class::AutoEncoderNew | Class::JumpRelu) {
        parts.center = Some(output_bias.clone());
    }
    parts.decoder_bias = Some(output_bias);
    let bias = match class {
        Class::Gated => "mag_bias",
        _ => bias,
    };
    parts.bias = Some(tensors.vector(bias, d_sae)?);

    let architecture = match class {
        Class::AutoEncoder | Class::AutoEncoderNew => "standard",
        Class::Gated => {
            let r_mag = tensors.vector("r_mag", d_sae)?;
            parts.scale = Some(r_mag.into_iter().map(libm::exp).collect());
            let gate_bias = tensors.vector("gate_bias", d_sae)?;
            parts.activation = Activation::Gated { gate_bias };
            "gated"
        }
        Class::TopK => {
            let stated = k_of(&tensors, &trainer)?;
            let k = k(settings, stated, "the file", &mut notes)?;
            if settings.flag("use_threshold")?.unwrap_or(false) {
                let threshold = threshold(&tensors)?;
                note_unset(threshold, &mut notes);
                parts.activation = scalar_jump_relu(threshold);
                "jumprelu"
            } else {
                // Stored, but unused by default.
                tensors.skip("threshold");
                parts.activation = top_k(k, true);
                "topk"
            }
        }
        Class::BatchTopK | Class::Matryoshka => {
            // k served in training only, but the publisher's class takes no other either.
            if let Some(k) = k_of(&tensors, &trainer)?
                && !(1..=d_sae).contains(&k)
            {
                return Err(Error::InvalidValue {
                    key: "k".into(),
                    expected: alloc::format!("1 to {d_sae}"),
                    found: k.to_string(),
                });
            }
            let threshold = threshold(&tensors)?;
            note_unset(threshold, &mut notes);
            parts.activation = scalar_jump_relu(threshold);
            if class == Class::Matryoshka {
                let ends = match tensors.has("group_sizes") {
                    true => group_ends(&tensors, d_sae)?,
                    false => Vec::new(),
                };
                if let Some(width) = wanted_width(&ends, settings)? {
                    let within = |feature| match feature < width {
                        true => threshold,
                        false => f32::INFINITY,
                    };
                    parts.activation = jump_relu((0..d_sae).map(within).collect());
                    notes.push(alloc::format!("features from {width} on are switched off"));
                }
                let widths: Vec<String> = ends.iter().map(ToString::to_string).collect();
                notes.push(alloc::format!("nested widths: {}", widths.join(", ")));
            }
            "jumprelu"
        }
        Class::JumpRelu => {
            parts.activation = jump_relu(tensors.thresholds("threshold", d_sae)?);
            "jumprelu"
        }
    };
    trainer.informational(&[
        "trainer_class",
        "wandb_name",
        "lr",
        "layer",
        "seed",
        "device",
        "steps",
        "warmup_steps",
        "group_sizes",
        "group_fractions",
        "group_weights",
        "num_groups",
        "l1_penalty",
        "sparsity_warmup_steps",
        "decay_start",
        "auxk_alpha",
        "threshold_beta",
        "threshold_start_step",
        "top_k_aux",
        "bandwidth",
        "sparsity_penalty",
        "target_l0",
    ]);
    let context = buffer.count("ctx_len")?;
    let model_name = owned(&trainer, "lm_name")?;
    let hook_name = owned(&trainer, "submodule_name")?;
    parts.about = about(
        "dictionary_learning",
        CONVENTION.name,
        architecture,
        &[&tensors],
        &[&config, &trainer],
        settings,
    )?;
    parts.about.notes = notes;
    parts.about.site.context_size = context.map(|size| size as u64);
    parts.about.site.model_name = model_name;
    parts.about.site.hook_name = hook_name;
    Ok(parts)
}

fn class(
    trainer: &Config<'_>,
    archive: &Archive<'_>,
    settings: &Settings<'_>,
    notes: &mut Vec<String>,
) -> Result<Class, Error> {
    let stated = trainer.text("dict_class")?;
    let given = settings.text("class");
    if let (Some(given), Some(stated)) = (given, stated)
        && given != stated
    {
        notes.push(alloc::format!(
            "class is {given} as given; {CONFIG} says {stated}"
        ));
    }
    let Some(name) = given.or(stated) else {
        return class_of_tensors(archive);
    };
    match CLASSES.iter().find(|(known, _)| *known == name) {
        Some((_, class)) => Ok(*class),
        None => Err(Error::UnsupportedArchitecture {
            architecture: alloc::format!("dictionary_learning {name}"),
        }),
    }
}

/// k of the buffer, else of the config.
fn k_of(tensors: &Tensors<'_, '_>, trainer: &Config<'_>) -> Result<Option<usize>, Error> {
    let stated = trainer.count("k")?;
    Ok(tensors.count("k")?.or(stated))
}

/// Training starts with -1 and may never set it.
fn note_unset(threshold: f32, notes: &mut Vec<String>) {
    if threshold < 0.0 {
        notes.push(alloc::format!(
            "the threshold is {threshold}: unset, so every positive value passes"
        ));
    }
}

fn threshold(tensors: &Tensors<'_, '_>) -> Result<f32, Error> {
    match tensors.scalar("threshold")? {
        Some(threshold) => Ok(threshold as f32),
        None => Err(tensors.missing("threshold")),
    }
}

/// Where each group of a Matryoshka SAE ends.
fn group_ends(tensors: &Tensors<'_, '_>, d_sae: usize) -> Result<Vec<usize>, Error> {
    let sizes = tensors.integers("group_sizes")?;
    let mut end = 0usize;
    let mut ends = Vec::with_capacity(sizes.len());
    for (index, &size) in sizes.iter().enumerate() {
        let next = usize::try_from(size)
            .ok()
            .and_then(|size| end.checked_add(size));
        end = next.filter(|&next| next <= d_sae).ok_or(Error::BadValue {
            tensor: "group_sizes".into(),
            index: index as u64,
            found: size as f64,
        })?;
        ends.push(end);
    }
    Ok(ends)
}

/// The width that `groups` asks for; None for all.
fn wanted_width(ends: &[usize], settings: &Settings<'_>) -> Result<Option<usize>, Error> {
    let Some(groups) = settings.count("groups")? else {
        return Ok(None);
    };
    match groups.checked_sub(1).and_then(|last| ends.get(last)) {
        Some(&width) => Ok(Some(width)),
        None => Err(Error::InvalidValue {
            key: "groups".into(),
            expected: alloc::format!("1 to {}", ends.len()),
            found: groups.to_string(),
        }),
    }
}
