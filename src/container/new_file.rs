//! Files that appear under their name only when they are complete: written under a temporary name
//! in the same folder, synced, renamed. Killed at any point, a writer leaves the old file, or
//! none, under the name. What it leaves under the temporary name, the next writer of that file
//! removes: a writer that lives holds a lock on it.

use crate::error::Error;
use crate::mmap::io_error;
use alloc::format;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;

/// A file that is written under a temporary name in the folder of its own.
#[derive(Debug)]
pub(super) struct NewFile {
    /// `None` once it is committed.
    writer: Option<BufWriter<File>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl NewFile {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        remove_abandoned(path);
        let mut name = prefix(path);
        name.push(format!("{}{ENDING}", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create_new(&temporary).map_err(write_error)?;
        // A file system without locks loses no more than the tidying up.
        let _ = file.try_lock();
        Ok(NewFile {
            writer: Some(BufWriter::with_capacity(BUFFER, file)),
            temporary,
            path: path.into(),
        })
    }

    pub(super) fn writer(&mut self) -> &mut dyn Write {
        self
    }

    /// Where the file is until it is committed.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Replaces the first bytes of the file, and leaves nothing in a buffer.
    pub(super) fn rewrite_start(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let rewritten = writer
            .seek(SeekFrom::Start(0))
            .and_then(|_| writer.write_all(bytes))
            .and_then(|()| writer.seek(SeekFrom::End(0)));
        rewritten.map(|_| ()).map_err(write_error)
    }

    /// Syncs the file and renames it.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        if let Some(writer) = self.writer.take() {
            let committed = writer
                .into_inner()
                .map_err(|error| error.into_error())
                .and_then(|file| file.sync_all())
                .and_then(|()| std::fs::rename(&self.temporary, &self.path))
                .and_then(|()| sync_folder(&self.path));
            if let Err(error) = committed {
                // The first error is the one to report.
                let _ = std::fs::remove_file(&self.temporary);
                return Err(write_error(error));
            }
        }
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.writer {
            Some(writer) => writer.write(bytes),
            None => Ok(0),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            // Nothing is left to report to.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// How the names of temporary files of `path` begin.
fn prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name
}

/// How they end.
const ENDING: &str = ".tmp";

/// Removes temporary files of `path` that nobody writes any more. That it fails does not matter.
fn remove_abandoned(path: &Path) {
    let prefix = prefix(path);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name
            .as_encoded_bytes()
            .strip_prefix(prefix.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(ENDING.as_bytes()));
        let is_ours = number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit));
        if !is_ours {
            continue;
        }
        let unlocked = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if unlocked {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

pub(super) fn write_error(error: std::io::Error) -> Error {
    io_error("write", &error)
}

/// Makes the new name durable. Only Unix can open a folder to sync it.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        return File::open(folder.unwrap_or(Path::new(".")))?.sync_all();
    }
    Ok(())
}
