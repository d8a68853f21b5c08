//! What a pack holds besides the model itself.

use crate::screen::STORED_SECTIONS;
use crate::tensor::Tensor;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde_json::{Value, json};

/// A file that a pack was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, without folders.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Where a packed model comes from, for `inspect`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PackInfo {
    /// Version of the form in which it is stored.
    pub version: u32,
    /// The program that wrote it, with its version.
    pub writer: String,
    /// The convention that read the source.
    pub convention: String,
    /// The files it was made from.
    pub sources: Vec<SourceFile>,
    /// What the caller gave when the source was opened, as `key=value`.
    pub settings: Vec<String>,
    /// Which weights were narrowed, as `w_enc: F32 to BF16`. Empty if the pack gives the bits of
    /// its source.
    pub lossy: Vec<String>,
    /// Rows of the self-test.
    pub self_test_rows: usize,
    /// Names of the models in the file, if it holds several.
    pub models: Vec<String>,
}

impl PackInfo {
    pub(crate) fn to_json(&self) -> Value {
        let sources = self.sources.iter();
        let source = |file: &SourceFile| json!({"name": file.name, "sha256": file.sha256});
        json!({
            "version": self.version, "writer": self.writer, "convention": self.convention,
            "sources": sources.map(source).collect::<Vec<_>>(), "settings": self.settings,
            "lossy": self.lossy, "self_test_rows": self.self_test_rows, "models": self.models,
        })
    }

    /// As (label, text) pairs.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = alloc::vec![(
            "pack",
            alloc::format!(
                "version {}, by {}, from the convention {}",
                self.version,
                self.writer,
                self.convention
            ),
        )];
        if !self.models.is_empty() {
            lines.push(("models", self.models.join(", ")));
        }
        for file in &self.sources {
            lines.push((
                "source",
                alloc::format!("{} (sha256 {})", file.name, file.sha256),
            ));
        }
        if !self.settings.is_empty() {
            lines.push(("given", self.settings.join(", ")));
        }
        lines.push((
            "lossy",
            match self.lossy.is_empty() {
                true => "no: the bits of the source".into(),
                false => self.lossy.join(", "),
            },
        ));
        let rows = self.self_test_rows;
        lines.push((
            "self-test",
            match rows {
                0 => "none".into(),
                rows => alloc::format!("{rows} rows"),
            },
        ));
        lines
    }
}

/// Rows with the features and reconstructions that they must give, bit for bit.
#[derive(Clone, Debug)]
pub(crate) struct SelfTest<'a> {
    /// F32 `[n, d_in]`
    pub(crate) rows: Tensor<'a>,
    /// I64 `[n]`: how many features all rows up to this one have together.
    pub(crate) ends: Tensor<'a>,
    /// I32 `[total]`
    pub(crate) indices: Tensor<'a>,
    /// F32 `[total]`
    pub(crate) values: Tensor<'a>,
    /// F32 `[n, d_out]`
    pub(crate) reconstructions: Tensor<'a>,
}

/// The checksum of a tensor of a pack.
#[derive(Clone, Debug)]
pub(crate) struct Checksum<'a> {
    pub(crate) tensor: String,
    pub(crate) bytes: crate::bytes::Bytes<'a>,
    pub(crate) crc32: u32,
}

/// A screen as [`Screen::from_stored`](crate::screen::Screen::from_stored) takes it.
#[derive(Clone, Debug)]
pub(crate) struct StoredScreen<'a> {
    pub(crate) header: crate::bytes::Bytes<'a>,
    pub(crate) sections: [crate::bytes::Bytes<'a>; STORED_SECTIONS],
}

/// What is checked on a model from a pack. A model derived from it has none of this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed<'a> {
    pub(crate) self_test: Option<SelfTest<'a>>,
    /// Taken by the model when it opens.
    pub(crate) screen: Option<StoredScreen<'a>>,
    pub(crate) checksums: Vec<Checksum<'a>>,
    /// The encoder's rows, if they are read where a screen says.
    pub(crate) rows: Option<Arc<dyn crate::bytes::Scattered>>,
}

impl Packed<'_> {
    /// All of the encoder's rows are about to be read.
    pub(crate) fn read_all_rows(&self) {
        if let Some(rows) = &self.rows {
            rows.read_all();
        }
    }
}
