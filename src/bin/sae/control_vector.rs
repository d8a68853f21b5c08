//! Control vectors of llama.cpp: reading one of a file's vectors, and the layer that a model's
//! output site is for them.

use crate::failure::{Failure, named};
use sae::control_vector::ControlVector;
use sae::model::HookPoint;
use sae::{Error, Sae};
use std::path::Path;

/// The vector of one layer of a GGUF file: the one that is asked for, or the only one.
pub(crate) fn read(path: &Path, layer: Option<u32>) -> Result<Vec<f32>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Error::Io {
        operation: "read",
        message: error.to_string(),
    });
    let file = named(path, bytes.and_then(|bytes| ControlVector::read(&bytes)))?;
    let layers = &file.directions;
    let only = (layers.len() == 1).then(|| layers.keys().next()).flatten();
    match layer.or(only.copied()).and_then(|layer| layers.get(&layer)) {
        Some(vector) => Ok(vector.clone()),
        None => {
            let held: Vec<String> = layers.keys().map(u32::to_string).collect();
            let error = Error::InvalidArgument {
                what: "layer",
                expected: "one of the file's: --layer N".into(),
                found: format!("layers {}", held.join(", ")),
            };
            Err(error.in_file(path.display().to_string()).into())
        }
    }
}

/// The block behind which llama.cpp adds a vector at the model's output site: where the checkpoint
/// says that this is the residual stream between two blocks.
pub(crate) fn layer_of(sae: &Sae<'_>) -> Result<u32, Error> {
    let site = &sae.description().site;
    let wrong = |found: &str| Error::InvalidArgument {
        what: "site of the model",
        expected: "the residual stream behind a block from 1 on, where llama.cpp adds control \
                   vectors (or --layer N)"
            .into(),
        found: found.into(),
    };
    let name = site.hook_name_out.as_ref().or(site.hook_name.as_ref());
    let Some(name) = name else {
        return Err(wrong("none: the checkpoint does not say"));
    };
    let layer = match site.hook_out().or(site.hook()) {
        Some(hook) if hook.point == HookPoint::ResidPost => Some(hook.layer),
        Some(hook) if hook.point == HookPoint::ResidPre => hook.layer.checked_sub(1),
        _ => None,
    };
    layer
        .filter(|&layer| layer > 0)
        .ok_or_else(|| wrong(&format!("`{name}`")))
}
