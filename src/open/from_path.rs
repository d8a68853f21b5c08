//! What lies at a path: the files of a checkpoint, in a folder or beside the one that is named.

mod layers;

use super::{MAX_CONFIG_BYTES, OpenOptions, parse_config};
use crate::bytes::Bytes;
use crate::container;
use crate::convention::Checkpoint;
use crate::error::Error;
use crate::mmap::{Mapping, ScatteredRows};
use crate::model::{Description, Sae};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that publishers give to weights; they are preferred to other files of a folder.
const KNOWN: &[&str] = &[
    "sae_weights.safetensors",
    "params.npz",
    "params.safetensors",
    "ae.pt",
    "sae.safetensors",
    "sae.pt",
    "final.safetensors",
    "latest_ckpt.safetensors",
    "model.safetensors",
    "weights.pt",
    "state_dict.pth",
    "sae_state_dict.pt",
    "atoms.pt",
];
/// Endings of files that hold tensors.
const WEIGHTS: &[&str] = &["safetensors", "npz", "pt", "pth", "gguf"];
/// Files that publishers write beside the weights: statistics, states of training, copies.
const BESIDE: &[&str] = &[
    "sparsity.safetensors",
    "activations_store_state.safetensors",
    "activation_whitening.safetensors",
    "trainer_state.pt",
    "optimizer.pt",
    "scheduler.pt",
    "atom_indices.pt",
    "dictionary.pt",
    "sae_module.pt",
    "mean.pt",
    "std.pt",
];
/// Names of side-cars. `NAME_cfg.json` beside `NAME.pt` is one too.
const CONFIGS: &[&str] = &[
    "cfg.json",
    "config.json",
    "hyperparams.json",
    "meta.json",
    #[cfg(feature = "yaml")]
    "config.yaml",
    #[cfg(feature = "yaml")]
    "conf.yaml",
    #[cfg(feature = "yaml")]
    "final_config.yaml",
    #[cfg(feature = "yaml")]
    "metadata.yaml",
];
/// Side-cars that this build cannot read.
const UNREAD: &[&str] = &[
    #[cfg(not(feature = "yaml"))]
    "config.yaml",
    #[cfg(not(feature = "yaml"))]
    "conf.yaml",
    #[cfg(not(feature = "yaml"))]
    "final_config.yaml",
    #[cfg(not(feature = "yaml"))]
    "metadata.yaml",
];
/// How deep below a given folder a checkpoint is looked for.
const MAX_FOLDER_DEPTH: usize = 6;
/// How many folders are looked at for it.
const MAX_FOLDERS: usize = 4096;

impl Sae<'static> {
    /// Opens a checkpoint as it was downloaded: the weights file, or a folder that holds one
    /// checkpoint, at any depth. The weights are mapped, not read; opening reads headers and
    /// vectors, and the matrices too in files below 16 MiB or with
    /// [`Check::Full`](crate::container::Check::Full).
    ///
    /// # Errors
    /// [`Error::InFile`] with the file and the cause.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let shown = path.display().to_string();
        open_path(path, options).map_err(|error| error.in_file(shown))
    }
}

impl Description {
    /// What the checkpoint at a path is, also if it is a model of another kind than [`Sae`],
    /// or one whose maths is not in this library ([`Description::refused`] says so).
    ///
    /// # Errors
    /// [`Error::InFile`] with the file and the cause.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let open = || {
            let (checkpoint, file, _) = read(path, options)?;
            super::describe(&checkpoint, options).map_err(|error| error.in_file(file))
        };
        open().map_err(|error| error.in_file(path.display().to_string()))
    }
}

impl Sae<'_> {
    /// The files that [`Sae::open`] reads for a path: those with weights, then the side-cars.
    ///
    /// # Errors
    /// [`Error::InFile`] if the path is a folder without a checkpoint, or with several.
    pub fn files(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
        let path = path.as_ref();
        let found = weights_of(path).map(|mut files| {
            let first = files.first().map_or(path, PathBuf::as_path);
            let several = layers::apart(&files);
            let first = core::iter::once(first).filter(|_| !several);
            let layers = files.iter().map(PathBuf::as_path).filter(|_| several);
            let configs = first.chain(layers).flat_map(configs_paths);
            let configs: Vec<PathBuf> = configs.map(|(_, path)| path).collect();
            files.extend(configs);
            files
        });
        found.map_err(|error| error.in_file(path.display().to_string()))
    }

    /// The checkpoints in a folder, at any depth, in order of name: paths that [`Sae::open`]
    /// opens as one model each. A file, or a folder that opens as one model, is itself the
    /// only one.
    ///
    /// # Errors
    /// [`Error::InFile`] if the folder cannot be listed or holds no checkpoint.
    pub fn checkpoints(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
        let path = path.as_ref();
        let all = || -> Result<Vec<PathBuf>, Error> {
            if !path.is_dir() {
                return Ok(Vec::from([path.to_path_buf()]));
            }
            let mut found = candidates(path)?;
            match found.len() {
                0 => the_one(path, found).map(|_| Vec::new()),
                1 => Ok(Vec::from([path.to_path_buf()])),
                _ => {
                    found.sort();
                    let first = found
                        .into_iter()
                        .filter_map(|files| files.into_iter().next());
                    Ok(first.collect())
                }
            }
        };
        all().map_err(|error| error.in_file(path.display().to_string()))
    }
}

/// The weights files of the one checkpoint at a path.
fn weights_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
    match path.is_dir() {
        true => the_one(path, candidates(path)?),
        false => Ok(with_companion(path)),
    }
}

fn open_path(path: &Path, options: &OpenOptions) -> Result<Sae<'static>, Error> {
    let Read {
        checkpoint,
        file,
        covered,
        maps,
    } = read_mapped(path, options)?;
    let explain = |error| match (error, unread_beside(Path::new(&file))) {
        (Error::MissingKey { key, hint }, Some(note)) => Error::MissingKey {
            key,
            hint: alloc::format!("{hint} ({note})"),
        },
        (error, _) => error,
    };
    let mut sae =
        Sae::build(&checkpoint, options, covered).map_err(|error| explain(error).in_file(&file))?;
    // A pack's weights are rows, of which its screen names a few.
    if sae.screen().is_some() && !sae.screen_options().check {
        let rows = sae.parts().encoder.bytes();
        let mut scattered = maps.iter().filter_map(|map| ScatteredRows::new(map, rows));
        sae.packed.rows = scattered.next().map(|rows| Arc::new(rows) as _);
    }
    Ok(sae)
}

/// Says which side-cars lie beside a file that this build cannot read.
fn unread_beside(file: &Path) -> Option<String> {
    let there = |name: &&&str| file.with_file_name(name).is_file();
    let name = UNREAD.iter().find(there)?;
    Some(alloc::format!(
        "`{name}` was not read: this build lacks the feature `yaml`"
    ))
}

/// The checkpoint at a path, the name of its weights file, and whether its weights are to be
/// checked.
pub(super) fn read(
    path: &Path,
    options: &OpenOptions,
) -> Result<(Checkpoint<'static>, String, bool), Error> {
    let found = read_mapped(path, options)?;
    Ok((found.checkpoint, found.file, found.covered))
}

/// What is read at a path.
struct Read {
    checkpoint: Checkpoint<'static>,
    /// Its weights file.
    file: String,
    /// Whether its weights are to be checked.
    covered: bool,
    /// Of its weights files.
    maps: Vec<Arc<Mapping>>,
}

fn read_mapped(path: &Path, options: &OpenOptions) -> Result<Read, Error> {
    let files = weights_of(path)?;
    let file = files.first().map_or(path, PathBuf::as_path);
    let shown = file.display().to_string();
    let mut covered = true;
    let (mut archives, mut maps) = (Vec::new(), Vec::new());
    let apart = layers::apart(&files);
    for file in &files {
        let shown = file.display().to_string();
        let mapping = Mapping::open(file).map_err(|error| error.in_file(&shown))?;
        let mapping = Arc::new(mapping);
        maps.push(Arc::clone(&mapping));
        let bytes = Bytes::shared(mapping);
        covered &= options.check.covers(bytes.len());
        let archive = container::read(bytes, options.check);
        let name = match apart {
            true => layers::name_of(file),
            false => name_of(file),
        };
        archives.push((name, archive.map_err(|error| error.in_file(shown))?));
    }
    if let (Some(note), Some((_, archive))) = (unread_beside(file), archives.first_mut()) {
        archive.notes.push(note);
    }
    let checkpoint = Checkpoint {
        archives,
        configs: match apart {
            true => layers::configs(&files)?,
            false => configs_beside(file)?,
        },
        folders: folders_above(file),
    };
    Ok(Read {
        checkpoint,
        file: shown,
        covered,
        maps,
    })
}

/// A weights file, and the other half of a layer of a cross-layer transcoder.
fn with_companion(file: &Path) -> Vec<PathBuf> {
    let name = name_of(file);
    let halves = [("W_enc_", "W_dec_"), ("W_dec_", "W_enc_")];
    let other = halves.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from)?;
        Some(file.with_file_name(alloc::format!("{to}{rest}")))
    });
    let mut files = Vec::from([file.to_path_buf()]);
    files.extend(other.filter(|other| other.is_file()));
    files
}

/// The checkpoints in or below a folder, each with its files.
fn candidates(folder: &Path) -> Result<Vec<Vec<PathBuf>>, Error> {
    // An npz file under a name of its own can be anything: rows, statistics. A GGUF file
    // beside other weights is most often another model.
    let is = |path: &Path, ending: &str| path.extension().is_some_and(|found| found == ending);
    let known = |path: &Path| {
        KNOWN.contains(&name_of(path).as_str()) || !is(path, "npz") && !is(path, "gguf")
    };
    let not_gguf = |path: &Path| !is(path, "gguf");
    let choices: [&dyn Fn(&Path) -> bool; 3] = [&known, &not_gguf, &|_| true];
    for choice in choices {
        let found = checkpoints_below(folder, choice)?;
        if !found.is_empty() {
            return Ok(match layers::of_one_model(folder, &found)? {
                Some(layers) => Vec::from([layers]),
                None => found,
            });
        }
    }
    Ok(Vec::new())
}

/// The checkpoints in a folder, or in the folders below it, each with its files.
fn checkpoints_below(
    folder: &Path,
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<Vec<Vec<PathBuf>>, Error> {
    let mut found: Vec<Vec<PathBuf>> = Vec::new();
    let mut level = Vec::from([folder.to_path_buf()]);
    let mut visited = 0;
    for _ in 0..MAX_FOLDER_DEPTH {
        let mut below = Vec::new();
        for folder in level {
            visited += 1;
            if visited > MAX_FOLDERS {
                return Err(Error::Limit {
                    what: "number of folders".into(),
                    limit: MAX_FOLDERS as u64,
                    found: visited as u64,
                });
            }
            let (here, folders) = checkpoints_in(&folder, wanted)?;
            // What lies below a checkpoint belongs to it.
            if here.is_empty() {
                below.extend(folders);
            }
            found.extend(here);
        }
        level = below;
    }
    Ok(found)
}

/// The only checkpoint of a folder, or an error that lists several.
fn the_one(folder: &Path, found: Vec<Vec<PathBuf>>) -> Result<Vec<PathBuf>, Error> {
    let mut checkpoints = found.into_iter();
    match (checkpoints.next(), checkpoints.len()) {
        (Some(files), 0) => Ok(files),
        (None, _) => Err(Error::NotACheckpoint {
            found: alloc::format!("a folder without a {} file", WEIGHTS.join(", ")),
        }),
        (Some(first), more) => {
            const SHOWN: usize = 8;
            let shown = [first].into_iter().chain(checkpoints).take(SHOWN);
            let names: Vec<String> = shown
                .filter_map(|files| files.into_iter().next())
                .map(|file| {
                    file.strip_prefix(folder)
                        .unwrap_or(&file)
                        .display()
                        .to_string()
                })
                .collect();
            let rest = match (more + 1).saturating_sub(SHOWN) {
                0 => String::new(),
                rest => alloc::format!(" and {rest} more"),
            };
            Err(Error::NotACheckpoint {
                found: alloc::format!(
                    "a folder with several models, name one: {}{rest}",
                    names.join(", ")
                ),
            })
        }
    }
}

/// The checkpoints right in a folder, each with its files, and the folders in it.
fn checkpoints_in(
    folder: &Path,
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<(Vec<Vec<PathBuf>>, Vec<PathBuf>), Error> {
    let (mut weights, mut folders) = (Vec::new(), Vec::new());
    for path in list(folder)? {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() {
            folders.push(path);
        } else if ending.is_some_and(|ending| WEIGHTS.contains(&ending))
            && !BESIDE.contains(&name_of(&path).as_str())
            && wanted(&path)
        {
            weights.push(path);
        }
    }
    let is_known = |path: &&PathBuf| KNOWN.contains(&name_of(path).as_str());
    let known: Vec<PathBuf> = weights.iter().filter(is_known).cloned().collect();
    let halves = |path: &&PathBuf| {
        let name = name_of(path);
        name.starts_with("W_enc_") || name.starts_with("W_dec_")
    };
    let halves: Vec<PathBuf> = weights.iter().filter(halves).cloned().collect();
    let checkpoints = if !known.is_empty() {
        known.into_iter().map(|file| Vec::from([file])).collect()
    } else if !halves.is_empty() {
        // All layers of a cross-layer transcoder.
        Vec::from([halves])
    } else {
        weights.into_iter().map(|file| Vec::from([file])).collect()
    };
    Ok((checkpoints, folders))
}

/// The side-cars of a weights file.
fn configs_beside(file: &Path) -> Result<Vec<(String, serde_json::Value)>, Error> {
    let read = |(name, path): (String, PathBuf)| {
        let value = read_config(&path, &name);
        let value = value.map_err(|error| error.in_file(path.display().to_string()))?;
        Ok((name, value))
    };
    configs_paths(file).into_iter().map(read).collect()
}

/// Names and paths of the side-cars of a weights file: those with known names in its folder,
/// or above a folder `checkpoints`. A pack has none.
fn configs_paths(file: &Path) -> Vec<(String, PathBuf)> {
    let own = file
        .file_stem()
        .map(|stem| alloc::format!("{}_cfg.json", stem.display()));
    let folder = file.parent().unwrap_or(Path::new(""));
    let above = match folder.file_name() {
        Some(name) if name == "checkpoints" => folder.parent(),
        _ => None,
    };
    let mut configs: Vec<(String, PathBuf)> = Vec::new();
    if file.extension().is_some_and(|ending| ending == "gguf") {
        return configs;
    }
    for folder in [Some(folder), above].into_iter().flatten() {
        for name in CONFIGS.iter().copied().chain(own.as_deref()) {
            let path = folder.join(name);
            if path.is_file() && !configs.iter().any(|(known, _)| known == name) {
                configs.push((name.into(), path));
            }
        }
    }
    configs
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
