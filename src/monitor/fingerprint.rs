//! A number that tells models apart.

use crate::json::Hash;
use crate::model::{Activation, Matrix, Sae};
use alloc::vec::Vec;

/// Vectors of a matrix that are part of a fingerprint.
const SAMPLES: usize = 16;

impl Sae<'_> {
    /// A number that is the same for the same model, however it was opened or prepared, on every
    /// machine, and most likely another for any other: statistics and snapshots carry it. FNV-1a
    /// over the shapes, the activation, all biases, thresholds and scales, and 16 encoder and decoder vectors
    /// spread over the features, widened to f64. It guards against mistakes, not against forgery.
    pub fn fingerprint(&self) -> u64 {
        let parts = self.parts();
        let mut hash = Hash::new();
        for size in [self.d_in(), self.d_sae(), self.d_out()] {
            hash.bytes(&(size as u64).to_le_bytes());
        }
        hash.bytes(parts.input_norm.name().as_bytes());
        hash.bytes(parts.activation.describe().as_bytes());
        let vectors = [
            &parts.center,
            &parts.scale,
            &parts.bias,
            &parts.rank_weight,
            &parts.decoder_scale,
            &parts.decoder_bias,
        ];
        for vector in vectors {
            let values = vector.iter().flatten();
            hash.bytes(&(values.clone().count() as u64).to_le_bytes());
            values.for_each(|value| hash.bytes(&(value + 0.0).to_bits().to_le_bytes()));
        }
        match &parts.activation {
            Activation::JumpRelu { threshold, .. } => (0..self.d_sae())
                .for_each(|feature| hash.bytes(&threshold.of(feature).to_bits().to_le_bytes())),
            Activation::Gated { gate_bias } => gate_bias
                .iter()
                .for_each(|bias| hash.bytes(&(bias + 0.0).to_bits().to_le_bytes())),
            _ => {}
        }
        for matrix in [&parts.encoder, &parts.decoder] {
            sample(matrix, &mut hash, self);
        }
        hash.0
    }
}

fn sample(matrix: &Matrix<'_>, hash: &mut Hash, sae: &Sae<'_>) {
    let ty = matrix.weight_type();
    let mut row: Vec<u8> = alloc::vec![0; matrix.width() * ty.size()];
    let mut wide = alloc::vec![0.0; matrix.width()];
    for sample in 0..SAMPLES {
        let feature = sample * matrix.features().saturating_sub(1) / (SAMPLES - 1);
        let Some((block, place, _)) = matrix.place(feature) else {
            continue;
        };
        let size = block.width() * ty.size();
        let (Some(row), Some(wide)) = (row.get_mut(..size), wide.get_mut(..block.width())) else {
            continue;
        };
        block.gather(place, row);
        sae.kernels.widen(ty, row, wide);
        for value in wide {
            hash.bytes(&(*value + 0.0).to_bits().to_le_bytes());
        }
    }
}
