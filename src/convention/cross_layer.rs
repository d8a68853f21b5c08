//! Cross-layer transcoders of circuit-tracer (`mntss/clt-*`): `W_enc_{i}.safetensors` and
//! `W_dec_{i}.safetensors` for each layer i, with `config.yaml` for all.
//!
//! Source: `circuit_tracer/transcoder/cross_layer_transcoder.py` of circuit-tracer 0.5.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `W_enc_{i}`, `b_enc_{i}` | `[d_sae, d]`, `[d_sae]` | rows, in the `W_enc` file |
//! | `b_dec_{i}` | `[d]` | of **target** layer i, in the `W_enc` file |
//! | `threshold_{i}` | `[d_sae]` | optional: strict JumpReLU without ReLU; else ReLU |
//! | `W_dec_{i}` | `[d_sae, layers - i, d]` | part j goes to layer i + j |
//!
//! One layer opens as a model whose output is what it adds to each of its target layers, side by
//! side: `[(layers - i) * d]`, in place. Its `b_dec` belongs to its own layer, the first of them, so
//! that the sum over all layers is the whole reconstruction. The decoders are never summed over
//! targets (SAELens' loader does that: right features, wrong reconstruction).

use super::common::about;
use super::transcoder_set::{CONFIG, site};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::model::{Activation, FeatureAxis, Parts, Thresholds};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "cross_layer_transcoder",
    detect,
    open,
};

/// The archives that hold a layer's encoder and decoder.
#[derive(Default)]
struct Layer<'c, 'a> {
    encoder: Option<&'c Archive<'a>>,
    decoder: Option<&'c Archive<'a>>,
}

fn layers<'c, 'a>(checkpoint: &'c Checkpoint<'a>) -> BTreeMap<usize, Layer<'c, 'a>> {
    let mut layers: BTreeMap<usize, Layer<'c, 'a>> = BTreeMap::new();
    for (_, archive) in &checkpoint.archives {
        for entry in &archive.entries {
            let number = |prefix: &str| {
                let digits = entry.name().strip_prefix(prefix)?;
                digits.parse::<usize>().ok()
            };
            if let Some(layer) = number("W_enc_") {
                layers.entry(layer).or_default().encoder = Some(archive);
            }
            if let Some(layer) = number("W_dec_") {
                layers.entry(layer).or_default().decoder = Some(archive);
            }
        }
    }
    layers
}

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    !layers(checkpoint).is_empty()
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let layers = layers(checkpoint);
    let wanted = settings.count("layer")?;
    let layer = match (wanted, layers.len()) {
        (Some(layer), _) if layers.contains_key(&layer) => layer,
        (Some(layer), _) => {
            let names: Vec<String> = layers.keys().map(ToString::to_string).collect();
            return Err(Error::InvalidValue {
                key: "layer".into(),
                expected: names.join(", "),
                found: layer.to_string(),
            });
        }
        (None, 1) => layers.keys().next().copied().unwrap_or(0),
        (None, _) => {
            return Err(Error::UnsupportedArchitecture {
                architecture: "all layers of a cross-layer transcoder at once; layer=0 opens one"
                    .into(),
            });
        }
    };
    let archives = layers.get(&layer);
    let missing = |kind: &str| Error::MissingTensor {
        tensor: alloc::format!("{kind}_{layer}"),
        convention: alloc::format!("cross-layer transcoder: {kind}_{layer}.safetensors"),
    };
    let encoder = archives
        .and_then(|layer| layer.encoder)
        .ok_or_else(|| missing("W_enc"))?;
    let decoder = archives
        .and_then(|layer| layer.decoder)
        .ok_or_else(|| missing("W_dec"))?;
    one_layer(checkpoint, encoder, decoder, layer, settings)
}

fn one_layer<'a>(
    checkpoint: &Checkpoint<'a>,
    encoder: &Archive<'a>,
    decoder: &Archive<'a>,
    layer: usize,
    settings: &Settings<'_>,
) -> Result<Parts<'a>, Error> {
    let config = checkpoint.config_or_empty(CONFIG)?;
    match config.text("model_kind")? {
        None | Some("cross_layer_transcoder") => {}
        Some(other) => {
            return Err(config.invalid("model_kind", "cross_layer_transcoder", &other.into()));
        }
    }
    config.informational(&["scan"]);
    let name = |kind: &str| alloc::format!("{kind}_{layer}");
    let inputs = Tensors::new(encoder, "cross-layer transcoder");
    let outputs = Tensors::new(decoder, "cross-layer transcoder");
    let [d_sae, d] = inputs.shape_2d(&name("W_enc"))?;
    let w_dec = name("W_dec");
    let &[_, targets, _] = outputs.shape(&w_dec)? else {
        return Err(outputs.dimensions(&w_dec, 3, outputs.shape(&w_dec)?));
    };
    outputs.check_shape(&w_dec, &[d_sae, targets, d])?;
    let threshold = name("threshold");
    let activation = match inputs.has(&threshold) {
        true => Activation::JumpRelu {
            threshold: Thresholds::PerFeature(inputs.thresholds(&threshold, d_sae)?),
            relu: false,
            inclusive: false,
        },
        false => Activation::Relu,
    };
    let encoder = inputs.matrix(&name("W_enc"), FeatureAxis::First, d_sae, d)?;
    let mut parts = Parts::new(encoder, activation, outputs.flat_rows(&w_dec)?);
    parts.bias = Some(inputs.vector(&name("b_enc"), d_sae)?);
    let mut bias = vec![0.0; targets * d];
    let own = bias.get_mut(..d).unwrap_or(&mut []);
    own.copy_from_slice(&inputs.vector(&name("b_dec"), d)?);
    parts.decoder_bias = Some(bias);
    let site = site(&config, Some(layer))?;
    parts.about = about(
        "circuit-tracer",
        CONVENTION.name,
        CONVENTION.name,
        &[&inputs, &outputs],
        &[&config],
        settings,
    )?;
    parts.about.site = site;
    parts.about.notes.push(alloc::format!(
        "layer {layer}: outputs are what it adds to layers {layer} to {}, side by side",
        layer + targets.saturating_sub(1)
    ));
    Ok(parts)
}
