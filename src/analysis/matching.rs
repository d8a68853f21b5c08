//! One-to-one matchings of the features of two models.

use super::assignment::{self, Pairs};
use super::cosines::Cosines;
use super::vectors::{Vectors, reserved};
use crate::error::Error;
use crate::model::Sae;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// Most pairs of features that a matching is sought over: 65,536 by 65,536. Up to
/// [`HELD_PAIRS`](super::HELD_PAIRS) an estimate of each is held, in 2 bytes; beyond, every pass over
/// them is a matrix product.
pub const MAX_PAIRS: u64 = 1 << 32;

/// A pair of a matching.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The feature of the first model.
    pub first: u32,
    /// The feature of the second model.
    pub second: u32,
    /// What was summed: a cosine's magnitude, or a squared distance.
    pub value: f64,
}

/// A matching, ascending in the features of the first model. The smaller side is matched in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// Mean of their values; 0 if there are none.
    pub mean: f64,
}

/// What is summed over the pairs of a matching.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The product.
    Product,
    /// Its magnitude.
    Magnitude,
    /// The negated squared distance.
    Distance,
}

/// A summand: vectors whose cosines are those of `cosines`, the smaller set first.
struct Term<'c> {
    cosines: &'c Cosines<'c>,
    vectors: [&'c Vectors; 2],
    squares: [Vec<f64>; 2],
    lengths: [Vec<f64>; 2],
    kind: Kind,
}

/// The values of all pairs, as the assignment sees them: the smaller set are its rows.
struct Values<'c> {
    terms: Vec<Term<'c>>,
    /// Units per 1: 2^40 of them are the largest magnitude that there can be.
    unit: f64,
}

fn largest(of: &[f64]) -> f64 {
    of.iter().copied().fold(0.0, f64::max)
}

impl<'c> Term<'c> {
    fn new(cosines: &'c Cosines<'c>, vectors: [&'c Vectors; 2], kind: Kind) -> Self {
        let square = |of: &Vectors| (0..of.len()).map(|i| of.dot(i, of, i)).collect();
        let squares: [Vec<f64>; 2] = vectors.map(square);
        let roots = |of: &Vec<f64>| of.iter().map(|&square| libm::sqrt(square)).collect();
        Term {
            lengths: squares.each_ref().map(roots),
            cosines,
            vectors,
            squares,
            kind,
        }
    }

    /// Of the vectors that the cosines were made of.
    fn own(cosines: &'c Cosines<'c>, kind: Kind) -> Self {
        Self::new(cosines, cosines.vectors(), kind)
    }

    fn magnitude(&self) -> f64 {
        let [a, b] = [largest(&self.lengths[0]), largest(&self.lengths[1])];
        match self.kind {
            Kind::Distance => (a + b) * (a + b),
            _ => a * b,
        }
    }

    fn exact(&self, row: usize, column: usize) -> f64 {
        let product = match self.cosines.is_zero(row, column) {
            true => 0.0,
            false => self.vectors[0].dot(row, self.vectors[1], column),
        };
        match self.kind {
            Kind::Product => product,
            Kind::Magnitude => product.abs(),
            Kind::Distance => {
                let square =
                    |side: usize, at: usize| self.squares[side].get(at).copied().unwrap_or(0.0);
                -(square(0, row) + square(1, column) - 2.0 * product).max(0.0)
            }
        }
    }

    fn add_bounds(&self, row: usize, estimates: &[f32], unit: f64, out: &mut [f64]) {
        let own = self.lengths[0].get(row).copied().unwrap_or(0.0);
        let others = &self.lengths[1];
        let (factor, magnitude) = match self.kind {
            Kind::Product => (1.0, false),
            Kind::Magnitude => (1.0, true),
            Kind::Distance => {
                for (out, other) in out.iter_mut().zip(others) {
                    *out -= (own * own + other * other) * unit;
                }
                (2.0, false)
            }
        };
        let scale = factor * own * unit;
        self.cosines
            .add_bounds(row, estimates, scale, others, magnitude, out);
    }
}

impl<'c> Values<'c> {
    fn new(terms: Vec<Term<'c>>) -> Self {
        let most: f64 = terms.iter().map(Term::magnitude).sum();
        let unit = libm::exp2(40.0) / most;
        let unit = if unit.is_finite() && unit > 0.0 {
            unit
        } else {
            1.0
        };
        Values { terms, unit }
    }

    fn value(&self, row: usize, column: usize) -> f64 {
        self.terms.iter().map(|term| term.exact(row, column)).sum()
    }

    /// The matching of the largest sum, with `sign` times the values.
    fn matching(
        &self,
        sign: f64,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Matching, Error> {
        let (columns, _) = assignment::best(self, progress)?;
        let turned = self.terms.first().is_some_and(|term| term.cosines.turned());
        let pairs = columns.into_iter().enumerate().map(|(row, column)| {
            let value = sign * self.value(row, column as usize) + 0.0;
            let (first, second) = match turned {
                true => (column, row as u32),
                false => (row as u32, column),
            };
            Pair {
                first,
                second,
                value,
            }
        });
        let mut pairs: Vec<Pair> = pairs.collect();
        pairs.sort_unstable_by_key(|pair| pair.first);
        let total: f64 = pairs.iter().map(|pair| pair.value).sum();
        let mean = match pairs.len() {
            0 => 0.0,
            count => total / count as f64,
        };
        Ok(Matching { pairs, mean })
    }
}

impl Pairs for Values<'_> {
    fn rows(&self) -> usize {
        self.terms.first().map_or(0, |term| term.cosines.rows())
    }

    fn columns(&self) -> usize {
        self.terms.first().map_or(0, |term| term.cosines.columns())
    }

    fn bounds(&self, each: &mut dyn FnMut(usize, &[f64])) -> Result<(), Error> {
        let Some((first, rest)) = self.terms.split_first() else {
            return Ok(());
        };
        let columns = self.columns();
        let mut bounds = reserved(columns, "bounds of a matching")?;
        bounds.resize(columns, 0.0);
        let mut others = vec![Vec::new(); rest.len()];
        first
            .cosines
            .each_block(&mut |_, _| {}, &mut |start, estimates| {
                for (term, estimates) in rest.iter().zip(&mut others) {
                    term.cosines.block(start, estimates)?;
                }
                for (offset, estimates) in estimates.chunks_exact(columns.max(1)).enumerate() {
                    let row = start + offset;
                    bounds.fill(0.0);
                    first.add_bounds(row, estimates, self.unit, &mut bounds);
                    for (term, estimates) in rest.iter().zip(&others) {
                        let own = estimates.get(offset * columns..(offset + 1) * columns);
                        term.add_bounds(row, own.unwrap_or(&[]), self.unit, &mut bounds);
                    }
                    each(row, &bounds);
                }
                Ok(())
            })
    }

    fn exact(&self, row: usize, column: usize) -> i64 {
        libm::round(self.value(row, column) * self.unit) as i64
    }

    /// A squared distance has a part of the column alone, which is its price.
    fn prices(&self) -> Vec<i64> {
        let mut prices = vec![0.0; self.columns()];
        for term in self.terms.iter().filter(|term| term.kind == Kind::Distance) {
            let most = largest(&term.lengths[1]);
            for (price, length) in prices.iter_mut().zip(&term.lengths[1]) {
                *price += most * most - length * length;
            }
        }
        let whole = prices.iter().map(|price| (price * self.unit) as i64);
        whole.collect()
    }
}

fn check(first: usize, second: usize) -> Result<(), Error> {
    let pairs = (first as u64).saturating_mul(second as u64);
    match pairs > MAX_PAIRS {
        true => Err(Error::Limit {
            what: "pairs of features of a matching".into(),
            limit: MAX_PAIRS,
            found: pairs,
        }),
        false => Ok(()),
    }
}

/// PW-MCC: the matching of the largest `sum |cos|`, over unit vectors; its mean is the score. The
/// smaller model is matched in full. The sum is within `pairs * 2^-40` of the largest; which of several
/// such matchings it is, is the same on every machine.
///
/// # Errors
/// [`Error::Length`] if the two are not equally wide, [`Error::Limit`] beyond [`MAX_PAIRS`],
/// [`Error::OutOfMemory`].
pub fn pw_mcc(
    first: &Vectors,
    second: &Vectors,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Matching, Error> {
    check(first.len(), second.len())?;
    Cosines::new(first, second, progress)?.pw_mcc(progress)
}

impl Cosines<'_> {
    /// As [`pw_mcc`], of these vectors.
    ///
    /// # Errors
    /// As [`pw_mcc`].
    pub fn pw_mcc(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Matching, Error> {
        self.matching(Kind::Magnitude, progress)
    }

    fn matching(
        &self,
        kind: Kind,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Matching, Error> {
        check(self.rows(), self.columns())?;
        Values::new(vec![Term::own(self, kind)]).matching(1.0, progress)
    }
}

/// Which vectors the cost of [`sae_match`] compares; the paper's experiments differ in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terms {
    /// `|w_i - w'_j|^2 + |d_i - d'_j|^2`
    #[default]
    Both,
    /// `|w_i - w'_j|^2`
    Encoder,
    /// `|d_i - d'_j|^2`
    Decoder,
}

/// SAE Match: the matching of the least sum of squared distances between folded vectors,
/// `w_i / threshold_i` and `d_i threshold_i`, so that every threshold is 1. Values are the squared
/// distances, formed as `|a|^2 + |b|^2 - 2 <a, b>`.
///
/// # Errors
/// As [`pw_mcc`], and [`Error::BadValue`] for thresholds that cannot be folded.
pub fn sae_match(
    first: &Sae<'_>,
    second: &Sae<'_>,
    terms: Terms,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Matching, Error> {
    check(first.d_sae(), second.d_sae())?;
    let mut both = Vec::new();
    if terms != Terms::Decoder {
        let of = [
            Vectors::folded_encoder(first)?,
            Vectors::folded_encoder(second)?,
        ];
        both.push(of);
    }
    if terms != Terms::Encoder {
        let of = [
            Vectors::folded_decoder(first)?,
            Vectors::folded_decoder(second)?,
        ];
        both.push(of);
    }
    let mut cosines = Vec::new();
    for [a, b] in &both {
        cosines.push(Cosines::new(a, b, progress)?);
    }
    let terms = cosines.iter().map(|own| Term::own(own, Kind::Distance));
    Values::new(terms.collect()).matching(-1.0, progress)
}

/// [`sae_match`] by both terms, with the cosines of the models' unit vectors at hand: folding changes
/// lengths, so nothing is multiplied again but the pairs that come into question.
///
/// # Errors
/// As [`sae_match`]; [`Error::Length`] if the cosines are not of as many features.
pub fn sae_match_with(
    first: &Sae<'_>,
    second: &Sae<'_>,
    encoders: &Cosines<'_>,
    decoders: &Cosines<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Matching, Error> {
    check(first.d_sae(), second.d_sae())?;
    for cosines in [encoders, decoders] {
        let held = cosines.rows().max(cosines.columns());
        let both = cosines.rows() * cosines.columns();
        if both != first.d_sae() * second.d_sae() || held != first.d_sae().max(second.d_sae()) {
            return Err(Error::Length {
                what: "features of the cosines",
                expected: first.d_sae().max(second.d_sae()) as u64,
                found: held as u64,
            });
        }
    }
    let mut folded = [
        [
            Vectors::folded_encoder(first)?,
            Vectors::folded_encoder(second)?,
        ],
        [
            Vectors::folded_decoder(first)?,
            Vectors::folded_decoder(second)?,
        ],
    ];
    if encoders.turned() {
        folded.iter_mut().for_each(|pair| pair.reverse());
    }
    let mut terms = Vec::new();
    for (cosines, [a, b]) in [encoders, decoders].into_iter().zip(&folded) {
        let term = Term::new(cosines, [a, b], Kind::Distance);
        if !cosines.fit(&term.lengths) {
            return sae_match(first, second, Terms::Both, progress);
        }
        terms.push(term);
    }
    Values::new(terms).matching(-1.0, progress)
}

/// A matching from the first to the third model, over the second: features that lose their partner
/// on the way are left out. Pairs are `(feature, partner)`.
pub fn compose(first: &Matching, second: &Matching) -> Vec<(u32, u32)> {
    let step = |feature: u32| {
        let found = second
            .pairs
            .binary_search_by_key(&feature, |pair| pair.first);
        found.ok().and_then(|at| second.pairs.get(at))
    };
    let pairs = first.pairs.iter();
    pairs
        .filter_map(|pair| Some((pair.first, step(pair.second)?.second)))
        .collect()
}

/// The shared features of two models, as pairs: those whose partner is the same in the matching of
/// decoder vectors and in that of encoder vectors (largest sums of cosines), with both cosines above
/// `limit` (0.7 in the paper). The fraction is their share of the smaller model.
///
/// # Errors
/// As [`pw_mcc`].
pub fn shared_fraction(
    first: &Sae<'_>,
    second: &Sae<'_>,
    limit: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(f64, Vec<(u32, u32)>), Error> {
    let (a, b) = (
        Vectors::unit_encoder(first)?,
        Vectors::unit_encoder(second)?,
    );
    let encoders = Cosines::new(&a, &b, progress)?;
    let (a, b) = (
        Vectors::unit_decoder(first)?,
        Vectors::unit_decoder(second)?,
    );
    let decoders = Cosines::new(&a, &b, progress)?;
    shared_fraction_with(&encoders, &decoders, limit, progress)
}

/// [`shared_fraction`], with the cosines of the models' unit vectors at hand.
///
/// # Errors
/// As [`pw_mcc`].
pub fn shared_fraction_with(
    encoders: &Cosines<'_>,
    decoders: &Cosines<'_>,
    limit: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(f64, Vec<(u32, u32)>), Error> {
    let decoders = decoders.matching(Kind::Product, progress)?;
    let encoders = encoders.matching(Kind::Product, progress)?;
    let agrees = |pair: &&Pair| {
        let found = encoders
            .pairs
            .binary_search_by_key(&pair.first, |pair| pair.first);
        let other = found.ok().and_then(|at| encoders.pairs.get(at));
        pair.value > limit
            && other.is_some_and(|other| other.second == pair.second && other.value > limit)
    };
    let shared = decoders.pairs.iter().filter(agrees);
    let shared: Vec<(u32, u32)> = shared.map(|pair| (pair.first, pair.second)).collect();
    let all = decoders.pairs.len().max(1);
    Ok((shared.len() as f64 / all as f64, shared))
}

/// `|A and B| / |A or B|` of two sets of labels, in any order, doubles counted once; 0 if both are
/// empty. ITDA compares models by the (prompt, token) labels of their dictionaries.
pub fn jaccard<T: Ord>(first: &[T], second: &[T]) -> f64 {
    let first: BTreeSet<&T> = first.iter().collect();
    let second: BTreeSet<&T> = second.iter().collect();
    let both = first.intersection(&second).count();
    match first.len() + second.len() - both {
        0 => 0.0,
        all => both as f64 / all as f64,
    }
}
