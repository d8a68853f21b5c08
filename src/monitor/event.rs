//! Alerts, as values of a fixed size.

use super::compile::CompiledRules;
use super::row::RowId;
use core::fmt;
use serde_json::json;

/// Most features that an event names.
pub const MAX_CONTRIBUTIONS: usize = 8;

/// A feature's part in an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Contribution {
    /// The feature.
    pub feature: u32,
    /// Its value: in the row, or pooled for a linear head that pools.
    pub value: f32,
    /// By what the contributions are ordered: the value; for a linear head weight times value; for
    /// co-activation `1 / (1 + rows since it fired)`.
    pub weight: f32,
}

/// An alert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Number of the rule.
    pub rule: u32,
    /// The row at which the rule alerted.
    pub row: RowId,
    /// The rule's score there.
    pub score: f64,
    count: u32,
    contributions: [Contribution; MAX_CONTRIBUTIONS],
}

/// 32-bit words of an event in a ring.
pub(super) const WORDS: usize = 8 + 3 * MAX_CONTRIBUTIONS;

impl Event {
    pub(super) fn new(rule: u32, row: RowId, score: f64) -> Self {
        Event {
            rule,
            row,
            score,
            count: 0,
            contributions: [Contribution::default(); MAX_CONTRIBUTIONS],
        }
    }

    /// An event made by hand; contributions beyond the first [`MAX_CONTRIBUTIONS`] are left out.
    pub fn from_parts(
        rule: u32,
        row: RowId,
        score: f64,
        contributions: impl Iterator<Item = Contribution>,
    ) -> Self {
        let mut event = Event::new(rule, row, score);
        for (to, from) in event.contributions.iter_mut().zip(contributions) {
            *to = from;
            event.count += 1;
        }
        event
    }

    /// The features behind it, the one with the largest magnitude of weight first, the lowest
    /// feature first among equals.
    pub fn contributions(&self) -> &[Contribution] {
        self.contributions.get(..self.count as usize).unwrap_or(&[])
    }

    /// Puts a contribution in its place, if it is among the largest.
    pub(super) fn add(&mut self, new: Contribution) {
        let before = |other: &Contribution| {
            let order = other.weight.abs().total_cmp(&new.weight.abs());
            order
                .reverse()
                .then(other.feature.cmp(&new.feature))
                .is_lt()
        };
        let place = self.contributions().partition_point(before);
        let end = (self.count as usize + 1).min(MAX_CONTRIBUTIONS);
        if let Some(rest) = self.contributions.get_mut(place..end)
            && !rest.is_empty()
        {
            rest.rotate_right(1);
            if let Some(first) = rest.first_mut() {
                *first = new;
            }
            self.count = end as u32;
        }
    }

    pub(super) fn to_words(self) -> [u32; WORDS] {
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        let mut words = [0; WORDS];
        let head = [self.rule, self.count];
        let wide = [self.row.stream, self.row.position, self.score.to_bits()].map(halves);
        let rest = self
            .contributions
            .iter()
            .flat_map(|one| [one.feature, one.value.to_bits(), one.weight.to_bits()]);
        let all = head
            .into_iter()
            .chain(wide.into_iter().flatten())
            .chain(rest);
        words
            .iter_mut()
            .zip(all)
            .for_each(|(word, found)| *word = found);
        words
    }

    pub(super) fn from_words(words: &[u32; WORDS]) -> Event {
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let wide = |at: usize| u64::from(word(at)) | u64::from(word(at + 1)) << 32;
        let mut contributions = [Contribution::default(); MAX_CONTRIBUTIONS];
        for (number, one) in contributions.iter_mut().enumerate() {
            *one = Contribution {
                feature: word(8 + 3 * number),
                value: f32::from_bits(word(9 + 3 * number)),
                weight: f32::from_bits(word(10 + 3 * number)),
            };
        }
        Event {
            rule: word(0),
            count: word(1).min(MAX_CONTRIBUTIONS as u32),
            row: RowId {
                stream: wide(2),
                position: wide(4),
            },
            score: f64::from_bits(wide(6)),
            contributions,
        }
    }

    /// Writes the event as one line of JSON, without a line break. Allocates: for the thread that
    /// reads events, not the one that watches rows.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, rules: &CompiledRules, out: &mut dyn fmt::Write) -> fmt::Result {
        let features = self.contributions().iter().map(|one| {
            let mut value = json!({"feature": one.feature, "value": number(one.value.into())});
            if let (Some(label), Some(map)) = (rules.label(one.feature), value.as_object_mut()) {
                map.insert("label".into(), label.into());
            }
            value
        });
        let line = json!({
            "rule": rules.rule_name(self.rule as usize),
            "stream": self.row.stream,
            "position": self.row.position,
            "score": number(self.score),
            "features": features.collect::<alloc::vec::Vec<_>>(),
        });
        write!(out, "{line}")
    }
}

/// JSON has no infinities: they become texts.
fn number(value: f64) -> serde_json::Value {
    match value.is_finite() {
        true => value.into(),
        false => alloc::format!("{value}").into(),
    }
}
