//! Conventions: how each publisher names, orients and folds its tensors.
//!
//! A convention turns named tensors and config values into the canonical [`Parts`]. It knows
//! nothing of files or bytes. What it does not know and what could change the maths is an error
//! that names it, never a default: unknown floating-point tensors, unknown values of known keys,
//! unknown architectures. What nobody reads at inference is ignored, and listed.

mod bussmann;
mod clt_training;
mod common;
mod config;
mod cross_layer;
mod crosscoder;
mod deepseek_r1;
mod dictionary_learning;
mod e2e;
mod gemma_scope_1;
mod gemma_scope_2;
mod goodfire;
mod hook_z;
mod itda;
mod llama_scope;
mod llama_scope_r1;
mod mlsae;
mod msae;
mod openai;
mod openmoss;
mod openmoss_lorsa;
mod openmoss_molt;
mod openmoss_stacked;
mod overcomplete;
pub(crate) mod pack;
mod patchsae;
mod prisma;
mod qwen_scope;
mod saelens;
mod sparsify;
mod temporal;
mod tensors;
mod transcoder_set;

use crate::container::Archive;
use crate::error::Error;
use crate::model::Parts;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use serde_json::Value;

pub(crate) use config::Config;
pub(crate) use tensors::Tensors;

/// A checkpoint as it was downloaded: tensor files, side-cars, and the names that it lies under.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint<'a> {
    /// Files that hold tensors, with their names (no folders).
    pub archives: Vec<(String, Archive<'a>)>,
    /// Side-car configs, with their names.
    pub configs: Vec<(String, Value)>,
    /// Names of the folders that the checkpoint lies in, outermost first, as given by the caller
    /// or found on disk. Some publishers keep facts only there.
    pub folders: Vec<String>,
}

/// The name of a config that came without one: it stands for any.
pub(crate) const UNNAMED: &str = "";

impl<'a> Checkpoint<'a> {
    /// The config of that name.
    pub fn config(&self, name: &str) -> Option<&Value> {
        let named = |wanted: &str| self.configs.iter().find(|(found, _)| found == wanted);
        let (_, value) = named(name).or_else(|| named(UNNAMED))?;
        Some(value)
    }

    /// Whether the config of that name has such a key.
    pub(crate) fn says(&self, name: &str, key: &str) -> bool {
        self.config(name)
            .is_some_and(|config| config.get(key).is_some())
    }

    /// Whether there is a config as SAELens writes it.
    pub(crate) fn is_saelens(&self) -> bool {
        self.says("cfg.json", "d_sae") || self.says("cfg.json", "architecture")
    }

    /// The config of that name, which must be there.
    pub(crate) fn need_config(&self, name: &str, why: &str) -> Result<Config<'_>, Error> {
        match self.config(name) {
            Some(value) => Config::new(name, value),
            None => Err(Error::MissingKey {
                key: name.into(),
                hint: alloc::format!("{why}; put it beside the weights"),
            }),
        }
    }

    /// The config of that name, without keys if there is none.
    pub(crate) fn config_or_empty(&self, name: &str) -> Result<Config<'_>, Error> {
        match self.config(name) {
            Some(value) => Config::new(name, value),
            None => Ok(Config::empty(name)),
        }
    }
}

/// What the file does not say: `key=value` pairs of the caller. A pair that nobody reads is an
/// error, so that a misspelt key cannot be silently without effect.
#[derive(Debug)]
pub(crate) struct Settings<'s> {
    pairs: &'s [(String, String)],
    read: RefCell<Vec<&'s str>>,
    /// Unknown config keys are errors.
    pub(crate) strict: bool,
}

impl<'s> Settings<'s> {
    pub(crate) fn new(pairs: &'s [(String, String)], strict: bool) -> Self {
        Settings {
            pairs,
            read: RefCell::new(Vec::new()),
            strict,
        }
    }

    /// The value given for a key; the last one, if several are.
    pub(crate) fn text(&self, key: &str) -> Option<&'s str> {
        let (key, value) = self.pairs.iter().rev().find(|(name, _)| name == key)?;
        self.read.borrow_mut().push(key);
        Some(value)
    }

    /// A number given for a key: finite.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(Error::InvalidValue {
                key: key.into(),
                expected: "a finite number".into(),
                found: text.into(),
            }),
        }
    }

    /// A truth value given for a key.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.text(key) {
            None => Ok(None),
            Some("true" | "True" | "1") => Ok(Some(true)),
            Some("false" | "False" | "0") => Ok(Some(false)),
            Some(other) => Err(Error::InvalidValue {
                key: key.into(),
                expected: "true or false".into(),
                found: other.into(),
            }),
        }
    }

    /// A count given for a key.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        match text.parse::<usize>() {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Error::InvalidValue {
                key: key.into(),
                expected: "a whole number".into(),
                found: text.into(),
            }),
        }
    }

    /// Checks that every pair was read.
    fn finish(&self) -> Result<(), Error> {
        let read = self.read.borrow();
        match self
            .pairs
            .iter()
            .find(|(key, _)| !read.contains(&key.as_str()))
        {
            None => Ok(()),
            Some((key, _)) => Err(Error::InvalidArgument {
                what: "setting",
                expected: "a key that this checkpoint does not say itself".into(),
                found: key.clone(),
            }),
        }
    }
}

/// One publisher's form.
struct Convention {
    /// The name that `inspect` prints and that a caller can ask for.
    name: &'static str,
    /// Whether a checkpoint is of this form, judged by what it holds.
    detect: fn(&Checkpoint<'_>) -> bool,
    open: for<'a> fn(&Checkpoint<'a>, &Settings<'_>) -> Result<Parts<'a>, Error>,
}

/// In the order in which they are asked; the first that recognises a checkpoint opens it.
const CONVENTIONS: &[Convention] = &[
    // Ours: says what it is.
    pack::CONVENTION,
    // Recognised by tensors that no one else has.
    gemma_scope_1::CONVENTION,
    gemma_scope_2::CONVENTION,
    goodfire::CONVENTION,
    cross_layer::CONVENTION,
    crosscoder::CONVENTION,
    overcomplete::CONVENTION,
    msae::CONVENTION,
    itda::CONVENTION,
    temporal::CONVENTION,
    mlsae::CONVENTION,
    openai::CONVENTION,
    openmoss_stacked::CONVENTION,
    openmoss::CONVENTION,
    e2e::CONVENTION,
    clt_training::CONVENTION,
    sparsify::CONVENTION,
    llama_scope_r1::CONVENTION,
    // By what a config says, too.
    llama_scope::CONVENTION,
    hook_z::CONVENTION,
    bussmann::CONVENTION,
    prisma::CONVENTION,
    dictionary_learning::CONVENTION,
    // By shapes.
    qwen_scope::CONVENTION,
    transcoder_set::CONVENTION,
    saelens::CONVENTION,
    deepseek_r1::CONVENTION,
    // By a config inside, or when the caller says so.
    patchsae::CONVENTION,
];

/// Recognises the publisher and brings the checkpoint into canonical form.
///
/// # Errors
/// [`Error::UnknownConvention`] if nobody stores such tensors, [`Error::InvalidArgument`] for a
/// pair in `set` that the convention does not read, else what the convention says.
pub fn open<'a>(
    checkpoint: &Checkpoint<'a>,
    set: &[(String, String)],
    strict: bool,
) -> Result<Parts<'a>, Error> {
    let settings = Settings::new(set, strict);
    let unwrapped = match (pack::CONVENTION.detect)(checkpoint) {
        true => None,
        false => unwrap(checkpoint),
    };
    let checkpoint = unwrapped.as_ref().unwrap_or(checkpoint);
    let parts = (choose(checkpoint, &settings)?.open)(checkpoint, &settings)?;
    settings.finish()?;
    Ok(parts)
}

/// The convention that the caller names, or that recognises the checkpoint.
fn choose(
    checkpoint: &Checkpoint<'_>,
    settings: &Settings<'_>,
) -> Result<&'static Convention, Error> {
    if let Some(name) = settings.text("convention") {
        let named = CONVENTIONS.iter().find(|known| known.name == name);
        return named.ok_or_else(|| Error::InvalidValue {
            key: "convention".into(),
            expected: CONVENTIONS
                .iter()
                .map(|known| known.name)
                .collect::<Vec<_>>()
                .join(", "),
            found: name.into(),
        });
    }
    if let Some(found) = CONVENTIONS.iter().find(|known| (known.detect)(checkpoint)) {
        return Ok(found);
    }
    let bare = ["W_enc", "W_dec", "b_enc", "b_dec"];
    match common::only(checkpoint) {
        Some(archive) if archive.container == "torch" && common::has_all(archive, &bare) => {
            Err(Error::MissingKey {
                key: "convention".into(),
                hint: "several publishers store these four tensors, and there is no config that \
                       tells them apart; give convention=patchsae, say"
                    .into(),
            })
        }
        _ => Err(unknown(checkpoint)),
    }
}

/// Names under which training scripts put a whole state dict beside other things.
const WRAPPERS: &[&str] = &[
    "state_dict.",
    "model_state_dict.",
    "sae.",
    "autoencoder.state_dict.",
];

/// The checkpoint without such a wrapper, if it has one.
fn unwrap<'a>(checkpoint: &Checkpoint<'a>) -> Option<Checkpoint<'a>> {
    let archive = common::only(checkpoint)?;
    let under = |prefix: &&&str| {
        archive
            .entries
            .iter()
            .any(|e| e.name().starts_with(**prefix))
    };
    let prefix = WRAPPERS.iter().find(under)?;
    let mut archive = archive.clone();
    for entry in &mut archive.entries {
        if let Some(name) = entry.name().strip_prefix(prefix) {
            *entry = entry.clone().renamed(name.to_string());
        }
    }
    let mut unwrapped = checkpoint.clone();
    if checkpoint.config(INSIDE).is_none()
        && let Some(config) = config_inside(&archive)
    {
        unwrapped.configs.push((INSIDE.into(), config));
    }
    unwrapped.archives.first_mut()?.1 = archive;
    Some(unwrapped)
}

/// The name by which conventions know a config that lies in the weights file.
const INSIDE: &str = "config.json";

/// The config that a training script put beside a state dict: `{"cfg": .., "state_dict": ..}`.
fn config_inside(archive: &Archive<'_>) -> Option<Value> {
    let mut config = serde_json::Map::new();
    for (name, value) in &archive.metadata {
        let Some(name) = name.strip_prefix("cfg.") else {
            continue;
        };
        let (mut object, mut key) = (&mut config, name);
        while let Some((outer, inner)) = key.split_once('.') {
            let next = object
                .entry(outer)
                .or_insert_with(|| Value::Object(Default::default()));
            // A key that holds a dot and stands beside its own beginning: no publisher's.
            object = next.as_object_mut()?;
            key = inner;
        }
        object.insert(key.into(), value.clone());
    }
    (!config.is_empty()).then_some(Value::Object(config))
}

fn unknown(checkpoint: &Checkpoint<'_>) -> Error {
    const SHOWN: usize = 12;
    let entries = checkpoint
        .archives
        .iter()
        .flat_map(|(_, archive)| &archive.entries);
    let names: Vec<&str> = entries
        .clone()
        .map(|entry| entry.name())
        .take(SHOWN)
        .collect();
    let more = match entries.count().saturating_sub(SHOWN) {
        0 => String::new(),
        more => alloc::format!(" and {more} more"),
    };
    let found = match names.is_empty() {
        true => "none".to_string(),
        false => names.join(", ") + &more,
    };
    Error::UnknownConvention { found }
}
