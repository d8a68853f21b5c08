//! JSON documents that people write (plans, rules): read with the path to whatever is wrong, and
//! hashed in one canonical form.

use crate::error::Error;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::{Map, Value};

/// Reads a document.
///
/// # Errors
/// [`Error::Malformed`] if it is not JSON.
pub(crate) fn parse(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::Malformed {
        container: "json",
        what: error.to_string(),
    })
}

/// A JSON value with the path that leads to it.
pub(crate) struct At<'v> {
    pub(crate) value: &'v Value,
    pub(crate) path: String,
    /// What the whole is called, where the path is empty.
    document: &'static str,
}

/// A JSON object whose keys are known.
pub(crate) struct Object<'v> {
    pub(crate) map: &'v Map<String, Value>,
    pub(crate) path: String,
}

impl<'v> At<'v> {
    pub(crate) fn root(value: &'v Value, document: &'static str) -> Self {
        At {
            value,
            path: String::new(),
            document,
        }
    }

    pub(crate) fn wrong(&self, expected: impl Into<String>) -> Error {
        invalid(&self.path, expected, shorten(self.value))
    }

    pub(crate) fn object(&self, keys: &[&str]) -> Result<Object<'v>, Error> {
        let object = self.any_object()?;
        match object.map.keys().find(|key| !keys.contains(&key.as_str())) {
            None => Ok(object),
            Some(unknown) => {
                let path = match self.path.is_empty() {
                    true => self.document,
                    false => &self.path,
                };
                let expected = format!("the keys {}", keys.join(", "));
                Err(invalid(path, expected, unknown.clone()))
            }
        }
    }

    pub(crate) fn any_object(&self) -> Result<Object<'v>, Error> {
        let Value::Object(map) = self.value else {
            return Err(self.wrong("an object"));
        };
        Ok(Object {
            map,
            path: self.path.clone(),
        })
    }

    pub(crate) fn list<T>(
        &self,
        one: impl Fn(&At<'v>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let Value::Array(values) = self.value else {
            return Err(self.wrong("a list"));
        };
        let at = |(i, value)| At {
            value,
            path: format!("{}[{i}]", self.path),
            document: self.document,
        };
        values
            .iter()
            .enumerate()
            .map(at)
            .map(|at| one(&at))
            .collect()
    }

    pub(crate) fn string(&self) -> Result<String, Error> {
        match self.value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong("a text")),
        }
    }

    pub(crate) fn number(&self) -> Result<f64, Error> {
        let number = self.value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| self.wrong("a finite number"))
    }

    pub(crate) fn boolean(&self) -> Result<bool, Error> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wrong("true or false"))
    }

    pub(crate) fn index(&self) -> Result<u32, Error> {
        let index = self.value.as_u64().and_then(|index| index.try_into().ok());
        index.ok_or_else(|| self.wrong("a whole number below 2^32"))
    }

    pub(crate) fn indices(&self) -> Result<Vec<u32>, Error> {
        self.list(At::index)
    }

    pub(crate) fn choice<T: Copy>(&self, table: &[(&'static str, T)]) -> Result<T, Error> {
        let found = self.value.as_str();
        let entry = table.iter().find(|entry| Some(entry.0) == found);
        entry.map(|entry| entry.1).ok_or_else(|| {
            let names: Vec<&str> = table.iter().map(|entry| entry.0).collect();
            self.wrong(names.join(", "))
        })
    }
}

impl<'v> Object<'v> {
    pub(crate) fn path_of(&self, key: &str) -> String {
        match self.path.is_empty() {
            true => key.into(),
            false => format!("{}.{key}", self.path),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<At<'v>> {
        self.map.get(key).map(|value| At {
            value,
            path: self.path_of(key),
            document: "",
        })
    }

    pub(crate) fn need(&self, key: &str, hint: &str) -> Result<At<'v>, Error> {
        self.get(key).ok_or_else(|| Error::MissingKey {
            key: self.path_of(key),
            hint: hint.into(),
        })
    }

    pub(crate) fn choice<T: Copy + Default>(
        &self,
        key: &str,
        table: &[(&'static str, T)],
    ) -> Result<T, Error> {
        self.get(key)
            .map_or(Ok(T::default()), |at| at.choice(table))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'v String, At<'v>)> {
        self.map.iter().map(|(key, value)| {
            let path = self.path_of(key);
            let document = "";
            (
                key,
                At {
                    value,
                    path,
                    document,
                },
            )
        })
    }

    /// Entries whose keys are features.
    pub(crate) fn features<T>(
        &self,
        one: impl Fn(&At<'v>) -> Result<T, Error>,
    ) -> Result<Vec<(u32, T)>, Error> {
        let entry = |(key, at): (&String, At<'v>)| match key.parse() {
            Ok(feature) => Ok((feature, one(&at)?)),
            Err(_) => Err(invalid(&at.path, "a feature's number as key", key.clone())),
        };
        self.entries().map(entry).collect()
    }
}

pub(crate) fn invalid(path: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::InvalidValue {
        key: path.into(),
        expected: expected.into(),
        found: found.into(),
    }
}

/// A value in words, for messages.
fn shorten(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) => text.chars().take(60).collect(),
        other => other.to_string(),
    }
}

/// FNV-1a, 64 bits, over the canonical form of a document: a walk with the keys of every object
/// sorted and numbers as f64 bits. It depends neither on the order of keys in a file nor on how
/// numbers were written.
pub(crate) fn hash(value: &Value) -> u64 {
    let mut hash = Hash::new();
    hash.value(value);
    hash.0
}

/// FNV-1a, 64 bits.
pub(crate) struct Hash(pub(crate) u64);

impl Hash {
    pub(crate) fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes(&(text.len() as u64).to_le_bytes());
        self.bytes(text.as_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.bytes(b"0"),
            Value::Bool(value) => self.bytes(if *value { b"t" } else { b"f" }),
            Value::Number(number) => {
                self.bytes(b"n");
                // `+ 0.0` makes one zero of the two.
                let number = number.as_f64().unwrap_or(0.0) + 0.0;
                self.bytes(&number.to_bits().to_le_bytes());
            }
            Value::String(text) => {
                self.bytes(b"s");
                self.text(text);
            }
            Value::Array(values) => {
                self.bytes(b"[");
                self.bytes(&(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| self.value(value));
            }
            Value::Object(map) => {
                self.bytes(b"{");
                let mut keys: Vec<_> = map.keys().collect();
                keys.sort_unstable();
                for key in keys {
                    self.text(key);
                    self.value(map.get(key).unwrap_or(&Value::Null));
                }
                self.bytes(b"}");
            }
        }
    }
}
