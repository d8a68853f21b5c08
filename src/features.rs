//! The sparse result of encoding: for each row, the features that fired, index ascending.

use crate::error::Error;
use alloc::vec::Vec;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum RowStatus {
    /// Encoded.
    #[default]
    Ok = 0,
    /// The row holds a NaN or an infinity: it has no features.
    NonFinite = 1,
    /// A pre-activation is NaN (unchecked weights): that feature was not selected.
    NanPreActivation = 2,
    /// The host left it out: it has no features.
    Skipped = 3,
}

/// Sparse features of a batch of rows (the CSR form): row `r` has the indices and values
/// `row_ends[r - 1] .. row_ends[r]`, index ascending. Zero-valued features are not stored.
///
/// Filling it allocates only while it grows: after the first batches of a size, or with
/// [`Features::with_capacity`], no more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    row_ends: Vec<usize>,
    status: Vec<RowStatus>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

/// The features of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeaturesRow<'f> {
    /// Which features fired, ascending.
    pub indices: &'f [u32],
    /// Their values, in the same order.
    pub values: &'f [f32],
    /// What happened to the row.
    pub status: RowStatus,
}

impl<'f> FeaturesRow<'f> {
    /// Those whose index is in this range.
    #[must_use]
    pub fn within(self, range: core::ops::Range<usize>) -> Self {
        let place = |end: usize| {
            self.indices
                .partition_point(|&index| (index as usize) < end)
        };
        let range = place(range.start)..place(range.end).max(place(range.start));
        FeaturesRow {
            indices: self.indices.get(range.clone()).unwrap_or(&[]),
            values: self.values.get(range).unwrap_or(&[]),
            status: self.status,
        }
    }
}

impl Features {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `rows` rows with `features` features in all.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn with_capacity(rows: usize, features: usize) -> Result<Self, Error> {
        let mut this = Self::default();
        this.reserve(rows, features)?;
        Ok(this)
    }

    /// Makes room for so many more rows and features.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; what is there stays.
    pub fn reserve(&mut self, rows: usize, features: usize) -> Result<(), Error> {
        let memory = |bytes: usize| {
            move |_| Error::OutOfMemory {
                what: "features",
                bytes: bytes as u64,
            }
        };
        self.row_ends
            .try_reserve(rows)
            .map_err(memory(rows.saturating_mul(8)))?;
        self.status.try_reserve(rows).map_err(memory(rows))?;
        self.indices
            .try_reserve(features)
            .map_err(memory(features.saturating_mul(4)))?;
        self.values
            .try_reserve(features)
            .map_err(memory(features.saturating_mul(4)))
    }

    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.row_ends.clear();
        self.status.clear();
        self.indices.clear();
        self.values.clear();
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.row_ends.len()
    }

    /// Number of features of all rows together.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether no row has a feature.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// All indices, row after row.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// All values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// For each row, where its features end in [`Self::indices`]; they begin where those of the
    /// row before end.
    pub fn row_ends(&self) -> &[usize] {
        &self.row_ends
    }

    /// For each row, what happened to it.
    pub fn row_status(&self) -> &[RowStatus] {
        &self.status
    }

    /// Row `row`, or `None` if there are not so many.
    pub fn row(&self, row: usize) -> Option<FeaturesRow<'_>> {
        let end = *self.row_ends.get(row)?;
        let start = row.checked_sub(1).map_or(0, |before| self.row_ends[before]);
        Some(FeaturesRow {
            indices: self.indices.get(start..end)?,
            values: self.values.get(start..end)?,
            status: *self.status.get(row)?,
        })
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = FeaturesRow<'_>> {
        (0..self.rows()).filter_map(|row| self.row(row))
    }

    /// How many rows are not [`RowStatus::Ok`].
    pub fn failed_rows(&self) -> usize {
        self.status
            .iter()
            .filter(|&&status| status != RowStatus::Ok)
            .count()
    }

    /// Appends a feature to the row being filled; indices must come in ascending order.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn push(&mut self, index: u32, value: f32) -> Result<(), Error> {
        if self.indices.len() == self.indices.capacity()
            || self.values.len() == self.values.capacity()
        {
            self.reserve(0, 64)?;
        }
        self.indices.push(index);
        self.values.push(value);
        Ok(())
    }

    /// Bytes of the memory it holds.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        let rows = self.row_ends.capacity() * size_of::<usize>() + self.status.capacity();
        (rows + (self.indices.capacity() + self.values.capacity()) * 4) as u64
    }

    /// Adds to the indices of the row being filled, from position `start` on.
    pub(crate) fn shift(&mut self, start: usize, offset: u32) {
        for index in self.indices.iter_mut().skip(start) {
            *index += offset;
        }
    }

    /// Multiplies the values of the row being filled, from position `start` on, in f64, rounded
    /// once; what becomes 0 is removed.
    pub(crate) fn scale(&mut self, start: usize, factor: f64) {
        let mut kept = start;
        for at in start..self.values.len() {
            let (Some(&index), Some(&value)) = (self.indices.get(at), self.values.get(at)) else {
                break;
            };
            let value = (f64::from(value) * factor) as f32;
            if value != 0.0
                && let (Some(to), Some(into)) =
                    (self.indices.get_mut(kept), self.values.get_mut(kept))
            {
                (*to, *into) = (index, value);
                kept += 1;
            }
        }
        self.truncate(kept);
    }

    /// Removes the features of the row being filled, from position `start` on.
    pub(crate) fn truncate(&mut self, start: usize) {
        self.indices.truncate(start);
        self.values.truncate(start);
    }

    /// Ends the row being filled.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn end_row(&mut self, status: RowStatus) -> Result<(), Error> {
        self.reserve(1, 0)?;
        self.row_ends.push(self.indices.len());
        self.status.push(status);
        Ok(())
    }
}
