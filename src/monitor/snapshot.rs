//! Snapshots of accumulators: a binary form that comes back to the bit, and JSON to be read.
//!
//! ```text
//! "SAESTATS"  version u32 = 1  d_sae u32  model u64
//! top u32  conditions u32  flags u32 (1: features listed, 2: label, 4: half-life)
//! bins: kind u32 (0 none, 1 log, 2 linear), two u32 (split, first and end as bytes; width, count)
//! thresholds u32  set u32  features u32  half-life f64
//! then the lists and arrays in the order of `Accumulator`'s fields, then CRC-32 of all before
//! ```
//!
//! Little-endian throughout, no padding, no pointer-sized numbers: the same bytes on every machine.

use super::accumulator::{Accumulator, Cell, Hits, Labelled, Part, TopRow, Totals};
use super::collect::Collect;
use super::stored::{MAX_COUNT, Reader, SNAPSHOT_VERSION, Writer, malformed, same_model};
use crate::error::Error;
use alloc::vec::Vec;
use serde_json::{Value, json};

const MAGIC: &[u8; 8] = b"SAESTATS";
/// Bytes before the lists.
const HEADER: usize = 8 + 4 + 4 + 8 + 3 * 4 + 3 * 4 + 3 * 4 + 8;

impl Accumulator {
    /// Bytes of [`Accumulator::to_bytes`].
    pub fn snapshot_len(&self) -> usize {
        length(&self.collect).map_or(0, |length| length as usize)
    }

    /// The binary snapshot.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Writer::with_room(self.snapshot_len())?;
        let collect = &self.collect;
        out.bytes(MAGIC);
        out.u32(SNAPSHOT_VERSION);
        out.u32(collect.d_sae);
        out.u64(collect.model);
        out.u32(collect.top);
        out.u32(collect.conditions);
        let flags = [
            collect.features.is_some(),
            collect.label,
            collect.half_life.is_some(),
        ];
        out.u32(
            (0..)
                .zip(flags)
                .map(|(bit, set)| u32::from(set) << bit)
                .sum(),
        );
        out.bins(collect.bins);
        out.u32(collect.thresholds.len() as u32);
        out.u32(collect.cooccurrence.len() as u32);
        out.u32(collect.features.as_ref().map_or(0, Vec::len) as u32);
        out.u64(collect.half_life.unwrap_or(0.0).to_bits());
        for list in [
            collect.features.as_deref().unwrap_or(&[]),
            &collect.cooccurrence,
        ] {
            list.iter().for_each(|&feature| out.u32(feature));
        }
        for threshold in &collect.thresholds {
            out.u32(threshold.to_bits());
        }
        let totals = &self.totals;
        for count in [
            totals.rows,
            totals.non_finite,
            totals.nan_pre_activations,
            totals.overflows,
            totals.labelled,
            totals.positives,
        ] {
            out.u64(count);
        }
        out.sum(totals.label_sum);
        out.sum(totals.label_squares);
        for cell in &self.cells {
            out.u64(cell.fired);
            out.sum(cell.sum);
            out.sum(cell.squares);
            out.u32(cell.max.to_bits());
            out.u32(cell.min.to_bits());
            out.id(cell.max_at);
            out.u64(cell.last);
            out.u64(cell.average.to_bits());
        }
        self.histograms.iter().for_each(|&count| out.u64(count));
        for top in &self.tops {
            out.u32(top.value.to_bits());
            out.id(top.row);
        }
        let counts = self.pairs.iter().chain(&self.condition_rows);
        counts.for_each(|&count| out.u64(count));
        for part in &self.parts {
            out.u64(part.fired);
            out.sum(part.sum);
        }
        for sums in &self.labelled {
            for sum in [sums.sum, sums.squares, sums.products] {
                out.sum(sum);
            }
        }
        for hits in &self.hits {
            out.u64(hits.positive);
            out.u64(hits.negative);
        }
        Ok(out.finish())
    }

    /// Reads a snapshot of the model with this fingerprint, or of any (`None`). Nothing is
    /// allocated by a declared size before it agrees with the bytes that are there.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Truncated`], [`Error::Checksum`];
    /// [`Error::UnsupportedContainer`] for another version; [`Error::InvalidValue`] for another
    /// model.
    pub fn from_bytes(bytes: &[u8], model: Option<u64>) -> Result<Self, Error> {
        let mut from = Reader::new(bytes, MAGIC)?;
        let collect = from.collect()?;
        let expected = length(&collect).ok_or_else(|| malformed("its sizes overflow"))?;
        from.whole(expected)?;
        if let Some(model) = model {
            same_model(model, collect.model)?;
        }
        let mut this = Accumulator::new(collect.clone())?;
        if this.collect != collect {
            return Err(malformed("its lists of features do not ascend"));
        }
        from.arrays(&mut this)?;
        this.check_counts()?;
        Ok(this)
    }

    /// What no sequence of rows can give.
    fn check_counts(&self) -> Result<(), Error> {
        let rows = self.totals.rows;
        let cells = self.cells.iter();
        let wrong = cells
            .filter(|cell| {
                cell.fired > rows || cell.last > rows || (cell.last == 0) != (cell.fired == 0)
            })
            .count();
        let labels = self.totals.positives > self.totals.labelled || self.totals.labelled > rows;
        let negatives = self.totals.labelled.saturating_sub(self.totals.positives);
        let hits = self
            .hits
            .iter()
            .any(|hits| hits.positive > self.totals.positives || hits.negative > negatives);
        let totals = &self.totals;
        let beyond = [rows, totals.non_finite, totals.overflows]
            .iter()
            .any(|&n| n > MAX_COUNT)
            || totals.nan_pre_activations > rows;
        let mut of_rows = self.histograms.iter().chain(&self.pairs);
        let more = of_rows.any(|&count| count > rows);
        let mut under = self.condition_rows.iter();
        let under = under.try_fold(0u64, |sum, &count| sum.checked_add(count));
        let apart = under.is_none_or(|sum| sum > rows);
        let conditions = self.condition_rows.len().max(1);
        let parts = self.parts.chunks(conditions).any(|parts| {
            let mut pairs = parts.iter().zip(&self.condition_rows);
            pairs.any(|(part, &rows)| part.fired > rows)
        });
        match wrong > 0 || labels || hits || beyond || more || apart || parts {
            true => Err(malformed("counts that no rows can give")),
            false => Ok(()),
        }
    }

    /// The statistics as JSON, for other programs: counts, and numbers formed from the sums.
    /// Features that never fired are left out. `label` names features.
    pub fn to_json<'l>(&self, label: impl Fn(u32) -> Option<&'l str>) -> Value {
        let collect = &self.collect;
        let features = self.summaries().filter(|one| one.fired > 0).map(|one| {
            let mut value = json!({
                "feature": one.feature,
                "fired": one.fired,
                "density": one.density,
                "mean": one.mean,
                "mean_active": one.mean_active,
                "deviation": libm::sqrt(one.variance),
                "max": one.max,
                "max_at": [one.max_at.stream, one.max_at.position],
                "min": one.min,
                "rows_since": one.rows_since,
            });
            let mut set = |key: &str, found: Value| {
                if let Some(map) = value.as_object_mut() {
                    map.insert(key.into(), found);
                }
            };
            if let Some(label) = label(one.feature) {
                set("label", label.into());
            }
            if let Some(rate) = one.rate {
                set("rate", rate.into());
            }
            if collect.bins.is_some() {
                set("histogram", self.histogram(one.feature).into());
            }
            if collect.top > 0 {
                let rows = self.top(one.feature).iter();
                let rows = rows.map(|top| json!([top.value, top.row.stream, top.row.position]));
                set("top", rows.collect());
            }
            if let Some(correlation) = self.correlation(one.feature) {
                set("correlation", correlation.into());
            }
            if collect.conditions > 0 {
                let parts = (0..collect.conditions).filter_map(|c| self.under(one.feature, c));
                set(
                    "conditions",
                    parts.map(|(fired, sum)| json!([fired, sum])).collect(),
                );
            }
            value
        });
        let features: Vec<Value> = features.collect();
        let bins = collect.bins.map(|bins| {
            let edges = (0..=bins.count()).map(|bin| bins.start(bin));
            edges.collect::<Vec<f64>>()
        });
        json!({
            "format": "sae statistics",
            "version": SNAPSHOT_VERSION,
            "model": alloc::format!("{:016x}", collect.model),
            "d_sae": collect.d_sae,
            "collected": collect.slots(),
            "rows": self.rows(),
            "non_finite": self.non_finite(),
            "nan_pre_activations": self.nan_pre_activations(),
            "overflows": self.overflows(),
            "bins": bins,
            "conditions": self.condition_rows,
            "dead": self.dead().len(),
            "description_length": self.description_length().ok(),
            "features": features,
        })
    }
}

/// Bytes of a snapshot that collects this.
fn length(collect: &Collect) -> Option<u64> {
    let slots = collect.slots() as u64;
    let set = collect.cooccurrence.len() as u64;
    let bins = collect.bins.map_or(0, |bins| bins.count() as u64);
    let per_slot = [
        8 + 24 + 24 + 4 + 4 + 16 + 8 + 8,
        8 * bins,
        20 * u64::from(collect.top),
        32 * u64::from(collect.conditions),
        if collect.label { 72 } else { 0 },
        16 * collect.thresholds.len() as u64,
    ];
    let per_slot: u64 = per_slot.iter().sum();
    let listed = collect.features.as_ref().map_or(0, Vec::len) as u64;
    let rest = HEADER as u64
        + 4 * (listed + set + collect.thresholds.len() as u64)
        + 6 * 8
        + 2 * 24
        + 8 * set * set
        + 8 * u64::from(collect.conditions)
        + 4;
    slots.checked_mul(per_slot)?.checked_add(rest)
}

impl Reader<'_> {
    fn collect(&mut self) -> Result<Collect, Error> {
        let d_sae = self.u32()?;
        let model = self.u64()?;
        let (top, conditions, flags) = (self.u32()?, self.u32()?, self.u32()?);
        let bins = self.bins()?;
        if flags > 7 {
            return Err(malformed(alloc::format!("flags {flags:#x}")));
        }
        let (thresholds, set, features) = (self.u32()?, self.u32()?, self.u32()?);
        let half_life = f64::from_bits(self.u64()?);
        let features = self.list(features)?;
        let cooccurrence = self.list(set)?;
        let thresholds = self.list(thresholds)?;
        if flags & 1 == 0 && !features.is_empty() {
            return Err(malformed("a list of features without its flag"));
        }
        Ok(Collect {
            model,
            d_sae,
            features: (flags & 1 == 1).then_some(features),
            bins,
            top,
            cooccurrence,
            conditions,
            label: flags & 2 == 2,
            thresholds: thresholds.into_iter().map(f32::from_bits).collect(),
            half_life: (flags & 4 == 4).then_some(half_life),
        })
    }

    fn arrays(&mut self, to: &mut Accumulator) -> Result<(), Error> {
        to.totals = Totals {
            rows: self.u64()?,
            non_finite: self.u64()?,
            nan_pre_activations: self.u64()?,
            overflows: self.u64()?,
            labelled: self.u64()?,
            positives: self.u64()?,
            label_sum: self.sum()?,
            label_squares: self.sum()?,
        };
        for cell in &mut to.cells {
            *cell = Cell {
                fired: self.u64()?,
                sum: self.sum()?,
                squares: self.sum()?,
                max: self.f32()?,
                min: self.f32()?,
                max_at: self.id()?,
                last: self.u64()?,
                average: f64::from_bits(self.u64()?),
            };
            if cell.max.is_nan() || cell.min.is_nan() || !cell.average.is_finite() {
                return Err(malformed("a NaN among its numbers"));
            }
        }
        for count in &mut to.histograms {
            *count = self.u64()?;
        }
        for top in &mut to.tops {
            *top = TopRow {
                value: self.f32()?,
                row: self.id()?,
            };
        }
        for count in to.pairs.iter_mut().chain(&mut to.condition_rows) {
            *count = self.u64()?;
        }
        for part in &mut to.parts {
            *part = Part {
                fired: self.u64()?,
                sum: self.sum()?,
            };
        }
        for sums in &mut to.labelled {
            *sums = Labelled {
                sum: self.sum()?,
                squares: self.sum()?,
                products: self.sum()?,
            };
        }
        for hits in &mut to.hits {
            *hits = Hits {
                positive: self.u64()?,
                negative: self.u64()?,
            };
        }
        Ok(())
    }
}
