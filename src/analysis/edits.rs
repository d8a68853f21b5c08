//! The fewest edits that bring a row near another one.

use super::vectors::Vectors;
use crate::error::Error;
use crate::features::{Features, FeaturesRow};
use crate::model::Sae;
use alloc::vec::Vec;

/// An edit, and what is left after it and those before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GreedyEdit {
    /// The feature.
    pub feature: u32,
    /// Its value, as the target has it: for the rule `set` of plans.
    pub value: f32,
    /// `|x' - target|` with this edit and those before it.
    pub distance: f64,
}

/// Sparse control: at most `count` features of `source`, one after the other, take the values that
/// they have in `target`; each time the one whose change `(f'_i - f_i) d_i` leaves the row nearest to
/// the target's, the lowest among equals. Ends when none brings it nearer. Rows are those of the output
/// site, features in the units of `encode`; models that normalise their input move rows by other
/// amounts.
///
/// # Errors
/// [`Error::Length`] unless the rows are d_out wide, [`Error::FeatureOutOfRange`]; as
/// [`Vectors::unit_decoder`].
pub fn greedy_edits(
    sae: &Sae<'_>,
    source: (&[f32], FeaturesRow<'_>),
    target: (&[f32], FeaturesRow<'_>),
    count: usize,
) -> Result<Vec<GreedyEdit>, Error> {
    let decoder = Vectors::decoder(sae)?;
    for (row, features) in [source, target] {
        if row.len() != sae.d_out() {
            return Err(Error::Length {
                what: "values of a row",
                expected: sae.d_out() as u64,
                found: row.len() as u64,
            });
        }
        if let Some(&last) = features.indices.last()
            && last as usize >= sae.d_sae()
        {
            return Err(Error::FeatureOutOfRange {
                feature: last.into(),
                d_sae: sae.d_sae() as u64,
            });
        }
    }
    let value = |of: FeaturesRow<'_>, feature: u32| {
        let at = of.indices.binary_search(&feature).ok();
        at.and_then(|at| of.values.get(at)).copied().unwrap_or(0.0)
    };
    let mut moves: Vec<u32> = source.1.indices.to_vec();
    moves.extend(target.1.indices);
    moves.sort_unstable();
    moves.dedup();
    // What the row is short of the target.
    let pairs = source.0.iter().zip(target.0);
    let mut short: Vec<f64> = pairs.map(|(&x, &y)| f64::from(y) - f64::from(x)).collect();
    let square = |of: &[f64]| of.iter().map(|x| x * x).sum::<f64>();
    let mut left = square(&short);
    let mut edits = Vec::new();
    while edits.len() < count {
        let after = |&feature: &u32| {
            let change = f64::from(value(target.1, feature)) - f64::from(value(source.1, feature));
            let row = decoder.row(feature as usize).iter();
            let rest = row.zip(&short).map(|(&d, s)| s - change * f64::from(d));
            rest.map(|x| x * x).sum::<f64>()
        };
        let best = moves
            .iter()
            .enumerate()
            .map(|(place, feature)| (place, after(feature)))
            .reduce(|best, next| if next.1 < best.1 { next } else { best });
        let Some((place, distance)) = best.filter(|best| best.1 < left) else {
            break;
        };
        let feature = moves.remove(place);
        let (from, to) = (value(source.1, feature), value(target.1, feature));
        let change = f64::from(to) - f64::from(from);
        for (short, &d) in short.iter_mut().zip(decoder.row(feature as usize)) {
            *short -= change * f64::from(d);
        }
        left = distance;
        edits.push(GreedyEdit {
            feature,
            value: to,
            distance: libm::sqrt(square(&short)),
        });
    }
    Ok(edits)
}

/// Appends the row that a matching makes of another model's features (SAE Match: `P f`): each at its
/// partner's index, those without a partner left out. Decoded by the second model it approximates the
/// row there.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn carry(
    row: FeaturesRow<'_>,
    matching: &super::Matching,
    out: &mut Features,
) -> Result<(), Error> {
    let mut carried: Vec<(u32, f32)> = Vec::new();
    for (&index, &value) in row.indices.iter().zip(row.values) {
        let pairs = &matching.pairs;
        let at = pairs.binary_search_by_key(&index, |pair| pair.first);
        if let Some(pair) = at.ok().and_then(|at| pairs.get(at)) {
            carried.push((pair.second, value));
        }
    }
    carried.sort_unstable_by_key(|one| one.0);
    for (index, value) in carried {
        out.push(index, value)?;
    }
    out.end_row(row.status)
}
