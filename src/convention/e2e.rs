//! Apollo's end-to-end SAEs (`e2e_sae`): `samples_*.pt`, one state dict for several hook points.
//!
//! Source: `e2e_sae/models/sparsifiers.py` of e2e_sae 2.1.1.
//!
//! | tensor, after the hook's name with `-` for `.` | shape | |
//! |---|---|---|
//! | `encoder.0.weight`, `encoder.0.bias` | `[n, d]`, `[n]` | rows |
//! | `decoder.weight`, `decoder.bias` | `[d, n]`, `[d]` | columns, **L2-normalised at load** |
//!
//! `f = relu(W x + b)`, `y = sum f_i d_i / max(|d_i|, 1e-12) + bias`: nothing is subtracted.
//! The norms are computed at open and stay a factor per feature. `hook=blocks.6.hook_resid_pre`
//! chooses among several; without it the first in the file is opened and `inspect` lists all.

use super::common::{about, norms, only, the_archive, two_layers};
use super::{Checkpoint, Convention, Settings, Tensors};
use crate::container::Archive;
use crate::error::Error;
use crate::model::Parts;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub(super) const CONVENTION: Convention = Convention {
    name: "e2e_sae",
    detect,
    open,
};

const CONFIG: &str = "final_config.yaml";
const ENCODER: &str = "encoder.0.weight";
const CODEBOOK: &str = "codebook";
/// As in torch's `normalize`.
const LEAST_NORM: f64 = 1e-12;

/// What stands before the tensor names of each hook point, in the order of the file.
fn prefixes<'c>(archive: &'c Archive<'_>, name: &str) -> Vec<&'c str> {
    let names = archive.entries.iter().map(|entry| entry.name());
    names.filter_map(|found| found.strip_suffix(name)).collect()
}

fn detect(checkpoint: &Checkpoint<'_>) -> bool {
    only(checkpoint).is_some_and(|archive| {
        let is_hook = |prefix: &&str| prefix.is_empty() || prefix.ends_with('.');
        let found = prefixes(archive, ENCODER);
        !found.is_empty() && found.iter().all(is_hook)
    })
}

fn open<'a>(checkpoint: &Checkpoint<'a>, settings: &Settings<'_>) -> Result<Parts<'a>, Error> {
    let archive = the_archive(checkpoint)?;
    let config = checkpoint.config_or_empty(CONFIG)?;
    let sparsifier = config
        .object("saes")?
        .text("type_of_sparsifier")?
        .map(ToString::to_string);
    if sparsifier.as_deref().is_some_and(|kind| kind != "sae")
        || !prefixes(archive, CODEBOOK).is_empty()
    {
        return Err(Error::UnsupportedArchitecture {
            architecture: sparsifier.unwrap_or_else(|| CODEBOOK.into()),
        });
    }
    let hook = |prefix: &str| prefix.trim_end_matches('.').replace('-', ".");
    let found = prefixes(archive, ENCODER);
    let hooks: Vec<String> = found.iter().map(|prefix| hook(prefix)).collect();
    let wanted = settings.text("hook");
    let at = match wanted {
        None => 0,
        Some(name) => {
            hooks
                .iter()
                .position(|hook| hook == name)
                .ok_or_else(|| Error::InvalidValue {
                    key: "hook".into(),
                    expected: hooks.join(", "),
                    found: name.into(),
                })?
        }
    };
    let prefix = found.get(at).copied().unwrap_or("");
    let tensors = Tensors::below(archive, "e2e_sae", prefix);
    let mut parts = two_layers(
        &tensors,
        [ENCODER, "encoder.0.bias", "decoder.weight", "decoder.bias"],
    )?;
    let norms = norms(&parts.decoder, &tensors)?;
    let inverse = |norm: f64| 1.0 / norm.max(LEAST_NORM);
    parts.decoder_scale = Some(norms.into_iter().map(inverse).collect());
    let model = config.text("tlens_model_name")?.map(ToString::to_string);
    parts.about = about(
        "Apollo",
        CONVENTION.name,
        "standard",
        &[&tensors],
        &[&config],
        settings,
    )?;
    let notes = &mut parts.about.notes;
    notes.push("decoder norms were computed at open".into());
    if hooks.len() > 1 {
        notes.push(alloc::format!(
            "hook points in this file: {}",
            hooks.join(", ")
        ));
    }
    parts.about.site.hook_name = hooks.get(at).cloned();
    parts.about.site.model_name = model;
    Ok(parts)
}
