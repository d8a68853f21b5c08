//! Steering: edits of features and directions, written into activation rows in place.
//!
//! ```text
//! y' = y + g(x) * sum over edited features i of (f'_i - f_i(x)) d_i  +  sum over directions c_k v_k
//! ```
//!
//! x is the row at the input site, y the row at the output site (the same, but for transcoders);
//! `f_i(x)` is the value that [`encode`](crate::Sae::encode) reports, of the row as it was, for all
//! edits of all plans; `d_i` is the decoder row with its scale; g undoes the normalisation of the
//! input (sigma for layer norm, `|x| / sqrt(d)` for constant norm, else 1). The decoder's bias and
//! the reconstruction error cancel, so nothing but the edit changes. Directions are vectors in the
//! space of y; g does not touch them.
//!
//! What a feature of a mixture of transforms writes is `(f'_i - f_i) U_i (V_i x)` in place of
//! `(f'_i - f_i) d_i`; of a multi-target coder it is what f' writes less what f writes, of all targets.
//! A Lorsa's features depend on the rows before, so its plans are given them
//! ([`Lorsa::steer`](crate::Lorsa::steer)).
//!
//! Where an edit's value needs no other features (threshold rules, absolute strengths), steering m
//! features costs m encoder and m decoder rows. Ranking rules (TopK), strengths relative to the
//! current maximum, gates on the reconstruction, `keep_only`, scores and `error: drop` need a full
//! encode: [`Sae::plan_cost`](crate::Sae::plan_cost) says so before it is paid.
//!
//! A plan is data ([`Plan`], JSON or Rust), compiled once against a model
//! ([`Sae::compile_plan`](crate::Sae::compile_plan)), then applied by
//! [`Sae::steer`](crate::Sae::steer):
//!
//! ```
//! # fn main() -> Result<(), sae::Error> {
//! use sae::steer::{Batch, Edit, Outcome, Plan, Report, SteerScratch};
//! use sae::{OpenOptions, RowsMut, Sae};
//! # let (name, bytes, config) = sae::doc_example::tiny();
//! let sae = Sae::from_bytes(&name, &bytes, Some(&config), &OpenOptions::default())?;
//! let plan = sae.compile_plan(&Plan::new("more of 0").edit(Edit::set(0, 4.0)))?;
//! let mut scratch = SteerScratch::new(&sae, &plan)?; // one per thread
//! let mut report = Report::new(&plan);
//! let mut row = [1.0, -2.0]; // feature 0 has the value 1 here
//! let batch = Batch::new(RowsMut::from_f32(&mut row, 2)?);
//! sae.steer(&plan, batch, &mut scratch, &mut report)?;
//! assert_eq!(row, [4.0, -2.0]);
//! assert_eq!(report.count(Outcome::Edited), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Numbers
//!
//! Values come from the one dot product and the one rule that `encode` uses. Changes are f64: the
//! amounts `(f'_i - f_i) decoder_scale_i` meet their decoder rows in ascending order of features,
//! the sum is multiplied by g, directions are added, y is added, and the result is rounded once to
//! the row's format. A value that does not change keeps its bytes, and so does every row that is
//! filtered, whose condition does not hold, that is not finite or would not be, or that its budget
//! refuses. With `error: drop` the result is what [`decode`](crate::Sae::decode) makes of f', to
//! the bit.
//!
//! The rules are in [`Rule`]; whole methods from papers are in [`recipes`].

mod apply;
mod batch;
mod build;
mod change;
mod compile;
mod compiled;
mod decompose;
mod direct;
mod edit;
mod hash;
mod json;
mod json_write;
mod member;
mod plan;
mod read;
pub mod recipes;
mod scratch;
mod statistics;
mod vector;

pub(crate) use plan::name_of;

pub use batch::{Audit, Batch, Outcome, Report, RowInfo};
pub use compiled::{CompiledPlan, PlanCost};
pub use decompose::{Decomposition, Projection, VectorPart};
pub use plan::{
    Budget, Condition, Conflicts, Direction, Edit, ErrorTerm, Mask, OverBudget, Plan, Reads,
    RowFilter, Rule, Scale, Scope, ScoreMode, Stage, Strength, Target,
};
pub use scratch::SteerScratch;
pub use statistics::{FeatureStatistics, Statistics};
