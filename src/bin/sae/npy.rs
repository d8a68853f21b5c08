//! Arrays of NumPy: reading rows from npy files, writing npy and npz.

use crate::failure::file_error;
use sae::{Dtype, Error, Rows};
use std::io::{self, Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;

/// Activation rows of an npy file: its first axis; further axes are flattened into the row.
pub(crate) struct RowsFile {
    bytes: Vec<u8>,
    dtype: Dtype,
    rows: usize,
    width: usize,
    /// Whether the file holds f64, narrowed here.
    pub(crate) narrowed: bool,
}

impl RowsFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = std::fs::read(path).map_err(|error| file_error("open", path, &error))?;
        read(&file).map_err(|error| error.in_file(path.display().to_string()))
    }

    pub(crate) fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        read(bytes).map_err(|error| error.in_file(name))
    }

    pub(crate) fn rows(&self) -> Result<Rows<'_>, Error> {
        let stride = self.width * self.dtype.size();
        Rows::from_bytes(&self.bytes, self.dtype, self.rows, self.width, stride)
    }
}

fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed {
        container: "npy",
        what: what.into(),
    }
}

fn read(file: &[u8]) -> Result<RowsFile, Error> {
    let [0x93, b'N', b'U', b'M', b'P', b'Y', major, _, rest @ ..] = file else {
        return Err(malformed("it does not begin with the npy signature"));
    };
    let (length, rest) = match (major, rest) {
        (1, [a, b, rest @ ..]) => (u32::from(u16::from_le_bytes([*a, *b])), rest),
        (2 | 3, [a, b, c, d, rest @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]), rest),
        _ => return Err(malformed(format!("version {major}"))),
    };
    let short = |what: &str, needed: usize, available: usize| Error::Truncated {
        container: "npy",
        what: what.into(),
        needed: needed as u64,
        available: available as u64,
    };
    let (header, data) = rest
        .split_at_checked(length as usize)
        .ok_or_else(|| short("header", length as usize, rest.len()))?;
    let header = String::from_utf8_lossy(header);
    let field = |key: &str| {
        let (_, after) = header.split_once(key)?;
        Some(after.trim_start_matches([':', ' ']))
    };
    let descr = field("'descr'").ok_or_else(|| malformed("no `descr`"))?;
    let descr = descr.split('\'').nth(1).unwrap_or(descr);
    if !field("'fortran_order'").is_some_and(|text| text.starts_with("False")) {
        return Err(malformed("rows in Fortran order"));
    }
    let shape: Option<Vec<usize>> = field("'shape'")
        .and_then(|text| text.strip_prefix('(')?.split_once(')'))
        .and_then(|(text, _)| {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            parts.map(|part| part.parse().ok()).collect()
        });
    let shape = shape.ok_or_else(|| malformed("no `shape`"))?;
    let (rows, width) = match shape.as_slice() {
        [] => return Err(malformed("a single number, not rows")),
        [width] => (1, *width),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    };
    let size = match descr {
        "<f2" => 2,
        "<f4" => 4,
        "<f8" => 8,
        _ => {
            return Err(malformed(format!(
                "dtype `{descr}`, rows are <f2, <f4 or <f8"
            )));
        }
    };
    let needed = rows * width * size;
    let data = data
        .get(..needed)
        .ok_or_else(|| short("data", needed, data.len()))?;
    Ok(RowsFile {
        bytes: match size {
            8 => data
                .chunks_exact(8)
                .filter_map(|chunk| Some(f64::from_le_bytes(chunk.try_into().ok()?) as f32))
                .flat_map(f32::to_le_bytes)
                .collect(),
            _ => data.to_vec(),
        },
        dtype: if size == 2 { Dtype::F16 } else { Dtype::F32 },
        rows,
        width,
        narrowed: size == 8,
    })
}

/// The header of an npy file (version 1.0) whose data follows.
pub(crate) fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let mut axes = String::new();
    for axis in shape {
        axes.push_str(&format!("{axis}, "));
    }
    let axes = match shape.len() {
        1 => axes.trim_end(),
        _ => axes.trim_end_matches(", "),
    };
    let mut dict =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}").into_bytes();
    let unpadded = 10 + dict.len() + 1;
    dict.resize(dict.len() + unpadded.next_multiple_of(64) - unpadded, b' ');
    dict.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(dict.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&dict);
    bytes
}

/// An npz file being written: stored entries, one after the other.
pub(crate) struct NpzWriter<W: Write + Seek> {
    zip: zip::ZipWriter<W>,
}

impl<W: Write + Seek> NpzWriter<W> {
    pub(crate) fn new(writer: W) -> Self {
        NpzWriter {
            zip: zip::ZipWriter::new(writer),
        }
    }

    /// Begins the array `name`; its data is then written to the result.
    pub(crate) fn array(
        &mut self,
        name: &str,
        descr: &str,
        shape: &[usize],
    ) -> io::Result<&mut impl Write> {
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .large_file(true);
        self.zip.start_file(format!("{name}.npy"), options)?;
        self.zip.write_all(&header(descr, shape))?;
        Ok(&mut self.zip)
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        Ok(self.zip.finish()?)
    }
}
