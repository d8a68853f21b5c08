//! What exports say of the values of features over their corpus.

use super::{Builder, limit, malformed};
use crate::error::Error;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most bars of a histogram that are looked at; of a longer one nothing is known.
const MAX_BARS: usize = 1 << 12;

/// What an export says of the values of one feature over its corpus, in the units of
/// [`encode`](crate::Sae::encode). What it does not say, or says with numbers that make no sense,
/// is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Observed {
    /// The feature.
    pub feature: u32,
    /// The largest value (`maxActApprox`), over the texts that the exporter looked at. A 0 is what
    /// exporters write where they looked at none, and no maximum.
    pub max: Option<f64>,
    /// The share of tokens at which the feature fires (`frac_nonzero`).
    pub density: Option<f64>,
    /// The mean value over all tokens: `frac_nonzero` times the mean of the histogram
    /// (`freq_hist_data_bar_values`, the middles of the bins, by `freq_hist_data_bar_heights`). An
    /// estimate: off by at most half a bin times `frac_nonzero`, and by what was rounded in the
    /// file.
    pub mean: Option<f64>,
}

/// The same, as it is stored; NaN where it is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) feature: u32,
    max: f64,
    density: f64,
    mean: f64,
}

impl Seen {
    pub(super) fn observed(&self) -> Observed {
        let known = |number: f64| Some(number).filter(|number| !number.is_nan());
        Observed {
            feature: self.feature,
            max: known(self.max),
            density: known(self.density),
            mean: known(self.mean),
        }
    }

    /// Takes what another record says of the same feature.
    fn join(&mut self, other: &Seen) -> Result<(), Error> {
        let feature = self.feature;
        for (ours, theirs, what) in [
            (&mut self.max, other.max, "maxActApprox"),
            (&mut self.density, other.density, "frac_nonzero"),
            (&mut self.mean, other.mean, "mean"),
        ] {
            if ours.is_nan() {
                *ours = theirs;
            } else if !theirs.is_nan() && *ours != theirs {
                return Err(malformed(format!(
                    "two values of `{what}` for feature {feature}: {ours} and {theirs}"
                )));
            }
        }
        Ok(())
    }
}

/// The table, feature ascending, with one entry for each.
pub(super) fn table(mut seen: Vec<Seen>) -> Result<Vec<Seen>, Error> {
    seen.sort_by_key(|one| one.feature);
    let mut failure = Ok(());
    seen.dedup_by(|next, one| {
        let same = next.feature == one.feature;
        if same && failure.is_ok() {
            failure = one.join(next);
        }
        same
    });
    failure.map(|()| seen)
}

impl Builder {
    /// What was observed of a feature.
    pub(super) fn observe(&mut self, feature: u32, facts: &Facts) -> Result<(), Error> {
        self.observed += 1;
        let what = "the number of features with statistics";
        limit(what, self.observed, super::MAX_LABELS)?;
        if self.stores {
            self.seen.push(facts.seen(feature));
        }
        Ok(())
    }
}

/// The keys that are read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Key {
    Max,
    Density,
    Heights,
    Middles,
}

impl Key {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "maxActApprox" => Key::Max,
            "frac_nonzero" => Key::Density,
            "freq_hist_data_bar_heights" => Key::Heights,
            "freq_hist_data_bar_values" => Key::Middles,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Key::Max => "maxActApprox",
            Key::Density => "frac_nonzero",
            Key::Heights => "freq_hist_data_bar_heights",
            Key::Middles => "freq_hist_data_bar_values",
        }
    }
}

/// What an object says.
#[derive(Default)]
pub(super) struct Facts {
    max: Option<Number>,
    density: Option<Number>,
    heights: Option<Numbers>,
    middles: Option<Numbers>,
}

impl Facts {
    /// Whether the object is about what was observed at all.
    pub(super) fn any(&self) -> bool {
        self.max.is_some() || self.density.is_some()
    }

    /// Reads the value of a key; false if it was read before.
    pub(super) fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: Key,
        map: &mut A,
    ) -> Result<bool, A::Error> {
        let first = match key {
            Key::Max => self.max.replace(map.next_value()?).is_none(),
            Key::Density => self.density.replace(map.next_value()?).is_none(),
            Key::Heights => self.heights.replace(map.next_value()?).is_none(),
            Key::Middles => self.middles.replace(map.next_value()?).is_none(),
        };
        Ok(first)
    }

    fn seen(&self, feature: u32) -> Seen {
        let number = |number: &Option<Number>| number.as_ref().and_then(|number| number.0);
        let max = number(&self.max).filter(|&max| max > 0.0);
        let density = number(&self.density).filter(|share| (0.0..=1.0).contains(share));
        let mean = density.and_then(|density| Some(density * self.mean_where_active()?));
        Seen {
            feature,
            max: max.unwrap_or(f64::NAN),
            density: density.unwrap_or(f64::NAN),
            mean: mean.filter(|mean| mean.is_finite()).unwrap_or(f64::NAN),
        }
    }

    /// The mean of the histogram, if it is one.
    fn mean_where_active(&self) -> Option<f64> {
        let heights = self.heights.as_ref()?.0.as_ref()?;
        let middles = self.middles.as_ref()?.0.as_ref()?;
        // Some exporters write the edges of the bins, one more, in the place of their middles.
        if heights.len() != middles.len() || heights.iter().any(|&height| height < 0.0) {
            return None;
        }
        let count: f64 = heights.iter().sum();
        let sum: f64 = heights.iter().zip(middles).map(|(h, m)| h * m).sum();
        (count > 0.0).then(|| sum / count)
    }
}

/// A finite number; anything else is not known.
struct Number(Option<f64>);

/// A list of finite numbers; anything else is not known.
struct Numbers(Option<Vec<f64>>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
            .map(|any| Number(any.0.filter(|number| number.is_finite())))
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any).map(|any| Numbers(any.1))
    }
}

/// Any value: the number, or the list of numbers, that it is.
struct Any;

type Found = (Option<f64>, Option<Vec<f64>>);

impl<'de> Visitor<'de> for Any {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Found, E> {
        Ok((Some(number), None))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Found, E> {
        Ok((Some(number as f64), None))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Found, E> {
        Ok((Some(number as f64), None))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok((None, None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok((None, None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok((None, None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok((None, None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found, A::Error> {
        let mut list = Some(Vec::new());
        while let Some(Number(number)) = items.next_element()? {
            let full = list.as_ref().is_some_and(|list| list.len() == MAX_BARS);
            match (&mut list, number) {
                (Some(list), Some(number)) if !full => list.push(number),
                _ => list = None,
            }
        }
        Ok((None, list))
    }
}
