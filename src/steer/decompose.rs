//! What a vector is made of: the features whose decoder vectors it is a sum of, and those that it
//! points along or against.
//!
//! Encoding a steering vector does not tell: it is no row of activations, its length is another,
//! the encoder's bias expects what it lacks, and a negative share of a feature has no code (Mayne
//! et al., "Can sparse autoencoders be used to decompose and interpret steering vectors?", arXiv
//! 2411.08790). A signed pursuit on the decoder has none of these troubles.

use super::plan::{Edit, Plan};
use crate::encode::{features_at_once, products};
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::Kernels;
use crate::model::{Pursuit, Sae};
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::vec::Vec;

/// A vector as a sum of decoder vectors. `a_i` is the decoder vector of feature i made a unit
/// vector, v the vector, `y = sum_i length_i a_i` what the parts add up to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decomposition {
    /// `|v|`
    pub norm: f64,
    /// The features of the pursuit, the longest first; of equally long ones the lowest index.
    pub parts: Vec<VectorPart>,
    /// `<v, y> / (|v| |y|)`; 0 if there are no parts.
    pub cosine: f64,
    /// `1 - |v - y|^2 / |v|^2`
    pub explained: f64,
    /// The features that v points along the most, by cosine.
    pub along: Vec<Projection>,
    /// The features that v points against the most, by cosine.
    pub against: Vec<Projection>,
}

/// A feature that a vector is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct VectorPart {
    /// Where v projects on it.
    pub on: Projection,
    /// How much of `a_i` is in the sum; negative if it is taken away.
    pub length: f64,
    /// The same in the units of feature values: the strength of an [`Edit::add`] that adds it
    /// (where the model undoes a normalisation: times its factor, which depends on the row).
    /// `None` if the model scales the feature by 0.
    pub strength: Option<f64>,
}

/// How a vector lies to a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Projection {
    /// The feature.
    pub feature: u32,
    /// `<v, a_i> / |v|`
    pub cosine: f64,
    /// `<v, a_i>`
    pub projection: f64,
}

impl Decomposition {
    /// A plan that adds the parts to every row.
    pub fn plan(&self, name: &str) -> Plan {
        let edits = self.parts.iter().filter_map(|part| {
            let strength = part.strength.filter(|&strength| strength != 0.0)?;
            Some(Edit::add(part.on.feature, strength))
        });
        edits.fold(Plan::new(name), Plan::edit)
    }
}

impl Sae<'_> {
    /// Decomposes a vector, `[d_out]`, into features: by a pursuit on the decoder vectors, signed
    /// or not, and by its cosine with each, of which `most` are listed at either end.
    ///
    /// One pass over the decoder for the cosines, and one per step of the pursuit. Where the model
    /// undoes a normalisation, decoder vectors are those before.
    ///
    /// # Errors
    /// [`Error::Length`] for a vector of another length; [`Error::InvalidArgument`] for one that is
    /// not finite or has no length; what [`Sae::with_pursuit_of_directions`] says.
    pub fn decompose(
        &self,
        vector: &[f32],
        pursuit: Pursuit,
        most: usize,
    ) -> Result<Decomposition, Error> {
        let wrong = |what, expected: &str, found: &str| Error::InvalidArgument {
            what,
            expected: expected.into(),
            found: found.into(),
        };
        if vector.len() != self.d_out() {
            return Err(Error::Length {
                what: "values of the vector",
                expected: self.d_out() as u64,
                found: vector.len() as u64,
            });
        }
        let wide: Vec<f64> = vector.iter().map(|&value| f64::from(value)).collect();
        let norm = libm::sqrt(self.kernels.sum_squares_about(&wide, 0.0));
        if norm == 0.0 || !norm.is_finite() {
            let found = alloc::format!("{norm}");
            let expected = "a finite number above 0";
            return Err(wrong("length of the vector", expected, &found));
        }
        let directions = self.with_pursuit_of_directions(pursuit)?;
        let inverse = |feature: u32| {
            let scales = directions.parts.decoder_scale.as_ref();
            scales.and_then(|all| all.get(feature as usize)).copied()
        };

        let decoder = &directions.parts.decoder;
        let mut projections = alloc::vec![0.0; decoder.features()];
        let block = features_at_once(decoder);
        let mut lanes = alloc::vec![0.0; Kernels::COLUMN_LANES * block];
        for (i, sums) in projections.chunks_mut(block).enumerate() {
            let first = i * block;
            products(self.kernels, decoder, first, vector, &mut lanes, sums);
        }
        for (feature, projection) in projections.iter_mut().enumerate() {
            *projection *= inverse(feature as u32).unwrap_or(0.0);
        }
        let on = |feature: u32| {
            let projection = projections.get(feature as usize).copied().unwrap_or(0.0);
            Projection {
                feature,
                cosine: projection / norm,
                projection,
            }
        };

        let mut scratch = Scratch::new(&directions)?;
        let mut features = Features::with_capacity(1, directions.d_sae())?;
        let rows = Rows::from_f32(vector, vector.len())?;
        directions.encode(rows, &mut scratch, &mut features)?;
        let found = features.row(0).filter(|row| row.status == RowStatus::Ok);
        let Some(found) = found else {
            let expected = "a vector that can be decomposed";
            return Err(wrong("vector", expected, "one whose residual overflows"));
        };
        let part = |(&feature, &value): (&u32, &f32)| {
            let length = f64::from(value);
            let scale = match &self.parts.decoder_scale {
                None => 1.0,
                Some(all) => all.get(feature as usize).copied().unwrap_or(0.0),
            };
            let strength = length * inverse(feature).unwrap_or(0.0) / scale;
            VectorPart {
                on: on(feature),
                length,
                strength: strength.is_finite().then_some(strength),
            }
        };
        let mut parts: Vec<_> = found.indices.iter().zip(found.values).map(part).collect();
        // Stable: of equally long ones the lowest index stays first.
        parts.sort_by(|a, b| b.length.abs().total_cmp(&a.length.abs()));

        let mut sum = alloc::vec![0.0_f32; vector.len()];
        directions.decode(&features, None, &mut scratch, &mut sum)?;
        let pairs = || wide.iter().zip(sum.iter().map(|&y| f64::from(y)));
        let squares: f64 = pairs().map(|(_, y)| y * y).sum();
        let left: f64 = pairs().map(|(v, y)| (v - y) * (v - y)).sum();
        let both: f64 = pairs().map(|(v, y)| v * y).sum();
        let all = || (0..projections.len() as u32).map(on);
        Ok(Decomposition {
            norm,
            cosine: match squares > 0.0 {
                true => both / (norm * libm::sqrt(squares)),
                false => 0.0,
            },
            explained: 1.0 - left / (norm * norm),
            along: highest(all(), most, |one| one.cosine),
            against: highest(all(), most, |one| -one.cosine),
            parts,
        })
    }
}

/// The first `most` by `key`, descending; of equal ones the lowest index.
fn highest(
    all: impl Iterator<Item = Projection>,
    most: usize,
    key: impl Fn(&Projection) -> f64,
) -> Vec<Projection> {
    let order = |a: &Projection, b: &Projection| {
        let keys = key(b).total_cmp(&key(a));
        keys.then(a.feature.cmp(&b.feature))
    };
    let mut all: Vec<Projection> = all.collect();
    if most == 0 {
        all.clear();
    }
    if (1..all.len()).contains(&most) {
        all.select_nth_unstable_by(most - 1, order);
        all.truncate(most);
    }
    all.sort_unstable_by(order);
    all
}
