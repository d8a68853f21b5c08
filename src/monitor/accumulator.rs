//! Streaming statistics of features, in memory that is fixed when they are made.

mod read;

pub use read::Confusion;

use super::collect::Collect;
use super::row::{RowId, RowInfo};
use super::sum::Sum;
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use alloc::vec::Vec;

/// Values of this magnitude and beyond count as overflows and enter no sum: their squares would
/// leave the range of a sum.
const VALUE_LIMIT: f64 = 2_147_483_648.0; // 2^31

/// What is always known of a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) fired: u64,
    pub(super) sum: Sum,
    pub(super) squares: Sum,
    pub(super) max: f32,
    pub(super) min: f32,
    pub(super) max_at: RowId,
    /// Rows of the accumulator up to and with the last in which it fired; 0: never.
    pub(super) last: u64,
    /// The exponential average, as it was at `last`.
    pub(super) average: f64,
}

impl Cell {
    pub(super) const EMPTY: Cell = Cell {
        fired: 0,
        sum: Sum::from_words([0; 3]),
        squares: Sum::from_words([0; 3]),
        max: 0.0,
        min: 0.0,
        max_at: RowId {
            stream: 0,
            position: 0,
        },
        last: 0,
        average: 0.0,
    };
}

/// Counts and sum of a feature under one condition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub(super) fired: u64,
    pub(super) sum: Sum,
}

/// Sums of a feature over labelled rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Labelled {
    pub(super) sum: Sum,
    pub(super) squares: Sum,
    pub(super) products: Sum,
}

/// Predictions of a binary label by one threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Hits {
    pub(super) positive: u64,
    pub(super) negative: u64,
}

/// One of the rows in which a feature was largest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TopRow {
    /// The feature's value.
    pub value: f32,
    /// The row.
    pub row: RowId,
}

impl TopRow {
    /// Whether it comes before another: larger, or as large and of a lower row.
    fn before(&self, other: &TopRow) -> bool {
        match self.value.total_cmp(&other.value) {
            core::cmp::Ordering::Greater => true,
            core::cmp::Ordering::Less => false,
            core::cmp::Ordering::Equal => self.row < other.row,
        }
    }
}

/// Counts of rows and of labels, of the whole accumulator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) rows: u64,
    pub(super) non_finite: u64,
    pub(super) nan_pre_activations: u64,
    pub(super) overflows: u64,
    pub(super) labelled: u64,
    pub(super) label_sum: Sum,
    pub(super) label_squares: Sum,
    pub(super) positives: u64,
}

/// Streaming statistics over rows of [`Features`].
///
/// # Numbers
/// Counts and sums are integers (a sum is exact in units of 2^-96, each term rounded to that once),
/// so `merge(a, b)` has the bits of one pass over both, in any order of rows, streams and threads.
/// Maxima and top rows take the lowest [`RowId`] among equals, so they are independent of the order
/// too. Only two things depend on the order of rows, and follow `a` then `b`: the row that fired
/// last, and the exponential average (each of whose merges adds at most two roundings, relative
/// 2^-52). Means and variances are formed from the exact sums and rounded once, which no running
/// mean achieves.
///
/// "Active" is `f != 0`, as the rules that keep signs need. A row that is not finite is counted
/// and enters nothing else. Values of magnitude 2^31 and beyond (infinities) count as fired and as
/// overflows, and enter no sum.
///
/// ```
/// # fn main() -> Result<(), sae::Error> {
/// use sae::monitor::{Accumulator, Bins, Collect, RowInfo};
/// use sae::{Features, OpenOptions, Rows, Sae, Scratch};
/// # let (name, bytes, config) = sae::doc_example::tiny();
/// let sae = Sae::from_bytes(&name, &bytes, Some(&config), &OpenOptions::default())?;
/// let mut statistics = Accumulator::new(Collect::all(&sae).histogram(Bins::USUAL).top(4))?;
/// let (mut scratch, mut features) = (Scratch::new(&sae)?, Features::new());
/// sae.encode(Rows::from_f32(&[1.0, -2.0, 3.0, 0.0], 2)?, &mut scratch, &mut features)?;
/// statistics.add_all(&features, &[RowInfo::new(7, 0), RowInfo::new(7, 1)])?;
/// let first = statistics.feature(0).unwrap();
/// assert_eq!((first.fired, first.mean, first.max), (2, 2.0, 3.0));
/// assert_eq!(first.max_at.position, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Accumulator {
    pub(super) collect: Collect,
    pub(super) totals: Totals,
    pub(super) cells: Vec<Cell>,
    /// `[slots, bins]`
    pub(super) histograms: Vec<u64>,
    /// `[slots, top]`, sorted; entries beyond the number of fired rows are empty.
    pub(super) tops: Vec<TopRow>,
    /// `[set, set]`, upper triangle with the diagonal.
    pub(super) pairs: Vec<u64>,
    /// Rows under each condition.
    pub(super) condition_rows: Vec<u64>,
    /// `[slots, conditions]`
    pub(super) parts: Vec<Part>,
    pub(super) labelled: Vec<Labelled>,
    /// `[slots, thresholds]`
    pub(super) hits: Vec<Hits>,
    /// Places in the co-occurrence set that fire in the row at hand.
    firing: Vec<u32>,
}

/// What is known of a feature, in the units of `encode`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureSummary {
    /// The feature.
    pub feature: u32,
    /// Rows in which it was active.
    pub fired: u64,
    /// `fired / rows`
    pub density: f64,
    /// Mean over all rows, inactive ones as 0.
    pub mean: f64,
    /// Mean over active rows; 0 if there are none.
    pub mean_active: f64,
    /// Variance over all rows (divided by their number).
    pub variance: f64,
    /// Largest value over active rows; 0 if there are none.
    pub max: f32,
    /// Its row, the lowest among equals.
    pub max_at: RowId,
    /// Smallest value over active rows; 0 if there are none.
    pub min: f32,
    /// Rows since it fired: 0 if it did in the last row; `None` if never.
    pub rows_since: Option<u64>,
    /// Exponential average of the firing rate, if collected: each row weighs `2^(1 / half-life)`
    /// times the one before, and the weights of all rows so far are divided by their sum.
    pub rate: Option<f64>,
}

impl Accumulator {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`], [`Error::InvalidArgument`] or [`Error::Limit`] for what cannot
    /// be collected; [`Error::OutOfMemory`].
    pub fn new(collect: Collect) -> Result<Self, Error> {
        let collect = collect.checked()?;
        let slots = collect.slots();
        let bins = collect.bins.map_or(0, |bins| bins.count());
        let set = collect.cooccurrence.len();
        let conditions = collect.conditions as usize;
        let times = |count: usize| slots.saturating_mul(count);
        Ok(Accumulator {
            totals: Totals::default(),
            cells: filled(slots, Cell::EMPTY)?,
            histograms: filled(times(bins), 0)?,
            tops: filled(times(collect.top as usize), TopRow::default())?,
            pairs: filled(set * set, 0)?,
            condition_rows: filled(conditions, 0)?,
            parts: filled(times(conditions), Part::default())?,
            labelled: filled(if collect.label { slots } else { 0 }, Labelled::default())?,
            hits: filled(times(collect.thresholds.len()), Hits::default())?,
            firing: filled(set, 0)?,
            collect,
        })
    }

    /// What is collected.
    pub fn collect(&self) -> &Collect {
        &self.collect
    }

    /// Bytes held, which never change.
    pub fn bytes(&self) -> u64 {
        fn of<T>(values: &[T]) -> u64 {
            size_of_val(values) as u64
        }
        let lists = [
            of(&self.cells),
            of(&self.histograms),
            of(&self.tops),
            of(&self.pairs),
            of(&self.condition_rows),
            of(&self.parts),
            of(&self.labelled),
            of(&self.hits),
            of(&self.firing),
            of(self.collect.features.as_deref().unwrap_or(&[])),
            of(&self.collect.cooccurrence),
            of(&self.collect.thresholds),
            size_of::<Self>() as u64,
        ];
        lists.iter().sum()
    }

    /// Forgets everything seen, and keeps the memory.
    pub fn clear(&mut self) {
        self.totals = Totals::default();
        self.cells.fill(Cell::EMPTY);
        self.histograms.fill(0);
        self.tops.fill(TopRow::default());
        self.pairs.fill(0);
        self.condition_rows.fill(0);
        self.parts.fill(Part::default());
        self.labelled.fill(Labelled::default());
        self.hits.fill(Hits::default());
    }

    /// Adds every row. `infos` has one entry per row, or none: then the rows are stream 0, and
    /// their positions go on from the rows added so far. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Length`] if there are infos, but not one per row, [`Error::FeatureOutOfRange`],
    /// [`Error::InvalidArgument`] for a condition out of range; nothing is added then.
    pub fn add_all(&mut self, features: &Features, infos: &[RowInfo]) -> Result<(), Error> {
        if !infos.is_empty() && infos.len() != features.rows() {
            return Err(Error::Length {
                what: "infos of rows",
                expected: features.rows() as u64,
                found: infos.len() as u64,
            });
        }
        for row in features.iter() {
            self.check_row(row)?;
        }
        for info in infos {
            self.check_info(info)?;
        }
        for (number, row) in features.iter().enumerate() {
            let position = self.totals.rows + self.totals.non_finite;
            let next = RowInfo::new(0, position);
            self.add_checked(row, infos.get(number).unwrap_or(&next));
        }
        Ok(())
    }

    /// Adds one row. Allocates nothing.
    ///
    /// # Errors
    /// As [`Accumulator::add_all`].
    pub fn add(&mut self, row: FeaturesRow<'_>, info: &RowInfo) -> Result<(), Error> {
        self.check_row(row)?;
        self.check_info(info)?;
        self.add_checked(row, info);
        Ok(())
    }

    fn check_row(&self, row: FeaturesRow<'_>) -> Result<(), Error> {
        // Indices ascend, so the last is the largest.
        match row.indices.last() {
            Some(&last) if last >= self.collect.d_sae => Err(Error::FeatureOutOfRange {
                feature: last.into(),
                d_sae: self.collect.d_sae.into(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn check_info(&self, info: &RowInfo) -> Result<(), Error> {
        let conditions = self.collect.conditions;
        if conditions == 0 || info.condition < conditions {
            return Ok(());
        }
        Err(Error::InvalidArgument {
            what: "condition of a row",
            expected: alloc::format!("below {conditions}"),
            found: alloc::format!("{}", info.condition),
        })
    }

    pub(super) fn add_checked(&mut self, row: FeaturesRow<'_>, info: &RowInfo) {
        match row.status {
            RowStatus::NonFinite => {
                self.totals.non_finite += 1;
                return;
            }
            RowStatus::NanPreActivation => self.totals.nan_pre_activations += 1,
            _ => {}
        }
        self.totals.rows += 1;
        if let Some(rows) = self.condition_rows.get_mut(info.condition as usize) {
            *rows += 1;
        }
        // A label beyond the range of a sum is none, as NaN is.
        let label = Some(info.label).filter(|label| label.abs() < VALUE_LIMIT);
        let positive = label.map(|label| label > 0.5);
        if let Some(label) = label {
            self.totals.labelled += 1;
            self.totals.label_sum.add(label);
            self.totals.label_squares.add(label * label);
            self.totals.positives += u64::from(label > 0.5);
        }
        for (&feature, &value) in row.indices.iter().zip(row.values) {
            if let Some(slot) = self.collect.slot(feature) {
                self.add_value(slot, value, info, label, positive);
            }
        }
        self.add_pairs(row);
    }

    fn add_value(
        &mut self,
        slot: usize,
        value: f32,
        info: &RowInfo,
        label: Option<f64>,
        positive: Option<bool>,
    ) {
        let rows = self.totals.rows;
        let Some(cell) = self.cells.get_mut(slot) else {
            return;
        };
        if value == 0.0 || value.is_nan() {
            return;
        }
        if cell.fired == 0 || value > cell.max || (value == cell.max && info.id < cell.max_at) {
            (cell.max, cell.max_at) = (value, info.id);
        }
        if cell.fired == 0 || value < cell.min {
            cell.min = value;
        }
        if let Some(half_life) = self.collect.half_life {
            cell.average = 1.0 + cell.average * decay(rows - cell.last, half_life);
        }
        cell.fired += 1;
        cell.last = rows;
        let wide = f64::from(value);
        let fits = wide.abs() < VALUE_LIMIT;
        let (term, square) = match fits {
            true => (Sum::of(wide), Sum::of(wide * wide)),
            false => (Sum::default(), Sum::default()),
        };
        cell.sum.merge(term);
        cell.squares.merge(square);
        self.totals.overflows += u64::from(!fits);
        if let Some(bins) = self.collect.bins
            && let Some(count) = self
                .histograms
                .get_mut(slot * bins.count() + bins.of(value))
        {
            *count += 1;
        }
        let conditions = self.collect.conditions as usize;
        if conditions > 0
            && let Some(part) = self
                .parts
                .get_mut(slot * conditions + info.condition as usize)
        {
            part.fired += 1;
            part.sum.merge(term);
        }
        if let (Some(label), Some(sums)) = (label, self.labelled.get_mut(slot)) {
            sums.sum.merge(term);
            sums.squares.merge(square);
            if fits {
                // Both below 2^31, so within the range of a sum.
                sums.products.add(wide * label);
            }
        }
        let thresholds = self.collect.thresholds.len();
        if let Some(positive) = positive {
            let hits = self
                .hits
                .get_mut(slot * thresholds..(slot + 1) * thresholds);
            for (hit, threshold) in hits
                .unwrap_or(&mut [])
                .iter_mut()
                .zip(&self.collect.thresholds)
            {
                let over = u64::from(value > *threshold);
                hit.positive += if positive { over } else { 0 };
                hit.negative += if positive { 0 } else { over };
            }
        }
        let top = self.collect.top as usize;
        if top > 0 {
            let filled = ((cell.fired - 1) as usize).min(top);
            if let Some(rows) = self.tops.get_mut(slot * top..(slot + 1) * top) {
                insert(
                    rows,
                    filled,
                    TopRow {
                        value,
                        row: info.id,
                    },
                );
            }
        }
    }

    fn add_pairs(&mut self, row: FeaturesRow<'_>) {
        let set = &self.collect.cooccurrence;
        if set.is_empty() {
            return;
        }
        let mut count = 0;
        let (mut place, mut firing) = (0, row.indices.iter().zip(row.values));
        let mut next = firing.next();
        // Both ascend.
        while let (Some(&feature), Some((&index, &value))) = (set.get(place), next) {
            match feature.cmp(&index) {
                core::cmp::Ordering::Less => place += 1,
                core::cmp::Ordering::Greater => next = firing.next(),
                core::cmp::Ordering::Equal => {
                    if value != 0.0
                        && let Some(slot) = self.firing.get_mut(count)
                    {
                        *slot = place as u32;
                        count += 1;
                    }
                    place += 1;
                    next = firing.next();
                }
            }
        }
        let firing = self.firing.get(..count).unwrap_or(&[]);
        for (at, &first) in firing.iter().enumerate() {
            for &second in firing.get(at..).unwrap_or(&[]) {
                let place = first as usize * set.len() + second as usize;
                if let Some(pair) = self.pairs.get_mut(place) {
                    *pair += 1;
                }
            }
        }
    }

    /// Adds what another accumulator of the same kind has seen, as if its rows had come after
    /// those here.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it collects something else, or from another model.
    pub fn merge(&mut self, other: &Accumulator) -> Result<(), Error> {
        if self.collect != other.collect {
            let same = self.collect.model == other.collect.model;
            return Err(Error::InvalidArgument {
                what: "accumulator to merge",
                expected: "one that collects the same of the same model".into(),
                found: match same {
                    true => "one that collects something else".into(),
                    false => alloc::format!("one of model {:016x}", other.collect.model),
                },
            });
        }
        let before = self.totals.rows;
        let (to, from) = (&mut self.totals, &other.totals);
        to.rows += from.rows;
        to.non_finite += from.non_finite;
        to.nan_pre_activations += from.nan_pre_activations;
        to.overflows += from.overflows;
        to.labelled += from.labelled;
        to.label_sum.merge(from.label_sum);
        to.label_squares.merge(from.label_squares);
        to.positives += from.positives;
        let top = self.collect.top as usize;
        for (slot, from) in other.cells.iter().enumerate() {
            let filled = self
                .cells
                .get(slot)
                .map_or(0, |cell| cell.fired as usize)
                .min(top);
            if let (Some(to), Some(from)) = (
                self.tops.get_mut(slot * top..(slot + 1) * top),
                other.tops.get(slot * top..(slot + 1) * top),
            ) {
                let count = (other.cells.get(slot))
                    .map_or(0, |cell| cell.fired as usize)
                    .min(top);
                for (more, row) in from.iter().take(count).enumerate() {
                    insert(to, (filled + more).min(top), *row);
                }
            }
            let Some(to) = self.cells.get_mut(slot).filter(|_| from.fired > 0) else {
                continue;
            };
            if to.fired == 0 || from.max > to.max || (from.max == to.max && from.max_at < to.max_at)
            {
                (to.max, to.max_at) = (from.max, from.max_at);
            }
            to.min = if to.fired == 0 {
                from.min
            } else {
                to.min.min(from.min)
            };
            if let Some(half_life) = self.collect.half_life {
                let rows = before + from.last - to.last;
                to.average = from.average + to.average * decay(rows, half_life);
            }
            to.fired += from.fired;
            to.last = before + from.last;
            to.sum.merge(from.sum);
            to.squares.merge(from.squares);
        }
        let counts = [
            (&mut self.histograms, &other.histograms),
            (&mut self.pairs, &other.pairs),
            (&mut self.condition_rows, &other.condition_rows),
        ];
        for (to, from) in counts {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
        for (to, from) in self.parts.iter_mut().zip(&other.parts) {
            to.fired += from.fired;
            to.sum.merge(from.sum);
        }
        for (to, from) in self.labelled.iter_mut().zip(&other.labelled) {
            to.sum.merge(from.sum);
            to.squares.merge(from.squares);
            to.products.merge(from.products);
        }
        for (to, from) in self.hits.iter_mut().zip(&other.hits) {
            to.positive += from.positive;
            to.negative += from.negative;
        }
        Ok(())
    }
}

/// What a weight has become after so many rows.
fn decay(rows: u64, half_life: f64) -> f64 {
    libm::exp2(-(rows as f64) / half_life)
}

/// Puts a row among the sorted ones if it belongs there.
fn insert(rows: &mut [TopRow], filled: usize, row: TopRow) {
    let place = rows
        .get(..filled)
        .unwrap_or(&[])
        .partition_point(|other| other.before(&row));
    if place >= rows.len() {
        return;
    }
    let end = (filled + 1).min(rows.len());
    if let Some(part) = rows.get_mut(place..end) {
        part.rotate_right(1);
        if let Some(first) = part.first_mut() {
            *first = row;
        }
    }
}

/// A vector of equal values, or the library's error.
pub(super) fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory {
            what: "a monitor",
            bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    values.resize(count, value);
    Ok(values)
}
