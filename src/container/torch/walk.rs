//! From what a pickle built to entries and metadata with dotted names. The walk visits shared
//! values as often as they are referred to and counts, so that references cannot make it long.

use super::malformed;
use super::pickle::Pickle;
use super::value::{Global, TensorParts, Value, kind};
use crate::bytes::Bytes;
use crate::container::zip::Member;
use crate::container::{Archive, Entry, MAX_TENSORS, quoted};
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::slice::Iter;
use serde_json::{Map, Number, Value as Json};

/// Longest name of a tensor or value with its prefixes, in bytes.
pub const MAX_NAME: usize = 512;

/// Deepest nesting of plain data and of dictionaries.
pub const MAX_DEPTH: usize = 32;

/// Most plain values that a file may hold, counted as often as they are referred to.
pub const MAX_PLAIN_VALUES: usize = 1 << 17;

/// Most bytes of all names and texts together, counted as often as they are referred to.
pub const MAX_TEXT: usize = 8 << 20;

/// Strides of 0 repeat elements; a tensor with more elements than its storage may take this many
/// bytes once they are written out.
pub const MAX_REPEATED_BYTES: u64 = 16 << 20;

/// The bytes of a storage.
pub(super) enum Data<'a> {
    InPlace(Bytes<'a>),
    Deflated(Member<'a>),
}

/// Walks what the pickle built, giving every tensor and value its name.
pub(super) struct Walk<'w, 'p, 'a> {
    pickle: &'w Pickle<'p>,
    data: &'w [Data<'a>],
    archive: &'w mut Archive<'a>,
    names: BTreeSet<String>,
    /// Values still to be visited, the next one last.
    open: Vec<(String, Value<'p>, usize)>,
    visited: usize,
    /// Bytes of text that were copied out of the pickle.
    copied: usize,
}

impl<'w, 'p, 'a> Walk<'w, 'p, 'a> {
    pub(super) fn new(
        pickle: &'w Pickle<'p>,
        data: &'w [Data<'a>],
        archive: &'w mut Archive<'a>,
    ) -> Self {
        Walk {
            pickle,
            data,
            archive,
            names: BTreeSet::new(),
            open: Vec::new(),
            visited: 0,
            copied: 0,
        }
    }

    pub(super) fn run(mut self) -> Result<(), Error> {
        match self.pickle.root {
            root @ (Value::Dict(_) | Value::Tensor(_)) => {
                self.open.push((String::new(), root, 0));
            }
            other => {
                let what = kind(other);
                return Err(malformed(format!(
                    "the file is {what}, not tensors with names"
                )));
            }
        }
        while let Some((name, value, depth)) = self.open.pop() {
            self.visit(name, value, depth)?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        self.visited += 1;
        if self.visited > MAX_PLAIN_VALUES {
            return Err(malformed(format!(
                "more than {MAX_PLAIN_VALUES} values, counting references"
            )));
        }
        Ok(())
    }

    fn visit(&mut self, name: String, value: Value<'p>, depth: usize) -> Result<(), Error> {
        self.count()?;
        if depth > MAX_DEPTH {
            return Err(malformed(format!("nested deeper than {MAX_DEPTH}")));
        }
        match value {
            Value::Tensor(index) => {
                let parts = self.pickle.tensors.get(index);
                let parts = parts.ok_or_else(|| malformed("a tensor without parts"))?;
                self.claim(&name)?;
                let entry = self.entry(name, parts)?;
                self.archive.entries.push(entry);
            }
            Value::Dict(index) => {
                let pairs = self.pickle.dicts.get(index).map_or(&[][..], |dict| dict);
                for (key, value) in pairs.iter().rev() {
                    let key = self.key(&name, *key)?;
                    let name = self.join(&name, &key, depth)?;
                    self.enqueue(name, *value, depth)?;
                }
            }
            Value::List(index) | Value::Tuple(index)
                if self
                    .items(index)
                    .iter()
                    .any(|item| matches!(item, Value::Tensor(_))) =>
            {
                for (i, item) in self.items(index).iter().enumerate().rev() {
                    let name = self.join(&name, &i.to_string(), depth)?;
                    self.enqueue(name, *item, depth)?;
                }
            }
            plain => {
                self.claim(&name)?;
                let json = self.plain(&name, plain)?;
                self.archive.metadata.push((name, json));
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, name: String, value: Value<'p>, depth: usize) -> Result<(), Error> {
        if self.open.len() > MAX_TENSORS {
            return Err(malformed(format!("more than {MAX_TENSORS} names")));
        }
        self.open.push((name, value, depth + 1));
        Ok(())
    }

    fn claim(&mut self, name: &str) -> Result<(), Error> {
        if self.names.len() >= MAX_TENSORS {
            return Err(malformed(format!("more than {MAX_TENSORS} names")));
        }
        if self.names.insert(name.into()) {
            return Ok(());
        }
        let name = quoted(name.as_bytes());
        Err(malformed(format!("the name `{name}` occurs twice")))
    }

    fn items(&self, index: usize) -> &'w [Value<'p>] {
        self.pickle.lists.get(index).map_or(&[][..], |list| list)
    }

    /// Shape, strides and offset of a tensor over its storage, checked.
    fn entry(&self, name: String, parts: &TensorParts) -> Result<Entry<'a>, Error> {
        let storage = self.pickle.storages.get(parts.storage);
        let data = self.data.get(parts.storage);
        let (Some(storage), Some(data)) = (storage, data) else {
            return Err(malformed("a tensor without a storage"));
        };
        let dtype = storage.dtype;
        let wrong = |what: &str| {
            malformed(format!(
                "tensor `{}`: {dtype} of shape {:?}, strides {:?} from element {} {what}",
                quoted(name.as_bytes()),
                parts.shape,
                parts.strides,
                parts.offset
            ))
        };
        let (view_start, view_elements) = storage.view.unwrap_or((0, storage.elements));
        if view_start
            .checked_add(view_elements)
            .is_none_or(|end| end > storage.elements)
        {
            return Err(wrong("lies in a view that leaves its storage"));
        }
        if parts.shape.len() != parts.strides.len() {
            return Err(wrong("has not one stride for each dimension"));
        }
        let elements = parts.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let elements = elements.ok_or_else(|| wrong("has too many elements"))?;
        let bytes = elements.saturating_mul(dtype.size() as u64);
        if elements > view_elements && bytes > MAX_REPEATED_BYTES {
            return Err(wrong("repeats its storage too often"));
        }
        let reach = parts
            .shape
            .iter()
            .zip(&parts.strides)
            .try_fold(1, |sum: u64, (&n, &stride)| {
                n.saturating_sub(1).checked_mul(stride)?.checked_add(sum)
            });
        let end = reach.and_then(|reach| reach.checked_add(parts.offset));
        if elements > 0 && end.is_none_or(|end| end > view_elements) {
            return Err(wrong(&format!("leaves its storage of {view_elements}")));
        }
        let convert = |list: &[u64]| -> Result<Vec<usize>, Error> {
            let convert = |&n| usize::try_from(n).map_err(|_| wrong("is beyond the address space"));
            list.iter().map(convert).collect()
        };
        let (shape, strides) = (convert(&parts.shape)?, convert(&parts.strides)?);
        let first = if elements == 0 {
            0
        } else {
            view_start + parts.offset
        };
        // Inside the storage, whose size was compared with the file.
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let start = first.saturating_mul(dtype.size());
        match data {
            Data::InPlace(bytes) => {
                let bytes = bytes.slice(start..bytes.len());
                let bytes = bytes.ok_or_else(|| wrong("starts outside its storage"))?;
                let tensor = Tensor::with_strides(name, dtype, &shape, &strides, bytes)?;
                Ok(Entry::in_place(tensor))
            }
            Data::Deflated(member) => {
                let member = member.clone();
                Ok(Entry::storage(name, member, dtype, shape, strides, start))
            }
        }
    }

    /// Plain data as JSON. Floats that JSON has no number for become texts; bytes are left out,
    /// with a note.
    fn plain(&mut self, name: &str, root: Value<'p>) -> Result<Json, Error> {
        let pickle = self.pickle;
        let mut open: Vec<Partial<'w, 'p>> = Vec::new();
        let mut value = root;
        loop {
            self.count()?;
            let mut done = match value {
                Value::List(index) | Value::Tuple(index) => {
                    let items = pickle.lists.get(index).map_or(&[][..], |list| list);
                    open.push(Partial::List(items.iter(), Vec::new()));
                    None
                }
                Value::Dict(index) => {
                    let pairs = pickle.dicts.get(index).map_or(&[][..], |dict| dict);
                    open.push(Partial::Dict(pairs.iter(), None, Map::new()));
                    None
                }
                scalar => Some(self.scalar(name, scalar)?),
            };
            if open.len() > MAX_DEPTH {
                let name = quoted(name.as_bytes());
                let what = format!("`{name}` is nested deeper than {MAX_DEPTH}");
                return Err(malformed(what));
            }
            // What is done goes into the innermost container; a full container is done too.
            value = loop {
                match open.last_mut() {
                    Some(Partial::List(items, array)) => {
                        array.extend(done.take());
                        if let Some(item) = items.next() {
                            break *item;
                        }
                    }
                    Some(Partial::Dict(pairs, key, object)) => {
                        if let (Some(key), Some(json)) = (key.take(), done.take())
                            && object.insert(key, json).is_some()
                        {
                            let name = quoted(name.as_bytes());
                            return Err(malformed(format!("a key occurs twice in `{name}`")));
                        }
                        if let Some((next, value)) = pairs.next() {
                            *key = Some(self.key(name, *next)?);
                            break *value;
                        }
                    }
                    None => return done.ok_or_else(|| malformed("a value without a value")),
                }
                done = open.pop().map(Partial::finish);
            };
        }
    }

    /// A key of a dictionary as text.
    fn key(&mut self, name: &str, key: Value<'p>) -> Result<String, Error> {
        match key {
            Value::Text(text) => self.text(text),
            Value::Int(number) => Ok(number.to_string()),
            other => {
                let (what, name) = (kind(other), quoted(name.as_bytes()));
                Err(malformed(format!("{what} as a key below `{name}`")))
            }
        }
    }

    /// A copy of a text, which the pickle may refer to any number of times.
    fn text(&mut self, text: &str) -> Result<String, Error> {
        self.copied += text.len();
        if self.copied > MAX_TEXT {
            let what = format!("more than {MAX_TEXT} bytes of text, counting references");
            return Err(malformed(what));
        }
        Ok(text.into())
    }

    fn scalar(&mut self, name: &str, value: Value<'p>) -> Result<Json, Error> {
        Ok(match value {
            Value::None => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Int(number) => Json::from(number),
            Value::Float(number) => match Number::from_f64(number) {
                Some(number) => Json::Number(number),
                None => Json::String(number.to_string()),
            },
            Value::Text(text) => Json::String(self.text(text)?),
            Value::Global(Global::Dtype(text)) => Json::String(text.into()),
            Value::Big(bytes) | Value::Bytes(bytes) => {
                let (what, length) = (kind(value), bytes.len());
                let name = quoted(name.as_bytes());
                let note = format!("left out {what} of {length} bytes at `{name}`");
                self.archive.notes.push(note);
                Json::Null
            }
            other => {
                let (what, name) = (kind(other), quoted(name.as_bytes()));
                return Err(malformed(format!(
                    "{what} inside the plain data of `{name}`"
                )));
            }
        })
    }

    /// `a.b` below `a`; the outermost dictionary has no name.
    fn join(&mut self, prefix: &str, key: &str, depth: usize) -> Result<String, Error> {
        let name = match depth {
            0 => key.into(),
            _ => format!("{prefix}.{key}"),
        };
        if name.len() > MAX_NAME {
            return Err(Error::Limit {
                what: format!("the length of the name `{}`", quoted(name.as_bytes())),
                limit: MAX_NAME as u64,
                found: name.len() as u64,
            });
        }
        self.text(&name)
    }
}

/// A list or dictionary of which some items are done.
enum Partial<'w, 'p> {
    List(Iter<'w, Value<'p>>, Vec<Json>),
    /// Between the items lies the key of the next one.
    Dict(
        Iter<'w, (Value<'p>, Value<'p>)>,
        Option<String>,
        Map<String, Json>,
    ),
}

impl Partial<'_, '_> {
    fn finish(self) -> Json {
        match self {
            Partial::List(_, array) => Json::Array(array),
            Partial::Dict(_, _, object) => Json::Object(object),
        }
    }
}
