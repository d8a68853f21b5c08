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

use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::Level;
use crate::model::{Description, InputNorm, Matrix, Parts, Sae, Transforms};
use crate::monitor::{Collect, CompiledRules, Rules};
use crate::readout::FeatureSet;
use crate::rows::Rows;
use crate::scratch::Scratch;
use crate::steer::{Batch, CompiledPlan, Conflicts, Plan, PlanCost, Report, SteerScratch};
use alloc::vec::Vec;

/// A mixture of linear transforms. Immutable and shared between threads; each thread brings its
/// [`MoltScratch`].
#[derive(Debug)]
pub struct Molt<'a> {
    /// Its decoder is empty but for the bias: it decodes by the transforms among its parts.
    sae: Sae<'a>,
}

/// The work space of one thread.
#[derive(Debug)]
pub struct MoltScratch {
    model: Scratch<'static>,
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
        let mut sae = Sae::from_parts(parts)?;
        sae.parts.transforms = Some(transforms);
        Ok(Molt { sae })
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
        const NONE: &Transforms<'_> = &Transforms { each: Vec::new() };
        self.sae.parts.transforms.as_ref().unwrap_or(NONE)
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
        })
    }

    /// The same model selecting by another k.
    ///
    /// # Errors
    /// As [`Sae::with_k`].
    pub fn with_k(&self, k: usize) -> Result<Self, Error> {
        Ok(Molt {
            sae: self.sae.with_k(k)?,
        })
    }

    /// Work space for one thread.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn scratch(&self) -> Result<MoltScratch, Error> {
        Ok(MoltScratch {
            model: Scratch::new(&self.sae)?,
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
        self.sae.decode(features, inputs, &mut scratch.model, out)
    }

    /// As [`Sae::plan_cost`]: the bytes of a feature are those of its transform.
    ///
    /// # Errors
    /// As [`Sae::plan_cost`].
    pub fn plan_cost(&self, plan: &Plan) -> Result<PlanCost, Error> {
        self.sae.plan_cost(plan)
    }

    /// As [`Sae::compile_plan`].
    ///
    /// # Errors
    /// As [`Sae::compile_plan`].
    pub fn compile_plan(&self, plan: &Plan) -> Result<CompiledPlan, Error> {
        self.sae.compile_plan(plan)
    }

    /// As [`Sae::compile_plans`].
    ///
    /// # Errors
    /// As [`Sae::compile_plans`].
    pub fn compile_plans(
        &self,
        plans: &[Plan],
        conflicts: Conflicts,
    ) -> Result<CompiledPlan, Error> {
        self.sae.compile_plans(plans, conflicts)
    }

    /// As [`Sae::constant_vector`], of directions alone: what a feature writes depends on the row.
    ///
    /// # Errors
    /// As [`Sae::constant_vector`].
    pub fn constant_vector(&self, plan: &CompiledPlan) -> Result<Vec<f32>, Error> {
        self.sae.constant_vector(plan)
    }

    /// Work space of one thread for these plans.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn steer_scratch(&self, plan: &CompiledPlan) -> Result<SteerScratch, Error> {
        SteerScratch::new(&self.sae, plan)
    }

    /// As [`Sae::steer`]; the change of a feature writes `(f'_i - f_i) U_i (V_i x)`, with x the
    /// row at the input site ([`Batch::inputs`]).
    ///
    /// # Errors
    /// As [`Sae::steer`].
    pub fn steer(
        &self,
        plan: &CompiledPlan,
        batch: Batch<'_>,
        scratch: &mut SteerScratch,
        report: &mut Report,
    ) -> Result<(), Error> {
        self.sae.steer(plan, batch, scratch, report)
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
        for one in &self.transforms().each {
            one.reads.check_finite()?;
            one.writes.check_finite()?;
        }
        Ok(())
    }
}
