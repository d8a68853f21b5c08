//! How alike the inputs are on which a feature fires.

use super::accumulator::filled;
use super::stored::{MAX_COUNT, Reader, SNAPSHOT_VERSION, Writer, malformed, same_model};
use super::sum::Sum;
use crate::error::Error;
use crate::features::{FeaturesRow, RowStatus};
use alloc::vec::Vec;
use serde_json::{Value, json};

const MAGIC: &[u8; 8] = b"SAEMONOS";
/// Bytes before the list of features.
const HEADER: u128 = 8 + 4 + 4 + 4 + 8 + 3 * 8;
/// Values of this magnitude and beyond are counted: their squares would leave the range of a sum.
const VALUE_LIMIT: f32 = 2_147_483_648.0; // 2^31

/// MonoSemanticity of features: the mean cosine of all pairs of inputs, each pair weighted by the
/// product of the feature's values on both. 1 for a feature that fires on inputs that are all alike.
///
/// With unit embeddings e and values a it is `(|sum a e|^2 - sum a^2) / ((sum a)^2 - sum a^2)`, so no
/// pairs are kept: d sums of 24 bytes per feature. Scaling all values of a feature changes nothing, so
/// the paper's scaling to at most 1 is there; values must not be negative. The sums are exact in units
/// of 2^-96, as those of an [`Accumulator`](super::Accumulator): merging and the order of inputs change
/// no bit.
#[derive(Clone, Debug)]
pub struct Monosemanticity {
    features: Vec<u32>,
    d: usize,
    model: u64,
    rows: u64,
    skipped: u64,
    overflows: u64,
    /// `[features, d]`
    directions: Vec<Sum>,
    sums: Vec<Sum>,
    squares: Vec<Sum>,
    unit: Vec<f64>,
}

/// Bytes of a snapshot of so many features; more than there is memory if it does not fit.
fn length(features: usize, d: usize) -> u64 {
    let per = 4 + 24 * (d as u128 + 2);
    u64::try_from(HEADER + features as u128 * per + 4).unwrap_or(u64::MAX)
}

impl Monosemanticity {
    /// Nothing seen yet, of these features and of embeddings of d values.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(features: &[u32], d: usize) -> Result<Self, Error> {
        let mut features = features.to_vec();
        features.sort_unstable();
        features.dedup();
        let n = features.len();
        Ok(Monosemanticity {
            d,
            model: 0,
            rows: 0,
            skipped: 0,
            overflows: 0,
            directions: filled(n.saturating_mul(d), Sum::default())?,
            sums: filled(n, Sum::default())?,
            squares: filled(n, Sum::default())?,
            unit: filled(if n == 0 { 0 } else { d }, 0.0)?,
            features,
        })
    }

    /// Of the model with this [`fingerprint`](crate::Sae::fingerprint): snapshots carry it, and what is
    /// of another model does not merge. Without it, 0.
    #[must_use]
    pub fn of_model(self, fingerprint: u64) -> Self {
        Monosemanticity {
            model: fingerprint,
            ..self
        }
    }

    /// Bytes held, which never change.
    pub fn bytes(&self) -> u64 {
        let lists = size_of_val(&self.features[..])
            + size_of_val(&self.directions[..])
            + size_of_val(&self.sums[..])
            + size_of_val(&self.squares[..])
            + size_of_val(&self.unit[..]);
        (lists + size_of::<Self>()) as u64
    }

    /// Inputs that entered, inputs that were left out (not finite, or with an embedding of length 0 or
    /// beyond the range of f64), and values of 2^31 and beyond, which entered nothing.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.rows, self.skipped, self.overflows)
    }

    /// Adds an input: its features, and its embedding by whatever model tells inputs apart. One
    /// that is not finite, or an embedding of length 0, is left out; so are negative values.
    /// Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Length`] if the embedding has another length.
    pub fn add(&mut self, row: FeaturesRow<'_>, embedding: &[f32]) -> Result<(), Error> {
        if embedding.len() != self.d {
            return Err(Error::Length {
                what: "values of an embedding",
                expected: self.d as u64,
                found: embedding.len() as u64,
            });
        }
        let squares: f64 = embedding.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let usable = squares > 0.0 && squares.is_finite();
        if row.status == RowStatus::NonFinite || !usable {
            self.skipped += 1;
            return Ok(());
        }
        self.rows += 1;
        let length = libm::sqrt(squares);
        for (unit, &x) in self.unit.iter_mut().zip(embedding) {
            *unit = f64::from(x) / length;
        }
        for (&index, &value) in row.indices.iter().zip(row.values) {
            let (Ok(slot), true) = (self.features.binary_search(&index), value > 0.0) else {
                continue;
            };
            if value >= VALUE_LIMIT {
                self.overflows += 1;
                continue;
            }
            let value = f64::from(value);
            let direction = self.directions.get_mut(slot * self.d..(slot + 1) * self.d);
            for (sum, unit) in direction.unwrap_or(&mut []).iter_mut().zip(&self.unit) {
                sum.add(value * unit);
            }
            for (sums, term) in [(&mut self.sums, value), (&mut self.squares, value * value)] {
                if let Some(sum) = sums.get_mut(slot) {
                    sum.add(term);
                }
            }
        }
        Ok(())
    }

    /// The score of a feature; `None` if it is not among them or fired on fewer than two inputs.
    pub fn score(&self, feature: u32) -> Option<f64> {
        let slot = self.features.binary_search(&feature).ok()?;
        let direction = self.directions.get(slot * self.d..(slot + 1) * self.d)?;
        let (sum, squares) = (
            self.sums.get(slot)?.value(),
            self.squares.get(slot)?.value(),
        );
        let pairs = sum * sum - squares;
        let length: f64 = direction.iter().map(|x| x.value() * x.value()).sum();
        // Of one input alone nothing is left but rounding.
        (pairs > sum * sum * 1e-12).then(|| (length - squares) / pairs)
    }

    /// Adds what another one has seen: the bits of one pass over the inputs of both.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is of other features, another width or another model.
    pub fn merge(&mut self, other: &Monosemanticity) -> Result<(), Error> {
        let key = |of: &Monosemanticity| (of.features.clone(), of.d, of.model);
        if key(self) != key(other) {
            return Err(Error::InvalidArgument {
                what: "monosemanticity to merge",
                expected: "of the same features, width and model".into(),
                found: "another".into(),
            });
        }
        self.rows = self.rows.saturating_add(other.rows);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.overflows = self.overflows.saturating_add(other.overflows);
        for (to, from) in [
            (&mut self.directions, &other.directions),
            (&mut self.sums, &other.sums),
            (&mut self.squares, &other.squares),
        ] {
            to.iter_mut()
                .zip(from)
                .for_each(|(to, &from)| to.merge(from));
        }
        Ok(())
    }

    /// Bytes of [`Monosemanticity::to_bytes`].
    pub fn snapshot_len(&self) -> usize {
        length(self.features.len(), self.d) as usize
    }

    /// The binary snapshot, which comes back to the bit:
    ///
    /// ```text
    /// "SAEMONOS"  version u32  d u32  features u32  model u64  rows, skipped, overflows u64
    /// the features, u32 each, ascending; the sums of a e: [features, d], of a, of a^2: 24 bytes each
    /// CRC-32 of all before
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Writer::with_room(self.snapshot_len())?;
        out.bytes(MAGIC);
        out.u32(SNAPSHOT_VERSION);
        out.u32(self.d as u32);
        out.u32(self.features.len() as u32);
        out.u64(self.model);
        for count in [self.rows, self.skipped, self.overflows] {
            out.u64(count);
        }
        self.features.iter().for_each(|&feature| out.u32(feature));
        let sums = self.directions.iter().chain(&self.sums);
        sums.chain(&self.squares).for_each(|&sum| out.sum(sum));
        Ok(out.finish())
    }

    /// Reads a snapshot of the model with this fingerprint, or of any (`None`). Nothing is allocated
    /// by a declared size before it agrees with the bytes that are there.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Truncated`], [`Error::Checksum`];
    /// [`Error::UnsupportedContainer`] for another version; [`Error::InvalidValue`] for another
    /// model; [`Error::OutOfMemory`].
    pub fn from_bytes(bytes: &[u8], model: Option<u64>) -> Result<Self, Error> {
        let mut from = Reader::new(bytes, MAGIC)?;
        let (d, count, found) = (from.u32()?, from.u32()?, from.u64()?);
        from.whole(length(count as usize, d as usize))?;
        if let Some(model) = model {
            same_model(model, found)?;
        }
        let counts = [from.u64()?, from.u64()?, from.u64()?];
        let features = from.list(count)?;
        let mut this = Self::new(&features, d as usize)?.of_model(found);
        if this.features != features || counts.iter().any(|&count| count > MAX_COUNT) {
            return Err(malformed(
                "features that do not ascend, or too large counts",
            ));
        }
        [this.rows, this.skipped, this.overflows] = counts;
        let sums = this.directions.iter_mut().chain(&mut this.sums);
        for sum in sums.chain(&mut this.squares) {
            *sum = from.sum()?;
        }
        Ok(this)
    }

    /// The scores as JSON, for other programs; null for features that fired on fewer than two inputs.
    /// `label` names features.
    pub fn to_json<'l>(&self, label: impl Fn(u32) -> Option<&'l str>) -> Value {
        let features = self.features.iter().map(|&feature| {
            json!({
                "feature": feature,
                "label": label(feature),
                "score": self.score(feature),
            })
        });
        json!({
            "format": "sae monosemanticity",
            "version": SNAPSHOT_VERSION,
            "model": alloc::format!("{:016x}", self.model),
            "rows": self.rows,
            "skipped": self.skipped,
            "overflows": self.overflows,
            "features": features.collect::<Vec<Value>>(),
        })
    }
}
