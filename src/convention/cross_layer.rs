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
//! A folder with all layers opens as one model: rows are the layers side by side, `[layers * d]`,
//! features those of layer 0, then of layer 1, and so on; `y_t = sum over l <= t of f_l W_dec_l[t -
//! l] + b_dec_t`. Nothing is copied: what no file holds is 0 and is neither stored nor read.
//!
//! One layer (a file of it, or `layer=3`) opens as a model whose output is what it adds to each of
//! its target layers, side by side: `[(layers - i) * d]`. Its `b_dec` belongs to its own layer, the
//! first of them, so that the sum over all layers is the whole reconstruction. The decoders are
//! never summed over targets (SAELens' loader does that: right features, wrong reconstruction).

use super::common::about;
use super::transcoder_set::{CONFIG, site};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::model::{Activation, Block, FeatureAxis, Matrix, Parts, Thresholds};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
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
    let config = checkpoint.config_or_empty(CONFIG)?;
    match config.text("model_kind")? {
        None | Some("cross_layer_transcoder") => {}
        Some(other) => {
            return Err(config.invalid("model_kind", "cross_layer_transcoder", &other.into()));
        }
    }
    config.informational(&["scan"]);
    let halves = |layer: usize| -> Result<Opened<'_, 'a>, Error> {
        let archives = layers.get(&layer);
        let missing = |kind: &str| Error::MissingTensor {
            tensor: alloc::format!("{kind}_{layer}"),
            convention: alloc::format!("cross-layer transcoder: {kind}_{layer}.safetensors"),
        };
        let encoder = archives.and_then(|layer| layer.encoder);
        let decoder = archives.and_then(|layer| layer.decoder);
        Opened::new(
            encoder.ok_or_else(|| missing("W_enc"))?,
            decoder.ok_or_else(|| missing("W_dec"))?,
            layer,
        )
    };
    let only = match (settings.count("layer")?, layers.len()) {
        (None, 1) => layers.keys().next().copied(),
        (None, _) => None,
        (Some(layer), _) if layers.contains_key(&layer) => Some(layer),
        (Some(layer), _) => {
            let names: Vec<String> = layers.keys().map(ToString::to_string).collect();
            return Err(Error::InvalidValue {
                key: "layer".into(),
                expected: names.join(", "),
                found: layer.to_string(),
            });
        }
    };
    let opened = match only {
        Some(layer) => Vec::from([halves(layer)?]),
        None => {
            // Layers are numbered from 0 without gaps, so a missing file is named.
            let all: Result<Vec<_>, Error> = (0..layers.len()).map(halves).collect();
            all?
        }
    };
    let mut parts = match (only, opened.as_slice()) {
        (Some(_), [layer]) => layer.alone()?,
        (_, layers) => together(layers)?,
    };
    let tensors: Vec<&Tensors<'_, 'a>> = opened
        .iter()
        .flat_map(|layer| [&layer.inputs, &layer.outputs])
        .collect();
    let site = site(&config, only)?;
    let name = CONVENTION.name;
    let notes = core::mem::take(&mut parts.about.notes);
    parts.about = about("circuit-tracer", name, name, &tensors, &[&config], settings)?;
    parts.about.site = site;
    parts.about.notes = notes;
    Ok(parts)
}

/// The tensors of one layer, their shapes checked.
struct Opened<'c, 'a> {
    layer: usize,
    inputs: Tensors<'c, 'a>,
    outputs: Tensors<'c, 'a>,
    d_sae: usize,
    d: usize,
    targets: usize,
}

impl<'c, 'a> Opened<'c, 'a> {
    fn new(
        encoder: &'c Archive<'a>,
        decoder: &'c Archive<'a>,
        layer: usize,
    ) -> Result<Self, Error> {
        let inputs = Tensors::new(encoder, "cross-layer transcoder");
        let outputs = Tensors::new(decoder, "cross-layer transcoder");
        let name = |kind: &str| alloc::format!("{kind}_{layer}");
        let [d_sae, d] = inputs.shape_2d(&name("W_enc"))?;
        let w_dec = name("W_dec");
        let [_, targets, _] = outputs.shape_3d(&w_dec)?;
        outputs.check_shape(&w_dec, &[d_sae, targets, d])?;
        Ok(Opened {
            layer,
            inputs,
            outputs,
            d_sae,
            d,
            targets,
        })
    }

    fn name(&self, kind: &str) -> String {
        alloc::format!("{kind}_{}", self.layer)
    }

    fn encoder(&self) -> Result<Matrix<'a>, Error> {
        let name = self.name("W_enc");
        self.inputs
            .matrix(&name, FeatureAxis::First, self.d_sae, self.d)
    }

    fn decoder(&self) -> Result<Matrix<'a>, Error> {
        self.outputs.flat_rows(&self.name("W_dec"))
    }

    fn thresholds(&self) -> Result<Option<Vec<f32>>, Error> {
        let name = self.name("threshold");
        match self.inputs.has(&name) {
            true => self.inputs.thresholds(&name, self.d_sae).map(Some),
            false => Ok(None),
        }
    }

    fn alone(&self) -> Result<Parts<'a>, Error> {
        let rule = rule(self.thresholds()?);
        let mut parts = Parts::new(self.encoder()?, rule, self.decoder()?);
        parts.output_sites = self.targets;
        parts.bias = Some(self.inputs.vector(&self.name("b_enc"), self.d_sae)?);
        let mut bias = self.inputs.vector(&self.name("b_dec"), self.d)?;
        bias.resize(self.targets * self.d, 0.0);
        parts.decoder_bias = Some(bias);
        parts.about.notes.push(alloc::format!(
            "layer {}: outputs are what it adds to layers {} to {}, side by side",
            self.layer,
            self.layer,
            self.layer + self.targets.saturating_sub(1)
        ));
        Ok(parts)
    }
}

/// JumpReLU without ReLU, or ReLU.
fn rule(thresholds: Option<Vec<f32>>) -> Activation {
    match thresholds {
        Some(thresholds) => Activation::JumpRelu {
            threshold: Thresholds::PerFeature(thresholds),
            relu: false,
            inclusive: false,
        },
        None => Activation::Relu,
    }
}

/// All layers as one model.
fn together<'a>(layers: &[Opened<'_, 'a>]) -> Result<Parts<'a>, Error> {
    let count = layers.len();
    let d = layers.first().map_or(0, |layer| layer.d);
    let (mut encoder, mut decoder) = (Vec::new(), Vec::new());
    let (mut bias, mut decoder_bias) = (Vec::new(), Vec::new());
    let mut thresholds = Vec::new();
    let mut features = 0usize;
    for layer in layers {
        let name = layer.name("W_dec");
        layer
            .outputs
            .check_shape(&name, &[layer.d_sae, count - layer.layer, d])?;
        let first_column = layer.layer * d;
        for (blocks, matrix) in [
            (&mut encoder, layer.encoder()?),
            (&mut decoder, layer.decoder()?),
        ] {
            blocks.push(Block {
                first_feature: features,
                first_column,
                matrix,
            });
        }
        bias.extend(layer.inputs.vector(&layer.name("b_enc"), layer.d_sae)?);
        decoder_bias.extend(layer.inputs.vector(&layer.name("b_dec"), d)?);
        match layer.thresholds()? {
            Some(values) => thresholds.extend(values),
            None if thresholds.is_empty() => {}
            None => return Err(layer.inputs.missing(&layer.name("threshold"))),
        }
        features = features.saturating_add(layer.d_sae);
    }
    if !thresholds.is_empty() && thresholds.len() != features {
        let first = layers
            .first()
            .map(|layer| layer.inputs.missing("threshold_0"));
        return Err(first.unwrap_or(Error::UnknownConvention {
            found: "none".into(),
        }));
    }
    let width = count.saturating_mul(d);
    let encoder = Matrix::from_blocks("W_enc", features, width, encoder)?;
    let decoder = Matrix::from_blocks("W_dec", features, width, decoder)?;
    let rule = rule((!thresholds.is_empty()).then_some(thresholds));
    let mut parts = Parts::new(encoder, rule, decoder);
    parts.input_sites = count;
    parts.output_sites = count;
    parts.bias = Some(bias);
    parts.decoder_bias = Some(decoder_bias);
    parts.about.notes.push(alloc::format!(
        "rows are {count} layers of {d} values, side by side; features are those of each layer \
         after another"
    ));
    Ok(parts)
}
