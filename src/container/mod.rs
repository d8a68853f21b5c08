//! Containers: mapped bytes become named tensors and raw metadata. Nothing here knows what an
//! SAE is; names, shapes and values are interpreted by the conventions.
//!
//! A container is read in two steps. [`read`] looks at headers and directories only: it checks
//! every name, dtype, shape and byte range against the file, and allocates nothing by a declared
//! size. The result is an [`Archive`] of [`Entry`] values. Most entries lie in the file as they
//! are and turn into a [`Tensor`] for nothing; a deflated or byte-swapped one is decoded into
//! memory only when someone takes it ([`Archive::take`], [`Entry::load`]), so shapes are judged
//! before anything is inflated.
//!
//! No reader executes anything that a file holds, writes a file, or trusts a length that it has
//! not compared with the bytes present. Limits are the `MAX_` constants of each module.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

mod entry;
mod ggml;
pub mod gguf;
#[cfg(feature = "std")]
pub mod gguf_write;
#[cfg(feature = "gzip")]
pub mod gzip;
#[cfg(feature = "std")]
mod new_file;
pub mod npy;
#[cfg(feature = "std")]
pub mod npy_write;
pub mod npz;
pub mod safetensors;
#[cfg(feature = "torch")]
pub mod torch;
#[cfg(feature = "yaml")]
pub mod yaml;
pub mod zip;

pub use entry::Entry;

use crate::bytes::Bytes;
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{borrow::ToOwned, format};
use serde_json::Value;

/// Most tensors or archive members that a file may have.
pub const MAX_TENSORS: usize = 1 << 16;

/// What a container file holds.
#[derive(Clone, Debug)]
pub struct Archive<'a> {
    /// The container's name: `safetensors`, `npz`, `torch`, `gguf`.
    pub container: &'static str,
    /// The tensors, in the order of the file's directory; names are unique.
    pub entries: Vec<Entry<'a>>,
    /// Everything that is not a tensor: safetensors metadata, plain values of a pickle, GGUF keys.
    pub metadata: Vec<(String, Value)>,
    /// Things left aside, in words, for `inspect` (a member ignored, a checksum not verified).
    pub notes: Vec<String>,
}

impl<'a> Archive<'a> {
    fn new(container: &'static str) -> Self {
        Archive {
            container,
            entries: Vec::new(),
            metadata: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The entry of that name: its dtype and shape, before any of its data is decoded.
    pub fn entry(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.name() == name)
    }

    /// Removes the entry of that name and loads it; `None` if there is none. What is left in
    /// [`entries`](Archive::entries) afterwards is what nobody asked for.
    ///
    /// # Errors
    /// Those of [`Entry::load`].
    pub fn take(&mut self, name: &str) -> Result<Option<Tensor<'a>>, Error> {
        match self.entries.iter().position(|entry| entry.name() == name) {
            Some(position) => self.entries.remove(position).load().map(Some),
            None => Ok(None),
        }
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
/// [`Error::NotACheckpoint`] if it is none of them, else what that container's reader says. An
/// empty file, a Git LFS pointer and a web page are recognised and named.
pub fn read<'a>(bytes: Bytes<'a>, check: Check) -> Result<Archive<'a>, Error> {
    match sniff(bytes.as_slice())? {
        Kind::Safetensors => safetensors::read(bytes),
        Kind::Gguf => gguf::read(&bytes),
        Kind::Gzip => {
            #[cfg(feature = "gzip")]
            return read_gzip(&bytes, check);
            #[cfg(not(feature = "gzip"))]
            Err(without("gzip", "a gzip file"))
        }
        Kind::Pickle => {
            #[cfg(feature = "torch")]
            return torch::read_stream(&bytes);
            #[cfg(not(feature = "torch"))]
            Err(without("torch", "a pickle, as `torch.save` writes it"))
        }
        Kind::Zip => {
            let members = zip::members(&bytes)?;
            #[cfg(feature = "torch")]
            if let Some(pickle) = torch::find_pickle(&members) {
                return torch::read_zip(members, &pickle, Checks::new(check, bytes.len()));
            }
            #[cfg(not(feature = "torch"))]
            if members
                .iter()
                .any(|member| member.name.ends_with("/data.pkl"))
            {
                return Err(without("torch", "a zip archive of `torch.save`"));
            }
            if members.iter().any(|member| member.name.ends_with(".npy")) {
                npz::read(members, Checks::new(check, bytes.len()))
            } else {
                Err(Error::NotACheckpoint {
                    found: "a zip archive without `.npy` members".into(),
                })
            }
        }
    }
}

/// Unpacks a gzip file and reads what is in it.
#[cfg(feature = "gzip")]
fn read_gzip<'a>(bytes: &Bytes<'a>, check: Check) -> Result<Archive<'a>, Error> {
    let limit = (bytes.len() as u64).saturating_mul(gzip::MAX_RATIO);
    let unpacked = gzip::gunzip(bytes.as_slice(), limit)?;
    if let Ok(Kind::Gzip) = sniff(&unpacked) {
        return Err(Error::NotACheckpoint {
            found: "a gzip file in a gzip file".into(),
        });
    }
    let note = format!("unpacked {} bytes of gzip into memory", unpacked.len());
    let mut archive = read(Bytes::owned(unpacked), check)?;
    archive.notes.push(note);
    Ok(archive)
}

/// The error for a container whose reader is not part of this build.
#[cfg(not(all(feature = "torch", feature = "gzip")))]
fn without(feature: &'static str, what: &str) -> Error {
    Error::UnsupportedContainer {
        container: feature,
        what: format!("{what}: this build lacks the feature `{feature}`"),
    }
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
    /// Headers and vectors only, in files of any size: for who checks the rest afterwards.
    Vectors,
}

/// Files below this size are always checked in full.
pub const SMALL_FILE: usize = 16 << 20;

impl Check {
    /// Whether all bytes of a file of this size are looked at.
    pub fn covers(self, file_bytes: usize) -> bool {
        match self {
            Check::Full => true,
            Check::Quick => file_bytes < SMALL_FILE,
            Check::Vectors => false,
        }
    }
}

/// The containers that can be told apart by their first bytes.
#[derive(Clone, Copy)]
enum Kind {
    Safetensors,
    Zip,
    Pickle,
    Gguf,
    Gzip,
}

fn sniff(bytes: &[u8]) -> Result<Kind, Error> {
    if let Some(what) = not_the_file(bytes) {
        return Err(Error::Malformed {
            container: "file",
            what,
        });
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Ok(Kind::Zip);
    }
    if bytes.starts_with(gguf::MAGIC) {
        return Ok(Kind::Gguf);
    }
    if bytes.starts_with(b"\x1f\x8b") {
        return Ok(Kind::Gzip);
    }
    let brace = bytes.get(safetensors::LENGTH_BYTES) == Some(&b'{');
    // A header of 640 bytes starts like a pickle of protocol 2; five zeros tell it apart.
    if brace && bytes.get(3..safetensors::LENGTH_BYTES) == Some(&[0; 5]) {
        return Ok(Kind::Safetensors);
    }
    if matches!(bytes, [0x80, 2..=5, ..]) {
        return Ok(Kind::Pickle);
    }
    if bytes.len() <= safetensors::LENGTH_BYTES {
        return Err(Error::Truncated {
            container: "file",
            what: if bytes.is_empty() {
                "an empty file; any checkpoint".into()
            } else {
                "any checkpoint".into()
            },
            needed: safetensors::LENGTH_BYTES as u64 + 1,
            available: bytes.len() as u64,
        });
    }
    if brace {
        return Ok(Kind::Safetensors);
    }
    let found = if bytes.starts_with(npy::MAGIC) {
        "a single NumPy array (.npy)".to_owned()
    } else {
        let first = bytes.get(..8).unwrap_or(bytes);
        format!("first bytes {first:02x?}")
    };
    Err(Error::NotACheckpoint { found })
}

/// Text files that download tools leave in the place of a checkpoint.
pub(crate) fn not_the_file(bytes: &[u8]) -> Option<String> {
    let text = bytes.get(..bytes.len().min(1024))?;
    if text.starts_with(b"version https://git-lfs.github.com/spec/") {
        let text = String::from_utf8_lossy(text);
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let size = size.unwrap_or("?");
        return Some(format!(
            "this is a Git LFS pointer, a text that stands for a file of {size} bytes: fetch the \
             file itself (`git lfs pull`)"
        ));
    }
    let start = text.trim_ascii_start();
    let start = start.get(..start.len().min(32))?.to_ascii_lowercase();
    if start.starts_with(b"<!doctype") || start.starts_with(b"<html") || start.starts_with(b"<?xml")
    {
        let page = String::from_utf8_lossy(text);
        let page: String = page.chars().take(80).collect();
        return Some(format!(
            "this is a web page that was saved in the file's place: `{}`",
            page.escape_default()
        ));
    }
    None
}

/// A name as text for a message: short, on one line.
fn quoted(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut characters = text.chars();
    let mut short = String::new();
    for c in characters.by_ref().take(100) {
        match c {
            '\'' | '"' => short.push(c),
            c => short.extend(c.escape_debug()),
        }
    }
    if !characters.as_str().is_empty() {
        short.push('…');
    }
    short
}

/// Which checksums are verified at open.
#[derive(Clone, Copy)]
struct Checks {
    checksums: bool,
}

impl Checks {
    fn new(check: Check, file_bytes: usize) -> Self {
        Checks {
            checksums: check.covers(file_bytes),
        }
    }

    /// Says how many checksums were left out.
    fn note(self, unchecked: usize, what: &str, notes: &mut Vec<String>) {
        if unchecked > 0 {
            notes.push(format!(
                "checksums of {unchecked} stored {what} not verified (a full check does)"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn message(bytes: &[u8]) -> String {
        match read(Bytes::borrowed(bytes), Check::Quick) {
            Err(error) => error.to_string(),
            Ok(archive) => format!("{archive:?}"),
        }
    }

    #[test]
    fn what_is_not_a_checkpoint_is_named() {
        assert!(message(b"").contains("an empty file"));
        assert!(message(b"<HTML>\n<body>").contains("web page"));
        assert!(
            message(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 42\n")
                .contains("42 bytes")
        );
        assert!(message(b"\x93NUMPY\x01\x00v\x00{'descr'").contains("single NumPy array"));
        assert!(message(b"0123456789").contains("first bytes [30, 31"));
    }
}
