//! Rows to show for a feature: of each part of its range some, and some in which it is off.

use super::accumulator::filled;
use super::collect::Bins;
use super::row::RowId;
use crate::error::Error;
use crate::features::{FeaturesRow, RowStatus};
use alloc::vec::Vec;

/// A sample of rows of some features: so many of each bin of a feature's magnitudes, and so many in
/// which it is inactive, for explanations by a language model. With the top rows of an
/// [`Accumulator`](super::Accumulator) that is what auto-interpretation asks for.
///
/// Of the rows of a bin those are kept whose [`RowId`], hashed with the feature and the seed, is
/// lowest. So every row is as likely as any other, memory is fixed, and neither the order of rows nor
/// merging changes the sample. Row ids must be different for different rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    pub(super) features: Vec<u32>,
    pub(super) bins: Bins,
    pub(super) each: usize,
    pub(super) seed: u64,
    pub(super) model: u64,
    /// `[features, bins + 1, each]`, sorted by hash; the last bin is of inactive rows.
    pub(super) kept: Vec<Sampled>,
    pub(super) counts: Vec<u32>,
}

/// A row of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    pub(super) hash: u64,
    /// The row.
    pub row: RowId,
    /// The feature's value there.
    pub value: f32,
}

impl Sampled {
    /// By what rows of one group are ordered.
    pub(super) fn key(&self) -> (u64, RowId) {
        (self.hash, self.row)
    }
}

impl Samples {
    /// Nothing seen yet: `each` rows for each bin of each feature, and `each` inactive ones.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for bins that are none; [`Error::Limit`] for more than 2^32 - 1 rows
    /// in a bin, or more than [`MAX_BINS`](super::MAX_BINS) bins; [`Error::OutOfMemory`].
    pub fn new(features: &[u32], bins: Bins, each: usize, seed: u64) -> Result<Self, Error> {
        bins.valid()?;
        if u32::try_from(each).is_err() {
            return Err(Error::Limit {
                what: "rows sampled of a bin".into(),
                limit: u32::MAX.into(),
                found: each as u64,
            });
        }
        let mut features = features.to_vec();
        features.sort_unstable();
        features.dedup();
        let groups = features.len().saturating_mul(bins.count() + 1);
        Ok(Samples {
            kept: filled(groups.saturating_mul(each), Sampled::default())?,
            counts: filled(groups, 0)?,
            features,
            bins,
            each,
            seed,
            model: 0,
        })
    }

    /// Of the model with this [`fingerprint`](crate::Sae::fingerprint): snapshots carry it, and what is
    /// of another model does not merge. Without it, 0.
    #[must_use]
    pub fn of_model(self, fingerprint: u64) -> Self {
        Samples {
            model: fingerprint,
            ..self
        }
    }

    /// Bytes held, which never change.
    pub fn bytes(&self) -> u64 {
        let lists = size_of_val(&self.kept[..])
            + size_of_val(&self.counts[..])
            + size_of_val(&self.features[..]);
        (lists + size_of::<Self>()) as u64
    }

    /// Adds a row; one that is not finite is left out. Allocates nothing.
    pub fn add(&mut self, row: FeaturesRow<'_>, id: RowId) {
        if row.status == RowStatus::NonFinite {
            return;
        }
        for slot in 0..self.features.len() {
            let Some(&feature) = self.features.get(slot) else {
                return;
            };
            let at = row.indices.binary_search(&feature).ok();
            let value = at.and_then(|at| row.values.get(at)).copied().unwrap_or(0.0);
            if value.is_nan() {
                continue;
            }
            let hash = self.hash(feature, id);
            let group = slot * (self.bins.count() + 1) + self.bin(value);
            self.put(
                group,
                Sampled {
                    hash,
                    row: id,
                    value,
                },
            );
        }
    }

    /// The bin of a value; the one after the last for an inactive feature.
    pub(super) fn bin(&self, value: f32) -> usize {
        match value == 0.0 {
            true => self.bins.count(),
            false => self.bins.of(value),
        }
    }

    pub(super) fn hash(&self, feature: u32, row: RowId) -> u64 {
        mix(mix(mix(self.seed ^ u64::from(feature)) ^ row.stream) ^ row.position)
    }

    fn put(&mut self, group: usize, one: Sampled) {
        let each = self.each;
        let (Some(count), Some(kept)) = (
            self.counts.get_mut(group),
            self.kept.get_mut(group * each..(group + 1) * each),
        ) else {
            return;
        };
        let full = *count as usize;
        let held = kept.get(..full).unwrap_or(&[]);
        let place = held.partition_point(|other| other.key() < one.key());
        let twice = held
            .get(place)
            .is_some_and(|other| other.key() == one.key());
        if place >= each || twice {
            return;
        }
        let end = (full + 1).min(each);
        if let Some(part) = kept.get_mut(place..end) {
            part.rotate_right(1);
            if let Some(first) = part.first_mut() {
                *first = one;
            }
        }
        *count = end as u32;
    }

    /// The sample of a bin, in no order that means anything; empty if the feature is not sampled.
    pub fn of(&self, feature: u32, bin: usize) -> &[Sampled] {
        match bin < self.bins.count() {
            true => self.group(feature, bin),
            false => &[],
        }
    }

    /// The sample of rows in which a feature is inactive.
    pub fn inactive(&self, feature: u32) -> &[Sampled] {
        self.group(feature, self.bins.count())
    }

    fn group(&self, feature: u32, bin: usize) -> &[Sampled] {
        let Ok(slot) = self.features.binary_search(&feature) else {
            return &[];
        };
        let group = slot * (self.bins.count() + 1) + bin;
        let count = self.counts.get(group).copied().unwrap_or(0) as usize;
        let start = group * self.each;
        self.kept.get(start..start + count).unwrap_or(&[])
    }

    /// Adds what another one has seen: the sample of all rows of both.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it samples something else.
    pub fn merge(&mut self, other: &Samples) -> Result<(), Error> {
        let key = |of: &Samples| (of.features.clone(), of.bins, of.each, of.seed, of.model);
        if key(self) != key(other) {
            return Err(Error::InvalidArgument {
                what: "samples to merge",
                expected: "of the same features, bins, size, seed and model".into(),
                found: "others".into(),
            });
        }
        for (group, &count) in other.counts.iter().enumerate() {
            let start = group * other.each;
            let kept = other.kept.get(start..start + count as usize);
            kept.unwrap_or(&[])
                .iter()
                .for_each(|one| self.put(group, *one));
        }
        Ok(())
    }
}

/// A hash of 64 bits (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
