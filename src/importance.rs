//! An order of importance: which features matter most over a batch, for prefixes that are
//! progressively better codes.

use crate::error::Error;
use crate::features::Features;
use crate::model::Sae;
use alloc::vec::Vec;

/// How much each feature has contributed to reconstructions so far: the sum over rows of
/// `(f_i decoder_scale_i |d_i|)^2`, in f64, in the order of the rows.
#[derive(Clone, Debug)]
pub struct Importance {
    /// `(decoder_scale_i |d_i|)^2`
    lengths: Vec<f64>,
    sums: Vec<f64>,
}

impl Importance {
    /// Nothing seen yet. One pass over the decoder.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::InvalidArgument`] for a multi-target coder.
    pub fn new(sae: &Sae<'_>) -> Result<Self, Error> {
        sae.one_vector_each("model of importance")?;
        let parts = sae.parts();
        let mut lengths = parts.decoder.norms()?;
        for (feature, length) in lengths.iter_mut().enumerate() {
            let scale = parts
                .decoder_scale
                .as_ref()
                .and_then(|scale| scale.get(feature));
            *length *= scale.copied().unwrap_or(1.0);
            *length *= *length;
        }
        let mut sums = Vec::new();
        sums.try_reserve_exact(lengths.len())
            .map_err(|_| Error::OutOfMemory {
                what: "importance of features",
                bytes: lengths.len() as u64 * 8,
            })?;
        sums.resize(lengths.len(), 0.0);
        Ok(Importance { lengths, sums })
    }

    /// Adds what the features of these rows contribute.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`] if they are those of a wider model; nothing is added then.
    pub fn add(&mut self, features: &Features) -> Result<(), Error> {
        let d_sae = self.sums.len();
        if let Some(&feature) = features.indices().iter().find(|&&i| i as usize >= d_sae) {
            return Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: d_sae as u64,
            });
        }
        for (&index, &value) in features.indices().iter().zip(features.values()) {
            let at = index as usize;
            if let (Some(sum), Some(length)) = (self.sums.get_mut(at), self.lengths.get(at)) {
                *sum += f64::from(value) * f64::from(value) * length;
            }
        }
        Ok(())
    }

    /// The sum of each feature.
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// All features, the most important first, the lowest index first among equals: an order for
    /// [`Sae::with_features`](crate::Sae::with_features).
    pub fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.sums.len() as u32).collect();
        let sum = |feature: &u32| self.sums.get(*feature as usize).copied().unwrap_or(0.0);
        order.sort_by(|a, b| sum(b).total_cmp(&sum(a)));
        order
    }
}
