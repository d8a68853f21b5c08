//! Read-only memory maps of whole files: the one place that uses `memmap2`.
//!
//! A map is a promise by the operating system, and it can be broken from outside. The rules here:
//!
//! - Files are opened for reading only, and mapped private and read-only: nothing this library
//!   does can change them.
//! - *Another process may write to the file.* Then mapped bytes change while they are read. That
//!   makes wrong numbers, never a read outside the map: headers are parsed once into owned values,
//!   every length was compared with the size of the map, and no value of the data is ever used as
//!   an index, a length or an address. The compiler could in theory read a byte twice and see two
//!   values; for plain numbers that is again only a wrong number.
//! - *Another process may shorten the file.* Then touching the missing pages raises SIGBUS (an
//!   access violation on Windows) and ends the process. No library can turn that into an error
//!   without a signal handler, which belongs to the host. Who cannot exclude it reads the file
//!   into memory and opens the model from bytes. Replacing a file by renaming another one over it
//!   (as downloads and `sae pack` do) is always safe: the map keeps the old file.
//! - A map has a fixed size, the one that the file had when it was opened.

use crate::bytes::{Bytes, Scattered};
use crate::error::Error;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::path::Path;

/// A file, mapped into memory for reading. Empty files are an empty slice.
#[derive(Debug)]
pub struct Mapping(Option<memmap2::Mmap>);

impl Mapping {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or mapped, or is not a regular file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Asked before opening: opening a named pipe would wait for a writer.
        let metadata = std::fs::metadata(path).map_err(|error| io_error("open", &error))?;
        if !metadata.is_file() {
            return Err(Error::Io {
                operation: "open",
                message: "not a regular file".into(),
            });
        }
        let file = File::open(path).map_err(|error| io_error("open", &error))?;
        let length = file
            .metadata()
            .map_err(|error| io_error("open", &error))?
            .len();
        if length == 0 {
            return Ok(Mapping(None));
        }
        // SAFETY: the map is read-only and private, and is handed out as `&[u8]` of plain numbers
        // only; the essay above says why foreign writes to the file are tolerable and what
        // shortening it does.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file) };
        match map {
            Ok(map) => Ok(Mapping(Some(map))),
            Err(error) => Err(io_error("map", &error)),
        }
    }

    /// The map as bytes that keep it alive.
    pub fn into_bytes(self) -> Bytes<'static> {
        Bytes::shared(Arc::new(self))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

/// Rows in a map that a screen names, some dozens of many thousands for a token. When one is read
/// that is not in memory, systems read what lies around it as well, up to hundreds of kilobytes: after
/// 80 rows of 9 kB from 151 MB nearly all of it was in memory (`benches/NOTES.md`). So the system is
/// told to read what is asked for only, until all rows are wanted.
#[derive(Debug)]
pub(crate) struct ScatteredRows {
    map: Arc<Mapping>,
    range: Range<usize>,
    scattered: AtomicBool,
}

impl ScatteredRows {
    /// `None` if `rows` is not in the map, or the system does not take advice.
    pub(crate) fn new(map: &Arc<Mapping>, rows: &[u8]) -> Option<Self> {
        let all = (**map).as_ref();
        let start = rows.as_ptr().addr().checked_sub(all.as_ptr().addr())?;
        let end = start.checked_add(rows.len())?;
        if rows.is_empty() || end > all.len() {
            return None;
        }
        let rows = ScatteredRows {
            map: Arc::clone(map),
            range: start..end,
            scattered: AtomicBool::new(true),
        };
        rows.advise(true).then_some(rows)
    }

    /// Whether the system took the advice. Refusing it changes nothing but time and memory.
    #[cfg(unix)]
    fn advise(&self, scattered: bool) -> bool {
        let advice = match scattered {
            true => memmap2::Advice::Random,
            false => memmap2::Advice::Normal,
        };
        let map = self.map.0.as_ref();
        let advised = map.map(|map| map.advise_range(advice, self.range.start, self.range.len()));
        matches!(advised, Some(Ok(())))
    }

    #[cfg(not(unix))]
    fn advise(&self, _: bool) -> bool {
        let _ = (&self.map, &self.range);
        false
    }
}

impl Scattered for ScatteredRows {
    fn read_all(&self) {
        // A system call for the first time only.
        if self.scattered.load(Ordering::Relaxed) && self.scattered.swap(false, Ordering::Relaxed) {
            self.advise(false);
        }
    }
}

pub(crate) fn io_error(operation: &'static str, error: &std::io::Error) -> Error {
    Error::Io {
        operation,
        message: error.to_string(),
    }
}

/// Zeroed memory of its own pages.
#[derive(Debug)]
pub(crate) struct Anonymous(memmap2::MmapMut);

impl Anonymous {
    /// So many zeros, in huge pages if the system gives them; `None` for less than a few of those,
    /// on systems that know none, and if there is no memory.
    pub(crate) fn huge(len: usize) -> Option<Self> {
        const LEAST: usize = 8 << 20;
        if len < LEAST || !cfg!(target_os = "linux") {
            return None;
        }
        let map = memmap2::MmapOptions::new().len(len).map_anon().ok()?;
        // Advice: refusing it changes nothing but the time.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Anonymous(map))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
