//! Activation rows from an npy file.

use sae::bytes::Bytes;
use sae::container::npy::read_npy;
use sae::mmap::Mapping;
use sae::{Dtype, Error, Rows};
use std::path::Path;

/// The rows of an npy file: its first axis; further axes are flattened into the row. An array of
/// one axis is one row. Mapped where the library can read them in place.
pub(crate) struct RowsFile {
    bytes: Bytes<'static>,
    dtype: Dtype,
    rows: usize,
    width: usize,
    /// Whether the file holds f64, rounded to f32 here.
    pub(crate) narrowed: bool,
}

impl RowsFile {
    /// Opens a file of rows for a model of `d_in` inputs.
    pub(crate) fn open(path: &Path, d_in: usize) -> Result<Self, Error> {
        Mapping::open(path)
            .and_then(|mapping| Self::read(&mapping.into_bytes()))
            .and_then(|file| match file.width == d_in {
                true => Ok(file),
                false => Err(Error::Length {
                    what: "values per row",
                    expected: d_in as u64,
                    found: file.width as u64,
                }),
            })
            .map_err(|error| error.in_file(path.display().to_string()))
    }

    pub(crate) fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, Error> {
        Self::read(&Bytes::borrowed(bytes)).map_err(|error| error.in_file(name))
    }

    fn read(bytes: &Bytes<'static>) -> Result<Self, Error> {
        let array = read_npy(bytes)?;
        let (rows, width) = match array.shape() {
            [] => {
                return Err(Error::InvalidArgument {
                    what: "shape of the rows",
                    expected: "[rows, d_in]".into(),
                    found: "a single number".into(),
                });
            }
            [width] => (1, *width),
            [rows, rest @ ..] => (*rows, rest.iter().product()),
        };
        if !matches!(array.dtype(), Dtype::F16 | Dtype::F32 | Dtype::F64) {
            return Err(Error::InvalidArgument {
                what: "dtype of the rows",
                expected: "float16, float32 or float64".into(),
                found: array.dtype().to_string(),
            });
        }
        let narrowed = array.dtype() == Dtype::F64;
        let in_place = array.is_row_major() && !narrowed;
        let (bytes, dtype) = if in_place {
            (array.bytes().clone(), array.dtype())
        } else {
            let values = array.to_f64()?.into_iter();
            let bytes = values.flat_map(|value| (value as f32).to_le_bytes());
            (Bytes::owned(bytes.collect()), Dtype::F32)
        };
        Ok(RowsFile {
            bytes,
            dtype,
            rows,
            width,
            narrowed,
        })
    }

    pub(crate) fn rows(&self) -> Result<Rows<'_>, Error> {
        let stride = self.width * self.dtype.size();
        Rows::from_bytes(
            self.bytes.as_slice(),
            self.dtype,
            self.rows,
            self.width,
            stride,
        )
    }
}

/// The values of rows of a file, in f32.
pub(crate) fn values(rows: Rows<'_>) -> Vec<f32> {
    let mut all = Vec::new();
    for row in 0..rows.rows() {
        let bytes = rows.row_bytes(row);
        match rows.dtype() {
            Dtype::F16 => all.extend(
                (bytes.as_chunks().0.iter()).map(|&b| half::f16::from_le_bytes(b).to_f32()),
            ),
            _ => all.extend((bytes.as_chunks().0.iter()).map(|&b| f32::from_le_bytes(b))),
        }
    }
    all
}
