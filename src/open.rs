//! Opening: from a path, or from bytes in memory, to a model.
//!
//! A path may be the weights file or the folder that was downloaded. Side-cars are looked for
//! beside the weights. Files are opened read-only and never written.

use crate::bytes::Bytes;
use crate::container::{self, Check};
use crate::convention::{self, Checkpoint};
use crate::error::Error;
use crate::kernels::Level;
use crate::model::Sae;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::Value;

/// Side-car configs larger than this are refused.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// How a checkpoint is opened. `Default` suits a checkpoint that says everything itself.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// How much of the file is verified.
    pub check: Check,
    /// Config keys that nobody reads at inference are errors instead of being listed.
    pub strict: bool,
    /// The instruction set; the best one if `None`.
    pub level: Option<Level>,
    /// What the file does not say, as key and value: `k`, `norm_scaling_factor`,
    /// `normalize_activations`. A key that the checkpoint does not need is an error.
    pub set: Vec<(String, String)>,
}

impl OpenOptions {
    /// Options that verify every value and checksum.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// Options under which unknown config keys are errors.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Options with this instruction set.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// Options that also say `key = value`.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.set.push((key.into(), value.to_string()));
        self
    }
}

impl<'a> Sae<'a> {
    /// Opens a model from bytes of the caller, which are read in place.
    ///
    /// `name` is the name that the file was downloaded under, with the folders above it if they
    /// are known (`layer_12/width_16k/average_l0_82/params.npz`): some publishers keep facts only
    /// there. `config` is the text of the config beside it (`cfg.json`), if it has one.
    ///
    /// # Errors
    /// [`Error::InFile`] with `name` and the cause.
    pub fn from_bytes(
        name: &str,
        bytes: &'a [u8],
        config: Option<&str>,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let parts: Vec<&str> = name
            .split(['/', '\\'])
            .filter(|part| !part.is_empty())
            .collect();
        let (file, folders) = parts
            .split_last()
            .map_or((name, [].as_slice()), |(l, f)| (*l, f));
        let mut checkpoint = Checkpoint {
            folders: folders.iter().map(ToString::to_string).collect(),
            ..Checkpoint::default()
        };
        if let Some(text) = config {
            let name = "cfg.json";
            let value = parse_config(name, text.as_bytes()).map_err(|error| error.in_file(name))?;
            checkpoint.configs.push((name.into(), value));
        }
        let archive = container::read(Bytes::borrowed(bytes), options.check);
        let archive = archive.map_err(|error| error.in_file(name))?;
        let archives = [(file.to_string(), archive)];
        checkpoint.archives.extend(archives);
        let small = options.check.covers(bytes.len());
        Self::build(&checkpoint, options, small).map_err(|error| error.in_file(name))
    }

    fn build(
        checkpoint: &Checkpoint<'a>,
        options: &OpenOptions,
        check_weights: bool,
    ) -> Result<Self, Error> {
        let mut parts = convention::open(checkpoint, &options.set, options.strict)?;
        let archives = checkpoint.archives.iter();
        if parts.about.files.is_empty() {
            parts.about.files = archives.clone().map(|(name, _)| name.clone()).collect();
            parts
                .about
                .files
                .extend(checkpoint.configs.iter().map(|(name, _)| name.clone()));
        }
        parts
            .about
            .notes
            .extend(archives.flat_map(|(_, archive)| archive.notes.clone()));
        let mut sae = Sae::from_parts(parts)?;
        if check_weights {
            sae.check_weights()?;
        }
        if let Some(level) = options.level {
            sae = sae.with_level(level)?;
        }
        Ok(sae)
    }
}

/// A JSON side-car. A byte-order mark in front is tolerated: editors on Windows write it.
fn parse_config(name: &str, text: &[u8]) -> Result<Value, Error> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    serde_json::from_slice(text).map_err(|error| Error::Malformed {
        container: "json",
        what: alloc::format!("`{name}`: {error}"),
    })
}

#[cfg(feature = "std")]
mod from_path {
    use super::{MAX_CONFIG_BYTES, OpenOptions, parse_config};
    use crate::bytes::Bytes;
    use crate::container;
    use crate::convention::Checkpoint;
    use crate::error::Error;
    use crate::mmap::Mapping;
    use crate::model::Sae;
    use alloc::string::{String, ToString};
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Names that publishers give to weights; they are preferred to other files of a folder.
    const KNOWN: &[&str] = &["sae_weights.safetensors", "params.npz"];
    /// Endings of files that hold tensors.
    const WEIGHTS: &[&str] = &["safetensors", "npz"];

    impl Sae<'static> {
        /// Opens a checkpoint as it was downloaded: the weights file, or its folder. The weights
        /// are mapped, not read; opening reads headers and vectors, and the matrices too in files
        /// below 16 MiB or with [`Check::Full`](crate::container::Check::Full).
        ///
        /// # Errors
        /// [`Error::InFile`] with the file and the cause.
        pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
            let path = path.as_ref();
            let shown = path.display().to_string();
            open_path(path, options).map_err(|error| error.in_file(shown))
        }
    }

    fn open_path(path: &Path, options: &OpenOptions) -> Result<Sae<'static>, Error> {
        let file = match path.is_dir() {
            true => weights_in(path)?,
            false => path.to_path_buf(),
        };
        let shown = file.display().to_string();
        let mapping = Mapping::open(&file).map_err(|error| error.in_file(&shown))?;
        let bytes = Bytes::shared(Arc::new(mapping));
        let covered = options.check.covers(bytes.len());
        let archive = container::read(bytes, options.check);
        let archive = archive.map_err(|error| error.in_file(&shown))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let checkpoint = Checkpoint {
            archives: Vec::from([(name_of(&file), archive)]),
            configs: configs_in(folder)?,
            folders: folders_above(&file),
        };
        Sae::build(&checkpoint, options, covered).map_err(|error| error.in_file(shown))
    }

    /// The one weights file in a folder.
    fn weights_in(folder: &Path) -> Result<PathBuf, Error> {
        let known = KNOWN.iter().map(|name| folder.join(name));
        let mut found: Vec<PathBuf> = known.filter(|path| path.is_file()).collect();
        if let [file] = found.as_slice() {
            return Ok(file.clone());
        }
        found.clear();
        for path in list(folder)? {
            let ending = path
                .extension()
                .and_then(|ending| ending.to_str())
                .unwrap_or("");
            // SAELens writes its firing statistics beside the weights.
            if WEIGHTS.contains(&ending)
                && name_of(&path) != "sparsity.safetensors"
                && path.is_file()
            {
                found.push(path);
            }
        }
        match found.as_slice() {
            [file] => Ok(file.clone()),
            [] => Err(Error::NotACheckpoint {
                found: alloc::format!("a folder without a {} file", WEIGHTS.join(" or ")),
            }),
            several => {
                let names: Vec<String> = several.iter().map(|path| name_of(path)).collect();
                Err(Error::NotACheckpoint {
                    found: alloc::format!(
                        "a folder with several models, name one: {}",
                        names.join(", ")
                    ),
                })
            }
        }
    }

    /// Every JSON file in the folder.
    fn configs_in(folder: &Path) -> Result<Vec<(String, serde_json::Value)>, Error> {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let mut configs = Vec::new();
        for path in list(folder)? {
            let name = name_of(&path);
            if !matches!(name.as_str(), "cfg.json") {
                continue;
            }
            let value = read_config(&path, &name);
            configs.push((
                name,
                value.map_err(|error| error.in_file(path.display().to_string()))?,
            ));
        }
        Ok(configs)
    }

    fn read_config(path: &Path, name: &str) -> Result<serde_json::Value, Error> {
        let size = fs::metadata(path).map_err(io("read"))?.len();
        if size > MAX_CONFIG_BYTES {
            return Err(Error::Limit {
                what: alloc::format!("size of `{name}`"),
                limit: MAX_CONFIG_BYTES,
                found: size,
            });
        }
        parse_config(name, &fs::read(path).map_err(io("read"))?)
    }

    /// The entries of a folder, in order of name.
    fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let entries = fs::read_dir(folder).map_err(io("list"))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(io("list"))?.path());
        }
        paths.sort();
        Ok(paths)
    }

    fn name_of(path: &Path) -> String {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Names of the folders that a file lies in, outermost first.
    fn folders_above(file: &Path) -> Vec<String> {
        let whole = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
        let parent = whole.parent().unwrap_or(Path::new(""));
        let normal = |part: std::path::Component<'_>| match part {
            std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        };
        parent.components().filter_map(normal).collect()
    }

    fn io(operation: &'static str) -> impl Fn(std::io::Error) -> Error {
        move |error| Error::Io {
            operation,
            message: error.to_string(),
        }
    }
}
