//! Models whose layers lie in folders of their own, one beside the other: multi-target coders of
//! clt-training.

use super::{configs_beside, read_config};
use crate::error::Error;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::Value;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "sae.safetensors";
const CONFIG: &str = "cfg.json";

/// The files of all layers in order, if the checkpoints right below a folder are the layers of one
/// model: each says that it writes to other layers.
pub(super) fn of_one_model(
    folder: &Path,
    found: &[Vec<PathBuf>],
) -> Result<Option<Vec<PathBuf>>, Error> {
    let mut layers = Vec::new();
    for files in found {
        let [file] = files.as_slice() else {
            return Ok(None);
        };
        let below = file.parent().and_then(Path::parent) == Some(folder);
        let config = file.with_file_name(CONFIG);
        if !below || super::name_of(file) != WEIGHTS || !config.is_file() {
            return Ok(None);
        }
        let value = read_config(&config, CONFIG);
        let value = value.map_err(|error| error.in_file(config.display().to_string()))?;
        let targets = value.get("n_targets").and_then(Value::as_u64);
        if targets.unwrap_or(0) == 0 || value.get("transcode") != Some(&Value::Bool(true)) {
            return Ok(None);
        }
        layers.push(file.clone());
    }
    layers.sort_by_cached_key(|file| natural(&layer_of(file)));
    Ok((layers.len() > 1).then_some(layers))
}

/// Whether files lie in folders of their own.
pub(super) fn apart(files: &[PathBuf]) -> bool {
    match files {
        [first, second, ..] => first.parent() != second.parent(),
        _ => false,
    }
}

/// The file with its folder: `layers.3/sae.safetensors`.
pub(super) fn name_of(file: &Path) -> String {
    alloc::format!("{}/{}", layer_of(file), super::name_of(file))
}

/// The side-cars of all layers, named with their folders.
pub(super) fn configs(files: &[PathBuf]) -> Result<Vec<(String, Value)>, Error> {
    let mut all = Vec::new();
    for file in files {
        let layer = layer_of(file);
        let named = |(name, value)| (alloc::format!("{layer}/{name}"), value);
        all.extend(configs_beside(file)?.into_iter().map(named));
    }
    Ok(all)
}

fn layer_of(file: &Path) -> String {
    file.parent().map(super::name_of).unwrap_or_default()
}

/// Texts and numbers in turn, so that layer 10 comes after layer 9.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (before, after) = rest.split_at(text);
        let end = after.find(|c: char| !c.is_ascii_digit());
        let (digits, after) = after.split_at(end.unwrap_or(after.len()));
        parts.push((before.to_string(), digits.parse().unwrap_or(u64::MAX)));
        rest = after;
    }
    parts
}
