//! Snapshots of [`Samples`]: a binary form that comes back to the bit, and JSON to be read.
//!
//! ```text
//! "SAESAMPL"  version u32  features u32  model u64  seed u64  bins: three u32, as statistics have them
//! each u32, the features, u32 each, ascending
//! for each bin of each feature, and for its inactive rows: how many are held u32, then `each` places
//! of value f32, stream u64, position u64: those held, by their hash, and zeros
//! CRC-32 of all before
//! ```

use super::samples::{Sampled, Samples};
use super::stored::{Reader, SNAPSHOT_VERSION, Writer, malformed, same_model};
use crate::error::Error;
use alloc::vec::Vec;
use serde_json::{Value, json};

const MAGIC: &[u8; 8] = b"SAESAMPL";
/// Bytes before the list of features.
const HEADER: u128 = 8 + 4 + 4 + 8 + 8 + 3 * 4 + 4;

/// Bytes of a snapshot; more than there is memory if it does not fit.
fn length(features: u32, bins: usize, each: u32) -> u64 {
    let group = 4 + 20 * u128::from(each);
    let per = 4 + (bins as u128 + 1) * group;
    u64::try_from(HEADER + u128::from(features) * per + 4).unwrap_or(u64::MAX)
}

impl Samples {
    /// Bytes of [`Samples::to_bytes`].
    pub fn snapshot_len(&self) -> usize {
        length(
            self.features.len() as u32,
            self.bins.count(),
            self.each as u32,
        ) as usize
    }

    /// The binary snapshot.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Writer::with_room(self.snapshot_len())?;
        out.bytes(MAGIC);
        out.u32(SNAPSHOT_VERSION);
        out.u32(self.features.len() as u32);
        out.u64(self.model);
        out.u64(self.seed);
        out.bins(Some(self.bins));
        out.u32(self.each as u32);
        self.features.iter().for_each(|&feature| out.u32(feature));
        for (group, &count) in self.counts.iter().enumerate() {
            out.u32(count);
            let start = group * self.each;
            let kept = self.kept.get(start..start + self.each).unwrap_or(&[]);
            for (place, one) in (0..).zip(kept) {
                // What lies behind those that are held is of no row.
                let one = if place < count {
                    *one
                } else {
                    Sampled::default()
                };
                out.u32(one.value.to_bits());
                out.id(one.row);
            }
        }
        Ok(out.finish())
    }

    /// Reads a snapshot of the model with this fingerprint, or of any (`None`). Nothing is allocated
    /// by a declared size before it agrees with the bytes that are there.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Truncated`], [`Error::Checksum`];
    /// [`Error::UnsupportedContainer`] for another version; [`Error::InvalidValue`] for another
    /// model; [`Error::InvalidArgument`] and [`Error::Limit`] as [`Samples::new`];
    /// [`Error::OutOfMemory`].
    pub fn from_bytes(bytes: &[u8], model: Option<u64>) -> Result<Self, Error> {
        let mut from = Reader::new(bytes, MAGIC)?;
        let (count, found, seed) = (from.u32()?, from.u64()?, from.u64()?);
        let bins = from.bins()?.ok_or_else(|| malformed("no bins"))?;
        bins.valid()?;
        let each = from.u32()?;
        from.whole(length(count, bins.count(), each))?;
        if let Some(model) = model {
            same_model(model, found)?;
        }
        let features = from.list(count)?;
        let mut this = Samples::new(&features, bins, each as usize, seed)?.of_model(found);
        if this.features != features {
            return Err(malformed("its features do not ascend"));
        }
        let wrong = || malformed("a sample that no rows can give");
        let groups = bins.count() + 1;
        for group in 0..this.counts.len() {
            let held = from.u32()?;
            if held > each {
                return Err(wrong());
            }
            let feature = features.get(group / groups).copied().unwrap_or(0);
            let mut before: Option<Sampled> = None;
            for place in 0..each {
                let (value, row) = (from.f32()?, from.id()?);
                let one = Sampled {
                    hash: this.hash(feature, row),
                    row,
                    value,
                };
                if place >= held {
                    if value.to_bits() != 0 || row != Default::default() {
                        return Err(wrong());
                    }
                    continue;
                }
                let ascends = before.is_none_or(|before| before.key() < one.key());
                if value.is_nan() || this.bin(value) != group % groups || !ascends {
                    return Err(wrong());
                }
                before = Some(one);
                if let Some(slot) = this.kept.get_mut(group * each as usize + place as usize) {
                    *slot = one;
                }
            }
            if let Some(count) = this.counts.get_mut(group) {
                *count = held;
            }
        }
        Ok(this)
    }

    /// The samples as JSON, for other programs: of each feature, for each bin and for its inactive
    /// rows, lists of `[value, stream, position]`. `label` names features.
    pub fn to_json<'l>(&self, label: impl Fn(u32) -> Option<&'l str>) -> Value {
        let list = |of: &[Sampled]| -> Value {
            let rows = of.iter();
            rows.map(|one| json!([one.value, one.row.stream, one.row.position]))
                .collect()
        };
        let features = self.features.iter().map(|&feature| {
            let bins = (0..self.bins.count()).map(|bin| list(self.of(feature, bin)));
            json!({
                "feature": feature,
                "label": label(feature),
                "bins": bins.collect::<Vec<Value>>(),
                "inactive": list(self.inactive(feature)),
            })
        });
        let edges = (0..=self.bins.count()).map(|bin| self.bins.start(bin));
        json!({
            "format": "sae samples",
            "version": SNAPSHOT_VERSION,
            "model": alloc::format!("{:016x}", self.model),
            "seed": self.seed,
            "each": self.each,
            "bins": edges.collect::<Vec<f64>>(),
            "features": features.collect::<Vec<Value>>(),
        })
    }
}
