//! GGUF, versions 2 and 3: keys with typed values, then tensors, then the data, aligned. This is
//! also the format that `sae pack` writes.
//!
//! Plain tensors are used in place. Quantised ones (`Q8_0`, `Q4_0`, `Q6_K` and their like) are
//! decoded to f32 when they are taken. GGUF gives dimensions innermost first; shapes here are outermost first.
//! Files for big-endian machines are refused by that name.

use super::ggml::GgmlType;
use super::{Archive, Entry, MAX_TENSORS, quoted};
use crate::bytes::Bytes;
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde_json::{Number, Value};

const CONTAINER: &str = "gguf";

/// The first bytes of the format.
pub const MAGIC: &[u8] = b"GGUF";

/// Most keys of a file.
pub const MAX_KEYS: u64 = 1 << 16;

/// Longest key or tensor name, in bytes.
pub const MAX_NAME: u64 = 512;

/// Longest text that is kept as a value, in bytes.
pub const MAX_TEXT: u64 = 1 << 20;

/// Most values of all arrays together that are kept. Longer arrays (a tokenizer's words) are left
/// out, with a note.
pub const MAX_ARRAY_VALUES: u64 = 1 << 16;

/// Most bytes of text in all values together that are kept.
pub const MAX_KEPT_TEXT: u64 = 8 << 20;

/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: u32 = 4;

/// The alignment of the data if no key says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Largest alignment that is accepted.
pub const MAX_ALIGNMENT: u64 = 1 << 20;

/// Reads a GGUF file.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Malformed`], [`Error::Limit`],
/// [`Error::UnsupportedContainer`] for other versions and big-endian files, or
/// [`Error::UnsupportedDtype`] naming the tensor.
pub fn read<'a>(bytes: &Bytes<'a>) -> Result<Archive<'a>, Error> {
    let mut reader = Reader {
        bytes: bytes.as_slice(),
        at: 0,
        array_values: 0,
        kept_text: 0,
    };
    if reader.take(4, "the magic")? != MAGIC {
        return Err(malformed("it does not start with `GGUF`"));
    }
    let version = reader.u32("the version")?;
    if !(2..=3).contains(&version) {
        let what = if (1..=3).contains(&version.swap_bytes()) {
            "a file for big-endian machines".into()
        } else {
            format!("version {version}")
        };
        return Err(Error::UnsupportedContainer {
            container: CONTAINER,
            what,
        });
    }
    let tensors = reader.u64("the number of tensors")?;
    let keys = reader.u64("the number of keys")?;
    limit("the number of tensors", tensors, MAX_TENSORS as u64)?;
    limit("the number of keys", keys, MAX_KEYS)?;
    let mut archive = Archive::new(CONTAINER);
    let mut names = BTreeSet::new();
    for _ in 0..keys {
        let key = reader.name("a key")?;
        if !names.insert(key) {
            let key = quoted(key.as_bytes());
            return Err(malformed(format!("key `{key}` occurs twice")));
        }
        let kind = reader.u32("a type")?;
        match reader.value(kind, key)? {
            Some(value) => archive.metadata.push((key.into(), value)),
            None => {
                let key = quoted(key.as_bytes());
                let note = format!("left out the long value of key `{key}`");
                archive.notes.push(note);
            }
        }
    }
    let alignment = match archive.value("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(value) => value
            .as_u64()
            .filter(|n| n.is_power_of_two() && *n <= MAX_ALIGNMENT)
            .ok_or_else(|| malformed(format!("general.alignment is {value}")))?,
    };
    let mut listed = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..tensors {
        let tensor = reader.tensor(alignment)?;
        if !names.insert(tensor.name) {
            let name = quoted(tensor.name.as_bytes());
            return Err(malformed(format!("tensor `{name}` occurs twice")));
        }
        listed.push(tensor);
    }
    let data_start = (reader.at as u64).next_multiple_of(alignment);
    check_overlap(&listed)?;
    for tensor in listed {
        archive.entries.push(tensor.entry(bytes, data_start)?);
    }
    Ok(archive)
}

fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: what.into(),
    }
}

fn limit(what: &str, found: u64, limit: u64) -> Result<(), Error> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::Limit {
        what: format!("{what} of the GGUF file"),
        limit,
        found,
    })
}

/// A tensor as the header lists it.
struct Listed<'h> {
    name: &'h str,
    kind: GgmlType,
    shape: Vec<usize>,
    offset: u64,
    size: u64,
}

impl Listed<'_> {
    fn entry<'a>(&self, bytes: &Bytes<'a>, data_start: u64) -> Result<Entry<'a>, Error> {
        let start = data_start.saturating_add(self.offset);
        let end = start.saturating_add(self.size);
        let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        let part = bytes.slice(at(start)..at(end));
        let part = part.ok_or_else(|| Error::Truncated {
            container: CONTAINER,
            what: format!("tensor `{}`", quoted(self.name.as_bytes())),
            needed: end,
            available: bytes.len() as u64,
        })?;
        match self.kind {
            GgmlType::Plain(dtype) => {
                let tensor = Tensor::new(self.name, dtype, &self.shape, part)?;
                Ok(Entry::in_place(tensor))
            }
            GgmlType::Quantised(kind) => {
                let (name, shape) = (self.name.into(), self.shape.clone());
                Ok(Entry::quantised(name, kind, shape, part))
            }
        }
    }
}

fn check_overlap(listed: &[Listed<'_>]) -> Result<(), Error> {
    let mut order: Vec<_> = listed.iter().filter(|tensor| tensor.size > 0).collect();
    order.sort_unstable_by_key(|tensor| tensor.offset);
    let mut end = 0;
    for tensor in order {
        if tensor.offset < end {
            let name = quoted(tensor.name.as_bytes());
            return Err(malformed(format!("tensor `{name}` overlaps another one")));
        }
        end = tensor.offset.saturating_add(tensor.size);
    }
    Ok(())
}

struct Reader<'h> {
    bytes: &'h [u8],
    at: usize,
    array_values: u64,
    kept_text: u64,
}

impl<'h> Reader<'h> {
    fn take(&mut self, length: u64, what: &str) -> Result<&'h [u8], Error> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length));
        let part = end.and_then(|end| self.bytes.get(self.at..end));
        let part = part.ok_or_else(|| Error::Truncated {
            container: CONTAINER,
            what: what.into(),
            needed: (self.at as u64).saturating_add(length),
            available: self.bytes.len() as u64,
        })?;
        self.at += part.len();
        Ok(part)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        let bytes = self.take(N as u64, what)?;
        let array = bytes.first_chunk().copied();
        array.ok_or_else(|| malformed(format!("{what} is cut")))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, what: &str) -> Result<&'h [u8], Error> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    fn name(&mut self, what: &str) -> Result<&'h str, Error> {
        let name = self.text(what)?;
        limit(
            &format!("the length of {what}"),
            name.len() as u64,
            MAX_NAME,
        )?;
        core::str::from_utf8(name)
            .map_err(|_| malformed(format!("{what} is not UTF-8: `{}`", quoted(name))))
    }

    /// A value; `None` if it is too long to be kept.
    fn value(&mut self, kind: u32, key: &str) -> Result<Option<Value>, Error> {
        if kind != 9 {
            return self.scalar(kind, key);
        }
        let (kind, length) = (self.u32("a type")?, self.u64("the length of an array")?);
        self.array_values = self.array_values.saturating_add(length);
        let mut keep = self.array_values <= MAX_ARRAY_VALUES;
        if !keep {
            self.array_values -= length;
        }
        let width = match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            8 => None,
            _ => return Err(self.unknown(kind, key)),
        };
        if let (false, Some(width)) = (keep, width) {
            self.take(length.saturating_mul(width), "an array")?;
            return Ok(None);
        }
        let mut values = Vec::new();
        for _ in 0..length {
            if keep {
                match self.scalar(kind, key)? {
                    Some(value) => values.push(value),
                    None => keep = false,
                }
            } else {
                self.text("a text")?;
            }
        }
        Ok(keep.then_some(Value::Array(values)))
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Result<Option<Value>, Error> {
        let what = "a value";
        Ok(Some(match kind {
            0 => u8::from_le_bytes(self.array(what)?).into(),
            1 => i8::from_le_bytes(self.array(what)?).into(),
            2 => u16::from_le_bytes(self.array(what)?).into(),
            3 => i16::from_le_bytes(self.array(what)?).into(),
            4 => self.u32(what)?.into(),
            5 => i32::from_le_bytes(self.array(what)?).into(),
            6 => float(f32::from_le_bytes(self.array(what)?).into()),
            7 => match self.array(what)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => {
                    let key = quoted(key.as_bytes());
                    return Err(malformed(format!("key `{key}`: a bool of {other}")));
                }
            },
            8 => {
                let text = self.text("a text")?;
                let length = text.len() as u64;
                if length > MAX_TEXT || self.kept_text.saturating_add(length) > MAX_KEPT_TEXT {
                    return Ok(None);
                }
                self.kept_text += length;
                let key = quoted(key.as_bytes());
                let text = core::str::from_utf8(text)
                    .map_err(|_| malformed(format!("key `{key}`: a text that is not UTF-8")))?;
                Value::String(text.into())
            }
            10 => self.u64(what)?.into(),
            11 => i64::from_le_bytes(self.array(what)?).into(),
            12 => float(f64::from_le_bytes(self.array(what)?)),
            _ => return Err(self.unknown(kind, key)),
        }))
    }

    fn unknown(&self, kind: u32, key: &str) -> Error {
        let key = quoted(key.as_bytes());
        malformed(format!("key `{key}`: unknown type {kind}"))
    }

    fn tensor(&mut self, alignment: u64) -> Result<Listed<'h>, Error> {
        let name = self.name("a tensor name")?;
        let wrong = |what: &str| {
            let name = quoted(name.as_bytes());
            malformed(format!("tensor `{name}`: {what}"))
        };
        let dimensions = self.u32("the number of dimensions")?;
        if dimensions > MAX_DIMENSIONS {
            return Err(wrong(&format!("{dimensions} dimensions")));
        }
        let mut extents = Vec::new();
        for _ in 0..dimensions {
            extents.push(self.u64("a dimension")?);
        }
        let number = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let kind = GgmlType::from_number(number).ok_or_else(|| Error::UnsupportedDtype {
            tensor: quoted(name.as_bytes()),
            found: format!("{} ({number})", GgmlType::name(number)),
        })?;
        if offset % alignment != 0 {
            return Err(wrong(&format!(
                "offset {offset} is not a multiple of {alignment}"
            )));
        }
        let (values, block) = kind.block();
        if extents.first().copied().unwrap_or(1) % values as u64 != 0 {
            return Err(wrong(&format!(
                "{} has rows of whole blocks of {values}, not of {:?}",
                GgmlType::name(number),
                extents.first()
            )));
        }
        let elements = extents.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let size = elements.and_then(|n| (n / values as u64).checked_mul(block as u64));
        let shape: Result<Vec<usize>, _> = extents.iter().rev().map(|&d| d.try_into()).collect();
        let (Some(size), Ok(shape)) = (size, shape) else {
            return Err(wrong(&format!("dimensions {extents:?} overflow")));
        };
        Ok(Listed {
            name,
            kind,
            shape,
            offset,
            size,
        })
    }
}

/// A number, or a text for what JSON has no number for.
fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => Value::String(format!("{value}")),
    }
}
