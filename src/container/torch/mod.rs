//! Files of `torch.save`: a zip archive with a pickle in it and one member for each storage, or
//! (before torch 1.6) a stream of pickles with the storages behind them. What `pickle.dump` writes
//! is read too: there each storage is a small stream inside of the pickle.
//!
//! The pickle says which storage, offset, shape and strides each tensor has; the tensor is then a
//! strided view of the mapped bytes. Dictionaries inside dictionaries become dotted names
//! (`state_dict.encoder.weight`), lists of tensors numbered ones; everything that is no tensor
//! becomes metadata. A file that is one tensor has one entry with an empty name.

mod pickle;
mod value;
mod walk;

pub use walk::{MAX_DEPTH, MAX_NAME, MAX_PLAIN_VALUES, MAX_REPEATED_BYTES, MAX_TEXT};

use super::zip::Member;
use super::{Archive, Checks, quoted};
use crate::bytes::Bytes;
use crate::error::Error;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use pickle::Pickle;
use value::{Storage, Value};
use walk::{Data, Walk};

const CONTAINER: &str = "torch";

/// The first bytes of the old format: a pickle of the number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

/// The version that follows the magic number.
const LEGACY_PROTOCOL: i64 = 1001;

/// Largest pickle of a zip archive that is read, in bytes.
pub const MAX_PICKLE: u64 = 16 << 20;

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
        not_inside(storage)?;
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
        data.push(match member.stored() {
            Some(bytes) => Data::InPlace(bytes.clone()),
            None => Data::Deflated(member.clone()),
        });
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
        let mut data = Vec::new();
        for storage in &pickle.storages {
            let name = quoted(storage.key.as_bytes());
            let part = storage.contents;
            let part =
                part.ok_or_else(|| malformed(format!("storage `{name}` is not in the pickle")))?;
            // A part of `all`: the same bytes, to be kept.
            let start = part.as_ptr().addr().wrapping_sub(all.as_ptr().addr());
            let part = bytes.slice(start..start.saturating_add(part.len()));
            let part = part.ok_or_else(|| malformed("a storage outside the file"))?;
            data.push(Data::InPlace(part));
        }
        note_rest(all.len() - pickle.length, &mut archive);
        Walk::new(&pickle, &data, &mut archive).run()?;
        return Ok(archive);
    }
    let stream = Stream::read(all, Pickle::read)?;
    note_rest(all.len() - stream.end, &mut archive);
    let mut data = Vec::new();
    for storage in &stream.pickle.storages {
        not_inside(storage)?;
        let part = stream.part(storage)?;
        let part = bytes
            .slice(part)
            .ok_or_else(|| malformed("a storage outside the file"))?;
        data.push(Data::InPlace(part));
    }
    Walk::new(&stream.pickle, &data, &mut archive).run()?;
    Ok(archive)
}

/// A file of the old format: where the pickle of its object leaves off, the storages follow.
struct Stream<'p> {
    pickle: Pickle<'p>,
    storages: BTreeMap<&'p str, Range<usize>>,
    end: usize,
}

impl<'p> Stream<'p> {
    /// Reads the pickles by `run`, and finds the storages.
    fn read(
        all: &'p [u8],
        mut run: impl FnMut(&'p [u8]) -> Result<Pickle<'p>, Error>,
    ) -> Result<Self, Error> {
        let mut at = LEGACY_MAGIC.len();
        let mut next = || -> Result<Pickle<'p>, Error> {
            let pickle = run(all.get(at..).unwrap_or_default())?;
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
        // The first of each name, as the last to be collected.
        let described = pickle.storages.iter().rev();
        let first: BTreeMap<&str, &Storage<'_>> =
            described.map(|storage| (storage.key, storage)).collect();
        let mut storages: BTreeMap<&'p str, Range<usize>> = BTreeMap::new();
        for key in keys {
            let Value::Text(key) = key else {
                return Err(malformed("a storage without a name"));
            };
            let storage = first.get(key).copied();
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
            let end = end.filter(|&end| end <= all.len());
            let end = end.ok_or_else(|| truncated((at as u64).saturating_add(length)))?;
            let part = at..end;
            at = end;
            if storages.insert(key, part).is_some() {
                return Err(malformed(format!("storage `{name}` occurs twice")));
            }
        }
        Ok(Stream {
            pickle,
            storages,
            end: at,
        })
    }

    /// Where a storage lies in the file.
    fn part(&self, storage: &Storage<'_>) -> Result<Range<usize>, Error> {
        let part = self.storages.get(storage.key).cloned();
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
        Ok(part)
    }
}

/// The one storage that a file of the old format holds, with its bytes.
fn storage_alone<'p>(
    all: &'p [u8],
    run: impl FnMut(&'p [u8]) -> Result<Pickle<'p>, Error>,
) -> Result<Storage<'p>, Error> {
    if !all.starts_with(LEGACY_MAGIC) {
        return Err(malformed(
            "the bytes of a storage are no file of the old format",
        ));
    }
    let stream = Stream::read(all, run)?;
    let storage = match stream.pickle.root {
        Value::Storage(index) => stream.pickle.storages.get(index).copied(),
        _ => None,
    };
    let storage = storage.ok_or_else(|| malformed("the bytes of a storage hold something else"))?;
    let part = stream.part(&storage)?;
    Ok(Storage {
        contents: all.get(part),
        ..storage
    })
}

/// Storages inside of the pickle belong to `pickle.dump`, which puts all of them there.
fn not_inside(storage: &Storage<'_>) -> Result<(), Error> {
    match storage.contents {
        None => Ok(()),
        Some(_) => {
            let name = quoted(storage.key.as_bytes());
            Err(malformed(format!(
                "storage `{name}` lies in the pickle and not in the file"
            )))
        }
    }
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
