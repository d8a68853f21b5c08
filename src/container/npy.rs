//! `.npy`: one NumPy array. A magic, a version, a Python dictionary that gives type, order and
//! shape, then the data. Versions 1 to 3 differ in the width of the header length and in the
//! encoding of the dictionary.
//!
//! Only plain numbers are read. Arrays of objects hold a pickle, which is refused and never
//! looked into.

use super::entry::{copied, swap_bytes};
use super::quoted;
use crate::bytes::Bytes;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

const CONTAINER: &str = "npy";

/// The first bytes of the format.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// Largest dictionary that is read, in bytes. NumPy's own limit for untrusted files is 10,000.
pub const MAX_HEADER: usize = (64 << 10) - 1;

/// Bytes that hold magic, version, length and the dictionaries that NumPy writes.
pub(super) const USUAL_HEAD: usize = 1 << 10;

/// Bytes that hold magic, version, length and the longest dictionary.
pub(super) const MAX_HEAD: usize = MAX_HEADER + 12;

/// Most dimensions of an array: NumPy 2 has 64.
pub const MAX_DIMENSIONS: usize = 64;

/// What the header of an array says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyHeader {
    /// The number format.
    pub dtype: Dtype,
    /// Whether the numbers are stored big-endian.
    pub big_endian: bool,
    /// Whether the first dimension runs fastest.
    pub fortran_order: bool,
    /// The shape, outermost first.
    pub shape: Vec<usize>,
    /// Where the data starts.
    pub data_start: u64,
    /// How many bytes of data there are.
    pub data_bytes: u64,
}

/// The array in a `.npy` file, without a name. Little-endian data stays in place.
///
/// # Errors
/// Those of [`NpyHeader::parse`]; [`Error::Malformed`] if there are more or fewer bytes than the
/// shape needs.
pub fn read_npy<'a>(bytes: &Bytes<'a>) -> Result<Tensor<'a>, Error> {
    let head = bytes.as_slice();
    let head = head.get(..MAX_HEAD).unwrap_or(head);
    let header = NpyHeader::parse("", head, bytes.len() as u64)?;
    header.in_place("", bytes).unwrap_or_else(|| {
        let data = bytes
            .slice(header.range(bytes.len()))
            .unwrap_or(Bytes::borrowed(&[]));
        header.tensor("", copied(&data, "a byte-swapped array")?)
    })
}

impl NpyHeader {
    /// Reads the first bytes of an array of `size` bytes in all.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Malformed`], [`Error::Limit`], [`Error::UnsupportedDtype`]
    /// for anything but plain numbers, [`Error::TensorSize`] if `size` is not what the shape
    /// needs.
    pub fn parse(name: &str, head: &[u8], size: u64) -> Result<Self, Error> {
        let (dictionary, data_start) = dictionary(name, head, size)?;
        let fields = Fields::parse(dictionary)
            .map_err(|what| malformed(name, &format!("header: {what}")))?;
        let Some(descr) = fields.descr else {
            return Err(malformed(name, "header: `descr` is missing"));
        };
        let (dtype, big_endian) = dtype(&descr).ok_or_else(|| Error::UnsupportedDtype {
            tensor: name.into(),
            found: if descr
                .trim_start_matches(['|', '<', '>', '='])
                .starts_with('O')
            {
                format!("`{}` (objects, that is a pickle)", quoted(descr.as_bytes()))
            } else {
                format!("`{}`", quoted(descr.as_bytes()))
            },
        })?;
        let (Some(fortran_order), Some(dimensions)) = (fields.fortran_order, fields.shape) else {
            return Err(malformed(
                name,
                "header: `fortran_order` or `shape` is missing",
            ));
        };
        let found = size.saturating_sub(data_start);
        let needed = dimensions
            .iter()
            .try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d));
        let shape: Result<Vec<usize>, _> = dimensions.iter().map(|&d| usize::try_from(d)).collect();
        match (shape, needed) {
            (Ok(shape), Some(needed)) if needed == found => Ok(NpyHeader {
                dtype,
                big_endian,
                fortran_order,
                shape,
                data_start,
                data_bytes: found,
            }),
            (shape, _) => Err(Error::TensorSize {
                tensor: name.into(),
                dtype,
                shape: shape.unwrap_or_default(),
                found,
            }),
        }
    }

    /// The tensor in place; `None` for big-endian data.
    pub(super) fn in_place<'a>(
        &self,
        name: &str,
        bytes: &Bytes<'a>,
    ) -> Option<Result<Tensor<'a>, Error>> {
        if self.big_endian && self.dtype.size() > 1 {
            return None;
        }
        let data = bytes.slice(self.range(bytes.len()))?;
        Some(Tensor::with_strides(
            name,
            self.dtype,
            &self.shape,
            &self.strides(),
            data,
        ))
    }

    /// The tensor from a copy of its data, which is swapped here if it is big-endian.
    pub(super) fn tensor<'a>(&self, name: &str, mut data: Vec<u8>) -> Result<Tensor<'a>, Error> {
        if self.big_endian {
            swap_bytes(&mut data, self.dtype.size());
        }
        let strides = self.strides();
        Tensor::with_strides(name, self.dtype, &self.shape, &strides, Bytes::owned(data))
    }

    fn range(&self, length: usize) -> core::ops::Range<usize> {
        usize::try_from(self.data_start).unwrap_or(length)..length
    }

    fn strides(&self) -> Vec<usize> {
        let mut strides = vec![0; self.shape.len()];
        let mut step = 1usize;
        let mut give = |(stride, &extent): (&mut usize, &usize)| {
            *stride = step;
            // The product of the shape was checked; only empty arrays can saturate here.
            step = step.saturating_mul(extent.max(1));
        };
        let pairs = strides.iter_mut().zip(&self.shape);
        if self.fortran_order {
            pairs.for_each(&mut give);
        } else {
            pairs.rev().for_each(&mut give);
        }
        strides
    }
}

/// The dictionary's text, and where the data starts.
fn dictionary<'h>(name: &str, head: &'h [u8], size: u64) -> Result<(&'h str, u64), Error> {
    let truncated = |what: &str, needed: usize| Error::Truncated {
        container: CONTAINER,
        what: format!("{what} of array `{name}`"),
        needed: needed as u64,
        available: size,
    };
    match head.get(..MAGIC.len()) {
        Some(MAGIC) => {}
        Some(_) => {
            return Err(malformed(
                name,
                "it does not start with the magic of an array",
            ));
        }
        None => return Err(truncated("the magic", MAGIC.len())),
    }
    let version = head.get(MAGIC.len()..MAGIC.len() + 2);
    let (length, start) = match version {
        Some([1, _]) => {
            let length = head.get(8..10).and_then(<[u8]>::first_chunk);
            (
                length.map(|bytes| u32::from(u16::from_le_bytes(*bytes))),
                10,
            )
        }
        Some([2 | 3, _]) => {
            let length = head.get(8..12).and_then(<[u8]>::first_chunk);
            (length.map(|bytes| u32::from_le_bytes(*bytes)), 12)
        }
        Some(other) => {
            return Err(Error::UnsupportedContainer {
                container: CONTAINER,
                what: format!("array `{name}` has version {other:?}"),
            });
        }
        None => return Err(truncated("the version", 8)),
    };
    let length = length.ok_or_else(|| truncated("the header length", start))?;
    if length > MAX_HEADER as u32 {
        return Err(Error::Limit {
            what: format!("the length of the header of array `{name}`"),
            limit: MAX_HEADER as u64,
            found: length.into(),
        });
    }
    let end = start + length as usize;
    let text = head
        .get(start..end)
        .ok_or_else(|| truncated("the header", end))?;
    match core::str::from_utf8(text) {
        Ok(text) => Ok((text, end as u64)),
        Err(_) => Err(malformed(name, "the header is not text")),
    }
}

fn malformed(name: &str, what: &str) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: format!("array `{name}`: {what}"),
    }
}

/// NumPy's type codes. Byte order `=` and a missing one mean little-endian here: NumPy writes
/// `<`, `>` or `|`.
fn dtype(descr: &str) -> Option<(Dtype, bool)> {
    let (order, code) = match descr.as_bytes() {
        [order @ (b'<' | b'>' | b'|' | b'='), code @ ..] => (*order, code),
        code => (b'=', code),
    };
    let dtype = match code {
        b"f4" => Dtype::F32,
        b"f2" => Dtype::F16,
        b"f8" => Dtype::F64,
        b"i1" => Dtype::I8,
        b"i2" => Dtype::I16,
        b"i4" => Dtype::I32,
        b"i8" => Dtype::I64,
        b"u1" => Dtype::U8,
        b"u2" => Dtype::U16,
        b"u4" => Dtype::U32,
        b"u8" => Dtype::U64,
        b"b1" | b"?" => Dtype::Bool,
        _ => return None,
    };
    Some((dtype, order == b'>'))
}

/// The three entries of the dictionary.
#[derive(Default)]
struct Fields {
    /// The type; for structured types the literal as it stands.
    descr: Option<String>,
    fortran_order: Option<bool>,
    shape: Option<Vec<u64>>,
}

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        let mut literal = Literal { rest: text };
        let mut fields = Fields::default();
        literal.expect('{')?;
        while !literal.skip('}') {
            let key = literal.string()?;
            literal.expect(':')?;
            let twice = match key {
                "descr" => fields.descr.replace(literal.descr()?).is_some(),
                "fortran_order" => fields.fortran_order.replace(literal.boolean()?).is_some(),
                "shape" => fields.shape.replace(literal.tuple()?).is_some(),
                _ => return Err(format!("unknown key `{}`", quoted(key.as_bytes()))),
            };
            if twice {
                return Err(format!("`{key}` occurs twice"));
            }
            if !literal.skip(',') {
                literal.expect('}')?;
                break;
            }
        }
        match literal.rest.trim_ascii() {
            "" => Ok(fields),
            rest => Err(format!(
                "`{}` after the dictionary",
                quoted(rest.as_bytes())
            )),
        }
    }
}

/// Reads the few Python literals that a header may hold, without recursion.
struct Literal<'t> {
    rest: &'t str,
}

impl<'t> Literal<'t> {
    fn skip(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.skip(c) {
            return Ok(());
        }
        Err(format!(
            "expected `{c}` at `{}`",
            quoted(self.rest.as_bytes())
        ))
    }

    fn string(&mut self) -> Result<&'t str, String> {
        self.rest = self.rest.trim_ascii_start();
        let mut characters = self.rest.chars();
        let quote = characters.next().filter(|c| matches!(c, '\'' | '"'));
        let body = characters.as_str();
        let found = quote.and_then(|quote| body.split_once(quote));
        match found {
            Some((text, rest)) if !text.contains(['\\', '\n']) => {
                self.rest = rest;
                Ok(text)
            }
            _ => Err(format!(
                "expected a string at `{}`",
                quoted(self.rest.as_bytes())
            )),
        }
    }

    /// A type: a string, or a list of fields, of which only the text is kept for the message.
    fn descr(&mut self) -> Result<String, String> {
        if self.rest.trim_ascii_start().starts_with('[') {
            // The array is refused whatever follows, so nothing after the type is read.
            let rest = core::mem::replace(&mut self.rest, "}").trim_ascii();
            let end = rest.rfind(']').map_or(rest.len(), |end| end + 1);
            return Ok(rest.get(..end).unwrap_or(rest).to_owned());
        }
        self.string().map(ToOwned::to_owned)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.rest = self.rest.trim_ascii_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(format!(
            "expected True or False at `{}`",
            quoted(self.rest.as_bytes())
        ))
    }

    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        self.expect('(')?;
        while !self.skip(')') {
            numbers.push(self.number()?);
            if numbers.len() > MAX_DIMENSIONS {
                return Err(format!("more than {MAX_DIMENSIONS} dimensions"));
            }
            if !self.skip(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(numbers)
    }

    /// A dimension. Python 2 wrote a trailing `L`.
    fn number(&mut self) -> Result<u64, String> {
        self.rest = self.rest.trim_ascii_start();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let number = digits
            .parse()
            .map_err(|_| format!("expected a dimension at `{}`", quoted(self.rest.as_bytes())))?;
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Result<(String, bool, Vec<u64>), String> {
        let fields = Fields::parse(text)?;
        Ok((
            fields.descr.ok_or("descr")?,
            fields.fortran_order.ok_or("order")?,
            fields.shape.ok_or("shape")?,
        ))
    }

    #[test]
    fn dictionaries_of_all_writers() {
        let expected = Ok(("<f4".to_owned(), false, vec![3, 4]));
        for text in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }          \n",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L), }\n",
            "{\"shape\":(3,4,),\"fortran_order\":False,\"descr\":\"<f4\"}",
        ] {
            assert_eq!(fields(text), expected, "{text}");
        }
        let scalar = "{'descr': '>i8', 'fortran_order': True, 'shape': ()}";
        assert_eq!(fields(scalar), Ok((">i8".to_owned(), true, vec![])));
    }

    #[test]
    fn structured_types_keep_their_text() {
        let text = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }";
        let descr = Fields::parse(text).ok().and_then(|fields| fields.descr);
        assert!(descr.is_some_and(|descr| descr.starts_with("[('a'")));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "{",
            "{'descr': '<f4' 'fortran_order': False}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} or evil()",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
            "{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (1,)}",
        ] {
            assert!(fields(text).is_err(), "{text}");
        }
    }
}
