//! Writing GGUF version 3: keys and tensors are declared first, then the data is streamed in that
//! order, so a file larger than memory can be written. Tensors start at multiples of 64 bytes.
//!
//! All numbers of a GGUF header have a fixed width. So a header can be written once more when the
//! data is there: with shapes that were not known before, and with a checksum of each tensor.

use super::ggml::GgmlType;
use super::gguf::MAGIC;
use super::new_file::{NewFile, write_error};
use crate::dtype::Dtype;
use crate::error::Error;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use crc32fast::Hasher;
use std::io::Write;
use std::path::{Path, PathBuf};

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
    /// The key under which the checksums are.
    checksums: Option<String>,
    tensors: Vec<Declared>,
    tensor_names: BTreeSet<String>,
}

/// A tensor as the header lists it.
#[derive(Clone, Debug)]
struct Declared {
    name: String,
    dtype: Dtype,
    number: u32,
    shape: Vec<usize>,
    /// Whether the shape is still to be told.
    late: bool,
    offset: u64,
    checksum: u32,
}

impl Declared {
    fn size(&self) -> u64 {
        // The product was checked when the shape was told.
        let elements = self.shape.iter().map(|&n| n as u64).product::<u64>();
        elements * self.dtype.size() as u64
    }
}

fn invalid(what: &'static str, expected: &str, found: String) -> Error {
    Error::InvalidArgument {
        what,
        expected: expected.into(),
        found,
    }
}

fn check_shape(dtype: Dtype, shape: &[usize]) -> Result<(), Error> {
    let size = shape
        .iter()
        .try_fold(dtype.size() as u64, |size, &n| size.checked_mul(n as u64));
    match (shape.len(), size) {
        (1..=4, Some(_)) => Ok(()),
        _ => Err(invalid(
            "tensor shape",
            "1 to 4 dimensions",
            alloc::format!("{shape:?}"),
        )),
    }
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
        self.check_new(key)?;
        self.put(key, value);
        Ok(())
    }

    /// Adds a key whose value is an array of `u32`: the CRC-32 (IEEE) of the data of each tensor,
    /// in the order of the tensors.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the key was added before.
    pub fn checksums(&mut self, key: &str) -> Result<(), Error> {
        self.check_new(key)?;
        self.key_names.insert(key.into());
        self.checksums = Some(key.into());
        Ok(())
    }

    fn check_new(&self, key: &str) -> Result<(), Error> {
        match self.key_names.contains(key) {
            false => Ok(()),
            true => Err(invalid("key", "one that was not added before", key.into())),
        }
    }

    /// Adds a tensor, whose data will follow that of the tensors before. The shape is outermost
    /// first.
    ///
    /// # Errors
    /// [`Error::UnsupportedDtype`] for unsigned integers and bool, [`Error::InvalidArgument`] for
    /// a name that is too long or was used, or for a shape without 1 to 4 dimensions.
    pub fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(), Error> {
        self.declare(name, dtype, shape, false)
    }

    /// Adds a tensor whose shape has so many dimensions and is told by [`GgufFile::shape`] when
    /// the data of the tensors before it is written.
    ///
    /// # Errors
    /// As for [`tensor`](GgufHeader::tensor).
    pub fn late_tensor(
        &mut self,
        name: &str,
        dtype: Dtype,
        dimensions: usize,
    ) -> Result<(), Error> {
        self.declare(name, dtype, &alloc::vec![0; dimensions], true)
    }

    fn declare(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        late: bool,
    ) -> Result<(), Error> {
        let number = GgmlType::number(dtype).ok_or_else(|| Error::UnsupportedDtype {
            tensor: name.into(),
            found: dtype.name().into(),
        })?;
        if name.len() > MAX_NAME || self.tensor_names.contains(name) {
            let expected = "a new one of at most 63 bytes";
            return Err(invalid("tensor name", expected, name.into()));
        }
        check_shape(dtype, shape)?;
        self.tensor_names.insert(name.into());
        self.tensors.push(Declared {
            name: name.into(),
            dtype,
            number,
            shape: shape.to_vec(),
            late,
            offset: 0,
            checksum: 0,
        });
        Ok(())
    }

    /// Places the tensors one after the other.
    fn place(&mut self) {
        let mut end = 0u64;
        for tensor in &mut self.tensors {
            tensor.offset = end.next_multiple_of(ALIGNMENT);
            end = tensor.offset.saturating_add(tensor.size());
        }
    }

    /// The bytes in front of the data; always as many.
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&3u32.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.key_names.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.keys);
        if let Some(key) = &self.checksums {
            text(&mut out, key);
            let checksums = self.tensors.iter().map(|tensor| tensor.checksum);
            GgufValue::U32s(checksums.collect()).write(&mut out);
        }
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for extent in tensor.shape.iter().rev() {
                out.extend_from_slice(&(*extent as u64).to_le_bytes());
            }
            out.extend_from_slice(&tensor.number.to_le_bytes());
            out.extend_from_slice(&tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        out
    }

    /// Starts the file that is to be at `path` and writes the header.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(mut self, path: &Path) -> Result<GgufFile, Error> {
        self.place();
        let mut file = NewFile::create(path)?;
        file.write_all(&self.bytes()).map_err(write_error)?;
        Ok(GgufFile {
            file,
            header: self,
            part: 0,
            at: 0,
            checksum: Hasher::new(),
        })
    }
}

/// A GGUF file that is being written. Dropped before [`finish`](GgufFile::finish), it leaves
/// nothing behind.
#[derive(Debug)]
pub struct GgufFile {
    file: NewFile,
    header: GgufHeader,
    /// The tensor that is being written.
    part: usize,
    /// Bytes of data written.
    at: u64,
    /// Of the tensor that is being written.
    checksum: Hasher,
}

impl GgufFile {
    /// Writes the next bytes of the data: any number of bytes, up to the end of the tensor that
    /// is being written. The next tensor's data follows in the next call.
    ///
    /// # Errors
    /// [`Error::Length`] for more bytes than the tensor has left, [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.skip_finished()?;
        let tensor = self.header.tensors.get(self.part);
        let end = tensor.map_or(self.at, |tensor| tensor.offset + tensor.size());
        let left = end - self.at;
        if bytes.len() as u64 > left {
            return Err(Error::Length {
                what: "bytes left of the tensor",
                expected: left,
                found: bytes.len() as u64,
            });
        }
        self.file.write_all(bytes).map_err(write_error)?;
        self.checksum.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Tells the shape of a tensor that was declared without one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such tensor, if its turn is over, or if the
    /// shape has another number of dimensions.
    pub fn shape(&mut self, name: &str, shape: &[usize]) -> Result<(), Error> {
        self.skip_finished()?;
        let mut tensors = self.header.tensors.iter_mut().skip(self.part);
        let tensor = tensors.find(|tensor| tensor.name == name && tensor.late);
        let fits = tensor.filter(|tensor| tensor.shape.len() == shape.len());
        let tensor = fits.ok_or_else(|| {
            let expected = "a tensor that still waits for a shape of so many dimensions";
            invalid("tensor", expected, name.into())
        })?;
        check_shape(tensor.dtype, shape)?;
        tensor.shape = shape.to_vec();
        tensor.late = false;
        self.header.place();
        Ok(())
    }

    /// Makes what was written so far readable under a temporary name, which is returned. Tensors
    /// without a shape are empty there, and checksums of what is not written are 0.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<PathBuf, Error> {
        self.skip_finished()?;
        self.pad(self.at.next_multiple_of(ALIGNMENT))?;
        let header = self.header.bytes();
        self.file.rewrite_start(&header)?;
        Ok(self.file.temporary().to_path_buf())
    }

    /// Writes zeros up to this place in the data.
    fn pad(&mut self, to: u64) -> Result<(), Error> {
        let padding = usize::try_from(to.saturating_sub(self.at)).unwrap_or(0);
        let zeros = [0; ALIGNMENT as usize];
        let zeros = zeros.get(..padding).unwrap_or(&zeros);
        self.file.write_all(zeros).map_err(write_error)?;
        self.at = self.at.max(to);
        Ok(())
    }

    /// Moves to the next tensor that has bytes left, or that waits for a shape.
    fn skip_finished(&mut self) -> Result<(), Error> {
        while let Some(tensor) = self.header.tensors.get_mut(self.part) {
            if tensor.late {
                break;
            }
            let (offset, end) = (tensor.offset, tensor.offset + tensor.size());
            if self.at >= end && self.at >= offset {
                tensor.checksum = core::mem::take(&mut self.checksum).finalize();
                self.part += 1;
                continue;
            }
            self.pad(offset)?;
            if offset < end {
                break;
            }
        }
        Ok(())
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Length`] if data is missing, [`Error::InvalidArgument`] if a shape is,
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        self.skip_finished()?;
        match self.header.tensors.get(self.part) {
            None => {}
            Some(tensor) if tensor.late => {
                return Err(invalid("tensor", "a shape", tensor.name.clone()));
            }
            Some(tensor) => {
                return Err(Error::Length {
                    what: "bytes of the tensor",
                    expected: tensor.size(),
                    found: self.at.saturating_sub(tensor.offset),
                });
            }
        }
        let header = self.header.bytes();
        self.file.rewrite_start(&header)?;
        self.file.commit()
    }
}
