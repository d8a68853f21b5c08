//! llama.cpp's control vectors: GGUF files with one vector per layer, added to the residual stream
//! behind that layer at every position.
//!
//! Keys `general.architecture` = `controlvector`, `controlvector.model_hint` (the architecture of
//! the language model, such as `gemma2`) and `controlvector.layer_count`; tensors `direction.<n>`,
//! F32, `[n_embd]`. llama.cpp counts blocks from 0 and adds `direction.<n>` to the output of block
//! n; it refuses n = 0. The vector for an SAE at `blocks.12.hook_resid_post` is `direction.12`.

use crate::bytes::Bytes;
use crate::container::gguf;
#[cfg(feature = "std")]
use crate::container::gguf_write::{GgufHeader, GgufValue};
#[cfg(feature = "std")]
use crate::dtype::Dtype;
use crate::error::Error;
use alloc::collections::BTreeMap;
use alloc::string::String;
#[cfg(feature = "std")]
use alloc::string::ToString;
use alloc::vec::Vec;

/// The value of `general.architecture`, and the prefix of the other keys.
const ARCHITECTURE: &str = "controlvector";

/// Vectors by layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlVector {
    /// Architecture of the language model in llama.cpp's words, "" if the file does not say.
    pub model_hint: String,
    /// For each layer, the vector that is added behind it, all of one length.
    pub directions: BTreeMap<u32, Vec<f32>>,
}

impl ControlVector {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// What the GGUF reader says, or [`Error::Malformed`] for another architecture, a tensor that
    /// is not `direction.<n>` with n above 0, vectors of several lengths or values that are not
    /// finite.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let archive = gguf::read(&Bytes::borrowed(bytes))?;
        let text = |key: &str| {
            let found = archive.metadata.iter().find(|entry| entry.0 == key);
            found.and_then(|entry| entry.1.as_str()).map(String::from)
        };
        match text("general.architecture") {
            Some(found) if found != ARCHITECTURE => {
                return Err(malformed(&alloc::format!("its architecture is `{found}`")));
            }
            _ => {}
        }
        let mut this = ControlVector {
            model_hint: text("controlvector.model_hint").unwrap_or_default(),
            directions: BTreeMap::new(),
        };
        for entry in &archive.entries {
            let name = entry.name();
            let layer = name.strip_prefix("direction.").unwrap_or("").parse();
            let layer = layer.ok().filter(|&layer: &u32| layer > 0);
            let Some(layer) = layer else {
                return Err(malformed(&alloc::format!("its tensor `{name}`")));
            };
            let values = entry.load()?.to_f64()?;
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(malformed(&alloc::format!("`{name}` is not finite")));
            }
            this.directions.insert(layer, values);
        }
        this.width()?;
        Ok(this)
    }

    /// Length of the vectors, 0 if there are none.
    ///
    /// # Errors
    /// [`Error::Malformed`] if they differ in length.
    pub fn width(&self) -> Result<usize, Error> {
        let mut lengths = self.directions.values().map(Vec::len);
        let first = lengths.next().unwrap_or(0);
        match lengths.find(|&length| length != first) {
            None => Ok(first),
            Some(other) => Err(malformed(&alloc::format!(
                "vectors of {first} and of {other} values"
            ))),
        }
    }

    /// Writes a file, under a temporary name until it is complete.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no vectors or a layer 0, [`Error::Malformed`] for vectors of
    /// several lengths, [`Error::Io`].
    #[cfg(feature = "std")]
    pub fn write(&self, path: &std::path::Path) -> Result<(), Error> {
        let width = self.width()?;
        let last = self.directions.keys().next_back().copied().unwrap_or(0);
        if width == 0 || self.directions.contains_key(&0) {
            return Err(Error::InvalidArgument {
                what: "layers of a control vector",
                expected: "1 or more".into(),
                found: self
                    .directions
                    .keys()
                    .next()
                    .map_or("none".into(), u32::to_string),
            });
        }
        let mut header = GgufHeader::new();
        let text = |text: &str| GgufValue::Text(text.into());
        header.key("general.architecture", &text(ARCHITECTURE))?;
        header.key("controlvector.model_hint", &text(&self.model_hint))?;
        // llama.cpp's own writer counts the layers up to the last one with a vector.
        header.key("controlvector.layer_count", &GgufValue::I32(last as i32))?;
        for layer in self.directions.keys() {
            header.tensor(&alloc::format!("direction.{layer}"), Dtype::F32, &[width])?;
        }
        let mut file = header.create(path)?;
        for values in self.directions.values() {
            file.write(bytemuck::cast_slice(values))?;
        }
        file.finish()
    }
}

fn malformed(what: &str) -> Error {
    Error::Malformed {
        container: "gguf",
        what: alloc::format!("no control vector: {what}"),
    }
}
