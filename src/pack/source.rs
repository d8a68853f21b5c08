//! The files that a pack is made from, named by their hashes.

use super::Progress;
use crate::error::Error;
use crate::mmap::io_error;
use crate::model::{Sae, SourceFile};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Names and SHA-256 of the files that [`Sae::open`] reads for a path. Reads them whole.
///
/// # Errors
/// [`Error::InFile`]: as [`Sae::files`], or if one cannot be read.
pub fn source_files(
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<SourceFile>, Error> {
    let files = Sae::files(path)?;
    let sizes = files.iter().map(std::fs::metadata);
    let total: u64 = sizes.flatten().map(|metadata| metadata.len()).sum();
    let mut done = 0;
    let mut hashed = Vec::new();
    for file in &files {
        let sha256 = hash(file, &mut |bytes| {
            done += bytes;
            progress(Progress {
                what: "hashing",
                done,
                total,
            });
        });
        hashed.push(SourceFile {
            name: name_of(file),
            sha256: sha256.map_err(|error| error.in_file(file.display().to_string()))?,
        });
    }
    Ok(hashed)
}

fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn hash(path: &PathBuf, read: &mut dyn FnMut(u64)) -> Result<String, Error> {
    let failed = |error: std::io::Error| io_error("read", &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = alloc::vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(buffer.get(..count).unwrap_or(&[]));
        read(count as u64);
    }
    let digest = hasher.finalize();
    Ok(digest
        .iter()
        .map(|byte| alloc::format!("{byte:02x}"))
        .collect())
}
