//! Opening: from a path, or from bytes in memory, to a model.
//!
//! A path may be the weights file or the folder that was downloaded. Side-cars are looked for
//! beside the weights. Files are opened read-only and never written.

use crate::bytes::Bytes;
use crate::container::{self, Check};
use crate::convention::{self, Checkpoint};
use crate::error::Error;
use crate::kernels::{Kernels, Level};
use crate::lorsa::Lorsa;
use crate::model::{Description, Parts, Sae, ScreenOptions, kernels_for};
use crate::molt::Molt;
use crate::screen::Screen;
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
    /// `normalize_activations`, `class`. An error asks for what is missing by its key; a key that
    /// the checkpoint has no use for is an error too.
    pub set: Vec<(String, String)>,
    /// Whether the self-test of a pack is run ([`Sae::self_test`]). A checkpoint without one does
    /// not open then.
    pub self_test: bool,
    /// Which screen [`Sae::prepare`] builds, and whether every encode is checked against the dense
    /// scan.
    pub screen: ScreenOptions,
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

    /// Options that run the self-test of a pack.
    #[must_use]
    pub fn self_test(mut self, self_test: bool) -> Self {
        self.self_test = self_test;
        self
    }

    /// Options with this screen.
    #[must_use]
    pub fn screen(mut self, screen: impl Into<ScreenOptions>) -> Self {
        self.screen = screen.into();
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
    /// there. `config` is the text of the config beside it (`cfg.json`, `config.json`,
    /// `hyperparams.json`), if it has one.
    ///
    /// # Errors
    /// [`Error::InFile`] with `name` and the cause.
    pub fn from_bytes(
        name: &str,
        bytes: &'a [u8],
        config: Option<&str>,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let (checkpoint, covered) = read_bytes(name, bytes, config, options)?;
        Self::build(&checkpoint, options, covered).map_err(|error| error.in_file(name))
    }

    fn build(
        checkpoint: &Checkpoint<'a>,
        options: &OpenOptions,
        check_weights: bool,
    ) -> Result<Self, Error> {
        let packed = convention::pack::packed(checkpoint, &options.set);
        let mut parts = parts_of(checkpoint, options)?;
        if check_weights {
            let matrices = [
                Some(&parts.encoder),
                Some(&parts.decoder),
                parts.skip.as_ref(),
            ];
            let bytes = matrices
                .into_iter()
                .flatten()
                .map(|matrix| matrix.size_bytes());
            parts.about.bytes_read += bytes.sum::<usize>() as u64;
        }
        let mut sae = Sae::from_parts(parts)?;
        sae.packed = packed?;
        // Vectors were read already.
        sae.check_checksums(check_weights)?;
        if check_weights {
            sae.check_weights()?;
        }
        sae.set_screen_options(options.screen);
        if let Some(level) = options.level {
            sae = sae.with_level(level)?;
        }
        if let Some(stored) = sae.packed.screen.take() {
            let screen = Screen::from_stored(stored.header.as_slice(), stored.sections)?;
            sae = sae.with_screen(screen)?;
            if check_weights && let Some(screen) = sae.screen() {
                screen.check_rows(&sae.parts().encoder)?;
            }
        }
        if options.self_test {
            sae.self_test()?;
        }
        Ok(sae)
    }
}

/// A checkpoint of one file in memory, and whether its weights are to be checked.
fn read_bytes<'a>(
    name: &str,
    bytes: &'a [u8],
    config: Option<&str>,
    options: &OpenOptions,
) -> Result<(Checkpoint<'a>, bool), Error> {
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
        // Its own name is not known: it stands for whichever the convention asks for.
        let value = parse_config(UNNAMED, text.as_bytes());
        let value = value.map_err(|error| error.in_file(UNNAMED))?;
        checkpoint.configs.push((convention::UNNAMED.into(), value));
    }
    let archive = container::read(Bytes::borrowed(bytes), options.check);
    let archive = archive.map_err(|error| error.in_file(name))?;
    let archives = [(file.to_string(), archive)];
    checkpoint.archives.extend(archives);
    Ok((checkpoint, options.check.covers(bytes.len())))
}

/// What the convention makes of a checkpoint, with the names of its files.
fn parts_of<'a>(checkpoint: &Checkpoint<'a>, options: &OpenOptions) -> Result<Parts<'a>, Error> {
    let mut parts = convention::open(checkpoint, &options.set, options.strict)?;
    let archives = checkpoint.archives.iter();
    if parts.about.files.is_empty() {
        parts.about.files = archives.clone().map(|(name, _)| name.clone()).collect();
        let configs = checkpoint.configs.iter().map(|(name, _)| name.clone());
        let configs = configs.filter(|name| name != convention::UNNAMED);
        parts.about.files.extend(configs);
    }
    parts
        .about
        .notes
        .extend(archives.flat_map(|(_, archive)| archive.notes.clone()));
    Ok(parts)
}

impl Description {
    /// What a checkpoint in memory is, also if it is a model of another kind than [`Sae`], or one
    /// whose maths is not in this library ([`Description::refused`] says so). Arguments as
    /// [`Sae::from_bytes`].
    ///
    /// # Errors
    /// [`Error::InFile`] with `name` and the cause.
    pub fn from_bytes(
        name: &str,
        bytes: &[u8],
        config: Option<&str>,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let (checkpoint, _) = read_bytes(name, bytes, config, options)?;
        describe(&checkpoint, options).map_err(|error| error.in_file(name))
    }
}

fn describe(checkpoint: &Checkpoint<'_>, options: &OpenOptions) -> Result<Description, Error> {
    let parts = parts_of(checkpoint, options)?;
    let level = match options.level {
        Some(level) => kernels_for(level)?.level(),
        None => Kernels::best().level(),
    };
    Ok(Description::of_parts(&parts, level, &options.screen))
}

/// The same two ways to open what is a model of another kind.
macro_rules! opens {
    ($model:ident) => {
        impl<'a> $model<'a> {
            /// As [`Sae::from_bytes`].
            ///
            /// # Errors
            /// [`Error::InFile`] with `name` and the cause.
            pub fn from_bytes(
                name: &str,
                bytes: &'a [u8],
                config: Option<&str>,
                options: &OpenOptions,
            ) -> Result<Self, Error> {
                let (checkpoint, covered) = read_bytes(name, bytes, config, options)?;
                let model = Self::build(&checkpoint, options, covered);
                model.map_err(|error| error.in_file(name))
            }

            fn build(
                checkpoint: &Checkpoint<'a>,
                options: &OpenOptions,
                check_weights: bool,
            ) -> Result<Self, Error> {
                let mut model = Self::from_parts(parts_of(checkpoint, options)?)?;
                if check_weights {
                    model.check_weights()?;
                }
                if let Some(level) = options.level {
                    model = model.with_level(level)?;
                }
                Ok(model)
            }
        }

        #[cfg(feature = "std")]
        impl $model<'static> {
            /// As [`Sae::open`].
            ///
            /// # Errors
            /// [`Error::InFile`] with the file and the cause.
            pub fn open(
                path: impl AsRef<std::path::Path>,
                options: &OpenOptions,
            ) -> Result<Self, Error> {
                let path = path.as_ref();
                let open = || {
                    let (checkpoint, file, covered) = from_path::read(path, options)?;
                    let model = Self::build(&checkpoint, options, covered);
                    model.map_err(|error| error.in_file(file))
                };
                open().map_err(|error| error.in_file(path.display().to_string()))
            }
        }
    };
}

opens!(Lorsa);
opens!(Molt);

/// A side-car: JSON, or YAML if its name says so. A byte-order mark in front is tolerated: editors
/// on Windows write it.
fn parse_config(name: &str, text: &[u8]) -> Result<Value, Error> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    #[cfg(feature = "yaml")]
    if name.ends_with(".yaml") {
        return container::yaml::read(text);
    }
    let json = serde_json::from_slice(text).map_err(|error| Error::Malformed {
        container: "json",
        what: alloc::format!("`{name}`: {error}"),
    });
    #[cfg(feature = "yaml")]
    if name == UNNAMED && !text.trim_ascii_start().starts_with(b"{") {
        return json.or_else(|_| container::yaml::read(text));
    }
    json
}

/// How the config of a model from bytes is called in messages: its own name is not known.
const UNNAMED: &str = "config";

#[cfg(feature = "std")]
mod from_path;
