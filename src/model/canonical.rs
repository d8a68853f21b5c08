//! The canonical names of what a model is made of: what its tensors are called in a pack.

use super::{Activation, Matrix, Parts, Thresholds};
use alloc::vec::Vec;

/// Encoder, `[d_sae, d_in]`.
pub(crate) const W_ENC: &str = "w_enc";
/// Gate of a GLU, `[d_sae, d_in]`.
pub(crate) const W_GLU: &str = "w_glu";
/// Decoder, `[d_sae, d_out]`.
pub(crate) const W_DEC: &str = "w_dec";
/// Skip connection, `[d_out, d_in]`.
pub(crate) const W_SKIP: &str = "w_skip";
/// Subtracted from the normalised row.
pub(crate) const CENTER: &str = "center";
/// Per-feature factor of the product.
pub(crate) const ENC_SCALE: &str = "enc_scale";
/// Per-feature bias.
pub(crate) const B_ENC: &str = "b_enc";
/// Thresholds of a JumpReLU.
pub(crate) const THRESHOLD: &str = "threshold";
/// Bias of the gate of a gated model.
pub(crate) const GATE_BIAS: &str = "gate_bias";
/// Weights of the ranks.
pub(crate) const RANK_WEIGHT: &str = "rank_weight";
/// Bias of the gate of a GLU.
pub(crate) const B_GLU: &str = "b_glu";
/// Per-feature factor of a value before it meets the decoder.
pub(crate) const DEC_SCALE: &str = "dec_scale";
/// Added to the reconstruction.
pub(crate) const B_DEC: &str = "b_dec";

/// A vector of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'p> {
    F32(&'p [f32]),
    F64(&'p [f64]),
}

impl Values<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
        }
    }

    /// Whether f32 holds every value with all its bits.
    pub(crate) fn fit_f32(self) -> bool {
        match self {
            Values::F32(_) => true,
            Values::F64(values) => values
                .iter()
                .all(|value| f64::from(*value as f32).to_bits() == value.to_bits()),
        }
    }

    /// Bytes in the smallest format that holds all bits.
    pub(crate) fn bytes(self) -> u64 {
        self.len() as u64 * if self.fit_f32() { 4 } else { 8 }
    }
}

/// The matrices that a model is made of. A pursuit has no encoder of its own.
pub(crate) fn matrices<'p, 'a>(parts: &'p Parts<'a>) -> Vec<(&'static str, &'p Matrix<'a>)> {
    let pursuit = matches!(parts.activation, Activation::Pursuit(_));
    let encoder = (!pursuit).then_some(&parts.encoder);
    let gate = parts.glu.as_ref().map(|glu| &glu.matrix);
    let named = [
        (W_ENC, encoder),
        (W_GLU, gate),
        (W_DEC, Some(&parts.decoder)),
        (W_SKIP, parts.skip.as_ref()),
    ];
    let present = named.into_iter();
    present
        .filter_map(|(name, matrix)| Some((name, matrix?)))
        .collect()
}

/// The vectors that a model is made of.
pub(crate) fn vectors<'p>(parts: &'p Parts<'_>) -> Vec<(&'static str, Values<'p>)> {
    fn wide(values: &Option<Vec<f64>>) -> Option<Values<'_>> {
        values.as_deref().map(Values::F64)
    }
    let pursuit = matches!(parts.activation, Activation::Pursuit(_));
    let threshold = match &parts.activation {
        Activation::JumpRelu {
            threshold: Thresholds::PerFeature(values),
            ..
        } => Some(Values::F32(values)),
        _ => None,
    };
    let gate_bias = match &parts.activation {
        Activation::Gated { gate_bias } => Some(Values::F64(gate_bias)),
        _ => None,
    };
    let glu = parts.glu.as_ref().and_then(|glu| glu.bias.as_deref());
    let named = [
        (CENTER, wide(&parts.center)),
        (ENC_SCALE, wide(&parts.scale).filter(|_| !pursuit)),
        (B_ENC, wide(&parts.bias)),
        (THRESHOLD, threshold),
        (GATE_BIAS, gate_bias),
        (RANK_WEIGHT, wide(&parts.rank_weight)),
        (B_GLU, glu.map(Values::F64)),
        (DEC_SCALE, wide(&parts.decoder_scale)),
        (B_DEC, wide(&parts.decoder_bias)),
    ];
    let present = named.into_iter();
    present
        .filter_map(|(name, values)| Some((name, values?)))
        .collect()
}

/// Bytes of all of these in a pack that keeps their formats; headers and self-test apart.
pub(crate) fn pack_bytes(parts: &Parts<'_>) -> u64 {
    let matrices = matrices(parts).into_iter();
    let weights: u64 = matrices.map(|(_, matrix)| matrix.size_bytes() as u64).sum();
    let vectors = vectors(parts).into_iter();
    weights + vectors.map(|(_, values)| values.bytes()).sum::<u64>()
}
