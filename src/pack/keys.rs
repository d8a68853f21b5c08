//! The keys of a pack: what `convention::pack` reads.

use super::{PackModel, PackOptions, format, text};
use crate::container::gguf_write::{GgufHeader, GgufValue};
use crate::convention::pack as form;
use crate::error::Error;
use crate::kernels::WeightType;
use crate::model::{
    Activation, Layout, Matrix, Pick, Pursuit, Rank, Refit, Thresholds, ValueMap, canonical,
};
use alloc::string::String;
use alloc::vec::Vec;

/// What ggml's tools call a file of mostly such weights.
fn file_type(format: WeightType) -> u32 {
    match format {
        WeightType::F32 => 0,
        WeightType::F16 => 1,
        WeightType::BF16 => 32,
    }
}

/// The keys of the whole file.
pub(super) fn of_file(
    header: &mut GgufHeader,
    models: &[PackModel<'_, '_>],
    options: &PackOptions,
) -> Result<(), Error> {
    header.key("general.architecture", &text(form::ARCHITECTURE))?;
    if let Some(first) = models.first() {
        let parts = first.sae.parts();
        let about = &parts.about;
        let site = &about.site;
        let words = [
            Some(about.publisher.as_str()),
            site.model_name.as_deref(),
            site.hook_name.as_deref().filter(|_| models.len() == 1),
        ];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        header.key("general.name", &text(words.join(" ")))?;
        let format = format(canonical::W_DEC, &parts.decoder, options);
        header.key("general.file_type", &GgufValue::U32(file_type(format)))?;
    }
    header.key("sae.version", &GgufValue::U32(form::VERSION))?;
    if models.len() > 1 {
        let names = models.iter().map(|model| model.name.clone());
        header.key("sae.models", &GgufValue::Texts(names.collect()))?;
    }
    Ok(())
}

/// The keys of one model.
pub(super) fn of_model(
    header: &mut GgufHeader,
    prefix: &str,
    model: &PackModel<'_, '_>,
    options: &PackOptions,
) -> Result<(), Error> {
    let parts = model.sae.parts();
    let about = &parts.about;
    let mut keys = Keys { header, prefix };
    keys.put("input_norm", text(parts.input_norm.name()))?;
    keys.put("undo_norm", GgufValue::Bool(parts.undo_norm))?;
    keys.put("input_sites", count(parts.input_sites))?;
    keys.put("output_sites", count(parts.output_sites))?;
    activation(&mut keys, &parts.activation)?;
    let (map, parameter) = match parts.value_map {
        ValueMap::Identity => ("identity", None),
        ValueMap::One => ("one", None),
        ValueMap::SoftCap(cap) => ("soft_cap", Some(cap)),
        ValueMap::Distance(from) => ("distance", Some(from)),
    };
    keys.put("value_map", text(map))?;
    keys.may("value_map.parameter", parameter.map(GgufValue::F64))?;
    keys.put("glu", GgufValue::Bool(parts.glu.is_some()))?;
    let mut lossy = Vec::new();
    for (name, matrix) in canonical::matrices(parts) {
        places(&mut keys, name, matrix)?;
        let (from, to) = (matrix.weight_type(), format(name, matrix, options));
        if from != to && to != WeightType::F32 {
            let line = alloc::format!("{name}: {} to {}", from.name(), to.name());
            lossy.push(line);
        }
    }

    // A pack of a pack remembers the first source, and what was narrowed then.
    let before = about.pack.as_ref();
    if let Some(before) = before {
        lossy.splice(0..0, before.lossy.iter().cloned());
    }
    let convention = before.map_or(&about.convention, |pack| &pack.convention);
    keys.put("publisher", text(&about.publisher))?;
    keys.put("convention", text(convention))?;
    keys.put("architecture", text(&about.architecture))?;
    let site = &about.site;
    let owned = |value: &Option<String>| value.clone().map(GgufValue::Text);
    keys.may("hook_name", owned(&site.hook_name))?;
    keys.may("hook_name_out", owned(&site.hook_name_out))?;
    keys.may("model_name", owned(&site.model_name))?;
    keys.may("prepend_bos", site.prepend_bos.map(GgufValue::Bool))?;
    keys.may("context_size", site.context_size.map(GgufValue::U64))?;
    keys.put("mean_center", GgufValue::Bool(site.mean_center))?;
    let heads = GgufValue::Bool(site.concatenated_heads);
    keys.put("concatenated_heads", heads)?;
    let special = site.exclude_special_tokens.map(GgufValue::Bool);
    keys.may("exclude_special_tokens", special)?;
    keys.put("first_position", GgufValue::U64(site.first_position))?;
    keys.may("l0", about.l0.map(GgufValue::F64))?;
    let writer = concat!("libsae ", env!("CARGO_PKG_VERSION"));
    keys.put("writer", text(writer))?;
    let sources = match before {
        Some(before) => &before.sources,
        None => &model.sources,
    };
    let names = sources.iter().map(|file| file.name.clone());
    let hashes = sources.iter().map(|file| file.sha256.clone());
    keys.list("source.files", names.collect())?;
    keys.list("source.sha256", hashes.collect())?;
    let given = model.settings.iter();
    let settings = match before {
        Some(before) => before.settings.clone(),
        None => given.map(|(k, v)| alloc::format!("{k}={v}")).collect(),
    };
    keys.list("source.settings", settings)?;
    keys.list("lossy", lossy)?;
    keys.list("notes", about.notes.clone())
}

struct Keys<'k> {
    header: &'k mut GgufHeader,
    prefix: &'k str,
}

impl Keys<'_> {
    fn put(&mut self, key: &str, value: GgufValue) -> Result<(), Error> {
        self.header
            .key(&alloc::format!("{}{key}", self.prefix), &value)
    }

    fn may(&mut self, key: &str, value: Option<GgufValue>) -> Result<(), Error> {
        value.map_or(Ok(()), |value| self.put(key, value))
    }

    /// Texts, unless there are none.
    fn list(&mut self, key: &str, values: Vec<String>) -> Result<(), Error> {
        match values.is_empty() {
            true => Ok(()),
            false => self.put(key, GgufValue::Texts(values)),
        }
    }
}

fn count(count: usize) -> GgufValue {
    GgufValue::U64(count as u64)
}

/// Where the blocks of a matrix lie.
fn places(keys: &mut Keys<'_>, name: &str, matrix: &Matrix<'_>) -> Result<(), Error> {
    if matrix.layout() != Layout::Blocks {
        return Ok(());
    }
    let blocks = matrix.blocks().iter();
    let features = blocks.clone().map(|block| block.first_feature as u64);
    let columns = blocks.map(|block| block.first_column as u64);
    let key = |part: &str| alloc::format!("{name}.{part}");
    keys.put(&key("width"), count(matrix.width()))?;
    keys.put(&key("first_features"), GgufValue::U64s(features.collect()))?;
    keys.put(&key("first_columns"), GgufValue::U64s(columns.collect()))
}

/// The word for a value in a table of them.
fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> GgufValue {
    let found = words.iter().find(|(_, known)| known == value);
    text(found.map_or("", |(word, _)| word))
}

fn rank(rank: Rank) -> GgufValue {
    text(match rank {
        Rank::Value => "value",
        Rank::Magnitude => "magnitude",
    })
}

fn activation(keys: &mut Keys<'_>, activation: &Activation) -> Result<(), Error> {
    let mut rule = |name: &str, numbers: Vec<(&str, GgufValue)>| {
        keys.put("activation", text(name))?;
        numbers
            .into_iter()
            .try_for_each(|(key, value)| keys.put(&alloc::format!("activation.{key}"), value))
    };
    match activation {
        Activation::Relu => rule("relu", Vec::new()),
        Activation::TanhRelu => rule("tanh_relu", Vec::new()),
        Activation::LeakyRelu { slope } => {
            rule("leaky_relu", Vec::from([("slope", GgufValue::F64(*slope))]))
        }
        Activation::JumpRelu {
            threshold,
            relu,
            inclusive,
        } => {
            let scalar = match threshold {
                Thresholds::Scalar(value) => Some(("threshold", GgufValue::F32(*value))),
                Thresholds::PerFeature(_) => None,
            };
            let flags = [
                ("relu", GgufValue::Bool(*relu)),
                ("inclusive", GgufValue::Bool(*inclusive)),
            ];
            rule("jumprelu", flags.into_iter().chain(scalar).collect())
        }
        Activation::Gated { .. } => rule("gated", Vec::new()),
        Activation::TopK { k, rank: by, relu } => {
            let numbers = [
                ("k", count(*k)),
                ("rank", rank(*by)),
                ("relu", GgufValue::Bool(*relu)),
            ];
            rule("topk", numbers.into())
        }
        Activation::GroupTopK {
            groups,
            k,
            rank: by,
            relu,
        } => {
            let numbers = [
                ("groups", count(*groups)),
                ("k", count(*k)),
                ("rank", rank(*by)),
                ("relu", GgufValue::Bool(*relu)),
            ];
            rule("group_topk", numbers.into())
        }
        Activation::TopAfa => rule("top_afa", Vec::new()),
        Activation::Pursuit(pursuit) => {
            let Pursuit {
                steps,
                pick,
                refit,
                stop_norm,
                stop_on_repeat,
                stop_rank,
            } = pursuit;
            let pick = word::<Pick>(form::PICKS, pick);
            let refit = word::<Refit>(form::REFITS, refit);
            let numbers = [
                ("steps", count(*steps)),
                ("pick", pick),
                ("refit", refit),
                ("stop_on_repeat", GgufValue::Bool(*stop_on_repeat)),
                ("stop_rank", GgufValue::F32(*stop_rank)),
            ];
            let norm = stop_norm.map(|norm| ("stop_norm", GgufValue::F64(norm)));
            rule("pursuit", numbers.into_iter().chain(norm).collect())
        }
        Activation::Ensemble(_) => Err(Error::UnsupportedArchitecture {
            architecture: activation.describe(),
        }),
    }
}
