//! MOLT: a mixture of linear transforms in place of an MLP, of which each token uses a few
//! (Anthropic, "Sparse mixtures of linear transforms", 2025; maths from
//! OpenMOSS/Language-Model-SAEs, `molt.py`).
//!
//! ```text
//! f = activation(W_enc x + b)                       as in any other model
//! y = sum_i f_i U_i (V_i x) + b_dec                 U_i [d_out, r_i], V_i [r_i, d_in]
//! ```
//!
//! So decoding reads the input row, and costs r_i vectors of either kind for each feature that fires.
//! Numbers: `c_r = v_r . x` is an exact dot product; `round(round(f_i c_r) u_rj)` is added in f64, in
//! ascending order of features and r; the bias; one rounding to f32.

use crate::decode::{CANONICAL_NAN, add_amounts, inputs_missing};
use crate::encode::{check_width, load_row, products};
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::kernels::Level;
use crate::model::{Description, InputNorm, Matrix, Parts, Sae, Transforms};
use crate::monitor::{Collect, CompiledRules, Rules};
use crate::readout::FeatureSet;
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::vec::Vec;

/// A mixture of linear transforms. Immutable and shared between threads; each thread brings its
/// [`MoltScratch`].
#[derive(Debug)]
pub struct Molt<'a> {
    /// Encodes; its decoder is empty but for the bias.
    sae: Sae<'a>,
    transforms: Transforms<'a>,
}

/// The work space of one thread.
#[derive(Debug)]
pub struct MoltScratch {
    model: Scratch<'static>,
    /// Amounts of one transform, and the places of its vectors.
    amounts: Vec<f64>,
    places: Vec<u32>,
    /// Lanes of the column kernel.
    lanes: Vec<f64>,
}

impl<'a> Molt<'a> {
    /// Checks that parts with transforms fit together and makes a model of them; `decoder` is not
    /// read, but for its width.
    ///
    /// # Errors
    /// As [`Sae::from_parts`]; [`Error::InvalidArgument`] for parts without transforms, or with a
    /// normalisation that the output undoes or a skip connection.
    pub fn from_parts(mut parts: Parts<'a>) -> Result<Self, Error> {
        let wrong = |expected: &str, found: &str| Error::InvalidArgument {
            what: "parts of a mixture of transforms",
            expected: expected.into(),
            found: found.into(),
        };
        let Some(transforms) = parts.transforms.take() else {
            return Err(wrong("transforms", "none"));
        };
        if parts.undo_norm && parts.input_norm != InputNorm::None || parts.skip.is_some() {
            return Err(wrong("no normalisation to undo and no skip", "one"));
        }
        let (d_in, d_sae) = (parts.encoder.width(), parts.encoder.features());
        let d_out = parts.decoder.width();
        transforms.check(d_sae, d_in, d_out)?;
        parts.decoder = Matrix::empty("transforms", d_sae, d_out);
        Ok(Molt {
            sae: Sae::from_parts(parts)?,
            transforms,
        })
    }

    /// Values per input row.
    pub fn d_in(&self) -> usize {
        self.sae.d_in()
    }

    /// Number of features, each with a transform.
    pub fn d_sae(&self) -> usize {
        self.sae.d_sae()
    }

    /// Values per output row.
    pub fn d_out(&self) -> usize {
        self.sae.d_out()
    }

    /// The transforms.
    pub fn transforms(&self) -> &Transforms<'a> {
        &self.transforms
    }

    /// What `inspect` prints.
    pub fn description(&self) -> &Description {
        self.sae.description()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.sae.level()
    }

    /// The same model on another instruction set; the results have the same bits.
    ///
    /// # Errors
    /// [`Error::LevelUnavailable`]; never a fallback.
    pub fn with_level(self, level: Level) -> Result<Self, Error> {
        Ok(Molt {
            sae: self.sae.with_level(level)?,
            transforms: self.transforms,
        })
    }

    /// The same model selecting by another k.
    ///
    /// # Errors
    /// As [`Sae::with_k`].
    pub fn with_k(&self, k: usize) -> Result<Self, Error> {
        Ok(Molt {
            sae: self.sae.with_k(k)?,
            transforms: self.transforms.clone(),
        })
    }

    /// Work space for one thread.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn scratch(&self) -> Result<MoltScratch, Error> {
        let rank = self.transforms.rank();
        let lanes = crate::kernels::Kernels::COLUMN_LANES;
        Ok(MoltScratch {
            model: Scratch::new(&self.sae)?,
            amounts: reserved(rank)?,
            places: reserved(rank)?,
            lanes: reserved(rank.saturating_mul(lanes))?,
        })
    }

    /// As [`Sae::encode`].
    ///
    /// # Errors
    /// As [`Sae::encode`].
    pub fn encode(
        &self,
        rows: Rows<'_>,
        scratch: &mut MoltScratch,
        features: &mut Features,
    ) -> Result<(), Error> {
        self.sae.encode(rows, &mut scratch.model, features)
    }

    /// As [`Sae::compile_set`].
    ///
    /// # Errors
    /// As [`Sae::compile_set`].
    pub fn compile_set(&self, features: &[u32]) -> Result<FeatureSet, Error> {
        self.sae.compile_set(features)
    }

    /// As [`Sae::readout`].
    ///
    /// # Errors
    /// As [`Sae::readout`].
    pub fn readout(
        &self,
        set: &FeatureSet,
        rows: Rows<'_>,
        scratch: &mut MoltScratch,
        values: &mut [f32],
        status: &mut [RowStatus],
    ) -> Result<(), Error> {
        self.sae
            .readout(set, rows, &mut scratch.model, values, status)
    }

    /// The output of every row of `features`, `[rows, d_out]`, contiguous; `inputs` are the rows
    /// that were encoded. A row that is not finite becomes NaN throughout.
    ///
    /// # Errors
    /// As [`Sae::decode`] of a model that needs its inputs.
    pub fn decode(
        &self,
        features: &Features,
        inputs: Option<Rows<'_>>,
        scratch: &mut MoltScratch,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.sae.check_decoded(features, out)?;
        let rows = inputs.ok_or_else(inputs_missing)?;
        check_width(rows, self.d_in())?;
        if rows.rows() != features.rows() {
            return Err(Error::Length {
                what: "input rows of decode",
                expected: features.rows() as u64,
                found: rows.rows() as u64,
            });
        }
        let outputs = out.chunks_exact_mut(self.d_out());
        for (row, (found, out)) in features.iter().zip(outputs).enumerate() {
            self.decode_row(found, rows, row, scratch, out)?;
        }
        Ok(())
    }

    fn decode_row(
        &self,
        features: FeaturesRow<'_>,
        rows: Rows<'_>,
        row: usize,
        scratch: &mut MoltScratch,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let kernels = self.sae.kernels;
        let parts = self.sae.parts();
        let work = scratch.model.split(&self.sae)?;
        let finite = load_row(kernels, rows, row, work.raw);
        if features.status == RowStatus::NonFinite || !finite {
            out.fill(CANONICAL_NAN);
            return Ok(());
        }
        for (input, &value) in work.input.iter_mut().zip(work.raw.iter()) {
            *input = value as f32; // exact: rows hold no wider values
        }
        work.output.fill(0.0);
        for (&feature, &value) in features.indices.iter().zip(features.values) {
            let Some(one) = self.transforms.each.get(feature as usize) else {
                continue;
            };
            let scale = parts.decoder_scale.as_ref();
            let scale = scale.and_then(|scale| scale.get(feature as usize));
            let value = f64::from(value) * scale.copied().unwrap_or(1.0);
            let rank = one.rank();
            scratch.amounts.clear();
            scratch.amounts.resize(rank, 0.0);
            scratch.lanes.clear();
            let lanes = rank * crate::kernels::Kernels::COLUMN_LANES;
            scratch.lanes.resize(lanes, 0.0);
            scratch.places.clear();
            scratch.places.extend(0..rank as u32);
            let (amounts, lanes) = (&mut scratch.amounts, &mut scratch.lanes);
            products(kernels, &one.reads, 0, work.input, lanes, amounts);
            amounts.iter_mut().for_each(|amount| *amount *= value);
            let (places, sums) = (&scratch.places, &mut *work.output);
            add_amounts(kernels, &one.writes, places, amounts, sums);
        }
        if let Some(bias) = &parts.decoder_bias {
            for (sum, bias) in work.output.iter_mut().zip(bias) {
                *sum += bias;
            }
        }
        for (out, &sum) in out.iter_mut().zip(work.output.iter()) {
            let value = sum as f32;
            *out = if value.is_nan() { CANONICAL_NAN } else { value };
        }
        Ok(())
    }

    /// Checks rules against this model, for a monitor that is given its features
    /// ([`Monitor::observe_features`](crate::monitor::Monitor::observe_features)).
    ///
    /// # Errors
    /// As [`Sae::compile_rules`].
    pub fn compile_rules(&self, rules: &Rules) -> Result<CompiledRules, Error> {
        self.sae.compile_rules(rules)
    }

    /// Statistics of all features, as [`Collect::all`].
    pub fn collect_all(&self) -> Collect {
        Collect::all(&self.sae)
    }

    /// Statistics of these features, as [`Collect::features`].
    pub fn collect_features(&self, features: &[u32]) -> Collect {
        Collect::features(&self.sae, features)
    }

    /// Looks for NaN and infinite weights in every matrix.
    ///
    /// # Errors
    /// [`Error::BadValue`] with tensor and position.
    pub fn check_weights(&self) -> Result<(), Error> {
        self.sae.check_weights()?;
        for one in &self.transforms.each {
            one.reads.check_finite()?;
            one.writes.check_finite()?;
        }
        Ok(())
    }
}

/// Room for so many values.
fn reserved<T>(length: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(length)
        .map_err(|_| Error::OutOfMemory {
            what: "scratch",
            bytes: (length as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    Ok(values)
}
