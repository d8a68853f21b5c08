//! The files of `sae pack`: GGUF with `general.architecture = sae`, version 1.
//!
//! Everything that changes the maths is in the file under the names below, so a pack needs no
//! side-car and no publisher's convention. Numbers that are not weights keep all their bits.
//!
//! | key | type | |
//! |---|---|---|
//! | `sae.version` | u32 | 1; other versions are refused |
//! | `sae.models` | texts | only in a file with several models: their names. The keys and tensors of model i then begin with `sae.i.` and `i.` |
//! | `sae.crc32` | u32s | CRC-32 of the data of each tensor of the file, in their order |
//! | `sae.input_norm` | text | `none`, `layer_norm`, `constant_norm_rescale` |
//! | `sae.undo_norm` | bool | whether the output undoes it |
//! | `sae.input_sites`, `sae.output_sites` | u64 | |
//! | `sae.activation` | text | `relu`, `tanh_relu`, `leaky_relu`, `jumprelu`, `gated`, `topk`, `group_topk`, `top_afa`, `pursuit` |
//! | `sae.activation.*` | | the rule's numbers, by the names of [`Activation`]'s fields |
//! | `sae.value_map` | text | `identity`, `soft_cap`, `one`, `distance`; its number is `sae.value_map.parameter` |
//! | `sae.glu` | bool | whether there is a gate, `w_glu` |
//! | `sae.publisher`, `sae.convention`, `sae.architecture` | text | of the source |
//! | `sae.hook_name`, `sae.hook_name_out`, `sae.model_name`, `sae.prepend_bos`, `sae.context_size`, `sae.mean_center`, `sae.concatenated_heads`, `sae.exclude_special_tokens`, `sae.first_position` | | where the rows come from, as far as the source says |
//! | `sae.l0` | f64 | mean number of features that fire, as the publisher states it |
//! | `sae.writer` | text | program and version |
//! | `sae.source.files`, `sae.source.sha256` | texts | the files of the source |
//! | `sae.source.settings` | texts | what was given when it was opened |
//! | `sae.lossy` | texts | narrowed weights, as `w_enc: F32 to BF16` |
//! | `sae.notes` | texts | what `inspect` said of the source |
//!
//! | tensor | | |
//! |---|---|---|
//! | `w_enc`, `w_glu` | `[d_sae, d_in]` | F32, F16 or BF16, one row per feature; a pursuit has no `w_enc` |
//! | `w_dec` | `[d_sae, d_out]` | the same |
//! | `w_skip` | `[d_out, d_in]` | |
//! | `center`, `enc_scale`, `b_enc`, `threshold`, `gate_bias`, `rank_weight`, `b_glu`, `dec_scale`, `b_dec` | vectors | F32, or F64 where f32 does not hold all bits |
//! | `self_test.rows`, `.ends`, `.indices`, `.values`, `.reconstructions` | | rows and what they must give, bit for bit |
//!
//! | `screen.header`, `screen.vectors`, `screen.basis`, `screen.panels`, `screen.codes` | bytes, as I8 | the encoder's screen, if it has one ([`Screen`](crate::screen::Screen)) |
//!
//! A matrix that is not one piece has its blocks in tensors `w_enc.0`, `w_enc.1`, .., and their
//! places in `sae.w_enc.first_features`, `sae.w_enc.first_columns`, with `sae.w_enc.width` the
//! length of a whole row. A key `sae.*` that is not in this list is refused: it could change the
//! maths.
//!
//! (Above 600 lines, since these tables stand beside the code that reads what they say.)

use super::common::only;
use super::{Checkpoint, Config, Convention, Settings, Tensors};
use crate::container::Archive;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::model::{
    About, Activation, Block, Checksum, FeatureAxis, Glu, InputNorm, Matrix, PackInfo, Packed,
    Parts, Pick, Pursuit, Rank, Refit, SelfTest, Site, SourceFile, StoredScreen, Thresholds,
    ValueMap, canonical,
};
use crate::screen::STORED_SECTIONS;
use crate::tensor::Tensor;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::{Map, Value};

pub(super) const CONVENTION: Convention = Convention {
    name: "pack",
    detect,
    open,
};

/// The value of `general.architecture`, and the first part of all keys.
pub(crate) const ARCHITECTURE: &str = "sae";
/// The version that is written and read.
pub(crate) const VERSION: u32 = 1;
/// The key of the checksums.
pub(crate) const CRC32: &str = "sae.crc32";
/// Longest row of a matrix in blocks. Its zeros are in no file, so no file's size bounds it; what
/// encoding works in grows with it.
pub(crate) const MAX_BLOCKS_WIDTH: usize = 1 << 22;
/// The tensors of the self-test.
pub(crate) const SELF_TEST: [&str; 5] = [
    "self_test.rows",
    "self_test.ends",
    "self_test.indices",
    "self_test.values",
    "self_test.reconstructions",
];

/// The tensors of the screen: its header, then its sections.
pub(crate) const SCREEN: [&str; 1 + STORED_SECTIONS] = [
    "screen.header",
    "screen.vectors",
    "screen.basis",
    "screen.panels",
    "screen.codes",
];

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(is_pack)
}

fn is_pack(archive: &Archive<'_>) -> bool {
    let architecture = archive.value("general.architecture");
    archive.container == "gguf" && architecture.and_then(Value::as_str) == Some(ARCHITECTURE)
}

fn malformed(what: String) -> Error {
    Error::Malformed {
        container: "gguf",
        what,
    }
}

/// Which model of the file is meant, and under what prefixes its keys and tensors are.
struct Chosen {
    names: Vec<String>,
    keys: String,
    tensors: String,
}

impl Chosen {
    fn new(archive: &Archive<'_>, settings: &Settings<'_>) -> Result<Self, Error> {
        let names = match archive.value("sae.models") {
            None => Vec::new(),
            Some(value) => texts("sae.models", value)?,
        };
        if names.is_empty() {
            return Ok(Chosen {
                names,
                keys: "sae.".into(),
                tensors: String::new(),
            });
        }
        let Some(wanted) = settings.text("model") else {
            return Err(Error::MissingKey {
                key: "model".into(),
                hint: alloc::format!(
                    "the pack holds several, name one as model=NAME: {}",
                    names.join(", ")
                ),
            });
        };
        let by_name = names.iter().position(|name| name == wanted);
        let by_number = || wanted.parse().ok().filter(|&i: &usize| i < names.len());
        let index = by_name.or_else(by_number).ok_or(Error::InvalidValue {
            key: "model".into(),
            expected: names.join(", "),
            found: wanted.into(),
        })?;
        Ok(Chosen {
            names,
            keys: alloc::format!("sae.{index}."),
            tensors: alloc::format!("{index}."),
        })
    }

    /// The model's keys, without their prefix.
    fn map(&self, archive: &Archive<'_>) -> Map<String, Value> {
        let keys = archive.metadata.iter();
        let own = keys.filter_map(|(key, value)| {
            let key = key.strip_prefix(self.keys.as_str())?;
            let of_the_file = ["version", "models", "crc32"].contains(&key);
            (!of_the_file || !self.names.is_empty()).then(|| (key.to_string(), value.clone()))
        });
        own.collect()
    }

    /// Refuses keys and tensors that belong to no model.
    fn check_others(&self, archive: &Archive<'_>) -> Result<(), Error> {
        if self.names.is_empty() {
            return Ok(());
        }
        let of_a_model = |name: &str| {
            let number = name.split_once('.').map(|(number, _)| number);
            let number = number.and_then(|number| number.parse::<usize>().ok());
            number.is_some_and(|number| number < self.names.len())
        };
        for (key, _) in &archive.metadata {
            let Some(rest) = key.strip_prefix("sae.") else {
                continue;
            };
            if !["version", "models", "crc32"].contains(&rest) && !of_a_model(rest) {
                return Err(unknown_key(key));
            }
        }
        let mut entries = archive.entries.iter();
        match entries.find(|entry| !of_a_model(entry.name())) {
            None => Ok(()),
            Some(entry) => Err(Error::UnknownTensor {
                tensor: entry.name().into(),
                dtype: entry.dtype(),
                shape: entry.shape().to_vec(),
                convention: "pack".into(),
            }),
        }
    }
}

fn unknown_key(key: &str) -> Error {
    malformed(alloc::format!(
        "unknown key `{key}`: it may change the maths, and version {VERSION} has none of that name"
    ))
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, Error> {
    let wrong = || Error::InvalidValue {
        key: key.into(),
        expected: "an array of texts".into(),
        found: value.to_string().chars().take(60).collect(),
    };
    let values = value.as_array().ok_or_else(wrong)?;
    let text = |value: &Value| value.as_str().map(String::from).ok_or_else(wrong);
    values.iter().map(text).collect()
}

fn check_version(archive: &Archive<'_>) -> Result<(), Error> {
    match archive.value("sae.version") {
        Some(value) if value.as_u64() == Some(VERSION.into()) => Ok(()),
        Some(value) => Err(Error::UnsupportedContainer {
            container: "pack",
            what: alloc::format!("version {value}; this library reads version {VERSION}"),
        }),
        None => Err(missing("version")),
    }
}

fn missing(key: &str) -> Error {
    Error::MissingKey {
        key: alloc::format!("sae.{key}"),
        hint: "every pack has it".into(),
    }
}

fn need<T>(found: Option<T>, key: &str) -> Result<T, Error> {
    found.ok_or_else(|| missing(key))
}

/// One of several words.
fn word<T>(config: &Config<'_>, key: &str, words: &[(&str, T)]) -> Result<T, Error>
where
    T: Clone,
{
    let found = need(config.text(key)?, key)?;
    match words.iter().find(|(word, _)| *word == found) {
        Some((_, value)) => Ok(value.clone()),
        None => {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Err(config.invalid(key, &all.join(", "), &found.into()))
        }
    }
}

/// An f32 that may be infinite.
fn single(config: &Config<'_>, key: &str) -> Result<f32, Error> {
    let value = need(config.value(key), key)?;
    let text = value.as_str().and_then(|text| text.parse().ok());
    match value.as_f64().or(text) {
        Some(number) => Ok(number as f32),
        None => Err(config.invalid(key, "a number", value)),
    }
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = super::common::the_archive(checkpoint)?;
    check_version(archive)?;
    let chosen = Chosen::new(archive, settings)?;
    chosen.check_others(archive)?;
    let map = Value::Object(chosen.map(archive));
    let config = Config::new("sae", &map)?;
    let tensors = Tensors::below(archive, "pack", &chosen.tensors);

    let activation = activation(&config, &tensors)?;
    let decoder = matrix(&config, &tensors, canonical::W_DEC)?;
    let encoder = match activation {
        Activation::Pursuit(_) => decoder.clone(),
        _ => matrix(&config, &tensors, canonical::W_ENC)?,
    };
    let (d_sae, d_in, d_out) = (decoder.features(), encoder.width(), decoder.width());
    let glu = match config.flag("glu")? {
        Some(true) => Some(Glu {
            matrix: matrix(&config, &tensors, canonical::W_GLU)?,
            bias: vector(&tensors, canonical::B_GLU, d_sae)?,
        }),
        _ => None,
    };
    let skip = match tensors.has(canonical::W_SKIP) || config.value("w_skip.width").is_some() {
        true => Some(matrix(&config, &tensors, canonical::W_SKIP)?),
        false => None,
    };
    let mut parts = Parts {
        input_norm: word(
            &config,
            "input_norm",
            &[
                InputNorm::None,
                InputNorm::LayerNorm,
                InputNorm::ConstantNorm,
            ]
            .map(|norm| (norm.name(), norm)),
        )?,
        undo_norm: need(config.flag("undo_norm")?, "undo_norm")?,
        input_sites: need(config.count("input_sites")?, "input_sites")?,
        output_sites: need(config.count("output_sites")?, "output_sites")?,
        value_map: value_map(&config)?,
        center: vector(&tensors, canonical::CENTER, d_in)?,
        scale: vector(&tensors, canonical::ENC_SCALE, d_sae)?,
        bias: vector(&tensors, canonical::B_ENC, d_sae)?,
        rank_weight: vector(&tensors, canonical::RANK_WEIGHT, d_sae)?,
        decoder_scale: vector(&tensors, canonical::DEC_SCALE, d_sae)?,
        decoder_bias: vector(&tensors, canonical::B_DEC, d_out)?,
        glu,
        skip,
        ..Parts::new(encoder, activation, decoder)
    };
    for name in SELF_TEST.into_iter().chain(SCREEN) {
        tensors.skip(name);
    }
    parts.about = about(&config, &chosen, archive)?;
    parts.about.ignored_tensors = tensors.ignored()?;
    parts.about.bytes_read = tensors.bytes_read();
    if let Some(key) = config.ignored(false)?.first() {
        return Err(unknown_key(&alloc::format!("{}{key}", chosen.keys)));
    }
    Ok(parts)
}

/// A vector that may be absent.
fn vector(tensors: &Tensors<'_, '_>, name: &str, length: usize) -> Result<Option<Vec<f64>>, Error> {
    match tensors.has(name) {
        true => tensors.vector(name, length).map(Some),
        false => Ok(None),
    }
}

/// A matrix in one piece or in blocks.
fn matrix<'a>(
    config: &Config<'_>,
    tensors: &Tensors<'_, 'a>,
    name: &str,
) -> Result<Matrix<'a>, Error> {
    let key = |part: &str| alloc::format!("{name}.{part}");
    let width = config.count(&key("width"))?;
    let firsts = [key("first_features"), key("first_columns")];
    let [features, columns] = firsts.map(|key| {
        let value = config.value(&key);
        value.map(|value| numbers(config, &key, value)).transpose()
    });
    let (width, features, columns) = match (width, features?, columns?) {
        (None, None, None) => {
            let [rows, columns] = tensors.shape_2d(name)?;
            return tensors.matrix(name, FeatureAxis::First, rows, columns);
        }
        (Some(width), Some(features), Some(columns)) => (width, features, columns),
        _ => {
            let keys = [key("width"), key("first_features"), key("first_columns")];
            return Err(malformed(alloc::format!(
                "`{name}` in blocks needs all of {}",
                keys.join(", ")
            )));
        }
    };
    if width > MAX_BLOCKS_WIDTH {
        return Err(Error::Limit {
            what: alloc::format!("width of `{name}`"),
            limit: MAX_BLOCKS_WIDTH as u64,
            found: width as u64,
        });
    }
    if features.len() != columns.len() {
        return Err(malformed(alloc::format!(
            "`{name}`: {} first features, {} first columns",
            features.len(),
            columns.len()
        )));
    }
    let mut blocks = Vec::new();
    let mut end = 0usize;
    for (number, (&first_feature, &first_column)) in features.iter().zip(&columns).enumerate() {
        let part = alloc::format!("{name}.{number}");
        let [rows, columns] = tensors.shape_2d(&part)?;
        end = end.max(first_feature.saturating_add(rows));
        blocks.push(Block {
            first_feature,
            first_column,
            matrix: tensors.matrix(&part, FeatureAxis::First, rows, columns)?,
        });
    }
    Matrix::from_blocks(name, end, width, blocks)
}

fn numbers(config: &Config<'_>, key: &str, value: &Value) -> Result<Vec<usize>, Error> {
    let wrong = || config.invalid(key, "an array of whole numbers", value);
    let values = value.as_array().ok_or_else(wrong)?;
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let all: Option<Vec<usize>> = values.iter().map(number).collect();
    all.ok_or_else(wrong)
}

fn rank(config: &Config<'_>) -> Result<Rank, Error> {
    let words = [("value", Rank::Value), ("magnitude", Rank::Magnitude)];
    word(config, "activation.rank", &words)
}

fn activation(config: &Config<'_>, tensors: &Tensors<'_, '_>) -> Result<Activation, Error> {
    let flag = |key: &str| need(config.flag(key)?, key);
    let count = |key: &str| need(config.count(key)?, key);
    Ok(match need(config.text("activation")?, "activation")? {
        "relu" => Activation::Relu,
        "tanh_relu" => Activation::TanhRelu,
        "leaky_relu" => Activation::LeakyRelu {
            slope: need(config.number("activation.slope")?, "activation.slope")?,
        },
        "jumprelu" => Activation::JumpRelu {
            threshold: match tensors.has(canonical::THRESHOLD) {
                true => {
                    let length = tensors.shape(canonical::THRESHOLD)?.iter().product();
                    Thresholds::PerFeature(tensors.thresholds(canonical::THRESHOLD, length)?)
                }
                false => Thresholds::Scalar(single(config, "activation.threshold")?),
            },
            relu: flag("activation.relu")?,
            inclusive: flag("activation.inclusive")?,
        },
        "gated" => {
            let length = tensors.shape(canonical::GATE_BIAS)?.iter().product();
            Activation::Gated {
                gate_bias: tensors.vector(canonical::GATE_BIAS, length)?,
            }
        }
        "topk" => Activation::TopK {
            k: count("activation.k")?,
            rank: rank(config)?,
            relu: flag("activation.relu")?,
        },
        "group_topk" => Activation::GroupTopK {
            groups: count("activation.groups")?,
            k: count("activation.k")?,
            rank: rank(config)?,
            relu: flag("activation.relu")?,
        },
        "top_afa" => Activation::TopAfa,
        "pursuit" => Activation::Pursuit(Pursuit {
            steps: count("activation.steps")?,
            pick: word(config, "activation.pick", PICKS)?,
            refit: word(config, "activation.refit", REFITS)?,
            stop_norm: config.number("activation.stop_norm")?,
            stop_on_repeat: flag("activation.stop_on_repeat")?,
            stop_rank: single(config, "activation.stop_rank")?,
        }),
        other => {
            return Err(Error::UnsupportedArchitecture {
                architecture: other.chars().take(60).collect(),
            });
        }
    })
}

/// What [`Pick`] is called in a file.
pub(crate) const PICKS: &[(&str, Pick)] = &[
    ("positive", Pick::Positive),
    ("any", Pick::Any),
    ("magnitude", Pick::Magnitude),
];

/// What [`Refit`] is called in a file.
pub(crate) const REFITS: &[(&str, Refit)] = &[
    ("nothing", Refit::Nothing),
    ("gradient", Refit::Gradient),
    ("least_squares", Refit::LeastSquares),
];

fn value_map(config: &Config<'_>) -> Result<ValueMap, Error> {
    let key = "value_map.parameter";
    let parameter = || need(config.number(key)?, key);
    match need(config.text("value_map")?, "value_map")? {
        "identity" => Ok(ValueMap::Identity),
        "one" => Ok(ValueMap::One),
        "soft_cap" => Ok(ValueMap::SoftCap(parameter()?)),
        "distance" => Ok(ValueMap::Distance(parameter()?)),
        other => {
            let expected = "identity, one, soft_cap or distance";
            Err(config.invalid("value_map", expected, &other.into()))
        }
    }
}

fn about(config: &Config<'_>, chosen: &Chosen, archive: &Archive<'_>) -> Result<About, Error> {
    let text = |key: &str| -> Result<String, Error> {
        Ok(config.text(key)?.unwrap_or_default().to_string())
    };
    let list = |key: &str| match config.value(key) {
        None => Ok(Vec::new()),
        Some(value) => texts(&alloc::format!("sae.{key}"), value),
    };
    let owned = |key: &str| super::common::owned(config, key);
    let (files, hashes) = (list("source.files")?, list("source.sha256")?);
    if files.len() != hashes.len() {
        return Err(malformed(alloc::format!(
            "{} source files, {} hashes of them",
            files.len(),
            hashes.len()
        )));
    }
    let sources = files.into_iter().zip(hashes);
    let rows = alloc::format!("{}{}", chosen.tensors, SELF_TEST[0]);
    let rows = archive.entry(&rows).and_then(|entry| entry.shape().first());
    let foreign = archive.metadata.iter().map(|(key, _)| key);
    let foreign = foreign.filter(|key| !key.starts_with("sae.") && !key.starts_with("general."));
    Ok(About {
        publisher: text("publisher")?,
        convention: CONVENTION.name.into(),
        architecture: text("architecture")?,
        site: Site {
            hook_name: owned("hook_name")?,
            hook_name_out: owned("hook_name_out")?,
            model_name: owned("model_name")?,
            prepend_bos: config.flag("prepend_bos")?,
            context_size: config.count("context_size")?.map(|size| size as u64),
            mean_center: config.flag("mean_center")?.unwrap_or(false),
            concatenated_heads: config.flag("concatenated_heads")?.unwrap_or(false),
            exclude_special_tokens: config.flag("exclude_special_tokens")?,
            first_position: config.count("first_position")?.unwrap_or(0) as u64,
        },
        l0: config.number("l0")?,
        ignored_keys: foreign.cloned().collect(),
        notes: list("notes")?,
        pack: Some(PackInfo {
            version: VERSION,
            writer: text("writer")?,
            convention: text("convention")?,
            sources: sources
                .map(|(name, sha256)| SourceFile { name, sha256 })
                .collect(),
            settings: list("source.settings")?,
            lossy: list("lossy")?,
            self_test_rows: rows.copied().unwrap_or(0),
            models: chosen.names.clone(),
        }),
        ..About::default()
    })
}

/// The error for tensors of which only some are there.
fn incomplete(what: &str, names: &[&str], tensors: &[Option<Tensor<'_>>]) -> Error {
    let mut pairs = names.iter().zip(tensors);
    let missing = pairs.find(|(_, tensor)| tensor.is_none());
    Error::MissingTensor {
        tensor: missing.map_or("", |(name, _)| name).into(),
        convention: alloc::format!("pack: {what} has {} tensors", names.len()),
    }
}

/// What a pack holds besides the model's parts; nothing if the checkpoint is not a pack. The model
/// was opened with the same settings.
pub(crate) fn packed<'a>(
    checkpoint: &Checkpoint<'a>,
    set: &[(String, String)],
) -> Result<Packed<'a>, Error> {
    let Some(archive) = only(checkpoint).filter(|archive| is_pack(archive)) else {
        return Ok(Packed::default());
    };
    let chosen = Chosen::new(archive, &Settings::new(set, false))?;
    let mut checksums = Vec::new();
    if let Some(value) = archive.value(CRC32) {
        let wrong = || malformed(alloc::format!("`{CRC32}` is not a u32 for each tensor"));
        let values = value.as_array().ok_or_else(wrong)?;
        if values.len() != archive.entries.len() {
            return Err(wrong());
        }
        for (entry, value) in archive.entries.iter().zip(values) {
            let crc32 = value.as_u64().and_then(|crc| u32::try_from(crc).ok());
            let crc32 = crc32.ok_or_else(wrong)?;
            // What had to be decoded is not what the checksum is of.
            if entry.packing().is_none() && entry.name().starts_with(&chosen.tensors) {
                checksums.push(Checksum {
                    tensor: entry.name().into(),
                    bytes: entry.load()?.bytes().clone(),
                    crc32,
                });
            }
        }
    }
    let load = |name: &str| -> Result<Option<_>, Error> {
        let name = alloc::format!("{}{name}", chosen.tensors);
        archive.entry(&name).map(|entry| entry.load()).transpose()
    };
    let [rows, ends, indices, values, reconstructions] = SELF_TEST.map(load);
    let parts = [rows?, ends?, indices?, values?, reconstructions?];
    let self_test = match parts {
        [
            Some(rows),
            Some(ends),
            Some(indices),
            Some(values),
            Some(reconstructions),
        ] => Some(SelfTest {
            rows,
            ends,
            indices,
            values,
            reconstructions,
        }),
        [None, None, None, None, None] => None,
        some => return Err(incomplete("a self-test", &SELF_TEST, &some)),
    };
    let bytes = |tensor: Tensor<'a>| match tensor.dtype() {
        Dtype::I8 => Ok(tensor.bytes().clone()),
        other => Err(Error::UnsupportedDtype {
            tensor: tensor.name().into(),
            found: other.name().into(),
        }),
    };
    let [header, vectors, basis, panels, codes] = SCREEN.map(load);
    let screen = match [header?, vectors?, basis?, panels?, codes?] {
        // Not written yet: the file is opened in between, to build it.
        [Some(header), ..] if header.is_empty() => None,
        [
            Some(header),
            Some(vectors),
            Some(basis),
            Some(panels),
            Some(codes),
        ] => Some(StoredScreen {
            header: bytes(header)?,
            sections: [
                bytes(vectors)?,
                bytes(basis)?,
                bytes(panels)?,
                bytes(codes)?,
            ],
        }),
        [None, None, None, None, None] => None,
        some => return Err(incomplete("a screen", &SCREEN, &some)),
    };
    Ok(Packed {
        self_test,
        screen,
        checksums,
        rows: None,
    })
}
