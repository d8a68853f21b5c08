//! Files of `torch.save`: a zip archive with a pickle in it and one member for each storage, or
//! (before torch 1.6) a stream of pickles with the storages behind them. Bare pickles of plain
//! data are read too.
//!
//! The pickle says which storage, offset, shape and strides each tensor has; the tensor is then a
//! strided view of the mapped bytes. Dictionaries inside dictionaries become dotted names
//! (`state_dict.encoder.weight`), lists of tensors numbered ones; everything that is no tensor
//! becomes metadata. A file that is one tensor has one entry with an empty name.

use super::pickle::{Pickle, Storage, TensorParts, Value};
use super::zip::Member;
use super::{Archive, Checks, Entry, MAX_TENSORS, quoted};
use crate::bytes::Bytes;
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::{Map, Number, Value as Json};

const CONTAINER: &str = "torch";

/// The first bytes of the old format: a pickle of the number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

/// The version that follows the magic number.
const LEGACY_PROTOCOL: i64 = 1001;

/// Longest name of a tensor or value with its prefixes, in bytes.
pub const MAX_NAME: usize = 512;

/// Deepest nesting of plain data and of dictionaries.
pub const MAX_DEPTH: usize = 32;

/// Most plain values that a file may hold, counted as often as they are referred to.
pub const MAX_PLAIN_VALUES: usize = 1 << 17;

/// Strides of 0 repeat elements; a tensor with more elements than its storage may take this many
/// bytes once they are written out.
pub const MAX_REPEATED_BYTES: u64 = 16 << 20;

/// The name of the pickle in a zip archive of `torch.save`.
pub(super) fn find_pickle(members: &[Member<'_>]) -> Option<String> {
    let mut names = members.iter().map(|member| member.name.as_str());
    let pickle = names.find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))?;
    Some(pickle.into())
}

/// Reads the zip form.
pub(super) fn read_zip<'a>(
    members: Vec<Member<'a>>,
    pickle: &str,
    checks: Checks,
) -> Result<Archive<'a>, Error> {
    let top = pickle.strip_suffix("data.pkl").unwrap_or_default();
    let mut archive = Archive::new(CONTAINER);
    let mut storages = BTreeMap::new();
    let mut program = Vec::new();
    let mut unchecked = 0;
    for member in &members {
        let inner = member.name.strip_prefix(top).unwrap_or(&member.name);
        match inner {
            "data.pkl" => program = whole(member)?,
            _ if inner.ends_with("/data.pkl") => {
                let name = quoted(member.name.as_bytes());
                return Err(malformed(format!(
                    "there are two pickles: `{pickle}`, `{name}`"
                )));
            }
            "byteorder" => {
                let order = whole(member)?;
                if order != b"little" {
                    return Err(Error::UnsupportedContainer {
                        container: CONTAINER,
                        what: format!("byte order `{}`", quoted(&order)),
                    });
                }
            }
            "version" | ".format_version" | ".storage_alignment" | ".data/serialization_id" => {}
            _ => match inner.strip_prefix("data/") {
                Some(key) => {
                    storages.insert(key, member);
                }
                None => {
                    let name = quoted(member.name.as_bytes());
                    archive
                        .notes
                        .push(format!("ignored archive member `{name}`"));
                }
            },
        }
    }
    let pickle = Pickle::read(&program)?;
    if pickle.length != program.len() {
        let rest = program.len() - pickle.length;
        return Err(malformed(format!("{rest} bytes follow the pickle")));
    }
    let mut used = BTreeSet::new();
    let mut data = Vec::new();
    for storage in &pickle.storages {
        let name = quoted(storage.key.as_bytes());
        let member = *storages
            .get(storage.key)
            .ok_or_else(|| malformed(format!("storage `{name}` is not in the archive")))?;
        if size(storage) != Some(member.size) {
            return Err(malformed(format!(
                "storage `{name}` has {} bytes, the pickle says {} elements of {}",
                member.size, storage.elements, storage.dtype
            )));
        }
        if used.insert(storage.key) && !member.is_deflated() {
            if checks.checksums {
                member.check()?;
            } else {
                unchecked += 1;
            }
        }
        data.push(Data::Member(member.clone()));
    }
    for key in storages.keys().filter(|key| !used.contains(*key)) {
        let name = quoted(key.as_bytes());
        archive
            .notes
            .push(format!("no tensor uses storage `{name}`"));
    }
    checks.note(unchecked, "storages", &mut archive.notes);
    Walk::new(&pickle, &data, &mut archive).run()?;
    Ok(archive)
}

/// Reads a pickle: the old format of `torch.save`, or plain data.
pub(super) fn read_stream<'a>(bytes: &Bytes<'a>) -> Result<Archive<'a>, Error> {
    let all = bytes.as_slice();
    let mut archive = Archive::new(CONTAINER);
    if !all.starts_with(LEGACY_MAGIC) {
        let pickle = Pickle::read(all)?;
        if let Some(storage) = pickle.storages.first() {
            let name = quoted(storage.key.as_bytes());
            return Err(malformed(format!("storage `{name}` is not in the pickle")));
        }
        note_rest(all.len() - pickle.length, &mut archive);
        Walk::new(&pickle, &[], &mut archive).run()?;
        return Ok(archive);
    }
    let mut at = LEGACY_MAGIC.len();
    let mut next = || -> Result<Pickle<'_>, Error> {
        let pickle = Pickle::read(all.get(at..).unwrap_or_default())?;
        at += pickle.length;
        Ok(pickle)
    };
    let protocol = next()?;
    let Value::Int(LEGACY_PROTOCOL) = protocol.root else {
        return Err(Error::UnsupportedContainer {
            container: CONTAINER,
            what: format!("a stream whose protocol is not {LEGACY_PROTOCOL}"),
        });
    };
    check_system(&next()?)?;
    let pickle = next()?;
    let keys = next()?;
    let keys = match keys.root {
        Value::List(index) => keys.lists.get(index).map_or(&[][..], |list| list),
        _ => return Err(malformed("the list of storages is missing")),
    };
    let mut storages: BTreeMap<&str, Bytes<'a>> = BTreeMap::new();
    for key in keys {
        let Value::Text(key) = key else {
            return Err(malformed("a storage without a name"));
        };
        let storage = pickle.storages.iter().find(|storage| storage.key == *key);
        let name = quoted(key.as_bytes());
        let storage =
            storage.ok_or_else(|| malformed(format!("no tensor uses storage `{name}`")))?;
        let truncated = |needed: u64| Error::Truncated {
            container: CONTAINER,
            what: format!("storage `{name}`"),
            needed,
            available: all.len() as u64,
        };
        let count = all.get(at..).and_then(<[u8]>::first_chunk::<8>);
        let count = count.ok_or_else(|| truncated((at as u64).saturating_add(8)))?;
        at += 8;
        if u64::from_le_bytes(*count) != storage.elements {
            return Err(malformed(format!(
                "storage `{name}` has {} elements, the pickle says {}",
                u64::from_le_bytes(*count),
                storage.elements
            )));
        }
        let length = size(storage).unwrap_or(u64::MAX);
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length));
        let part = end.and_then(|end| bytes.slice(at..end));
        let part = part.ok_or_else(|| truncated((at as u64).saturating_add(length)))?;
        at += part.len();
        if storages.insert(key, part).is_some() {
            return Err(malformed(format!("storage `{name}` occurs twice")));
        }
    }
    note_rest(all.len() - at, &mut archive);
    let mut data = Vec::new();
    for storage in &pickle.storages {
        let part = storages.get(storage.key);
        let name = quoted(storage.key.as_bytes());
        let part = part.ok_or_else(|| malformed(format!("storage `{name}` is not in the file")))?;
        if size(storage) != Some(part.len() as u64) {
            return Err(malformed(format!(
                "storage `{name}` has {} bytes, the pickle says {} elements of {}",
                part.len(),
                storage.elements,
                storage.dtype
            )));
        }
        data.push(Data::InPlace(part.clone()));
    }
    Walk::new(&pickle, &data, &mut archive).run()?;
    Ok(archive)
}

fn note_rest(rest: usize, archive: &mut Archive<'_>) {
    if rest > 0 {
        archive
            .notes
            .push(format!("ignored {rest} bytes behind the data"));
    }
}

/// Only little-endian machines write what can be read in place.
fn check_system(system: &Pickle<'_>) -> Result<(), Error> {
    let facts = match system.root {
        Value::Dict(index) => system.dicts.get(index).map_or(&[][..], |dict| dict),
        _ => &[],
    };
    let little = facts.iter().find_map(|fact| match fact {
        (Value::Text("little_endian"), Value::Bool(little)) => Some(*little),
        _ => None,
    });
    match little {
        Some(true) => Ok(()),
        Some(false) => Err(Error::UnsupportedContainer {
            container: CONTAINER,
            what: "byte order big".into(),
        }),
        None => Err(malformed("the stream does not say its byte order")),
    }
}

fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: what.into(),
    }
}

fn size(storage: &Storage<'_>) -> Option<u64> {
    storage.elements.checked_mul(storage.dtype.size() as u64)
}

/// A small member, whole and verified.
fn whole(member: &Member<'_>) -> Result<Vec<u8>, Error> {
    if member.size > MAX_PICKLE {
        return Err(Error::Limit {
            what: format!("the size of `{}`", quoted(member.name.as_bytes())),
            limit: MAX_PICKLE,
            found: member.size,
        });
    }
    member.inflate(0, member.size)
}

/// Largest pickle of a zip archive that is read, in bytes.
pub const MAX_PICKLE: u64 = 16 << 20;

/// The bytes of a storage.
enum Data<'a> {
    InPlace(Bytes<'a>),
    Member(Member<'a>),
}

/// Walks what the pickle built, giving every tensor and value its name.
struct Walk<'w, 'p, 'a> {
    pickle: &'w Pickle<'p>,
    data: &'w [Data<'a>],
    archive: &'w mut Archive<'a>,
    names: BTreeSet<String>,
    /// Values still to be visited, the next one last.
    open: Vec<(String, Value<'p>, usize)>,
    visited: usize,
}

impl<'w, 'p, 'a> Walk<'w, 'p, 'a> {
    fn new(pickle: &'w Pickle<'p>, data: &'w [Data<'a>], archive: &'w mut Archive<'a>) -> Self {
        Walk {
            pickle,
            data,
            archive,
            names: BTreeSet::new(),
            open: Vec::new(),
            visited: 0,
        }
    }

    fn run(mut self) -> Result<(), Error> {
        match self.pickle.root {
            root @ (Value::Dict(_) | Value::Tensor(_)) => {
                self.open.push((String::new(), root, 0));
            }
            other => {
                let kind = Pickle::kind(other);
                return Err(malformed(format!(
                    "the file is {kind}, not tensors with names"
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
                    let key = match key {
                        Value::Text(text) => text.to_string(),
                        Value::Int(number) => number.to_string(),
                        other => {
                            let kind = Pickle::kind(*other);
                            return Err(malformed(format!("{kind} as a key below `{name}`")));
                        }
                    };
                    let name = join(&name, &key, depth)?;
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
                    let name = join(&name, &i.to_string(), depth)?;
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
            Data::Member(member) => match member.stored() {
                Some(bytes) => {
                    let bytes = bytes.slice(start..bytes.len());
                    let bytes = bytes.ok_or_else(|| wrong("starts outside its storage"))?;
                    let tensor = Tensor::with_strides(name, dtype, &shape, &strides, bytes)?;
                    Ok(Entry::in_place(tensor))
                }
                None => Ok(Entry::storage(
                    name,
                    member.clone(),
                    dtype,
                    shape,
                    strides,
                    start,
                )),
            },
        }
    }

    /// Plain data as JSON. Floats that JSON has no number for become texts; bytes are left out,
    /// with a note.
    fn plain(&mut self, name: &str, value: Value<'p>) -> Result<Json, Error> {
        /// A list or dictionary that is being built.
        struct Frame<'w, 'p> {
            items: &'w [Value<'p>],
            pairs: &'w [(Value<'p>, Value<'p>)],
            array: Vec<Json>,
            object: Map<String, Json>,
            is_object: bool,
        }
        let pickle = self.pickle;
        let mut frames: Vec<Frame<'w, 'p>> = Vec::new();
        let mut next = Some(value);
        loop {
            let done = match next.take() {
                Some(Value::List(index) | Value::Tuple(index)) => {
                    frames.push(Frame {
                        items: pickle.lists.get(index).map_or(&[][..], |list| list),
                        pairs: &[],
                        array: Vec::new(),
                        object: Map::new(),
                        is_object: false,
                    });
                    None
                }
                Some(Value::Dict(index)) => {
                    frames.push(Frame {
                        items: &[],
                        pairs: pickle.dicts.get(index).map_or(&[][..], |dict| dict),
                        array: Vec::new(),
                        object: Map::new(),
                        is_object: true,
                    });
                    None
                }
                Some(scalar) => Some(self.scalar(name, scalar)?),
                None => None,
            };
            if frames.len() > MAX_DEPTH {
                return Err(malformed(format!(
                    "`{name}` is nested deeper than {MAX_DEPTH}"
                )));
            }
            // A finished value goes into the innermost frame; full frames are finished values.
            let mut done = done;
            loop {
                let Some(frame) = frames.last_mut() else {
                    return done.ok_or_else(|| malformed("an empty value"));
                };
                if let Some(json) = done.take() {
                    if !frame.is_object {
                        frame.array.push(json);
                        frame.items = frame.items.get(1..).unwrap_or_default();
                    } else {
                        if let Some((key, _)) = frame.pairs.first() {
                            let key = match key {
                                Value::Text(text) => text.to_string(),
                                Value::Int(number) => number.to_string(),
                                other => Pickle::kind(*other).into(),
                            };
                            frame.object.insert(key, json);
                        }
                        frame.pairs = frame.pairs.get(1..).unwrap_or_default();
                    }
                }
                let pair = frame.pairs.first().map(|(_, value)| *value);
                match frame.items.first().copied().or(pair) {
                    Some(value) => {
                        next = Some(value);
                        break;
                    }
                    None => {
                        done = frames.pop().map(|frame| {
                            if frame.is_object {
                                Json::Object(frame.object)
                            } else {
                                Json::Array(frame.array)
                            }
                        });
                    }
                }
            }
            self.count()?;
        }
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
            Value::Text(text) => Json::String(text.into()),
            Value::Global(super::pickle::Global::Dtype(text)) => Json::String(text.into()),
            Value::Big(bytes) | Value::Bytes(bytes) => {
                let (kind, length) = (Pickle::kind(value), bytes.len());
                let name = quoted(name.as_bytes());
                let note = format!("left out {kind} of {length} bytes at `{name}`");
                self.archive.notes.push(note);
                Json::Null
            }
            other => {
                let (kind, name) = (Pickle::kind(other), quoted(name.as_bytes()));
                return Err(malformed(format!(
                    "{kind} inside the plain data of `{name}`"
                )));
            }
        })
    }
}

/// `a.b` below `a`; the outermost dictionary has no name.
fn join(prefix: &str, key: &str, depth: usize) -> Result<String, Error> {
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
    Ok(name)
}
