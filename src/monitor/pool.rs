//! Pooling of a stream's rows into one.

use super::accumulator::filled;
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use alloc::vec::Vec;

/// How the rows of a stream become one value per feature. Rows in which a feature is inactive
/// have the value 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Pooling {
    /// The value in the last row.
    #[default]
    Last,
    /// The largest.
    Max,
    /// The sum, in f64 in the order of the rows, rounded once to f32.
    Sum,
    /// The sum divided by the number of rows.
    Mean,
}

/// Pooled values of one stream, of the features `0 .. n` or of a list of them. Memory is fixed.
#[derive(Clone, Debug)]
pub struct Pool {
    rows: u64,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    sum: f64,
    max: f32,
    last: f32,
    fired: u64,
    /// The row (from 1) in which it was active last.
    last_row: u64,
}

impl Pool {
    /// Nothing seen yet, of `features` features.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(features: usize) -> Result<Self, Error> {
        Ok(Pool {
            rows: 0,
            slots: filled(features, Slot::default())?,
        })
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        (size_of_val(&self.slots[..]) + size_of::<Self>()) as u64
    }

    /// Starts a new stream.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.slots.fill(Slot::default());
    }

    /// Rows of the stream so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row; one that is not finite is left out.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`]; nothing is added then.
    pub fn add(&mut self, row: FeaturesRow<'_>) -> Result<(), Error> {
        match row.indices.last() {
            Some(&last) if last as usize >= self.slots.len() => Err(Error::FeatureOutOfRange {
                feature: last.into(),
                d_sae: self.slots.len() as u64,
            }),
            _ if row.status == RowStatus::NonFinite => Ok(()),
            _ => {
                self.begin_row();
                for (&index, &value) in row.indices.iter().zip(row.values) {
                    self.add_value(index as usize, value);
                }
                Ok(())
            }
        }
    }

    pub(super) fn begin_row(&mut self) {
        self.rows += 1;
    }

    pub(super) fn add_value(&mut self, slot: usize, value: f32) {
        let rows = self.rows;
        let Some(slot) = self.slots.get_mut(slot).filter(|_| value != 0.0) else {
            return;
        };
        slot.max = if slot.fired == 0 {
            value
        } else {
            slot.max.max(value)
        };
        slot.sum += f64::from(value);
        slot.fired += 1;
        (slot.last, slot.last_row) = (value, rows);
    }

    /// The pooled value of a feature.
    pub fn value(&self, slot: usize, pooling: Pooling) -> f64 {
        let Some(slot) = self.slots.get(slot) else {
            return 0.0;
        };
        match pooling {
            Pooling::Last if slot.last_row < self.rows => 0.0,
            Pooling::Last => slot.last.into(),
            Pooling::Max if slot.fired < self.rows => slot.max.max(0.0).into(),
            Pooling::Max => slot.max.into(),
            Pooling::Sum => slot.sum,
            Pooling::Mean if self.rows == 0 => 0.0,
            Pooling::Mean => slot.sum / self.rows as f64,
        }
    }

    /// Appends the pooled row to `out`: what is not 0. With `binary`, a value above it becomes 1
    /// and the others 0. A pooled row is a row like any other: accumulators take it, with the
    /// stream's label.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn finish(
        &self,
        pooling: Pooling,
        binary: Option<f32>,
        out: &mut Features,
    ) -> Result<(), Error> {
        for slot in 0..self.slots.len() {
            let mut value = self.value(slot, pooling) as f32;
            if let Some(threshold) = binary {
                value = f32::from(u8::from(value > threshold));
            }
            if value != 0.0 {
                out.push(slot as u32, value)?;
            }
        }
        out.end_row(RowStatus::Ok)
    }
}

/// Appends the row of those features that are active in `with` and not in `without`: accumulated
/// over pairs, its density is SAIF's sensitivity. A pair with a row that is not finite gives one
/// that is not.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn only_in(
    with: FeaturesRow<'_>,
    without: FeaturesRow<'_>,
    out: &mut Features,
) -> Result<(), Error> {
    if [with.status, without.status].contains(&RowStatus::NonFinite) {
        return out.end_row(RowStatus::NonFinite);
    }
    for (&index, &value) in with.indices.iter().zip(with.values) {
        if without.indices.binary_search(&index).is_err() {
            out.push(index, value)?;
        }
    }
    out.end_row(with.status)
}
