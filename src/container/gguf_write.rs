//! Writing GGUF version 3: keys and tensors are declared first, then the data is streamed in that
//! order, so a file larger than memory can be written. Tensors start at multiples of 64 bytes.

use super::ggml::GgmlType;
use super::gguf::MAGIC;
use super::new_file::{NewFile, write_error};
use crate::dtype::Dtype;
use crate::error::Error;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use std::io::Write;
use std::path::Path;

/// Where tensors start: a multiple of this.
pub const ALIGNMENT: u64 = 64;

/// Longest tensor name that llama.cpp's readers accept, in bytes.
pub const MAX_NAME: usize = 63;

/// A value of a key, with its exact type in the file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GgufValue {
    /// `u8`
    U8(u8),
    /// `i8`
    I8(i8),
    /// `u16`
    U16(u16),
    /// `i16`
    I16(i16),
    /// `u32`
    U32(u32),
    /// `i32`
    I32(i32),
    /// `f32`
    F32(f32),
    /// One byte, 0 or 1.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// `u64`
    U64(u64),
    /// `i64`
    I64(i64),
    /// `f64`
    F64(f64),
    /// Array of `u8`.
    U8s(Vec<u8>),
    /// Array of `i8`.
    I8s(Vec<i8>),
    /// Array of `u16`.
    U16s(Vec<u16>),
    /// Array of `i16`.
    I16s(Vec<i16>),
    /// Array of `u32`.
    U32s(Vec<u32>),
    /// Array of `i32`.
    I32s(Vec<i32>),
    /// Array of `f32`.
    F32s(Vec<f32>),
    /// Array of bools.
    Bools(Vec<bool>),
    /// Array of texts.
    Texts(Vec<String>),
    /// Array of `u64`.
    U64s(Vec<u64>),
    /// Array of `i64`.
    I64s(Vec<i64>),
    /// Array of `f64`.
    F64s(Vec<f64>),
}

impl GgufValue {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            GgufValue::U8(value) => scalar(out, 0, &value.to_le_bytes()),
            GgufValue::I8(value) => scalar(out, 1, &value.to_le_bytes()),
            GgufValue::U16(value) => scalar(out, 2, &value.to_le_bytes()),
            GgufValue::I16(value) => scalar(out, 3, &value.to_le_bytes()),
            GgufValue::U32(value) => scalar(out, 4, &value.to_le_bytes()),
            GgufValue::I32(value) => scalar(out, 5, &value.to_le_bytes()),
            GgufValue::F32(value) => scalar(out, 6, &value.to_le_bytes()),
            GgufValue::Bool(value) => scalar(out, 7, &[(*value).into()]),
            GgufValue::Text(value) => {
                scalar(out, 8, &[]);
                text(out, value);
            }
            GgufValue::U64(value) => scalar(out, 10, &value.to_le_bytes()),
            GgufValue::I64(value) => scalar(out, 11, &value.to_le_bytes()),
            GgufValue::F64(value) => scalar(out, 12, &value.to_le_bytes()),
            GgufValue::U8s(values) => array(out, 0, values, |v| v.to_le_bytes()),
            GgufValue::I8s(values) => array(out, 1, values, |v| v.to_le_bytes()),
            GgufValue::U16s(values) => array(out, 2, values, |v| v.to_le_bytes()),
            GgufValue::I16s(values) => array(out, 3, values, |v| v.to_le_bytes()),
            GgufValue::U32s(values) => array(out, 4, values, |v| v.to_le_bytes()),
            GgufValue::I32s(values) => array(out, 5, values, |v| v.to_le_bytes()),
            GgufValue::F32s(values) => array(out, 6, values, |v| v.to_le_bytes()),
            GgufValue::Bools(values) => array(out, 7, values, |v| [(*v).into()]),
            GgufValue::Texts(values) => {
                array(out, 8, values, |_| []);
                values.iter().for_each(|value| text(out, value));
            }
            GgufValue::U64s(values) => array(out, 10, values, |v| v.to_le_bytes()),
            GgufValue::I64s(values) => array(out, 11, values, |v| v.to_le_bytes()),
            GgufValue::F64s(values) => array(out, 12, values, |v| v.to_le_bytes()),
        }
    }
}

fn scalar(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn array<T, const N: usize>(out: &mut Vec<u8>, kind: u32, values: &[T], bytes: fn(&T) -> [u8; N]) {
    scalar(out, 9, &kind.to_le_bytes());
    out.extend_from_slice(&(values.len() as u64).to_le_bytes());
    for value in values {
        out.extend_from_slice(&bytes(value));
    }
}

/// Collects what the header says.
///
/// ```
/// use sae::Dtype;
/// use sae::container::gguf_write::{GgufHeader, GgufValue};
///
/// # let folder = std::env::temp_dir().join(format!("gguf-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("bias.gguf");
/// let mut header = GgufHeader::new();
/// header.key("general.architecture", &GgufValue::Text("sae".into()))?;
/// header.tensor("b_enc", Dtype::F32, &[2])?;
/// let mut file = header.create(&path)?;
/// file.write(&1.0f32.to_le_bytes())?;
/// file.write(&2.0f32.to_le_bytes())?;
/// file.finish()?;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GgufHeader {
    keys: Vec<u8>,
    key_names: BTreeSet<String>,
    tensors: Vec<u8>,
    tensor_names: BTreeSet<String>,
    /// Offset and size of each tensor's data.
    parts: Vec<(u64, u64)>,
}

impl GgufHeader {
    /// A header with the alignment as its only key.
    pub fn new() -> Self {
        let mut header = GgufHeader::default();
        header.put("general.alignment", &GgufValue::U32(ALIGNMENT as u32));
        header
    }

    fn put(&mut self, key: &str, value: &GgufValue) -> bool {
        text(&mut self.keys, key);
        value.write(&mut self.keys);
        self.key_names.insert(key.into())
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it was added before.
    pub fn key(&mut self, key: &str, value: &GgufValue) -> Result<(), Error> {
        if self.key_names.contains(key) {
            return Err(Error::InvalidArgument {
                what: "key",
                expected: "one that was not added before".into(),
                found: key.into(),
            });
        }
        self.put(key, value);
        Ok(())
    }

    /// Adds a tensor, whose data will follow that of the tensors before. The shape is outermost
    /// first.
    ///
    /// # Errors
    /// [`Error::UnsupportedDtype`] for unsigned integers and bool, [`Error::InvalidArgument`] for
    /// a name that is too long or was used, or for a shape without 1 to 4 dimensions.
    pub fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(), Error> {
        let number = GgmlType::number(dtype).ok_or_else(|| Error::UnsupportedDtype {
            tensor: name.into(),
            found: dtype.name().into(),
        })?;
        let invalid = |what, expected: &str, found: String| Error::InvalidArgument {
            what,
            expected: expected.into(),
            found,
        };
        if name.len() > MAX_NAME || self.tensor_names.contains(name) {
            let expected = "a new one of at most 63 bytes";
            return Err(invalid("tensor name", expected, name.into()));
        }
        let size = shape
            .iter()
            .try_fold(dtype.size(), |size, &n| size.checked_mul(n));
        let (1..=4, Some(size)) = (shape.len(), size) else {
            let found = alloc::format!("{shape:?}");
            return Err(invalid("tensor shape", "1 to 4 dimensions", found));
        };
        self.tensor_names.insert(name.into());
        let end = self.parts.last().map_or(0, |(offset, size)| offset + size);
        let offset = end.next_multiple_of(ALIGNMENT);
        let out = &mut self.tensors;
        text(out, name);
        out.extend_from_slice(&(shape.len() as u32).to_le_bytes());
        for extent in shape.iter().rev() {
            out.extend_from_slice(&(*extent as u64).to_le_bytes());
        }
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        self.parts.push((offset, size as u64));
        Ok(())
    }

    /// Starts the file that is to be at `path` and writes the header.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(self, path: &Path) -> Result<GgufFile, Error> {
        let mut header = Vec::new();
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&(self.tensor_names.len() as u64).to_le_bytes());
        header.extend_from_slice(&(self.key_names.len() as u64).to_le_bytes());
        header.extend_from_slice(&self.keys);
        header.extend_from_slice(&self.tensors);
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        let mut file = NewFile::create(path)?;
        file.write_all(&header).map_err(write_error)?;
        Ok(GgufFile {
            file,
            parts: self.parts,
            part: 0,
            at: 0,
        })
    }
}

/// A GGUF file that is being written. Dropped before [`finish`](GgufFile::finish), it leaves
/// nothing behind.
#[derive(Debug)]
pub struct GgufFile {
    file: NewFile,
    parts: Vec<(u64, u64)>,
    /// The tensor that is being written.
    part: usize,
    /// Bytes of data written.
    at: u64,
}

impl GgufFile {
    /// Writes the next bytes of the data: any number of bytes, up to the end of the tensor that
    /// is being written. The next tensor's data follows in the next call.
    ///
    /// # Errors
    /// [`Error::Length`] for more bytes than the tensor has left, [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.skip_finished()?;
        let end = self.parts.get(self.part).map_or(self.at, |(o, s)| o + s);
        let left = end - self.at;
        if bytes.len() as u64 > left {
            return Err(Error::Length {
                what: "bytes left of the tensor",
                expected: left,
                found: bytes.len() as u64,
            });
        }
        self.file.write_all(bytes).map_err(write_error)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Moves to the next tensor that has bytes left.
    fn skip_finished(&mut self) -> Result<(), Error> {
        while let Some(&(offset, size)) = self.parts.get(self.part) {
            if self.at < offset {
                let padding = usize::try_from(offset - self.at).unwrap_or(0);
                let zeros = [0; ALIGNMENT as usize];
                let zeros = zeros.get(..padding).unwrap_or(&zeros);
                self.file.write_all(zeros).map_err(write_error)?;
                self.at = offset;
            }
            if self.at < offset + size {
                break;
            }
            self.part += 1;
        }
        Ok(())
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Length`] if data is missing, [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        self.skip_finished()?;
        if let Some((offset, size)) = self.parts.get(self.part) {
            return Err(Error::Length {
                what: "bytes of the tensor",
                expected: *size,
                found: self.at - offset,
            });
        }
        self.file.commit()
    }
}
