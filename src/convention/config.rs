//! Reading a config: every key that is read is remembered, the others are listed as ignored.

use crate::error::Error;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use serde_json::{Map, Value};

/// A JSON (or YAML) object of a side-car.
#[derive(Debug)]
pub(crate) struct Config<'c> {
    /// `cfg.json`, or the path of a nested object in it, for messages.
    name: String,
    map: Option<&'c Map<String, Value>>,
    read: RefCell<Vec<String>>,
}

impl<'c> Config<'c> {
    /// The config, which must be an object.
    pub(crate) fn new(name: &str, value: &'c Value) -> Result<Self, Error> {
        match value {
            Value::Object(map) => Ok(Config {
                name: name.into(),
                map: Some(map),
                read: RefCell::default(),
            }),
            other => Err(Error::InvalidValue {
                key: name.into(),
                expected: "an object".into(),
                found: shorten(other),
            }),
        }
    }

    /// A config without keys.
    pub(crate) fn empty(name: &str) -> Self {
        Config {
            name: name.into(),
            map: None,
            read: RefCell::default(),
        }
    }

    /// The value of a key; null counts as absent.
    #[inline(never)]
    pub(crate) fn value(&self, key: &str) -> Option<&'c Value> {
        self.read.borrow_mut().push(key.into());
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// The nested object of a key, empty if it is absent.
    #[inline(never)]
    pub(crate) fn object(&self, key: &str) -> Result<Config<'c>, Error> {
        let name = alloc::format!("{}: {key}", self.name);
        match self.value(key) {
            None => Ok(Config::empty(&name)),
            Some(value) => Config::new(&name, value),
        }
    }

    /// A text.
    #[inline(never)]
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'c str>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.invalid(key, "a string", other)),
        }
    }

    /// A truth value.
    #[inline(never)]
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.invalid(key, "true or false", other)),
        }
    }

    /// A whole number that is not negative. `16.0` counts as 16, as Python's JSON writers leave it.
    #[inline(never)]
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let whole = value.as_u64().or_else(|| {
            let number = value.as_f64()?;
            let fits = (0.0..=9e15).contains(&number) && number == libm::trunc(number);
            fits.then_some(number as u64)
        });
        match whole.and_then(|count| usize::try_from(count).ok()) {
            Some(count) => Ok(Some(count)),
            None => Err(self.invalid(key, "a whole number", value)),
        }
    }

    /// A finite number.
    #[inline(never)]
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.invalid(key, "a finite number", value)),
            },
        }
    }

    /// Checks a dimension that the config states against the tensors.
    #[inline(never)]
    pub(crate) fn check_size(&self, key: &str, found: usize) -> Result<(), Error> {
        match self.count(key)? {
            Some(stated) if stated != found => Err(Error::Shape {
                tensor: alloc::format!("{}: {key}", self.name),
                expected: alloc::vec![stated],
                found: alloc::vec![found],
            }),
            _ => Ok(()),
        }
    }

    /// A value that is not allowed for a key.
    #[inline(never)]
    pub(crate) fn invalid(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::InvalidValue {
            key: alloc::format!("{}: {key}", self.name),
            expected: expected.into(),
            found: shorten(found),
        }
    }

    /// Marks keys as read: they are known to say nothing about the maths.
    #[inline(never)]
    pub(crate) fn informational(&self, keys: &[&str]) {
        self.read
            .borrow_mut()
            .extend(keys.iter().map(|key| key.to_string()));
    }

    /// The keys that nobody asked for. Under `strict` the first is an error.
    #[inline(never)]
    pub(crate) fn ignored(&self, strict: bool) -> Result<Vec<String>, Error> {
        let read = self.read.borrow();
        let keys = self.map.into_iter().flat_map(|map| map.keys());
        let ignored: Vec<String> = keys.filter(|key| !read.contains(key)).cloned().collect();
        match ignored.first() {
            Some(key) if strict => Err(Error::UnknownKey {
                key: alloc::format!("{}: {key}", self.name),
            }),
            _ => Ok(ignored),
        }
    }
}

/// A value for a message, cut to a readable length.
fn shorten(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => alloc::format!("{}...", text.get(..at).unwrap_or("")),
        None => text,
    }
}
