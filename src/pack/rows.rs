//! Rows for a self-test: made of encoder rows, so that features fire.

use super::SELF_TEST_ROWS;
use crate::error::Error;
use crate::kernels::Kernels;
use crate::model::{Activation, Sae};
use alloc::vec::Vec;

/// Features whose directions make up a row.
const PER_ROW: usize = 6;

/// Rows that lie where features fire: the centre, plus directions of encoder rows, each as long as
/// its own feature needs to be about twice its threshold.
pub(super) fn of(sae: &Sae<'_>) -> Result<Vec<f32>, Error> {
    let parts = sae.parts();
    let encoder = &parts.encoder;
    let (d_sae, d_in) = (sae.d_sae(), sae.d_in());
    let kernels = Kernels::best();
    let mut bytes = alloc::vec![0; d_in * encoder.weight_type().size()];
    let mut direction = alloc::vec![0.0; d_in];
    let threshold = |feature: usize| match &parts.activation {
        Activation::JumpRelu { threshold, .. } => f64::from(threshold.of(feature)).max(0.0),
        _ => 0.0,
    };
    let of = |values: &Option<Vec<f64>>, feature: usize, default: f64| {
        let value = values.as_ref().and_then(|values| values.get(feature));
        value.copied().unwrap_or(default)
    };
    let mut rows = Vec::new();
    for row in 0..SELF_TEST_ROWS {
        let mut sum = match &parts.center {
            Some(center) => center.clone(),
            None => alloc::vec![0.0; d_in],
        };
        for part in 0..PER_ROW {
            // Spread over all features, by steps of the golden ratio.
            let place = (row * PER_ROW + part) as f64 * 0.618_033_988_749_895;
            let feature = ((place - libm::floor(place)) * d_sae as f64) as usize;
            encoder.gather(feature.min(d_sae - 1), &mut bytes);
            kernels.widen(encoder.weight_type(), &bytes, &mut direction);
            let norm = libm::sqrt(kernels.sum_squares_about(&direction, 0.0));
            let weight = of(&parts.scale, feature, 1.0).abs() * norm;
            let wanted = 2.0 * threshold(feature) + of(&parts.bias, feature, 0.0).abs() + 1.0;
            // What cannot fire adds a little of its direction.
            let length = match wanted / weight {
                length if length.is_finite() => length.min(1e4),
                _ => 1.0,
            };
            if norm > 0.0 {
                for (sum, value) in sum.iter_mut().zip(&direction) {
                    *sum += length / norm * value;
                }
            }
        }
        rows.extend(sum.iter().map(|&value| value as f32));
    }
    Ok(rows)
}
