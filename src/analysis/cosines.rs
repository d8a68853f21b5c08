//! All cosines of two sets of vectors: estimates by one matrix product in f32, with a bound on their
//! errors, so that little has to be computed exactly.
//!
//! With `u = 2^-24`, in any order of summation and with or without fused operations, a dot product
//! of `d` terms in f32 is within `d u / (1 - d u) * sum |a_k b_k|` of the true one (Higham, Accuracy
//! and Stability, 3.5), so within that share of `|a| |b|`. What is held is a cosine in 16 bits, which
//! adds half a unit, 2^-16. Vectors whose lengths are so far from 1 that products could overflow or
//! fall among the subnormal numbers have no bound: their pairs are computed exactly.

use super::vectors::{Vectors, reserved};
use crate::error::Error;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use nalgebra::{DMatrixViewMut, Dyn, MatrixView};

/// Vectors that are multiplied at a time with all of the other side.
const BLOCK: usize = 256;

/// Most pairs whose estimates are held, 2 bytes each; those of more are formed anew at each pass.
pub const HELD_PAIRS: u64 = 1 << 29;

/// Sizes below which there is no matrix product.
const SMALL: usize = 8;

/// Largest magnitude of a held cosine.
const ONE: f32 = 32767.0;

/// Lengths with a bound on the errors of products.
pub(super) const LENGTHS: core::ops::RangeInclusive<f64> = 9.5e-7..=1.05e6;

/// Is told the first row of a block, and its estimates.
type EachBlock<'e> = dyn FnMut(usize, &[f32]) -> Result<(), Error> + 'e;

/// One of the two sets.
struct Side<'v> {
    vectors: &'v Vectors,
    lengths: Vec<f64>,
    /// How far an estimate of a cosine can be off for the sake of this vector.
    errors: Vec<f32>,
}

/// The cosines of all pairs of two sets of vectors, estimated once and then asked for the nearest
/// and for matchings. Up to [`HELD_PAIRS`] they are held, in 2 bytes a pair: 512 MiB for 16,384 by
/// 16,384. Every value that is handed out is computed exactly.
pub struct Cosines<'v> {
    /// The smaller set, then the larger one.
    sides: [Side<'v>; 2],
    /// Whether the second set is the smaller one.
    turned: bool,
    held: Option<Vec<i16>>,
}

impl<'v> Side<'v> {
    fn new(vectors: &'v Vectors) -> Self {
        let all = 0..vectors.len();
        let lengths: Vec<f64> = all
            .map(|i| libm::sqrt(vectors.dot(i, vectors, i)))
            .collect();
        let share = vectors.width() as f64 / libm::exp2(24.0);
        let usual = match share < 0.1 {
            // The last term is for what falls among the subnormal numbers, for the roundings of
            // lengths and quotients (2^-22), and for rows that are these rows times a factor, rounded
            // to f32 once more (2^-22).
            true => share / (1.0 - share) + 1.0 / libm::exp2(16.0) + 2e-6,
            false => 2.0,
        };
        let errors = lengths.iter().map(|length| match length {
            0.0 => 0.0,
            length if LENGTHS.contains(length) => usual as f32,
            _ => 2.0,
        });
        Side {
            errors: errors.collect(),
            vectors,
            lengths,
        }
    }
}

impl<'v> Cosines<'v> {
    /// Estimates all cosines. `progress` is told how many blocks are done, of how many.
    ///
    /// # Errors
    /// [`Error::Length`] if the two are not equally wide, [`Error::OutOfMemory`].
    pub fn new(
        first: &'v Vectors,
        second: &'v Vectors,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        Self::within(first, second, HELD_PAIRS, progress)
    }

    /// As [`Cosines::new`], with a limit of the caller on the pairs whose estimates are held. More
    /// than that are estimated at each pass: 2 to 30 times for a matching, which gives the same.
    ///
    /// # Errors
    /// As [`Cosines::new`].
    pub fn within(
        first: &'v Vectors,
        second: &'v Vectors,
        held_pairs: u64,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let turned = first.len() > second.len();
        let mut cosines = match turned {
            true => Self::of(second, first)?,
            false => Self::of(first, second)?,
        };
        cosines.turned = turned;
        let (rows, columns) = (cosines.rows(), cosines.columns());
        if (rows as u64).saturating_mul(columns as u64) <= held_pairs {
            let mut held = reserved(rows * columns, "cosines")?;
            cosines.each_block(progress, &mut |_, estimates| {
                // Rounded by way of a positive number, since a floor is a call on some machines; an
                // estimate above 1 becomes 1, which is nearer to the truth.
                let narrow = |&estimate: &f32| {
                    let shifted = (estimate * ONE + 32768.5) as i32 - 32768;
                    shifted.clamp(-32767, 32767) as i16
                };
                held.extend(estimates.iter().map(narrow));
                Ok(())
            })?;
            cosines.held = Some(held);
        }
        Ok(cosines)
    }

    /// Nothing held; `rows` are whatever the caller says.
    fn of(rows: &'v Vectors, columns: &'v Vectors) -> Result<Self, Error> {
        if rows.width() != columns.width() {
            return Err(Error::Length {
                what: "values per vector of the two sides",
                expected: rows.width() as u64,
                found: columns.width() as u64,
            });
        }
        Ok(Cosines {
            sides: [Side::new(rows), Side::new(columns)],
            turned: false,
            held: None,
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.sides[0].vectors.len()
    }

    pub(super) fn columns(&self) -> usize {
        self.sides[1].vectors.len()
    }

    pub(super) fn turned(&self) -> bool {
        self.turned
    }

    /// The sets, the smaller one first.
    pub(super) fn vectors(&self) -> [&'v Vectors; 2] {
        [self.sides[0].vectors, self.sides[1].vectors]
    }

    /// Bytes that are held for the estimates.
    pub fn size_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.len() * 2)
    }

    /// Calls `each` with the first row of a block and the estimates of all its cosines,
    /// `[row][column]`.
    pub(super) fn each_block(
        &self,
        progress: &mut dyn FnMut(usize, usize),
        each: &mut EachBlock<'_>,
    ) -> Result<(), Error> {
        let (rows, mut block) = (self.rows(), Vec::new());
        let blocks = rows.div_ceil(BLOCK);
        for number in 0..blocks {
            self.block(number * BLOCK, &mut block)?;
            each(number * BLOCK, &block)?;
            progress(number + 1, blocks);
        }
        Ok(())
    }

    /// The estimates of the block that begins at `row`.
    pub(super) fn block(&self, row: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        let (columns, width) = (self.columns(), self.sides[0].vectors.width());
        let count = self.rows().saturating_sub(row).min(BLOCK);
        out.clear();
        if let Some(held) = &self.held {
            let held = held.get(row * columns..(row + count) * columns);
            let wide = |&value: &i16| f32::from(value) * (1.0 / ONE);
            out.extend(held.unwrap_or(&[]).iter().map(wide));
            return Ok(());
        }
        out.try_reserve_exact(count * columns)
            .map_err(|_| Error::OutOfMemory {
                what: "cosines",
                bytes: (count * columns * 4) as u64,
            })?;
        out.resize(count * columns, 0.0);
        if width == 0 || count == 0 || columns == 0 {
            return Ok(());
        }
        let [few, all] = [&self.sides[0], &self.sides[1]];
        self.products(row, count, out);
        for (row, values) in (row..).zip(out.chunks_exact_mut(columns)) {
            let own = few.lengths.get(row).copied().unwrap_or(0.0);
            for (value, other) in values.iter_mut().zip(&all.lengths) {
                let cosine = *value / (own * other) as f32;
                // What is not a cosine is of a vector without a bound, or of length 0.
                *value = if cosine.abs() <= 1.5 { cosine } else { 0.0 };
            }
        }
        Ok(())
    }

    /// The products of `count` rows from `row` on with all columns.
    fn products(&self, row: usize, count: usize, out: &mut [f32]) {
        let (columns, width) = (self.columns(), self.sides[0].vectors.width());
        let [few, all] = self.vectors();
        // Fewer than that the library does not hand to its matrix product, and what it does instead
        // is not for views like these.
        if columns.min(count).min(width) < SMALL {
            for (row, out) in (row..).zip(out.chunks_exact_mut(columns)) {
                for (column, out) in out.iter_mut().enumerate() {
                    *out = few.dot(row, all, column) as f32;
                }
            }
            return;
        }
        let part = few.values().get(row * width..(row + count) * width);
        let part = MatrixView::from_slice_generic(part.unwrap_or(&[]), Dyn(width), Dyn(count));
        // One vector of the other side in each row of `all`, one of this side in each column of `out`.
        let (rows, values) = (Dyn(columns), all.values());
        let all = MatrixView::from_slice_with_strides_generic(
            values,
            rows,
            Dyn(width),
            Dyn(width),
            Dyn(1),
        );
        let mut out = DMatrixViewMut::from_slice_generic(out, rows, Dyn(count));
        out.gemm(1.0, &all, &part, 0.0);
    }

    /// Adds `scale * own * other * cosine` at its largest to every value of `out`, the lengths being
    /// those of other vectors with these cosines; with `magnitude` of the cosine's magnitude.
    pub(super) fn add_bounds(
        &self,
        row: usize,
        estimates: &[f32],
        scale: f64,
        others: &[f64],
        magnitude: bool,
        out: &mut [f64],
    ) {
        let mine = self.sides[0].errors.get(row).copied().unwrap_or(2.0);
        let columns = estimates.iter().zip(&self.sides[1].errors).zip(others);
        for (out, ((&estimate, &error), &other)) in out.iter_mut().zip(columns) {
            let estimate = if magnitude { estimate.abs() } else { estimate };
            *out += scale * other * f64::from(estimate + mine.max(error));
        }
    }

    /// Whether vectors of these lengths can be these vectors, each times a factor.
    pub(super) fn fit(&self, lengths: &[Vec<f64>; 2]) -> bool {
        let mut sides = self.sides.iter().zip(lengths);
        sides.all(|(side, lengths)| {
            let mut both = side.lengths.iter().zip(lengths);
            let usual = |&length: &f64| LENGTHS.contains(&length);
            both.all(|(own, other)| (usual(own) && usual(other)) || (*own == 0.0 && *other == 0.0))
        })
    }

    /// Whether one of the two has length 0.
    pub(super) fn is_zero(&self, row: usize, column: usize) -> bool {
        let [few, all] = &self.sides;
        let zero = |side: &Side<'_>, at: usize| side.lengths.get(at).is_none_or(|&l| l == 0.0);
        zero(few, row) || zero(all, column)
    }

    /// The exact product of a pair.
    fn exact(&self, row: usize, column: usize) -> f64 {
        match self.is_zero(row, column) {
            true => 0.0,
            false => {
                let [few, all] = self.vectors();
                few.dot(row, all, column) + 0.0
            }
        }
    }

    /// The `k` nearest in the second set of every vector of the first, and in the first of every
    /// vector of the second; as [`nearest`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn nearest(
        &self,
        k: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<[Vec<Vec<Neighbour>>; 2], Error> {
        let mut rows = reserved(self.rows(), "nearest vectors")?;
        let mut columns: Vec<Candidates> = reserved(self.columns(), "nearest vectors")?;
        columns.resize_with(self.columns(), Candidates::default);
        self.nearest_of_rows(k, false, progress, &mut rows, Some(&mut columns))?;
        let among = k.min(self.rows());
        let back = columns.into_iter().enumerate().map(|(column, found)| {
            let exact = |row: u32| self.exact(row as usize, column);
            found.nearest(among, exact)
        });
        let back = back.collect();
        Ok(match self.turned {
            true => [back, rows],
            false => [rows, back],
        })
    }

    fn nearest_of_rows(
        &self,
        k: usize,
        apart: bool,
        progress: &mut dyn FnMut(usize, usize),
        rows: &mut Vec<Vec<Neighbour>>,
        mut back: Option<&mut Vec<Candidates>>,
    ) -> Result<(), Error> {
        let (columns, k) = (self.columns(), k.min(self.columns()));
        let among = k.min(self.rows());
        let lengths = &self.sides[1].lengths;
        let mut bounds = vec![(0.0_f64, 0.0_f64); columns];
        // What a column's next candidate has to reach, apart from the candidates: most reach nothing.
        let mut least = vec![f64::NEG_INFINITY; columns];
        self.each_block(progress, &mut |first, estimates| {
            for (row, estimates) in (first..).zip(estimates.chunks_exact(columns.max(1))) {
                let own = self.sides[0].lengths.get(row).copied().unwrap_or(0.0);
                let mine = self.sides[0].errors.get(row).copied().unwrap_or(2.0);
                let all = estimates.iter().zip(&self.sides[1].errors).zip(lengths);
                for (bounds, ((&estimate, &error), &other)) in bounds.iter_mut().zip(all) {
                    let (both, error) = (own * other, f64::from(mine.max(error)));
                    let estimate = f64::from(estimate);
                    *bounds = (both * (estimate - error), both * (estimate + error));
                }
                let (mut found, mut enough) = (Candidates::default(), f64::NEG_INFINITY);
                for (column, &(low, high)) in (0u32..).zip(&bounds) {
                    if high >= enough && !(apart && column as usize == row) {
                        enough = found.add(k, column, low, high);
                    }
                }
                rows.push(found.nearest(k, |column| self.exact(row, column as usize)));
                let Some(back) = back.as_deref_mut() else {
                    continue;
                };
                let all = bounds.iter().zip(&mut least).zip(back.iter_mut());
                for ((&(low, high), least), candidates) in all {
                    if high >= *least {
                        *least = candidates.add(among, row as u32, low, high);
                    }
                }
            }
            // Without columns there is no row of estimates.
            rows.resize_with(rows.len().max(first + BLOCK).min(self.rows()), Vec::new);
            Ok(())
        })
    }
}

/// A vector near another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its number.
    pub feature: u32,
    /// Their dot product: the cosine, of unit vectors.
    pub cosine: f64,
}

/// The vectors that can be among the nearest: whose upper bound is not below the `k`-th largest lower
/// bound so far.
#[derive(Default)]
struct Candidates {
    /// The largest lower bounds, descending, `k` at most.
    lows: Vec<f64>,
    /// Numbers, and upper bounds, as they came.
    found: Vec<(u32, f64)>,
    /// How many there may be before those that fell behind are dropped.
    room: usize,
}

impl Candidates {
    /// A vector whose upper bound is not below what the one before had to reach; what the next has to.
    fn add(&mut self, k: usize, number: u32, low: f64, high: f64) -> f64 {
        if k == 0 {
            return f64::INFINITY;
        }
        let full = self.lows.len() >= k;
        if !full || self.lows.last().is_some_and(|&least| low > least) {
            let place = self.lows.partition_point(|&other| other >= low);
            self.lows.insert(place, low);
            self.lows.truncate(k);
        }
        if self.found.len() >= self.room.max(2 * k + 16) {
            self.drop_behind(k);
            self.room = 2 * self.found.len();
        }
        self.found.push((number, high));
        match self.lows.last() {
            Some(&least) if self.lows.len() >= k => least,
            _ => f64::NEG_INFINITY,
        }
    }

    fn drop_behind(&mut self, k: usize) {
        if let (Some(&least), true) = (self.lows.last(), self.lows.len() >= k) {
            self.found.retain(|&(_, high)| high >= least);
        }
    }

    /// The nearest, descending, the lowest number first among equals.
    fn nearest(mut self, k: usize, exact: impl Fn(u32) -> f64) -> Vec<Neighbour> {
        self.drop_behind(k);
        let found = self.found.into_iter().map(|(feature, _)| Neighbour {
            feature,
            cosine: exact(feature),
        });
        let mut found: Vec<Neighbour> = found.collect();
        found.sort_by(|a, b| match b.cosine.total_cmp(&a.cosine) {
            Ordering::Equal => a.feature.cmp(&b.feature),
            order => order,
        });
        found.truncate(k);
        found
    }
}

/// For every vector of `of` the `k` vectors of `among` with the largest dot products, descending,
/// the lowest number first among equals. `apart` leaves out the vector of the same number: for one
/// model against itself. No square matrix is held: `of.len() * k` neighbours. `progress` is told how
/// many blocks are done, of how many.
///
/// # Errors
/// [`Error::Length`] if the two are not equally wide; [`Error::OutOfMemory`].
pub fn nearest(
    of: &Vectors,
    among: &Vectors,
    k: usize,
    apart: bool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Vec<Neighbour>>, Error> {
    let cosines = Cosines::of(of, among)?;
    let mut lists = reserved(of.len(), "nearest vectors")?;
    cosines.nearest_of_rows(k, apart, progress, &mut lists, None)?;
    Ok(lists)
}
