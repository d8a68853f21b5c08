//! Conventions: how each publisher names, orients and folds its tensors.
//!
//! A convention turns named tensors and config values into the canonical [`Parts`]. It knows
//! nothing of files or bytes. What it does not know and what could change the maths is an error
//! that names it, never a default: unknown floating-point tensors, unknown values of known keys,
//! unknown architectures. What nobody reads at inference is ignored, and listed.

mod config;
mod gemma_scope_1;
mod saelens;
mod tensors;

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

impl<'a> Checkpoint<'a> {
    /// The config of that name.
    pub fn config(&self, name: &str) -> Option<&Value> {
        self.configs
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
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
    /// Whether a checkpoint is of this form, judged by what it holds.
    detect: fn(&Checkpoint<'_>) -> bool,
    open: for<'a> fn(&Checkpoint<'a>, &Settings<'_>) -> Result<Parts<'a>, Error>,
}

/// In the order in which they are asked; the first that recognises a checkpoint opens it.
const CONVENTIONS: &[Convention] = &[saelens::CONVENTION, gemma_scope_1::CONVENTION];

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
    let Some(convention) = CONVENTIONS.iter().find(|found| (found.detect)(checkpoint)) else {
        return Err(unknown(checkpoint));
    };
    let parts = (convention.open)(checkpoint, &settings)?;
    settings.finish()?;
    Ok(parts)
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
