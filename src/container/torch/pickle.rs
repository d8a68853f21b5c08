//! A reader of Python pickles that can build tensors and plain data, and nothing else.
//!
//! A pickle is a program for a stack machine; Python's own reader calls whatever the program
//! names. This one has no way to call anything: a global is either one of the few in [`Global`],
//! which are understood here, or the pickle is refused by that name before the next instruction
//! is read. Instructions that build instances (`NEWOBJ`, `INST`, `OBJ`) and extension codes are
//! refused as such, but for instances of the few config classes that publishers pickle, which
//! become dictionaries of their attributes. Protocols 2 to 5 are read.
//!
//! Bounds: every instruction pushes at most one value, and [`MAX_VALUES`] pushes end the run, so
//! memory is bounded by a constant. Values are shared, not copied, so a pickle that doubles a
//! tuple sixty times by reference costs sixty tuples here; whoever walks the result counts what
//! it visits. Nothing recurses: nesting is data. References may form cycles; walks are bounded in
//! depth.

use super::value::{Global, Storage, TensorParts, Value, global, kind, refused};
use crate::container::quoted;
use crate::error::Error;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const CONTAINER: &str = "pickle";

/// Most values that a pickle may push. A tensor of a state dict takes about 20.
pub(super) const MAX_VALUES: usize = 1 << 18;

/// Most dimensions of a tensor: torch's own limit.
pub(super) const MAX_DIMENSIONS: usize = 64;

/// The result of running a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'p> {
    pub(super) root: Value<'p>,
    pub(super) lists: Vec<Vec<Value<'p>>>,
    pub(super) dicts: Vec<Vec<(Value<'p>, Value<'p>)>>,
    pub(super) storages: Vec<Storage<'p>>,
    pub(super) tensors: Vec<TensorParts>,
    /// Bytes of the pickle; another one may follow.
    pub(super) length: usize,
}

impl<'p> Pickle<'p> {
    /// Runs the pickle at the start of `bytes`.
    pub(super) fn read(bytes: &'p [u8]) -> Result<Self, Error> {
        Self::run(bytes, &mut 0, false)
    }

    /// Runs a pickle inside of a pickle, which has pushed so many values.
    fn run(bytes: &'p [u8], pushed: &mut usize, inside: bool) -> Result<Self, Error> {
        let mut machine = Machine {
            bytes,
            at: 0,
            pushed: *pushed,
            inside,
            bytes_inside: 0,
            instances: BTreeSet::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            pickle: Pickle {
                root: Value::None,
                lists: Vec::new(),
                dicts: Vec::new(),
                storages: Vec::new(),
                tensors: Vec::new(),
                length: 0,
            },
        };
        machine.run()?;
        *pushed = machine.pushed;
        Ok(machine.pickle)
    }
}

fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed {
        container: CONTAINER,
        what: what.into(),
    }
}

struct Machine<'p> {
    bytes: &'p [u8],
    at: usize,
    pushed: usize,
    /// Whether this pickle lies in another one, as the description of a storage.
    inside: bool,
    /// Bytes of all pickles inside of this one.
    bytes_inside: usize,
    /// The dictionaries that are instances of config classes.
    instances: BTreeSet<usize>,
    stack: Vec<Value<'p>>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: Vec<Option<Value<'p>>>,
    pickle: Pickle<'p>,
}

impl<'p> Machine<'p> {
    fn run(&mut self) -> Result<(), Error> {
        let (marker, protocol) = (self.byte()?, self.byte()?);
        if marker != 0x80 || !(2..=5).contains(&protocol) {
            return Err(Error::UnsupportedContainer {
                container: CONTAINER,
                what: format!("it starts with {marker:#04x} {protocol:#04x}, not protocol 2 to 5"),
            });
        }
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                break;
            }
            self.step(opcode)?;
        }
        self.pickle.root = self.pop()?;
        self.pickle.length = self.at;
        if self.stack.is_empty() && self.marks.is_empty() {
            return Ok(());
        }
        Err(self.error("it stops with values left on the stack"))
    }

    fn step(&mut self, opcode: u8) -> Result<(), Error> {
        match opcode {
            0x80 => drop(self.take(1)?), // PROTO
            0x95 => drop(self.take(8)?), // FRAME
            b'(' => self.mark()?,
            b'0' => drop(self.pop()?), // POP
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                // DUP
                let top = self.pop()?;
                self.push(top)?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' | b'M' | b'J' | 0x8a | 0x8b => self.integer(opcode)?,
            b'G' => {
                let bits = self.array::<8>()?;
                self.push(Value::Float(f64::from_be_bytes(bits)))?;
            }
            b'X' | 0x8c | 0x8d | b'U' | b'T' => self.text(opcode)?,
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = self.length(match opcode {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                })?;
                let bytes = self.take(length)?;
                self.push(Value::Bytes(bytes))?;
            }
            b']' | b')' | b'}' | b'l' | b't' | b'd' | 0x85..=0x87 | 0x8f | 0x91 => {
                self.container(opcode)?;
            }
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(opcode)?,
            b'q' | b'r' | 0x94 => self.memoize(opcode)?,
            b'h' | b'j' => {
                let index = self.length(if opcode == b'h' { 1 } else { 4 })?;
                let value = self.memo.get(index).copied().flatten();
                let value = value.ok_or_else(|| self.error("it reads an empty memo slot"))?;
                self.push(value)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = global(module, name)?;
                self.push(Value::Global(global))?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    let global = global(module, name)?;
                    self.push(Value::Global(global))?;
                }
                _ => return Err(self.error("STACK_GLOBAL without two texts")),
            },
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.reduce(callable, arguments)?;
                self.push(value)?;
            }
            b'b' => self.build()?,
            0x81 => {
                // NEWOBJ
                let (arguments, class) = (self.pop()?, self.pop()?);
                let arguments = self.tuple(arguments).map(<[_]>::len);
                if !matches!((class, arguments), (Value::Global(Global::Config), Some(0))) {
                    return Err(refused("an instance of a class"));
                }
                let index = self.new_dict(Vec::new());
                self.instances.insert(index);
                self.push(Value::Dict(index))?;
            }
            b'i' | b'o' | 0x92 => return Err(refused("an instance of a class")),
            0x82..=0x84 => return Err(refused("an extension code")),
            b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' | b'P' => {
                return Err(Error::UnsupportedContainer {
                    container: CONTAINER,
                    what: format!("the text instruction `{}` of protocol 0", opcode as char),
                });
            }
            0x97 | 0x98 => return Err(refused("an out-of-band buffer")),
            _ => return Err(self.error(&format!("unknown instruction {opcode:#04x}"))),
        }
        Ok(())
    }

    // Reading.

    fn error(&self, what: &str) -> Error {
        malformed(format!("{what} (before byte {})", self.at))
    }

    fn take(&mut self, length: usize) -> Result<&'p [u8], Error> {
        let end = self.at.checked_add(length);
        let part = end.and_then(|end| self.bytes.get(self.at..end));
        let part = part.ok_or_else(|| Error::Truncated {
            container: CONTAINER,
            what: format!("the instruction before byte {}", self.at),
            needed: (self.at as u64).saturating_add(length as u64),
            available: self.bytes.len() as u64,
        })?;
        self.at += length;
        Ok(part)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?;
        bytes
            .first_chunk()
            .copied()
            .ok_or_else(|| self.error("a number is cut"))
    }

    /// An unsigned little-endian number of 1, 2, 4 or 8 bytes.
    fn length(&mut self, width: usize) -> Result<usize, Error> {
        let bytes = self.take(width)?;
        let mut wide = [0; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        usize::try_from(u64::from_le_bytes(wide))
            .map_err(|_| self.error("a length beyond the address space"))
    }

    fn line(&mut self) -> Result<&'p str, Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| self.error("a global without an end"))?;
        let line = self.take(length)?;
        self.take(1)?;
        core::str::from_utf8(line).map_err(|_| refused(quoted(line)))
    }

    fn integer(&mut self, opcode: u8) -> Result<(), Error> {
        let value = match opcode {
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            _ => {
                let length = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                let bytes = self.take(length)?;
                let negative = bytes.last().is_some_and(|&top| top >= 0x80);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                if length <= 8 {
                    for (to, from) in wide.iter_mut().zip(bytes) {
                        *to = *from;
                    }
                    Value::Int(i64::from_le_bytes(wide))
                } else {
                    Value::Big(bytes)
                }
            }
        };
        self.push(value)
    }

    fn text(&mut self, opcode: u8) -> Result<(), Error> {
        let length = self.length(match opcode {
            0x8c | b'U' => 1,
            b'X' | b'T' => 4,
            _ => 8,
        })?;
        let bytes = self.take(length)?;
        let value = match core::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text),
            // A `str` of Python 2 may hold anything.
            Err(_) if matches!(opcode, b'U' | b'T') => Value::Bytes(bytes),
            Err(_) => return Err(self.error("a text that is not UTF-8")),
        };
        self.push(value)
    }

    // The stack.

    fn count(&mut self) -> Result<(), Error> {
        self.pushed += 1;
        if self.pushed > MAX_VALUES {
            return Err(malformed(format!("more than {MAX_VALUES} values")));
        }
        Ok(())
    }

    fn push(&mut self, value: Value<'p>) -> Result<(), Error> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), Error> {
        self.count()?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'p>, Error> {
        if self.stack.len() > self.marks.last().copied().unwrap_or(0)
            && let Some(value) = self.stack.pop()
        {
            return Ok(value);
        }
        Err(self.error("it takes a value from an empty stack"))
    }

    /// The values above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value<'p>>, Error> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => Err(self.error("it looks for a mark that is not there")),
        }
    }

    fn memoize(&mut self, opcode: u8) -> Result<(), Error> {
        let index = match opcode {
            b'q' => self.length(1)?,
            b'r' => self.length(4)?,
            _ => self.memo.len(),
        };
        if index > MAX_VALUES {
            return Err(self.error("a memo slot beyond the limit"));
        }
        let value = self.pop()?;
        self.stack.push(value);
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        if let Some(slot) = self.memo.get_mut(index) {
            *slot = Some(value);
        }
        Ok(())
    }

    // Containers.

    fn new_list(&mut self, items: Vec<Value<'p>>) -> usize {
        self.pickle.lists.push(items);
        self.pickle.lists.len() - 1
    }

    fn new_dict(&mut self, pairs: Vec<(Value<'p>, Value<'p>)>) -> usize {
        self.pickle.dicts.push(pairs);
        self.pickle.dicts.len() - 1
    }

    fn container(&mut self, opcode: u8) -> Result<(), Error> {
        let value = match opcode {
            b']' | 0x8f => Value::List(self.new_list(Vec::new())),
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                Value::List(self.new_list(items))
            }
            b')' => Value::Tuple(self.new_list(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                Value::Tuple(self.new_list(items))
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                Value::Tuple(self.new_list(items))
            }
            b'}' => Value::Dict(self.new_dict(Vec::new())),
            _ => {
                let pairs = self.pop_mark()?;
                let pairs = self.pairs(&pairs)?;
                Value::Dict(self.new_dict(pairs))
            }
        };
        self.push(value)
    }

    fn pairs(&self, items: &[Value<'p>]) -> Result<Vec<(Value<'p>, Value<'p>)>, Error> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.error("a key without a value"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    /// APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS.
    fn fill(&mut self, opcode: u8) -> Result<(), Error> {
        let items = match opcode {
            b'a' => Vec::from([self.pop()?]),
            b's' => {
                let value = self.pop()?;
                Vec::from([self.pop()?, value])
            }
            _ => self.pop_mark()?,
        };
        let target = self.pop()?;
        self.stack.push(target);
        match (opcode, target) {
            (b'a' | b'e' | 0x90, Value::List(index)) => {
                if let Some(list) = self.pickle.lists.get_mut(index) {
                    list.extend(items);
                }
                Ok(())
            }
            (b's' | b'u', Value::Dict(index)) => {
                let pairs = self.pairs(&items)?;
                if let Some(dict) = self.pickle.dicts.get_mut(index) {
                    dict.extend(pairs);
                }
                Ok(())
            }
            _ => Err(self.error(&format!("it adds items to {}", kind(target)))),
        }
    }

    fn tuple(&self, value: Value<'p>) -> Option<&[Value<'p>]> {
        match value {
            Value::Tuple(index) => self.pickle.lists.get(index).map(Vec::as_slice),
            _ => None,
        }
    }

    // What torch needs.

    /// `('storage', type, key, location, elements)`; legacy files add a view.
    fn storage(&mut self, id: Value<'p>) -> Result<Value<'p>, Error> {
        let fields = self.tuple(id).unwrap_or_default();
        let (fields, view) = match fields {
            [fields @ .., view] if fields.len() == 5 => (fields, *view),
            fields => (fields, Value::None),
        };
        let [
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            _,
            count,
        ] = fields
        else {
            return Err(match fields {
                [Value::Text(kind), ..] if *kind != "storage" => {
                    refused(format!("persistent id `{}`", quoted(kind.as_bytes())))
                }
                _ => self.error("a persistent id that is not a storage"),
            });
        };
        let (dtype, key, elements) = (*dtype, *key, self.unsigned(*count)?);
        let view = match (view, self.tuple(view)) {
            (Value::None, _) => None,
            (_, Some([_, first, count])) => Some((self.unsigned(*first)?, self.unsigned(*count)?)),
            _ => return Err(self.error("a storage view that is not three values")),
        };
        self.pickle.storages.push(Storage {
            key,
            dtype,
            elements,
            view,
            contents: None,
        });
        Ok(Value::Storage(self.pickle.storages.len() - 1))
    }

    /// A storage as `pickle.dump` writes it: a whole file of the old format, in which the storage
    /// is all there is. Each of its bytes is looked at once: a pickle that refers to the same ones
    /// again and again has more of them than it is long.
    fn storage_from_bytes(&mut self, bytes: &'p [u8]) -> Result<Value<'p>, Error> {
        if self.inside {
            return Err(self.error("a storage inside of the description of a storage"));
        }
        self.bytes_inside = self.bytes_inside.saturating_add(bytes.len());
        if self.bytes_inside > self.bytes.len() {
            return Err(self.error("it reads the same storage again and again"));
        }
        let mut pushed = self.pushed;
        let storage = super::storage_alone(bytes, |part| Pickle::run(part, &mut pushed, true))?;
        self.pushed = pushed;
        self.pickle.storages.push(storage);
        Ok(Value::Storage(self.pickle.storages.len() - 1))
    }

    fn unsigned(&self, value: Value<'p>) -> Result<u64, Error> {
        match value {
            Value::Int(number) => u64::try_from(number)
                .map_err(|_| self.error(&format!("the negative size, stride or offset {number}"))),
            Value::Big(_) => Err(self.error("a size, stride or offset beyond 64 bits")),
            other => Err(self.error(&format!("{} in the place of a size", kind(other)))),
        }
    }

    fn dimensions(&self, value: Value<'p>) -> Result<Vec<u64>, Error> {
        let items = self.tuple(value);
        let items = items.ok_or_else(|| self.error("a shape that is not a tuple"))?;
        if items.len() > MAX_DIMENSIONS {
            return Err(self.error(&format!("more than {MAX_DIMENSIONS} dimensions")));
        }
        items.iter().map(|item| self.unsigned(*item)).collect()
    }

    fn reduce(&mut self, callable: Value<'p>, arguments: Value<'p>) -> Result<Value<'p>, Error> {
        let Value::Global(global) = callable else {
            return Err(self.error(&format!("it calls {}", kind(callable))));
        };
        let given = self.tuple(arguments);
        let given = given.ok_or_else(|| self.error("arguments that are not a tuple"))?;
        match (global, given) {
            (Global::OrderedDict, []) => Ok(Value::Dict(self.new_dict(Vec::new()))),
            (Global::OrderedDict, [Value::List(index)]) => {
                // The form of protocol 0 to 2 under Python 2: a list of pairs.
                let items = self.pickle.lists.get(*index).map_or(&[][..], |list| list);
                let mut pairs = Vec::new();
                for item in items {
                    match self.tuple(*item).or_else(|| self.list(*item)) {
                        Some([key, value]) => pairs.push((*key, *value)),
                        _ => return Err(self.error("an OrderedDict of something else than pairs")),
                    }
                }
                for _ in &pairs {
                    self.count()?;
                }
                Ok(Value::Dict(self.new_dict(pairs)))
            }
            (Global::RebuildTensor, [Value::Storage(storage), offset, shape, strides, ..]) => {
                let parts = TensorParts {
                    storage: *storage,
                    offset: self.unsigned(*offset)?,
                    shape: self.dimensions(*shape)?,
                    strides: self.dimensions(*strides)?,
                };
                self.pickle.tensors.push(parts);
                Ok(Value::Tensor(self.pickle.tensors.len() - 1))
            }
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Ok(*tensor),
            (Global::StorageFromBytes, [Value::Bytes(bytes)]) => self.storage_from_bytes(bytes),
            (Global::Size, [items @ Value::Tuple(_)]) => Ok(*items),
            (Global::Device, [name @ Value::Text(_), ..]) => Ok(*name),
            _ => Err(self.error(&format!("{global:?} with arguments it does not take"))),
        }
    }

    fn list(&self, value: Value<'p>) -> Option<&[Value<'p>]> {
        match value {
            Value::List(index) => self.pickle.lists.get(index).map(Vec::as_slice),
            _ => None,
        }
    }

    /// BUILD gives an object its attributes. Those of a config are what it holds; those of an
    /// ordered dictionary (torch puts `_metadata`, the versions of modules, there) are dropped.
    fn build(&mut self) -> Result<(), Error> {
        let attributes = self.pop()?;
        let object = self.pop()?;
        self.stack.push(object);
        match object {
            Value::Dict(index) if self.instances.contains(&index) => {
                let Value::Dict(attributes) = attributes else {
                    let what = format!("a config whose attributes are {}", kind(attributes));
                    return Err(self.error(&what));
                };
                let pairs = self.pickle.dicts.get(attributes).cloned();
                let pairs = pairs.unwrap_or_default();
                // They are copied, and may be as often as there is memory.
                for _ in &pairs {
                    self.count()?;
                }
                if let Some(dict) = self.pickle.dicts.get_mut(index) {
                    dict.extend(pairs);
                }
                Ok(())
            }
            Value::Dict(_) => Ok(()),
            other => Err(self.error(&format!("it gives attributes to {}", kind(other)))),
        }
    }
}
