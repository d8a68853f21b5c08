//! What the weights of one model, or of its checkpoints, say by themselves.

use super::vectors::Vectors;
use crate::error::Error;
use crate::model::Sae;
use alloc::vec::Vec;

/// `cos(w_i, d_i)` of every feature's encoder and decoder vectors.
///
/// # Errors
/// [`Error::Length`] if the model's input is not as wide as its output; as
/// [`Vectors::unit_decoder`].
pub fn encoder_decoder_cosines(sae: &Sae<'_>) -> Result<Vec<f64>, Error> {
    if sae.d_in() != sae.d_out() {
        return Err(Error::Length {
            what: "values per decoder vector",
            expected: sae.d_in() as u64,
            found: sae.d_out() as u64,
        });
    }
    let (encoder, decoder) = (Vectors::unit_encoder(sae)?, Vectors::unit_decoder(sae)?);
    Ok((0..sae.d_sae())
        .map(|feature| encoder.dot(feature, &decoder, feature))
        .collect())
}

/// How far vectors are from orthogonal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Coherence {
    /// Largest `|cos|` of two different vectors.
    pub max: f64,
    /// Mean of `cos^2` over all such pairs.
    pub mean_square: f64,
}

/// The coherence of unit vectors: `|<d_i, d_j>|` over all pairs `i != j`. The largest is the eps of
/// quasi-orthogonality ([`zf_bound`](crate::monitor::scores::zf_bound)). 0 for fewer than two.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn coherence(
    vectors: &Vectors,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Coherence, Error> {
    let (mut max, mut sum) = (0.0_f64, 0.0);
    vectors.products(vectors, progress, &mut |i, first, products| {
        for (offset, product) in products.iter().enumerate() {
            if first + offset != i {
                max = max.max(product.abs());
                sum += product * product;
            }
        }
    })?;
    let n = vectors.len() as f64;
    let pairs = n * (n - 1.0);
    Ok(Coherence {
        max,
        mean_square: if pairs > 0.0 { sum / pairs } else { 0.0 },
    })
}

/// SAE-Track: for every checkpoint the cosine of each feature's vector with that of the last
/// checkpoint.
///
/// # Errors
/// [`Error::Length`] unless all have as many vectors of as many values.
pub fn drift(checkpoints: &[Vectors]) -> Result<Vec<Vec<f64>>, Error> {
    let Some(last) = checkpoints.last() else {
        return Ok(Vec::new());
    };
    let each = checkpoints.iter().map(|of| {
        let sizes = [
            ("features of the checkpoints", last.len(), of.len()),
            ("values per vector", last.width(), of.width()),
        ];
        for (what, expected, found) in sizes {
            if expected != found {
                return Err(Error::Length {
                    what,
                    expected: expected as u64,
                    found: found as u64,
                });
            }
        }
        Ok((0..last.len())
            .map(|feature| of.dot(feature, last, feature))
            .collect())
    });
    each.collect()
}

/// Direct feature attribution: what each attention head adds to a feature's pre-activation,
/// `<w_i[h], x[h]>`, for a model on the heads' outputs side by side. Their sum, a row that is not
/// centred or normalised assumed, is the pre-activation less its bias.
///
/// # Errors
/// [`Error::Length`] unless the row is d_in wide and `heads` divide that,
/// [`Error::FeatureOutOfRange`]; as [`Vectors::unit_decoder`].
pub fn head_attribution(
    sae: &Sae<'_>,
    feature: u32,
    row: &[f32],
    heads: usize,
) -> Result<Vec<f64>, Error> {
    if feature as usize >= sae.d_sae() {
        return Err(Error::FeatureOutOfRange {
            feature: feature.into(),
            d_sae: sae.d_sae() as u64,
        });
    }
    let rest = sae.d_in().checked_rem(heads).unwrap_or(sae.d_in());
    let lengths = [
        ("values of a row", sae.d_in(), row.len()),
        ("values beyond the heads", 0, rest),
    ];
    for (what, expected, found) in lengths {
        if expected != found {
            return Err(Error::Length {
                what,
                expected: expected as u64,
                found: found as u64,
            });
        }
    }
    let encoder = Vectors::encoder(sae)?;
    let size = sae.d_in() / heads.max(1);
    let parts = encoder.row(feature as usize).chunks(size.max(1));
    let product = |(w, x): (&[f32], &[f32])| -> f64 {
        w.iter()
            .zip(x)
            .map(|(&w, &x)| f64::from(w) * f64::from(x))
            .sum()
    };
    Ok(parts.zip(row.chunks(size.max(1))).map(product).collect())
}
