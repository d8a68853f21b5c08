//! Snapshots of [`Quality`] and of [`ErrorModel`]: a binary form that comes back to the bit, and JSON
//! to be read.
//!
//! ```text
//! "SAEQUALI"  version u32  d_out u32  model u64  flags u32 (1: known mean, 2: error model)  u32 = 0
//! rows, non_finite, overflows, anomalous u64
//! known mean: d_out f64     error model: d_out + 4 f64 (weights, bias, R^2, deviation, limit)
//! the sums, 24 bytes each; without a known mean one more for each column; CRC-32 of all before
//!
//! "SAEERROR"  version u32  d u32  d + 3 f64 (weights, bias, R^2, deviation)  CRC-32
//! ```
//!
//! Little-endian throughout, as the snapshots of accumulators.

use super::error_model::ErrorModel;
use super::quality::{Quality, TERMS};
use super::stored::{MAX_COUNT, Reader, SNAPSHOT_VERSION, Writer, malformed, same_model};
use crate::error::Error;
use crate::model::Sae;
use alloc::vec::Vec;
use serde_json::{Value, json};

const MAGIC: &[u8; 8] = b"SAEQUALI";
const ERROR_MAGIC: &[u8; 8] = b"SAEERROR";
/// Bytes before the arrays.
const HEADER: u64 = 8 + 4 + 4 + 8 + 4 + 4 + 4 * 8;

fn length(d: u64, known_mean: bool, errors: bool) -> u64 {
    let about = if known_mean { 8 } else { 24 };
    let errors = if errors { 8 * (d + 4) } else { 0 };
    HEADER + about * d + errors + 24 * TERMS as u64 + 4
}

impl Quality {
    /// Bytes of [`Quality::to_bytes`].
    pub fn snapshot_len(&self) -> usize {
        length(self.d_out() as u64, self.known_mean, self.errors.is_some()) as usize
    }

    /// The binary snapshot.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Writer::with_room(self.snapshot_len())?;
        out.bytes(MAGIC);
        out.u32(SNAPSHOT_VERSION);
        out.u32(self.d_out() as u32);
        out.u64(self.model);
        out.u32(u32::from(self.known_mean) | u32::from(self.errors.is_some()) << 1);
        out.u32(0);
        let counts = [self.rows, self.non_finite, self.overflows, self.anomalous];
        counts.iter().for_each(|&count| out.u64(count));
        if self.known_mean {
            self.about.iter().for_each(|&value| out.f64(value));
        }
        if let Some((model, over)) = &self.errors {
            let rest = [model.bias, model.r_squared, model.deviation, *over];
            let numbers = model.weights.iter().chain(&rest);
            numbers.for_each(|&number| out.f64(number));
        }
        let sums = self.sums.iter().chain(&self.columns);
        sums.for_each(|&sum| out.sum(sum));
        Ok(out.finish())
    }

    /// Reads a snapshot that was made with this model. Nothing is allocated by a declared size.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Truncated`], [`Error::Checksum`];
    /// [`Error::UnsupportedContainer`] for another version; [`Error::InvalidValue`] for another
    /// model; [`Error::OutOfMemory`].
    pub fn from_bytes(bytes: &[u8], sae: &Sae<'_>) -> Result<Self, Error> {
        let mut from = Reader::new(bytes, MAGIC)?;
        let (d, model) = (from.u32()?, from.u64()?);
        let (flags, zero) = (from.u32()?, from.u32()?);
        if flags > 3 || zero != 0 {
            return Err(malformed(alloc::format!("flags {flags:#x}, {zero:#x}")));
        }
        let (known_mean, errors) = (flags & 1 == 1, flags & 2 == 2);
        from.whole(length(d.into(), known_mean, errors))?;
        let mut this = Self::make(sae, None)?;
        same_model(this.model, model)?;
        let d = d as usize;
        if d != this.d_out() {
            return Err(malformed(alloc::format!("{d} values per row")));
        }
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = from.u64()?;
        }
        let [rows, non_finite, overflows, anomalous] = counts;
        let beyond = counts.iter().any(|&count| count > MAX_COUNT);
        if beyond || anomalous > if errors { rows } else { 0 } {
            return Err(malformed("counts that no rows can give"));
        }
        if known_mean {
            this.about = from.f64s(d)?;
            this.known_mean = true;
            this.columns = Vec::new();
        }
        if errors {
            let mut weights = from.f64s(d)?;
            weights.shrink_to_fit();
            if let [bias, r_squared, deviation, over] = from.f64s(4)?[..] {
                let model = ErrorModel {
                    weights,
                    bias,
                    r_squared,
                    deviation,
                };
                this.errors = Some((model, over));
            }
        }
        (this.rows, this.non_finite) = (rows, non_finite);
        (this.overflows, this.anomalous) = (overflows, anomalous);
        for sum in this.sums.iter_mut().chain(&mut this.columns) {
            *sum = from.sum()?;
        }
        Ok(this)
    }

    /// [`Quality::summary`] as JSON, for other programs.
    pub fn to_json(&self) -> Value {
        let found = self.summary();
        json!({
            "format": "sae quality",
            "version": SNAPSHOT_VERSION,
            "model": alloc::format!("{:016x}", self.model),
            "rows": found.rows,
            "non_finite": found.non_finite,
            "overflows": found.overflows,
            "anomalous": self.errors.as_ref().map(|_| found.anomalous),
            "l0": found.l0,
            "l1": found.l1,
            "mse": found.mse,
            "fvu": found.fvu,
            "explained_variance": found.explained_variance,
            "cosine": found.cosine,
            "norm_ratio": found.norm_ratio,
            "reconstruction_bias": found.reconstruction_bias,
            "zf_deviation": found.zf_deviation,
            "afa_loss": found.afa_loss,
        })
    }
}

impl ErrorModel {
    /// Bytes of [`ErrorModel::to_bytes`].
    pub fn snapshot_len(&self) -> usize {
        Self::snapshot_len_of(self.weights.len())
    }

    /// Bytes of [`ErrorModel::to_bytes`] for rows of d values.
    pub fn snapshot_len_of(d: usize) -> usize {
        8 + 4 + 4 + 8 * (d + 3) + 4
    }

    /// The baseline as bytes, which come back to the bit.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Writer::with_room(self.snapshot_len())?;
        out.bytes(ERROR_MAGIC);
        out.u32(SNAPSHOT_VERSION);
        out.u32(self.weights.len() as u32);
        let rest = [self.bias, self.r_squared, self.deviation];
        let numbers = self.weights.iter().chain(&rest);
        numbers.for_each(|&number| out.f64(number));
        Ok(out.finish())
    }

    /// Reads what [`ErrorModel::to_bytes`] gave.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Truncated`], [`Error::Checksum`];
    /// [`Error::UnsupportedContainer`] for another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Reader::new(bytes, ERROR_MAGIC)?;
        let d = from.u32()?;
        from.whole(8 + 4 + 4 + 8 * (u64::from(d) + 3) + 4)?;
        let weights = from.f64s(d as usize)?;
        let [bias, r_squared, deviation] = from.f64s(3)?[..] else {
            return Err(malformed("numbers are missing"));
        };
        Ok(ErrorModel {
            weights,
            bias,
            r_squared,
            deviation,
        })
    }

    /// The baseline as JSON, to be read.
    pub fn to_json(&self) -> Value {
        json!({
            "format": "sae error model",
            "version": SNAPSHOT_VERSION,
            "weights": self.weights,
            "bias": self.bias,
            "r_squared": self.r_squared,
            "deviation": self.deviation,
        })
    }
}
