//! Writing `.npy` and `.npz` files, for the command line tool: little-endian, row-major, stored
//! without compression so that they can be mapped. A file appears under its name only when it is
//! complete.

use super::new_file::{NewFile, write_error};
use super::npy::MAGIC;
use crate::dtype::Dtype;
use crate::error::Error;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use rawzip::ZipArchiveWriter;
use std::io::Write;
use std::path::Path;

/// Writes one array. `data` holds its elements, little-endian, row-major.
///
/// # Errors
/// [`Error::TensorSize`] if `data` is not what dtype and shape need, [`Error::UnsupportedDtype`]
/// for bf16, which NumPy has no name for, [`Error::Io`] if the file cannot be written.
pub fn write_npy(path: &Path, dtype: Dtype, shape: &[usize], data: &[u8]) -> Result<(), Error> {
    check_size("", dtype, shape, data.len() as u64)?;
    let head = head("", dtype, shape)?;
    let mut file = NewFile::create(path)?;
    file.writer().write_all(&head).map_err(write_error)?;
    file.writer().write_all(data).map_err(write_error)?;
    file.commit()
}

/// Writes the arrays of an npz file one after the other. Dropped before
/// [`finish`](NpzWriter::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct NpzWriter {
    archive: ZipArchiveWriter<NewFile>,
}

impl NpzWriter {
    /// Starts the file that is to be at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written to.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = NewFile::create(path)?;
        Ok(NpzWriter {
            archive: ZipArchiveWriter::new(file),
        })
    }

    /// Adds an array under a name that was not used before.
    ///
    /// # Errors
    /// As for [`write_npy`].
    pub fn add(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        data: &[u8],
    ) -> Result<(), Error> {
        self.add_with(name, dtype, shape, |writer| {
            writer.write_all(data).map_err(write_error)
        })
    }

    /// Adds an array whose data is made while it is written: `data` is called once and writes all
    /// of it. An array larger than the memory can be written this way.
    ///
    /// # Errors
    /// As for [`write_npy`], and those of `data`.
    pub fn add_with(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        data: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let head = head(name, dtype, shape)?;
        let member = format!("{name}.npy");
        let builder = self.archive.new_file(member.as_str());
        let (mut entry, config) = builder.start().map_err(zip_error)?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(&head).map_err(write_error)?;
        data(&mut writer)?;
        let (_, descriptor) = writer.finish().map_err(zip_error)?;
        let written = descriptor.uncompressed_size() - head.len() as u64;
        check_size(name, dtype, shape, written)?;
        entry.finish(descriptor).map_err(zip_error)?;
        Ok(())
    }

    /// Writes the directory, syncs the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<(), Error> {
        self.archive.finish().map_err(zip_error)?.commit()
    }
}

fn check_size(name: &str, dtype: Dtype, shape: &[usize], found: u64) -> Result<(), Error> {
    let mut sizes = shape.iter();
    let size = sizes.try_fold(dtype.size() as u64, |size, &n| size.checked_mul(n as u64));
    if size == Some(found) {
        return Ok(());
    }
    Err(Error::TensorSize {
        tensor: name.into(),
        dtype,
        shape: shape.to_vec(),
        found,
    })
}

/// Magic, version and dictionary, padded so that the data starts at a multiple of 64.
fn head(name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>, Error> {
    let descr = match dtype {
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
        Dtype::F64 => "<f8",
        Dtype::I8 => "|i1",
        Dtype::I16 => "<i2",
        Dtype::I32 => "<i4",
        Dtype::I64 => "<i8",
        Dtype::U8 => "|u1",
        Dtype::U16 => "<u2",
        Dtype::U32 => "<u4",
        Dtype::U64 => "<u8",
        Dtype::Bool => "|b1",
        Dtype::BF16 => {
            return Err(Error::UnsupportedDtype {
                tensor: name.into(),
                found: "BF16, which NumPy does not have".into(),
            });
        }
    };
    let dimensions: Vec<_> = shape.iter().map(|n| format!("{n},")).collect();
    let dimensions = dimensions.join(" ");
    let dictionary =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dimensions}), }}");
    // Magic, version and length take 10 bytes, the closing line feed one.
    let padding = (64 - (10 + dictionary.len() + 1) % 64) % 64;
    let length = dictionary.len() + padding + 1;
    let length = u16::try_from(length).map_err(|_| Error::Limit {
        what: "the length of the header of an array".into(),
        limit: u16::MAX.into(),
        found: length as u64,
    })?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&[1, 0]);
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(dictionary.as_bytes());
    head.resize(head.len() + padding, b' ');
    head.push(b'\n');
    Ok(head)
}

fn zip_error(error: rawzip::Error) -> Error {
    Error::Io {
        operation: "write",
        message: error.to_string(),
    }
}
