//! The logit lens: what a feature's decoder vector says about the next token.

use super::vectors::Vectors;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::WeightType;
use crate::model::Sae;
use crate::rows::Rows;
use alloc::vec::Vec;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Its number.
    pub token: u32,
    /// The logit.
    pub logit: f64,
}

/// What a feature does to the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Lens {
    /// The feature.
    pub feature: u32,
    /// The largest logits, descending.
    pub promoted: Vec<Token>,
    /// The smallest logits, ascending.
    pub suppressed: Vec<Token>,
}

/// For each feature the `k` tokens with the largest and with the smallest logits
/// `<u_t, g * d_i / |d_i|>`, the lowest token first among equals: `unembedding` is `[tokens, d_out]`,
/// `gain` the weights g of the model's last norm, `[d_out]`, or none. One pass over the unembedding
/// for each feature; the logits have the same bits on every machine.
///
/// # Errors
/// [`Error::Length`] for an unembedding or a gain of another width, [`Error::FeatureOutOfRange`],
/// [`Error::InvalidArgument`] for a logit that is not finite; as [`Vectors::unit_decoder`].
pub fn logit_lens(
    sae: &Sae<'_>,
    features: &[u32],
    unembedding: Rows<'_>,
    gain: Option<&[f32]>,
    k: usize,
) -> Result<Vec<Lens>, Error> {
    let d = sae.d_out();
    let lengths = [
        ("values per row of the unembedding", unembedding.width()),
        ("values of a gain", gain.map_or(d, <[f32]>::len)),
    ];
    for (what, found) in lengths {
        if found != d {
            return Err(Error::Length {
                what,
                expected: d as u64,
                found: found as u64,
            });
        }
    }
    if let Some(&feature) = features
        .iter()
        .find(|&&feature| feature as usize >= sae.d_sae())
    {
        return Err(Error::FeatureOutOfRange {
            feature: feature.into(),
            d_sae: sae.d_sae() as u64,
        });
    }
    let ty = match unembedding.dtype() {
        Dtype::F16 => WeightType::F16,
        Dtype::BF16 => WeightType::BF16,
        _ => WeightType::F32,
    };
    let vectors = Vectors::unit_decoder(sae)?;
    let mut lenses = Vec::new();
    for &feature in features {
        let mut x = vectors.row(feature as usize).to_vec();
        for (x, g) in x.iter_mut().zip(gain.unwrap_or(&[])) {
            *x *= g;
        }
        let mut tokens = Vec::new();
        for token in 0..unembedding.rows() {
            let mut logit = [0.0];
            let row = unembedding.row_bytes(token);
            sae.kernels.dot_rows(ty, row, 0, &x, &mut logit);
            if !logit[0].is_finite() {
                return Err(Error::InvalidArgument {
                    what: "unembedding and gain",
                    expected: "finite values".into(),
                    found: alloc::format!("a logit of {} at token {token}", logit[0]),
                });
            }
            tokens.push(Token {
                token: token as u32,
                logit: logit[0] + 0.0,
            });
        }
        tokens.sort_by(|a, b| a.logit.total_cmp(&b.logit).then(a.token.cmp(&b.token)));
        let suppressed = tokens.iter().take(k).copied().collect();
        tokens.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token)));
        tokens.truncate(k);
        lenses.push(Lens {
            feature,
            promoted: tokens,
            suppressed,
        });
    }
    Ok(lenses)
}
