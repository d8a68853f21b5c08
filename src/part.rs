//! Encoding split over features: several threads encode the same rows, each a range of the
//! features, and one call puts the parts together.
//!
//! | call | by | reads |
//! |---|---|---|
//! | [`Sae::encode_part`] | each thread, with its own [`Scratch`] and [`Part`] | its range of the encoder |
//! | [`Sae::encode_finish`] | one thread, when all parts are there | the parts |
//!
//! A threshold rule decides each feature by itself, so a part holds features; a rule that ranks
//! needs all parts, so a part holds the candidates that another part may still displace. The result
//! has the bits of [`Sae::encode`] for every split.

use crate::encode::check_width;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::model::{Activation, Sae};
use crate::rows::Rows;
use crate::scratch::{Scratch, Work};
use crate::select::{Selector, Sink};
use alloc::vec::Vec;
use core::ops::Range;

/// Ranges of [`Sae::part_range`] start at a multiple of this: the kernels work on so many features
/// at once.
const GRAIN: usize = 64;

/// What [`Sae::encode_part`] found in a range of the features of every row.
///
/// Like [`Features`], it allocates only while it grows.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Of the model; 0 for a part that was never filled.
    identity: usize,
    range: Range<usize>,
    /// For each row, where its entries end.
    ends: Vec<usize>,
    status: Vec<RowStatus>,
    /// Of the prepared rows, for top-AFA; else empty.
    norms: Vec<f64>,
    entries: Vec<Entry>,
}

/// A feature, or a candidate for one.
#[derive(Clone, Copy, Debug)]
struct Entry {
    feature: u32,
    value: f32,
    rank: f32,
}

impl Sink for Part {
    #[inline]
    fn take(&mut self, feature: u32, value: f32, rank: f32) -> Result<(), Error> {
        reserve(&mut self.entries, 64)?;
        self.entries.push(Entry {
            feature,
            value,
            rank,
        });
        Ok(())
    }
}

impl Part {
    /// An empty part.
    pub fn new() -> Self {
        Self::default()
    }

    /// The features that it covers.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// Number of features and candidates of all rows together.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no row has a feature or a candidate in this part.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn clear(&mut self) {
        self.identity = 0;
        self.range = 0..0;
        self.ends.clear();
        self.status.clear();
        self.norms.clear();
        self.entries.clear();
    }

    fn end_row(&mut self, status: RowStatus) -> Result<(), Error> {
        reserve(&mut self.ends, 1)?;
        reserve(&mut self.status, 1)?;
        self.ends.push(self.entries.len());
        self.status.push(status);
        Ok(())
    }

    fn row(&self, row: usize) -> &[Entry] {
        let end = self.ends.get(row).copied().unwrap_or(0);
        let start = match row.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(0),
            None => 0,
        };
        self.entries.get(start..end).unwrap_or(&[])
    }
}

/// Room for one more, made for `step` more at once.
fn reserve<T>(values: &mut Vec<T>, step: usize) -> Result<(), Error> {
    if values.len() < values.capacity() {
        return Ok(());
    }
    values.try_reserve(step).map_err(|_| Error::OutOfMemory {
        what: "a part of the features",
        bytes: (step * size_of::<T>()) as u64,
    })
}

impl Sae<'_> {
    /// The features of part `ith` of `nth`: ranges of about the same size that cover all features,
    /// in order. Empty if `ith` is not below `nth`, and where there are fewer features than parts.
    pub fn part_range(&self, ith: usize, nth: usize) -> Range<usize> {
        let grains = self.d_sae().div_ceil(GRAIN);
        if ith >= nth {
            return self.d_sae()..self.d_sae();
        }
        // In 128 bits: the product of two lengths fits.
        let start = |part: usize| {
            let grain = (grains as u128 * part as u128 / nth as u128) as usize;
            (grain * GRAIN).min(self.d_sae())
        };
        start(ith)..start(ith + 1)
    }

    /// Encodes the rows as far as a range of the features goes; the content of `part` is replaced.
    ///
    /// A pursuit and an ensemble find one feature after the other and cannot be split: all of their
    /// work is done for the range that starts with feature 0, the other parts are empty.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the range is not one of features, [`Error::Length`] if the
    /// rows are not d_in wide or the scratch was made for a smaller model,
    /// [`Error::OutOfMemory`] if `part` cannot grow. `part` is empty then.
    pub fn encode_part(
        &self,
        rows: Rows<'_>,
        range: Range<usize>,
        scratch: &mut Scratch<'_>,
        part: &mut Part,
    ) -> Result<(), Error> {
        part.clear();
        if range.start > range.end || range.end > self.d_sae() {
            return Err(Error::InvalidArgument {
                what: "features of a part",
                expected: alloc::format!("a range within 0..{}", self.d_sae()),
                found: alloc::format!("{range:?}"),
            });
        }
        check_width(rows, self.d_in())?;
        let result = self.encode_rows_part(rows, &range, scratch, part);
        match result {
            Ok(()) => (part.identity, part.range) = (self.identity, range),
            Err(_) => part.clear(),
        }
        result
    }

    fn encode_rows_part(
        &self,
        rows: Rows<'_>,
        range: &Range<usize>,
        scratch: &mut Scratch<'_>,
        part: &mut Part,
    ) -> Result<(), Error> {
        let first = range.start == 0 && !range.is_empty();
        for row in 0..rows.rows() {
            let status = match &self.parts.activation {
                Activation::Ensemble(_) | Activation::Pursuit(_) if !first => RowStatus::Ok,
                Activation::Ensemble(kind) => {
                    let mut found = scratch.take_row();
                    found.clear();
                    let status = self.encode_members(*kind, rows, row, scratch, &mut found);
                    let pairs = found.indices().iter().zip(found.values());
                    let mut pairs = pairs.map(|(&feature, &value)| part.take(feature, value, 0.0));
                    let taken = pairs.try_for_each(|taken| taken);
                    scratch.give_row(found);
                    taken?;
                    status?
                }
                _ => {
                    let mut work = scratch.split(self)?;
                    match self.prepare_row(rows, row, &mut work) {
                        None => {
                            self.keep_norm(&work, part)?;
                            RowStatus::NonFinite
                        }
                        Some(_) => {
                            self.keep_norm(&work, part)?;
                            self.encode_row_part(range.clone(), &mut work, part)?
                        }
                    }
                }
            };
            part.end_row(status)?;
        }
        Ok(())
    }

    fn keep_norm(&self, work: &Work<'_>, part: &mut Part) -> Result<(), Error> {
        if let Activation::TopAfa = self.parts.activation {
            reserve(&mut part.norms, 1)?;
            part.norms.push(self.input_norm(work.raw));
        }
        Ok(())
    }

    fn encode_row_part(
        &self,
        range: Range<usize>,
        work: &mut Work<'_>,
        part: &mut Part,
    ) -> Result<RowStatus, Error> {
        if let Activation::Pursuit(pursuit) = &self.parts.activation {
            let (status, chosen) = self.pursue(pursuit, work);
            chosen.give(part)?;
            return Ok(status);
        }
        let selector = self.select_within(range, work, part)?;
        let status = selector.status();
        selector.finish_part(part)?;
        Ok(status)
    }

    /// Puts the parts of the same rows together; the content of `features` is replaced. The parts
    /// come in the order of their ranges, which together cover every feature once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the parts are of another model, of different numbers of rows,
    /// or do not cover the features so; [`Error::Length`] if the scratch was made for a smaller
    /// model; [`Error::OutOfMemory`] if `features` cannot grow. `features` is empty then.
    pub fn encode_finish(
        &self,
        parts: &[&Part],
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        features.clear();
        let rows = self.rows_of(parts)?;
        let mut work = scratch.split(self)?;
        let result = (0..rows).try_for_each(|row| self.join(row, parts, &mut work, features));
        if result.is_err() {
            features.clear();
        }
        result
    }

    /// The number of rows of parts that fit together.
    fn rows_of(&self, parts: &[&Part]) -> Result<usize, Error> {
        let invalid = |expected: &str, found: alloc::string::String| Error::InvalidArgument {
            what: "parts of the features",
            expected: expected.into(),
            found,
        };
        let (mut end, mut rows) = (0, None);
        for (i, part) in parts.iter().enumerate() {
            if part.identity != self.identity {
                let found = alloc::format!("part {i} of another model, or not encoded");
                return Err(invalid("parts of this model", found));
            }
            if part.range.start != end {
                let found = alloc::format!("part {i} has {:?}", part.range);
                return Err(invalid(&alloc::format!("features from {end} on"), found));
            }
            end = part.range.end;
            let expected = *rows.get_or_insert(part.rows());
            if part.rows() != expected {
                let found = alloc::format!("part {i} has {}", part.rows());
                return Err(invalid(&alloc::format!("{expected} rows"), found));
            }
        }
        match rows {
            Some(rows) if end == self.d_sae() => Ok(rows),
            _ => {
                let expected = alloc::format!("all {} features", self.d_sae());
                Err(invalid(&expected, alloc::format!("the first {end}")))
            }
        }
    }

    fn join(
        &self,
        row: usize,
        parts: &[&Part],
        work: &mut Work<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        let norm = parts.first().and_then(|part| part.norms.get(row));
        let mut selector = Selector::new(&self.parts, work.candidates, || {
            norm.copied().unwrap_or(0.0)
        });
        let mut status = RowStatus::Ok;
        for part in parts {
            match part.status.get(row).copied().unwrap_or_default() {
                RowStatus::Ok => {}
                // Every part of a row that is not finite says so.
                other => status = other,
            }
            for entry in part.row(row) {
                if self.finds_one_by_one() {
                    features.take(entry.feature, entry.value, entry.rank)?;
                } else {
                    selector.offer(entry.feature, entry.value, entry.rank, features)?;
                }
            }
        }
        selector.finish(features)?;
        features.end_row(status)
    }

    /// Whether the rule is one that cannot be split.
    fn finds_one_by_one(&self) -> bool {
        matches!(
            self.parts.activation,
            Activation::Ensemble(_) | Activation::Pursuit(_)
        )
    }
}
