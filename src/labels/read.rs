//! From the text of an export to explanations, one at a time: the whole is never held as values.

use super::guard::Guard;
use super::observed;
use super::{Builder, Explanation, MAX_DESCRIPTION, MAX_NAME, MAX_WAITING, limit, malformed};
use crate::container;
use crate::error::Error;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

/// Hands every explanation of a file to the builder.
pub(super) fn read(bytes: &[u8], builder: &mut Builder) -> Result<(), Error> {
    if bytes.starts_with(b"\x1f\x8b") {
        return gzipped(bytes, builder);
    }
    if let Some(what) = container::not_the_file(bytes) {
        return Err(malformed(what));
    }
    // A byte-order mark in front is tolerated: editors on Windows write it.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    Guard::default().see(text)?;
    // A deserializer for each document: one for all of them looks for the line that it is in, from
    // the start of the text, whenever it is asked whether more follows.
    let (mut rest, mut line) = (text.trim_ascii_start(), 0);
    let lines = |text: &[u8]| text.iter().filter(|&&byte| byte == b'\n').count();
    line += lines(text) - lines(rest);
    while !rest.is_empty() {
        let mut document = serde_json::Deserializer::from_slice(rest);
        let result = Document(builder).deserialize(&mut document);
        result.map_err(|error| cause(error, line, builder))?;
        let length = document.into_iter::<IgnoredAny>().byte_offset();
        let (read, more) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        let next = more.trim_ascii_start();
        let between = more.len() - next.len();
        line += lines(read) + lines(more.get(..between).unwrap_or_default());
        rest = next;
    }
    Ok(())
}

#[cfg(feature = "gzip")]
fn gzipped(bytes: &[u8], builder: &mut Builder) -> Result<(), Error> {
    let unpacked = std::io::BufReader::with_capacity(1 << 16, super::guard::Unpacked::new(bytes));
    let mut text = serde_json::Deserializer::from_reader(unpacked);
    loop {
        match text.end() {
            Ok(()) => return Ok(()),
            Err(error) if error.is_io() => return Err(cause(error, 0, builder)),
            // Something follows.
            Err(_) => {}
        }
        let result = Document(builder).deserialize(&mut text);
        result.map_err(|error| cause(error, 0, builder))?;
    }
}

#[cfg(not(feature = "gzip"))]
fn gzipped(_: &[u8], _: &mut Builder) -> Result<(), Error> {
    Err(Error::UnsupportedContainer {
        container: "gzip",
        what: "gzipped labels: this build lacks the feature `gzip`".into(),
    })
}

/// The library's error behind one of the reader of JSON, whose text began after so many lines.
fn cause(error: serde_json::Error, before: usize, builder: &mut Builder) -> Error {
    if let Some(failure) = builder.failure.take() {
        return failure;
    }
    #[cfg(feature = "std")]
    if error.is_io() {
        let error = std::io::Error::from(error);
        let what = error.to_string();
        // What the guard found.
        let inner = error
            .into_inner()
            .and_then(|it| it.downcast::<Error>().ok());
        return inner.map_or_else(
            || Error::Malformed {
                container: "gzip",
                what,
            },
            |error| *error,
        );
    }
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default();
    let what: String = what.chars().take(300).collect();
    malformed(format!("line {}: {what}", before + error.line()))
}

/// One document: an explanation, what is said of one feature, a list of these, or an export.
struct Document<'b>(&'b mut Builder);

const EXPECTED: &str = "an explanation (an object), a list of explanations or an export";

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Record(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        record(map, self.0)
    }
}

/// An object that is no list.
struct Record<'b>(&'b mut Builder);

impl<'de> DeserializeSeed<'de> for Record<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an explanation (an object)")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        record(map, self.0)
    }
}

/// The explanations inside of an object.
struct Inner<'o, 'b> {
    builder: &'b mut Builder,
    outer: &'o mut Outer,
}

/// What the object around explanations has said so far.
#[derive(Default)]
struct Outer {
    index: Option<u32>,
    /// Explanations that name no feature, until the object around them does.
    waiting: Vec<Explanation>,
    /// Lowest and highest feature that an explanation inside named for itself.
    named: Option<(u32, u32)>,
}

impl<'de> DeserializeSeed<'de> for Inner<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inner<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of explanations")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(facts) = items.next_element_seed(Facts::default())? {
            let result = self.outer.take(facts, self.builder);
            result.map_err(|error| fail(self.builder, error))?;
        }
        Ok(())
    }
}

impl Outer {
    /// An explanation inside of this object.
    fn take(&mut self, facts: Facts, builder: &mut Builder) -> Result<(), Error> {
        builder.origin(facts.model.as_deref(), facts.source.as_deref())?;
        if let Some(index) = facts.index {
            let (low, high) = self.named.unwrap_or((index, index));
            self.named = Some((low.min(index), high.max(index)));
        }
        let index = facts.index.or(self.index);
        if let Some(index) = index.filter(|_| facts.observed.any()) {
            builder.observe(index, &facts.observed)?;
        }
        let explanation = facts.explanation()?;
        match index {
            Some(index) => builder.take(index, &explanation),
            None => {
                self.waiting.push(explanation);
                let what = "the number of explanations before the `index` of their feature";
                limit(what, self.waiting.len(), MAX_WAITING)
            }
        }
    }
}

/// Reads an object of the outermost level.
fn record<'de, A: MapAccess<'de>>(mut map: A, builder: &mut Builder) -> Result<(), A::Error> {
    let mut facts = Facts::default();
    let mut outer = Outer::default();
    let mut holds = false;
    while let Some(key) = map.next_key::<Key>()? {
        match key {
            Key::Explanations => {
                if core::mem::replace(&mut holds, true) {
                    return Err(twice::<A::Error>("explanations"));
                }
                outer.index = facts.index;
                map.next_value_seed(Inner {
                    builder: &mut *builder,
                    outer: &mut outer,
                })?;
            }
            key => facts.read(key, &mut map)?,
        }
    }
    let result = conclude(facts, outer, holds, builder);
    result.map_err(|error| fail(builder, error))
}

fn conclude(facts: Facts, outer: Outer, holds: bool, builder: &mut Builder) -> Result<(), Error> {
    builder.origin(facts.model.as_deref(), facts.source.as_deref())?;
    if let (Some(index), Some(named)) = (facts.index, outer.named)
        && named != (index, index)
    {
        return Err(malformed(format!(
            "explanations of the features {} to {} inside of feature {index}",
            named.0, named.1
        )));
    }
    if facts.observed.any() {
        builder.observe(facts.index.ok_or_else(no_index)?, &facts.observed)?;
        if !holds && !facts.described {
            return Ok(());
        }
    }
    if !holds {
        let index = facts.index.ok_or_else(no_index)?;
        return builder.take(index, &facts.explanation()?);
    }
    for explanation in &outer.waiting {
        builder.take(facts.index.ok_or_else(no_index)?, explanation)?;
    }
    match facts.described {
        // A text of the feature's own, beside the list.
        true => builder.take(facts.index.ok_or_else(no_index)?, &facts.explanation()?),
        false => Ok(()),
    }
}

fn no_index() -> Error {
    malformed("an object without `index`, the number of its feature")
}

/// Carries an error of the library through the reader of JSON.
fn fail<E: serde::de::Error>(builder: &mut Builder, error: Error) -> E {
    builder.failure = Some(error);
    E::custom("")
}

fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("the key `{key}` occurs twice"))
}

/// The keys that are read.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Index,
    Description,
    Explainer,
    Method,
    Model,
    Source,
    Explanations,
    Observed(observed::Key),
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "index" => Key::Index,
                    "description" => Key::Description,
                    "explanationModelName" => Key::Explainer,
                    "typeName" => Key::Method,
                    "modelId" => Key::Model,
                    "layer" | "saeId" => Key::Source,
                    "explanations" => Key::Explanations,
                    other => observed::Key::of(other).map_or(Key::Other, Key::Observed),
                })
            }
        }
        from.deserialize_str(Name)
    }
}

/// What an object says.
#[derive(Default)]
struct Facts {
    index: Option<u32>,
    description: String,
    /// Whether there is a description, be it null.
    described: bool,
    explainer: Option<String>,
    method: Option<String>,
    model: Option<String>,
    source: Option<String>,
    observed: observed::Facts,
}

impl Facts {
    /// Reads the value of a key.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        match key {
            Key::Index => match self.index {
                Some(_) => return Err(twice("index")),
                None => self.index = Some(map.next_value_seed(Index)?),
            },
            Key::Description => {
                if core::mem::replace(&mut self.described, true) {
                    return Err(twice("description"));
                }
                self.description = map.next_value_seed(Text::description())?;
            }
            Key::Explainer => name(&mut self.explainer, "explanationModelName", map)?,
            Key::Method => name(&mut self.method, "typeName", map)?,
            Key::Model => name(&mut self.model, "modelId", map)?,
            Key::Source => name(&mut self.source, "layer", map)?,
            Key::Observed(key) => {
                if !self.observed.read(key, map)? {
                    return Err(twice(key.name()));
                }
            }
            Key::Explanations | Key::Other => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    fn explanation(self) -> Result<Explanation, Error> {
        if !self.described {
            return Err(malformed(
                "an object without `description` and `explanations`: is this an explanation \
                 export?",
            ));
        }
        Ok(Explanation {
            description: self.description,
            explainer: self.explainer.unwrap_or_default(),
            method: self.method.unwrap_or_default(),
        })
    }
}

fn name<'de, A: MapAccess<'de>>(
    slot: &mut Option<String>,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(twice(key));
    }
    let name = map.next_value_seed(Text::name())?;
    if name.contains('\0') {
        return Err(A::Error::custom(format_args!("`{key}` holds a zero byte")));
    }
    *slot = Some(name);
    Ok(())
}

/// An explanation inside of an object; what nests deeper is passed over.
impl<'de> DeserializeSeed<'de> for Facts {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Facts {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an explanation (an object)")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(key) = map.next_key::<Key>()? {
            self.read(key, &mut map)?;
        }
        Ok(self)
    }
}

/// A feature: a whole number, or one as text.
struct Index;

impl<'de> DeserializeSeed<'de> for Index {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Index {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a feature, below 2^32")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u32, E> {
        u32::try_from(number)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u32, E> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.ok_or_else(|| {
            let short: String = text.chars().take(40).collect();
            E::invalid_value(serde::de::Unexpected::Str(&short), &self)
        })
    }
}

/// A text of at most so many bytes; null is the empty one.
struct Text {
    limit: usize,
    /// Whether a number may stand for its digits: layers have such names.
    numbers: bool,
}

impl Text {
    fn description() -> Self {
        Text {
            limit: MAX_DESCRIPTION,
            numbers: false,
        }
    }

    fn name() -> Self {
        Text {
            limit: MAX_NAME,
            numbers: true,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {} bytes", self.limit)
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok(String::new())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<String, E> {
        match self.numbers {
            true => Ok(number.to_string()),
            false => Err(E::invalid_type(
                serde::de::Unexpected::Unsigned(number),
                &self,
            )),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        match text.len() <= self.limit {
            true => Ok(text.into()),
            false => Err(E::invalid_length(text.len(), &self)),
        }
    }
}
