//! safetensors: eight bytes of length, a JSON header, the data.
//!
//! The `safetensors` crate reads the header and decides whether it is valid: names, dtypes and
//! shapes are well formed, and the byte ranges follow each other without gap or overlap to the
//! last byte of the file. Two things are added in front: limits, and a pass of our own over the
//! header that refuses names or fields that occur twice (JSON readers keep one of them) and knows
//! enough to say which tensor is at fault, with its numbers, when the crate refuses a file.

use super::{Archive, Entry, MAX_TENSORS, quoted};
use crate::bytes::Bytes;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::tensor::Tensor;
use ::safetensors::tensor::{Dtype as Stored, SafeTensors};
use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

const CONTAINER: &str = "safetensors";

/// Bytes of the length in front of the header.
pub(super) const LENGTH_BYTES: usize = 8;

/// Largest header that is read, in bytes. A header has about 100 bytes for each tensor.
pub const MAX_HEADER: usize = 4 << 20;

/// Most dimensions of a tensor: NumPy and torch have 64.
pub const MAX_DIMENSIONS: usize = 64;

/// Reads a safetensors file.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Malformed`], [`Error::TensorSize`], [`Error::Limit`] or
/// [`Error::UnsupportedDtype`], naming the tensor where there is one.
pub fn read<'a>(bytes: Bytes<'a>) -> Result<Archive<'a>, Error> {
    let all = bytes.as_slice();
    let (header, data_bytes) = header(all)?;
    let entries: Entries<'_> = serde_json::from_slice(header).map_err(json_error)?;
    for (name, entry) in &entries.0 {
        dtype(&entry.dtype).ok_or_else(|| Error::UnsupportedDtype {
            tensor: quoted(name.as_bytes()),
            found: quoted(entry.dtype.as_bytes()),
        })?;
    }
    let metadata = match SafeTensors::read_metadata(all) {
        Ok((_, metadata)) => metadata,
        Err(error) => {
            entries.check(data_bytes)?;
            return Err(malformed(error.to_string().chars().take(300).collect()));
        }
    };
    let mut archive = Archive::new(CONTAINER);
    let data_start = LENGTH_BYTES + header.len();
    for name in metadata.offset_keys() {
        // `info` is there for every key; a missing one could only be left out.
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let Some(dtype) = supported(info.dtype) else {
            continue;
        };
        let (begin, end) = info.data_offsets;
        let range = data_start.saturating_add(begin)..data_start.saturating_add(end);
        let part = bytes.slice(range).ok_or_else(|| Error::Truncated {
            container: CONTAINER,
            what: format!("tensor `{}`", quoted(name.as_bytes())),
            needed: end as u64,
            available: data_bytes,
        })?;
        let tensor = Tensor::new(name, dtype, &info.shape, part)?;
        archive.entries.push(Entry::in_place(tensor));
    }
    if let Some(texts) = metadata.metadata() {
        let mut texts: Vec<_> = texts.iter().collect();
        texts.sort();
        archive.metadata = texts
            .into_iter()
            .map(|(key, text)| (key.clone(), Value::String(text.clone())))
            .collect();
    }
    Ok(archive)
}

/// The JSON text, and how many bytes follow it.
fn header(bytes: &[u8]) -> Result<(&[u8], u64), Error> {
    let available = bytes.len().saturating_sub(LENGTH_BYTES) as u64;
    let length = match bytes.first_chunk::<LENGTH_BYTES>() {
        Some(length) => u64::from_le_bytes(*length),
        None => {
            return Err(Error::Truncated {
                container: CONTAINER,
                what: "the header length".into(),
                needed: LENGTH_BYTES as u64,
                available: bytes.len() as u64,
            });
        }
    };
    if length > MAX_HEADER as u64 {
        return Err(if length > available {
            malformed(format!(
                "the header length is {length}, {available} bytes follow"
            ))
        } else {
            Error::Limit {
                what: "the length of the safetensors header".into(),
                limit: MAX_HEADER as u64,
                found: length,
            }
        });
    }
    // Within MAX_HEADER, so the conversion keeps the value.
    let header = bytes.get(LENGTH_BYTES..LENGTH_BYTES.saturating_add(length as usize));
    match header {
        Some(header) => Ok((header, available - length)),
        None => Err(Error::Truncated {
            container: CONTAINER,
            what: "the header".into(),
            needed: length,
            available,
        }),
    }
}

fn malformed(what: String) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what,
    }
}

fn json_error(error: serde_json::Error) -> Error {
    // The message may quote a text of the file, of any length.
    let message: String = error.to_string().chars().take(300).collect();
    malformed(format!("header: {message}"))
}

/// The header's entries in the order of the file, without `__metadata__`.
struct Entries<'h>(Vec<(String, Listed<'h>)>);

/// One entry of the header. A field that occurs twice is refused.
#[derive(Deserialize)]
#[serde(expecting = "a tensor with dtype, shape and data_offsets")]
struct Listed<'h> {
    #[serde(borrow)]
    dtype: Cow<'h, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A shape of at most [`MAX_DIMENSIONS`].
#[derive(Debug)]
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Shape, S::Error> {
                let mut shape = Vec::new();
                while let Some(dimension) = list.next_element()? {
                    shape.push(dimension);
                    if shape.len() > MAX_DIMENSIONS {
                        let what = format!("more than {MAX_DIMENSIONS} dimensions");
                        return Err(S::Error::custom(what));
                    }
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

impl Entries<'_> {
    /// Finds what is wrong with the byte ranges, and with which tensor.
    fn check(&self, data_bytes: u64) -> Result<(), Error> {
        for (name, entry) in &self.0 {
            let (begin, end) = entry.data_offsets;
            let name = quoted(name.as_bytes());
            if end < begin {
                return Err(malformed(format!(
                    "tensor `{name}`: data_offsets [{begin}, {end}] run backwards"
                )));
            }
            let size = dtype(&entry.dtype).map_or(1, Dtype::size) as u64;
            let elements = entry
                .shape
                .0
                .iter()
                .try_fold(size, |n, &d| n.checked_mul(d));
            if elements != Some(end - begin) {
                return Err(malformed(format!(
                    "tensor `{name}`: {} of shape {:?} does not fit the {} bytes of data_offsets \
                     [{begin}, {end}]",
                    entry.dtype,
                    entry.shape.0,
                    end - begin
                )));
            }
        }
        let mut order: Vec<_> = self.0.iter().collect();
        order.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut expected = 0;
        for (name, entry) in order {
            let (begin, end) = entry.data_offsets;
            let name = quoted(name.as_bytes());
            if end > data_bytes {
                return Err(Error::Truncated {
                    container: CONTAINER,
                    what: format!("tensor `{name}` at data_offsets [{begin}, {end}]"),
                    needed: end,
                    available: data_bytes,
                });
            }
            if begin != expected {
                let problem = if begin < expected {
                    "overlap those of another tensor"
                } else {
                    "leave a gap"
                };
                return Err(malformed(format!(
                    "tensor `{name}`: data_offsets [{begin}, {end}] {problem} (the next tensor \
                     starts at {expected})"
                )));
            }
            expected = end;
        }
        if expected != data_bytes {
            return Err(malformed(format!(
                "the tensors end at {expected}, the data at {data_bytes}"
            )));
        }
        Ok(())
    }
}

impl<'de: 'h, 'h> Deserialize<'de> for Entries<'h> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Header;
        impl<'de> Visitor<'de> for Header {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut names = BTreeSet::new();
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<Texts>()?;
                    } else {
                        entries.push((name.clone(), map.next_value()?));
                    }
                    let short = quoted(name.as_bytes());
                    if !names.insert(name) {
                        return Err(M::Error::custom(format!("`{short}` occurs twice")));
                    }
                    if entries.len() > MAX_TENSORS {
                        return Err(M::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Header)
    }
}

/// The texts of `__metadata__`, read only to find a key that occurs twice.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Texts, M::Error> {
                let mut keys = BTreeSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value::<IgnoredAny>()?;
                    let short = quoted(key.as_bytes());
                    if !keys.insert(key) {
                        return Err(M::Error::custom(format!(
                            "`{short}` occurs twice in `__metadata__`"
                        )));
                    }
                }
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The dtypes of the format that the library reads, by name.
fn dtype(name: &str) -> Option<Dtype> {
    let all = [
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::F64,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::Bool,
    ];
    all.into_iter().find(|dtype| dtype.name() == name)
}

fn supported(stored: Stored) -> Option<Dtype> {
    Some(match stored {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::BF16,
        Stored::F64 => Dtype::F64,
        Stored::I8 => Dtype::I8,
        Stored::I16 => Dtype::I16,
        Stored::I32 => Dtype::I32,
        Stored::I64 => Dtype::I64,
        Stored::U8 => Dtype::U8,
        Stored::U16 => Dtype::U16,
        Stored::U32 => Dtype::U32,
        Stored::U64 => Dtype::U64,
        Stored::BOOL => Dtype::Bool,
        _ => return None,
    })
}
