//! Containers: mapped bytes become named tensors and raw metadata. Nothing here knows what an
//! SAE is; names, shapes and values are interpreted by the conventions.

use crate::bytes::Bytes;
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::string::String;
use alloc::vec::Vec;
use serde_json::Value;

/// What a container file holds.
#[derive(Clone, Debug)]
pub struct Archive<'a> {
    /// The container's name: `safetensors`, `npz`, `torch`, `gguf`.
    pub container: &'static str,
    /// The tensors, in the order of the file's directory; names are unique.
    pub tensors: Vec<Tensor<'a>>,
    /// Everything that is not a tensor: safetensors metadata, plain values of a pickle, GGUF keys.
    pub metadata: Vec<(String, Value)>,
    /// Things left aside, in words, for `inspect` (a member ignored, a checksum not verified).
    pub notes: Vec<String>,
}

impl<'a> Archive<'a> {
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.iter().find(|tensor| tensor.name() == name)
    }

    /// The metadata value of that key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }
}

/// Reads a container, whichever it is, from its first bytes on.
///
/// # Errors
/// [`Error::NotACheckpoint`] if it is none of them, else what that container's reader says.
pub fn read<'a>(bytes: Bytes<'a>, check: Check) -> Result<Archive<'a>, Error> {
    let _ = check;
    Err(Error::NotACheckpoint {
        found: alloc::format!("{} bytes", bytes.len()),
    })
}

/// How much of a file is verified when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Check {
    /// Headers and vectors always; matrices and checksums only in files below
    /// [`SMALL_FILE`] bytes.
    #[default]
    Quick,
    /// Every value and every checksum.
    Full,
}

/// Files below this size are always checked in full.
pub const SMALL_FILE: usize = 16 << 20;
