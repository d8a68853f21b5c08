//! Labels: what features are said to mean, in words.
//!
//! Neuronpedia publishes an explanation export for every source (SAE): JSON lines, one explanation
//! a line, in gzipped batches. [`Labels`] is the table of one such export: for each feature its
//! explanations, in the order of the file. It is data about a model and nothing that a model
//! computes with; whoever made it vouches for it, not the SAE.
//!
//! # What is read
//!
//! Source: `export_explanations` in `export-data.py` of Neuronpedia's utilities, and its web API.
//!
//! | form | |
//! |---|---|
//! | JSON lines | one explanation per line, as in the batches of the export bucket |
//! | a list | `[{..}, {..}]`, as the web API's export gave it |
//! | an export | `{"explanations": [..], ..}`, the same with a heading |
//! | a feature | `{"index": "7", "explanations": [..], ..}`, what the web API says of one feature |
//!
//! An explanation is an object with `index` (the feature: a whole number, or one as text, which is
//! what Neuronpedia writes) and `description`; `explanationModelName`, `typeName`, `modelId` and
//! `layer` (or `saeId`) are kept too. All other keys are passed over. A description that is null
//! or blank is no label, and counted. With the crate's feature `gzip` every form may be gzipped.
//!
//! Statistics of features ([`Observed`]: `maxActApprox`, `frac_nonzero` and the histogram of
//! values) are read from any of these objects, and from the lines of the export's `features`
//! (`export_features`, the same source), which have no description. They are what strengths of
//! plans may be relative to: [`Statistics::from_labels`](crate::steer::Statistics::from_labels).
//!
//! # What is refused
//!
//! A file that holds neither explanations nor statistics; an object without a feature, or without
//! either; a feature that is negative, fractional or beyond 32 bits; a key that occurs twice;
//! two sources in one table, since the same number means another feature there; statistics of a
//! feature that contradict each other; and whatever goes beyond the `MAX_` constants. Every file is read twice, first to judge it: until
//! all of it is known to be sound, memory holds one explanation and not the table.

mod guard;
mod observed;
mod read;

use crate::error::Error;
use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::CStr;

#[cfg(feature = "gzip")]
pub use guard::MAX_RATIO;
pub use guard::{MAX_DEPTH, MAX_NUMBER, MAX_STRING};
pub use observed::Observed;

const CONTAINER: &str = "labels";

/// Most labels in a table.
pub const MAX_LABELS: usize = 1 << 22;

/// Longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 1 << 16;

/// Most bytes of all descriptions of a table together.
pub const MAX_TEXT: usize = 1 << 29;

/// Longest name of an explainer, a method, a model or a source, in bytes.
pub const MAX_NAME: usize = 512;

/// Most different explainers and methods in a table.
pub const MAX_NAMES: usize = 1 << 12;

/// Most explanations of one feature that may stand before the feature's own `index`.
pub const MAX_WAITING: usize = 64;

/// Most files of a folder that are read into one table.
pub const MAX_FILES: usize = 1 << 14;

/// Explanations by feature. Immutable and shared; made by [`Labels::from_bytes`] or
/// `Labels::open`.
///
/// ```
/// # fn main() -> Result<(), sae::Error> {
/// let export = br#"{"index": "3", "description": "Mondays", "explanationModelName": "gpt-4o-mini"}
/// {"index": "3", "description": "days of the week"}"#;
/// let labels = sae::Labels::from_bytes(export)?;
/// assert_eq!(labels.text(3), Some("Mondays"));
/// assert_eq!(labels.of(3).count(), 2);
/// assert_eq!(labels.text(4), None);
/// labels.check(16)?; // no label beyond a model of 16 features
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Labels {
    /// In order of their feature; those of one feature in the order of the file.
    entries: Vec<Entry>,
    /// The descriptions, each with a zero byte behind it.
    text: Vec<u8>,
    names: Vec<CString>,
    source: Option<Source>,
    blank: usize,
    /// In order of their feature.
    seen: Vec<observed::Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    feature: u32,
    start: u32,
    length: u32,
    /// Positions in `names`.
    explainer: u16,
    method: u16,
}

/// Whose features a table labels, as far as the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    model: String,
    source: String,
}

/// One explanation of one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label<'l> {
    /// The feature.
    pub feature: u32,
    /// What it is said to mean. It comes from the file as it is, control characters included.
    pub text: &'l str,
    /// Who said so (`explanationModelName`); empty if the file does not say.
    pub explainer: &'l str,
    /// By which method (`typeName`); empty if the file does not say.
    pub method: &'l str,
}

impl Labels {
    /// Reads an explanation export from memory; nothing of `bytes` is kept.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Limit`], [`Error::OutOfMemory`]; without the crate's feature
    /// `gzip`, [`Error::UnsupportedContainer`] for a gzip file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut judge = Builder::default();
        read::read(bytes, &mut judge)?;
        let mut builder = judge.storing()?;
        read::read(bytes, &mut builder)?;
        builder.finish()
    }

    /// Number of labels, of all features together.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Number of features that have a label.
    pub fn features(&self) -> usize {
        self.entries.chunk_by(|a, b| a.feature == b.feature).count()
    }

    /// Number of explanations that were left out because they say nothing.
    pub fn blank(&self) -> usize {
        self.blank
    }

    /// The language model, as the file names it (`modelId`).
    pub fn model(&self) -> Option<&str> {
        self.source.as_ref().map(|it| it.model.as_str())
    }

    /// The SAE, as the file names it (`layer` or `saeId`).
    pub fn source(&self) -> Option<&str> {
        self.source.as_ref().map(|it| it.source.as_str())
    }

    /// The first label of a feature, in words.
    pub fn text(&self, feature: u32) -> Option<&str> {
        self.of(feature).next().map(|label| label.text)
    }

    /// The labels of a feature, in the order of the file.
    pub fn of(&self, feature: u32) -> impl ExactSizeIterator<Item = Label<'_>> {
        self.entries_of(feature)
            .iter()
            .map(|entry| self.label(entry))
    }

    /// All labels, in order of their feature.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Label<'_>> {
        self.entries.iter().map(|entry| self.label(entry))
    }

    /// What the export says of the values of a feature over its corpus.
    ///
    /// ```
    /// # fn main() -> Result<(), sae::Error> {
    /// let line = br#"{"index": "3", "maxActApprox": 22.5, "frac_nonzero": 0.01}"#;
    /// let labels = sae::Labels::from_bytes(line)?;
    /// assert_eq!(labels.observed(3).and_then(|it| it.max), Some(22.5));
    /// assert_eq!(labels.observed(4), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn observed(&self, feature: u32) -> Option<Observed> {
        let at = self.seen.binary_search_by_key(&feature, |one| one.feature);
        at.ok()
            .and_then(|at| self.seen.get(at))
            .map(observed::Seen::observed)
    }

    /// All that the export says of values, in order of the feature.
    pub fn all_observed(&self) -> impl ExactSizeIterator<Item = Observed> {
        self.seen.iter().map(observed::Seen::observed)
    }

    /// Label `number` of a feature and its explainer, as C reads texts: with a zero byte at the
    /// end.
    pub fn to_c(&self, feature: u32, number: usize) -> Option<(&CStr, &CStr)> {
        let entry = self.entries_of(feature).get(number)?;
        let text = self.text.get(entry.start as usize..)?;
        let explainer = self.names.get(usize::from(entry.explainer))?;
        Some((CStr::from_bytes_until_nul(text).ok()?, explainer))
    }

    /// Checks that a model of `d_sae` features has every feature that is labelled, or has
    /// statistics, here.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`] with the highest feature.
    pub fn check(&self, d_sae: usize) -> Result<(), Error> {
        let labelled = self.entries.last().map(|entry| entry.feature);
        let seen = self.seen.last().map(|one| one.feature);
        match labelled.max(seen) {
            Some(feature) if feature as usize >= d_sae => Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: d_sae as u64,
            }),
            _ => Ok(()),
        }
    }

    fn entries_of(&self, feature: u32) -> &[Entry] {
        let start = self.entries.partition_point(|it| it.feature < feature);
        let rest = self.entries.get(start..).unwrap_or_default();
        let count = rest.partition_point(|it| it.feature == feature);
        rest.get(..count).unwrap_or_default()
    }

    fn label(&self, entry: &Entry) -> Label<'_> {
        let start = entry.start as usize;
        let text = self.text.get(start..start + entry.length as usize);
        let name = |number: u16| {
            let name = self.names.get(usize::from(number));
            name.and_then(|name| name.to_str().ok()).unwrap_or_default()
        };
        Label {
            feature: entry.feature,
            text: text
                .and_then(|text| core::str::from_utf8(text).ok())
                .unwrap_or_default(),
            explainer: name(entry.explainer),
            method: name(entry.method),
        }
    }
}

/// One explanation, read.
#[derive(Default)]
struct Explanation {
    description: String,
    explainer: String,
    method: String,
}

/// Takes explanations: first it judges and counts them, then it stores them.
#[derive(Default)]
struct Builder {
    stores: bool,
    labels: usize,
    bytes: usize,
    blank: usize,
    entries: Vec<Entry>,
    text: Vec<u8>,
    observed: usize,
    seen: Vec<observed::Seen>,
    /// Numbers of the names, in order of their first use.
    names: BTreeMap<String, u16>,
    source: Option<Source>,
    /// The library's own error, which the reader of JSON cannot carry.
    failure: Option<Error>,
}

impl Builder {
    /// A builder that stores what this one judged.
    fn storing(self) -> Result<Self, Error> {
        if self.labels + self.blank + self.observed == 0 {
            return Err(malformed(
                "it holds no explanation, and no statistics of features",
            ));
        }
        let seen = self.observed.saturating_mul(size_of::<observed::Seen>());
        let entries = self.labels.saturating_mul(size_of::<Entry>());
        let bytes = entries.saturating_add(seen).saturating_add(self.bytes);
        let memory = |_| Error::OutOfMemory {
            what: "labels",
            bytes: bytes as u64,
        };
        let mut builder = Builder {
            stores: true,
            ..Builder::default()
        };
        builder
            .entries
            .try_reserve_exact(self.labels)
            .map_err(memory)?;
        builder.text.try_reserve_exact(self.bytes).map_err(memory)?;
        builder
            .seen
            .try_reserve_exact(self.observed)
            .map_err(memory)?;
        Ok(builder)
    }

    /// An explanation of a feature.
    fn take(&mut self, feature: u32, it: &Explanation) -> Result<(), Error> {
        let text = it.description.trim();
        if text.is_empty() {
            self.blank += 1;
            return Ok(());
        }
        if text.contains('\0') {
            return Err(malformed(format!(
                "the description of feature {feature} holds a zero byte"
            )));
        }
        let start = self.bytes;
        self.labels += 1;
        self.bytes += text.len() + 1;
        limit("the number of labels", self.labels, MAX_LABELS)?;
        limit("the length of all descriptions", self.bytes, MAX_TEXT)?;
        let explainer = self.name(&it.explainer)?;
        let method = self.name(&it.method)?;
        if self.stores {
            // Counted when the file was judged: there is room. If the file has changed since, the
            // vectors grow, within the limits above.
            self.entries.push(Entry {
                feature,
                start: start as u32,
                length: text.len() as u32,
                explainer,
                method,
            });
            self.text.extend_from_slice(text.as_bytes());
            self.text.push(0);
        }
        Ok(())
    }

    fn name(&mut self, name: &str) -> Result<u16, Error> {
        if let Some(number) = self.names.get(name) {
            return Ok(*number);
        }
        let number = self.names.len();
        limit("the number of different names", number + 1, MAX_NAMES)?;
        self.names.insert(name.to_string(), number as u16);
        Ok(number as u16)
    }

    /// What an object says about its model and source: the same throughout a table.
    fn origin(&mut self, model: Option<&str>, source: Option<&str>) -> Result<(), Error> {
        let said = |name: &&str| !name.is_empty();
        let (Some(model), Some(source)) = (model.filter(said), source.filter(said)) else {
            return Ok(());
        };
        match &self.source {
            Some(known) if known.model == model && known.source == source => Ok(()),
            Some(known) => Err(malformed(format!(
                "features of two sources: `{}/{}` and `{model}/{source}`",
                known.model, known.source
            ))),
            None => {
                self.source = Some(Source {
                    model: model.into(),
                    source: source.into(),
                });
                Ok(())
            }
        }
    }

    fn finish(mut self) -> Result<Labels, Error> {
        // Stable: the order of the file stays within a feature.
        self.entries.sort_by_key(|entry| entry.feature);
        let mut names = Vec::new();
        names.resize(self.names.len(), CString::default());
        for (name, number) in self.names {
            if let Some(slot) = names.get_mut(usize::from(number)) {
                *slot = CString::new(name).map_err(|_| malformed("a name holds a zero byte"))?;
            }
        }
        Ok(Labels {
            entries: self.entries,
            text: self.text,
            names,
            source: self.source,
            blank: self.blank,
            seen: observed::table(self.seen)?,
        })
    }
}

fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: what.into(),
    }
}

fn limit(what: &str, found: usize, limit: usize) -> Result<(), Error> {
    match found <= limit {
        true => Ok(()),
        false => Err(Error::Limit {
            what: what.into(),
            limit: limit as u64,
            found: found as u64,
        }),
    }
}

#[cfg(feature = "std")]
mod from_path {
    use super::{Builder, Labels, MAX_FILES, limit, read};
    use crate::error::Error;
    use crate::mmap::Mapping;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use std::path::{Path, PathBuf};

    impl Labels {
        /// Reads an explanation export: a file, or a folder of batches (`batch-0.jsonl.gz` and so
        /// on), which may be the folder `explanations`, the folder `features` (statistics without
        /// labels), or the one above `explanations`. Files are mapped while they are read and not
        /// kept.
        ///
        /// # Errors
        /// [`Error::InFile`] with the file and the cause; those of [`Labels::from_bytes`], and
        /// [`Error::Io`].
        pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
            let path = path.as_ref();
            let in_path = |error: Error| error.in_file(path.display().to_string());
            let files = files_of(path).map_err(in_path)?;
            let mut judge = Builder::default();
            add(&files, &mut judge)?;
            let mut builder = judge.storing().map_err(in_path)?;
            add(&files, &mut builder)?;
            builder.finish().map_err(in_path)
        }
    }

    fn add(files: &[PathBuf], builder: &mut Builder) -> Result<(), Error> {
        for file in files {
            Mapping::open(file)
                .and_then(|mapping| read::read(mapping.into_bytes().as_slice(), builder))
                .map_err(|error| error.in_file(file.display().to_string()))?;
        }
        Ok(())
    }

    /// The file, or the batches of a folder in the order of their numbers.
    fn files_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
        if !path.is_dir() {
            return Ok(Vec::from([path.into()]));
        }
        let inner = path.join("explanations");
        let folder = if inner.is_dir() { &inner } else { path };
        let io = |error: std::io::Error| Error::Io {
            operation: "list",
            message: error.to_string(),
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let file = entry.map_err(io)?.path();
            let name = file.file_name().map(|name| name.to_string_lossy());
            let name = name.unwrap_or_default();
            let name = name.strip_suffix(".gz").unwrap_or(&name);
            if (name.ends_with(".jsonl") || name.ends_with(".json")) && file.is_file() {
                limit("the number of files", files.len() + 1, MAX_FILES)?;
                files.push(file);
            }
        }
        if files.is_empty() {
            return Err(super::malformed("a folder without .jsonl or .json files"));
        }
        // `batch-2` before `batch-10`.
        files.sort_by_key(|file| (file.as_os_str().len(), file.clone()));
        Ok(files)
    }
}
