//! Steering a Lorsa's output: plans act on the features that [`Lorsa::encode`] gave, so a row enters
//! the cache once, however much is done with it.

use super::Lorsa;
use crate::error::Error;
use crate::features::Features;
use crate::steer::{Batch, CompiledPlan, Conflicts, Plan, PlanCost, Report, SteerScratch};
use alloc::vec::Vec;

impl Lorsa<'_> {
    /// As [`Sae::plan_cost`](crate::Sae::plan_cost); the features come from an encode in any case.
    ///
    /// # Errors
    /// As [`Lorsa::compile_plan`], but for memory.
    pub fn plan_cost(&self, plan: &Plan) -> Result<PlanCost, Error> {
        self.sae.plan_cost(plan)
    }

    /// As [`Sae::compile_plan`](crate::Sae::compile_plan).
    ///
    /// # Errors
    /// As [`Sae::compile_plan`](crate::Sae::compile_plan); [`Error::InvalidValue`] with the path of
    /// what needs pre-activations (`reads`, `scores`), which features do not say.
    pub fn compile_plan(&self, plan: &Plan) -> Result<CompiledPlan, Error> {
        self.sae.compile_plan(plan)
    }

    /// As [`Sae::compile_plans`](crate::Sae::compile_plans).
    ///
    /// # Errors
    /// As [`Lorsa::compile_plan`], with paths that begin with `plans[1].`.
    pub fn compile_plans(
        &self,
        plans: &[Plan],
        conflicts: Conflicts,
    ) -> Result<CompiledPlan, Error> {
        self.sae.compile_plans(plans, conflicts)
    }

    /// As [`Sae::constant_vector`](crate::Sae::constant_vector).
    ///
    /// # Errors
    /// As [`Sae::constant_vector`](crate::Sae::constant_vector).
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

    /// Steers every row of the batch, which are rows of the layer's output, in place: as
    /// [`Sae::steer`](crate::Sae::steer), with the features of the rows as they were.
    ///
    /// `features` has a row for each row of the batch; a row whose status is not Ok is left alone.
    /// `sources` are the features of the rows that `from_source` edits read;
    /// [`Batch::inputs`] and [`Batch::sources`] are not. Allocates only to hold more features than
    /// ever before.
    ///
    /// # Errors
    /// As [`Sae::steer`](crate::Sae::steer); [`Error::Length`] for another number of rows of
    /// features, [`Error::FeatureOutOfRange`]. No row is changed then.
    pub fn steer(
        &self,
        plan: &CompiledPlan,
        features: &Features,
        sources: Option<&Features>,
        batch: Batch<'_>,
        scratch: &mut SteerScratch,
        report: &mut Report,
    ) -> Result<(), Error> {
        self.sae
            .steer_known(plan, (features, sources), batch, scratch, report)
    }
}
