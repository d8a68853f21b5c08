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
    features: Vec<u32>,
    bins: Bins,
    each: usize,
    seed: u64,
    /// `[features, bins + 1, each]`, sorted by hash; the last bin is of inactive rows.
    kept: Vec<Sampled>,
    counts: Vec<u32>,
}

/// A row of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    hash: u64,
    /// The row.
    pub row: RowId,
    /// The feature's value there.
    pub value: f32,
}

impl Samples {
    /// Nothing seen yet: `each` rows for each bin of each feature, and `each` inactive ones.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(features: &[u32], bins: Bins, each: usize, seed: u64) -> Result<Self, Error> {
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
        })
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
            let bin = match value == 0.0 {
                true => self.bins.count(),
                false => self.bins.of(value),
            };
            let hash = mix(mix(mix(self.seed ^ u64::from(feature)) ^ id.stream) ^ id.position);
            let group = slot * (self.bins.count() + 1) + bin;
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

    fn put(&mut self, group: usize, one: Sampled) {
        let each = self.each;
        let (Some(count), Some(kept)) = (
            self.counts.get_mut(group),
            self.kept.get_mut(group * each..(group + 1) * each),
        ) else {
            return;
        };
        let full = *count as usize;
        let key = |one: &Sampled| (one.hash, one.row);
        let held = kept.get(..full).unwrap_or(&[]);
        let place = held.partition_point(|other| key(other) < key(&one));
        let twice = held.get(place).is_some_and(|other| key(other) == key(&one));
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
        let key = |of: &Samples| (of.features.clone(), of.bins, of.each, of.seed);
        if key(self) != key(other) {
            return Err(Error::InvalidArgument {
                what: "samples to merge",
                expected: "of the same features, bins, size and seed".into(),
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
