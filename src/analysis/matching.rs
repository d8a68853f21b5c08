//! One-to-one matchings of the features of two models.

use super::vectors::{Vectors, reserved};
use crate::error::Error;
use crate::model::Sae;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

/// Most pairs of features that a matching is sought over: 16,384 by 16,384, which hold 4 GiB while
/// it is.
pub const MAX_PAIRS: u64 = 1 << 28;

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

/// The pairs of the largest sum. Values are rounded to 2^-40 of the largest magnitude among them, so
/// the sum is within `pairs * 2^-40` of that magnitude of the largest.
fn assign(rows: usize, columns: usize, values: &[f64]) -> Result<Vec<(usize, usize)>, Error> {
    if rows == 0 || columns == 0 {
        return Ok(Vec::new());
    }
    let most = values
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    let unit = if most > 0.0 {
        libm::exp2(40.0) / most
    } else {
        1.0
    };
    let turned = rows > columns;
    let mut whole: Vec<i64> = reserved(values.len(), "a matching")?;
    let at = |row: usize, column: usize| {
        let value = values.get(row * columns + column).copied().unwrap_or(0.0);
        libm::round(value * unit) as i64
    };
    match turned {
        false => whole.extend(values.iter().map(|value| libm::round(value * unit) as i64)),
        true => {
            for column in 0..columns {
                whole.extend((0..rows).map(|row| at(row, column)));
            }
        }
    }
    let (short, long) = (rows.min(columns), rows.max(columns));
    let weights = Matrix::from_vec(short, long, whole).map_err(|_| Error::Length {
        what: "values of a matching",
        expected: (rows * columns) as u64,
        found: values.len() as u64,
    })?;
    let (_, partners) = kuhn_munkres(&weights);
    let pairs = partners.into_iter().enumerate();
    let mut pairs: Vec<(usize, usize)> = match turned {
        false => pairs.collect(),
        true => pairs.map(|(column, row)| (row, column)).collect(),
    };
    pairs.sort_unstable();
    Ok(pairs)
}

fn check(first: usize, second: usize) -> Result<usize, Error> {
    let pairs = (first as u64).saturating_mul(second as u64);
    match pairs > MAX_PAIRS {
        true => Err(Error::Limit {
            what: "pairs of features of a matching".into(),
            limit: MAX_PAIRS,
            found: pairs,
        }),
        false => Ok(pairs as usize),
    }
}

/// `f` of all dot products, `[first, second]`.
fn table(
    first: &Vectors,
    second: &Vectors,
    progress: &mut dyn FnMut(usize, usize),
    f: impl Fn(f64) -> f64,
) -> Result<Vec<f64>, Error> {
    let count = check(first.len(), second.len())?;
    let mut values = reserved(count, "a matching")?;
    values.resize(count, 0.0);
    let columns = second.len();
    first.products(second, progress, &mut |i, start, products| {
        let row = values.get_mut(i * columns + start..).unwrap_or(&mut []);
        for (value, &product) in row.iter_mut().zip(products) {
            *value = f(product);
        }
    })?;
    Ok(values)
}

fn matching(first: usize, second: usize, values: &[f64], sign: f64) -> Result<Matching, Error> {
    let value = |(i, j): (usize, usize)| sign * values.get(i * second + j).copied().unwrap_or(0.0);
    let pairs: Vec<Pair> = assign(first, second, values)?
        .into_iter()
        .map(|(i, j)| Pair {
            first: i as u32,
            second: j as u32,
            value: value((i, j)) + 0.0,
        })
        .collect();
    let total: f64 = pairs.iter().map(|pair| pair.value).sum();
    let mean = if pairs.is_empty() {
        0.0
    } else {
        total / pairs.len() as f64
    };
    Ok(Matching { pairs, mean })
}

/// PW-MCC: the matching of the largest `sum |cos|`, over unit vectors; its mean is the score. The
/// smaller model is matched in full.
///
/// # Errors
/// [`Error::Length`] if the two are not equally wide, [`Error::Limit`] beyond [`MAX_PAIRS`],
/// [`Error::OutOfMemory`].
pub fn pw_mcc(
    first: &Vectors,
    second: &Vectors,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Matching, Error> {
    let values = table(first, second, progress, f64::abs)?;
    matching(first.len(), second.len(), &values, 1.0)
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
    let count = check(first.d_sae(), second.d_sae())?;
    let mut costs: Vec<f64> = reserved(count, "a matching")?;
    costs.resize(count, 0.0);
    let columns = second.d_sae();
    let mut add = |a: &Vectors, b: &Vectors| {
        let squares = |of: &Vectors| (0..of.len()).map(|i| of.dot(i, of, i)).collect();
        let (ours, theirs): (Vec<f64>, Vec<f64>) = (squares(a), squares(b));
        a.products(b, progress, &mut |i, start, products| {
            let row = costs.get_mut(i * columns + start..).unwrap_or(&mut []);
            let mine = ours.get(i).copied().unwrap_or(0.0);
            let others = theirs.get(start..).unwrap_or(&[]);
            for ((cost, product), other) in row.iter_mut().zip(products).zip(others) {
                // Negated: the sum that is sought is the largest.
                *cost -= (mine + other - 2.0 * product).max(0.0);
            }
        })
    };
    if terms != Terms::Decoder {
        add(
            &Vectors::folded_encoder(first)?,
            &Vectors::folded_encoder(second)?,
        )?;
    }
    if terms != Terms::Encoder {
        add(
            &Vectors::folded_decoder(first)?,
            &Vectors::folded_decoder(second)?,
        )?;
    }
    matching(first.d_sae(), second.d_sae(), &costs, -1.0)
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
    let mut one = |a: &Vectors, b: &Vectors| {
        let values = table(a, b, progress, |cosine| cosine)?;
        matching(a.len(), b.len(), &values, 1.0)
    };
    let decoders = one(
        &Vectors::unit_decoder(first)?,
        &Vectors::unit_decoder(second)?,
    )?;
    let encoders = one(
        &Vectors::unit_encoder(first)?,
        &Vectors::unit_encoder(second)?,
    )?;
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
